//! One of everything that processes share, and everything that can be done with it. No operation waits for more than a moment, whatever stands in shared
//! memory, and what it returns is looked at only for whether it was refused.

use crate::Postcard;
use crate::input::Input;
use multiproc_channel::{Connection, Lease, PipeBuilder, PipeReceiver, PipeSender, Plain, PlainVec, Queue, Raw, WhenFull};
use multiproc_shm::watching::{WaitOn, wait_timeout};
use multiproc_shm::{Arena, Error};
use multiproc_sync::{
    Array, Atomic, Barrier, Condition, Event, Frozen, Lock, LockError, OwnedPermit, RLock, Semaphore, SharedVec, SignalSemaphore,
    Value,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long an operation may wait.
pub const MOMENT: Duration = Duration::from_millis(1);

type Big = [u64; 5];
type Failed = Box<dyn std::error::Error>;

/// See the module head.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Things {
    lock: Lock,
    rlock: RLock,
    semaphore: Semaphore,
    signals: SignalSemaphore,
    event: Event,
    condition: Condition,
    barrier: Barrier,
    value: Value<Big>,
    array: Array<u64>,
    atomic: Atomic<u64>,
    frozen: Frozen<u64>,
    raw: Queue<Vec<u8>, Raw>,
    plain: Queue<Big, Plain>,
    words: Queue<Vec<String>>,
    wide: Queue<Vec<u8>, Raw>,
    counted: Queue<PlainVec<u32>, Postcard>,
    handles: Queue<Parcel>,
}

/// A message of handles.
#[derive(Debug, Serialize, Deserialize)]
pub enum Parcel {
    /// A queue.
    Queue(Queue<Vec<u8>, Raw>),
    /// A lock and an event.
    Pair(Lock, Event),
    /// What has one owner.
    Permit(OwnedPermit),
    /// A sender and a vector.
    Mixed(multiproc_channel::Sender<Vec<u8>, Raw>, Frozen<u64>, Vec<u8>),
}

/// The ends of pipes, each for one process.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Ends {
    there: Option<Connection<Vec<u8>, Vec<u8>, Raw>>,
    back: Option<Connection<Vec<u8>, Vec<u8>, Raw>>,
    sender: Option<PipeSender<Vec<String>>>,
    receiver: Option<PipeReceiver<Vec<String>>>,
}

/// What an actor has in its hands between operations.
#[derive(Debug, Default)]
pub struct Hands {
    leases: Vec<Lease<Vec<u8>>>,
    permits: Vec<OwnedPermit>,
    parcels: Vec<Parcel>,
    made: Vec<Made>,
}

#[derive(Debug)]
#[allow(dead_code)]
enum Made {
    Lock(Lock),
    Queue(Queue<Vec<u8>, Raw>),
    Vector(SharedVec<u64>),
    Pipe(Connection<u64, u64>, Connection<u64, u64>),
}

impl Ends {
    /// Both ends of each.
    pub fn pair(arena: &'static Arena) -> Result<Ends, Error> {
        let (there, back) = PipeBuilder::new().ring_bytes(16 << 10).codec::<Raw>().pipe_in(arena)?;
        let (sender, receiver) = PipeBuilder::new().one_way_in(arena)?;
        Ok(Ends { there: Some(there), back: Some(back), sender: Some(sender), receiver: Some(receiver) })
    }

    /// As two processes have them.
    pub fn parted(self) -> (Ends, Ends) {
        let Ends { there, back, sender, receiver } = self;
        (Ends { there, receiver, ..Ends::default() }, Ends { back, sender, ..Ends::default() })
    }
}

impl Things {
    /// One of everything, with something in it.
    pub fn make(arena: &'static Arena) -> Result<Things, Failed> {
        let mut vector = SharedVec::zeroed_in(arena, 600)?;
        vector[599] = 7;
        let things = Things {
            lock: Lock::new_in(arena)?,
            rlock: RLock::new_in(arena)?,
            semaphore: Semaphore::new_in(arena, 3)?,
            signals: SignalSemaphore::new_in(arena, 1, 9)?,
            event: Event::new_in(arena)?,
            condition: Condition::new_in(arena)?,
            barrier: Barrier::new_in(arena, 2)?,
            value: Value::new_in(arena, [1; 5])?,
            array: Array::zeroed_in(arena, 90)?,
            atomic: Atomic::new_in(arena, 0)?,
            frozen: vector.freeze(),
            raw: Queue::builder().capacity(6).attempts(2).build_in(arena)?,
            plain: Queue::bounded_in(arena, 4)?,
            words: Queue::bounded_in(arena, 5)?,
            wide: Queue::builder().unbounded().when_full(WhenFull::Wait).build_in(arena)?,
            counted: Queue::builder().capacity(9).byte_limit(20_000).build_in(arena)?,
            handles: Queue::bounded_in(arena, 6)?,
        };
        for length in [3, 200, 9000] {
            things.raw.put(vec![1; length])?;
            things.wide.put(vec![1; length])?;
        }
        things.plain.put([5; 5])?;
        things.words.put(vec!["a".into(), "b".repeat(300)])?;
        things.counted.put(PlainVec(vec![9; 1500]))?;
        things.handles.put(Parcel::Pair(things.lock.clone(), things.event.clone()))?;
        things.handles.put(Parcel::Queue(things.raw.clone()))?;
        things.handles.put(Parcel::Permit(things.semaphore.try_acquire_owned()?))?;
        Ok(things)
    }

    /// Does something; whether it was done or refused. What it is called is noted before it begins.
    pub fn operate(
        &self,
        arena: &'static Arena,
        ends: &Ends,
        hands: &mut Hands,
        input: &mut Input<'_>,
        note: impl FnOnce(u8),
    ) -> Result<(), Failed> {
        let what = input.byte() % 64;
        note(what);
        match what {
            0..=11 => self.with_locks(what, input),
            12..=23 => self.with_signs(what, hands, input),
            24..=31 => self.with_memory(what, input),
            32..=52 => self.with_queues(what, hands, input),
            53..=58 => with_pipes(what, ends, input),
            _ => self.with_arena(what, arena, hands, input),
        }
    }

    fn with_locks(&self, what: u8, input: &mut Input<'_>) -> Result<(), Failed> {
        match what {
            0..=2 => match self.lock.lock_timeout(MOMENT) {
                Ok(guard) => {
                    let inner = self.rlock.lock_timeout(MOMENT).map(drop);
                    drop(guard);
                    inner?;
                }
                Err(LockError::OwnerDied(_)) => drop(self.lock.recover()?.make_consistent()),
                Err(other) => return Err(other.into()),
            },
            3 => drop(self.lock.try_lock()?),
            4 => _ = self.lock.locked(),
            5 | 6 => match self.rlock.lock_timeout(MOMENT) {
                Ok(outer) => {
                    let inner = self.rlock.lock_timeout(MOMENT)?;
                    let (first, last) = if input.byte() & 1 == 0 { (outer, inner) } else { (inner, outer) };
                    drop(first);
                    drop(last);
                }
                Err(LockError::OwnerDied(_)) if !self.rlock.locked() => drop(self.rlock.recover()?.make_consistent()),
                Err(other) => return Err(other.into()),
            },
            7 => drop(self.rlock.try_lock()?),
            8 => _ = self.rlock.locked(),
            9 => {
                let guard = self.condition.get_lock().lock_timeout(MOMENT)?;
                drop(self.condition.wait_timeout(guard, MOMENT)?);
            }
            10 => {
                let guard = self.condition.get_lock().lock_timeout(MOMENT)?;
                match input.byte() % 3 {
                    0 => self.condition.notify_one(&guard)?,
                    1 => self.condition.notify(&guard, 3)?,
                    _ => self.condition.notify_all(&guard)?,
                }
            }
            _ => _ = self.condition.waiting(),
        }
        Ok(())
    }

    fn with_signs(&self, what: u8, hands: &mut Hands, input: &mut Input<'_>) -> Result<(), Failed> {
        match what {
            12 | 13 => drop(self.semaphore.acquire_timeout(MOMENT)?),
            14 => hands.permits.push(self.semaphore.acquire_owned_timeout(MOMENT)?),
            15 => drop(hands.permits.pop()),
            16 => _ = (self.semaphore.available(), self.semaphore.permits(), self.semaphore.take_recovered()),
            17 => self.signals.acquire_timeout(MOMENT)?,
            18 => self.signals.release(u32::from(input.byte() % 4))?,
            19 => _ = (self.signals.value(), self.signals.bound()),
            20 => self.event.set()?,
            21 => self.event.clear(),
            22 => _ = self.event.wait_timeout(MOMENT)?,
            _ => match input.byte() % 6 {
                0 => self.barrier.abort()?,
                1 | 2 => self.barrier.reset()?,
                3 => _ = (self.barrier.parties(), self.barrier.waiting(), self.barrier.is_broken()),
                _ => _ = self.barrier.wait_timeout(MOMENT)?,
            },
        }
        Ok(())
    }

    fn with_memory(&self, what: u8, input: &mut Input<'_>) -> Result<(), Failed> {
        match what {
            24 | 25 => {
                let mut value = self.value.lock_timeout(MOMENT)?;
                value[2] = input.word();
            }
            26 => self.value.lock_timeout(MOMENT)?.discard(),
            27 | 28 => match self.array.lock_timeout(MOMENT) {
                Ok(mut array) => {
                    let at = usize::from(input.byte()) % array.len().max(1);
                    if let Some(element) = array.get_mut(at) {
                        *element = input.word();
                    }
                }
                Err(LockError::OwnerDied(_)) => drop(self.array.recover()?.make_consistent()),
                Err(other) => return Err(other.into()),
            },
            29 => _ = self.array.len(),
            30 => _ = (self.atomic.get(), self.atomic.add(3), self.atomic.set(input.word())),
            _ => _ = std::hint::black_box(self.frozen.iter().fold(0, |a, b| a ^ b)),
        }
        Ok(())
    }

    fn with_queues(&self, what: u8, hands: &mut Hands, input: &mut Input<'_>) -> Result<(), Failed> {
        let length = [0, 9, 60, 700, 5000, 70_000][usize::from(input.byte()) % 6];
        match what {
            32 | 33 => self.raw.put_timeout(vec![2; length], MOMENT)?,
            34 => drop(self.raw.get_timeout(MOMENT)?),
            35 => hands.leases.push(self.raw.lease_timeout(MOMENT)?),
            36 => match (hands.leases.pop(), input.byte() & 1) {
                (Some(lease), 0) => drop(lease.ack()),
                (Some(lease), _) => lease.requeue(),
                (None, _) => _ = self.raw.try_lease()?.attempt(),
            },
            37 => {
                let dead = self.raw.dead()?;
                _ = (dead.len(), dead.get_timeout(MOMENT)?.into_inner());
            }
            38 => {
                let q = &self.raw;
                _ = (
                    q.len(),
                    q.is_empty(),
                    q.capacity(),
                    q.is_full(),
                    q.is_closed(),
                    q.leased(),
                    q.unfinished(),
                    q.take_losses(),
                );
            }
            39 => self.raw.join_timeout(MOMENT)?,
            40 => self.plain.put_timeout([input.word(); 5], MOMENT)?,
            41 => _ = self.plain.get_timeout(MOMENT)?,
            42 => self.words.try_put(vec!["x".repeat(length % 8000); 3])?,
            43 => drop(self.words.try_get()?),
            44 => {
                _ = self.words.put_many_timeout((0..usize::from(input.byte() % 9)).map(|n| vec!["y".repeat(n * 40)]), MOMENT)?
            }
            45 => drop(self.words.get_many_timeout(1 + usize::from(input.byte() % 9), MOMENT)?),
            46 => self.wide.put_timeout(vec![3; length], MOMENT)?,
            47 => drop(self.wide.get_timeout(MOMENT)?),
            48 => {
                self.counted.put_timeout(PlainVec(vec![4; length / 8]), MOMENT)?;
            }
            49 => drop(self.counted.get_timeout(MOMENT)?),
            50 => {
                let parcel = match input.byte() % 4 {
                    0 => Parcel::Queue(self.raw.clone()),
                    1 => Parcel::Pair(self.lock.clone(), self.event.clone()),
                    2 => Parcel::Permit(self.semaphore.try_acquire_owned()?),
                    _ => Parcel::Mixed(self.wide.sender()?, self.frozen.clone(), vec![7; length]),
                };
                self.handles.put_timeout(parcel, MOMENT)?;
            }
            51 => hands.parcels.push(self.handles.get_timeout(MOMENT)?),
            _ => match hands.parcels.pop() {
                Some(Parcel::Queue(queue)) => queue.try_put(vec![1; length])?,
                Some(Parcel::Pair(lock, event)) => {
                    drop(lock.lock_timeout(MOMENT)?);
                    event.set()?;
                }
                Some(Parcel::Mixed(sender, frozen, _)) => sender.try_put(vec![frozen.len() as u8; 3])?,
                Some(Parcel::Permit(_)) | None => {}
            },
        }
        Ok(())
    }

    fn with_arena(&self, what: u8, arena: &'static Arena, hands: &mut Hands, input: &mut Input<'_>) -> Result<(), Failed> {
        match what {
            59 => _ = arena.collect()?,
            60 => {
                _ = (arena.audit()?, arena.usage());
                // It waits a second for who is collecting, and a lock that is written over may be nobody's.
                if arena.collect()?.rounds > 0 {
                    _ = arena.stats()?;
                }
                _ = arena.survey();
            }
            61 => {
                let items: [&dyn WaitOn; 4] = [&self.raw, &self.event, &self.handles, &self.wide];
                _ = wait_timeout(&items[..1 + usize::from(input.byte()) % 4], MOMENT)?;
            }
            _ => {
                if hands.made.len() > 4 {
                    hands.made.clear();
                }
                hands.made.push(match input.byte() % 4 {
                    0 => Made::Lock(Lock::new_in(arena)?),
                    1 => Made::Queue(
                        Queue::bounded_in(arena, 3).and_then(|q| q.try_put(vec![1]).map(|()| q).map_err(|_| Error::Forked))?,
                    ),
                    2 => Made::Vector(SharedVec::zeroed_in(arena, 1 + usize::from(input.byte()) * 30)?),
                    _ => {
                        let (a, b) = PipeBuilder::new().pipe_in(arena)?;
                        Made::Pipe(a, b)
                    }
                });
            }
        }
        Ok(())
    }
}

fn with_pipes(what: u8, ends: &Ends, input: &mut Input<'_>) -> Result<(), Failed> {
    let length = [0, 9, 60, 700, 5000, 70_000][usize::from(input.byte()) % 6];
    let bytes = || vec![6; length];
    match what {
        53 => ends.there.as_ref().map_or(Ok(()), |end| end.send_timeout(bytes(), MOMENT))?,
        54 => _ = ends.back.as_ref().map(|end| end.recv_timeout(MOMENT)).transpose()?,
        55 => ends.back.as_ref().map_or(Ok(()), |end| end.send_timeout(bytes(), MOMENT))?,
        56 => _ = ends.there.as_ref().map(|end| end.recv_timeout(MOMENT)).transpose()?,
        57 => ends.sender.as_ref().map_or(Ok(()), |end| end.send_timeout(vec!["z".repeat(length % 900); 2], MOMENT))?,
        _ => match input.byte() % 4 {
            0 => _ = ends.back.as_ref().map(|end| (end.peer_pid(), end.poll(MOMENT).is_ok())),
            _ => _ = ends.receiver.as_ref().map(|end| end.recv_timeout(MOMENT)).transpose()?,
        },
    }
    Ok(())
}
