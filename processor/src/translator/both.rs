//! For tests: one instruction by both engines.

use crate::state::CpuState;
use crate::testing::Machine;

pub(super) const CODE: u64 = 0x8000;
pub(super) const DATA: u64 = 0x9000;
const HANDLER: u64 = 0xb000;

pub(super) struct Random(pub u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 32) % limit
    }

    /// A quadword that holds numbers worth a test: of 32 or 64 bits, special or near to one another, or anything.
    pub(super) fn operand(&mut self, wide: bool) -> u64 {
        const SINGLE: [u32; 16] = [
            0,
            0x8000_0000,
            0x3f80_0000,
            0xbf80_0000,
            0x7f80_0000,
            0xff80_0000,
            0x7fc0_0001,
            0xffc1_2345,
            0x7f80_0001,
            0xffa0_0000,
            1,
            0x807f_ffff,
            0x0080_0000,
            0x7f7f_ffff,
            0x4f00_0000,
            0x4b80_0001,
        ];
        const DOUBLE: [u64; 16] = [
            0,
            1 << 63,
            0x3ff0_0000_0000_0000,
            0xbff0_0000_0000_0000,
            0x7ff0_0000_0000_0000,
            0xfff0_0000_0000_0000,
            0x7ff8_0000_0000_0001,
            0xfff8_1234_0000_0000,
            0x7ff0_0000_0000_0001,
            0xfff4_0000_0000_0000,
            1,
            0x800f_ffff_ffff_ffff,
            0x0010_0000_0000_0000,
            0x7fef_ffff_ffff_ffff,
            0x41e0_0000_0000_0000,
            0x43e0_0000_0000_0000,
        ];
        let (a, b) = (self.below(16) as usize, self.below(16) as usize);
        match (self.below(4), wide) {
            (0 | 1, true) => DOUBLE[a],
            (0 | 1, false) => u64::from(SINGLE[a]) | u64::from(SINGLE[b]) << 32,
            (2, true) => (0x3ff0_0000_0000_0000 + (self.below(64) << 52)).wrapping_sub(16 << 52) | self.next() >> 12,
            (2, false) => {
                let mut half =
                    || (0x3f80_0000u32 + ((self.below(32) as u32) << 23) - (8 << 23)) | (self.next() as u32 >> 9);
                u64::from(half()) | u64::from(half()) << 32
            }
            _ => self.next(),
        }
    }
}

/// The code of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Long64,
    Protected,
}

impl Mode {
    /// 32 or 64.
    pub(super) fn bits(self) -> u32 {
        match self {
            Self::Long64 => 64,
            Self::Protected => 32,
        }
    }
}

/// A machine with its SSE and AVX enabled, whose exceptions end in a loop at [`HANDLER`].
pub(super) fn machine(mode: Mode, translator: bool) -> Machine {
    let mut machine = match mode {
        Mode::Long64 => Machine::long(),
        Mode::Protected => Machine::protected(),
    };
    for vector in [6, 7, 13, 14, 19] {
        machine.idt(vector, 8, HANDLER, 0x8e);
    }
    machine.write(HANDLER, &[0xeb, 0xfe]);
    machine.cpu.cr4 |= 1 << 9 | 1 << 10 | 1 << 18;
    machine.cpu.xcr0 = 7;
    machine.cpu.mode_changed();
    if translator {
        assert!(machine.cpu.use_translator() && machine.code.use_translator());
    }
    machine
}

/// All that one instruction starts from.
pub(super) struct Case {
    pub bytes: Vec<u8>,
    pub state: CpuState,
    pub data: Vec<u8>,
}

/// What it leads to.
pub(super) fn outcome(machine: &mut Machine, case: &Case) -> (CpuState, Vec<u8>) {
    outcome_after(machine, case, 3)
}

/// What several lead to, after so many instructions.
pub(super) fn outcome_after(machine: &mut Machine, case: &Case, instructions: u64) -> (CpuState, Vec<u8>) {
    machine.cpu.restore(&case.state);
    machine.write(DATA, &case.data);
    let mut code = case.bytes.clone();
    code.extend([0x90, 0xeb, 0xfe]);
    machine.write(CODE, &code);
    let until = machine.cpu.now() + instructions;
    machine.cpu.run(&mut machine.code, until);
    let mut data = vec![0; case.data.len()];
    machine.cpu.ram.read(DATA, &mut data);
    (machine.cpu.save(), data)
}
