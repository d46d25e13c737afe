//! The arithmetic flags, kept late: the last result and its carries, from which each flag is computed when read.
//!
//! `result` is the result sign-extended to 64 bits; ZF is `result == 0`, SF its sign, PF the parity of its low byte. `carries` holds
//! CF in bit 63, CF ^ OF in bit 62, AF in bit 3, and, for flag values that no result gives (POPF), a flip of PF in bit 8 and of SF in bit 9.

use serde::{Deserialize, Serialize};

/// Carry flag in RFLAGS.
pub const CF: u64 = 1 << 0;
/// Parity flag.
pub const PF: u64 = 1 << 2;
/// Auxiliary carry flag.
pub const AF: u64 = 1 << 4;
/// Zero flag.
pub const ZF: u64 = 1 << 6;
/// Sign flag.
pub const SF: u64 = 1 << 7;
/// Trap flag.
pub const TF: u64 = 1 << 8;
/// Interrupt-enable flag.
pub const IF: u64 = 1 << 9;
/// Direction flag.
pub const DF: u64 = 1 << 10;
/// Overflow flag.
pub const OF: u64 = 1 << 11;
/// I/O privilege level.
pub const IOPL: u64 = 3 << 12;
/// Nested task.
pub const NT: u64 = 1 << 14;
/// Resume flag.
pub const RF: u64 = 1 << 16;
/// Virtual-8086 mode.
pub const VM: u64 = 1 << 17;
/// Alignment check, and SMAP's access override.
pub const AC: u64 = 1 << 18;
/// Virtual interrupt flag.
pub const VIF: u64 = 1 << 19;
/// Virtual interrupt pending.
pub const VIP: u64 = 1 << 20;
/// CPUID may be used.
pub const ID: u64 = 1 << 21;

/// The six status flags.
pub const STATUS: u64 = CF | PF | AF | ZF | SF | OF;

const CARRY: u64 = 1 << 63;
const CARRY_XOR_OVERFLOW: u64 = 1 << 62;
const ADJUST: u64 = 1 << 3;
const FLIP_PARITY: u64 = 1 << 8;
const FLIP_SIGN: u64 = 1 << 9;

/// The status flags in their late form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LateFlags {
    result: u64,
    carries: u64,
}

/// `value`, of `size` bytes, sign-extended to 64 bits.
#[inline(always)]
pub const fn sign_extend(value: u64, size: usize) -> u64 {
    match size {
        1 => value as i8 as u64,
        2 => value as i16 as u64,
        4 => value as i32 as u64,
        _ => value,
    }
}

impl LateFlags {
    /// Flags of a result of `size` bytes with the carry-out vector `carry` (bit i: carry or borrow out of bit i).
    #[inline(always)]
    pub const fn with_carries(result: u64, carry: u64, size: usize) -> Self {
        // Bit 62 is the carry into the sign bit, which is CF ^ OF.
        let shifted = carry << (64 - 8 * size);
        Self { result: sign_extend(result, size), carries: shifted & (CARRY | CARRY_XOR_OVERFLOW) | carry & ADJUST }
    }

    /// Flags of a logical result: CF, OF and AF clear.
    #[inline(always)]
    pub const fn logical(result: u64, size: usize) -> Self {
        Self { result: sign_extend(result, size), carries: 0 }
    }

    /// Flags of `result` with CF, OF given and AF clear.
    #[inline(always)]
    pub const fn with_carry_overflow(result: u64, size: usize, carry: bool, overflow: bool) -> Self {
        Self { result: sign_extend(result, size), carries: (carry as u64) << 63 | ((carry ^ overflow) as u64) << 62 }
    }

    /// From RFLAGS' bits.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        // A result of 1 has PF clear and SF clear; a zero result has PF set and SF clear: the flips do the rest.
        let zero = bits & ZF != 0;
        let result = !zero as u64;
        let carry = bits & CF != 0;
        let overflow = bits & OF != 0;
        let parity = bits & PF != 0;
        let sign = bits & SF != 0;
        let mut carries = (carry as u64) << 63 | ((carry ^ overflow) as u64) << 62;
        if bits & AF != 0 {
            carries |= ADJUST;
        }
        if parity != zero {
            carries |= FLIP_PARITY;
        }
        if sign {
            carries |= FLIP_SIGN;
        }
        Self { result, carries }
    }

    /// As RFLAGS' bits.
    #[inline(always)]
    pub const fn bits(self) -> u64 {
        (self.cf() as u64)
            | (self.pf() as u64) << 2
            | (self.af() as u64) << 4
            | (self.zf() as u64) << 6
            | (self.sf() as u64) << 7
            | (self.of() as u64) << 11
    }

    /// Carry.
    #[inline(always)]
    pub const fn cf(self) -> bool {
        self.carries >> 63 != 0
    }
    /// Overflow.
    #[inline(always)]
    pub const fn of(self) -> bool {
        (self.carries ^ (self.carries << 1)) >> 63 != 0
    }
    /// Zero.
    #[inline(always)]
    pub const fn zf(self) -> bool {
        self.result == 0
    }
    /// Sign.
    #[inline(always)]
    pub const fn sf(self) -> bool {
        (self.result >> 63) ^ (self.carries >> 9 & 1) != 0
    }
    /// Parity.
    #[inline(always)]
    pub const fn pf(self) -> bool {
        ((self.result as u8).count_ones() as u64 & 1) ^ (self.carries >> 8 & 1) == 0
    }
    /// Auxiliary carry.
    #[inline(always)]
    pub const fn af(self) -> bool {
        self.carries & ADJUST != 0
    }

    /// The same flags with another carry.
    #[inline(always)]
    pub const fn set_cf(self, carry: bool) -> Self {
        let overflow = self.of();
        let kept = self.carries & !(CARRY | CARRY_XOR_OVERFLOW);
        Self { result: self.result, carries: kept | (carry as u64) << 63 | ((carry ^ overflow) as u64) << 62 }
    }

    /// The condition `cc` of Jcc/SETcc/CMOVcc (the low four bits of the opcode; SDM Vol 1, Appendix B).
    #[inline(always)]
    pub const fn condition(self, cc: u8) -> bool {
        let holds = match cc >> 1 {
            0 => self.of(),
            1 => self.cf(),
            2 => self.zf(),
            3 => self.cf() || self.zf(),
            4 => self.sf(),
            5 => self.pf(),
            6 => self.sf() != self.of(),
            _ => self.zf() || self.sf() != self.of(),
        };
        holds != (cc & 1 != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_combination_of_status_flags_survives() {
        for i in 0..64u64 {
            let bits = (i & 1)
                | (i >> 1 & 1) << 2
                | (i >> 2 & 1) << 4
                | (i >> 3 & 1) << 6
                | (i >> 4 & 1) << 7
                | (i >> 5 & 1) << 11;
            assert_eq!(LateFlags::from_bits(bits).bits(), bits);
            assert_eq!(LateFlags::from_bits(bits).set_cf(true).bits(), bits | CF);
            assert_eq!(LateFlags::from_bits(bits).set_cf(false).bits(), bits & !CF);
        }
    }

    #[test]
    fn carry_vectors_give_carry_and_overflow_of_each_size() {
        for size in [1, 2, 4, 8] {
            let mask = u64::MAX >> (64 - 8 * size);
            for (a, b) in [(1, 1), (mask, 1), (mask >> 1, 1), (mask ^ mask >> 1, mask), (8, 8), (0, 0)] {
                let sum = a.wrapping_add(b) & mask;
                let carries = (a & b) | ((a | b) & !sum);
                let flags = LateFlags::with_carries(sum, carries, size);
                let wide = a as u128 + b as u128;
                assert_eq!(flags.cf(), wide > mask as u128);
                let signed = sign_extend(a, size) as i64 as i128 + sign_extend(b, size) as i64 as i128;
                assert_eq!(flags.of(), signed != sign_extend(sum, size) as i64 as i128);
                assert_eq!(flags.af(), (a & 15) + (b & 15) > 15);
            }
        }
    }
}
