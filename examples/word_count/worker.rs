//! What a worker process does: lease a chunk, count it, send the result, acknowledge.
//!
//! In this order, so that a chunk is counted whenever its worker is killed: before the acknowledgement the queue
//! delivers it again, to another worker. Then its result may come twice, and the coordinator counts it once.
//! Stands on [`count`](crate::count) and [`board`](crate::board).

use std::thread;

use multiproc::{Receiver, Sender};
use serde::{Deserialize, Serialize};

use crate::board::{Board, SharedStage, Stage};
use crate::chunk::Chunk;
use crate::count::{self, Counted};

/// What a worker is started with.
#[derive(Serialize, Deserialize, Debug)]
pub(crate) struct Tools {
    pub(crate) jobs: Receiver<Chunk>,
    pub(crate) results: Sender<Answer>,
    pub(crate) board: Board,
    pub(crate) stage: SharedStage,
    /// A chunk that was delivered more often is one that kills who counts it.
    pub(crate) max_attempts: u32,
}

/// What a worker sends.
#[derive(Serialize, Deserialize, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The how-manieth delivery of the chunk this is about; the first is 1.
    pub(crate) attempt: u32,
    pub(crate) counted: Counted,
}

/// Counts chunks until there will be no more.
///
/// # Panics
/// When the queues are corrupt or memory is used up: the coordinator then reads why.
pub(crate) fn work(tools: Tools) {
    let Tools { jobs, results, board, stage, max_attempts } = tools;
    stage.set(Stage::Idle);
    let hunted = || stage.get().meets(board.hunted.get());
    loop {
        let chunk = match jobs.lease() {
            Ok(chunk) => chunk,
            Err(e) if e.is_end() => return,
            Err(e) => panic!("no chunk could be leased: {e}"),
        };
        stage.set(Stage::Leased(chunk.id));
        let attempt = chunk.attempt();
        let mut counted = count_once(&chunk, attempt, max_attempts);
        while hunted() {
            // So that the kill comes at any moment of the counting.
            counted = count_once(&chunk, attempt, max_attempts);
        }
        match results.put(Answer { attempt, counted }) {
            Ok(()) => {}
            Err(e) if e.is_disconnected() => return,
            Err(e) => panic!("the result of chunk {} could not be sent: {e}", chunk.id),
        }
        stage.set(Stage::Sent(chunk.id));
        while hunted() {
            thread::yield_now();
        }
        stage.set(Stage::Idle);
        board.add(chunk.ack().expected);
    }
}

fn count_once(chunk: &Chunk, attempt: u32, max_attempts: u32) -> Counted {
    if attempt > max_attempts {
        return Counted::nothing(chunk, format!("{} workers died while they counted a part of it", attempt - 1));
    }
    count::count_chunk(chunk)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::Fatal;
    use crate::chunk::Source;
    use multiproc::{Process, Queue};

    /// The answer to a chunk that came back `returned` times.
    fn answer_after(returned: u32) -> Result<Answer, Fatal> {
        let (jobs, results) = (Queue::bounded(1)?, Queue::bounded(1)?);
        let source = Source::Bytes(b"a b".to_vec());
        jobs.put(Chunk { id: 4, file: 5, source, expected: 3 })?;
        for _ in 0..returned {
            jobs.lease()?.requeue();
        }
        jobs.close()?;
        let (board, stage) = (Board::new()?, SharedStage::new()?);
        let (jobs, sender) = (jobs.receiver()?, results.sender()?);
        let tools = Tools { jobs, results: sender, board: board.clone(), stage, max_attempts: 3 };
        Process::spawn((tools,), work)?.join()?;
        assert_eq!(board.done(), (3, 1));
        Ok(results.get()?)
    }

    #[test]
    fn a_chunk_that_comes_again_is_counted() -> Result<(), Fatal> {
        for returned in 0..3 {
            let Answer { attempt, counted } = answer_after(returned)?;
            assert_eq!((attempt, counted.chunk, counted.file), (returned + 1, 4, 5));
            assert_eq!((counted.bytes, counted.words, counted.error), (3, 2, None));
        }
        Ok(())
    }

    #[test]
    fn a_chunk_that_comes_too_often_is_left_out() -> Result<(), Fatal> {
        let Answer { attempt, counted } = answer_after(3)?;
        assert_eq!((attempt, counted.bytes, counted.words), (4, 0, 0));
        assert!(counted.error.unwrap().starts_with("3 workers died"));
        Ok(())
    }
}
