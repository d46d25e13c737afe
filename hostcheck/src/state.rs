//! The user-visible state, and the memory that instructions work on. Both processors see the same linear addresses.

/// The page of code.
pub const CODE: u64 = 0x1000_0000;
/// Where the instruction under test starts.
pub const START: u64 = CODE + 0x100;
/// A place that branches may go to, before and after the instruction.
pub const TAKEN: [u64; 2] = [CODE + 0x80, CODE + 0x180];
/// The memory that instructions read and write; nothing is mapped around it.
pub const SCRATCH: u64 = 0x2000_0000;
/// Its size.
pub const SCRATCH_SIZE: usize = 0x3000;
/// Bytes of XSAVE state: legacy region, header, YMM.
pub const XSAVE_SIZE: usize = 512 + 64 + 256;

/// The state before or after an instruction.
#[derive(Clone, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct State {
    /// x87, MXCSR, XMM, YMM in XSAVE's standard format.
    pub xsave: [u8; 1024],
    /// General registers by number.
    pub gpr: [u64; 16],
    /// RFLAGS.
    pub rflags: u64,
    /// RIP.
    pub rip: u64,
}

impl State {
    /// All zero, with an XSAVE header that says everything is there.
    pub fn new() -> Self {
        let mut state = Self { xsave: [0; 1024], gpr: [0; 16], rflags: 0x202, rip: START };
        state.xsave[512] = 7;
        state.set_u16(0, 0x37f);
        state.set_u32(24, 0x1f80);
        state
    }

    /// Reads from the XSAVE area.
    pub fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.xsave[at], self.xsave[at + 1]])
    }

    /// Reads from the XSAVE area.
    pub fn u32(&self, at: usize) -> u32 {
        u32::from(self.u16(at)) | u32::from(self.u16(at + 2)) << 16
    }

    /// Reads from the XSAVE area.
    pub fn u64(&self, at: usize) -> u64 {
        u64::from(self.u32(at)) | u64::from(self.u32(at + 4)) << 32
    }

    /// Writes to the XSAVE area.
    pub fn set_u16(&mut self, at: usize, value: u16) {
        self.xsave[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }

    /// Writes to the XSAVE area.
    pub fn set_u32(&mut self, at: usize, value: u32) {
        self.xsave[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    /// Writes to the XSAVE area.
    pub fn set_u64(&mut self, at: usize, value: u64) {
        self.xsave[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    /// Quadword `quad` (0 to 3) of YMM`n`: its place in the XSAVE area.
    pub fn vector(n: usize, quad: usize) -> usize {
        if quad < 2 { 160 + 16 * n + 8 * quad } else { 576 + 16 * n + 8 * (quad - 2) }
    }

    /// ST(i): significand; sign and exponent.
    pub fn st(&self, i: usize) -> (u64, u16) {
        (self.u64(32 + 16 * i), self.u16(40 + 16 * i))
    }

    /// MXCSR.
    pub fn mxcsr(&self) -> u32 {
        self.u32(24)
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

/// An exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Vector.
    pub vector: u8,
    /// Error code; 0 for vectors without one.
    pub error: u32,
    /// CR2 of a page fault, else 0.
    pub address: u64,
}

/// What an instruction came to.
#[derive(Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The state after it; RIP is that of the next instruction.
    pub state: State,
    /// The exception it raised, if any.
    pub fault: Option<Fault>,
}
