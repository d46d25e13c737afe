//! IN, OUT, INS, OUTS with the I/O permission bitmap (SDM vol. 1, chapter 19; vol. 2).

use super::intercept::Intercept;
use crate::cpu::{Cpu, Mode, RAX, RCX, RDI, RDX, RSI};
use crate::decode::op::{ADDRESS_16, ADDRESS_32, REP, REPNE};
use crate::decode::{Op, Table};
use crate::flags::DF;
use crate::integer::operand::write;
use crate::observe::Happening;
use crate::run::attention;
use crate::trap::Exec;
use crate::{branch, op};
use iced_x86::Code;
use spec::x86::control_registers::Cr4;
use spec::x86::debug::{BreakCondition, Dr7};
use spec::x86::rflags::Rflags;
use spec::x86::tss::tss32;

pub(super) fn register(table: &mut Table) {
    for (code, size) in [(Code::In_AL_imm8, 1), (Code::In_AX_imm8, 2), (Code::In_EAX_imm8, 4)] {
        table.one(code, op!(input::<true>)).sized(size);
    }
    for (code, size) in [(Code::In_AL_DX, 1), (Code::In_AX_DX, 2), (Code::In_EAX_DX, 4)] {
        table.one(code, op!(input::<false>)).sized(size);
    }
    for (code, size) in [(Code::Out_imm8_AL, 1), (Code::Out_imm8_AX, 2), (Code::Out_imm8_EAX, 4)] {
        table.one(code, op!(output::<true>)).sized(size);
    }
    for (code, size) in [(Code::Out_DX_AL, 1), (Code::Out_DX_AX, 2), (Code::Out_DX_EAX, 4)] {
        table.one(code, op!(output::<false>)).sized(size);
    }
    table.end(Code::Insb_m8_DX, branch!(ins::<1>)).sized(1);
    table.end(Code::Insw_m16_DX, branch!(ins::<2>)).sized(2);
    table.end(Code::Insd_m32_DX, branch!(ins::<4>)).sized(4);
    table.end(Code::Outsb_DX_m8, branch!(outs::<1>)).sized(1);
    table.end(Code::Outsw_DX_m16, branch!(outs::<2>)).sized(2);
    table.end(Code::Outsd_DX_m32, branch!(outs::<4>)).sized(4);
}

/// Virtual nanoseconds that a port access takes besides that of every instruction: about what it takes on a PC, where nothing answers faster than
/// the chipset does. Loops that poll a port until time has passed turn that much less often.
const PORT_TIME: u64 = 500;

impl Cpu {
    /// #GP(0) unless the I/O privilege level or the bitmap in the TSS allows the port.
    fn check_io(&mut self, port: u16, size: u8) -> Exec {
        let free = match self.mode {
            Mode::Real => true,
            Mode::Virtual8086 => false,
            Mode::Protected | Mode::Compatibility | Mode::Long64 => self.cpl <= Rflags(self.rflags).iopl(),
        };
        if free || self.bitmap_allows(port, size)? { Ok(()) } else { Err(self.general_protection(0)) }
    }

    fn bitmap_allows(&mut self, port: u16, size: u8) -> Exec<bool> {
        let tr = self.tr;
        // A 16-bit TSS has no bitmap.
        if !tr.usable() || tr.kind() & 8 == 0 || tr.limit < u32::from(tss32::IO_MAP_BASE) + 1 {
            return Ok(false);
        }
        let map = self.system_load::<2>(tr.base.wrapping_add(u64::from(tss32::IO_MAP_BASE)))? as u32;
        let at = map + u32::from(port >> 3);
        if at + 1 > tr.limit {
            return Ok(false);
        }
        // Two bytes are always read: a wide port's bits may lie across them.
        let bits = self.system_load::<2>(tr.base.wrapping_add(u64::from(at)))?;
        Ok(bits >> (port & 7) & ((1 << size) - 1) == 0)
    }

    /// Notes the I/O breakpoints that the ports hit; #DB follows the instruction.
    fn note_io_breakpoints(&mut self, port: u16, size: u8) {
        if self.cr4 & Cr4::DE == 0 || self.dr[7] & Dr7::ENABLES == 0 {
            return;
        }
        let dr7 = Dr7(self.dr[7]);
        let (first, end) = (u64::from(port), u64::from(port) + u64::from(size));
        for n in 0..4 {
            let start = self.dr[n as usize] & !(dr7.length(n) - 1);
            let hits = start < end && first < start.wrapping_add(dr7.length(n));
            if dr7.enabled(n) && dr7.condition(n) == BreakCondition::Io && hits {
                self.pending_breakpoints |= 1 << n;
                self.attention |= attention::DEBUG;
            }
        }
    }

    fn read_port(&mut self, port: u16, size: u8) -> u32 {
        let now = self.now();
        self.attention |= attention::BUS_TOUCHED | attention::DEADLINE;
        let value = self.bus.io_read(now, port, size);
        self.idle_time += PORT_TIME;
        self.observe(Happening::Port { port, size, value, write: false });
        self.note_io_breakpoints(port, size);
        value
    }

    fn write_port(&mut self, port: u16, size: u8, value: u32) {
        let now = self.now();
        self.attention |= attention::BUS_TOUCHED | attention::DEADLINE;
        self.bus.io_write(now, port, size, value);
        self.idle_time += PORT_TIME;
        self.observe(Happening::Port { port, size, value, write: true });
        self.note_io_breakpoints(port, size);
    }
}

fn port_of<const IMMEDIATE: bool>(cpu: &Cpu, op: &Op) -> u16 {
    if IMMEDIATE { op.imm as u16 & 0xff } else { cpu.regs[RDX] as u16 }
}

fn input<const IMMEDIATE: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let (port, size) = (port_of::<IMMEDIATE>(cpu, op), op.size);
    cpu.check_io(port, size)?;
    let what = Intercept::Io { port, size, input: true, string: None, repeated: false, immediate: IMMEDIATE };
    cpu.intercept(Some(op), what)?;
    cpu.require_exact()?;
    let value = u64::from(cpu.read_port(port, size));
    match size {
        1 => write::<1>(cpu, RAX as u8, value),
        2 => write::<2>(cpu, RAX as u8, value),
        _ => write::<4>(cpu, RAX as u8, value),
    }
    Ok(())
}

fn output<const IMMEDIATE: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let (port, size) = (port_of::<IMMEDIATE>(cpu, op), op.size);
    cpu.check_io(port, size)?;
    let what = Intercept::Io { port, size, input: false, string: None, repeated: false, immediate: IMMEDIATE };
    cpu.intercept(Some(op), what)?;
    cpu.require_exact()?;
    let value = match size {
        1 => cpu.regs[RAX] & 0xff,
        2 => cpu.regs[RAX] & 0xffff,
        _ => cpu.regs[RAX] & 0xffff_ffff,
    };
    cpu.write_port(port, size, value as u32);
    Ok(())
}

/// The mask of the address size.
fn address_mask(op: &Op) -> u64 {
    if op.has(ADDRESS_16) {
        0xffff
    } else if op.has(ADDRESS_32) {
        0xffff_ffff
    } else {
        u64::MAX
    }
}

fn move_register(cpu: &mut Cpu, register: usize, by: u64, mask: u64) {
    let value = cpu.regs[register].wrapping_add(by) & mask;
    cpu.regs[register] = if mask == 0xffff { cpu.regs[register] & !0xffff | value } else { value };
}

/// One iteration of INS (`INPUT`) or OUTS. A repeated one stays at its RIP while iterations are left, so that it can be interrupted.
fn transfer<const N: usize, const INPUT: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let mask = address_mask(op);
    let repeated = op.has(REP) || op.has(REPNE);
    let port = cpu.regs[RDX] as u16;
    // Permission is asked for even when nothing is to be transferred.
    cpu.check_io(port, N as u8)?;
    if repeated && cpu.regs[RCX] & mask == 0 {
        cpu.rip = cpu.next_rip(op);
        return Ok(());
    }
    let register = if INPUT { RDI } else { RSI };
    let offset = cpu.regs[register] & mask;
    let segment = if INPUT { cpu.string_es() } else { op.seg };
    // The exit comes before the memory operand's faults; its linear address is wanted all the same.
    let base = cpu.segs[segment as usize & 7].base;
    let linear =
        if cpu.mode == Mode::Long64 { offset.wrapping_add(base) } else { base.wrapping_add(offset) & 0xffff_ffff };
    let what = Intercept::Io { port, size: N as u8, input: INPUT, string: Some(linear), repeated, immediate: false };
    cpu.intercept(Some(op), what)?;
    cpu.require_exact()?;
    let address = cpu.string_linear(segment, offset, N as u64, INPUT)?;
    if INPUT {
        cpu.probe_write(address, N)?;
        let value = u64::from(cpu.read_port(port, N as u8));
        cpu.store::<N>(address, value)?;
    } else {
        let value = cpu.load::<N>(address)?;
        cpu.write_port(port, N as u8, value as u32);
    }
    let step = if cpu.rflags & DF == 0 { N as u64 } else { (N as u64).wrapping_neg() };
    move_register(cpu, register, step, mask);
    if repeated {
        move_register(cpu, RCX, u64::MAX, mask);
    }
    if repeated && cpu.regs[RCX] & mask != 0 {
        cpu.rip = cpu.rip_of(op);
        cpu.note_iterations_left(op);
    } else {
        cpu.rip = cpu.next_rip(op);
    }
    Ok(())
}

fn ins<const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    transfer::<N, true>(cpu, op)
}

fn outs<const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    transfer::<N, false>(cpu, op)
}
