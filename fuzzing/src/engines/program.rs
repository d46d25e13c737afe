//! Random code: mostly valid instructions whose memory operands mostly lie where there is memory.

use super::WINDOW;
use crate::input::Input;

/// What follows an opcode.
#[derive(Clone, Copy)]
enum Tail {
    /// Nothing.
    None,
    /// ModRM.
    M,
    /// ModRM and an immediate byte.
    M8,
    /// ModRM and an immediate of the operand size, at most 4 bytes.
    Mz,
    /// ModRM; the immediate of TEST with the lower extensions: one byte, or of the operand size.
    Test8,
    Testz,
    /// Immediates of one and two bytes, of the operand size (at most 4 bytes), of the operand size.
    I8,
    I16,
    Iz,
    Iv,
    /// The operands of ENTER.
    Enter,
    /// An address as wide as the code has them.
    Offset,
    /// Displacements of branches.
    Short,
    Near,
}

use Tail::{Enter, I8, I16, Iv, Iz, M, M8, Mz, Near, Offset, Short, Test8, Testz};

/// Opcodes from the first to the last, their escape bytes, what follows.
struct Group(&'static [u8], u8, u8, Tail);

/// Drawn from most of the time.
const COMMON: &[Group] = &[
    Group(&[], 0x00, 0x03, M),
    Group(&[], 0x08, 0x0b, M),
    Group(&[], 0x10, 0x13, M),
    Group(&[], 0x18, 0x1b, M),
    Group(&[], 0x20, 0x23, M),
    Group(&[], 0x28, 0x2b, M),
    Group(&[], 0x30, 0x33, M),
    Group(&[], 0x38, 0x3b, M),
    Group(&[], 0x80, 0x80, M8),
    Group(&[], 0x81, 0x81, Mz),
    Group(&[], 0x83, 0x83, M8),
    Group(&[], 0x84, 0x8b, M),
    Group(&[], 0x88, 0x8b, M),
    Group(&[], 0x8d, 0x8d, M),
    Group(&[], 0x50, 0x5f, Tail::None),
    Group(&[], 0x70, 0x7f, Short),
    Group(&[], 0xc0, 0xc1, M8),
    Group(&[], 0xd0, 0xd3, M),
    Group(&[], 0xf6, 0xf6, Test8),
    Group(&[], 0xf7, 0xf7, Testz),
    Group(&[], 0xfe, 0xff, M),
    Group(&[], 0x69, 0x69, Mz),
    Group(&[], 0x6b, 0x6b, M8),
    Group(&[0x0f], 0x40, 0x4f, M),
    Group(&[0x0f], 0x90, 0x9f, M),
    Group(&[0x0f], 0xa3, 0xa3, M),
    Group(&[0x0f], 0xab, 0xab, M),
    Group(&[0x0f], 0xaf, 0xaf, M),
    Group(&[0x0f], 0xb6, 0xb8, M),
    Group(&[0x0f], 0xba, 0xba, M8),
    Group(&[0x0f], 0xbb, 0xbf, M),
    Group(&[0x0f], 0xa4, 0xa4, M8),
    Group(&[0x0f], 0xac, 0xac, M8),
];

/// Drawn from now and then.
const RARE: &[Group] = &[
    Group(&[], 0x04, 0x04, I8),
    Group(&[], 0x15, 0x15, Iz),
    Group(&[], 0x63, 0x63, M),
    Group(&[], 0x68, 0x68, Iz),
    Group(&[], 0x6a, 0x6a, I8),
    Group(&[], 0x8c, 0x8f, M),
    Group(&[], 0x90, 0x99, Tail::None),
    Group(&[], 0x9b, 0x9f, Tail::None),
    Group(&[], 0xa0, 0xa3, Offset),
    Group(&[], 0xa4, 0xa7, Tail::None),
    Group(&[], 0xa8, 0xa8, I8),
    Group(&[], 0xa9, 0xa9, Iz),
    Group(&[], 0xaa, 0xaf, Tail::None),
    Group(&[], 0xb0, 0xb7, I8),
    Group(&[], 0xb8, 0xbf, Iv),
    Group(&[], 0xc2, 0xc2, I16),
    Group(&[], 0xc3, 0xc3, Tail::None),
    Group(&[], 0xc6, 0xc6, M8),
    Group(&[], 0xc7, 0xc7, Mz),
    Group(&[], 0xc9, 0xc9, Tail::None),
    Group(&[], 0xcc, 0xcc, Tail::None),
    Group(&[], 0xcf, 0xcf, Tail::None),
    Group(&[], 0xd7, 0xd7, Tail::None),
    Group(&[], 0xd8, 0xdf, M),
    Group(&[], 0xe0, 0xe3, Short),
    Group(&[], 0xe4, 0xe7, I8),
    Group(&[], 0xe8, 0xe9, Near),
    Group(&[], 0xeb, 0xeb, Short),
    Group(&[], 0xec, 0xef, Tail::None),
    Group(&[], 0xf4, 0xf5, Tail::None),
    Group(&[], 0xf8, 0xfd, Tail::None),
    Group(&[0x0f], 0x00, 0x01, M),
    Group(&[0x0f], 0x05, 0x06, Tail::None),
    Group(&[0x0f], 0x08, 0x09, Tail::None),
    Group(&[0x0f], 0x0b, 0x0b, Tail::None),
    Group(&[0x0f], 0x0d, 0x0d, M),
    Group(&[0x0f], 0x10, 0x17, M),
    Group(&[0x0f], 0x18, 0x1f, M),
    Group(&[0x0f], 0x20, 0x23, M),
    Group(&[0x0f], 0x28, 0x2f, M),
    Group(&[0x0f], 0x30, 0x33, Tail::None),
    Group(&[0x0f], 0x50, 0x6f, M),
    Group(&[0x0f], 0x70, 0x73, M8),
    Group(&[0x0f], 0x74, 0x76, M),
    Group(&[0x0f], 0x7c, 0x7f, M),
    Group(&[0x0f], 0x80, 0x8f, Near),
    Group(&[0x0f], 0xa2, 0xa2, Tail::None),
    Group(&[0x0f], 0xa5, 0xa5, M),
    Group(&[0x0f], 0xad, 0xae, M),
    Group(&[0x0f], 0xb0, 0xb3, M),
    Group(&[0x0f], 0xc0, 0xc1, M),
    Group(&[0x0f], 0xc2, 0xc2, M8),
    Group(&[0x0f], 0xc3, 0xc3, M),
    Group(&[0x0f], 0xc4, 0xc6, M8),
    Group(&[0x0f], 0xc7, 0xc7, M),
    Group(&[0x0f], 0xc8, 0xcf, Tail::None),
    Group(&[0x0f], 0xd0, 0xfe, M),
    Group(&[0x0f, 0x38], 0x00, 0x0b, M),
    Group(&[0x0f, 0x38], 0x10, 0x41, M),
    Group(&[0x0f, 0x38], 0xc8, 0xcd, M),
    Group(&[0x0f, 0x38], 0xdb, 0xdf, M),
    Group(&[0x0f, 0x38], 0xf0, 0xf1, M),
    Group(&[0x0f, 0x38], 0xf6, 0xf6, M),
    Group(&[0x0f, 0x3a], 0x08, 0x17, M8),
    Group(&[0x0f, 0x3a], 0x20, 0x22, M8),
    Group(&[0x0f, 0x3a], 0x40, 0x44, M8),
    Group(&[0x0f, 0x3a], 0x60, 0x63, M8),
];

/// The same, of what kernels use on their ways in and out.
const SYSTEM: &[Group] = &[
    Group(&[0x0f], 0x31, 0x31, Tail::None),
    Group(&[0x0f], 0x31, 0x31, Tail::None),
    Group(&[0x0f, 0x01], 0xca, 0xcb, Tail::None),
    Group(&[0x0f, 0x01], 0xca, 0xcb, Tail::None),
    Group(&[0x0f, 0x01], 0xf8, 0xf9, Tail::None),
    Group(&[], 0xfa, 0xfd, Tail::None),
    Group(&[], 0x9c, 0x9d, Tail::None),
    Group(&[], 0x8c, 0x8c, M),
    Group(&[], 0xcf, 0xcf, Tail::None),
    Group(&[0x0f], 0x00, 0x00, M),
    Group(&[0x0f], 0x05, 0x07, Tail::None),
    Group(&[0x0f], 0x20, 0x22, M),
    Group(&[0x0f], 0x30, 0x32, Tail::None),
    Group(&[0xf3, 0x0f], 0xae, 0xae, M),
];

/// The same of 32-bit code alone.
const OLD: &[Group] = &[
    Group(&[], 0x40, 0x4f, Tail::None),
    Group(&[], 0x40, 0x4f, Tail::None),
    Group(&[], 0xa0, 0xa3, Offset),
    Group(&[], 0x60, 0x61, Tail::None),
    Group(&[], 0x06, 0x07, Tail::None),
    Group(&[], 0x1e, 0x1f, Tail::None),
    Group(&[], 0x27, 0x27, Tail::None),
    Group(&[], 0x82, 0x82, M8),
    Group(&[], 0x8e, 0x8e, M),
    Group(&[], 0xc8, 0xc8, Enter),
    Group(&[], 0xd4, 0xd5, I8),
    Group(&[0x0f], 0xa8, 0xa9, Tail::None),
    Group(&[0x0f], 0xb2, 0xb5, M),
];

/// With VEX: the map, opcodes from the first to the last, what follows.
const VEX: &[(u8, u8, u8, Tail)] = &[
    (2, 0xf2, 0xf3, M),
    (2, 0xf5, 0xf7, M),
    (2, 0xf5, 0xf7, M),
    (3, 0xf0, 0xf0, M8),
    (1, 0x10, 0x17, M),
    (1, 0x28, 0x2f, M),
    (1, 0x50, 0x6f, M),
    (1, 0x70, 0x73, M8),
    (1, 0x74, 0x76, M),
    (1, 0x77, 0x77, Tail::None),
    (1, 0x7c, 0x7f, M),
    (1, 0xc2, 0xc2, M8),
    (1, 0xc4, 0xc6, M8),
    (1, 0xd0, 0xfe, M),
    (2, 0x00, 0x1e, M),
    (2, 0x20, 0x47, M),
    (2, 0x58, 0x5a, M),
    (2, 0x78, 0x79, M),
    (2, 0x8c, 0x8e, M),
    (2, 0x90, 0xbf, M),
    (2, 0xdb, 0xdf, M),
    (3, 0x00, 0x0f, M8),
    (3, 0x14, 0x19, M8),
    (3, 0x20, 0x22, M8),
    (3, 0x38, 0x4c, M8),
    (3, 0x60, 0x63, M8),
];

/// Registers that hold addresses at first; RCX and RDX hold small numbers.
pub(super) const POINTERS: [u8; 10] = [3, 5, 6, 7, 8, 9, 12, 13, 14, 15];
/// Registers that results mostly go to.
const RESULTS: [u8; 8] = [0, 2, 10, 11, 0, 1, 10, 0];

/// Writes code.
pub(super) struct Writer<'a, 'b> {
    pub input: &'a mut Input<'b>,
    /// The code so far.
    pub code: Vec<u8>,
    /// Linear address of its first byte.
    pub start: u64,
    /// 64-bit code; else 32-bit.
    pub long: bool,
    /// The reg field of the last ModRM byte.
    reg: u8,
}

impl<'a, 'b> Writer<'a, 'b> {
    pub(super) fn new(input: &'a mut Input<'b>, start: u64, long: bool) -> Self {
        Self { input, code: Vec::with_capacity(256), start, long, reg: 0 }
    }

    /// Appends one instruction.
    pub(super) fn instruction(&mut self) {
        let choice = self.input.byte();
        if choice >= 250 {
            // Anything.
            let bytes = self.input.bytes(usize::from(choice - 249)).to_vec();
            return self.code.extend(bytes);
        }
        if choice >= 225 {
            return self.vex();
        }
        let groups = match choice {
            0..=149 => COMMON,
            150..=169 if !self.long => OLD,
            170..=184 => SYSTEM,
            _ => RARE,
        };
        let Group(escape, first, last, tail) = groups[usize::from(self.input.byte()) % groups.len()];
        let opcode = first + self.input.byte() % (last - first + 1);
        let prefixes = self.input.byte();
        let mut wide = 4;
        if prefixes & 7 == 0 {
            self.code.push(0x66);
            wide = 2;
        }
        if prefixes & 0x38 == 0x08 || groups.len() == RARE.len() && prefixes & 0x30 == 0x30 {
            self.code.push(0xf2 | prefixes >> 6 & 1);
        }
        match prefixes & 0xf8 {
            0x10 => self.code.push(0xf0),
            0x20 => self.code.push(0x64),
            0x40 => self.code.push(0x65),
            0x60 => self.code.push(0x67),
            0x80 => self.code.push([0x26, 0x2e, 0x36, 0x3e][usize::from(prefixes & 3)]),
            _ => {}
        }
        let extended = self.input.byte();
        let rex = self.long && extended & 3 != 0;
        let at = self.code.len();
        if rex {
            self.code.push(0x40 | (extended & 4) << 1);
            if extended & 4 != 0 {
                wide = 8;
            }
        }
        self.code.extend(escape);
        self.code.push(opcode);
        let bits = match tail {
            M | M8 | Mz | Test8 | Testz => self.modrm(rex),
            _ => 0,
        };
        if rex {
            self.code[at] |= bits | if matches!(tail, Tail::None | I8 | Iv) { extended >> 7 } else { 0 };
        }
        let immediate = match tail {
            Tail::None | M => 0,
            M8 | I8 => 1,
            I16 => 2,
            Mz | Iz => wide.min(4),
            Iv => wide,
            Test8 | Testz if self.reg & 7 > 1 => 0,
            Test8 => 1,
            Testz => wide.min(4),
            Enter => {
                let sizes = self.input.bytes(2);
                let sizes = [sizes.first().copied().unwrap_or(0), sizes.last().copied().unwrap_or(0)];
                // Bytes on the stack, the nesting level.
                return self.code.extend([sizes[0], 0, sizes[1] & 3]);
            }
            Offset => {
                let address = WINDOW + self.input.number(2) % 0x1_8000;
                let bytes = if self.long { 8 } else { 4 };
                return self.code.extend(&address.to_le_bytes()[..bytes]);
            }
            Short => {
                let choice = self.input.byte();
                let distance = if choice & 7 == 0 { -i64::from(choice >> 1) } else { i64::from(choice >> 3) };
                return self.code.push(distance as u8);
            }
            Near => {
                let target = super::SUBROUTINES.wrapping_add(self.input.number(2) % 0x1000);
                let next = self.start + self.code.len() as u64 + 4;
                return self.code.extend(&(target.wrapping_sub(next) as u32).to_le_bytes());
            }
        };
        self.immediate(immediate);
    }

    /// Ends the code: back to its start, or with HLT.
    pub(super) fn end(&mut self, again: bool) {
        if again {
            let next = self.code.len() + 5;
            self.code.push(0xe9);
            self.code.extend((-(next as i32)).to_le_bytes());
        } else {
            self.code.push(0xf4);
        }
    }

    fn immediate(&mut self, size: usize) {
        if size == 0 {
            return;
        }
        let small = self.input.byte();
        let value = if small & 3 == 0 { self.input.number(8) } else { u64::from(small >> 2) };
        self.code.extend(&value.to_le_bytes()[..size]);
    }

    fn register(&mut self) -> u8 {
        let choice = self.input.byte();
        let register = if choice < 200 { RESULTS[usize::from(choice & 7)] } else { choice & 15 };
        if self.long { register } else { register & 7 }
    }

    fn pointer(&mut self) -> u8 {
        let choice = self.input.byte();
        let register = if choice < 240 { POINTERS[usize::from(choice) % POINTERS.len()] } else { choice & 15 };
        if self.long { register } else { register & 7 }
    }

    /// Writes ModRM, SIB and displacement; gives REX.R, X and B.
    fn modrm(&mut self, rex: bool) -> u8 {
        let cut = |register: u8| if rex { register } else { register & 7 };
        let choice = self.input.byte();
        let reg = cut(if choice & 1 == 0 { self.register() } else { choice >> 4 });
        self.reg = reg;
        let (r, field) = ((reg >> 3) << 2, (reg & 7) << 3);
        let near = u32::from(self.input.byte());
        match choice >> 1 & 7 {
            0..=3 => {
                let rm = cut(self.register());
                self.code.push(0xc0 | field | rm & 7);
                r | rm >> 3
            }
            // RIP-relative, or an absolute address in 32-bit code.
            4 if near & 3 == 0 => {
                self.code.push(field | 5);
                let target = WINDOW + u64::from(near) * 0x101;
                let base = if self.long { self.start + self.code.len() as u64 + 4 } else { 0 };
                self.code.extend(&(target.wrapping_sub(base) as u32).to_le_bytes());
                r
            }
            4 => {
                // No base, or no base and no index.
                let index = if near & 4 == 0 { 4 } else { 1 };
                self.code.extend([field | 4, index << 3 | 5]);
                self.code.extend(&(WINDOW as u32 + near * 0x3f).to_le_bytes());
                r
            }
            5 => {
                let base = cut(self.pointer());
                let index = if near & 8 == 0 { 1 } else { 2 };
                self.code.extend([0x44 | field, (near as u8 & 3) << 6 | index << 3 | base & 7, near as u8 >> 3]);
                r | base >> 3
            }
            form => {
                let base = cut(self.pointer());
                let sib = (base & 7 == 4).then_some(0x24);
                let mode = if form == 6 && base & 7 != 5 {
                    0
                } else if near & 1 == 0 {
                    0x40
                } else {
                    0x80
                };
                self.code.push(mode | field | base & 7);
                self.code.extend(sib);
                match mode {
                    0x40 => self.code.push((near >> 1) as u8),
                    0x80 => self.code.extend(&(near as i8 as i32).to_le_bytes()),
                    _ => {}
                }
                r | base >> 3
            }
        }
    }

    fn vex(&mut self) {
        let (map, first, last, tail) = VEX[usize::from(self.input.byte()) % VEX.len()];
        let opcode = first + self.input.byte() % (last - first + 1);
        let third = self.input.byte();
        let at = self.code.len();
        // W, vvvv (mostly of a general register that may be used), L mostly 0, pp.
        let long = u8::from(third & 0x44 == 0x44) << 2;
        let v = self.register();
        self.code.extend([0xc4, 0, third & 0x83 | (!v & 15) << 3 | long, opcode]);
        let bits = if matches!(tail, Tail::None) { 0 } else { self.modrm(self.long) };
        let inverted = !((bits >> 2 & 1) << 7 | (bits >> 1 & 1) << 6 | (bits & 1) << 5) & 0xe0;
        self.code[at + 1] = inverted | map;
        if matches!(tail, M8) {
            self.immediate(1);
        }
    }
}
