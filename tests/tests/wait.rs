//! `wait` on any mix of things: what is ready when, that all who watch are told, and that nobody is told too early.

mod common_queue;

use common_queue::{eventually, state_of};
use multiproc::{Event, Process, Queue, WaitOn, channel, dump, one_way, pipe, threads, wait, wait_deadline, wait_timeout};
use multiproc_tests::watch;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(40);
/// What is ready.
const NONE: [usize; 0] = [];

/// Waits until `threads` threads of the process wait for any of several things, asleep.
fn until_waiting(pid: u32, threads: usize) {
    let waits = || dump().process(pid).map_or(0, |p| p.waits.iter().filter(|w| w.on.starts_with("any of")).count());
    assert!(eventually(LONG, || waits() >= threads), "{}", dump());
}

/// Runs `act` when this thread's `wait` sleeps, and gives what that returns.
fn woken_by(items: &[&dyn WaitOn], act: impl FnOnce() + Send) -> Vec<usize> {
    thread::scope(|s| {
        s.spawn(|| {
            until_waiting(std::process::id(), 1);
            act();
        });
        wait(items).unwrap()
    })
}

/// One after the other: some count who waits in this process.
fn alone() -> (impl Drop, impl Drop) {
    let one = common_queue::alone();
    (watch(100), one)
}

#[test]
fn each_kind_is_ready_when_its_operation_would_not_wait() {
    let _alone = alone();
    let (queue, event) = (Queue::<u32>::bounded(4).unwrap(), Event::new().unwrap());
    let (here, there) = pipe::<u32, u32>().unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let end = Event::new().unwrap();
    let worker = Process::spawn((end.clone(),), |end| end.wait().unwrap()).unwrap();
    let all: [&dyn WaitOn; 5] = [&queue, &here, &event, &worker, &reader];
    assert_eq!(wait_timeout(&all, Duration::ZERO).unwrap(), NONE);
    assert_eq!(woken_by(&all, || queue.put(1).unwrap()), [0]);
    assert_eq!(wait(&all).unwrap(), [0]);
    queue.try_get().unwrap();
    assert_eq!(woken_by(&all, || there.send(1).unwrap()), [1]);
    here.try_recv().unwrap();
    assert_eq!(woken_by(&all, || event.set().unwrap()), [2]);
    event.clear();
    assert_eq!(woken_by(&all, || end.set().unwrap()), [3]);
    let all: [&dyn WaitOn; 4] = [&queue, &here, &event, &reader];
    assert_eq!(woken_by(&all, || writer.write_all(b"x").unwrap()), [3]);
    (&reader).read_exact(&mut [0]).unwrap();
    assert_eq!(woken_by(&all, || drop(writer)), [3]);
    worker.join().unwrap();
}

#[test]
fn without_descriptors_too() {
    let _alone = alone();
    let (queue, event) = (Queue::<u32>::bounded(4).unwrap(), Event::new().unwrap());
    let (here, there) = pipe::<u32, u32>().unwrap();
    let end = Event::new().unwrap();
    let worker = Process::spawn((end.clone(),), |end| end.wait().unwrap()).unwrap();
    let all: [&dyn WaitOn; 4] = [&queue, &here, &event, &worker];
    assert_eq!(woken_by(&all, || queue.put(1).unwrap()), [0]);
    queue.try_get().unwrap();
    assert_eq!(woken_by(&all, || there.send(1).unwrap()), [1]);
    here.try_recv().unwrap();
    assert_eq!(woken_by(&all, || event.set().unwrap()), [2]);
    event.clear();
    // Set and cleared at once: it has been set since the wait began.
    assert_eq!(woken_by(&all, || event.set().map(|()| event.clear()).unwrap()), [2]);
    assert_eq!(woken_by(&all, || end.set().unwrap()), [3]);
    worker.join().unwrap();
}

#[test]
fn all_that_are_ready_are_returned_in_order() {
    let _alone = alone();
    let queues: Vec<Queue<u32>> = (0..100).map(|_| Queue::bounded(2).unwrap()).collect();
    let (_reader, writer) = std::io::pipe().unwrap();
    let mut items: Vec<&dyn WaitOn> = queues.iter().map(|q| q as &dyn WaitOn).collect();
    // What is broken is ready.
    drop(_reader);
    items.insert(50, &writer);
    for i in [3, 49, 50, 99] {
        queues[i].put(1).unwrap();
    }
    assert_eq!(wait(&items).unwrap(), [3, 49, 50, 51, 100]);
    assert_eq!(wait(&items[..50]).unwrap(), [3, 49]);
    // Twice the same.
    assert_eq!(wait(&[&queues[3], &queues[4], &queues[3]]).unwrap(), [0, 2]);
    // Of nothing, only time can pass.
    assert_eq!(wait(&[]).unwrap(), NONE);
    let start = Instant::now();
    assert_eq!(wait_timeout(&[], Duration::from_millis(30)).unwrap(), NONE);
    assert!(start.elapsed() >= Duration::from_millis(30));
}

#[test]
fn time_outs_are_never_early() {
    let _alone = alone();
    let queues: Vec<Queue<u32>> = (0..200).map(|_| Queue::bounded(2).unwrap()).collect();
    let (reader, _writer) = std::io::pipe().unwrap();
    let few: Vec<&dyn WaitOn> = queues[..3].iter().map(|q| q as &dyn WaitOn).collect();
    let many: Vec<&dyn WaitOn> = queues.iter().map(|q| q as &dyn WaitOn).collect();
    let mixed: Vec<&dyn WaitOn> = few.iter().copied().chain([&reader as &dyn WaitOn]).collect();
    for items in [&few, &many, &mixed, &vec![&reader as &dyn WaitOn]] {
        for millis in [0, 1, 20] {
            let (start, timeout) = (Instant::now(), Duration::from_millis(millis));
            assert_eq!(wait_timeout(items, timeout).unwrap(), NONE);
            assert!(start.elapsed() >= timeout);
            let deadline = Instant::now() + timeout;
            assert_eq!(wait_deadline(items, deadline).unwrap(), NONE);
            assert!(Instant::now() >= deadline);
        }
    }
}

#[test]
fn a_queues_end_is_ready() {
    let _alone = alone();
    let (idle, closed) = (Queue::<u32>::bounded(2).unwrap(), Queue::<u32>::bounded(2).unwrap());
    assert_eq!(woken_by(&[&idle, &closed], || closed.close().unwrap()), [1]);
    assert!(closed.try_get().unwrap_err().is_end());
    let (tx, rx) = channel::<u32>(2).unwrap();
    assert_eq!(woken_by(&[&idle, &rx], || drop(tx)), [1]);
    assert!(rx.try_get().unwrap_err().is_end());
    // The last sender is killed.
    let (tx, rx) = channel::<u32>(2).unwrap();
    let worker = Process::spawn((tx,), |tx| {
        let _tx = tx;
        thread::sleep(LONG);
    })
    .unwrap();
    assert_eq!(woken_by(&[&idle, &rx], || worker.kill().unwrap()), [1]);
    assert!(rx.try_get().unwrap_err().is_end());
}

#[test]
fn a_connections_end_is_ready() {
    let _alone = alone();
    let idle = Queue::<u32>::bounded(2).unwrap();
    let (here, there) = pipe::<u32, u32>().unwrap();
    assert_eq!(woken_by(&[&idle, &here], || there.close().unwrap()), [1]);
    let (here, there) = pipe::<u32, u32>().unwrap();
    assert_eq!(woken_by(&[&idle, &here], || drop(there)), [1]);
    let (here, _there) = pipe::<u32, u32>().unwrap();
    let own = here.clone();
    assert_eq!(woken_by(&[&idle, &here], || own.close().unwrap()), [1]);
    // A user of the other end that comes while this one sleeps, and is killed.
    let (rx, worker) = {
        let (tx, rx) = one_way::<u32>().unwrap();
        let worker = Process::spawn((tx,), |tx| {
            tx.send(1).unwrap();
            thread::sleep(LONG);
        })
        .unwrap();
        (rx, worker)
    };
    assert_eq!(wait(&[&idle, &rx]).unwrap(), [1]);
    assert_eq!(rx.recv().unwrap(), 1);
    assert_eq!(woken_by(&[&idle, &rx], || worker.kill().unwrap()), [1]);
    assert_eq!(rx.try_recv().unwrap_err().peer_died(), Some(worker.pid()));
    // Another process uses this end: receiving would fail at once.
    let (here, there) = pipe::<u32, u32>().unwrap();
    let (told, tell) = channel::<u32>(1).map(|(tx, rx)| (rx, tx)).unwrap();
    let user = Process::spawn((here.clone(), tell), |here, tell| {
        assert!(here.try_recv().is_err());
        tell.put(1).unwrap();
        assert_eq!(here.recv().unwrap(), 5);
    })
    .unwrap();
    told.get().unwrap();
    assert_eq!(wait(&[&idle, &here]).unwrap(), [1]);
    there.send(5).unwrap();
    user.join().unwrap();
}

#[test]
fn a_lease_that_comes_back_is_ready_and_one_that_does_not_is_not() {
    let _alone = alone();
    let (queue, idle) = (Queue::<u32>::bounded(4).unwrap(), Queue::<u32>::bounded(2).unwrap());
    queue.put(1).unwrap();
    queue.put(2).unwrap();
    let (one, two) = (queue.lease().unwrap(), queue.lease().unwrap());
    assert_eq!(wait_timeout(&[&queue], Duration::from_millis(1)).unwrap(), NONE);
    assert_eq!(woken_by(&[&idle, &queue], || drop(one)), [1]);
    assert_eq!(queue.try_get().unwrap(), 1);
    // What its death raised was for nothing.
    let holder = Process::spawn((queue.clone(),), |queue| assert!(queue.is_empty())).unwrap();
    holder.join().unwrap();
    assert_eq!(wait_timeout(&[&queue], Duration::from_millis(1)).unwrap(), NONE);
    assert_eq!(two.ack(), 2);
    // Out with a process that is killed.
    queue.put(3).unwrap();
    let (tx, rx) = channel::<u32>(1).unwrap();
    let holder = Process::spawn((queue.clone(), tx), |queue, tx| {
        let _lease = queue.lease().unwrap();
        tx.put(1).unwrap();
        thread::sleep(LONG);
    })
    .unwrap();
    rx.get().unwrap();
    assert_eq!(woken_by(&[&idle, &queue], || holder.kill().unwrap()), [1]);
    assert_eq!(queue.try_get().unwrap(), 3);
}

#[test]
fn three_hundred_receivers() {
    let _alone = alone();
    let queues: Vec<Queue<u32>> = (0..300).map(|_| Queue::bounded(2).unwrap()).collect();
    let mut items: Vec<&dyn WaitOn> = queues.iter().map(|q| q as &dyn WaitOn).collect();
    // Some in the part on which the thread itself sleeps, some in those of its relays.
    for i in [0, 95, 96, 130, 217, 299] {
        assert_eq!(woken_by(&items, || queues[i].put(7).unwrap()), [i]);
        assert_eq!(queues[i].try_get().unwrap(), 7);
    }
    let threads = relays();
    assert!((1..=3).contains(&threads), "{threads}");
    let (reader, mut writer) = std::io::pipe().unwrap();
    items.push(&reader);
    for i in [0, 299] {
        assert_eq!(woken_by(&items, || queues[i].put(7).unwrap()), [i]);
        assert_eq!(queues[i].try_get().unwrap(), 7);
    }
    assert_eq!(woken_by(&items, || writer.write_all(b"x").unwrap()), [300]);
    (&reader).read_exact(&mut [0]).unwrap();
    let after = relays();
    assert!((1..=4).contains(&after), "{after}");
}

/// Threads of this process that sleep for others.
fn relays() -> usize {
    let name = |entry: std::fs::DirEntry| std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks.map(|task| name(task.unwrap())).filter(|name| name.starts_with("multiproc-wait")).count()
}

#[test]
fn many_that_wait_at_once_leave_no_descriptors() {
    let _alone = alone();
    // Others count the relays of this process.
    let (before, after) = Process::spawn((), || {
        wait_together(1);
        let before = descriptors();
        wait_together(6);
        // Those that are not kept go with their threads.
        eventually(LONG, || descriptors() <= before);
        (before, descriptors())
    })
    .unwrap()
    .join()
    .unwrap();
    assert!(after <= before, "{before} {after}");
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// More threads than relays are kept wait so that each needs one, and give them back at the same time, `count` times.
fn wait_together(count: usize) {
    const THREADS: usize = 48;
    let together = Barrier::new(THREADS);
    thread::scope(|s| {
        for _ in 0..THREADS {
            s.spawn(|| {
                let queue = Queue::<u32>::bounded(1).unwrap();
                let (reader, _writer) = std::io::pipe().unwrap();
                for _ in 0..count {
                    assert_eq!(wait_timeout(&[&queue, &reader], Duration::from_millis(30)).unwrap(), NONE);
                    together.wait();
                }
            });
        }
    });
}

#[test]
fn sixty_four_connections() {
    let _alone = alone();
    let pipes: Vec<_> = (0..64).map(|_| pipe::<u32, u32>().unwrap()).collect();
    let items: Vec<&dyn WaitOn> = pipes.iter().map(|(here, _)| here as &dyn WaitOn).collect();
    for i in [0, 20, 21, 63] {
        assert_eq!(woken_by(&items, || pipes[i].1.send(7).unwrap()), [i]);
        assert_eq!(pipes[i].0.try_recv().unwrap(), 7);
    }
}

#[test]
fn many_processes_are_one_word() {
    let _alone = alone();
    let end: Vec<Event> = (0..6).map(|_| Event::new().unwrap()).collect();
    let workers: Vec<_> = end.iter().map(|end| Process::spawn((end.clone(),), |end| end.wait().unwrap()).unwrap()).collect();
    let mut left: Vec<usize> = (0..6).collect();
    for next in [4, 0, 5] {
        let items: Vec<&dyn WaitOn> = left.iter().map(|&i| &workers[i] as &dyn WaitOn).collect();
        let place = left.iter().position(|&i| i == next).unwrap();
        assert_eq!(woken_by(&items, || end[next].set().unwrap()), [place]);
        left.remove(place);
    }
    end.iter().for_each(|end| end.set().unwrap());
    for worker in workers {
        worker.join().unwrap();
    }
}

#[test]
fn every_watcher_in_every_process_is_told() {
    let _alone = alone();
    let (first, second) = (Queue::<u32>::bounded(2).unwrap(), Event::new().unwrap());
    let watcher = |first: Queue<u32>, second: Event| {
        let watch = || wait(&[&first, &second]).unwrap();
        thread::scope(|s| [s.spawn(watch), s.spawn(watch)].map(|t| t.join().unwrap())).concat()
    };
    for round in 0..3 {
        let workers: Vec<_> = (0..3).map(|_| Process::spawn((first.clone(), second.clone()), watcher).unwrap()).collect();
        workers.iter().for_each(|worker| until_waiting(worker.pid(), 2));
        thread::scope(|s| {
            let (one, two) = (s.spawn(|| wait(&[&first]).unwrap()), s.spawn(|| wait(&[&second, &first]).unwrap()));
            until_waiting(std::process::id(), 2);
            if round == 0 {
                first.put(1).unwrap()
            } else {
                second.set().unwrap()
            }
            if round > 0 {
                assert_eq!(two.join().unwrap(), [0]);
                first.put(1).unwrap();
            } else {
                assert_eq!(two.join().unwrap(), [1]);
            }
            assert_eq!(one.join().unwrap(), [0]);
        });
        for worker in workers {
            let seen = worker.join().unwrap();
            assert!(seen.len() >= 2 && seen.iter().all(|&i| i < 2), "{seen:?}");
        }
        first.try_get().unwrap();
        second.clear();
    }
}

/// The waiting getter has the getters' lock for as long as it waits.
#[test]
fn watchers_and_getters_share_a_queue() {
    let _alone = alone();
    let queue = Queue::<u32>::bounded(64).unwrap();
    let sum = AtomicU32::new(0);
    let take = |got: Result<u32, _>| match got {
        Ok(n) => sum.fetch_add(n, Ordering::Relaxed) != u32::MAX,
        Err(e) => !multiproc::GetError::is_end(&e),
    };
    thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| while take(queue.get()) {});
            s.spawn(|| while wait(&[&queue]).is_ok_and(|ready| ready == [0]) && take(queue.try_get()) {});
        }
        for n in 1..=5_000 {
            queue.put(n).unwrap();
            if n % 64 == 0 {
                // Lets them fall asleep now and then.
                assert!(eventually(LONG, || queue.is_empty()));
            }
        }
        queue.close().unwrap();
    });
    assert_eq!(sum.into_inner(), 5_000 * 5_001 / 2);
}

#[test]
fn a_getter_that_gives_up_or_is_killed_does_not_take_the_watchers_along() {
    let _alone = alone();
    let queue = Queue::<u32>::bounded(2).unwrap();
    let give_up = |queue: &Queue<u32>| assert!(queue.get_timeout(Duration::from_millis(5)).is_err());
    let told = woken_by(&[&queue], || {
        give_up(&queue);
        queue.put(1).unwrap();
    });
    assert_eq!(told, [0]);
    queue.try_get().unwrap();
    let getter = Process::spawn((queue.clone(),), |queue| queue.get().unwrap()).unwrap();
    let waits = || dump().process(getter.pid()).is_some_and(|p| !p.waits.is_empty());
    assert!(eventually(LONG, || waits() && state_of(getter.pid()) == Some('S')));
    let told = woken_by(&[&queue], || {
        getter.kill().unwrap();
        getter.wait();
        queue.put(1).unwrap();
    });
    assert_eq!(told, [0]);
}

/// Each message is waited for by all and taken by one; nobody may stay asleep while something is there.
#[test]
fn nothing_is_left_lying_among_many_watchers() {
    let _alone = alone();
    const EACH: u32 = 4_000;
    let queues: [Queue<u32>; 3] = std::array::from_fn(|_| Queue::bounded(4).unwrap());
    let worker = |queues: [Queue<u32>; 3]| {
        let (mut sum, mut open) = (0u64, vec![0, 1, 2]);
        while !open.is_empty() {
            let items: Vec<&dyn WaitOn> = open.iter().map(|&i| &queues[i] as &dyn WaitOn).collect();
            let ready: Vec<usize> = wait(&items).unwrap().iter().map(|&i| open[i]).collect();
            for i in ready {
                match queues[i].try_get() {
                    Ok(n) => sum += u64::from(n),
                    Err(e) if e.is_end() => open.retain(|&o| o != i),
                    Err(_) => {}
                }
            }
        }
        sum
    };
    let workers: Vec<_> = (0..3).map(|_| Process::spawn((queues.clone(),), worker).unwrap()).collect();
    thread::scope(|s| {
        for queue in &queues {
            s.spawn(|| (1..=EACH).for_each(|n| queue.put(n).unwrap()));
        }
    });
    queues.iter().for_each(|queue| queue.close().unwrap());
    let sum: u64 = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
    assert_eq!(sum, 3 * u64::from(EACH) * u64::from(EACH + 1) / 2);
}

/// Sender and receiver take turns, so each message finds the other asleep or about to sleep.
#[test]
fn no_wake_is_missed_between_looking_and_sleeping() {
    let _alone = alone();
    let answers: Vec<Queue<u32>> = (0..8).map(|_| Queue::bounded(1).unwrap()).collect();
    let (asks, orders) = channel::<(usize, u32)>(1).unwrap();
    let worker = Process::spawn((orders, answers.clone()), |orders, answers: Vec<Queue<u32>>| {
        while wait(&[&orders, &answers[0]]).is_ok_and(|ready| ready.contains(&0)) {
            let Ok((to, n)) = orders.try_get() else { break };
            answers[to].put(n).unwrap();
        }
    })
    .unwrap();
    let items: Vec<&dyn WaitOn> = answers.iter().map(|q| q as &dyn WaitOn).collect();
    for n in 0..5_000 {
        // Not the one that both watch.
        let to = 1 + n as usize % 7;
        asks.put((to, n)).unwrap();
        assert_eq!(wait(&items).unwrap(), [to]);
        assert_eq!(answers[to].try_get().unwrap(), n);
    }
    drop(asks);
    worker.join().unwrap();
}

#[test]
fn an_idle_wait_costs_no_context_switch() {
    let _alone = alone();
    let quiet = |pid: u32| {
        let status = |task: std::path::PathBuf| std::fs::read_to_string(task.join("status")).unwrap_or_default();
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let mut switches: Vec<_> = tasks
            .map(|task| task.unwrap().path())
            .map(|task| {
                let lines: Vec<_> =
                    status(task.clone()).lines().filter(|l| l.contains("ctxt_switches")).map(str::to_owned).collect();
                (task, lines)
            })
            .collect();
        switches.sort();
        switches
    };
    let idle: Vec<Queue<u32>> = (0..300).map(|_| Queue::bounded(2).unwrap()).collect();
    let worker = Process::spawn((idle.clone(),), |idle: Vec<Queue<u32>>| {
        let (reader, _writer) = std::io::pipe().unwrap();
        let any = |queues: &[Queue<u32>], more: &[&dyn WaitOn]| {
            let queues = queues.iter().map(|q| q as &dyn WaitOn);
            wait(&queues.chain(more.iter().copied()).collect::<Vec<_>>()).unwrap()
        };
        thread::scope(|s| {
            s.spawn(|| any(&idle[..64], &[]));
            s.spawn(|| any(&idle, &[]));
            any(&idle[..64], &[&reader]);
        });
    })
    .unwrap();
    until_waiting(worker.pid(), 3);
    assert!(eventually(LONG, || state_of(worker.pid()) == Some('S')));
    // Who has just been noted may not sleep yet, so a quiet stretch is looked for, of a second.
    assert!(eventually(LONG, || {
        let before = quiet(worker.pid());
        thread::sleep(Duration::from_secs(1));
        before == quiet(worker.pid())
    }));
    idle[0].put(1).unwrap();
    worker.join().unwrap();
}

#[test]
fn a_killed_watcher_takes_nothing_along() {
    let _alone = alone();
    let (queue, event) = (Queue::<u32>::bounded(2).unwrap(), Event::new().unwrap());
    let watcher = |queue: Queue<u32>, event: Event| wait(&[&queue, &event]).unwrap();
    for _ in 0..20 {
        let workers: Vec<_> = (0..2).map(|_| Process::spawn((queue.clone(), event.clone()), watcher).unwrap()).collect();
        workers.iter().for_each(|worker| until_waiting(worker.pid(), 1));
        thread::scope(|s| {
            let here = s.spawn(|| wait(&[&event, &queue]).unwrap());
            until_waiting(std::process::id(), 1);
            // Perhaps it was told before.
            s.spawn(|| workers[0].kill());
            queue.put(1).unwrap();
            assert_eq!(here.join().unwrap(), [1]);
        });
        assert_eq!(queue.try_get().unwrap(), 1);
        let _ = workers[1].kill();
        workers.iter().for_each(|worker| _ = worker.wait());
    }
}

#[test]
fn sockets_and_listeners_take_part() {
    let _alone = alone();
    let queue = Queue::<u32>::bounded(2).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut client = None;
    assert_eq!(woken_by(&[&queue, &listener], || client = Some(TcpStream::connect(address).unwrap())), [1]);
    let (server, mut client) = (listener.accept().unwrap().0, client.unwrap());
    assert_eq!(woken_by(&[&server, &queue, &listener], || client.write_all(b"hi").unwrap()), [0]);
    (&server).read_exact(&mut [0; 2]).unwrap();
    assert_eq!(woken_by(&[&server.as_fd(), &listener, &queue], || queue.put(1).unwrap()), [2]);
    queue.try_get().unwrap();
    assert_eq!(wait_timeout(&[&server, &listener], Duration::from_millis(1)).unwrap(), NONE);
    drop(client);
    assert_eq!(wait(&[&server, &listener]).unwrap(), [0]);
}

#[test]
fn who_waits_is_in_the_dump() {
    let _alone = alone();
    let (queue, event) = (Queue::<u32>::bounded(2).unwrap(), Event::new().unwrap());
    let worker = Process::spawn((queue.clone(), event.clone()), |queue, event| {
        wait_timeout(&[&queue, &event, &queue], LONG).unwrap().len()
    })
    .unwrap();
    until_waiting(worker.pid(), 1);
    let dump = dump();
    let waits = &dump.process(worker.pid()).unwrap().waits[0];
    assert_eq!((waits.operation, waits.on.as_str(), waits.has_limit), ("wait", "any of 3", true));
    assert!(dump.to_string().contains("wait on any of 3"), "{dump}");
    assert!(dump.circles().is_empty());
    queue.put(1).unwrap();
    assert_eq!(worker.join().unwrap(), 2);
}

/// Two threads fill and drain what a third and a fourth wait for, all in one process: relays come, go and are used again.
#[test]
fn relays_serve_several_waits_at_once() {
    let _alone = alone();
    let serve = |queues: &[Queue<u32>]| {
        let (reader, _writer) = std::io::pipe().unwrap();
        let items: Vec<&dyn WaitOn> = queues.iter().map(|q| q as &dyn WaitOn).chain([&reader as &dyn WaitOn]).collect();
        let mut got = 0;
        while got < 300 {
            for i in wait(&items).unwrap() {
                queues[i].try_get().unwrap();
                got += 1;
            }
        }
    };
    let sets: Vec<Vec<Queue<u32>>> =
        (0..2).map(|n| (0..130 * (1 - n) + 5).map(|_| Queue::bounded(2).unwrap()).collect()).collect();
    thread::scope(|s| {
        for set in &sets {
            s.spawn(|| serve(set));
            s.spawn(|| (0..300).for_each(|n| set[n * 7 % set.len()].put(1).unwrap()));
        }
    });
    assert!(relays() <= 8, "{}", relays());
}

#[test]
fn a_thread_that_has_ended_is_ready() {
    let _alone = alone();
    let (go, never, other) = (Event::new().unwrap(), Event::new().unwrap(), Event::new().unwrap());
    let mut waits = threads::Process::spawn((go.clone(),), |go: Event| go.wait().unwrap()).unwrap();
    let dies = threads::Process::spawn((other.clone(),), |other: Event| -> () {
        other.wait().unwrap();
        panic!("as it is meant to");
    })
    .unwrap();
    let all: [&dyn WaitOn; 3] = [&never, &waits, &dies];
    assert_eq!(wait_timeout(&all, Duration::ZERO).unwrap(), NONE);
    assert_eq!(woken_by(&all, || go.set().unwrap()), [1]);
    assert_eq!(wait(&all).unwrap(), [1]);
    assert_eq!(woken_by(&[&never, &dies], || other.set().unwrap()), [1]);
    assert_eq!(wait(&all).unwrap(), [1, 2]);
    assert!(waits.try_join().unwrap().is_some() && dies.join().is_err());
}

#[test]
fn a_dead_letter_is_ready_and_so_is_their_end() {
    let _alone = alone();
    let never = Event::new().unwrap();
    let q = Queue::<u32>::builder().attempts(1).build().unwrap();
    let dead = q.dead().unwrap();
    let all: [&dyn WaitOn; 2] = [&never, &dead];
    for n in 1..=2 {
        q.put(n).unwrap();
    }
    // Given back.
    assert_eq!(wait_timeout(&all, Duration::ZERO).unwrap(), NONE);
    assert_eq!(woken_by(&all, || drop(q.lease().unwrap())), [1]);
    assert_eq!(dead.try_get().unwrap().into_inner(), 1);
    assert_eq!(wait_timeout(&all, Duration::ZERO).unwrap(), NONE);
    // Its holder is killed.
    let end = Event::new().unwrap();
    let holder = Process::spawn((q.clone(), end.clone()), |q: Queue<u32>, end: Event| -> () {
        let _lease = q.lease().unwrap();
        end.wait().unwrap();
        std::process::abort();
    })
    .unwrap();
    assert_eq!(woken_by(&all, || end.set().unwrap()), [1]);
    assert!(holder.join().is_err());
    assert_eq!(wait(&all).unwrap(), [1]);
    assert!(dead.get().unwrap().died());
    // None can come any more.
    assert_eq!(woken_by(&all, || q.close().unwrap()), [1]);
    assert!(dead.try_get().unwrap_err().is_end());
}
