//! [`Plain`]: values that are their bytes.

use super::plain_vec::PlainVec;
use super::{Buffer, Codec, CodecError, EncodeRef};
use bytemuck::{CheckedBitPattern, NoUninit, Pod};

/// The codec of plain data: a message is the value's memory, of constant size, copied once on each side. There is no length to trust.
///
/// For `T: bytemuck::NoUninit + bytemuck::CheckedBitPattern`: numbers, `bool`, `char`, arrays of them, and structs that derive both; and for
/// [`PlainVec`], any number of such. A bit pattern that is no `T` is an error of its message. Handles are no plain data and cannot
/// travel this way.
///
/// # Examples
/// ```
/// use multiproc::bytemuck::{CheckedBitPattern, NoUninit};
/// use multiproc::{Plain, Queue};
///
/// #[derive(Clone, Copy, Debug, PartialEq, NoUninit, CheckedBitPattern)]
/// #[repr(C)]
/// struct Sample { at: u64, level: f32, valid: bool, channel: [u8; 3] }
///
/// let q = Queue::<Sample, Plain>::with_codec(1000)?;
/// let sample = Sample { at: 7, level: 0.5, valid: true, channel: *b"abc" };
/// q.put(sample)?;
/// assert_eq!(q.get()?, sample);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl<T: NoUninit + CheckedBitPattern> Codec<T> for Plain {
    const READS_ONCE: bool = true;

    #[inline]
    fn encode(value: &T, into: &mut Buffer) -> Result<(), CodecError> {
        if size_of::<T>() > crate::message::INLINE_BYTES {
            into.reserve(size_of::<T>());
        }
        into.append(bytemuck::bytes_of(value))
    }

    #[inline]
    fn decode(bytes: &[u8]) -> Result<T, CodecError> {
        // Copies, then checks the copy.
        bytemuck::checked::try_pod_read_unaligned(bytes).map_err(|e| CodecError::decode(e.to_string()))
    }
}

impl<E: Pod> Codec<PlainVec<E>> for Plain {
    const READS_ONCE: bool = true;

    #[inline]
    fn encode(value: &PlainVec<E>, into: &mut Buffer) -> Result<(), CodecError> {
        Plain::encode_ref(value.as_slice(), into)
    }

    #[inline]
    fn decode(bytes: &[u8]) -> Result<PlainVec<E>, CodecError> {
        PlainVec::from_bytes(bytes).map_err(CodecError::decode)
    }
}

impl<E: Pod> EncodeRef<[E], PlainVec<E>> for Plain {
    #[inline]
    fn encode_ref(value: &[E], into: &mut Buffer) -> Result<(), CodecError> {
        into.reserve(size_of_val(value));
        into.append(bytemuck::must_cast_slice(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Debug;

    fn round<T: PartialEq + Debug>(value: T) -> Vec<u8>
    where
        Plain: Codec<T>,
    {
        let mut bytes = Buffer::new();
        Plain::encode(&value, &mut bytes).unwrap();
        assert_eq!(<Plain as Codec<T>>::decode(bytes.as_slice()).unwrap(), value);
        bytes.into_vec()
    }

    #[test]
    fn values_come_back_wherever_they_lie() {
        assert_eq!(round([1u16, 2, 3]).len(), 6);
        assert_eq!(round(true), [1]);
        assert_eq!(round(PlainVec(vec![1.5f64, -0.25])).len(), 16);
        assert_eq!(round(PlainVec::<u64>(Vec::new())).len(), 0);
        let shifted = [0u8, 1, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(<Plain as Codec<u64>>::decode(&shifted[1..]).unwrap(), 1);
        assert_eq!(<Plain as Codec<PlainVec<u64>>>::decode(&shifted[1..]).unwrap().0, [1]);
    }

    #[test]
    fn wrong_sizes_and_bit_patterns_are_errors() {
        assert!(<Plain as Codec<u32>>::decode(&[1, 2, 3]).is_err());
        assert!(<Plain as Codec<u32>>::decode(&[1, 2, 3, 4, 5]).is_err());
        assert!(<Plain as Codec<bool>>::decode(&[2]).is_err());
        assert!(<Plain as Codec<char>>::decode(&0xd800u32.to_ne_bytes()).is_err());
        assert!(<Plain as Codec<PlainVec<u32>>>::decode(&[0; 6]).is_err());
    }
}
