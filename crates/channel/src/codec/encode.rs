//! serde to bytes in bincode's format, as its configuration `standard().with_fixed_int_encoding()` has it.
//!
//! Written here because the crate's own encoder takes a call of thirty instructions for each field, and hands errors about as structs; this one
//! stores the bytes and adds to a length. Tests hold it against the crate's.

use super::{Buffer, CodecError};
use serde::ser::{
    Error, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple, SerializeTupleStruct,
    SerializeTupleVariant, Serializer,
};
use std::fmt;

/// Appends `value` to `into`.
#[inline]
pub(super) fn encode(value: &(impl Serialize + ?Sized), into: &mut Buffer) -> Result<(), CodecError> {
    value.serialize(Encoder(into)).map_err(|Failed(why)| why)
}

/// Where a value goes.
struct Encoder<'a>(&'a mut Buffer);

/// Why it does not. One word.
#[derive(Debug)]
struct Failed(CodecError);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Failed {}

impl Error for Failed {
    #[cold]
    fn custom<T: fmt::Display>(why: T) -> Failed {
        Failed(CodecError::encode(why.to_string()))
    }
}

impl<'a> Encoder<'a> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) -> Result<(), Failed> {
        self.0.append(bytes).map_err(Failed)
    }

    #[inline]
    fn put_len(&mut self, len: usize) -> Result<(), Failed> {
        self.put(&(len as u64).to_le_bytes())
    }

    #[inline]
    fn counted(mut self, len: Option<usize>) -> Result<Encoder<'a>, Failed> {
        let len = len.ok_or_else(|| Failed::custom("a sequence or map must know its length"))?;
        self.put_len(len)?;
        Ok(self)
    }

    #[inline]
    fn variant(mut self, index: u32) -> Result<Encoder<'a>, Failed> {
        self.put(&index.to_le_bytes())?;
        Ok(self)
    }
}

macro_rules! numbers {
    ($($method:ident($Number:ty))*) => { $(
        #[inline]
        fn $method(mut self, value: $Number) -> Result<(), Failed> {
            self.put(&value.to_le_bytes())
        }
    )* };
}

impl<'a> Serializer for Encoder<'a> {
    type Ok = ();
    type Error = Failed;
    type SerializeSeq = Encoder<'a>;
    type SerializeTuple = Encoder<'a>;
    type SerializeTupleStruct = Encoder<'a>;
    type SerializeTupleVariant = Encoder<'a>;
    type SerializeMap = Encoder<'a>;
    type SerializeStruct = Encoder<'a>;
    type SerializeStructVariant = Encoder<'a>;

    numbers! {
        serialize_i8(i8) serialize_i16(i16) serialize_i32(i32) serialize_i64(i64) serialize_i128(i128)
        serialize_u8(u8) serialize_u16(u16) serialize_u32(u32) serialize_u64(u64) serialize_u128(u128)
        serialize_f32(f32) serialize_f64(f64)
    }

    #[inline]
    fn serialize_bool(mut self, value: bool) -> Result<(), Failed> {
        self.put(&[u8::from(value)])
    }

    #[inline]
    fn serialize_char(mut self, value: char) -> Result<(), Failed> {
        self.put(value.encode_utf8(&mut [0; 4]).as_bytes())
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result<(), Failed> {
        self.serialize_bytes(value.as_bytes())
    }

    #[inline]
    fn serialize_bytes(mut self, value: &[u8]) -> Result<(), Failed> {
        self.put_len(value.len())?;
        self.put(value)
    }

    #[inline]
    fn serialize_none(mut self) -> Result<(), Failed> {
        self.put(&[0])
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(mut self, value: &T) -> Result<(), Failed> {
        self.put(&[1])?;
        value.serialize(self)
    }

    #[inline]
    fn serialize_unit(self) -> Result<(), Failed> {
        Ok(())
    }

    #[inline]
    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Failed> {
        Ok(())
    }

    #[inline]
    fn serialize_unit_variant(self, _: &'static str, index: u32, _: &'static str) -> Result<(), Failed> {
        self.variant(index).map(drop)
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Failed> {
        value.serialize(self)
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), Failed> {
        value.serialize(self.variant(index)?)
    }

    #[inline]
    fn serialize_seq(self, len: Option<usize>) -> Result<Encoder<'a>, Failed> {
        self.counted(len)
    }

    #[inline]
    fn serialize_tuple(self, _: usize) -> Result<Encoder<'a>, Failed> {
        Ok(self)
    }

    #[inline]
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Encoder<'a>, Failed> {
        Ok(self)
    }

    #[inline]
    fn serialize_tuple_variant(self, _: &'static str, index: u32, _: &'static str, _: usize) -> Result<Encoder<'a>, Failed> {
        self.variant(index)
    }

    #[inline]
    fn serialize_map(self, len: Option<usize>) -> Result<Encoder<'a>, Failed> {
        self.counted(len)
    }

    #[inline]
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Encoder<'a>, Failed> {
        Ok(self)
    }

    #[inline]
    fn serialize_struct_variant(self, _: &'static str, index: u32, _: &'static str, _: usize) -> Result<Encoder<'a>, Failed> {
        self.variant(index)
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }
}

macro_rules! compounds {
    ($($Trait:ident::$method:ident($($key:ident)?))*) => { $(
        impl $Trait for Encoder<'_> {
            type Ok = ();
            type Error = Failed;

            #[inline]
            fn $method<T: Serialize + ?Sized>(&mut self, $($key: &'static str,)? value: &T) -> Result<(), Failed> {
                $(let _ = $key;)?
                value.serialize(Encoder(self.0))
            }

            #[inline]
            fn end(self) -> Result<(), Failed> {
                Ok(())
            }
        }
    )* };
}

compounds! {
    SerializeSeq::serialize_element()
    SerializeTuple::serialize_element()
    SerializeTupleStruct::serialize_field()
    SerializeTupleVariant::serialize_field()
    SerializeStruct::serialize_field(key)
    SerializeStructVariant::serialize_field(key)
}

impl SerializeMap for Encoder<'_> {
    type Ok = ();
    type Error = Failed;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Failed> {
        key.serialize(Encoder(self.0))
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Failed> {
        value.serialize(Encoder(self.0))
    }

    #[inline]
    fn end(self) -> Result<(), Failed> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::{Deserialize, Serialize};
    use std::collections::BTreeMap;

    #[derive(Serialize, Deserialize)]
    enum Shape {
        Empty,
        Tuple(u8, i64),
        Named { text: String, inner: Box<Shape> },
        New(Option<char>),
    }

    fn alike(value: &(impl Serialize + ?Sized)) {
        let mut ours = Buffer::new();
        encode(value, &mut ours).unwrap();
        let config = bincode::config::standard().with_fixed_int_encoding();
        assert_eq!(ours.into_vec(), bincode::serde::encode_to_vec(value, config).unwrap());
    }

    #[test]
    fn the_bytes_are_bincodes() {
        alike(&(true, false, -1i8, -2i16, -3i32, -4i64, i128::MIN, 5u8, 6u16, 7u32));
        alike(&(8u64, u128::MAX, 1.5f32, -0.0f64, usize::MAX, isize::MIN));
        ['a', 'ß', '語', '🦀'].iter().for_each(alike);
        alike("text, größer");
        alike(&(String::new(), vec![0u8; 5000], [3u16; 7], (), Some(Some(1u8)), None::<u8>));
        let named = Shape::Named { text: "x".into(), inner: Box::new(Shape::Tuple(1, -1)) };
        alike(&[named, Shape::Empty, Shape::New(Some('c')), Shape::New(None)]);
        alike(&BTreeMap::from([(1u32, vec!["a", "b"]), (2, vec![])]));
        alike(&std::time::Duration::new(3, 4));
        alike(&std::net::IpAddr::from([127, 0, 0, 1]));
    }

    #[test]
    fn a_sequence_without_a_length_is_refused() {
        struct Endless;
        impl Serialize for Endless {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_seq((0..9).filter(|n| n % 2 == 0))
            }
        }
        assert!(encode(&Endless, &mut Buffer::new()).is_err());
    }
}
