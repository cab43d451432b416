//! [`Raw`]: bytes as they are.

use super::{Buffer, Codec, CodecError, EncodeRef};

/// The codec of byte strings: a message is the bytes, without a length or anything else around them.
///
/// Encoding and decoding copy the bytes once each, also of a message of many megabytes: from the value to where the message lies, and from
/// there to the value. [`put_ref`](crate::Queue::put_ref) takes a `&[u8]`. Handles cannot travel this way.
///
/// # Examples
/// ```
/// use multiproc::{Queue, Raw};
///
/// let q = Queue::<Vec<u8>, Raw>::with_codec(10)?;
/// q.put_ref(b"a slice".as_slice())?;
/// assert_eq!(q.get()?, b"a slice");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "send_bytes")]
#[derive(Clone, Copy, Debug, Default)]
pub struct Raw;

impl Codec<Vec<u8>> for Raw {
    const READS_ONCE: bool = true;

    #[inline]
    fn encode(value: &Vec<u8>, into: &mut Buffer) -> Result<(), CodecError> {
        Raw::encode_ref(value.as_slice(), into)
    }

    #[inline]
    fn decode(bytes: &[u8]) -> Result<Vec<u8>, CodecError> {
        Ok(bytes.to_vec())
    }
}

impl EncodeRef<[u8], Vec<u8>> for Raw {
    #[inline]
    fn encode_ref(value: &[u8], into: &mut Buffer) -> Result<(), CodecError> {
        into.reserve(value.len());
        into.append(value)
    }
}
