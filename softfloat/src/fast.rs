//! Fast paths: the host's own operation where it provably gives x86's result and flags.
//!
//! Rust defines `+ - * /` on `f32` and `f64`, and `sqrt` and `mul_add`, as correctly rounded to nearest. So when rounding is to nearest, the
//! operands are zeros or normal numbers and the result is a normal number above the smallest binade (or an exact zero), the
//! result is right and the only flag that can rise is PE. PE is found by an exactness check, or skipped if it is sticky anyway.
//! Everything else answers `None` and takes the exact path.

use core::cmp::Ordering;

use crate::env::{Env, PE, Rounding};
use crate::formats::{F32, F64};

pub(crate) trait Fast: Sized {
    fn fast_add(self, rhs: Self, env: &mut Env) -> Option<Self>;
    fn fast_sub(self, rhs: Self, env: &mut Env) -> Option<Self>;
    fn fast_mul(self, rhs: Self, env: &mut Env) -> Option<Self>;
    fn fast_div(self, rhs: Self, env: &mut Env) -> Option<Self>;
    fn fast_sqrt(self, env: &mut Env) -> Option<Self>;
    fn fast_fma(self, factor: Self, addend: Self, env: &mut Env) -> Option<Self>;
    /// The order of two operands that are zeros or normal numbers.
    fn fast_order(self, rhs: Self) -> Option<Ordering>;
}

macro_rules! fast {
    ($name:ident, $bits:ty, $float:ty, $fraction:literal, $product_exact:path) => {
        impl $name {
            /// The exponent field, all ones.
            pub(crate) const TOP_EXPONENT: $bits = !0 << 1 >> ($fraction + 1) << $fraction;
            const ONE: $bits = 1 << $fraction;

            #[inline]
            fn host(self) -> $float {
                <$float>::from_bits(self.0)
            }

            #[inline]
            fn is_zero(self) -> bool {
                self.0 << 1 == 0
            }

            /// A zero or a normal number.
            #[inline]
            fn plain(self) -> bool {
                self.normal() || self.is_zero()
            }

            #[inline]
            fn normal(self) -> bool {
                let exponent = self.0 & Self::TOP_EXPONENT;
                exponent.wrapping_sub(Self::ONE) < Self::TOP_EXPONENT - Self::ONE
            }

            /// Normal and above the smallest binade, where a result cannot have been tiny before it was rounded.
            #[inline]
            fn well_normal(self) -> bool {
                let exponent = self.0 & Self::TOP_EXPONENT;
                exponent.wrapping_sub(2 * Self::ONE) < Self::TOP_EXPONENT - 2 * Self::ONE
            }

            #[inline]
            fn sum(a: $float, b: $float, env: &mut Env) -> Option<Self> {
                let sum = a + b;
                let result = Self(sum.to_bits());
                // A zero sum is exact: it cannot underflow.
                if !(result.well_normal() || result.is_zero()) {
                    return None;
                }
                if !env.inexact_known {
                    // Knuth's two-sum finds the rounding error exactly, barring overflow on the way.
                    let virtual_b = sum - a;
                    let error = (a - (sum - virtual_b)) + (b - virtual_b);
                    if error != 0.0 {
                        env.raise(PE);
                    }
                }
                Some(result)
            }
        }

        impl Fast for $name {
            #[inline]
            fn fast_add(self, rhs: Self, env: &mut Env) -> Option<Self> {
                if env.rounding != Rounding::Nearest || !self.plain() || !rhs.plain() {
                    return None;
                }
                Self::sum(self.host(), rhs.host(), env)
            }

            #[inline]
            fn fast_sub(self, rhs: Self, env: &mut Env) -> Option<Self> {
                if env.rounding != Rounding::Nearest || !self.plain() || !rhs.plain() {
                    return None;
                }
                Self::sum(self.host(), -rhs.host(), env)
            }

            #[inline]
            fn fast_mul(self, rhs: Self, env: &mut Env) -> Option<Self> {
                if env.rounding != Rounding::Nearest || !self.plain() || !rhs.plain() {
                    return None;
                }
                let result = Self((self.host() * rhs.host()).to_bits());
                if !result.well_normal() {
                    return (self.is_zero() || rhs.is_zero()).then_some(result);
                }
                if !env.inexact_known && !$product_exact(self, rhs, result) {
                    env.raise(PE);
                }
                Some(result)
            }

            #[inline]
            fn fast_div(self, rhs: Self, env: &mut Env) -> Option<Self> {
                if env.rounding != Rounding::Nearest || !self.plain() || !rhs.normal() {
                    return None;
                }
                let result = Self((self.host() / rhs.host()).to_bits());
                if !result.well_normal() {
                    return self.is_zero().then_some(result);
                }
                if !env.inexact_known && !$product_exact(result, rhs, self) {
                    env.raise(PE);
                }
                Some(result)
            }

            #[cfg(feature = "std")]
            #[inline]
            fn fast_sqrt(self, env: &mut Env) -> Option<Self> {
                if env.rounding != Rounding::Nearest || !self.normal() || self.host() < 0.0 {
                    return None;
                }
                let result = Self(self.host().sqrt().to_bits());
                if !env.inexact_known && !$product_exact(result, result, self) {
                    env.raise(PE);
                }
                Some(result)
            }

            #[cfg(not(feature = "std"))]
            #[inline]
            fn fast_sqrt(self, _: &mut Env) -> Option<Self> {
                None
            }

            #[cfg(feature = "std")]
            #[inline]
            fn fast_fma(self, factor: Self, addend: Self, env: &mut Env) -> Option<Self> {
                if env.rounding != Rounding::Nearest
                    || !env.inexact_known
                    || !self.plain()
                    || !factor.plain()
                    || !addend.plain()
                {
                    return None;
                }
                let result = Self(self.host().mul_add(factor.host(), addend.host()).to_bits());
                result.well_normal().then_some(result)
            }

            #[cfg(not(feature = "std"))]
            #[inline]
            fn fast_fma(self, _: Self, _: Self, _: &mut Env) -> Option<Self> {
                None
            }

            #[inline]
            fn fast_order(self, rhs: Self) -> Option<Ordering> {
                if self.plain() && rhs.plain() { self.host().partial_cmp(&rhs.host()) } else { None }
            }
        }
    };
}

fast!(F32, u32, f32, 23, product_exact_32);
fast!(F64, u64, f64, 52, product_exact_64);

/// Whether `a` * `b` = `c` exactly.
#[inline]
fn product_exact_32(a: F32, b: F32, c: F32) -> bool {
    // Two 24-bit significands multiply exactly in 53 bits, and no exponent leaves the range of doubles.
    f64::from(a.host()) * f64::from(b.host()) == f64::from(c.host())
}

/// Whether `a` * `b` = `c` exactly, knowing that it is so to within rounding, all normal (or `a` and `c` zero).
#[inline]
fn product_exact_64(a: F64, b: F64, c: F64) -> bool {
    let sig = |f: F64| u128::from(f.0 & (F64::ONE - 1) | F64::ONE);
    let product = sig(a) * sig(b);
    product == sig(c) << 52 || product == sig(c) << 53
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sse::{exact_add, exact_div, exact_fma, exact_mul, exact_sqrt};

    /// Every fast answer must be the exact path's, flags included.
    #[test]
    fn fast_and_exact_paths_agree() {
        let mut state = 1u64;
        let mut taken = 0;
        for i in 0..60_000u64 {
            let mut operand = || {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                let bits = state ^ state >> 29;
                // Half of them with short significands, whose results are exact; exponents within reach of each other.
                let fraction = if i & 1 == 0 { bits >> 12 } else { bits >> 12 & !0 << 40 };
                F64(bits << 63 | (0x3ff - 32 + (bits >> 1 & 63)) << 52 | fraction)
            };
            let (a, b, c) = (operand(), operand(), operand());
            let known = Env::from_mxcsr(0x1fa0);
            for base in [Env::from_mxcsr(0x1f80), known] {
                let mut check = |fast: &dyn Fn(&mut Env) -> Option<F64>, exact: &dyn Fn(&mut Env) -> F64| {
                    let (mut x, mut y) = (base, base);
                    if let Some(result) = fast(&mut x) {
                        taken += 1;
                        assert_eq!(result, exact(&mut y), "{a:x?} {b:x?} {c:x?}");
                        let ignored = if base.inexact_known { PE } else { 0 };
                        assert_eq!(x.flags | ignored, y.flags | ignored, "{a:x?} {b:x?} {c:x?}");
                    }
                };
                check(&|e| a.fast_add(b, e), &|e| exact_add(a, b, e));
                check(&|e| a.fast_mul(b, e), &|e| exact_mul(a, b, e));
                check(&|e| a.fast_div(b, e), &|e| exact_div(a, b, e));
                check(&|e| a.fast_sqrt(e), &|e| exact_sqrt(a, e));
                check(&|e| a.fast_fma(b, c, e), &|e| exact_fma(a, b, c, e));
            }
        }
        assert!(taken > 400_000, "the fast path took only {taken}");
    }
}
