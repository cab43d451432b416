//! [`Bincode`], the default codec.
//!
//! bincode 1.3.3 is pinned (RUSTSEC-2025-0141 calls it unmaintained; complete, no fault known): everything that
//! knows it is in this file.

use super::{Buffer, Codec, CodecError, EncodeRef};
use bincode::{BincodeRead, DefaultOptions, ErrorKind, Options};
use serde::Serialize;
use serde::de::{DeserializeOwned, Visitor};
use std::io;

/// The default codec: serde through bincode, integers at their fixed width, little endian.
///
/// Decoding refuses lengths that a message of its size cannot hold before it allocates for them, and bytes that are left over. A list whose elements take no
/// bytes (`Vec<()>`) is as long as its message says, which in corrupted memory may be any length: do not send one.
/// Not self-describing: `#[serde(flatten)]`, `skip_serializing_if` and untagged enums do not work with it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bincode;

/// Without a limit: reading ends where the message does.
#[inline(always)]
fn options() -> impl Options {
    DefaultOptions::new().with_fixint_encoding()
}

#[inline]
fn encode(value: &(impl Serialize + ?Sized), into: &mut Buffer) -> Result<(), CodecError> {
    options().serialize_into(Append(into), value).map_err(not_encoded)
}

#[cold]
fn not_encoded(why: Box<ErrorKind>) -> CodecError {
    CodecError::encode(why)
}

#[cold]
fn not_decoded(why: Box<ErrorKind>) -> CodecError {
    CodecError::decode(why)
}

#[cold]
fn left_over(bytes: usize) -> CodecError {
    CodecError::decode(format!("{bytes} bytes are left over"))
}

impl<T: Serialize + DeserializeOwned> Codec<T> for Bincode {
    /// Strings and byte strings are copied before anybody looks at them.
    const READS_ONCE: bool = true;

    #[inline]
    fn encode(value: &T, into: &mut Buffer) -> Result<(), CodecError> {
        encode(value, into)
    }

    #[inline]
    fn decode(bytes: &[u8]) -> Result<T, CodecError> {
        let mut rest = Rest(bytes);
        match options().deserialize_from_custom(&mut rest) {
            Ok(value) if rest.0.is_empty() => Ok(value),
            Ok(_) => Err(left_over(rest.0.len())),
            Err(why) => Err(not_decoded(why)),
        }
    }
}

impl EncodeRef<str, String> for Bincode {
    fn encode_ref(value: &str, into: &mut Buffer) -> Result<(), CodecError> {
        encode(value, into)
    }
}

impl<E: Serialize + DeserializeOwned> EncodeRef<[E], Vec<E>> for Bincode {
    fn encode_ref(value: &[E], into: &mut Buffer) -> Result<(), CodecError> {
        encode(value, into)
    }
}

struct Append<'a>(&'a mut Buffer);

impl io::Write for Append<'_> {
    #[inline(always)]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    // Always: a call for each field of a value costs more than all the rest.
    #[inline(always)]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.0.fits(bytes) { Ok(()) } else { self.write_growing(bytes) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Append<'_> {
    #[cold]
    fn write_growing(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.append_growing(bytes).map_err(io::Error::other)
    }
}

/// What is still to be read. Each byte is read once, into memory that nothing has been written to before.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    /// The next bytes, if there are so many.
    #[inline(always)]
    fn split(&mut self, length: usize) -> io::Result<&'a [u8]> {
        let Some((bytes, rest)) = self.0.split_at_checked(length) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        self.0 = rest;
        Ok(bytes)
    }
}

impl io::Read for &mut Rest<'_> {
    #[inline(always)]
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = into.len().min(self.0.len());
        self.read_exact(&mut into[..length]).map(|()| length)
    }

    // Always: as for what is written.
    #[inline(always)]
    fn read_exact(&mut self, into: &mut [u8]) -> io::Result<()> {
        into.copy_from_slice(self.split(into.len())?);
        Ok(())
    }
}

/// All give away copies: what borrows from a message could look at it twice, and another process could have written in between.
impl<'de> BincodeRead<'de> for &mut Rest<'_> {
    fn forward_read_str<V: Visitor<'de>>(&mut self, length: usize, visitor: V) -> bincode::Result<V::Value> {
        let text = String::from_utf8(self.get_byte_buffer(length)?);
        visitor.visit_string(text.map_err(|e| ErrorKind::InvalidUtf8Encoding(e.utf8_error()))?)
    }

    fn get_byte_buffer(&mut self, length: usize) -> bincode::Result<Vec<u8>> {
        Ok(self.split(length)?.to_vec())
    }

    fn forward_read_bytes<V: Visitor<'de>>(&mut self, length: usize, visitor: V) -> bincode::Result<V::Value> {
        visitor.visit_byte_buf(self.get_byte_buffer(length)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PlainVec;
    use serde::{Deserialize, Deserializer};
    use std::collections::BTreeMap;
    use std::fmt;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Shape {
        Unit,
        New(Box<Everything>),
        Tuple(u8, i128),
        Fields { name: String, sides: [u16; 3] },
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Unit;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct New(i64);

    /// Serialised as a byte string, and decoded from one of its own only.
    #[derive(Clone, Debug, PartialEq)]
    struct Bytes(Vec<u8>);

    impl Serialize for Bytes {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_bytes(&self.0)
        }
    }

    impl<'de> Deserialize<'de> for Bytes {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
            deserializer.deserialize_bytes(Owned).map(Bytes)
        }
    }

    /// A string that asks for a borrowed one.
    #[derive(Clone, Debug, PartialEq, Serialize)]
    struct Text(String);

    impl<'de> Deserialize<'de> for Text {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text, D::Error> {
            let text = deserializer.deserialize_str(Owned)?;
            Ok(Text(String::from_utf8(text).unwrap()))
        }
    }

    /// Takes nothing that is borrowed.
    struct Owned;

    impl Visitor<'_> for Owned {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string of one's own")
        }

        fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
            Ok(bytes)
        }

        fn visit_string<E>(self, text: String) -> Result<Vec<u8>, E> {
            Ok(text.into_bytes())
        }

        fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<Vec<u8>, E> {
            Err(E::custom("borrowed"))
        }
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Everything {
        small: (bool, u8, i8, u16, i16),
        large: (u32, i32, u64, i64, u128, i128, usize),
        floats: (f32, f64),
        chars: Vec<char>,
        texts: BTreeMap<String, Vec<Option<u16>>>,
        strings: (Bytes, Text),
        units: (Unit, (), New),
        shapes: Vec<Shape>,
    }

    fn everything() -> Everything {
        let inner = |shapes| Everything {
            small: (true, 200, -7, 60_000, -30_000),
            large: (u32::MAX, i32::MIN, u64::MAX - 1, i64::MIN, u128::MAX - 2, i128::MIN, 77),
            floats: (-0.0, 1e300),
            chars: vec!['a', 'ß', '€', '\u{10ffff}'],
            texts: BTreeMap::from([("ein".into(), vec![None, Some(3)]), (String::new(), vec![])]),
            strings: (Bytes(vec![0, 255, 7]), Text("kurz".into())),
            units: (Unit, (), New(-3)),
            shapes,
        };
        let fields = Shape::Fields { name: "dreieck".into(), sides: [3, 4, 5] };
        inner(vec![Shape::Unit, fields, Shape::Tuple(1, -2), Shape::New(Box::new(inner(vec![])))])
    }

    /// Of all places in a message one in so many: all, where they are not interpreted.
    const STEP: usize = if cfg!(miri) { 13 } else { 1 };

    fn encoded(value: &(impl Serialize + ?Sized)) -> Vec<u8> {
        let mut bytes = Buffer::new();
        encode(value, &mut bytes).unwrap();
        bytes.into_vec()
    }

    fn round<T: Serialize + DeserializeOwned + PartialEq + fmt::Debug>(value: T) {
        assert_eq!(<Bincode as Codec<T>>::decode(&encoded(&value)).unwrap(), value);
    }

    #[test]
    fn values_come_back() {
        let large = if cfg!(miri) { 300 } else { 3 << 20 };
        round((1u8, "text".to_string(), vec![Some(1.5f64), None], ()));
        round(vec![0u8; large]);
        round((PlainVec(vec![7u8; large]), PlainVec(vec![0.5f64, -1.0]), PlainVec::<u8>(Vec::new())));
    }

    #[test]
    fn values_of_every_kind_come_back_and_their_strings_are_their_own() {
        round(everything());
    }

    #[test]
    fn bytes_are_these() {
        let bytes = encoded(&(0x0102u16, true, 'ß', "ab", Some(-1i32), Shape::Tuple(7, 1), [1u8; 2]));
        let expected: [&[u8]; 8] = [
            &[2, 1, 1],
            "ß".as_bytes(),
            &[2, 0, 0, 0, 0, 0, 0, 0, b'a', b'b'],
            &[1, 255, 255, 255, 255],
            &[2, 0, 0, 0],
            &[7, 1, 0, 0, 0, 0, 0, 0, 0],
            &[0; 8],
            &[1, 1],
        ];
        assert_eq!(bytes, expected.concat());
    }

    #[test]
    fn cut_off_it_is_an_error_wherever_that_is() {
        let bytes = encoded(&everything());
        for end in (0..bytes.len()).step_by(STEP) {
            assert!(<Bincode as Codec<Everything>>::decode(&bytes[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn wrong_bytes_are_an_error_or_another_value() {
        let right = encoded(&everything());
        let mut seen = [0; 2];
        // Bytes in turn, by values that mean something to lengths, variants, UTF-8 and flags.
        for at in (0..right.len()).step_by(STEP) {
            for by in [0, 1, 2, 0x7f, 0x80, 0xbf, 0xc1, 0xe0, 0xed, 0xf4, 0xf5, 0xff] {
                let mut wrong = right.clone();
                wrong[at] = by;
                let value = <Bincode as Codec<Everything>>::decode(&wrong);
                seen[usize::from(value.is_ok())] += 1;
                // Shorter where a map has one key twice.
                assert!(value.is_err() || encoded(&value.unwrap()).len() <= right.len(), "{by} at {at}");
            }
        }
        assert!(seen.iter().all(|&seen| seen > 1200 / STEP), "{seen:?}");
    }

    #[test]
    fn borrowed_forms_encode_alike() {
        let encoded = |encode: &dyn Fn(&mut Buffer) -> Result<(), CodecError>| {
            let mut bytes = Buffer::new();
            encode(&mut bytes).unwrap();
            bytes.into_vec()
        };
        let (text, list) = ("text".to_string(), vec![(1u8, 2.5f64), (3, 4.0)]);
        assert_eq!(encoded(&|b| Bincode::encode(&text, b)), encoded(&|b| Bincode::encode_ref("text", b)));
        assert_eq!(encoded(&|b| Bincode::encode(&list, b)), encoded(&|b| Bincode::encode_ref(&list[..], b)));
    }

    #[test]
    fn forged_lengths_and_leftovers_are_errors() {
        let forged = u64::MAX.to_le_bytes();
        assert!(<Bincode as Codec<Vec<u8>>>::decode(&forged).is_err());
        assert!(<Bincode as Codec<String>>::decode(&forged).is_err());
        assert!(<Bincode as Codec<Vec<u64>>>::decode(&(1u64 << 40).to_le_bytes()).is_err());
        assert!(<Bincode as Codec<u8>>::decode(&[1, 2]).is_err());
        assert!(<Bincode as Codec<u32>>::decode(&[1, 2]).is_err());
        assert!(<Bincode as Codec<bool>>::decode(&[7]).is_err());
    }
}
