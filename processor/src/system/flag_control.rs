//! CLI, STI, PUSHF, POPF, CLAC, STAC: flags under privilege (SDM vol. 2; vol. 3A, 21.3 and 21.4 for virtual interrupts).

use super::event::Shadow;
use crate::cpu::{Cpu, Mode};
use crate::decode::table::Place;
use crate::decode::{At, Handler, Op, Stop, Table};
use crate::flags;
use crate::run::attention;
use crate::trap::Exec;
use crate::{last, op};
use iced_x86::Code;
use spec::x86::control_registers::Cr4;
use spec::x86::rflags::Rflags;

pub(super) fn register(table: &mut Table) {
    table.one(Code::Cli, op!(cli));
    table.one(Code::Sti, sti_handler as Handler).place = Place::EndsAfterNext;
    for (code, size) in [(Code::Pushfw, 2), (Code::Pushfd, 4), (Code::Pushfq, 8)] {
        table.one(code, op!(pushf)).sized(size);
    }
    for (code, size) in [(Code::Popfw, 2), (Code::Popfd, 4), (Code::Popfq, 8)] {
        table.end(code, last!(popf)).sized(size);
    }
    table.end(Code::Clac, last!(clac));
    table.end(Code::Stac, last!(stac));
}

/// Which interrupt flag CLI and STI act on.
enum Target {
    Real,
    Virtual,
}

impl Cpu {
    #[inline]
    fn iopl(&self) -> u8 {
        Rflags(self.rflags).iopl()
    }

    fn interrupt_flag(&mut self) -> Exec<Target> {
        if self.mode == Mode::Real || self.cpl <= self.iopl() {
            return Ok(Target::Real);
        }
        let extension = if self.mode == Mode::Virtual8086 { Cr4::VME } else { Cr4::PVI };
        if self.cr4 & extension != 0 && self.cpl == 3 {
            return Ok(Target::Virtual);
        }
        Err(self.general_protection(0))
    }

    /// Interrupts were allowed: something may be waiting for that.
    #[inline]
    pub(crate) fn interrupts_enabled(&mut self) {
        if self.apic.pending().is_some() || self.vmx.non_root {
            self.attention |= attention::EVENT;
        }
    }
}

fn cli(cpu: &mut Cpu, _op: &Op) -> Exec {
    match cpu.interrupt_flag()? {
        Target::Real => cpu.rflags &= !flags::IF,
        Target::Virtual => cpu.rflags &= !flags::VIF,
    }
    Ok(())
}

/// STI holds interrupts back for one instruction. When that one follows in the same block, it has run before anybody looks, and
/// nothing needs to be remembered.
fn sti_handler(cpu: &mut Cpu, at: At) -> Stop {
    match sti(cpu, at.following().is_some()) {
        Ok(()) => at.next(cpu),
        Err(why) => cpu.leave(at, why),
    }
}

fn sti(cpu: &mut Cpu, followed: bool) -> Exec {
    match cpu.interrupt_flag()? {
        Target::Real => {
            if cpu.rflags & flags::IF != 0 {
                return Ok(());
            }
            if followed {
                if cpu.vmx.non_root {
                    // A VM exit shows blocking by STI.
                    cpu.require_exact()?;
                }
                cpu.rflags |= flags::IF;
                cpu.interrupts_enabled();
            } else {
                cpu.rflags |= flags::IF;
                cpu.events.next_shadow = Shadow::Sti;
                cpu.attention |= attention::SHADOW | attention::EVENT;
            }
        }
        Target::Virtual => {
            if cpu.rflags & flags::VIP != 0 {
                return Err(cpu.general_protection(0));
            }
            cpu.rflags |= flags::VIF;
        }
    }
    Ok(())
}

fn pushf(cpu: &mut Cpu, op: &Op) -> Exec {
    let mut image = cpu.rflags() & !(flags::VM | flags::RF);
    if cpu.mode == Mode::Virtual8086 && cpu.iopl() < 3 {
        if cpu.cr4 & Cr4::VME == 0 || op.size != 2 {
            return Err(cpu.general_protection(0));
        }
        let interrupts = if image & flags::VIF != 0 { flags::IF } else { 0 };
        image = image & !flags::IF | interrupts | flags::IOPL;
    }
    match op.size {
        2 => cpu.push::<2>(image),
        4 => cpu.push::<4>(image),
        _ => cpu.push::<8>(image),
    }
}

fn popf(cpu: &mut Cpu, op: &Op) -> Exec {
    let old_rsp = cpu.regs[crate::cpu::RSP];
    let v86_low = cpu.mode == Mode::Virtual8086 && cpu.iopl() < 3;
    if v86_low && (cpu.cr4 & Cr4::VME == 0 || op.size != 2) {
        return Err(cpu.general_protection(0));
    }
    let image = match op.size {
        2 => cpu.pop::<2>()?,
        4 => cpu.pop::<4>()?,
        _ => cpu.pop::<8>()?,
    };
    let mut changeable = Rflags::STATUS | flags::TF | flags::DF | flags::NT | flags::AC | flags::ID;
    if v86_low {
        if image & flags::TF != 0 || image & flags::IF != 0 && cpu.rflags & flags::VIP != 0 {
            cpu.regs[crate::cpu::RSP] = old_rsp;
            return Err(cpu.general_protection(0));
        }
        let vif = if image & flags::IF != 0 { flags::VIF } else { 0 };
        cpu.rflags = cpu.rflags & !flags::VIF | vif;
    } else {
        if cpu.cpl <= cpu.iopl() {
            changeable |= flags::IF;
        }
        if cpu.cpl == 0 {
            changeable |= flags::IOPL;
        }
    }
    if op.size == 2 {
        changeable &= 0xffff;
    } else {
        cpu.rflags &= !flags::RF;
    }
    let value = cpu.rflags() & !changeable | image & changeable;
    cpu.set_rflags(value);
    Ok(())
}

fn set_ac(cpu: &mut Cpu, value: bool) -> Exec {
    if cpu.cpl != 0 || cpu.mode == Mode::Virtual8086 {
        return Err(cpu.undefined_opcode());
    }
    cpu.rflags = if value { cpu.rflags | flags::AC } else { cpu.rflags & !flags::AC };
    cpu.privilege_changed();
    Ok(())
}

fn clac(cpu: &mut Cpu, _op: &Op) -> Exec {
    set_ac(cpu, false)
}

fn stac(cpu: &mut Cpu, _op: &Op) -> Exec {
    set_ac(cpu, true)
}
