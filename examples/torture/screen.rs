//! What there is to see on a terminal, and the keys. Without a terminal there is neither.
//!
//! Whatever ends the program, the terminal is as before: the drop restores it, before a panic is printed the hook of panics does, and signals that would
//! end the program are read as a wish to stop.

use crate::crew::{Crew, Fatal};
use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::style::{Print, Stylize};
use crossterm::terminal::{self, Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::{cursor, execute, queue};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// The longest bar.
const BAR: usize = 60;

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// Kill the worker at this place.
    Kill(usize),
    /// Kill all.
    KillAll,
    /// Stop, and show the result.
    Enough,
}

/// The terminal, if there is one.
#[derive(Debug)]
pub(crate) struct Screen {
    is_there: bool,
    asked_to_stop: Arc<AtomicBool>,
}

impl Screen {
    /// Takes the terminal for itself.
    pub(crate) fn open() -> Result<Screen, Fatal> {
        let asked_to_stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, asked_to_stop.clone())?;
        }
        let is_there = io::stdin().is_terminal() && io::stdout().is_terminal();
        let screen = Screen { is_there, asked_to_stop };
        if is_there {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                restore();
                before(panic);
            }));
            terminal::enable_raw_mode()?;
            execute!(io::stdout(), EnterAlternateScreen, cursor::Hide)?;
        }
        Ok(screen)
    }

    /// What is pressed within `time`.
    pub(crate) fn keys(&self, time: Duration) -> Result<Vec<Key>, Fatal> {
        let mut keys = Vec::new();
        // Relaxed: nothing is read through it.
        if self.asked_to_stop.load(Ordering::Relaxed) {
            keys.push(Key::Enough);
        }
        if !self.is_there {
            thread::sleep(time);
            return Ok(keys);
        }
        let mut time = time;
        while event::poll(time)? {
            if let Event::Key(key) = event::read()?
                && key.kind != KeyEventKind::Release
            {
                let control = key.modifiers.contains(KeyModifiers::CONTROL);
                keys.extend(match key.code {
                    KeyCode::Char('c') if control => Some(Key::Enough),
                    KeyCode::Char('q') | KeyCode::Esc => Some(Key::Enough),
                    KeyCode::Char('a') => Some(Key::KillAll),
                    KeyCode::Char(digit @ '1'..='9') => Some(Key::Kill(digit as usize - '1' as usize)),
                    _ => None,
                });
            }
            time = Duration::ZERO;
        }
        Ok(keys)
    }

    /// Shows who does what, out of `blocks`, and what has happened.
    pub(crate) fn draw(&self, crew: &Crew, blocks: u64) -> Result<(), Fatal> {
        if !self.is_there {
            return Ok(());
        }
        let (columns, rows) = terminal::size()?;
        let total = usize::try_from(blocks.max(crew.given()))?;
        let filled = BAR * crew.done() / total.max(1);
        let mut lines = vec![
            "key  pid      state       holds".to_owned(),
            String::new(),
            format!("{}{}  {} of {total} blocks", "#".repeat(filled), ".".repeat(BAR - filled), crew.done()),
            crew.tally().to_string(),
            String::new(),
            "1-9: kill -9 that worker   a: all of them   q: enough".to_owned(),
        ];
        lines.splice(1..1, (1..).zip(crew.stages()).map(|(key, (pid, stage))| format!("{key:<3}  {pid:<7}  {stage}")));
        let tally = lines.len() - 3;
        let mut out = io::stdout().lock();
        for (row, line) in (0..rows).zip(&lines) {
            // No wider than the terminal, or the line would go on in the next one.
            let line: String = line.chars().take(usize::from(columns)).collect();
            let line = if usize::from(row) == tally { line.bold() } else { line.stylize() };
            queue!(out, cursor::MoveTo(0, row), Print(line), Clear(ClearType::UntilNewLine))?;
        }
        queue!(out, Clear(ClearType::FromCursorDown))?;
        out.flush()?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.is_there {
            restore();
        }
    }
}

/// Gives the terminal back. Nothing can be done about a terminal that does not want to be.
fn restore() {
    let _ = execute!(io::stdout(), LeaveAlternateScreen, cursor::Show);
    let _ = terminal::disable_raw_mode();
}
