//! The lane functions against the host's own instructions, on random and edge-case lanes.
//!
//! `unsafe` here is only the call of host intrinsics, each guarded by a check that the host has them, and the
//! reinterpretation of 16 plain bytes.
#![allow(unsafe_code)]

use super::lanes::{Binary, BinaryImm, Unary, UnaryImm, Xmm};
use super::{crypto, integer, shift, shuffle, string_compare};
use core::arch::x86_64::*;
use core::mem::transmute;

/// Random vectors with many edge values: a fixed xorshift generator, so that a failure repeats.
struct Vectors(u64);

impl Vectors {
    fn word(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn next(&mut self) -> Xmm {
        const EDGES: [u8; 8] = [0, 1, 0x7f, 0x80, 0x81, 0xff, 0x40, 0xfe];
        let style = self.word() % 4;
        Xmm(core::array::from_fn(|_| {
            let word = self.word();
            match style {
                0 => EDGES[(word % 8) as usize],
                1 if word & 0x100 == 0 => EDGES[(word % 8) as usize],
                // A small alphabet, so that string comparisons find something.
                2 => (word % 4) as u8,
                _ => word as u8,
            }
        }))
    }
}

fn pairs() -> impl Iterator<Item = (Xmm, Xmm)> {
    let mut vectors = Vectors(0x9e37_79b9_7f4a_7c15);
    (0..400).map(move |i| {
        let a = vectors.next();
        (a, if i % 8 == 0 { a } else { vectors.next() })
    })
}

fn native(vector: &Xmm) -> __m128i {
    // SAFETY: both are 16 plain bytes.
    unsafe { transmute::<Xmm, __m128i>(*vector) }
}

fn portable(vector: __m128i) -> Xmm {
    // SAFETY: both are 16 plain bytes.
    unsafe { transmute::<__m128i, Xmm>(vector) }
}

fn check_binary(name: &str, ours: Binary, host: impl Fn(__m128i, __m128i) -> __m128i) {
    for (a, b) in pairs() {
        assert_eq!(ours(&a, &b), portable(host(native(&a), native(&b))), "{name} {a:?} {b:?}");
    }
}

fn check_unary(name: &str, ours: Unary, host: impl Fn(__m128i) -> __m128i) {
    for (a, _) in pairs() {
        assert_eq!(ours(&a), portable(host(native(&a))), "{name} {a:?}");
    }
}

fn check_binary_imm(name: &str, imm: u8, ours: BinaryImm, host: impl Fn(__m128i, __m128i) -> __m128i) {
    for (a, b) in pairs() {
        assert_eq!(ours(&a, &b, imm), portable(host(native(&a), native(&b))), "{name} {imm:#x} {a:?} {b:?}");
    }
}

fn check_unary_imm(name: &str, imm: u8, ours: UnaryImm, host: impl Fn(__m128i) -> __m128i) {
    for (a, _) in pairs() {
        assert_eq!(ours(&a, imm), portable(host(native(&a))), "{name} {imm:#x} {a:?}");
    }
}

macro_rules! binary {
    ($($ours:path => $host:ident;)+) => {
        // SAFETY: the caller's `has` said that the host has the instruction.
        $(check_binary(stringify!($host), $ours, |a, b| unsafe { $host(a, b) });)+
    };
}
macro_rules! unary {
    ($($ours:path => $host:ident;)+) => {
        // SAFETY: the caller's `has` said that the host has the instruction.
        $(check_unary(stringify!($host), $ours, |a| unsafe { $host(a) });)+
    };
}
macro_rules! binary_imm {
    ($ours:path => $host:ident: $($imm:literal)+) => {
        // SAFETY: the caller's `has` said that the host has the instruction.
        $(check_binary_imm(stringify!($host), $imm, $ours, |a, b| unsafe { $host::<$imm>(a, b) });)+
    };
}
macro_rules! unary_imm {
    ($ours:path => $host:ident: $($imm:literal)+) => {
        // SAFETY: the caller's `has` said that the host has the instruction.
        $(check_unary_imm(stringify!($host), $imm, $ours, |a| unsafe { $host::<$imm>(a) });)+
    };
}
macro_rules! has {
    ($($feature:tt)+) => {
        if !(true $(&& is_x86_feature_detected!($feature))+) {
            return;
        }
    };
}

#[test]
fn integer_arithmetic() {
    has!("sse4.1" "sse4.2" "ssse3");
    binary! {
        integer::add8 => _mm_add_epi8;
        integer::add16 => _mm_add_epi16;
        integer::add32 => _mm_add_epi32;
        integer::add64 => _mm_add_epi64;
        integer::sub8 => _mm_sub_epi8;
        integer::sub16 => _mm_sub_epi16;
        integer::sub32 => _mm_sub_epi32;
        integer::sub64 => _mm_sub_epi64;
        integer::add_saturate_i8 => _mm_adds_epi8;
        integer::add_saturate_i16 => _mm_adds_epi16;
        integer::add_saturate_u8 => _mm_adds_epu8;
        integer::add_saturate_u16 => _mm_adds_epu16;
        integer::sub_saturate_i8 => _mm_subs_epi8;
        integer::sub_saturate_i16 => _mm_subs_epi16;
        integer::sub_saturate_u8 => _mm_subs_epu8;
        integer::sub_saturate_u16 => _mm_subs_epu16;
        integer::average8 => _mm_avg_epu8;
        integer::average16 => _mm_avg_epu16;
        integer::min_i8 => _mm_min_epi8;
        integer::min_i16 => _mm_min_epi16;
        integer::min_i32 => _mm_min_epi32;
        integer::min_u8 => _mm_min_epu8;
        integer::min_u16 => _mm_min_epu16;
        integer::min_u32 => _mm_min_epu32;
        integer::max_i8 => _mm_max_epi8;
        integer::max_i16 => _mm_max_epi16;
        integer::max_i32 => _mm_max_epi32;
        integer::max_u8 => _mm_max_epu8;
        integer::max_u16 => _mm_max_epu16;
        integer::max_u32 => _mm_max_epu32;
        integer::equal8 => _mm_cmpeq_epi8;
        integer::equal16 => _mm_cmpeq_epi16;
        integer::equal32 => _mm_cmpeq_epi32;
        integer::equal64 => _mm_cmpeq_epi64;
        integer::greater8 => _mm_cmpgt_epi8;
        integer::greater16 => _mm_cmpgt_epi16;
        integer::greater32 => _mm_cmpgt_epi32;
        integer::greater64 => _mm_cmpgt_epi64;
        integer::multiply_low16 => _mm_mullo_epi16;
        integer::multiply_low32 => _mm_mullo_epi32;
        integer::multiply_high_i16 => _mm_mulhi_epi16;
        integer::multiply_high_u16 => _mm_mulhi_epu16;
        integer::multiply_high_round => _mm_mulhrs_epi16;
        integer::multiply_u32 => _mm_mul_epu32;
        integer::multiply_i32 => _mm_mul_epi32;
        integer::multiply_add16 => _mm_madd_epi16;
        integer::multiply_add8 => _mm_maddubs_epi16;
        integer::sum_differences => _mm_sad_epu8;
        integer::sign8 => _mm_sign_epi8;
        integer::sign16 => _mm_sign_epi16;
        integer::sign32 => _mm_sign_epi32;
        integer::pair_add16 => _mm_hadd_epi16;
        integer::pair_add32 => _mm_hadd_epi32;
        integer::pair_add_saturate16 => _mm_hadds_epi16;
        integer::pair_sub16 => _mm_hsub_epi16;
        integer::pair_sub32 => _mm_hsub_epi32;
        integer::pair_sub_saturate16 => _mm_hsubs_epi16;
        integer::and => _mm_and_si128;
        integer::and_not => _mm_andnot_si128;
        integer::or => _mm_or_si128;
        integer::xor => _mm_xor_si128;
    }
    unary! {
        integer::abs8 => _mm_abs_epi8;
        integer::abs16 => _mm_abs_epi16;
        integer::abs32 => _mm_abs_epi32;
        integer::horizontal_min => _mm_minpos_epu16;
    }
    binary_imm!(integer::sum_differences_sliding => _mm_mpsadbw_epu8: 0 1 2 3 4 5 6 7);
    for (a, b) in pairs() {
        // SAFETY: SSE4.1 was detected above.
        unsafe {
            let (x, y) = (native(&a), native(&b));
            assert_eq!(integer::sign_mask8(&a), _mm_movemask_epi8(x) as u32);
            assert_eq!(integer::sign_mask32(&a), _mm_movemask_ps(_mm_castsi128_ps(x)) as u32);
            assert_eq!(integer::sign_mask64(&a), _mm_movemask_pd(_mm_castsi128_pd(x)) as u32);
            let flags = integer::test(&a, &b, integer::TEST_ALL);
            assert_eq!(flags, (_mm_testz_si128(x, y) != 0, _mm_testc_si128(x, y) != 0));
        }
    }
}

#[test]
fn shifts() {
    has!("avx2");
    type HostShift = unsafe fn(__m128i, __m128i) -> __m128i;
    let by_register: [(super::lanes::Shift, HostShift); 8] = [
        (shift::left16, _mm_sll_epi16),
        (shift::left32, _mm_sll_epi32),
        (shift::left64, _mm_sll_epi64),
        (shift::right16, _mm_srl_epi16),
        (shift::right32, _mm_srl_epi32),
        (shift::right64, _mm_srl_epi64),
        (shift::right_arithmetic16, _mm_sra_epi16),
        (shift::right_arithmetic32, _mm_sra_epi32),
    ];
    for (a, b) in pairs() {
        for count in (0..70).chain([255, 1 << 32, u64::MAX, b.low()]) {
            let register = Xmm::from_u64s([count, b.high()]);
            for (i, (ours, host)) in by_register.iter().enumerate() {
                // SAFETY: AVX2 was detected above.
                let host = unsafe { host(native(&a), native(&register)) };
                assert_eq!(ours(&a, count), portable(host), "shift {i} {a:?} by {count}");
            }
        }
        let each = Xmm::from_u32s(b.u32s().map(|count| count % 40));
        let each64 = Xmm::from_u64s(b.u64s().map(|count| count % 80));
        for (a, b) in [(a, b), (a, each), (a, each64)] {
            let (x, y) = (native(&a), native(&b));
            // SAFETY: AVX2 was detected above.
            unsafe {
                assert_eq!(shift::left_each32(&a, &b), portable(_mm_sllv_epi32(x, y)));
                assert_eq!(shift::left_each64(&a, &b), portable(_mm_sllv_epi64(x, y)));
                assert_eq!(shift::right_each32(&a, &b), portable(_mm_srlv_epi32(x, y)));
                assert_eq!(shift::right_each64(&a, &b), portable(_mm_srlv_epi64(x, y)));
                assert_eq!(shift::right_arithmetic_each32(&a, &b), portable(_mm_srav_epi32(x, y)));
            }
        }
        // SAFETY: SSE2 is part of x86-64.
        unsafe {
            let x = native(&a);
            assert_eq!(shift::left_bytes(&a, 5), portable(_mm_slli_si128::<5>(x)));
            assert_eq!(shift::right_bytes(&a, 11), portable(_mm_srli_si128::<11>(x)));
            assert_eq!(shift::right_bytes(&a, 16), portable(_mm_srli_si128::<16>(x)));
            assert_eq!(shift::left_bytes(&a, 255), portable(_mm_slli_si128::<255>(x)));
        }
    }
}

#[test]
fn shuffles() {
    has!("avx2");
    binary! {
        shuffle::pack_i16_i8 => _mm_packs_epi16;
        shuffle::pack_i16_u8 => _mm_packus_epi16;
        shuffle::pack_i32_i16 => _mm_packs_epi32;
        shuffle::pack_i32_u16 => _mm_packus_epi32;
        shuffle::unpack_low8 => _mm_unpacklo_epi8;
        shuffle::unpack_low16 => _mm_unpacklo_epi16;
        shuffle::unpack_low32 => _mm_unpacklo_epi32;
        shuffle::unpack_low64 => _mm_unpacklo_epi64;
        shuffle::unpack_high8 => _mm_unpackhi_epi8;
        shuffle::unpack_high16 => _mm_unpackhi_epi16;
        shuffle::unpack_high32 => _mm_unpackhi_epi32;
        shuffle::unpack_high64 => _mm_unpackhi_epi64;
        shuffle::bytes => _mm_shuffle_epi8;
    }
    unary! {
        shuffle::extend_i8_i16 => _mm_cvtepi8_epi16;
        shuffle::extend_i8_i32 => _mm_cvtepi8_epi32;
        shuffle::extend_i8_i64 => _mm_cvtepi8_epi64;
        shuffle::extend_i16_i32 => _mm_cvtepi16_epi32;
        shuffle::extend_i16_i64 => _mm_cvtepi16_epi64;
        shuffle::extend_i32_i64 => _mm_cvtepi32_epi64;
        shuffle::extend_u8_u16 => _mm_cvtepu8_epi16;
        shuffle::extend_u8_u32 => _mm_cvtepu8_epi32;
        shuffle::extend_u8_u64 => _mm_cvtepu8_epi64;
        shuffle::extend_u16_u32 => _mm_cvtepu16_epi32;
        shuffle::extend_u16_u64 => _mm_cvtepu16_epi64;
        shuffle::extend_u32_u64 => _mm_cvtepu32_epi64;
    }
    unary_imm!(shuffle::dwords => _mm_shuffle_epi32: 0x00 0x1b 0xe4 0x93 0xff 0x6c);
    unary_imm!(shuffle::low_words => _mm_shufflelo_epi16: 0x00 0x1b 0xe4 0x93 0xff 0x6c);
    unary_imm!(shuffle::high_words => _mm_shufflehi_epi16: 0x00 0x1b 0xe4 0x93 0xff 0x6c);
    binary_imm!(shuffle::align_right => _mm_alignr_epi8: 0 1 7 8 15 16 17 31 32 255);
    binary_imm!(shuffle::blend16 => _mm_blend_epi16: 0x00 0x5a 0xa5 0xff 0x3c);
    binary_imm!(shuffle::blend32 => _mm_blend_epi32: 0x0 0x5 0xa 0xf 0x3);
    let (mut checked, mut vectors) = (0, Vectors(77));
    for (a, b) in pairs() {
        let mask = vectors.next();
        let (x, y, m) = (native(&a), native(&b), native(&mask));
        // SAFETY: AVX2 was detected above.
        unsafe {
            let (ps, pd) = (|v| _mm_castsi128_ps(v), |v| _mm_castsi128_pd(v));
            let (from_ps, from_pd) = (|v| portable(_mm_castps_si128(v)), |v| portable(_mm_castpd_si128(v)));
            assert_eq!(shuffle::blend_by8(&a, &b, &mask), portable(_mm_blendv_epi8(x, y, m)));
            assert_eq!(shuffle::blend_by32(&a, &b, &mask), from_ps(_mm_blendv_ps(ps(x), ps(y), ps(m))));
            assert_eq!(shuffle::blend_by64(&a, &b, &mask), from_pd(_mm_blendv_pd(pd(x), pd(y), pd(m))));
            assert_eq!(shuffle::singles(&a, &b, 0x6c), from_ps(_mm_shuffle_ps::<0x6c>(ps(x), ps(y))));
            assert_eq!(shuffle::doubles(&a, &b, 2), from_pd(_mm_shuffle_pd::<2>(pd(x), pd(y))));
            assert_eq!(shuffle::doubles(&a, &b, 1), from_pd(_mm_shuffle_pd::<1>(pd(x), pd(y))));
            assert_eq!(shuffle::blend64(&a, &b, 2), from_pd(_mm_blend_pd::<2>(pd(x), pd(y))));
            assert_eq!(shuffle::permute_singles_by(&a, &b), from_ps(_mm_permutevar_ps(ps(x), y)));
            assert_eq!(shuffle::permute_doubles_by(&a, &b), from_pd(_mm_permutevar_pd(pd(x), y)));
            assert_eq!(shuffle::duplicate_even_singles(&a), from_ps(_mm_moveldup_ps(ps(x))));
            assert_eq!(shuffle::duplicate_odd_singles(&a), from_ps(_mm_movehdup_ps(ps(x))));
            assert_eq!(shuffle::duplicate_low_double(&a), from_pd(_mm_movedup_pd(pd(x))));
            let inserted = _mm_insert_ps::<0x98>(ps(x), ps(y));
            assert_eq!(shuffle::insert_single(&a, b.u32s()[2], 0x98), from_ps(inserted));

            let wide = |v: [Xmm; 2]| transmute::<[Xmm; 2], __m256i>(v);
            let narrow = |v: __m256i| transmute::<__m256i, [Xmm; 2]>(v);
            let (p, q) = ([a, mask], [b, a]);
            assert_eq!(shuffle::permute_across32(&p, &q), narrow(_mm256_permutevar8x32_epi32(wide(q), wide(p))));
            assert_eq!(shuffle::permute_across64(&p, 0x6c), narrow(_mm256_permute4x64_epi64::<0x6c>(wide(p))));
            assert_eq!(
                shuffle::permute_halves(&p, &q, 0x21),
                narrow(_mm256_permute2x128_si256::<0x21>(wide(p), wide(q)))
            );
            assert_eq!(
                shuffle::permute_halves(&p, &q, 0xc3),
                narrow(_mm256_permute2x128_si256::<0xc3>(wide(p), wide(q)))
            );
        }
        checked += 1;
    }
    assert_eq!(checked, 400);
}

#[test]
fn aes_and_carryless_multiplication() {
    has!("aes" "pclmulqdq");
    binary! {
        crypto::aes_encrypt => _mm_aesenc_si128;
        crypto::aes_encrypt_last => _mm_aesenclast_si128;
        crypto::aes_decrypt => _mm_aesdec_si128;
        crypto::aes_decrypt_last => _mm_aesdeclast_si128;
    }
    unary!(crypto::aes_inverse_mix => _mm_aesimc_si128;);
    unary_imm!(crypto::aes_key_assist => _mm_aeskeygenassist_si128: 0x00 0x01 0x36 0xff);
    binary_imm!(crypto::carryless_multiply => _mm_clmulepi64_si128: 0x00 0x01 0x10 0x11);
}

#[test]
fn sha() {
    has!("sha");
    binary! {
        crypto::sha1_next_e => _mm_sha1nexte_epu32;
        crypto::sha1_message1 => _mm_sha1msg1_epu32;
        crypto::sha1_message2 => _mm_sha1msg2_epu32;
        crypto::sha256_message1 => _mm_sha256msg1_epu32;
        crypto::sha256_message2 => _mm_sha256msg2_epu32;
    }
    binary_imm!(crypto::sha1_rounds => _mm_sha1rnds4_epu32: 0 1 2 3);
    let mut vectors = Vectors(5);
    for (a, b) in pairs() {
        let words = vectors.next();
        // SAFETY: the SHA extensions were detected above.
        let host = unsafe { _mm_sha256rnds2_epu32(native(&a), native(&b), native(&words)) };
        assert_eq!(crypto::sha256_rounds(&a, &b, &words), portable(host));
    }
}

/// Runs one control byte of the explicit and the implicit comparison on all vectors.
fn check_string_control<const IMM: i32>() {
    let imm = IMM as u8;
    for (a, b) in pairs() {
        let lengths = (a.low32() as i32 % 20, b.low32() as i32 % 20);
        let (x, y) = (native(&a), native(&b));
        let (la, lb) = lengths;
        let context = format!("{imm:#04x} {a:?} {b:?} {lengths:?}");
        // SAFETY: the caller detected SSE4.2.
        unsafe {
            let found = string_compare::explicit(&a, &b, la.into(), lb.into(), imm);
            assert_eq!(found.index(imm), _mm_cmpestri::<IMM>(x, la, y, lb) as u32, "index {context}");
            assert_eq!(found.mask(imm), portable(_mm_cmpestrm::<IMM>(x, la, y, lb)), "mask {context}");
            assert_eq!(found.cf, _mm_cmpestrc::<IMM>(x, la, y, lb) != 0, "CF {context}");
            assert_eq!(found.of, _mm_cmpestro::<IMM>(x, la, y, lb) != 0, "OF {context}");
            assert_eq!(found.sf, _mm_cmpestrs::<IMM>(x, la, y, lb) != 0, "SF {context}");
            assert_eq!(found.zf, _mm_cmpestrz::<IMM>(x, la, y, lb) != 0, "ZF {context}");
            let found = string_compare::implicit(&a, &b, imm);
            assert_eq!(found.index(imm), _mm_cmpistri::<IMM>(x, y) as u32, "implicit index {context}");
            assert_eq!(found.mask(imm), portable(_mm_cmpistrm::<IMM>(x, y)), "implicit mask {context}");
            assert_eq!(found.cf, _mm_cmpistrc::<IMM>(x, y) != 0, "implicit CF {context}");
            assert_eq!(found.sf, _mm_cmpistrs::<IMM>(x, y) != 0, "implicit SF {context}");
            assert_eq!(found.zf, _mm_cmpistrz::<IMM>(x, y) != 0, "implicit ZF {context}");
        }
    }
}

#[test]
fn string_comparison_with_every_format_aggregation_and_polarity() {
    has!("sse4.2");
    macro_rules! controls {
        ($($imm:literal)+) => { $(check_string_control::<$imm>();)+ };
    }
    controls! {
        0x00 0x01 0x02 0x03 0x04 0x05 0x06 0x07 0x08 0x09 0x0a 0x0b 0x0c 0x0d 0x0e 0x0f
        0x10 0x11 0x12 0x13 0x14 0x15 0x16 0x17 0x18 0x19 0x1a 0x1b 0x1c 0x1d 0x1e 0x1f
        0x30 0x31 0x32 0x33 0x34 0x35 0x36 0x37 0x38 0x39 0x3a 0x3b 0x3c 0x3d 0x3e 0x3f
        0x40 0x41 0x45 0x49 0x4d 0x52 0x66 0x70 0x75 0x78 0x7d
    }
}
