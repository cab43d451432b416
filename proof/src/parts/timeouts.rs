//! Time-outs: every blocking call with a limit of time, on an idle machine, beside two processes that take all processors, and in a storm of signals.
//!
//! A call that comes back before its time is a broken promise, and so is one that comes half a second late; where others use the machine, one that comes ten seconds late,
//! or half a second later than a bare futex half of the time. How late it comes otherwise is a figure, beside what a bare futex and a sleep do in the same run. Limits are
//! counted on the monotonic clock, so that setting the clock changes nothing.

use super::Part;
use super::storms::{Load, QUIET, STALL};
use crate::plan::Plan;
use crate::tally::Tally;
use multiproc::{
    AcquireError, Array, Barrier, BarrierError, BarrierWaitResult, Condition, Event, Lock, LockError, LockGuard, Pool, Process,
    Queue, RLock, ReturnWhen, Semaphore, SignalSemaphore, Value, WaitOn, as_completed, one_way, threads, wait_tasks,
};
use std::error::Error;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub const PART: Part = Part { name: "timeouts", what: "each call with a limit of time: never early, and how late", run };

/// Milliseconds, and how often each is tried in the short form and in the long one.
const LIMITS: [(u64, u64, u64); 4] = [(1, 15, 200), (10, 5, 60), (100, 1, 10), (1000, 0, 2)];
/// How late the 99th of 100 may be, more than a bare futex in the same run.
const BAR_IDLE: Duration = Duration::from_millis(1);
const BAR_LOADED: Duration = Duration::from_millis(20);

/// What is going on meanwhile.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Weather {
    Idle,
    Hogs,
    Alarms,
}

/// A call that waits in vain, and whether it says that its time was up.
struct Call<'a> {
    name: &'static str,
    wait: Box<dyn Fn(Duration) -> bool + 'a>,
}

fn run(plan: &Plan) -> Tally {
    let mut tally = Tally::new(&["calls", "early", "idle p50", "p99", "two hogs p50", "p99", "1 kHz alarms p50", "p99"]);
    if let Err(e) = measure(plan, &mut tally) {
        tally.broken(format!("it cannot be measured: {e}"));
    }
    tally
}

/// What holds the locks.
fn hold((lock, rlock, value, array): (Lock, RLock, Value<u64>, Array<u64>), held: Event) {
    let _lock = lock.lock().expect("the lock is free");
    let _rlock = rlock.lock().expect("the lock is free");
    let _value = value.lock().expect("the value is free");
    let _array = array.lock().expect("the array is free");
    held.set().expect("a worker may set an event");
    sleep();
}

/// Until it is killed.
fn sleep() {
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

fn at(time: Duration) -> Instant {
    Instant::now() + time
}

fn lock_timed_out<G>(locked: Result<G, LockError>) -> bool {
    matches!(locked, Err(LockError::TimedOut))
}

fn acquire_timed_out<P>(acquired: Result<P, AcquireError>) -> bool {
    matches!(acquired, Err(AcquireError::TimedOut))
}

/// Of a wait at a condition: its time was up, and it has the lock.
fn condition_timed_out(waited: Result<(LockGuard<'_>, bool), LockError>) -> bool {
    waited.is_ok_and(|(_, came)| !came)
}

fn barrier_timed_out(passed: Result<BarrierWaitResult, BarrierError>) -> bool {
    matches!(passed, Err(BarrierError::TimedOut))
}

fn spin() {
    loop {
        std::hint::spin_loop();
    }
}

fn measure(plan: &Plan, tally: &mut Tally) -> Result<(), Box<dyn Error>> {
    let (lock, rlock, value, array) = (Lock::new()?, RLock::new()?, Value::new(0_u64)?, Array::<u64>::zeroed(2)?);
    let held = Event::new()?;
    let guarded = (lock.clone(), rlock.clone(), value.clone(), array.clone());
    let holder = Process::spawn((guarded, held.clone()), hold)?;
    held.wait()?;
    let (full, empty) = (Queue::<u32>::bounded(1)?, Queue::<u32>::bounded(1)?);
    full.put(1)?;
    let dead = empty.dead()?;
    let (stuffed, _kept) = one_way::<Vec<u8>>()?;
    while stuffed.try_send(vec![0; 4096]).is_ok() {}
    let (_kept_too, silent) = one_way::<Vec<u8>>()?;
    let (never, permits, signals) = (Event::new()?, Semaphore::new(1)?, SignalSemaphore::new(0)?);
    let _permit = permits.acquire()?;
    let (condition, barrier) = (Condition::new()?, Barrier::new(2)?);
    let pool = Pool::new(1)?;
    let mut task = pool.submit((never.clone(),), |never: Event| never.wait().expect("a worker may wait"))?;
    let others = [pool.submit((), || ())?];
    let (task, sleeper) = (std::cell::RefCell::new(&mut task), std::cell::RefCell::new(Process::spawn((), sleep)?));
    let as_they_end = std::cell::RefCell::new(as_completed([pool.submit((), || ())?]));
    let thread = threads::spawn((never.clone(),), |never: Event| never.wait().expect("a thread may wait"))?;
    let thread = std::cell::RefCell::new(thread);
    let descriptor = std::os::unix::net::UnixStream::pair()?;

    let call = |name, wait: Box<dyn Fn(Duration) -> bool>| Call { name, wait };
    let guard = || condition.lock().expect("nobody dies with the lock");
    // The borrow of what is waited for is as long as the calls.
    fn of<'a>(name: &'static str, wait: impl Fn(Duration) -> bool + 'a) -> Call<'a> {
        Call { name, wait: Box::new(wait) }
    }
    let calls = [
        call(
            "thread::sleep",
            Box::new(|time| {
                thread::sleep(time);
                true
            }),
        ),
        call("a bare futex", Box::new(futex)),
        of("Queue::put_timeout", |time| full.put_timeout(2, time).is_err_and(|e| e.is_timeout())),
        of("Queue::put_deadline", |time| full.put_deadline(2, at(time)).is_err_and(|e| e.is_timeout())),
        of("Queue::put_many_timeout", |time| full.put_many_timeout([2, 3], time).is_err_and(|e| e.error().is_timeout())),
        of("Queue::get_timeout", |time| empty.get_timeout(time).is_err_and(|e| e.is_timeout())),
        of("Queue::get_deadline", |time| empty.get_deadline(at(time)).is_err_and(|e| e.is_timeout())),
        of("Queue::get_many_timeout", |time| empty.get_many_timeout(2, time).is_err_and(|e| e.is_timeout())),
        of("Queue::lease_timeout", |time| empty.lease_timeout(time).is_err_and(|e| e.is_timeout())),
        of("Queue::join_timeout", |time| full.join_timeout(time).is_err_and(|e| e.is_timeout())),
        of("Queue::join_deadline", |time| full.join_deadline(at(time)).is_err_and(|e| e.is_timeout())),
        of("DeadLetters::get_timeout", |time| dead.get_timeout(time).is_err_and(|e| e.is_timeout())),
        of("PipeSender::send_timeout", |time| stuffed.send_timeout(vec![0; 4096], time).is_err_and(|e| e.is_timeout())),
        of("PipeSender::send_deadline", |time| stuffed.send_deadline(vec![0; 4096], at(time)).is_err_and(|e| e.is_timeout())),
        of("PipeSender::send_bytes_timeout", |time| stuffed.send_bytes_timeout(&[0; 4096], time).is_err_and(|e| e.is_timeout())),
        of("PipeReceiver::recv_timeout", |time| silent.recv_timeout(time).is_err_and(|e| e.is_timeout())),
        of("PipeReceiver::recv_deadline", |time| silent.recv_deadline(at(time)).is_err_and(|e| e.is_timeout())),
        of("PipeReceiver::recv_bytes_timeout", |time| silent.recv_bytes_timeout(time).is_err_and(|e| e.is_timeout())),
        of("PipeReceiver::poll", |time| matches!(silent.poll(time), Ok(false))),
        of("Lock::lock_timeout", |time| lock_timed_out(lock.lock_timeout(time))),
        of("Lock::lock_deadline", |time| lock_timed_out(lock.lock_deadline(at(time)))),
        of("RLock::lock_timeout", |time| lock_timed_out(rlock.lock_timeout(time))),
        of("RLock::lock_deadline", |time| lock_timed_out(rlock.lock_deadline(at(time)))),
        of("Value::lock_timeout", |time| lock_timed_out(value.lock_timeout(time))),
        of("Array::lock_timeout", |time| lock_timed_out(array.lock_timeout(time))),
        of("Event::wait_timeout", |time| matches!(never.wait_timeout(time), Ok(false))),
        of("Event::wait_deadline", |time| matches!(never.wait_deadline(at(time)), Ok(false))),
        of("Semaphore::acquire_timeout", |time| acquire_timed_out(permits.acquire_timeout(time))),
        of("Semaphore::acquire_deadline", |time| acquire_timed_out(permits.acquire_deadline(at(time)))),
        of("Semaphore::acquire_owned_timeout", |time| acquire_timed_out(permits.acquire_owned_timeout(time))),
        of("SignalSemaphore::acquire_timeout", |time| acquire_timed_out(signals.acquire_timeout(time))),
        of("SignalSemaphore::acquire_deadline", |time| acquire_timed_out(signals.acquire_deadline(at(time)))),
        of("Condition::wait_timeout", |time| condition_timed_out(condition.wait_timeout(guard(), time))),
        of("Condition::wait_deadline", |time| condition_timed_out(condition.wait_deadline(guard(), at(time)))),
        of("Condition::wait_for_timeout", |time| condition_timed_out(condition.wait_for_timeout(guard(), time, || false))),
        of("Condition::wait_for_deadline", |time| condition_timed_out(condition.wait_for_deadline(guard(), at(time), || false))),
        of("Barrier::wait_timeout", |time| barrier_timed_out(barrier.wait_timeout(time)) && barrier.reset().is_ok()),
        of("Barrier::wait_deadline", |time| barrier_timed_out(barrier.wait_deadline(at(time))) && barrier.reset().is_ok()),
        of("Barrier::with_timeout", |time| Barrier::with_timeout(2, time).is_ok_and(|barrier| barrier_timed_out(barrier.wait()))),
        of("Barrier::wait_with_timeout", |time| {
            barrier_timed_out(barrier.wait_with_timeout(time, || ())) && barrier.reset().is_ok()
        }),
        of("Process::join_timeout", |time| matches!(sleeper.borrow_mut().join_timeout(time), Ok(None))),
        of("Process::join_deadline", |time| matches!(sleeper.borrow_mut().join_deadline(at(time)), Ok(None))),
        of("Process::wait_timeout", |time| sleeper.borrow().wait_timeout(time).is_none()),
        of("Process::wait_deadline", |time| sleeper.borrow().wait_deadline(at(time)).is_none()),
        of("threads::Process::join_timeout", |time| matches!(thread.borrow_mut().join_timeout(time), Ok(None))),
        of("threads::Process::join_deadline", |time| matches!(thread.borrow_mut().join_deadline(at(time)), Ok(None))),
        of("threads::Process::wait_timeout", |time| thread.borrow().wait_timeout(time).is_none()),
        of("threads::Process::wait_deadline", |time| thread.borrow().wait_deadline(at(time)).is_none()),
        of("Task::join_timeout", |time| matches!(task.borrow_mut().join_timeout(time), Ok(None))),
        of("Task::join_deadline", |time| matches!(task.borrow_mut().join_deadline(at(time)), Ok(None))),
        of("Task::wait_timeout", |time| !task.borrow().wait_timeout(time)),
        of("AsCompleted::next_timeout", |time| {
            let mut left = as_they_end.borrow_mut();
            left.next_timeout(time).is_none() && left.remaining() == 1
        }),
        of("wait_tasks", |time| wait_tasks(&others, ReturnWhen::All, Some(time)).is_empty()),
        of("wait_timeout, of words", |time| {
            let things: [&dyn WaitOn; 3] = [&never, &silent, &*sleeper.borrow()];
            multiproc::wait_timeout(&things, time).is_ok_and(|ready| ready.is_empty())
        }),
        of("wait_timeout, with a descriptor", |time| {
            let things: [&dyn WaitOn; 2] = [&never, &descriptor.0];
            multiproc::wait_timeout(&things, time).is_ok_and(|ready| ready.is_empty())
        }),
        of("wait_deadline, of words", |time| {
            let things: [&dyn WaitOn; 3] = [&never, &silent, &*sleeper.borrow()];
            multiproc::wait_deadline(&things, at(time)).is_ok_and(|ready| ready.is_empty())
        }),
    ];

    let mut rows: Vec<(u64, u64, Vec<Duration>)> = calls.iter().map(|_| (0, 0, Vec::new())).collect();
    for weather in [Weather::Idle, Weather::Hogs, Weather::Alarms] {
        let made = Made::new(weather)?;
        let load = Load::begin(made.pids());
        let before = ALARMS.load(Ordering::Relaxed);
        let (mut bare, mut bare_half) = (Duration::ZERO, Duration::ZERO);
        let mut all = Vec::new();
        for (call, row) in calls.iter().zip(&mut rows) {
            let mut late = Vec::new();
            for (ms, short, long) in LIMITS {
                let time = Duration::from_millis(ms);
                for _ in 0..plan.count(short, long) {
                    let meanwhile = load.anew();
                    let begin = Instant::now();
                    let timed_out = (call.wait)(time);
                    let took = begin.elapsed();
                    row.0 += 1;
                    row.1 += u64::from(took < time);
                    tally.check(took >= time, || format!("{} of {ms} ms came back after {took:?}", call.name));
                    tally.check(timed_out, || format!("{} of {ms} ms does not say that its time was up", call.name));
                    let over = took.saturating_sub(time);
                    tally.check(!meanwhile.is_stall(over, 1), || format!("{} of {ms} ms came back {over:?} late", call.name));
                    late.push(over);
                }
            }
            late.sort_unstable();
            if call.name == "a bare futex" {
                (bare_half, bare) = (percentile(&late, 50), percentile(&late, 99));
            }
            let half = percentile(&late, 50);
            // Whatever others use: a bare futex waits for a core as long.
            tally
                .check(half.saturating_sub(bare_half) <= STALL, || format!("{}: half of all came back {half:?} late", call.name));
            row.2.extend([half, percentile(&late, 99)]);
            all.append(&mut late);
        }
        all.sort_unstable();
        let p99 = percentile(&all, 99);
        let over = p99.saturating_sub(bare);
        let (name, bar) = match weather {
            Weather::Idle => ("idle", Some(BAR_IDLE)),
            Weather::Hogs => ("two hogs", Some(BAR_LOADED)),
            Weather::Alarms => ("alarms", None),
        };
        tally.note(format!("{name}: all p99 {}, {} over a bare futex", us(p99), us(over)));
        if let Some(bar) = bar {
            match load.of_others() {
                others if others > QUIET && over > bar => {
                    tally.skip(format!("{name}: how late was not judged, since others used {others} % of the machine"));
                }
                _ => tally.bar(plan, format!("{name}: the 99th of 100 over a bare futex"), over, bar),
            }
        }
        if weather == Weather::Alarms {
            let signals = ALARMS.load(Ordering::Relaxed) - before;
            tally.note(format!("alarms: {signals} signals"));
            tally.check(signals > 500, || format!("the storm was one of {signals} signals"));
        }
    }
    for (call, (count, early, late)) in calls.iter().zip(rows) {
        tally.row(call.name, [count.to_string(), early.to_string()].into_iter().chain(late.into_iter().map(us)));
    }
    never.set()?;
    holder.kill()?;
    sleeper.borrow().kill()?;
    Ok(())
}

fn us(time: Duration) -> String {
    format!("{} us", time.as_micros())
}

/// Of times in order.
fn percentile(times: &[Duration], of_100: usize) -> Duration {
    times.get((times.len() * of_100 / 100).min(times.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// FUTEX_WAIT on a word that nobody changes.
fn futex(time: Duration) -> bool {
    let word = AtomicU32::new(0);
    let until = Instant::now() + time;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        let left =
            libc::timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: i64::from(left.subsec_nanos()) };
        // SAFETY: the word and the time are alive.
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG, 0, &raw const left) };
    }
}

static ALARMS: AtomicU64 = AtomicU64::new(0);

extern "C" fn on_alarm(_: libc::c_int) {
    // Relaxed: a counter.
    ALARMS.fetch_add(1, Ordering::Relaxed);
}

/// The weather, until it is dropped.
struct Made {
    hogs: Vec<Process<()>>,
    alarms: bool,
}

impl Made {
    /// Of the hogs.
    fn pids(&self) -> impl Iterator<Item = i32> {
        self.hogs.iter().map(|hog| hog.pid() as i32)
    }

    fn new(weather: Weather) -> Result<Made, Box<dyn Error>> {
        let mut made = Made { hogs: Vec::new(), alarms: weather == Weather::Alarms };
        match weather {
            Weather::Idle => {}
            Weather::Hogs => {
                for _ in 0..2 {
                    made.hogs.push(Process::spawn((), spin)?);
                }
            }
            Weather::Alarms => {
                // SAFETY: numbers.
                let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
                // Without SA_RESTART: each signal ends what the thread sleeps in.
                action.sa_sigaction = on_alarm as extern "C" fn(libc::c_int) as usize;
                // SAFETY: the handler does nothing but count.
                unsafe { libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()) };
                alarm_each(1000);
            }
        }
        Ok(made)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if self.alarms {
            alarm_each(0);
        }
        for hog in self.hogs.drain(..) {
            // Fails when somebody else has ended it.
            let _ = hog.kill();
            let _ = hog.join();
        }
    }
}

/// So many microseconds lie between alarms; none for 0.
fn alarm_each(micros: i64) {
    let time = libc::timeval { tv_sec: 0, tv_usec: micros };
    let timer = libc::itimerval { it_interval: time, it_value: time };
    // SAFETY: a timer that is alive.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) };
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::{Path, PathBuf};

    /// These set a limit for later.
    const SETTINGS: [&str; 3] = ["idle_timeout", "shutdown_timeout", "task_timeout"];

    fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
        for path in fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()) {
            match path.is_dir() {
                true => sources(&path, found),
                false => found.extend(path.extension().is_some_and(|e| e == "rs").then_some(path)),
            }
        }
    }

    #[test]
    fn each_call_with_a_time_out_is_tried() {
        let mut files = Vec::new();
        for krate in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../crates")).unwrap() {
            sources(&krate.unwrap().path().join("src"), &mut files);
        }
        let texts: Vec<String> = files.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
        let public = texts.iter().flat_map(|text| text.split("pub fn ").skip(1));
        let names = public.filter_map(|rest| rest.split(|c: char| c != '_' && !c.is_alphanumeric()).next());
        let limited = |name: &str| name.ends_with("_timeout") || name.ends_with("_deadline");
        let mut defined = BTreeMap::new();
        for name in names.filter(|name| limited(name) && *name != "is_timeout" && !SETTINGS.contains(name)) {
            *defined.entry(name).or_insert(0) += 1;
        }
        assert!(defined.len() > 25 && defined.keys().any(|name| name.ends_with("_deadline")), "{defined:?}");
        let here = include_str!("timeouts.rs");
        // As often as there are functions of the name: of a type each.
        let tried = |name: &str| [".", "::"].iter().map(|by| here.matches(&format!("{by}{name}(")).count()).sum::<usize>();
        let missing: Vec<_> = defined.iter().filter(|(name, times)| tried(name) < **times).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
