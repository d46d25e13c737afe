//! Conversions between formats and to and from integers.

use crate::env::{DE, Env, IE, PE, Rounding};
use crate::formats::{F16, F32, F64, F80, Format};
use crate::num::{Class, Num, Shape, round, round_off};

/// The magnitude of a number rounded to an integer; `None` if it is a NaN, an infinity or above 2^64.
pub(crate) fn magnitude(num: Num, rounding: Rounding) -> Option<(u128, bool, bool)> {
    match num.class {
        Class::Zero => Some((0, false, false)),
        Class::Finite if num.exp < 64 => {
            Some(round_off(u128::from(num.sig) << 1, (64 - num.exp) as u32, num.sign, rounding))
        }
        _ => None,
    }
}

/// To a signed integer of `bits` bits, sign-extended; the integer indefinite with IE if it does not fit.
pub(crate) fn to_signed(num: Num, bits: u32, rounding: Rounding, env: &mut Env) -> i64 {
    let limit = 1u128 << (bits - 1);
    match magnitude(num, rounding) {
        Some((whole, inexact, up)) if whole < limit || num.sign && whole == limit => {
            env.rounded_up = up;
            if inexact {
                env.raise(PE);
            }
            let whole = whole as u64;
            (if num.sign { whole.wrapping_neg() } else { whole }) as i64
        }
        _ => {
            env.rounded_up = false;
            env.raise(IE);
            -1 << (bits - 1)
        }
    }
}

/// To an unsigned integer of `bits` bits; all ones with IE if it does not fit.
pub(crate) fn to_unsigned(num: Num, bits: u32, rounding: Rounding, env: &mut Env) -> u64 {
    match magnitude(num, rounding) {
        Some((whole, inexact, _)) if whole < 1 << bits && (whole == 0 || !num.sign) => {
            if inexact {
                env.raise(PE);
            }
            whole as u64
        }
        _ => {
            env.raise(IE);
            !0 >> (64 - bits)
        }
    }
}

pub(crate) fn from_integer<F: Format>(sign: bool, magnitude: u64, env: &mut Env) -> F {
    if magnitude == 0 {
        return F::pack(Num::zero(false));
    }
    let shift = magnitude.leading_zeros();
    F::pack(round(F::SHAPE, sign, 63 - shift as i32, u128::from(magnitude << shift) << 64, env))
}

/// Converts between formats; `report_denormal` raises DE for a denormal operand.
fn convert<G: Format>(num: Num, shape: Shape, report_denormal: bool, env: &mut Env) -> G {
    match num.class {
        Class::Unsupported => {
            env.raise(IE);
            G::pack(Num::indefinite())
        }
        Class::Quiet | Class::Signaling => {
            if num.class == Class::Signaling {
                env.raise(IE);
            }
            G::pack(num.quieted())
        }
        Class::Zero | Class::Infinity => G::pack(num),
        Class::Finite => {
            if num.denormal && report_denormal {
                env.raise(DE);
            }
            G::pack(round(shape, num.sign, num.exp, u128::from(num.sig) << 64, env))
        }
    }
}

impl F16 {
    /// VCVTPH2PS: exact; half-precision denormals are taken as they are and raise nothing, whatever DAZ (SDM Vol. 1, 14.4.1).
    pub fn to_f32(self, env: &mut Env) -> F32 {
        convert(self.unpack(), F32::SHAPE, false, env)
    }
}

impl F32 {
    /// CVTSS2SD.
    pub fn to_f64(self, env: &mut Env) -> F64 {
        let num = self.unpack();
        convert(if env.daz { num.daz() } else { num }, F64::SHAPE, true, env)
    }

    /// VCVTPS2PH with a rounding: FTZ does not apply (SDM Vol. 1, 14.4.1).
    pub fn to_f16(self, rounding: Rounding, env: &mut Env) -> F16 {
        let num = self.unpack();
        let mut inner = Env { rounding, ftz: false, ..*env };
        let result = convert(if env.daz { num.daz() } else { num }, F16::SHAPE, true, &mut inner);
        env.raise(inner.flags);
        result
    }

    /// FLD m32fp: exact; a denormal raises DE.
    pub fn to_f80(self, env: &mut Env) -> F80 {
        convert(self.unpack(), F80::SHAPE, true, env)
    }
}

impl F64 {
    /// CVTSD2SS.
    pub fn to_f32(self, env: &mut Env) -> F32 {
        let num = self.unpack();
        convert(if env.daz { num.daz() } else { num }, F32::SHAPE, true, env)
    }

    /// FLD m64fp: exact; a denormal raises DE.
    pub fn to_f80(self, env: &mut Env) -> F80 {
        convert(self.unpack(), F80::SHAPE, true, env)
    }
}

impl F80 {
    /// FST m32fp. With OE or UE unmasked and raised nothing is to be stored.
    pub fn to_f32(self, env: &mut Env) -> F32 {
        convert(self.unpack(), F32::SHAPE, false, env)
    }

    /// FST m64fp. With OE or UE unmasked and raised nothing is to be stored.
    pub fn to_f64(self, env: &mut Env) -> F64 {
        convert(self.unpack(), F64::SHAPE, false, env)
    }

    /// FILD: exact.
    pub fn from_i64(value: i64) -> Self {
        let magnitude = value.unsigned_abs();
        if magnitude == 0 {
            return Self::default();
        }
        let shift = magnitude.leading_zeros();
        Self::pack(Num::finite(value < 0, 63 - shift as i32, magnitude << shift))
    }

    /// FIST and FISTP of 16 bits; the integer indefinite with IE if it does not fit.
    pub fn to_i16(self, rounding: Rounding, env: &mut Env) -> i16 {
        to_signed(self.unpack(), 16, rounding, env) as i16
    }

    /// FIST and FISTP of 32 bits; the integer indefinite with IE if it does not fit.
    pub fn to_i32(self, rounding: Rounding, env: &mut Env) -> i32 {
        to_signed(self.unpack(), 32, rounding, env) as i32
    }

    /// FISTP of 64 bits; the integer indefinite with IE if it does not fit.
    pub fn to_i64(self, rounding: Rounding, env: &mut Env) -> i64 {
        to_signed(self.unpack(), 64, rounding, env)
    }
}
