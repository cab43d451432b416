//! Bytes as choices: what a fuzzer makes up, or a seed.

/// Reads choices off bytes; behind their end everything is 0, so every input is one.
#[derive(Clone, Debug)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// All of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Input<'a> {
        Input(bytes)
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// The next eight bytes as a word.
    pub fn word(&mut self) -> u64 {
        let mut bytes = [0; 8];
        let taken = self.take(8);
        bytes[..taken.len()].copy_from_slice(taken);
        u64::from_le_bytes(bytes)
    }

    /// A number below `bound`, of two bytes where that is enough, else of eight; 0 when `bound` is.
    pub fn below(&mut self, bound: u64) -> u64 {
        let number = if bound <= 1 << 16 { u64::from(self.byte()) << 8 | u64::from(self.byte()) } else { self.word() };
        number.checked_rem(bound).unwrap_or(0)
    }

    /// Up to `count` bytes.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        self.take(usize::MAX)
    }
}
