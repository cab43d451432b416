//! [`SharedMemory`] and [`ShareableList`]: by name, in several processes, killed at any moment, and with a real Python.

mod deaths;
mod helpers;
mod python;
mod segments;
