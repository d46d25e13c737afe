//! The x87's transcendental functions (SDM Vol. 1, 8.3.9 and 8.3.10), correctly rounded but for cases too rare to find.
//!
//! Arguments of trigonometric functions are reduced by a pi of 66 bits, as Intel's processors do (SDM Vol. 1, 8.3.8).

use crate::arith::{self, Outcome};
use crate::env::{DE, Env, IE, PE, UE, ZE};
use crate::extended::{deliver, nan_of_one, nan_of_two};
use crate::formats::{F80, Format};
use crate::num::{Class, Num, round};
use crate::wide::{self, Wide};

/// pi * 2^66, whose significand is 66 bits long.
const PI_66: u128 = 0xc_90fd_aa22_168c_234c;

/// Rounds a result that cannot be exact.
fn finish(result: Wide, env: &mut Env) -> F80 {
    F80::pack(round(F80::SHAPE, result.sign, result.exp, result.sig | 1, env))
}

/// What came out exact of a computation that processors take for inexact whenever its result is not zero: a logarithm of a power of two, 2^1 - 1.
fn called_inexact(result: F80, env: &mut Env) -> F80 {
    env.raise(if result.unpack().denormal { PE | UE } else { PE });
    result
}

fn raise_denormal(num: Num, env: &mut Env) {
    if num.denormal {
        env.raise(DE);
    }
}

fn invalid(env: &mut Env) -> F80 {
    env.raise(IE);
    F80::INDEFINITE
}

/// What the trigonometric functions meet first.
enum Angle {
    /// The answer, whatever the function: a NaN.
    Nan(F80),
    /// Magnitude 2^63 or more.
    TooLarge,
    Zero,
    /// The rest in [-pi/4, pi/4], and the number of quarter turns taken away, modulo 4.
    Reduced(Wide, u8),
}

fn angle(a: F80, env: &mut Env) -> Angle {
    let num = a.unpack();
    if let Some(nan) = nan_of_one(num, env) {
        return Angle::Nan(nan);
    }
    match num.class {
        Class::Infinity => Angle::Nan(invalid(env)),
        Class::Zero => Angle::Zero,
        _ if num.exp >= 63 => Angle::TooLarge,
        _ => {
            raise_denormal(num, env);
            let (rest, turns) = reduce(num);
            Angle::Reduced(rest, turns)
        }
    }
}

fn reduce(num: Num) -> (Wide, u8) {
    if num.exp < -1 {
        return (Wide::of(num), 0);
    }
    // In units of 2^-67: a quarter turn is PI_66.
    let (mut rest, mut turns) = (u128::from(num.sig), 0u8);
    for _ in 0..num.exp + 4 {
        rest <<= 1;
        turns <<= 1;
        if rest >= PI_66 {
            rest -= PI_66;
            turns |= 1;
        }
    }
    let mut sign = num.sign;
    if rest * 2 > PI_66 {
        rest = PI_66 - rest;
        sign = !sign;
        turns = turns.wrapping_add(1);
    }
    // A 64-bit number is no multiple of an odd 66-bit one: the rest is not zero.
    let turns = if num.sign { turns.wrapping_neg() } else { turns };
    (Wide::normalized(sign, 127 - 67, rest), turns & 3)
}

fn sin_of(rest: Wide, turns: u8) -> Wide {
    let value = if turns & 1 == 0 { wide::sin(rest) } else { wide::cos(rest) };
    if turns & 2 == 0 { value } else { value.negated() }
}

impl F80 {
    /// FSIN; `None` if the magnitude is 2^63 or more (C2 = 1).
    pub fn sin(self, env: &mut Env) -> Option<Self> {
        match angle(self, env) {
            Angle::Nan(nan) => Some(nan),
            Angle::TooLarge => None,
            Angle::Zero => Some(self),
            Angle::Reduced(rest, turns) => Some(finish(sin_of(rest, turns), env)),
        }
    }

    /// FCOS; `None` if the magnitude is 2^63 or more (C2 = 1).
    pub fn cos(self, env: &mut Env) -> Option<Self> {
        match angle(self, env) {
            Angle::Nan(nan) => Some(nan),
            Angle::TooLarge => None,
            Angle::Zero => Some(Self::ONE),
            Angle::Reduced(rest, turns) => Some(finish(sin_of(rest, turns + 1), env)),
        }
    }

    /// FSINCOS: sine and cosine; `None` if the magnitude is 2^63 or more (C2 = 1).
    pub fn sin_cos(self, env: &mut Env) -> Option<(Self, Self)> {
        match angle(self, env) {
            Angle::Nan(nan) => Some((nan, nan)),
            Angle::TooLarge => None,
            Angle::Zero => Some((self, Self::ONE)),
            Angle::Reduced(rest, turns) => {
                let sin = finish(sin_of(rest, turns), env);
                Some((sin, finish(sin_of(rest, turns + 1), env)))
            }
        }
    }

    /// FPTAN: the tangent and what is pushed upon it, 1.0 or the NaN again; `None` if the magnitude is 2^63 or more (C2 = 1).
    pub fn tan(self, env: &mut Env) -> Option<(Self, Self)> {
        match angle(self, env) {
            Angle::Nan(nan) => Some((nan, nan)),
            Angle::TooLarge => None,
            Angle::Zero => Some((self, Self::ONE)),
            Angle::Reduced(rest, turns) => {
                let tan = if turns & 1 == 0 { wide::tan(rest) } else { wide::cos(rest).div(wide::sin(rest)).negated() };
                Some((finish(tan, env), Self::ONE))
            }
        }
    }

    /// F2XM1: 2^`self` - 1 for magnitudes up to one. Beyond, where the manual leaves the result undefined, the operand itself.
    #[must_use]
    pub fn exp2_minus_1(self, env: &mut Env) -> Self {
        let num = self.unpack();
        if let Some(nan) = nan_of_one(num, env) {
            return nan;
        }
        match num.class {
            Class::Zero => self,
            Class::Infinity if num.sign => Self::pack(Num::finite(true, 0, 1 << 63)),
            Class::Infinity => self,
            _ => {
                raise_denormal(num, env);
                if num.exp >= 0 {
                    return match (num.exp, num.sig << 1, num.sign) {
                        (0, 0, true) => called_inexact(Self::pack(Num::finite(true, -1, 1 << 63)), env),
                        _ => called_inexact(self, env),
                    };
                }
                finish(wide::exp_minus_1(Wide::of(num).mul(wide::LN_2)), env)
            }
        }
    }

    /// FPATAN: the angle of the point (`x`, `y`), in (-pi, pi] (SDM Vol. 2, table 3-32).
    #[must_use]
    pub fn atan2(y: Self, x: Self, env: &mut Env) -> Self {
        let (b, a) = (y.unpack(), x.unpack());
        if let Some(nan) = nan_of_two(a, b, env) {
            return nan;
        }
        let with_sign = |value: Wide| Wide { sign: b.sign, ..value };
        if a.denormal || b.denormal {
            env.raise(DE);
        }
        let constant = match (b.class, a.class, a.sign) {
            (Class::Infinity, Class::Infinity, false) => wide::QUARTER_PI,
            (Class::Infinity, Class::Infinity, true) => wide::PI.add(wide::QUARTER_PI.negated()),
            (Class::Infinity, ..) => wide::HALF_PI,
            (Class::Zero, _, false) | (_, Class::Infinity, false) => return Self::pack(Num::zero(b.sign)),
            (Class::Zero, _, true) | (_, Class::Infinity, true) => wide::PI,
            (_, Class::Zero, _) => wide::HALF_PI,
            _ => return finish(with_sign(atan_quotient(b, a)), env),
        };
        finish(with_sign(constant), env)
    }

    /// FYL2X: `y` * log2 `x` (SDM Vol. 2, table 3-58).
    #[must_use]
    pub fn y_log2_x(y: Self, x: Self, env: &mut Env) -> Self {
        let (b, a) = (y.unpack(), x.unpack());
        if let Some(nan) = nan_of_two(a, b, env) {
            return nan;
        }
        let above_one = a.class == Class::Infinity || a.class == Class::Finite && a.exp >= 0;
        let is_one = a.class == Class::Finite && a.exp == 0 && a.sig << 1 == 0;
        match (a.class, b.class) {
            (Class::Zero, Class::Zero) => return invalid(env),
            (Class::Zero, Class::Infinity) => return Self::pack(Num::infinity(!b.sign)),
            (Class::Zero, _) => {
                env.raise(ZE);
                return Self::pack(Num::infinity(!b.sign));
            }
            _ if a.sign => return invalid(env),
            (Class::Infinity, Class::Zero) => return invalid(env),
            (_, Class::Infinity) if is_one => return invalid(env),
            _ => {}
        }
        if a.denormal || b.denormal {
            env.raise(DE);
        }
        match (a.class, b.class) {
            (_, Class::Infinity) | (Class::Infinity, _) => return Self::pack(Num::infinity(b.sign == above_one)),
            (_, Class::Zero) => return Self::pack(Num::zero(b.sign == above_one)),
            _ if is_one => return Self::pack(Num::zero(b.sign)),
            _ => {}
        }
        if a.sig << 1 == 0 {
            // A power of two has an exact logarithm.
            let exponent = Self::from_i64(a.exp.into()).unpack();
            let product = deliver(arith::mul(b, exponent), false, Self::SHAPE, env);
            return called_inexact(product, env);
        }
        finish(Wide::of(b).mul(log2(Wide::of(a))), env)
    }

    /// FYL2XP1: `y` * log2(`x` + 1). Where the manual leaves the result undefined: the same down to -1, then as FYL2X.
    #[must_use]
    pub fn y_log2_x_plus_1(y: Self, x: Self, env: &mut Env) -> Self {
        let (b, a) = (y.unpack(), x.unpack());
        if let Some(nan) = nan_of_two(a, b, env) {
            return nan;
        }
        match (a.class, b.class) {
            (Class::Zero, Class::Infinity) | (Class::Infinity, Class::Zero) => return invalid(env),
            (Class::Infinity, _) if a.sign => return invalid(env),
            _ => {}
        }
        if a.class == Class::Finite && a.sign && a.exp >= 0 {
            return invalid(env);
        }
        if a.denormal || b.denormal {
            env.raise(DE);
        }
        match (a.class, b.class) {
            (Class::Infinity, _) | (_, Class::Infinity) => return Self::pack(Num::infinity(a.sign != b.sign)),
            (Class::Zero, _) | (_, Class::Zero) => return Self::pack(Num::zero(a.sign != b.sign)),
            _ => {}
        }
        let wide_x = Wide::of(a);
        let logarithm = if a.exp < -2 {
            wide::log2_ratio(wide_x.div(wide_x.add(wide::TWO)))
        } else {
            let sum = wide_x.add(wide::ONE);
            if sum.sig << 1 == 0 {
                let exponent = Self::from_i64(sum.exp.into()).unpack();
                return match arith::mul(b, exponent) {
                    Outcome::Exact(zero) => Self::pack(zero),
                    product => {
                        let product = deliver(product, false, Self::SHAPE, env);
                        called_inexact(product, env)
                    }
                };
            }
            log2(sum)
        };
        finish(Wide::of(b).mul(logarithm), env)
    }
}

/// log2 of a positive number that is no power of two.
fn log2(a: Wide) -> Wide {
    /// 2^127.5.
    const ROOT_2: u128 = 0xb504_f333_f9de_6484_597d_89b3_754a_be9f;
    let half = 1u128 << 127;
    let (exp, s) = if a.sig < ROOT_2 {
        // m in [1, sqrt 2): (m - 1) / (m + 1).
        let above = Wide::normalized(false, 0, a.sig - half);
        (a.exp, above.div(Wide { sign: false, exp: 1, sig: (a.sig >> 1) + (half >> 1) }))
    } else {
        let below = Wide::normalized(true, -1, a.sig.wrapping_neg());
        (a.exp + 1, below.div(Wide { sign: false, exp: 0, sig: (a.sig >> 1) + half }))
    };
    let fraction = wide::log2_ratio(s);
    if exp == 0 {
        return fraction;
    }
    let integer = Wide::normalized(exp < 0, 127, u128::from(exp.unsigned_abs()));
    integer.add(fraction)
}

/// |atan2| of finite numbers other than zero.
fn atan_quotient(y: Num, x: Num) -> Wide {
    let key = |n: &Num| (n.exp, n.sig);
    let swapped = key(&y) > key(&x);
    let (small, large) = if swapped { (x, y) } else { (y, x) };
    let distance = large.exp - small.exp;
    let plain = |n: Num| Wide { sign: false, ..Wide::of(n) };
    let arctangent = if distance > 5 {
        wide::atan_small(plain(small).div(plain(large)))
    } else {
        // atan t = atan(k/8) + atan((8t - k) / (8 + kt)), exactly, with t the quotient of two integers.
        let (small, large) = (i128::from(small.sig), i128::from(large.sig) << distance);
        let k = (16 * small + large) / (2 * large);
        let (above, below) = (8 * small - k * large, 8 * large + k * small);
        let rest = (above != 0).then(|| {
            let above = Wide::normalized(above < 0, 127, above.unsigned_abs());
            wide::atan_small(above.div(Wide::normalized(false, 127, below.unsigned_abs())))
        });
        match (k, rest) {
            (0, Some(rest)) => rest,
            (_, Some(rest)) => wide::ARCTANGENTS[k as usize - 1].add(rest),
            (_, None) => wide::ARCTANGENTS[(k as usize).wrapping_sub(1) & 7],
        }
    };
    let angle = if swapped { wide::HALF_PI.add(arctangent.negated()) } else { arctangent };
    if x.sign { wide::PI.add(angle.negated()) } else { angle }
}
