//! Our worker that has nothing to do: one of word_count's, which waits for work that stdin does not bring; or, where the example has not been built, one of
//! this program's own that waits in `get`.

use multiproc::{Process, Queue, Receiver};
use std::error::Error;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

/// A worker that waits until this is dropped.
pub(crate) enum Idle {
    /// The coordinator, and its worker's pid.
    WordCount(Child, u32),
    Own(Queue<u64>, Option<Process<()>>),
}

impl Idle {
    pub(crate) fn start() -> Result<Idle, Box<dyn Error>> {
        match word_count() {
            Some(program) => Idle::of_word_count(program),
            None => Idle::own(),
        }
    }

    fn of_word_count(program: PathBuf) -> Result<Idle, Box<dyn Error>> {
        println!("the worker is one of {}", program.file_name().unwrap_or_default().display());
        let mut command = Command::new(program);
        let child =
            command.args(["-", "--workers", "1"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mut idle = Idle::WordCount(child, 0);
        let Idle::WordCount(child, worker) = &mut idle else { unreachable!() };
        let start = Instant::now();
        while *worker == 0 {
            if start.elapsed() > Duration::from_secs(5) {
                return Err("word_count has started no worker".into());
            }
            thread::sleep(Duration::from_millis(10));
            *worker = child_of(child.id()).unwrap_or(0);
        }
        Ok(idle)
    }

    fn own() -> Result<Idle, Box<dyn Error>> {
        println!("the worker is one of this bench: `cargo build --release --examples` makes word_count");
        let jobs = Queue::bounded(16)?;
        let worker = Process::spawn((jobs.receiver()?,), |jobs: Receiver<u64>| while jobs.get().is_ok() {})?;
        Ok(Idle::Own(jobs, Some(worker)))
    }

    pub(crate) fn pid(&self) -> u32 {
        match self {
            Idle::WordCount(_, worker) => *worker,
            Idle::Own(_, worker) => worker.as_ref().map_or(0, Process::pid),
        }
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        match self {
            Idle::WordCount(child, _) => {
                drop(child.stdin.take());
                let _ended = child.wait();
            }
            Idle::Own(jobs, worker) => {
                let closed = jobs.close();
                if let Some(worker) = worker.take().filter(|_| closed.is_ok()) {
                    let _ended = worker.join();
                }
            }
        }
    }
}

/// The example beside this bench: `target/release/deps/idle-..` and `target/release/examples/word_count`.
fn word_count() -> Option<PathBuf> {
    let program = env::current_exe().ok()?.parent()?.parent()?.join("examples/word_count");
    program.is_file().then_some(program)
}

/// A child of any thread of the process: its keeper starts them.
fn child_of(pid: u32) -> Option<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let children = |t: fs::DirEntry| fs::read_to_string(t.path().join("children")).ok();
    threads.flatten().filter_map(children).find_map(|text| text.split_whitespace().next()?.parse().ok())
}
