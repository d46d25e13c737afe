//! Segment register moves and the instructions on descriptor tables: MOV Sreg, PUSH and POP Sreg, LDS and kin, LGDT and kin, LLDT, LTR,
//! LAR, LSL, VERR, VERW, ARPL (SDM vol. 2).

use super::event::Shadow;
use super::intercept::Intercept;
use super::segments::verifiable;
use crate::cpu::{Cpu, Mode, RSP, TableRegister};
use crate::decode::{Op, Table};
use crate::integer::operand::write;
use crate::run::attention;
use crate::segment::{CS, DS, ES, FS, GS, SS};
use crate::trap::Exec;
use crate::{last, op};
use iced_x86::Code;
use spec::x86::exceptions::Vector;

pub(super) fn register(table: &mut Table) {
    for (code, size) in [(Code::Mov_rm16_Sreg, 2), (Code::Mov_r32m16_Sreg, 4), (Code::Mov_r64m16_Sreg, 8)] {
        table.set(code, op!(mov_from_segment), op!(store_segment)).sized(size);
    }
    for code in [Code::Mov_Sreg_rm16, Code::Mov_Sreg_r32m16, Code::Mov_Sreg_r64m16] {
        table.end(code, last!(mov_to_segment)).mem = last!(load_to_segment).into();
    }
    register_stack(table);
    register_far_loads(table);
    for (code, size) in [(Code::Lgdt_m1632_16, 2), (Code::Lgdt_m1632, 4), (Code::Lgdt_m1664, 8)] {
        table.end(code, last!(lgdt)).sized(size);
    }
    for (code, size) in [(Code::Lidt_m1632_16, 2), (Code::Lidt_m1632, 4), (Code::Lidt_m1664, 8)] {
        table.end(code, last!(lidt)).sized(size);
    }
    for (code, size) in [(Code::Sgdt_m1632_16, 4), (Code::Sgdt_m1632, 4), (Code::Sgdt_m1664, 8)] {
        table.one(code, op!(sgdt)).sized(size);
    }
    for (code, size) in [(Code::Sidt_m1632_16, 4), (Code::Sidt_m1632, 4), (Code::Sidt_m1664, 8)] {
        table.one(code, op!(sidt)).sized(size);
    }
    for code in [Code::Lldt_rm16, Code::Lldt_r32m16, Code::Lldt_r64m16] {
        table.end(code, last!(lldt::<false>)).mem = last!(lldt::<true>).into();
    }
    for code in [Code::Ltr_rm16, Code::Ltr_r32m16, Code::Ltr_r64m16] {
        table.end(code, last!(ltr::<false>)).mem = last!(ltr::<true>).into();
    }
    for (code, size) in [(Code::Sldt_rm16, 2), (Code::Sldt_r32m16, 4), (Code::Sldt_r64m16, 8)] {
        table.set(code, op!(sldt::<false>), op!(sldt::<true>)).sized(size);
    }
    for (code, size) in [(Code::Str_rm16, 2), (Code::Str_r32m16, 4), (Code::Str_r64m16, 8)] {
        table.set(code, op!(str::<false>), op!(str::<true>)).sized(size);
    }
    for (code, size) in [(Code::Lar_r16_rm16, 2), (Code::Lar_r32_r32m16, 4), (Code::Lar_r64_r64m16, 8)] {
        table.set(code, op!(lar::<false>), op!(lar::<true>)).sized(size);
    }
    for (code, size) in [(Code::Lsl_r16_rm16, 2), (Code::Lsl_r32_r32m16, 4), (Code::Lsl_r64_r64m16, 8)] {
        table.set(code, op!(lsl::<false>), op!(lsl::<true>)).sized(size);
    }
    for code in [Code::Verr_rm16, Code::Verr_r32m16, Code::Verr_r64m16] {
        table.set(code, op!(verify::<false, false>), op!(verify::<true, false>));
    }
    for code in [Code::Verw_rm16, Code::Verw_r32m16, Code::Verw_r64m16] {
        table.set(code, op!(verify::<false, true>), op!(verify::<true, true>));
    }
    table.set(Code::Arpl_rm16_r16, op!(arpl_register), op!(arpl_memory));
    table.set(Code::Arpl_r32m16_r32, op!(arpl_register), op!(arpl_memory));
}

fn register_stack(table: &mut Table) {
    for (code, size) in [
        (Code::Pushw_ES, 2),
        (Code::Pushd_ES, 4),
        (Code::Pushw_CS, 2),
        (Code::Pushd_CS, 4),
        (Code::Pushw_SS, 2),
        (Code::Pushd_SS, 4),
        (Code::Pushw_DS, 2),
        (Code::Pushd_DS, 4),
        (Code::Pushw_FS, 2),
        (Code::Pushd_FS, 4),
        (Code::Pushq_FS, 8),
        (Code::Pushw_GS, 2),
        (Code::Pushd_GS, 4),
        (Code::Pushq_GS, 8),
    ] {
        table.one(code, op!(push_segment)).sized(size);
    }
    for (code, size) in [
        (Code::Popw_ES, 2),
        (Code::Popd_ES, 4),
        (Code::Popw_SS, 2),
        (Code::Popd_SS, 4),
        (Code::Popw_DS, 2),
        (Code::Popd_DS, 4),
        (Code::Popw_FS, 2),
        (Code::Popd_FS, 4),
        (Code::Popq_FS, 8),
        (Code::Popw_GS, 2),
        (Code::Popd_GS, 4),
        (Code::Popq_GS, 8),
    ] {
        table.end(code, last!(pop_segment)).sized(size);
    }
}

fn register_far_loads(table: &mut Table) {
    macro_rules! loads {
        ($($segment:expr => $($code:ident $size:literal),*;)*) => {$($(
            table.end(Code::$code, last!(load_far::<{ $segment }>)).sized($size);
        )*)*};
    }
    loads! {
        ES => Les_r16_m1616 2, Les_r32_m1632 4;
        DS => Lds_r16_m1616 2, Lds_r32_m1632 4;
        SS => Lss_r16_m1616 2, Lss_r32_m1632 4, Lss_r64_m1664 8;
        FS => Lfs_r16_m1616 2, Lfs_r32_m1632 4, Lfs_r64_m1664 8;
        GS => Lgs_r16_m1616 2, Lgs_r32_m1632 4, Lgs_r64_m1664 8;
    }
}

fn write_sized(cpu: &mut Cpu, slot: u8, size: u8, value: u64) {
    match size {
        2 => write::<2>(cpu, slot, value),
        4 => write::<4>(cpu, slot, value),
        _ => write::<8>(cpu, slot, value),
    }
}

/// A 16-bit source operand.
fn source<const MEMORY: bool>(cpu: &mut Cpu, op: &Op, operand: usize) -> Exec<u16> {
    if MEMORY {
        let linear = cpu.linear(op, 2, false)?;
        return Ok(cpu.load::<2>(linear)? as u16);
    }
    Ok(cpu.regs[op.r[operand] as usize & 15] as u16)
}

/// A selector to a destination operand: 16 bits in memory, the operand size in a register.
fn destination<const MEMORY: bool>(cpu: &mut Cpu, op: &Op, selector: u16) -> Exec {
    if MEMORY {
        let linear = cpu.linear(op, 2, true)?;
        return cpu.store::<2>(linear, u64::from(selector));
    }
    write_sized(cpu, op.r[0], op.size, u64::from(selector));
    Ok(())
}

fn mov_from_segment(cpu: &mut Cpu, op: &Op) -> Exec {
    let selector = segment_number(cpu, op.r[1]).map(|number| cpu.segs[number].selector)?;
    destination::<false>(cpu, op, selector)
}

fn store_segment(cpu: &mut Cpu, op: &Op) -> Exec {
    let selector = segment_number(cpu, op.r[1]).map(|number| cpu.segs[number].selector)?;
    destination::<true>(cpu, op, selector)
}

fn segment_number(cpu: &mut Cpu, number: u8) -> Exec<usize> {
    if number < 6 { Ok(usize::from(number)) } else { Err(cpu.undefined_opcode()) }
}

impl Cpu {
    /// Loads a segment register other than CS for MOV and POP; SS holds back interrupts for one instruction.
    fn load_segment_register(&mut self, number: u8, selector: u16) -> Exec {
        if number > 5 || usize::from(number) == CS {
            return Err(self.undefined_opcode());
        }
        self.load_segment(usize::from(number), selector)?;
        if usize::from(number) == SS {
            self.events.next_shadow = Shadow::MovSs;
            self.attention |= attention::SHADOW | attention::EVENT;
        }
        Ok(())
    }
}

fn mov_to_segment(cpu: &mut Cpu, op: &Op) -> Exec {
    let selector = source::<false>(cpu, op, 1)?;
    cpu.load_segment_register(op.r[0], selector)
}

fn load_to_segment(cpu: &mut Cpu, op: &Op) -> Exec {
    if usize::from(op.r[0]) == CS {
        return Err(cpu.undefined_opcode());
    }
    let selector = source::<true>(cpu, op, 1)?;
    cpu.load_segment_register(op.r[0], selector)
}

fn push_segment(cpu: &mut Cpu, op: &Op) -> Exec {
    let selector = u64::from(cpu.segs[op.r[0] as usize & 7].selector);
    match op.size {
        2 => cpu.push::<2>(selector),
        4 => {
            // Only the low half of the slot is written.
            let offset = cpu.stack_offset(4u64.wrapping_neg());
            let linear = cpu.stack_linear(offset, 2, true)?;
            cpu.store::<2>(linear, selector)?;
            cpu.set_stack_offset(offset);
            Ok(())
        }
        _ => cpu.push::<8>(selector),
    }
}

fn pop_segment(cpu: &mut Cpu, op: &Op) -> Exec {
    let selector = cpu.peek_stack::<2>(0)? as u16;
    // The pointer moves by the old stack's width; a fault leaves it.
    let old = cpu.regs[RSP];
    let offset = cpu.stack_offset(u64::from(op.size));
    cpu.set_stack_offset(offset);
    let loaded = cpu.load_segment_register(op.r[0], selector);
    if loaded.is_err() {
        cpu.regs[RSP] = old;
    }
    loaded
}

fn load_far<const SEGMENT: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    let (selector, offset) = cpu.load_far_pointer(op)?;
    cpu.load_segment(SEGMENT, selector)?;
    write_sized(cpu, op.r[0], op.size, offset);
    Ok(())
}

/// The operand of LGDT and LIDT.
fn table_operand(cpu: &mut Cpu, op: &Op) -> Exec<TableRegister> {
    cpu.require_cpl0()?;
    cpu.intercept(Some(op), Intercept::GdtrIdtr)?;
    let long = cpu.mode == Mode::Long64;
    let at = cpu.linear(op, if long { 10 } else { 6 }, false)?;
    let limit = cpu.load::<2>(at)? as u16;
    let base_at = at.wrapping_add(2);
    let base = if long {
        cpu.load::<8>(base_at)?
    } else {
        cpu.load::<4>(base_at)? & if op.size == 2 { 0x00ff_ffff } else { 0xffff_ffff }
    };
    if long && !cpu.is_canonical_for_any_paging(base) {
        return Err(cpu.general_protection(0));
    }
    Ok(TableRegister { base, limit })
}

fn lgdt(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.gdtr = table_operand(cpu, op)?;
    Ok(())
}

fn lidt(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.idtr = table_operand(cpu, op)?;
    Ok(())
}

fn store_table(cpu: &mut Cpu, op: &Op, table: TableRegister) -> Exec {
    let long = cpu.mode == Mode::Long64;
    let length = if long { 10 } else { 6 };
    let at = cpu.linear(op, length, true)?;
    let mut bytes = [0; 10];
    bytes[..2].copy_from_slice(&table.limit.to_le_bytes());
    bytes[2..].copy_from_slice(&table.base.to_le_bytes());
    cpu.store_slice(at, &bytes[..length as usize])
}

fn sgdt(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_umip()?;
    cpu.intercept(Some(op), Intercept::GdtrIdtr)?;
    store_table(cpu, op, cpu.gdtr)
}

fn sidt(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_umip()?;
    cpu.intercept(Some(op), Intercept::GdtrIdtr)?;
    store_table(cpu, op, cpu.idtr)
}

fn lldt<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_protected()?;
    cpu.require_cpl0()?;
    cpu.intercept(Some(op), Intercept::LdtrTr)?;
    let selector = source::<MEMORY>(cpu, op, 0)?;
    cpu.load_ldtr(selector, Vector::GeneralProtection)
}

fn ltr<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_protected()?;
    cpu.require_cpl0()?;
    cpu.intercept(Some(op), Intercept::LdtrTr)?;
    let selector = source::<MEMORY>(cpu, op, 0)?;
    cpu.load_task_register(selector)
}

fn sldt<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_protected()?;
    cpu.check_umip()?;
    cpu.intercept(Some(op), Intercept::LdtrTr)?;
    destination::<MEMORY>(cpu, op, cpu.ldtr.selector)
}

fn str<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_protected()?;
    cpu.check_umip()?;
    cpu.intercept(Some(op), Intercept::LdtrTr)?;
    destination::<MEMORY>(cpu, op, cpu.tr.selector)
}

fn lar<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_protected()?;
    let selector = source::<MEMORY>(cpu, op, 1)?;
    let found = cpu.inspect(selector, cpu.lar_types())?;
    if let Some(descriptor) = found {
        let rights = descriptor.0 >> 32 & 0x00f0_ff00;
        write_sized(cpu, op.r[0], op.size, rights);
    }
    set_zf(cpu, found.is_some());
    Ok(())
}

fn lsl<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_protected()?;
    let selector = source::<MEMORY>(cpu, op, 1)?;
    let found = cpu.inspect(selector, cpu.lsl_types())?;
    if let Some(descriptor) = found {
        write_sized(cpu, op.r[0], op.size, u64::from(descriptor.limit()));
    }
    set_zf(cpu, found.is_some());
    Ok(())
}

fn verify<const MEMORY: bool, const WRITE: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_protected()?;
    let selector = source::<MEMORY>(cpu, op, 0)?;
    let found = cpu.inspect(selector, 0)?;
    set_zf(cpu, found.is_some_and(|descriptor| verifiable(descriptor.access(), WRITE)));
    Ok(())
}

fn set_zf(cpu: &mut Cpu, zero: bool) {
    let bits = cpu.flags.bits() & !crate::flags::ZF | if zero { crate::flags::ZF } else { 0 };
    cpu.flags = crate::flags::LateFlags::from_bits(bits);
}

fn arpl_register(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_protected()?;
    let old = cpu.regs[op.r[0] as usize & 15] as u16;
    let rpl = cpu.regs[op.r[1] as usize & 15] as u16 & 3;
    if old & 3 < rpl {
        write::<2>(cpu, op.r[0], u64::from(old & !3 | rpl));
    }
    set_zf(cpu, old & 3 < rpl);
    Ok(())
}

fn arpl_memory(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.require_protected()?;
    let linear = cpu.linear(op, 2, true)?;
    let slot = cpu.locate_write::<2>(linear)?;
    let old = cpu.load_at::<2>(slot)? as u16;
    let rpl = cpu.regs[op.r[1] as usize & 15] as u16 & 3;
    if old & 3 < rpl {
        cpu.store_at::<2>(slot, u64::from(old & !3 | rpl))?;
    }
    set_zf(cpu, old & 3 < rpl);
    Ok(())
}
