//! The arithmetic of SSE, AVX and FMA on single and double precision (SDM Vol. 1, chapters 11 and 14).

use core::cmp::Ordering;

use crate::arith::{self, Outcome};
use crate::convert;
use crate::env::{DE, Env, IE, PE, Rounding, ZE};
use crate::fast::Fast;
use crate::formats::{F32, F64, Format};
use crate::num::{Class, Num, round, round_off};

/// The relation of two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The first is less than the second.
    Less,
    /// Both are equal; zeros of either sign are.
    Equal,
    /// The first is greater than the second.
    Greater,
    /// At least one is a NaN.
    Unordered,
}

impl Relation {
    /// ZF, PF and CF as COMISS, FCOMI and their relatives leave them (SDM Vol. 2, COMISS).
    #[inline]
    pub const fn zf_pf_cf(self) -> (bool, bool, bool) {
        match self {
            Self::Greater => (false, false, false),
            Self::Less => (false, false, true),
            Self::Equal => (true, false, false),
            Self::Unordered => (true, true, true),
        }
    }
}

impl From<Ordering> for Relation {
    fn from(ordering: Ordering) -> Self {
        match ordering {
            Ordering::Less => Self::Less,
            Ordering::Equal => Self::Equal,
            Ordering::Greater => Self::Greater,
        }
    }
}

mod private {
    pub trait Sealed {}
    impl Sealed for super::F32 {}
    impl Sealed for super::F64 {}
}

/// Arithmetic as SSE does it, for [`F32`] and [`F64`].
///
/// NaN operands give the first operand that is a NaN, made quiet (SDM Vol. 1, table 4-7); the order of operands matters.
pub trait Sse: private::Sealed + Copy + PartialEq + core::fmt::Debug {
    /// The default NaN (QNaN floating-point indefinite).
    const INDEFINITE: Self;
    /// `self` + `rhs`.
    fn add(self, rhs: Self, env: &mut Env) -> Self;
    /// `self` - `rhs`.
    fn sub(self, rhs: Self, env: &mut Env) -> Self;
    /// `self` * `rhs`.
    fn mul(self, rhs: Self, env: &mut Env) -> Self;
    /// `self` / `rhs`.
    fn div(self, rhs: Self, env: &mut Env) -> Self;
    /// The square root.
    fn sqrt(self, env: &mut Env) -> Self;
    /// `self` * `factor` + `addend`, rounded once. FNMADD and the subtracting forms negate operands first, with [`Sse::negated`].
    fn fma(self, factor: Self, addend: Self, env: &mut Env) -> Self;
    /// The operand with its sign flipped unless it is a NaN: how FMA's negated operands behave.
    fn negated(self) -> Self;
    /// Compares; a quiet NaN raises IE only if `signaling` (COMISS yes, UCOMISS no).
    fn compare(self, rhs: Self, signaling: bool, env: &mut Env) -> Relation;
    /// The predicate `predicate` (bits 4:0) of CMPPS and VCMPPS (SDM Vol. 2, table 3-1).
    fn compare_predicate(self, rhs: Self, predicate: u8, env: &mut Env) -> bool;
    /// MINSS: the second operand if either is a NaN (which raises IE) or both are zeros.
    fn min(self, rhs: Self, env: &mut Env) -> Self;
    /// MAXSS: the second operand if either is a NaN (which raises IE) or both are zeros.
    fn max(self, rhs: Self, env: &mut Env) -> Self;
    /// ROUNDSS: to an integer by `rounding`; PE is raised only if `report_inexact`.
    fn round_to_integral(self, rounding: Rounding, report_inexact: bool, env: &mut Env) -> Self;
    /// To a 32-bit integer by `rounding`; 8000_0000H with IE if it does not fit.
    fn to_i32(self, rounding: Rounding, env: &mut Env) -> i32;
    /// To a 64-bit integer by `rounding`; 8000_0000_0000_0000H with IE if it does not fit.
    fn to_i64(self, rounding: Rounding, env: &mut Env) -> i64;
    /// To an unsigned 32-bit integer by `rounding`; all ones with IE if it does not fit.
    fn to_u32(self, rounding: Rounding, env: &mut Env) -> u32;
    /// To an unsigned 64-bit integer by `rounding`; all ones with IE if it does not fit.
    fn to_u64(self, rounding: Rounding, env: &mut Env) -> u64;
    /// From a signed integer (32-bit ones sign-extended).
    fn from_i64(value: i64, env: &mut Env) -> Self;
    /// From an unsigned integer.
    fn from_u64(value: u64, env: &mut Env) -> Self;
}

/// Rounds an outcome to a format, with the flags of what was wrong with the operands.
fn deliver<F: Format>(outcome: Outcome, denormal: bool, env: &mut Env) -> F {
    match outcome {
        Outcome::Invalid => {
            env.raise(IE);
            F::pack(Num::indefinite())
        }
        Outcome::DivideByZero(sign) => {
            env.raise(ZE);
            F::pack(Num::infinity(sign))
        }
        Outcome::Exact(num) => {
            env.raise(if denormal { DE } else { 0 });
            F::pack(num)
        }
        Outcome::Finite { sign, exp, sig } => {
            env.raise(if denormal { DE } else { 0 });
            F::pack(round(F::SHAPE, sign, exp, sig, env))
        }
    }
}

/// Unpacks an operand as DAZ asks.
#[inline]
fn operand<F: Format>(f: F, env: &Env) -> Num {
    let num = f.unpack();
    if env.daz { num.daz() } else { num }
}

/// The NaN that an operation with NaN operands gives: the first one.
fn first_nan(operands: &[Num], env: &mut Env) -> Option<Num> {
    if operands.iter().any(|n| n.class == Class::Signaling) {
        env.raise(IE);
    }
    operands.iter().find(|n| n.is_nan()).map(|n| n.quieted())
}

fn binary<F: Format>(a: F, b: F, env: &mut Env, core: impl FnOnce(Num, Num, Rounding) -> Outcome) -> F {
    let (a, b) = (operand(a, env), operand(b, env));
    if let Some(nan) = first_nan(&[a, b], env) {
        return F::pack(nan);
    }
    deliver(core(a, b, env.rounding), a.denormal || b.denormal, env)
}

#[cold]
pub(crate) fn exact_add<F: Format>(a: F, b: F, env: &mut Env) -> F {
    binary(a, b, env, arith::add)
}

#[cold]
pub(crate) fn exact_sub<F: Format>(a: F, b: F, env: &mut Env) -> F {
    binary(a, b, env, |a, b, rounding| arith::add(a, Num { sign: !b.sign, ..b }, rounding))
}

#[cold]
pub(crate) fn exact_mul<F: Format>(a: F, b: F, env: &mut Env) -> F {
    binary(a, b, env, |a, b, _| arith::mul(a, b))
}

#[cold]
pub(crate) fn exact_div<F: Format>(a: F, b: F, env: &mut Env) -> F {
    binary(a, b, env, |a, b, _| arith::div(a, b))
}

#[cold]
pub(crate) fn exact_sqrt<F: Format>(a: F, env: &mut Env) -> F {
    let a = operand(a, env);
    if let Some(nan) = first_nan(&[a], env) {
        return F::pack(nan);
    }
    deliver(arith::sqrt(a), a.denormal, env)
}

#[cold]
pub(crate) fn exact_fma<F: Format>(a: F, b: F, c: F, env: &mut Env) -> F {
    let (a, b, c) = (operand(a, env), operand(b, env), operand(c, env));
    if let Some(nan) = first_nan(&[a, b, c], env) {
        return F::pack(nan);
    }
    deliver(arith::fma(a, b, c, env.rounding), a.denormal || b.denormal || c.denormal, env)
}

/// The order of two operands that are no NaNs.
pub(crate) fn order(a: Num, b: Num) -> Ordering {
    // Zeros compare equal; otherwise by sign, then magnitude.
    let key = |n: &Num| match n.class {
        Class::Zero => (0, 0, 0),
        Class::Infinity => (1, i32::MAX, 0),
        _ => (1, n.exp, n.sig),
    };
    let (ka, kb) = (key(&a), key(&b));
    let signed = |n: &Num| if n.is_zero() { 0 } else { 1 - 2 * i32::from(n.sign) };
    match signed(&a).cmp(&signed(&b)) {
        Ordering::Equal if a.sign && b.sign => kb.cmp(&ka),
        Ordering::Equal if a.is_zero() => Ordering::Equal,
        Ordering::Equal => ka.cmp(&kb),
        other => other,
    }
}

fn relation<F: Format>(a: F, b: F, signaling: bool, env: &mut Env) -> Relation {
    let (a, b) = (operand(a, env), operand(b, env));
    if a.is_nan() || b.is_nan() {
        if signaling || a.class == Class::Signaling || b.class == Class::Signaling {
            env.raise(IE);
        }
        return Relation::Unordered;
    }
    if a.denormal || b.denormal {
        env.raise(DE);
    }
    order(a, b).into()
}

fn round_integral<F: Format>(f: F, rounding: Rounding, report_inexact: bool, env: &mut Env) -> F {
    let a = operand(f, env);
    if let Some(nan) = first_nan(&[a], env) {
        return F::pack(nan);
    }
    if a.class != Class::Finite {
        return F::pack(a);
    }
    let (num, inexact) = integral(a, rounding, env);
    if inexact && report_inexact {
        env.raise(PE);
    }
    F::pack(num)
}

/// A finite number rounded to an integer, and whether that was inexact.
pub(crate) fn integral(a: Num, rounding: Rounding, env: &mut Env) -> (Num, bool) {
    if a.exp >= 63 {
        return (a, false);
    }
    let (whole, inexact, up) = round_off(u128::from(a.sig), (63 - a.exp) as u32, a.sign, rounding);
    env.rounded_up = up;
    if whole == 0 {
        return (Num::zero(a.sign), inexact);
    }
    let shift = (whole as u64).leading_zeros();
    if whole >> 64 != 0 {
        return (Num::finite(a.sign, 64, 1 << 63), inexact);
    }
    (Num::finite(a.sign, 63 - shift as i32, (whole as u64) << shift), inexact)
}

macro_rules! sse {
    ($name:ident, $bits:ty, $indefinite:literal) => {
        impl Sse for $name {
            const INDEFINITE: Self = Self($indefinite);

            #[inline]
            fn add(self, rhs: Self, env: &mut Env) -> Self {
                self.fast_add(rhs, env).unwrap_or_else(|| exact_add(self, rhs, env))
            }

            #[inline]
            fn sub(self, rhs: Self, env: &mut Env) -> Self {
                self.fast_sub(rhs, env).unwrap_or_else(|| exact_sub(self, rhs, env))
            }

            #[inline]
            fn mul(self, rhs: Self, env: &mut Env) -> Self {
                self.fast_mul(rhs, env).unwrap_or_else(|| exact_mul(self, rhs, env))
            }

            #[inline]
            fn div(self, rhs: Self, env: &mut Env) -> Self {
                self.fast_div(rhs, env).unwrap_or_else(|| exact_div(self, rhs, env))
            }

            #[inline]
            fn sqrt(self, env: &mut Env) -> Self {
                self.fast_sqrt(env).unwrap_or_else(|| exact_sqrt(self, env))
            }

            #[inline]
            fn fma(self, factor: Self, addend: Self, env: &mut Env) -> Self {
                self.fast_fma(factor, addend, env).unwrap_or_else(|| exact_fma(self, factor, addend, env))
            }

            #[inline]
            fn negated(self) -> Self {
                const SIGN: $bits = 1 << (<$bits>::BITS - 1);
                if self.is_nan() { self } else { Self(self.0 ^ SIGN) }
            }

            #[inline]
            fn compare(self, rhs: Self, signaling: bool, env: &mut Env) -> Relation {
                match self.fast_order(rhs) {
                    Some(order) => order.into(),
                    None => relation(self, rhs, signaling, env),
                }
            }

            fn compare_predicate(self, rhs: Self, predicate: u8, env: &mut Env) -> bool {
                // Predicates 1, 2, 5, 6 and their relatives signal on quiet NaNs; bit 4 inverts which do.
                let signaling = matches!(predicate & 7, 1 | 2 | 5 | 6) != (predicate & 0x10 != 0);
                let relation = self.compare(rhs, signaling, env);
                use Relation::{Equal, Greater, Less, Unordered};
                match predicate & 0xf {
                    0 => relation == Equal,
                    1 => relation == Less,
                    2 => matches!(relation, Less | Equal),
                    3 => relation == Unordered,
                    4 => relation != Equal,
                    5 => relation != Less,
                    6 => !matches!(relation, Less | Equal),
                    7 => relation != Unordered,
                    8 => matches!(relation, Equal | Unordered),
                    9 => !matches!(relation, Greater | Equal),
                    10 => relation != Greater,
                    11 => false,
                    12 => matches!(relation, Less | Greater),
                    13 => matches!(relation, Greater | Equal),
                    14 => relation == Greater,
                    _ => true,
                }
            }

            #[inline]
            fn min(self, rhs: Self, env: &mut Env) -> Self {
                let chosen = if self.compare(rhs, true, env) == Relation::Less { self } else { rhs };
                chosen.denormals_flushed(env)
            }

            #[inline]
            fn max(self, rhs: Self, env: &mut Env) -> Self {
                let chosen = if self.compare(rhs, true, env) == Relation::Greater { self } else { rhs };
                chosen.denormals_flushed(env)
            }

            fn round_to_integral(self, rounding: Rounding, report_inexact: bool, env: &mut Env) -> Self {
                round_integral(self, rounding, report_inexact, env)
            }

            fn to_i32(self, rounding: Rounding, env: &mut Env) -> i32 {
                convert::to_signed(operand(self, env), 32, rounding, env) as i32
            }

            fn to_i64(self, rounding: Rounding, env: &mut Env) -> i64 {
                convert::to_signed(operand(self, env), 64, rounding, env)
            }

            fn to_u32(self, rounding: Rounding, env: &mut Env) -> u32 {
                convert::to_unsigned(operand(self, env), 32, rounding, env) as u32
            }

            fn to_u64(self, rounding: Rounding, env: &mut Env) -> u64 {
                convert::to_unsigned(operand(self, env), 64, rounding, env)
            }

            fn from_i64(value: i64, env: &mut Env) -> Self {
                convert::from_integer(value < 0, value.unsigned_abs(), env)
            }

            fn from_u64(value: u64, env: &mut Env) -> Self {
                convert::from_integer(false, value, env)
            }
        }

        impl $name {
            #[inline]
            fn is_nan(self) -> bool {
                self.0 & !(1 << (<$bits>::BITS - 1)) > Self::TOP_EXPONENT
            }

            /// DAZ also shows in what MIN and MAX return.
            #[inline]
            fn denormals_flushed(self, env: &Env) -> Self {
                const SIGN: $bits = 1 << (<$bits>::BITS - 1);
                if env.daz && self.0 & Self::TOP_EXPONENT == 0 { Self(self.0 & SIGN) } else { self }
            }
        }
    };
}

sse!(F32, u32, 0xffc0_0000);
sse!(F64, u64, 0xfff8_0000_0000_0000);
