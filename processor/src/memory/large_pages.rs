//! Which large pages have parts in the software TLB: forgetting one part forgets all.

/// Of which large pages parts are cached: a bit stands for each, and for few others.
#[derive(Clone, Debug)]
pub(super) struct LargePages {
    /// Some bit is set.
    any: bool,
    /// For each size.
    bits: [[u64; 64]; LARGE_SHIFTS.len()],
}

/// Sizes of large pages: 2 and 4 MiB, 1 GiB.
const LARGE_SHIFTS: [u32; 3] = [21, 22, 30];

impl LargePages {
    /// None.
    pub(super) const NONE: Self = Self { any: false, bits: [[0; 64]; LARGE_SHIFTS.len()] };

    /// The word and the bit for a page of `1 << shift` bytes.
    fn place(address: u64, shift: u32) -> (usize, u64) {
        let number = address >> shift;
        let place = number ^ number >> 12;
        ((place >> 6 & 63) as usize, 1 << (place & 63))
    }

    /// A part of the page of `size` bytes at `address` is cached.
    pub(super) fn add(&mut self, address: u64, size: u64) {
        self.any = true;
        for (bits, shift) in self.bits.iter_mut().zip(LARGE_SHIFTS) {
            // What is of no such size (nested paging can leave one) counts as the next larger one.
            if size <= 1 << shift {
                let (word, bit) = Self::place(address, shift);
                bits[word] |= bit;
                return;
            }
        }
    }

    /// The aligned range in which the page of `address` may have further parts: its base and the mask of addresses.
    pub(super) fn around(&self, address: u64) -> Option<(u64, u64)> {
        if !self.any {
            return None;
        }
        LARGE_SHIFTS.into_iter().zip(&self.bits).rev().find_map(|(shift, bits)| {
            let (word, bit) = Self::place(address, shift);
            let mask = u64::MAX << shift;
            (bits[word] & bit != 0).then_some((address & mask, mask))
        })
    }

    /// Nothing is cached any more.
    pub(super) fn clear(&mut self) {
        if self.any {
            *self = Self::NONE;
        }
    }
}
