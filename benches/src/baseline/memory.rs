//! What moving the bytes of a large message costs at the least: into shared memory and out of it.

use crate::row::Measured;
use std::{hint::black_box, time::Instant};

/// Bytes of the message.
pub const LEN: usize = 64 << 10;

/// Microseconds for two copies, the second from where the first went.
pub fn two_copies(times: u64) -> Measured {
    let (from, mut shared, mut to) = (vec![1_u8; LEN], vec![2_u8; LEN], vec![3_u8; LEN]);
    let start = Instant::now();
    for _ in 0..times {
        black_box(&mut shared).copy_from_slice(black_box(&from));
        black_box(&mut to).copy_from_slice(black_box(&shared));
    }
    black_box(&to);
    Ok(start.elapsed().as_secs_f64() * 1e6 / times as f64)
}
