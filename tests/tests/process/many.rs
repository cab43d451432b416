//! Many of them.

use crate::helpers::*;
use multiproc::{Process, Stdio};
use multiproc_tests::{eventually, watch};
use std::io::Read;

#[test]
fn a_hundred_at_once() {
    let _watched = watch(120);
    let all: Vec<_> = (0..100u64).map(|i| Process::builder().stdin(Stdio::Null).spawn((i,), |i: u64| i * i).unwrap()).collect();
    for (i, p) in all.into_iter().enumerate() {
        assert_eq!(p.join().unwrap(), (i * i) as u64);
    }
}

#[test]
fn a_hundred_alive() {
    let _watched = watch(120);
    let mut all: Vec<_> = (0..100).map(|_| Process::spawn((), for_ever).unwrap()).collect();
    assert!(multiproc::active_children().len() >= 100);
    all.iter().for_each(|p| p.kill().unwrap());
    for p in &mut all {
        p.wait();
        assert!(p.try_join().is_err());
    }
}

#[test]
fn threads_start_processes_at_the_same_time() {
    let _watched = watch(120);
    std::thread::scope(|s| {
        for t in 0..8u64 {
            s.spawn(move || {
                for i in 0..10 {
                    let p = Process::spawn((t, i), |t: u64, i: u64| t * 100 + i).unwrap();
                    assert_eq!(p.join().unwrap(), t * 100 + i);
                }
            });
        }
    });
}

#[test]
fn one_process_is_waited_for_by_many_threads() {
    let _watched = watch(60);
    let p = begun();
    std::thread::scope(|s| {
        let waiters: Vec<_> = (0..4).map(|_| s.spawn(|| p.wait())).collect();
        p.terminate().unwrap();
        for w in waiters {
            assert_eq!(std::os::unix::process::ExitStatusExt::signal(&w.join().unwrap().unwrap()), Some(15));
        }
    });
}

#[test]
fn children_of_children() {
    let _watched = watch(120);
    fn sum(depth: u32, width: u32) -> u32 {
        if depth == 0 {
            return 1;
        }
        let all: Vec<_> = (0..width).map(|_| Process::spawn((depth - 1, width), sum).unwrap()).collect();
        1 + all.into_iter().map(|p| p.join().unwrap()).sum::<u32>()
    }
    assert_eq!(sum(3, 3), 1 + 3 + 9 + 27);
}

#[test]
fn a_dropped_handle_leaves_the_process_alone() {
    let _watched = watch(60);
    let (mut reader, writer) = std::io::pipe().unwrap();
    let (gate, opener) = std::io::pipe().unwrap();
    drop(Process::builder().stdin(gate).stdout(writer).spawn((), || {
        std::io::stdin().read_to_string(&mut String::new()).unwrap();
        print!("went on");
    }));
    drop(opener);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "went on");
    eventually(|| multiproc::active_children().iter().all(|c| c.is_alive()));
}

#[test]
fn joining_closes_the_pipe_to_a_child_that_reads_to_the_end() {
    let _watched = watch(60);
    let mut child = Process::builder()
        .stdin(Stdio::Piped)
        .spawn((), || std::io::read_to_string(std::io::stdin()).expect("text").len())
        .unwrap();
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"hello").unwrap();
    assert_eq!(child.join().unwrap(), 5);
}

#[test]
fn a_start_that_fails_leaves_channels_as_they_were() {
    let _watched = watch(60);
    let (tx, rx) = multiproc::channel::<u32>(4).unwrap();
    let carrier = multiproc::Queue::<multiproc::Sender<u32>>::bounded(4).unwrap();
    assert!(Process::builder().env("BAD=KEY", "x").spawn((tx.clone(),), |tx| tx.put(1).unwrap()).is_err());
    carrier.put(tx).unwrap();
    assert!(rx.try_get().unwrap_err().is_empty(), "the only sender is on its way");
    drop(carrier.get().unwrap());
    assert!(rx.try_get().unwrap_err().is_end());
}
