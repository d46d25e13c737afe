//! The kinds of code that are translated: 64-bit code, and 32-bit code with flat segments.

use crate::cpu::{Cpu, Mode};
use crate::segment::{BIG, CODE, CS, DS, ES, EXPAND_DOWN, SS, Segment, UNUSABLE, WRITABLE};
use iced_x86::Register;

/// A kind of code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    /// 32-bit code, of protected or compatibility mode, whose CS, SS, DS and ES have base 0 and all of 4 GiB.
    Flat32,
    /// 64-bit code.
    Long64,
}

/// How many there are.
pub(crate) const WIDTHS: usize = 2;

impl Width {
    /// Of blocks decoded for a code size (0, 1, 2: 16, 32, 64 bits); `None` for 16.
    pub(crate) fn of_code_size(size: u8) -> Option<Self> {
        match size {
            1 => Some(Self::Flat32),
            2 => Some(Self::Long64),
            _ => None,
        }
    }

    /// Bytes that CALL pushes.
    pub(super) fn bytes(self) -> u32 {
        match self {
            Self::Flat32 => 4,
            Self::Long64 => 8,
        }
    }

    /// Addresses have 64 bits.
    pub(super) fn wide(self) -> bool {
        self == Self::Long64
    }

    /// A general register as wide as addresses.
    pub(super) fn is_address(self, register: Register) -> bool {
        match self {
            Self::Flat32 => register.is_gpr32(),
            Self::Long64 => register.is_gpr64(),
        }
    }
}

/// Every offset may be loaded and stored to (SDM Vol 3A, 5.3 and 5.4).
fn whole(segment: &Segment) -> bool {
    segment.limit == u32::MAX && segment.access & (CODE | EXPAND_DOWN | WRITABLE | UNUSABLE) == WRITABLE
}

impl Cpu {
    /// What kind of code the processor executes; `None` if it is not translated.
    #[inline]
    pub(crate) fn native_width(&self) -> Option<Width> {
        match self.mode {
            Mode::Long64 => Some(Width::Long64),
            Mode::Protected | Mode::Compatibility if self.is_flat() => Some(Width::Flat32),
            _ => None,
        }
    }

    fn is_flat(&self) -> bool {
        let flat = |register: usize| self.segs[register].base == 0 && whole(&self.segs[register]);
        let code = &self.segs[CS];
        code.access & BIG != 0
            && (code.base, code.limit) == (0, u32::MAX)
            && self.segs[SS].access & BIG != 0
            && flat(SS)
            && flat(DS)
            && flat(ES)
    }

    /// Whether segment `register` (FS or GS) has all of 4 GiB, from its base on.
    pub(super) fn is_whole(&self, register: usize) -> bool {
        whole(&self.segs[register & 7])
    }
}
