//! Python's multiprocessing itself, where there is a `python3`.

use crate::{
    effort::Effort,
    row::{Measured, median},
    windows::Windows,
    worker::Worker,
};
use std::{
    error::Error,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

// 64 bytes in a bytes object, the cheapest thing to pickle. The bound is back-pressure: without it
// the feeder thread's list grows for ever.
const QUEUE: &str = r#"
import multiprocessing, os, sys, time
warm_up, each, count = float(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
mp = multiprocessing.get_context("fork")

cpus = sorted(os.sched_getaffinity(0))

def produce(q):
    os.sched_setaffinity(0, [cpus[1 % len(cpus)]])
    message = bytes(64)
    while True:
        q.put(message)

q = mp.Queue(1024)
p = mp.Process(target=produce, args=(q,), daemon=True)
p.start()
os.sched_setaffinity(0, [cpus[0]])
clock = time.perf_counter
end = clock() + warm_up
while clock() < end:
    q.get()
for _ in range(count):
    n, start = 0, clock()
    end = start + each
    while (now := clock()) < end:
        q.get()
        n += 1
    print(n / (now - start))
p.kill()
p.join()
"#;

const PIPE: &str = r#"
import multiprocessing, os, sys, time
warm_up, each, count = float(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
mp = multiprocessing.get_context("fork")

cpus = sorted(os.sched_getaffinity(0))

def produce(w):
    os.sched_setaffinity(0, [cpus[1 % len(cpus)]])
    message = bytes(64)
    while True:
        w.send(message)

r, w = mp.Pipe(duplex=False)
p = mp.Process(target=produce, args=(w,), daemon=True)
p.start()
os.sched_setaffinity(0, [cpus[0]])
clock = time.perf_counter
end = clock() + warm_up
while clock() < end:
    r.recv()
for _ in range(count):
    n, start = 0, clock()
    end = start + each
    while (now := clock()) < end:
        r.recv()
        n += 1
    print(n / (now - start))
p.kill()
p.join()
"#;

const PING: &str = r#"
import multiprocessing, os, sys, time
count = int(sys.argv[1])
mp = multiprocessing.get_context("fork")

cpus = sorted(os.sched_getaffinity(0))

def answer(c):
    os.sched_setaffinity(0, [cpus[1 % len(cpus)]])
    while True:
        c.send(c.recv())

here, there = mp.Pipe()
p = mp.Process(target=answer, args=(there,), daemon=True)
p.start()
os.sched_setaffinity(0, [cpus[0]])
message = bytes(64)

def play(times):
    for _ in range(times):
        here.send(message)
        here.recv()

play(count // 10)
start = time.perf_counter()
play(count)
print((time.perf_counter() - start) * 1e9 / count)
p.kill()
p.join()
"#;

const IDLE: &str = r#"
import multiprocessing, sys
mp = multiprocessing.get_context("fork")
q = mp.Queue()
p = mp.Process(target=q.get, daemon=True)
p.start()
print(p.pid, flush=True)
sys.stdin.read()
p.kill()
p.join()
"#;

const VALUE: &str = r#"
import multiprocessing, sys, time
count = int(sys.argv[1])
v = multiprocessing.Value("Q", 0)

def update(times):
    for _ in range(times):
        with v.get_lock():
            v.value += 1

update(count // 10)
start = time.perf_counter()
update(count)
print((time.perf_counter() - start) * 1e9 / count)
"#;

/// Messages per second through `multiprocessing.Queue`, one producer and one consumer process.
pub fn queue_rate(windows: &Windows) -> Measured {
    rate(QUEUE, windows)
}

/// Messages per second through `multiprocessing.Pipe(duplex=False)`, from one process to another.
pub fn pipe_rate(windows: &Windows) -> Measured {
    rate(PIPE, windows)
}

fn rate(script: &str, windows: &Windows) -> Measured {
    let [warm_up, each] = [windows.warm_up, windows.each].map(|d| d.as_secs_f64().to_string());
    figures(script, &[warm_up, each, windows.count.to_string()])
}

/// Nanoseconds for a message to another process and one back, through `multiprocessing.Pipe()`.
pub fn pipe_round_trip(effort: Effort) -> Measured {
    figures(PING, &[effort.count(10_000).to_string()])
}

/// Nanoseconds for `with v.get_lock(): v.value += 1`, where nobody else wants it.
pub fn value_update(effort: Effort) -> Measured {
    figures(VALUE, &[effort.count(1_000_000).to_string()])
}

/// The median of what a script prints.
pub(super) fn figures(script: &str, args: &[String]) -> Measured {
    let output = python3(script).args(args).stdin(Stdio::null()).output().map_err(missing)?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let rates = String::from_utf8(output.stdout)?.lines().map(str::parse).collect::<Result<Vec<f64>, _>>()?;
    median(&rates).ok_or_else(|| "python3 printed nothing".into())
}

/// A Python worker waiting in `Queue.get`.
///
/// It ends when this is dropped: its parent sees the end of its standard input.
#[derive(Debug)]
pub struct IdleWorker {
    /// The worker's process id.
    pub pid: u32,
    parent: Worker,
}

impl IdleWorker {
    /// Starts it; an error where there is no `python3`.
    pub fn start() -> Result<IdleWorker, Box<dyn Error>> {
        let mut parent = Worker::start(python3(IDLE).stdin(Stdio::piped()).stdout(Stdio::piped())).map_err(missing)?;
        let mut pid = String::new();
        BufReader::new(parent.0.stdout.take().ok_or("no pipe")?).read_line(&mut pid)?;
        Ok(IdleWorker { pid: pid.trim().parse()?, parent })
    }
}

impl Drop for IdleWorker {
    fn drop(&mut self) {
        drop(self.parent.0.stdin.take());
        let _ = self.parent.0.wait();
    }
}

fn python3(script: &str) -> Command {
    let mut command = Command::new("python3");
    command.args(["-c", script]);
    command
}

fn missing(e: std::io::Error) -> String {
    format!("python3 does not start: {e}")
}
