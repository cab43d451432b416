//! One run: a victim, who waits for what it does, its death after an instruction, and what must be true then.

use super::stepper::{Stepped, Traced};
use super::victim::{self, End, Op, Stage, message};
use multiproc::testing;
use multiproc::{LockError, Process, Raw, RecvError};
use std::error::Error;
use std::fs;
use std::sync::mpsc;
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

/// Longer than anything takes that is waited for.
const LIMIT: Duration = Duration::from_secs(20);
/// What is put to wake whom nothing was meant for.
const RESCUE: u8 = 9;
/// What the waiting putter or sender has.
const NEXT: u8 = 2;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// What came of a run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// How many instructions the operation has, if it was survived.
    pub survived: Option<u64>,
}

fn eventually(what: &str, mut done: impl FnMut() -> bool) -> Outcome<()> {
    let end = Instant::now() + LIMIT;
    while !done() {
        if Instant::now() > end {
            return Err(format!("never: {what}").into());
        }
        thread::sleep(Duration::from_micros(50));
    }
    Ok(())
}

/// The state letter in a `stat` file of /proc.
fn state(path: &str) -> Option<char> {
    fs::read_to_string(path).ok()?.rsplit_once(')')?.1.trim_start().chars().next()
}

/// A thread of this process that waits, and must go on.
struct Waiter<'s, R> {
    thread: ScopedJoinHandle<'s, R>,
    stat: String,
}

impl<'s, R: Send + 's> Waiter<'s, R> {
    /// Returns when it sleeps.
    fn start(scope: &'s Scope<'s, '_>, wait: impl FnOnce() -> R + Send + 's) -> Outcome<Waiter<'s, R>> {
        let (tell, told) = mpsc::channel();
        let thread = scope.spawn(move || {
            // SAFETY: no arguments, cannot fail.
            let _ = tell.send(unsafe { libc::gettid() });
            wait()
        });
        let waiter = Waiter { thread, stat: format!("/proc/self/task/{}/stat", told.recv()?) };
        eventually("a waiter sleeps", || waiter.is_over() || waiter.sleeps())?;
        Ok(waiter)
    }

    fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    fn sleeps(&self) -> bool {
        let asleep = || state(&self.stat) == Some('S');
        asleep() && {
            thread::sleep(Duration::from_micros(100));
            asleep()
        }
    }

    /// Until it goes on, or sleeps while `nothing` was done that it waits for. Whether it goes on.
    fn settles(&self, nothing: impl Fn() -> bool) -> Outcome<bool> {
        let mut over = false;
        eventually("the waiter goes on", || {
            over = self.is_over();
            over || nothing() && self.sleeps() && nothing() && !self.is_over()
        })?;
        Ok(over)
    }

    fn goes_on(self) -> Outcome<R> {
        eventually("the waiter goes on", || self.is_over())?;
        self.thread.join().map_err(|_| "the waiter panicked".into())
    }
}

fn demand(holds: bool, what: impl FnOnce() -> String) -> Outcome<()> {
    if holds { Ok(()) } else { Err(what().into()) }
}

/// Has the lock, after a death too.
fn take(stage: &Stage) -> Outcome<()> {
    match stage.lock.lock_timeout(LIMIT) {
        Ok(_) => Ok(()),
        Err(LockError::OwnerDied(_)) => {
            drop(stage.lock.recover()?.make_consistent());
            Ok(())
        }
        Err(other) => Err(other.into()),
    }
}

/// The victim and its stage.
struct Scene {
    op: Op,
    stage: Stage,
    child: Process<()>,
    /// The other end of its pipe.
    end: Option<End>,
    /// After so many instructions it dies.
    deadly: u64,
    survived: Option<u64>,
}

/// Runs the operation with its `deadly`-th instruction as the last.
pub fn run(op: Op, deadly: u64) -> Outcome<Run> {
    let stage = Stage::new()?;
    let (end, theirs): (Option<End>, Option<End>) = if matches!(op, Op::Send | Op::Recv) {
        let (mine, theirs) = multiproc::PipeBuilder::new().codec::<Raw>().ring_bytes(16 << 10).pipe()?;
        (Some(mine), Some(theirs))
    } else {
        (None, None)
    };
    if let (Op::Recv, Some(end)) = (op, &end) {
        while end.try_send(message(op)).is_ok() {}
    }
    let child = Process::spawn((op, stage.clone(), theirs), victim::run)?;
    let mut scene = Scene { op, stage, child, end, deadly, survived: None };
    let checked = thread::scope(|scope| scene.play(scope)).and_then(|()| scene.ends());
    // Whatever went wrong, it does not stay.
    let _ = scene.child.kill();
    checked?;
    Ok(Run { survived: scene.survived })
}

impl Scene {
    fn play<'s>(&mut self, scope: &'s Scope<'s, '_>) -> Outcome<()> {
        let (stage, child) = (&self.stage, &self.child);
        eventually("the victim is ready", || stage.is_ready() || child.has_ended())?;
        let stage = self.stage.clone();
        match self.op {
            // Who cleans up would find the lock as well: this is the kernel's part.
            Op::Lock | Op::FirstLock => self.kill_without_cleaner(|| take(&stage)),
            Op::Unlock => {
                let waiter = Waiter::start(scope, move || take(&stage).map_err(|e| e.to_string()))?;
                self.kill_without_cleaner(|| waiter.goes_on())?.map_err(Into::into)
            }
            Op::Put | Op::FirstPut | Op::PutBlock => self.put(scope),
            Op::Get | Op::GetBlock => self.get(scope),
            Op::Lease => {
                stage.queue.put(message(self.op))?;
                self.kill_and_clean()?;
                let again = stage.queue.get_timeout(LIMIT)?;
                demand(again == message(self.op), || "another message came back".into())?;
                eventually("nothing is on lease", || stage.queue.unfinished() == 0)
            }
            Op::Ack => {
                let queue = stage.queue.clone();
                let waiter = Waiter::start(scope, move || queue.join_timeout(LIMIT))?;
                self.kill_and_clean()?;
                let mut again = 0;
                eventually("the joiner goes on", || {
                    again += u32::from(stage.queue.try_get().is_ok());
                    waiter.is_over()
                })?;
                waiter.goes_on()??;
                demand(again <= u32::from(self.survived.is_none()), || format!("delivered {again} times again"))
            }
            Op::Send => self.send(scope),
            Op::Recv => {
                let end = self.end.as_ref().expect("a pipe").clone();
                let waiter = Waiter::start(scope, move || end.send_timeout(message(Op::Recv), LIMIT))?;
                match self.kill_without_cleaner(|| waiter.goes_on())? {
                    Err(e) if !e.is_broken_pipe() => Err(e.to_string().into()),
                    _ => Ok(()),
                }
            }
            Op::Acquire => {
                self.kill_and_clean()?;
                drop(stage.permits.acquire_timeout(LIMIT)?);
                eventually("the permit is back", || stage.permits.available() == 1)
            }
            Op::Release => {
                let permits = stage.permits.clone();
                let waiter = Waiter::start(scope, move || permits.acquire_timeout(LIMIT).map(drop))?;
                self.kill_and_clean()?;
                waiter.goes_on()??;
                eventually("the permit is back", || stage.permits.available() == 1)
            }
            Op::Set => {
                let event = stage.event.clone();
                let waiter = Waiter::start(scope, move || event.wait_timeout(LIMIT))?;
                self.kill_without_cleaner(|| {
                    if !waiter.settles(|| !stage.event.is_set())? {
                        stage.event.set()?;
                    }
                    demand(waiter.goes_on()??, || "the waiter's time was up".into())
                })?;
                demand(stage.event.is_set(), || "the event is not set".into())
            }
            Op::Store => {
                self.kill_and_clean()?;
                let value = stage.value.get()?;
                let whole = value == [2; 4] || value == [1; 4] && self.survived.is_none();
                demand(whole, || format!("the value is {value:?}"))?;
                stage.value.set([3; 4])?;
                demand(stage.value.get()? == [3; 4], || "the value cannot be stored any more".into())
            }
        }
    }

    /// Lets the victim go through its operation, up to its end.
    fn kill(&mut self) -> Outcome<()> {
        let traced = Traced::seize(self.child.pid())?;
        self.stage.go.set()?;
        traced.await_begin()?;
        match traced.step(self.deadly, || self.stage.is_over())? {
            Stepped::So => self.child.kill()?,
            Stepped::Over(steps) => {
                self.survived = Some(steps);
                traced.let_go()?;
            }
        }
        // Not by the library, which may clean up first.
        let stat = format!("/proc/{}/stat", self.child.pid());
        let is_dead = || matches!(state(&stat), None | Some('Z' | 'X'));
        eventually("the victim dies", || self.survived.is_some() || is_dead())
    }

    /// What the library makes of the victim's end.
    fn ends(&self) -> Outcome<()> {
        let end = self.child.wait_timeout(LIMIT).ok_or("the victim does not end")?;
        demand(end.success() == self.survived.is_some(), || format!("the victim has ended with {end}"))
    }

    /// The same, and the library has had its turn.
    fn kill_and_clean(&mut self) -> Outcome<()> {
        self.kill()?;
        self.ends()
    }

    /// The same; `check` sees what the kernel alone does for the dead.
    fn kill_without_cleaner<R>(&mut self, check: impl FnOnce() -> Outcome<R>) -> Outcome<R> {
        let held = testing::hold_collections()?;
        self.kill()?;
        let checked = check();
        drop(held);
        checked
    }

    fn put<'s>(&mut self, scope: &'s Scope<'s, '_>) -> Outcome<()> {
        let (queue, sent) = (self.stage.queue.clone(), message(self.op));
        let getter = queue.clone();
        let waiter = Waiter::start(scope, move || getter.get_timeout(LIMIT))?;
        let (got, rescued) = self.kill_without_cleaner(|| {
            let rescued = !waiter.settles(|| queue.is_empty())?;
            if rescued {
                queue.put_timeout(vec![RESCUE], LIMIT)?;
            }
            Ok((waiter.goes_on()??, rescued))
        })?;
        let wanted = if rescued { vec![RESCUE] } else { sent };
        demand(got == wanted, || format!("the getter has {} bytes of {:?}", got.len(), got.first()))?;
        demand(!rescued || self.survived.is_none(), || "what was put is not there".into())?;
        demand(queue.is_empty(), || "there is more than was put".into())?;
        queue.put_timeout(vec![NEXT], LIMIT)?;
        demand(queue.get_timeout(LIMIT)? == [NEXT], || "another message".into())
    }

    fn get<'s>(&mut self, scope: &'s Scope<'s, '_>) -> Outcome<()> {
        let (queue, sent) = (self.stage.queue.clone(), message(self.op));
        queue.put(sent.clone())?;
        let putter = queue.clone();
        let waiter = Waiter::start(scope, move || putter.put_timeout(vec![NEXT], LIMIT))?;
        let still_there = self.kill_without_cleaner(|| {
            let still_there = !waiter.settles(|| queue.len() == 1)?;
            if still_there {
                let first = queue.get_timeout(LIMIT)?;
                demand(first == sent, || format!("the queue has {} bytes of {:?}", first.len(), first.first()))?;
            }
            waiter.goes_on()?.map_err(|e| e.to_string())?;
            Ok(still_there)
        })?;
        demand(queue.get_timeout(LIMIT)? == [NEXT], || "another message".into())?;
        demand(queue.is_empty(), || "there is more than was put".into())?;
        testing::collect()?;
        let lost = queue.take_losses();
        let most = u32::from(!still_there && self.survived.is_none());
        demand(lost <= most, || format!("{lost} are said to be lost"))
    }

    fn send<'s>(&mut self, scope: &'s Scope<'s, '_>) -> Outcome<()> {
        let end = self.end.as_ref().expect("a pipe").clone();
        end.recv_timeout(LIMIT)?;
        let receiver = end.clone();
        let waiter = Waiter::start(scope, move || receiver.recv_timeout(LIMIT))?;
        let got = self.kill_without_cleaner(|| waiter.goes_on())?;
        let after = match got {
            Ok(bytes) => {
                demand(bytes == message(self.op), || format!("received {} bytes of {:?}", bytes.len(), bytes.first()))?;
                end.recv_timeout(LIMIT)
            }
            other => {
                demand(self.survived.is_none(), || "what was sent is not there".into())?;
                other
            }
        };
        demand(matches!(&after, Err(RecvError::Eof | RecvError::PeerDied { .. })), || format!("{after:?} from the dead"))
    }
}
