//! AES, SHA and carry-less multiplication (SDM volume 2, the instruction of the same name; FIPS 197; FIPS 180-4).

use super::lanes::Xmm;

/// The product in GF(2^8) with the polynomial of AES, x^8 + x^4 + x^3 + x + 1.
const fn gf_multiply(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    while b != 0 {
        if b & 1 != 0 {
            product ^= a;
        }
        a = (a << 1) ^ (if a & 0x80 != 0 { 0x1b } else { 0 });
        b >>= 1;
    }
    product
}

/// The S-box: the inverse in GF(2^8), then the affine transformation (FIPS 197, 5.1.1).
const fn make_sbox() -> [u8; 256] {
    // 3 generates the multiplicative group, 0xf6 is its inverse: walk both and pair them.
    let mut sbox = [0x63; 256];
    let (mut power, mut inverse) = (1u8, 1u8);
    loop {
        let x = inverse;
        sbox[power as usize] = x ^ x.rotate_left(1) ^ x.rotate_left(2) ^ x.rotate_left(3) ^ x.rotate_left(4) ^ 0x63;
        power = gf_multiply(power, 3);
        inverse = gf_multiply(inverse, 0xf6);
        if power == 1 {
            return sbox;
        }
    }
}

const fn invert(sbox: &[u8; 256]) -> [u8; 256] {
    let mut inverse = [0; 256];
    let mut i = 0;
    while i < 256 {
        inverse[sbox[i] as usize] = i as u8;
        i += 1;
    }
    inverse
}

/// For each byte in row 0 of a column, its share of the column after (Inv)MixColumns; row `r` is this rotated by `8 * r`.
const fn make_mix(sbox: &[u8; 256], factors: [u8; 4]) -> [u32; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let s = sbox[i];
        table[i] = u32::from_le_bytes([
            gf_multiply(s, factors[0]),
            gf_multiply(s, factors[1]),
            gf_multiply(s, factors[2]),
            gf_multiply(s, factors[3]),
        ]);
        i += 1;
    }
    table
}

const fn make_identity() -> [u8; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        table[i] = i as u8;
        i += 1;
    }
    table
}

const INVERSE_MIX_FACTORS: [u8; 4] = [14, 9, 13, 11];
static SBOX: [u8; 256] = make_sbox();
static INVERSE_SBOX: [u8; 256] = invert(&make_sbox());
static ENCRYPT: [u32; 256] = make_mix(&make_sbox(), [2, 1, 1, 3]);
static DECRYPT: [u32; 256] = make_mix(&invert(&make_sbox()), INVERSE_MIX_FACTORS);
static INVERSE_MIX: [u32; 256] = make_mix(&make_identity(), INVERSE_MIX_FACTORS);

/// Byte (row, column) of the state after ShiftRows; `step` is 1, or 3 for the inverse.
#[inline(always)]
fn shifted(state: &Xmm, row: usize, column: usize, step: usize) -> usize {
    usize::from(state.0[row + 4 * ((column + step * row) % 4)])
}

#[inline(always)]
fn round(state: &Xmm, key: &Xmm, table: &[u32; 256], step: usize) -> Xmm {
    let key = key.u32s();
    Xmm::from_u32s(core::array::from_fn(|column| {
        (0..4).fold(key[column], |sum, row| sum ^ table[shifted(state, row, column, step)].rotate_left(8 * row as u32))
    }))
}

#[inline(always)]
fn last_round(state: &Xmm, key: &Xmm, sbox: &[u8; 256], step: usize) -> Xmm {
    Xmm(core::array::from_fn(|i| sbox[shifted(state, i % 4, i / 4, step)] ^ key.0[i]))
}

/// AESENC.
pub fn aes_encrypt(state: &Xmm, key: &Xmm) -> Xmm {
    round(state, key, &ENCRYPT, 1)
}

/// AESENCLAST.
pub fn aes_encrypt_last(state: &Xmm, key: &Xmm) -> Xmm {
    last_round(state, key, &SBOX, 1)
}

/// AESDEC.
pub fn aes_decrypt(state: &Xmm, key: &Xmm) -> Xmm {
    round(state, key, &DECRYPT, 3)
}

/// AESDECLAST.
pub fn aes_decrypt_last(state: &Xmm, key: &Xmm) -> Xmm {
    last_round(state, key, &INVERSE_SBOX, 3)
}

/// AESIMC.
pub fn aes_inverse_mix(key: &Xmm) -> Xmm {
    round(key, &Xmm::ZERO, &INVERSE_MIX, 0)
}

/// AESKEYGENASSIST; `imm` is the round constant.
pub fn aes_key_assist(key: &Xmm, imm: u8) -> Xmm {
    let words = key.u32s();
    let substitute = |word: u32| u32::from_le_bytes(word.to_le_bytes().map(|byte| SBOX[usize::from(byte)]));
    let (x1, x3) = (substitute(words[1]), substitute(words[3]));
    let constant = u32::from(imm);
    Xmm::from_u32s([x1, x1.rotate_right(8) ^ constant, x3, x3.rotate_right(8) ^ constant])
}

/// PCLMULQDQ: bit 0 of `imm` selects the half of `a`, bit 4 that of `b`.
pub fn carryless_multiply(a: &Xmm, b: &Xmm, imm: u8) -> Xmm {
    let a = u128::from(a.u64s()[usize::from(imm & 1)]);
    let b = b.u64s()[usize::from(imm >> 4 & 1)];
    // The multiples of `a` by all polynomials of four terms, then four bits of `b` at a time.
    let mut multiples = [0; 16];
    for i in 1..16 {
        multiples[i] = multiples[i / 2] << 1 ^ if i % 2 != 0 { a } else { 0 };
    }
    let product = (0..16).rev().fold(0, |product: u128, i| product << 4 ^ multiples[(b >> (4 * i) & 15) as usize]);
    Xmm::from_bits(product)
}

fn choose(x: u32, y: u32, z: u32) -> u32 {
    (x & y) ^ (!x & z)
}

fn majority(x: u32, y: u32, z: u32) -> u32 {
    (x & y) ^ (x & z) ^ (y & z)
}

/// SHA1RNDS4: four rounds with the function and constant that bits 1:0 of `imm` select.
pub fn sha1_rounds(abcd: &Xmm, words: &Xmm, imm: u8) -> Xmm {
    let [mut d, mut c, mut b, mut a] = abcd.u32s();
    let words = words.u32s();
    // E of the first round is already in the first word.
    let mut e = 0u32;
    for i in 0..4 {
        let (f, k) = match imm & 3 {
            0 => (choose(b, c, d), 0x5a82_7999),
            1 => (b ^ c ^ d, 0x6ed9_eba1),
            2 => (majority(b, c, d), 0x8f1b_bcdc_u32),
            _ => (b ^ c ^ d, 0xca62_c1d6),
        };
        let next = f.wrapping_add(a.rotate_left(5)).wrapping_add(words[3 - i]).wrapping_add(e).wrapping_add(k);
        (a, b, c, d, e) = (next, a, b.rotate_left(30), c, d);
    }
    Xmm::from_u32s([d, c, b, a])
}

/// SHA1NEXTE.
pub fn sha1_next_e(a: &Xmm, b: &Xmm) -> Xmm {
    let mut words = b.u32s();
    words[3] = words[3].wrapping_add(a.u32s()[3].rotate_left(30));
    Xmm::from_u32s(words)
}

/// SHA1MSG1.
pub fn sha1_message1(a: &Xmm, b: &Xmm) -> Xmm {
    let (x, y) = (a.u32s(), b.u32s());
    Xmm::from_u32s([y[2] ^ x[0], y[3] ^ x[1], x[0] ^ x[2], x[1] ^ x[3]])
}

/// SHA1MSG2.
pub fn sha1_message2(a: &Xmm, b: &Xmm) -> Xmm {
    let (x, y) = (a.u32s(), b.u32s());
    let w16 = (x[3] ^ y[2]).rotate_left(1);
    let w17 = (x[2] ^ y[1]).rotate_left(1);
    let w18 = (x[1] ^ y[0]).rotate_left(1);
    let w19 = (x[0] ^ w16).rotate_left(1);
    Xmm::from_u32s([w19, w18, w17, w16])
}

/// SHA256RNDS2: two rounds; `words` (XMM0) has the two words with their constants added.
pub fn sha256_rounds(cdgh: &Xmm, abef: &Xmm, words: &Xmm) -> Xmm {
    let [mut f, mut e, mut b, mut a] = abef.u32s();
    let [mut h, mut g, mut d, mut c] = cdgh.u32s();
    for word in &words.u32s()[..2] {
        let sum1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let sum0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let t1 = choose(e, f, g).wrapping_add(sum1).wrapping_add(*word).wrapping_add(h);
        let t2 = majority(a, b, c).wrapping_add(sum0);
        (a, b, c, d, e, f, g, h) = (t1.wrapping_add(t2), a, b, c, t1.wrapping_add(d), e, f, g);
    }
    let _ = (c, d, g, h);
    Xmm::from_u32s([f, e, b, a])
}

/// SHA256MSG1.
pub fn sha256_message1(a: &Xmm, b: &Xmm) -> Xmm {
    let sigma = |x: u32| x.rotate_right(7) ^ x.rotate_right(18) ^ x >> 3;
    let (x, y) = (a.u32s(), b.u32s());
    let next = [x[1], x[2], x[3], y[0]];
    Xmm::from_u32s(core::array::from_fn(|i| x[i].wrapping_add(sigma(next[i]))))
}

/// SHA256MSG2.
pub fn sha256_message2(a: &Xmm, b: &Xmm) -> Xmm {
    let sigma = |x: u32| x.rotate_right(17) ^ x.rotate_right(19) ^ x >> 10;
    let (x, y) = (a.u32s(), b.u32s());
    let w16 = x[0].wrapping_add(sigma(y[2]));
    let w17 = x[1].wrapping_add(sigma(y[3]));
    let w18 = x[2].wrapping_add(sigma(w16));
    let w19 = x[3].wrapping_add(sigma(w17));
    Xmm::from_u32s([w16, w17, w18, w19])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sbox_is_that_of_fips_197() {
        assert_eq!(SBOX[..4], [0x63, 0x7c, 0x77, 0x7b]);
        assert_eq!((SBOX[0x53], SBOX[0xff]), (0xed, 0x16));
    }
}
