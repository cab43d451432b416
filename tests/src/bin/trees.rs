//! Plays scenes of process trees and their ends for `tests/trees.rs` and `tests/shutdown.rs`.

use multiproc::{Event, Process, Queue, Receiver, Sender, Signal, Stdio, exit_grace, shutdown, shutdown_on};
use multiproc_tests::is_gone;
use std::io::Write;
use std::time::Duration;

fn main() {
    multiproc_tests::no_core_dumps();
    let scene = std::env::args().nth(1).expect("a scene");
    match scene.as_str() {
        "deep" => deep(0),
        "daemons below" => daemons_below(),
        "detached" => detached(),
        "detached below" => detached_below(),
        "detached at once" => detached_at_once(),
        "detached and exit" => detached_and_exit(),
        "exit grace" => exit_with_grace(),
        "late at exit" => late_at_exit(),
        "lines at exit" => lines_at_exit(),
        "lines through closed descriptors" => lines_through_closed_descriptors(),
        "descriptors closed between two streams" => descriptors_closed_between_two_streams(),
        "report" => report(),
        "handlers" => handlers(),
        "uncaught" => uncaught(),
        "caught" => caught("waits"),
        "caught and main returns" => caught("returns"),
        "caught late" => caught("late"),
        "caught with stubborn workers" => caught("stubborn"),
        other => panic!("no scene {other}"),
    }
}

fn say(line: impl std::fmt::Display) {
    let text = format!("{line}\n");
    let mut out = std::io::stdout().lock();
    // In one write, so that the lines of processes do not mix.
    out.write_all(text.as_bytes()).unwrap();
    out.flush().unwrap();
}

fn for_ever() {
    loop {
        std::thread::park();
    }
}

fn ignore(signal: i32) {
    // SAFETY: ignoring installs no code.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

fn read_line() -> Option<String> {
    let mut line = String::new();
    (std::io::stdin().read_line(&mut line).unwrap() > 0).then(|| line.trim_end().to_owned())
}

/// A chain of depth 6; each but the last has a daemon besides.
fn deep(depth: u32) {
    if depth == 6 {
        say(format!("{depth} {} 0", std::process::id()));
    } else {
        let daemon = Process::builder().daemon(true).spawn((), for_ever).unwrap();
        drop(Process::spawn((depth + 1,), deep).unwrap());
        say(format!("{depth} {} {}", std::process::id(), daemon.pid()));
    }
    for_ever();
}

/// At depth 3 a process returns that has a daemon, and a child that is none.
fn daemons_below() {
    fn level(depth: u32) {
        if depth < 3 {
            let below = Process::builder().stdin(Stdio::Inherit).spawn((depth + 1,), level);
            return below.unwrap().join().unwrap();
        }
        let daemon = Process::builder().daemon(true).spawn((), for_ever).unwrap();
        drop(Process::builder().stdin(Stdio::Inherit).spawn((), || say(format!("read {:?}", read_line()))).unwrap());
        say(daemon.pid());
    }
    level(0);
    say("joined");
    read_line();
}

/// Puts what stdin says.
fn putter(jobs: Sender<u32>) {
    let child = Process::spawn((), for_ever).unwrap();
    say(format!("putter {} has {}", std::process::id(), child.pid()));
    while let Some(line) = read_line() {
        jobs.put(line.parse().unwrap()).unwrap();
    }
}

/// Does what is put; keeps the first 13 for ever.
fn getter(jobs: Receiver<u32>) {
    while let Ok(job) = jobs.lease() {
        let me = std::process::id();
        if *job == 13 && job.attempt() == 1 {
            say(format!("{me} holds 13"));
            for_ever();
        }
        let attempt = job.attempt();
        say(format!("{me} did {} at attempt {attempt}", job.ack()));
    }
    say("getter saw the end");
}

fn detached() {
    let jobs = Queue::bounded(10).unwrap();
    let a = Process::spawn((jobs.receiver().unwrap(),), getter).unwrap();
    let b = Process::spawn((jobs.receiver().unwrap(),), getter).unwrap();
    let c = Process::builder().stdin(Stdio::Inherit).spawn((jobs.sender().unwrap(),), putter).unwrap();
    let pids = [a, b, c].map(|p| p.detach().unwrap().pid);
    say(format!("detached {} {} {}", pids[0], pids[1], pids[2]));
    for_ever();
}

fn detached_below() {
    let middle = Process::builder().stdin(Stdio::Inherit).spawn((), || {
        let p = Process::builder().stdin(Stdio::Inherit).spawn((), || {
            say(format!("below read {:?}", read_line()));
            let own = Process::spawn((20,), |x: u64| x * 2 + 2).unwrap();
            say(own.join().unwrap());
        });
        let pid = p.unwrap().detach().unwrap().pid;
        say(format!("{} detached {pid}", std::process::id()));
        for_ever();
    });
    drop(middle);
    for_ever();
}

fn detached_at_once() {
    let until_eof = || while read_line().is_some() {};
    let start = || Process::builder().stdin(Stdio::Inherit).spawn((), until_eof).unwrap();
    let pids = [(); 5].map(|()| start().detach().unwrap().pid.to_string());
    let dead = Process::spawn((), || ()).unwrap();
    dead.wait();
    say(format!("{} {}", pids.join(" "), dead.detach().unwrap_err().is_ended()));
    for_ever();
}

fn detached_and_exit() {
    let p = Process::builder().stdin(Stdio::Inherit).spawn((), || say(format!("then read {:?}", read_line()))).unwrap();
    let info = p.detach().unwrap();
    say(format!("{} {}", info.pid, multiproc::active_children().len()));
    std::process::exit(3);
}

fn exit_with_grace() {
    exit_grace(Duration::from_millis(50));
    drop(Process::spawn((), || {
        ignore(libc::SIGTERM);
        say("ignores");
        for_ever();
    }));
    drop(Process::spawn((), for_ever));
}

fn late_at_exit() {
    let queue = Queue::<u8>::bounded(1).unwrap();
    drop(Process::builder().name("consumer").spawn((queue,), |q| drop(q.get())).unwrap());
}

fn lines_through_closed_descriptors() {
    let child = Process::builder().stdout(Stdio::lines(|_, _| ())).spawn((), || {
        // SAFETY: the bytes are a constant; nobody may be there to read them.
        unsafe { libc::write(1, b"one\n".as_ptr().cast(), 4) };
    });
    let child = child.unwrap();
    // SAFETY: closes what others own, which is the point; nothing of it is used by number afterwards but by multiproc.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
    let joined = child.join();
    say(format_args!("joined {joined:?}"));
}

/// Both streams have something to read, and what is told of the first closes the second.
fn descriptors_closed_between_two_streams() {
    let (written, seen) = (Event::new().unwrap(), Event::new().unwrap());
    let (both, end) = (written.clone(), seen.clone());
    let stdout = Stdio::lines(move |_, line| {
        if line == "first" {
            return both.wait().unwrap();
        }
        // SAFETY: closes what others own, which is the point; nothing of it is used by number afterwards but by multiproc.
        unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
        end.set().unwrap();
    });
    let builder = Process::builder().stdout(stdout).stderr(Stdio::lines(|_, _| ()));
    let child = builder.spawn((written, seen), |written: Event, seen: Event| {
        println!("first");
        println!("second");
        eprintln!("third");
        written.set().unwrap();
        seen.wait().unwrap();
    });
    let joined = child.unwrap().join();
    say(format_args!("joined {joined:?}"));
}

fn lines_at_exit() {
    let tell = || Stdio::lines(|who, line| say(format!("{who}: {line}")));
    let p = Process::builder().name("a").stdout(tell()).stderr(tell()).spawn((), || {
        for n in 0..1000 {
            println!("{n}");
        }
        eprint!("no end");
        print!("nor here");
    });
    drop(p);
}

/// Three children with a child each: one that ends when asked, one that does not, one that is stopped.
fn report() {
    let pids = Queue::<u32>::bounded(10).unwrap();
    let start = |name: &str| {
        Process::builder().name(name).spawn((name.to_owned(), pids.clone()), |name: String, pids: Queue<u32>| {
            if name == "stubborn" {
                ignore(libc::SIGTERM);
            }
            pids.put(Process::spawn((), for_ever).unwrap().pid()).unwrap();
            if name == "stopped" {
                // SAFETY: touches no memory.
                unsafe { libc::raise(libc::SIGSTOP) };
            }
            for_ever();
        })
    };
    let children = ["willing", "stubborn", "stopped"].map(|name| start(name).unwrap());
    let below = [(); 3].map(|()| pids.get().unwrap());
    assert!(below.iter().all(|&pid| !is_gone(pid)));
    let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: the place is valid for writing.
    let r = unsafe { libc::waitid(libc::P_PID, children[2].pid(), info.as_mut_ptr(), libc::WSTOPPED | libc::WNOWAIT) };
    assert_eq!(r, 0);
    let report = shutdown(Duration::from_secs(3));
    assert!(below.iter().all(|&pid| is_gone(pid)), "all below are gone");
    assert!(children.iter().all(|p| !p.is_alive()) && multiproc::active_children().is_empty());
    for child in &report.children {
        say(format!("{} {} {}", child.name, child.status.unwrap(), child.killed));
    }
    assert!(!report.in_time() && report.to_string().contains("killed after the grace"));
    assert!(shutdown(Duration::ZERO).children.is_empty());
    say(Process::spawn((21,), |x: u64| x * 2).unwrap().join().unwrap());
    drop(Process::spawn((), for_ever).unwrap());
    say(shutdown(Duration::ZERO).children[0].status.unwrap());
}

fn caught_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|l| l.strip_prefix("SigCgt:")).unwrap();
    // Without libc's own two, 32 and 33, which it installs with the first thread.
    u64::from_str_radix(mask.trim(), 16).unwrap() & !(3 << 31)
}

/// What is caught before anything, after all kinds of use, and after it was asked for.
fn handlers() {
    let before = caught_signals();
    let queue = Queue::<u32>::bounded(10).unwrap();
    let p = Process::builder().stdout(Stdio::lines(|_, _| ())).spawn((queue.clone(),), |q| q.put(1).unwrap()).unwrap();
    queue.get().unwrap();
    p.join().unwrap();
    drop(Process::spawn((), for_ever).unwrap());
    shutdown(Duration::ZERO);
    say(before == caught_signals());
    assert!(shutdown_on(&[Signal::KILL], Duration::ZERO).is_err());
    assert!(shutdown_on(&[Signal::SEGV], Duration::ZERO).is_err());
    shutdown_on(&[Signal::INT, Signal::TERM], Duration::from_secs(5)).unwrap();
    say(format!("{:x}", before ^ caught_signals()));
}

fn uncaught() {
    drop(Process::spawn((), for_ever).unwrap());
    say("ready");
    for_ever();
}

extern "C" fn at_exit() {
    // Past std's buffer: what is in there has to come out without this.
    let text = format!("{} leaves\n", std::process::id());
    // SAFETY: valid for its length.
    unsafe { libc::write(1, text.as_ptr().cast(), text.len()) };
}

/// A coordinator that catches signals, with a plain worker, one that catches them as well and has a child, and one that prints what it gets.
fn caught(how: &str) {
    let grace = Duration::from_secs(if how == "stubborn" { 10_000 } else { 100 });
    shutdown_on(&[Signal::INT, Signal::TERM], grace).unwrap();
    // SAFETY: the function lives as long as the program.
    unsafe { libc::atexit(at_exit) };
    let pids = Queue::<u32>::bounded(10).unwrap();
    let plain = Process::spawn((), for_ever).unwrap();
    let careful = Process::builder().name("careful").spawn((pids.clone(),), |pids: Queue<u32>| {
        shutdown_on(&[Signal::TERM], Duration::from_secs(100)).unwrap();
        // SAFETY: as above.
        unsafe { libc::atexit(at_exit) };
        let below = Process::spawn((), for_ever).unwrap();
        print!("not finished, ");
        pids.put(below.pid()).unwrap();
        for_ever();
    });
    let careful = careful.unwrap();
    let mut all = vec![plain.pid(), careful.pid(), pids.get().unwrap()];
    if how == "stubborn" {
        let stubborn = Process::spawn((pids.clone(),), |pids: Queue<u32>| {
            ignore(libc::SIGTERM);
            pids.put(0).unwrap();
            for_ever();
        });
        all.push(stubborn.unwrap().pid());
        pids.get().unwrap();
    }
    let all: Vec<_> = all.iter().map(u32::to_string).collect();
    say(all.join(" "));
    match how {
        "returns" => assert!(plain.join().is_err(), "a worker that is ended under us"),
        // Waits in the exit handler when the signal comes.
        "late" => (),
        _ => for_ever(),
    }
}
