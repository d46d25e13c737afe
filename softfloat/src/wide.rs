//! Numbers with 128-bit significands, in which the transcendental functions are computed, and the power series they use.

use crate::num::{Num, shift_jam};

/// `sig` * 2^(`exp` - 127); bit 127 of `sig` is set. There is no zero.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wide {
    pub sign: bool,
    pub exp: i32,
    pub sig: u128,
}

pub(crate) const ONE: Wide = Wide { sign: false, exp: 0, sig: 1 << 127 };
pub(crate) const TWO: Wide = Wide { exp: 1, ..ONE };
pub(crate) const PI: Wide = Wide { sign: false, exp: 1, sig: 0xc90f_daa2_2168_c234_c4c6_628b_80dc_1cd1 };
pub(crate) const HALF_PI: Wide = Wide { exp: 0, ..PI };
pub(crate) const QUARTER_PI: Wide = Wide { exp: -1, ..PI };
pub(crate) const LN_2: Wide = Wide { sign: false, exp: -1, sig: 0xb172_17f7_d1cf_79ab_c9e3_b398_03f2_f6af };
pub(crate) const LOG2_E: Wide = Wide { sign: false, exp: 0, sig: 0xb8aa_3b29_5c17_f0bb_be87_fed0_691d_3e89 };

/// The arctangents of k/8, k from 1 to 8.
pub(crate) const ARCTANGENTS: [Wide; 8] = [
    Wide { sign: false, exp: -4, sig: 0xfead_d4d5_617b_6e32_c897_989f_3e88_8ef8 },
    Wide { sign: false, exp: -3, sig: 0xfadb_afc9_6406_eb15_6dc7_9ef5_f7a2_17e6 },
    Wide { sign: false, exp: -2, sig: 0xb7b0_ca0f_26f7_8473_8aa3_2122_dcfe_4483 },
    Wide { sign: false, exp: -2, sig: 0xed63_382b_0dda_7b45_6fe4_45ec_bc3a_8d03 },
    Wide { sign: false, exp: -1, sig: 0x8f00_5d5e_f7f5_9f9b_5c83_5e16_65c4_3748 },
    Wide { sign: false, exp: -1, sig: 0xa4bc_7d19_34f7_0924_19a8_7f2a_457d_ac9f },
    Wide { sign: false, exp: -1, sig: 0xb805_3e2b_c231_9e73_cb2d_a552_10a4_443d },
    QUARTER_PI,
];

/// The upper half of a product.
fn mul_high(a: u128, b: u128) -> u128 {
    const LOW: u128 = u64::MAX as u128;
    let (a1, a0, b1, b0) = (a >> 64, a & LOW, b >> 64, b & LOW);
    let (low, cross_a, cross_b) = (a0 * b0, a1 * b0, a0 * b1);
    let middle = (low >> 64) + (cross_a & LOW) + (cross_b & LOW);
    a1 * b1 + (cross_a >> 64) + (cross_b >> 64) + (middle >> 64)
}

impl Wide {
    pub fn of(num: Num) -> Self {
        Self { sign: num.sign, exp: num.exp, sig: u128::from(num.sig) << 64 }
    }

    /// `sig` * 2^(`exp` - 127), not zero, with any leading bit.
    pub fn normalized(sign: bool, exp: i32, sig: u128) -> Self {
        let shift = sig.leading_zeros();
        Self { sign, exp: exp - shift as i32, sig: sig << (shift & 127) }
    }

    pub fn negated(self) -> Self {
        Self { sign: !self.sign, ..self }
    }

    pub fn mul(self, rhs: Self) -> Self {
        let high = mul_high(self.sig, rhs.sig);
        Self::normalized(self.sign != rhs.sign, self.exp + rhs.exp + 1, high)
    }

    /// The sum, which must not be zero.
    pub fn add(self, rhs: Self) -> Self {
        let (big, small) = if (self.exp, self.sig) >= (rhs.exp, rhs.sig) { (self, rhs) } else { (rhs, self) };
        let big_sig = big.sig >> 1;
        let small_sig = shift_jam(small.sig >> 1, (big.exp - small.exp) as u32);
        let sig = if big.sign == small.sign { big_sig + small_sig } else { big_sig - small_sig };
        Self::normalized(big.sign, big.exp + 1, sig)
    }

    pub fn div(self, rhs: Self) -> Self {
        let mut exp = self.exp - rhs.exp;
        let mut rest = self.sig;
        let mut quotient = 0u128;
        let mut bits = 128;
        if rest >= rhs.sig {
            rest -= rhs.sig;
            quotient = 1;
            bits = 127;
        } else {
            exp -= 1;
        }
        for _ in 0..bits {
            let carry = rest >> 127 != 0;
            rest <<= 1;
            quotient <<= 1;
            if carry || rest >= rhs.sig {
                rest = rest.wrapping_sub(rhs.sig);
                quotient |= 1;
            }
        }
        Self { sign: self.sign != rhs.sign, exp, sig: quotient | u128::from(rest != 0) }
    }

    /// The magnitude, below one, as a fraction of 2^128.
    fn fraction(self) -> u128 {
        debug_assert!(self.exp < 0);
        self.sig.checked_shr((-1 - self.exp) as u32).unwrap_or(0)
    }

    /// 1 - `fraction` / 2^128, or a hair less than one.
    fn one_minus(fraction: u128) -> Self {
        Self::normalized(false, -1, 0u128.wrapping_sub(fraction.max(1)))
    }

    /// 1 + `fraction` / 2^128, or a hair more than one.
    fn one_plus(fraction: u128) -> Self {
        Self { sign: false, exp: 0, sig: 1 << 127 | (fraction >> 1).max(1) }
    }
}

/// 1/n as a fraction of 2^128.
const fn reciprocal(n: u128) -> u128 {
    u128::MAX / n
}

/// 1/n! for n up to 34.
const FACTORIALS: [u128; 35] = {
    let mut table = [u128::MAX; 35];
    let mut factorial = 1u128;
    let mut n = 1;
    while n < 35 {
        factorial *= n as u128;
        table[n] = reciprocal(factorial);
        n += 1;
    }
    table
};

/// z (c1 - z (c2 - z (...))), fractions of 2^128.
fn alternating(z: u128, coefficients: impl Iterator<Item = u128>) -> u128 {
    mul_high(z, coefficients.fold(0, |sum, c| c.wrapping_sub(mul_high(z, sum))))
}

/// z (c1 + z (c2 + z (...))), fractions of 2^128; the sum must stay below one.
fn summing(z: u128, coefficients: impl Iterator<Item = u128>) -> u128 {
    mul_high(z, coefficients.fold(0, |sum, c| c.wrapping_add(mul_high(z, sum))))
}

/// sin r, |r| at most pi/4.
pub(crate) fn sin(r: Wide) -> Wide {
    let z = r.mul(r).fraction();
    r.mul(Wide::one_minus(alternating(z, (1..17).rev().map(|k| FACTORIALS[2 * k + 1]))))
}

/// cos r, |r| at most pi/4.
pub(crate) fn cos(r: Wide) -> Wide {
    let z = r.mul(r).fraction();
    Wide::one_minus(alternating(z, (1..18).rev().map(|k| FACTORIALS[2 * k])))
}

/// tan r, |r| at most pi/4.
pub(crate) fn tan(r: Wide) -> Wide {
    // The series' next term is beyond the precision; the quotient's error could be on the wrong side.
    if r.exp < -58 { Wide { sig: r.sig | 1, ..r } } else { sin(r).div(cos(r)) }
}

/// atan s, |s| at most about 1/16.
pub(crate) fn atan_small(s: Wide) -> Wide {
    let z = s.mul(s).fraction();
    s.mul(Wide::one_minus(alternating(z, (1..20).rev().map(|k| reciprocal(2 * k + 1)))))
}

/// exp(t) - 1, |t| at most ln 2.
pub(crate) fn exp_minus_1(t: Wide) -> Wide {
    let z = t.fraction();
    let factorials = (2..35).rev().map(|n| FACTORIALS[n]);
    t.mul(if t.sign { Wide::one_minus(alternating(z, factorials)) } else { Wide::one_plus(summing(z, factorials)) })
}

/// log2((1 + s) / (1 - s)), |s| at most about 0.172.
pub(crate) fn log2_ratio(s: Wide) -> Wide {
    let z = s.mul(s).fraction();
    let series = Wide::one_plus(summing(z, (1..30).rev().map(|k| reciprocal(2 * k + 1))));
    let product = s.mul(series).mul(LOG2_E);
    Wide { exp: product.exp + 1, ..product }
}
