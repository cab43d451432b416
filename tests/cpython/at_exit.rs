//! `_TestFinalize` and `_TestAtExit`: what runs at the end of a worker.

use crate::stage::watched;
use multiproc::{PipeSender, Process, Sender, channel, one_way};
use std::sync::OnceLock;

struct Says(&'static str, Sender<String>);

impl Drop for Says {
    fn drop(&mut self) {
        self.1.put(self.0.to_owned()).unwrap();
    }
}

/// Destructors in the order of Rust, whether the function returns or panics.
#[test]
fn finalize() {
    let _watched = watched();
    for panics in [false, true] {
        let (tx, rx) = channel::<String>(16).unwrap();
        let p = Process::spawn((tx, panics), |tx: Sender<String>, panics: bool| {
            let _a = Says("a", tx.clone());
            let _b = Says("b", tx.clone());
            drop(Says("at once", tx.clone()));
            std::mem::forget(Says("never", tx.clone()));
            assert!(!panics, "by order");
        });
        assert_eq!(p.unwrap().join().is_err(), panics);
        // The one that was forgotten is a sender still, until its process is gone.
        assert_eq!(rx.iter().map(Result::unwrap).collect::<Vec<_>>(), ["at once", "b", "a"]);
    }
}

static LAST: OnceLock<PipeSender<u32>> = OnceLock::new();

/// libc's exit handlers run in a worker.
#[test]
fn at_exit() {
    let _watched = watched();
    extern "C" fn say() {
        LAST.get().unwrap().send(123).unwrap();
    }
    let (tx, rx) = one_way::<u32>().unwrap();
    let p = Process::spawn((tx,), |tx: PipeSender<u32>| {
        assert!(LAST.set(tx).is_ok());
        // SAFETY: the function lives as long as the program.
        unsafe { libc::atexit(say) };
    });
    assert_eq!(rx.recv().unwrap(), 123);
    p.unwrap().join().unwrap();
}
