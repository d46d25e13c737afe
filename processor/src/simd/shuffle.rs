//! Moving lanes about: pack, unpack, shuffle, align, blend, extend, insert, permute (SDM volume 2, the instruction of the
//! same name). Each function is one 128-bit lane of the VEX.256 form, too, unless it says otherwise.

use super::lanes::Xmm;

macro_rules! packs {
    ($($(#[$doc:meta])* $name:ident: $view:ident => $from:ident, $half:literal, $min:expr, $max:expr, $type:ty;)+) => {$(
        $(#[$doc])*
        #[inline]
        pub fn $name(a: &Xmm, b: &Xmm) -> Xmm {
            let (a, b) = (a.$view(), b.$view());
            Xmm::$from(core::array::from_fn(|i| {
                let lane = if i < $half { a[i % $half] } else { b[i % $half] };
                lane.clamp($min, $max) as $type
            }))
        }
    )+};
}

packs! {
    /// PACKSSWB.
    pack_i16_i8: i16s => from_i8s, 8, -128, 127, i8;
    /// PACKUSWB: signed words to unsigned bytes.
    pack_i16_u8: i16s => from_u8s, 8, 0, 255, u8;
    /// PACKSSDW.
    pack_i32_i16: i32s => from_i16s, 4, -32768, 32767, i16;
    /// PACKUSDW: signed doublewords to unsigned words.
    pack_i32_u16: i32s => from_u16s, 4, 0, 65535, u16;
}

macro_rules! unpacks {
    ($($(#[$doc:meta])* $name:ident: $view:ident => $from:ident, $base:literal;)+) => {$(
        $(#[$doc])*
        #[inline]
        pub fn $name(a: &Xmm, b: &Xmm) -> Xmm {
            let (a, b) = (a.$view(), b.$view());
            Xmm::$from(core::array::from_fn(|i| if i % 2 == 0 { a[$base + i / 2] } else { b[$base + i / 2] }))
        }
    )+};
}

unpacks! {
    /// PUNPCKLBW.
    unpack_low8: u8s => from_u8s, 0;
    /// PUNPCKLWD.
    unpack_low16: u16s => from_u16s, 0;
    /// PUNPCKLDQ, UNPCKLPS.
    unpack_low32: u32s => from_u32s, 0;
    /// PUNPCKLQDQ, UNPCKLPD.
    unpack_low64: u64s => from_u64s, 0;
    /// PUNPCKHBW.
    unpack_high8: u8s => from_u8s, 8;
    /// PUNPCKHWD.
    unpack_high16: u16s => from_u16s, 4;
    /// PUNPCKHDQ, UNPCKHPS.
    unpack_high32: u32s => from_u32s, 2;
    /// PUNPCKHQDQ, UNPCKHPD.
    unpack_high64: u64s => from_u64s, 1;
}

/// PSHUFB: byte `i` is the byte of `a` that the low four bits of byte `i` of `b` select, or zero if its bit 7 is set.
#[inline]
pub fn bytes(a: &Xmm, b: &Xmm) -> Xmm {
    Xmm(b.0.map(|select| if select & 0x80 != 0 { 0 } else { a.0[usize::from(select & 15)] }))
}

/// The PSHUFB mask bits that the MMX form uses: three index bits and the zeroing bit.
pub const MMX_BYTE_SELECT: u64 = 0x8787_8787_8787_8787;

/// Which of four the two bits of `imm` at place `i` select.
#[inline(always)]
fn select4(imm: u8, i: usize) -> usize {
    usize::from(imm >> (2 * (i & 3)) & 3)
}

/// PSHUFD, VPERMILPS with an immediate.
#[inline]
pub fn dwords(a: &Xmm, imm: u8) -> Xmm {
    let a = a.u32s();
    let pair = |i| u64::from(a[select4(imm, i)]) | u64::from(a[select4(imm, i + 1)]) << 32;
    Xmm::from_u64s([pair(0), pair(2)])
}

/// PSHUFLW, and the MMX form PSHUFW.
pub fn low_words(a: &Xmm, imm: u8) -> Xmm {
    let a = a.u16s();
    Xmm::from_u16s(core::array::from_fn(|i| if i < 4 { a[select4(imm, i)] } else { a[i] }))
}

/// PSHUFHW.
pub fn high_words(a: &Xmm, imm: u8) -> Xmm {
    let a = a.u16s();
    Xmm::from_u16s(core::array::from_fn(|i| if i < 4 { a[i] } else { a[4 + select4(imm, i - 4)] }))
}

/// SHUFPS: two lanes of `a`, then two of `b`.
pub fn singles(a: &Xmm, b: &Xmm, imm: u8) -> Xmm {
    let (a, b) = (a.u32s(), b.u32s());
    Xmm::from_u32s([a[select4(imm, 0)], a[select4(imm, 1)], b[select4(imm, 2)], b[select4(imm, 3)]])
}

/// SHUFPD: one lane of `a`, then one of `b`. The upper lane of the VEX.256 form uses bits 3:2: pass `imm >> 2`.
pub fn doubles(a: &Xmm, b: &Xmm, imm: u8) -> Xmm {
    Xmm::from_u64s([a.u64s()[usize::from(imm & 1)], b.u64s()[usize::from(imm >> 1 & 1)]])
}

/// VPERMILPD with an immediate. The upper lane of the VEX.256 form uses bits 3:2: pass `imm >> 2`.
pub fn permute_doubles(a: &Xmm, imm: u8) -> Xmm {
    doubles(a, a, imm)
}

/// VPERMILPS with a vector of selectors.
pub fn permute_singles_by(a: &Xmm, b: &Xmm) -> Xmm {
    let (a, b) = (a.u32s(), b.u32s());
    Xmm::from_u32s(b.map(|select| a[(select & 3) as usize]))
}

/// VPERMILPD with a vector of selectors (bit 1 of each).
pub fn permute_doubles_by(a: &Xmm, b: &Xmm) -> Xmm {
    let (a, b) = (a.u64s(), b.u64s());
    Xmm::from_u64s(b.map(|select| a[(select >> 1 & 1) as usize]))
}

/// MOVSLDUP.
pub fn duplicate_even_singles(a: &Xmm) -> Xmm {
    dwords(a, 0b10_10_00_00)
}

/// MOVSHDUP.
pub fn duplicate_odd_singles(a: &Xmm) -> Xmm {
    dwords(a, 0b11_11_01_01)
}

/// MOVDDUP.
pub fn duplicate_low_double(a: &Xmm) -> Xmm {
    Xmm::from_u64s([a.low(); 2])
}

/// PALIGNR: sixteen bytes of `a:b` (b below) from byte `imm` on.
pub fn align_right(a: &Xmm, b: &Xmm, imm: u8) -> Xmm {
    let shift = 8 * (u32::from(imm) & 15);
    match imm {
        0 => *b,
        1..=15 => Xmm::from_bits(b.bits() >> shift | a.bits() << (128 - shift)),
        16..=31 => Xmm::from_bits(a.bits() >> shift),
        _ => Xmm::ZERO,
    }
}

/// The MMX form of PALIGNR: eight bytes of `a:b` from byte `imm` on.
pub fn align_right_mmx(a: u64, b: u64, imm: u8) -> u64 {
    if imm > 15 { 0 } else { ((u128::from(a) << 64 | u128::from(b)) >> (8 * u32::from(imm))) as u64 }
}

/// PBLENDW: lanes of `b` where the bit of `imm` is set, of `a` elsewhere. Both lanes of the VEX.256 form use the same bits.
pub fn blend16(a: &Xmm, b: &Xmm, imm: u8) -> Xmm {
    let (a, b) = (a.u16s(), b.u16s());
    Xmm::from_u16s(core::array::from_fn(|i| if imm >> i & 1 != 0 { b[i] } else { a[i] }))
}

/// BLENDPS, VPBLENDD. The upper lane of the VEX.256 form uses bits 7:4: pass `imm >> 4`.
pub fn blend32(a: &Xmm, b: &Xmm, imm: u8) -> Xmm {
    let (a, b) = (a.u32s(), b.u32s());
    Xmm::from_u32s(core::array::from_fn(|i| if imm >> i & 1 != 0 { b[i] } else { a[i] }))
}

/// BLENDPD. The upper lane of the VEX.256 form uses bits 3:2: pass `imm >> 2`.
pub fn blend64(a: &Xmm, b: &Xmm, imm: u8) -> Xmm {
    let (a, b) = (a.u64s(), b.u64s());
    Xmm::from_u64s(core::array::from_fn(|i| if imm >> i & 1 != 0 { b[i] } else { a[i] }))
}

/// PBLENDVB: bytes of `b` where the sign bit of `mask` is set, of `a` elsewhere.
pub fn blend_by8(a: &Xmm, b: &Xmm, mask: &Xmm) -> Xmm {
    let (a, b, mask) = (a.u8s(), b.u8s(), mask.i8s());
    Xmm::from_u8s(core::array::from_fn(|i| if mask[i] < 0 { b[i] } else { a[i] }))
}

/// BLENDVPS: lanes of `b` where the sign bit of `mask` is set, of `a` elsewhere.
pub fn blend_by32(a: &Xmm, b: &Xmm, mask: &Xmm) -> Xmm {
    let (a, b, mask) = (a.u32s(), b.u32s(), mask.i32s());
    Xmm::from_u32s(core::array::from_fn(|i| if mask[i] < 0 { b[i] } else { a[i] }))
}

/// BLENDVPD: lanes of `b` where the sign bit of `mask` is set, of `a` elsewhere.
pub fn blend_by64(a: &Xmm, b: &Xmm, mask: &Xmm) -> Xmm {
    let (a, b, mask) = (a.u64s(), b.u64s(), mask.i64s());
    Xmm::from_u64s(core::array::from_fn(|i| if mask[i] < 0 { b[i] } else { a[i] }))
}

macro_rules! extends {
    ($($(#[$doc:meta])* $name:ident: $view:ident => $from:ident, $type:ty;)+) => {$(
        $(#[$doc])*
        pub fn $name(a: &Xmm) -> Xmm {
            let a = a.$view();
            Xmm::$from(core::array::from_fn(|i| <$type>::from(a[i])))
        }
    )+};
}

// The upper lane of a VEX.256 form takes the source bytes that follow those of the lower lane.
extends! {
    /// PMOVSXBW.
    extend_i8_i16: i8s => from_i16s, i16;
    /// PMOVSXBD.
    extend_i8_i32: i8s => from_i32s, i32;
    /// PMOVSXBQ.
    extend_i8_i64: i8s => from_i64s, i64;
    /// PMOVSXWD.
    extend_i16_i32: i16s => from_i32s, i32;
    /// PMOVSXWQ.
    extend_i16_i64: i16s => from_i64s, i64;
    /// PMOVSXDQ.
    extend_i32_i64: i32s => from_i64s, i64;
    /// PMOVZXBW.
    extend_u8_u16: u8s => from_u16s, u16;
    /// PMOVZXBD.
    extend_u8_u32: u8s => from_u32s, u32;
    /// PMOVZXBQ.
    extend_u8_u64: u8s => from_u64s, u64;
    /// PMOVZXWD.
    extend_u16_u32: u16s => from_u32s, u32;
    /// PMOVZXWQ.
    extend_u16_u64: u16s => from_u64s, u64;
    /// PMOVZXDQ.
    extend_u32_u64: u32s => from_u64s, u64;
}

/// INSERTPS, the lane to insert already selected: it goes where bits 5:4 say, then bits 3:0 zero lanes.
pub fn insert_single(a: &Xmm, lane: u32, imm: u8) -> Xmm {
    let mut lanes = a.u32s();
    lanes[usize::from(imm >> 4 & 3)] = lane;
    Xmm::from_u32s(core::array::from_fn(|i| if imm >> i & 1 != 0 { 0 } else { lanes[i] }))
}

/// VPERMD, VPERMPS: eight lanes of `b`, each selected by three bits of a lane of `a`.
pub fn permute_across32(a: &[Xmm; 2], b: &[Xmm; 2]) -> [Xmm; 2] {
    let source = [b[0].u32s(), b[1].u32s()];
    let pick = |select: u32| source[(select >> 2 & 1) as usize][(select & 3) as usize];
    [Xmm::from_u32s(a[0].u32s().map(pick)), Xmm::from_u32s(a[1].u32s().map(pick))]
}

/// VPERMQ, VPERMPD: four lanes, each selected by two bits of `imm`.
pub fn permute_across64(a: &[Xmm; 2], imm: u8) -> [Xmm; 2] {
    let source = [a[0].low(), a[0].high(), a[1].low(), a[1].high()];
    let pick = |i| source[select4(imm, i)];
    [Xmm::from_u64s([pick(0), pick(1)]), Xmm::from_u64s([pick(2), pick(3)])]
}

/// VPERM2F128, VPERM2I128: each half one of the four halves of `a` and `b`, or zero.
pub fn permute_halves(a: &[Xmm; 2], b: &[Xmm; 2], imm: u8) -> [Xmm; 2] {
    let pick = |control: u8| match control & 0b1011 {
        0 => a[0],
        1 => a[1],
        2 => b[0],
        3 => b[1],
        _ => Xmm::ZERO,
    };
    [pick(imm), pick(imm >> 4)]
}
