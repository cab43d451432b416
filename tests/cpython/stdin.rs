//! `TestStdinBadfiledescriptor`: a queue inside a worker, whose stdin is the null device.

use crate::stage::watched;
use multiproc::{Process, Queue};
use std::io::Read;

#[test]
fn queue_in_process() {
    let _watched = watched();
    let p = Process::spawn((), || {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).unwrap();
        let queue = Queue::<u32>::bounded(1).unwrap();
        let p = Process::spawn((queue.clone(),), |queue: Queue<u32>| queue.put(5).unwrap()).unwrap();
        let got = queue.get().unwrap();
        p.join().unwrap();
        (text, got)
    });
    assert_eq!(p.unwrap().join().unwrap(), (String::new(), 5));
}

/// What a worker has printed is out when it has ended, without a newline too.
#[test]
fn output_is_flushed() {
    let _watched = watched();
    let mut p = Process::builder().stdout(multiproc::Stdio::Piped).spawn((), || print!("no newline")).unwrap();
    let mut out = p.stdout.take().unwrap();
    p.join().unwrap();
    let mut text = String::new();
    out.read_to_string(&mut text).unwrap();
    assert_eq!(text, "no newline");
}
