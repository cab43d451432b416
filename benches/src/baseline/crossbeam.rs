//! crossbeam-channel, bounded, between threads: no process, no serde; how far away that world is.

use crate::{
    Message,
    machine::pin,
    row::Measured,
    windows::{Meter, Windows},
};
use crossbeam_channel::bounded;
use std::{
    hint::black_box,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

/// Messages per second with this many producer and consumer threads.
pub fn rate(windows: &Windows, producers: usize, consumers: usize) -> Measured {
    let (tx, rx) = bounded::<Message>(1024);
    let meter = &Meter::default();
    // Relaxed: only says "soon"; the scope's joins order the rest.
    let stop = &AtomicBool::new(false);
    thread::scope(|s| {
        for producer in 0..producers {
            let tx = tx.clone();
            // Ends when the last consumer has gone.
            s.spawn(move || {
                pin(producer + 1).expect("affinity");
                (0..).all(|n| tx.send(Message::numbered(n)).is_ok())
            });
        }
        for consumer in 0..consumers {
            let rx = rx.clone();
            s.spawn(move || {
                pin(consumer).expect("affinity");
                for (n, message) in rx.iter().enumerate() {
                    black_box(message);
                    meter.set(consumer, n as u64 + 1);
                    if stop.load(Relaxed) {
                        break;
                    }
                }
            });
        }
        drop((tx, rx));
        let rate = windows.rate(meter);
        stop.store(true, Relaxed);
        rate
    })
}
