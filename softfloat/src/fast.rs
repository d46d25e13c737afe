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
