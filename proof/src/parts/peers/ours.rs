//! The same scenarios on multiproc. Each case is a program that prints "progress" when the rest goes on, and why not when it ends otherwise.

use multiproc::{Condition, Event, Lock, LockError, Pool, Process, ProcessError, Queue, Sender, SharedMemory, Signal, one_way};
use std::error::Error;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// Asks this program for a case in place of the proof.
pub const CASE: &str = "PROOF_CASE";
/// What names are made of.
pub const MARK: &str = "PROOF_MARK";

/// Runs the case that the environment asks for, if it asks for one, and exits.
pub fn run_if_asked() {
    let Ok(case) = std::env::var(CASE) else { return };
    let result = match case.as_str() {
        "idle_worker" => idle_worker(),
        "busy_worker" => busy_worker(),
        "lock" => lock(),
        "reader" => reader(),
        "event" => event(),
        "orphans" => orphans(),
        "coordinator" => coordinator(),
        "big_arguments" => big_arguments(),
        "other_calls" => other_calls(),
        "condition" => condition(),
        "stranded" => stranded(),
        "receiver_killed" => receiver_killed(),
        "sender_killed" => sender_killed(),
        "child_without_connection" => child_without_connection(),
        "reserved" => reserved(),
        "stale_name" => stale_name(),
        "crowd" => crowd(),
        "member_of_the_crowd" => member_of_the_crowd(),
        _ => Err("no such case".into()),
    };
    let (word, code) = match result {
        Ok(()) => ("progress".into(), 0),
        Err(e) => (e.to_string(), 3),
    };
    println!("{word}");
    std::process::exit(code)
}

fn state(pid: u32) -> Option<char> {
    fs::read_to_string(format!("/proc/{pid}/stat")).ok()?.rsplit_once(") ")?.1.chars().next()
}

/// Waits until it sleeps, and goes on sleeping.
fn settle(pid: u32) {
    let mut asleep = 0;
    while asleep < 10 {
        thread::sleep(Duration::from_millis(1));
        asleep = if state(pid) == Some('S') { asleep + 1 } else { 0 };
    }
}

fn sleep() {
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

/// Kills it, and waits for its end.
fn kill(process: Process<()>) -> Result {
    process.kill()?;
    match process.join() {
        Err(ProcessError::Signaled { signal: Signal::KILL, .. }) => Ok(()),
        other => Err(format!("the victim: {other:?}").into()),
    }
}

/// This program, for another case.
fn program(case: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.env(CASE, case);
    command
}

fn die() {
    let me = i32::try_from(std::process::id()).expect("a pid");
    // SAFETY: numbers.
    unsafe { libc::kill(me, libc::SIGKILL) };
}

fn idle_worker() -> Result {
    let pool = Pool::new(1)?;
    pool.apply((1_u32,), |n| n)?;
    let victim = *pool.pids().first().ok_or("no worker")?;
    settle(victim);
    // SAFETY: numbers; the pool has not waited for its worker.
    unsafe { libc::kill(i32::try_from(victim)?, libc::SIGKILL) };
    match pool.submit((2_u32,), |n| n)?.join() {
        Ok(2) => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

fn busy_worker() -> Result {
    let pool = Pool::new(1)?;
    match pool.submit((), die)?.join() {
        Err(e) if e.signal() == Some(Signal::KILL) => {}
        other => return Err(format!("{other:?}").into()),
    }
    pool.apply((), || ())?;
    Ok(())
}

fn hold(lock: Lock, told: Event) {
    let _guard = lock.lock().expect("the lock is free");
    told.set().expect("a worker may set an event");
    sleep();
}

fn lock() -> Result {
    let (lock, told) = (Lock::new()?, Event::new()?);
    let victim = Process::spawn((lock.clone(), told.clone()), hold)?;
    told.wait()?;
    kill(victim)?;
    match lock.lock() {
        Err(LockError::OwnerDied(_)) => {}
        Ok(_) => return Err("the death is not told".into()),
        Err(e) => return Err(e.into()),
    }
    drop(lock.recover()?.make_consistent());
    drop(lock.lock()?);
    Ok(())
}

fn reader() -> Result {
    let queue = Queue::<u32>::bounded(8)?;
    let victim = Process::spawn((queue.clone(),), |queue: Queue<u32>| drop(queue.get()))?;
    settle(victim.pid());
    kill(victim)?;
    queue.put(1)?;
    queue.put(2)?;
    if (queue.get()?, queue.get()?) != (1, 2) {
        return Err("a message is lost".into());
    }
    Ok(())
}

fn event() -> Result {
    let event = Event::new()?;
    let waiter = |event: &Event| Process::spawn((event.clone(),), |event: Event| event.wait().expect("a worker may wait"));
    let victim = waiter(&event)?;
    settle(victim.pid());
    kill(victim)?;
    let other = waiter(&event)?;
    settle(other.pid());
    event.set()?;
    other.join()?;
    Ok(())
}

/// A coordinator whose workers have something to do.
fn coordinator() -> Result {
    let pool = Pool::new(2)?;
    pool.map(0..20_u32, |n| n)?;
    let pids: Vec<String> = pool.pids().iter().map(u32::to_string).collect();
    println!("{}", pids.join(" "));
    sleep();
    Ok(())
}

fn orphans() -> Result {
    let mut parent = program("coordinator").stdout(Stdio::piped()).spawn()?;
    let workers = line(&mut parent)?;
    let workers: Vec<u32> = workers.split_whitespace().map(str::parse).collect::<std::result::Result<_, _>>()?;
    if workers.len() != 2 {
        return Err("no workers".into());
    }
    parent.kill()?;
    parent.wait()?;
    while workers.iter().any(|pid| !matches!(state(*pid), None | Some('Z' | 'X'))) {
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// The first line that a program says.
fn line(child: &mut Child) -> Result<String> {
    let mut line = String::new();
    let out = child.stdout.take().ok_or("no stdout")?;
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line)?;
    Ok(line)
}

fn big_arguments() -> Result {
    let pool = Pool::new(2)?;
    let data = "a".repeat((4 << 20) + 1);
    let tasks: Vec<_> =
        (0..10).map(|_| pool.submit((data.clone(),), |_: String| die())).collect::<std::result::Result<_, _>>()?;
    for task in tasks {
        match task.join() {
            Err(e) if e.signal() == Some(Signal::KILL) => {}
            other => return Err(format!("{other:?}").into()),
        }
    }
    pool.apply((), || ())?;
    Ok(())
}

fn other_calls() -> Result {
    let pool = Pool::new(2)?;
    let other = || pool.submit((), || thread::sleep(Duration::from_millis(50)));
    let mut others = (0..5).map(|_| other()).collect::<std::result::Result<Vec<_>, _>>()?;
    let victim = pool.submit((), die)?;
    others.extend((0..5).map(|_| other()).collect::<std::result::Result<Vec<_>, _>>()?);
    for task in others {
        task.join()?;
    }
    if victim.join().is_ok() {
        return Err("the victim has a value".into());
    }
    Ok(())
}

fn condition() -> Result {
    let condition = Condition::new()?;
    let waiter = || -> Result<Process<()>> {
        let process = Process::spawn((condition.clone(),), |condition: Condition| {
            let guard = condition.lock().expect("nobody dies with the lock");
            drop(condition.wait(guard).expect("nobody dies with the lock"));
        })?;
        while condition.waiting() == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        settle(process.pid());
        Ok(process)
    };
    kill(waiter()?)?;
    for _ in 0..3 {
        let other = waiter()?;
        {
            let guard = condition.lock()?;
            condition.notify_one(&guard)?;
            condition.notify_all(&guard)?;
        }
        other.join()?;
    }
    Ok(())
}

fn pin(cpu: usize) {
    // SAFETY: bits.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: below its size.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: a set that is alive. Refused where there is no such processor, which only makes the case easier.
    unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) };
}

fn lock_and_unlock(lock: Lock, cpu: usize, idle: bool) {
    pin(cpu);
    if idle {
        let none = libc::sched_param { sched_priority: 0 };
        // SAFETY: a parameter that is alive.
        unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &none) };
    }
    drop(lock.lock().expect("nobody dies with the lock"));
}

/// A is woken by an unlock and killed before it runs, while another has the lock again; C goes on.
fn stranded() -> Result {
    pin(1);
    let lock = Lock::new()?;
    let guard = lock.lock()?;
    let a = Process::spawn((lock.clone(), 0_usize, true), lock_and_unlock)?;
    settle(a.pid());
    let c = Process::spawn((lock.clone(), 1_usize, false), lock_and_unlock)?;
    settle(c.pid());
    let hog = Process::spawn((), || {
        pin(0);
        loop {
            std::hint::spin_loop();
        }
    })?;
    thread::sleep(Duration::from_millis(2));
    drop(guard);
    let guard = lock.lock()?;
    a.kill()?;
    // It does not come to run its own code any more, but has to run to be taken apart.
    hog.kill()?;
    let _: std::result::Result<(), _> = hog.join();
    // It may have come through before it was killed.
    let _ = a.join();
    drop(guard);
    c.join()?;
    Ok(())
}

fn receiver_killed() -> Result {
    let (sender, receiver) = one_way::<Vec<u8>>()?;
    let victim = Process::spawn((receiver,), |receiver: multiproc::PipeReceiver<Vec<u8>>| while receiver.recv().is_ok() {})?;
    let killer = thread::spawn(move || {
        thread::sleep(Duration::from_millis(40));
        let _ = victim.kill();
    });
    // Without optimisation each byte takes its time.
    let message = vec![7; if cfg!(debug_assertions) { 1 << 20 } else { 32 << 20 }];
    let told = loop {
        if let Err(e) = sender.send(message.clone()) {
            break e.is_broken_pipe();
        }
    };
    let _ = killer.join();
    if told { Ok(()) } else { Err("another error than a broken pipe".into()) }
}

fn send_until_killed(sender: Sender<Vec<u8>>, bytes: usize) {
    while sender.put(vec![7; bytes]).is_ok() {
        if bytes == 1 {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn sender_killed() -> Result {
    let queue = Queue::<Vec<u8>>::bounded(8)?;
    let other = Process::spawn((queue.sender()?, 1), send_until_killed)?;
    let victim = Process::spawn((queue.sender()?, 8 << 20), send_until_killed)?;
    let killed = thread::spawn(move || {
        thread::sleep(Duration::from_millis(30));
        let killed = victim.kill().is_ok();
        thread::sleep(Duration::from_millis(100));
        killed
    });
    while !killed.is_finished() {
        queue.get()?;
    }
    // All that the victim had put, and then what only the other one puts.
    let mut small = 0;
    while small < 20 {
        small += usize::from(queue.get()?.len() == 1);
    }
    other.kill()?;
    if killed.join().is_ok_and(|killed| killed) { Ok(()) } else { Err("the victim was gone".into()) }
}

fn exit_at_once(_: multiproc::PipeSender<u8>) {
    std::process::exit(0)
}

fn child_without_connection() -> Result {
    let (sender, receiver) = one_way::<u8>()?;
    let child = Process::spawn((sender,), exit_at_once)?;
    let told = receiver.recv();
    match (told, child.join()) {
        (Err(_), Err(ProcessError::Exited { code: 0, .. })) => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

fn put_until_killed(sender: Sender<u64>) {
    while sender.put(1).is_ok() {}
}

/// A producer that does nothing but put is killed at any moment: nobody from outside can say when it has reserved and not published.
fn reserved() -> Result {
    let queue = Queue::<u64>::bounded(64)?;
    let victim = Process::spawn((queue.sender()?,), put_until_killed)?;
    queue.get()?;
    let pause = u64::from(std::process::id()) * 97 % 3000;
    let killed = thread::spawn(move || {
        thread::sleep(Duration::from_micros(pause));
        kill(victim).is_ok()
    });
    while !killed.is_finished() {
        let _ = queue.get_timeout(Duration::from_millis(1));
    }
    // What the victim left may fill the queue, and nobody else takes it.
    while queue.try_get().is_ok() {}
    queue.put(7)?;
    while queue.get()? != 7 {}
    if killed.join().is_ok_and(|killed| killed) { Ok(()) } else { Err("the victim was gone".into()) }
}

fn name() -> String {
    format!("{}-segment", std::env::var(MARK).unwrap_or_else(|_| "proof".into()))
}

/// The only process with a named segment is killed; the next program with that name wants another size.
fn stale_name() -> Result {
    for killed_while_it_begins in [false, true] {
        let mut victim = program("member_of_the_crowd").env("PROOF_STAY", "1").stdout(Stdio::piped()).spawn()?;
        match killed_while_it_begins {
            false => drop(line(&mut victim)?),
            true => thread::sleep(Duration::from_micros(500 + u64::from(std::process::id()) % 40 * 100)),
        }
        victim.kill()?;
        victim.wait()?;
    }
    let segment = SharedMemory::create(Some(&name()), 12)?;
    segment.write_at(0, b"another type")?;
    Ok(())
}

/// After some have been killed, eight programs start at once: all of them come to work.
fn crowd() -> Result {
    for _ in 0..3 {
        let mut victim = program("member_of_the_crowd").env("PROOF_STAY", "1").stdout(Stdio::piped()).spawn()?;
        line(&mut victim)?;
        victim.kill()?;
        victim.wait()?;
    }
    let crowd: Vec<Child> =
        (0..8).map(|_| program("member_of_the_crowd").stdout(Stdio::null()).spawn()).collect::<std::io::Result<_>>()?;
    for mut member in crowd {
        let status = member.wait()?;
        if !status.success() {
            return Err(format!("of 8 processes some cannot begin: {status}").into());
        }
    }
    Ok(())
}

/// Opens the segment that all of the crowd use, or makes it, and starts a process.
fn member_of_the_crowd() -> Result {
    let segment = loop {
        match SharedMemory::open(&name()) {
            Ok(segment) => break segment,
            Err(e) if e.is_not_found() => {}
            Err(e) => return Err(e.into()),
        }
        match SharedMemory::create(Some(&name()), 64) {
            Ok(segment) => break segment,
            Err(e) if e.is_already_exists() => {}
            Err(e) => return Err(e.into()),
        }
    };
    segment.write_at(0, b"here")?;
    Process::spawn((), || ())?.join()?;
    println!("here");
    if std::env::var_os("PROOF_STAY").is_some() {
        sleep();
    }
    Ok(())
}
