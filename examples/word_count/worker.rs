//! What a worker process does: lease a chunk, count it, send the result, acknowledge.
//!
//! In this order, so that a chunk is counted whenever its worker is killed: before the acknowledgement the queue
//! delivers it again, to another worker. Then its result may come twice, and the coordinator counts it once.
//! Stands on [`count`](crate::count).

use multiproc::{Receiver, Sender};
use serde::{Deserialize, Serialize};

use crate::chunk::Chunk;
use crate::count::{self, Counted};

/// What a worker is started with.
#[derive(Serialize, Deserialize, Debug)]
pub(crate) struct Tools {
    pub(crate) jobs: Receiver<Chunk>,
    pub(crate) results: Sender<Counted>,
    /// A chunk that was delivered more often is one that kills who counts it.
    pub(crate) max_attempts: u32,
}

/// Counts chunks until there will be no more.
///
/// # Panics
/// When the queues are corrupt or memory is used up: the coordinator then reads why.
pub(crate) fn work(tools: Tools) {
    let Tools { jobs, results, max_attempts } = tools;
    loop {
        let chunk = match jobs.lease() {
            Ok(chunk) => chunk,
            Err(e) if e.is_end() => return,
            Err(e) => panic!("no chunk could be leased: {e}"),
        };
        let counted = if chunk.attempt() > max_attempts {
            let deaths = chunk.attempt() - 1;
            Counted::nothing(&chunk, format!("{deaths} workers died while counting a part of it"))
        } else {
            count::count_chunk(&chunk)
        };
        match results.put(counted) {
            Ok(()) => drop(chunk.ack()),
            Err(e) if e.is_closed() || e.is_disconnected() => return,
            Err(e) => panic!("the result of chunk {} could not be sent: {e}", chunk.id),
        }
    }
}
