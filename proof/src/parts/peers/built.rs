//! The peers' programs: which there are here, built when they are asked for, and in which version.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/parts/peers/programs");
const RUST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/Cargo.toml");

/// Somebody else's library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// CPython's standard library.
    Python,
    /// Threads of the C library.
    Glibc,
    /// `boost::interprocess`.
    Boost,
    /// A crate of this name.
    Crate(&'static str),
}

/// A peer's program, and its version in words.
#[derive(Clone, Debug)]
pub struct Program {
    pub command: Vec<PathBuf>,
    pub version: String,
}

/// The peers' programs, each looked for once.
#[derive(Debug)]
pub struct Programs {
    python: Result<Program, String>,
    glibc: Result<Program, String>,
    boost: Result<Program, String>,
    crates: Result<PathBuf, String>,
}

impl Programs {
    /// Builds what can be built. Other crates take minutes, so they are built only if `patient`, and used if they are there.
    pub fn build(patient: bool) -> Programs {
        let directory = directory();
        Programs {
            python: python(),
            glibc: c("cc", &["cases.c", "-pthread"], &directory.join("glibc")).map(|path| Program {
                command: vec![path],
                version: first_line("ldd", &["--version"])
                    .map_or("glibc".into(), |line| format!("glibc {}", line.rsplit(' ').next().unwrap_or_default())),
            }),
            boost: c("c++", &["cases.cpp", "-std=c++17", "-pthread", "-lrt"], &directory.join("boost")).map(|path| {
                let version = first_line(&path, &["version"]).unwrap_or_default().replace('_', ".");
                Program { command: vec![path], version: format!("boost {version}") }
            }),
            crates: crates(&directory, patient),
        }
    }

    /// The program of a peer, or why there is none.
    pub fn of(&self, peer: Peer) -> Result<Program, String> {
        match peer {
            Peer::Python => self.python.clone(),
            Peer::Glibc => self.glibc.clone(),
            Peer::Boost => self.boost.clone(),
            Peer::Crate(name) => {
                let path = self.crates.clone()?;
                let text = fs::read_to_string(RUST).unwrap_or_default();
                let version = text.lines().find_map(|line| line.strip_prefix(name)?.split('"').nth(1)).unwrap_or_default();
                Ok(Program { command: vec![path], version: format!("{name} {}", version.trim_start_matches('=')) })
            }
        }
    }
}

/// Beside this program.
fn directory() -> PathBuf {
    let me = std::env::current_exe().unwrap_or_default();
    let directory = me.parent().unwrap_or(Path::new(".")).join("proof-peers");
    // Whoever builds into it says that it is not there.
    let _ = fs::create_dir_all(&directory);
    directory
}

fn first_line(program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).lines().next()?.to_owned())
}

fn python() -> Result<Program, String> {
    let version = first_line("python3", &["--version"]).ok_or("there is no python3")?;
    Ok(Program { command: vec!["python3".into(), Path::new(HERE).join("cases.py")], version })
}

/// Runs a compiler, and says what it had to say only if it fails.
fn succeed(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{:?}: {e}", command.get_program()))?;
    let error = String::from_utf8_lossy(&output.stderr);
    // The first line that tells of an error is what somebody wants to know.
    let why = error.lines().find(|line| line.contains("error")).or(error.lines().last()).unwrap_or_default();
    if output.status.success() { Ok(()) } else { Err(why.to_owned()) }
}

fn c(compiler: &str, args: &[&str], to: &Path) -> Result<PathBuf, String> {
    succeed(Command::new(compiler).current_dir(HERE).args(["-O1", "-w", "-o"]).arg(to).args(args))?;
    Ok(to.to_owned())
}

fn crates(directory: &Path, patient: bool) -> Result<PathBuf, String> {
    let built = directory.join("release/multiproc-proof-peers");
    if patient {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--release", "--locked", "--manifest-path", RUST, "--target-dir"]).arg(directory);
        succeed(&mut cargo)?;
    }
    if built.exists() { Ok(built) } else { Err("not built; the long form builds it".into()) }
}
