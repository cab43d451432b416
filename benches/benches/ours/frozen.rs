//! Messages that go to another process and back, through a queue each way; half of that is what one way takes.

use multiproc::{Frozen, Message, Process, Queue, Raw, Receiver, Sender, SharedVec};
use multiproc_benches::{machine, row::Measured};
use std::hint::black_box;
use std::time::Instant;

/// Sends back what it gets, having looked at it.
fn answer<T: Message>(from: &Receiver<T>, to: &Sender<T>, look: impl Fn(&T)) {
    machine::pin(1).expect("pinning");
    while let Ok(message) = from.get() {
        look(&message);
        if to.put(message).is_err() {
            break;
        }
    }
}

/// Microseconds for one way of `count` messages there and back.
fn one_way<T: Message>(count: u64, there: &Sender<T>, back: &Receiver<T>, first: T) -> Measured {
    if multiproc::CRASH_POINTS {
        return Err("crash points are compiled in".into());
    }
    machine::pin(0)?;
    let mut message = first;
    let mut play = |times: u64| -> Result<(), Box<dyn std::error::Error>> {
        for _ in 0..times {
            there.put_ref(&message).map_err(|e| e.to_string())?;
            message = back.get()?;
        }
        Ok(())
    };
    play(count / 10 + 1)?;
    let start = Instant::now();
    play(count)?;
    Ok(start.elapsed().as_nanos() as f64 / 1000.0 / count as f64 / 2.0)
}

/// A frozen vector of so many bytes, whose first and last the other process reads.
pub(crate) fn frozen(bytes: usize, count: u64) -> Measured {
    let (there, todo) = multiproc::channel::<Frozen<u8>>(2)?;
    let (done, back) = multiproc::channel::<Frozen<u8>>(2)?;
    let worker = Process::spawn((todo, done), |todo, done| {
        answer(&todo, &done, |v: &Frozen<u8>| {
            black_box((v[0], v[v.len() - 1]));
        });
    })?;
    let took = one_way(count, &there, &back, SharedVec::<u8>::zeroed(bytes)?.freeze());
    drop((there, back));
    worker.join()?;
    took
}

/// A number.
pub(crate) fn number(count: u64) -> Measured {
    let (there, todo) = multiproc::channel::<u64>(2)?;
    let (done, back) = multiproc::channel::<u64>(2)?;
    let worker = Process::spawn((todo, done), |todo, done| {
        answer(&todo, &done, |n: &u64| {
            black_box(*n);
        })
    })?;
    let took = one_way(count, &there, &back, 7);
    drop((there, back));
    worker.join()?;
    took
}

/// So many bytes in the message itself, which is a block of the arena: copied in and out, and nothing is encoded.
pub(crate) fn copied(bytes: usize, count: u64) -> Measured {
    type Bytes = Queue<Vec<u8>, Raw>;
    if multiproc::CRASH_POINTS {
        return Err("crash points are compiled in".into());
    }
    let (there, back) = (Bytes::builder().capacity(2).build()?, Bytes::builder().capacity(2).build()?);
    let worker = Process::spawn((there.clone(), back.clone()), |there: Bytes, back: Bytes| {
        machine::pin(1).expect("pinning");
        while let Ok(message) = there.get() {
            black_box((message[0], message[message.len() - 1]));
            if back.put_ref(&message).is_err() {
                break;
            }
        }
    })?;
    machine::pin(0)?;
    let mut message = vec![1u8; bytes];
    let mut took = 0.0;
    for n in 0..=count {
        let start = Instant::now();
        there.put_ref(&message).map_err(|e| e.to_string())?;
        message = back.get()?;
        // The first one takes the memory.
        took += if n == 0 { 0.0 } else { start.elapsed().as_nanos() as f64 };
    }
    there.close()?;
    worker.join()?;
    Ok(took / 1000.0 / count as f64 / 2.0)
}
