//! What this process may use: file size, stack, memory.
//!
//! Read anew at each call, since limits change; nothing here fails, a file that is missing is a limit that is
//! not there. See getrlimit(2), proc_meminfo(5), cgroups(7).
#![allow(unsafe_code)]

use nix::sys::resource::{Resource, getrlimit};
use std::fs;
use std::path::{Component, Path, PathBuf};

/// The largest file this process may make, in bytes (RLIMIT_FSIZE); `None` is no limit.
pub fn file_size_limit() -> Option<u64> {
    soft_limit(Resource::RLIMIT_FSIZE)
}

/// The size to which the main thread's stack may grow, in bytes (RLIMIT_STACK); `None` is no limit.
pub fn stack_limit() -> Option<u64> {
    soft_limit(Resource::RLIMIT_STACK)
}

fn soft_limit(resource: Resource) -> Option<u64> {
    if cfg!(miri) {
        return None;
    }
    let (soft, _) = getrlimit(resource).ok()?;
    (soft != libc::RLIM_INFINITY).then_some(soft)
}

/// Bytes of memory this process can reckon with: what the machine has to spare, or the limit of its memory
/// cgroup where that is less.
pub fn available_memory() -> u64 {
    if cfg!(miri) {
        return 1 << 32;
    }
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| mem_available(&text));
    let cgroup = fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| cgroup_limit(&text));
    machine.unwrap_or_else(physical_memory).min(cgroup.unwrap_or(u64::MAX))
}

fn mem_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn physical_memory() -> u64 {
    // SAFETY: sysconf takes any name and touches no memory of ours.
    let pages = unsafe { libc::sysconf(libc::_SC_PHYS_PAGES) };
    // SAFETY: as above.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(pages).unwrap_or(0).saturating_mul(u64::try_from(page).unwrap_or(0))
}

/// The smallest limit among the cgroups named in the text of /proc/self/cgroup and their ancestors.
fn cgroup_limit(membership: &str) -> Option<u64> {
    membership.lines().filter_map(limit_of_line).min()
}

/// A line is `hierarchy:controllers:path`, with no controllers for version 2.
fn limit_of_line(line: &str) -> Option<u64> {
    let mut fields = line.splitn(3, ':');
    let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    let (root, file) = match controllers {
        "" => ("/sys/fs/cgroup", "memory.max"),
        list if list.split(',').any(|c| c == "memory") => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        _ => return None,
    };
    // A path with `..` lies outside of our cgroup namespace: only the namespace's own root can be read.
    let path = Path::new(path);
    let plain = path.components().all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
    let group: PathBuf = if plain { path.components().skip(1).collect() } else { PathBuf::new() };
    group.ancestors().filter_map(|dir| read_limit(&Path::new(root).join(dir).join(file))).min()
}

/// "max" in version 2 and the absence of the file are both no limit.
fn read_limit(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read_in_kib() {
        assert_eq!(mem_available("MemTotal: 9 kB\nMemAvailable:    5 kB\n"), Some(5 * 1024));
        assert_eq!(mem_available("MemTotal: 9 kB\n"), None);
        assert_eq!(mem_available("MemAvailable: many\n"), None);
    }

    #[test]
    fn odd_cgroup_lines_are_no_limit() {
        assert_eq!(cgroup_limit(""), None);
        assert_eq!(cgroup_limit("nonsense\n3:cpu:/\n"), None);
        assert_eq!(cgroup_limit("0::/no/such/group-of-ours\n"), cgroup_limit("0::/\n"));
        assert_eq!(cgroup_limit("0::/../../etc\n"), cgroup_limit("0::/\n"));
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(physical_memory() > 1 << 20);
        let available = available_memory();
        assert!(available > 0 && available < u64::MAX);
    }
}
