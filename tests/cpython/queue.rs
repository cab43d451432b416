//! `_TestQueue`: bounded queues between processes.

use crate::stage::{SHORT, soon, waits, watched};
use multiproc::{Event, GetError, JoinError, Plain, PlainVec, Process, Queue, QueueBuilder, Raw, Receiver, Sender, channel};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use std::time::Duration;

/// Six items, and a consumer that takes them when it is told to.
#[test]
fn put() {
    let _watched = watched();
    let queue = Queue::<u64>::bounded(6).unwrap();
    let (start, taken) = (Event::new().unwrap(), Event::new().unwrap());
    let args = (queue.receiver().unwrap(), start.clone(), taken.clone());
    let p = Process::spawn(args, |queue: Receiver<u64>, start: Event, taken: Event| {
        start.wait().unwrap();
        let got: Vec<u64> = (0..6).map(|_| queue.get().unwrap()).collect();
        taken.set().unwrap();
        got
    });
    assert!(queue.is_empty() && !queue.is_full());
    queue.put(1).unwrap();
    queue.put_timeout(2, SHORT).unwrap();
    queue.put_deadline(3, soon()).unwrap();
    queue.try_put(4).unwrap();
    queue.put_ref(&5).unwrap();
    assert_eq!(queue.put_many([6]).unwrap(), 1);
    assert!(!queue.is_empty() && queue.is_full());

    let e = queue.try_put(7).unwrap_err();
    assert!(e.is_full() && !e.is_timeout() && !e.is_closed(), "{e}");
    assert_eq!(e.into_inner(), 7);
    let e = waits(|| queue.put_timeout(8, SHORT)).unwrap_err();
    assert!(e.is_timeout() && !e.is_full() && !e.is_would_block(), "{e}");
    assert_eq!(e.into_inner(), 8);
    assert!(waits(|| queue.put_deadline(8, soon())).unwrap_err().is_timeout());
    let e = queue.try_put_many([7, 8]).unwrap_err();
    assert!(e.error().is_full() && e.put() == 0, "{e}");
    assert_eq!(e.into_rest().collect::<Vec<_>>(), [7, 8]);
    assert!(waits(|| queue.put_many_timeout([7, 8], SHORT)).unwrap_err().into_error().is_timeout());

    start.set().unwrap();
    taken.wait().unwrap();
    assert!(queue.is_empty() && !queue.is_full());
    assert_eq!(p.unwrap().join().unwrap(), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn get() {
    let _watched = watched();
    let queue = Queue::<u64>::bounded(10).unwrap();
    let (start, there) = (Event::new().unwrap(), Event::new().unwrap());
    let args = (queue.sender().unwrap(), start.clone(), there.clone());
    let p = Process::spawn(args, |queue: Sender<u64>, start: Event, there: Event| {
        start.wait().unwrap();
        (1..=7).for_each(|n| queue.put(n).unwrap());
        there.set().unwrap();
    });
    assert!(queue.is_empty());
    start.set().unwrap();
    there.wait().unwrap();
    // What has been put is there.
    assert_eq!((queue.len(), queue.is_empty(), queue.is_full()), (7, false, false));
    assert_eq!(queue.get().unwrap(), 1);
    assert_eq!(queue.try_get().unwrap(), 2);
    assert_eq!(queue.get_timeout(SHORT).unwrap(), 3);
    assert_eq!(queue.get_deadline(soon()).unwrap(), 4);
    let got = queue.get_many(2).unwrap();
    assert_eq!(got.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [5, 6]);
    assert_eq!(queue.iter().next().unwrap().unwrap(), 7);

    assert!(queue.is_empty());
    assert!(matches!(queue.try_get(), Err(GetError::Empty)));
    assert!(queue.try_get().unwrap_err().is_empty());
    let e = waits(|| queue.get_timeout(SHORT)).unwrap_err();
    assert!(e.is_timeout() && !e.is_end() && !e.is_empty(), "{e}");
    assert!(waits(|| queue.get_deadline(soon())).unwrap_err().is_timeout());
    assert!(queue.try_get_many(3).unwrap_err().is_empty());
    assert!(waits(|| queue.get_many_timeout(3, SHORT)).unwrap_err().is_timeout());
    assert!(queue.try_lease().unwrap_err().is_empty());
    assert!(waits(|| queue.lease_timeout(SHORT)).unwrap_err().is_timeout());
    p.unwrap().join().unwrap();
}

/// A worker of a process that has put goes on with the same queue, in order.
#[test]
fn order_across_a_start() {
    let _watched = watched();
    let queue = Queue::<u32>::bounded(32).unwrap();
    queue.put_many(0..10).unwrap();
    let p = Process::spawn((queue.clone(),), |queue: Queue<u32>| (10..20).for_each(|n| queue.put(n).unwrap())).unwrap();
    p.join().unwrap();
    assert_eq!((0..20).map(|_| queue.get().unwrap()).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
    assert!(queue.try_get().unwrap_err().is_empty());
}

#[test]
fn qsize() {
    let _watched = watched();
    let (tx, rx) = channel::<u32>(3).unwrap();
    assert_eq!((tx.len(), tx.capacity(), rx.capacity()), (0, 3, 3));
    for n in 1..=3 {
        tx.put(9).unwrap();
        assert_eq!((tx.len(), rx.len(), rx.unfinished()), (n, n, n));
    }
    assert!(tx.is_full() && rx.is_full());
    // What is given out on lease no longer waits, but is not finished.
    let lease = rx.lease().unwrap();
    assert_eq!((rx.len(), rx.leased(), rx.unfinished()), (2, 1, 3));
    drop(lease);
    assert_eq!((rx.len(), rx.leased(), rx.unfinished()), (3, 0, 3));
    for n in [2, 1, 0] {
        rx.get().unwrap();
        assert_eq!((tx.len(), rx.len(), rx.unfinished()), (n, n, n));
    }
    assert!(tx.is_empty() && rx.is_empty());
    assert_eq!(rx.take_losses(), 0);
    assert!(Queue::<u32>::bounded(0).is_err() && Queue::<u32>::bounded(multiproc::MAX_CAPACITY + 1).is_err());
}

/// Four workers acknowledge what they have done; what is not acknowledged comes again.
#[test]
fn task_done() {
    let _watched = watched();
    let queue = Queue::<u32>::builder().capacity(16).attempts(3).build().unwrap();
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let p = Process::spawn((queue.receiver().unwrap(),), |jobs: Receiver<u32>| {
                let mut sum = 0;
                while let Ok(job) = jobs.lease() {
                    sum += *job;
                    job.ack();
                }
                sum
            });
            p.unwrap()
        })
        .collect();
    (0..10).for_each(|n| queue.put(n).unwrap());
    // Nothing is left that was not acknowledged.
    queue.join().unwrap();
    assert_eq!(queue.unfinished(), 0);
    queue.close().unwrap();
    assert_eq!(workers.into_iter().map(|p| p.join().unwrap()).sum::<u32>(), 45);

    let queue = Queue::<u32>::builder().attempts(3).build().unwrap();
    let dead = queue.dead().unwrap();
    queue.put(5).unwrap();
    assert!(matches!(waits(|| queue.join_timeout(SHORT)), Err(JoinError::TimedOut)));
    let lease = queue.lease().unwrap();
    assert_eq!((*lease, lease.attempt()), (5, 1));
    assert!(matches!(waits(|| queue.join_deadline(soon())), Err(JoinError::TimedOut)));
    assert!(dead.is_empty() && dead.try_get().is_err());
    drop(lease);
    let lease = queue.try_lease().unwrap();
    assert_eq!(lease.attempt(), 2);
    lease.requeue();
    drop(queue.lease_timeout(SHORT).unwrap());
    assert!(queue.is_empty() && queue.unfinished() == 0);
    assert!(waits(|| queue.get_timeout(SHORT)).unwrap_err().is_timeout());
    assert_eq!((dead.len(), dead.is_empty()), (1, false));
    let letter = dead.get_timeout(SHORT).unwrap();
    assert_eq!((*letter, letter.attempts(), letter.died(), letter.pid()), (5, 3, false, std::process::id()));
    assert_eq!(letter.into_inner(), 5);
    assert!(waits(|| dead.get_timeout(SHORT)).unwrap_err().is_timeout());
}

#[test]
fn timeout() {
    let _watched = watched();
    let queue = Queue::<u32>::bounded(1).unwrap();
    let long = Duration::from_millis(200);
    let start = std::time::Instant::now();
    assert!(queue.get_timeout(long).unwrap_err().is_timeout());
    assert!(start.elapsed() >= long);
    queue.put(1).unwrap();
    let start = std::time::Instant::now();
    assert!(queue.put_timeout(2, long).unwrap_err().is_timeout());
    assert!(start.elapsed() >= long);
    // None of them has left anything.
    assert_eq!((queue.get().unwrap(), queue.len()), (1, 0));
}

/// Encodes unless it is 13; decodes unless it is 14.
#[derive(Debug, PartialEq)]
struct Picky(u32);

impl Serialize for Picky {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 == 13 { Err(ser::Error::custom("unlucky")) } else { self.0.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for Picky {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Picky, D::Error> {
        match u32::deserialize(deserializer)? {
            14 => Err(de::Error::custom("unreadable")),
            n => Ok(Picky(n)),
        }
    }
}

/// There is no feeder: what cannot be encoded is refused at the call, and the queue goes on.
#[test]
fn what_cannot_be_encoded_leaves_the_queue_as_it_was() {
    let _watched = watched();
    let queue = Queue::<Picky>::bounded(1).unwrap();
    assert!(queue.put(Picky(13)).unwrap_err().is_codec());
    assert!(queue.put_ref(&Picky(13)).unwrap_err().is_codec());
    assert!(queue.is_empty() && !queue.is_full());
    queue.put_timeout(Picky(1), SHORT).unwrap();
    assert!(queue.is_full());
    assert_eq!(queue.get().unwrap(), Picky(1));
    // In a batch, what stands before it is put, and what stands behind it is handed back.
    let queue = Queue::<Picky>::bounded(9).unwrap();
    let e = queue.put_many([Picky(1), Picky(2), Picky(13), Picky(3)]).unwrap_err();
    assert!(e.error().is_codec() && e.put() == 2, "{e}");
    assert_eq!(e.into_rest().collect::<Vec<_>>(), [Picky(13), Picky(3)]);
    assert_eq!(queue.len(), 2);
}

/// In place of the feeder's hook: the error comes to the caller, names the cause and hands the value back.
#[test]
fn the_error_comes_to_the_caller() {
    let _watched = watched();
    let queue = Queue::<Picky>::bounded(4).unwrap();
    let e = queue.put(Picky(13)).unwrap_err();
    assert!(e.to_string().contains("unlucky"), "{e}");
    assert_eq!(e.into_inner(), Picky(13));
    // What cannot be decoded is the getter's error, and no other message's.
    queue.put_many([Picky(14), Picky(15), Picky(14), Picky(16)]).unwrap();
    let e = queue.get().unwrap_err();
    assert!(matches!(e, GetError::Decode(_)) && e.to_string().contains("unreadable"), "{e}");
    assert_eq!(queue.get().unwrap(), Picky(15));
    let rest = queue.get_many(5).unwrap();
    assert!(rest.len() == 2 && rest[0].is_err(), "{rest:?}");
    assert_eq!(*rest[1].as_ref().unwrap(), Picky(16));
    // So it is with what is too large.
    let small = Queue::<Vec<u8>, Raw>::with_max_message(4, 100).unwrap();
    let e = small.put(vec![0; 101]).unwrap_err();
    assert!(e.is_too_large() && !e.is_full(), "{e}");
    small.put(vec![0; 100]).unwrap();
    let built: QueueBuilder<Vec<u8>, Raw> = Queue::builder();
    let small = built.capacity(10).byte_limit(150).max_message(100).build().unwrap();
    assert!(small.put(vec![0; 101]).unwrap_err().is_too_large());
    small.put(vec![1; 100]).unwrap();
    assert!(small.try_put(vec![1; 51]).unwrap_err().is_full());
    small.try_put(vec![1; 50]).unwrap();
    assert!(small.is_full() && small.len() == 2);
}

#[test]
fn asking_a_closed_queue() {
    let _watched = watched();
    let queue = Queue::<u32>::bounded(4).unwrap();
    assert!(queue.is_empty() && !queue.is_closed());
    queue.close().unwrap();
    assert!(queue.is_empty() && queue.is_closed() && !queue.is_full());
    let queue = Queue::<u32>::bounded(4).unwrap();
    queue.put(1).unwrap();
    queue.close().unwrap();
    assert!(queue.is_closed() && !queue.is_empty() && queue.len() == 1);
    assert!(format!("{queue:?}").contains("len: 1, capacity: 4, ended: true"), "{queue:?}");
}

#[test]
fn closed_queue_put_get_exceptions() {
    let _watched = watched();
    let queue = Queue::<u32>::bounded(4).unwrap();
    queue.put(1).unwrap();
    // In another process, for all.
    Process::spawn((queue.clone(),), |queue: Queue<u32>| queue.close().unwrap()).unwrap().join().unwrap();
    let e = queue.put(2).unwrap_err();
    assert!(e.is_closed() && !e.is_disconnected(), "{e}");
    assert_eq!(e.into_inner(), 2);
    assert!(queue.try_put(2).unwrap_err().is_closed());
    // What is there is given out, then comes the end.
    assert_eq!(queue.get().unwrap(), 1);
    let e = queue.get().unwrap_err();
    assert!(matches!(e, GetError::Closed) && e.is_end(), "{e}");
    assert!(queue.try_get().unwrap_err().is_end());
    assert!(queue.iter().next().is_none());
    // Whoever waits hears of it.
    let queue = Queue::<u32>::bounded(1).unwrap();
    let p = Process::spawn((queue.clone(),), |queue: Queue<u32>| queue.get().unwrap_err().is_end()).unwrap();
    queue.close().unwrap();
    assert!(p.join().unwrap());
}

/// The forms in which plain data travels.
#[test]
fn plain_messages() {
    let _watched = watched();
    let (there, back) = (Queue::<PlainVec<f64>, Plain>::with_codec(4).unwrap(), Queue::<Vec<u8>, Raw>::with_codec(4).unwrap());
    let p = Process::spawn((there.clone(), back.clone()), |there: Queue<PlainVec<f64>, Plain>, back: Queue<Vec<u8>, Raw>| {
        for levels in &there {
            let levels = levels.unwrap();
            back.put(levels.iter().flat_map(|level| level.to_le_bytes()).collect()).unwrap();
        }
    });
    for len in [0, 3, 5000, 200_000] {
        let levels = PlainVec((0..len).map(|i| f64::from(i) / 3.0).collect::<Vec<_>>());
        there.put_ref(&levels).unwrap();
        let bytes = back.get().unwrap();
        let got: Vec<f64> = bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect();
        assert_eq!(got, *levels);
    }
    there.close().unwrap();
    p.unwrap().join().unwrap();
}
