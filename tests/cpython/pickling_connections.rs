//! `_TestPicklingConnections`: ends of pipes as messages.

use crate::stage::watched;
use multiproc::{Connection, PipeReceiver, PipeSender, Process, Queue, one_way, pipe};

#[test]
fn pickling() {
    let _watched = watched();
    // An end goes through a pipe to a process, which talks through it to a third.
    let (lent, lends) = pipe::<Connection<u32, u32>, u32>().unwrap();
    let (near, far) = pipe::<u32, u32>().unwrap();
    let p = Process::spawn((lends,), |lends: Connection<u32, Connection<u32, u32>>| {
        let talk = lends.recv().unwrap();
        talk.send(talk.recv().unwrap() + 1).unwrap();
    });
    lent.send(far).unwrap();
    let q = Process::spawn((near,), |near: Connection<u32, u32>| {
        near.send(41).unwrap();
        near.recv().unwrap()
    });
    assert_eq!(q.unwrap().join().unwrap(), 42);
    p.unwrap().join().unwrap();
}

type Ends = (Option<PipeSender<u32>>, Option<PipeReceiver<u32>>);

/// An end keeps its direction wherever it goes, and is no end of another kind.
#[test]
fn access() {
    let _watched = watched();
    let carrier = Queue::<Ends>::bounded(2).unwrap();
    let (tx, rx) = one_way::<u32>().unwrap();
    let (back, got) = one_way::<u32>().unwrap();
    carrier.put((Some(back), Some(rx))).unwrap();
    let p = Process::spawn((carrier.clone(),), |carrier: Queue<Ends>| {
        let (Some(back), Some(rx)) = carrier.get().unwrap() else { panic!("both were sent") };
        back.send(rx.recv().unwrap() * 2).unwrap();
    });
    tx.send(21).unwrap();
    assert_eq!(got.recv().unwrap(), 42);
    p.unwrap().join().unwrap();
    assert!(got.recv().unwrap_err().is_end());
}
