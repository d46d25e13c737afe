//! From iced's instruction to an [`Op`]: operands into slots, the same way for every instruction.

use super::op::{ADDRESS_16, ADDRESS_32, HIGH_BYTE, LEGACY_ADDRESS, LOCK, MEMORY_FIRST, Op, REP, REPNE, VEX};
use super::table::Entry;
use crate::cpu::{RIP_BASE_REG, ZERO_REG};
use crate::segment;
use iced_x86::{Code, EncodingKind, Instruction, OpKind, Register};

/// The slot number of a register operand: general registers 0..16 (with [`HIGH_BYTE`] for AH…BH), segment, vector, mask, control and
/// debug registers by their own number, ST(i) and MMi by theirs.
pub fn register_slot(register: Register) -> u8 {
    match register {
        Register::AH | Register::CH | Register::DH | Register::BH => (register as u8 - Register::AH as u8) | HIGH_BYTE,
        Register::EIP | Register::RIP => RIP_BASE_REG,
        Register::None => ZERO_REG,
        // iced numbers the byte registers 0..20: SPL, R8L and the like are not at their register's number.
        _ if register.is_gpr8() => register.full_register().number() as u8,
        _ => register.number() as u8,
    }
}

fn segment_slot(register: Register, code_size: u8) -> u8 {
    let number = register.number() as u8;
    if code_size == 2 {
        match number as usize {
            segment::FS | segment::GS => number,
            segment::SS => segment::ZERO_STACK as u8,
            _ => segment::ZERO as u8,
        }
    } else {
        number
    }
}

/// Lowers `instruction`, decoded with its IP being the offset from the RIP base. `code_size` is 0, 1, 2 for 16-, 32-, 64-bit code.
pub fn lower(instruction: &Instruction, entry: &Entry, code_size: u8) -> Op {
    let mut memory = false;
    let mut op = Op::new(entry.reg);
    op.offset = instruction.ip() as u16;
    op.length = instruction.len() as u8;
    op.code = instruction.code() as u16;
    op.size = entry.size;
    if instruction.has_rep_prefix() {
        op.flags |= REP;
    }
    if instruction.has_repne_prefix() {
        op.flags |= REPNE;
    }
    if instruction.has_lock_prefix() {
        op.flags |= LOCK;
    }
    if instruction.code().encoding() == EncodingKind::VEX {
        op.flags |= VEX;
    }
    for i in 0..instruction.op_count() {
        match instruction.op_kind(i) {
            OpKind::Register => {
                if let Some(slot) = op.r.get_mut(i as usize) {
                    *slot = register_slot(instruction.op_register(i));
                } else {
                    op.extra = register_slot(instruction.op_register(i));
                }
            }
            OpKind::Memory => {
                memory = true;
                if i == 0 {
                    op.flags |= MEMORY_FIRST;
                }
                memory_operand(&mut op, instruction, code_size);
            }
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => {
                op.imm = instruction.near_branch_target()
            }
            OpKind::FarBranch16 => {
                op.imm = (instruction.far_branch_selector() as u64) << 32 | instruction.far_branch16() as u64;
            }
            OpKind::FarBranch32 => {
                op.imm = (instruction.far_branch_selector() as u64) << 32 | instruction.far_branch32() as u64;
            }
            OpKind::Immediate8_2nd => op.extra = instruction.immediate8_2nd(),
            OpKind::MemorySegSI
            | OpKind::MemorySegESI
            | OpKind::MemorySegRSI
            | OpKind::MemorySegDI
            | OpKind::MemorySegEDI
            | OpKind::MemorySegRDI
            | OpKind::MemoryESDI
            | OpKind::MemoryESEDI
            | OpKind::MemoryESRDI => implicit_memory(&mut op, instruction, i, code_size),
            _ => op.imm = instruction.immediate(i),
        }
    }
    if memory {
        op.run = entry.mem.of(&op);
    }
    if names_address_by_register(instruction.code()) {
        op.seg = segment_slot(instruction.memory_segment(), code_size);
    }
    op
}

/// Instructions whose operand in memory is at a register's address, without the decoder calling it one.
fn names_address_by_register(code: Code) -> bool {
    use Code::{Monitord, Monitorq, Monitorw, Umonitor_r16, Umonitor_r32, Umonitor_r64};
    matches!(code, Monitorw | Monitord | Monitorq | Umonitor_r16 | Umonitor_r32 | Umonitor_r64)
}

/// String operands: the address size and the source's segment; the handler knows the registers.
fn implicit_memory(op: &mut Op, instruction: &Instruction, operand: u32, code_size: u8) {
    use OpKind::*;
    let kind = instruction.op_kind(operand);
    match kind {
        MemorySegSI | MemorySegDI | MemoryESDI => op.flags |= LEGACY_ADDRESS | ADDRESS_16,
        MemorySegESI | MemorySegEDI | MemoryESEDI => op.flags |= LEGACY_ADDRESS | ADDRESS_32,
        _ => {}
    }
    if matches!(kind, MemorySegSI | MemorySegESI | MemorySegRSI | MemorySegDI | MemorySegEDI | MemorySegRDI) {
        op.seg = segment_slot(instruction.memory_segment(), code_size);
    }
}

fn memory_operand(op: &mut Op, instruction: &Instruction, code_size: u8) {
    let (base, index) = (instruction.memory_base(), instruction.memory_index());
    op.base = register_slot(base);
    op.index = register_slot(index);
    op.scale = instruction.memory_index_scale().trailing_zeros() as u8;
    op.disp = instruction.memory_displacement64();
    op.seg = segment_slot(instruction.memory_segment(), code_size);
    let address_size = if base != Register::None {
        base.size()
    } else if index != Register::None {
        // A vector index (gather) has the address size of its base or displacement.
        if index.is_vector_register() { instruction.memory_displ_size().max(4) as usize } else { index.size() }
    } else {
        instruction.memory_displ_size() as usize
    };
    let address_size = match (address_size, code_size) {
        (2, _) => 2,
        (8, _) => 8,
        // disp32 without registers: a 64-bit address unless an address-size prefix cut it (then the displacement is not sign-extended).
        (_, 2) if base == Register::None && index == Register::None && instruction.memory_displ_size() == 8 => 8,
        _ => 4,
    };
    match address_size {
        2 => op.flags |= LEGACY_ADDRESS | ADDRESS_16,
        4 => op.flags |= LEGACY_ADDRESS | ADDRESS_32,
        _ if code_size != 2 => op.flags |= LEGACY_ADDRESS,
        _ => {}
    }
    if base == Register::RIP || base == Register::EIP {
        // iced gives the absolute address, computed from an IP that is the offset from the RIP base.
        op.base = RIP_BASE_REG;
    }
}
