//! `_TestPoll`: asking a pipe takes nothing from it.

use crate::stage::watched;
use multiproc::{Event, PipeReceiver, PipeSender, Process, one_way};
use std::time::Duration;

const AT_ONCE: Duration = Duration::ZERO;

#[test]
fn empty_string() {
    let _watched = watched();
    let (tx, rx) = one_way::<u8>().unwrap();
    assert!(!rx.poll(AT_ONCE).unwrap());
    tx.send_bytes(b"").unwrap();
    assert!(rx.poll(AT_ONCE).unwrap());
    assert!(rx.poll(AT_ONCE).unwrap());
    assert_eq!(rx.recv_bytes().unwrap(), b"");
    assert!(!rx.poll(AT_ONCE).unwrap());
}

#[test]
fn strings() {
    let _watched = watched();
    let texts = ["hello", "", "a", "b", "", "bye", "", "lop"];
    let (tx, rx) = one_way::<String>().unwrap();
    let p = Process::spawn((tx, texts.map(str::to_owned).to_vec()), |tx: PipeSender<String>, texts: Vec<String>| {
        texts.into_iter().for_each(|text| tx.send(text).unwrap());
    });
    for text in texts {
        while !rx.poll(Duration::from_millis(5)).unwrap() {}
        assert_eq!(rx.recv().unwrap(), text);
    }
    p.unwrap().join().unwrap();
}

/// An end is used by one process at a time, so whoever asks in another is refused and steals nothing.
#[test]
fn boundaries() {
    let _watched = watched();
    let (tx, rx) = one_way::<Vec<u8>>().unwrap();
    let (polled, go) = (Event::new().unwrap(), Event::new().unwrap());
    let p = Process::spawn((rx.clone(), polled.clone(), go.clone()), |rx: PipeReceiver<Vec<u8>>, polled: Event, go: Event| {
        let seen = rx.poll(Duration::from_secs(60)).unwrap();
        polled.set().unwrap();
        go.wait().unwrap();
        seen
    });
    tx.send(vec![7; 100]).unwrap();
    tx.send(vec![8; 10_000]).unwrap();
    polled.wait().unwrap();
    assert!(rx.poll(AT_ONCE).is_err(), "in use by the other");
    go.set().unwrap();
    assert!(p.unwrap().join().unwrap());
    assert!(rx.poll(AT_ONCE).unwrap());
    assert_eq!(rx.recv().unwrap(), [7; 100]);
    assert_eq!(rx.recv().unwrap(), [8; 10_000]);
}

#[test]
fn messages_are_not_merged() {
    let _watched = watched();
    let (tx, rx) = one_way::<u8>().unwrap();
    assert!(!rx.poll(AT_ONCE).unwrap());
    tx.send_bytes(b"abc").unwrap();
    tx.send_bytes(b"de").unwrap();
    assert!(rx.poll(AT_ONCE).unwrap());
    assert_eq!(rx.recv_bytes().unwrap(), b"abc");
    assert!(rx.poll(AT_ONCE).unwrap());
    assert_eq!(rx.recv_bytes().unwrap(), b"de");
    assert!(!rx.poll(AT_ONCE).unwrap());
}
