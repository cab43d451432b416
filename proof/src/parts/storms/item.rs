//! The message of queues and pipes: its number stands in the shared table, with all that has become of it.
//!
//! | bits of an item's word | meaning | set by |
//! |---|---|---|
//! | `PUTTING` | a put or send of it has begun | the producer |
//! | `PUT` | it has returned | the producer |
//! | `DECODED` and up, four bits | how often its bytes were decoded | who gets it, while it decodes |
//! | `GOT` and up, eight bits | one for each attempt that was delivered | who has got it |
//! | `ACKING`, `ACKED` | an acknowledgement has begun, has returned | who has leased it |

use super::losses_heard::page;
use super::victim::me;
use multiproc::Atomic;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

pub const PUTTING: u32 = 1;
pub const PUT: u32 = 2;
pub const DECODED: u32 = 1 << 4;
pub const GOT: u32 = 1 << 8;
pub const ACKING: u32 = 1 << 16;
pub const ACKED: u32 = 1 << 17;

/// Some take long to decode, so that who dies in a get has mostly not decoded its message: of one that was decoded and not marked as got nobody can tell whether it died
/// in the get or just behind it, and a loss that is not reported would hide among those.
fn linger(id: u64) {
    let begin = Instant::now();
    while id.is_multiple_of(4) && begin.elapsed() < Duration::from_micros(20) {
        std::hint::spin_loop();
    }
}

/// How often the bytes were decoded.
pub fn decoded(state: u32) -> u32 {
    state >> 4 & 15
}

/// How often it was delivered.
pub fn got(state: u32) -> u32 {
    (state >> 8 & 0xff).count_ones()
}

/// A message.
#[derive(Debug)]
pub struct Item {
    pub id: u64,
    /// The seat of its producer.
    pub from: u32,
    pad: Vec<u8>,
    handle: Option<Atomic<u64>>,
}

impl Item {
    /// Some are beyond what lies in the ring, some carry a handle.
    pub fn new(id: u64, from: usize, handle: &Atomic<u64>) -> Item {
        Item { id, from: from as u32, pad: vec![id as u8; Item::len(id)], handle: (id % 20 == 3).then(|| handle.clone()) }
    }

    fn len(id: u64) -> usize {
        match id % 100 {
            7 => 5000,
            57 => 20_000,
            n => n as usize,
        }
    }

    /// Whether it is what was put.
    pub fn check(&self) -> Result<(), String> {
        let whole = self.pad.len() == Item::len(self.id) && self.pad.iter().all(|&byte| byte == self.id as u8);
        if whole && self.handle.is_some() == (self.id % 20 == 3) {
            Ok(())
        } else {
            Err(format!("item {} is not what was put", self.id))
        }
    }
}

impl Serialize for Item {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if let Some(me) = me() {
            me.may_panic();
        }
        (self.id, self.from, Bytes(&self.pad), &self.handle).serialize(to)
    }
}

/// Bytes as one piece: byte by byte, that is where a storm would spend its time.
struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(self.0)
    }
}

struct Owned(Vec<u8>);

impl<'de> Deserialize<'de> for Owned {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Owned, D::Error> {
        struct Whole;
        impl serde::de::Visitor<'_> for Whole {
            type Value = Owned;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Owned, E> {
                Ok(Owned(bytes.to_vec()))
            }

            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Owned, E> {
                Ok(Owned(bytes))
            }
        }
        from.deserialize_byte_buf(Whole)
    }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Item, D::Error> {
        let (id, from, Owned(pad), handle) = <(u64, u32, Owned, Option<Atomic<u64>>)>::deserialize(d)?;
        linger(id);
        if let Some(page) = page() {
            page.item(id).fetch_add(DECODED, Ordering::Relaxed);
        }
        // Its getter hears of it, so it is not lost.
        if let Some(me) = me() {
            me.may_panic();
        }
        Ok(Item { id, from, pad, handle })
    }
}
