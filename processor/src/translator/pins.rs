//! Pins: several accesses of a block by one base register, near to each other, share one probe.
//!
//! The first access that is reached (the head) probes for all of them, from the lowest byte to the highest, and keeps the host's address of the
//! lowest in the state block; the others take it from there. Where the probe misses — part of them lies in another page, or may not be stored to —
//! the block goes on in its second form ([`super::unpinned`]), in which each access has its own probe. So nothing is filled or marked for an access
//! that does not come to be made.
//!
//! A pin is good until the block ends or calls the interpreter. Where the software TLB drops all that it has for a page that is put into it, an
//! instruction is left to the interpreter if there are pins ([`super::block::Site::pinned`]).

use super::Width;
use super::memory::{addressable, displacement};
use iced_x86::{
    Code, Instruction, InstructionInfo, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register, UsedMemory,
};

/// Pins of a block.
pub(super) const PINS: usize = 8;
/// Most bytes from the lowest to the highest of a pin's accesses.
pub(super) const SPAN: i64 = 512;
const RSP: usize = 4;
const RBP: usize = 5;

/// An access to the memory of a pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pinned {
    /// The pin's number.
    pub pin: usize,
    /// The access' distance from the lowest byte.
    pub offset: i32,
}

/// What all accesses of a pin need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pin {
    /// Bytes from the lowest to the highest.
    pub span: i32,
    /// There is a store among them.
    pub write: bool,
}

/// The pins of a block.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// For each instruction, what the operand in memory and what the stack access is part of.
    pub uses: Vec<[Option<Pinned>; 2]>,
    pub pins: Vec<Pin>,
}

/// The two accesses of an instruction.
pub(super) const OPERAND: usize = 0;
pub(super) const STACK: usize = 1;

/// A register is a value that was seen first, and a distance.
#[derive(Clone, Copy)]
pub(super) struct Value {
    /// Below 16: what the register with this number holds at the beginning of the block.
    pub version: u32,
    pub delta: i64,
}

/// What the general registers hold, on the way through a block.
pub(super) struct Values {
    now: [Value; 16],
    versions: u32,
}

impl Values {
    /// At the beginning.
    pub(super) fn new() -> Self {
        Self { now: std::array::from_fn(|version| Value { version: version as u32, delta: 0 }), versions: 16 }
    }

    /// Of a register.
    pub(super) fn of(&self, register: usize) -> Value {
        self.now[register & 15]
    }

    /// Goes on behind `i`, which moves the stack pointer to a sum of a register and a constant if `stack` says so.
    pub(super) fn pass(&mut self, i: &Instruction, info: &InstructionInfo, width: Width, stack: Option<(usize, i64)>) {
        let before = self.now;
        for used in info.used_registers().iter().filter(|used| writes(used.access())) {
            if used.register().is_gpr() {
                self.now[used.register().full_register().number() & 15] = Value { version: self.versions, delta: 0 };
                self.versions += 1;
            }
        }
        let moved = |(base, by): (usize, i64)| {
            let value = before[base & 15];
            Value { delta: value.delta.wrapping_add(by), ..value }
        };
        if let Some(stack) = stack {
            // POP RSP is what was popped.
            let into_stack = matches!(i.op0_register(), Register::ESP | Register::RSP);
            if !(matches!(i.code(), Code::Pop_r32 | Code::Pop_r64) && into_stack) {
                self.now[RSP] = moved(stack);
            }
        } else if let Some((to, base, by)) = sum(i, width) {
            self.now[to & 15] = moved((base, by));
        }
    }
}

struct Access {
    index: usize,
    which: usize,
    version: u32,
    from: i64,
    to: i64,
    write: bool,
}

pub(super) fn writes(access: OpAccess) -> bool {
    !matches!(access, OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess)
}

pub(super) fn general(register: Register, width: Width) -> Option<usize> {
    width.is_address(register).then(|| register.number())
}

/// The register and the constant whose sum the instruction leaves in another, if it does nothing else to general registers but RSP.
fn sum(i: &Instruction, width: Width) -> Option<(usize, usize, i64)> {
    let to = general(i.op0_register(), width).filter(|_| i.op0_kind() == OpKind::Register)?;
    // Immediates of 64-bit instructions have 32 bits too.
    let constant = |sign: i64| Some((to, to, i64::from(i.immediate(1) as i32).checked_mul(sign)?));
    match i.code() {
        Code::Add_rm64_imm8 | Code::Add_rm64_imm32 | Code::Add_RAX_imm32 => constant(1),
        Code::Add_rm32_imm8 | Code::Add_rm32_imm32 | Code::Add_EAX_imm32 => constant(1),
        Code::Sub_rm64_imm8 | Code::Sub_rm64_imm32 | Code::Sub_RAX_imm32 => constant(-1),
        Code::Sub_rm32_imm8 | Code::Sub_rm32_imm32 | Code::Sub_EAX_imm32 => constant(-1),
        Code::Inc_rm32 | Code::Inc_rm64 => Some((to, to, 1)),
        Code::Dec_rm32 | Code::Dec_rm64 => Some((to, to, -1)),
        Code::Mov_r32_rm32 | Code::Mov_rm32_r32 | Code::Mov_r64_rm64 | Code::Mov_rm64_r64
            if i.op1_kind() == OpKind::Register =>
        {
            Some((to, general(i.op1_register(), width)?, 0))
        }
        Code::Lea_r32_m | Code::Lea_r64_m if i.memory_index() == Register::None && addressable(i) => {
            Some((to, general(i.memory_base(), width)?, i64::from(displacement(i)?)))
        }
        _ => None,
    }
}

/// Whether the operand in memory is a base and a displacement, and this is it. (The stack that PUSH uses by the way may have the same base.)
fn simple(i: &Instruction, width: Width, memory: &UsedMemory) -> bool {
    i.memory_index() == Register::None
        && memory.displacement() == i.memory_displacement64()
        && memory.index() == Register::None
        && width.is_address(memory.base())
        && !matches!(i.memory_segment(), Register::FS | Register::GS)
        && matches!(memory.memory_size().size(), 1..=32)
}

/// Finds the pins of a block.
pub(super) fn plan(instructions: &[Instruction], width: Width, factory: &mut InstructionInfoFactory) -> Plan {
    let slot = width.bytes() as usize;
    let mut values = Values::new();
    let mut accesses: Vec<Access> = Vec::new();
    for (index, i) in instructions.iter().enumerate() {
        let mut add = |which: usize, base: usize, disp: i64, size: usize, write: bool| {
            let Value { version, delta } = values.of(base);
            let from = delta.wrapping_add(disp);
            accesses.push(Access { index, which, version, from, to: from.wrapping_add(size as i64), write });
        };
        // What the stack pointer becomes.
        let stack = match i.code() {
            Code::Push_r32
            | Code::Push_rm32
            | Code::Pushd_imm8
            | Code::Pushd_imm32
            | Code::Call_rel32_32
            | Code::Call_rm32
            | Code::Push_r64
            | Code::Push_rm64
            | Code::Pushq_imm8
            | Code::Pushq_imm32
            | Code::Call_rel32_64
            | Code::Call_rm64 => {
                add(STACK, RSP, -(slot as i64), slot, true);
                Some((RSP, -(slot as i64)))
            }
            Code::Pop_r32 | Code::Pop_r64 | Code::Retnd | Code::Retnq => {
                add(STACK, RSP, 0, slot, false);
                Some((RSP, slot as i64))
            }
            Code::Leaved | Code::Leaveq => {
                add(STACK, RBP, 0, slot, false);
                Some((RBP, slot as i64))
            }
            _ => None,
        };
        let info = factory.info(i);
        if i.mnemonic() != Mnemonic::Lea && i.op_kinds().any(|kind| kind == OpKind::Memory) && addressable(i) {
            let of_operand = |memory: &&UsedMemory| memory.base() == i.memory_base() && simple(i, width, memory);
            let written = info.used_memory().iter().any(|memory| writes(memory.access()));
            if let Some(memory) = info.used_memory().iter().find(of_operand)
                && let Some(base) = general(memory.base(), width)
                && let Some(disp) = displacement(i)
            {
                add(OPERAND, base, i64::from(disp), memory.memory_size().size(), written);
            }
        }
        values.pass(i, info, width, stack);
    }
    gather(instructions.len(), accesses)
}

/// Makes pins of accesses that are near to each other.
fn gather(instructions: usize, accesses: Vec<Access>) -> Plan {
    let mut plan = Plan { uses: vec![[None; 2]; instructions], pins: Vec::new() };
    let mut taken = vec![false; accesses.len()];
    for first in 0..accesses.len() {
        if taken[first] || plan.pins.len() == PINS {
            continue;
        }
        let head = &accesses[first];
        let (mut from, mut to, mut write) = (head.from, head.to, head.write);
        let mut members = vec![first];
        for (other, access) in accesses.iter().enumerate().skip(first + 1) {
            let (low, high) = (from.min(access.from), to.max(access.to));
            if !taken[other] && access.version == head.version && (0..=SPAN).contains(&high.wrapping_sub(low)) {
                (from, to, write) = (low, high, write | access.write);
                members.push(other);
            }
        }
        if members.len() < 2 {
            continue;
        }
        let pin = plan.pins.len();
        plan.pins.push(Pin { span: (to - from) as i32, write });
        for member in members {
            taken[member] = true;
            let access = &accesses[member];
            plan.uses[access.index][access.which] = Some(Pinned { pin, offset: (access.from - from) as i32 });
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions};

    fn planned(bytes: &[u8]) -> Plan {
        let instructions: Vec<_> = Decoder::new(64, bytes, DecoderOptions::NONE).iter().collect();
        plan(&instructions, Width::Long64, &mut InstructionInfoFactory::new())
    }

    #[test]
    fn pins_of_32_bit_code() {
        // push ebx; mov [esp - 4], eax; dec esp; mov al, [esp - 3], as decoded for 32-bit code.
        let bytes = [0x53, 0x89, 0x44, 0x24, 0xfc, 0x4c, 0x8a, 0x44, 0x24, 0xfd];
        let instructions: Vec<_> = Decoder::new(32, &bytes, DecoderOptions::NONE).iter().collect();
        let instructions: Vec<_> = instructions.iter().map(|i| super::super::rewrite::for_long_mode(i).0).collect();
        let plan = plan(&instructions, Width::Flat32, &mut InstructionInfoFactory::new());
        assert_eq!(plan.pins, [Pin { span: 8, write: true }]);
        let at = |offset| Some(Pinned { pin: 0, offset });
        assert_eq!(plan.uses, [[None, at(4)], [at(0), None], [None, None], [at(0), None]]);
    }

    #[test]
    fn pushes_and_what_is_by_the_stack_pointer_share_a_pin() {
        // push rbx; sub rsp, 0x20; mov [rsp + 8], rax
        let plan = planned(&[0x53, 0x48, 0x83, 0xec, 0x20, 0x48, 0x89, 0x44, 0x24, 8]);
        assert_eq!(plan.pins, [Pin { span: 0x20, write: true }]);
        assert_eq!(plan.uses[0][STACK], Some(Pinned { pin: 0, offset: 0x18 }));
        assert_eq!(plan.uses[2][OPERAND], Some(Pinned { pin: 0, offset: 0 }));
    }

    #[test]
    fn a_base_that_changes_ends_the_pin() {
        // mov rax, [rbx]; mov rbx, [rbx + 8]; mov rcx, [rbx]
        let plan = planned(&[0x48, 0x8b, 0x03, 0x48, 0x8b, 0x5b, 8, 0x48, 0x8b, 0x0b]);
        assert_eq!(plan.pins, [Pin { span: 16, write: false }]);
        assert_eq!(plan.uses[2][OPERAND], None);
        // mov rax, [rbx]; mov ebx, ebx; mov rax, [rbx]
        assert!(planned(&[0x48, 0x8b, 0x03, 0x89, 0xdb, 0x48, 0x8b, 0x03]).pins.is_empty());
    }

    #[test]
    fn an_operand_with_an_index_is_not_taken_for_the_stack() {
        // push rbx; push [rsp + rdx * 8]: the two pushes only.
        let plan = planned(&[0x53, 0xff, 0x34, 0xd4]);
        assert_eq!(plan.pins, [Pin { span: 16, write: true }]);
        assert_eq!(plan.uses[1], [None, Some(Pinned { pin: 0, offset: 0 })]);
    }

    #[test]
    fn what_is_far_away_has_another_pin() {
        // mov rax, [rbx]; mov rax, [rbx + 0x1000]; mov [rbx + 4], eax; mov rax, [rbx + 0x1008]
        let plan = planned(&[
            0x48, 0x8b, 0x03, 0x48, 0x8b, 0x83, 0, 0x10, 0, 0, 0x89, 0x43, 4, 0x48, 0x8b, 0x83, 8, 0x10, 0, 0,
        ]);
        assert_eq!(plan.pins, [Pin { span: 8, write: true }, Pin { span: 16, write: false }]);
    }
}
