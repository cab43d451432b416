//! Where the kernels that multiproc runs on differ, and the one way to make a new kernel act as an old one.
//!
//! Each feature is asked for where it is used, and has another way beside it. The environment variable `MULTIPROC_FORCE_OLD_KERNEL` lists
//! features, separated by commas, that the process and its workers then do without; `all` is all of them. It is for tests, and can do no harm:
//! every combination is one that some kernel has.
//!
//! | name | since Linux | what it gives | without it |
//! |---|---|---|---|
//! | `futex-waitv` | 5.16 | one sleeper on several words (a filter of system calls may refuse it, too) | it watches one and looks at the others each 10 ms |
//! | `noexec-seal` | 6.3 | MFD_NOEXEC_SEAL: the arena's file can never be executed | the file is made without |
//! | `exit-info` | 6.15 | PIDFD_GET_INFO: the exit status of a child that somebody else has reaped | the child's own record, else unknown |
//! | `membarrier` | 4.16 | who sends leaves its fence to who sleeps (a filter of system calls may refuse it) | a fence for each message; who is refused it when about to sleep looks again each 10 ms |
//! | `death-wakes` | 6.1 | a dying thread wakes who sleeps on its pending word, whatever the word's top bits | waits look again each 10 ms |

use std::sync::OnceLock;

/// What a kernel may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Feature {
    /// MFD_NOEXEC_SEAL of memfd_create(2).
    NoexecSeal = 1,
    /// PIDFD_GET_INFO with the exit status.
    ExitInfo = 2,
    /// See [`crate::robust::wakes_for_the_dead`].
    DeathWakes = 4,
    /// futex_waitv(2).
    FutexWaitv = 8,
    /// membarrier(2).
    Membarrier = 16,
}

const NAMES: [(&str, Feature); 5] = [
    ("futex-waitv", Feature::FutexWaitv),
    ("noexec-seal", Feature::NoexecSeal),
    ("exit-info", Feature::ExitInfo),
    ("death-wakes", Feature::DeathWakes),
    ("membarrier", Feature::Membarrier),
];

/// Whether the process is to do without `feature`, though the kernel may have it. The variable is read once.
pub fn is_denied(feature: Feature) -> bool {
    if cfg!(miri) {
        return true;
    }
    static DENIED: OnceLock<u32> = OnceLock::new();
    let denied = DENIED.get_or_init(|| std::env::var("MULTIPROC_FORCE_OLD_KERNEL").map_or(0, |list| denied_by(&list)));
    denied & feature as u32 != 0
}

fn denied_by(list: &str) -> u32 {
    let named =
        |word: &str| NAMES.iter().filter(move |(name, _)| word == "all" || word == *name).map(|(_, f)| *f as u32).sum::<u32>();
    list.split(',').map(|word| named(word.trim())).fold(0, |all, bits| all | bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_name_features() {
        assert_eq!(denied_by(""), 0);
        assert_eq!(denied_by("no such thing"), 0);
        assert_eq!(denied_by("exit-info"), 2);
        assert_eq!(denied_by("exit-info, death-wakes,exit-info"), 6);
        assert_eq!(denied_by("all"), 31);
    }
}
