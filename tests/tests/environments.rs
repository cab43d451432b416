//! Where multiproc works unaided, and what it says where it cannot.

use multiproc_tests::{Scene, empty_dir, watch};
use std::path::{Path, PathBuf};
use std::process::Command;

const STAGE: &str = env!("CARGO_BIN_EXE_stage");

fn play(preparation: &str, scene: &str) -> (String, std::process::ExitStatus) {
    Scene::play_after(preparation, STAGE, scene).end()
}

#[test]
fn a_plain_program() {
    let _watched = watch(60);
    assert_eq!(Scene::play(STAGE, "simple").end().0, "42\n");
}

#[test]
fn later_constructors_run_in_workers() {
    let _watched = watch(60);
    let (text, status) = Scene::start(&mut Command::new(env!("CARGO_BIN_EXE_late_constructor"))).end();
    assert!(status.success());
    match text.trim_end() {
        "without C here (0, 0) worker (0, 0)" => eprintln!("skipped: no C compiler"),
        // Ran once, and behind multiproc's own entry, which had taken the marker away.
        other => assert_eq!(other, "with C here (1, 0) worker (1, 0)"),
    }
}

#[test]
fn init_has_workers_run_from_main() {
    let _watched = watch(60);
    let (text, status) = Scene::start(&mut Command::new(env!("CARGO_BIN_EXE_in_main"))).end();
    assert_eq!(text, "(Some(\"main\"), true)\ntrue\n");
    assert!(status.success());
}

#[test]
fn set_up_of_workers() {
    let _watched = watch(60);
    let (text, status) = Scene::play(STAGE, "inits").end();
    let expected = "12\n12\nuser's hook: with a hook\nwith a hook at tests/src/bin/stage.rs\nsilent 2\nuser's hook: in the init\nin the init\n";
    assert_eq!(text, expected);
    assert!(status.success());
}

#[test]
fn a_small_number_of_descriptors() {
    let _watched = watch(60);
    let dir = empty_dir(env!("CARGO_TARGET_TMPDIR"), "few_descriptors");
    let (text, status) = play(&format!("ulimit -n 32; export TMPDIR='{}'", dir.display()), "leaks");
    assert_eq!(text, "nothing stays\n");
    assert!(status.success());
}

#[test]
fn a_start_that_fails_runs_nothing() {
    let _watched = watch(60);
    let (out, status) = play("", "no room for a pidfd");
    assert_eq!((out.trim(), status.success()), ("10 failed, 0 ran, children left: false", true));
}

#[test]
fn a_forked_process_is_told_that_the_child_is_not_its_own() {
    let _watched = watch(60);
    let (out, status) = play("", "join after fork");
    assert_eq!((out.trim(), status.success()), ("exit code 7, the child lives: true", true));
}

#[test]
fn too_few_descriptors() {
    let _watched = watch(60);
    // Whoever runs the tests may have left descriptors open to them.
    let alone = "exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-";
    for limit in 4..=24 {
        let (text, status) = play(&format!("{alone}; ulimit -n {limit}"), "try");
        let refused = text.starts_with("refused, unsupported false resources true") && text.contains("Too many open files");
        assert!(text == "returned 42\n" || limit < 20 && refused, "ulimit -n {limit}: {text}");
        assert!(status.success(), "ulimit -n {limit}: {status}");
    }
}

#[test]
fn no_room_for_a_thread_at_first() {
    let _watched = watch(60);
    // Root is not bound by the number of processes of its user.
    let mut command = Command::new("setpriv");
    let other = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];
    if !command.args(other).args(["test", "-x", STAGE]).status().is_ok_and(|s| s.success()) {
        eprintln!("skipped: nobody else can run the stage here");
        return;
    }
    let mut command = Command::new("setpriv");
    let (text, status) = Scene::start(command.args(other).args([STAGE, "no threads"])).end();
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("refused, unsupported false resources true"), "{text}");
    assert_eq!(lines[1], "returned 42");
    assert!(status.success());
}

#[test]
fn little_address_space() {
    let _watched = watch(60);
    // In KiB: the arena takes what is granted, down to 8 MiB.
    for limit in [4_000_000, 400_000, 60_000] {
        let (text, status) = play(&format!("ulimit -v {limit}"), "try");
        assert_eq!(text, "returned 42\n", "ulimit -v {limit}");
        assert!(status.success());
    }
}

#[test]
fn hardly_any_address_space() {
    let _watched = watch(60);
    let (text, status) = play("ulimit -v 12000", "try");
    assert!(text.starts_with("refused") && text.contains("ulimit -v") && status.success(), "{text}");
}

#[test]
fn small_files_only() {
    let _watched = watch(60);
    // In blocks of 512 bytes: 512 MiB, then less than an arena needs.
    let (text, status) = play("ulimit -f 1048576", "try");
    assert_eq!((text.as_str(), status.success()), ("returned 42\n", true));
    let (text, status) = play("ulimit -f 8", "try");
    assert!(text.starts_with("refused") && text.contains("ulimit -f") && status.success(), "{text}");
}

#[test]
fn closed_standard_streams() {
    let _watched = watch(60);
    let (text, status) = play("exec 0<&-", "simple");
    assert_eq!((text.as_str(), status.success()), ("42\n", true));
    let (_, status) = play("exec 2>&- 0<&-", "simple");
    assert!(status.success());
}

#[test]
fn alarms_at_1_khz() {
    let _watched = watch(120);
    let (text, status) = Scene::play(STAGE, "storm").end();
    assert_eq!(text, "through the storm\n");
    assert!(status.success());
}

#[test]
fn without_proc() {
    let _watched = watch(60);
    let namespace = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script, STAGE, "try"]);
        command
    };
    if !namespace("umount -l /proc").status().is_ok_and(|s| s.success()) {
        eprintln!("skipped: no mount namespace without /proc can be made here");
        return;
    }
    let (text, status) = Scene::start(&mut namespace("umount -l /proc && exec \"$0\" \"$1\"")).end();
    assert!(text.starts_with("refused") && text.contains("/proc is not mounted") && status.success(), "{text}");
}

#[test]
fn what_workers_have_open() {
    let _watched = watch(60);
    let (text, status) = Scene::play(STAGE, "descriptors").end();
    let lines: Vec<_> = text.lines().collect();
    assert!(!lines[0].contains("socket") && lines[1] == "false", "{text}");
    assert!(status.success());
}

// --- markers -----------------------------------------------------------------------------------

fn with_marker(marker: &str, preparation: &str) -> (String, std::process::ExitStatus) {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{preparation}\nexec \"$0\" try"), STAGE]).env("MULTIPROC_WORKER", marker);
    Scene::start(&mut command).end()
}

#[test]
fn markers_of_strangers_are_left_alone() {
    let _watched = watch(60);
    for marker in ["", "1", "nonsense", "1:9.9.9:0:0:10:11:1:0:0", "99:0.1.0:0:0:10:11:1:0:0"] {
        let (text, status) = with_marker(marker, "");
        assert_eq!(text, "returned 42\n", "{marker:?}");
        assert!(status.success());
    }
}

#[test]
fn forged_markers() {
    let _watched = watch(60);
    let (genuine, _) = Scene::play(STAGE, "marker").end();
    let fields: Vec<_> = genuine.trim_end().split(':').collect();
    let forged = |build: &str, arena: &str, parent: &str| {
        let mut fields = fields.clone();
        (fields[3], fields[4], fields[5]) = (build, arena, parent);
        fields.join(":")
    };
    // Nothing there, the standard streams, or files: this is an ordinary process that says why it starts no workers.
    for (arena, parent, preparation) in
        [("10", "11", ""), ("0", "1", ""), ("1", "0", ""), ("7", "8", "exec 7</dev/null 8</dev/null"), ("-1", "4294967296", "")]
    {
        let (text, status) = with_marker(&forged(fields[3], arena, parent), preparation);
        let ok = text.starts_with("refused, unsupported true") && text.contains("not genuine");
        assert!(ok || text == "returned 42\n" && parent.len() > 4, "{arena} {parent}: {text}");
        assert!(status.success(), "{arena} {parent}: {status}");
    }
    // The program was replaced while its parent runs: never main.
    let (text, status) = with_marker(&forged("123", "10", "11"), "exec 2>/dev/null");
    assert_eq!((text.as_str(), status.code()), ("", Some(126)));
}

// --- other crates ------------------------------------------------------------------------------

/// A crate of somebody else, with `panic = "abort"`, that knows multiproc only through a library.
#[test]
fn a_library_in_somebody_elses_program_with_panic_abort() {
    let _watched = watch(400);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("somebody");
    let write = |file: &str, text: &str| {
        let path: PathBuf = dir.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        // An unchanged file is not written, so that a second run compiles nothing.
        if std::fs::read_to_string(&path).ok().as_deref() != Some(text) {
            std::fs::write(path, text).unwrap();
        }
    };
    let library = root.join("crates/multiproc");
    write(
        "Cargo.toml",
        "[package]\nname = \"somebody\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[dependencies]\nmiddle = { path = \"middle\" }\n\
         [profile.dev]\npanic = \"abort\"\ndebug = 0\n[workspace]\n",
    );
    write(
        "middle/Cargo.toml",
        &format!(
            "[package]\nname = \"middle\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[dependencies]\nmultiproc = {{ path = {library:?} }}\n"
        ),
    );
    write(
        "middle/src/lib.rs",
        r#"
use multiproc::{Process, ProcessError};
fn work(n: u32) -> u32 {
    if n == 0 { panic!("no work for {n}") } else { n * 2 }
}
pub fn double(n: u32) -> Result<u32, String> {
    match Process::spawn((n,), work).map_err(|e| e.to_string())?.join() {
        Ok(n) => Ok(n),
        Err(ProcessError::Panicked { message, location, .. }) => Err(format!("panicked: {message} at {location}")),
        Err(e) => Err(e.to_string()),
    }
}
"#,
    );
    write("src/main.rs", "fn main() { println!(\"{:?}\", middle::double(21)); println!(\"{:?}\", middle::double(0)); }\n");
    std::fs::copy(root.join("Cargo.lock"), dir.join("Cargo.lock")).unwrap();
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--offline"])
        .current_dir(&dir)
        .env("CARGO_TARGET_DIR", dir.join("target"))
        .env("CARGO_NET_OFFLINE", "true")
        .env_remove("RUSTFLAGS")
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let program = dir.join("target/debug/somebody");
    let (text, status) = Scene::play_after("ulimit -c 0; exec 2>/dev/null", program.to_str().unwrap(), "").end();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "Ok(42)");
    assert!(lines[1].starts_with("Err(\"panicked: no work for 0 at ") && lines[1].contains("lib.rs:4"), "{}", lines[1]);
    assert!(status.success());
}
