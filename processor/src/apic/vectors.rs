//! A set of the 256 interrupt vectors, as IRR, ISR and TMR hold it.

use serde::{Deserialize, Serialize};

/// A set of vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VectorSet([u64; 4]);

impl VectorSet {
    /// Adds `vector`.
    pub fn insert(&mut self, vector: u8) {
        self.0[usize::from(vector >> 6)] |= 1 << (vector & 63);
    }

    /// Takes `vector` out.
    pub fn remove(&mut self, vector: u8) {
        self.0[usize::from(vector >> 6)] &= !(1 << (vector & 63));
    }

    /// Whether `vector` is in the set.
    #[must_use]
    pub fn contains(&self, vector: u8) -> bool {
        self.0[usize::from(vector >> 6)] & 1 << (vector & 63) != 0
    }

    /// The highest vector.
    #[must_use]
    pub fn highest(&self) -> Option<u8> {
        (0..4u8).rev().find_map(|word| {
            let bits = self.0[usize::from(word)];
            (bits != 0).then(|| (word << 6) | (63 - bits.leading_zeros()) as u8)
        })
    }

    /// The 32-bit register `index` of the eight that show the set; only the low three bits of `index` count.
    #[must_use]
    pub fn register(&self, index: u32) -> u32 {
        (self.0[(index as usize >> 1) & 3] >> ((index & 1) * 32)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn highest_and_registers_follow_the_members() {
        let mut set = VectorSet::default();
        assert_eq!(set.highest(), None);
        for vector in [0u8, 31, 32, 63, 64, 200, 255] {
            set.insert(vector);
            assert_eq!(set.highest(), Some(vector));
            assert!(set.contains(vector));
            assert_ne!(set.register(u32::from(vector) / 32) & 1 << (vector % 32), 0);
        }
        set.remove(255);
        assert_eq!(set.highest(), Some(200));
    }
}
