//! [`ShareableList`]: Python's list in shared memory, of a fixed length, value by value.
//!
//! `length i64 | where each place begins, and where the last ends, i64 each | places | formats, 8 bytes each | codes, a byte each`
//!
//! That is CPython's layout. Lengths and places are read once, when the list is opened, and checked against the segment's size; later only formats, codes and values are read, each checked.
//! [`item`](crate::item) says what they mean.
//!
//! A number over a number of the same type is one store of 8 bytes. Any other change takes the format away, writes the value and the code, and puts the new format there:
//!
//! | killed | left behind | who repairs |
//! |---|---|---|
//! | before the format is taken away | the old value | nobody need |
//! | before the new format is there | a value that is being written: an error for who reads it, here and in Python | whoever sets it |
//! | after that | the new value | nobody need |

use crate::error::{Kind, SharedMemoryError};
use crate::item::{Format, Item, LONGEST, UNREADY};
use crate::segment::SharedMemory;
use multiproc_sys::crash;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::thread;

/// How often a value is looked at again that another process is writing.
const LOOKS: u32 = 100;
/// Bytes of the table of places that are read at a time.
const PART: usize = 4096;

/// A list of fixed length in shared memory under a name, of numbers, strings and the like, laid out as Python's `ShareableList`: either opens what the other has made.
///
/// There is no lock, as there is none in Python: take a `Lock` around what several processes change. A value may be replaced by one of another type that fits into its place: a string may
/// become as long as the one that the list was made with, and up to seven bytes longer; numbers always fit.
///
/// Strings keep the NULs at their end and their length in bytes, which Python's own lose; Python, reading them, takes the NULs off.
/// A string that Python has put into its own list is read without them.
///
/// It is a [`SharedMemory`], which says when it ends.
///
/// # Crash safety
/// Killed while it replaces a value, a process leaves the old one, the new one, or none: an error for who reads it, until somebody sets it. No other value is touched.
///
/// # Python
/// `multiprocessing.shared_memory.ShareableList`, without its faults: trailing NULs are kept, strings that are not ASCII fit, a value that does not fit changes nothing.
///
/// # Examples
/// ```
/// use multiproc::{Item, ShareableList};
///
/// let list = ShareableList::new(None, [Item::from("running"), 0.into(), 0.5.into(), ().into()])?;
/// list.set(1, 42)?;
/// list.set(0, "done")?;
/// let same = ShareableList::open(list.name())?;
/// assert_eq!(same.to_vec()?, ["done".into(), 42.into(), 0.5.into(), Item::None]);
/// assert!(same.set(0, "a string that is too long for its place").unwrap_err().is_invalid());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ShareableList {
    memory: SharedMemory,
    /// Where each place begins in the segment, and where the last ends.
    places: Vec<u64>,
}

impl ShareableList {
    /// A list of these values in a new segment; without a name it gets one of its own.
    ///
    /// # Errors
    /// Those of [`SharedMemory::create`]; a string has more than 999,999 bytes.
    pub fn new<I>(name: Option<&str>, items: I) -> Result<ShareableList, SharedMemoryError>
    where
        I: IntoIterator,
        I::Item: Into<Item>,
    {
        let items: Vec<Item> = items.into_iter().map(Into::into).collect();
        let start = (items.len() as u64 + 2) * 8;
        let (mut places, mut end) = (vec![start], start);
        let (mut values, mut formats, mut codes) = (Vec::new(), Vec::new(), Vec::new());
        for item in &items {
            let Some((format, code, mut bytes)) = item.encode() else {
                return Err(SharedMemoryError::new(name.unwrap_or_default(), Kind::Invalid(TOO_LONG)));
            };
            bytes.resize(item.place(), 0);
            end += bytes.len() as u64;
            places.push(end);
            values.extend(bytes);
            formats.extend(format);
            codes.push(code);
        }
        let mut bytes = (items.len() as i64).to_ne_bytes().to_vec();
        bytes.extend(places.iter().flat_map(|place| (place - start).to_ne_bytes()));
        bytes.extend(values);
        bytes.extend(formats);
        bytes.extend(codes);
        let memory = SharedMemory::create(name, bytes.len() as u64)?;
        // The length last: who opens it before finds an empty list.
        let (length, rest) = bytes.split_at(8);
        memory.write_at(8, rest)?;
        crash::point("list.filled");
        memory.write_at(0, length)?;
        Ok(ShareableList { memory, places })
    }

    /// The list of that name, whoever made it.
    ///
    /// # Errors
    /// Those of [`SharedMemory::open`]; what is there is no list.
    pub fn open(name: &str) -> Result<ShareableList, SharedMemoryError> {
        ShareableList::within(SharedMemory::open(name)?)
    }

    fn within(memory: SharedMemory) -> Result<ShareableList, SharedMemoryError> {
        let wrong = || SharedMemoryError::new(memory.name(), Kind::Corrupted("what is there is no ShareableList"));
        let size = memory.size();
        if size < 16 {
            return Err(wrong());
        }
        let length = u64::from_ne_bytes(read(&memory, 0)?);
        let start = length.checked_add(2).and_then(|n| n.checked_mul(8)).filter(|start| *start <= size).ok_or_else(wrong)?;
        // Part by part, so that no more is taken for it than somebody has written there.
        let mut places = Vec::new();
        let mut part = [0; PART];
        for at in (8..start).step_by(PART) {
            let part = &mut part[..PART.min((start - at) as usize)];
            memory.read_at(at, part)?;
            for word in part.chunks_exact(8) {
                let place = start.checked_add(u64::from_ne_bytes(word.try_into().expect("8 bytes"))).ok_or_else(wrong)?;
                let least = places.last().map_or(start, |last| last + 8);
                if place < least || (places.is_empty() && place != start) || place > size {
                    return Err(wrong());
                }
                places.push(place);
            }
        }
        if places.last().is_none_or(|end| end + length * 9 > size) {
            return Err(wrong());
        }
        Ok(ShareableList { memory, places })
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.places.len() - 1
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The segment's name.
    pub fn name(&self) -> &str {
        self.memory.name()
    }

    /// The segment, to unlink it or have it persist.
    #[doc(alias = "shm")]
    pub fn memory(&self) -> &SharedMemory {
        &self.memory
    }

    /// The value at `index`.
    ///
    /// # Errors
    /// There is no such index; the value is being written, or its writer has died over it; it is none that Python could have written; another program has cut the segment.
    pub fn get(&self, index: usize) -> Result<Item, SharedMemoryError> {
        self.check(index)?;
        for _ in 0..LOOKS {
            let format = self.format_at(index)?;
            let [code] = read(&self.memory, self.code(index))?;
            let wanted = Item::wanted(format, code);
            // Of a place only what the value takes: it may be as large as the segment.
            let mut bytes = vec![0; wanted.unwrap_or(0).min(self.room(index))];
            self.memory.read_at(self.places[index], &mut bytes)?;
            if format != UNREADY && self.format_at(index)? == format {
                let value = wanted.and_then(|_| Item::decode(format, code, &bytes));
                return value.map_err(|why| self.error(Kind::Corrupted(why)));
            }
            thread::yield_now();
        }
        Err(self.error(Kind::Corrupted("the value is being written, or its writer has died: set it again")))
    }

    /// Replaces the value at `index`; one that does not fit changes nothing.
    ///
    /// # Errors
    /// There is no such index; a string is longer than its place; another program has cut the segment.
    pub fn set(&self, index: usize, value: impl Into<Item>) -> Result<(), SharedMemoryError> {
        self.check(index)?;
        let room = self.room(index);
        let (format, code, bytes) = value.into().encode().ok_or_else(|| self.error(Kind::Invalid(TOO_LONG)))?;
        // Padding counts: Python reads it.
        let padded = bytes.len() + usize::from(format.contains(&b's'));
        if bytes.len() > room || padded > (self.memory.size() - self.places[index]) as usize {
            return Err(
                self.error(Kind::Invalid("the value does not fit into its place, which is as large as the first one was"))
            );
        }
        let before = self.format_at(index)?;
        if before == format && bytes.len() == 8 && code == 0 {
            let [old] = read(&self.memory, self.code(index))?;
            if old == code {
                return self.memory.write_at(self.places[index], &bytes);
            }
        }
        crash::point("list.set");
        self.memory.write_at(self.format(index), &UNREADY)?;
        crash::point("list.unready");
        self.memory.write_at(self.places[index], &bytes)?;
        crash::point("list.written");
        self.memory.write_at(self.code(index), &[code])?;
        crash::point("list.coded");
        self.memory.write_at(self.format(index), &format)
    }

    /// All values, one after the other.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Result<Item, SharedMemoryError>> {
        (0..self.len()).map(|index| self.get(index))
    }

    /// A copy of all values.
    ///
    /// # Errors
    /// As [`get`](ShareableList::get).
    pub fn to_vec(&self) -> Result<Vec<Item>, SharedMemoryError> {
        self.iter().collect()
    }

    /// How many values are equal to this one.
    ///
    /// # Errors
    /// As [`get`](ShareableList::get).
    pub fn count(&self, value: impl Into<Item>) -> Result<usize, SharedMemoryError> {
        let value = value.into();
        self.iter().try_fold(0, |n, item| Ok(n + usize::from(item? == value)))
    }

    /// The first index with this value; `None` where Python raises `ValueError`.
    ///
    /// # Errors
    /// As [`get`](ShareableList::get).
    pub fn index(&self, value: impl Into<Item>) -> Result<Option<usize>, SharedMemoryError> {
        let value = value.into();
        for (n, item) in self.iter().enumerate() {
            if item? == value {
                return Ok(Some(n));
            }
        }
        Ok(None)
    }

    fn check(&self, index: usize) -> Result<(), SharedMemoryError> {
        if index < self.len() { Ok(()) } else { Err(self.error(Kind::Invalid("the list has no such index"))) }
    }

    /// Bytes of a value's place.
    fn room(&self, index: usize) -> usize {
        (self.places[index + 1] - self.places[index]) as usize
    }

    fn error(&self, kind: Kind) -> SharedMemoryError {
        SharedMemoryError::new(self.name(), kind)
    }

    fn format(&self, index: usize) -> u64 {
        self.places[self.len()] + index as u64 * 8
    }

    fn format_at(&self, index: usize) -> Result<Format, SharedMemoryError> {
        read(&self.memory, self.format(index))
    }

    fn code(&self, index: usize) -> u64 {
        self.places[self.len()] + (self.len() * 8 + index) as u64
    }
}

const TOO_LONG: &str = "a string in a list has at most 999,999 bytes";
const _: () = assert!(LONGEST == 999_999);

fn read<const N: usize>(memory: &SharedMemory, at: u64) -> Result<[u8; N], SharedMemoryError> {
    let mut bytes = [0; N];
    memory.read_at(at, &mut bytes)?;
    Ok(bytes)
}

impl fmt::Debug for ShareableList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShareableList").field("name", &self.name()).field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Serialize for ShareableList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.memory.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ShareableList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ShareableList, D::Error> {
        ShareableList::within(SharedMemory::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}
