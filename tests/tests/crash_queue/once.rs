//! One death, at each step of each operation in each scene.

use crate::common_queue::{Form, Watchdog, alone};
use crate::op::{Op, Scene};
use crate::play::{play, play_last};
use crate::stage::Stage;
use crate::steps::Table;
use crate::watched::{again_on_old_kernel, assert_new_kernel_or, each_step, wanted};
use multiproc::{Process, Queue, testing};
use std::time::Duration;

const DEATH_WAKES: &str = "death-wakes";

const FORMS: [Form; 3] = [Form::Inline, Form::Block, Form::Handle];

fn all_of_one() -> Vec<(Op, Scene)> {
    use Scene::*;
    let mut all =
        vec![(Op::FirstPut, Alone), (Op::FirstPut, Getters), (Op::Close, Alone), (Op::Close, Getters), (Op::Close, Putters)];
    for form in FORMS {
        let waiting = [VictimLeads, VictimFollows];
        all.extend([Alone, Getters].iter().chain(&waiting).map(|s| (Op::Put(form), *s)));
        for op in [Op::Get(form), Op::Lease(form)] {
            all.extend([Alone, Putters].iter().chain(&waiting).map(|s| (op, *s)));
        }
        for op in [Op::Retake(form), Op::GetReturned(form)] {
            all.extend([Alone, Putters].map(|s| (op, s)));
        }
        all.push((Op::GetDead(form), Alone));
        all.extend([Alone, Getters].map(|s| (Op::Ack(form), s)));
        all.extend([Alone, Getters].map(|s| (Op::Requeue(form), s)));
        all.extend(
            [Op::Ack(form), Op::Requeue(form), Op::Get(form), Op::GetReturned(form)]
                .map(|op| [Joiners, CountedJoiners].map(|s| (op, s)))
                .into_iter()
                .flatten(),
        );
        all.push((Op::FirstLease(form), Alone));
        all.extend([Alone, Getters].map(|s| (Op::PutMany(form), s)));
        all.extend([Alone, Putters].iter().chain(&waiting).map(|s| (Op::GetMany(form), *s)));
    }
    all.extend([(Op::GetMany(Form::Inline), Joiners), (Op::Join, Joiners)]);
    all.extend([Alone, Getters].map(|s| (Op::UsualPut, s)));
    all.extend([Alone, Putters, Joiners].map(|s| (Op::UsualGet, s)));
    all.extend([Alone, Putters].map(|s| (Op::GetManyReturned, s)));
    all.extend([Op::FirstGrow, Op::GrowFirst, Op::Grow(Form::Inline), Op::Shrink(Form::Inline)].map(|op| (op, Alone)));
    let plain: Vec<Op> = all.iter().filter(|(_, scene)| *scene == Alone).map(|(op, _)| *op).collect();
    all.extend(plain.into_iter().map(|op| (op, Abandoned)));
    let at_edge = [Op::Grow(Form::Block), Op::GrowMany, Op::Shrink(Form::Block), Op::ShrinkMany, Op::ShrinkByLease];
    all.extend(at_edge.map(|op| (op, Alone)).into_iter().chain([(Op::Grow(Form::Inline), Getters)]));
    all.push((Op::Put(Form::BlockAndHandle), Getters));
    all.push((Op::Get(Form::BlockAndHandle), Putters));
    all.push((Op::Lease(Form::BlockAndHandle), Putters));
    all
}

#[test]
fn one_dies_at_each_step() {
    let _one = alone();
    assert_new_kernel_or(DEATH_WAKES);
    Watchdog::start(Duration::from_secs(120));
    let mut stage = Stage::new();
    let mut table = Table(Vec::new());
    for (op, scene) in all_of_one() {
        let name = format!("{op:?}, {scene:?}");
        if wanted(&name) {
            let line = each_step(name, |k| Ok(play(&stage, scene, &[(op, k)], false)?[0]));
            if !line.failures.is_empty() {
                stage = stage.renewed();
            }
            table.0.push(line);
        }
    }
    let last = [
        (true, false, "DropSender, Getters"),
        (false, false, "DropReceiver, Putters"),
        (false, true, "DropReceiver, a putter and a joiner"),
    ];
    for (senders, join, name) in last {
        if wanted(name) {
            let line = each_step(name.into(), |k| play_last(&stage, senders, join, k));
            if !line.failures.is_empty() {
                stage = stage.renewed();
            }
            table.0.push(line);
        }
    }
    table.finish("One death");
}

/// Where the kernel does not wake for the dead, who sleeps looks again each 10 ms. A process of its own, since one arena is of one kind.
#[test]
fn one_dies_at_each_step_on_an_old_kernel() {
    let _one = alone();
    again_on_old_kernel("one_dies_at_each_step", DEATH_WAKES);
}

/// It would stand beside that of the next lease in the same block: that one would count twice, and come again though its holder has acknowledged it and died.
#[test]
fn a_lease_that_was_not_committed_leaves_no_entry() {
    const MESSAGES: u32 = 100;
    let _one = alone();
    Watchdog::start(Duration::from_secs(60));
    for owned in [false, true] {
        let q = Queue::<u32>::bounded(MESSAGES as usize).unwrap();
        (0..MESSAGES).for_each(|n| q.put(n).unwrap());
        let dies = |q: Queue<u32>, owned: bool| -> () {
            testing::arm_at(if owned { "lease.owned" } else { "lease.entered" }, 1);
            drop(q.lease());
        };
        assert!(Process::spawn((q.clone(), owned), dies).unwrap().join().is_err());
        // All of them, so that its block is among theirs.
        let leases: Vec<_> = (0..MESSAGES).map(|_| q.lease().unwrap()).collect();
        assert_eq!((q.leased(), q.unfinished(), q.len()), (MESSAGES as usize, MESSAGES as usize, 0));
        leases.into_iter().enumerate().for_each(|(n, lease)| assert_eq!(lease.ack(), n as u32));
        assert_eq!((q.leased(), q.unfinished()), (0, 0));
    }
}
