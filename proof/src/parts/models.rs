//! Models: the shipping code under loom, with deaths at every step. They are tests of their crates.

use super::Part;
use crate::plan::Plan;
use crate::tally::Tally;
use crate::tests;

pub const PART: Part = Part { name: "models", what: "the shipping code under a model checker, with deaths at every step", run };

const MODELS: &[(&str, &str)] = &[
    ("multiproc-shm", "lock_model"),
    ("multiproc-shm", "lock_schedules"),
    ("multiproc-shm", "moves"),
    ("multiproc-shm", "protocol_t"),
    ("multiproc-shm", "watchers"),
    ("multiproc-channel", "ring_model"),
    ("multiproc-channel", "queue_schedules"),
    ("multiproc-channel", "pipe_model"),
    ("multiproc-sync", "models"),
    ("multiproc-sync", "schedules"),
    ("multiproc-sync", "condition_model"),
    ("multiproc-sync", "barrier_model"),
];

fn run(plan: &Plan) -> Tally {
    let mut tally = Tally::new(&["passed", "failed", "s"]);
    for (package, test) in MODELS {
        tests::run(&["-p", package, "--test", test], plan, &mut tally);
    }
    tally
}
