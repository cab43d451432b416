//! [`Postcard`]: the compact codec, a feature.

use super::{Buffer, Codec, CodecError, EncodeRef};
use postcard::Error;
use postcard::ser_flavors::Flavor;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// serde through postcard: integers of variable length, so that small numbers and lengths take one byte. Feature `postcard`.
///
/// Smaller than [`Bincode`](crate::Bincode) and slower. Not self-describing either. Large messages are decoded from a private copy. Of an error inside a
/// `Serialize` or `Deserialize` postcard does not keep the text.
///
/// # Examples
/// ```
/// use multiproc::{Postcard, Queue};
///
/// let q = Queue::<(u64, String), Postcard>::with_codec(10)?;
/// q.put((7, "text".into()))?;
/// assert_eq!(q.get()?, (7, "text".to_string()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Postcard;

#[inline]
fn encode(value: &(impl Serialize + ?Sized), into: &mut Buffer) -> Result<(), CodecError> {
    postcard::serialize_with_flavor(value, Append(into)).map_err(CodecError::encode)
}

impl<T: Serialize + DeserializeOwned> Codec<T> for Postcard {
    // It looks at strings where they lie, then copies them.
    const READS_ONCE: bool = false;

    #[inline]
    fn encode(value: &T, into: &mut Buffer) -> Result<(), CodecError> {
        encode(value, into)
    }

    #[inline]
    fn decode(bytes: &[u8]) -> Result<T, CodecError> {
        let (value, rest) = postcard::take_from_bytes(bytes).map_err(CodecError::decode)?;
        if rest.is_empty() { Ok(value) } else { Err(CodecError::decode(format!("{} bytes are left over", rest.len()))) }
    }
}

impl EncodeRef<str, String> for Postcard {
    fn encode_ref(value: &str, into: &mut Buffer) -> Result<(), CodecError> {
        encode(value, into)
    }
}

impl<E: Serialize + DeserializeOwned> EncodeRef<[E], Vec<E>> for Postcard {
    fn encode_ref(value: &[E], into: &mut Buffer) -> Result<(), CodecError> {
        encode(value, into)
    }
}

struct Append<'a>(&'a mut Buffer);

impl Flavor for Append<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> Result<(), Error> {
        self.try_extend(&[byte])
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.0.append(bytes).map_err(|_| Error::SerializeBufferFull)
    }

    fn finalize(self) -> Result<(), Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Debug;

    fn round<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T) -> usize {
        let mut bytes = Buffer::new();
        Postcard::encode(&value, &mut bytes).unwrap();
        assert_eq!(<Postcard as Codec<T>>::decode(bytes.as_slice()).unwrap(), value);
        bytes.len()
    }

    #[test]
    fn values_come_back_and_small_ones_are_small() {
        round((1u8, "text".to_string(), vec![Some(1.5f64), None], ()));
        assert_eq!(round(vec![7u64; 100]), 101);
        let mut borrowed = Buffer::new();
        Postcard::encode_ref("text", &mut borrowed).unwrap();
        assert_eq!(<Postcard as Codec<String>>::decode(borrowed.as_slice()).unwrap(), "text");
    }

    #[test]
    fn forged_lengths_and_leftovers_are_errors() {
        let forged = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert!(<Postcard as Codec<Vec<u64>>>::decode(&forged).is_err());
        assert!(<Postcard as Codec<String>>::decode(&forged).is_err());
        assert!(<Postcard as Codec<u8>>::decode(&[1, 2]).is_err());
        assert!(<Postcard as Codec<u32>>::decode(&[]).is_err());
    }
}
