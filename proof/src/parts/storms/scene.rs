//! What the victims play: which objects they share, what each seat does with them until it dies, and what must be true afterwards.

use super::page::Page;
use super::victim::{Me, Way};
use super::{barrier, condition, event, lock, permits, pipe, queue};
use serde::{Deserialize, Serialize};

/// A scene with its shared objects; a victim has a copy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Scene {
    Queue(queue::Queues),
    Pipe(pipe::Pipes),
    Lock(lock::Locks),
    Permits(permits::Permits),
    Barrier(barrier::Barriers),
    Condition(condition::Conditions),
    Event(event::Events),
}

/// How one life ended.
#[derive(Clone, Copy, Debug)]
pub struct Death {
    pub seat: usize,
    /// The operation in which it ended; 0: in none.
    pub inside: u32,
    pub way: Way,
    /// As the row's words of these names.
    pub note: u64,
    pub done: u64,
}

/// All is over.
#[derive(Debug)]
pub struct End<'a> {
    pub page: &'static Page,
    pub deaths: &'a [Death],
}

impl End<'_> {
    /// Deaths inside any of these operations.
    pub fn inside(&self, ops: &[u32]) -> u64 {
        self.deaths.iter().filter(|death| ops.contains(&death.inside)).count() as u64
    }

    pub fn sum_done(&self, seats: impl Fn(usize) -> bool) -> u64 {
        self.deaths.iter().filter(|death| seats(death.seat)).map(|death| death.done).sum()
    }
}

/// What was lost in a round, and what else is worth a line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts {
    pub operations: u64,
    pub lost: u64,
    pub redelivered: u64,
    /// Deaths that were reported with something that the dead had: locks, permits.
    pub reported: u64,
}

impl Scene {
    /// The scene of that name, for so many seats.
    pub fn new(name: &str, seats: usize) -> Result<Scene, String> {
        let failed = |e: multiproc::ShmError| format!("{name}: {e}");
        Ok(match name {
            "get" | "lease" | "mixed" | "unbounded" | "unbounded-lease" => {
                Scene::Queue(queue::Queues::new(name, seats).map_err(failed)?)
            }
            "pipe" => Scene::Pipe(pipe::Pipes::new(seats).map_err(failed)?),
            "lock" => Scene::Lock(lock::Locks::new().map_err(failed)?),
            "permits" => Scene::Permits(permits::Permits::new().map_err(failed)?),
            "barrier" => Scene::Barrier(barrier::Barriers::new(seats).map_err(failed)?),
            "condition" => Scene::Condition(condition::Conditions::new().map_err(failed)?),
            "event" => Scene::Event(event::Events::new(seats).map_err(failed)?),
            _ => return Err(format!("no scene is named {name}")),
        })
    }

    /// Names of the operations, from number 1 on.
    pub fn ops(&self) -> &'static [&'static str] {
        match self {
            Scene::Queue(_) => queue::OPS,
            Scene::Pipe(_) => pipe::OPS,
            Scene::Lock(_) => lock::OPS,
            Scene::Permits(_) => permits::OPS,
            Scene::Barrier(_) => barrier::OPS,
            Scene::Condition(_) => condition::OPS,
            Scene::Event(_) => event::OPS,
        }
    }

    /// Seats of one group go on together or not at all.
    pub fn group(&self, seat: usize) -> usize {
        match self {
            Scene::Pipe(_) | Scene::Event(_) => seat / 2,
            Scene::Permits(_) => permits::group(seat),
            _ => 0,
        }
    }

    /// Whether the seat's part has that operation.
    pub fn does(&self, seat: usize, op: u32) -> bool {
        match self {
            Scene::Queue(scene) => scene.does(seat, op),
            Scene::Pipe(_) => pipe::does(seat, op),
            Scene::Permits(_) => permits::does(seat, op),
            _ => true,
        }
    }

    /// The seat's part, until it dies.
    pub fn play(&self, me: &Me) {
        match self {
            Scene::Queue(scene) => scene.play(me),
            Scene::Pipe(scene) => scene.play(me),
            Scene::Lock(scene) => scene.play(me),
            Scene::Permits(scene) => scene.play(me),
            Scene::Barrier(scene) => scene.play(me),
            Scene::Condition(scene) => scene.play(me),
            Scene::Event(scene) => scene.play(me),
        }
    }

    /// What the coordinator has to do now and then.
    pub fn tend(&self) {
        if let Scene::Barrier(scene) = self {
            scene.tend();
        }
    }

    /// When nobody plays any more.
    pub fn judge(&self, end: &End<'_>) -> Result<Facts, String> {
        match self {
            Scene::Queue(scene) => scene.judge(end),
            Scene::Pipe(scene) => scene.judge(end),
            Scene::Lock(scene) => scene.judge(end),
            Scene::Permits(scene) => scene.judge(end),
            Scene::Barrier(scene) => scene.judge(end),
            Scene::Condition(scene) => scene.judge(end),
            Scene::Event(scene) => scene.judge(end),
        }
    }
}

/// An error that a victim must not meet.
pub fn never<T, E: std::fmt::Display>(me: &Me, what: &str, result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(e) => me.complain(&format!("{what}: {e}")),
    }
}
