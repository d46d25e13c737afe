//! The formats: bit patterns to unpacked numbers and back (SDM Vol. 1, 4.2.2 and 8.2).

use crate::num::{Class, Num, Shape};

/// A half-precision bit pattern: a storage format only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct F16(pub u16);
/// A single-precision bit pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct F32(pub u32);
/// A double-precision bit pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct F64(pub u64);
/// An x87 double extended-precision bit pattern: the explicit integer bit is bit 63 of the significand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct F80 {
    /// The significand with its integer bit.
    pub significand: u64,
    /// The sign (bit 15) and the biased exponent (bits 14 to 0).
    pub sign_exponent: u16,
}

/// An operand of x87 arithmetic: a number of any format, taken exactly, that remembers whether it was signalling or denormal where it came from.
#[derive(Clone, Copy, Debug)]
pub struct Operand(pub(crate) Num);

macro_rules! operand {
    ($($name:ident)+) => { $(
        impl From<$name> for Operand {
            fn from(value: $name) -> Self {
                Self(value.unpack())
            }
        }
    )+ };
}
operand!(F32 F64 F80);

/// Packing and unpacking of a format.
pub(crate) trait Format: Copy {
    const SHAPE: Shape;
    fn unpack(self) -> Num;
    /// The bit pattern of a number that is already rounded to the format; NaN payloads lose what does not fit.
    fn pack(num: Num) -> Self;
}

macro_rules! interchange {
    ($name:ident, $bits:ty, $precision:literal, $exp_bits:literal) => {
        impl Format for $name {
            const SHAPE: Shape = Shape {
                precision: $precision,
                exp_min: 2 - (1 << ($exp_bits - 1)),
                exp_max: (1 << ($exp_bits - 1)) - 1,
                adjust: 0,
            };

            fn unpack(self) -> Num {
                let sign = self.0 >> ($precision - 1 + $exp_bits) != 0;
                let biased = (self.0 >> ($precision - 1)) as i32 & ((1 << $exp_bits) - 1);
                // The fraction, left-aligned below bit 63.
                let fraction = (self.0 as u64) << (64 - $precision) & (1 << 63) - 1;
                if biased == 0 {
                    if fraction == 0 {
                        return Num::zero(sign);
                    }
                    let shift = fraction.leading_zeros();
                    let exp = Self::SHAPE.exp_min - shift as i32;
                    Num { sign, class: Class::Finite, exp, sig: fraction << shift, denormal: true }
                } else if biased == (1 << $exp_bits) - 1 {
                    let class = match (fraction, fraction >> 62) {
                        (0, _) => Class::Infinity,
                        (_, 0) => Class::Signaling,
                        _ => Class::Quiet,
                    };
                    Num { sign, class, exp: 0, sig: 1 << 63 | fraction, denormal: false }
                } else {
                    Num::finite(sign, biased - Self::SHAPE.exp_max, 1 << 63 | fraction)
                }
            }

            fn pack(num: Num) -> Self {
                let sign = (num.sign as $bits) << ($precision - 1 + $exp_bits);
                let fraction = ((num.sig & (1 << 63) - 1) >> (64 - $precision)) as $bits;
                let biased: $bits = match num.class {
                    Class::Zero => 0,
                    Class::Finite if num.sig >> 63 == 0 => 0,
                    // The exponent is out of the format only for an unmasked SSE exception, whose result is discarded.
                    Class::Finite => (num.exp + Self::SHAPE.exp_max) as $bits & ((1 << $exp_bits) - 1),
                    _ => (1 << $exp_bits) - 1,
                };
                Self(sign | biased << ($precision - 1) | fraction)
            }
        }
    };
}

interchange!(F16, u16, 11, 5);
interchange!(F32, u32, 24, 8);
interchange!(F64, u64, 53, 11);

impl Format for F80 {
    const SHAPE: Shape = Shape { precision: 64, exp_min: -16382, exp_max: 16383, adjust: 24576 };

    fn unpack(self) -> Num {
        let sign = self.sign_exponent >> 15 != 0;
        let biased = i32::from(self.sign_exponent & 0x7fff);
        let sig = self.significand;
        if biased == 0 {
            if sig == 0 {
                return Num::zero(sign);
            }
            // A pseudo-denormal (integer bit set) has the value of the smallest normal exponent.
            let shift = sig.leading_zeros();
            let exp = Self::SHAPE.exp_min - shift as i32;
            return Num { sign, class: Class::Finite, exp, sig: sig << shift, denormal: true };
        }
        let class = match (biased, sig >> 62) {
            (_, 0 | 1) => Class::Unsupported,
            (0x7fff, 2) if sig << 1 == 0 => Class::Infinity,
            (0x7fff, 2) => Class::Signaling,
            (0x7fff, _) => Class::Quiet,
            _ => Class::Finite,
        };
        Num { sign, class, exp: biased - Self::SHAPE.exp_max, sig, denormal: false }
    }

    fn pack(num: Num) -> Self {
        let biased = match num.class {
            Class::Zero => 0,
            Class::Finite if num.sig >> 63 == 0 => 0,
            Class::Finite => (num.exp + Self::SHAPE.exp_max) as u16 & 0x7fff,
            _ => 0x7fff,
        };
        Self { significand: num.sig, sign_exponent: u16::from(num.sign) << 15 | biased }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(bits: u64) -> bool {
        F64::pack(F64(bits).unpack()).0 == bits
    }

    #[test]
    fn packing_undoes_unpacking_for_all_normal_encodings() {
        for bits in [
            0,
            1 << 63,
            1 << 52,
            0x3ff0_0000_0000_0000,
            0x7ff0_0000_0000_0000,
            0x7ff0_0000_0000_0001,
            0xfff8_0000_0000_0000,
        ] {
            assert!(same(bits), "{bits:#x}");
        }
        for bits in 0..=u16::MAX {
            let num = F16(bits).unpack();
            if !num.denormal {
                assert_eq!(F16::pack(num).0, bits);
            }
        }
    }

    #[test]
    fn encodings_without_the_integer_bit_are_unsupported() {
        for (sign_exponent, significand) in [(1, 1), (0x7fff, 0), (0x7fff, 1), (0x3fff, 1 << 62), (0x7ffe, 0)] {
            assert_eq!(F80 { significand, sign_exponent }.unpack().class, Class::Unsupported);
        }
        assert_eq!(F80 { significand: 1 << 63, sign_exponent: 0 }.unpack().exp, -16382);
    }
}
