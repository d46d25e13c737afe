//! CPUID, and the instructions that read time: RDTSC, RDTSCP; RDPID, RDPMC (SDM vol. 2).

use super::intercept::Intercept;
use crate::cpu::{Cpu, Mode, RAX, RBX, RCX, RDX};
use crate::decode::{Op, Table};
use crate::models::CpuidContext;
use crate::trap::Exec;
use crate::{last, op};
use iced_x86::Code;
use spec::x86::control_registers::Cr4;

pub(super) fn register(table: &mut Table) {
    table.end(Code::Cpuid, last!(cpuid));
    table.one(Code::Rdtsc, op!(rdtsc));
    table.one(Code::Rdtscp, op!(rdtscp));
    table.one(Code::Rdpid_r32, op!(rdpid));
    table.one(Code::Rdpid_r64, op!(rdpid));
    table.one(Code::Rdpmc, op!(rdpmc));
}

impl Cpu {
    /// The state that CPUID shows.
    pub fn cpuid_context(&self) -> CpuidContext {
        CpuidContext {
            apic_id: self.apic.x2apic_id(),
            processors: self.processors,
            apic_enabled: self.apic.mode() != crate::apic::Mode::Disabled,
            in_64_bit_mode: self.mode == Mode::Long64,
            osxsave: self.cr4 & Cr4::OSXSAVE != 0,
            ospke: self.cr4 & Cr4::PKE != 0,
            xcr0: self.xcr0,
            xss: self.msrs.xss,
            misc_enable: self.msrs.misc_enable,
        }
    }

    fn set_edx_eax(&mut self, value: u64) {
        self.regs[RAX] = value & 0xffff_ffff;
        self.regs[RDX] = value >> 32;
    }

    pub(super) fn check_tsd(&mut self) -> Exec {
        if self.cr4 & Cr4::TSD != 0 && self.cpl != 0 { Err(self.general_protection(0)) } else { Ok(()) }
    }
}

fn cpuid(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.intercept(Some(op), Intercept::Cpuid)?;
    cpu.drain_stores();
    let [a, b, c, d] = cpu.model.cpuid(cpu.regs[RAX] as u32, cpu.regs[RCX] as u32, &cpu.cpuid_context());
    cpu.regs[RAX] = u64::from(a);
    cpu.regs[RBX] = u64::from(b);
    cpu.regs[RCX] = u64::from(c);
    cpu.regs[RDX] = u64::from(d);
    Ok(())
}

fn rdtsc(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_tsd()?;
    cpu.intercept(Some(op), Intercept::Rdtsc)?;
    cpu.require_exact()?;
    let tsc = cpu.visible_tsc();
    cpu.set_edx_eax(tsc);
    Ok(())
}

fn rdtscp(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_tsd()?;
    cpu.intercept(Some(op), Intercept::Rdtscp)?;
    cpu.require_exact()?;
    let tsc = cpu.visible_tsc();
    cpu.set_edx_eax(tsc);
    cpu.regs[RCX] = cpu.msrs.tsc_aux & 0xffff_ffff;
    Ok(())
}

fn rdpid(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.intercept(Some(op), Intercept::Rdpid)?;
    cpu.regs[op.r[0] as usize & 15] = cpu.msrs.tsc_aux & 0xffff_ffff;
    Ok(())
}

fn rdpmc(cpu: &mut Cpu, op: &Op) -> Exec {
    if cpu.cpl != 0 && cpu.cr4 & Cr4::PCE == 0 {
        return Err(cpu.general_protection(0));
    }
    cpu.intercept(Some(op), Intercept::Rdpmc)?;
    cpu.require_exact()?;
    let Some(value) = cpu.performance_counter(cpu.regs[RCX] as u32) else { return Err(cpu.general_protection(0)) };
    cpu.set_edx_eax(value);
    Ok(())
}
