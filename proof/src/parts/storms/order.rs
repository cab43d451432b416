//! What one storm is to do, as it is told to its process on the command line.

use super::victim::Place;
use std::fmt;
use std::time::Duration;

/// See the module head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub scene: String,
    pub seed: u64,
    pub kills: u64,
    pub one_core: bool,
    pub idle: bool,
    pub stops: bool,
    /// Of a hundred victims so many are started by `Process::spawn`; a plain fork makes the others.
    pub by_spawn: u64,
    /// At most so long from one kill to the next.
    pub pause_us: u64,
    /// Kills of the first round, which is there to have made what is made once.
    pub first: u64,
    /// Kills of each other round.
    pub round: u64,
    /// How many times half a second without progress is a stall.
    pub patience: u32,
    /// At so many of 65,536 steps of multiproc's everybody is slow; needs the feature `crash-points`.
    pub dawdle: u64,
}

impl Order {
    pub fn new(scene: &str, seed: u64, kills: u64) -> Order {
        Order {
            scene: scene.to_owned(),
            seed,
            kills,
            one_core: false,
            idle: false,
            stops: true,
            by_spawn: 10,
            pause_us: 1500,
            first: 50,
            round: 1000,
            patience: 1,
            dawdle: 0,
        }
    }

    /// Processes of a round: 4 to 32.
    pub fn seats(&self, round: u64) -> usize {
        [8, 4, 16, 32][round as usize % 4]
    }

    /// How its victims are scheduled.
    pub fn place(&self) -> Place {
        Place { idle: self.idle }
    }

    /// A limit of time for what always comes, where an idle process may have to wait long for a core.
    pub fn stretch(&self, limit: Duration) -> Duration {
        limit * self.patience
    }

    /// Kills of that round.
    pub fn per_round(&self, round: u64) -> u64 {
        if round == 0 { self.first } else { self.round }
    }

    /// What [`fmt::Display`] has written.
    pub fn parse(text: &str) -> Option<Order> {
        let mut order = Order::new("", 0, 0);
        for word in text.split(' ') {
            let (key, value) = word.split_once('=')?;
            let number = || value.parse::<u64>().ok();
            match key {
                "scene" => order.scene = value.to_owned(),
                "seed" => order.seed = number()?,
                "kills" => order.kills = number()?,
                "one-core" => order.one_core = number()? != 0,
                "idle" => order.idle = number()? != 0,
                "stops" => order.stops = number()? != 0,
                "by-spawn" => order.by_spawn = number()?,
                "pause" => order.pause_us = number()?,
                "first" => order.first = number()?,
                "round" => order.round = number()?,
                "patience" => order.patience = number()? as u32,
                "dawdle" => order.dawdle = number()?,
                _ => return None,
            }
        }
        Some(order)
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Order { scene, seed, kills, one_core, idle, stops, by_spawn, pause_us, first, round, patience, dawdle } = self;
        let [one_core, idle, stops] = [one_core, idle, stops].map(|&b| u64::from(b));
        write!(
            f,
            "scene={scene} seed={seed} kills={kills} one-core={one_core} idle={idle} stops={stops} by-spawn={by_spawn} pause={pause_us} \
             first={first} round={round} patience={patience} dawdle={dawdle}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_survive_the_command_line() {
        let order = Order { idle: true, patience: 3, dawdle: 9, ..Order::new("get", 7, 100) };
        assert_eq!(Order::parse(&order.to_string()), Some(order));
    }
}
