//! Floating-point arithmetic on lanes: SSE, SSE2, SSE3, SSE4.1 and their AVX forms (SDM volume 2, the instruction of the
//! same name). Rounding, NaNs and exception flags are `softfloat`'s; here is only which lanes meet which.
//!
//! The suffixes are the manual's: `ps` and `pd` work on all lanes, `ss` and `sd` on the lowest, with the rest from the first
//! operand. A function returns the masked result and leaves its exceptions in the environment.

use softfloat::{Env, F32, F64, Rounding, Sse};

use super::lanes::Xmm;

/// A floating-point function of the first source, the second source and the immediate byte (0 if the instruction has none).
pub type Float = fn(&Xmm, &Xmm, u8, &mut Env) -> Xmm;

impl Xmm {
    /// The vector as four single-precision lanes.
    #[inline(always)]
    pub fn f32s(&self) -> [F32; 4] {
        self.u32s().map(F32)
    }

    /// A vector of four single-precision lanes.
    #[inline(always)]
    pub fn from_f32s(lanes: [F32; 4]) -> Self {
        Self::from_u32s(lanes.map(|lane| lane.0))
    }

    /// The vector as two double-precision lanes.
    #[inline(always)]
    pub fn f64s(&self) -> [F64; 2] {
        self.u64s().map(F64)
    }

    /// A vector of two double-precision lanes.
    #[inline(always)]
    pub fn from_f64s(lanes: [F64; 2]) -> Self {
        Self::from_u64s(lanes.map(|lane| lane.0))
    }
}

/// Defines the packed and scalar functions of an operation: `ps pd ss sd: |a, b, imm, env| lane`.
macro_rules! operations {
    ($($(#[$doc:meta])* $ps:ident $pd:ident $ss:ident $sd:ident: |$a:ident, $b:ident, $imm:ident, $env:ident| $lane:expr;)+) => {$(
        $(#[$doc])*
        #[doc = " All single-precision lanes."]
        pub fn $ps(a: &Xmm, b: &Xmm, $imm: u8, $env: &mut Env) -> Xmm {
            let (a, b) = (a.f32s(), b.f32s());
            Xmm::from_f32s(core::array::from_fn(|i| { let ($a, $b) = (a[i], b[i]); $lane }))
        }

        $(#[$doc])*
        #[doc = " All double-precision lanes."]
        pub fn $pd(a: &Xmm, b: &Xmm, $imm: u8, $env: &mut Env) -> Xmm {
            let (a, b) = (a.f64s(), b.f64s());
            Xmm::from_f64s(core::array::from_fn(|i| { let ($a, $b) = (a[i], b[i]); $lane }))
        }

        $(#[$doc])*
        #[doc = " The lowest single-precision lane."]
        pub fn $ss(a: &Xmm, b: &Xmm, $imm: u8, $env: &mut Env) -> Xmm {
            let ($a, $b) = (F32(a.low32()), F32(b.low32()));
            a.with_low32({ $lane }.0)
        }

        $(#[$doc])*
        #[doc = " The lowest double-precision lane."]
        pub fn $sd(a: &Xmm, b: &Xmm, $imm: u8, $env: &mut Env) -> Xmm {
            let ($a, $b) = (F64(a.low()), F64(b.low()));
            a.with_low({ $lane }.0)
        }
    )+};
}

operations! {
    /// Addition.
    add_ps add_pd add_ss add_sd: |a, b, _imm, env| a.add(b, env);
    /// Subtraction.
    sub_ps sub_pd sub_ss sub_sd: |a, b, _imm, env| a.sub(b, env);
    /// Multiplication.
    mul_ps mul_pd mul_ss mul_sd: |a, b, _imm, env| a.mul(b, env);
    /// Division.
    div_ps div_pd div_ss div_sd: |a, b, _imm, env| a.div(b, env);
    /// MIN: the second operand if either is a NaN or both are zeros.
    min_ps min_pd min_ss min_sd: |a, b, _imm, env| a.min(b, env);
    /// MAX: the second operand if either is a NaN or both are zeros.
    max_ps max_pd max_ss max_sd: |a, b, _imm, env| a.max(b, env);
    /// Square root of the second operand.
    sqrt_ps sqrt_pd sqrt_ss sqrt_sd: |_a, b, _imm, env| b.sqrt(env);
    /// ROUND: the second operand to an integer, as the immediate says.
    round_ps round_pd round_ss round_sd: |_a, b, imm, env| {
        let rounding = if imm & 4 != 0 { env.rounding } else { Rounding::from_bits(imm.into()) };
        b.round_to_integral(rounding, imm & 8 == 0, env)
    };
    /// VCMP: all ones where the predicate of bits 4:0 holds.
    compare_ps compare_pd compare_ss compare_sd: |a, b, imm, env| {
        let holds = a.compare_predicate(b, imm & 0x1f, env);
        ones(a, holds)
    };
    /// The legacy CMP, whose immediate has three bits only.
    compare8_ps compare8_pd compare8_ss compare8_sd: |a, b, imm, env| {
        let holds = a.compare_predicate(b, imm & 7, env);
        ones(a, holds)
    };
}

/// All ones or all zeros in the type of a lane.
trait Ones {
    fn ones(holds: bool) -> Self;
}
impl Ones for F32 {
    #[inline(always)]
    fn ones(holds: bool) -> Self {
        Self(if holds { u32::MAX } else { 0 })
    }
}
impl Ones for F64 {
    #[inline(always)]
    fn ones(holds: bool) -> Self {
        Self(if holds { u64::MAX } else { 0 })
    }
}
#[inline(always)]
fn ones<T: Ones>(_lane: T, holds: bool) -> T {
    T::ones(holds)
}

/// ADDSUBPS: even lanes subtract, odd lanes add.
pub fn addsub_ps(a: &Xmm, b: &Xmm, _imm: u8, env: &mut Env) -> Xmm {
    let (a, b) = (a.f32s(), b.f32s());
    Xmm::from_f32s(core::array::from_fn(|i| if i % 2 == 0 { a[i].sub(b[i], env) } else { a[i].add(b[i], env) }))
}

/// ADDSUBPD: the even lane subtracts, the odd lane adds.
pub fn addsub_pd(a: &Xmm, b: &Xmm, _imm: u8, env: &mut Env) -> Xmm {
    let (a, b) = (a.f64s(), b.f64s());
    Xmm::from_f64s([a[0].sub(b[0], env), a[1].add(b[1], env)])
}

macro_rules! horizontal {
    ($($(#[$doc:meta])* $ps:ident $pd:ident: $operation:ident;)+) => {$(
        $(#[$doc])*
        #[doc = " Single precision."]
        pub fn $ps(a: &Xmm, b: &Xmm, _imm: u8, env: &mut Env) -> Xmm {
            let (a, b) = (a.f32s(), b.f32s());
            Xmm::from_f32s([
                a[0].$operation(a[1], env),
                a[2].$operation(a[3], env),
                b[0].$operation(b[1], env),
                b[2].$operation(b[3], env),
            ])
        }

        $(#[$doc])*
        #[doc = " Double precision."]
        pub fn $pd(a: &Xmm, b: &Xmm, _imm: u8, env: &mut Env) -> Xmm {
            let (a, b) = (a.f64s(), b.f64s());
            Xmm::from_f64s([a[0].$operation(a[1], env), b[0].$operation(b[1], env)])
        }
    )+};
}

horizontal! {
    /// HADD: the sums of adjacent lanes.
    hadd_ps hadd_pd: add;
    /// HSUB: each lower lane minus the higher one beside it.
    hsub_ps hsub_pd: sub;
}

/// DPPS: the sum of the products that bits 7:4 of `imm` select, in the lanes that bits 3:0 select.
pub fn dot_ps(a: &Xmm, b: &Xmm, imm: u8, env: &mut Env) -> Xmm {
    let (a, b) = (a.f32s(), b.f32s());
    let p: [F32; 4] = core::array::from_fn(|i| if imm >> (4 + i) & 1 != 0 { a[i].mul(b[i], env) } else { F32(0) });
    // With an unmasked exception the steps end, and nothing is written.
    if !env.next_step() {
        return Xmm::ZERO;
    }
    // Every lane adds for itself: which operand is the first shows where both are NaNs. This is the order of Intel's processors.
    let halves: [F32; 4] = core::array::from_fn(|i| p[i ^ 1].add(p[i], env));
    if !env.next_step() {
        return Xmm::ZERO;
    }
    let sums: [F32; 4] = core::array::from_fn(|i| halves[i].add(halves[i ^ 2], env));
    Xmm::from_f32s(core::array::from_fn(|i| if imm >> i & 1 != 0 { sums[i] } else { F32(0) }))
}

/// DPPD: the sum of the products that bits 5:4 of `imm` select, in the lanes that bits 1:0 select.
pub fn dot_pd(a: &Xmm, b: &Xmm, imm: u8, env: &mut Env) -> Xmm {
    let (a, b) = (a.f64s(), b.f64s());
    let p: [F64; 2] = core::array::from_fn(|i| if imm >> (4 + i) & 1 != 0 { a[i].mul(b[i], env) } else { F64(0) });
    if !env.next_step() {
        return Xmm::ZERO;
    }
    let sums: [F64; 2] = core::array::from_fn(|i| p[i].add(p[i ^ 1], env));
    Xmm::from_f64s(core::array::from_fn(|i| if imm >> i & 1 != 0 { sums[i] } else { F64(0) }))
}

/// RCPPS of all lanes. RCP and RSQRT raise no exceptions and ignore MXCSR.
pub fn reciprocal_ps(_a: &Xmm, b: &Xmm, _imm: u8, _env: &mut Env) -> Xmm {
    Xmm::from_u32s(b.u32s().map(reciprocal))
}

/// RCPSS.
pub fn reciprocal_ss(a: &Xmm, b: &Xmm, _imm: u8, _env: &mut Env) -> Xmm {
    a.with_low32(reciprocal(b.low32()))
}

/// RSQRTPS.
pub fn reciprocal_root_ps(_a: &Xmm, b: &Xmm, _imm: u8, _env: &mut Env) -> Xmm {
    Xmm::from_u32s(b.u32s().map(reciprocal_root))
}

/// RSQRTSS.
pub fn reciprocal_root_ss(a: &Xmm, b: &Xmm, _imm: u8, _env: &mut Env) -> Xmm {
    a.with_low32(reciprocal_root(b.low32()))
}

const SIGN: u32 = 1 << 31;
const INFINITY: u32 = 0x7f80_0000;
const QUIET: u32 = 1 << 22;
/// The bits of a significand that the approximations keep, the integer bit included: a relative error of at most 2^-12, within
/// the 1.5 * 2^-12 that the manual promises. The exact values differ between processors that exist.
const KEPT: u32 = 12;

/// Rounds a significand, any positive integer, to [`KEPT`] bits: the 23 fraction bits, and the power of two of its value.
fn approximate(significand: u64) -> (u32, i32) {
    let drop = 64 - significand.leading_zeros() - KEPT;
    let rounded = (significand + (1 << (drop - 1))) >> drop;
    let top = 63 - rounded.leading_zeros();
    ((rounded << (23 - top)) as u32 & 0x7f_ffff, (drop + top) as i32)
}

/// 1/x to 12 bits. Denormal operands count as zeros and tiny results become zeros (SDM volume 2, RCPPS).
fn reciprocal(x: u32) -> u32 {
    let (sign, exponent, fraction) = (x & SIGN, (x >> 23 & 0xff) as i32, x & 0x7f_ffff);
    match (exponent, fraction) {
        (0, _) => sign | INFINITY,
        (0xff, 0) => sign,
        (0xff, _) => x | QUIET,
        // Above 2^126 the exact result is tiny, though it might round to the smallest normal number.
        _ if x & !SIGN > 0x7e80_0000 => sign,
        _ => {
            // x = m * 2^(e - 150), so 1/x = (2^62 / m) * 2^(150 - e - 62).
            let (fraction, power) = approximate((1 << 62) / u64::from(1 << 23 | fraction));
            let biased = power + 150 - exponent - 62 + 127;
            sign | (biased as u32) << 23 | fraction
        }
    }
}

/// 1/sqrt(x) to 12 bits. Denormal operands count as zeros (SDM volume 2, RSQRTPS).
fn reciprocal_root(x: u32) -> u32 {
    let (sign, exponent, fraction) = (x & SIGN, (x >> 23 & 0xff) as i32, x & 0x7f_ffff);
    match (exponent, fraction) {
        (0, _) => sign | INFINITY,
        (0xff, 1..) => x | QUIET,
        _ if sign != 0 => F32::INDEFINITE.0,
        (0xff, 0) => 0,
        _ => {
            // x = m * 2^p with p even, m below 2^25; 1/sqrt(x) = sqrt(2^62 / m) * 2^(-31 - p/2), its root with 32 bits below.
            let odd = (exponent - 150) & 1;
            let m = u128::from(1 << 23 | fraction) << odd;
            let root = ((1u128 << 126) / m).isqrt() as u64;
            let (fraction, power) = approximate(root);
            let biased = power - 63 - (exponent - 150 - odd) / 2 + 127;
            (biased as u32) << 23 | fraction
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn approximations_are_within_the_promised_error() {
        let bound = 1.5 / 4096.0;
        for i in 0..200_000u32 {
            // Spread over all normal exponents and fractions.
            let x = i.wrapping_mul(0x9e37_79b1) & 0x7fff_ffff;
            let value = f64::from(f32::from_bits(x));
            if !f32::from_bits(x).is_normal() {
                continue;
            }
            let root = f64::from(f32::from_bits(reciprocal_root(x)));
            assert!((root * value.sqrt() - 1.0).abs() <= bound, "rsqrt {x:#x}: {root}");
            let inverse = f64::from(f32::from_bits(reciprocal(x)));
            if value < 8e37 {
                assert!((inverse * value - 1.0).abs() <= bound, "rcp {x:#x}: {inverse}");
            } else {
                assert!(inverse == 0.0 || (inverse * value - 1.0).abs() <= bound);
            }
        }
    }

    #[test]
    fn approximations_of_special_values() {
        for (x, inverse, root) in [
            (0, INFINITY, INFINITY),
            (SIGN, SIGN | INFINITY, SIGN | INFINITY),
            (1, INFINITY, INFINITY),
            (INFINITY, 0, 0),
            (SIGN | INFINITY, SIGN, 0xffc0_0000),
            (0x7f80_0001, 0x7fc0_0001, 0x7fc0_0001),
            (0x3f80_0000, 0x3f80_0000, 0x3f80_0000),
            (0xbf80_0000, 0xbf80_0000, 0xffc0_0000),
            (0x4080_0000, 0x3e80_0000, 0x3f00_0000),
            (0x7f7f_ffff, 0, 0x1f80_0000),
            (0x7e80_0000, 0x0080_0000, 0x2000_0000),
            (0xfe80_0001, SIGN, 0xffc0_0000),
        ] {
            assert_eq!((reciprocal(x), reciprocal_root(x)), (inverse, root), "{x:#x}");
        }
    }
}
