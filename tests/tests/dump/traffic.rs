//! While everything moves.

use crate::helpers::*;
use multiproc::{Connection, Dump, Lock, Process, Receiver, Semaphore, Sender, channel, dump, pipe};
use multiproc_tests::{no_core_dumps, watch};
use std::time::Duration;

fn busy(lock: Lock, tx: Sender<Lock>, rx: Receiver<Lock>, permits: Semaphore) {
    loop {
        let _permit = permits.acquire().unwrap();
        let _guard = lock.lock();
        let _ = tx.try_put(lock.clone());
        let _ = rx.try_get();
        let _ = rx.lease_timeout(Duration::from_micros(50));
    }
}

/// Under traffic and deaths a dump is always whole, and never speaks of a deadlock that is none.
#[test]
fn dumps_go_on_while_processes_live_and_die() {
    let _watched = watch(120);
    no_core_dumps();
    let (tx, rx) = channel(3).unwrap();
    let (lock, permits) = (Lock::ignoring_death().unwrap(), Semaphore::new(2).unwrap());
    let start = || Process::spawn((lock.clone(), tx.clone(), rx.clone(), permits.clone()), busy).unwrap();
    let mut busy: Vec<_> = (0..3).map(|_| start()).collect();
    for round in 0..300usize {
        let now: Dump = dump();
        assert!(now.process(std::process::id()).is_some() && now.unreadable == 0, "{now}");
        assert!(
            !now.circles().iter().any(|c| c.is_deadlock && c.links.iter().any(|l| busy.iter().any(|p| p.pid() == l.process.pid))),
            "{now}"
        );
        assert!(now.to_string().lines().count() >= now.processes.len());
        if round.is_multiple_of(10) {
            let victim = round / 10 % 3;
            busy[victim].kill().unwrap();
            busy[victim] = start();
        }
    }
    busy.into_iter().for_each(end);
}

fn pass_on(from: Receiver<u64>, to: Sender<u64>) {
    while let Ok(n) = from.get() {
        // Work between the two, when both queues are empty.
        (0..500).for_each(|_| std::hint::spin_loop());
        if to.put(n + 1).is_err() {
            return;
        }
    }
}

fn pass_back(ball: Connection<u64, u64>) {
    while let Ok(n) = ball.recv() {
        (0..500).for_each(|_| std::hint::spin_loop());
        if ball.send(n + 1).is_err() {
            return;
        }
    }
}

#[test]
fn nor_is_one_in_a_pipe() {
    let _watched = watch(120);
    let (hers, his) = pipe().unwrap();
    hers.send(0).unwrap();
    let players = [Process::spawn((hers,), pass_back).unwrap(), Process::spawn((his,), pass_back).unwrap()];
    watch_the_ball(players);
}

/// Two who wait for each other in turn are never both seen waiting.
#[test]
fn a_ball_in_play_is_no_deadlock() {
    let _watched = watch(120);
    let (there, there_out) = channel(1).unwrap();
    let (back, back_out) = channel(1).unwrap();
    there.put(0).unwrap();
    let players = [Process::spawn((there_out, back), pass_on).unwrap(), Process::spawn((back_out, there), pass_on).unwrap()];
    watch_the_ball(players);
}

fn watch_the_ball(players: [Process<()>; 2]) {
    let pids = players.each_ref().map(Process::pid);
    wait_of(pids[0], |_| true);
    wait_of(pids[1], |_| true);
    let (mut seen, mut dumps) = ([0; 2], 0);
    while dumps < 10_000 || seen.iter().any(|&n| n < 50) {
        let now = dump();
        assert!(!now.circles().iter().any(|c| c.links.iter().any(|l| pids.contains(&l.process.pid))), "{now}");
        for (n, &pid) in seen.iter_mut().zip(&pids) {
            *n += usize::from(!now.process(pid).unwrap().waits.is_empty());
        }
        dumps += 1;
    }
    players.into_iter().for_each(end);
}
