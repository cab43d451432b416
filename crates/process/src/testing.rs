//! What this project's own tests try of a child's start without starting one. No part of the API.

use crate::job;
use crate::marker::{Found, Marker};
use multiproc_shm::Arena;
use multiproc_shm::arena::SlotId;
use multiproc_sys::seal;

/// Reads a marker; what is one is written and read again.
pub fn marker_round(text: &str) -> bool {
    let (Found::Ours(marker) | Found::OtherBuild(marker)) = Marker::parse(text) else { return false };
    let again = marker.to_env().into_string().unwrap_or_default();
    let value = again.split_once('=').map(|(_, value)| value.to_owned()).unwrap_or_default();
    assert_eq!(Marker::parse(&value), Found::Ours(marker), "a marker comes back");
    true
}

/// A marker as a parent writes it.
pub fn true_marker() -> String {
    let slot = SlotId { index: 3, generation: 7 };
    let marker = Marker { arena: 10, parent: 11, tie: 12, slot, key: seal::key(), in_main: false };
    let text = marker.to_env().into_string().unwrap_or_default();
    text.split_once('=').map(|(_, value)| value.to_owned()).unwrap_or_default()
}

/// A job as a parent writes it.
pub fn true_job(arena: &'static Arena, f: fn()) -> Vec<u8> {
    job::of_function::<(), ()>(arena, "a job", &(), f).map(|prepared| prepared.payload).unwrap_or_default()
}

/// Whether a child would begin these bytes.
pub fn job_is_accepted(arena: &'static Arena, payload: &[u8]) -> bool {
    job::receive(arena, payload).is_some()
}

/// Where the job would jump to.
pub fn addresses_of(arena: &'static Arena, payload: &[u8]) -> Option<(usize, usize, Vec<usize>)> {
    job::receive(arena, payload).map(|received| received.job.addresses())
}
