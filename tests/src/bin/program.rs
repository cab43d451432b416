//! A program of one kind or another, named by the first argument or by `PROGRAM`, for the tests of what kinds of programs multiproc works in.

use multiproc::{Atomic, Lock, Process, ProcessError, Queue, Value};
use std::ffi::{CString, c_char};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::ptr;

fn main() {
    multiproc_tests::no_core_dumps();
    let kind = std::env::var("PROGRAM").ok().or_else(|| std::env::args().nth(1)).expect("a kind");
    match kind.as_str() {
        "try" => attempt(),
        "replaced" => replaced(),
        "execs" => execs(),
        "execs with ends" => execs_with_ends(),
        "other user" => other_user(),
        "closes everything" => closes_everything(),
        "closes its children's" => closes_its_childrens(),
        "moves" => moves(),
        "no more processes" => no_more_processes(),
        "no arguments" => no_arguments(),
        "argument 0" => say(format_args!("{:?}", std::env::args_os().next())),
        "daemon" => daemon(),
        "late daemon" => late_daemon(),
        "foreign children" => foreign_children(),
        "marker" => marker(),
        other => panic!("no such kind: {other}"),
    }
}

fn say(line: impl std::fmt::Display) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

fn for_ever() {
    loop {
        std::thread::park();
    }
}

fn read_line() -> String {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

/// Starts a process, and says what came of it.
fn tried() -> String {
    match Process::spawn((21,), |x: u64| x * 2) {
        Ok(p) => match p.join() {
            Ok(n) => format!("returned {n}"),
            Err(e) => format!("ended: {e}"),
        },
        Err(e) => format!("refused, unsupported {} resources {}: {e}", e.is_unsupported(), e.is_out_of_resources()),
    }
}

fn attempt() {
    say(tried());
}

/// Waits while the test does something to the program's file, then goes on starting processes, children of children among them.
fn replaced() {
    let queue = Queue::<u32>::bounded(4).unwrap();
    say(tried());
    assert_eq!(read_line(), "replaced");
    let worker = Process::spawn((queue.clone(),), |queue| {
        queue.put(1).unwrap();
        Process::spawn((queue,), |queue| queue.put(2).unwrap()).unwrap().join().unwrap();
    });
    worker.unwrap().join().unwrap();
    say(format_args!("{} {}", queue.get().unwrap(), queue.get().unwrap()));
}

fn how(ended: Result<(), ProcessError>) -> String {
    match ended {
        Ok(()) => "returned".into(),
        Err(ProcessError::Exited { code, .. }) => format!("exited with {code}"),
        Err(ProcessError::Signaled { signal, .. }) => format!("ended by {signal}"),
        Err(other) => format!("{other:?}"),
    }
}

/// Workers that become other programs: the parent hears how those end.
fn execs() {
    let become_shell = |script: String| {
        let failed = Command::new("sh").args(["-c", &script]).exec();
        panic!("{failed}");
    };
    for script in ["exit 7", "exit 0", "kill -9 $$", "ls -l /proc/$$/fd | grep -c -e memfd -e pidfd -e eventfd; exit 3"] {
        say(how(Process::spawn((script.to_owned(),), become_shell).unwrap().join()));
    }
    // Its own program, once more: it is a coordinator then.
    let again = || {
        let failed = Command::new("/proc/self/exe").arg("try").exec();
        panic!("{failed}");
    };
    say(how(Process::spawn((), again).unwrap().join()));
}

/// What a worker holds is given back when it calls exec; the program that it becomes lives on.
fn execs_with_ends() {
    let (jobs_in, jobs) = multiproc::channel::<u32>(4).unwrap();
    let (results_in, results) = multiproc::channel::<u32>(4).unwrap();
    let lock = Lock::new().unwrap();
    let (leased, lease_ends) = (Queue::<u32>::bounded(4).unwrap(), Queue::<u32>::bounded(1).unwrap());
    leased.put(9).unwrap();
    let worker = Process::builder().stdin(multiproc::Stdio::Piped).spawn(
        (jobs, results_in, lock.clone(), leased.clone(), lease_ends.clone()),
        |jobs, results, lock, leased, lease_ends| {
            let _guard = lock.lock().unwrap();
            let _lease = leased.lease().unwrap();
            let _ends = (jobs, results);
            lease_ends.put(1).unwrap();
            let failed = Command::new("sh").args(["-c", "read line; exit 5"]).exec();
            panic!("{failed}");
        },
    );
    let mut worker = worker.unwrap();
    lease_ends.get().unwrap();
    // None of these waits for the end of the new program, which waits for its stdin.
    say(format_args!("get: {}", results.get().unwrap_err()));
    while jobs_in.put_timeout(1, std::time::Duration::from_secs(50)).is_ok() {}
    say(format_args!("put: {}", jobs_in.put(1).unwrap_err()));
    say(format_args!("lock: {}", lock.lock().unwrap_err()));
    say(format_args!("lease: {}", leased.get().unwrap()));
    say(format_args!("alive: {}", worker.is_alive()));
    drop(worker.stdin.take());
    say(how(worker.join()));
}

/// A worker that changes its user goes on; what it may no longer do is an error.
fn other_user() {
    let (lock, value, queue) = (Lock::new().unwrap(), Value::new(0u64).unwrap(), Queue::<Vec<u8>>::bounded(4).unwrap());
    let worker = Process::spawn((lock.clone(), value.clone(), queue.clone()), |lock, value, queue| {
        // SAFETY: touches no memory.
        assert_eq!(unsafe { libc::setresgid(65534, 65534, 65534) }, 0);
        // SAFETY: as above.
        assert_eq!(unsafe { libc::setresuid(65534, 65534, 65534) }, 0);
        let guard = lock.lock().unwrap();
        value.update(|v| *v += 1).unwrap();
        drop(guard);
        // New memory of the arena, and a new object.
        queue.put(vec![7; 1 << 20]).unwrap();
        let own = Atomic::new(5u32).unwrap();
        assert_eq!(own.add(1), 5);
        tried()
    });
    say(worker.unwrap().join().unwrap());
    say(format_args!("{} {}", value.get().unwrap(), queue.get().unwrap().len()));
    assert!(lock.lock().is_ok());
    // The death signal is gone with the old user; the keeper still ends it with its parent. The parent still has its rights over it.
    let stubborn = Process::spawn((), || {
        // SAFETY: touches no memory.
        assert_eq!(unsafe { libc::setresuid(65534, 65534, 65534) }, 0);
        for_ever();
    });
    let stubborn = stubborn.unwrap();
    stubborn.kill().unwrap();
    say(how(stubborn.join()));
}

/// Opens a file of the program's own under each number that multiproc's descriptors have had.
fn take_all_numbers() -> PathBuf {
    let path = std::env::temp_dir().join(format!("multiproc-numbers-{}", std::process::id()));
    std::fs::write(&path, "the program's own").unwrap();
    let file = std::fs::OpenOptions::new().read(true).append(true).open(&path).unwrap();
    for _ in 0..100 {
        std::mem::forget(file.try_clone().unwrap());
    }
    path
}

/// A worker that closes whatever it has open, as programs do that turn themselves into something else.
fn closes_everything() {
    let (lock, value, queue) = (Lock::new().unwrap(), Value::new(0u64).unwrap(), Queue::<u32>::bounded(4).unwrap());
    // The queue's memory is there; no more can be had without the arena's descriptor.
    queue.put(2).unwrap();
    let worker = Process::spawn((lock.clone(), value.clone(), queue.clone()), |lock, value, queue| {
        // SAFETY: closes what others own, which is the point; nothing of it is used by number afterwards but by multiproc.
        unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
        let _guard = lock.lock().unwrap();
        value.update(|v| *v += 1).unwrap();
        queue.put(3).unwrap();
        assert_eq!(queue.get().unwrap(), 2);
        let file = take_all_numbers();
        // The keeper looks at its descriptors again after a stop.
        // SAFETY: touches no memory.
        unsafe { libc::raise(libc::SIGSTOP) };
        // Time for it to make something of what it finds.
        std::thread::sleep(std::time::Duration::from_millis(100));
        let tried = tried();
        assert_eq!(std::fs::read(&file).unwrap(), b"the program's own");
        std::fs::remove_file(file).unwrap();
        tried
    });
    let worker = worker.unwrap();
    let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: the place is valid for writing.
    assert_eq!(unsafe { libc::waitid(libc::P_PID, worker.pid(), info.as_mut_ptr(), libc::WSTOPPED) }, 0);
    worker.signal(multiproc::Signal::CONT).unwrap();
    say(worker.join().unwrap());
    say(format_args!("{} {} {}", value.get().unwrap(), queue.get().unwrap(), lock.lock().is_ok()));
    let worker = Process::spawn((), || {
        // SAFETY: as above.
        unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
        say("closed");
        for_ever();
    });
    drop(worker.unwrap());
    for_ever();
}

/// A coordinator that does so: nobody waits for ever.
fn closes_its_childrens() {
    let child = Process::spawn((), for_ever).unwrap();
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
    say(child.kill().is_err());
    // SAFETY: touches no memory.
    unsafe { libc::kill(child.pid().cast_signed(), libc::SIGKILL) };
    say(child.join().is_err());
    say(Process::spawn((), || ()).is_err());
}

/// Workers in other directories, and in other roots.
fn moves() {
    let elsewhere = |dir: PathBuf| {
        std::env::set_current_dir(&dir).unwrap();
        let child = Process::spawn((), || std::env::current_dir().unwrap()).unwrap().join().unwrap();
        assert_eq!(child, dir);
        // A directory that exists no more.
        let gone = dir.join("gone");
        std::fs::create_dir(&gone).unwrap();
        std::env::set_current_dir(&gone).unwrap();
        std::fs::remove_dir(&gone).unwrap();
        tried()
    };
    let dir = PathBuf::from(std::env::args().nth(2).expect("a directory"));
    say(Process::spawn((dir.clone(),), elsewhere).unwrap().join().unwrap());
    let jailed = |dir: PathBuf| {
        let dir = CString::new(dir.into_os_string().into_encoded_bytes()).unwrap();
        // SAFETY: a path that ends with zero.
        if unsafe { libc::chroot(dir.as_ptr()) } != 0 {
            return "not allowed".to_owned();
        }
        std::env::set_current_dir("/").unwrap();
        let queue = Queue::<u32>::bounded(1).unwrap();
        queue.put(1).unwrap();
        assert_eq!(queue.get().unwrap(), 1);
        tried()
    };
    say(Process::spawn((dir,), jailed).unwrap().join().unwrap());
}

/// A worker whose user may have no further process.
fn no_more_processes() {
    let worker = Process::spawn((), || {
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: reads the struct.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NPROC, &raw const none) }, 0);
        tried()
    });
    say(worker.unwrap().join().unwrap());
}

/// Becomes this program with no arguments at all, not even a name.
fn no_arguments() {
    let path = CString::new(std::env::current_exe().unwrap().into_os_string().into_encoded_bytes()).unwrap();
    let argv: [*const c_char; 1] = [ptr::null()];
    let envp: [*const c_char; 2] = [c"PROGRAM=try".as_ptr(), ptr::null()];
    // SAFETY: a path that ends with zero, and two lists that end with null.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    panic!("{}", std::io::Error::last_os_error());
}

fn fork() -> i32 {
    // SAFETY: this process has one thread when it is called before multiproc is used; afterwards the second one sleeps in the kernel.
    unsafe { libc::fork() }
}

/// The classic daemon: two forks and a session of its own, then work.
fn daemon() {
    if fork() != 0 {
        return;
    }
    // SAFETY: touches no memory.
    assert_ne!(unsafe { libc::setsid() }, -1);
    if fork() != 0 {
        return;
    }
    // The shell that would have waited for it is gone by now or will be; nothing depends on it.
    let (a, b) = multiproc::channel(1).unwrap();
    let worker = Process::spawn((a,), |a| a.put(std::process::id()).unwrap()).unwrap();
    let pid = b.get().unwrap();
    say(format_args!("{} {}", pid == worker.pid(), worker.join().is_ok()));
}

/// A daemon that used multiproc before it became one: that belongs to the process that it was.
fn late_daemon() {
    say(tried());
    let queue = Queue::<u32>::bounded(1).unwrap();
    let child = fork();
    if child != 0 {
        // SAFETY: no status is asked for.
        unsafe { libc::waitpid(child, ptr::null_mut(), 0) };
        return;
    }
    say(format_args!("put: {}", queue.put(1).unwrap_err()));
    say(format_args!("new: {}", Queue::<u32>::bounded(1).unwrap_err()));
    say(tried());
}

/// Programs that a coordinator starts by std's means have nothing of multiproc's.
fn foreign_children() {
    let worker = Process::spawn((), for_ever).unwrap();
    let listing = "ls -l /proc/$$/fd; env";
    let out = Command::new("sh").args(["-c", listing]).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let ours = ["memfd", "pidfd", "eventfd", "MULTIPROC_WORKER"].map(|what| text.contains(what));
    say(format_args!("{ours:?}"));
    // With a fork instead of a vfork, which runs the handlers of pthread_atfork.
    let mut forking = Command::new("sh");
    forking.args(["-c", listing]);
    // SAFETY: the closure does nothing.
    unsafe { forking.pre_exec(|| Ok(())) };
    let text = String::from_utf8_lossy(&forking.output().unwrap().stdout).into_owned();
    let ours = ["memfd", "pidfd", "eventfd", "MULTIPROC_WORKER"].map(|what| text.contains(what));
    say(format_args!("{ours:?}"));
    say(worker.is_alive());
    worker.kill().unwrap();
    assert!(worker.join().is_err());
}

/// Prints the marker that a worker was started with.
fn marker() {
    let own = || {
        let environment = std::fs::read("/proc/self/environ").unwrap();
        let mut all = environment.split(|&b| b == 0).map(|v| String::from_utf8_lossy(v).into_owned());
        all.find_map(|v| v.strip_prefix("MULTIPROC_WORKER=").map(str::to_owned)).unwrap()
    };
    say(Process::spawn((), own).unwrap().join().unwrap());
}
