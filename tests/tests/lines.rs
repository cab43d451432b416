//! Output of workers line by line: whole, tagged, complete when a join returns, whoever else has the pipe.

use multiproc::{Process, Stdio};
use multiproc_tests::{Scene, eventually, watch};
use std::io::Write;
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::Duration;

type Log = Arc<Mutex<Vec<(String, String)>>>;

fn into(log: &Log) -> Stdio {
    let log = log.clone();
    Stdio::lines(move |who, line| log.lock().unwrap().push((who.to_owned(), line.to_owned())))
}

fn taken(log: &Log) -> Vec<(String, String)> {
    std::mem::take(&mut log.lock().unwrap())
}

fn pair(who: &str, line: &str) -> (String, String) {
    (who.to_owned(), line.to_owned())
}

fn out(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).unwrap();
    out.flush().unwrap();
}

fn for_ever() {
    loop {
        std::thread::park();
    }
}

#[test]
fn lines_come_whole_and_tagged() {
    let _watched = watch(60);
    let (stdout, stderr) = (Log::default(), Log::default());
    let p = Process::builder().name("w").stdout(into(&stdout)).stderr(into(&stderr)).spawn((), || {
        out(b"one\n\ntw");
        eprintln!("aside");
        out(b"o\r\nthree\nno end");
    });
    p.unwrap().join().unwrap();
    assert_eq!(taken(&stdout), ["one", "", "two", "three", "no end"].map(|line| pair("w", line)));
    assert_eq!(taken(&stderr), [pair("w", "aside")]);
}

/// Killed in the middle of a line, and of nothing.
#[test]
fn the_last_words_of_the_killed_arrive() {
    let _watched = watch(60);
    for n in 0..20 {
        let log = Log::default();
        let p = Process::builder().name("w").stdout(into(&log)).stderr(Stdio::Piped).spawn((n,), |n: usize| {
            out(format!("whole\n{}", "x".repeat(n * 1000)).as_bytes());
            eprint!("!");
            for_ever();
        });
        let mut p = p.unwrap();
        std::io::Read::read_exact(p.stderr.as_mut().unwrap(), &mut [0]).unwrap();
        p.kill().unwrap();
        assert!(p.join().is_err());
        let mut expected = vec![pair("w", "whole")];
        expected.extend((n > 0).then(|| pair("w", &"x".repeat(n * 1000))));
        assert_eq!(taken(&log), expected);
    }
}

/// What is not taken fills the pipe, and then the writer waits; nothing is lost, and others are not stopped from ending.
#[test]
fn a_slow_callback_slows_its_writers() {
    let _watched = watch(120);
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let (wait, count) = (gate.clone(), Arc::new(Mutex::new(0u64)));
    let counter = count.clone();
    let slow = Stdio::lines(move |_, line| {
        let mut open = wait.0.lock().unwrap();
        while !*open {
            open = wait.1.wait(open).unwrap();
        }
        *counter.lock().unwrap() += line.len() as u64 + 1;
    });
    let written = multiproc::Atomic::new(0u64).unwrap();
    let writer = Process::builder().stdout(slow).spawn((written.clone(),), |written| {
        for n in 0..200_000u64 {
            println!("{n:063}");
            written.add(64);
        }
    });
    let mut writer = writer.unwrap();
    // Until the pipe is full, and some lines are on the way.
    let mut before = u64::MAX;
    eventually(|| {
        std::thread::sleep(Duration::from_millis(20));
        let now = written.get();
        now > 0 && std::mem::replace(&mut before, now) == now
    });
    assert!(written.get() < 1 << 20, "{}", written.get());
    assert!(writer.join_timeout(Duration::from_millis(1)).unwrap().is_none());
    // The keeper has other things to do meanwhile.
    assert_eq!(Process::spawn((21,), |x: u64| x * 2).unwrap().join().unwrap(), 42);
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    writer.join().unwrap();
    assert_eq!(*count.lock().unwrap(), 200_000 * 64);
}

/// Ended while its lines wait to be taken: it is dead, and a join waits for the lines.
#[test]
fn joins_wait_for_the_lines() {
    let _watched = watch(60);
    let (open, gate) = mpsc::channel::<()>();
    let log = Log::default();
    let to = log.clone();
    let gated = Stdio::lines(move |who, line| {
        let _ = gate.recv();
        to.lock().unwrap().push(pair(who, line));
    });
    let mut p = Process::builder().name("w").stdout(gated).spawn((), || out(b"1\n2")).unwrap();
    eventually(|| !p.is_alive());
    assert!(p.join_timeout(Duration::from_millis(50)).unwrap().is_none());
    assert!(p.try_join().unwrap().is_none());
    assert_eq!(log.lock().unwrap().len(), 0);
    open.send(()).unwrap();
    open.send(()).unwrap();
    p.join().unwrap();
    assert_eq!(taken(&log), [pair("w", "1"), pair("w", "2")]);
}

#[test]
fn long_lines_come_in_pieces_and_other_bytes_replaced() {
    let _watched = watch(60);
    let log = Log::default();
    let p = Process::builder().stdout(into(&log)).spawn((), || {
        out("ü".repeat(3 << 19).as_bytes());
        out(b"\n\xff\xfeok\n");
    });
    p.unwrap().join().unwrap();
    let lines: Vec<_> = taken(&log).into_iter().map(|(_, line)| line).collect();
    let (last, long) = lines.split_last().unwrap();
    assert_eq!(last, "\u{fffd}\u{fffd}ok");
    assert!(long.len() > 1 && long.iter().all(|piece| piece.len() <= 1 << 20));
    assert!(long.concat() == "ü".repeat(3 << 19));
}

/// A carriage return is part of an end of line only in front of the newline: not where a piece ends, nor where the output does.
#[test]
fn carriage_returns_are_kept_unless_they_end_a_line() {
    let _watched = watch(60);
    let log = Log::default();
    let p = Process::builder().stdout(into(&log)).spawn((), || {
        let mut long = vec![b'x'; 2 << 20];
        long[(1 << 20) - 1] = b'\r';
        out(&long);
        out(b"\ndos\r\nodd\r\r\n50%\r60%\r");
    });
    p.unwrap().join().unwrap();
    let text: Vec<_> = taken(&log).into_iter().map(|(_, line)| line).collect();
    let (long, short) = text.split_at(text.len() - 3);
    assert_eq!(short, ["dos", "odd\r", "50%\r60%\r"]);
    let mut expected = vec![b'x'; 2 << 20];
    expected[(1 << 20) - 1] = b'\r';
    assert!(long.concat().into_bytes() == expected);
}

/// Whoever has closed all descriptors hears of no more lines, and joins all the same: of a child whose stream was followed, and of one whose was not yet.
#[test]
fn nobody_waits_for_lines_through_closed_descriptors() {
    let _watched = watch(120);
    for scene in ["lines through closed descriptors"; 20].into_iter().chain(["descriptors closed between two streams"]) {
        let (text, status) = Scene::play(env!("CARGO_BIN_EXE_trees"), scene).end();
        assert!(status.success(), "{scene}: {status}");
        assert!(text.starts_with("joined"), "{text}");
    }
}

/// A program that the worker has left behind keeps the pipe open: nobody waits for it, and what it says still comes.
#[test]
fn strangers_at_the_pipe_hold_nobody_up() {
    let _watched = watch(60);
    let (to, lines) = mpsc::channel();
    let tell = Stdio::lines(move |_, line| to.send(line.to_owned()).unwrap());
    let mut p = Process::builder()
        .stdin(Stdio::Piped)
        .stdout(tell)
        .spawn((), || {
            // Leaves the pipe's end to the shell, which goes on when it is told to.
            #[expect(clippy::zombie_processes, reason = "it outlives the worker, whose end makes it somebody else's child")]
            let _shell = Command::new("sh").args(["-c", "read word; echo \"late $word\"; printf more"]).spawn().unwrap();
            out(b"own\nunfinished");
        })
        .unwrap();
    let mut stdin = p.stdin.take().unwrap();
    p.join().unwrap();
    assert_eq!(lines.try_iter().collect::<Vec<_>>(), ["own", "unfinished"]);
    stdin.write_all(b"word\n").unwrap();
    assert_eq!(lines.recv().unwrap(), "late word");
    assert_eq!(lines.recv().unwrap(), "more");
    // The end of the pipe drops the callback.
    assert!(lines.recv().is_err());
}

/// A callback may join, and may panic.
#[test]
fn callbacks_do_as_they_please() {
    let _watched = watch(60);
    let handle = Arc::new(Mutex::new(None::<Process<u32>>));
    let (inner, (to, results)) = (handle.clone(), mpsc::channel());
    let tell = Stdio::lines(move |_, line| match line {
        "panic" => panic!("as the test wants"),
        _ => {
            // Its own process, which ends only after this line.
            let mut p = inner.lock().unwrap().take().unwrap();
            to.send(p.join_timeout(Duration::from_secs(1000)).unwrap().unwrap()).unwrap();
        }
    });
    let p = Process::builder().stdin(Stdio::Piped).stdout(tell).spawn((), || {
        std::io::stdin().read_line(&mut String::new()).unwrap();
        out(b"panic\njoin\n");
        7
    });
    let mut p = p.unwrap();
    let mut stdin = p.stdin.take().unwrap();
    *handle.lock().unwrap() = Some(p);
    stdin.write_all(b"\n").unwrap();
    assert_eq!(results.recv().unwrap(), 7);
}

/// One thread, however many workers; and each line under its worker's name.
#[test]
fn one_thread_serves_all() {
    let _watched = watch(120);
    let log = Log::default();
    let start = |n: u32| {
        Process::builder().name(format!("w{n}")).stdout(into(&log)).spawn((n,), |n: u32| {
            for i in 0..100 {
                println!("{n} {i}");
            }
        })
    };
    let workers: Vec<_> = (0..20).map(|n| start(n).unwrap()).collect();
    workers.into_iter().for_each(|p| p.join().unwrap());
    let names = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = names.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    assert_eq!(names.filter(|name| name.trim_end() == "multiproc-lines").count(), 1);
    let log = taken(&log);
    for n in 0..20 {
        let of_one: Vec<_> = log.iter().filter(|(who, _)| *who == format!("w{n}")).map(|(_, line)| line.clone()).collect();
        assert_eq!(of_one, (0..100).map(|i| format!("{n} {i}")).collect::<Vec<_>>());
    }
}

#[test]
fn stdin_has_no_lines() {
    let e = Process::builder().stdin(Stdio::lines(|_, _| ())).spawn((), || ()).unwrap_err();
    assert!(e.to_string().contains("stdin"), "{e}");
}

/// The exit of the coordinator delivers what its workers have written.
#[test]
fn the_exit_delivers_the_rest() {
    let _watched = watch(60);
    let (text, status) = Scene::play(env!("CARGO_BIN_EXE_trees"), "lines at exit").end();
    let mut lines: Vec<_> = text.lines().collect();
    assert!(status.success());
    assert_eq!(lines.len(), 1002, "{text}");
    let at = lines.iter().position(|&line| line == "a: no end").unwrap();
    lines.remove(at);
    let expected: Vec<_> = (0..1000).map(|n| format!("a: {n}")).chain(["a: nor here".to_owned()]).collect();
    assert_eq!(lines, expected);
}
