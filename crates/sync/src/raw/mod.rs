//! The words of this floor's types, without handles, notes and reports: what deaths leave in them, and who must be woken.
//!
//! They stand on [`beneath`](crate::beneath) alone, which the models in `tests/models.rs` replace: it is this code that runs there, under loom, with a death at
//! each of its crash points. [`event`], [`signals`], [`ledger`], [`hold`].

pub(crate) mod event;
pub(crate) mod hold;
pub(crate) mod ledger;
pub(crate) mod signals;
