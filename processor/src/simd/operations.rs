//! Which lane function each mnemonic is, and how it meets the operands: one line a mnemonic.

use iced_x86::Mnemonic;

use super::convert::{self, Convert};
use super::float::{self, Float};
use super::fma::{self, Fused};
use super::lanes::{Binary, BinaryImm, Shift, Ternary, Unary, UnaryImm, Xmm};
use super::{crypto, integer, shift, shuffle};

/// How a vector instruction computes its destination. `a` is the first source (the destination of legacy encodings), `b` the
/// last: a register or memory. A 256-bit form does both halves, unless the action says otherwise.
#[derive(Clone, Copy)]
pub(super) enum Action {
    /// f(b).
    Unary(Unary),
    /// f(b, imm); the upper half takes the immediate shifted right by this many bits.
    UnaryImm(UnaryImm, u8),
    /// f(a, b).
    Binary(Binary),
    /// f(a, b, imm); the upper half takes the immediate shifted right by this many bits.
    BinaryImm(BinaryImm, u8),
    /// f(a, b, mask): XMM0, or the fourth operand of the VEX form.
    Ternary(Ternary),
    /// f(a, count), the count being the low quadword of b, or the immediate.
    Shift(Shift),
    /// f(b); the upper half's source is this many bytes above the lower half's.
    Extend(Unary, u8),
    /// f(a, b, imm) with MXCSR.
    Float(Float),
    /// f(b) with MXCSR, lane by lane of the same width.
    Convert(Convert),
    /// f(b) with MXCSR, 128 bits of result for 64 of source.
    Widen(Convert),
    /// f(b) with MXCSR, 64 bits of result for 128 of source.
    Narrow(Convert),
    /// f(x, y, z) with MXCSR; where x, y and z are; the bytes of a scalar or 0.
    Fused(Fused, Order, u8),
    /// The lowest this many bytes of b in every place.
    Broadcast(u8),
    /// INSERTPS.
    InsertSingle,
    /// VPERMD, VPERMPS.
    PermuteAcross32,
    /// VPERMQ, VPERMPD.
    PermuteAcross64,
    /// VPERM2F128, VPERM2I128.
    PermuteHalves,
    /// VINSERTF128, VINSERTI128.
    InsertHalf,
}

/// The numbers of an FMA mnemonic: multiplicand, multiplier and addend by operand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// First times third, plus second.
    O132,
    /// Second times first, plus third.
    O213,
    /// Second times third, plus first.
    O231,
}

fn move_high_to_low(a: &Xmm, b: &Xmm) -> Xmm {
    Xmm::from_u64s([b.high(), a.high()])
}

fn move_low_to_high(a: &Xmm, b: &Xmm) -> Xmm {
    Xmm::from_u64s([a.low(), b.low()])
}

fn move_low(a: &Xmm, b: &Xmm) -> Xmm {
    a.with_low(b.low())
}

/// The action of a mnemonic whose encodings all fit the common shape: vector operands of which the last may be memory, and at most
/// an immediate (`immediate`: this encoding has one). Encodings that store are not meant.
pub(super) fn action(mnemonic: Mnemonic, immediate: bool) -> Option<Action> {
    use Action::{
        Binary, BinaryImm, Broadcast, Convert, Extend, Float, Narrow, Shift, Ternary, Unary, UnaryImm, Widen,
    };
    use Mnemonic::*;
    Some(match mnemonic {
        Movhlps | Vmovhlps => Binary(move_high_to_low),
        Movlhps | Vmovlhps | Movhps | Vmovhps | Movhpd | Vmovhpd => Binary(move_low_to_high),
        Movlps | Vmovlps | Movlpd | Vmovlpd => Binary(move_low),
        Movsldup | Vmovsldup => Unary(shuffle::duplicate_even_singles),
        Movshdup | Vmovshdup => Unary(shuffle::duplicate_odd_singles),
        Movddup | Vmovddup => Unary(shuffle::duplicate_low_double),

        Paddb | Vpaddb => Binary(integer::add8),
        Paddw | Vpaddw => Binary(integer::add16),
        Paddd | Vpaddd => Binary(integer::add32),
        Paddq | Vpaddq => Binary(integer::add64),
        Psubb | Vpsubb => Binary(integer::sub8),
        Psubw | Vpsubw => Binary(integer::sub16),
        Psubd | Vpsubd => Binary(integer::sub32),
        Psubq | Vpsubq => Binary(integer::sub64),
        Paddsb | Vpaddsb => Binary(integer::add_saturate_i8),
        Paddsw | Vpaddsw => Binary(integer::add_saturate_i16),
        Paddusb | Vpaddusb => Binary(integer::add_saturate_u8),
        Paddusw | Vpaddusw => Binary(integer::add_saturate_u16),
        Psubsb | Vpsubsb => Binary(integer::sub_saturate_i8),
        Psubsw | Vpsubsw => Binary(integer::sub_saturate_i16),
        Psubusb | Vpsubusb => Binary(integer::sub_saturate_u8),
        Psubusw | Vpsubusw => Binary(integer::sub_saturate_u16),
        Pavgb | Vpavgb => Binary(integer::average8),
        Pavgw | Vpavgw => Binary(integer::average16),
        Pminsb | Vpminsb => Binary(integer::min_i8),
        Pminsw | Vpminsw => Binary(integer::min_i16),
        Pminsd | Vpminsd => Binary(integer::min_i32),
        Pminub | Vpminub => Binary(integer::min_u8),
        Pminuw | Vpminuw => Binary(integer::min_u16),
        Pminud | Vpminud => Binary(integer::min_u32),
        Pmaxsb | Vpmaxsb => Binary(integer::max_i8),
        Pmaxsw | Vpmaxsw => Binary(integer::max_i16),
        Pmaxsd | Vpmaxsd => Binary(integer::max_i32),
        Pmaxub | Vpmaxub => Binary(integer::max_u8),
        Pmaxuw | Vpmaxuw => Binary(integer::max_u16),
        Pmaxud | Vpmaxud => Binary(integer::max_u32),
        Pcmpeqb | Vpcmpeqb => Binary(integer::equal8),
        Pcmpeqw | Vpcmpeqw => Binary(integer::equal16),
        Pcmpeqd | Vpcmpeqd => Binary(integer::equal32),
        Pcmpeqq | Vpcmpeqq => Binary(integer::equal64),
        Pcmpgtb | Vpcmpgtb => Binary(integer::greater8),
        Pcmpgtw | Vpcmpgtw => Binary(integer::greater16),
        Pcmpgtd | Vpcmpgtd => Binary(integer::greater32),
        Pcmpgtq | Vpcmpgtq => Binary(integer::greater64),
        Pmullw | Vpmullw => Binary(integer::multiply_low16),
        Pmulld | Vpmulld => Binary(integer::multiply_low32),
        Pmulhw | Vpmulhw => Binary(integer::multiply_high_i16),
        Pmulhuw | Vpmulhuw => Binary(integer::multiply_high_u16),
        Pmulhrsw | Vpmulhrsw => Binary(integer::multiply_high_round),
        Pmuludq | Vpmuludq => Binary(integer::multiply_u32),
        Pmuldq | Vpmuldq => Binary(integer::multiply_i32),
        Pmaddwd | Vpmaddwd => Binary(integer::multiply_add16),
        Pmaddubsw | Vpmaddubsw => Binary(integer::multiply_add8),
        Psadbw | Vpsadbw => Binary(integer::sum_differences),
        Mpsadbw | Vmpsadbw => BinaryImm(integer::sum_differences_sliding, 3),
        Phminposuw | Vphminposuw => Unary(integer::horizontal_min),
        Psignb | Vpsignb => Binary(integer::sign8),
        Psignw | Vpsignw => Binary(integer::sign16),
        Psignd | Vpsignd => Binary(integer::sign32),
        Pabsb | Vpabsb => Unary(integer::abs8),
        Pabsw | Vpabsw => Unary(integer::abs16),
        Pabsd | Vpabsd => Unary(integer::abs32),
        Phaddw | Vphaddw => Binary(integer::pair_add16),
        Phaddd | Vphaddd => Binary(integer::pair_add32),
        Phaddsw | Vphaddsw => Binary(integer::pair_add_saturate16),
        Phsubw | Vphsubw => Binary(integer::pair_sub16),
        Phsubd | Vphsubd => Binary(integer::pair_sub32),
        Phsubsw | Vphsubsw => Binary(integer::pair_sub_saturate16),
        Pand | Vpand | Andps | Vandps | Andpd | Vandpd => Binary(integer::and),
        Pandn | Vpandn | Andnps | Vandnps | Andnpd | Vandnpd => Binary(integer::and_not),
        Por | Vpor | Orps | Vorps | Orpd | Vorpd => Binary(integer::or),
        Pxor | Vpxor | Xorps | Vxorps | Xorpd | Vxorpd => Binary(integer::xor),

        Psllw | Vpsllw => Shift(shift::left16),
        Pslld | Vpslld => Shift(shift::left32),
        Psllq | Vpsllq => Shift(shift::left64),
        Psrlw | Vpsrlw => Shift(shift::right16),
        Psrld | Vpsrld => Shift(shift::right32),
        Psrlq | Vpsrlq => Shift(shift::right64),
        Psraw | Vpsraw => Shift(shift::right_arithmetic16),
        Psrad | Vpsrad => Shift(shift::right_arithmetic32),
        Pslldq | Vpslldq => Shift(shift::left_bytes),
        Psrldq | Vpsrldq => Shift(shift::right_bytes),
        Vpsllvd => Binary(shift::left_each32),
        Vpsllvq => Binary(shift::left_each64),
        Vpsrlvd => Binary(shift::right_each32),
        Vpsrlvq => Binary(shift::right_each64),
        Vpsravd => Binary(shift::right_arithmetic_each32),

        Packsswb | Vpacksswb => Binary(shuffle::pack_i16_i8),
        Packuswb | Vpackuswb => Binary(shuffle::pack_i16_u8),
        Packssdw | Vpackssdw => Binary(shuffle::pack_i32_i16),
        Packusdw | Vpackusdw => Binary(shuffle::pack_i32_u16),
        Punpcklbw | Vpunpcklbw => Binary(shuffle::unpack_low8),
        Punpcklwd | Vpunpcklwd => Binary(shuffle::unpack_low16),
        Punpckldq | Vpunpckldq | Unpcklps | Vunpcklps => Binary(shuffle::unpack_low32),
        Punpcklqdq | Vpunpcklqdq | Unpcklpd | Vunpcklpd => Binary(shuffle::unpack_low64),
        Punpckhbw | Vpunpckhbw => Binary(shuffle::unpack_high8),
        Punpckhwd | Vpunpckhwd => Binary(shuffle::unpack_high16),
        Punpckhdq | Vpunpckhdq | Unpckhps | Vunpckhps => Binary(shuffle::unpack_high32),
        Punpckhqdq | Vpunpckhqdq | Unpckhpd | Vunpckhpd => Binary(shuffle::unpack_high64),
        Pshufb | Vpshufb => Binary(shuffle::bytes),
        Pshufd | Vpshufd => UnaryImm(shuffle::dwords, 0),
        Pshuflw | Vpshuflw | Pshufw => UnaryImm(shuffle::low_words, 0),
        Pshufhw | Vpshufhw => UnaryImm(shuffle::high_words, 0),
        Shufps | Vshufps => BinaryImm(shuffle::singles, 0),
        Shufpd | Vshufpd => BinaryImm(shuffle::doubles, 2),
        Palignr | Vpalignr => BinaryImm(shuffle::align_right, 0),
        Pblendw | Vpblendw => BinaryImm(shuffle::blend16, 0),
        Blendps | Vblendps | Vpblendd => BinaryImm(shuffle::blend32, 4),
        Blendpd | Vblendpd => BinaryImm(shuffle::blend64, 2),
        Pblendvb | Vpblendvb => Ternary(shuffle::blend_by8),
        Blendvps | Vblendvps => Ternary(shuffle::blend_by32),
        Blendvpd | Vblendvpd => Ternary(shuffle::blend_by64),
        Insertps | Vinsertps => Action::InsertSingle,
        Pmovsxbw | Vpmovsxbw => Extend(shuffle::extend_i8_i16, 8),
        Pmovsxbd | Vpmovsxbd => Extend(shuffle::extend_i8_i32, 4),
        Pmovsxbq | Vpmovsxbq => Extend(shuffle::extend_i8_i64, 2),
        Pmovsxwd | Vpmovsxwd => Extend(shuffle::extend_i16_i32, 8),
        Pmovsxwq | Vpmovsxwq => Extend(shuffle::extend_i16_i64, 4),
        Pmovsxdq | Vpmovsxdq => Extend(shuffle::extend_i32_i64, 8),
        Pmovzxbw | Vpmovzxbw => Extend(shuffle::extend_u8_u16, 8),
        Pmovzxbd | Vpmovzxbd => Extend(shuffle::extend_u8_u32, 4),
        Pmovzxbq | Vpmovzxbq => Extend(shuffle::extend_u8_u64, 2),
        Pmovzxwd | Vpmovzxwd => Extend(shuffle::extend_u16_u32, 8),
        Pmovzxwq | Vpmovzxwq => Extend(shuffle::extend_u16_u64, 4),
        Pmovzxdq | Vpmovzxdq => Extend(shuffle::extend_u32_u64, 8),
        Vpbroadcastb => Broadcast(1),
        Vpbroadcastw => Broadcast(2),
        Vpbroadcastd | Vbroadcastss => Broadcast(4),
        Vpbroadcastq | Vbroadcastsd => Broadcast(8),
        Vbroadcastf128 | Vbroadcasti128 => Broadcast(16),
        Vpermilps if immediate => UnaryImm(shuffle::dwords, 0),
        Vpermilps => Binary(shuffle::permute_singles_by),
        Vpermilpd if immediate => UnaryImm(shuffle::permute_doubles, 2),
        Vpermilpd => Binary(shuffle::permute_doubles_by),
        Vpermd | Vpermps => Action::PermuteAcross32,
        Vpermq | Vpermpd => Action::PermuteAcross64,
        Vperm2f128 | Vperm2i128 => Action::PermuteHalves,
        Vinsertf128 | Vinserti128 => Action::InsertHalf,

        Aesenc | Vaesenc => Binary(crypto::aes_encrypt),
        Aesenclast | Vaesenclast => Binary(crypto::aes_encrypt_last),
        Aesdec | Vaesdec => Binary(crypto::aes_decrypt),
        Aesdeclast | Vaesdeclast => Binary(crypto::aes_decrypt_last),
        Aesimc | Vaesimc => Unary(crypto::aes_inverse_mix),
        Aeskeygenassist | Vaeskeygenassist => UnaryImm(crypto::aes_key_assist, 0),
        Pclmulqdq | Vpclmulqdq => BinaryImm(crypto::carryless_multiply, 0),
        Sha1rnds4 => BinaryImm(crypto::sha1_rounds, 0),
        Sha1nexte => Binary(crypto::sha1_next_e),
        Sha1msg1 => Binary(crypto::sha1_message1),
        Sha1msg2 => Binary(crypto::sha1_message2),
        Sha256rnds2 => Ternary(crypto::sha256_rounds),
        Sha256msg1 => Binary(crypto::sha256_message1),
        Sha256msg2 => Binary(crypto::sha256_message2),

        Addps | Vaddps => Float(float::add_ps),
        Addpd | Vaddpd => Float(float::add_pd),
        Addss | Vaddss => Float(float::add_ss),
        Addsd | Vaddsd => Float(float::add_sd),
        Subps | Vsubps => Float(float::sub_ps),
        Subpd | Vsubpd => Float(float::sub_pd),
        Subss | Vsubss => Float(float::sub_ss),
        Subsd | Vsubsd => Float(float::sub_sd),
        Mulps | Vmulps => Float(float::mul_ps),
        Mulpd | Vmulpd => Float(float::mul_pd),
        Mulss | Vmulss => Float(float::mul_ss),
        Mulsd | Vmulsd => Float(float::mul_sd),
        Divps | Vdivps => Float(float::div_ps),
        Divpd | Vdivpd => Float(float::div_pd),
        Divss | Vdivss => Float(float::div_ss),
        Divsd | Vdivsd => Float(float::div_sd),
        Minps | Vminps => Float(float::min_ps),
        Minpd | Vminpd => Float(float::min_pd),
        Minss | Vminss => Float(float::min_ss),
        Minsd | Vminsd => Float(float::min_sd),
        Maxps | Vmaxps => Float(float::max_ps),
        Maxpd | Vmaxpd => Float(float::max_pd),
        Maxss | Vmaxss => Float(float::max_ss),
        Maxsd | Vmaxsd => Float(float::max_sd),
        Sqrtps | Vsqrtps => Float(float::sqrt_ps),
        Sqrtpd | Vsqrtpd => Float(float::sqrt_pd),
        Sqrtss | Vsqrtss => Float(float::sqrt_ss),
        Sqrtsd | Vsqrtsd => Float(float::sqrt_sd),
        Rcpps | Vrcpps => Float(float::reciprocal_ps),
        Rcpss | Vrcpss => Float(float::reciprocal_ss),
        Rsqrtps | Vrsqrtps => Float(float::reciprocal_root_ps),
        Rsqrtss | Vrsqrtss => Float(float::reciprocal_root_ss),
        Roundps | Vroundps => Float(float::round_ps),
        Roundpd | Vroundpd => Float(float::round_pd),
        Roundss | Vroundss => Float(float::round_ss),
        Roundsd | Vroundsd => Float(float::round_sd),
        Cmpps => Float(float::compare8_ps),
        Cmppd => Float(float::compare8_pd),
        Cmpss => Float(float::compare8_ss),
        Cmpsd => Float(float::compare8_sd),
        Vcmpps => Float(float::compare_ps),
        Vcmppd => Float(float::compare_pd),
        Vcmpss => Float(float::compare_ss),
        Vcmpsd => Float(float::compare_sd),
        Addsubps | Vaddsubps => Float(float::addsub_ps),
        Addsubpd | Vaddsubpd => Float(float::addsub_pd),
        Haddps | Vhaddps => Float(float::hadd_ps),
        Haddpd | Vhaddpd => Float(float::hadd_pd),
        Hsubps | Vhsubps => Float(float::hsub_ps),
        Hsubpd | Vhsubpd => Float(float::hsub_pd),
        Dpps | Vdpps => Float(float::dot_ps),
        Dppd | Vdppd => Float(float::dot_pd),

        Cvtdq2ps | Vcvtdq2ps => Convert(convert::dwords_to_singles),
        Cvtps2dq | Vcvtps2dq => Convert(convert::singles_to_dwords),
        Cvttps2dq | Vcvttps2dq => Convert(convert::singles_to_dwords_truncated),
        Cvtdq2pd | Vcvtdq2pd => Widen(convert::dwords_to_doubles),
        Cvtps2pd | Vcvtps2pd => Widen(convert::singles_to_doubles),
        Vcvtph2ps => Widen(convert::halves_to_singles),
        Cvtpd2dq | Vcvtpd2dq => Narrow(convert::doubles_to_dwords),
        Cvttpd2dq | Vcvttpd2dq => Narrow(convert::doubles_to_dwords_truncated),
        Cvtpd2ps | Vcvtpd2ps => Narrow(convert::doubles_to_singles),
        Cvtss2sd | Vcvtss2sd => Float(convert::single_to_double),
        Cvtsd2ss | Vcvtsd2ss => Float(convert::double_to_single),

        _ => return fused(mnemonic),
    })
}

/// The actions of FMA.
fn fused(mnemonic: Mnemonic) -> Option<Action> {
    use Mnemonic::*;
    use Order::{O132, O213, O231};
    let (function, order, scalar): (Fused, Order, u8) = match mnemonic {
        Vfmadd132ps => (fma::madd_ps, O132, 0),
        Vfmadd132pd => (fma::madd_pd, O132, 0),
        Vfmadd132ss => (fma::madd_ss, O132, 4),
        Vfmadd132sd => (fma::madd_sd, O132, 8),
        Vfmsub132ps => (fma::msub_ps, O132, 0),
        Vfmsub132pd => (fma::msub_pd, O132, 0),
        Vfmsub132ss => (fma::msub_ss, O132, 4),
        Vfmsub132sd => (fma::msub_sd, O132, 8),
        Vfnmadd132ps => (fma::nmadd_ps, O132, 0),
        Vfnmadd132pd => (fma::nmadd_pd, O132, 0),
        Vfnmadd132ss => (fma::nmadd_ss, O132, 4),
        Vfnmadd132sd => (fma::nmadd_sd, O132, 8),
        Vfnmsub132ps => (fma::nmsub_ps, O132, 0),
        Vfnmsub132pd => (fma::nmsub_pd, O132, 0),
        Vfnmsub132ss => (fma::nmsub_ss, O132, 4),
        Vfnmsub132sd => (fma::nmsub_sd, O132, 8),
        Vfmaddsub132ps => (fma::maddsub_ps, O132, 0),
        Vfmaddsub132pd => (fma::maddsub_pd, O132, 0),
        Vfmsubadd132ps => (fma::msubadd_ps, O132, 0),
        Vfmsubadd132pd => (fma::msubadd_pd, O132, 0),
        Vfmadd213ps => (fma::madd_ps, O213, 0),
        Vfmadd213pd => (fma::madd_pd, O213, 0),
        Vfmadd213ss => (fma::madd_ss, O213, 4),
        Vfmadd213sd => (fma::madd_sd, O213, 8),
        Vfmsub213ps => (fma::msub_ps, O213, 0),
        Vfmsub213pd => (fma::msub_pd, O213, 0),
        Vfmsub213ss => (fma::msub_ss, O213, 4),
        Vfmsub213sd => (fma::msub_sd, O213, 8),
        Vfnmadd213ps => (fma::nmadd_ps, O213, 0),
        Vfnmadd213pd => (fma::nmadd_pd, O213, 0),
        Vfnmadd213ss => (fma::nmadd_ss, O213, 4),
        Vfnmadd213sd => (fma::nmadd_sd, O213, 8),
        Vfnmsub213ps => (fma::nmsub_ps, O213, 0),
        Vfnmsub213pd => (fma::nmsub_pd, O213, 0),
        Vfnmsub213ss => (fma::nmsub_ss, O213, 4),
        Vfnmsub213sd => (fma::nmsub_sd, O213, 8),
        Vfmaddsub213ps => (fma::maddsub_ps, O213, 0),
        Vfmaddsub213pd => (fma::maddsub_pd, O213, 0),
        Vfmsubadd213ps => (fma::msubadd_ps, O213, 0),
        Vfmsubadd213pd => (fma::msubadd_pd, O213, 0),
        Vfmadd231ps => (fma::madd_ps, O231, 0),
        Vfmadd231pd => (fma::madd_pd, O231, 0),
        Vfmadd231ss => (fma::madd_ss, O231, 4),
        Vfmadd231sd => (fma::madd_sd, O231, 8),
        Vfmsub231ps => (fma::msub_ps, O231, 0),
        Vfmsub231pd => (fma::msub_pd, O231, 0),
        Vfmsub231ss => (fma::msub_ss, O231, 4),
        Vfmsub231sd => (fma::msub_sd, O231, 8),
        Vfnmadd231ps => (fma::nmadd_ps, O231, 0),
        Vfnmadd231pd => (fma::nmadd_pd, O231, 0),
        Vfnmadd231ss => (fma::nmadd_ss, O231, 4),
        Vfnmadd231sd => (fma::nmadd_sd, O231, 8),
        Vfnmsub231ps => (fma::nmsub_ps, O231, 0),
        Vfnmsub231pd => (fma::nmsub_pd, O231, 0),
        Vfnmsub231ss => (fma::nmsub_ss, O231, 4),
        Vfnmsub231sd => (fma::nmsub_sd, O231, 8),
        Vfmaddsub231ps => (fma::maddsub_ps, O231, 0),
        Vfmaddsub231pd => (fma::maddsub_pd, O231, 0),
        Vfmsubadd231ps => (fma::msubadd_ps, O231, 0),
        Vfmsubadd231pd => (fma::msubadd_pd, O231, 0),
        _ => return None,
    };
    Some(Action::Fused(function, order, scalar))
}
