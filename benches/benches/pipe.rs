//! Messages of 64 bytes through a pipe between two processes, one way and there and back.

#[path = "ours/pipe.rs"]
mod ours;

use multiproc_benches::{
    baseline::{self, bare_spsc, ipc, python, socket},
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

    let one_way = Row::new(
        "pipe_one_way_64b",
        "serde, sleeping and crash safety together cost less than passing the bytes does one and a half times over, \
         and a system call for each message costs twenty times as much.",
        Unit::PerSecond,
    )
    .subject(row::OURS, || ours::rate(windows))
    .subject("bare_spsc", || bare_spsc::rate(windows))
    .subject("ipc_channel", || ipc::rate(windows))
    .subject("unix_socket", || socket::rate(windows))
    .subject("python_pipe", || python::pipe_rate(windows))
    .bar(Bar::AtLeast(0.4, "bare_spsc"))
    .bar(Bar::AtLeast(20.0, "ipc_channel"));

    let round_trip = Row::new(
        "pipe_round_trip",
        "a message is one cache line that goes over, as a bare word is; all else is less than that.",
        Unit::Nanos,
    )
    .subject(row::OURS, || ours::round_trip(effort))
    .subject("bare_words", || bare_spsc::round_trip(effort))
    .subject("unix_socket", || socket::round_trip(effort))
    .subject("python_pipe", || python::pipe_round_trip(effort))
    .bar(Bar::AtMost(2.5, "bare_words"));

    let rounds = effort.rounds(9);
    exit(&[one_way.run(rounds), round_trip.run(rounds)])
}
