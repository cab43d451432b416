//! What stands in the arena when nothing is going on.

use multiproc::testing::{self, Audit};
use std::cell::Cell;
use std::fmt;

/// See the module head. Whoever collects at the moment may not have come to all of it, so less than at first is no leak, and is what stands from then on.
pub struct Rest(Cell<Audit>);

impl Rest {
    pub fn now() -> Rest {
        Rest(Cell::new(quiet().expect("a sound arena")))
    }

    /// No more is there than at any time before. What cannot be looked at is not at rest.
    pub fn is_again(&self) -> bool {
        let parts = |a: Audit| [a.private, a.of_objects, a.of_messages, a.objects, a.astray, a.slots];
        let was = parts(self.0.get());
        let fewer = quiet().ok().filter(|now| parts(*now).into_iter().zip(was).all(|(now, was)| now <= was));
        if let Some(now) = fewer {
            self.0.set(now);
        }
        fewer.is_some()
    }

    pub fn get(&self) -> Audit {
        self.0.get()
    }
}

/// What stood, and what stands.
impl fmt::Display for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} became {:?}", self.0.get(), quiet())
    }
}

/// What there is after a collection.
///
/// # Errors
/// The arena is not sound.
pub fn quiet() -> Result<Audit, String> {
    testing::collect().and_then(|()| testing::audit()).map_err(|e| e.to_string())
}
