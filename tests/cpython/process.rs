//! `_TestProcess`: the life of a process and what its handle says of it.

use crate::stage::{SHORT, alone, program, said, soon, waits, watched};
use multiproc::{
    Event, PipeSender, Process, ProcessError, Queue, Sender, Signal, Stdio, active_children, channel, cpu_count, current_process,
    one_way, parent_process, shutdown_on, threads,
};
use multiproc_tests::{eventually, no_core_dumps};
use std::io::Read;
use std::time::Duration;

fn wait_for_ever() {
    loop {
        std::thread::park();
    }
}

/// A process that has begun its function, which never returns.
fn begun() -> Process<()> {
    let ready = Event::new().unwrap();
    let process = Process::spawn((ready.clone(),), |ready: Event| {
        no_core_dumps();
        ready.set().unwrap();
        wait_for_ever();
    });
    ready.wait().unwrap();
    process.unwrap()
}

#[test]
fn current() {
    let _watched = watched();
    let me = current_process();
    assert_eq!((me.pid, me.name.as_str()), (std::process::id(), "MainProcess"));
    let p = Process::builder().name("somebody").spawn((), || (current_process(), std::process::id())).unwrap();
    let pid = p.pid();
    assert!(!p.is_daemon());
    let (info, its) = p.join().unwrap();
    assert_eq!((info.pid, info.name.as_str(), its), (pid, "somebody", pid));
}

#[test]
fn args_argument() {
    let _watched = watched();
    assert_eq!(Process::spawn((), || 1).unwrap().join().unwrap(), 1);
    assert_eq!(Process::spawn((7,), |n: i64| n).unwrap().join().unwrap(), 7);
    let p = Process::spawn((7, "x".to_owned(), vec![0.5]), |n: i64, text: String, list: Vec<f64>| (list, text, n)).unwrap();
    assert_eq!(p.join().unwrap(), (vec![0.5], "x".to_owned(), 7));
}

#[test]
fn daemon_argument() {
    let _watched = watched();
    assert!(!Process::spawn((), || ()).unwrap().is_daemon());
    assert!(!Process::builder().daemon(false).spawn((), || ()).unwrap().is_daemon());
    // A daemon may have children, and they are no daemons unless they are asked to be.
    let p = Process::builder().daemon(true).spawn((), || {
        let child = Process::spawn((), || ()).unwrap();
        let is_daemon = child.is_daemon();
        child.join().unwrap();
        is_daemon
    });
    let p = p.unwrap();
    assert!(p.is_daemon());
    assert!(!p.join().unwrap());
    alone("process::leaves_a_daemon");
}

#[test]
#[ignore = "a program of its own"]
fn leaves_a_daemon() {
    // The exit would wait for ever for one that is none.
    drop(Process::builder().daemon(true).spawn((), wait_for_ever).unwrap());
}

#[test]
fn parent_process_attributes() {
    let _watched = watched();
    assert_eq!(parent_process(), None);
    let parent = Process::spawn((), parent_process).unwrap().join().unwrap().unwrap();
    assert_eq!((parent.pid, parent.name.as_str()), (std::process::id(), "MainProcess"));
    let p = Process::builder().name("between").spawn((), || Process::spawn((), parent_process).unwrap().join().unwrap()).unwrap();
    let pid = p.pid();
    let parent = p.join().unwrap().unwrap();
    assert_eq!((parent.pid, parent.name.as_str()), (pid, "between"));
}

/// Whoever's parent dies ends too, so what can be seen of the parent's death is that.
#[test]
fn the_death_of_a_parent() {
    let _watched = watched();
    let (tx, rx) = one_way::<u32>().unwrap();
    let parent = Process::spawn((tx,), |tx: PipeSender<u32>| {
        let child = Process::spawn((tx,), |tx: PipeSender<u32>| {
            tx.send(std::process::id()).unwrap();
            wait_for_ever();
        });
        child.unwrap().join().unwrap();
    });
    let parent = parent.unwrap();
    assert_ne!(rx.recv().unwrap(), parent.pid());
    assert!(!rx.poll(Duration::ZERO).unwrap());
    parent.kill().unwrap();
    assert!(rx.recv().unwrap_err().is_end());
    assert!(parent.join().is_err());
}

#[test]
fn life_cycle() {
    let _watched = watched();
    let go = Event::new().unwrap();
    let (tx, rx) = channel::<(u32, String, i32)>(1).unwrap();
    let mut p = Process::builder()
        .name("worker-5")
        .spawn((go.clone(), tx, 5), |go: Event, tx: Sender<(u32, String, i32)>, n: i32| {
            let me = current_process();
            tx.put((me.pid, me.name, n)).unwrap();
            go.wait().unwrap();
            n * 2
        })
        .unwrap();
    assert_eq!((p.name(), p.is_alive(), p.exit_status()), ("worker-5", true, None));
    assert!(active_children().iter().any(|child| child.pid() == p.pid()));
    assert_eq!(rx.get().unwrap(), (p.pid(), "worker-5".to_owned(), 5));
    assert_eq!(waits(|| p.join_timeout(SHORT)).unwrap(), None);
    assert_eq!(waits(|| p.join_deadline(soon())).unwrap(), None);
    assert_eq!(p.try_join().unwrap(), None);
    go.set().unwrap();
    assert_eq!(p.wait().and_then(|status| status.code()), Some(0));
    assert_eq!((p.is_alive(), p.exit_status().and_then(|s| s.code())), (false, Some(0)));
    assert!(active_children().iter().all(|child| child.pid() != p.pid()));
    assert_eq!(p.join().unwrap(), 10);
}

#[test]
fn native_id_of_the_main_thread() {
    let _watched = watched();
    fn ids() -> (i32, u32) {
        // SAFETY: no arguments, cannot fail.
        (unsafe { libc::gettid() }, std::process::id())
    }
    let (tid, pid) = Process::spawn((), ids).unwrap().join().unwrap();
    assert_eq!(tid as u32, pid);
    assert_ne!(tid, ids().0);
}

#[test]
fn interrupt() {
    let _watched = watched();
    let ready = Event::new().unwrap();
    let p = Process::spawn((ready.clone(),), |ready: Event| {
        shutdown_on(&[Signal::INT], Duration::from_secs(5)).unwrap();
        ready.set().unwrap();
        wait_for_ever();
    });
    let p = p.unwrap();
    ready.wait().unwrap();
    p.interrupt().unwrap();
    match p.join().unwrap_err() {
        ProcessError::Exited { code, .. } => assert_eq!(code, 128 + Signal::INT.0),
        other => panic!("{other}"),
    }
}

#[test]
fn interrupt_no_handler() {
    let _watched = watched();
    let p = begun();
    p.interrupt().unwrap();
    assert!(matches!(p.join().unwrap_err(), ProcessError::Signaled { signal: Signal::INT, .. }));
}

#[test]
fn terminate() {
    let _watched = watched();
    let mut p = begun();
    assert!(p.is_alive());
    assert_eq!(p.join_timeout(Duration::ZERO).unwrap(), None);
    p.terminate().unwrap();
    assert_eq!(p.wait().and_then(|status| std::os::unix::process::ExitStatusExt::signal(&status)), Some(15));
    assert!(p.terminate().unwrap_err().is_ended());
    assert!(matches!(p.join().unwrap_err(), ProcessError::Signaled { signal: Signal::TERM, .. }));
}

#[test]
fn kill() {
    let _watched = watched();
    let p = begun();
    p.kill().unwrap();
    assert!(matches!(p.join().unwrap_err(), ProcessError::Signaled { signal: Signal::KILL, .. }));
}

#[test]
fn number_of_cpus() {
    let available = std::thread::available_parallelism().unwrap().get();
    assert_eq!(cpu_count(), available);
}

#[test]
fn list_of_active_children() {
    let _watched = watched();
    let p = begun();
    let child = active_children().into_iter().find(|child| child.pid() == p.pid()).expect("it runs");
    assert_eq!((child.name(), child.is_alive(), child.is_daemon()), (p.name(), true, false));
    child.signal(Signal::KILL).unwrap();
    child.wait();
    assert!(!child.is_alive());
    assert!(active_children().iter().all(|child| child.pid() != p.pid()));
    assert!(p.join().is_err());
}

#[test]
fn recursion() {
    let _watched = watched();
    fn tree(to: Sender<Vec<u8>>, path: Vec<u8>) {
        to.put_ref(&path).unwrap();
        for n in 0..2u8 {
            if path.len() < 2 {
                let below = [path.as_slice(), &[n]].concat();
                Process::spawn((to.clone(), below), tree).unwrap().join().unwrap();
            }
        }
    }
    let (tx, rx) = channel(16).unwrap();
    Process::spawn((tx, vec![]), tree).unwrap().join().unwrap();
    let visited: Vec<Vec<u8>> = rx.iter().map(Result::unwrap).collect();
    assert_eq!(visited, [&[][..], &[0], &[0, 0], &[0, 1], &[1], &[1, 0], &[1, 1]]);
}

#[test]
fn close() {
    let _watched = watched();
    // A process whose handle is gone goes on.
    let (tx, rx) = channel::<u32>(1).unwrap();
    let go = Event::new().unwrap();
    let p = Process::spawn((tx, go.clone()), |tx: Sender<u32>, go: Event| {
        go.wait().unwrap();
        tx.put(4).unwrap();
    });
    drop(p.unwrap());
    go.set().unwrap();
    assert_eq!(rx.get().unwrap(), 4);
    // A value that nobody has fetched goes with the handle, and what is in it.
    let (tx, rx) = channel::<u32>(1).unwrap();
    let p = Process::spawn((tx,), |tx: Sender<u32>| tx).unwrap();
    p.wait();
    assert!(matches!(rx.get_timeout(SHORT), Err(multiproc::GetError::TimedOut)));
    drop(p);
    assert!(rx.get().unwrap_err().is_end());
}

#[test]
fn many_processes() {
    let _watched = watched();
    let all: Vec<_> = (0..100u32).map(|n| Process::spawn((n,), |n: u32| n).unwrap()).collect();
    let values: Vec<u32> = all.into_iter().map(|p| p.join().unwrap()).collect();
    assert_eq!(values, (0..100).collect::<Vec<_>>());
    let all: Vec<_> = (0..30).map(|_| Process::spawn((), wait_for_ever).unwrap()).collect();
    all.iter().for_each(|p| p.terminate().unwrap());
    assert!(all.into_iter().all(|p| p.join().is_err()));
}

#[test]
fn arguments_are_not_kept() {
    let _watched = watched();
    let (tx, rx) = channel::<u32>(1).unwrap();
    let go = Event::new().unwrap();
    let p = Process::spawn((tx, go.clone()), |tx: Sender<u32>, go: Event| {
        drop(tx);
        go.wait().unwrap();
    });
    // While the process runs, the sender that was its argument is nowhere.
    assert!(rx.get().unwrap_err().is_end());
    go.set().unwrap();
    p.unwrap().join().unwrap();
}

type Talk = multiproc::Connection<u8, u8>;

fn count_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn descriptors_of_a_child() {
    let _watched = watched();
    let few = Process::spawn((), count_descriptors).unwrap().join().unwrap();
    let queues: Vec<_> = (0..20).map(|_| Queue::<u8>::bounded(4).unwrap()).collect();
    let pipes: Vec<_> = (0..20).map(|_| multiproc::pipe::<u8, u8>().unwrap()).collect();
    let others: Vec<_> = (0..5).map(|_| begun()).collect();
    let p = Process::spawn((queues, pipes), |queues: Vec<Queue<u8>>, pipes: Vec<(Talk, Talk)>| {
        assert_eq!((queues.len(), pipes.len()), (20, 20));
        count_descriptors()
    });
    assert_eq!(p.unwrap().join().unwrap(), few);
    others.iter().for_each(|p| p.kill().unwrap());
    assert!(others.into_iter().all(|p| p.join().is_err()));
}

/// A worker's exit waits for the threads that `multiproc::threads` has started, and for no others.
#[test]
fn wait_for_threads() {
    let _watched = watched();
    let (tx, rx) = channel::<u32>(1).unwrap();
    let p = Process::spawn((tx,), |tx: Sender<u32>| {
        let late = threads::spawn((tx,), |tx: Sender<u32>| {
            std::thread::sleep(SHORT);
            tx.put(5).unwrap();
        });
        drop(late.unwrap());
    });
    assert_eq!(rx.get().unwrap(), 5);
    p.unwrap().join().unwrap();
}

#[test]
fn closed_streams_are_harmless() {
    let _watched = watched();
    let p = Process::spawn((), || {
        // SAFETY: nobody uses the number meanwhile.
        unsafe { libc::close(1) };
        println!("into the void");
        6
    });
    assert_eq!(p.unwrap().join().unwrap(), 6);
}

#[test]
fn missing_streams_are_harmless() {
    let _watched = watched();
    let exe = std::env::current_exe().unwrap();
    let script = "exec \"$0\" --exact process::starts_a_worker --ignored --nocapture --test-threads=1 0<&- 1>&- 2>&-";
    let status = std::process::Command::new("sh").args(["-c", script]).arg(exe).status().unwrap();
    assert!(status.success(), "{status}");
}

#[test]
#[ignore = "a program of its own"]
fn starts_a_worker() {
    let p = Process::spawn((20,), |n: i32| {
        println!("nobody reads this");
        n + 1
    });
    assert_eq!(p.unwrap().join().unwrap(), 21);
}

/// What starts processes is a thread with all signals blocked: a Ctrl-C that the program survives, it survives too.
#[test]
fn sigint_and_the_launcher() {
    let _watched = watched();
    alone("process::starts_workers_through_sigint");
}

#[test]
#[ignore = "a program of its own"]
fn starts_workers_through_sigint() {
    extern "C" fn nothing(_: i32) {}
    assert_eq!(Process::spawn((), || 1).unwrap().join().unwrap(), 1);
    // SAFETY: the handler does nothing.
    unsafe { libc::signal(libc::SIGINT, nothing as extern "C" fn(i32) as libc::sighandler_t) };
    for _ in 0..5 {
        // SAFETY: signals this process.
        unsafe { libc::kill(std::process::id() as i32, libc::SIGINT) };
        assert_eq!(Process::spawn((), || 2).unwrap().join().unwrap(), 2);
    }
}

/// A process is a worker because of what it inherited, not because of what it was told: a forged marker makes none.
#[test]
fn a_forged_marker_makes_no_worker() {
    let _watched = watched();
    let out = program("process::says_that_it_is_no_worker").env("MULTIPROC_WORKER", "1:0.1.0:0:0:0:1:1:1:0").output().unwrap();
    assert!(said(&out).contains("main runs"), "{}", said(&out));
}

#[test]
#[ignore = "a program of its own"]
fn says_that_it_is_no_worker() {
    println!("main runs");
}

/// Whoever waits for an end sees it, the process's last words included.
#[test]
fn the_end_can_be_waited_for_by_several() {
    let _watched = watched();
    let mut p = Process::builder().stdout(Stdio::Piped).spawn((), || print!("last words")).unwrap();
    let ends: Vec<_> = std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..3).map(|_| scope.spawn(|| p.wait().and_then(|status| status.code()))).collect();
        waiting.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(ends, [Some(0); 3]);
    eventually(|| !p.is_alive());
    let mut text = String::new();
    p.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "last words");
    p.join().unwrap();
}
