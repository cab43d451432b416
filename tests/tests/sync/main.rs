//! What the docs of Lock, Value, Atomic, Event, Semaphore and OwnedPermit promise, one test for each promise.

mod event;
mod handles;
mod helpers;
mod lock;
mod programs;
mod semaphore;
mod value;
