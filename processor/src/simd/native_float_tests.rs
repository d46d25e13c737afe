//! The floating-point lane functions against the host's own instructions: results and exception flags, in every rounding mode,
//! with and without DAZ and FTZ.
//!
//! `unsafe` here is the assembly around one host instruction: it sets MXCSR, which Rust code must not see changed, and
//! restores it in the same block.
#![allow(unsafe_code)]

use core::arch::asm;

use softfloat::Env;

use super::lanes::Xmm;
use super::{convert, float, fma};

const DEFAULT_MXCSR: u32 = 0x1f80;

/// Random vectors of numbers that meet each other's edges.
struct Vectors(u64);

impl Vectors {
    fn word(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn single(&mut self) -> u32 {
        const EDGES: [u32; 16] = [
            0,
            0x8000_0000,
            0x3f80_0000,
            0x7f80_0000,
            0xff80_0000,
            0x7fc0_1234,
            0xffa0_0001,
            0x7f80_0001,
            1,
            0x8070_0000,
            0x0080_0000,
            0x7f7f_ffff,
            0x4f00_0000,
            0xcf00_0000,
            0x3f00_0000,
            0x4b80_0001,
        ];
        let word = self.word();
        match word >> 60 {
            0..=5 => EDGES[(word % 16) as usize],
            // Close exponents, short fractions: exact results, ties, cancellation.
            6..=10 => (word as u32 & 0x8000_0000) | (120 + (word >> 32) as u32 % 16) << 23 | (word as u32 & 7) << 20,
            11..=13 => (word as u32 & 0x80ff_ffff) | (110 + (word >> 32) as u32 % 40) << 23,
            _ => word as u32,
        }
    }

    fn double(&mut self) -> u64 {
        const EDGES: [u64; 16] = [
            0,
            1 << 63,
            0x3ff0_0000_0000_0000,
            0x7ff0_0000_0000_0000,
            0xfff0_0000_0000_0000,
            0x7ff8_0000_1234_0000,
            0xfff4_0000_0000_0001,
            0x7ff0_0000_0000_0001,
            1,
            0x800e_0000_0000_0000,
            0x0010_0000_0000_0000,
            0x7fef_ffff_ffff_ffff,
            0x41e0_0000_0000_0000,
            0xc1e0_0000_0000_0000,
            0x47ef_ffff_ffff_ffff,
            0x3810_0000_0000_0000,
        ];
        let word = self.word();
        match word >> 60 {
            0..=5 => EDGES[(word % 16) as usize],
            6..=10 => (word & 1 << 63) | (1016 + (word >> 32) % 16) << 52 | (word & 7) << 49,
            // The exponents around the limits of single and half precision.
            11 => (word & 0x800f_ffff_ffff_ffff) | (870 + (word >> 32) % 32) << 52,
            12..=13 => (word & 0x800f_ffff_ffff_ffff) | (1000 + (word >> 32) % 80) << 52,
            _ => word,
        }
    }

    fn next(&mut self, doubles: bool) -> Xmm {
        if doubles {
            Xmm::from_u64s(core::array::from_fn(|_| self.double()))
        } else {
            Xmm::from_u32s(core::array::from_fn(|_| self.single()))
        }
    }
}

/// All modes that change results or flags, exceptions masked.
fn modes() -> impl Iterator<Item = u32> {
    (0..16).map(|bits| DEFAULT_MXCSR | (bits & 3) << 13 | (bits >> 2 & 1) << 6 | (bits >> 3) << 15)
}

/// One host instruction on xmm0 (which also receives the result), xmm1 and xmm2, with its MXCSR.
macro_rules! host {
    ($instruction:expr, $a:expr, $b:expr, $c:expr, $mxcsr:expr) => {{
        let (mut a, mut mxcsr) = ($a, $mxcsr);
        // SAFETY: reads and writes the named locals only; MXCSR is restored.
        unsafe {
            asm!(
                "movups xmm0, [{a}]",
                "movups xmm1, [{b}]",
                "movups xmm2, [{c}]",
                "ldmxcsr [{mxcsr}]",
                $instruction,
                "stmxcsr [{mxcsr}]",
                "ldmxcsr [{default}]",
                "movups [{a}], xmm0",
                a = in(reg) &mut a,
                b = in(reg) &$b,
                c = in(reg) &$c,
                mxcsr = in(reg) &mut mxcsr,
                default = in(reg) &DEFAULT_MXCSR,
                out("xmm0") _, out("xmm1") _, out("xmm2") _,
                options(nostack),
            );
        }
        (a, mxcsr as u8 & 0x3f)
    }};
}

macro_rules! check {
    ($doubles:literal, $imm:literal: $($ours:expr => $instruction:expr;)+) => {$(
        let mut vectors = Vectors(0x1234_5678_9abc_def1);
        for i in 0..300 {
            let (a, b) = (vectors.next($doubles), vectors.next($doubles));
            let c = vectors.next($doubles);
            for mxcsr in modes() {
                let mut env = Env::from_mxcsr(mxcsr);
                let ours: fn(&Xmm, &Xmm, &Xmm, u8, &mut Env) -> Xmm = $ours;
                let result = ours(&a, &b, &c, $imm, &mut env);
                let host = host!($instruction, a, b, c, mxcsr);
                assert_eq!((result, env.finish().0), host, "{} {mxcsr:#x} case {i}: {a:?} {b:?} {c:?}", $instruction);
            }
        }
    )+};
}
macro_rules! has {
    ($feature:tt) => {
        if !is_x86_feature_detected!($feature) {
            return;
        }
    };
}
macro_rules! binary {
    ($function:path) => {
        |a, b, _c, imm, env| $function(a, b, imm, env)
    };
}
macro_rules! unary {
    ($function:path) => {
        |_a, b, _c, imm, env| $function(b, imm, env)
    };
}

#[test]
fn arithmetic() {
    has!("sse3");
    check! { false, 0:
        binary!(float::add_ps) => "addps xmm0, xmm1";
        binary!(float::sub_ps) => "subps xmm0, xmm1";
        binary!(float::mul_ps) => "mulps xmm0, xmm1";
        binary!(float::div_ps) => "divps xmm0, xmm1";
        binary!(float::min_ps) => "minps xmm0, xmm1";
        binary!(float::max_ps) => "maxps xmm0, xmm1";
        binary!(float::sqrt_ps) => "sqrtps xmm0, xmm1";
        binary!(float::add_ss) => "addss xmm0, xmm1";
        binary!(float::max_ss) => "maxss xmm0, xmm1";
        binary!(float::sqrt_ss) => "sqrtss xmm0, xmm1";
        binary!(float::addsub_ps) => "addsubps xmm0, xmm1";
        binary!(float::hadd_ps) => "haddps xmm0, xmm1";
        binary!(float::hsub_ps) => "hsubps xmm0, xmm1";
    }
    check! { true, 0:
        binary!(float::add_pd) => "addpd xmm0, xmm1";
        binary!(float::sub_pd) => "subpd xmm0, xmm1";
        binary!(float::mul_pd) => "mulpd xmm0, xmm1";
        binary!(float::div_pd) => "divpd xmm0, xmm1";
        binary!(float::min_pd) => "minpd xmm0, xmm1";
        binary!(float::max_pd) => "maxpd xmm0, xmm1";
        binary!(float::sqrt_pd) => "sqrtpd xmm0, xmm1";
        binary!(float::sub_sd) => "subsd xmm0, xmm1";
        binary!(float::min_sd) => "minsd xmm0, xmm1";
        binary!(float::sqrt_sd) => "sqrtsd xmm0, xmm1";
        binary!(float::addsub_pd) => "addsubpd xmm0, xmm1";
        binary!(float::hadd_pd) => "haddpd xmm0, xmm1";
        binary!(float::hsub_pd) => "hsubpd xmm0, xmm1";
    }
}

#[test]
fn rounding_to_integers_and_dot_products() {
    has!("sse4.1");
    check! { false, 0x00: binary!(float::round_ps) => "roundps xmm0, xmm1, 0x00"; }
    check! { false, 0x01: binary!(float::round_ps) => "roundps xmm0, xmm1, 0x01"; }
    check! { false, 0x0a: binary!(float::round_ss) => "roundss xmm0, xmm1, 0x0a"; }
    check! { false, 0x04: binary!(float::round_ps) => "roundps xmm0, xmm1, 0x04"; }
    check! { true, 0x03: binary!(float::round_pd) => "roundpd xmm0, xmm1, 0x03"; }
    check! { true, 0x0c: binary!(float::round_sd) => "roundsd xmm0, xmm1, 0x0c"; }
    // Which of two NaNs a dot product gives is not the manual's; AMD's processors choose otherwise.
    if !std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains("GenuineIntel")) {
        return;
    }
    check! { false, 0xff: binary!(float::dot_ps) => "dpps xmm0, xmm1, 0xff"; }
    check! { false, 0x75: binary!(float::dot_ps) => "dpps xmm0, xmm1, 0x75"; }
    check! { true, 0x31: binary!(float::dot_pd) => "dppd xmm0, xmm1, 0x31"; }
    check! { true, 0x22: binary!(float::dot_pd) => "dppd xmm0, xmm1, 0x22"; }
}

#[test]
fn comparison_with_every_predicate() {
    has!("avx");
    macro_rules! predicates {
        ($($imm:literal)+) => {$(
            check! { false, $imm:
                binary!(float::compare_ps) => concat!("vcmpps xmm0, xmm0, xmm1, ", $imm);
                binary!(float::compare8_ss) => concat!("cmpss xmm0, xmm1, (", $imm, " & 7)");
            }
            check! { true, $imm: binary!(float::compare_pd) => concat!("vcmppd xmm0, xmm0, xmm1, ", $imm); }
        )+};
    }
    predicates!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31);
}

#[test]
fn conversions() {
    has!("f16c");
    check! { false, 0:
        unary!(convert::dwords_to_singles) => "cvtdq2ps xmm0, xmm1";
        unary!(convert::dwords_to_doubles) => "cvtdq2pd xmm0, xmm1";
        unary!(convert::singles_to_dwords) => "cvtps2dq xmm0, xmm1";
        unary!(convert::singles_to_dwords_truncated) => "cvttps2dq xmm0, xmm1";
        unary!(convert::singles_to_doubles) => "cvtps2pd xmm0, xmm1";
        binary!(convert::single_to_double) => "cvtss2sd xmm0, xmm1";
        unary!(convert::halves_to_singles) => "vcvtph2ps xmm0, xmm1";
        unary!(convert::singles_to_halves) => "vcvtps2ph xmm0, xmm1, 0";
    }
    check! { true, 0:
        unary!(convert::doubles_to_dwords) => "cvtpd2dq xmm0, xmm1";
        unary!(convert::doubles_to_dwords_truncated) => "cvttpd2dq xmm0, xmm1";
        unary!(convert::doubles_to_singles) => "cvtpd2ps xmm0, xmm1";
        binary!(convert::double_to_single) => "cvtsd2ss xmm0, xmm1";
    }
    check! { false, 5: unary!(convert::singles_to_halves) => "vcvtps2ph xmm0, xmm1, 5"; }
    check! { false, 2: unary!(convert::singles_to_halves) => "vcvtps2ph xmm0, xmm1, 2"; }
    // Random words, most of them in the range of half precision.
    check! { true, 0: unary!(convert::halves_to_singles) => "vcvtph2ps xmm0, xmm1"; }
}

#[test]
fn fused_multiply_add() {
    has!("fma");
    macro_rules! fused {
        ($function:path) => {
            |a, b, c, _imm, env| $function(b, a, c, env)
        };
    }
    // The 213 form: xmm1 * xmm0 + xmm2.
    check! { false, 0:
        fused!(fma::madd_ps) => "vfmadd213ps xmm0, xmm1, xmm2";
        fused!(fma::msub_ps) => "vfmsub213ps xmm0, xmm1, xmm2";
        fused!(fma::nmadd_ps) => "vfnmadd213ps xmm0, xmm1, xmm2";
        fused!(fma::nmsub_ps) => "vfnmsub213ps xmm0, xmm1, xmm2";
        fused!(fma::maddsub_ps) => "vfmaddsub213ps xmm0, xmm1, xmm2";
        fused!(fma::msubadd_ps) => "vfmsubadd213ps xmm0, xmm1, xmm2";
        |a, b, c, _imm, env| a.with_low32(fma::nmadd_ss(b, a, c, env).low32()) => "vfnmadd213ss xmm0, xmm1, xmm2";
    }
    check! { true, 0:
        fused!(fma::madd_pd) => "vfmadd213pd xmm0, xmm1, xmm2";
        fused!(fma::msub_pd) => "vfmsub213pd xmm0, xmm1, xmm2";
        fused!(fma::nmadd_pd) => "vfnmadd213pd xmm0, xmm1, xmm2";
        fused!(fma::nmsub_pd) => "vfnmsub213pd xmm0, xmm1, xmm2";
        fused!(fma::maddsub_pd) => "vfmaddsub213pd xmm0, xmm1, xmm2";
        fused!(fma::msubadd_pd) => "vfmsubadd213pd xmm0, xmm1, xmm2";
        |a, b, c, _imm, env| a.with_low(fma::msub_sd(b, a, c, env).low()) => "vfmsub213sd xmm0, xmm1, xmm2";
    }
    // The other two orders, for which NaN wins.
    check! { false, 0:
        |a, b, c, _imm, env| fma::madd_ps(a, c, b, env) => "vfmadd132ps xmm0, xmm1, xmm2";
        |a, b, c, _imm, env| fma::madd_ps(b, c, a, env) => "vfmadd231ps xmm0, xmm1, xmm2";
    }
}
