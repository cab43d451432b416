//! CPython's tests of `multiprocessing`, written anew: a module for each of its classes, a test for each of its tests.
//!
//! `docs/CPYTHON.md` says which is which, and [`ledger`] checks that nothing is left out.

mod array;
mod at_exit;
mod barrier;
mod close_fds;
mod condition;
mod connection;
mod containers;
mod eintr;
mod event;
mod executor;
mod executor_deadlock;
mod fork_bomb;
mod futures;
mod heap;
mod initializers;
mod invalid_handle;
mod ledger;
mod lock;
mod logging;
mod named_resource;
mod pickling_connections;
mod poll;
mod pool;
mod process;
mod queue;
mod resource_tracker;
mod rlock;
mod semaphore;
mod shared_ctypes;
mod shared_memory;
mod simple_queue;
mod stage;
mod start_method;
mod stdin;
mod subclassing;
mod value;
mod wait;
