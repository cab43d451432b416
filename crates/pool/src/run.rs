//! A task that is being run: its arguments in, its outcome out.

use crate::caller::on_behalf;
use crate::desk::Level;
use crate::error::TaskError;
use crate::job;
use crate::panics::Panic;
use crate::table::{Ending, Pending, Saved};
use crate::wire::{self, TaskHead, Tell, TellHead};
use crate::worker::Worker;
use multiproc_channel::sealed::SealedLease;
use multiproc_channel::{Bincode, Message, message};
use multiproc_shm::Arena;
use multiproc_shm::scope::References;
use multiproc_sys::clock::now_nanos;
use multiproc_sys::crash;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// A task that is being run.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    worker: &'a Worker,
    source: Source<'a>,
    head: TaskHead,
    level: Level<'a>,
    since: u64,
}

/// Where a task comes from, and where its outcome goes.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// The pool.
    Lease(&'a SealedLease),
    /// This process, which has taken back what it had submitted.
    Own(&'a Saved, &'a Arc<dyn Pending>),
}

impl fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Source::Lease(_)) { "Lease" } else { "Own" })
    }
}

/// How a task ends without a value.
#[derive(Debug)]
pub(crate) enum Failed {
    Panicked(Panic),
    Unreadable(String),
    Unsendable(String),
}

impl<'a> Run<'a> {
    pub(crate) fn new(worker: &'a Worker, source: Source<'a>, head: TaskHead, level: Level<'a>, since: u64) -> Run<'a> {
        Run { worker, source, head, level, since }
    }

    pub(crate) fn go(&self) {
        if !on_behalf(self.head.span, || job::run(self)) {
            self.fail(Failed::Unreadable("its function is not part of this program's code".to_owned()));
        }
    }

    pub(crate) fn head(&self) -> &TaskHead {
        &self.head
    }

    /// Whether the task has been asked to stop.
    pub(crate) fn shall_stop(&self) -> bool {
        self.level.shall_stop()
    }

    /// The arguments; `None` when they do not decode, which has been told then.
    pub(crate) fn arguments<A: Message>(&self) -> Option<A> {
        crash::point("pool.decoding");
        self.decode::<A>().inspect_err(|why| self.fail(Failed::Unreadable(why.clone()))).ok()
    }

    /// The arguments, any number of times; an error says why they do not decode.
    pub(crate) fn decode<A: Message>(&self) -> Result<A, String> {
        let decoded = catch_unwind(AssertUnwindSafe(|| match self.source {
            Source::Lease(lease) => lease.open(|bytes, references| {
                let (_, rest) = wire::split::<TaskHead>(bytes).ok_or("the message is cut off")?;
                decode::<A>(rest, references)
            }),
            Source::Own(args, _) => Ok(args.open(decode::<A>)),
        }));
        match decoded {
            Ok(Ok(decoded)) => decoded,
            Ok(Err(e)) => Err(e.to_string()),
            Err(panic) => Err(Panic::taken(&*panic).message),
        }
    }

    /// The context that the task is given; `None` when it does not decode, which has been told then.
    pub(crate) fn context<C: Message + Send + Sync>(&self) -> Option<Arc<C>> {
        let id = self.head.context;
        if let Some(known) = self.worker.context(id) {
            return known.downcast::<C>().ok();
        }
        let asked = self.worker.put(Tell::Context, id, 0, &());
        self.worker.ring();
        let got = asked.map(|()| {
            self.worker.answer(id, |_, bytes, references| {
                let decoded = catch_unwind(AssertUnwindSafe(|| decode::<C>(bytes, references)));
                decoded.map_err(|panic| Panic::taken(&*panic).message)?
            })
        });
        let why = match got {
            Ok(Some(Ok(context))) => {
                let context = Arc::new(context);
                self.worker.keep_context(id, context.clone());
                return Some(context);
            }
            Ok(Some(Err(why))) | Err(why) => why,
            Ok(None) => "its context is gone".to_owned(),
        };
        self.fail(Failed::Unreadable(format!("the context: {why}")));
        None
    }

    /// The task has ended with a value.
    pub(crate) fn tell_value<R: Message>(&self, value: &R) {
        crash::point("pool.encoding");
        let told = catch_unwind(AssertUnwindSafe(|| match self.source {
            Source::Lease(_) => self.put(Tell::Value, value),
            Source::Own(_, pending) => {
                let saved = Saved::new(arena()?, value).map_err(|e| e.to_string())?;
                saved.open(|bytes, references| pending.end(Ending::Value(bytes, references, self.ran())));
                Ok(())
            }
        }));
        let why = match told {
            Ok(Ok(())) => return,
            Ok(Err(why)) => why,
            Err(panic) => Panic::taken(&*panic).message,
        };
        self.fail(Failed::Unsendable(why));
    }

    /// The task has ended otherwise.
    pub(crate) fn fail(&self, why: Failed) {
        let told = match (self.source, why) {
            (Source::Lease(_), Failed::Panicked(panic)) => self.put(Tell::Panicked, &panic),
            (Source::Lease(_), Failed::Unreadable(why)) => self.put(Tell::Unreadable, &why),
            (Source::Lease(_), Failed::Unsendable(why)) => self.put(Tell::Unsendable, &why),
            (Source::Own(_, pending), why) => {
                pending.end(Ending::Failed(match why {
                    Failed::Panicked(panic) => panic.into(),
                    Failed::Unreadable(why) => TaskError::Unreadable(why),
                    Failed::Unsendable(why) => TaskError::Unsendable(why),
                }));
                Ok(())
            }
        };
        // Fails when the pool is gone, and with it soon this process, or for want of memory: then the worker's end is the task's.
        if let Err(why) = told {
            panic!("the outcome of a task cannot be told: {why}");
        }
    }

    fn ran(&self) -> u64 {
        now_nanos().saturating_sub(self.since)
    }

    fn put<T: Message>(&self, tell: Tell, value: &T) -> Result<(), String> {
        let head = TellHead::new(tell, self.worker.index(), self.head.id, self.ran());
        self.worker.put_behind(head.since(self.since), value)
    }
}

fn arena() -> Result<&'static Arena, String> {
    Arena::of_the_tree().map_err(|e| e.to_string())
}

fn decode<A: Message>(bytes: &[u8], references: &References) -> Result<A, String> {
    message::decode::<A, Bincode>(arena()?, bytes, references).map_err(|e| e.to_string())
}
