//! [`Words`]: a small table of words that processes read and write one by one.
//!
//! For floors above, which say what the words mean, who writes them, and what a death leaves in them.

use crate::handle::handle;
use multiproc_shm::objects::{Kind, type_hash};
use multiproc_shm::{Arena, Error, Held, Role};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Tables of words in the object table.
pub(crate) static WORDS: Kind = Kind::plain(22, "Words");

/// Words of a table.
pub const LEN: usize = 144;

/// A table of [`LEN`] atomic words, 0 at first.
pub struct Words {
    held: Arc<Held>,
    cell: &'static [AtomicU64; LEN],
}

handle!(Words, &WORDS, type_hash::<Words>());

impl Words {
    /// A table of zeros.
    ///
    /// # Errors
    /// The arena is full.
    pub fn new() -> Result<Words, Error> {
        let size = size_of::<[AtomicU64; LEN]>() as u64;
        Words::from_held(Arena::of_the_tree()?.new_object(&WORDS, type_hash::<Words>(), size, Role::Plain, |_| Ok(()))?)
    }

    fn from_held(held: Arc<Held>) -> Result<Words, Error> {
        let cell = held.cell()?;
        Ok(Words { held, cell })
    }
}

impl std::ops::Deref for Words {
    type Target = [AtomicU64; LEN];

    fn deref(&self) -> &[AtomicU64; LEN] {
        self.cell
    }
}

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Words").field("id", &self.held.object().index).finish_non_exhaustive()
    }
}
