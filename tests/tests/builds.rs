//! Programs that are built in one way or another: multiproc inside a library that is loaded, twice in one program, without a dynamic loader, at a fixed
//! address. Rows of `docs/PLATFORM.md`, section "Programs".
//!
//! Cargo builds the crates once more, as somebody else's dependency and in two versions; rustc builds the programs from that.

use multiproc_tests::{Scene, watch};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// What stands in the nested build: rlibs by crate and version, and where those that they need lie.
struct Built {
    dir: PathBuf,
    libraries: BTreeMap<(String, String), PathBuf>,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");
const OTHER_VERSION: &str = "0.0.9";

/// An unchanged file is not written, so that a second run compiles nothing.
fn write(path: &Path, text: &str) {
    if fs::read_to_string(path).ok().as_deref() != Some(text) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

/// Makes `to` a copy of `from`: what an earlier run has left there and is gone here goes.
fn copy_tree(from: &Path, to: &Path) {
    for entry in fs::read_dir(to).into_iter().flatten().map(Result::unwrap) {
        let (here, there) = (from.join(entry.file_name()), entry.path());
        if !here.exists() || here.is_dir() != there.is_dir() {
            let gone = if there.is_dir() { fs::remove_dir_all(there) } else { fs::remove_file(there) };
            gone.unwrap();
        }
    }
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy_tree(&from, &to);
        } else {
            write(&to, &fs::read_to_string(from).unwrap());
        }
    }
}

fn built() -> &'static Built {
    static BUILT: OnceLock<Built> = OnceLock::new();
    BUILT.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("builds");
        // Another version: the same source under another number.
        let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
        let start = manifest.find("members = ").unwrap();
        let end = start + manifest[start..].find("\n\n").unwrap();
        let other = format!("{}members = [\"crates/*\"]{}", &manifest[..start], &manifest[end..]);
        let other = other.replace(&format!("\"{VERSION}\""), &format!("\"{OTHER_VERSION}\""));
        write(&dir.join("other/Cargo.toml"), &other.replace(&format!("\"={VERSION}\""), &format!("\"={OTHER_VERSION}\"")));
        copy_tree(&root.join("crates"), &dir.join("other/crates"));
        let (this, other) = (root.join("crates/multiproc"), dir.join("other/crates/multiproc"));
        write(
            &dir.join("Cargo.toml"),
            &format!(
                "[package]\nname = \"both\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[dependencies]\nmultiproc = {{ path = {this:?} }}\n\
                 other = {{ package = \"multiproc\", path = {other:?} }}\n[profile.dev]\ndebug = 0\n[workspace]\nexclude = [\"other\"]\n"
            ),
        );
        write(&dir.join("src/lib.rs"), "pub use {multiproc, other};\n");
        // Cargo adds the other version to it.
        fs::copy(root.join("Cargo.lock"), dir.join("Cargo.lock")).unwrap();
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--offline", "--message-format=json"])
            .current_dir(&dir)
            .env("CARGO_TARGET_DIR", dir.join("target"))
            .env_remove("RUSTFLAGS")
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let mut libraries = BTreeMap::new();
        for line in built.stdout.split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
            let message: serde_json::Value = serde_json::from_slice(line).unwrap();
            let names = message["filenames"].as_array().into_iter().flatten().filter_map(|name| name.as_str());
            let Some(rlib) = names.filter(|name| name.ends_with(".rlib")).map(PathBuf::from).next() else { continue };
            let name = message["target"]["name"].as_str().unwrap_or_default().to_owned();
            let version = message["package_id"].as_str().unwrap_or_default().rsplit(['#', '@']).next().unwrap_or_default();
            libraries.insert((name, version.to_owned()), rlib);
        }
        Built { dir, libraries }
    })
}

impl Built {
    fn library(&self, version: &str) -> &Path {
        &self.libraries[&("multiproc".to_owned(), version.to_owned())]
    }

    /// Has rustc make `name` of `source`.
    fn compile(&self, name: &str, source: &str, flags: &[&str]) -> PathBuf {
        let (file, out) = (self.dir.join(format!("{name}.rs")), self.dir.join(format!("out/{name}")));
        write(&file, source);
        fs::create_dir_all(out.parent().unwrap()).unwrap();
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let mut command = Command::new(rustc);
        command.args(["--edition", "2024", "-L"]).arg(format!("dependency={}", self.dir.join("target/debug/deps").display()));
        for (extern_name, version) in [("multiproc", VERSION), ("other", OTHER_VERSION)] {
            if source.contains(&format!("{extern_name}::")) {
                command.arg("--extern").arg(format!("{extern_name}={}", self.library(version).display()));
            }
        }
        let compiled = command.args(flags).arg("-o").arg(&out).arg(&file).output().unwrap();
        assert!(compiled.status.success(), "{name}: {}", String::from_utf8_lossy(&compiled.stderr));
        out
    }
}

fn run(command: &mut Command) -> String {
    let (text, status) = Scene::start(command).end();
    assert!(status.success(), "{command:?}: {status}, {text}");
    text
}

const DOUBLE: &str = r#"
fn double(n: u64) -> u64 { n * 2 }
pub fn tried() -> String {
    match multiproc::Process::spawn((21,), double) {
        Ok(p) => match p.join() {
            Ok(n) => format!("returned {n}"),
            Err(e) => format!("ended: {e}"),
        },
        Err(e) => format!("refused, unsupported {}: {e}", e.is_unsupported()),
    }
}
"#;

/// Counts how often it is started, so that a program that starts itself again and again is seen.
const COUNTED: &str = r#"
fn main() { println!("main"); println!("{}", tried()); }
"#;

#[test]
fn linked_without_a_loader_or_at_a_fixed_address() {
    let _watched = watch(400);
    let source = format!("{DOUBLE}{COUNTED}");
    let ways: [(&str, &[&str]); 4] = [
        ("plain", &[]),
        ("static_pie", &["-C", "target-feature=+crt-static"]),
        ("static_fixed", &["-C", "target-feature=+crt-static", "-C", "relocation-model=static"]),
        ("fixed", &["-C", "relocation-model=static"]),
    ];
    for (name, flags) in ways {
        let program = built().compile(name, &source, flags);
        assert_eq!(run(&mut Command::new(program)), "main\nreturned 42\n", "{name}");
    }
}

#[test]
fn two_versions_in_one_program() {
    let _watched = watch(400);
    let source = r#"
fn ours(n: u64) -> u64 { n * 2 + other::Process::spawn((n,), |n: u64| n).unwrap().join().unwrap() }
fn others(n: u64) -> u64 { n * 3 + multiproc::Process::spawn((n,), |n: u64| n).unwrap().join().unwrap() }
fn main() {
    println!("main");
    let (a, b) = (multiproc::Queue::bounded(1).unwrap(), other::Queue::bounded(1).unwrap());
    let p = multiproc::Process::spawn((a.clone(), 1), |a: multiproc::Queue<u64>, n| a.put(ours(n)).unwrap()).unwrap();
    let q = other::Process::spawn((b.clone(), 1), |b: other::Queue<u64>, n| b.put(others(n)).unwrap()).unwrap();
    println!("{} {}", a.get().unwrap(), b.get().unwrap());
    p.join().unwrap();
    q.join().unwrap();
}
"#;
    let program = built().compile("two", source, &[]);
    assert_eq!(run(&mut Command::new(program)), "main\n3 4\n");
}

#[test]
fn inside_a_library_that_the_program_loads() {
    let _watched = watch(400);
    let built = built();
    let library =
        built.compile("libmiddle.so", DOUBLE, &["--crate-type", "dylib", "--crate-name", "middle", "-C", "prefer-dynamic"]);
    let program = built.compile(
        "loads",
        "fn main() { println!(\"main\"); println!(\"{}\", middle::tried()); }",
        &["-C", "prefer-dynamic", "--extern", &format!("middle={}", library.display()), "-C", "rpath"],
    );
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let sysroot = Command::new(rustc).args(["--print", "target-libdir"]).output().unwrap();
    let sysroot = String::from_utf8(sysroot.stdout).unwrap();
    let path = format!("{}:{}", sysroot.trim_end(), library.parent().unwrap().display());
    let text = run(Command::new(program).env("LD_LIBRARY_PATH", path));
    assert!(text.starts_with("main\nrefused, unsupported true") && text.contains("loaded as part of a library"), "{text}");
    assert_eq!(text.lines().count(), 2, "{text}");
}

#[test]
fn inside_a_library_that_python_loads() {
    let _watched = watch(400);
    if !Command::new("python3").args(["-c", "import ctypes"]).status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: no python3 with ctypes");
        return;
    }
    let source = format!(
        r#"{DOUBLE}
#[unsafe(no_mangle)]
pub extern "C" fn speak() {{
    println!("{{}}", tried());
    println!("queue {{}}", multiproc::Queue::<u8>::bounded(1).is_ok());
}}
"#
    );
    let library = built().compile("extension.so", &source, &["--crate-type", "cdylib", "--crate-name", "extension"]);
    let script = "import ctypes, subprocess, sys\nprint('begin', flush=True)\nlib = ctypes.CDLL(sys.argv[1])\nlib.speak()\n\
                  print(subprocess.run([sys.executable, '-c', 'print(6 * 7)'], capture_output=True, text=True).stdout.strip())\nprint('end')";
    let text = run(Command::new("python3").args(["-c", script]).arg(library));
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[1].starts_with("refused, unsupported true") && lines[1].contains("loaded as part of a library"), "{text}");
    assert_eq!((lines[0], lines.len()), ("begin", 5), "{text}");
    assert_eq!(lines[3..], ["42", "end"]);
}
