//! Leaks: every kind of shared object is made, handed to another process and dropped, thousands of times, and each tenth time that process is killed in the middle.

use super::census::Census;
use crate::parts::Part;
use crate::plan::Plan;
use crate::tally::Tally;
use multiproc::{
    Array, Atomic, Barrier, Condition, Connection, Event, Frozen, Lock, OwnedPermit, PipeReceiver, PipeSender, Process, Queue,
    RLock, Receiver, Semaphore, Sender, ShareableList, SharedMemory, SharedVec, SignalSemaphore, Value, channel, one_way, pipe,
};
use serde::{Deserialize, Serialize};
use std::os::unix::process::ExitStatusExt;
use std::time::Instant;

pub const PART: Part =
    Part { name: "leaks", what: "every kind of object made, shared and dropped, with a death each tenth time", run };

/// One of each. Named segments go by their names.
#[derive(Serialize, Deserialize)]
struct Parcel {
    bounded: Queue<Vec<u8>>,
    unbounded: Queue<Vec<u8>>,
    sender: Sender<u64>,
    receiver: Receiver<u64>,
    to: PipeSender<u64>,
    from: PipeReceiver<u64>,
    ends: (Connection<u64, u64>, Connection<u64, u64>),
    lock: Lock,
    rlock: RLock,
    value: Value<[u64; 20]>,
    array: Array<u64>,
    hits: Atomic<u64>,
    event: Event,
    semaphore: Semaphore,
    permit: OwnedPermit,
    signals: SignalSemaphore,
    condition: Condition,
    barrier: Barrier,
    frozen: Frozen<u64>,
    segment: String,
    list: String,
}

type Failure = Box<dyn std::error::Error>;

/// Named segments live as long as who has made them.
struct Named(SharedMemory, ShareableList);

fn parcel(n: u64) -> Result<(Parcel, Named), Failure> {
    let bytes = vec![n as u8; [10, 100, 1000, 5000, 20_000, 70_000][n as usize % 6]];
    let bounded = Queue::bounded(1 + n as usize % 40)?;
    bounded.put(bytes.clone())?;
    let unbounded = Queue::unbounded()?;
    unbounded.put(bytes.clone())?;
    unbounded.put(bytes)?;
    let (sender, receiver) = channel(4)?;
    let (to, from) = one_way()?;
    let ends = pipe()?;
    let semaphore = Semaphore::new(2)?;
    let mut vector = SharedVec::zeroed(100)?;
    vector.iter_mut().for_each(|word| *word = n);
    let named = Named(SharedMemory::create(None, 10_000)?, ShareableList::new(None, [1i64, 2, 3])?);
    let lock = Lock::new()?;
    let parcel = Parcel {
        bounded,
        unbounded,
        sender,
        receiver,
        to,
        from,
        ends,
        rlock: RLock::new()?,
        value: Value::new([n; 20])?,
        array: Array::zeroed(100)?,
        hits: Atomic::new(n)?,
        event: Event::new()?,
        permit: semaphore.acquire_owned()?,
        semaphore,
        signals: SignalSemaphore::new(1)?,
        condition: Condition::with_lock(&lock)?,
        lock,
        barrier: Barrier::new(2)?,
        frozen: vector.freeze(),
        segment: named.0.name().to_owned(),
        list: named.1.name().to_owned(),
    };
    Ok((parcel, named))
}

/// Uses all of it, and is killed in the middle if it is to.
fn use_all(parcel: &Parcel, deadly: bool) -> Result<(), Failure> {
    let segment = SharedMemory::open(&parcel.segment)?;
    let _list = ShareableList::open(&parcel.list)?;
    segment.write_at(0, &[1])?;
    let guard = parcel.lock.lock()?;
    let again = parcel.rlock.lock()?;
    parcel.value.update(|numbers| numbers[0] += 1)?;
    parcel.array.lock()?[0] += 1;
    parcel.hits.add(1);
    let lease = parcel.bounded.lease()?;
    let other = parcel.unbounded.get()?;
    parcel.sender.put(1)?;
    parcel.to.send(2)?;
    parcel.ends.0.send(3)?;
    let permit = parcel.semaphore.acquire()?;
    parcel.signals.acquire()?;
    parcel.event.set()?;
    parcel.condition.notify_all(&guard)?;
    if deadly {
        std::process::abort();
    }
    drop((again, permit, guard, other));
    lease.ack();
    assert_eq!((parcel.receiver.get()?, parcel.from.recv()?, parcel.frozen[7]), (1, 2, parcel.hits.get() - 1));
    parcel.signals.release(1)?;
    Ok(())
}

fn worker(parcels: Receiver<(bool, Parcel)>, done: Sender<u64>) {
    super::victim::no_core_dumps();
    for message in &parcels {
        let Ok((deadly, parcel)) = message else { std::process::exit(3) };
        if let Err(e) = use_all(&parcel, deadly) {
            eprintln!("a parcel's user: {e}");
            std::process::exit(4);
        }
        drop(parcel);
        if done.put(0).is_err() {
            std::process::exit(5);
        }
    }
}

fn batch(first: u64) -> Result<(), Failure> {
    let (to, parcels) = channel::<(bool, Parcel)>(2)?;
    let (done, is_done) = channel::<u64>(2)?;
    let process = Process::spawn((parcels, done), worker)?;
    for n in first..first + 10 {
        let deadly = n % 10 == 9;
        let (parcel, named) = parcel(n)?;
        to.put((deadly, parcel))?;
        if !deadly {
            is_done.get()?;
        } else {
            let ended = process.wait();
            if ended.and_then(|status| status.signal()) != Some(libc::SIGABRT) {
                return Err(format!("the user of parcel {n} ended by itself: {ended:?}").into());
            }
        }
        drop(named);
    }
    drop(process);
    Ok(())
}

fn run(plan: &Plan) -> Tally {
    let mut tally = Tally::new(&["descriptors", "maps", "threads", "KiB private", "KiB shared", "objects", "blocks"]);
    let cycles = plan.count(2000, 10_000);
    let began = Instant::now();
    let mut before: Option<Census> = None;
    let mut rows: Vec<(String, Census)> = Vec::new();
    for first in (0..cycles).step_by(10) {
        if let Err(e) = batch(first) {
            tally.broken(format!("cycle {first}: {e}"));
            return tally;
        }
        // What is made once is made in the first two hundred.
        if first == 190 || first + 10 == cycles {
            let census = match &before {
                None => Census::take(),
                Some(before) => Census::back_to(before),
            };
            match census {
                Ok(census) => {
                    before.get_or_insert(census.clone());
                    rows.push((format!("after {} cycles", first + 10), census));
                }
                Err(left) => tally.broken(format!("left over after {} cycles: {left}", first + 10)),
            }
        }
    }
    for (name, c) in rows {
        let blocks = c.audit.private + c.audit.of_objects + c.audit.of_messages;
        tally.row(
            name,
            [
                c.descriptors.len() as u64,
                c.maps as u64,
                c.threads as u64,
                c.resident_kib,
                c.backed_kib,
                c.audit.objects.into(),
                blocks.into(),
            ],
        );
    }
    tally.note(format!("{cycles} cycles, {} of them deadly, in {:.1} s", cycles / 10, began.elapsed().as_secs_f64()));
    tally
}
