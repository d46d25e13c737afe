//! Exact cores of the arithmetic operations, for all formats.

use crate::env::Rounding;
use crate::num::{Num, shift_jam};

/// What an operation on numbers (no NaN) comes to before rounding.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    /// A zero or an infinity, exact.
    Exact(Num),
    /// `sig` * 2^(`exp` - 127) with bit 127 of `sig` set; bit 0 also stands for what is not exact.
    Finite { sign: bool, exp: i32, sig: u128 },
    /// The operation is invalid: the answer is the default NaN.
    Invalid,
    /// A finite number was divided by zero: the answer is an infinity of this sign.
    DivideByZero(bool),
}

impl Outcome {
    fn of(num: Num) -> Self {
        Self::Finite { sign: num.sign, exp: num.exp, sig: u128::from(num.sig) << 64 }
    }

    /// Normalizes `sig` * 2^(`exp` - 127), which is not zero.
    fn normalized(sign: bool, exp: i32, sig: u128) -> Self {
        let shift = sig.leading_zeros();
        Self::Finite { sign, exp: exp - shift as i32, sig: sig << shift }
    }
}

/// The sign of an exact zero sum of numbers of different signs (SDM Vol. 1, 4.8.3.1).
fn zero_sum(rounding: Rounding) -> Outcome {
    Outcome::Exact(Num::zero(rounding == Rounding::Down))
}

/// Adds two numbers given as `sig` * 2^(`exp` - 127), bit 127 set and at least the lowest bit clear.
fn add_wide(a: (bool, i32, u128), b: (bool, i32, u128), rounding: Rounding) -> Outcome {
    let (big, small) = if (a.1, a.2) >= (b.1, b.2) { (a, b) } else { (b, a) };
    // One bit of room for the carry. Bits are lost only when the exponents differ by two or more, and then at most one bit cancels.
    let big_sig = big.2 >> 1;
    let small_sig = shift_jam(small.2 >> 1, (big.1 - small.1) as u32);
    let sig = if big.0 == small.0 { big_sig + small_sig } else { big_sig - small_sig };
    if sig == 0 { zero_sum(rounding) } else { Outcome::normalized(big.0, big.1 + 1, sig) }
}

pub(crate) fn add(a: Num, b: Num, rounding: Rounding) -> Outcome {
    match (a.is_infinity(), b.is_infinity()) {
        (true, true) if a.sign != b.sign => return Outcome::Invalid,
        (true, _) => return Outcome::Exact(Num::infinity(a.sign)),
        (_, true) => return Outcome::Exact(Num::infinity(b.sign)),
        _ => {}
    }
    match (a.is_zero(), b.is_zero()) {
        (true, true) if a.sign == b.sign => Outcome::Exact(Num::zero(a.sign)),
        (true, true) => zero_sum(rounding),
        (true, false) => Outcome::of(b),
        (false, true) => Outcome::of(a),
        _ => {
            let wide = |n: Num| (n.sign, n.exp, u128::from(n.sig) << 64);
            add_wide(wide(a), wide(b), rounding)
        }
    }
}

pub(crate) fn mul(a: Num, b: Num) -> Outcome {
    let sign = a.sign != b.sign;
    if a.is_infinity() || b.is_infinity() {
        return if a.is_zero() || b.is_zero() { Outcome::Invalid } else { Outcome::Exact(Num::infinity(sign)) };
    }
    if a.is_zero() || b.is_zero() {
        return Outcome::Exact(Num::zero(sign));
    }
    Outcome::normalized(sign, a.exp + b.exp + 1, u128::from(a.sig) * u128::from(b.sig))
}

pub(crate) fn div(a: Num, b: Num) -> Outcome {
    let sign = a.sign != b.sign;
    match (a.is_infinity(), b.is_infinity()) {
        (true, true) => return Outcome::Invalid,
        (true, false) => return Outcome::Exact(Num::infinity(sign)),
        (false, true) => return Outcome::Exact(Num::zero(sign)),
        _ => {}
    }
    match (a.is_zero(), b.is_zero()) {
        (true, true) => return Outcome::Invalid,
        (true, false) => return Outcome::Exact(Num::zero(sign)),
        (false, true) => return Outcome::DivideByZero(sign),
        _ => {}
    }
    let divisor = u128::from(b.sig);
    let dividend = u128::from(a.sig) << 64;
    let (high, rest) = (dividend / divisor, dividend % divisor);
    // Thirty-two more bits: the round bit and room for the sticky bit.
    let (low, rest) = ((rest << 32) / divisor, (rest << 32) % divisor);
    let sig = high << 32 | low | u128::from(rest != 0);
    Outcome::normalized(sign, a.exp - b.exp + 31, sig)
}

pub(crate) fn sqrt(a: Num) -> Outcome {
    if a.is_zero() {
        return Outcome::Exact(a);
    }
    if a.sign {
        return Outcome::Invalid;
    }
    if a.is_infinity() {
        return Outcome::Exact(a);
    }
    let square = u128::from(a.sig) << (63 + (a.exp & 1));
    let root = square.isqrt();
    let rest = square - root * root;
    // Above root + 1/2 exactly when the rest is above the root.
    let sig = root << 64 | u128::from(rest > root) << 63 | u128::from(rest != 0);
    Outcome::Finite { sign: false, exp: a.exp >> 1, sig }
}

/// `a` * `b` + `c` with one rounding; for significands of at most 53 bits.
pub(crate) fn fma(a: Num, b: Num, c: Num, rounding: Rounding) -> Outcome {
    match mul(a, b) {
        Outcome::Exact(product) => add(product, c, rounding),
        Outcome::Finite { sign, exp, sig } => {
            if c.is_infinity() {
                Outcome::Exact(c)
            } else if c.is_zero() {
                Outcome::Finite { sign, exp, sig }
            } else {
                add_wide((sign, exp, sig), (c.sign, c.exp, u128::from(c.sig) << 64), rounding)
            }
        }
        other => other,
    }
}
