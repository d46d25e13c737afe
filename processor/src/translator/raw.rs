//! An instruction's bytes, taken apart: prefixes, opcode, ModRM, immediate.

/// The parts that emitting it again needs. The displacement is left out: addresses are made anew.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raw<'a> {
    /// 66, F2, F3 and F0 in their order; the first `prefix_count`.
    prefixes: [u8; 4],
    prefix_count: usize,
    /// REX, 0 for none.
    pub rex: u8,
    /// Map, pp, W and L of a VEX prefix, and its vvvv.
    pub vex: Option<Vex>,
    /// Escape bytes (not with VEX) and the opcode.
    pub opcode: &'a [u8],
    /// ModRM, if it has one.
    pub modrm: Option<u8>,
    /// What follows ModRM, SIB and displacement.
    pub immediate: &'a [u8],
}

/// A VEX prefix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vex {
    pub map: u8,
    pub pp: u8,
    pub wide: bool,
    pub long: bool,
    /// Not inverted.
    pub v: u8,
}

impl<'a> Raw<'a> {
    /// Takes a valid 64-bit instruction apart. `None` for encodings that are not emitted again (EVEX, XOP).
    pub(super) fn parse(bytes: &'a [u8], has_modrm: bool) -> Option<Self> {
        let mut at = 0;
        let mut rex = 0;
        let (mut prefixes, mut prefix_count) = ([0; 4], 0);
        loop {
            match *bytes.get(at)? {
                prefix @ (0x66 | 0xf2 | 0xf3 | 0xf0) => {
                    rex = 0;
                    if !prefixes[..prefix_count].contains(&prefix) {
                        *prefixes.get_mut(prefix_count)? = prefix;
                        prefix_count += 1;
                    }
                }
                0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0x67 => rex = 0,
                // Only one that comes last counts.
                prefix @ 0x40..=0x4f => rex = prefix,
                _ => break,
            }
            at += 1;
        }
        let mut vex = None;
        let start;
        match *bytes.get(at)? {
            0xc4 => {
                let (first, second) = (*bytes.get(at + 1)?, *bytes.get(at + 2)?);
                rex = 0x40 | (!first >> 5 & 7);
                vex = Some(Vex {
                    map: first & 31,
                    pp: second & 3,
                    wide: second & 0x80 != 0,
                    long: second & 4 != 0,
                    v: !second >> 3 & 15,
                });
                start = at + 3;
                at += 4;
            }
            0xc5 => {
                let first = *bytes.get(at + 1)?;
                rex = 0x40 | (!first >> 7 & 1) << 2;
                vex = Some(Vex { map: 1, pp: first & 3, wide: false, long: first & 4 != 0, v: !first >> 3 & 15 });
                start = at + 2;
                at += 3;
            }
            0x62 => return None,
            0x0f => {
                start = at;
                at += if matches!(*bytes.get(at + 1)?, 0x38 | 0x3a) { 3 } else { 2 };
            }
            _ => {
                start = at;
                at += 1;
            }
        }
        let opcode = bytes.get(start..at)?;
        let mut modrm = None;
        if has_modrm {
            let byte = *bytes.get(at)?;
            modrm = Some(byte);
            at += 1;
            if byte < 0xc0 {
                let mut disp = match byte & 0xc0 {
                    0x40 => 1,
                    0x80 => 4,
                    _ if byte & 7 == 5 => 4,
                    _ => 0,
                };
                if byte & 7 == 4 {
                    let sib = *bytes.get(at)?;
                    at += 1;
                    if byte < 0x40 && sib & 7 == 5 {
                        disp = 4;
                    }
                }
                at += disp;
            }
        }
        Some(Self { prefixes, prefix_count, rex, vex, opcode, modrm, immediate: bytes.get(at..)? })
    }

    /// The same prefixes and operands with another opcode and immediate.
    pub(super) fn with<'b>(&self, opcode: &'b [u8], immediate: &'b [u8]) -> Raw<'b> {
        Raw { opcode, immediate, ..*self }
    }

    /// The prefixes to emit again.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = u8> {
        // Before opcodes of one byte F2 and F3 are hints, or nothing.
        let select = self.opcode.len() > 1;
        self.prefixes[..self.prefix_count]
            .iter()
            .copied()
            .filter(move |prefix| select || !matches!(prefix, 0xf2 | 0xf3))
    }

    /// REX.W.
    pub(super) fn wide(&self) -> bool {
        self.rex & 8 != 0
    }

    /// The reg field with REX.R.
    pub(super) fn reg(&self) -> u8 {
        self.modrm.unwrap_or(0) >> 3 & 7 | (self.rex & 4) << 1
    }

    /// The r/m field, naming a register, with REX.B.
    pub(super) fn rm(&self) -> u8 {
        self.modrm.unwrap_or(0) & 7 | (self.rex & 1) << 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found() {
        // lock add word [r12 + rbx * 4 + 0x12345678], 0x1234
        let raw = Raw::parse(&[0xf0, 0x66, 0x41, 0x81, 0x84, 0x9c, 0x78, 0x56, 0x34, 0x12, 0x34, 0x12], true).unwrap();
        assert_eq!(raw.prefixes().collect::<Vec<_>>(), [0xf0, 0x66]);
        assert_eq!((raw.rex, raw.opcode), (0x41, &[0x81][..]));
        assert_eq!((raw.reg(), raw.immediate), (0, &[0x34, 0x12][..]));
        // vpshufd ymm9, [rip + 4], 5
        let raw = Raw::parse(&[0xc5, 0x7d, 0x70, 0x0d, 4, 0, 0, 0, 5], true).unwrap();
        let vex = raw.vex.unwrap();
        assert_eq!((vex.map, vex.pp, vex.long, vex.wide, vex.v), (1, 1, true, false, 0));
        assert_eq!((raw.reg(), raw.opcode, raw.immediate), (9, &[0x70][..], &[5][..]));
        // mulx r9, r10, r11
        let raw = Raw::parse(&[0xc4, 0x42, 0xab, 0xf6, 0xcb], true).unwrap();
        let vex = raw.vex.unwrap();
        assert_eq!((vex.map, vex.pp, vex.wide, vex.v), (2, 3, true, 10));
        assert_eq!((raw.reg(), raw.rm()), (9, 11));
        // REX prefixes that do not count: or r9b, [rsi]
        let raw = Raw::parse(&[0x4f, 0x3e, 0x48, 0x44, 0x0a, 0x0e], true).unwrap();
        assert_eq!((raw.rex, raw.opcode, raw.reg()), (0x44, &[0x0a][..], 9));
        let raw = Raw::parse(&[0x4f, 0x66, 0x0b, 0x0e], true).unwrap();
        assert_eq!((raw.rex, raw.opcode, raw.reg()), (0, &[0x0b][..], 1));
    }
}
