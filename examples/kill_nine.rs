//! `kill -9` of a worker that holds a lock, a half-made change and a lease: what the others see.
//!
//! Python: with `multiprocessing.Lock` and `Queue` the others block for ever, and the job is lost.
//! Run: `cargo run --example kill_nine`

use multiproc::{Event, Lock, LockError, Process, ProcessError, Queue, Value};

/// Takes everything and keeps it.
fn victim(lock: Lock, balance: Value<i64>, jobs: Queue<String>, ready: Event) {
    let _guard = lock.lock().expect("the lock is free");
    let _lease = jobs.lease().expect("there is a job");
    let mut change = balance.lock().expect("the value is free");
    *change -= 30;
    ready.set().expect("a worker may set an event");
    loop {
        std::thread::park();
    }
}

/// Waits for the lock and the job that the victim has. Tells what it has found.
fn survivor(lock: Lock, balance: Value<i64>, jobs: Queue<String>) -> [String; 3] {
    let found = match lock.lock() {
        Err(LockError::OwnerDied(_)) => {
            let recovery = lock.recover().expect("this thread does not have the lock");
            // Here it would mend what the lock guards.
            drop(recovery.make_consistent());
            "its owner died; recovered".to_owned()
        }
        other => format!("{other:?}"),
    };
    let again = if lock.lock().is_ok() { "fit for use" } else { "unusable" };
    let balance = balance.get().expect("a value is always whole");
    let lease = jobs.lease().expect("the job comes back");
    let attempt = lease.attempt();
    [format!("{found}; {again}"), balance.to_string(), format!("{}, attempt {attempt}", lease.ack())]
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (lock, balance, ready) = (Lock::new()?, Value::new(100)?, Event::new()?);
    let jobs = Queue::<String>::bounded(10)?;
    jobs.put("send the letter".into())?;

    let victim = Process::builder().name("victim").spawn((lock.clone(), balance.clone(), jobs.clone(), ready.clone()), victim)?;
    ready.wait()?;
    let survivor = Process::spawn((lock, balance, jobs.clone()), survivor)?;
    victim.kill()?;

    match victim.join() {
        Err(ProcessError::Signaled { name, signal, .. }) => println!("{name}: ended by {signal}"),
        other => println!("unexpected: {other:?}"),
    }
    let [lock, balance, job] = survivor.join()?;
    println!("lock: {lock}");
    println!("value: {balance}");
    println!("job: {job}");
    println!("messages lost: {}, waiting: {}", jobs.take_losses(), jobs.len());
    Ok(())
}
