//! Messages of 64 bytes per second through a queue between processes, calls that block; and microseconds for one of 64 KiB.

#[path = "ours/queue.rs"]
mod ours;

use multiproc_benches::{
    baseline::{self, bare_ring, crossbeam, ipc, memory, python, socket},
    effort::Effort,
    row::{self, Bar, Row, Unit, exit},
    windows::Windows,
};
use std::process::ExitCode;

fn main() -> ExitCode {
    if baseline::ran_as_worker() {
        return ExitCode::SUCCESS;
    }
    let effort = Effort::from_env();
    let windows = &Windows::new(effort);

    let spsc = Row::new(
        "queue_spsc_64b",
        "serde and crash safety cost less than a third of what two locks and a ring can do, \
         and system calls per message cost more than ten times that.",
        Unit::PerSecond,
    )
    .subject(row::OURS, || ours::rate(windows, 1, 1))
    .subject("bare_ring", || bare_ring::rate(windows, 1, 1))
    .subject("ipc_channel", || ipc::rate(windows))
    .subject("crossbeam_threads", || crossbeam::rate(windows, 1, 1))
    .subject("unix_socket", || socket::rate(windows))
    .subject("python_mp_queue", || python::queue_rate(windows))
    .bar(Bar::AtLeast(12.0, "ipc_channel"))
    .bar(Bar::AtLeast(50.0, "python_mp_queue"))
    .bar(Bar::AtLeast(0.7, "bare_ring"));

    let mpmc = Row::new(
        "queue_2p2c_64b",
        "with two producers and two consumers the robust locks hand over at least half as well \
         as plain ones.",
        Unit::PerSecond,
    )
    .subject(row::OURS, || ours::rate(windows, 2, 2))
    .subject("bare_ring", || bare_ring::rate(windows, 2, 2))
    .subject("crossbeam_threads", || crossbeam::rate(windows, 2, 2))
    .bar(Bar::AtLeast(0.5, "bare_ring"));

    let large = Row::new(
        "queue_64k_bytes",
        "a message of 64 KiB is copied twice, from the value to its block and from there to the \
         value, and what comes with it costs no more than the copies.",
        Unit::Micros,
    )
    .subject(row::OURS, || ours::micros_there_and_back(effort.count(100_000), memory::LEN))
    .subject("two_memcpy", || memory::two_copies(effort.count(100_000)))
    .subject("between_processes", || ours::micros_between_processes(windows, memory::LEN))
    .bar(Bar::AtMost(4.0, "two_memcpy"));

    let unbounded = Row::new(
        "queue_spsc_64b_unbounded",
        "segments that come and go, and counting bytes, cost a tenth of a message at most.",
        Unit::PerSecond,
    )
    .subject(row::OURS, || ours::unbounded_rate(windows, 16 << 20))
    .subject("bounded", || ours::rate(windows, 1, 1))
    .bar(Bar::AtLeast(0.9, "bounded"));

    let rounds = effort.rounds(5);
    exit(&[spsc.run(rounds), mpmc.run(rounds), large.run(rounds), unbounded.run(rounds)])
}
