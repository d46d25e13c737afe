//! INT n, INT3, INT1, INTO, BOUND (SDM vol. 2).

use super::event::{Event, EventKind};
use crate::cpu::Cpu;
use crate::decode::{Op, Table};
use crate::trap::{Exec, Trap};
use crate::{branch, op};
use iced_x86::Code;
use spec::x86::debug::Dr6;
use spec::x86::exceptions::Vector;

pub(super) fn register(table: &mut Table) {
    table.end(Code::Int_imm8, branch!(int_n));
    table.end(Code::Int3, branch!(int3));
    table.end(Code::Int1, branch!(int1));
    table.end(Code::Into, branch!(into));
    table.one(Code::Bound_r16_m1616, op!(bound::<2>));
    table.one(Code::Bound_r32_m3232, op!(bound::<4>));
}

/// Delivers an event that the instruction asks for; a fault on the way is the instruction's.
fn deliver(cpu: &mut Cpu, op: &Op, vector: u8, kind: EventKind) -> Exec {
    cpu.require_exact()?;
    cpu.rip = cpu.rip_of(op);
    let event = Event { vector, kind, error: None, length: op.length };
    if cpu.vmx_exception_exit(event, None) {
        return Err(cpu.trapped(Trap::Continue));
    }
    let done = cpu.deliver(event);
    if done.is_err() && matches!(cpu.trap, Trap::Exception { .. }) {
        cpu.events.failed = Some(event);
    }
    done
}

fn int_n(cpu: &mut Cpu, op: &Op) -> Exec {
    deliver(cpu, op, op.imm as u8, EventKind::SoftwareInterrupt)
}

fn int3(cpu: &mut Cpu, op: &Op) -> Exec {
    deliver(cpu, op, Vector::Breakpoint as u8, EventKind::SoftwareException)
}

/// INT1 raises #DB: data breakpoints that MOV SS held back are reported by the same one.
fn int1(cpu: &mut Cpu, op: &Op) -> Exec {
    deliver(cpu, op, Vector::Debug as u8, EventKind::PrivilegedSoftwareException)?;
    let held_back = std::mem::take(&mut cpu.events.debug_trap);
    if held_back != 0 {
        cpu.dr[6] = cpu.dr[6] & !Dr6::HIT | held_back;
    }
    Ok(())
}

fn into(cpu: &mut Cpu, op: &Op) -> Exec {
    if cpu.flags.of() {
        return deliver(cpu, op, Vector::Overflow as u8, EventKind::SoftwareException);
    }
    cpu.rip = cpu.next_rip(op);
    Ok(())
}

fn bound<const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    let signed = |value: u64| if N == 2 { i64::from(value as i16) } else { i64::from(value as i32) };
    let at = cpu.linear(op, 2 * N as u64, false)?;
    let low = signed(cpu.load::<N>(at)?);
    let high = signed(cpu.load::<N>(at.wrapping_add(N as u64))?);
    let index = signed(cpu.regs[op.r[0] as usize & 15]);
    if index < low || index > high {
        return Err(cpu.raise(Vector::BoundRange as u8, None));
    }
    Ok(())
}
