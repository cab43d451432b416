//! A program with a statically linked C object that has a constructor.

#[cfg(late_c)]
unsafe extern "C" {
    safe fn late_ran() -> i32;
    safe fn late_saw_marker() -> i32;
}

#[cfg(late_c)]
fn seen() -> (i32, i32) {
    (late_ran(), late_saw_marker())
}

#[cfg(not(late_c))]
fn seen() -> (i32, i32) {
    (0, 0)
}

fn main() {
    let worker = multiproc::Process::spawn((), seen).unwrap().join().unwrap();
    println!("{} here {:?} worker {worker:?}", if cfg!(late_c) { "with C" } else { "without C" }, seen());
}
