//! Tasks that other processes have submitted, as the pool's own process has them: their outcomes go back to where they came from.

use crate::asked::{Asked, First, Usual};
use crate::backend::Backend;
use crate::caller::Caller;
use crate::client::Address;
use crate::collect::CATCH_UP;
use crate::error::{PoolError, TaskError};
use crate::home::{FINISHED, Home, OPEN, TERMINATED, lock};
use crate::table::{Claim, Ending, Entry, Pending, Saved, Table, Terms};
use crate::told::Told;
use crate::wire::{Again, AskedHead, Out, Outbox, TaskHead, TaskId, Tell, TellHead};
use multiproc_shm::scope::References;
use multiproc_sys::clock::now_nanos;
use std::collections::{HashMap, VecDeque};
use std::fmt::{self, Write};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Instant;

/// What the pool knows of its clients.
#[derive(Debug, Default)]
pub(crate) struct Remotes {
    clients: HashMap<u32, Outbox>,
    /// Their tasks, by client and the id that the client gave.
    tasks: HashMap<(u32, TaskId), TaskId>,
    /// Workers whose desk is full, and which client each is.
    blocked: HashMap<u32, u32>,
    /// What was submitted and has no room yet, in order.
    outside: VecDeque<Outside>,
}

/// A task that its client waits to be taken.
#[derive(Debug)]
struct Outside {
    remote: Arc<Remote>,
    head: TaskHead,
    terms: Option<Box<Terms>>,
    args: Saved,
}

struct Remote {
    home: Weak<Home>,
    outbox: Outbox,
    client: u32,
    id: TaskId,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("client", &self.client).field("id", &self.id).finish_non_exhaustive()
    }
}

impl Remote {
    fn refuse(&self, why: PoolError) {
        self.end(Ending::Failed(TaskError::Refused(why)));
    }

    /// Its task has been taken, which its client waits for.
    fn taken(&self) {
        let _ = self.outbox.put_ref(&Out(TellHead::new(Tell::Taken, 0, self.id, 0), &()));
    }
}

impl Pending for Remote {
    fn end(&self, how: Ending<'_>) {
        if let Some(home) = self.home.upgrade() {
            lock(&home.remotes).tasks.remove(&(self.client, self.id));
            home.lose_interest();
        }
        let head = |tell, number| TellHead::new(tell, 0, self.id, number);
        // Fails when the client is gone, and for want of memory, of which the client hears.
        let _ = match how {
            Ending::Value(bytes, references, ran) => match self.outbox.put_ref(&Again(head(Tell::Value, ran), bytes, references))
            {
                Err(e) if !e.is_disconnected() => {
                    let why = Told::Undecodable(format!("it could not be passed on: {e}"));
                    self.outbox.put_ref(&Out(head(Tell::Failed, 0), &why))
                }
                put => put,
            },
            Ending::Failed(why) => self.outbox.put_ref(&Out(head(Tell::Failed, 0), &Told::from(why))),
        };
    }
}

impl Home {
    /// By which other processes reach this pool.
    pub(crate) fn address(&self) -> Address {
        Address {
            name: self.settings.name.clone(),
            workers: self.target.load(Ordering::SeqCst),
            tell: self.tell.clone(),
            bell: self.bell.clone(),
            life: self.life_seen.clone(),
            numbers: self.client_numbers.clone(),
            usual: Usual::from(&self.settings),
        }
    }

    pub(crate) fn heed_client(&self, number: u32, outbox: Outbox) {
        self.forget_clients();
        lock(&self.remotes).clients.insert(number, outbox);
    }

    /// Lets go of clients whose processes have ended.
    pub(crate) fn forget_clients(&self) {
        lock(&self.remotes).clients.retain(|_, outbox| !outbox.is_disconnected());
    }

    /// A worker has ended: it waits for nothing, and is told nothing, any more.
    pub(crate) fn forget_worker(&self, worker: u32) {
        lock(&self.remotes).blocked.remove(&worker);
        self.forget_clients();
    }

    /// A client has submitted a task.
    pub(crate) fn heed_submitted(&self, told: TellHead, submitted: AskedHead, rest: &[u8], references: &References) {
        let AskedHead { task: head, asked } = submitted;
        let Some(outbox) = lock(&self.remotes).clients.get(&told.worker).cloned() else { return };
        self.take_interest();
        let remote = Arc::new(Remote { home: self.me.clone(), outbox, client: told.worker, id: told.id });
        if self.state() == FINISHED {
            return remote.refuse(PoolError::closed());
        }
        if self.state() >= TERMINATED {
            return remote.end(Ending::Failed(TaskError::Cancelled));
        }
        if let Some(broken) = self.broken() {
            return remote.refuse(broken);
        }
        let parts = usize::try_from(asked).ok().and_then(|asked| rest.split_at_checked(asked));
        let parts = parts.and_then(|(asked, args)| Some((Asked::decode(asked).ok()?, args)));
        let Some((Asked { own, first, waits }, args)) = parts else {
            return remote.end(Ending::Failed(TaskError::Unreadable("what was asked for the task".to_owned())));
        };
        let mut terms = match own {
            Some(own) => Some(Box::new(own.terms(&self.settings))),
            None => self.usual_terms(),
        };
        if waits {
            let args = Saved::of(args.to_vec(), references.clone());
            lock(&self.remotes).outside.push_back(Outside { remote, head, terms, args });
            // SeqCst, before the look for room: whoever makes room after that look sees it.
            self.outside.fetch_add(1, Ordering::SeqCst);
            return self.admit();
        }
        if !matches!(first, First::Run) || terms.as_ref().is_some_and(|terms| terms.retry.is_some()) {
            let saved = Some(Arc::new(Saved::of(args.to_vec(), references.clone())));
            terms.get_or_insert_default().saved = saved;
        }
        let id = {
            // In this order: see `admit`.
            let mut remotes = lock(&self.remotes);
            let id = self.enter_remote(&mut lock(&self.table), &remote, head, terms);
            remotes.tasks.insert((told.worker, told.id), id);
            id
        };
        match first {
            First::Run => self.send_remote(id, &remote, &Again(TaskHead { id, ..head }, args, references)),
            First::Wait(pause) => {
                lock(&self.later).push((Instant::now() + pause, id));
                let _ = self.bell.set();
            }
            First::Fail(why) => self.fail(id, why.into()),
        }
    }

    fn enter_remote(&self, table: &mut Table, remote: &Arc<Remote>, head: TaskHead, terms: Option<Box<Terms>>) -> TaskId {
        table.enter(Entry {
            pending: remote.clone(),
            terms,
            head,
            submitted: now_nanos(),
            caller: Caller::nobody(),
            cancelled: false,
            claim: Claim::None,
        })
    }

    fn send_remote(&self, id: TaskId, remote: &Remote, message: &Again<'_, TaskHead>) {
        // Room is not waited for: it is this thread that makes it.
        if let Err(e) = self.tasks.try_put_ref(message) {
            let entry = lock(&self.table).remove(id);
            if entry.is_some() {
                remote.refuse(PoolError::not_put(e));
            }
            return;
        }
        let is_timed = lock(&self.table).get(id).is_some_and(|entry| entry.timeout().is_some());
        if is_timed || self.short_handed.load(Ordering::Relaxed) {
            let _ = self.bell.set();
        }
    }

    /// Takes tasks of clients that wait for room, as long as there is any; when none will be taken any more, says so.
    pub(crate) fn admit(&self) {
        while self.outside.load(Ordering::SeqCst) > 0 {
            let refused = match self.state() {
                OPEN => self.broken(),
                _ => Some(PoolError::closed()),
            };
            let full = || refused.is_none() && self.settings.fails_when_full;
            let (task, why) = {
                // The list is held while there is a look for room: nobody else takes its first task out meanwhile, and finds none.
                let mut remotes = lock(&self.remotes);
                let mut table = lock(&self.table);
                let has_room = self.settings.queue_bound.is_none_or(|bound| table.open() < bound);
                if refused.is_none() && !has_room && !full() {
                    return;
                }
                let Some(mut task) = remotes.outside.pop_front() else { return };
                self.outside.fetch_sub(1, Ordering::SeqCst);
                match refused {
                    None if has_room => {
                        let id = self.enter_remote(&mut table, &task.remote, task.head, task.terms.take());
                        task.head.id = id;
                        remotes.tasks.insert((task.remote.client, task.remote.id), id);
                        (task, None)
                    }
                    refused => (task, Some(refused.unwrap_or_else(PoolError::full))),
                }
            };
            let Outside { remote, head, args, .. } = task;
            if let Some(why) = why {
                remote.refuse(why);
                continue;
            }
            remote.taken();
            let args = Arc::new(args);
            if let Some(terms) = lock(&self.table).get(head.id).and_then(|entry| entry.terms.as_mut())
                && terms.retry.is_some()
            {
                terms.saved = Some(args.clone());
            }
            args.open(|bytes, references| self.send_remote(head.id, &remote, &Again(head, bytes, references)));
        }
    }

    /// The pool has ended. Clients cannot tell it anything any more, what they have told is refused, and who still waits there sees the end.
    pub(crate) fn leave_clients(&self) {
        let _ = self.tells.close();
        // What cannot be taken, because a peer has written over it, is not waited for.
        let end = Instant::now().checked_add(CATCH_UP);
        while !self.tells.is_empty() && end.is_none_or(|end| Instant::now() < end) {
            self.collect_if_alone();
            thread::yield_now();
        }
        lock(&self.remotes).clients.clear();
    }

    pub(crate) fn stop_remote(&self, client: u32, id: TaskId, gently: bool) {
        let task = lock(&self.remotes).tasks.get(&(client, id)).copied();
        if let Some(task) = task {
            self.stop_task(task, gently);
        }
    }

    /// A client would rather run its task itself: it may, if no worker has ever begun it.
    ///
    /// One that has begun it may have cleared its desk by now, and what it has told lie behind the claim. So the claim is noted, by which nobody begins the task any more, and decided when everything has been read
    /// that was told until now.
    pub(crate) fn heed_claim(&self, client: u32, id: TaskId) {
        let task = lock(&self.remotes).tasks.get(&(client, id)).copied();
        if !task.is_some_and(|task| self.note_claim(client, id, task)) {
            self.answer_claim(client, id, false);
        }
    }

    fn note_claim(&self, client: u32, id: TaskId, task: TaskId) -> bool {
        let crew = lock(&self.crew);
        // Counted first: a worker says on its desk that it starts the task, and then looks at the count.
        self.cancelled.fetch_add(1, Ordering::SeqCst);
        let runs = crew.who_runs(task).is_some();
        let mut table = lock(&self.table);
        let entry = table.get(task).filter(|entry| !runs && !entry.cancelled);
        // Room is not waited for: it is this thread that makes it.
        let decide = Out(TellHead::new(Tell::Decide, client, id, task), &());
        let noted = entry.is_some_and(|entry| {
            let put = self.tell.try_put_ref(&decide).is_ok();
            entry.claim = if put { Claim::Made } else { Claim::None };
            put
        });
        if !noted {
            self.cancelled.fetch_sub(1, Ordering::SeqCst);
        }
        noted
    }

    /// Everything has been read that was told before the claim was noted.
    pub(crate) fn decide_claim(&self, client: u32, id: TaskId, task: TaskId) {
        let granted = {
            let mut table = lock(&self.table);
            let found = table.get(task).map(|entry| (std::mem::take(&mut entry.claim), entry.cancelled, entry.head.tries));
            match found {
                // A worker will come across it, and the count with it.
                Some((Claim::Made, false, 0)) => table.cancel(task).is_some(),
                Some((Claim::Met, cancelled, _)) => {
                    table.remove(task);
                    // Once for the claim, and for the cancelling.
                    self.cancelled.fetch_sub(1 + u64::from(cancelled), Ordering::SeqCst);
                    !cancelled
                }
                // It has run, or was cancelled.
                _ => {
                    self.cancelled.fetch_sub(1, Ordering::SeqCst);
                    false
                }
            }
        };
        if granted {
            lock(&self.remotes).tasks.remove(&(client, id));
            self.lose_interest();
        }
        self.answer_claim(client, id, granted);
    }

    fn answer_claim(&self, client: u32, id: TaskId, granted: bool) {
        let outbox = lock(&self.remotes).clients.get(&client).cloned();
        if let Some(outbox) = outbox {
            let _ = outbox.put_ref(&Out(TellHead::new(Tell::Claimed, 0, id, u64::from(granted)), &()));
        }
    }

    /// A worker waits for a task, and its desk is full.
    pub(crate) fn heed_blocked(&self, worker: u32, client: u32) {
        let (circle, tasks) = {
            let mut remotes = lock(&self.remotes);
            remotes.blocked.insert(worker, client);
            let most = 2 * self.target.load(Ordering::SeqCst);
            let mut circle = None;
            if remotes.blocked.len() >= most {
                let name = &self.settings.name;
                let mut text = format!("all {most} workers of {name} wait for tasks that none of them can take on:");
                for worker in remotes.blocked.keys() {
                    let _ = write!(text, " {name}-{worker} has as many on top of each other as fit;");
                }
                circle = Some(text.trim_end_matches(';').to_owned());
            }
            (circle, remotes.tasks.values().copied().collect::<Vec<_>>())
        };
        let _ = self.bell.set();
        // Those that lie in the queue, which nobody will come to.
        if let Some(circle) = circle {
            for task in tasks {
                self.withdraw(task, TaskError::WouldDeadlock { circle: circle.clone() });
            }
        }
    }

    pub(crate) fn heed_unblocked(&self, worker: u32) {
        lock(&self.remotes).blocked.remove(&worker);
        let _ = self.bell.set();
    }

    /// How many workers can take nothing on because their desk is full.
    pub(crate) fn blocked(&self) -> usize {
        lock(&self.remotes).blocked.len()
    }
}
