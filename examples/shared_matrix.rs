//! A matrix that is filled once and read by all workers where it lies, as a view of the crate `ndarray`: no copy for any of them.
//!
//! Python: `numpy.ndarray(shape, buffer=SharedMemory(..).buf)`, with a name to pass on, a `close` in each process and one `unlink`.
//! Run: `cargo run --release --example shared_matrix -- [ROWS]`

use multiproc::{Frozen, Process, SharedVec};
use ndarray::{ArrayView2, ArrayViewMut2};

const COLUMNS: usize = 100;
const WORKERS: usize = 4;

/// The largest sum of any of its rows, and which row that is.
fn largest_row(matrix: Frozen<f64>, worker: usize) -> (usize, f64) {
    let rows = matrix.len() / COLUMNS;
    let view = ArrayView2::from_shape((rows, COLUMNS), &matrix).expect("rows of that length");
    let mine = (worker..rows).step_by(WORKERS);
    mine.map(|row| (row, view.row(row).sum())).fold((0, f64::MIN), |best, next| if next.1 > best.1 { next } else { best })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rows: usize = std::env::args().nth(1).map_or(Ok(10_000), |a| a.parse())?;
    let mut memory = SharedVec::<f64>::zeroed(rows * COLUMNS)?;
    let mut matrix = ArrayViewMut2::from_shape((rows, COLUMNS), &mut memory)?;
    for ((row, column), element) in matrix.indexed_iter_mut() {
        // A hill whose top is in row 7/10.
        let distance = row.abs_diff(rows * 7 / 10) as f64;
        *element = 1000.0 - distance + column as f64 / 1000.0;
    }
    // From here on nobody writes, so everybody may read.
    let matrix = memory.freeze();
    let start = |worker| Process::spawn((matrix.clone(), worker), largest_row);
    let workers = (0..WORKERS).map(start).collect::<Result<Vec<_>, _>>()?;
    let mut best = (0, f64::MIN);
    for worker in workers {
        let found = worker.join()?;
        best = if found.1 > best.1 { found } else { best };
    }
    println!("row {} of {rows} has the largest sum: {:.2}", best.0, best.1);
    Ok(())
}
