//! Near CALL, RET and indirect JMP where CET is on, and ENDBRANCH (SDM Vol. 2, CALL, RET, JMP, ENDBR32, ENDBR64).

use super::shadow_stack::class_of;
use crate::cpu::{Cpu, Mode, RIP_BASE_REG, RSP};
use crate::decode::{Handler, Op, Table};
use crate::integer::operand::{cut, read};
use crate::trap::Exec;
use crate::{branch, op};
use iced_x86::Code;
use spec::x86::cet::ControlProtectionCode;

/// Bytes that a near call with operand size `N` pushes on the shadow stack.
const fn shadow_size<const N: usize>() -> usize {
    if N == 8 { 8 } else { 4 }
}

/// A call to `target`. `pushes`: also on the shadow stack.
fn call_to<const N: usize>(cpu: &mut Cpu, op: &Op, target: u64, pushes: bool) -> Exec {
    cpu.check_target(target)?;
    let back = cut::<N>(cpu.next_rip(op));
    let rsp = cpu.regs[RSP];
    cpu.push::<N>(back)?;
    if pushes && cpu.shadow_stack_enabled(cpu.cpl) {
        let size = shadow_size::<N>();
        let ssp = cpu.ssp.wrapping_sub(size as u64);
        if let Err(why) = cpu.shadow_store(ssp, size, back, class_of(cpu.cpl)) {
            cpu.regs[RSP] = rsp;
            return Err(why);
        }
        cpu.ssp = ssp;
    }
    cpu.rip = target;
    Ok(())
}

/// A relative call; one to the next instruction, which only asks for the instruction pointer, leaves the shadow stack alone.
fn call<const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    let target = cut::<N>(cpu.regs[RIP_BASE_REG as usize].wrapping_add(op.imm));
    let next = cut::<N>(cpu.next_rip(op));
    call_to::<N>(cpu, op, target, target != next)
}

fn call_r<const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    let target = read::<N>(cpu, op.r[0]);
    call_to::<N>(cpu, op, target, true)?;
    cpu.track_near(op);
    Ok(())
}

fn target_in_memory<const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec<u64> {
    let address = cpu.linear(op, N as u64, false)?;
    cpu.load::<N>(address)
}

fn call_m<const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    let target = target_in_memory::<N>(cpu, op)?;
    call_to::<N>(cpu, op, target, true)?;
    cpu.track_near(op);
    Ok(())
}

fn jmp_to(cpu: &mut Cpu, op: &Op, target: u64) -> Exec {
    cpu.check_target(target)?;
    cpu.rip = target;
    cpu.track_near(op);
    Ok(())
}

fn jmp_r<const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    let target = read::<N>(cpu, op.r[0]);
    jmp_to(cpu, op, target)
}

fn jmp_m<const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    let target = target_in_memory::<N>(cpu, op)?;
    jmp_to(cpu, op, target)
}

fn ret<const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    let target = cpu.peek_stack::<N>(0)?;
    cpu.check_target(target)?;
    if cpu.shadow_stack_enabled(cpu.cpl) {
        let size = shadow_size::<N>();
        if cpu.shadow_load(cpu.ssp, size, class_of(cpu.cpl))? != target {
            return Err(cpu.control_protection(ControlProtectionCode::NearRet));
        }
        cpu.ssp = cpu.ssp.wrapping_add(size as u64);
    }
    let offset = cpu.stack_offset((N as u64).wrapping_add(op.imm & 0xffff));
    cpu.set_stack_offset(offset);
    cpu.rip = target;
    Ok(())
}

fn endbranch<const LONG: bool>(cpu: &mut Cpu, _op: &Op) -> Exec {
    if (cpu.mode == Mode::Long64) == LONG {
        cpu.endbranch();
    }
    Ok(())
}

fn both(table: &mut Table, codes: &[Code], handler: Handler) {
    for &code in codes {
        table.with_cet(code, handler, handler);
    }
}

/// Registers this file's forms.
pub(super) fn register(table: &mut Table) {
    both(table, &[Code::Call_rel16], branch!(call::<2>));
    both(table, &[Code::Call_rel32_32], branch!(call::<4>));
    both(table, &[Code::Call_rel32_64], branch!(call::<8>));
    both(table, &[Code::Retnw, Code::Retnw_imm16], branch!(ret::<2>));
    both(table, &[Code::Retnd, Code::Retnd_imm16], branch!(ret::<4>));
    both(table, &[Code::Retnq, Code::Retnq_imm16], branch!(ret::<8>));
    table.with_cet(Code::Call_rm16, branch!(call_r::<2>), branch!(call_m::<2>));
    table.with_cet(Code::Call_rm32, branch!(call_r::<4>), branch!(call_m::<4>));
    table.with_cet(Code::Call_rm64, branch!(call_r::<8>), branch!(call_m::<8>));
    table.with_cet(Code::Jmp_rm16, branch!(jmp_r::<2>), branch!(jmp_m::<2>));
    table.with_cet(Code::Jmp_rm32, branch!(jmp_r::<4>), branch!(jmp_m::<4>));
    table.with_cet(Code::Jmp_rm64, branch!(jmp_r::<8>), branch!(jmp_m::<8>));
    both(table, &[Code::Endbr32], op!(endbranch::<false>));
    both(table, &[Code::Endbr64], op!(endbranch::<true>));
}
