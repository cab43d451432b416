//! Floor 5 of multiproc: pools of worker processes, and the tasks they run.
//!
//! Internal to multiproc, no semver promise. Reading order: [`error`] -> [`task`] (what a caller holds) -> [`pool`] and [`builder`] -> [`map`] and [`waiting`] -> `home` (what a pool's
//! threads share), with `table` (tasks without an outcome), `crew` (workers), `collect` (who takes what they tell), `supervise` (deaths, times, staff) and `stop` -> `wire` (what
//! goes between a pool and its workers), `job` (what a task does) and `desk` (what a worker does at this moment) -> `worker` and `run`, [`current`]. Pools elsewhere: `client` and `remote`, `asked` and `told`; without processes: `local`. Figures: [`stats`], `trace`.

mod asked;
mod backend;
pub mod builder;
mod callbacks;
mod caller;
mod client;
mod collect;
mod crew;
pub mod current;
mod desk;
pub mod error;
mod home;
mod initializer;
mod job;
mod lead;
mod local;
pub mod map;
mod panics;
pub mod pool;
mod progress;
mod remote;
mod retry;
mod run;
pub mod stats;
mod stop;
mod supervise;
mod table;
pub mod task;
mod told;
#[cfg(feature = "trace")]
mod trace;
pub mod waiting;
mod wire;
mod worker;

pub use builder::{PoolBuilder, TaskBuilder, pool_context};
pub use current::{CurrentTask, current_task};
pub use error::{PoolError, TaskError};
pub use map::{Imap, ImapUnordered};
pub use pool::{Pool, ThreadPool};
pub use stats::{Latency, PoolStats, WorkerStats};
pub use task::Task;
pub use waiting::{AsCompleted, ReturnWhen, as_completed, wait_tasks};
