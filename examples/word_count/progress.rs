//! How far the counting is, on stderr, when that is a terminal.
//!
//! Shows what the shared counters say and decides nothing; elsewhere than on a terminal it writes nothing. Drawn by
//! `indicatif`, at most twenty times a second however often it is told. Nothing lies below.

use std::io::{self, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const KNOWN: &str = "{wide_bar} {bytes} of {total_bytes}, {msg}, {bytes_per_sec}";
const UNKNOWN: &str = "{bytes}, {msg}, {bytes_per_sec}";

/// A bar for bytes, and a number for chunks. Disappears when dropped.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// For `total` bytes, or for as many as come.
    pub(crate) fn new(total: Option<u64>) -> Progress {
        let terminal = io::stderr().is_terminal();
        Progress::on(if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() }, total)
    }

    fn on(target: ProgressDrawTarget, total: Option<u64>) -> Progress {
        let template = if total.is_some() { KNOWN } else { UNKNOWN };
        let style = ProgressStyle::with_template(template).expect("the template is well formed");
        let bar = ProgressBar::with_draw_target(total, target).with_style(style);
        Progress { bar }
    }

    /// Shows that so much has been done since the beginning.
    pub(crate) fn set(&self, bytes: u64, chunks: u64) {
        if !self.bar.is_hidden() {
            let plural = if chunks == 1 { "" } else { "s" };
            self.bar.set_message(format!("{chunks} chunk{plural}"));
            self.bar.set_position(bytes);
        }
    }

    /// Writes a line to stderr, above the bar if there is one.
    pub(crate) fn say(&self, line: &str) {
        // Whoever closed stderr does not want to hear that it is closed.
        self.bar.suspend(|| drop(writeln!(io::stderr(), "{line}")));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use indicatif::TermLike;
    use std::sync::{Arc, Mutex};

    /// Remembers everything that was ever written to it.
    #[derive(Clone, Debug, Default)]
    struct Paper(Arc<Mutex<String>>);

    impl TermLike for Paper {
        fn width(&self) -> u16 {
            80
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, line: &str) -> io::Result<()> {
            self.write_str(line)
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            self.write_str("<cleared>")
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn bytes_and_chunks_are_shown_and_cleared_away() {
        for (total, shows) in [(Some(4 << 10), "1.00 KiB of 4.00 KiB, 3 chunks"), (None, "1.00 KiB, 3 chunks")] {
            let paper = Paper::default();
            let target = ProgressDrawTarget::term_like(Box::new(paper.clone()));
            let progress = Progress::on(target, total);
            progress.set(1 << 10, 3);
            progress.bar.force_draw();
            let written = paper.0.lock().unwrap().clone();
            assert!(written.contains(shows), "{written}");
            drop(progress);
            assert!(paper.0.lock().unwrap().ends_with("<cleared>"), "{paper:?}");
        }
    }

    #[test]
    fn hidden_it_can_still_speak() {
        let progress = Progress::on(ProgressDrawTarget::hidden(), Some(10));
        progress.set(5, 1);
        progress.say("word_count: a line of the test");
        assert!(progress.bar.is_hidden());
    }
}
