//! A pool in another process than the one that made it: what is submitted here goes through that one, and comes back.
//!
//! A worker that waits for a task of its own pool runs others meanwhile, one on top of another; so a task may submit to the pool that it runs in.

use crate::asked::{self, Asked, First, Own, Usual};
use crate::backend::Backend;
use crate::caller::{self, Caller};
use crate::error::{PoolError, PoolErrorKind, TaskError};
use crate::home::{lock, not_encoded};
use crate::lead::{Collector, Lead, left};
use crate::table::{Claim, Ending, Entry, Pending, Saved, Table, Terms};
use crate::told::Told;
use crate::wire::{self, Inbox, OWN, Out, Outbox, Packet, Submitted, TaskHead, TaskId, Tell, TellHead, Wire};
use crate::worker::{self, Worker};
use multiproc_channel::sealed::{Sealed, Within};
use multiproc_channel::{Bincode, GetError, Message, Queue, message};
use multiproc_shm::Arena;
use multiproc_shm::watching::{WaitOn, wait, wait_timeout};
use multiproc_sync::{Atomic, Event};
use multiproc_sys::robust;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// Pools that a process keeps its connection to.
const KEPT: usize = 8;
/// While another thread of this worker leads, its first one looks this often whether there is a task to run.
const LOOK: Duration = Duration::from_millis(5);

/// A task that has been entered and is not sent yet.
struct Entered<'a>(&'a Client, TaskId);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        lock(&self.0.outside).remove(&self.1);
        lock(&self.0.table).remove(self.1);
    }
}

fn ended() -> PoolError {
    PoolError::new(PoolErrorKind::Broken, "the pool has ended, with its process perhaps")
}

/// Where a pool is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Address {
    pub(crate) name: String,
    pub(crate) workers: usize,
    pub(crate) tell: Outbox,
    pub(crate) bell: Event,
    /// Carries nothing, and ends with the pool: it alone has the other side.
    pub(crate) life: Inbox,
    /// The next client's number.
    pub(crate) numbers: Atomic<u32>,
    pub(crate) usual: Usual,
}

/// This process's connection to a pool of another one.
pub(crate) struct Client {
    address: Address,
    number: u32,
    /// Of the process that has made it; fork() makes another.
    life: u32,
    told: Inbox,
    lead: Lead,
    table: Mutex<Table>,
    /// Answers to claims.
    claims: Mutex<Vec<(TaskId, bool)>>,
    /// Tasks that wait for room in the pool.
    outside: Mutex<HashSet<TaskId>>,
    /// Those of them that it has not taken.
    refused: Mutex<HashMap<TaskId, PoolError>>,
    me: Weak<Client>,
    /// The thread that collects for who does not wait.
    collects: Once,
    /// The pool has ended, with its process perhaps: nothing more will be told.
    is_gone: AtomicBool,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("pool", &self.address.name).field("number", &self.number).finish_non_exhaustive()
    }
}

static CLIENTS: Mutex<Vec<Arc<Client>>> = Mutex::new(Vec::new());

impl Client {
    /// The connection to the pool at `address`.
    pub(crate) fn of(address: Address) -> Result<Arc<Client>, PoolError> {
        let mut clients = lock(&CLIENTS);
        if let Some(known) = clients.iter().find(|client| client.is_ours() && client.address.tell.id() == address.tell.id()) {
            return Ok(known.clone());
        }
        // What comes back waits here as long as nobody collects it; the pool must not wait for that.
        let replies = Queue::<Packet, Wire>::builder().unbounded().build()?;
        let number = address.numbers.add(1);
        let told = replies.receiver()?;
        let client = Arc::new_cyclic(|me| Client {
            number,
            life: robust::life(),
            told,
            lead: Lead::default(),
            table: Mutex::default(),
            claims: Mutex::default(),
            outside: Mutex::default(),
            refused: Mutex::default(),
            me: me.clone(),
            collects: Once::new(),
            is_gone: AtomicBool::new(false),
            address,
        });
        match client.tell(&Out(TellHead::new(Tell::Client, number, 0, 0), &replies.sender()?)) {
            // A handle all the same, so that what it travels with arrives.
            Err(e) if e.is_closed() => client.is_gone.store(true, Ordering::Relaxed),
            told => told?,
        }
        if clients.len() >= KEPT {
            clients.remove(0);
        }
        clients.push(client.clone());
        Ok(client)
    }

    /// As [`Home::is_ours`](crate::home::Home::is_ours).
    fn is_ours(&self) -> bool {
        robust::life() == self.life
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    fn tell<B>(&self, what: &B) -> Result<(), PoolError>
    where
        Wire: multiproc_channel::EncodeRef<B, Packet>,
    {
        if !self.is_ours() {
            return Err(PoolError::of_the_parent());
        }
        let told = match self.address.tell.try_put_ref(what) {
            Err(e) if e.is_full() || e.is_would_block() => {
                // Nobody collects: the pool shall.
                let _ = self.address.bell.set();
                self.address.tell.put_ref(what)
            }
            told => told,
        };
        let _ = self.address.bell.set();
        told.map_err(PoolError::not_put)
    }

    /// Submits a task, with settings of its own perhaps; one that has `failed` is tried again, if it may be.
    pub(crate) fn submit<A: Message>(
        &self,
        pending: Arc<dyn Pending>,
        task: TaskHead,
        terms: Option<Box<Terms>>,
        args: &A,
        failed: Option<TaskError>,
    ) -> Result<TaskId, PoolError> {
        let task = TaskHead { span: caller::inherited(), ..task };
        // A worker of the pool does not wait: its own task is one of those that take up the room.
        let is_ours = worker::this_process().is_some_and(|worker| worker.tells_to(&self.address.tell));
        let waits = self.address.usual.is_bounded && failed.is_none() && !is_ours;
        let decides = terms.as_ref().is_some_and(|terms| asked::decides(terms));
        let asked = Asked { own: terms.as_ref().map(|terms| Own::of(terms)), first: Asked::failed(failed), waits };
        let asked = asked.encode().map_err(not_encoded)?;
        // What a worker submits it may run itself, rather than wait for it.
        let saved = match self.helper().is_some() || decides {
            true => Some(Arc::new(Saved::new(Arena::of_the_tree()?, args).map_err(not_encoded)?)),
            false => None,
        };
        let own = terms.map_or_else(|| self.address.usual.terms(), |terms| *terms);
        let kept = saved.clone().map(|saved| Box::new(Terms { saved: Some(saved), ..own }));
        let id = lock(&self.table).enter(Entry {
            pending,
            terms: kept,
            head: task,
            submitted: 0,
            caller: Caller::nobody(),
            cancelled: false,
            claim: Claim::None,
        });
        if waits {
            lock(&self.outside).insert(id);
        }
        // An argument may panic when it is encoded.
        let entered = Entered(self, id);
        let head = Submitted::new(TellHead::new(Tell::Submit, self.number, id, 0), task, &asked);
        match &saved {
            Some(saved) => self.tell(&saved.behind(head))?,
            None => self.tell(&Out(head, args))?,
        }
        std::mem::forget(entered);
        if waits {
            self.wait_for_room(id)?;
        }
        Ok(id)
    }

    /// Waits until the pool has taken a task, or will not.
    fn wait_for_room(&self, id: TaskId) -> Result<(), PoolError> {
        let taken = || !lock(&self.outside).contains(&id);
        self.lead.drive(&OnlyTold(self), &|| taken() || self.is_gone(), None, true);
        if !taken() {
            lock(&self.outside).remove(&id);
            return Err(ended());
        }
        let refused = lock(&self.refused).remove(&id);
        refused.map_or(Ok(()), Err)
    }

    /// A task that was taken back has failed: if the pool may try it again, it is to decide that.
    fn give_back(&self, id: TaskId, why: &TaskError) -> bool {
        let kept = lock(&self.table).get(id).and_then(|entry| {
            let terms = entry.terms.as_ref()?;
            let may = terms.retry.as_ref().is_some_and(|retry| retry.times > 0 && retry.only_if.is_none());
            may.then_some((entry.head, terms.saved.clone()?, Own::of(terms)))
        });
        let Some((task, saved, own)) = kept else { return false };
        self.send_again(id, task, own, Asked::failed(Some(why.clone())), &saved)
    }

    fn send_again(&self, id: TaskId, task: TaskHead, own: Own, first: First, saved: &Saved) -> bool {
        let Ok(asked) = (Asked { own: Some(own), first, waits: false }).encode() else { return false };
        let head = Submitted::new(TellHead::new(Tell::Submit, self.number, id, 0), task, &asked);
        self.tell(&saved.behind(head)).is_ok()
    }

    /// An attempt has failed of a task whose retries are decided here: whether there is another.
    fn try_again(&self, id: TaskId, why: &TaskError) -> bool {
        let retry = lock(&self.table).get(id).and_then(|entry| Some((entry.head.tries, entry.terms.as_ref()?.retry.clone()?)));
        // The user's code, outside of all locks.
        let Some((tries, retry)) = retry else { return false };
        let Some(pause) = catch_unwind(AssertUnwindSafe(|| retry.pause(tries + 1, why))).ok().flatten() else { return false };
        let next = lock(&self.table).get(id).and_then(|entry| {
            let terms = entry.terms.as_ref()?;
            // Asked to stop meanwhile.
            terms.retry.as_ref()?;
            let saved = terms.saved.clone()?;
            let own = Own::of(terms);
            entry.head.tries += 1;
            Some((entry.head, saved, own))
        });
        next.is_some_and(|(task, saved, own)| self.send_again(id, task, own, First::Wait(pause), &saved))
    }

    /// Takes back a task that no worker has begun, and runs it on top of those on this worker's desk.
    fn run_claimed(&self, worker: &Worker, id: TaskId) {
        let may = lock(&self.table).get(id).and_then(|entry| entry.terms.as_ref().map(|terms| self.may_claim(terms)));
        if may != Some(true) || self.tell(&Out(TellHead::new(Tell::Claim, self.number, id, 0), &())).is_err() {
            return;
        }
        let answer = || lock(&self.claims).iter().find(|(task, _)| *task == id).copied();
        self.lead.drive(&OnlyTold(self), &|| answer().is_some() || self.is_gone(), None, true);
        let granted = answer().is_some_and(|(_, granted)| granted);
        lock(&self.claims).retain(|(task, _)| *task != id);
        if !granted {
            return;
        }
        let kept = lock(&self.table).get(id).and_then(|entry| Some((entry.head, entry.terms.as_ref()?.saved.clone()?)));
        let Some((head, saved)) = kept else { return };
        let Some(client) = self.me.upgrade() else { return };
        let pending: Arc<dyn Pending> = Arc::new(Claimed { client, id });
        worker.run_own(TaskHead { id: id | OWN, ..head }, &saved, &pending);
    }

    /// Whether a task may run where nobody watches how long: its time is no shorter than that of the task which waits for it.
    fn may_claim(&self, terms: &Terms) -> bool {
        terms.saved.is_some()
            && (terms.timeout.is_none() || self.address.usual.timeout.is_some_and(|usual| terms.timeout >= Some(usual)))
    }

    fn is_gone(&self) -> bool {
        // Relaxed: a flag that nothing else hangs on.
        self.is_gone.load(Ordering::Relaxed)
    }

    /// Takes one thing that was told; false when nothing was. When nothing will be, all tasks end.
    fn take_told(&self, within: Within) -> bool {
        if !self.is_ours() {
            return false;
        }
        let told = match within {
            Within::Now => self.told.get_sealed(Within::Now),
            // Not one after the other: what the pool has not come to read may hold the queue open after its end.
            Within::Time(time) => wait_timeout(&[&self.told, &self.address.life], time).map_or_else(
                |e| Err(e.into()),
                |ready| if ready.is_empty() { Err(GetError::TimedOut) } else { self.told.get_sealed(Within::Now) },
            ),
            Within::Ever => match wait(&[&self.told, &self.address.life]) {
                Ok(_) => self.told.get_sealed(Within::Now),
                Err(e) => Err(e.into()),
            },
        };
        match told {
            Ok(sealed) => self.heed(&sealed),
            Err(e) if e.is_end() || self.has_ended() => {
                // What it has told before its end is true.
                while let Ok(sealed) = self.told.get_sealed(Within::Now) {
                    self.heed(&sealed);
                }
                self.end_all();
                return false;
            }
            Err(_) => return false,
        }
        true
    }

    /// Whether the pool has ended, or its process.
    fn has_ended(&self) -> bool {
        self.address.life.get_sealed(Within::Now).is_err_and(|e| e.is_end())
    }

    fn end_all(&self) {
        self.is_gone.store(true, Ordering::Relaxed);
        let all = lock(&self.table).drain();
        for entry in all {
            entry.pending.end(Ending::Failed(TaskError::Refused(ended())));
        }
        self.lead.look_around();
    }

    fn heed(&self, sealed: &Sealed) {
        let _ = sealed.open(|bytes, references| {
            let (head, rest) = wire::split::<TellHead>(bytes)?;
            let tell = head.tell()?;
            match tell {
                Tell::Claimed => lock(&self.claims).push((head.id, head.number == 1)),
                Tell::Taken => _ = lock(&self.outside).remove(&head.id),
                Tell::Value => {
                    let entry = lock(&self.table).remove(head.id)?;
                    entry.pending.end(Ending::Value(rest, references, head.number));
                }
                _ => {
                    let arena = Arena::of_the_tree().ok()?;
                    let told = message::decode::<Told, Bincode>(arena, rest, references);
                    self.has_failed(head.id, told.map_or_else(|e| TaskError::Undecodable(e.to_string()), TaskError::from));
                }
            }
            Some(())
        });
        self.lead.look_around();
    }

    fn has_failed(&self, id: TaskId, why: TaskError) {
        let decides = lock(&self.table).get(id).and_then(|entry| entry.terms.as_ref().map(|terms| asked::decides(terms)));
        if decides == Some(true) && self.try_again(id, &why) {
            return;
        }
        let Some(entry) = lock(&self.table).remove(id) else { return };
        if lock(&self.outside).contains(&id) {
            // Whoever submits it waits to hear it, and there is no task yet.
            if let TaskError::Refused(why) = why {
                lock(&self.refused).insert(id, why);
            } else {
                lock(&self.refused).insert(id, PoolError::closed());
            }
            lock(&self.outside).remove(&id);
            return;
        }
        entry.pending.end(Ending::Failed(why));
    }

    /// The worker that this thread is the first of, if it is one of this pool and may take further tasks.
    fn helper(&self) -> Option<&'static Worker> {
        worker::this_thread().filter(|worker| worker.tells_to(&self.address.tell))
    }

    /// Waits for an answer, or runs another task of the pool meanwhile.
    fn help(&self, worker: &Worker, within: Within) -> bool {
        if self.take_told(Within::Now) {
            return true;
        }
        if worker.run_another() {
            return true;
        }
        let items: [&dyn WaitOn; 3] = [&self.told, worker.tasks(), &self.address.life];
        let _ = match within {
            Within::Time(time) => wait_timeout(&items, time),
            _ => wait(&items),
        };
        true
    }
}

/// A task that this process has taken back, at its first attempt.
struct Claimed {
    client: Arc<Client>,
    id: TaskId,
}

impl Pending for Claimed {
    fn end(&self, how: Ending<'_>) {
        let Claimed { client, id } = self;
        match how {
            Ending::Failed(why) if client.give_back(*id, &why) => {}
            Ending::Failed(why) => client.has_failed(*id, why),
            how => {
                let entry = lock(&client.table).remove(*id);
                if let Some(entry) = entry {
                    entry.pending.end(how);
                }
            }
        }
    }
}

impl Collector for Client {
    fn collect(&self, within: Within) -> bool {
        match self.helper() {
            // Who only looks runs nothing.
            Some(worker) if worker.has_room() && !matches!(within, Within::Now) => self.help(worker, within),
            _ => self.take_told(within),
        }
    }

    fn nobody_leads(&self, _: bool) {}
}

/// Collects without running anything meanwhile.
struct OnlyTold<'a>(&'a Client);

impl Collector for OnlyTold<'_> {
    fn collect(&self, within: Within) -> bool {
        self.0.take_told(within)
    }

    fn nobody_leads(&self, _: bool) {}
}

impl Backend for Client {
    fn drive(&self, done: &dyn Fn() -> bool, deadline: Option<Instant>, task: Option<TaskId>) -> bool {
        if !self.is_ours() {
            return done();
        }
        let Some(worker) = self.helper() else { return self.lead.drive(self, done, deadline, task.is_none()) };
        if !worker.has_room() {
            // Nothing more fits on its desk: the pool grows, or says that all wait.
            let _blocked = Blocked::new(self, worker.index());
            return self.lead.drive(self, done, deadline, task.is_none());
        }
        if let Some(task) = task
            && !done()
        {
            self.run_claimed(worker, task);
        }
        // Nobody else would run what this thread waits for, if there is no other worker: so it does not only wait.
        while !done() && self.lead.is_led_by_another() {
            let Some(time) = left(deadline) else { return false };
            if !worker.run_another() {
                let _ = wait_timeout(&[worker.tasks()], time.map_or(LOOK, |time| time.min(LOOK)));
            }
        }
        self.lead.drive(self, done, deadline, task.is_none())
    }

    fn collect(&self) {
        self.lead.collect_if_alone(self);
    }

    fn take_interest(&self) {
        let Some(me) = self.me.upgrade() else { return };
        self.collects.call_once(|| {
            let run = move || me.lead.drive(&*me, &|| me.is_gone(), None, true);
            // Without it, whoever waits collects: only a callback comes late.
            let _ = thread::Builder::new().name("multiproc-pool".into()).spawn(run);
        });
    }

    fn lose_interest(&self) {}

    fn runs_here(&self) -> bool {
        self.helper().is_some()
    }

    fn stop(&self, id: TaskId, gently: bool) {
        if let Some(terms) = lock(&self.table).get(id).and_then(|entry| entry.terms.as_mut()) {
            terms.retry = None;
        }
        let _ = self.tell(&Out(TellHead::new(Tell::Stop, self.number, id, u64::from(gently)), &()));
    }

    fn is_running(&self, _: TaskId) -> bool {
        false
    }

    fn progress(&self, _: TaskId) -> Option<f64> {
        None
    }
}

/// Says to the pool that this worker waits and cannot run anything, until it is dropped.
struct Blocked<'a>(&'a Client, u32);

impl<'a> Blocked<'a> {
    fn new(client: &'a Client, worker: u32) -> Blocked<'a> {
        let _ = client.tell(&Out(TellHead::new(Tell::Blocked, worker, 0, u64::from(client.number)), &()));
        Blocked(client, worker)
    }
}

impl Drop for Blocked<'_> {
    fn drop(&mut self) {
        let _ = self.0.tell(&Out(TellHead::new(Tell::Unblocked, self.1, 0, 0), &()));
    }
}
