//! Plain forks of processes that use multiproc, one scene each, for `tests/fork.rs`.

use multiproc::{
    AcquireError, Atomic, Event, Lock, LockError, Process, Queue, Semaphore, SharedVec, ShmError, Value, after_fork_child,
    testing,
};
use multiproc_shm::Arena;
use multiproc_shm::arena::SlotId;
use multiproc_shm::roster::SlotState;
use multiproc_tests::eventually;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;

/// By the bare system call instead of libc's function.
static BARE: AtomicBool = AtomicBool::new(false);

fn main() {
    multiproc_tests::no_core_dumps();
    // A scene that hangs ends with the test that the watchdog ends.
    // SAFETY: touches no memory.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let mut scene = std::env::args().nth(1).expect("a scene");
    if let Some(rest) = scene.strip_prefix("bare ") {
        BARE.store(true, SeqCst);
        scene = rest.into();
    }
    match scene.as_str() {
        "takes part" => takes_part(),
        "takes part in a worker" => in_a_worker(takes_part),
        "guards" => guards(),
        "vectors" => vectors(),
        "killed" => killed(),
        "killed in a worker" => in_a_worker(killed),
        "orphan" => orphan(),
        "orphan of a thread" => thread::spawn(orphan).join().unwrap(),
        "orphan of a worker" => in_a_worker(orphan),
        "short-lived thread" => short_lived_thread(),
        "let go" => let_go(),
        "grandchild" => grandchild(),
        "refused" => refused(),
        "panics" => panics(),
        "many" => many(),
        "successor" => successor(),
        #[cfg(feature = "crash-points")]
        "steps" => steps(),
        other => panic!("no scene {other}"),
    }
}

/// A vector that is being filled stays the parent's; a frozen one is the child's as well, from when it takes part on.
fn vectors() {
    let mut filling = SharedVec::<u32>::zeroed(1000).unwrap();
    let frozen = SharedVec::from_slice(&[7u32; 1000]).unwrap().freeze();
    let refused = |look: &dyn Fn() -> usize| std::panic::catch_unwind(std::panic::AssertUnwindSafe(look)).is_err();
    std::panic::set_hook(Box::new(|_| ()));
    let (ready, changed) = (Event::new().unwrap(), Event::new().unwrap());
    let pid = forked(|| {
        assert!(refused(&|| filling.len()) && refused(&|| frozen.len()));
        // SAFETY: made by fork() right above, of a process whose other threads sleep.
        unsafe { after_fork_child() }.unwrap();
        ready.set().unwrap();
        changed.wait().unwrap();
        assert!(refused(&|| filling.len()));
        assert!(frozen.iter().all(|n| *n == 7));
        0
    });
    ready.wait().unwrap();
    filling.fill(9);
    drop(frozen);
    testing::collect().unwrap();
    changed.set().unwrap();
    assert_eq!(end_of(pid), 0);
    assert_eq!(filling.freeze()[999], 9);
    say("stayed the parent's");
}

fn say(line: impl std::fmt::Display) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

fn for_ever() {
    loop {
        thread::park();
    }
}

/// Whether the other threads of this process sleep, the keeper above all, which has just cleaned up after somebody.
fn others_sleep() -> bool {
    // SAFETY: takes nothing.
    let me = unsafe { libc::gettid() }.to_string();
    std::fs::read_dir("/proc/self/task").unwrap().map(Result::unwrap).filter(|task| *task.file_name() != *me).all(|task| {
        // One that has ended meanwhile holds nothing.
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(')').is_none_or(|(_, rest)| rest.starts_with(" S"))
    })
}

/// Runs `child` in a forked process, which exits with what it returns, and returns its pid.
fn forked(child: impl FnOnce() -> i32) -> i32 {
    // What they hold of libc's locks nobody would release in the child of the bare call.
    while !others_sleep() {
        std::thread::yield_now();
    }
    let pid = if BARE.load(SeqCst) {
        // SAFETY: a fork with libc's threads left behind: they sleep in the kernel.
        unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) as i32 }
    } else {
        // SAFETY: the other threads sleep in the kernel.
        unsafe { libc::fork() }
    };
    assert!(pid >= 0);
    if pid == 0 {
        // A panic must not run into the parent's code.
        let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(101);
        // SAFETY: ends the process.
        unsafe { libc::_exit(code) };
    }
    pid
}

fn join() {
    // SAFETY: called right behind the fork.
    unsafe { after_fork_child() }.unwrap();
}

/// The exit code, or minus the signal.
fn end_of(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: the place is valid for writing.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -libc::WTERMSIG(status) }
}

fn kill(pid: i32) {
    // SAFETY: touches no memory.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

fn in_a_worker(play: fn()) {
    Process::spawn((BARE.load(SeqCst), (play as usize).wrapping_sub(main as *const () as usize)), |bare: bool, offset: usize| {
        BARE.store(bare, SeqCst);
        // SAFETY: the distance of two functions of the same program.
        let play = unsafe { std::mem::transmute::<*const (), fn()>((main as *const ()).wrapping_byte_add(offset)) };
        play();
    })
    .unwrap()
    .join()
    .unwrap();
}

/// The child of a fork does all that a process of the tree can do.
fn takes_part() {
    let (lock, value, total) = (Lock::new().unwrap(), Value::new(1u64).unwrap(), Atomic::new(0u32).unwrap());
    let (there, back) = (Queue::<Queue<String>>::bounded(2).unwrap(), Queue::<String>::bounded(2).unwrap());
    let (event, semaphore) = (Event::new().unwrap(), Semaphore::new(2).unwrap());
    let (here, yonder) = multiproc::pipe::<u32, u32>().unwrap();
    here.send(1).unwrap();
    let sleeper = Process::spawn((), for_ever).unwrap();
    testing::collect().unwrap();
    let before = testing::audit().unwrap();
    let me = std::process::id();
    let pid = forked(|| {
        assert!(matches!(lock.lock(), Err(LockError::Shared(ShmError::Forked))));
        assert!(value.get().is_err() && back.put("early".into()).is_err() && Process::spawn((), || ()).is_err());
        join();
        // A second call does nothing.
        join();
        assert_eq!(multiproc::current_process().pid, std::process::id());
        assert_eq!(multiproc::parent_process().unwrap().pid, me);
        assert!(multiproc::active_children().is_empty() && sleeper.kill().is_err() && sleeper.wait().is_none());
        let guard = lock.lock().unwrap();
        value.update(|v| *v += 41).unwrap();
        drop(guard);
        let own = there.get().unwrap();
        own.put("from the child".into()).unwrap();
        let permit = semaphore.acquire().unwrap();
        let children = [1, 2, 3].map(|n| {
            Process::spawn((total.clone(), n), |total, n: u32| {
                total.add(n);
                std::process::id()
            })
            .unwrap()
        });
        for child in children {
            let pid = child.pid();
            assert_eq!(child.join().unwrap(), pid);
        }
        // The parent has used one end of the pipe and not the other.
        assert!(here.send(9).unwrap_err().to_string().contains(&me.to_string()));
        assert_eq!(yonder.recv().unwrap(), 1);
        yonder.send(2).unwrap();
        // A new object goes to the parent.
        let text = Queue::bounded(1).unwrap();
        text.put("in a new queue".to_string()).unwrap();
        back.put(text.get().unwrap()).unwrap();
        drop(permit);
        event.set().unwrap();
        7
    });
    let own = Queue::bounded(1).unwrap();
    there.put(own.clone()).unwrap();
    assert_eq!(here.recv().unwrap(), 2);
    assert_eq!((own.get().unwrap(), back.get().unwrap()), ("from the child".into(), "in a new queue".into()));
    event.wait().unwrap();
    assert_eq!(end_of(pid), 7);
    assert_eq!((value.get().unwrap(), total.get(), semaphore.available()), (42, 6, 2));
    drop(own);
    eventually(|| {
        testing::collect().unwrap();
        let now = testing::audit().unwrap();
        (now.objects, now.slots, now.private, now.of_messages) == (before.objects, before.slots, 0, 0)
    });
    sleeper.kill().unwrap();
    assert!(sleeper.join().is_err());
    say("took part");
}

/// Guards, permits and leases stay the parent's, whatever the child does with the same objects.
fn guards() {
    let (lock, value, semaphore) = (Lock::new().unwrap(), Value::new(1u64).unwrap(), Semaphore::new(2).unwrap());
    let (other, died) = (Lock::new().unwrap(), Lock::new().unwrap());
    let queue = Queue::<u32>::bounded(2).unwrap();
    let array = multiproc::Array::<u32>::zeroed(4).unwrap();
    queue.put(5).unwrap();
    let ends = Process::spawn((died.clone(),), |lock: Lock| -> () {
        let _guard = lock.lock();
        std::process::exit(0);
    });
    ends.unwrap().join().unwrap_err();
    let (joined, released, taken, seen) =
        (Event::new().unwrap(), Event::new().unwrap(), Event::new().unwrap(), Event::new().unwrap());
    let guard = lock.lock().unwrap();
    let turned = other.lock().unwrap();
    let recovery = died.recover().unwrap();
    assert!(recovery.died().is_some());
    let mut edited = value.lock().unwrap();
    *edited = 2;
    let (permit, owned, lease) = (semaphore.acquire().unwrap(), semaphore.acquire_owned().unwrap(), queue.lease().unwrap());
    // Dropped here and there.
    let both = std::cell::RefCell::new(Some((turned, owned)));
    let pid = forked(|| {
        join();
        joined.set().unwrap();
        released.wait().unwrap();
        // Now the same lock is the child's, and the guard that it has inherited is not that one.
        let own = other.lock().unwrap();
        let (turned, owned) = both.borrow_mut().take().unwrap();
        drop(turned);
        assert!(other.is_locked());
        taken.set().unwrap();
        seen.wait().unwrap();
        drop(own);
        // An owned permit cannot be sent on by who does not own it.
        let permits = Queue::bounded(1).unwrap();
        assert!(permits.put(owned).is_err());
        assert!(matches!(lock.try_lock(), Err(LockError::WouldBlock)));
        assert!(matches!(semaphore.try_acquire(), Err(AcquireError::WouldBlock)));
        8
    });
    // The child has copies of all these, which nobody drops there.
    joined.wait().unwrap();
    let (turned, owned) = both.take().unwrap();
    drop(turned);
    released.set().unwrap();
    taken.wait().unwrap();
    assert!(matches!(other.try_lock(), Err(LockError::WouldBlock)));
    seen.set().unwrap();
    assert_eq!(end_of(pid), 8);
    assert_eq!(semaphore.available(), 0);
    drop(owned);
    assert!(other.try_lock().is_ok());
    assert_eq!((value.get().unwrap(), queue.leased(), queue.len()), (1, 1, 0));
    // And these the child drops.
    let elements = array.lock().unwrap();
    let all = std::cell::RefCell::new(Some((guard, recovery, edited, permit, lease, elements)));
    let pid = forked(|| {
        join();
        drop(all.borrow_mut().take());
        assert!(array.lock_timeout(std::time::Duration::from_millis(1)).is_err());
        9
    });
    assert_eq!(end_of(pid), 9);
    testing::collect().unwrap();
    assert!(lock.is_locked() && died.is_locked());
    assert_eq!((value.get().unwrap(), queue.leased(), queue.len(), semaphore.available()), (1, 1, 0, 1));
    let (guard, recovery, edited, permit, lease, elements) = all.into_inner().unwrap();
    assert_eq!(elements.len(), 4);
    drop(elements);
    assert!(array.lock().is_ok());
    drop((guard, edited, permit));
    assert_eq!((lease.ack(), value.get().unwrap(), semaphore.available()), (5, 2, 2));
    drop(recovery.make_consistent());
    assert!(lock.try_lock().is_ok() && died.try_lock().is_ok());
    say("guarded");
}

/// What a killed child of a fork had comes back, and nobody has to look.
fn killed() {
    let (lock, semaphore) = (Lock::new().unwrap(), Semaphore::new(1).unwrap());
    let (leased, waiting) = (Queue::<u32>::bounded(2).unwrap(), Event::new().unwrap());
    leased.put(3).unwrap();
    let (sender, receiver) = multiproc::channel::<u32>(1).unwrap();
    testing::collect().unwrap();
    let before = testing::audit().unwrap();
    let pid = forked(|| {
        join();
        let _all = (lock.lock().unwrap(), semaphore.acquire().unwrap(), leased.lease().unwrap());
        waiting.set().unwrap();
        for_ever();
        0
    });
    waiting.wait().unwrap();
    // The child has the only sender now.
    drop(sender);
    let end = thread::spawn(move || receiver.get().unwrap_err().to_string());
    assert!(semaphore.try_acquire().is_err() && lock.is_locked());
    kill(pid);
    // Waits, without anybody reaping the child or calling for a collection.
    let told = end.join().unwrap();
    assert!(told.contains("nobody"), "{told}");
    assert_eq!(leased.get().unwrap(), 3);
    assert!(matches!(lock.lock(), Err(LockError::OwnerDied(death)) if death.pid == pid.unsigned_abs()));
    drop(semaphore.acquire().unwrap());
    assert_eq!(end_of(pid), -9);
    eventually(|| {
        testing::collect().unwrap();
        let now = testing::audit().unwrap();
        (now.objects, now.slots) == (before.objects - 1, before.slots)
    });
    say("cleaned up");
}

/// The test kills the parent; both write to the same pipe until they end.
fn orphan() {
    let event = Event::new().unwrap();
    forked(|| {
        join();
        event.set().unwrap();
        for_ever();
        0
    });
    event.wait().unwrap();
    say("both live");
    for_ever();
}

/// The end of the thread that forked is not the end of its process.
fn short_lived_thread() {
    let (event, go_on) = (Event::new().unwrap(), Event::new().unwrap());
    let of_child = (event.clone(), go_on.clone());
    let pid = thread::spawn(move || {
        forked(|| {
            join();
            of_child.0.set().unwrap();
            of_child.1.wait().unwrap();
            6
        })
    })
    .join()
    .unwrap();
    event.wait().unwrap();
    go_on.set().unwrap();
    say(end_of(pid));
}

/// The parent lets go of something before the child has joined: then the child does not join at all.
fn let_go() {
    let (early, kept, value) = (Lock::new().unwrap(), Atomic::new(0u32).unwrap(), Value::new(1u32).unwrap());
    let before = testing::audit().unwrap();
    let early = std::cell::Cell::new(Some(early));
    let pid = forked(|| {
        // The one object that the child can look at before it has joined.
        while kept.get() == 0 {
            thread::yield_now();
        }
        // SAFETY: nothing but a loop since the fork.
        let refused = unsafe { after_fork_child() }.unwrap_err();
        say(refused);
        assert_eq!(value.get(), Err(LockError::Shared(ShmError::Forked)));
        // SAFETY: as above.
        assert!(unsafe { after_fork_child() }.is_err());
        drop(early.take());
        kept.set(2);
        while kept.get() == 2 {
            thread::yield_now();
        }
        4
    });
    drop(early.take());
    // Something else takes its place.
    let other = Value::new([0u64; 4]).unwrap();
    kept.set(1);
    // The place that it had taken is free though it lives.
    eventually(|| {
        testing::collect().unwrap();
        kept.get() == 2 && testing::audit().unwrap().slots == before.slots
    });
    kept.set(3);
    assert_eq!(end_of(pid), 4);
    drop(other);
    eventually(|| {
        testing::collect().unwrap();
        let now = testing::audit().unwrap();
        (now.objects, now.slots) == (before.objects - 1, before.slots)
    });
    // Once a child has joined, the parent may let go of everything.
    let (kept, joined) = (Lock::new().unwrap(), Event::new().unwrap());
    let gone = Event::new().unwrap();
    let kept = std::cell::Cell::new(Some(kept));
    let pid = forked(|| {
        join();
        joined.set().unwrap();
        gone.wait().unwrap();
        let lock = kept.take().unwrap();
        let others: Vec<_> = (0..100).map(|_| Lock::new().unwrap()).collect();
        let _guards: Vec<_> = others.iter().map(|l| l.lock().unwrap()).collect();
        i32::from(lock.lock().is_ok())
    });
    joined.wait().unwrap();
    drop(kept.take());
    testing::collect().unwrap();
    gone.set().unwrap();
    say(end_of(pid));
}

/// Children of children by fork, the last of which starts a worker.
fn grandchild() {
    let queue = Queue::<u32>::bounded(4).unwrap();
    let pid = forked(|| {
        join();
        let pid = forked(|| {
            assert!(queue.put(0).is_err());
            join();
            queue.put(std::process::id()).unwrap();
            let worker = Process::spawn((queue.clone(),), |queue| queue.put(std::process::id()).unwrap()).unwrap();
            let pid = worker.pid();
            worker.join().unwrap();
            i32::from(queue.get().unwrap() == std::process::id() && queue.get().unwrap() == pid)
        });
        end_of(pid) + 1
    });
    say(end_of(pid));
}

/// Where the call is of no use, it says so or does nothing.
fn refused() {
    // SAFETY: does nothing in a process that is no fork.
    unsafe { after_fork_child() }.unwrap();
    let pid = forked(|| {
        // SAFETY: multiproc has not been used.
        unsafe { after_fork_child() }.unwrap();
        Process::spawn((20,), |x: i32| x + 1).unwrap().join().unwrap()
    });
    say(end_of(pid));
    let lock = Lock::new().unwrap();
    let pid = forked(|| {
        // SAFETY: it is what is tested that a wrong thread is refused.
        let told = thread::spawn(|| unsafe { after_fork_child() }.unwrap_err().to_string()).join().unwrap();
        assert!(told.contains("main thread"), "{told}");
        join();
        i32::from(lock.lock().is_ok())
    });
    say(end_of(pid));
}

/// Last words of a process that has not joined are not its parent's.
fn panics() {
    let worker = Process::spawn((), || -> () {
        let pid = forked(|| panic!("in the fork"));
        assert_eq!(end_of(pid), 101);
        let pid = forked(|| {
            join();
            panic!("in the fork, joined")
        });
        assert_eq!(end_of(pid), 101);
        std::process::abort();
    });
    match worker.unwrap().join() {
        Err(multiproc::ProcessError::Signaled { signal, .. }) => say(signal),
        other => say(format_args!("{other:?}")),
    }
}

/// Who has seen a process end may say so late, when its slot is another's: that one lives on, and has what it has.
fn successor() {
    let (arena, lock, ready) = (Arena::of_the_tree().unwrap(), Lock::ignoring_death().unwrap(), Atomic::new(0u64).unwrap());
    // Each holds the lock and tells its slot.
    let start = || {
        let pid = forked(|| {
            join();
            let _guard = lock.lock().unwrap();
            let SlotId { index, generation } = arena.my_id();
            ready.set(u64::from(index) << 32 | u64::from(generation));
            for_ever();
            0
        });
        eventually(|| ready.get() != 0);
        let id = ready.swap(0, SeqCst);
        (pid, SlotId { index: (id >> 32) as u32, generation: id as u32 })
    };
    let (pid, first) = start();
    kill(pid);
    assert_eq!(end_of(pid), -9);
    drop(lock.lock().unwrap());
    eventually(|| arena.slot(first.index).unwrap().state().unwrap().0 == SlotState::Free);
    let (pid, second) = start();
    assert!(second.index == first.index && second.generation != first.generation, "{first:?} {second:?}");
    arena.slot_is_dead(first).unwrap();
    testing::collect().unwrap();
    assert!(arena.is_live(second).unwrap() && lock.is_locked());
    assert!(matches!(lock.try_lock(), Err(LockError::WouldBlock)), "{lock:?}");
    kill(pid);
    assert_eq!(end_of(pid), -9);
    drop(lock.lock().unwrap());
    say("lives on");
}

/// Many children by fork, one after the other and together, each killed or not: nothing is left.
fn many() {
    let (queue, lock) = (Queue::<u32>::bounded(64).unwrap(), Lock::ignoring_death().unwrap());
    let round = |i: u32| {
        let pids: Vec<_> = (0..4)
            .map(|n| {
                forked(|| {
                    join();
                    let _guard = lock.lock().unwrap();
                    queue.put(n).unwrap();
                    if (i + n).is_multiple_of(3) {
                        kill(std::process::id().cast_signed());
                    }
                    0
                })
            })
            .collect();
        let mut got: Vec<_> = pids.iter().map(|_| queue.get().unwrap()).collect();
        got.sort_unstable();
        assert_eq!(got, [0, 1, 2, 3]);
        for (n, pid) in pids.into_iter().enumerate() {
            assert_eq!(end_of(pid), if (i as usize + n).is_multiple_of(3) { -9 } else { 0 });
        }
    };
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let settled = |slots: u32, fds: usize| {
        eventually(|| {
            testing::collect().unwrap();
            testing::audit().unwrap().slots == slots && descriptors() == fds
        });
    };
    let (slots, fds) = (testing::audit().unwrap().slots, descriptors());
    round(0);
    settled(slots, fds);
    let audit = testing::audit().unwrap();
    (1..20).for_each(round);
    settled(slots, fds);
    assert_eq!(testing::audit().unwrap(), audit);
    say("nothing is left");
}

/// The child dies at each step of joining, of its main thread and of its keeper: it has joined or not, and nothing of it stays.
#[cfg(feature = "crash-points")]
fn steps() {
    let (lock, queue) = (Lock::ignoring_death().unwrap(), Queue::<Lock>::bounded(4).unwrap());
    let (sender, receiver) = multiproc::channel::<u32>(4).unwrap();
    // A reference on its way.
    queue.put(Lock::new().unwrap()).unwrap();
    sender.put(0).unwrap();
    let before = {
        testing::collect().unwrap();
        testing::audit().unwrap()
    };
    for (thread, arm) in [("", testing::arm_step as fn(u64)), (", its keeper", testing::arm_next_thread)] {
        testing::note("scene", &format!("Join after a fork{thread}"));
        let mut k = 1;
        loop {
            let pid = forked(|| {
                arm(k);
                join();
                testing::disarm();
                drop(lock.lock().unwrap());
                sender.put(1).unwrap();
                0
            });
            let end = end_of(pid);
            drop(lock.lock().unwrap());
            queue.put(queue.get().unwrap()).unwrap();
            sender.put(2).unwrap();
            let got: Vec<u32> = (0..if end == 0 { 3 } else { 2 }).map(|_| receiver.get().unwrap()).collect();
            assert!(got.ends_with(&[2]) && got[0] == 0, "{got:?} after step {k}");
            sender.put(0).unwrap();
            eventually(|| {
                testing::collect().unwrap();
                testing::audit().unwrap() == before
            });
            if end == 0 {
                break;
            }
            assert_eq!(end, -9, "step {k}");
            k += 1;
        }
        testing::note("row", &format!("Join after a fork{thread}\t{}\t{k}\t{}\t0", k - 1, k - 1));
        say(if k > 3 { "all steps" } else { "hardly any steps" });
    }
}
