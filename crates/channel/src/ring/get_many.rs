//! Getting many: a run of records in the ring with one store of the head, a record in a block with one of its own, all under one hold of the lock.
//!
//! What a death leaves is what [`super::get`] says; the note in `hands` counts how many items the commit takes.

use super::bytes::Form;
use super::get::Next;
use super::hands::MAX_IN_HAND;
use super::usual::First;
use super::{Patience, Ring};
use crate::batch::Arrivals;
use crate::error::GetError;
use multiproc_shm::raw::Who;
use multiproc_sys::crash;

/// Messages that are taken under one hold of the lock.
pub(crate) const MAX_BATCH: usize = 1024;
const _: () = assert!(MAX_BATCH <= MAX_IN_HAND as usize);

impl Ring {
    /// Waits for a message and takes it and those behind it, at most `max` and [`MAX_BATCH`].
    pub(crate) fn get_batch(&self, arrivals: &mut Arrivals, max: usize, patience: Patience) -> Result<(), GetError> {
        let max = max.min(MAX_BATCH);
        let leased = self.with_next(patience, |who, next| match next {
            Next::Returned(leased) => {
                // It is acknowledged outside of the lock, with a note of its own: it comes alone.
                let references = self.take_returned(&leased)?;
                Ok(Some((leased.block, references)))
            }
            Next::Ring(first) => {
                let start = first.at.seq();
                let mut next = Some(first);
                while let Some(first) = next {
                    match self.take_run(who, first, start, max, arrivals) {
                        Err(e) if arrivals.len() == 0 => return Err(e),
                        // What has been taken is handed out; the next call meets the trouble again.
                        Err(_) => break,
                        Ok(()) => {}
                    }
                    next = if arrivals.len() < max { self.first_in_ring()? } else { None };
                }
                Ok(None)
            }
        })?;
        if let Some((block, references)) = leased {
            self.acknowledge_if_leased(block)?;
            arrivals.in_block(block, references);
            crash::point("get_many.acknowledged");
        }
        arrivals.arrived()?;
        Ok(())
    }

    /// Takes the first record, and those behind it if they lie in the ring like it, with one commit.
    fn take_run(&self, who: Who, first: First, start: u32, max: usize, arrivals: &mut Arrivals) -> Result<(), GetError> {
        let before = arrivals.len();
        if first.head.form() == Form::Block {
            let (block, references) = self.take_block(first)?;
            self.note_in_hand(start, before as u32 + 1);
            crash::point("get_many.block_in_hand");
            self.commit_get(who, first.at, first.end(), self.volume_of(first));
            arrivals.in_block(block, references);
            self.cell.consumed.end_taking();
            return Ok(());
        }
        let (mut record, mut volume, mut taken) = (first, 0, Vec::new());
        let end = loop {
            let at = arrivals.bytes.len();
            record.bytes.read_payload(self.arena(), record.at, record.head, &mut arrivals.bytes)?;
            let references = if record.head.references() > 0 { self.adopt_inline(record)? } else { Vec::new() };
            taken.push((at, arrivals.bytes.len(), references));
            crash::point("get_many.copied");
            volume += record.head.len();
            let end = record.end();
            match self.record_at(end)? {
                Some(next) if next.head.form() == Form::Inline && before + taken.len() < max => record = next,
                _ => break end,
            }
        };
        self.note_in_hand(start, (before + taken.len()) as u32);
        crash::point("get_many.in_hand");
        self.commit_get(who, first.at, end, volume);
        taken.into_iter().for_each(|(from, to, references)| arrivals.inline(from..to, references));
        Ok(())
    }
}
