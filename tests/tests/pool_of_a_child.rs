//! What becomes of tasks in another process than the one that made their pool, when that one ends; and of tasks whose outcome has been given out.

use multiproc::{Event, Pool, Process, Sender, TaskError, as_completed, channel};
use multiproc_tests::{eventually, watch};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

fn keep(pool: Pool, to: Sender<Pool>) {
    to.put(pool.clone()).expect("the other one waits for it");
    loop {
        thread::park();
    }
}

#[test]
fn a_pool_ends_with_its_process() {
    let _watch = watch(60);
    let (to, from) = channel::<Pool>(1).unwrap();
    let child = Process::spawn((to,), |to: Sender<Pool>| keep(Pool::new(1).unwrap(), to)).unwrap();
    let pool = from.get().unwrap();
    assert_eq!(pool.apply((20,), |x: u64| x * 2 + 2).unwrap(), 42);

    let endless = || -> () {
        loop {
            thread::park();
        }
    };
    let [waited_for, called_back, awaited] = [(), (), ()].map(|()| pool.submit((), endless).unwrap());
    let (tell, told) = mpsc::channel();
    called_back.on_done(move |outcome| tell.send(outcome).unwrap());
    let waiter = thread::spawn(move || waited_for.join());
    child.kill().unwrap();
    child.wait();
    for outcome in [waiter.join().unwrap(), told.recv().unwrap(), awaited.join()] {
        assert!(matches!(outcome, Err(TaskError::Refused(ref why)) if why.is_broken()), "{outcome:?}");
    }
    assert!(pool.submit((), endless).is_err());
}

/// Killed before it has read anything of who would submit tasks.
#[test]
fn a_pool_that_never_heard_of_its_client() {
    let _watch = watch(60);
    let (to, from) = channel::<Pool>(1).unwrap();
    let child = Process::spawn((to,), |to: Sender<Pool>| -> () {
        let pool = Pool::new(1).unwrap();
        to.put(pool.clone()).unwrap();
        // SAFETY: touches no memory.
        unsafe { libc::raise(libc::SIGSTOP) };
        unreachable!("it is killed");
    })
    .unwrap();
    eventually(|| std::fs::read_to_string(format!("/proc/{}/stat", child.pid())).is_ok_and(|stat| stat.contains(") T ")));
    let pool = from.get().unwrap();
    let task = pool.submit((1,), |x: u64| x).unwrap();
    let waiter = thread::spawn(move || task.join());
    child.kill().unwrap();
    let outcome = waiter.join().unwrap();
    assert!(matches!(outcome, Err(TaskError::Refused(ref why)) if why.is_broken()), "{outcome:?}");
    child.wait();
}

#[test]
fn an_outcome_is_given_out_once() {
    let _watch = watch(60);
    for pool in [Pool::new(1).unwrap(), Pool::inline().unwrap()] {
        let mut tasks = [1u64, 2].map(|n| pool.submit((n,), |n| n).unwrap());
        assert_eq!(tasks[0].join_timeout(Duration::from_secs(60)).unwrap(), Some(1));
        assert!(matches!(tasks[0].try_join(), Err(TaskError::AlreadyJoined)));
        let [first, second] = tasks;
        let mut outcomes: Vec<_> = as_completed([first, second]).collect();
        outcomes.sort_by_key(|(at, _)| *at);
        assert!(matches!(outcomes[..], [(0, Err(TaskError::AlreadyJoined)), (1, Ok(2))]), "{outcomes:?}");

        let mut task = pool.submit((3u64,), |n| n).unwrap();
        assert_eq!(task.join_timeout(Duration::from_secs(60)).unwrap(), Some(3));
        let (tell, told) = mpsc::channel();
        task.on_done(move |outcome| tell.send(outcome).unwrap());
        assert!(matches!(told.recv().unwrap(), Err(TaskError::AlreadyJoined)));
    }
}

#[test]
fn a_pool_that_has_ended_is_of_no_use_elsewhere() {
    let _watch = watch(60);
    let (to, from) = channel::<Pool>(2).unwrap();
    let (go, ended) = (Event::new().unwrap(), Event::new().unwrap());
    let child = Process::spawn((to, go.clone(), ended.clone()), |to: Sender<Pool>, go: Event, ended: Event| -> () {
        let pool = Pool::new(1).unwrap();
        to.put(pool.clone()).unwrap();
        go.wait().unwrap();
        // It keeps what the pool's threads share.
        let kept = pool.submit((), || ()).unwrap();
        kept.wait_timeout(Duration::from_secs(60));
        to.put(pool).unwrap();
        ended.set().unwrap();
        loop {
            thread::park();
        }
    })
    .unwrap();
    let pool = from.get().unwrap();
    // Finished by the drop, as what the pool's own process has submitted.
    let last = pool.submit((200,), |ms: u64| thread::sleep(Duration::from_millis(ms))).unwrap();
    assert_eq!(pool.apply((1,), |x: u64| x).unwrap(), 1);
    go.set().unwrap();
    ended.wait().unwrap();
    last.join().unwrap();
    let refused = |pool: &Pool| match pool.submit((), || ()) {
        Err(why) => why.is_closed(),
        Ok(task) => matches!(task.join(), Err(TaskError::Refused(_))),
    };
    assert!(refused(&pool));
    // A handle that comes to life when the pool has ended is a handle all the same.
    assert!(refused(&from.get().unwrap()));
    child.kill().unwrap();
    child.wait();
}

#[test]
fn a_pool_that_nobody_drops_ends_with_its_process() {
    let _watch = watch(60);
    let child = Process::spawn((), || {
        let pool = Pool::new(1).unwrap();
        let endless = || -> () {
            loop {
                thread::park();
            }
        };
        let task = pool.submit((), endless).unwrap();
        while !task.is_running() {
            thread::yield_now();
        }
        std::mem::forget((pool, task));
    });
    child.unwrap().join().unwrap();
}
