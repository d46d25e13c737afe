//! PCMPESTRI, PCMPESTRM, PCMPISTRI and PCMPISTRM (SDM volume 1, section 4.1 of volume 2: the imm8 control byte).

use super::lanes::Xmm;

/// What a string comparison found, before it is turned into an index or a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// IntRes2: one bit for each element.
    pub bits: u16,
    /// How many elements a vector has: 16 bytes or 8 words.
    pub elements: u32,
    /// CF: something was found.
    pub cf: bool,
    /// ZF: the second string ends within its vector.
    pub zf: bool,
    /// SF: the first string ends within its vector.
    pub sf: bool,
    /// OF: bit 0 of the result.
    pub of: bool,
}

impl Found {
    /// The index for ECX: that of the lowest set bit, or of the highest if bit 6 of `imm` is set; the element count if none.
    pub fn index(&self, imm: u8) -> u32 {
        if self.bits == 0 {
            self.elements
        } else if imm & 0x40 == 0 {
            self.bits.trailing_zeros()
        } else {
            15 - self.bits.leading_zeros()
        }
    }

    /// The mask for XMM0: the bits themselves, or whole elements if bit 6 of `imm` is set.
    pub fn mask(&self, imm: u8) -> Xmm {
        if imm & 0x40 == 0 {
            Xmm::from_low(u64::from(self.bits))
        } else if self.elements == 16 {
            Xmm::from_u8s(core::array::from_fn(|i| if self.bits >> i & 1 != 0 { u8::MAX } else { 0 }))
        } else {
            Xmm::from_u16s(core::array::from_fn(|i| if self.bits >> i & 1 != 0 { u16::MAX } else { 0 }))
        }
    }
}

/// The elements of a vector in the format that bits 1:0 of `imm` name, widened so that one comparison serves all.
fn elements(vector: &Xmm, imm: u8) -> [i32; 16] {
    let mut out = [0; 16];
    match imm & 3 {
        0 => out = vector.u8s().map(i32::from),
        1 => out[..8].copy_from_slice(&vector.u16s().map(i32::from)),
        2 => out = vector.i8s().map(i32::from),
        _ => out[..8].copy_from_slice(&vector.i16s().map(i32::from)),
    }
    out
}

/// How many elements a vector holds in this format.
fn element_count(imm: u8) -> usize {
    if imm & 1 == 0 { 16 } else { 8 }
}

/// The explicit length of a PCMPESTR operand: the absolute value of a signed register, at most the element count.
fn explicit_length(register: i64, imm: u8) -> usize {
    register.unsigned_abs().min(element_count(imm) as u64) as usize
}

/// The implicit length of a PCMPISTR operand: the elements before the first zero.
fn implicit_length(vector: &Xmm, imm: u8) -> usize {
    let count = element_count(imm);
    elements(vector, imm)[..count].iter().position(|&element| element == 0).unwrap_or(count)
}

/// PCMPESTRI and PCMPESTRM: strings `a` and `b` with their lengths in EAX/RAX and EDX/RDX, sign-extended.
pub fn explicit(a: &Xmm, b: &Xmm, length_a: i64, length_b: i64, imm: u8) -> Found {
    compare(a, b, explicit_length(length_a, imm), explicit_length(length_b, imm), imm)
}

/// PCMPISTRI and PCMPISTRM: strings that a zero element ends.
pub fn implicit(a: &Xmm, b: &Xmm, imm: u8) -> Found {
    compare(a, b, implicit_length(a, imm), implicit_length(b, imm), imm)
}

fn compare(a: &Xmm, b: &Xmm, length_a: usize, length_b: usize, imm: u8) -> Found {
    let count = element_count(imm);
    let (a, b) = (elements(a, imm), elements(b, imm));
    let set = &a[..length_a];
    // Comparisons with elements beyond a string's end have fixed results (SDM, "valid/invalid override of comparisons").
    let found_at = |i: usize| match imm >> 2 & 3 {
        // Equal any: is b[i] one of the set a?
        0 => i < length_b && set.contains(&b[i]),
        // Ranges: is b[i] in one of the pairs of bounds in a? A pair without its upper bound does not count.
        1 => i < length_b && set.chunks_exact(2).any(|bounds| bounds[0] <= b[i] && b[i] <= bounds[1]),
        // Equal each: two ended strings are equal, one ended is not.
        2 => match (i < length_a, i < length_b) {
            (true, true) => a[i] == b[i],
            (false, false) => true,
            _ => false,
        },
        // Equal ordered: does a occur at b[i..]? Only what lies within the vector is looked at.
        _ => (0..length_a.min(count - i)).all(|k| i + k < length_b && a[k] == b[i + k]),
    };
    let bits = (0..count).fold(0u16, |bits, i| bits | u16::from(found_at(i)) << i);
    let all = (0xffff_u32 >> (16 - count)) as u16;
    let bits = match imm >> 4 & 3 {
        1 => bits ^ all,
        // Only the elements of b are negated.
        3 => bits ^ ((1u32 << length_b) - 1) as u16,
        _ => bits,
    };
    Found { bits, elements: count as u32, cf: bits != 0, zf: length_b < count, sf: length_a < count, of: bits & 1 != 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(s: &[u8]) -> Xmm {
        let mut bytes = [0; 16];
        bytes[..s.len()].copy_from_slice(s);
        Xmm(bytes)
    }

    #[test]
    fn equal_any_finds_the_first_member_of_the_set() {
        let found = implicit(&text(b"xyz"), &text(b"abcz"), 0);
        assert_eq!((found.bits, found.index(0)), (1 << 3, 3));
        assert!(found.cf && found.zf && found.sf && !found.of);
    }

    #[test]
    fn equal_ordered_finds_a_substring_and_the_prefix_that_the_end_cuts() {
        assert_eq!(implicit(&text(b"cd"), &text(b"abcd"), 0x0c).bits, 1 << 2);
        // The last element equals the first of the needle; the rest would lie beyond the vector.
        assert_eq!(implicit(&text(b"ab"), &text(b"...............a"), 0x0c).bits, 1 << 15);
        // An empty needle occurs everywhere.
        assert_eq!(implicit(&text(b""), &text(b"abc"), 0x0c).bits, 0xffff);
    }

    #[test]
    fn explicit_lengths_are_absolute_and_saturate() {
        let full = text(b"0123456789abcdef");
        assert_eq!(explicit(&full, &full, -3, i64::MIN, 0x08).bits, 0b111);
        assert!(!explicit(&full, &full, -3, i64::MIN, 0x08).zf);
    }

    #[test]
    fn masked_negation_leaves_elements_beyond_the_end() {
        let found = explicit(&text(b"a"), &text(b"ab"), 1, 2, 0x30);
        assert_eq!(found.bits, 0b10);
        assert_eq!(found.mask(0x70).0[..3], [0, 0xff, 0]);
    }
}
