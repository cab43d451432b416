//! The tasks that have no outcome yet, by id.
//!
//! An id is an entry's place and how often it has been used, so what is told late of a task that has its outcome finds nothing.

use crate::caller::Caller;
use crate::error::TaskError;
use crate::retry::Retry;
use crate::wire::{Again, Packet, TaskHead, TaskId, Wire};
use multiproc_channel::{Bincode, Buffer, Message, PutError, Queue, message};
use multiproc_shm::Arena;
use multiproc_shm::scope::{Outgoing, References};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How a task ended, told to whoever holds its [`Pending`].
pub(crate) enum Ending<'a> {
    /// With an encoded value and its references, after so many nanoseconds.
    Value(&'a [u8], &'a References, u64),
    Failed(TaskError),
}

/// A task without an outcome.
pub(crate) trait Pending: Send + Sync {
    /// It has its outcome. Called once.
    fn end(&self, how: Ending<'_>);
}

/// What a task has beyond the usual.
#[derive(Debug, Default)]
pub(crate) struct Terms {
    /// For the trace.
    pub(crate) name: Option<String>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) retry: Option<Arc<Retry>>,
    /// To be sent again.
    pub(crate) saved: Option<Arc<Saved>>,
    /// The worker whose attempt is known to have failed, by what it told or by its end, and when that was started: what else says so is no news.
    pub(crate) told: Option<(u32, u64)>,
}

/// A task's arguments, kept for another attempt.
#[derive(Debug)]
pub(crate) struct Saved {
    bytes: Vec<u8>,
    references: References,
    /// Holds what would otherwise move with the message.
    _outgoing: Mutex<Outgoing>,
}

impl Saved {
    pub(crate) fn new<A: Message>(arena: &'static Arena, args: &A) -> Result<Saved, multiproc_channel::CodecError> {
        let mut bytes = Buffer::new();
        let outgoing = message::encode::<A, Bincode>(arena, args, &mut bytes)?;
        Ok(Saved { bytes: bytes.into_vec(), references: outgoing.references().to_vec(), _outgoing: Mutex::new(outgoing) })
    }

    /// What another process has encoded.
    pub(crate) fn of(bytes: Vec<u8>, references: References) -> Saved {
        Saved { bytes, references, _outgoing: Mutex::default() }
    }

    pub(crate) fn open<R>(&self, look: impl FnOnce(&[u8], &References) -> R) -> R {
        look(&self.bytes, &self.references)
    }

    /// Behind a head, to be put into any queue of a pool.
    pub(crate) fn behind<H>(&self, head: H) -> Again<'_, H> {
        Again(head, &self.bytes, &self.references)
    }

    pub(crate) fn put(&self, head: TaskHead, tasks: &Queue<Packet, Wire>) -> Result<(), PutError<()>> {
        tasks.put_ref(&self.behind(head))
    }
}

pub(crate) struct Entry {
    pub(crate) pending: Arc<dyn Pending>,
    pub(crate) terms: Option<Box<Terms>>,
    pub(crate) head: TaskHead,
    /// On the monotonic clock.
    pub(crate) submitted: u64,
    /// On whose behalf: held until the outcome, for the events of the task that belong to it.
    #[expect(dead_code, reason = "it is held, not looked at")]
    pub(crate) caller: Caller,
    /// It has its outcome, and a worker that finds it in the queue shall not run it.
    pub(crate) cancelled: bool,
    pub(crate) claim: Claim,
}

/// Whether a client would rather run a task itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Claim {
    #[default]
    None,
    /// That is being decided, and no worker shall begin it meanwhile.
    Made,
    /// The same, and a worker has thrown it away.
    Met,
}

impl Entry {
    /// Whether what `worker` started at that time has been told, and counted, as a failed attempt.
    pub(crate) fn was_told(&self, worker: u32, since: u64) -> bool {
        self.terms.as_ref().is_some_and(|terms| terms.told == Some((worker, since)))
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("terms", &self.terms).field("cancelled", &self.cancelled).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Place {
    uses: u32,
    entry: Option<Entry>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Table {
    places: Vec<Place>,
    free: Vec<u32>,
    /// Tasks without an outcome.
    open: usize,
    /// The times that tasks are given, each with how many it is given to.
    timeouts: BTreeMap<Duration, usize>,
}

/// Ids stay clear of the bits that say more of a task on a desk.
const MAX_USES: u32 = 0x0fff_ffff;

fn id_of(place: u32, uses: u32) -> TaskId {
    u64::from(uses) << 32 | u64::from(place)
}

impl Table {
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    pub(crate) fn enter(&mut self, entry: Entry) -> TaskId {
        self.open += 1;
        if let Some(timeout) = entry.timeout() {
            *self.timeouts.entry(timeout).or_default() += 1;
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { uses: 0, entry: None });
            self.places.len() as u32 - 1
        });
        let place = &mut self.places[index as usize];
        // Never 0, so that no id is.
        place.uses = (place.uses % MAX_USES) + 1;
        let id = id_of(index, place.uses);
        place.entry = Some(entry);
        if let Some(entry) = &mut place.entry {
            entry.head.id = id;
        }
        id
    }

    fn place(&mut self, id: TaskId) -> Option<&mut Place> {
        let place = self.places.get_mut(id as u32 as usize)?;
        (u64::from(place.uses) == id >> 32).then_some(place)
    }

    pub(crate) fn get(&mut self, id: TaskId) -> Option<&mut Entry> {
        self.place(id)?.entry.as_mut()
    }

    /// Removes a task that has, or is about to get, its outcome.
    pub(crate) fn remove(&mut self, id: TaskId) -> Option<Entry> {
        let entry = self.place(id)?.entry.take()?;
        self.free.push(id as u32);
        if let Some(timeout) = entry.timeout()
            && let Some(count) = self.timeouts.get_mut(&timeout)
        {
            *count -= 1;
            if *count == 0 {
                self.timeouts.remove(&timeout);
            }
        }
        if !entry.cancelled {
            self.open -= 1;
        }
        Some(entry)
    }

    /// Marks a task as cancelled, which a worker will come across; who waits for it.
    pub(crate) fn cancel(&mut self, id: TaskId) -> Option<Arc<dyn Pending>> {
        let entry = self.get(id).filter(|entry| !entry.cancelled)?;
        entry.cancelled = true;
        let pending = entry.pending.clone();
        self.open -= 1;
        Some(pending)
    }

    /// Whether nothing is entered, not even what has been cancelled.
    #[cfg(test)]
    pub(crate) fn is_bare(&self) -> bool {
        self.free.len() == self.places.len()
    }

    /// All tasks without an outcome, removed.
    pub(crate) fn drain(&mut self) -> Vec<Entry> {
        self.open = 0;
        self.timeouts.clear();
        let mut all = Vec::new();
        for (index, place) in self.places.iter_mut().enumerate() {
            if let Some(entry) = place.entry.take() {
                self.free.push(index as u32);
                if !entry.cancelled {
                    all.push(entry);
                }
            }
        }
        all
    }

    /// The shortest time that any task is given.
    pub(crate) fn shortest_timeout(&self) -> Option<Duration> {
        self.timeouts.keys().next().copied()
    }
}

impl Entry {
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.terms.as_ref()?.timeout
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable;

    struct Nobody;
    impl Pending for Nobody {
        fn end(&self, _: Ending<'_>) {}
    }

    fn entry() -> Entry {
        Entry {
            pending: Arc::new(Nobody),
            terms: None,
            head: TaskHead::zeroed(),
            submitted: 0,
            caller: Caller::here(),
            cancelled: false,
            claim: Claim::None,
        }
    }

    #[test]
    fn an_id_names_one_use_of_a_place() {
        let mut table = Table::default();
        let first = table.enter(entry());
        assert_ne!(first, 0);
        assert!(table.remove(first).is_some());
        let second = table.enter(entry());
        assert_eq!(first as u32, second as u32);
        assert!(table.get(first).is_none() && table.remove(first).is_none());
        assert_eq!(table.get(second).unwrap().head.id, second);
        assert_eq!(table.open(), 1);
    }

    #[test]
    fn the_shortest_time_is_known() {
        let mut table = Table::default();
        let timed = |ms| {
            let terms = Terms { timeout: Some(Duration::from_millis(ms)), ..Terms::default() };
            Entry { terms: Some(Box::new(terms)), ..entry() }
        };
        let ids = [30, 10, 10, 20].map(|ms| table.enter(timed(ms)));
        let mut shortest = vec![table.shortest_timeout()];
        for at in [1, 2, 0, 3] {
            table.remove(ids[at]);
            shortest.push(table.shortest_timeout());
        }
        assert_eq!(shortest, [Some(10), Some(10), Some(20), Some(20), None].map(|ms| ms.map(Duration::from_millis)));
    }

    #[test]
    fn what_is_cancelled_is_not_open_and_stays_until_it_is_met() {
        let mut table = Table::default();
        let id = table.enter(entry());
        assert!(table.cancel(id).is_some());
        assert!(table.cancel(id).is_none());
        assert_eq!(table.open(), 0);
        assert!(table.remove(id).unwrap().cancelled);
        assert_eq!(table.open(), 0);
        assert!(table.drain().is_empty());
    }
}
