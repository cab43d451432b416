//! What a collection over many objects takes, and what others notice of it.

#[path = "ours/collection.rs"]
mod ours;

use multiproc_benches::effort::Effort;
use multiproc_benches::row::{self, Row, Unit, exit};
use ours::{Operation, Tree};
use std::process::ExitCode;

const OBJECTS: usize = 100_000;

fn main() -> ExitCode {
    let effort = Effort::from_env();
    let tree = match Tree::with(if effort == Effort::Tiny { 1000 } else { OBJECTS }) {
        Ok(tree) => tree,
        Err(e) => {
            println!("collection: {e}");
            return exit(&[false]);
        }
    };
    let collection = Row::new(
        "collection_100k",
        "a collection looks at each object a few times and follows nothing in locks: some tens of nanoseconds for each.",
        Unit::Micros,
    )
    .subject(row::OURS, || tree.collection());
    let mut done = vec![collection.run(effort.rounds(51))];
    for (name, operation) in [
        ("collection_put_get_p999", Operation::PutGet),
        ("collection_lock_p999", Operation::LockPair),
        ("collection_make_p999", Operation::MakeDrop),
    ] {
        let count = effort.count(1_000_000);
        let beside = Row::new(
            name,
            "nobody waits for a collector: what one operation in a thousand takes beside collections is a matter of caches and \
             cpus, microseconds and not the collection's own milliseconds.",
            Unit::Nanos,
        )
        .subject(row::OURS, || tree.slowest(operation, true, count))
        .subject("without_collections", || tree.slowest(operation, false, count));
        done.push(beside.run(effort.rounds(11)));
    }
    exit(&done)
}
