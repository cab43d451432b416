//! How much is to be done, and from which seed.

/// What every part is given.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The long form.
    pub long: bool,
    /// From which a part draws its choices.
    pub seed: u64,
}

impl Plan {
    /// So many in the short form, so many in the long one.
    pub fn count(&self, short: u64, long: u64) -> u64 {
        if self.long { long } else { short }
    }

    /// How far a part is, beside its table, which comes at its end: only the long form lets one wait.
    pub fn progress(&self, line: impl std::fmt::Display) {
        if self.long {
            eprintln!("{line} ..");
        }
    }

    /// A generator of its own for everything that is named, so that a part gives the same whether or not others ran before it.
    pub fn random(&self, name: &str) -> fastrand::Rng {
        let mixed = name.bytes().fold(self.seed, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3));
        fastrand::Rng::with_seed(mixed)
    }
}
