//! A process is killed at each step of leaving its result: the value is there from the commit on, and not before.
#![cfg(feature = "crash-points")]

use multiproc::testing::arm_at;
use multiproc::{Process, ProcessError, Signal};

fn gives(point: String) -> Vec<u8> {
    arm_at(point.leak(), 1);
    vec![7; 100]
}

#[test]
fn a_result_is_there_from_its_commit_on() {
    let _watched = multiproc_tests::watch(100);
    for (point, is_there) in [("result.written", false), ("result.owned", false), ("result.named", true)] {
        match Process::spawn((point.to_owned(),), gives).unwrap().join() {
            Ok(value) => assert!(is_there && value == [7; 100], "{point}"),
            Err(ProcessError::Signaled { signal: Signal::KILL, .. }) => assert!(!is_there, "{point}"),
            Err(e) => panic!("{point}: {e}"),
        }
    }
}
