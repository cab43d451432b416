//! From the paths of the command line to the list of files to count, always in the same order.
//!
//! Each path is walked on its own, so what is named twice counts twice, as with `cat a a`. Within one walk a symlink
//! adds only what is not already there: no directory is entered twice, and a file that symlinks lead to counts once.
//! Hard links are files of their own. What cannot be read is collected, not fatal. The order is that of the names'
//! bytes, by `walkdir`; the identity of a file is `(st_dev, st_ino)` of stat(2).

use std::collections::HashSet;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

/// One thing to count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// A regular file, which workers read for themselves.
    File { path: PathBuf, size: u64 },
    /// Something named on the command line that can only be read from its beginning: a FIFO, a device, `/proc/...`.
    Stream { path: PathBuf },
    /// `-`
    Stdin,
}

impl Input {
    /// The name in messages.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Input::File { path, .. } | Input::Stream { path } => path,
            Input::Stdin => Path::new("-"),
        }
    }

    /// The size in bytes, where it is known beforehand.
    pub(crate) fn size(&self) -> Option<u64> {
        match self {
            Input::File { size, .. } => Some(*size),
            Input::Stream { .. } | Input::Stdin => None,
        }
    }
}

/// What the paths led to.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    pub(crate) inputs: Vec<Input>,
    pub(crate) errors: Vec<(PathBuf, io::Error)>,
}

impl Walk {
    /// The bytes of all regular files.
    pub(crate) fn bytes(&self) -> u64 {
        self.inputs.iter().filter_map(Input::size).sum()
    }

    /// Whether the bytes of some input are not among [`Walk::bytes`].
    pub(crate) fn has_streams(&self) -> bool {
        self.inputs.iter().any(|input| input.size().is_none())
    }

    fn path(&mut self, path: &Path) {
        if path == Path::new("-") {
            return self.inputs.push(Input::Stdin);
        }
        match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => self.directory(path),
            // A size of 0 may be procfs's, which does not know better; reading tells.
            Ok(meta) if meta.is_file() && meta.len() > 0 && !is_private(path) => self.inputs.push(file(path.into(), &meta)),
            Ok(_) => self.inputs.push(Input::Stream { path: path.into() }),
            Err(e) => self.errors.push((path.into(), e)),
        }
    }

    fn directory(&mut self, root: &Path) {
        let mut entered = HashSet::new();
        let mut present = HashSet::new();
        let mut linked = HashSet::new();
        let mut found = Vec::new();

        let mut entries = WalkDir::new(root).follow_links(true).sort_by_file_name().into_iter();
        while let Some(entry) = entries.next() {
            let looked_at = entry.and_then(|entry| entry.metadata().map(|meta| (entry, meta)));
            match looked_at {
                Ok((_, meta)) if meta.is_dir() => {
                    if !entered.insert(identity(&meta)) {
                        entries.skip_current_dir();
                    }
                }
                Ok((entry, meta)) if meta.is_file() => {
                    let by_link = entry.path_is_symlink();
                    if !by_link {
                        present.insert(identity(&meta));
                    }
                    if !by_link || linked.insert(identity(&meta)) {
                        found.push((by_link, identity(&meta), file(entry.into_path(), &meta)));
                    }
                }
                Ok(_) => {}
                // A symlink to a directory we are in: already entered.
                Err(e) if e.loop_ancestor().is_some() => {}
                Err(e) => {
                    let path = e.path().unwrap_or(root).to_path_buf();
                    let error = e.into_io_error().unwrap_or_else(|| io::Error::other("cannot be walked"));
                    self.errors.push((path, error));
                }
            }
        }
        // A link may come before its target in the order, so whether it adds something is known only now.
        let added = found.into_iter().filter(|(by_link, id, _)| !by_link || !present.contains(id));
        self.inputs.extend(added.map(|(_, _, input)| input));
    }
}

/// Lists what `paths` lead to.
pub(crate) fn walk(paths: &[PathBuf]) -> Walk {
    let mut walk = Walk::default();
    for path in paths {
        walk.path(path);
    }
    walk
}

/// Whether the path means another file in a worker than here, as `/dev/stdin` does.
fn is_private(path: &Path) -> bool {
    ["/dev/stdin", "/dev/fd", "/proc"].into_iter().any(|prefix| path.starts_with(prefix))
}

fn file(path: PathBuf, meta: &Metadata) -> Input {
    Input::File { path, size: meta.len() }
}

fn identity(meta: &Metadata) -> (u64, u64) {
    (meta.dev(), meta.ino())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for name in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        root
    }

    fn names(root: &Path, walk: &Walk) -> Vec<String> {
        assert!(walk.errors.is_empty(), "{:?}", walk.errors);
        let name = |i: &Input| i.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        walk.inputs.iter().map(name).collect()
    }

    #[test]
    fn directories_are_walked_in_the_order_of_names() {
        let root = tree(&["b/z", "b/a", "a", "c", "B"]);
        let walk = walk(&[root.path().into()]);
        assert_eq!(names(root.path(), &walk), ["B", "a", "b/a", "b/z", "c"]);
        assert_eq!(walk.bytes(), 9);
        assert!(!walk.has_streams());
    }

    #[test]
    fn a_path_named_twice_counts_twice() {
        let root = tree(&["a", "d/b"]);
        let (a, d) = (root.path().join("a"), root.path().join("d"));
        let walk = walk(&[a.clone(), d.clone(), a, d]);
        assert_eq!(names(root.path(), &walk), ["a", "d/b", "a", "d/b"]);
    }

    #[test]
    fn symlinked_directories_are_entered_once() {
        let root = tree(&["d/f", "d/sub/g"]);
        let outside = tree(&["o"]);
        let at = |name: &str| root.path().join(name);
        symlink(root.path(), at("d/loop")).unwrap();
        symlink(".", at("self")).unwrap();
        symlink("d", at("after")).unwrap();
        symlink("d/sub", at("before")).unwrap();
        symlink(outside.path(), at("out1")).unwrap();
        symlink(outside.path(), at("out2")).unwrap();
        let walk = walk(&[root.path().into()]);
        assert_eq!(names(root.path(), &walk), ["after/f", "after/sub/g", "out1/o"]);
    }

    #[test]
    fn symlinked_files_count_once_and_hard_links_each() {
        let root = tree(&["m"]);
        let outside = tree(&["o"]);
        let at = |name: &str| root.path().join(name);
        symlink("m", at("a-link-before-m")).unwrap();
        symlink("m", at("z-link-after-m")).unwrap();
        fs::hard_link(at("m"), at("n")).unwrap();
        symlink(outside.path().join("o"), at("o1")).unwrap();
        symlink(outside.path().join("o"), at("o2")).unwrap();
        let walk = walk(&[root.path().into()]);
        assert_eq!(names(root.path(), &walk), ["m", "n", "o1"]);
    }

    #[test]
    fn a_symlink_may_be_the_root() {
        let root = tree(&["d/f", "g"]);
        symlink("d", root.path().join("ld")).unwrap();
        symlink("g", root.path().join("lg")).unwrap();
        let walk = walk(&[root.path().join("ld"), root.path().join("lg")]);
        assert_eq!(names(root.path(), &walk), ["ld/f", "lg"]);
    }

    #[test]
    fn what_cannot_be_read_is_named_and_the_rest_found() {
        let root = tree(&["d/f"]);
        symlink("nowhere", root.path().join("d/broken")).unwrap();
        symlink("circle", root.path().join("d/circle")).unwrap();
        let missing = root.path().join("missing");
        let walk = walk(&[missing.clone(), root.path().join("d")]);
        let errors: Vec<_> = walk.errors.iter().map(|(p, e)| (p.clone(), e.raw_os_error())).collect();
        let (enoent, eloop) = (Some(2), Some(40));
        let d = root.path().join("d");
        assert_eq!(errors, [(missing, enoent), (d.join("broken"), enoent), (d.join("circle"), eloop)]);
        assert_eq!(walk.inputs, [Input::File { path: d.join("f"), size: 3 }]);
    }

    #[test]
    fn special_files_are_skipped_unless_named() {
        let root = tree(&["f"]);
        let socket = root.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        assert_eq!(names(root.path(), &walk(&[root.path().into()])), ["f"]);

        let walk = walk(&["/dev/null".into(), "-".into(), "/proc/self/status".into()]);
        let stream = |path: &str| Input::Stream { path: path.into() };
        assert_eq!(walk.inputs, [stream("/dev/null"), Input::Stdin, stream("/proc/self/status")]);
        assert!(walk.has_streams());
        assert_eq!(walk.bytes(), 0);
    }

    #[test]
    fn what_workers_would_not_find_is_a_stream() {
        use std::os::fd::AsRawFd;
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, b"words").unwrap();
        for dir in ["/dev/fd", "/proc/self/fd"] {
            let path = PathBuf::from(format!("{dir}/{}", file.as_raw_fd()));
            assert_eq!(walk(std::slice::from_ref(&path)).inputs, [Input::Stream { path }]);
        }
    }
}
