//! Random loops: addresses that go on by constants from round to round, across pages, and some that do not.

use super::WINDOW;
use super::program::Writer;

/// An instruction with an operand in memory and a register: the legacy prefix (0: none), escape bytes and opcode.
struct Form(u8, &'static [u8]);

const FORMS: &[Form] = &[
    Form(0, &[0x8b]),
    Form(0, &[0x89]),
    Form(0, &[0x03]),
    Form(0, &[0x01]),
    Form(0, &[0x3b]),
    Form(0, &[0x88]),
    Form(0x66, &[0x89]),
    Form(0, &[0x0f, 0xb6]),
    Form(0, &[0x0f, 0x44]),
    Form(0, &[0x0f, 0xaf]),
    Form(0, &[0x0f, 0xab]),
    Form(0, &[0x0f, 0xb1]),
    Form(0xf0, &[0x01]),
    Form(0xf2, &[0x0f, 0x10]),
    Form(0xf2, &[0x0f, 0x11]),
    Form(0xf2, &[0x0f, 0x58]),
    Form(0xf2, &[0x0f, 0x59]),
    Form(0xf3, &[0x0f, 0x7e]),
    Form(0x66, &[0x0f, 0x28]),
    Form(0x66, &[0x0f, 0x29]),
    Form(0x66, &[0x0f, 0xef]),
    Form(0, &[0x0f, 0x58]),
    Form(0, &[0x0f, 0x10]),
    Form(0, &[0x0f, 0x11]),
];

/// With VEX, in map 1: the third byte without vvvv, the opcode.
const VEX: &[(u8, u8)] = &[(1, 0x28), (1, 0x29), (5, 0x28), (5, 0x29), (5, 0x10), (5, 0x11), (5, 0x58), (3, 0x58)];

/// Of 64-bit code, and of 32-bit code.
const BASES: [&[u8]; 2] = [&[3, 5, 6, 7, 8, 9, 12, 13], &[3, 5, 6, 7]];
const INDICES: [&[u8]; 2] = [&[1, 2, 14, 10], &[1, 2]];
/// Counts rounds.
const COUNTER: u8 = 0;

/// A sum that several accesses of a loop have.
#[derive(Clone, Copy)]
struct Shape {
    base: Option<u8>,
    index: Option<u8>,
    scale: u8,
}

impl Writer<'_, '_> {
    fn one_of(&mut self, from: [&[u8]; 2]) -> u8 {
        let from = from[usize::from(!self.long)];
        from[usize::from(self.input.byte()) % from.len()]
    }

    fn shape(&mut self) -> Shape {
        let choice = self.input.byte();
        let base = (choice & 7 != 0).then(|| self.one_of(BASES));
        let index = (choice & 0x30 != 0 && base.is_some()).then(|| self.one_of(INDICES));
        Shape { base, index, scale: choice >> 6 }
    }

    /// Appends a loop.
    pub(super) fn rounds(&mut self) {
        let choice = self.input.byte();
        let rounds = u32::from(self.input.byte()) << if choice & 7 == 0 { 4 } else { 0 };
        // Without this, the code behind the loop may come back to it.
        if choice & 7 != 1 {
            self.code.push(0xb8 | COUNTER);
            self.code.extend(rounds.to_le_bytes());
        }
        let head = self.code.len();
        let shapes = [self.shape(), self.shape(), self.shape()];
        for _ in 0..=choice >> 5 {
            let what = self.input.byte();
            match what {
                0..=9 => self.instruction(),
                10..=19 => {
                    // Out of the loop, seldom.
                    let condition = [0, 10, 8][usize::from(what % 3)];
                    self.code.extend([0x70 | condition, self.input.byte() & 0x3f]);
                }
                20..=99 => self.go_on(),
                _ => self.access(shapes[usize::from(what) % 3]),
            }
        }
        // sub eax, 1; jnz head, or a jump to it.
        if choice & 0x18 == 0x18 {
            self.code.extend([0x83, 0xe8 | COUNTER, 1, 0x74, 5, 0xe9]);
        } else {
            self.code.extend([0x83, 0xe8 | COUNTER, 1, 0x0f, 0x85]);
        }
        let distance = head as i32 - (self.code.len() as i32 + 4);
        self.code.extend(distance.to_le_bytes());
    }

    /// A register goes on by a constant, or by another.
    fn go_on(&mut self) {
        let (choice, by) = (self.input.byte(), self.input.byte());
        let register = if choice & 1 == 0 { self.one_of(BASES) } else { self.one_of(INDICES) };
        let wide = u8::from(self.long && choice & 0x70 != 0) << 3;
        let (high, low) = (register >> 3, register & 7);
        if self.long {
            self.code.push(0x40 | wide | high);
        }
        // Mostly what keeps alignment.
        let by = if choice & 6 == 6 { by } else { [8, 16, 32, 0xf0, 0xf8, 64, 4, 0x70][usize::from(by & 7)] };
        match choice >> 1 & 3 {
            0 | 1 => self.code.extend([0x83, 0xc0 | low, by]),
            2 => self.code.extend([0x83, 0xe8 | low, by]),
            // add register, edx
            _ if by & 7 == 0 => self.code.extend([0x01, 0xd0 | low]),
            _ => self.code.extend([0x81, 0xc0 | low, by, by & 1, 0, 0]),
        }
    }

    fn access(&mut self, shape: Shape) {
        let (choice, which, place) = (self.input.byte(), self.input.byte(), self.input.byte());
        let register = [2, 10, 11, 3, 2, 1, 15, 2][usize::from(choice & 7)] & if self.long { 15 } else { 7 };
        let (r, field) = (register >> 3, (register & 7) << 3);
        let base = shape.base.unwrap_or(0);
        let index = shape.index.unwrap_or(0);
        let (x, b) = (index >> 3, base >> 3);
        if choice >= 0xe0 {
            let (third, opcode) = VEX[usize::from(which) % VEX.len()];
            let inverted = !(r << 7 | x << 6 | b << 5) & 0xe0;
            // Of 32-bit code R and X are set.
            self.code.extend([0xc4, inverted | 1, third | (if opcode == 0x58 { 15 ^ 3 } else { 15 }) << 3, opcode]);
        } else {
            let Form(prefix, opcode) = &FORMS[usize::from(which) % FORMS.len()];
            self.code.extend((*prefix != 0).then_some(*prefix));
            if self.long {
                self.code.push(0x40 | (choice >> 3 & 1) << 3 | r << 2 | x << 1 | b);
            }
            self.code.extend(*opcode);
        }
        let disp = if choice & 0x30 == 0 { place as i8 } else { (place as i8) & !15 };
        match (shape.base, shape.index) {
            (None, _) => {
                // RIP-relative, or absolute in 32-bit code.
                self.code.push(field | 5);
                let target = WINDOW + u64::from(place) * 0x10;
                let from = if self.long { self.start + self.code.len() as u64 + 4 } else { 0 };
                self.code.extend((target.wrapping_sub(from) as u32).to_le_bytes());
            }
            (_, Some(_)) => {
                self.code.extend([0x44 | field, shape.scale << 6 | (index & 7) << 3 | base & 7, disp as u8])
            }
            _ if choice & 0xc0 == 0 => {
                self.code.push(0x80 | field | base & 7);
                self.code.extend((base & 7 == 4).then_some(0x24));
                self.code.extend((i32::from(disp) * 8).to_le_bytes());
            }
            _ => {
                self.code.push(0x40 | field | base & 7);
                self.code.extend((base & 7 == 4).then_some(0x24));
                self.code.push(disp as u8);
            }
        }
    }
}
