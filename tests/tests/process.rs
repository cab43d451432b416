//! Processes as a user sees them: what goes in, what comes out, how they end, how they are waited for.

use multiproc::{Process, ProcessError, Run, Signal, Stdio};
use multiproc_tests::{eventually, no_core_dumps, watch};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::time::{Duration, Instant};

fn for_ever() {
    loop {
        std::thread::park();
    }
}

fn ready_for_ever() {
    println!("ready");
    for_ever();
}

/// A process that has begun its function, which never returns.
fn begun() -> Process<()> {
    let mut p = Process::builder().stdout(Stdio::Piped).spawn((), ready_for_ever).unwrap();
    let mut line = String::new();
    BufReader::new(p.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    p
}

fn leave(code: i32) {
    std::process::exit(code);
}

// --- arguments and results ---------------------------------------------------------------------

#[test]
fn functions_of_0_to_12_arguments() {
    let _watched = watch(60);
    macro_rules! try_it {
        ($($n:literal $name:ident),*) => {
            let p = Process::spawn(($($n,)*), |$($name: u64),*| -> u64 { let all: &[u64] = &[$($name),*]; all.iter().sum() }).unwrap();
            let expected: &[u64] = &[$($n),*];
            assert_eq!(p.join().unwrap(), expected.iter().sum::<u64>());
        };
    }
    try_it!();
    try_it!(1 a);
    try_it!(1 a, 2 b);
    try_it!(1 a, 2 b, 3 c);
    try_it!(1 a, 2 b, 3 c, 4 d);
    try_it!(1 a, 2 b, 3 c, 4 d, 5 e);
    try_it!(1 a, 2 b, 3 c, 4 d, 5 e, 6 f);
    try_it!(1 a, 2 b, 3 c, 4 d, 5 e, 6 f, 7 g);
    try_it!(1 a, 2 b, 3 c, 4 d, 5 e, 6 f, 7 g, 8 h);
    try_it!(1 a, 2 b, 3 c, 4 d, 5 e, 6 f, 7 g, 8 h, 9 i);
    try_it!(1 a, 2 b, 3 c, 4 d, 5 e, 6 f, 7 g, 8 h, 9 i, 10 j);
    try_it!(1 a, 2 b, 3 c, 4 d, 5 e, 6 f, 7 g, 8 h, 9 i, 10 j, 11 k);
    try_it!(1 a, 2 b, 3 c, 4 d, 5 e, 6 f, 7 g, 8 h, 9 i, 10 j, 11 k, 12 l);
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Dot,
    Circle { radius: f64, name: Option<String> },
    Group(Vec<Shape>, BTreeMap<String, (i8, char)>),
}

fn some_shape() -> Shape {
    let circle = Shape::Circle { radius: 1.5, name: Some("größer".into()) };
    Shape::Group(vec![Shape::Dot, circle, Shape::Circle { radius: f64::MAX, name: None }], [("x".into(), (-1, 'ß'))].into())
}

#[test]
fn arguments_of_different_types_arrive() {
    let _watched = watch(60);
    let args = (
        (),
        true,
        'x',
        -5i8,
        u128::MAX,
        0.5f32,
        String::from("text"),
        Some(some_shape()),
        vec![(1u8, "a".to_owned())],
        [1u16; 7],
    );
    type A = (bool, char, i8, u128, f32, String, Option<Shape>, Vec<(u8, String)>, [u16; 7]);
    #[expect(clippy::too_many_arguments, reason = "that is the point")]
    fn give_back(
        _: (),
        a: bool,
        b: char,
        c: i8,
        d: u128,
        e: f32,
        f: String,
        g: Option<Shape>,
        h: Vec<(u8, String)>,
        i: [u16; 7],
    ) -> A {
        (a, b, c, d, e, f, g, h, i)
    }
    let expected = (args.1, args.2, args.3, args.4, args.5, args.6.clone(), args.7.clone(), args.8.clone(), args.9);
    assert_eq!(Process::spawn(args, give_back).unwrap().join().unwrap(), expected);
}

fn generic<T: std::ops::Add<Output = T> + Copy>(x: T) -> T {
    x + x
}

fn of_a_trait(x: impl ToString + Serialize + for<'a> Deserialize<'a> + 'static) -> String {
    x.to_string()
}

#[test]
fn generics_methods_and_chosen_functions() {
    let _watched = watch(60);
    assert_eq!(Process::spawn((21u64,), generic).unwrap().join().unwrap(), 42);
    assert_eq!(Process::spawn((1.25f64,), generic::<f64>).unwrap().join().unwrap(), 2.5);
    assert_eq!(Process::spawn((7u8,), of_a_trait).unwrap().join().unwrap(), "7");
    assert_eq!(Process::spawn(("abc".to_owned(),), |s: String| s.len()).unwrap().join().unwrap(), 3);
    assert_eq!(Process::spawn((Resize { width: 80 },), Resize::run).unwrap().join().unwrap(), 40);
    let table: [fn(u64) -> u64; 3] = [|x| x + 1, |x| x * x, generic];
    for (f, expected) in table.into_iter().zip([6, 25, 10]) {
        assert_eq!(Process::spawn((5,), f).unwrap().join().unwrap(), expected);
    }
}

#[derive(Serialize, Deserialize)]
struct Resize {
    width: u32,
}

impl Run for Resize {
    type Output = u32;
    fn run(mut self) -> u32 {
        self.width /= 2;
        self.width
    }
}

#[derive(Serialize, Deserialize)]
struct Twice<T>(T);

impl<T: Clone + Serialize + for<'a> Deserialize<'a> + 'static> Run for Twice<T> {
    type Output = (T, T);
    fn run(self) -> (T, T) {
        (self.0.clone(), self.0)
    }
}

#[test]
fn structs_with_state() {
    let _watched = watch(60);
    assert_eq!(Process::start(Resize { width: 80 }).unwrap().join().unwrap(), 40);
    assert_eq!(Process::start(Twice("a".to_owned())).unwrap().join().unwrap(), ("a".into(), "a".into()));
    let p = Process::builder().name("resizer").start(Resize { width: 2 }).unwrap();
    assert_eq!(p.name(), "resizer");
    assert_eq!(p.join().unwrap(), 1);
}

#[test]
fn values_of_any_size() {
    let _watched = watch(120);
    for size in [0, 1, 63, 64, 65, 4095, 4096, 70_000, 1 << 20, 5 << 20] {
        let sent: Vec<u64> = (0..size).collect();
        let back = Process::spawn((sent.clone(),), |v: Vec<u64>| v).unwrap().join().unwrap();
        assert!(back == sent, "{size} words");
    }
}

#[test]
fn results_and_errors_are_values() {
    let _watched = watch(60);
    fn parse(text: String) -> Result<u32, String> {
        text.parse().map_err(|e| format!("{e}"))
    }
    assert_eq!(Process::spawn(("17".to_owned(),), parse).unwrap().join().unwrap(), Ok(17));
    assert!(Process::spawn(("x".to_owned(),), parse).unwrap().join().unwrap().is_err());
}

/// A type that can be encoded, or decoded, only sometimes.
struct Moody<const ENCODES: bool>;

impl<const ENCODES: bool> Serialize for Moody<ENCODES> {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if ENCODES { s.serialize_u8(1) } else { Err(serde::ser::Error::custom("in no mood to travel")) }
    }
}

impl<'a, const ENCODES: bool> Deserialize<'a> for Moody<ENCODES> {
    fn deserialize<D: serde::Deserializer<'a>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("in no mood to arrive"))
    }
}

#[test]
fn what_cannot_travel_is_an_error() {
    let _watched = watch(60);
    let e = Process::spawn((Moody::<false>,), |_: Moody<false>| ()).unwrap_err();
    assert!(e.is_codec() && e.to_string().contains("in no mood to travel"), "{e}");
    let e = Process::spawn((Moody::<true>,), |_: Moody<true>| ()).unwrap().join().unwrap_err();
    assert!(matches!(&e, ProcessError::NotStarted { reason, .. } if reason.contains("in no mood to arrive")), "{e:?}");
    let e = Process::spawn((), || Moody::<false>).unwrap().join().err().unwrap();
    assert!(matches!(&e, ProcessError::Unsendable { reason, .. } if reason.contains("in no mood to travel")), "{e:?}");
    let e = Process::spawn((), || Moody::<true>).unwrap().join().err().unwrap();
    assert!(matches!(&e, ProcessError::Undecodable { .. }), "{e:?}");
}

// --- the builder -------------------------------------------------------------------------------

#[test]
fn names() {
    let _watched = watch(60);
    fn name() -> String {
        multiproc::current_process().name
    }
    let default = Process::spawn((), name).unwrap();
    let given = default.name().to_owned();
    assert!(given.starts_with("Process-"), "{given}");
    assert_eq!(default.join().unwrap(), given);
    for name_of in ["worker-1", "größer", "a name with spaces", ""] {
        let p = Process::builder().name(name_of).spawn((), name).unwrap();
        assert_eq!(p.name(), name_of);
        assert_eq!(p.join().unwrap(), name_of);
    }
    let long = "ä".repeat(100);
    assert_eq!(Process::builder().name(long.clone()).spawn((), name).unwrap().join().unwrap(), long);
    let nul = Process::builder().name("a\0b").spawn((), name).unwrap();
    assert_eq!(nul.join().unwrap(), "a\0b");
    let nested = Process::spawn((), || {
        let inner = Process::spawn((), name).unwrap();
        (name(), inner.name().to_owned(), inner.join().unwrap())
    });
    let (outer, inner, seen) = nested.unwrap().join().unwrap();
    assert_eq!((format!("{outer}:1"), inner.clone()), (inner, seen));
    let comm = Process::builder().name("0123456789abcdefgh").spawn((), || std::fs::read_to_string("/proc/self/comm").unwrap());
    assert_eq!(comm.unwrap().join().unwrap(), "0123456789abcde\n");
}

#[test]
fn environment() {
    let _watched = watch(60);
    fn see(key: String) -> Option<String> {
        std::env::var(key).ok()
    }
    let p = Process::builder().env("MP_A", "1").env("MP_A", "zwei=ä").spawn(("MP_A".to_owned(),), see).unwrap();
    assert_eq!(p.join().unwrap().as_deref(), Some("zwei=ä"));
    assert!(Process::spawn(("PATH".to_owned(),), see).unwrap().join().unwrap().is_some());
    let p = Process::builder().env_remove("PATH").spawn(("PATH".to_owned(),), see).unwrap();
    assert_eq!(p.join().unwrap(), None);
    let p = Process::builder().env_remove("MP_B").env("MP_B", "").spawn(("MP_B".to_owned(),), see).unwrap();
    assert_eq!(p.join().unwrap().as_deref(), Some(""));
    let p = Process::builder().env("MP_C", "x").env_remove("MP_C").spawn(("MP_C".to_owned(),), see).unwrap();
    assert_eq!(p.join().unwrap(), None);
    // The library's own variable cannot be set from outside.
    let p = Process::builder().env("MULTIPROC_WORKER", "x").spawn(("MULTIPROC_WORKER".to_owned(),), see).unwrap();
    assert_eq!(p.join().unwrap(), None);
    for key in ["A\0B", "A=B", ""] {
        let e = Process::builder().env(key, "x").spawn((), || ()).unwrap_err();
        assert!(e.to_string().contains("environment"), "{e}");
    }
    let e = Process::builder().env("MP_D", "x\0y").spawn((), || ()).unwrap_err();
    assert!(e.to_string().contains("MP_D"), "{e}");
}

#[test]
fn working_directory() {
    let _watched = watch(60);
    let p = Process::builder().cwd("/proc").spawn((), || std::env::current_dir().unwrap()).unwrap();
    assert_eq!(p.join().unwrap(), std::path::Path::new("/proc"));
    let e = Process::builder().cwd("/no/such/dir").spawn((), || ()).unwrap_err();
    assert!(e.to_string().contains("working directory"), "{e}");
    // From the parent's directory otherwise.
    let p = Process::spawn((), || std::env::current_dir().unwrap()).unwrap();
    assert_eq!(p.join().unwrap(), std::env::current_dir().unwrap());
}

#[test]
fn standard_streams() {
    let _watched = watch(60);
    let stdin_is_empty = Process::spawn((), || std::io::stdin().read(&mut [0]).unwrap());
    assert_eq!(stdin_is_empty.unwrap().join().unwrap(), 0);

    let mut p = Process::builder().stdin(Stdio::Piped).stdout(Stdio::Piped).stderr(Stdio::Piped).spawn((), || {
        for line in std::io::stdin().lines() {
            let line = line.unwrap();
            println!("out {line}");
            eprintln!("err {line}");
        }
        // Neither newline nor flush: it is written when the process exits.
        print!("end");
    });
    let p = p.as_mut().unwrap();
    writeln!(p.stdin.take().unwrap(), "a\nb").unwrap();
    let (mut out, mut err) = (String::new(), String::new());
    p.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    p.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!((out.as_str(), err.as_str()), ("out a\nout b\nend", "err a\nerr b\n"));
    assert!(p.wait().unwrap().success());

    let (mut reader, writer) = std::io::pipe().unwrap();
    let both = || {
        println!("1");
        eprintln!("2");
    };
    let p = Process::builder().stdout(writer.try_clone().unwrap()).stderr(writer).spawn((), both).unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "1\n2\n");
    p.join().unwrap();
    let p = Process::builder().stdout(Stdio::Null).spawn((), || std::fs::read_link("/proc/self/fd/1").unwrap()).unwrap();
    assert_eq!(p.join().unwrap(), std::path::Path::new("/dev/null"));
}

#[test]
fn a_closed_pipe_is_an_error_and_not_a_signal() {
    let _watched = watch(60);
    let mut p = Process::builder().stdin(Stdio::Piped).stdout(Stdio::Piped).spawn((), || {
        std::io::stdin().read_to_string(&mut String::new()).unwrap();
        std::io::stdout().write_all(b"x").and_then(|()| std::io::stdout().flush()).unwrap_err().kind()
            == std::io::ErrorKind::BrokenPipe
    });
    let p = p.as_mut().unwrap();
    drop(p.stdout.take());
    drop(p.stdin.take());
    p.wait();
    assert!(p.try_join().unwrap().unwrap());
}

// --- panics and other ends ---------------------------------------------------------------------

fn quiet<R>(p: Result<Process<R>, multiproc::Error>) -> Process<R> {
    p.unwrap()
}

#[test]
fn a_panic_arrives_with_message_and_place() {
    let _watched = watch(60);
    let silent = || Process::builder().name("fragile").stderr(Stdio::Null).env("RUST_BACKTRACE", "0");
    fn fail(n: u32) -> u32 {
        if n > 1 {
            panic!("n is {n}")
        }
        n
    }
    match quiet(silent().spawn((7,), fail)).join() {
        Err(e @ ProcessError::Panicked { .. }) => {
            let text = e.to_string();
            let ProcessError::Panicked { name, message, location, backtrace, .. } = e else { unreachable!() };
            assert_eq!((name.as_str(), message.as_str(), backtrace.as_str()), ("fragile", "n is 7", ""));
            let place: Vec<_> = location.split(':').collect();
            assert!(place[0].ends_with("tests/process.rs") && place[1].parse::<u32>().unwrap() > 0, "{location}");
            assert!(text.contains("fragile") && text.contains("n is 7") && text.contains("process.rs"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    let with_trace = silent().env("RUST_BACKTRACE", "1").spawn((7,), fail).unwrap().join();
    assert!(matches!(&with_trace, Err(ProcessError::Panicked { backtrace, .. }) if backtrace.contains("fail")), "{with_trace:?}");
    let unwrapped = silent().spawn((), || std::env::var("no such variable").ok().unwrap()).unwrap().join();
    assert!(matches!(&unwrapped, Err(ProcessError::Panicked { message, .. }) if message.contains("None")), "{unwrapped:?}");
    let no_text = silent().spawn((5,), |n: i32| std::panic::panic_any(n)).map(|p: Process<()>| p.join());
    assert!(matches!(no_text, Ok(Err(ProcessError::Panicked { .. }))), "{no_text:?}");
    let p = silent().spawn((7,), fail).unwrap();
    assert_eq!(p.wait().unwrap().code(), Some(101));
}

#[test]
fn a_panic_is_printed_with_the_name() {
    let _watched = watch(60);
    let mut p = Process::builder().name("speaker").stderr(Stdio::Piped).spawn((), || {
        if true {
            panic!("last words")
        }
    });
    let p = p.as_mut().unwrap();
    let mut text = String::new();
    p.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(text.contains("speaker") && text.contains("last words") && text.contains("process.rs"), "{text}");
}

#[test]
fn panics_elsewhere_are_not_the_process() {
    let _watched = watch(60);
    let silent = || Process::builder().stderr(Stdio::Null);
    fn second_thread() -> bool {
        std::thread::spawn(|| panic!("in a thread")).join().is_err()
    }
    assert!(silent().spawn((), second_thread).unwrap().join().unwrap());
    let caught = silent().spawn((), || std::panic::catch_unwind(|| panic!("caught")).is_err()).unwrap();
    assert!(caught.join().unwrap());
    let left = silent().spawn((), || {
        second_thread();
        std::process::exit(4)
    });
    let left = left.map(|p: Process<()>| p.join());
    assert!(matches!(left, Ok(Err(ProcessError::Exited { code: 4, .. }))), "{left:?}");
    let propagated =
        silent().spawn((), || std::thread::spawn(|| panic!("carried on")).join().unwrap()).map(|p: Process<()>| p.join());
    let Ok(Err(ProcessError::Panicked { message, .. })) = &propagated else { panic!("{propagated:?}") };
    assert!(message.contains("unwrap"), "{message}");
    let killed = silent().spawn((), || {
        second_thread();
        // SAFETY: touches no memory.
        unsafe { libc::raise(libc::SIGKILL) };
    });
    let killed = killed.unwrap().join();
    assert!(matches!(killed, Err(ProcessError::Signaled { signal: Signal::KILL, .. })), "{killed:?}");
}

#[test]
fn a_panic_while_panicking() {
    let _watched = watch(60);
    no_core_dumps();
    struct Fragile;
    impl Drop for Fragile {
        fn drop(&mut self) {
            panic!("the second");
        }
    }
    let p = Process::builder().stderr(Stdio::Null).spawn((), || {
        let _fragile = Fragile;
        if true {
            panic!("the first")
        }
    });
    let p = p.unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&p.wait().unwrap()), Some(libc::SIGABRT));
    let end = p.join();
    assert!(matches!(&end, Err(ProcessError::Panicked { message, .. }) if !message.is_empty()), "{end:?}");
}

#[test]
fn exit_codes() {
    let _watched = watch(60);
    for code in [0, 1, 3, 101, 255] {
        let p = Process::spawn((code,), leave).unwrap();
        assert_eq!(p.wait().unwrap().code(), Some(code));
        let end = p.join();
        assert!(matches!(end, Err(ProcessError::Exited { code: c, .. }) if c == code), "{end:?}");
    }
    fn leave_at_once() {
        // SAFETY: ends the process.
        unsafe { libc::_exit(6) };
    }
    let p = Process::spawn((), leave_at_once);
    assert!(matches!(p.unwrap().join(), Err(ProcessError::Exited { code: 6, .. })));
    let from_a_thread = Process::spawn((), || {
        let _ = std::thread::spawn(|| std::process::exit(8)).join();
    });
    assert!(matches!(from_a_thread.unwrap().join(), Err(ProcessError::Exited { code: 8, .. })));
}

#[test]
fn every_end_by_signal() {
    let _watched = watch(60);
    no_core_dumps();
    // Not those that stop, continue or are ignored by default, nor libc's own two.
    let harmless =
        [libc::SIGCHLD, libc::SIGCONT, libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU, libc::SIGURG, libc::SIGWINCH];
    for sig in (1..=31).chain(34..=64).filter(|s| !harmless.contains(s) && *s != libc::SIGPIPE) {
        let p = Process::spawn((), for_ever).unwrap();
        p.signal(Signal(sig)).unwrap();
        let end = p.join();
        assert!(
            matches!(end, Err(ProcessError::Signaled { signal: Signal(s), core_dumped: false, .. }) if s == sig),
            "{sig}: {end:?}"
        );
    }
    let e = Process::spawn((), for_ever).map(|p| (p.kill().unwrap(), p.join().unwrap_err()).1).unwrap();
    assert!(e.to_string().contains("SIGKILL"), "{e}");
}

#[test]
fn faults_and_aborts() {
    let _watched = watch(60);
    no_core_dumps();
    let silent = || Process::builder().stderr(Stdio::Null);
    let p = silent().spawn((), || {
        if true {
            std::process::abort()
        }
    });
    assert!(matches!(p.unwrap().join(), Err(ProcessError::Signaled { signal: Signal::ABRT, .. })));
    let p = silent().spawn((), || {
        // SAFETY: none: this is the fault that the test wants.
        unsafe { std::ptr::without_provenance_mut::<u8>(8).write_volatile(1) }
    });
    assert!(matches!(p.unwrap().join(), Err(ProcessError::Signaled { signal: Signal::SEGV, .. })));
    #[inline(never)]
    fn deep(n: u64) -> u64 {
        let frame = std::hint::black_box([n; 100]);
        if n == u64::MAX { 0 } else { deep(n + 1) + frame[(n % 100) as usize] }
    }
    let mut p = Process::builder().name("deep").stderr(Stdio::Piped).spawn((0,), deep).unwrap();
    let mut text = String::new();
    p.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(text.contains("overflowed its stack"), "{text}");
    let end = p.join();
    assert!(matches!(&end, Err(ProcessError::StackOverflow { name, .. }) if name == "deep"), "{end:?}");
    // In a thread of the worker too: std's own handler is not there before main, so it is a plain fault or says so.
    let p = silent().spawn((), || std::thread::spawn(|| deep(0)).join().unwrap()).unwrap();
    let end = p.join();
    assert!(matches!(end, Err(ProcessError::StackOverflow { .. } | ProcessError::Signaled { .. })), "{end:?}");
}

#[test]
fn a_value_counts_though_the_process_is_killed_later() {
    let _watched = watch(60);
    // After the result is left, exit handlers run: here one that never ends.
    fn value() -> u32 {
        extern "C" fn hang() {
            println!("left");
            let _ = std::io::stdout().flush();
            for_ever();
        }
        // SAFETY: the function lives as long as the program.
        unsafe { libc::atexit(hang) };
        17
    }
    let mut p = Process::builder().stdout(Stdio::Piped).spawn((), value).unwrap();
    let mut line = String::new();
    BufReader::new(p.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(p.is_alive());
    assert!(p.try_join().unwrap().is_none(), "join waits for the process, not for its value");
    p.kill().unwrap();
    assert_eq!(p.join().unwrap(), 17);
}

// --- waiting -----------------------------------------------------------------------------------

#[test]
fn waiting_and_joining() {
    let _watched = watch(60);
    let mut p = Process::builder().stdin(Stdio::Piped).spawn((), || {
        std::io::stdin().read_to_string(&mut String::new()).unwrap();
        "done".to_owned()
    });
    let p = p.as_mut().unwrap();
    assert!(p.is_alive() && p.exit_status().is_none());
    assert!(p.try_join().unwrap().is_none());
    let start = Instant::now();
    assert!(p.join_timeout(Duration::from_millis(50)).unwrap().is_none());
    assert!(p.wait_timeout(Duration::from_millis(50)).is_none());
    assert!(start.elapsed() >= Duration::from_millis(100));
    assert!(p.join_timeout(Duration::ZERO).unwrap().is_none());
    drop(p.stdin.take());
    assert!(p.wait().unwrap().success());
    assert!(p.wait().unwrap().success());
    assert!(p.wait_timeout(Duration::MAX).unwrap().success());
    assert!(!p.is_alive() && p.exit_status().unwrap().success());
    assert_eq!(p.join_timeout(Duration::from_secs(1)).unwrap().as_deref(), Some("done"));
    assert!(matches!(p.try_join(), Err(ProcessError::AlreadyJoined { .. })));
    assert!(matches!(p.join_timeout(Duration::ZERO), Err(ProcessError::AlreadyJoined { .. })));
    assert!(p.exit_status().unwrap().success());
}

#[test]
fn a_failure_is_told_again() {
    let _watched = watch(60);
    let mut p = Process::spawn((3,), leave).unwrap();
    p.wait();
    for _ in 0..2 {
        assert!(matches!(p.try_join(), Err(ProcessError::Exited { code: 3, .. })));
    }
}

#[test]
fn an_endless_timeout_waits() {
    let _watched = watch(60);
    let mut p = Process::spawn((5u32,), |x: u32| x).unwrap();
    assert_eq!(p.join_timeout(Duration::MAX).unwrap(), Some(5));
}

#[test]
fn signals_by_name() {
    let _watched = watch(60);
    for (send, expected) in [
        (Process::interrupt as fn(&Process<()>) -> Result<(), multiproc::Error>, Signal::INT),
        (Process::terminate, Signal::TERM),
        (Process::kill, Signal::KILL),
    ] {
        let p = begun();
        send(&p).unwrap();
        p.wait();
        let e = send(&p).unwrap_err();
        assert!(e.is_ended(), "{e}");
        let end = p.join();
        assert!(matches!(end, Err(ProcessError::Signaled { signal, .. }) if signal == expected), "{end:?}");
    }
    let p = begun();
    assert!(!p.signal(Signal(1000)).unwrap_err().is_ended());
    p.signal(Signal::STOP).unwrap();
    assert!(p.is_alive());
    p.signal(Signal::CONT).unwrap();
    p.kill().unwrap();
    p.wait();
}

#[test]
fn a_handler_of_the_worker_is_respected() {
    let _watched = watch(60);
    let mut p = Process::builder().stdout(Stdio::Piped).spawn((), || {
        extern "C" fn leave_well(_: i32) {
            // SAFETY: ends the process.
            unsafe { libc::_exit(44) };
        }
        let handler: extern "C" fn(i32) = leave_well;
        // SAFETY: the handler is async-signal-safe.
        unsafe { libc::signal(libc::SIGTERM, handler as libc::sighandler_t) };
        ready_for_ever();
    });
    let p = p.as_mut().unwrap();
    BufReader::new(p.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
    p.terminate().unwrap();
    assert_eq!(p.wait().unwrap().code(), Some(44));
}

// --- who is who --------------------------------------------------------------------------------

#[test]
fn relatives() {
    let _watched = watch(60);
    assert_eq!(multiproc::current_process().name, "MainProcess");
    assert!(multiproc::parent_process().is_none());
    assert!(multiproc::cpu_count() >= 1);
    let p = Process::builder().name("middle").spawn((), || {
        let inner =
            Process::builder().name("inner").spawn((), || (multiproc::current_process(), multiproc::parent_process().unwrap()));
        let inner = inner.unwrap();
        let pid = inner.pid();
        let (me, parent) = inner.join().unwrap();
        assert_eq!((me.pid, me.name.as_str(), parent.name.as_str()), (pid, "inner", "middle"));
        assert_eq!(parent.pid, std::process::id());
        let above = multiproc::parent_process().unwrap();
        (above.pid, above.name, multiproc::current_process().pid, multiproc::active_children().len())
    });
    let p = p.unwrap();
    let pid = p.pid();
    assert_eq!(p.join().unwrap(), (std::process::id(), "MainProcess".into(), pid, 0));
}

#[test]
fn active_children_are_those_that_live() {
    let _watched = watch(60);
    let p = Process::builder().name("active").daemon(true).spawn((), for_ever).unwrap();
    let find = || multiproc::active_children().into_iter().find(|c| c.name() == "active");
    let child = find().unwrap();
    assert_eq!((child.pid(), child.is_daemon(), child.is_alive(), p.is_daemon()), (p.pid(), true, true, true));
    let pid = p.pid();
    drop(p);
    assert_eq!(find().map(|c| c.pid()), Some(pid), "dropping the handle ends nothing");
    child.signal(Signal::KILL).unwrap();
    child.wait();
    assert!(!child.is_alive() && find().is_none());
}

// --- many --------------------------------------------------------------------------------------

#[test]
fn a_hundred_at_once() {
    let _watched = watch(120);
    let all: Vec<_> = (0..100u64).map(|i| Process::builder().stdin(Stdio::Null).spawn((i,), |i: u64| i * i).unwrap()).collect();
    for (i, p) in all.into_iter().enumerate() {
        assert_eq!(p.join().unwrap(), (i * i) as u64);
    }
}

#[test]
fn a_hundred_alive() {
    let _watched = watch(120);
    let mut all: Vec<_> = (0..100).map(|_| Process::spawn((), for_ever).unwrap()).collect();
    assert!(multiproc::active_children().len() >= 100);
    all.iter().for_each(|p| p.kill().unwrap());
    for p in &mut all {
        p.wait();
        assert!(p.try_join().is_err());
    }
}

#[test]
fn threads_start_processes_at_the_same_time() {
    let _watched = watch(120);
    std::thread::scope(|s| {
        for t in 0..8u64 {
            s.spawn(move || {
                for i in 0..10 {
                    let p = Process::spawn((t, i), |t: u64, i: u64| t * 100 + i).unwrap();
                    assert_eq!(p.join().unwrap(), t * 100 + i);
                }
            });
        }
    });
}

#[test]
fn one_process_is_waited_for_by_many_threads() {
    let _watched = watch(60);
    let p = begun();
    std::thread::scope(|s| {
        let waiters: Vec<_> = (0..4).map(|_| s.spawn(|| p.wait())).collect();
        p.terminate().unwrap();
        for w in waiters {
            assert_eq!(std::os::unix::process::ExitStatusExt::signal(&w.join().unwrap().unwrap()), Some(15));
        }
    });
}

#[test]
fn children_of_children() {
    let _watched = watch(120);
    fn sum(depth: u32, width: u32) -> u32 {
        if depth == 0 {
            return 1;
        }
        let all: Vec<_> = (0..width).map(|_| Process::spawn((depth - 1, width), sum).unwrap()).collect();
        1 + all.into_iter().map(|p| p.join().unwrap()).sum::<u32>()
    }
    assert_eq!(sum(3, 3), 1 + 3 + 9 + 27);
}

#[test]
fn a_dropped_handle_leaves_the_process_alone() {
    let _watched = watch(60);
    let (mut reader, writer) = std::io::pipe().unwrap();
    let (gate, opener) = std::io::pipe().unwrap();
    drop(Process::builder().stdin(gate).stdout(writer).spawn((), || {
        std::io::stdin().read_to_string(&mut String::new()).unwrap();
        print!("went on");
    }));
    drop(opener);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "went on");
    eventually(|| multiproc::active_children().iter().all(|c| c.is_alive()));
}

#[test]
fn joining_closes_the_pipe_to_a_child_that_reads_to_the_end() {
    let _watched = watch(60);
    let mut child = Process::builder()
        .stdin(Stdio::Piped)
        .spawn((), || std::io::read_to_string(std::io::stdin()).expect("text").len())
        .unwrap();
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"hello").unwrap();
    assert_eq!(child.join().unwrap(), 5);
}

#[test]
fn a_start_that_fails_leaves_channels_as_they_were() {
    let _watched = watch(60);
    let (tx, rx) = multiproc::channel::<u32>(4).unwrap();
    let carrier = multiproc::Queue::<multiproc::Sender<u32>>::bounded(4).unwrap();
    assert!(Process::builder().env("BAD=KEY", "x").spawn((tx.clone(),), |tx| tx.put(1).unwrap()).is_err());
    carrier.put(tx).unwrap();
    assert!(rx.try_get().unwrap_err().is_empty(), "the only sender is on its way");
    drop(carrier.get().unwrap());
    assert!(rx.try_get().unwrap_err().is_end());
}
