//! `_TestConnection`: pipes.

use crate::stage::{SHORT, soon, waits, watched};
use multiproc::{Connection, Event, PipeBuilder, PipeReceiver, PipeSender, Process, RecvError, one_way, pipe};
use std::time::Duration;

/// Gives back what comes, as it comes: a value for a value, and bytes for bytes after the value 0.
fn echo(there: Connection<u64, u64>) {
    while let Ok(n) = there.recv() {
        if n == 0 {
            there.send_bytes(&there.recv_bytes().unwrap()).unwrap();
        } else {
            there.send(n).unwrap();
        }
    }
}

#[test]
fn connection() {
    let _watched = watched();
    let (here, there) = pipe::<u64, u64>().unwrap();
    let p = Process::spawn((there,), echo).unwrap();
    here.send(1).unwrap();
    assert_eq!(here.recv().unwrap(), 1);
    assert_eq!(here.peer_pid(), Some(p.pid()));
    here.send_timeout(2, SHORT).unwrap();
    assert_eq!(here.recv_timeout(Duration::from_secs(60)).unwrap(), 2);
    here.send_deadline(3, soon()).unwrap();
    assert_eq!(here.recv_deadline(std::time::Instant::now() + Duration::from_secs(60)).unwrap(), 3);
    here.try_send(4).unwrap();
    assert_eq!(here.iter().next().unwrap().unwrap(), 4);
    here.send_ref(&5).unwrap();
    assert!(here.poll(Duration::from_secs(60)).unwrap());
    assert_eq!(here.try_recv().unwrap(), 5);

    for len in [0, 5, 5000, 16 << 20] {
        let bytes: Vec<u8> = (0..len).map(|i| i as u8).collect();
        here.send(0).unwrap();
        here.send_bytes(&bytes).unwrap();
        assert_eq!(here.recv_bytes().unwrap(), bytes);
    }

    // Nothing is there.
    assert!(!here.poll(Duration::ZERO).unwrap());
    assert!(!waits(|| here.poll(SHORT)).unwrap());
    let e = here.try_recv().unwrap_err();
    assert!(matches!(e, RecvError::WouldBlock) && e.is_would_block() && !e.is_end() && !e.is_timeout(), "{e}");
    let e = waits(|| here.recv_timeout(SHORT)).unwrap_err();
    assert!(matches!(e, RecvError::TimedOut) && e.is_timeout(), "{e}");
    assert!(waits(|| here.recv_deadline(soon())).unwrap_err().is_timeout());
    assert!(here.try_recv_bytes().unwrap_err().is_would_block());
    assert!(waits(|| here.recv_bytes_timeout(SHORT)).unwrap_err().is_timeout());

    // The end.
    here.close().unwrap();
    assert!(matches!(here.recv(), Err(RecvError::Closed)));
    assert!(here.send(1).unwrap_err().is_closed());
    p.join().unwrap();
}

#[test]
fn duplex_false() {
    let _watched = watched();
    let (tx, rx) = one_way::<String>().unwrap();
    let p = Process::spawn((tx,), |tx: PipeSender<String>| {
        tx.send("one way".into()).unwrap();
        tx.send_ref("and no other").unwrap();
    });
    // To send by the one or to receive by the other does not compile.
    assert_eq!(rx.recv().unwrap(), "one way");
    assert_eq!(rx.recv().unwrap(), "and no other");
    let e = rx.recv().unwrap_err();
    assert!(matches!(e, RecvError::Eof) && e.is_end() && e.peer_died().is_none(), "{e}");
    p.unwrap().join().unwrap();
    let (tx, rx) = one_way::<String>().unwrap();
    drop(rx);
    let e = tx.send("to nobody".into()).unwrap_err();
    assert!(e.is_broken_pipe() && e.peer_died().is_none(), "{e}");
    assert_eq!(e.into_inner(), "to nobody");
    assert!(tx.send_bytes(b"x").unwrap_err().is_broken_pipe());
}

#[test]
fn spawn_close() {
    let _watched = watched();
    let (here, there) = pipe::<String, String>().unwrap();
    let p = Process::spawn((there.clone(),), |there: Connection<String, String>| {
        there.send(there.recv().unwrap() + " back").unwrap();
    });
    // At once, before the child has begun.
    drop(there);
    here.send("there and".into()).unwrap();
    assert_eq!(here.recv().unwrap(), "there and back");
    assert!(here.recv().unwrap_err().is_end());
    p.unwrap().join().unwrap();
}

#[test]
fn send_bytes() {
    let _watched = watched();
    let (tx, rx) = one_way::<u32>().unwrap();
    let latin = b"abcdefghijklmnopqrstuvwxyz";
    tx.send_bytes(latin).unwrap();
    assert_eq!(rx.recv_bytes().unwrap(), latin);
    tx.send_bytes(&latin[5..]).unwrap();
    assert_eq!(rx.try_recv_bytes().unwrap(), &latin[5..]);
    tx.try_send_bytes(&latin[7..7 + 8]).unwrap();
    assert_eq!(rx.recv_bytes_timeout(SHORT).unwrap(), b"hijklmno");
    tx.send_bytes_timeout(&latin[26..], SHORT).unwrap();
    assert_eq!(rx.recv_bytes().unwrap(), b"");
    // A slice that is out of range is Rust's own panic. Bytes are no value, and a value is no bytes.
    tx.send_bytes(latin).unwrap();
    tx.send(5).unwrap();
    tx.send(6).unwrap();
    assert!(matches!(rx.recv(), Err(RecvError::Decode(_))));
    assert!(matches!(rx.recv_bytes(), Err(RecvError::Decode(_))));
    assert_eq!(rx.recv().unwrap(), 6);

    // A pipe that is full, and a message that is too large.
    let (tx, rx) = PipeBuilder::new().ring_bytes(16 << 10).max_message(4000).one_way::<u32>().unwrap();
    let e = tx.send_bytes(&[0; 4001]).unwrap_err();
    assert!(e.is_too_large() && !e.is_closed(), "{e}");
    while tx.try_send_bytes(&[1; 1000]).is_ok() {}
    assert!(tx.try_send(1).is_err() || tx.try_send_bytes(&[1; 1000]).unwrap_err().is_would_block());
    let e = waits(|| tx.send_bytes_timeout(&[1; 1000], SHORT)).unwrap_err();
    assert!(e.is_timeout() && !e.is_would_block() && !e.is_broken_pipe(), "{e}");
    assert_eq!(rx.recv_bytes().unwrap(), [1; 1000]);
    tx.send_bytes(&[1; 900]).unwrap();
    // Values wait for room as well.
    while tx.try_send(1).is_ok() {}
    assert!(tx.try_send(1).unwrap_err().is_would_block());
    assert!(waits(|| tx.send_timeout(1, SHORT)).unwrap_err().is_timeout());
    assert!(waits(|| tx.send_deadline(1, soon())).unwrap_err().is_timeout());
}

/// What `with` does, a scope does; and a death is told from a close.
#[test]
fn context() {
    let _watched = watched();
    let (here, there) = pipe::<u32, u32>().unwrap();
    {
        let there = there;
        there.send(7).unwrap();
    }
    assert_eq!(here.recv().unwrap(), 7);
    assert!(matches!(here.recv(), Err(RecvError::Eof)));
    assert!(here.poll(Duration::ZERO).unwrap(), "the end is news");
    let e = here.send(1).unwrap_err();
    assert!(e.is_broken_pipe(), "{e}");

    let (tx, rx): (PipeSender<u32>, PipeReceiver<u32>) = one_way().unwrap();
    let ready = Event::new().unwrap();
    let p = Process::spawn((tx.clone(), ready.clone()), |tx: PipeSender<u32>, ready: Event| -> () {
        tx.send(8).unwrap();
        tx.send_bytes(&[8; 100]).unwrap();
        ready.set().unwrap();
        loop {
            std::thread::park();
        }
    });
    let p = p.unwrap();
    ready.wait().unwrap();
    let pid = p.pid();
    p.kill().unwrap();
    assert!(p.join().is_err());
    // Another goes on with its end, behind what it has sent; in between, its death is told.
    tx.send(9).unwrap();
    assert_eq!(rx.recv().unwrap(), 8);
    assert_eq!(rx.recv_bytes().unwrap(), [8; 100]);
    let e = rx.recv().unwrap_err();
    assert!(matches!(e, RecvError::PeerDied { pid: dead, .. } if dead == pid) && e.peer_died() == Some(pid), "{e}");
    assert_eq!(rx.recv().unwrap(), 9);
    drop(tx);
    assert!(matches!(rx.recv(), Err(RecvError::Eof)));
}
