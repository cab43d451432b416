//! [`Item`]: one value of a [`ShareableList`](crate::ShareableList), and how it is laid out.
//!
//! A slot has a place for the value, a multiple of 8 bytes; a format of 8 bytes, which Python's `struct` reads; and a code that says what Python makes of it.
//!
//! | value | format | code | bytes in the place |
//! |---|---|---|---|
//! | `None` | `xxxxxx?x` | 3 | of no meaning |
//! | `Bool` | `xxxxxxx?` | 0 | the eighth |
//! | `Int` | `q` | 0 | 8, native order |
//! | `Float` | `d` | 0 | 8, native order |
//! | `Str`, `Bytes` of n bytes | `{n}sx` | 1, 2 | the first n |
//! | the same, written by Python | `{place}s` | 1, 2 | those up to the last that is not 0 |
//! | being written | eight NULs | any | of no meaning |
//!
//! Python pads strings with NULs up to their place and takes all NULs off when it reads, also those that belong to the value. The length in the format keeps them; the `x` behind
//! it, a byte of padding, has Python write a format of its own when it replaces the value, instead of cutting a longer one to the old length.

/// The longest string, in bytes: a format has 8 characters.
pub(crate) const LONGEST: usize = 999_999;

/// A value of a [`ShareableList`](crate::ShareableList).
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// Python's `None`.
    None,
    /// `bool`.
    Bool(bool),
    /// `int`, of which Python's lists take 64 bits.
    Int(i64),
    /// `float`.
    Float(f64),
    /// `str`.
    Str(String),
    /// `bytes`.
    Bytes(Vec<u8>),
}

macro_rules! from {
    ($($T:ty => $variant:ident)*) => { $(
        impl From<$T> for Item {
            fn from(value: $T) -> Item {
                Item::$variant(value.into())
            }
        }
    )* };
}
from!(bool => Bool i64 => Int i32 => Int u32 => Int f64 => Float String => Str &str => Str Vec<u8> => Bytes &[u8] => Bytes);

impl From<()> for Item {
    fn from((): ()) -> Item {
        Item::None
    }
}

/// `None` for `None`.
impl<T: Into<Item>> From<Option<T>> for Item {
    fn from(value: Option<T>) -> Item {
        value.map_or(Item::None, Into::into)
    }
}

pub(crate) type Format = [u8; 8];
/// Of a value that is being written.
pub(crate) const UNREADY: Format = [0; 8];
const NONE: &Format = b"xxxxxx?x";
const BOOL: &Format = b"xxxxxxx?";
const INT: &Format = b"q\0\0\0\0\0\0\0";
const FLOAT: &Format = b"d\0\0\0\0\0\0\0";

impl Item {
    /// Bytes that a place for this value has: with room for a NUL behind a string, as Python's.
    pub(crate) fn place(&self) -> usize {
        match self {
            Item::Str(s) => 8 * (s.len() / 8 + 1),
            Item::Bytes(b) => 8 * (b.len() / 8 + 1),
            _ => 8,
        }
    }

    /// Format, code and bytes; `None` for a string that is too long for any list.
    pub(crate) fn encode(&self) -> Option<(Format, u8, Vec<u8>)> {
        let text = |bytes: &[u8], code| {
            let mut format = UNREADY;
            let digits = format!("{}sx", bytes.len());
            format.get_mut(..digits.len())?.copy_from_slice(digits.as_bytes());
            Some((format, code, bytes.to_vec()))
        };
        match self {
            Item::None => Some((*NONE, 3, vec![0; 8])),
            Item::Bool(b) => Some((*BOOL, 0, vec![0, 0, 0, 0, 0, 0, 0, u8::from(*b)])),
            Item::Int(n) => Some((*INT, 0, n.to_ne_bytes().to_vec())),
            Item::Float(x) => Some((*FLOAT, 0, x.to_ne_bytes().to_vec())),
            Item::Str(s) => text(s.as_bytes(), 1),
            Item::Bytes(b) => text(b, 2),
        }
    }

    /// How many bytes of its place a value of this format is in.
    pub(crate) fn wanted(format: Format, code: u8) -> Result<usize, &'static str> {
        if matches!(code, 1 | 2) { length(format).map(|(len, _)| len) } else { Ok(8) }
    }

    /// The value in these bytes, or why there is none.
    pub(crate) fn decode(format: Format, code: u8, place: &[u8]) -> Result<Item, &'static str> {
        let word = || place.first_chunk::<8>().copied().ok_or("an item's place is too small");
        match (&format, code) {
            (_, 3) => Ok(Item::None),
            (BOOL, 0) => Ok(Item::Bool(word()?[7] != 0)),
            (INT, 0) => Ok(Item::Int(i64::from_ne_bytes(word()?))),
            (FLOAT, 0) => Ok(Item::Float(f64::from_ne_bytes(word()?))),
            (_, 1) => {
                let bytes = string(format, place)?;
                String::from_utf8(bytes).map(Item::Str).map_err(|_| "a string is not UTF-8: Python cuts those that are not ASCII")
            }
            (_, 2) => string(format, place).map(Item::Bytes),
            _ => Err("an item's format is none of Python's"),
        }
    }
}

/// Of a string, and whether it is exact.
fn length(format: Format) -> Result<(usize, bool), &'static str> {
    const WRONG: &str = "a string's format is none of Python's";
    let end = format.iter().position(|b| *b == 0).unwrap_or(format.len());
    let text = std::str::from_utf8(&format[..end]).map_err(|_| WRONG)?;
    let (digits, exact) = match text.strip_suffix("sx") {
        Some(digits) => (digits, true),
        None => (text.strip_suffix('s').ok_or(WRONG)?, false),
    };
    Ok((digits.parse().map_err(|_| WRONG)?, exact))
}

fn string(format: Format, place: &[u8]) -> Result<Vec<u8>, &'static str> {
    let (len, exact) = length(format)?;
    let bytes = place.get(..len).ok_or("a string is longer than its place")?;
    let end = if exact { len } else { bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1) };
    Ok(bytes[..end].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive() {
        let long = "x".repeat(LONGEST);
        for item in [
            Item::None,
            true.into(),
            false.into(),
            i64::MIN.into(),
            7u32.into(),
            0.5.into(),
            "".into(),
            "a\0\0".into(),
            "häöü".into(),
            long.into(),
            b"\0\0".as_slice().into(),
            vec![0u8; 16].into(),
            Some(3).into(),
            None::<i64>.into(),
            ().into(),
        ] {
            let (format, code, bytes) = item.encode().unwrap();
            let mut place = bytes.clone();
            place.resize(item.place(), 0);
            assert!(place.len() >= bytes.len());
            assert_eq!(Item::decode(format, code, &place), Ok(item));
        }
        assert!(Item::Bytes(vec![1; LONGEST + 1]).encode().is_none());
    }

    #[test]
    fn what_python_writes_is_read_as_python_reads_it() {
        assert_eq!(Item::decode(*b"16s\0\0\0\0\0", 1, b"abc\0\0\0\0\0\0\0\0\0\0\0\0\0"), Ok("abc".into()));
        assert_eq!(Item::decode(*b"8s\0\0\0\0\0\0", 2, b"\0a\0\0\0\0\0\0"), Ok(b"\0a".as_slice().into()));
        assert_eq!(Item::decode(*b"8s\0\0\0\0\0\0", 2, &[0; 8]), Ok(Vec::new().into()));
    }

    #[test]
    fn nonsense_is_an_error() {
        for (format, code, place) in [
            (*b"99s\0\0\0\0\0", 1, &[0u8; 8][..]),
            (*b"-1s\0\0\0\0\0", 1, &[0; 8]),
            (*b"sx\0\0\0\0\0\0", 1, &[0; 8]),
            (*b"q\0\0\0\0\0\0\0", 1, &[0; 8]),
            (*b"8s\0\0\0\0\0\0", 0, &[0; 8]),
            (*b"q\0\0\0\0\0\0\0", 0, &[0; 4]),
            (*b"8s\0\0\0\0\0\0", 1, b"\xff1234567"),
            (UNREADY, 0, &[0; 8]),
            (UNREADY, 77, &[0; 8]),
        ] {
            assert!(Item::decode(format, code, place).is_err(), "{format:?} {code}");
        }
    }
}
