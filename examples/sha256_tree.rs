//! The SHA-256 of each file of a tree, in the lines of `sha256sum`: many files are read at once, and the lines are in order.
//!
//! A file that cannot be read is named on stderr, as is one whose worker died; the others follow, and the exit code is 1.
//! Python: `for line in pool.imap(sha256, paths, chunksize=1)`, which reads all paths at once, and waits for ever for a worker that was killed.
//! Run: `cargo run --release --example sha256_tree -- PATH... [--on processes|threads|inline]`

use multiproc::Pool;
use multiproc_examples::place_and_arguments;
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use walkdir::WalkDir;

/// The hash in hexadecimal digits, or why there is none.
fn sha256(path: OsString) -> Result<String, String> {
    let mut hash = Sha256::new();
    let copied = File::open(path).and_then(|mut file| io::copy(&mut file, &mut hash));
    copied.map_err(|e| e.to_string())?;
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// As `sha256sum` writes a line: names with a line's end or a backslash are escaped, and a backslash in front says so.
fn line(hash: &str, path: &[u8]) -> Vec<u8> {
    let mut name = Vec::new();
    for &byte in path {
        match byte {
            b'\n' => name.extend(b"\\n"),
            b'\r' => name.extend(b"\\r"),
            b'\\' => name.extend(b"\\\\"),
            _ => name.push(byte),
        }
    }
    let escaped: &[u8] = if name == path { b"" } else { b"\\" };
    [escaped, hash.as_bytes(), b"  ", &name, b"\n"].concat()
}

/// The files at and below `root`, sorted by name in each directory, and what cannot be listed, of which a worker will say why.
fn files(root: &str) -> impl Iterator<Item = OsString> {
    let entries = WalkDir::new(root).sort_by_file_name().into_iter();
    let paths = entries.filter_map(|entry| match entry {
        Ok(entry) => entry.file_type().is_file().then(|| entry.into_path()),
        Err(e) => e.path().map(Path::to_path_buf),
    });
    paths.map(PathBuf::into_os_string)
}

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let (place, roots) = place_and_arguments()?;
    let pool = place.of(Pool::builder()).build()?;
    let paths: Vec<OsString> = roots.iter().flat_map(|root| files(root)).collect();
    let (mut all_read, mut out) = (true, io::stdout().lock());
    // Asked for one after the other, while the workers are a few files ahead.
    for (path, outcome) in paths.iter().zip(pool.imap(paths.iter().cloned(), sha256)) {
        match outcome {
            Ok(Ok(hash)) => out.write_all(&line(&hash, path.as_bytes()))?,
            Ok(Err(unreadable)) => {
                eprintln!("{}: {unreadable}", path.display());
                all_read = false;
            }
            Err(failure) => {
                eprintln!("{}: {failure}", path.display());
                all_read = false;
            }
        }
    }
    Ok(if all_read { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
