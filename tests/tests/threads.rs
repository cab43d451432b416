//! Threads in the shape of processes: the same bodies run as both, and what differs is what `multiproc::threads` says.

use multiproc::threads;
use multiproc::{
    Array, Atomic, Event, Lock, OwnedPermit, ProcessError, Queue, Receiver, Run, Semaphore, Sender, Value, dump, exit_grace,
    one_way, pipe, wait, wait_timeout,
};
use multiproc_tests::{eventually, watch};
use serde::{Deserialize, Serialize};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The same tests for processes and for threads: nothing differs but the name that is used.
macro_rules! bodies {
    ($name:ident, $Process:path) => {
        mod $name {
            use super::*;
            use $Process as Process;

            #[test]
            fn a_value_or_a_panic_comes_back() {
                let _watched = watch(60);
                let p = Process::spawn((20, "x".to_owned()), |n: u64, text: String| format!("{}{text}", n * 2 + 2)).unwrap();
                assert_eq!(p.join().unwrap(), "42x");
                let p = Process::builder().name("unlucky").spawn((7,), |n: u64| -> u64 { panic!("no luck with {n}") }).unwrap();
                assert_eq!(p.name(), "unlucky");
                match p.join().unwrap_err() {
                    ProcessError::Panicked { name, message, location, .. } => {
                        assert_eq!((name.as_str(), message.as_str()), ("unlucky", "no luck with 7"));
                        assert!(location.contains("threads.rs:"), "{location:?}");
                    }
                    other => panic!("{other}"),
                }
            }

            #[test]
            fn a_struct_runs() {
                let _watched = watch(60);
                assert_eq!(Process::start(Resize { width: 80 }).unwrap().join().unwrap(), 40);
            }

            #[test]
            fn joining_in_all_forms() {
                let _watched = watch(60);
                let go = Event::new().unwrap();
                let mut p = Process::spawn((go.clone(),), |go: Event| go.wait().map(|()| 5u64).unwrap()).unwrap();
                let start = Instant::now();
                assert!(p.is_alive());
                assert_eq!(p.try_join().unwrap(), None);
                assert_eq!(p.join_timeout(Duration::from_millis(20)).unwrap(), None);
                assert!(start.elapsed() >= Duration::from_millis(20));
                assert_eq!(p.join_deadline(Instant::now() + Duration::from_millis(1)).unwrap(), None);
                assert_eq!((p.wait_timeout(Duration::ZERO), p.exit_status()), (None, None));
                assert_eq!(p.wait_deadline(Instant::now()), None);
                go.set().unwrap();
                assert_eq!(p.wait().map(|status| status.code()), Some(Some(0)));
                assert!(!p.is_alive());
                assert_eq!(p.exit_status().and_then(|status| status.code()), Some(0));
                assert_eq!(p.try_join().unwrap(), Some(5));
                assert!(matches!(p.try_join(), Err(ProcessError::AlreadyJoined { .. })));
                let p = Process::spawn((), || -> () { panic!("by order") }).unwrap();
                assert_eq!(p.wait().and_then(|status| status.code()), Some(101));
                assert_eq!(p.exit_status().and_then(|status| status.code()), Some(101));
            }

            #[test]
            fn a_queue_is_shared_by_many_and_ends() {
                let _watched = watch(60);
                let queue = Queue::<u64>::bounded(8).unwrap();
                let (sum, seen) = (Atomic::new(0u64).unwrap(), Value::new(0u64).unwrap());
                let workers: Vec<_> = (0..3)
                    .map(|_| Process::spawn((queue.receiver().unwrap(), sum.clone(), seen.clone()), add_up).unwrap())
                    .collect();
                let makers: Vec<_> = (0..2)
                    .map(|i| {
                        Process::spawn((queue.sender().unwrap(), i), |to: Sender<u64>, i: u64| {
                            (0..500).for_each(|n| to.put(2 * n + i).unwrap());
                        })
                        .unwrap()
                    })
                    .collect();
                makers.into_iter().for_each(|p| p.join().unwrap());
                queue.close().unwrap();
                workers.into_iter().for_each(|p| p.join().unwrap());
                assert_eq!((sum.get(), seen.get().unwrap()), (999 * 1000 / 2, 1000));
                assert!(queue.is_empty());
            }

            #[test]
            fn the_last_sender_that_goes_ends_the_queue() {
                let _watched = watch(60);
                let (tx, rx) = multiproc::channel::<u64>(4).unwrap();
                let p = Process::spawn((tx,), |tx: Sender<u64>| (0..9).for_each(|n| tx.put(n).unwrap())).unwrap();
                assert_eq!(rx.iter().map(Result::unwrap).collect::<Vec<_>>(), (0..9).collect::<Vec<_>>());
                p.join().unwrap();
            }

            #[test]
            fn its_end_is_waited_for_among_others() {
                let _watched = watch(60);
                let (queue, end) = (Queue::<u64>::bounded(1).unwrap(), Event::new().unwrap());
                let p = Process::spawn((end.clone(),), |end: Event| end.wait().map(|()| 5).unwrap()).unwrap();
                let nothing: [usize; 0] = [];
                assert_eq!(wait_timeout(&[&queue, &p], Duration::from_millis(20)).unwrap(), nothing);
                thread::scope(|s| {
                    let waits = s.spawn(|| wait(&[&queue, &p]).unwrap());
                    let asleep = || dump().process(std::process::id()).is_some_and(|me| !me.waits.is_empty());
                    eventually(asleep);
                    end.set().unwrap();
                    assert_eq!(waits.join().unwrap(), [1]);
                });
                assert_eq!(wait(&[&p, &queue, &p]).unwrap(), [0, 2]);
                assert_eq!(p.join().unwrap(), 5);
            }

            #[test]
            fn a_lease_comes_back_from_a_panic() {
                let _watched = watch(60);
                let queue = Queue::<u64>::bounded(4).unwrap();
                queue.put(3).unwrap();
                let p = Process::spawn((queue.receiver().unwrap(),), |jobs: Receiver<u64>| {
                    let job = jobs.lease().unwrap();
                    panic!("while {} is leased", *job);
                });
                let e: Result<(), _> = p.unwrap().join();
                assert!(e.unwrap_err().to_string().ends_with("while 3 is leased"));
                let again = queue.lease().unwrap();
                assert_eq!((again.attempt(), again.ack()), (2, 3));
            }

            #[test]
            fn pipes_talk_both_ways_and_end() {
                let _watched = watch(60);
                let (ours, theirs) = pipe::<u64, String>().unwrap();
                let p = Process::spawn((theirs,), |theirs: multiproc::Connection<String, u64>| {
                    for n in &theirs {
                        theirs.send(n.unwrap().to_string()).unwrap();
                    }
                })
                .unwrap();
                for n in 0..100 {
                    ours.send(n).unwrap();
                    assert_eq!(ours.recv().unwrap(), n.to_string());
                }
                drop(ours);
                p.join().unwrap();
                let (tx, rx) = one_way::<u64>().unwrap();
                let p = Process::spawn((tx,), |tx: multiproc::PipeSender<u64>| tx.send(1).unwrap()).unwrap();
                assert_eq!(rx.recv().unwrap(), 1);
                p.join().unwrap();
                assert!(rx.recv().is_err());
            }

            #[test]
            fn locks_values_arrays_and_permits_exclude() {
                let _watched = watch(60);
                let lock = Lock::new().unwrap();
                let array = Array::<u64>::zeroed(2).unwrap();
                let permits = Semaphore::new(2).unwrap();
                let (inside, most) = (Atomic::new(0u64).unwrap(), Atomic::new(0u64).unwrap());
                let all: Vec<_> = (0..4)
                    .map(|_| {
                        Process::spawn((lock.clone(), array.clone(), permits.clone(), inside.clone(), most.clone()), contend)
                            .unwrap()
                    })
                    .collect();
                all.into_iter().for_each(|p| p.join().unwrap());
                assert_eq!(array.to_vec().unwrap(), [400, 400]);
                assert!((1..=2).contains(&most.get()), "{}", most.get());
                assert_eq!(permits.available(), 2);
            }

            #[test]
            fn a_permit_travels() {
                let _watched = watch(60);
                let permits = Semaphore::new(1).unwrap();
                let permit = permits.acquire_owned().unwrap();
                let go = Event::new().unwrap();
                let p = Process::spawn((permit, go.clone()), |permit: OwnedPermit, go: Event| {
                    go.wait().unwrap();
                    drop(permit);
                })
                .unwrap();
                assert!(permits.try_acquire().is_err());
                go.set().unwrap();
                drop(permits.acquire().unwrap());
                p.join().unwrap();
            }

            #[test]
            fn who_ends_without_unlocking_is_reported() {
                let _watched = watch(60);
                let lock = Lock::new().unwrap();
                let p = Process::spawn((lock.clone(),), |lock: Lock| std::mem::forget(lock.lock().unwrap())).unwrap();
                p.join().unwrap();
                assert!(lock.lock().is_err());
                drop(lock.recover().unwrap().make_consistent());
                drop(lock.lock().unwrap());
            }
        }
    };
}

bodies!(as_processes, multiproc::Process);
bodies!(as_threads, multiproc::threads::Process);

#[derive(Serialize, Deserialize)]
struct Resize {
    width: u32,
}

impl Run for Resize {
    type Output = u32;
    fn run(self) -> u32 {
        self.width / 2
    }
}

fn add_up(jobs: Receiver<u64>, sum: Atomic<u64>, seen: Value<u64>) {
    for job in &jobs {
        sum.add(job.unwrap());
        seen.update(|n| *n += 1).unwrap();
    }
}

fn contend(lock: Lock, array: Array<u64>, permits: Semaphore, inside: Atomic<u64>, most: Atomic<u64>) {
    for _ in 0..100 {
        let permit = permits.acquire().unwrap();
        let now = inside.add(1) + 1;
        most.fetch_max(now, std::sync::atomic::Ordering::Relaxed);
        array.lock().unwrap()[0] += 1;
        let guard = lock.lock().unwrap();
        let n = array.get(1).unwrap();
        array.set(1, n + 1).unwrap();
        drop(guard);
        inside.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        drop(permit);
    }
}

// --- what threads alone do ---------------------------------------------------------------------

#[test]
fn processes_and_threads_share_one_queue() {
    let _watched = watch(60);
    let queue = Queue::<u64>::bounded(4).unwrap();
    let (sum, seen) = (Atomic::new(0u64).unwrap(), Value::new(0u64).unwrap());
    let args = || (queue.receiver().unwrap(), sum.clone(), seen.clone());
    let process = multiproc::Process::spawn(args(), add_up).unwrap();
    let thread = threads::spawn(args(), add_up).unwrap();
    (1..=200).for_each(|n| queue.put(n).unwrap());
    queue.close().unwrap();
    process.join().unwrap();
    thread.join().unwrap();
    assert_eq!((sum.get(), seen.get().unwrap()), (20100, 200));
}

#[test]
fn threads_have_names_and_are_listed() {
    let _watched = watch(60);
    let go = Event::new().unwrap();
    let named = threads::Process::builder().name("lister").daemon(true).spawn((go.clone(),), |go: Event| {
        go.wait().unwrap();
        (threads::current_process(), thread::current().name().map(str::to_owned))
    });
    let named = named.unwrap();
    let unnamed = threads::spawn((go.clone(),), |go: Event| go.wait().unwrap()).unwrap();
    assert!(unnamed.name().starts_with("Thread-"), "{unnamed:?}");
    assert!(named.is_daemon() && !unnamed.is_daemon());
    assert_eq!(named.pid(), std::process::id());
    assert!(format!("{named:?}").contains("\"lister\", thread: true, alive: true"), "{named:?}");
    let listed = threads::active_children().into_iter().find(|one| one.name() == "lister").expect("it runs");
    assert!(listed.is_alive() && listed.is_daemon());
    assert_eq!(threads::current_process().name, "MainProcess");
    go.set().unwrap();
    listed.wait();
    assert!(!listed.is_alive());
    let (info, shown) = named.join().unwrap();
    assert_eq!((info.name.as_str(), info.pid, shown.as_deref()), ("lister", std::process::id(), Some("lister")));
    unnamed.join().unwrap();
    assert!(threads::active_children().iter().all(|one| one.name() != "lister"));
}

#[test]
fn an_error_says_that_it_was_a_thread() {
    let _watched = watch(60);
    let e = threads::Process::builder().name("t\0t").spawn((), || -> () { panic!("so") }).unwrap().join().unwrap_err();
    assert!(e.to_string().starts_with("thread t\0t (pid "), "{e}");
    let e = threads::spawn((), || -> () { std::panic::panic_any(5) }).unwrap().join().unwrap_err();
    assert!(e.to_string().ends_with("a panic without a text"), "{e}");
}

#[test]
fn arguments_and_values_are_moved() {
    let _watched = watch(60);
    let bytes = vec![7u8; 1 << 20];
    let at = bytes.as_ptr() as usize;
    let back = threads::spawn((bytes,), |bytes: Vec<u8>| bytes).unwrap().join().unwrap();
    assert_eq!((back.as_ptr() as usize, back.len()), (at, 1 << 20));
}

#[test]
fn a_deep_recursion_fits_as_in_a_process() {
    let _watched = watch(60);
    fn deep(n: u32) -> u32 {
        let page = std::hint::black_box([0u8; 4096]);
        if n == 0 { u32::from(page[0]) } else { deep(n - 1) + 1 + u32::from(page[1]) }
    }
    assert_eq!(threads::spawn((1000,), deep).unwrap().join().unwrap(), 1000);
    let small = threads::Process::builder().stack_size(64 << 10).spawn((5,), deep).unwrap();
    assert_eq!(small.join().unwrap(), 5);
}

// --- the end of the program --------------------------------------------------------------------

/// Runs an ignored test of this file as a program of its own. What it wrote, and how it ended.
fn program(name: &str) -> (String, Option<i32>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"]).stdin(Stdio::null());
    let out = command.output().unwrap();
    (String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr), out.status.code())
}

fn speak_late(word: String) {
    thread::sleep(Duration::from_millis(300));
    println!("{word}");
}

#[test]
#[ignore = "a program of its own"]
fn leaves_threads_running() {
    let code = std::env::var("LEAVE_WITH").map_or(0, |code| code.parse().unwrap());
    drop(threads::spawn(("awaited".to_owned(),), speak_late).unwrap());
    drop(threads::Process::builder().daemon(true).spawn((), || thread::sleep(Duration::from_secs(1000))).unwrap());
    std::process::exit(code);
}

#[test]
#[ignore = "a program of its own"]
fn leaves_a_thread_for_ever() {
    exit_grace(Duration::from_millis(100));
    drop(threads::spawn((), || thread::sleep(Duration::from_secs(1000))).unwrap());
    std::process::exit(0);
}

#[test]
#[ignore = "a program of its own"]
fn is_ended_by_a_signal_in_its_exit() {
    multiproc::shutdown_on(&[multiproc::Signal::TERM], Duration::from_secs(1)).unwrap();
    drop(threads::spawn((), || thread::sleep(Duration::from_secs(1000))).unwrap());
    drop(multiproc::Process::spawn((std::process::id(),), |pid: u32| {
        // SAFETY: sends a signal.
        unsafe { libc::kill(pid as i32, libc::SIGTERM) };
    }));
    std::process::exit(0);
}

#[test]
fn the_exit_waits_for_threads_but_not_for_daemons() {
    let _watched = watch(60);
    let (text, code) = program("leaves_threads_running");
    assert!(text.contains("awaited") && code == Some(0), "{code:?} {text}");
}

#[test]
fn exit_grace_bounds_the_wait_for_threads() {
    let _watched = watch(60);
    let (text, code) = program("leaves_a_thread_for_ever");
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn a_signal_ends_the_wait_for_threads() {
    let _watched = watch(60);
    let (text, code) = program("is_ended_by_a_signal_in_its_exit");
    assert_eq!(code, Some(128 + 15), "{text}");
}

// --- both in one name --------------------------------------------------------------------------

/// Whoever shares between processes shares between threads: `use multiproc::threads::..` names the same types.
#[test]
fn the_module_names_whatever_is_shared() {
    let read =
        |file: &str| std::fs::read_to_string(format!("{}/../crates/multiproc/src/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let words = |text: &str| -> Vec<String> {
        text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|w| !w.is_empty()).map(str::to_owned).collect()
    };
    let facade = read("lib.rs");
    let named = words(&read("threads.rs"));
    let mut count = 0;
    for krate in ["multiproc_channel", "multiproc_named", "multiproc_sync"] {
        for list in facade.split(&format!("pub use {krate}::")).skip(1) {
            for name in words(list.split(';').next().unwrap()) {
                assert!(named.contains(&name), "`multiproc::threads` does not name {name}");
                count += 1;
            }
        }
    }
    assert!(count > 40, "{count} names");
}

#[test]
fn who_has_ended_is_known_without_waiting() {
    let _watched = watch(60);
    let mut p = threads::spawn((), || 4).unwrap();
    eventually(|| !p.is_alive());
    assert_eq!(p.try_join().unwrap(), Some(4));
    assert_eq!(p.thread_id(), None);
}

/// A join returns when the thread is gone, its thread-locals included: what it held has been given back.
#[test]
fn join_waits_for_the_last_destructor() {
    let _watched = watch(60);
    struct Late(Atomic<u64>);
    impl Drop for Late {
        fn drop(&mut self) {
            thread::sleep(Duration::from_millis(50));
            self.0.set(1);
        }
    }
    thread_local! {
        static LATE: std::cell::RefCell<Option<Late>> = const { std::cell::RefCell::new(None) };
    }
    let gone = Atomic::new(0u64).unwrap();
    let p = threads::spawn((gone.clone(),), |gone: Atomic<u64>| LATE.set(Some(Late(gone)))).unwrap();
    p.join().unwrap();
    assert_eq!(gone.get(), 1);
}
