//! Unpacked numbers and the one rounding step that all formats share.

use crate::env::{Env, OE, PE, Rounding, UE};

/// What a bit pattern stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Plus or minus zero.
    Zero,
    /// A finite number other than zero, denormal ones included.
    Finite,
    /// Plus or minus infinity.
    Infinity,
    /// A quiet NaN.
    Quiet,
    /// A signalling NaN.
    Signaling,
    /// An x87 encoding that is no number: pseudo-NaN, pseudo-infinity, unnormal (SDM Vol. 1, 8.2.2).
    Unsupported,
}

/// An unpacked number. `Finite`: the value is `sig` * 2^(`exp` - 63), bit 63 of `sig` set. NaNs: `sig` has the integer bit at 63
/// and the quiet bit at 62, the payload below, left-aligned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Num {
    pub sign: bool,
    pub class: Class,
    pub exp: i32,
    pub sig: u64,
    /// The encoding was denormal (or pseudo-denormal), whatever DAZ made of it.
    pub denormal: bool,
}

impl Num {
    pub const fn zero(sign: bool) -> Self {
        Self { sign, class: Class::Zero, exp: 0, sig: 0, denormal: false }
    }

    pub const fn infinity(sign: bool) -> Self {
        Self { sign, class: Class::Infinity, exp: 0, sig: 1 << 63, denormal: false }
    }

    pub const fn finite(sign: bool, exp: i32, sig: u64) -> Self {
        Self { sign, class: Class::Finite, exp, sig, denormal: false }
    }

    /// The default NaN, "real indefinite" (SDM Vol. 1, table 4-3).
    pub const fn indefinite() -> Self {
        Self { sign: true, class: Class::Quiet, exp: 0, sig: 3 << 62, denormal: false }
    }

    pub const fn quieted(self) -> Self {
        Self { class: Class::Quiet, sig: self.sig | 3 << 62, denormal: false, ..self }
    }

    pub const fn is_nan(&self) -> bool {
        matches!(self.class, Class::Quiet | Class::Signaling)
    }

    pub const fn is_zero(&self) -> bool {
        matches!(self.class, Class::Zero)
    }

    pub const fn is_infinity(&self) -> bool {
        matches!(self.class, Class::Infinity)
    }

    /// A zero in the place of a denormal number, as DAZ asks.
    pub const fn daz(self) -> Self {
        if self.denormal { Self::zero(self.sign) } else { self }
    }
}

/// The parameters of a format, or of a format narrowed by precision control.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    /// Bits of the significand, the integer bit included; at most 64.
    pub precision: u32,
    /// Exponents of the smallest and largest normal numbers.
    pub exp_min: i32,
    pub exp_max: i32,
    /// The x87's bias adjustment of unmasked overflow and underflow, 0 for SSE where no result is written.
    pub adjust: i32,
}

/// `sig` without its low `drop` bits (at least 1), rounded; whether that was inexact; whether it was incremented.
pub(crate) fn round_off(sig: u128, drop: u32, sign: bool, rounding: Rounding) -> (u128, bool, bool) {
    let (whole, rest, half) = match drop {
        0 => return (sig, false, false),
        1..=127 => (sig >> drop, sig & ((1 << drop) - 1), 1 << (drop - 1)),
        128 => (0, sig, 1 << 127),
        // All of it is less than half a unit.
        _ => (0, u128::from(sig != 0), 2),
    };
    if rest == 0 {
        return (whole, false, false);
    }
    let up = match rounding {
        Rounding::Nearest => rest > half || rest == half && whole & 1 != 0,
        Rounding::Down => sign,
        Rounding::Up => !sign,
        Rounding::Zero => false,
    };
    (whole + u128::from(up), true, up)
}

/// Shift right; bits that fall out stay visible as a set bit 0.
pub(crate) const fn shift_jam(sig: u128, by: u32) -> u128 {
    match by {
        0 => sig,
        1..=127 => sig >> by | (sig & ((1 << by) - 1) != 0) as u128,
        _ => (sig != 0) as u128,
    }
}

/// Rounds `sig` * 2^(`exp` - 127), bit 127 of `sig` set, to a shape and raises OE, UE and PE.
///
/// The answer is a zero, an infinity or finite; a denormal result has `exp_min` and a `sig` with bit 63 clear.
pub(crate) fn round(shape: Shape, sign: bool, exp: i32, sig: u128, env: &mut Env) -> Num {
    let drop = 128 - shape.precision;
    let (mut whole, inexact, up) = round_off(sig, drop, sign, env.rounding);
    let mut rounded_exp = exp;
    if whole >> shape.precision != 0 {
        whole >>= 1;
        rounded_exp += 1;
    }
    env.rounded_up = up;
    // Tininess is found after rounding with an unbounded exponent (SDM Vol. 1, 4.9.1.5).
    if rounded_exp < shape.exp_min {
        if env.masked(UE) {
            if env.ftz {
                env.raise(UE | PE);
                return Num::zero(sign);
            }
            let (whole, inexact, up) = round_off(sig, drop + (shape.exp_min - exp) as u32, sign, env.rounding);
            env.rounded_up = up;
            if inexact {
                env.raise(UE | PE);
            }
            if whole == 0 {
                return Num::zero(sign);
            }
            let sig = (whole << (64 - shape.precision)) as u64;
            return Num { sign, class: Class::Finite, exp: shape.exp_min, sig, denormal: sig >> 63 == 0 };
        }
        env.raise(UE);
        rounded_exp += shape.adjust;
        if shape.adjust != 0 && rounded_exp < shape.exp_min {
            return massive_underflow(sign, env);
        }
    } else if rounded_exp > shape.exp_max {
        env.raise(OE);
        if env.masked(OE) {
            return overflowed(shape, sign, env);
        }
        rounded_exp -= shape.adjust;
        if shape.adjust != 0 && rounded_exp > shape.exp_max {
            return massive_overflow(sign, env);
        }
    }
    if inexact {
        env.raise(PE);
    }
    Num::finite(sign, rounded_exp, (whole << (64 - shape.precision)) as u64)
}

/// The masked response to overflow (SDM Vol. 1, table 4-10).
fn overflowed(shape: Shape, sign: bool, env: &mut Env) -> Num {
    env.raise(PE);
    let to_infinity = match env.rounding {
        Rounding::Nearest => true,
        Rounding::Down => sign,
        Rounding::Up => !sign,
        Rounding::Zero => false,
    };
    env.rounded_up = to_infinity;
    if to_infinity { Num::infinity(sign) } else { Num::finite(sign, shape.exp_max, !0 << (64 - shape.precision)) }
}

/// FSCALE's massive underflow with UE unmasked (SDM Vol. 1, 8.5.5): not even the adjusted bias brings the result into the format.
fn massive_underflow(sign: bool, env: &mut Env) -> Num {
    env.raise(PE);
    env.rounded_up = false;
    Num::zero(sign)
}

/// FSCALE's massive overflow with OE unmasked (SDM Vol. 1, 8.5.4): an infinity, however rounding is set.
fn massive_overflow(sign: bool, env: &mut Env) -> Num {
    env.raise(PE);
    env.rounded_up = true;
    Num::infinity(sign)
}
