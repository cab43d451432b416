//! The benches of multiproc.
