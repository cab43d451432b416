//! Plays one row of `tests/bad_luck.rs`, named by the first argument: prints what happened in one line, and whether descriptors leaked.

use multiproc::{Buffer, Codec, CodecError, Lock, LockError, Process, ProcessError, Queue, Sender, Value};
use std::cell::Cell;
use std::error::Error;
use std::time::Duration;

type Told = Result<String, Box<dyn Error>>;

fn main() {
    multiproc_tests::no_core_dumps();
    let row = std::env::args().nth(1).expect("a row");
    if row == "memory" {
        multiproc::set_memory_limit(32 << 20).expect("nothing is shared yet");
    }
    if row == "alarms" {
        alarms_at_1_khz();
    }
    // What the library keeps open, once, is open from here on.
    let _ = Process::spawn((), || ()).map(Process::join);
    let before = descriptors();
    let told = tell(&row).unwrap_or_else(|e| format!("unexpected: {e}"));
    let after = descriptors();
    println!("{told}; descriptors {}", if after <= before { "as before" } else { "LEAKED" });
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

fn tell(row: &str) -> Told {
    match row {
        "capacity" => Ok(Queue::<u8>::bounded(0).expect_err("no room at all").to_string()),
        "too large" => too_large(),
        "outside" => Ok(serde_json::to_string(&Lock::new()?).expect_err("not a message").to_string()),
        "undecodable" => undecodable(),
        "no hello" => no_hello(),
        "exit" => how(Process::spawn((3,), |code: i32| -> () { std::process::exit(code) })?.join()),
        "abort" => how(Process::spawn((), || -> () { std::process::abort() })?.join()),
        "second thread" => second_thread(),
        "double panic" => how(Process::spawn((), double_panic)?.join()),
        "stack overflow" => how(Process::spawn((1,), |n: u64| {
            deeper(n);
        })?
        .join()),
        "memory" => memory(),
        "killed worker" => killed_worker(),
        "work" | "alarms" => work(),
        other => panic!("no row {other}"),
    }
}

fn how(ended: Result<(), ProcessError>) -> Told {
    Ok(match ended {
        Ok(()) => "returned".into(),
        Err(ProcessError::Panicked { message, .. }) => format!("panicked: {message}"),
        Err(ProcessError::Exited { code, .. }) => format!("exited with {code}"),
        Err(ProcessError::Signaled { signal, .. }) => format!("ended by {signal}"),
        Err(ProcessError::StackOverflow { .. }) => "overflowed its stack".into(),
        Err(ProcessError::NotStarted { .. }) => "did not start".into(),
        Err(other) => other.to_string(),
    })
}

/// The message comes back, and the queue goes on.
fn too_large() -> Told {
    let queue = Queue::<Vec<u8>>::with_max_message(4, 1000)?;
    let refused = queue.put(vec![7; 2000]).expect_err("above the limit");
    let told = refused.to_string();
    assert!(refused.is_too_large());
    assert_eq!(refused.into_inner(), vec![7; 2000]);
    queue.put(vec![1])?;
    assert_eq!(queue.get()?, [1]);
    Ok(told)
}

/// Writes what it likes and reads only even lengths.
struct Picky;

impl Codec<String> for Picky {
    fn encode(value: &String, into: &mut Buffer) -> Result<(), CodecError> {
        into.append(value.as_bytes())
    }

    fn decode(bytes: &[u8]) -> Result<String, CodecError> {
        if bytes.len().is_multiple_of(2) {
            String::from_utf8(bytes.to_vec()).map_err(CodecError::decode)
        } else {
            Err(CodecError::decode("odd"))
        }
    }
}

fn undecodable() -> Told {
    let queue = Queue::<String, Picky>::with_codec(4)?;
    queue.put("odd".into())?;
    queue.put("even".into())?;
    let told = queue.get().expect_err("an odd length").to_string();
    assert_eq!(queue.get()?, "even");
    Ok(told)
}

/// The child's start fails before it takes part: its stack limit does not hold its environment, say. Here its own constructor ends it.
fn no_hello() -> Told {
    how(Process::builder().env("MULTIPROC_TESTS_DIE_EARLY", "1").spawn((), || ())?.join())
}

#[used]
#[unsafe(link_section = ".init_array")]
static EARLY: extern "C" fn() = die_early;

extern "C" fn die_early() {
    if std::env::var_os("MULTIPROC_TESTS_DIE_EARLY").is_some() {
        std::process::abort();
    }
}

fn second_thread() -> Told {
    let worker = Process::spawn((), || std::thread::spawn(|| panic!("aside")).join().is_err())?;
    Ok(format!("the thread panicked: {}, the process returned", worker.join()?))
}

fn double_panic() {
    struct Again;
    impl Drop for Again {
        fn drop(&mut self) {
            panic!("again");
        }
    }
    let _again = Again;
    panic!("once");
}

fn deeper(n: u64) -> u64 {
    let room = Cell::new([n; 512]);
    std::hint::black_box(&room);
    if n == 0 { 0 } else { deeper(n + 1) + room.get()[3] }
}

/// The arena's own limit: the message comes back, and after draining the queue goes on.
fn memory() -> Told {
    let queue = Queue::<Vec<u8>>::bounded(1000)?;
    let mut put = 0;
    let refused = loop {
        match queue.put(vec![1; 1 << 20]) {
            Ok(()) => put += 1,
            Err(e) => break e,
        }
    };
    assert!(refused.is_out_of_memory(), "{refused}");
    assert!((20..32).contains(&put), "{put} messages of a MiB fitted");
    for _ in 0..put {
        assert_eq!(queue.get()?.len(), 1 << 20);
    }
    queue.put(refused.into_inner())?;
    Ok("handed back, and fits after draining".into())
}

/// Killed with a lock, a lease and a half-changed value, at a moment of chance.
fn killed_worker() -> Told {
    let (lock, jobs, value) = (Lock::new()?, Queue::<u64>::bounded(4)?, Value::new([0u64; 32])?);
    jobs.put(1)?;
    let (ready, told) = multiproc::channel::<()>(1)?;
    let worker = Process::spawn((lock.clone(), jobs.clone(), value.clone(), ready), hold_everything)?;
    told.get()?;
    worker.kill()?;
    let ended = how(worker.join())?;
    assert!(matches!(lock.lock(), Err(LockError::OwnerDied(_))));
    let lease = jobs.get_timeout(Duration::from_secs(5))?;
    let whole = value.get()?;
    assert!(whole.iter().all(|&n| n == whole[0]));
    Ok(format!("{ended}; the lock tells, job {lease} is back, the value is whole"))
}

fn hold_everything(lock: Lock, jobs: Queue<u64>, value: Value<[u64; 32]>, ready: Sender<()>) {
    let _guard = lock.lock().expect("a free lock");
    let _lease = jobs.lease().expect("a job");
    ready.put(()).expect("the parent reads");
    for n in 0.. {
        value.set([n; 32]).expect("a value of its own lock");
    }
}

extern "C" fn nothing(_: i32) {}

/// Every system call of this process is interrupted again and again.
fn alarms_at_1_khz() {
    // SAFETY: zeros are a value of the struct: an empty mask, no flags, so no restart of system calls.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(i32) as usize;
    // SAFETY: the handler does nothing.
    unsafe { libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()) };
    let each = libc::timeval { tv_sec: 0, tv_usec: 1000 };
    let timer = libc::itimerval { it_interval: each, it_value: each };
    // SAFETY: reads the struct.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) };
}

/// A little of everything, under whatever limits the row has set.
fn work() -> Told {
    let (jobs, results) = (Queue::<u64>::bounded(4)?, Queue::<u64>::bounded(4)?);
    let worker = Process::spawn((jobs.receiver()?, results.sender()?), |jobs, results| {
        for job in &jobs {
            results.put(job.expect("a number") * 2).expect("the parent reads");
        }
    })?;
    let mut sum = 0;
    for n in 1..=100 {
        jobs.put(n)?;
        sum += results.get()?;
    }
    jobs.close()?;
    worker.join()?;
    Ok(format!("sum {sum}"))
}
