//! Control: FNINIT, FNCLEX, control and status words, stack pointer, FWAIT, and the 8087's and 287's instructions that do nothing now.

use super::X87;
use super::state::FCW_INITIAL;
use crate::cpu::Cpu;
use crate::decode::{Op, Table};
use crate::op;
use crate::trap::Exec;
use iced_x86::Code;

fn initialize(cpu: &mut Cpu, _: &Op) -> Exec {
    cpu.x87_present()?;
    cpu.x87.initialize();
    Ok(())
}

impl X87 {
    /// FNINIT: the registers keep their contents, tagged empty.
    pub(super) fn initialize(&mut self) {
        *self = Self { regs: self.regs, ..Self::initial() };
        debug_assert_eq!(self.fcw, FCW_INITIAL);
    }
}

fn clear_exceptions(cpu: &mut Cpu, _: &Op) -> Exec {
    cpu.x87_present()?;
    cpu.x87.fsw &= 0x7f00;
    Ok(())
}

fn load_control(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.x87_ready()?;
    let address = cpu.linear(op, 2, false)?;
    let value = cpu.load::<2>(address)? as u16;
    cpu.x87.set_control(value);
    Ok(())
}

fn store_control(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.x87_present()?;
    let address = cpu.linear(op, 2, true)?;
    cpu.store::<2>(address, cpu.x87.fcw.into())
}

fn store_status(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.x87_present()?;
    let address = cpu.linear(op, 2, true)?;
    cpu.store::<2>(address, cpu.x87.status().into())
}

fn store_status_ax(cpu: &mut Cpu, _: &Op) -> Exec {
    cpu.x87_present()?;
    cpu.regs[crate::cpu::RAX] = cpu.regs[crate::cpu::RAX] & !0xffff | u64::from(cpu.x87.status());
    Ok(())
}

fn move_top<const BY: u8>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.x87_ready()?;
    cpu.x87_begin(op);
    cpu.x87.set_c1(false);
    cpu.x87.top = (cpu.x87.top + BY) & 7;
    Ok(())
}

fn free<const POP: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.x87_ready()?;
    cpu.x87_begin(op);
    let physical = cpu.x87.physical(op.r[0]);
    cpu.x87.valid &= !(1 << physical);
    cpu.x87.set_c1(false);
    if POP {
        cpu.x87.pop();
    }
    Ok(())
}

fn nothing(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.x87_ready()?;
    cpu.x87_begin(op);
    Ok(())
}

fn nothing_present(cpu: &mut Cpu, _: &Op) -> Exec {
    cpu.x87_present()
}

/// FWAIT: #NM if both CR0.MP and CR0.TS are set, whatever CR0.EM is; then #MF.
fn wait(cpu: &mut Cpu, _: &Op) -> Exec {
    if cpu.cr0 & 0xa == 0xa {
        return Err(cpu.device_not_available());
    }
    cpu.check_pending_x87()
}

pub(super) fn register(table: &mut Table) {
    table.one(Code::Fninit, op!(initialize));
    table.one(Code::Fnclex, op!(clear_exceptions));
    table.one(Code::Fldcw_m2byte, op!(load_control));
    table.one(Code::Fnstcw_m2byte, op!(store_control));
    table.one(Code::Fnstsw_m2byte, op!(store_status));
    table.one(Code::Fnstsw_AX, op!(store_status_ax));
    table.one(Code::Fincstp, op!(move_top::<1>));
    table.one(Code::Fdecstp, op!(move_top::<7>));
    table.one(Code::Ffree_sti, op!(free::<false>));
    table.one(Code::Ffreep_sti, op!(free::<true>));
    table.one(Code::Fnop, op!(nothing));
    for code in [Code::Fneni, Code::Fndisi, Code::Fnsetpm] {
        table.one(code, op!(nothing_present));
    }
    table.one(Code::Wait, op!(wait));
}
