//! The pool's own thread: it sleeps until a worker ends, a time comes, or the bell rings, and sees to what follows.

use crate::crew::Verdict;
use crate::error::{PoolErrorKind, TaskError};
use crate::home::{CLOSED, FINISHED, Home, TERMINATED, lock};
use multiproc_process::{Process, Signal};
use multiproc_shm::watching::{WaitOn, wait, wait_timeout};
use multiproc_sys::clock::now_nanos;
use multiproc_sys::memory;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

/// While there is a limit of memory, it is looked after this often: a worker beyond it is killed within 200 ms.
const MEMORY_CHECK: Duration = Duration::from_millis(50);
/// Before a start that has failed is tried again.
const START_AGAIN: Duration = Duration::from_millis(50);

/// No task is looked after more often than this for its time.
const SHORTEST_LOOK: Duration = Duration::from_millis(1);
/// As good as for ever, and told by any clock.
const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The moment `by` after `from`. A time that the clock cannot tell is for ever.
pub(crate) fn later(from: Instant, by: Duration) -> Instant {
    from + by.min(CENTURY)
}

/// When to look again.
#[derive(Debug, Default)]
pub(crate) struct Next(Option<Instant>);

impl Next {
    pub(crate) fn at(&mut self, time: Instant) {
        self.0 = Some(self.0.map_or(time, |next| next.min(time)));
    }

    fn after(&mut self, time: Duration) {
        self.at(later(Instant::now(), time));
    }
}

pub(crate) fn supervise(home: &Arc<Home>) {
    // Whatever happens here, nobody shall wait for it.
    let panicked = catch_unwind(AssertUnwindSafe(|| look_after(home))).is_err();
    if panicked {
        home.dismiss_all();
    }
    // Written to its end before anybody knows that the pool has.
    #[cfg(feature = "trace")]
    {
        home.is_traced.store(false, Ordering::Relaxed);
        drop(lock(&home.trace).take());
    }
    home.advance(FINISHED);
    home.end_all(&|| TaskError::Cancelled);
    home.leave_clients();
    drop(lock(&home.life).take());
}

fn look_after(home: &Arc<Home>) {
    let mut terminated: Option<Instant> = None;
    let mut killed = false;
    loop {
        home.bell.clear();
        let mut next = Next::default();
        // Workers that wait for room to tell something, for an answer, or somebody who wants to be called.
        home.lead.collect_or_call(&**home);
        let ended: Vec<u32> =
            lock(&home.crew).members.iter().filter(|member| member.has_ended()).map(|member| member.index).collect();
        ended.into_iter().for_each(|index| home.bury(index));
        home.try_again(&mut next);
        home.watch_the_clock(&mut next);
        home.watch_memory(&mut next);
        home.watch_stops(&mut next);
        if let Some(by) = *lock(&home.ends_by) {
            if by <= Instant::now() {
                home.advance(TERMINATED);
            } else {
                next.at(by);
            }
        }
        if home.state() >= TERMINATED {
            let since = *terminated.get_or_insert_with(|| {
                home.end_all(&|| TaskError::Cancelled);
                home.signal_all(Signal::TERM);
                Instant::now()
            });
            let _ = home.tasks.close();
            let kill_at = later(since, home.settings.grace);
            if killed || Instant::now() >= kill_at {
                killed = true;
                home.signal_all(Signal::KILL);
            } else {
                next.at(kill_at);
            }
        } else if home.state() == CLOSED && !home.has_work() {
            // Workers leave when the queue has ended.
            let _ = home.tasks.close();
        } else {
            home.staff(&mut next);
        }
        if home.state() >= CLOSED && home.tasks.is_closed() && lock(&home.crew).members.is_empty() {
            break;
        }
        sleep(home, &next);
    }
}

fn sleep(home: &Home, next: &Next) {
    let processes: Vec<Arc<Process<_>>> = lock(&home.crew).members.iter().filter_map(|member| member.process.clone()).collect();
    let mut items: Vec<&dyn WaitOn> = vec![&home.bell];
    items.extend(processes.iter().map(|process| -> &dyn WaitOn { &**process }));
    if home.interest.load(Ordering::SeqCst) > 0 && !home.lead.is_led() {
        items.push(&home.tells);
    }
    let slept = match next.0 {
        None => wait(&items),
        Some(next) => wait_timeout(&items, next.saturating_duration_since(Instant::now())),
    };
    if slept.is_err() {
        // Only a lack of kernel memory.
        thread::sleep(Duration::from_millis(1));
    }
}

impl Home {
    /// Sends tasks again whose pause is over.
    fn try_again(&self, next: &mut Next) {
        let now = Instant::now();
        let due: Vec<_> = {
            let mut later = lock(&self.later);
            let due = later.iter().filter(|(at, _)| *at <= now).map(|(_, id)| *id).collect();
            later.retain(|(at, _)| *at > now);
            later.iter().for_each(|(at, _)| next.at(*at));
            due
        };
        for id in due {
            if let Err(e) = self.put_saved(id) {
                let why = crate::PoolError::because(PoolErrorKind::System, "the task could not be sent again", e);
                let entry = lock(&self.table).remove(id);
                if let Some(entry) = entry {
                    entry.pending.end(crate::table::Ending::Failed(TaskError::Refused(why)));
                    self.nudge();
                    self.look_around();
                }
            }
        }
    }

    /// Kills workers whose task has had its time.
    fn watch_the_clock(&self, next: &mut Next) {
        let mut crew = lock(&self.crew);
        let mut table = lock(&self.table);
        // A task may be started right after this look.
        let Some(shortest) = table.shortest_timeout() else { return };
        next.after(shortest.max(SHORTEST_LOOK));
        let now = now_nanos();
        let mut late = Vec::new();
        for member in &crew.members {
            for level in member.desk.levels().filter(|level| level.is_started()) {
                let (id, since) = (level.task(), level.since());
                let Some(timeout) = table.get(id).and_then(|entry| entry.timeout()) else { continue };
                let ran = Duration::from_nanos(now.saturating_sub(since));
                match timeout.checked_sub(ran) {
                    Some(left) if !left.is_zero() => next.after(left),
                    _ => late.push((member.index, id, timeout)),
                }
            }
        }
        drop(table);
        for (index, id, after) in late {
            if let Some(member) = crew.members.iter_mut().find(|member| member.index == index) {
                member.end_task(id, Verdict::TimedOut(id, after), Signal::KILL);
            }
        }
    }

    /// Kills workers that use too much memory, and has those replaced that use much.
    fn watch_memory(&self, next: &mut Next) {
        let Some(limit) = self.settings.memory_limit else { return };
        next.after(MEMORY_CHECK);
        for member in &mut lock(&self.crew).members {
            let Some(used) = member.pid().and_then(memory::private) else { continue };
            if used > limit.hard {
                member.kill(Verdict::MemoryLimit { used, limit: limit.hard });
            } else if used > limit.soft && !member.leaving {
                member.retire();
            }
        }
    }

    /// Starts workers that are missing, and lets go of those that are too many.
    fn staff(&self, next: &mut Next) {
        let before = self.target.load(Ordering::SeqCst);
        // Workers that wait for tasks and can run nothing meanwhile are made up for, up to as many again.
        let target = before + self.blocked().min(before);
        let open = self.open_tasks();
        let wanted = match self.settings.idle_timeout {
            Some(_) => target.min(open.max(self.kept(next))),
            None => target,
        };
        while self.state() < TERMINATED {
            {
                let crew = lock(&self.crew);
                // Perhaps they have become fewer meanwhile.
                if crew.staff() >= wanted || self.target.load(Ordering::SeqCst) < before {
                    break;
                }
                if let Some(at) = crew.next_start.filter(|at| *at > Instant::now()) {
                    next.at(at);
                    break;
                }
            }
            if let Err(e) = self.hire() {
                if lock(&self.crew).members.is_empty() {
                    let text = "no worker is left, and none can be started";
                    self.give_up(crate::PoolError::because(PoolErrorKind::Broken, text, e));
                    break;
                }
                lock(&self.crew).next_start = Some(Instant::now() + START_AGAIN);
            }
        }
        let mut crew = lock(&self.crew);
        self.short_handed.store(crew.staff() < target, Ordering::Relaxed);
        // Idle ones first.
        while crew.staff() > wanted {
            let mut staying: Vec<_> = crew.members.iter_mut().filter(|member| !member.leaving).collect();
            staying.sort_by_key(|member| !member.desk.is_idle());
            if let Some(member) = staying.first_mut() {
                member.retire();
            }
        }
        // An idle one that has set SIGTERM aside.
        let (now, grace) = (Instant::now(), self.settings.grace);
        for member in crew.members.iter_mut().filter(|member| member.leaving && member.desk.is_idle()) {
            let by = *member.leaves_by.get_or_insert(later(now, grace));
            if by <= now {
                member.signal(Signal::KILL);
            } else {
                next.at(by);
            }
        }
        // One at a time: when no other is about to leave, and none about to begin.
        let before = crew.recycle_before;
        if crew.members.iter().all(|member| !member.leaving && member.is_ready)
            && let Some(old) = crew.members.iter_mut().find(|member| member.index < before)
        {
            old.retire();
            next.after(Duration::ZERO);
        }
    }

    /// How many workers have not been idle for too long.
    fn kept(&self, next: &mut Next) -> usize {
        let Some(timeout) = self.settings.idle_timeout else { return 0 };
        let now = Instant::now();
        let mut kept = 0;
        for member in lock(&self.crew).members.iter_mut().filter(|member| !member.leaving) {
            let last_start = member.desk.level(0).since();
            if !member.desk.is_idle() || !member.is_ready || member.last_start != last_start {
                member.idle_since = None;
                member.last_start = last_start;
            }
            let since = *member.idle_since.get_or_insert(now);
            let left = timeout.saturating_sub(now - since);
            if !left.is_zero() {
                next.after(left);
                kept += 1;
            }
        }
        kept
    }
}
