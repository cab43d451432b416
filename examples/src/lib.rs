//! The examples of multiproc.
