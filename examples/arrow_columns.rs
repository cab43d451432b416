//! Columns of Apache Arrow that a worker makes and the coordinator reads: the buffers are the frozen memory itself.
//!
//! Python: `pyarrow.py_buffer(shm.buf)` over a `SharedMemory`, which must not be closed as long as any buffer over it lives.
//! Run: `cargo run --example arrow_columns -- [COUNT]`

use arrow_buffer::{Buffer, ScalarBuffer};
use bytes::Bytes;
use multiproc::bytemuck::{self, Pod};
use multiproc::{Frozen, Process, SharedVec};
use serde::{Deserialize, Serialize};

/// What travels: two words for each column.
#[derive(Serialize, Deserialize)]
struct Columns {
    celsius: Frozen<f64>,
    station: Frozen<i32>,
}

/// Keeps the memory as long as a buffer over it lives.
struct Owner<T: Pod>(Frozen<T>);

impl<T: Pod> AsRef<[u8]> for Owner<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

fn buffer<T: Pod + Send + Sync>(column: Frozen<T>) -> Buffer {
    Bytes::from_owner(Owner(column)).into()
}

fn measure(count: usize) -> Result<Columns, String> {
    let celsius = SharedVec::from_fn(count, |n| 15.0 + (n % 20) as f64 / 2.0).map_err(|e| e.to_string())?;
    let station = SharedVec::from_fn(count, |n| n as i32 % 7).map_err(|e| e.to_string())?;
    Ok(Columns { celsius: celsius.freeze(), station: station.freeze() })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count: usize = std::env::args().nth(1).map_or(Ok(70_000), |a| a.parse())?;
    let columns = Process::spawn((count,), measure)?.join()??;
    let (first, aligned) = (columns.celsius.as_ptr(), columns.celsius.as_ptr().align_offset(64) == 0);

    let celsius: ScalarBuffer<f64> = buffer(columns.celsius).into();
    let station: ScalarBuffer<i32> = buffer(columns.station).into();
    println!("the buffer is the worker's memory: {}, aligned: {aligned}", celsius.as_ptr() == first);
    let at_three: Vec<f64> = celsius.iter().zip(station.iter()).filter(|(_, s)| **s == 3).map(|(c, _)| *c).collect();
    let mean = at_three.iter().fold(0.0, |sum, c| sum + c) / at_three.len().max(1) as f64;
    println!("{} measurements at station 3, on average {mean:.2} degrees", at_three.len());
    Ok(())
}
