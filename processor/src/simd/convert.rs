//! Conversions between integers and floating-point formats on lanes (SDM volume 2, CVTDQ2PS and its relatives).
//!
//! A function works on one 128-bit destination, or one 128-bit source where that is wider: two doubles become the two low
//! lanes of the result. The VEX.256 forms join two calls.

use softfloat::{Env, F16, F32, F64, Rounding, Sse};

use super::lanes::Xmm;

/// A conversion of a vector; the byte is the immediate of VCVTPS2PH, else 0.
pub type Convert = fn(&Xmm, u8, &mut Env) -> Xmm;

/// CVTDQ2PS: four lanes.
pub fn dwords_to_singles(a: &Xmm, _imm: u8, env: &mut Env) -> Xmm {
    Xmm::from_f32s(a.i32s().map(|lane| F32::from_i64(lane.into(), env)))
}

/// CVTDQ2PD: the two low lanes.
pub fn dwords_to_doubles(a: &Xmm, _imm: u8, env: &mut Env) -> Xmm {
    let a = a.i32s();
    Xmm::from_f64s([F64::from_i64(a[0].into(), env), F64::from_i64(a[1].into(), env)])
}

fn to_dwords(a: &Xmm, rounding: Rounding, env: &mut Env) -> Xmm {
    Xmm::from_i32s(a.f32s().map(|lane| lane.to_i32(rounding, env)))
}

/// CVTPS2DQ: four lanes.
pub fn singles_to_dwords(a: &Xmm, _imm: u8, env: &mut Env) -> Xmm {
    to_dwords(a, env.rounding, env)
}

/// CVTTPS2DQ: four lanes, truncated.
pub fn singles_to_dwords_truncated(a: &Xmm, _imm: u8, env: &mut Env) -> Xmm {
    to_dwords(a, Rounding::Zero, env)
}

/// CVTPS2PI: the two low lanes, zeros above.
pub fn low_singles_to_dwords(a: &Xmm, _imm: u8, env: &mut Env) -> Xmm {
    to_dwords(&Xmm::from_low(a.low()), env.rounding, env)
}

/// CVTTPS2PI: the two low lanes, truncated, zeros above.
pub fn low_singles_to_dwords_truncated(a: &Xmm, _imm: u8, env: &mut Env) -> Xmm {
    to_dwords(&Xmm::from_low(a.low()), Rounding::Zero, env)
}

/// CVTPI2PS: the two low lanes, zeros above.
pub fn low_dwords_to_singles(a: &Xmm, _imm: u8, env: &mut Env) -> Xmm {
    dwords_to_singles(&Xmm::from_low(a.low()), 0, env)
}

fn doubles_to(a: &Xmm, rounding: Rounding, env: &mut Env) -> Xmm {
    let [low, high] = a.f64s().map(|lane| lane.to_i32(rounding, env));
    Xmm::from_i32s([low, high, 0, 0])
}

/// CVTPD2DQ, CVTPD2PI: two lanes to the two low ones, zeros above.
pub fn doubles_to_dwords(a: &Xmm, _imm: u8, env: &mut Env) -> Xmm {
    doubles_to(a, env.rounding, env)
}

/// CVTTPD2DQ, CVTTPD2PI: two lanes to the two low ones, truncated, zeros above.
pub fn doubles_to_dwords_truncated(a: &Xmm, _imm: u8, env: &mut Env) -> Xmm {
    doubles_to(a, Rounding::Zero, env)
}

/// CVTPS2PD: the two low lanes.
pub fn singles_to_doubles(a: &Xmm, _imm: u8, env: &mut Env) -> Xmm {
    let a = a.f32s();
    Xmm::from_f64s([a[0].to_f64(env), a[1].to_f64(env)])
}

/// CVTPD2PS: two lanes to the two low ones, zeros above.
pub fn doubles_to_singles(a: &Xmm, _imm: u8, env: &mut Env) -> Xmm {
    let [low, high] = a.f64s().map(|lane| lane.to_f32(env));
    Xmm::from_f32s([low, high, F32(0), F32(0)])
}

/// CVTSS2SD, with the upper lane from `a`.
pub fn single_to_double(a: &Xmm, b: &Xmm, _imm: u8, env: &mut Env) -> Xmm {
    a.with_low(F32(b.low32()).to_f64(env).0)
}

/// CVTSD2SS, with the upper lanes from `a`.
pub fn double_to_single(a: &Xmm, b: &Xmm, _imm: u8, env: &mut Env) -> Xmm {
    a.with_low32(F64(b.low()).to_f32(env).0)
}

/// VCVTPH2PS: the four low half-precision lanes.
pub fn halves_to_singles(a: &Xmm, _imm: u8, env: &mut Env) -> Xmm {
    let a = a.u16s();
    Xmm::from_f32s(core::array::from_fn(|i| F16(a[i]).to_f32(env)))
}

/// VCVTPS2PH: four lanes to the four low half-precision ones, zeros above. Bit 2 of `imm` takes the rounding from MXCSR,
/// else bits 1:0 are it.
pub fn singles_to_halves(a: &Xmm, imm: u8, env: &mut Env) -> Xmm {
    let rounding = if imm & 4 != 0 { env.rounding } else { Rounding::from_bits(imm.into()) };
    let a = a.f32s().map(|lane| lane.to_f16(rounding, env).0);
    Xmm::from_u16s([a[0], a[1], a[2], a[3], 0, 0, 0, 0])
}
