//! SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS and the FS and GS bases (SDM vol. 2; vol. 3A, 5.8.7 and 5.8.8).

use crate::cpu::{Cpu, Mode, RCX, RDX, RSP};
use crate::decode::{Op, Table};
use crate::segment::{CS, FS, GS, SS, Segment};
use crate::trap::Exec;
use crate::{branch, flags, op};
use iced_x86::Code;
use spec::x86::control_registers::Cr4;
use spec::x86::efer::Efer;

pub(super) fn register(table: &mut Table) {
    table.end(Code::Syscall, branch!(syscall));
    table.end(Code::Sysretd, branch!(sysret)).sized(4);
    table.end(Code::Sysretq, branch!(sysret)).sized(8);
    table.end(Code::Sysenter, branch!(sysenter));
    table.end(Code::Sysexitd, branch!(sysexit)).sized(4);
    table.end(Code::Sysexitq, branch!(sysexit)).sized(8);
    table.one(Code::Swapgs, op!(swapgs));
    table.one(Code::Rdfsbase_r32, op!(read_base::<FS>)).sized(4);
    table.one(Code::Rdfsbase_r64, op!(read_base::<FS>)).sized(8);
    table.one(Code::Rdgsbase_r32, op!(read_base::<GS>)).sized(4);
    table.one(Code::Rdgsbase_r64, op!(read_base::<GS>)).sized(8);
    table.one(Code::Wrfsbase_r32, op!(write_base::<FS>)).sized(4);
    table.one(Code::Wrfsbase_r64, op!(write_base::<FS>)).sized(8);
    table.one(Code::Wrgsbase_r32, op!(write_base::<GS>)).sized(4);
    table.one(Code::Wrgsbase_r64, op!(write_base::<GS>)).sized(8);
}

/// Access rights of the flat segments these instructions make: 64-bit code, 32-bit code, data. The DPL is added.
const CODE_64: u32 = 0xa09b;
const CODE_32: u32 = 0xc09b;
const DATA: u32 = 0xc093;

fn flat(selector: u64, access: u32, dpl: u8) -> Segment {
    Segment { selector: selector as u16, base: 0, limit: u32::MAX, access: access | u32::from(dpl) << 5 }
}

impl Cpu {
    /// Changes CS and SS to flat segments of privilege level `cpl`.
    fn set_flat_segments(&mut self, cs: u64, code: u32, ss: u64, cpl: u8) {
        let rpl = u64::from(cpl);
        self.segs[CS] = flat(cs & 0xfffc | rpl, code, cpl);
        self.segs[SS] = flat(ss & 0xfffc | rpl, DATA, cpl);
        self.cpl = cpl;
        if self.mode == Mode::Long64 && code == CODE_64 {
            // The mode stays; only the privilege level matters.
            self.privilege_changed();
        } else {
            self.mode_changed();
        }
    }
}

impl Cpu {
    /// SYSCALL, with the next instruction at `next`. `image` is RFLAGS; gives what it becomes.
    pub(crate) fn system_call(&mut self, next: u64, image: u64) -> Exec<u64> {
        if self.mode != Mode::Long64 || self.efer & Efer::SCE == 0 {
            return Err(self.undefined_opcode());
        }
        let image = image & !flags::RF;
        self.regs[RCX] = next;
        self.regs[11] = image;
        self.rip = self.msrs.lstar;
        self.events.trace_late = true;
        let star = self.msrs.star;
        self.shadow_system_call();
        self.set_flat_segments(star >> 32, CODE_64, (star >> 32).wrapping_add(8), 0);
        self.track_far(0);
        Ok(image & !self.msrs.fmask)
    }

    /// SYSRET to 64-bit code, if `wide`, or to 32-bit code. Gives what RFLAGS becomes.
    pub(crate) fn system_return(&mut self, wide: bool) -> Exec<u64> {
        if self.mode != Mode::Long64 || self.efer & Efer::SCE == 0 {
            return Err(self.undefined_opcode());
        }
        self.require_cpl0()?;
        let target = self.regs[RCX];
        let star = self.msrs.star >> 48;
        if wide && !self.is_canonical(target) {
            return Err(self.general_protection(0));
        }
        self.rip = if wide { target } else { target & 0xffff_ffff };
        self.events.trace_late = true;
        let (cs, code) = if wide { (star.wrapping_add(16), CODE_64) } else { (star, CODE_32) };
        self.set_flat_segments(cs, code, star.wrapping_add(8), 3);
        self.shadow_system_return();
        const RETURNED: u64 = 0x3c_7fd7;
        Ok(self.regs[11] & RETURNED | 2)
    }
}

fn syscall(cpu: &mut Cpu, op: &Op) -> Exec {
    let image = cpu.system_call(cpu.next_rip(op), cpu.rflags())?;
    cpu.set_rflags(image);
    Ok(())
}

fn sysret(cpu: &mut Cpu, op: &Op) -> Exec {
    let image = cpu.system_return(op.size == 8)?;
    cpu.set_rflags(image);
    Ok(())
}

fn sysenter(cpu: &mut Cpu, _op: &Op) -> Exec {
    let cs = cpu.msrs.sysenter_cs;
    if cpu.mode == Mode::Real || cs & 0xfffc == 0 {
        return Err(cpu.general_protection(0));
    }
    let long = cpu.long_mode();
    let mask = if long { u64::MAX } else { 0xffff_ffff };
    cpu.shadow_system_call();
    cpu.set_rflags(cpu.rflags() & !(flags::VM | flags::IF | flags::RF));
    cpu.regs[RSP] = cpu.msrs.sysenter_esp & mask;
    cpu.rip = cpu.msrs.sysenter_eip & mask;
    cpu.set_flat_segments(cs, if long { CODE_64 } else { CODE_32 }, (cs & 0xfffc).wrapping_add(8), 0);
    cpu.track_far(0);
    Ok(())
}

fn sysexit(cpu: &mut Cpu, op: &Op) -> Exec {
    let cs = cpu.msrs.sysenter_cs & 0xfffc;
    if cpu.mode == Mode::Real || cs == 0 || cpu.cpl != 0 {
        return Err(cpu.general_protection(0));
    }
    let (rip, rsp) = (cpu.regs[RDX], cpu.regs[RCX]);
    if op.size == 8 {
        if !cpu.is_canonical(rip) || !cpu.is_canonical(rsp) {
            return Err(cpu.general_protection(0));
        }
        (cpu.rip, cpu.regs[RSP]) = (rip, rsp);
        cpu.set_flat_segments(cs.wrapping_add(32), CODE_64, cs.wrapping_add(40), 3);
    } else {
        (cpu.rip, cpu.regs[RSP]) = (rip & 0xffff_ffff, rsp & 0xffff_ffff);
        cpu.set_flat_segments(cs.wrapping_add(16), CODE_32, cs.wrapping_add(24), 3);
    }
    cpu.shadow_system_return();
    Ok(())
}

fn swapgs(cpu: &mut Cpu, _op: &Op) -> Exec {
    if cpu.mode != Mode::Long64 {
        return Err(cpu.undefined_opcode());
    }
    cpu.require_cpl0()?;
    std::mem::swap(&mut cpu.segs[GS].base, &mut cpu.msrs.kernel_gs_base);
    Ok(())
}

fn check_fsgsbase(cpu: &mut Cpu) -> Exec {
    if cpu.mode != Mode::Long64 || cpu.cr4 & Cr4::FSGSBASE == 0 { Err(cpu.undefined_opcode()) } else { Ok(()) }
}

fn read_base<const SEGMENT: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    check_fsgsbase(cpu)?;
    let base = cpu.segs[SEGMENT].base;
    cpu.regs[op.r[0] as usize & 15] = if op.size == 4 { base & 0xffff_ffff } else { base };
    Ok(())
}

fn write_base<const SEGMENT: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    check_fsgsbase(cpu)?;
    let value = cpu.regs[op.r[0] as usize & 15];
    let base = if op.size == 4 { value & 0xffff_ffff } else { value };
    if !cpu.is_canonical_for_any_paging(base) {
        return Err(cpu.general_protection(0));
    }
    cpu.segs[SEGMENT].base = base;
    Ok(())
}
