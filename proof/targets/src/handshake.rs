//! What a child is told at its start: the environment variable, and the block with its job. Arbitrary bytes in either are refused, or are what they say.

use crate::input::Input;
use multiproc_process::testing;
use multiproc_shm::{Arena, Options};
use std::sync::OnceLock;

fn arena() -> &'static Arena {
    static ARENA: OnceLock<&Arena> = OnceLock::new();
    ARENA.get_or_init(|| {
        let kinds = [multiproc_sync::KINDS, multiproc_channel::KINDS].concat().leak();
        Arena::create(&Options { size: 16 << 20, limit: Some(12 << 20), build: 1, kinds }).expect("an arena of its own")
    })
}

/// A function that a job may name.
fn plain() {}

/// The target.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 4 {
        0 => {
            let text = String::from_utf8_lossy(input.rest());
            let _ = testing::marker_round(&text);
        }
        1 => {
            // A true one with some bytes changed.
            let mut text = testing::true_marker().into_bytes();
            while !input.is_empty() {
                let at = input.below(text.len() as u64) as usize;
                text[at] = input.byte();
            }
            let _ = testing::marker_round(&String::from_utf8_lossy(&text));
        }
        2 => assert!(!testing::job_is_accepted(arena(), input.rest()), "bytes without a seal are no job"),
        _ => {
            let mut job = testing::true_job(arena(), plain);
            assert!(testing::job_is_accepted(arena(), &job), "a true job is one");
            let before = testing::addresses_of(arena(), &job);
            while !input.is_empty() {
                let at = input.below(job.len() as u64) as usize;
                job[at] ^= input.byte();
            }
            // What else it says may change; where it jumps to may not.
            if testing::job_is_accepted(arena(), &job) {
                assert_eq!(testing::addresses_of(arena(), &job), before, "a job jumps to where nobody has sent it");
            }
        }
    }
}
