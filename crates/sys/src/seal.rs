//! Seals: what tells an address of code that this tree's processes have sent from one that shared memory has come to contain.
//!
//! A function travels through shared memory as its place in the program's file. Whoever calls it checks that the place is code; but any word of shared memory may
//! have been written over by a peer that has gone wrong, and most places in code are no function's beginning. So the place goes with a hash of it under a key
//! that is never in shared memory: the first process of a tree draws it, and each child finds it in its environment. A peer that reads the key out of its own memory can
//! make seals; it is one of the program's own processes.

use std::hash::{BuildHasher, DefaultHasher, Hasher, RandomState};
use std::sync::OnceLock;

/// What the seals of one tree are made with.
pub type Key = [u64; 2];

static KEY: OnceLock<Key> = OnceLock::new();

/// This tree's key, drawn if nobody has yet.
pub fn key() -> Key {
    *KEY.get_or_init(|| [0, 1].map(|part: u64| RandomState::new().hash_one(part)))
}

/// Takes over the key of a parent; to be called before anything is sealed.
pub fn inherit(key: Key) {
    let _ = KEY.set(key);
}

/// The seal of these words.
pub fn of(words: &[u64]) -> u64 {
    let mut hasher = DefaultHasher::new();
    key().into_iter().chain(words.iter().copied()).for_each(|word| hasher.write_u64(word));
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_and_its_place_count() {
        let seals = [of(&[]), of(&[0]), of(&[1]), of(&[0, 1]), of(&[1, 0])];
        assert!((0..seals.len()).all(|i| !seals[..i].contains(&seals[i])));
        assert_eq!(of(&[7, 9]), of(&[7, 9]));
    }
}
