//! Plays one scene, named by the first argument, for the tests of this package.

use multiproc::{Process, ProcessError, Signal, Stdio};
use std::ffi::{c_char, c_int};
use std::io::{Read, Write};
use std::ptr;

fn main() {
    multiproc_tests::no_core_dumps();
    let scene = std::env::args().nth(1).expect("a scene");
    match scene.as_str() {
        "simple" => simple(),
        "tree" => tree(0, "plain".into()),
        "tree stopped" => tree(0, "stopped".into()),
        "tree other user" => tree(0, "other user".into()),
        "tree stopped other user" => tree(0, "stopped other user".into()),
        "tree busy" => tree(0, "busy".into()),
        "exit well" => exit_well(),
        "exit badly" => exit_badly(),
        "panic at exit" => panic_at_exit(),
        "no exit handlers" => no_exit_handlers(),
        "late spawn" => late_spawn(),
        "early death" => early_death(),
        "leaks" => leaks(),
        "storm" => storm(),
        "marker" => marker(),
        "try" => try_once(),
        "no threads" => no_threads(),
        "inits" => inits(),
        "ignored children" => ignored_children(),
        "foreign wait" => foreign_wait(),
        "descriptors" => descriptors(),
        "fork" => fork(),
        "no room for a pidfd" => no_room_for_a_pidfd(),
        "join after fork" => join_after_fork(),
        other => panic!("no scene {other}"),
    }
}

fn say(line: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

fn for_ever() {
    loop {
        std::thread::park();
    }
}

fn double(x: u64) -> u64 {
    x * 2
}

fn fail(text: String) {
    panic!("{text}");
}

fn leave(code: i32) {
    std::process::exit(code);
}

fn simple() {
    say(Process::spawn((21,), double).unwrap().join().unwrap());
}

/// Reports, starts the next level, and never ends by itself.
fn tree(depth: u32, how: String) {
    if how.contains("other user") && depth > 0 {
        // SAFETY: touches no memory.
        assert_eq!(unsafe { libc::setresgid(65534, 65534, 65534) }, 0);
        if depth == 3 {
            // Only the last: another user's process may not signal its siblings, nor start a root's program.
            // SAFETY: as above.
            assert_eq!(unsafe { libc::setresuid(65534, 65534, 65534) }, 0);
        }
    }
    if depth < 3 {
        let p = Process::spawn((depth + 1, how.clone()), tree).unwrap();
        if how.contains("stopped") {
            let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
            // SAFETY: the place is valid for writing.
            let r = unsafe { libc::waitid(libc::P_PID, p.pid(), info.as_mut_ptr(), libc::WSTOPPED) };
            assert_eq!(r, 0);
        }
        say(format!("{} has {}", std::process::id(), p.pid()));
        if how.contains("stopped") && depth > 0 {
            // SAFETY: touches no memory.
            unsafe { libc::raise(libc::SIGSTOP) };
        }
        for_ever();
    } else if how.contains("stopped") {
        // SAFETY: touches no memory.
        unsafe { libc::raise(libc::SIGSTOP) };
    } else if how == "busy" {
        // All signals that can be are blocked, and the main thread never sleeps.
        let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: the place is valid for writing.
        unsafe { libc::sigfillset(all.as_mut_ptr()) };
        // SAFETY: filled above.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, all.as_ptr(), ptr::null_mut()) };
        say("busy");
        loop {
            std::hint::spin_loop();
        }
    } else {
        say("leaf");
    }
    for_ever();
}

fn read_line() -> String {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

fn exit_well() {
    let daemon = Process::builder().daemon(true).spawn((), for_ever).unwrap();
    let awaited = Process::builder().stdin(Stdio::Inherit).spawn((), || {
        let line = read_line();
        say(format!("child read {line}"));
    });
    let awaited = awaited.unwrap();
    say(format!("{} {}", daemon.pid(), awaited.pid()));
    // Neither handle is joined. A daemon that ignores SIGTERM is killed.
    drop(daemon);
    std::mem::forget(awaited);
    let mut stubborn = Process::builder().daemon(true).stdout(Stdio::Piped).spawn((), || {
        // SAFETY: ignoring installs no code.
        unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
        say("ignores");
        for_ever();
    });
    let mut word = [0; 8];
    stubborn.as_mut().unwrap().stdout.as_mut().unwrap().read_exact(&mut word).unwrap();
    say(String::from_utf8_lossy(&word).trim_end());
}

fn exit_badly() {
    let p = Process::spawn((), || {
        say("child");
        for_ever();
    });
    drop(p);
    read_line();
    std::process::exit(3);
}

fn panic_at_exit() {
    drop(Process::spawn((), for_ever));
    say("child");
    panic!("the coordinator panics");
}

fn no_exit_handlers() {
    drop(Process::spawn((), for_ever));
    say("child");
    // SAFETY: ends the process.
    unsafe { libc::_exit(4) };
}

/// Spawning while the process exits is refused.
fn late_spawn() {
    extern "C" fn at_exit() {
        let e = Process::spawn((), || ()).unwrap_err();
        say(format!("{} {e}", e.is_exiting()));
    }
    // Registered first, so it runs last: behind multiproc's own handler.
    // SAFETY: the function lives as long as the program.
    unsafe { libc::atexit(at_exit) };
    Process::spawn((), || ()).unwrap().join().unwrap();
}

type Constructor = extern "C" fn(c_int, *const *const c_char, *const *const c_char);

/// Runs before multiproc's own entry, which comes from a library.
#[used]
#[unsafe(link_section = ".init_array")]
static EARLY: Constructor = early;

extern "C" fn early(_: c_int, _: *const *const c_char, _: *const *const c_char) {
    match std::env::var("DIE_EARLY").as_deref() {
        // SAFETY: ends the process.
        Ok("exit") => unsafe { libc::_exit(9) },
        // SAFETY: as above.
        Ok("kill") => _ = unsafe { libc::raise(libc::SIGKILL) },
        _ => {}
    }
}

fn early_death() {
    for how in ["exit", "kill"] {
        let p = Process::builder().name("short-lived").env("DIE_EARLY", how).spawn((vec![1u8; 100_000],), |v: Vec<u8>| v.len());
        match p.unwrap().join() {
            Err(ProcessError::NotStarted { reason, .. }) => say(format!("not started: {reason}")),
            Err(ProcessError::Signaled { signal, .. }) => say(format!("signal {signal}")),
            other => say(format!("{other:?}")),
        }
    }
    simple();
}

fn links(dir: &str) -> Vec<String> {
    let mut all: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .map(|p| format!("{} {}", p.display(), std::fs::read_link(&p).map(|t| t.display().to_string()).unwrap_or_default()))
        .filter(|s| !s.contains("/proc/"))
        .collect();
    all.sort();
    all
}

fn fds() -> Vec<String> {
    let names = |s: String| s.split_whitespace().last().unwrap_or_default().to_owned();
    let all = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let mut all: Vec<_> =
        all.map(|e| std::fs::read_link(e.path()).map(|t| t.display().to_string()).unwrap_or_default()).collect();
    all.retain(|s| !s.contains("/fd"));
    all.sort();
    all.into_iter().map(names).collect()
}

fn zombies() -> String {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    tasks.map(|t| std::fs::read_to_string(t.path().join("children")).unwrap_or_default()).collect()
}

fn leaks() {
    let round = || {
        assert_eq!(Process::spawn((vec![7u8; 200_000],), |v: Vec<u8>| v).unwrap().join().unwrap().len(), 200_000);
        assert!(Process::builder().stderr(Stdio::Null).spawn(("as asked".to_owned(),), fail).unwrap().join().is_err());
        assert!(Process::spawn((3,), leave).unwrap().join().is_err());
        let p = Process::spawn((), for_ever).unwrap();
        p.kill().unwrap();
        assert!(p.join().is_err());
        assert!(Process::builder().cwd("/no/such/dir").spawn((), for_ever).is_err());
        assert!(Process::builder().env("A\0B", "c").spawn((), for_ever).is_err());
        let mut p = Process::builder().stdin(Stdio::Piped).stdout(Stdio::Piped).spawn((), || {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).unwrap();
            print!("{text}");
        });
        let p = p.as_mut().unwrap();
        p.stdin.take().unwrap().write_all(b"there and back").unwrap();
        let mut text = String::new();
        p.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "there and back");
        p.wait();
        drop(Process::spawn((), || ()).unwrap());
        let early = Process::builder().env("DIE_EARLY", "exit").spawn((), || ()).unwrap();
        assert!(early.join().is_err());
    };
    // The keeper lets go of a child a moment after it was joined; one pidfd is this process's own.
    let settled = || multiproc::active_children().is_empty() && fds().iter().filter(|fd| fd.contains("pidfd")).count() == 1;
    round();
    multiproc_tests::eventually(settled);
    // The temporary directory is one that the test has made for this scene; /dev/shm is everybody's.
    let files = || {
        let mut all = links("/dev/shm");
        all.retain(|name| name.contains("multiproc"));
        all.extend(links(&std::env::temp_dir().to_string_lossy()));
        all
    };
    let before = (fds(), files());
    for _ in 0..10 {
        round();
    }
    multiproc_tests::eventually(settled);
    assert_eq!(zombies(), "");
    assert_eq!(fds(), before.0);
    assert_eq!(files(), before.1);
    say("nothing stays");
}

/// SIGALRM at 1 kHz through everything.
fn storm() {
    extern "C" fn count(_: c_int) {
        TICKS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
    static TICKS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let arm = || {
        // SAFETY: zeros are a sigaction with an empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        let handler: extern "C" fn(c_int) = count;
        action.sa_sigaction = handler as usize;
        // Without SA_RESTART, so that each system call that can end early does.
        // SAFETY: the handler is async-signal-safe.
        unsafe { libc::sigaction(libc::SIGALRM, &raw const action, ptr::null_mut()) };
        let every = libc::timeval { tv_sec: 0, tv_usec: 1000 };
        let timer = libc::itimerval { it_interval: every, it_value: every };
        // SAFETY: reads the struct.
        unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, ptr::null_mut()) };
    };
    arm();
    for i in 0..100u64 {
        assert_eq!(
            Process::spawn((i, vec![i; 10_000]), |i, v: Vec<u64>| v.iter().sum::<u64>() + i).unwrap().join().unwrap(),
            i * 10_001
        );
    }
    let mut sleeper = Process::spawn((), for_ever).unwrap();
    let start = std::time::Instant::now();
    assert!(sleeper.join_timeout(std::time::Duration::from_millis(200)).unwrap().is_none());
    assert!(start.elapsed() >= std::time::Duration::from_millis(200));
    sleeper.terminate().unwrap();
    assert!(matches!(sleeper.join(), Err(ProcessError::Signaled { signal: Signal::TERM, .. })));
    assert!(TICKS.load(std::sync::atomic::Ordering::Relaxed) > 100);
    say("through the storm");
}

/// Prints the marker that a worker was started with.
fn marker() {
    let own = || {
        let environment = std::fs::read("/proc/self/environ").unwrap();
        let mut all = environment.split(|&b| b == 0).map(|v| String::from_utf8_lossy(v).into_owned());
        all.find_map(|v| v.strip_prefix("MULTIPROC_WORKER=").map(str::to_owned)).unwrap()
    };
    let worker = Process::spawn((), own).unwrap();
    say(worker.join().unwrap());
    let clean = Process::spawn((), || std::env::var_os("MULTIPROC_WORKER").is_none()).unwrap();
    assert!(clean.join().unwrap(), "the marker leaves the environment");
}

/// Tries to start a process, and says what came of it.
fn try_once() {
    match Process::spawn((21,), double) {
        Ok(p) => match p.join() {
            Ok(n) => say(format!("returned {n}")),
            Err(e) => say(format!("ended: {e}")),
        },
        Err(e) => say(format!("refused, unsupported {} resources {}: {e}", e.is_unsupported(), e.is_out_of_resources())),
    }
    // What the program has open is its own, whatever a marker says.
    for fd in [0, 1] {
        // SAFETY: F_GETFD touches no memory.
        assert_ne!(unsafe { libc::fcntl(fd, libc::F_GETFD) }, -1, "descriptor {fd} was closed");
    }
}

/// Refused while the user may have no further thread, and working once that is over.
fn no_threads() {
    let mut limit = std::mem::MaybeUninit::<libc::rlimit>::zeroed();
    // SAFETY: the place is valid for writing.
    unsafe { libc::getrlimit(libc::RLIMIT_NPROC, limit.as_mut_ptr()) };
    // SAFETY: filled in above, and zeros are a value of it.
    let limit = unsafe { limit.assume_init() };
    for soft in [0, limit.rlim_cur] {
        let limit = libc::rlimit { rlim_cur: soft, ..limit };
        // SAFETY: reads the struct.
        unsafe { libc::setrlimit(libc::RLIMIT_NPROC, &raw const limit) };
        try_once();
    }
}

fn inits() {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    static STEPS: AtomicU32 = AtomicU32::new(0);
    fn first() {
        STEPS.store(STEPS.load(Relaxed) * 10 + 1, Relaxed);
    }
    multiproc::worker_init(first).unwrap();
    multiproc::worker_init(|| STEPS.store(STEPS.load(Relaxed) * 10 + 2, Relaxed)).unwrap();
    multiproc::worker_init(first).unwrap();
    multiproc::worker_init(|| {
        std::panic::set_hook(Box::new(|info| say(format!("user's hook: {}", info.payload_as_str().unwrap()))));
    })
    .unwrap();
    say(Process::spawn((), || STEPS.load(Relaxed)).unwrap().join().unwrap());
    let nested = Process::spawn((), || Process::spawn((), || STEPS.load(Relaxed)).unwrap().join().unwrap());
    say(nested.unwrap().join().unwrap());
    match Process::spawn(("with a hook".to_owned(),), fail).unwrap().join() {
        Err(ProcessError::Panicked { message, location, .. }) => {
            say(format!("{message} at {}", location.split(':').next().unwrap()))
        }
        other => say(format!("{other:?}")),
    }
    // A hook set in the worker itself hides the location, not the panic.
    let late = Process::spawn((), || {
        std::panic::set_hook(Box::new(|_| {}));
        fail(format!("silent {}", 1 + 1));
    });
    match late.unwrap().join() {
        Err(ProcessError::Panicked { message, .. }) => say(message),
        other => say(format!("{other:?}")),
    }
    multiproc::worker_init(|| panic!("in the init")).unwrap();
    match Process::spawn((), || 1).unwrap().join() {
        Err(ProcessError::Panicked { message, .. }) => say(message),
        other => say(format!("{other:?}")),
    }
}

fn three_ends() {
    say(Process::spawn((21,), double).unwrap().join().unwrap());
    match Process::spawn((5,), leave).unwrap().join() {
        Err(ProcessError::Exited { code, .. }) => say(format!("exited {code}")),
        other => say(format!("{other:?}")),
    }
    let p = Process::spawn((), for_ever).unwrap();
    p.kill().unwrap();
    match p.join() {
        Err(ProcessError::Signaled { signal, .. }) => say(signal),
        other => say(format!("{other:?}")),
    }
}

/// With SIGCHLD ignored the kernel reaps by itself.
fn ignored_children() {
    // SAFETY: ignoring installs no code.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    three_ends();
}

/// A thread of the program waits for any child.
fn foreign_wait() {
    std::thread::spawn(|| {
        loop {
            // SAFETY: the status is not wanted.
            unsafe { libc::waitpid(-1, ptr::null_mut(), 0) };
            std::thread::yield_now();
        }
    });
    three_ends();
}

/// What a worker has open, and what a program has that the worker executes.
fn descriptors() {
    let names = || {
        let mut open: Vec<_> = fds();
        open.retain(|n| !n.starts_with("pipe:") && n != "/dev/null");
        let foreign = std::process::Command::new("sh").args(["-c", "ls -l /proc/$$/fd"]).output().unwrap();
        (open, String::from_utf8_lossy(&foreign.stdout).into_owned())
    };
    let (open, foreign) = Process::spawn((), names).unwrap().join().unwrap();
    say(open.join(" "));
    say(foreign.contains("memfd") || foreign.contains("pidfd"));
}

/// A plain fork of a process with children: nothing of theirs is its own.
fn fork() {
    let p = Process::spawn((), for_ever).unwrap();
    // SAFETY: the child only exits.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let refused = Process::spawn((), || ()).is_err();
        drop(p);
        // Runs the exit handlers, which must not wait for or end the parent's children.
        std::process::exit(if refused { 40 } else { 41 });
    }
    let mut status = 0;
    // SAFETY: the place is valid for writing.
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
    say(format!("fork {} alive {}", libc::WEXITSTATUS(status), p.is_alive()));
    p.kill().unwrap();
    assert!(p.join().is_err());
}

/// Starts that fail for want of descriptors: none of them runs, none leaves a child behind.
fn no_room_for_a_pidfd() {
    let ran = multiproc::Atomic::new(0u32).unwrap();
    Process::spawn((), || ()).unwrap().join().unwrap();
    let limit = libc::rlimit { rlim_cur: 24, rlim_max: 24 };
    // SAFETY: reads the struct.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
    let mut full = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        full.push(file);
    }
    let failed = (0..10)
        .filter(|_| {
            Process::spawn((ran.clone(),), |ran| {
                ran.add(1);
            })
            .is_err()
        })
        .count();
    drop(full);
    // SAFETY: no status is asked for.
    let children = unsafe { libc::waitpid(-1, ptr::null_mut(), libc::WNOHANG) };
    say(format_args!("{failed} failed, {} ran, children left: {}", ran.get(), children >= 0));
}

/// The handle of a child, in a process that fork() made: an answer, not a wait for ever.
fn join_after_fork() {
    let child = Process::spawn((), for_ever).unwrap();
    // SAFETY: the forked process only joins, reports by its exit code, and leaves.
    let forked = unsafe { libc::fork() };
    if forked == 0 {
        let refused = child.kill().is_err() && child.join().is_err();
        // SAFETY: ends the process at once.
        unsafe { libc::_exit(if refused { 7 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: waits for the child that was just forked.
    unsafe { libc::waitpid(forked, &raw mut status, 0) };
    say(format_args!("exit code {}, the child lives: {}", libc::WEXITSTATUS(status), child.is_alive()));
    child.kill().unwrap();
    assert!(child.join().is_err());
}
