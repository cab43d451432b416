//! [`PlainVec`]: a vector that travels in one piece inside a serde message.

use bytemuck::Pod;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

/// A `Vec<E>` of plain data that is serialised as its bytes, in one piece instead of element by element.
///
/// For large vectors of numbers inside messages, arguments and results; derefs to the `Vec`. With self-describing formats it is a byte
/// string, in the machine's own byte order. As a whole message it travels without serde through [`Plain`](crate::Plain).
///
/// # Examples
/// ```
/// use multiproc::{PlainVec, Process};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Series { name: String, levels: PlainVec<f64> }
///
/// let series = Series { name: "a".into(), levels: vec![0.5; 1000].into() };
/// let p = Process::spawn((series,), |s: Series| s.levels.iter().sum::<f64>())?;
/// assert_eq!(p.join()?, 500.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlainVec<E>(pub Vec<E>);

const LENGTH: &str = "a length that is no multiple of the element's size";

impl<E: Pod> PlainVec<E> {
    /// Copies the bytes; they need no alignment.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<PlainVec<E>, &'static str> {
        match size_of::<E>() {
            0 if bytes.is_empty() => Ok(PlainVec(Vec::new())),
            // Into memory that nothing has been written to, with one copy.
            size if size > 0 && bytes.len().is_multiple_of(size) => {
                Ok(PlainVec(bytes.chunks_exact(size).map(bytemuck::pod_read_unaligned).collect()))
            }
            _ => Err(LENGTH),
        }
    }
}

impl<E> Deref for PlainVec<E> {
    type Target = Vec<E>;

    fn deref(&self) -> &Vec<E> {
        &self.0
    }
}

impl<E> DerefMut for PlainVec<E> {
    fn deref_mut(&mut self) -> &mut Vec<E> {
        &mut self.0
    }
}

impl<E> From<Vec<E>> for PlainVec<E> {
    fn from(elements: Vec<E>) -> PlainVec<E> {
        PlainVec(elements)
    }
}

impl<E> From<PlainVec<E>> for Vec<E> {
    fn from(elements: PlainVec<E>) -> Vec<E> {
        elements.0
    }
}

impl<E> FromIterator<E> for PlainVec<E> {
    fn from_iter<I: IntoIterator<Item = E>>(elements: I) -> PlainVec<E> {
        PlainVec(elements.into_iter().collect())
    }
}

impl<E: Pod> Serialize for PlainVec<E> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytemuck::must_cast_slice(&self.0))
    }
}

impl<'de, E: Pod> Deserialize<'de> for PlainVec<E> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PlainVec<E>, D::Error> {
        deserializer.deserialize_bytes(Bytes(PhantomData))
    }
}

struct Bytes<E>(PhantomData<E>);

impl<E: Pod> Visitor<'_> for Bytes<E> {
    type Value = PlainVec<E>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a byte string of elements of {} bytes", size_of::<E>())
    }

    fn visit_bytes<X: de::Error>(self, bytes: &[u8]) -> Result<PlainVec<E>, X> {
        PlainVec::from_bytes(bytes).map_err(X::custom)
    }

    fn visit_byte_buf<X: de::Error>(self, bytes: Vec<u8>) -> Result<PlainVec<E>, X> {
        // Elements of one byte are there already; others want more alignment than bytes were given.
        bytemuck::allocation::try_cast_vec(bytes).map(PlainVec).or_else(|(_, bytes)| self.visit_bytes(&bytes))
    }
}
