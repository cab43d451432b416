//! What these tests share.

use multiproc::{Process, Stdio};
use std::io::{BufRead, BufReader};

pub(crate) fn for_ever() {
    loop {
        std::thread::park();
    }
}

pub(crate) fn ready_for_ever() {
    println!("ready");
    for_ever();
}

/// A process that has begun its function, which never returns.
pub(crate) fn begun() -> Process<()> {
    let mut p = Process::builder().stdout(Stdio::Piped).spawn((), ready_for_ever).unwrap();
    let mut line = String::new();
    BufReader::new(p.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    p
}

pub(crate) fn leave(code: i32) {
    std::process::exit(code);
}
