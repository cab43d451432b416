//! Tasks that other processes have submitted, as the pool's own process has them: their outcomes go back to where they came from.

use crate::backend::Backend;
use crate::caller::Caller;
use crate::client::Address;
use crate::collect::CATCH_UP;
use crate::error::{PoolError, PoolErrorKind, TaskError};
use crate::home::{FINISHED, Home, TERMINATED, lock};
use crate::table::{Ending, Entry, Pending, Saved};
use crate::told::Told;
use crate::wire::{Again, Out, Outbox, TaskHead, TaskId, Tell, TellHead};
use multiproc_shm::scope::References;
use multiproc_sys::clock::now_nanos;
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};
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
}

struct Remote {
    home: Weak<Home>,
    outbox: Outbox,
    client: u32,
    id: TaskId,
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
        }
    }

    pub(crate) fn heed_client(&self, number: u32, outbox: Outbox) {
        lock(&self.remotes).clients.insert(number, outbox);
    }

    /// A client has submitted a task.
    pub(crate) fn heed_submitted(&self, told: TellHead, head: TaskHead, args: &[u8], references: &References) {
        let Some(outbox) = lock(&self.remotes).clients.get(&told.worker).cloned() else { return };
        self.take_interest();
        let remote = Arc::new(Remote { home: self.me.clone(), outbox, client: told.worker, id: told.id });
        if self.state() == FINISHED {
            let why = PoolError::new(PoolErrorKind::Closed, "the pool has been closed");
            return remote.end(Ending::Failed(TaskError::Refused(why)));
        }
        if self.state() >= TERMINATED {
            return remote.end(Ending::Failed(TaskError::Cancelled));
        }
        if let Some(broken) = &*lock(&self.broken) {
            return remote.end(Ending::Failed(TaskError::Refused(broken.clone())));
        }
        let mut terms = self.usual_terms();
        if let Some(terms) = &mut terms
            && terms.retry.is_some()
        {
            terms.saved = Some(Arc::new(Mutex::new(Saved::of(args.to_vec(), references.clone()))));
        }
        let id = lock(&self.table).enter(Entry {
            pending: remote.clone(),
            terms,
            head,
            submitted: now_nanos(),
            caller: Caller::nobody(),
            cancelled: false,
        });
        lock(&self.remotes).tasks.insert((told.worker, told.id), id);
        // Room is not waited for: it is this thread that makes it.
        if let Err(e) = self.tasks.try_put_ref(&Again(TaskHead { id, ..head }, args, references)) {
            lock(&self.table).remove(id);
            remote.end(Ending::Failed(TaskError::Refused(PoolError::not_put(e))));
        }
        if self.short_handed.load(Ordering::Relaxed) || self.settings.task_timeout.is_some() {
            let _ = self.bell.set();
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

    /// A client would rather run its task itself: it may, if no worker has begun it.
    pub(crate) fn heed_claim(&self, client: u32, id: TaskId) {
        let (task, outbox) = {
            let remotes = lock(&self.remotes);
            (remotes.tasks.get(&(client, id)).copied(), remotes.clients.get(&client).cloned())
        };
        let granted = task.is_some_and(|task| self.take_back(task).is_some());
        if granted {
            lock(&self.remotes).tasks.remove(&(client, id));
            self.lose_interest();
        }
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
