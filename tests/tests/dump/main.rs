//! What a dump says of a tree: who is there, who holds what, who waits for what, and what goes round in a circle.

mod circles;
mod helpers;
mod holds;
mod outside;
mod people;
mod traffic;
