//! [`Decoder`]: what bincode writes with integers at their fixed width, read back for serde.
//!
//! bincode's own decoder zeroes a string or a byte string before it reads into it, which for a large one costs as much as the copy, and counts what it reads against a limit. This one knows how many
//! bytes there are: a length beyond them is refused before anything is allocated, and what is copied goes where nothing has been written before. It reads each byte once, from left to right.
//!
//! | type | bytes |
//! |---|---|
//! | integers, floats | little endian |
//! | `bool` | 0 or 1 |
//! | `char` | UTF-8 |
//! | `str`, byte strings | length as `u64`, bytes |
//! | sequences, maps | length as `u64`, elements; keys before their values |
//! | tuples, structs | elements |
//! | `Option` | 0, or 1 and the value |
//! | enums | number of the variant as `u32`, and what a struct of its fields has |

use bincode::error::DecodeError;
use serde::de::value::U32Deserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};

/// What is still to be read.
pub(super) struct Decoder<'a>(&'a [u8]);

impl<'a> Decoder<'a> {
    #[inline]
    pub(super) fn new(bytes: &'a [u8]) -> Decoder<'a> {
        Decoder(bytes)
    }

    /// Bytes that nothing has read.
    #[inline]
    pub(super) fn left_over(&self) -> usize {
        self.0.len()
    }

    #[inline(always)]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some((bytes, rest)) = self.0.split_first_chunk::<N>() else {
            // A constant: what is worked out here for each field keeps the decoder of a small struct from being compiled in one piece.
            return Err(DecodeError::UnexpectedEnd { additional: 0 });
        };
        self.0 = rest;
        Ok(*bytes)
    }

    #[inline(always)]
    fn byte(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    #[inline(always)]
    fn length(&mut self) -> Result<usize, DecodeError> {
        let length = u64::from_le_bytes(self.array()?);
        length.try_into().map_err(|_| DecodeError::OutsideUsizeRange(length))
    }

    /// A copy of a string of bytes.
    fn bytes(&mut self) -> Result<Vec<u8>, DecodeError> {
        let length = self.length()?;
        let Some((bytes, rest)) = self.0.split_at_checked(length) else {
            return Err(DecodeError::UnexpectedEnd { additional: 0 });
        };
        self.0 = rest;
        Ok(bytes.to_vec())
    }

    #[cold]
    fn not_a_char(bytes: [u8; 4]) -> DecodeError {
        DecodeError::InvalidCharEncoding(bytes)
    }

    fn char(&mut self) -> Result<char, DecodeError> {
        let mut bytes = [self.byte()?, 0, 0, 0];
        let width = match bytes[0] {
            0..0x80 => return Ok(bytes[0].into()),
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => return Err(Decoder::not_a_char(bytes)),
        };
        for byte in &mut bytes[1..width] {
            *byte = self.byte()?;
        }
        let text = std::str::from_utf8(&bytes[..width]).ok();
        text.and_then(|text| text.chars().next()).ok_or_else(|| Decoder::not_a_char(bytes))
    }
}

#[cold]
fn not_a_bool(byte: u8) -> DecodeError {
    DecodeError::InvalidBooleanValue(byte)
}

#[cold]
fn not_an_option(byte: u8) -> DecodeError {
    DecodeError::custom(format_args!("{byte} is neither none nor some"))
}

#[cold]
fn not_self_describing() -> DecodeError {
    DecodeError::custom("a type that asks what comes cannot be decoded from bytes that do not say it")
}

macro_rules! numbers {
    ($($method:ident $visit:ident $number:ty,)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            visitor.$visit(<$number>::from_le_bytes(self.array()?))
        }
    )*};
}

impl<'de> Deserializer<'de> for &mut Decoder<'_> {
    type Error = DecodeError;

    numbers! {
        deserialize_i8 visit_i8 i8,
        deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64,
        deserialize_i128 visit_i128 i128,
        deserialize_u8 visit_u8 u8,
        deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64,
        deserialize_u128 visit_u128 u128,
        deserialize_f32 visit_f32 f32,
        deserialize_f64 visit_f64 f64,
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, DecodeError> {
        Err(not_self_describing())
    }

    #[inline]
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.byte()? {
            0 => visitor.visit_bool(false),
            1 => visitor.visit_bool(true),
            other => Err(not_a_bool(other)),
        }
    }

    #[inline]
    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_char(self.char()?)
    }

    #[inline]
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_string(visitor)
    }

    #[inline]
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let text = String::from_utf8(self.bytes()?).map_err(|e| DecodeError::Utf8 { inner: e.utf8_error() })?;
        visitor.visit_string(text)
    }

    #[inline]
    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_byte_buf(visitor)
    }

    #[inline]
    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_byte_buf(self.bytes()?)
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.byte()? {
            0 => visitor.visit_none(),
            1 => visitor.visit_some(self),
            other => Err(not_an_option(other)),
        }
    }

    #[inline]
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self)
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let length = self.length()?;
        self.deserialize_tuple(length, visitor)
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_seq(Elements { decoder: self, length })
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.deserialize_tuple(length, visitor)
    }

    #[inline]
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let length = self.length()?;
        visitor.visit_map(Elements { decoder: self, length })
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.deserialize_tuple(fields.len(), visitor)
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_enum(self)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Result<V::Value, DecodeError> {
        Err(not_self_describing())
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, DecodeError> {
        Err(not_self_describing())
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// The rest of a sequence, or of a map.
struct Elements<'d, 'a> {
    decoder: &'d mut Decoder<'a>,
    /// Of a sequence or a map not trusted: where it is too long, the bytes end first.
    length: usize,
}

impl Elements<'_, '_> {
    /// What somebody may make room for: elements take at least a byte each, but for those that need no room.
    #[inline]
    fn at_most(&self) -> usize {
        self.length.min(self.decoder.left_over())
    }
}

impl<'de> SeqAccess<'de> for Elements<'_, '_> {
    type Error = DecodeError;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, DecodeError> {
        if self.length == 0 {
            return Ok(None);
        }
        self.length -= 1;
        seed.deserialize(&mut *self.decoder).map(Some)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.at_most())
    }
}

impl<'de> MapAccess<'de> for Elements<'_, '_> {
    type Error = DecodeError;

    #[inline]
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DecodeError> {
        self.next_element_seed(seed)
    }

    #[inline]
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, DecodeError> {
        seed.deserialize(&mut *self.decoder)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.at_most())
    }
}

impl<'de> EnumAccess<'de> for &mut Decoder<'_> {
    type Error = DecodeError;
    type Variant = Self;

    #[inline]
    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), DecodeError> {
        let variant: U32Deserializer<DecodeError> = u32::from_le_bytes(self.array()?).into_deserializer();
        Ok((seed.deserialize(variant)?, self))
    }
}

impl<'de> VariantAccess<'de> for &mut Decoder<'_> {
    type Error = DecodeError;

    #[inline]
    fn unit_variant(self) -> Result<(), DecodeError> {
        Ok(())
    }

    #[inline]
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, DecodeError> {
        seed.deserialize(self)
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_tuple(length, visitor)
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_tuple(fields.len(), visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::{Deserialize, Serialize};
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

    /// Serialised as a byte string.
    #[derive(Clone, Debug, PartialEq)]
    struct Bytes(Vec<u8>);

    impl Serialize for Bytes {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_bytes(&self.0)
        }
    }

    impl<'de> Deserialize<'de> for Bytes {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
            struct Taken;
            impl Visitor<'_> for Taken {
                type Value = Bytes;
                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("a byte string of one's own")
                }
                fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
                    Ok(Bytes(bytes))
                }
            }
            deserializer.deserialize_bytes(Taken)
        }
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Everything {
        small: (bool, u8, i8, u16, i16),
        large: (u32, i32, u64, i64, u128, i128, usize),
        floats: (f32, f64),
        chars: Vec<char>,
        texts: BTreeMap<String, Vec<Option<u16>>>,
        bytes: Bytes,
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
            bytes: Bytes(vec![0, 255, 7]),
            units: (Unit, (), New(-3)),
            shapes,
        };
        let fields = Shape::Fields { name: "dreieck".into(), sides: [3, 4, 5] };
        inner(vec![Shape::Unit, fields, Shape::Tuple(1, -2), Shape::New(Box::new(inner(vec![])))])
    }

    fn ours<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Option<(T, usize)> {
        let mut decoder = Decoder::new(bytes);
        T::deserialize(&mut decoder).ok().map(|value| (value, bytes.len() - decoder.left_over()))
    }

    /// What bincode reads there, and how far.
    fn theirs<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Option<(T, usize)> {
        let config = bincode::config::standard().with_fixed_int_encoding().with_limit::<{ 1 << 20 }>();
        let mut rest = bytes;
        let value = bincode::serde::decode_from_std_read(&mut rest, config).ok()?;
        Some((value, bytes.len() - rest.len()))
    }

    fn encoded(value: &impl Serialize) -> Vec<u8> {
        bincode::serde::encode_to_vec(value, bincode::config::standard().with_fixed_int_encoding()).unwrap()
    }

    #[test]
    fn it_reads_what_bincode_writes() {
        let bytes = encoded(&everything());
        assert_eq!(ours::<Everything>(&bytes), Some((everything(), bytes.len())));
        assert_eq!(ours::<Everything>(&bytes), theirs(&bytes));
    }

    #[test]
    fn cut_off_it_is_an_error_wherever_that_is() {
        let bytes = encoded(&everything());
        for end in 0..bytes.len() {
            assert_eq!(ours::<Everything>(&bytes[..end]), None, "{end}");
        }
    }

    #[test]
    fn wrong_bytes_are_to_it_what_they_are_to_bincode() {
        let right = encoded(&everything());
        let mut alike = [0; 2];
        // Each byte in turn, by values that mean something to lengths, variants, UTF-8 and flags.
        for at in 0..right.len() {
            for by in [0, 1, 2, 0x7f, 0x80, 0xbf, 0xc1, 0xe0, 0xed, 0xf4, 0xf5, 0xff] {
                let mut wrong = right.clone();
                wrong[at] = by;
                let (ours, theirs) = (ours::<Everything>(&wrong), theirs::<Everything>(&wrong));
                // By text: what is no number equals nothing.
                assert_eq!(format!("{ours:?}"), format!("{theirs:?}"), "{by} at {at}");
                alike[usize::from(ours.is_some())] += 1;
            }
        }
        assert!(alike.iter().all(|&seen| seen > 100), "{alike:?}");
    }

    #[test]
    fn no_more_room_is_asked_for_than_there_are_bytes() {
        struct Hint;
        impl<'de> Visitor<'de> for Hint {
            type Value = usize;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a sequence")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<usize, A::Error> {
                Ok(seq.size_hint().unwrap())
            }
        }
        let mut forged = u64::MAX.to_le_bytes().to_vec();
        forged.extend([0; 5]);
        assert_eq!(Decoder::new(&forged).deserialize_seq(Hint).unwrap(), 5);
    }
}
