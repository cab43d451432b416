//! The marker: the one environment variable by which a child learns that it is one, and of whom.
//!
//! It names protocol, crate version and the place of this crate's own anchor, so that two versions of the crate in one binary
//! leave each other's children alone. Nothing in it is trusted: descriptors are checked for what they are, addresses against the image.

use multiproc_shm::arena::{PROTOCOL, SlotId};
use multiproc_sys::image;
use multiproc_sys::seal::Key;
use std::ffi::CString;
use std::os::fd::RawFd;

pub(crate) const VARIABLE: &str = "MULTIPROC_WORKER";

static ANCHOR: u64 = PROTOCOL;

/// What a child is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    /// The arena's descriptor.
    pub(crate) arena: RawFd,
    /// A pidfd of the parent.
    pub(crate) parent: RawFd,
    /// The child's end of the tie.
    pub(crate) tie: RawFd,
    /// The child's slot.
    pub(crate) slot: SlotId,
    /// The key of the tree's seals.
    pub(crate) key: Key,
    /// Run from `init()` in `main` instead of before it.
    pub(crate) in_main: bool,
}

/// What stands in the variable.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Not for this copy of the crate, or no marker at all.
    NotOurs,
    /// For us, from the same build.
    Ours(Marker),
    /// For us, but from a program that was built differently.
    OtherBuild(Marker),
}

/// Offset of this copy's anchor in the image: differs between two copies of the crate in one program.
fn anchor() -> usize {
    (&raw const ANCHOR as usize).wrapping_sub(image::main_program().base())
}

/// Whether this copy of the crate is part of the main program, not of a library loaded by it.
pub(crate) fn in_main_program() -> bool {
    image::main_program().contains(&raw const ANCHOR as usize)
}

fn build() -> u64 {
    image::main_program().fingerprint()
}

impl Marker {
    pub(crate) fn to_env(self) -> CString {
        let Marker { arena, parent, tie, slot: SlotId { index, generation }, key: [key, rest], in_main } = self;
        let (version, anchor, build, in_main) = (env!("CARGO_PKG_VERSION"), anchor(), build(), u8::from(in_main));
        let text = format!(
            "{VARIABLE}={PROTOCOL}:{version}:{anchor:x}:{build:x}:{arena}:{parent}:{tie}:{index}:{generation}:{key:x}:{rest:x}:{in_main}"
        );
        CString::new(text).expect("no NUL in numbers")
    }

    pub(crate) fn parse(value: &str) -> Found {
        fn read(value: &str) -> Option<(bool, Marker)> {
            let mut parts = value.split(':');
            let mut next = || parts.next();
            let ours = next()?.parse() == Ok(PROTOCOL)
                && next()? == env!("CARGO_PKG_VERSION")
                && usize::from_str_radix(next()?, 16) == Ok(anchor());
            if !ours {
                return None;
            }
            let same_build = u64::from_str_radix(next()?, 16) == Ok(build());
            let marker = Marker {
                arena: next()?.parse().ok()?,
                parent: next()?.parse().ok()?,
                tie: next()?.parse().ok()?,
                slot: SlotId { index: next()?.parse().ok()?, generation: next()?.parse().ok()? },
                key: [u64::from_str_radix(next()?, 16).ok()?, u64::from_str_radix(next()?, 16).ok()?],
                in_main: next()? == "1",
            };
            next().is_none().then_some((same_build, marker))
        }
        match read(value) {
            None => Found::NotOurs,
            Some((true, marker)) => Found::Ours(marker),
            Some((false, marker)) => Found::OtherBuild(marker),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_come_back_and_strangers_are_left_alone() {
        let marker = Marker {
            arena: 10,
            parent: 11,
            tie: 12,
            slot: SlotId { index: 3, generation: 7 },
            key: [5, u64::MAX],
            in_main: true,
        };
        let env = marker.to_env().into_string().unwrap();
        let value = env.strip_prefix("MULTIPROC_WORKER=").unwrap();
        assert_eq!(Marker::parse(value), Found::Ours(marker));
        for other in ["", "1", "nonsense", &value.replacen('1', "2", 1), &format!("{value}:0"), &value.replace(":10:", ":x:")] {
            assert_eq!(Marker::parse(other), Found::NotOurs, "{other}");
        }
    }
}
