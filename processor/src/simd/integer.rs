//! Integer arithmetic on lanes: MMX, SSE2, SSSE3, SSE4.1 and their AVX/AVX2 forms (SDM volume 2, the instruction of the
//! same name). Each function is one 128-bit lane of the VEX.256 form, too, unless it says otherwise.

use super::lanes::{Xmm, lanewise, lanewise_unary};

const fn mask8(set: bool) -> u8 {
    if set { u8::MAX } else { 0 }
}
const fn mask16(set: bool) -> u16 {
    if set { u16::MAX } else { 0 }
}
const fn mask32(set: bool) -> u32 {
    if set { u32::MAX } else { 0 }
}
const fn mask64(set: bool) -> u64 {
    if set { u64::MAX } else { 0 }
}

lanewise! {
    /// PADDB.
    add8: u8s => from_u8s, |a, b| a.wrapping_add(b);
    /// PADDW.
    add16: u16s => from_u16s, |a, b| a.wrapping_add(b);
    /// PADDD.
    add32: u32s => from_u32s, |a, b| a.wrapping_add(b);
    /// PADDQ.
    add64: u64s => from_u64s, |a, b| a.wrapping_add(b);
    /// PSUBB.
    sub8: u8s => from_u8s, |a, b| a.wrapping_sub(b);
    /// PSUBW.
    sub16: u16s => from_u16s, |a, b| a.wrapping_sub(b);
    /// PSUBD.
    sub32: u32s => from_u32s, |a, b| a.wrapping_sub(b);
    /// PSUBQ.
    sub64: u64s => from_u64s, |a, b| a.wrapping_sub(b);
    /// PADDSB.
    add_saturate_i8: i8s => from_i8s, |a, b| a.saturating_add(b);
    /// PADDSW.
    add_saturate_i16: i16s => from_i16s, |a, b| a.saturating_add(b);
    /// PADDUSB.
    add_saturate_u8: u8s => from_u8s, |a, b| a.saturating_add(b);
    /// PADDUSW.
    add_saturate_u16: u16s => from_u16s, |a, b| a.saturating_add(b);
    /// PSUBSB.
    sub_saturate_i8: i8s => from_i8s, |a, b| a.saturating_sub(b);
    /// PSUBSW.
    sub_saturate_i16: i16s => from_i16s, |a, b| a.saturating_sub(b);
    /// PSUBUSB.
    sub_saturate_u8: u8s => from_u8s, |a, b| a.saturating_sub(b);
    /// PSUBUSW.
    sub_saturate_u16: u16s => from_u16s, |a, b| a.saturating_sub(b);
    /// PAVGB: the rounded mean.
    average8: u8s => from_u8s, |a, b| ((u16::from(a) + u16::from(b) + 1) >> 1) as u8;
    /// PAVGW: the rounded mean.
    average16: u16s => from_u16s, |a, b| ((u32::from(a) + u32::from(b) + 1) >> 1) as u16;
    /// PMINSB.
    min_i8: i8s => from_i8s, |a, b| a.min(b);
    /// PMINSW.
    min_i16: i16s => from_i16s, |a, b| a.min(b);
    /// PMINSD.
    min_i32: i32s => from_i32s, |a, b| a.min(b);
    /// PMINUB.
    min_u8: u8s => from_u8s, |a, b| a.min(b);
    /// PMINUW.
    min_u16: u16s => from_u16s, |a, b| a.min(b);
    /// PMINUD.
    min_u32: u32s => from_u32s, |a, b| a.min(b);
    /// PMAXSB.
    max_i8: i8s => from_i8s, |a, b| a.max(b);
    /// PMAXSW.
    max_i16: i16s => from_i16s, |a, b| a.max(b);
    /// PMAXSD.
    max_i32: i32s => from_i32s, |a, b| a.max(b);
    /// PMAXUB.
    max_u8: u8s => from_u8s, |a, b| a.max(b);
    /// PMAXUW.
    max_u16: u16s => from_u16s, |a, b| a.max(b);
    /// PMAXUD.
    max_u32: u32s => from_u32s, |a, b| a.max(b);
    /// PCMPEQB.
    equal8: u8s => from_u8s, |a, b| mask8(a == b);
    /// PCMPEQW.
    equal16: u16s => from_u16s, |a, b| mask16(a == b);
    /// PCMPEQD.
    equal32: u32s => from_u32s, |a, b| mask32(a == b);
    /// PCMPEQQ.
    equal64: u64s => from_u64s, |a, b| mask64(a == b);
    /// PCMPGTB, signed.
    greater8: i8s => from_u8s, |a, b| mask8(a > b);
    /// PCMPGTW, signed.
    greater16: i16s => from_u16s, |a, b| mask16(a > b);
    /// PCMPGTD, signed.
    greater32: i32s => from_u32s, |a, b| mask32(a > b);
    /// PCMPGTQ, signed.
    greater64: i64s => from_u64s, |a, b| mask64(a > b);
    /// PMULLW: the low half of each product.
    multiply_low16: u16s => from_u16s, |a, b| a.wrapping_mul(b);
    /// PMULLD: the low half of each product.
    multiply_low32: u32s => from_u32s, |a, b| a.wrapping_mul(b);
    /// PMULHW: the high half of each signed product.
    multiply_high_i16: i16s => from_i16s, |a, b| ((i32::from(a) * i32::from(b)) >> 16) as i16;
    /// PMULHUW: the high half of each unsigned product.
    multiply_high_u16: u16s => from_u16s, |a, b| ((u32::from(a) * u32::from(b)) >> 16) as u16;
    /// PMULHRSW: the high half of each signed product with rounding and scaling.
    multiply_high_round: i16s => from_i16s, |a, b| ((((i32::from(a) * i32::from(b)) >> 14) + 1) >> 1) as i16;
    /// PMULUDQ: the full product of the low halves, unsigned.
    multiply_u32: u64s => from_u64s, |a, b| u64::from(a as u32) * u64::from(b as u32);
    /// PMULDQ: the full product of the low halves, signed.
    multiply_i32: i64s => from_i64s, |a, b| i64::from(a as i32) * i64::from(b as i32);
    /// PSIGNB: `a` negated, zeroed or kept by the sign of `b`.
    sign8: i8s => from_i8s, |a, b| if b < 0 { a.wrapping_neg() } else if b == 0 { 0 } else { a };
    /// PSIGNW: `a` negated, zeroed or kept by the sign of `b`.
    sign16: i16s => from_i16s, |a, b| if b < 0 { a.wrapping_neg() } else if b == 0 { 0 } else { a };
    /// PSIGND: `a` negated, zeroed or kept by the sign of `b`.
    sign32: i32s => from_i32s, |a, b| if b < 0 { a.wrapping_neg() } else if b == 0 { 0 } else { a };
    /// PAND, ANDPS, ANDPD.
    and: u64s => from_u64s, |a, b| a & b;
    /// PANDN, ANDNPS, ANDNPD: the complement of the first operand and the second.
    and_not: u64s => from_u64s, |a, b| !a & b;
    /// POR, ORPS, ORPD.
    or: u64s => from_u64s, |a, b| a | b;
    /// PXOR, XORPS, XORPD.
    xor: u64s => from_u64s, |a, b| a ^ b;
}

lanewise_unary! {
    /// PABSB.
    abs8: i8s => from_u8s, |a| a.unsigned_abs();
    /// PABSW.
    abs16: i16s => from_u16s, |a| a.unsigned_abs();
    /// PABSD.
    abs32: i32s => from_u32s, |a| a.unsigned_abs();
}

/// PMADDWD: signed products, added in pairs; the sum of two products of -32768 wraps.
#[inline]
pub fn multiply_add16(a: &Xmm, b: &Xmm) -> Xmm {
    let (a, b) = (a.i16s().map(i32::from), b.i16s().map(i32::from));
    Xmm::from_i32s(core::array::from_fn(|i| (a[2 * i] * b[2 * i]).wrapping_add(a[2 * i + 1] * b[2 * i + 1])))
}

/// PMADDUBSW: unsigned bytes of `a` times signed bytes of `b`, added in pairs with signed saturation.
pub fn multiply_add8(a: &Xmm, b: &Xmm) -> Xmm {
    let (a, b) = (a.u8s().map(i32::from), b.i8s().map(i32::from));
    Xmm::from_i16s(core::array::from_fn(|i| saturate16(a[2 * i] * b[2 * i] + a[2 * i + 1] * b[2 * i + 1])))
}

fn saturate16(value: i32) -> i16 {
    value.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16
}

/// PSADBW: in each 64-bit half, the sum of the absolute differences of bytes.
pub fn sum_differences(a: &Xmm, b: &Xmm) -> Xmm {
    let (a, b) = (a.u8s(), b.u8s());
    Xmm::from_u64s(core::array::from_fn(|half| (8 * half..8 * half + 8).map(|i| u64::from(a[i].abs_diff(b[i]))).sum()))
}

/// MPSADBW: eight sums of four absolute differences. Bit 2 of `imm` selects where in `a` the window slides, bits 1:0 the
/// four bytes of `b`. The upper lane of the VEX.256 form uses bits 5:3: pass `imm >> 3`.
pub fn sum_differences_sliding(a: &Xmm, b: &Xmm, imm: u8) -> Xmm {
    let (a, b) = (a.u8s(), b.u8s());
    let (base, block) = (usize::from(imm >> 2 & 1) * 4, usize::from(imm & 3) * 4);
    Xmm::from_u16s(core::array::from_fn(|i| (0..4).map(|k| u16::from(a[base + i + k].abs_diff(b[block + k]))).sum()))
}

/// PHMINPOSUW: the smallest unsigned word and, above it, its lowest index.
pub fn horizontal_min(a: &Xmm) -> Xmm {
    let lanes = a.u16s();
    let mut best = 0;
    for i in 1..8 {
        if lanes[i] < lanes[best] {
            best = i;
        }
    }
    Xmm::from_u64s([u64::from(lanes[best]) | (best as u64) << 16, 0])
}

/// Defines pairwise (horizontal) functions: the low half of the result comes from `a`, the high half from `b`.
macro_rules! pairwise {
    ($($(#[$doc:meta])* $name:ident: $view:ident => $from:ident, $half:literal, |$x:ident, $y:ident| $lane:expr;)+) => {$(
        $(#[$doc])*
        pub fn $name(a: &Xmm, b: &Xmm) -> Xmm {
            let (a, b) = (a.$view(), b.$view());
            Xmm::$from(core::array::from_fn(|i| {
                let from = if i < $half { &a } else { &b };
                let ($x, $y) = (from[2 * (i % $half)], from[2 * (i % $half) + 1]);
                $lane
            }))
        }
    )+};
}

pairwise! {
    /// PHADDW.
    pair_add16: u16s => from_u16s, 4, |x, y| x.wrapping_add(y);
    /// PHADDD.
    pair_add32: u32s => from_u32s, 2, |x, y| x.wrapping_add(y);
    /// PHADDSW.
    pair_add_saturate16: i16s => from_i16s, 4, |x, y| x.saturating_add(y);
    /// PHSUBW: the lower of each pair minus the higher.
    pair_sub16: u16s => from_u16s, 4, |x, y| x.wrapping_sub(y);
    /// PHSUBD: the lower of each pair minus the higher.
    pair_sub32: u32s => from_u32s, 2, |x, y| x.wrapping_sub(y);
    /// PHSUBSW: the lower of each pair minus the higher.
    pair_sub_saturate16: i16s => from_i16s, 4, |x, y| x.saturating_sub(y);
}

/// PMOVMSKB: the sign bit of each byte, lowest first.
#[inline]
pub fn sign_mask8(a: &Xmm) -> u32 {
    // A multiplication gathers the eight sign bits of a half into its top byte.
    let gather = |half: u64| ((half >> 7 & 0x0101_0101_0101_0101).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32;
    gather(a.low()) | gather(a.high()) << 8
}

/// MOVMSKPS: the sign bit of each 32-bit lane, lowest first.
pub fn sign_mask32(a: &Xmm) -> u32 {
    a.u32s().iter().enumerate().fold(0, |mask, (i, lane)| mask | (lane >> 31) << i)
}

/// MOVMSKPD: the sign bit of each 64-bit lane, lowest first.
pub fn sign_mask64(a: &Xmm) -> u32 {
    (a.low() >> 63) as u32 | ((a.high() >> 63) as u32) << 1
}

/// PTEST, VTESTPS and VTESTPD: whether `a AND b` and `NOT a AND b` are zero in the bits of `mask`, which become ZF and CF.
pub fn test(a: &Xmm, b: &Xmm, mask: u128) -> (bool, bool) {
    let (a, b) = (a.bits(), b.bits() & mask);
    (a & b == 0, !a & b == 0)
}

/// The bits that PTEST looks at.
pub const TEST_ALL: u128 = u128::MAX;
/// The bits that VTESTPS looks at.
pub const TEST_PS: u128 = 0x8000_0000_8000_0000_8000_0000_8000_0000;
/// The bits that VTESTPD looks at.
pub const TEST_PD: u128 = 0x8000_0000_0000_0000_8000_0000_0000_0000;
