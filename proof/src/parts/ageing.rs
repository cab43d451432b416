//! Old age: counters that go round pass their wrap, and thread ids come again within seconds, while workers are killed.
//!
//! The counters are a test of the workspace, `ageing`, for which what is made begins shortly before its counters wrap. Thread ids recur in a pid namespace that has a
//! hundred of them: what stands in a lock as its owner's id is then, a moment later, that of somebody else.

use super::Part;
use crate::plan::Plan;
use crate::tally::Tally;
use crate::tests;
use multiproc::{Lock, LockError, Process, ProcessError, Queue, Receiver, Sender, Signal, Value};
use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

pub const PART: Part = Part { name: "ageing", what: "counters across their wrap, and thread ids that recur, with kills", run };

/// Asks this program for the storm in place of the proof: how many kills, and the seed.
const STORM: &str = "PROOF_RECURRING";
/// The largest thread id in the namespace. The kernel keeps those below 300 for itself once it has gone round.
const IDS: u32 = 400;
/// The kernel that has a `pid_max` for each namespace. Before, writing it would change that of the machine.
const SINCE: (u32, u32) = (6, 14);
/// Nothing comes for so long: somebody hangs.
const STALL: Duration = Duration::from_secs(20);
const WORKERS: usize = 4;

fn run(plan: &Plan) -> Tally {
    let mut tally = Tally::new(&["passed", "failed", "s"]);
    let features = "crash-points,postcard,tracing-bridge";
    tests::run(&["-p", "multiproc-tests", "--features", features, "--test", "ageing"], plan, &mut tally);
    match recurring_ids(plan.count(400, 20_000), plan.random("ageing").u64(..)) {
        Ok(Some(said)) => tally.note(format!("thread ids up to {IDS}: {said}")),
        Ok(None) => tally.skip("thread ids that recur: skipped, this kernel or this user has no pid_max of a namespace"),
        Err(e) => tally.broken(format!("thread ids that recur: {e}")),
    }
    tally
}

fn kernel() -> Option<(u32, u32)> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

/// Runs the storm in a namespace of few ids; `None` where there can be none.
fn recurring_ids(kills: u64, seed: u64) -> Result<Option<String>, Box<dyn Error>> {
    let in_a_namespace = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script]).stdin(Stdio::null());
        command
    };
    let few = format!("echo {IDS} > /proc/sys/kernel/pid_max");
    let possible = || in_a_namespace(&few).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if kernel().is_none_or(|kernel| kernel < SINCE) || !possible() {
        return Ok(None);
    }
    let me = std::env::current_exe()?;
    let script = format!("{few} && exec '{}'", me.display());
    let output = in_a_namespace(&script).env(STORM, format!("{kills} {seed}")).output()?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match output.status.success() {
        true => Ok(Some(said)),
        false => Err(format!("{}: {said} {}", output.status, String::from_utf8_lossy(&output.stderr)).into()),
    }
}

/// Runs the storm if the environment asks for it, and exits.
pub fn run_if_asked() {
    let Ok(asked) = std::env::var(STORM) else { return };
    let mut numbers = asked.split(' ').map(|n| n.parse().unwrap_or(0));
    let (kills, seed) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    match storm(kills, seed) {
        Ok(said) => println!("{said}"),
        Err(e) => {
            println!("seed {seed}: {e}");
            std::process::exit(3);
        }
    }
    std::process::exit(0)
}

/// Takes jobs, counts each under a lock, and tells of it.
fn work(jobs: Receiver<u64>, done: Sender<(u64, u32)>, lock: Lock, count: Value<u64>) {
    while let Ok(job) = jobs.lease() {
        {
            let _guard = match lock.lock() {
                Ok(guard) => guard,
                Err(LockError::OwnerDied(_)) => match lock.recover() {
                    Ok(recovery) => recovery.make_consistent(),
                    Err(e) => panic!("it cannot be recovered: {e}"),
                },
                Err(e) => panic!("the lock: {e}"),
            };
            count.update(|n| *n += 1).expect("a value is always fit for use");
        }
        if done.put((*job, job.attempt())).is_err() {
            return;
        }
        job.ack();
    }
}

/// Kills workers while they work; all jobs are done, none is lost, nobody hangs.
fn storm(kills: u64, seed: u64) -> Result<String, Box<dyn Error>> {
    let mut random = fastrand::Rng::with_seed(seed);
    let (jobs, done) = (Queue::<u64>::bounded(16)?, Queue::<(u64, u32)>::bounded(64)?);
    let (lock, count) = (Lock::new()?, Value::new(0_u64)?);
    let mut seen: HashMap<u32, u64> = HashMap::new();
    let mut hire = || -> Result<Process<()>, Box<dyn Error>> {
        let args = (jobs.receiver()?, done.sender()?, lock.clone(), count.clone());
        let worker = Process::spawn(args, work)?;
        *seen.entry(worker.pid()).or_default() += 1;
        Ok(worker)
    };
    let mut workers = (0..WORKERS).map(|_| hire()).collect::<Result<Vec<_>, _>>()?;
    let (mut put, mut killed, mut again, mut twice) = (0_u64, 0, 0_u64, 0_u64);
    let mut finished: Vec<bool> = Vec::new();
    while killed < kills || finished.iter().any(|done| !done) {
        while killed < kills && jobs.try_put(put).is_ok() {
            put += 1;
            finished.push(false);
        }
        let (job, attempt) = done.get_timeout(STALL).map_err(|e| format!("after {killed} kills nothing comes: {e}"))?;
        let slot = finished.get_mut(usize::try_from(job)?).ok_or("a job that nobody put")?;
        twice += u64::from(std::mem::replace(slot, true));
        again += u64::from(attempt > 1);
        if killed < kills && random.u8(..4) == 0 {
            let at = random.usize(..WORKERS);
            let victim = std::mem::replace(&mut workers[at], hire()?);
            victim.kill()?;
            match victim.join() {
                Err(ProcessError::Signaled { signal: Signal::KILL, .. }) => killed += 1,
                other => return Err(format!("the victim: {other:?}").into()),
            }
        }
    }
    jobs.close()?;
    for worker in workers {
        worker.join()?;
    }
    let lost = jobs.take_losses() + done.take_losses();
    if lost > 0 {
        return Err(format!("{lost} messages are lost").into());
    }
    // A worker holds one job; who is killed with it has it done again, once.
    if twice > again || again > killed {
        return Err(format!("{again} jobs came again and {twice} were told twice after {killed} kills").into());
    }
    let counted = count.get()?;
    if counted < put {
        return Err(format!("{counted} counted of {put}").into());
    }
    let recurred = seen.values().filter(|&&times| times > 1).count();
    let most = seen.values().max().copied().unwrap_or(0);
    if kills > 300 && recurred == 0 {
        return Err("no id has come again".into());
    }
    Ok(format!(
        "{killed} kills, {put} jobs, {again} came again, {twice} told twice, 0 lost; {recurred} of {} process ids came again, one {most} times",
        seen.len()
    ))
}
