//! What becomes of tasks in another process than the one that made their pool, when that one ends; and of tasks whose outcome has been given out.

use multiproc::{Pool, Process, Sender, TaskError, as_completed, channel};
use multiproc_tests::watch;
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
