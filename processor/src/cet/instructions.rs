//! The shadow-stack instructions (SDM Vol. 2).

use super::shadow_stack::class_of;
use crate::cpu::{Cpu, Mode};
use crate::decode::{Op, Table};
use crate::flags::{self, LateFlags};
use crate::memory::tlb;
use crate::trap::Exec;
use crate::{last, op};
use iced_x86::Code;
use spec::x86::cet::{ControlProtectionCode, TOKEN_PREVIOUS};
use spec::x86::{CetControl, Cr4};

pub(super) fn register(table: &mut Table) {
    table.one(Code::Incsspd_r32, op!(incssp)).sized(4);
    table.one(Code::Incsspq_r64, op!(incssp)).sized(8);
    table.one(Code::Rdsspd_r32, op!(rdssp)).sized(4);
    table.one(Code::Rdsspq_r64, op!(rdssp)).sized(8);
    // Those that store end the block: they may store to code.
    table.end(Code::Saveprevssp, last!(saveprevssp));
    table.end(Code::Rstorssp_m64, last!(rstorssp));
    table.end(Code::Wrssd_m32_r32, last!(wrss)).sized(4);
    table.end(Code::Wrssq_m64_r64, last!(wrss)).sized(8);
    table.end(Code::Wrussd_m32_r32, last!(wruss)).sized(4);
    table.end(Code::Wrussq_m64_r64, last!(wruss)).sized(8);
    table.end(Code::Setssbsy, last!(setssbsy));
    table.end(Code::Clrssbsy_m64, last!(clrssbsy));
}

/// #UD unless shadow stacks are enabled at the current privilege level.
fn check_enabled(cpu: &mut Cpu) -> Exec {
    if cpu.protected() && cpu.shadow_stack_enabled(cpu.cpl) { Ok(()) } else { Err(cpu.undefined_opcode()) }
}

fn incssp(cpu: &mut Cpu, op: &Op) -> Exec {
    check_enabled(cpu)?;
    let count = cpu.regs[op.r[0] as usize & 15] & 0xff;
    let (size, class) = (usize::from(op.size), class_of(cpu.cpl));
    let last = count.max(1) - 1;
    cpu.shadow_load(cpu.ssp, size, class)?;
    cpu.shadow_load(cpu.ssp.wrapping_add(last * size as u64), size, class)?;
    cpu.ssp = cpu.ssp.wrapping_add(count * size as u64);
    Ok(())
}

/// A no-operation where shadow stacks are not enabled.
fn rdssp(cpu: &mut Cpu, op: &Op) -> Exec {
    if cpu.protected() && cpu.shadow_stack_enabled(cpu.cpl) {
        let value = if op.size == 4 { cpu.ssp & 0xffff_ffff } else { cpu.ssp };
        cpu.regs[op.r[0] as usize & 15] = value;
    }
    Ok(())
}

fn saveprevssp(cpu: &mut Cpu, _op: &Op) -> Exec {
    check_enabled(cpu)?;
    let (class, long) = (class_of(cpu.cpl), cpu.mode == Mode::Long64);
    if cpu.ssp & 7 != 0 {
        return Err(cpu.general_protection(0));
    }
    let token = cpu.shadow_load(cpu.ssp, 8, class)?;
    let mut behind = cpu.ssp.wrapping_add(8);
    if cpu.flags.cf() {
        // A hole for alignment lies behind the token, which 64-bit code does not have.
        if long || cpu.shadow_load(behind, 4, class)? != 0 {
            return Err(cpu.general_protection(0));
        }
        behind = behind.wrapping_add(4);
    }
    if token & TOKEN_PREVIOUS == 0 || !long && token >> 32 != 0 {
        return Err(cpu.general_protection(0));
    }
    let old = token & !3;
    cpu.shadow_store(old.wrapping_sub(4), 4, 0, class)?;
    cpu.shadow_store((old & !7).wrapping_sub(8), 8, old | u64::from(long), class)?;
    cpu.ssp = behind;
    Ok(())
}

/// The linear address of the 8-byte token operand: aligned, or #GP(0).
fn token_operand(cpu: &mut Cpu, op: &Op) -> Exec<u64> {
    let linear = cpu.linear(op, 8, false)?;
    if linear & 7 != 0 { Err(cpu.general_protection(0)) } else { Ok(linear) }
}

/// Sets CF, clears the other status flags.
fn set_only_carry(cpu: &mut Cpu, carry: bool) {
    cpu.flags = LateFlags::from_bits(if carry { flags::CF } else { 0 });
}

fn rstorssp(cpu: &mut Cpu, op: &Op) -> Exec {
    check_enabled(cpu)?;
    let linear = token_operand(cpu, op)?;
    let (class, long) = (class_of(cpu.cpl), cpu.mode == Mode::Long64);
    let token = cpu.shadow_load(linear, 8, class)?;
    let right =
        token & 3 == u64::from(long) && (long || token >> 32 == 0) && (token & !1).wrapping_sub(8) & !7 == linear;
    if !right {
        // The locked load wants the right to store, and stores what was there.
        cpu.shadow_store(linear, 8, token, class)?;
        return Err(cpu.control_protection(ControlProtectionCode::Rstorssp));
    }
    cpu.shadow_store(linear, 8, cpu.ssp | u64::from(long) | TOKEN_PREVIOUS, class)?;
    cpu.ssp = linear;
    set_only_carry(cpu, token & 4 != 0);
    Ok(())
}

/// Stores the register to a shadow stack of access class `class`; the address is aligned, or #GP(0).
fn write_shadow(cpu: &mut Cpu, op: &Op, class: usize) -> Exec {
    let size = usize::from(op.size);
    let linear = cpu.linear(op, u64::from(op.size), true)?;
    if linear & (u64::from(op.size) - 1) != 0 {
        return Err(cpu.general_protection(0));
    }
    cpu.shadow_store(linear, size, cpu.regs[op.r[1] as usize & 15], class)
}

fn wrss(cpu: &mut Cpu, op: &Op) -> Exec {
    check_enabled(cpu)?;
    if cpu.cet_control(cpu.cpl) & CetControl::WR_SHSTK_EN == 0 {
        return Err(cpu.undefined_opcode());
    }
    write_shadow(cpu, op, class_of(cpu.cpl))
}

/// The supervisor's store to a user's shadow stack.
fn wruss(cpu: &mut Cpu, op: &Op) -> Exec {
    if !cpu.protected() || cpu.cr4 & Cr4::CET == 0 {
        return Err(cpu.undefined_opcode());
    }
    cpu.require_cpl0()?;
    write_shadow(cpu, op, tlb::USER)
}

/// #UD unless supervisor shadow stacks are enabled, #GP(0) above privilege level 0.
fn check_supervisor(cpu: &mut Cpu) -> Exec {
    if !cpu.protected() || !cpu.shadow_stack_enabled(0) {
        return Err(cpu.undefined_opcode());
    }
    cpu.require_cpl0()
}

fn setssbsy(cpu: &mut Cpu, _op: &Op) -> Exec {
    check_supervisor(cpu)?;
    let pointer = cpu.inner_shadow_stack(0);
    if pointer & 7 != 0 {
        return Err(cpu.general_protection(0));
    }
    cpu.require_exact()?;
    if !cpu.take_shadow_stack(pointer)? {
        return Err(cpu.control_protection(ControlProtectionCode::Setssbsy));
    }
    cpu.ssp = pointer;
    Ok(())
}

fn clrssbsy(cpu: &mut Cpu, op: &Op) -> Exec {
    check_supervisor(cpu)?;
    let linear = token_operand(cpu, op)?;
    cpu.require_exact()?;
    let freed = cpu.free_shadow_stack(linear)?;
    set_only_carry(cpu, !freed);
    cpu.ssp = 0;
    Ok(())
}
