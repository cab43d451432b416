//! [`Semaphore`] and [`OwnedPermit`].

use crate::helpers::*;
use multiproc::{AcquireError, Atomic, Event, OwnedPermit, Process, Queue, Semaphore};
use multiproc_shm::Error;
use serde::{Deserialize, Serialize};
use std::fmt::Debug;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};
use std::{mem, thread};

#[test]
fn a_semaphore_lets_in_as_many_as_it_has_permits() {
    let _watch = watch();
    let (semaphore, inside, most) = (Semaphore::new(3).unwrap(), Atomic::new(0u32).unwrap(), Atomic::new(0u32).unwrap());
    let work = |semaphore: Semaphore, inside: Atomic<u32>, most: Atomic<u32>| {
        thread::scope(|s| {
            for _ in 0..3 {
                s.spawn(|| {
                    for _ in 0..300 {
                        let _permit = semaphore.acquire().unwrap();
                        most.fetch_max(inside.add(1) + 1, SeqCst);
                        thread::yield_now();
                        inside.fetch_sub(1, SeqCst);
                    }
                });
            }
        });
    };
    let args = || (semaphore.clone(), inside.clone(), most.clone());
    let children: Vec<_> = (0..3).map(|_| Process::spawn(args(), work).unwrap()).collect();
    children.into_iter().for_each(|c| c.join().unwrap());
    assert_eq!((most.get(), inside.get()), (3, 0));
    assert_eq!((semaphore.available(), semaphore.permits(), semaphore.take_recovered()), (3, 3, 0));
}

#[test]
fn a_semaphore_has_a_permit_at_least_and_says_when_none_is_free() {
    let _watch = watch();
    assert!(matches!(Semaphore::new(0), Err(Error::Invalid(_))));
    let one = Semaphore::new(1).unwrap();
    let permit = one.acquire().unwrap();
    assert!(matches!(one.try_acquire(), Err(AcquireError::WouldBlock)));
    assert!(matches!(one.try_acquire_owned(), Err(AcquireError::WouldBlock)));
    for ms in [0, 1, 20] {
        let (start, time) = (Instant::now(), Duration::from_millis(ms));
        assert!(matches!(one.acquire_timeout(time), Err(AcquireError::TimedOut)));
        assert!(start.elapsed() >= time);
        let start = Instant::now();
        assert!(matches!(one.acquire_owned_timeout(time), Err(AcquireError::TimedOut)));
        assert!(start.elapsed() >= time);
        let deadline = Instant::now() + time;
        assert!(matches!(one.acquire_deadline(deadline), Err(AcquireError::TimedOut)));
        assert!(Instant::now() >= deadline);
    }
    // A permit may go to another thread.
    thread::spawn(move || drop(permit)).join().unwrap();
    assert_eq!(one.available(), 1);
    assert!(one.try_acquire().is_ok());
    let huge = Semaphore::new(u32::MAX).unwrap();
    let _one = huge.acquire().unwrap();
    assert_eq!(huge.available(), u32::MAX - 1);
}

#[test]
fn the_permits_of_a_killed_process_return_and_are_counted() {
    let _watch = watch();
    let semaphore = Semaphore::new(5).unwrap();
    let mine = semaphore.acquire().unwrap();
    killed_with(semaphore.clone(), |semaphore| {
        let _two = [semaphore.acquire().unwrap(), semaphore.acquire().unwrap()];
        let _owned = semaphore.acquire_owned().unwrap();
        mem::forget(semaphore.acquire().unwrap());
        die();
    });
    assert_eq!(semaphore.available(), 4);
    assert_eq!((semaphore.take_recovered(), semaphore.take_recovered()), (4, 0));
    drop(mine);
    assert_eq!(semaphore.available(), 5);
    // A waiter gets what a killed holder had.
    let all: Vec<_> = (0..4).map(|_| semaphore.acquire().unwrap()).collect();
    let holder = Process::spawn((semaphore.clone(), Event::new().unwrap()), |semaphore, never: Event| {
        let _permit = semaphore.acquire().unwrap();
        never.wait().unwrap();
    });
    let holder = holder.unwrap();
    eventually("the holder has it", || semaphore.available() == 0);
    let waiter = Process::spawn((semaphore.clone(),), |semaphore| semaphore.acquire().map(drop).is_ok()).unwrap();
    await_sleep(&waiter, &semaphore);
    holder.kill().unwrap();
    assert!(waiter.join().unwrap());
    drop(all);
    assert_eq!(semaphore.available(), 5);
}

#[test]
fn a_permit_travels_in_arguments() {
    let _watch = watch();
    let one = Semaphore::new(1).unwrap();
    let permit = one.acquire_owned().unwrap();
    let (go, here) = (Event::new().unwrap(), Event::new().unwrap());
    let child = Process::spawn((permit, go.clone(), here.clone()), |permit: OwnedPermit, go: Event, here: Event| {
        here.set().unwrap();
        go.wait().unwrap();
        drop(permit);
    });
    let child = child.unwrap();
    here.wait().unwrap();
    assert_eq!(one.available(), 0, "it is the child's");
    go.set().unwrap();
    child.join().unwrap();
    assert_eq!((one.available(), one.take_recovered()), (1, 0));
    // Dropped by a child that never looks at it; killed with it.
    Process::spawn((one.acquire_owned().unwrap(),), |_| ()).unwrap().join().unwrap();
    assert_eq!((one.available(), one.take_recovered()), (1, 0));
    killed_with(one.acquire_owned().unwrap(), |_permit| die());
    assert_eq!((one.available(), one.take_recovered()), (1, 1));
}

#[test]
fn a_permit_travels_in_a_result() {
    let _watch = watch();
    let one = Semaphore::new(1).unwrap();
    let child = Process::spawn((one.clone(),), |one| one.acquire_owned().unwrap()).unwrap();
    let permit = child.join().unwrap();
    assert_eq!(one.available(), 0, "it is here");
    assert!(one.try_acquire().is_err());
    drop(permit);
    assert_eq!(one.available(), 1);
    // There and back.
    let permit = Process::spawn((one.acquire_owned().unwrap(),), |p| p).unwrap().join().unwrap();
    assert_eq!(one.available(), 0);
    drop(permit);
    assert_eq!((one.available(), one.take_recovered()), (1, 0));
    // A result that nobody fetches.
    let child = Process::spawn((one.clone(),), |one| one.acquire_owned().unwrap()).unwrap();
    child.wait();
    assert_eq!(one.available(), 0, "in the result");
    drop(child);
    assert!(one.acquire_timeout(Duration::from_secs(40)).is_ok());
}

#[test]
fn a_permit_travels_in_a_message() {
    let _watch = watch();
    let (one, queue) = (Semaphore::new(1).unwrap(), Queue::<OwnedPermit>::bounded(4).unwrap());
    queue.put(one.acquire_owned().unwrap()).unwrap();
    assert_eq!(one.available(), 0, "in the queue");
    drop(queue.get().unwrap());
    assert_eq!(one.available(), 1);
    // A put that fails gives the value back, whole.
    let full = Queue::<OwnedPermit>::bounded(1).unwrap();
    let two = Semaphore::new(2).unwrap();
    full.put(two.acquire_owned().unwrap()).unwrap();
    let back = full.try_put(two.acquire_owned().unwrap()).unwrap_err();
    assert!(back.is_full());
    let back = back.into_inner();
    assert_eq!(two.available(), 0);
    drop(full.get().unwrap());
    full.put(back).unwrap();
    assert_eq!(two.available(), 1);
    drop(full.get().unwrap());
    assert_eq!(two.available(), 2);
    // A message that is lost: its queue is gone.
    queue.put(one.acquire_owned().unwrap()).unwrap();
    drop(queue);
    assert!(one.acquire_timeout(Duration::from_secs(40)).is_ok());
    // A receiver that is killed with it.
    let queue = Queue::<OwnedPermit>::bounded(4).unwrap();
    queue.put(one.acquire_owned().unwrap()).unwrap();
    killed_with(queue.receiver().unwrap(), |queue| {
        let _permit = queue.get().unwrap();
        die();
    });
    assert_eq!((one.available(), one.take_recovered()), (1, 2));
}

/// Never decodes, and its permit is not looked at.
#[derive(Debug, Serialize, Deserialize)]
struct Undecodable {
    first: Fails,
    permit: OwnedPermit,
}

#[derive(Debug, Serialize)]
struct Fails;

impl<'de> Deserialize<'de> for Fails {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Fails, D::Error> {
        Err(serde::de::Error::custom("as asked"))
    }
}

#[test]
fn a_permit_that_never_comes_out_of_its_message_wakes_who_waits() {
    let _watch = watch();
    let (one, queue) = (Semaphore::new(1).unwrap(), Queue::<Undecodable>::bounded(4).unwrap());
    let lose: [&dyn Fn(); 2] = [&|| drop(queue.get().unwrap_err()), &|| drop(queue.lease().map(drop).unwrap_err())];
    for lose in lose {
        queue.put(Undecodable { first: Fails, permit: one.acquire_owned().unwrap() }).unwrap();
        let waiter = Process::spawn((one.clone(),), |one| drop(one.acquire().unwrap())).unwrap();
        await_sleep(&waiter, &one);
        lose();
        waiter.join().unwrap();
    }
}

#[test]
fn a_value_that_was_put_by_reference_is_empty_afterwards() {
    let _watch = watch();
    let (one, queue) = (Semaphore::new(1).unwrap(), Queue::<OwnedPermit>::bounded(4).unwrap());
    let kept = one.acquire_owned().unwrap();
    queue.put_ref(&kept).unwrap();
    assert!(queue.put_ref(&kept).unwrap_err().is_codec(), "it has gone");
    killed_with(queue.receiver().unwrap(), |queue| {
        let _permit = queue.get().unwrap();
        die();
    });
    assert_eq!(one.available(), 1, "the empty value keeps nothing");
    let other = one.acquire_owned().unwrap();
    drop(kept);
    assert_eq!(one.available(), 0, "and gives nothing back");
    drop(other);
}

#[test]
fn a_permit_stays_with_a_lease_that_is_delivered_again() {
    let _watch = watch();
    let (one, queue) = (Semaphore::new(1).unwrap(), Queue::<OwnedPermit>::bounded(4).unwrap());
    queue.put(one.acquire_owned().unwrap()).unwrap();
    drop(queue.lease().unwrap());
    assert_eq!(one.available(), 0, "still in the message");
    queue.lease().unwrap().requeue();
    assert_eq!(one.available(), 0);
    killed_with(queue.receiver().unwrap(), |queue| {
        let _lease = queue.lease().unwrap();
        die();
    });
    assert_eq!(one.available(), 0, "delivered again with its message");
    let lease = queue.lease().unwrap();
    assert_eq!(lease.attempt(), 4);
    let permit = lease.ack();
    assert_eq!(one.available(), 0);
    drop(permit);
    assert_eq!((one.available(), one.take_recovered()), (1, 0));
}

#[test]
fn so_many_owned_permits_and_no_more() {
    let _watch = watch();
    let many = Semaphore::new(2_000).unwrap();
    let mut permits: Vec<_> = (0..1_024).map(|_| many.acquire_owned().unwrap()).collect();
    assert!(matches!(many.try_acquire_owned(), Err(AcquireError::Shared(Error::Full(_)))));
    assert!(matches!(many.acquire_owned(), Err(AcquireError::Shared(Error::Full(_)))));
    assert_eq!(many.available(), 976);
    let plain = many.acquire().unwrap();
    drop(permits.swap_remove(500));
    permits.push(many.acquire_owned().unwrap());
    drop((plain, permits));
    assert_eq!(many.available(), 2_000);
}
