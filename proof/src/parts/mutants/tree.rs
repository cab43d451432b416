//! A copy of the workspace's sources in which one mutant at a time lives.

use super::Mutant;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

/// The copy. It is built in a folder of its own: cargo would take what is built of it for what is built of the workspace.
pub struct Tree {
    root: PathBuf,
    target: PathBuf,
}

impl Tree {
    /// Brings the copy up to date. Files that are as they should be are left alone: cargo looks at their times.
    pub fn copied(home: &Path) -> io::Result<Tree> {
        let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| home.join("target"), PathBuf::from);
        fs::create_dir_all(target.join("mutants"))?;
        let own = target.join("mutants").canonicalize()?;
        let tree = Tree { root: own.join("tree"), target: own.join("built") };
        let git = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
        let listed = Command::new("git").current_dir(home).args(git).output()?;
        if !listed.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&listed.stderr).into_owned()));
        }
        let names = String::from_utf8_lossy(&listed.stdout).into_owned();
        let mut wanted = HashSet::new();
        for name in names.split('\0').filter(|name| !name.is_empty() && home.join(name).is_file()) {
            let path = tree.root.join(name);
            let text = fs::read(home.join(name))?;
            if fs::read(&path).ok().as_ref() != Some(&text) {
                fs::create_dir_all(path.parent().unwrap_or(&tree.root))?;
                fs::write(&path, text)?;
            }
            wanted.insert(path);
        }
        tree.remove_all_but(&tree.root, &wanted)?;
        Ok(tree)
    }

    fn remove_all_but(&self, folder: &Path, wanted: &HashSet<PathBuf>) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                self.remove_all_but(&path, wanted)?;
            } else if !wanted.contains(&path) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// `cargo test` in the copy.
    pub fn cargo_test(&self) -> Command {
        let mut command = Command::new(env!("CARGO"));
        command.current_dir(&self.root).arg("test").env("CARGO_TARGET_DIR", &self.target);
        command.env("CARGO_TERM_COLOR", "never");
        // What cargo tells the program that it runs is of another package there.
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR" {
                command.env_remove(name);
            }
        }
        command
    }

    /// Where the words of a run go: to a pipe its last processes could hold on.
    pub fn log(&self) -> PathBuf {
        self.target.join("log")
    }

    /// Does something with the mutant in the copy.
    pub fn with<R>(&self, mutant: &Mutant, body: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        let path = self.root.join("crates").join(mutant.file);
        let text = fs::read_to_string(&path)?;
        fs::write(&path, text.replacen(mutant.from, mutant.to, 1))?;
        let done = body();
        // Written anew, so that cargo builds it anew.
        fs::write(&path, text)?;
        done
    }
}
