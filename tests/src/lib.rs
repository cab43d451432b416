//! The tests of multiproc.
