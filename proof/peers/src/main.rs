//! Other crates, when a process is killed: `multiproc-proof-peers CASE`.
//!
//! Prints "progress" when the rest goes on, and why not when it ends otherwise. What hangs is ended from outside. Further arguments are for the processes that a
//! case starts; names that it needs are made of `PROOF_MARK`.

mod channel;
mod ring;
mod service;

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// Another process of this program.
fn start(args: &[&str]) -> Child {
    let me = std::env::current_exe().expect("this program has a path");
    Command::new(me).args(args).stdout(Stdio::piped()).stdin(Stdio::piped()).spawn().expect("a process starts")
}

/// SIGKILL, and its end.
fn kill(mut child: Child) {
    child.kill().expect("it is there");
    child.wait().expect("it is this process's child");
}

/// What names are made of.
fn mark() -> String {
    std::env::var("PROOF_MARK").unwrap_or_else(|_| "proof".into())
}

/// Says what came of it, and ends.
fn end(word: &str) -> ! {
    println!("{word}");
    std::process::exit(if word == "progress" { 0 } else { 3 })
}

/// Until it is killed.
fn sleep() -> ! {
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["receiver_killed"] => channel::receiver_killed(),
        ["sender_killed"] => channel::sender_killed(),
        ["child_without_connection"] => channel::child_without_connection(),
        ["exit"] => {}
        ["receive", name] => channel::receive(name),
        ["send", name, bytes] => channel::send(name, bytes.parse().expect("a number")),
        ["reserved"] => ring::reserved(),
        ["reserve", path] => ring::reserve(path),
        ["stale_service"] => service::stale(),
        ["crowd"] => service::crowd(),
        ["offer"] => service::offer(),
        ["join"] => service::join(),
        _ => end("no such case"),
    }
}
