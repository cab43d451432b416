//! `TestSimpleQueue`: a queue in its two ends, put and get without a time.

use crate::stage::watched;
use multiproc::{Event, GetError, Process, Receiver, Sender, channel};

#[test]
fn empty_exceptions() {
    let _watched = watched();
    let (tx, rx) = channel::<u32>(1).unwrap();
    tx.close().unwrap();
    // Asking works whatever has been closed.
    assert!(tx.is_empty() && rx.is_empty() && tx.is_closed() && rx.is_closed());
    let (tx, rx) = channel::<u32>(1).unwrap();
    rx.close().unwrap();
    assert!(tx.is_empty() && rx.is_empty() && tx.put(1).unwrap_err().is_closed());
}

#[test]
fn empty() {
    let _watched = watched();
    let (tx, rx) = channel::<bool>(4).unwrap();
    let (ask, asked) = (Event::new().unwrap(), Event::new().unwrap());
    let p = Process::spawn((tx.clone(), ask.clone(), asked.clone()), |tx: Sender<bool>, ask: Event, asked: Event| {
        ask.wait().unwrap();
        tx.put(tx.is_empty()).unwrap();
        tx.put(tx.is_empty()).unwrap();
        asked.set().unwrap();
    });
    assert!(rx.is_empty());
    ask.set().unwrap();
    asked.wait().unwrap();
    assert!(!rx.is_empty());
    assert!(rx.get().unwrap());
    assert!(!rx.is_empty());
    assert!(!rx.get().unwrap());
    assert!(rx.is_empty());
    p.unwrap().join().unwrap();
}

#[test]
fn close() {
    let _watched = watched();
    let (tx, rx) = channel::<u32>(1).unwrap();
    assert!(!tx.is_closed());
    tx.close().unwrap();
    tx.close().unwrap();
    rx.close().unwrap();
    assert!(tx.is_closed() && rx.is_closed());
}

#[test]
fn closed() {
    let _watched = watched();
    // Each end sees that the other is gone, in whichever process it was.
    let (tx, rx) = channel::<u32>(2).unwrap();
    Process::spawn((rx,), |rx: Receiver<u32>| drop(rx)).unwrap().join().unwrap();
    let e = tx.put(1).unwrap_err();
    assert!(e.is_disconnected() && !e.is_closed(), "{e}");
    let (tx, rx) = channel::<u32>(2).unwrap();
    Process::spawn((tx,), |tx: Sender<u32>| tx.put(3).unwrap()).unwrap().join().unwrap();
    assert_eq!(rx.get().unwrap(), 3);
    assert!(matches!(rx.get(), Err(GetError::Disconnected)));
    assert!(rx.iter().next().is_none());
}
