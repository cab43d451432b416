//! The places of docs/PLATFORM.md that the system makes: namespaces, mounts, limits, groups, filters, old kernels.
//!
//! Each test makes its place for real, in processes of its own, plays a scene in it, and leaves nothing behind. Where the system does not permit a
//! place, the test says so and returns.

use multiproc_tests::{MemoryGroup, Scene, Sysctl, empty_dir, eventually, watch};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

const PROGRAM: &str = env!("CARGO_BIN_EXE_surroundings");
const WORKS: &str = "everything works\n";

/// What the program says to a place that the system does not permit.
const NOT_PERMITTED: i32 = 77;

fn enter(place: &str, scene: &str) -> Option<(String, ExitStatus)> {
    permitted(Scene::start(Command::new(PROGRAM).args([place, scene])))
}

fn enter_after(preparation: &str, place: &str, scene: &str) -> Option<(String, ExitStatus)> {
    let script = format!("{preparation}\nexec \"$0\" \"$@\"");
    permitted(Scene::start(Command::new("sh").args(["-c", &script, PROGRAM, place, scene])))
}

fn permitted(scene: Scene) -> Option<(String, ExitStatus)> {
    let (text, status) = scene.end();
    if status.code() == Some(NOT_PERMITTED) {
        eprintln!("skipped: not permitted here: {}", text.trim_end());
        return None;
    }
    Some((text, status))
}

#[track_caller]
fn plays(played: Option<(String, ExitStatus)>, expected: &str) {
    if let Some((text, status)) = played {
        assert_eq!(text, expected);
        assert!(status.success(), "{status}");
    }
}

// --- namespaces and mounts ---------------------------------------------------------------------

#[test]
fn process_1_of_a_pid_namespace() {
    let _watched = watch(300);
    plays(enter("pid-1", "core"), WORKS);
    // A /proc that shows the processes of the outer namespace is no worse.
    plays(enter("pid-1 outer-proc", "core"), WORKS);
}

/// Orphans stay as zombies, since only a process that is nothing but an init can know that nobody else waits for them; they harm nobody.
#[test]
fn process_1_with_orphans() {
    let _watched = watch(300);
    if let Some((text, status)) = enter("pid-1", "orphans") {
        let zombies: usize = text.trim().strip_prefix("everything works, zombies: ").expect(&text).parse().unwrap();
        assert!(zombies <= 6, "two orphans for each of three workers, and no child of the core: {text}");
        assert!(status.success());
    }
}

#[test]
fn a_tree_ends_with_process_1() {
    let _watched = watch(300);
    let mut scene = Scene::start(Command::new(PROGRAM).args(["pid-1", "tree"]));
    let first = scene.line();
    if first.contains(':') {
        eprintln!("skipped: not permitted here: {first}");
        return;
    }
    assert!(first.starts_with("child "), "{first}");
    assert!(scene.line().starts_with("leaf "));
    scene.kill();
    // Stdout is shared by all of the tree.
    let (rest, took) = scene.rest();
    assert_eq!(rest, "");
    println!("the tree ended {took:?} after its root");
    assert_eq!(scene.end().1.signal(), Some(9));
}

#[test]
fn nothing_can_be_written() {
    let _watched = watch(300);
    plays(enter("read-only", "nothing can be written"), WORKS);
}

#[test]
fn no_proc() {
    let _watched = watch(300);
    let refused = "false the program cannot be executed again: /proc is not mounted: No such file or directory (os error 2)\n";
    plays(enter("no-proc", "no proc"), refused);
}

#[test]
fn hidepid_as_another_user() {
    let _watched = watch(300);
    plays(enter("hidepid", "core"), WORKS);
}

#[test]
fn a_proc_of_pids_only() {
    let _watched = watch(300);
    plays(enter("proc-of-pids-only", "core"), WORKS);
}

#[test]
fn memfd_noexec() {
    let _watched = watch(300);
    const SYSCTL: &str = "/proc/sys/vm/memfd_noexec";
    let before = std::fs::read(SYSCTL).ok();
    for (level, executable) in [(1, "granted"), (2, "refused")] {
        let played = enter(&format!("memfd-noexec {level}"), "memfds");
        plays(played, &format!("an executable memfd is {executable}\n{WORKS}"));
    }
    assert_eq!(std::fs::read(SYSCTL).ok(), before, "only the namespace's own setting was changed");
}

// --- memory ------------------------------------------------------------------------------------

/// The arena would be filled if it were locked: it is kept small, should that come to pass.
const SMALL: &str = "ulimit -v 1500000";

#[track_caller]
fn stays_small(played: Option<(String, ExitStatus)>) {
    let Some((text, status)) = played else { return };
    println!("{}", text.trim_end());
    assert!(text.starts_with("everything works, small: true") && status.success(), "{text} {status}");
}

#[test]
fn memory_that_is_locked_before_the_arena_is_made() {
    let _watched = watch(300);
    if !may_lock_memory() {
        return;
    }
    stays_small(enter_after(SMALL, "here", "lock future, then share"));
}

#[test]
fn memory_that_is_locked_after_the_arena_was_made() {
    let _watched = watch(300);
    if !may_lock_memory() {
        return;
    }
    stays_small(enter_after(SMALL, "here", "share, then lock future"));
    stays_small(enter_after(SMALL, "here", "share, then lock on fault"));
}

#[test]
fn a_user_who_may_lock_little() {
    let _watched = watch(300);
    stays_small(enter_after(SMALL, "nobody", "lock little, then share"));
}

fn may_lock_memory() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let all = capabilities.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    const IPC_LOCK: u64 = 1 << 14;
    if all & IPC_LOCK == 0 {
        eprintln!("skipped: may not lock memory without a limit here");
    }
    all & IPC_LOCK != 0
}

#[test]
fn a_memory_cgroup() {
    let _watched = watch(300);
    const LIMIT: u64 = 96 << 20;
    let group = match MemoryGroup::make("multiproc-test", LIMIT) {
        Ok(group) => group,
        Err(why) => return eprintln!("skipped: no memory cgroup can be made here: {why}"),
    };
    let enter = format!("echo $$ > '{}' || exit {NOT_PERMITTED}", group.entrance().display());
    let Some((text, status)) = enter_after(&enter, "here", "a bounded group") else { return };
    let expected = format!("{}\nkilled by SIGKILL, its lock reported: true\nout of memory: true, stored: true\n5\n", LIMIT / 2);
    assert_eq!(text, expected);
    assert!(status.success(), "{status}");
}

/// What strict overcommit counts, private memory that can be written to, is bounded here, whatever the system's setting: the arena is none of it.
#[test]
fn little_private_memory() {
    let _watched = watch(300);
    plays(enter_after("ulimit -d 400000", "here", "core"), WORKS);
}

/// Changes the setting of the whole system for a second, so only where the environment asks for it.
#[test]
fn strict_overcommit() {
    let _watched = watch(300);
    if std::env::var_os("MULTIPROC_TEST_SYSCTLS").is_none() {
        return eprintln!("skipped: would change vm.overcommit_memory of the whole system; MULTIPROC_TEST_SYSCTLS=1 allows it");
    }
    if let Err(why) = Sysctl::room_for_strict_overcommit(1 << 30) {
        return eprintln!("skipped: {why}");
    }
    let strict = match Sysctl::set("/proc/sys/vm/overcommit_memory", "2") {
        Ok(strict) => strict,
        Err(why) => return eprintln!("skipped: vm.overcommit_memory cannot be set here: {why}"),
    };
    let played = enter("here", "core");
    drop(strict);
    plays(played, WORKS);
}

// --- ends --------------------------------------------------------------------------------------

#[test]
fn core_dumps_are_small_and_hold_up_nobody() {
    let _watched = watch(300);
    let dir = empty_dir(env!("CARGO_TARGET_TMPDIR"), "cores");
    let prepare = format!("cd '{}' && ulimit -c unlimited || exit {NOT_PERMITTED}", dir.display());
    if let Some((text, status)) = enter_after(&prepare, "here", "abort with a lock") {
        assert!(status.success(), "{status}");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "true true", "the arena is left out of dumps, in the worker and in the coordinator");
        let nanos: u64 = lines[1].parse().unwrap();
        println!("the lock came {} ms after the abort began", nanos / 1_000_000);
        let dumped = lines[2].strip_prefix("SIGABRT ").expect(&text) == "true";
        let size: u64 = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
        match (dumped, size) {
            (true, 1..) => println!("the core has {} KiB", size / 1024),
            _ => eprintln!("no core to measure: kernel.core_pattern sends it elsewhere, or none was written"),
        }
        assert!(size < 64 << 20, "{size}");
    }
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn whoever_reaps_children() {
    let _watched = watch(300);
    plays(enter_after("trap '' CHLD", "here", "core"), WORKS);
    plays(enter("reaper", "core"), WORKS);
}

// --- kernels -----------------------------------------------------------------------------------

fn with_old_kernel(lacks: &str, place: &str) -> Option<(String, ExitStatus)> {
    permitted(Scene::start(Command::new(PROGRAM).args([place, "core"]).env("MULTIPROC_FORCE_OLD_KERNEL", lacks)))
}

#[test]
fn older_kernels() {
    let _watched = watch(300);
    for lacks in ["futex-waitv", "noexec-seal", "exit-info", "death-wakes", "all"] {
        plays(with_old_kernel(lacks, "here"), WORKS);
    }
    plays(with_old_kernel("all", "pid-1"), WORKS);
}

/// What runtimes of containers refuse that do not know a system call; with ENOSYS it is an older kernel.
#[test]
fn filters_of_system_calls() {
    let _watched = watch(300);
    for errno in [libc::EPERM, libc::ENOSYS] {
        plays(enter(&format!("filter futex_waitv={errno}"), "core"), WORKS);
        let needed = [
            ("pidfd_open", "no process can be started, since pidfd_open(2) is refused"),
            ("memfd_create", "the shared arena refused: memfd_create"),
            ("fallocate", "the shared arena refused: fallocate"),
            ("get_robust_list", "the shared arena refused: libc's robust list cannot be used on this system"),
        ];
        for (call, says) in needed {
            if let Some((text, status)) = enter(&format!("filter {call}={errno}"), "refused") {
                assert!(text.starts_with(says) && status.success(), "{call}={errno}: {text} {status}");
            }
        }
    }
}

/// Where pidfd_open is allowed this is, too; but an exit that never ends would be worse than an error.
#[test]
fn a_filter_of_signals() {
    let _watched = watch(300);
    let said = "SIGKILL could not be sent to process Process-1: Operation not permitted (os error 1)\n";
    // The daemon shares stdout: it has ended when the text has.
    plays(enter("filter pidfd_send_signal", "a daemon that cannot be signalled"), said);
}

// --- runners of tests --------------------------------------------------------------------------

/// A fresh crate whose tests use multiproc.
fn fresh_crate() -> std::path::PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fresh");
    let manifest = format!(
        "[package]\nname = \"fresh\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[dependencies]\nmultiproc = {{ path = {:?} }}\n\
         [profile.dev]\ndebug = 0\n[workspace]\n",
        root.join("crates/multiproc")
    );
    std::fs::create_dir_all(dir.join("src")).unwrap();
    for (file, text) in [("Cargo.toml", manifest.as_str()), ("src/lib.rs", include_str!("../src/fresh.rs.txt"))] {
        // An unchanged file is not written, so that a second run compiles nothing.
        if std::fs::read_to_string(dir.join(file)).ok().as_deref() != Some(text) {
            std::fs::write(dir.join(file), text).unwrap();
        }
    }
    std::fs::copy(root.join("Cargo.lock"), dir.join("Cargo.lock")).unwrap();
    dir
}

fn cargo(dir: &Path, args: &[&str]) -> (String, ExitStatus) {
    let mut command = Command::new(env!("CARGO"));
    command.args(args).current_dir(dir).env("CARGO_TARGET_DIR", dir.join("target")).env("CARGO_NET_OFFLINE", "true");
    let out = command.env_remove("RUSTFLAGS").env_remove("RUST_TEST_THREADS").output().unwrap();
    (format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr)), out.status)
}

/// One test, since the two would wait for each other's builds.
#[test]
fn runners_of_tests() {
    let _watched = watch(600);
    let dir = fresh_crate();
    let (text, status) = cargo(&dir, &["test", "--offline", "--lib", "--", "--test-threads=1"]);
    assert!(status.success() && text.contains("4 passed"), "{text}");
    if !cargo(&dir, &["nextest", "--version"]).1.success() {
        return eprintln!("skipped: cargo-nextest is not installed");
    }
    let (text, status) = cargo(&dir, &["nextest", "run", "--offline"]);
    assert!(status.success() && text.contains("4 passed") && !text.contains("leaky"), "{text}");
}

/// The guards of this file give everything back.
#[test]
fn guards_give_back_what_they_change() {
    let _watched = watch(300);
    let file = empty_dir(env!("CARGO_TARGET_TMPDIR"), "sysctl").join("setting");
    std::fs::write(&file, "0\n").unwrap();
    let read = || std::fs::read_to_string(&file).unwrap().trim().to_owned();
    let set = Sysctl::set(file.to_str().unwrap(), "2").unwrap();
    assert_eq!(read(), "2");
    drop(set);
    assert_eq!(read(), "0");
    // Also when the process that has the guard is killed.
    let set = Sysctl::set(file.to_str().unwrap(), "2").unwrap();
    set.let_go();
    eventually(|| read() == "0");
}
