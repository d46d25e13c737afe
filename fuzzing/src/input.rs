//! Reading decisions from bytes.

/// The rest of the input. When it is used up everything reads as zero and [`Input::is_empty`] tells the target to end.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// All of `data`.
    pub fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    /// Nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next `count` bytes, or what is left of them.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.0)
    }

    /// A number of `size` bytes (at most 8), little-endian.
    pub fn number(&mut self, size: u8) -> u64 {
        let mut bytes = [0; 8];
        let taken = self.bytes(usize::from(size.min(8)));
        bytes[..taken.len()].copy_from_slice(taken);
        u64::from_le_bytes(bytes)
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        self.number(1) as u8
    }

    /// A number below `limit`, which is not zero.
    pub fn below(&mut self, limit: u64) -> u64 {
        let size = if limit <= 1 << 8 {
            1
        } else if limit <= 1 << 16 {
            2
        } else {
            8
        };
        self.number(size) % limit
    }

    /// One of the sizes of an access: 1, 2, 4 or 8.
    pub fn access_size(&mut self) -> u8 {
        1 << (self.byte() & 3)
    }
}
