//! What the kernel says of other processes and their threads, for reports: see proc_pid_stat(5).
//!
//! Where /proc is not mounted, or hides other users' processes, nothing is known. A pid may have been given to another process meanwhile;
//! the caller knows by other means whether the process it asks about lives.

use std::fs;

/// State letter of a process as in ps(1): `R`, `S`, `D`, `T` and `t` for stopped, `Z` for dead and not waited for.
pub fn state(pid: u32) -> Option<char> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold anything, a closing bracket included.
    let end = text.iter().rposition(|&b| b == b')')?;
    text.get(end + 2).map(|&b| char::from(b))
}

/// Ids and names of a process's threads.
pub fn threads(pid: u32) -> Option<Vec<(u32, String)>> {
    let mut list = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let task = task.ok()?;
        let id = task.file_name().to_str()?.parse().ok()?;
        // It may have ended since.
        let Ok(name) = fs::read_to_string(task.path().join("comm")) else { continue };
        list.push((id, name.trim_end().to_owned()));
    }
    Some(list)
}

/// The process that a thread belongs to.
pub fn process_of(thread: u32) -> Option<u32> {
    status_number(&format!("/proc/{thread}/status"), "Tgid:")
}

/// The parent of a process.
pub fn parent_of(pid: u32) -> Option<u32> {
    status_number(&format!("/proc/{pid}/status"), "PPid:")
}

/// Whether a debugger has attached to the calling process.
pub fn is_traced() -> bool {
    status_number("/proc/self/status", "TracerPid:").is_some_and(|pid| pid != 0)
}

fn status_number(path: &str, key: &str) -> Option<u32> {
    let text = fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&text);
    text.lines().find_map(|line| line.strip_prefix(key)).and_then(|rest| rest.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_known_and_no_other_is_made_up() {
        let me = std::process::id();
        assert!(matches!(state(me), Some('R' | 'S')));
        std::thread::Builder::new()
            .name("a name )".into())
            .spawn(move || {
                let mine = nix::unistd::gettid().as_raw() as u32;
                assert!(threads(me).unwrap().contains(&(mine, "a name )".into())));
                assert_eq!(process_of(mine), Some(me));
                assert_eq!(parent_of(me), Some(std::os::unix::process::parent_id()));
            })
            .unwrap()
            .join()
            .unwrap();
        assert!(!is_traced());
        assert_eq!((state(0), threads(0), process_of(0)), (None, None, None));
    }
}
