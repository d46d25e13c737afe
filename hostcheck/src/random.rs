//! SplitMix64, and values that find more than uniform ones do.

/// A seeded generator.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// 64 uniform bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Uniform below `n`, which is not zero.
    pub fn below(&mut self, n: u64) -> u64 {
        self.draw() % n
    }

    /// True once in `n`.
    pub fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of some.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// An integer with borders, single bits, runs of bits and small numbers more often than chance has them.
    pub fn integer(&mut self) -> u64 {
        match self.below(10) {
            0 => self.below(16),
            1 => self.below(256),
            2 => 1 << self.below(64),
            3 => (1u64 << self.below(64)).wrapping_sub(1),
            4 => self.pick(&[
                0x7f,
                0x80,
                0xff,
                0x7fff,
                0x8000,
                0xffff,
                0x7fff_ffff,
                0x8000_0000,
                0xffff_ffff,
                i64::MAX as u64,
            ]),
            5 => self.below(32).wrapping_neg(),
            6 => 0x0101_0101_0101_0101 * self.below(256),
            _ => self.draw(),
        }
    }

    fn fraction(&mut self, bits: u32) -> u64 {
        let mask = !0 >> (64 - bits);
        mask & match self.below(6) {
            0 => 0,
            1 => self.draw() & self.draw() & self.draw(),
            2 => !0 << self.below(bits.into()),
            3 => mask >> self.below(bits.into()),
            4 => 1 << self.below(bits.into()),
            _ => self.draw(),
        }
    }

    fn exponent(&mut self, bits: u32) -> u64 {
        let max = (1 << bits) - 1;
        match self.below(10) {
            0 => 0,
            1 => max,
            2 => 1 + self.below(3),
            3 => max - 1 - self.below(3),
            4..=7 => (max / 2 + self.below(70).min(max / 2)).wrapping_sub(self.below(35).min(max / 4)),
            _ => self.below(max + 1),
        }
    }

    /// A single-precision number of any kind.
    pub fn single(&mut self) -> u32 {
        (self.below(2) << 31 | self.exponent(8) << 23 | self.fraction(23)) as u32
    }

    /// A double-precision number of any kind.
    pub fn double(&mut self) -> u64 {
        self.below(2) << 63 | self.exponent(11) << 52 | self.fraction(52)
    }

    /// An 80-bit number of any kind, unsupported encodings included: significand; sign and exponent.
    pub fn extended(&mut self) -> (u64, u16) {
        let exponent = self.exponent(15);
        let integer = u64::from(exponent != 0) ^ u64::from(self.once_in(32));
        (integer << 63 | self.fraction(63), (self.below(2) << 15 | exponent) as u16)
    }

    /// Eight bytes: numbers of some kind, or anything.
    pub fn quadword(&mut self) -> u64 {
        match self.below(6) {
            0 | 1 => u64::from(self.single()) << 32 | u64::from(self.single()),
            2 | 3 => self.double(),
            4 => self.integer(),
            _ => self.draw(),
        }
    }
}
