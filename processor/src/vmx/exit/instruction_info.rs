//! VM-exit instruction information and the displacement in the exit qualification (SDM Vol. 3C, 28.2.1 and 28.2.5).

use crate::cpu::{Cpu, Mode, RIP_BASE_REG};
use crate::decode::Op;
use crate::decode::op::{ADDRESS_16, ADDRESS_32, MEMORY_FIRST};
use crate::segment;
use spec::vmx::qualification::instruction_info as layout;

/// Address size of `op` in the encoding of instruction information: 0 for 16 bits, 1 for 32, 2 for 64.
#[must_use]
pub fn address_size(op: &Op) -> u32 {
    if op.has(ADDRESS_16) {
        0
    } else if op.has(ADDRESS_32) {
        1
    } else {
        2
    }
}

/// The segment register of `op`'s memory operand: 0 ES, 1 CS, 2 SS, 3 DS, 4 FS, 5 GS. 64-bit code's flat segments count as DS, or SS.
fn segment_number(op: &Op) -> u32 {
    match op.seg as usize {
        segment::ZERO => 3,
        segment::ZERO_STACK => 2,
        other => other as u32,
    }
}

/// The parts of the memory operand: scaling, address size, segment, index, base.
#[must_use]
pub fn memory_operand(op: &Op) -> u32 {
    let index = if op.index < 16 { (op.index as u32) << layout::INDEX_SHIFT } else { layout::INDEX_INVALID };
    let base = if op.base < 16 { (op.base as u32) << layout::BASE_SHIFT } else { layout::BASE_INVALID };
    let scaling = if op.index < 16 { op.scale as u32 & 3 } else { 0 };
    scaling
        | address_size(op) << layout::ADDRESS_SIZE_SHIFT
        | segment_number(op) << layout::SEGMENT_SHIFT
        | index
        | base
}

impl Cpu {
    /// The exit qualification of instructions with a memory operand: the displacement; for RIP-relative operands, the address.
    pub(crate) fn displacement(&self, op: &Op) -> u64 {
        if op.base == RIP_BASE_REG {
            return self.regs[RIP_BASE_REG as usize].wrapping_add(op.disp);
        }
        op.disp
    }

    /// Instruction information of SGDT, SIDT, LGDT, LIDT; `identity` 0 to 3 in this order.
    pub(crate) fn table_register_info(&self, op: &Op, identity: u32) -> u32 {
        let wide = self.mode == Mode::Long64 || op.size == 4;
        memory_operand(op) | (wide as u32) << layout::OPERAND_SIZE_SHIFT | identity << layout::IDENTITY_SHIFT
    }

    /// Instruction information of SLDT, STR, LLDT, LTR; `identity` 0 to 3 in this order.
    pub(crate) fn selector_register_info(&self, op: &Op, identity: u32) -> u32 {
        register_or_memory(op, 0) | identity << layout::IDENTITY_SHIFT
    }
}

/// Instruction information of an instruction whose operand `which` (0 or 1) is a register or memory: the register as register 1.
#[must_use]
pub fn register_or_memory(op: &Op, which: usize) -> u32 {
    if is_memory(op) {
        memory_operand(op)
    } else {
        layout::REGISTER | (op.r[which] as u32 & 15) << layout::REGISTER1_SHIFT
    }
}

/// Whether `op` has a memory operand: its address has a base, an index, a displacement or a legacy size, or it is the first operand.
fn is_memory(op: &Op) -> bool {
    op.has(MEMORY_FIRST)
}

/// Instruction information of INVEPT, INVVPID, INVPCID (register operand `register` and a memory operand).
#[must_use]
pub fn register_and_memory(op: &Op, register: u8) -> u32 {
    memory_operand(op) | (register as u32 & 15) << layout::REGISTER2_SHIFT
}

/// Instruction information of VMREAD (destination `which` = 0) and VMWRITE (source `which` = 1): the field's register is the other one.
#[must_use]
pub fn vmcs_access(op: &Op, which: usize, memory: bool) -> u32 {
    let field = (op.r[1 - which] as u32 & 15) << layout::REGISTER2_SHIFT;
    if memory {
        memory_operand(op) | field
    } else {
        layout::REGISTER | (op.r[which] as u32 & 15) << layout::REGISTER1_SHIFT | field
    }
}

/// Instruction information of RDRAND and RDSEED: the destination, and the operand size (2, 4, 8 bytes).
#[must_use]
pub fn random(register: u8, size: u8) -> u32 {
    let size = match size {
        2 => 0,
        8 => 2,
        _ => 1,
    };
    (register as u32 & 15) << layout::REGISTER1_SHIFT | size << layout::OPERAND_SIZE_SHIFT
}

/// Instruction information of INS and OUTS: the address size, and for OUTS the segment.
#[must_use]
pub fn string_io(op: &Op, input: bool) -> u32 {
    let segment = if input { 0 } else { segment_number(op) << layout::SEGMENT_SHIFT };
    address_size(op) << layout::ADDRESS_SIZE_SHIFT | segment
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::table::undefined_handler;

    fn op() -> Op {
        Op::new(undefined_handler())
    }

    #[test]
    fn absent_base_and_index_are_marked_invalid() {
        let info = memory_operand(&op());
        assert_eq!(info & (layout::BASE_INVALID | layout::INDEX_INVALID), layout::BASE_INVALID | layout::INDEX_INVALID);
        assert_eq!(info >> layout::SEGMENT_SHIFT & 7, 3, "a flat segment is reported as DS");
    }

    #[test]
    fn base_index_and_scale_are_reported() {
        let op = Op { base: 5, index: 12, scale: 3, seg: segment::ZERO_STACK as u8, ..op() };
        let info = memory_operand(&op);
        assert_eq!((info & 3, info >> 7 & 7, info >> 15 & 7), (3, 2, 2));
        assert_eq!((info >> 18 & 15, info >> 22 & 1, info >> 23 & 15, info >> 27 & 1), (12, 0, 5, 0));
    }

    #[test]
    fn vmread_to_a_register_names_both_registers() {
        let op = Op { r: [2, 9, 0, 0], ..op() };
        let info = vmcs_access(&op, 0, false);
        assert_eq!((info >> 3 & 15, info >> 10 & 1, info >> 28), (2, 1, 9));
    }
}
