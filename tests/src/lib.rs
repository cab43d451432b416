//! What the tests of multiproc share: a watchdog, events to wait for, and the stage on which processes play scenes.
//!
//! The doctest environment works as well:
//! ```
//! let p = multiproc::Process::spawn((20,), |x: u64| x * 2 + 2)?;
//! assert_eq!(p.join()?, 42);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod machine;
pub mod rest;
pub mod scene;
pub mod watchdog;

pub use machine::{MemoryGroup, Sysctl};
pub use rest::{Rest, quiet};
pub use scene::{Scene, all_sleep, empty_dir, eventually, is_gone, no_core_dumps};
pub use watchdog::{Watched, watch};
