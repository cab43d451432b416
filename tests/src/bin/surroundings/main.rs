//! Enters a place (namespaces, mounts, a filter), then plays a scene there, for the tests of platforms: `surroundings PLACE SCENE`.
//!
//! What a place changes is the process's own and ends with it. Where the system does not permit a place, the reason goes to stdout and the exit code
//! is [`NOT_PERMITTED`].

mod core;
mod memory;
mod places;
mod scenes;

use std::fmt::Display;
use std::io::Write;

/// Says to the test: not here. Known to `tests/tests/platform.rs`.
const NOT_PERMITTED: i32 = 77;

fn main() {
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().expect("a place and a scene");
    let (place, scene) = (next(), next());
    places::enter(&place);
    scenes::play(&scene);
}

fn say(line: impl Display) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}
