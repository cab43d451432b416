//! Places: namespaces with mounts of their own, another user, a filter of system calls.

use crate::{NOT_PERMITTED, say};
use std::ffi::{CStr, c_ulong};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::{fs, io, ptr};

/// Who is nobody.
const NOBODY: u32 = 65534;

pub fn enter(place: &str) {
    match place.split_once(' ').unwrap_or((place, "")) {
        ("here", _) => {}
        ("pid-1", how) => {
            new_pid_namespace();
            if how != "outer-proc" {
                mount_proc(c"");
            }
        }
        ("read-only", _) => read_only(),
        ("no-proc", _) => {
            new_mount_namespace();
            cover(c"/proc");
        }
        ("hidepid", _) => {
            new_pid_namespace();
            mount_proc(c"hidepid=2");
            become_nobody();
        }
        ("nobody", _) => become_nobody(),
        ("proc-of-pids-only", _) => {
            new_pid_namespace();
            mount_proc(c"subset=pid");
        }
        ("memfd-noexec", level) => {
            new_pid_namespace();
            mount_proc(c"");
            need(fs::write("/proc/sys/vm/memfd_noexec", level), "vm.memfd_noexec");
        }
        ("filter", list) => filter(list),
        ("reaper", _) => reap_everybody(),
        (other, _) => panic!("no place {other}"),
    }
}

/// Leaves when the system does not permit this place.
fn need<T>(result: io::Result<T>, what: &str) -> T {
    result.unwrap_or_else(|e| {
        say(format!("{what}: {e}"));
        std::process::exit(NOT_PERMITTED)
    })
}

fn check(r: i64) -> io::Result<()> {
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn root() -> bool {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// New namespaces, in a user namespace of their own where the caller is not root.
fn unshare(flags: i32) {
    // SAFETY: as root's, these namespaces are the calling process's alone; it has one thread.
    if root() && unsafe { libc::unshare(flags) } == 0 {
        return;
    }
    // SAFETY: no arguments, cannot fail.
    let uid = unsafe { libc::geteuid() };
    // SAFETY: as above.
    let gid = unsafe { libc::getegid() };
    // SAFETY: as above.
    need(check(i64::from(unsafe { libc::unshare(libc::CLONE_NEWUSER | flags) })), "unshare");
    let _ = fs::write("/proc/self/setgroups", "deny");
    need(fs::write("/proc/self/uid_map", format!("0 {uid} 1")), "uid_map");
    need(fs::write("/proc/self/gid_map", format!("0 {gid} 1")), "gid_map");
}

fn new_mount_namespace() {
    unshare(libc::CLONE_NEWNS);
    keep_mounts_private();
}

/// Nothing that is mounted from here on is seen outside.
fn keep_mounts_private() {
    need(mount(None, c"/", None, libc::MS_REC | libc::MS_PRIVATE, c""), "private mounts");
}

/// Goes on as process 1 of a new pid namespace; the process that was started waits for it and ends as it ends.
fn new_pid_namespace() {
    unshare(libc::CLONE_NEWPID | libc::CLONE_NEWNS);
    // SAFETY: the process has one thread, so the child is as whole as its parent.
    let child = unsafe { libc::fork() };
    need(check(i64::from(child)), "fork");
    if child == 0 {
        // SAFETY: touches no memory. A kill of the parent takes the namespace along.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as c_ulong) };
        assert_eq!(std::process::id(), 1);
        keep_mounts_private();
        return;
    }
    let mut status = 0;
    // SAFETY: the place is valid for writing.
    while unsafe { libc::waitpid(child, &raw mut status, 0) } < 0 {}
    let code = if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) };
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) };
}

fn mount(what: Option<&CStr>, target: &CStr, kind: Option<&CStr>, flags: c_ulong, options: &CStr) -> io::Result<()> {
    let pointer = |text: Option<&CStr>| text.map_or(ptr::null(), CStr::as_ptr);
    // SAFETY: all strings end with NUL and outlive the call.
    let r = unsafe { libc::mount(pointer(what), target.as_ptr(), pointer(kind), flags, options.as_ptr().cast()) };
    check(i64::from(r))
}

fn mount_proc(options: &CStr) {
    need(mount(Some(c"proc"), c"/proc", Some(c"proc"), 0, options), "mount proc");
}

/// Hides a directory behind an empty one that cannot be written to.
fn cover(dir: &CStr) {
    need(mount(Some(c"none"), dir, Some(c"tmpfs"), libc::MS_RDONLY, c"size=4k,mode=000"), "mount tmpfs");
}

fn read_only() {
    new_mount_namespace();
    for dir in [c"/tmp", c"/var/tmp", c"/run", c"/dev/shm"] {
        if fs::metadata(dir.to_str().unwrap()).is_ok() {
            cover(dir);
        }
    }
    let attributes = libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let (size, whole) = (size_of_val(&attributes), libc::AT_RECURSIVE);
    // SAFETY: the path ends with NUL, the struct has the size that is named, both outlive the call.
    let r = unsafe { libc::syscall(libc::SYS_mount_setattr, libc::AT_FDCWD, c"/".as_ptr(), whole, &raw const attributes, size) };
    need(check(r), "mount_setattr");
}

/// Becomes another user, and executes this program again as that one, so that nothing of root's is left.
fn become_nobody() {
    // SAFETY: an empty list is read from nowhere.
    need(check(i64::from(unsafe { libc::setgroups(0, ptr::null()) })), "setgroups");
    // SAFETY: touches no memory.
    need(check(i64::from(unsafe { libc::setresgid(NOBODY, NOBODY, NOBODY) })), "setresgid");
    // SAFETY: touches no memory.
    need(check(i64::from(unsafe { libc::setresuid(NOBODY, NOBODY, NOBODY) })), "setresuid");
    let scene = std::env::args().nth(2).unwrap();
    let error = Command::new("/proc/self/exe").args(["here", &scene]).exec();
    need(Err(error), "exec as nobody")
}

/// The listed system calls fail with EPERM from here on, as container runtimes have it: `name,name`, or `name=38` for another errno.
fn filter(list: &str) {
    let (names, errno) = list.split_once('=').unwrap_or((list, "1"));
    let errno: u32 = errno.parse().unwrap();
    let number = |name: &str| match name {
        "pidfd_open" => libc::SYS_pidfd_open,
        "pidfd_send_signal" => libc::SYS_pidfd_send_signal,
        "memfd_create" => libc::SYS_memfd_create,
        "get_robust_list" => libc::SYS_get_robust_list,
        "futex" => libc::SYS_futex,
        "futex_waitv" => libc::SYS_futex_waitv,
        "fallocate" => libc::SYS_fallocate,
        other => panic!("no number for {other}"),
    };
    let op = |code: u32, k: u32, jt: u8| libc::sock_filter { code: code as u16, jt, jf: 0, k };
    const LOAD_NUMBER: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const JUMP_IF: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    let numbers: Vec<_> = names.split(',').map(number).collect();
    let mut program = vec![op(LOAD_NUMBER, 0, 0)];
    for (i, number) in numbers.iter().enumerate() {
        program.push(op(JUMP_IF, *number as u32, (numbers.len() - i) as u8));
    }
    program.push(op(RETURN, libc::SECCOMP_RET_ALLOW, 0));
    program.push(op(RETURN, libc::SECCOMP_RET_ERRNO | errno, 0));
    let whole = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: touches no memory.
    let r = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    need(check(i64::from(r)), "no new privileges");
    // SAFETY: the program outlives the call, which copies it.
    let r = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const whole) };
    need(check(i64::from(r)), "seccomp");
}

/// A thread of the program waits for any child, again and again.
fn reap_everybody() {
    std::thread::spawn(|| {
        loop {
            // SAFETY: the status is not wanted.
            unsafe { libc::waitpid(-1, ptr::null_mut(), 0) };
            std::thread::yield_now();
        }
    });
}
