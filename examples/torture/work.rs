//! What is computed: blocks of numbers, their digests, and one checksum of all digests.

use sha2::{Digest as _, Sha256};
use std::fmt::Write;

/// The SHA-256 of a block.
pub(crate) type Digest = [u8; 32];

/// Generates a block of so many KiB and hashes it.
pub(crate) fn digest(block: u64, kib: u32) -> Digest {
    let (mut hash, mut state) = (Sha256::new(), block.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut chunk = [0; 1024];
    for _ in 0..kib {
        for word in chunk.as_chunks_mut::<8>().0 {
            // Marsaglia's xorshift.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *word = state.to_le_bytes();
        }
        hash.update(chunk);
    }
    hash.finalize().into()
}

/// Of all digests, in the order of their blocks.
pub(crate) fn checksum<'a>(digests: impl IntoIterator<Item = &'a Digest>) -> String {
    let mut hash = Sha256::new();
    for digest in digests {
        hash.update(digest);
    }
    hash.finalize().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
