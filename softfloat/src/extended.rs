//! The arithmetic of the x87 on the double extended format (SDM Vol. 1, chapter 8).

use core::cmp::Ordering;

use crate::arith::{self, Outcome};
use crate::convert;
use crate::env::{DE, Env, IE, PE, Rounding, ZE};
use crate::formats::{F80, Format, Operand};
use crate::num::{Class, Num, Shape, round};
use crate::sse::{Relation, integral, order};

/// Which remainder: FPREM truncates the quotient, FPREM1 rounds it to nearest even.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemainderKind {
    /// FPREM.
    Truncating,
    /// FPREM1, the remainder of IEEE 754.
    Nearest,
}

/// What FPREM and FPREM1 tell of the quotient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quotient {
    /// There is none: an operand is a NaN, or the operation is invalid.
    None,
    /// The exponents were 64 or more apart: the reduction is partial (C2 = 1).
    Partial,
    /// The low bits of the quotient's magnitude.
    Bits(u64),
}

/// A packed decimal of FBLD and FBSTP: eighteen digits in nine bytes, then the sign in the top bit of the tenth.
pub type Bcd = [u8; 10];

/// The packed BCD indefinite (SDM Vol. 1, table 4-4).
const BCD_INDEFINITE: Bcd = [0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff];

impl F80 {
    /// Plus zero.
    pub const ZERO: Self = Self { significand: 0, sign_exponent: 0 };
    /// One.
    pub const ONE: Self = Self { significand: 1 << 63, sign_exponent: 0x3fff };
    /// The default NaN (real indefinite).
    pub const INDEFINITE: Self = Self { significand: 3 << 62, sign_exponent: 0xffff };

    /// What the pattern stands for, and whether it is denormal or pseudo-denormal.
    pub fn classify(self) -> (Class, bool) {
        let num = self.unpack();
        (num.class, num.denormal)
    }

    /// The sign bit.
    pub const fn sign(self) -> bool {
        self.sign_exponent >> 15 != 0
    }

    /// The pattern with its sign flipped, as FCHS does.
    #[must_use]
    pub const fn negate(self) -> Self {
        Self { sign_exponent: self.sign_exponent ^ 0x8000, ..self }
    }

    /// FSQRT.
    #[must_use]
    pub fn sqrt(self, env: &mut Env) -> Self {
        let a = self.unpack();
        match nan_of_one(a, env) {
            Some(nan) => nan,
            None => deliver(arith::sqrt(a), a.denormal, controlled(env), env),
        }
    }

    /// FRNDINT.
    #[must_use]
    pub fn round_to_integral(self, env: &mut Env) -> Self {
        let a = self.unpack();
        if let Some(nan) = nan_of_one(a, env) {
            return nan;
        }
        if a.class != Class::Finite {
            return self;
        }
        raise_denormal(a.denormal, env);
        let (num, inexact) = integral(a, env.rounding, env);
        if inexact {
            env.raise(PE);
        }
        Self::pack(num)
    }

    /// FPREM and FPREM1: the remainder of `self` by `divisor`, and what is known of the quotient.
    pub fn remainder(self, divisor: Self, kind: RemainderKind, env: &mut Env) -> (Self, Quotient) {
        let (a, b) = (self.unpack(), divisor.unpack());
        if let Some(nan) = nan_of_two(a, b, env) {
            return (nan, Quotient::None);
        }
        if a.is_infinity() || b.is_zero() {
            env.raise(IE);
            return (Self::INDEFINITE, Quotient::None);
        }
        raise_denormal(a.denormal || b.denormal, env);
        if a.is_zero() {
            return (self, Quotient::Bits(0));
        }
        if b.is_infinity() {
            return (self.left_alone(), Quotient::Bits(0));
        }
        let (num, quotient) = reduce(a, b, kind);
        if num.is_zero() {
            return (Self::pack(num), quotient);
        }
        (Self::pack(round(Self::SHAPE, num.sign, num.exp, u128::from(num.sig) << 64, env)), quotient)
    }

    /// The operand as the result, which does not underflow on Intel's processors however tiny it is. A number below the normal ones that has its
    /// integer bit set becomes a normal one.
    fn left_alone(self) -> Self {
        let normal = self.sign_exponent & 0x7fff == 0 && self.significand >> 63 != 0;
        Self { sign_exponent: self.sign_exponent | u16::from(normal), ..self }
    }

    /// FSCALE: `self` * 2^(`scale` truncated).
    #[must_use]
    pub fn scale(self, scale: Self, env: &mut Env) -> Self {
        let (a, b) = (self.unpack(), scale.unpack());
        if let Some(nan) = nan_of_two(a, b, env) {
            return nan;
        }
        if b.is_infinity() && (if b.sign { a.is_infinity() } else { a.is_zero() }) {
            env.raise(IE);
            return Self::INDEFINITE;
        }
        raise_denormal(a.denormal || b.denormal, env);
        if a.is_zero() || a.is_infinity() || b.is_zero() {
            return self.left_alone();
        }
        if b.is_infinity() {
            return Self::pack(if b.sign { Num::zero(a.sign) } else { Num::infinity(a.sign) });
        }
        // Beyond 2^17 the result is out of any range, bias adjustment included.
        let by = match convert::magnitude(b, Rounding::Zero) {
            Some((whole, _, _)) => whole.min(1 << 17) as i32,
            None => 1 << 17,
        };
        let exp = a.exp + if b.sign { -by } else { by };
        Self::pack(round(Self::SHAPE, a.sign, exp, u128::from(a.sig) << 64, env))
    }

    /// FXTRACT: the significand and the unbiased exponent, in this order.
    pub fn extract(self, env: &mut Env) -> (Self, Self) {
        let a = self.unpack();
        if let Some(nan) = nan_of_one(a, env) {
            return (nan, nan);
        }
        match a.class {
            Class::Zero => {
                env.raise(ZE);
                (self, Self::pack(Num::infinity(true)))
            }
            Class::Infinity => (self, Self::pack(Num::infinity(false))),
            _ => {
                raise_denormal(a.denormal, env);
                (Self::pack(Num::finite(a.sign, 0, a.sig)), Self::from_i64(i64::from(a.exp)))
            }
        }
    }

    /// FBLD: exact. Digits above nine, which the manual leaves undefined, count with their value.
    pub fn from_bcd(bcd: &Bcd) -> Self {
        let digits = bcd[..9].iter().rev().fold(0u64, |value, byte| {
            value.wrapping_mul(100).wrapping_add(u64::from(byte >> 4) * 10 + u64::from(byte & 15))
        });
        let value = Self::from_i64(digits as i64);
        if bcd[9] >> 7 != 0 { value.negate() } else { value }
    }

    /// FBSTP: rounded to an integer; the packed BCD indefinite with IE if it has more than eighteen digits.
    pub fn to_bcd(self, env: &mut Env) -> Bcd {
        let num = self.unpack();
        match convert::magnitude(num, env.rounding) {
            Some((whole, inexact, up)) if whole < 1_000_000_000_000_000_000 => {
                env.rounded_up = up;
                if inexact {
                    env.raise(PE);
                }
                let mut bcd = Bcd::default();
                let mut rest = whole as u64;
                for byte in &mut bcd[..9] {
                    *byte = (rest % 10 + 16 * (rest / 10 % 10)) as u8;
                    rest /= 100;
                }
                bcd[9] = u8::from(num.sign) << 7;
                bcd
            }
            _ => {
                env.raise(IE);
                BCD_INDEFINITE
            }
        }
    }
}

impl Operand {
    /// FADD.
    #[must_use]
    pub fn add(self, rhs: impl Into<Self>, env: &mut Env) -> F80 {
        binary(self, rhs.into(), env, arith::add)
    }

    /// FSUB.
    #[must_use]
    pub fn sub(self, rhs: impl Into<Self>, env: &mut Env) -> F80 {
        binary(self, rhs.into(), env, |a, b, rounding| arith::add(a, Num { sign: !b.sign, ..b }, rounding))
    }

    /// FMUL.
    #[must_use]
    pub fn mul(self, rhs: impl Into<Self>, env: &mut Env) -> F80 {
        binary(self, rhs.into(), env, |a, b, _| arith::mul(a, b))
    }

    /// FDIV.
    #[must_use]
    pub fn div(self, rhs: impl Into<Self>, env: &mut Env) -> F80 {
        binary(self, rhs.into(), env, |a, b, _| arith::div(a, b))
    }

    /// FCOM (`signaling`) and FUCOM.
    pub fn compare(self, rhs: impl Into<Self>, signaling: bool, env: &mut Env) -> Relation {
        let (a, b) = (self.0, rhs.into().0);
        let any = |class| a.class == class || b.class == class;
        if any(Class::Unsupported) || any(Class::Signaling) {
            env.raise(IE);
            return Relation::Unordered;
        }
        if any(Class::Quiet) {
            env.raise(if signaling { IE } else { 0 });
            return Relation::Unordered;
        }
        if a.denormal || b.denormal {
            env.raise(DE);
        }
        order(a, b).into()
    }
}

/// The shape that precision control asks for.
fn controlled(env: &Env) -> Shape {
    Shape { precision: env.precision.bits(), ..F80::SHAPE }
}

fn raise_denormal(denormal: bool, env: &mut Env) {
    if denormal {
        env.raise(DE);
    }
}

pub(crate) fn nan_of_one(a: Num, env: &mut Env) -> Option<F80> {
    match a.class {
        Class::Unsupported => {
            env.raise(IE);
            Some(F80::INDEFINITE)
        }
        Class::Signaling | Class::Quiet => {
            if a.class == Class::Signaling {
                env.raise(IE);
            }
            Some(F80::pack(a.quieted()))
        }
        _ => None,
    }
}

/// The x87's answer to NaN operands (SDM Vol. 1, table 4-7): a quiet NaN before a signalling one, else the larger significand.
pub(crate) fn nan_of_two(a: Num, b: Num, env: &mut Env) -> Option<F80> {
    let any = |class| a.class == class || b.class == class;
    if any(Class::Unsupported) {
        env.raise(IE);
        return Some(F80::INDEFINITE);
    }
    if any(Class::Signaling) {
        env.raise(IE);
    }
    let chosen = match (a.is_nan(), b.is_nan()) {
        (false, false) => return None,
        (true, false) => a,
        (false, true) => b,
        _ => match (a.class, b.class) {
            (Class::Signaling, Class::Quiet) => b,
            (Class::Quiet, Class::Signaling) => a,
            _ => match a.sig.cmp(&b.sig) {
                Ordering::Less => b,
                Ordering::Greater => a,
                Ordering::Equal if a.sign => b,
                Ordering::Equal => a,
            },
        },
    };
    Some(F80::pack(chosen.quieted()))
}

pub(crate) fn deliver(outcome: Outcome, denormal: bool, shape: Shape, env: &mut Env) -> F80 {
    match outcome {
        Outcome::Invalid => {
            env.raise(IE);
            F80::INDEFINITE
        }
        Outcome::DivideByZero(sign) => {
            env.raise(ZE);
            F80::pack(Num::infinity(sign))
        }
        Outcome::Exact(num) => {
            raise_denormal(denormal, env);
            F80::pack(num)
        }
        Outcome::Finite { sign, exp, sig } => {
            raise_denormal(denormal, env);
            F80::pack(round(shape, sign, exp, sig, env))
        }
    }
}

fn binary(a: Operand, b: Operand, env: &mut Env, core: impl FnOnce(Num, Num, Rounding) -> Outcome) -> F80 {
    let (a, b) = (a.0, b.0);
    match nan_of_two(a, b, env) {
        Some(nan) => nan,
        None => deliver(core(a, b, env.rounding), a.denormal || b.denormal, controlled(env), env),
    }
}

/// The remainder of two finite numbers, exact, and the quotient's low bits unless the reduction is partial.
fn reduce(a: Num, b: Num, kind: RemainderKind) -> (Num, Quotient) {
    let distance = a.exp - b.exp;
    if distance >= 64 {
        // The processor takes away between 32 and 63 bits of the quotient at a time.
        let steps = distance % 32 + 32;
        let (rest, _) = long_division(a.sig, b.sig, steps as u32);
        return (normalized(a.sign, b.exp + distance - steps, rest), Quotient::Partial);
    }
    let (rest, quotient, exp) = if distance >= 0 {
        let (rest, quotient) = long_division(a.sig, b.sig, distance as u32);
        (u128::from(rest), quotient, b.exp)
    } else if distance == -1 {
        (u128::from(a.sig), 0, a.exp)
    } else {
        return (a, Quotient::Bits(0));
    };
    if kind == RemainderKind::Nearest {
        // In units of 2^(exp - 63): the divisor, twice as large when the dividend's exponent is one below it.
        let divisor = u128::from(b.sig) << (b.exp - exp);
        if rest * 2 > divisor || rest * 2 == divisor && quotient & 1 != 0 {
            let rest = (divisor - rest) as u64;
            return (normalized(!a.sign, exp, rest), Quotient::Bits(quotient.wrapping_add(1)));
        }
    }
    (normalized(a.sign, exp, rest as u64), Quotient::Bits(quotient))
}

/// `a` * 2^`steps` divided by `b`: the rest and the low 64 bits of the quotient.
fn long_division(a: u64, b: u64, steps: u32) -> (u64, u64) {
    let dividend = u128::from(a) << steps;
    ((dividend % u128::from(b)) as u64, (dividend / u128::from(b)) as u64)
}

fn normalized(sign: bool, exp: i32, sig: u64) -> Num {
    if sig == 0 {
        return Num::zero(sign);
    }
    let shift = sig.leading_zeros();
    Num::finite(sign, exp - shift as i32, sig << shift)
}
