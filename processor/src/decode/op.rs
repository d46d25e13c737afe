//! The decoded operation, and the shape of its handler.

use super::ops::At;
use crate::cpu::{Cpu, RIP_BASE_REG, ZERO_REG};
use crate::segment;
use crate::trap::{Exec, Trapped};

/// Executes the operation at a place and goes on with what follows.
pub type Handler = fn(&mut Cpu, At) -> Stop;

/// Why a block was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// All operations were executed; `Cpu::rip` is set.
    Done,
    /// A conditional branch inside the block was taken: `Cpu::rip` is set, the instructions up to it are counted.
    Taken,
    /// An operation trapped: `Cpu::trap` says why.
    Trapped,
}

/// The memory operand is not a plain 64-bit one: segment checks or an address-size mask apply.
pub const LEGACY_ADDRESS: u8 = 1 << 0;
/// Address size is 16 bits (else 32) when [`LEGACY_ADDRESS`] is set; neither bit: see `ADDRESS_64`.
pub const ADDRESS_16: u8 = 1 << 1;
/// REP or REPE prefix.
pub const REP: u8 = 1 << 2;
/// REPNE prefix.
pub const REPNE: u8 = 1 << 3;
/// LOCK prefix.
pub const LOCK: u8 = 1 << 4;
/// The address size is 32 bits.
pub const ADDRESS_32: u8 = 1 << 5;
/// Operand 0 is memory (else, if any is, a later one).
pub const MEMORY_FIRST: u8 = 1 << 6;
/// VEX-encoded.
pub const VEX: u8 = 1 << 7;

/// An 8-bit register operand is AH, CH, DH or BH: the slot is the full register's number with this bit.
pub const HIGH_BYTE: u8 = 0x20;

/// A decoded instruction. Operand i of the instruction, if a register, is `r[i]`; a memory operand is `base`, `index`, `scale`, `disp`, `seg`; an
/// immediate or a branch target is `imm`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Op {
    /// The handler.
    pub run: Handler,
    /// Immediate, sign- or zero-extended as the instruction has it; near branch: target minus RIP base; far pointer: selector << 32 | offset.
    pub imm: u64,
    /// Displacement; the whole address of a moffs operand; the block that a conditional branch is linked to.
    pub disp: u64,
    /// Register number of each register operand (high-byte registers: [`HIGH_BYTE`]).
    pub r: [u8; 4],
    /// Base register slot, [`ZERO_REG`] for none, [`RIP_BASE_REG`] for RIP-relative.
    pub base: u8,
    /// Index register slot.
    pub index: u8,
    /// Shift of the index.
    pub scale: u8,
    /// Segment of the memory operand, already [`segment::ZERO`] for flat ones in 64-bit code.
    pub seg: u8,
    /// Offset of the instruction in its page: RIP is RIP base + this.
    pub offset: u16,
    /// iced's `Code`.
    pub code: u16,
    /// Length in bytes.
    pub length: u8,
    /// `LEGACY_ADDRESS`, `REP`, `LOCK`, …
    pub flags: u8,
    /// Operand size in bytes for handlers that serve several (string, stack, far branches); 0 if not set.
    pub size: u8,
    /// A second immediate (ENTER, EXTRQ) or anything the lowering leaves for the handler.
    pub extra: u8,
    /// Number of the instruction in its block, from 1.
    pub number: u8,
    /// Number of instructions in the block.
    pub count: u8,
}

/// Path of a body: every case is done.
pub const SLOW: u8 = 0;
/// Path of a body: makes no calls, and misses ([`Trapped::MISS`]) where it would have to; then the slow path runs, from the start.
pub const FAST: u8 = 1;
/// As [`FAST`], for a memory operand of [`Shape::Flat`].
pub const FLAT: u8 = 2;
/// As [`FAST`], for a memory operand of [`Shape::Indexed`].
pub const INDEXED: u8 = 3;

/// What a memory operand is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Base and displacement, with 64-bit address size and no segment base.
    Flat,
    /// As `Flat`, with an index.
    Indexed,
    /// Any.
    Other,
}

/// The handlers of one instruction by the shape of its memory operand.
#[derive(Clone, Copy, Debug)]
pub struct Forms {
    /// For every operand.
    pub any: Handler,
    /// For [`Shape::Flat`].
    pub flat: Handler,
    /// For [`Shape::Indexed`].
    pub indexed: Handler,
}

impl Forms {
    /// The handler for `op`'s memory operand.
    pub fn of(self, op: &Op) -> Handler {
        match op.shape() {
            Shape::Flat => self.flat,
            Shape::Indexed => self.indexed,
            Shape::Other => self.any,
        }
    }

    /// Whether `handler` is one of these.
    pub fn has(self, handler: Handler) -> bool {
        [self.any, self.flat, self.indexed].iter().any(|&own| own as usize == handler as usize)
    }
}

impl From<Handler> for Forms {
    fn from(handler: Handler) -> Self {
        Self { any: handler, flat: handler, indexed: handler }
    }
}

impl Op {
    /// The shape of the memory operand.
    pub fn shape(&self) -> Shape {
        if self.has(LEGACY_ADDRESS) || self.seg < segment::ZERO as u8 {
            Shape::Other
        } else if self.index == ZERO_REG {
            Shape::Flat
        } else {
            Shape::Indexed
        }
    }

    /// An operation without operands.
    pub fn new(run: Handler) -> Self {
        Self {
            run,
            imm: 0,
            disp: 0,
            r: [0; 4],
            base: ZERO_REG,
            index: ZERO_REG,
            scale: 0,
            seg: segment::ZERO as u8,
            offset: 0,
            code: 0,
            length: 0,
            flags: 0,
            size: 0,
            extra: 0,
            number: 0,
            count: 0,
        }
    }

    /// One that does nothing and ends, in the place of an instruction that somebody else does.
    pub(crate) fn successor() -> Self {
        fn nothing(_cpu: &mut Cpu, _at: At) -> Stop {
            Stop::Done
        }
        Self { length: 1, ..Self::new(nothing) }
    }

    /// iced's `Code`.
    pub fn code(&self) -> iced_x86::Code {
        iced_x86::Code::try_from(self.code as usize).unwrap_or_default()
    }

    /// Has the prefix or property `flag`.
    #[inline(always)]
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

impl Cpu {
    /// The effective address (offset in the segment), not yet cut to the address size.
    #[inline(always)]
    pub fn offset_of(&self, op: &Op) -> u64 {
        let base = self.regs[op.base as usize];
        let index = self.regs[op.index as usize];
        base.wrapping_add(index << (op.scale & 63)).wrapping_add(op.disp)
    }

    /// The effective address cut to the address size: what LEA gives.
    #[inline(always)]
    pub fn effective_address(&self, op: &Op) -> u64 {
        let offset = self.offset_of(op);
        if !op.has(LEGACY_ADDRESS) {
            offset
        } else if op.has(ADDRESS_16) {
            offset & 0xffff
        } else if op.has(ADDRESS_32) {
            offset & 0xffff_ffff
        } else {
            offset
        }
    }

    /// The linear address of the memory operand for an access of `size` bytes, segment checks done.
    #[inline(always)]
    pub fn linear(&mut self, op: &Op, size: u64, write: bool) -> Exec<u64> {
        let offset = self.offset_of(op);
        if !op.has(LEGACY_ADDRESS) {
            return Ok(offset.wrapping_add(self.segs[(op.seg & 7) as usize].base));
        }
        self.linear_legacy(op, size, write)
    }

    /// As [`Cpu::linear`]; a fast path of a body (`PATH`) misses where a segment would have to be checked.
    #[inline(always)]
    pub(crate) fn linear_in<const PATH: u8>(&mut self, op: &Op, size: u64, write: bool) -> Exec<u64> {
        if PATH == SLOW {
            return self.linear(op, size, write);
        }
        match PATH {
            FLAT => return Ok(self.regs[op.base as usize].wrapping_add(op.disp)),
            INDEXED => return Ok(self.offset_of(op)),
            _ => {}
        }
        if op.has(LEGACY_ADDRESS) {
            return Err(Trapped::MISS);
        }
        let offset = self.offset_of(op);
        // Only FS and GS have a base here.
        if op.seg >= segment::ZERO as u8 {
            Ok(offset)
        } else {
            Ok(offset.wrapping_add(self.segs[(op.seg & 7) as usize].base))
        }
    }

    #[inline(never)]
    fn linear_legacy(&mut self, op: &Op, size: u64, write: bool) -> Exec<u64> {
        let offset = self.effective_address(op);
        self.segment_linear(op.seg as usize, offset, size, write)
    }

    /// RIP of the instruction after `op`.
    #[inline(always)]
    pub fn next_rip(&self, op: &Op) -> u64 {
        self.cut_rip(self.regs[RIP_BASE_REG as usize].wrapping_add(op.offset as u64 + op.length as u64))
    }

    /// RIP of `op` itself.
    #[inline(always)]
    pub fn rip_of(&self, op: &Op) -> u64 {
        self.cut_rip(self.regs[RIP_BASE_REG as usize].wrapping_add(op.offset as u64))
    }

    /// Cuts an instruction pointer to 32 bits outside 64-bit mode.
    #[inline(always)]
    pub fn cut_rip(&self, rip: u64) -> u64 {
        if self.mode == crate::cpu::Mode::Long64 { rip } else { rip & 0xffff_ffff }
    }

    /// Notes that the operation at a place trapped.
    #[cold]
    #[inline(never)]
    pub fn leave(&mut self, at: At, _why: Trapped) -> Stop {
        at.leave(self);
        Stop::Trapped
    }
}

/// What a handler for [`Shape::Flat`] does when it misses: as `any` does it.
#[inline(never)]
pub(crate) fn far(cpu: &mut Cpu, at: At, any: Handler) -> Stop {
    cpu.bring_near(at.op());
    any(cpu, at)
}

/// Makes a [`Handler`] of a body `fn(&mut Cpu, &Op) -> Exec` that goes on with the next operation.
#[macro_export]
macro_rules! op {
    ($body:expr) => {{
        fn handler(cpu: &mut $crate::cpu::Cpu, at: $crate::decode::At) -> $crate::decode::Stop {
            match $body(cpu, at.op()) {
                Ok(()) => at.next(cpu),
                Err(why) => cpu.leave(at, why),
            }
        }
        handler as $crate::decode::Handler
    }};
}

/// Makes [`Forms`] of a body `f::<PATH, …>`: fast ones that make no calls and miss where they would have to, and a slow one that then runs, from
/// the start. So a fast path keeps everything in registers.
#[macro_export]
macro_rules! fast {
    ($body:ident $(, $parameter:tt)*) => {{
        #[inline(never)]
        fn slow(cpu: &mut $crate::cpu::Cpu, at: $crate::decode::At) -> $crate::decode::Stop {
            match $body::<{ $crate::decode::op::SLOW } $(, $parameter)*>(cpu, at.op()) {
                Ok(()) => at.next(cpu),
                Err(why) => cpu.leave(at, why),
            }
        }
        fn any(cpu: &mut $crate::cpu::Cpu, at: $crate::decode::At) -> $crate::decode::Stop {
            match $body::<{ $crate::decode::op::FAST } $(, $parameter)*>(cpu, at.op()) {
                Ok(()) => at.next(cpu),
                Err(_) => slow(cpu, at),
            }
        }
        fn flat(cpu: &mut $crate::cpu::Cpu, at: $crate::decode::At) -> $crate::decode::Stop {
            match $body::<{ $crate::decode::op::FLAT } $(, $parameter)*>(cpu, at.op()) {
                Ok(()) => at.next(cpu),
                Err(_) => $crate::decode::op::far(cpu, at, any),
            }
        }
        fn indexed(cpu: &mut $crate::cpu::Cpu, at: $crate::decode::At) -> $crate::decode::Stop {
            match $body::<{ $crate::decode::op::INDEXED } $(, $parameter)*>(cpu, at.op()) {
                Ok(()) => at.next(cpu),
                Err(_) => slow(cpu, at),
            }
        }
        $crate::decode::op::Forms { any, flat, indexed }
    }};
}

/// [`fast!`] for a body that ends the block and sets `cpu.rip` itself.
#[macro_export]
macro_rules! fast_branch {
    ($body:ident $(, $parameter:tt)*) => {{
        #[inline(never)]
        fn slow(cpu: &mut $crate::cpu::Cpu, at: $crate::decode::At) -> $crate::decode::Stop {
            match $body::<{ $crate::decode::op::SLOW } $(, $parameter)*>(cpu, at.op()) {
                Ok(()) => $crate::decode::Stop::Done,
                Err(why) => cpu.leave(at, why),
            }
        }
        fn handler(cpu: &mut $crate::cpu::Cpu, at: $crate::decode::At) -> $crate::decode::Stop {
            match $body::<{ $crate::decode::op::FAST } $(, $parameter)*>(cpu, at.op()) {
                Ok(()) => $crate::decode::Stop::Done,
                Err(_) => slow(cpu, at),
            }
        }
        handler as $crate::decode::Handler
    }};
}

/// Makes a [`Handler`] of a body that ends the block and sets `cpu.rip` itself (a branch).
#[macro_export]
macro_rules! branch {
    ($body:expr) => {{
        fn handler(cpu: &mut $crate::cpu::Cpu, at: $crate::decode::At) -> $crate::decode::Stop {
            match $body(cpu, at.op()) {
                Ok(()) => $crate::decode::Stop::Done,
                Err(why) => cpu.leave(at, why),
            }
        }
        handler as $crate::decode::Handler
    }};
}

/// Makes a [`Handler`] of a body that ends the block and goes on with the following instruction (it changes modes, flags that events depend on, …).
#[macro_export]
macro_rules! last {
    ($body:expr) => {{
        fn handler(cpu: &mut $crate::cpu::Cpu, at: $crate::decode::At) -> $crate::decode::Stop {
            let next = cpu.next_rip(at.op());
            match $body(cpu, at.op()) {
                Ok(()) => {
                    cpu.rip = next;
                    $crate::decode::Stop::Done
                }
                Err(why) => cpu.leave(at, why),
            }
        }
        handler as $crate::decode::Handler
    }};
}
