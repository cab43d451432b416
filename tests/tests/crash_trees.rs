//! A process is killed at every step of detaching a child, and of leaving the tree: the child ends or lives on, whoever listens hears of the end, the tree is whole and
//! nothing stays.
#![cfg(feature = "crash-points")]

mod step_killer;

use multiproc::testing::{Audit, arm_step, audit, disarm, passed};
use multiproc::{Event, PipeSender, Process, ProcessError, Queue, RecvError, Sender, Signal, channel, one_way};
use multiproc_tests::{eventually, watch};
use step_killer::{Line, Table, alone, at_every_step, doing};

/// Neither running nor waiting to be reaped.
fn is_gone(pid: u32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(text) => text.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['Z', 'X'])),
        Err(_) => true,
    }
}

fn until_told(pids: Queue<u32>, quit: Event) {
    pids.put(std::process::id()).unwrap();
    quit.wait().unwrap();
}

/// Starts a process, detaches it with a death at step `k`, and says how many steps there were.
fn detach(k: u64, pids: Queue<u32>, quit: Event) -> u64 {
    let p = Process::spawn((pids.clone(), quit), until_told).unwrap();
    if k.is_multiple_of(2) {
        // Else it is detached while it starts.
        let pid = pids.get().unwrap();
        pids.put(pid).unwrap();
    }
    arm_step(k.div_ceil(2));
    p.detach().unwrap();
    disarm();
    passed()
}

/// One round: whether the detaching process came through.
fn round(k: u64, pids: &Queue<u32>, quit: &Event) -> bool {
    quit.clear();
    let through = match Process::spawn((k, pids.clone(), quit.clone()), detach).unwrap().join() {
        Ok(steps) => {
            assert!(steps < k.div_ceil(2), "step {k} of {steps}");
            true
        }
        Err(ProcessError::Signaled { signal: Signal::KILL, .. }) => false,
        Err(e) => panic!("step {k}: {e}"),
    };
    // It has told its id, or was ended before it could.
    let told = if through { Some(pids.get().unwrap()) } else { pids.try_get().ok() };
    if let Some(pid) = told {
        assert!(!through || !is_gone(pid), "step {k}: detached, and ended");
        quit.set().unwrap();
        eventually(|| is_gone(pid));
    } else {
        quit.set().unwrap();
    }
    through
}

/// What is in use when everybody else has ended.
fn at_rest(pids: &Queue<u32>) -> Audit {
    eventually(|| {
        while pids.try_get().is_ok() {}
        multiproc::testing::collect().unwrap();
        audit().unwrap().slots == 1
    });
    audit().unwrap()
}

#[test]
fn killed_while_detaching() {
    let _alone = alone();
    let _watched = watch(120);
    let (pids, quit) = (Queue::bounded(10).unwrap(), Event::new().unwrap());
    // What is made at first use is there from here on.
    assert!(round(1000, &pids, &quit));
    let before = at_rest(&pids);
    let mut line = Line::new("Detach, while it starts or runs");
    let mut k = 1;
    let mut through = [false; 2];
    while through != [true; 2] {
        let came = round(k, &pids, &quit);
        through[(k % 2) as usize] = came;
        line.ran((!came).into());
        assert_eq!(at_rest(&pids), before, "step {k}");
        k += 1;
    }
    assert!(k > 6, "three steps, on a process that starts and on one that runs: {k}");
    line.steps = line.deaths;
    Table(vec![line]).finish("Detaching");
    assert_eq!(Process::spawn((21,), |x: u64| x * 2).unwrap().join().unwrap(), 42);
}

/// Ends without dropping what it has.
fn leaver(end: PipeSender<u32>, tx: Sender<u32>, k: u64, by_exit: bool) -> u32 {
    end.send(1).unwrap();
    tx.put(1).unwrap();
    std::mem::forget((end, tx));
    arm_step(k);
    if by_exit {
        std::process::exit(3);
    }
    7
}

#[test]
fn killed_while_leaving() {
    let _alone = alone();
    let lines = [("Return", false), ("Exit", true)].map(|(how, by_exit)| {
        at_every_step(format!("{how}, with channels"), |k| {
            doing(|| format!("{how}, step {k}"));
            let ((end, hears), (tx, rx)) = (one_way::<u32>().unwrap(), channel::<u32>(2).unwrap());
            let p = Process::spawn((end, tx, k, by_exit), leaver).unwrap();
            assert_eq!((hears.recv().unwrap(), rx.get().unwrap()), (1, 1));
            assert!(matches!(hears.recv(), Err(RecvError::Eof | RecvError::PeerDied { .. })));
            assert!(rx.get().unwrap_err().is_end());
            match p.join() {
                Err(ProcessError::Signaled { signal: Signal::KILL, .. }) => Err(()),
                Ok(7) if !by_exit => Ok(0),
                // The result had been left behind.
                Ok(other) => panic!("{other}"),
                Err(e) if by_exit => {
                    assert!(e.to_string().contains("exited with code 3"), "{e}");
                    Ok(0)
                }
                Err(e) => panic!("{e}"),
            }
        })
    });
    Table(lines.into()).finish("Leaving");
    doing(String::new);
}
