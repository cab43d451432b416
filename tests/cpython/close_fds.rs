//! `TestCloseFds`: a worker has none of the descriptors that its parent opened for itself.

use crate::stage::watched;
use multiproc::Process;
use std::os::fd::AsRawFd;

/// As std opens them. Those without `CLOEXEC` are inherited, as by std's `Command`.
#[test]
fn no_stray_descriptor() {
    let _watched = watched();
    let file = std::fs::File::open("/proc/self/status").unwrap();
    let target = format!("/proc/{}/status", std::process::id());
    let p = Process::spawn((file.as_raw_fd(),), |fd: i32| {
        let link = |path: std::path::PathBuf| std::fs::read_link(path).ok().map(|path| path.display().to_string());
        let all = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| link(entry.ok()?.path()));
        (all.collect::<Vec<_>>(), link(format!("/proc/self/fd/{fd}").into()))
    });
    let (all, same_number) = p.unwrap().join().unwrap();
    assert_ne!(same_number.as_ref(), Some(&target));
    assert!(!all.contains(&target), "{all:?}");
    let here = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
    assert_eq!(here.display().to_string(), target);
}
