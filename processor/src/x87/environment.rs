//! FSTENV, FLDENV, FSAVE, FRSTOR in their four formats, and FXSAVE, FXRSTOR (SDM Vol. 1, 8.1.10 and 10.5).

use super::state::LEGACY_X87_SIZE;
use super::transfer::{extended, extended_bytes};
use crate::cpu::{Cpu, Mode};
use crate::decode::{Op, Table};
use crate::op;
use crate::trap::Exec;
use iced_x86::Code;

/// MXCSR bits that exist; FXSAVE stores this as MXCSR_MASK.
const MXCSR_MASK: u32 = 0xffff;
/// CR4.OSFXSR.
const CR4_OSFXSR: u64 = 1 << 9;

/// The environment in memory; 14 bytes with 16-bit operand size, else 28. Returns how many.
fn environment(cpu: &Cpu, wide: bool) -> ([u8; 28], usize) {
    let x87 = &cpu.x87;
    let real = matches!(cpu.mode, Mode::Real | Mode::Virtual8086);
    let (ip, dp) = (x87.fip as u32, x87.fdp as u32);
    let mut image = [0u8; 28];
    if wide {
        let fop = u32::from(x87.fop);
        let tail = if real {
            [ip & 0xffff, (ip >> 16) << 12 | fop, dp & 0xffff, (dp >> 16) << 12]
        } else {
            // Selectors are deprecated: zero.
            [ip, fop << 16, dp, 0]
        };
        let high = 0xffff_0000;
        let [i0, i1, d0, d1] = tail;
        let reserved = if real { [high, 0, high, 0] } else { [0, 0, 0, high] };
        let words = [
            high | u32::from(x87.fcw),
            high | u32::from(x87.status()),
            high | u32::from(x87.full_tags()),
            i0 | reserved[0],
            i1 | reserved[1],
            d0 | reserved[2],
            d1 | reserved[3],
        ];
        for (bytes, word) in image.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        (image, 28)
    } else {
        let (ip_high, dp_high) =
            if real { ((ip >> 16 & 15) << 12 | u32::from(x87.fop), (dp >> 16 & 15) << 12) } else { (0, 0) };
        let words = [x87.fcw, x87.status(), x87.full_tags(), ip as u16, ip_high as u16, dp as u16, dp_high as u16];
        for (bytes, word) in image.chunks_exact_mut(2).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        (image, 14)
    }
}

fn load_environment(cpu: &mut Cpu, image: &[u8], wide: bool) {
    let real = matches!(cpu.mode, Mode::Real | Mode::Virtual8086);
    let size = if wide { 4 } else { 2 };
    let word = |i: usize| image[i * size..(i + 1) * size].iter().rev().fold(0u32, |v, b| v << 8 | u32::from(*b));
    let x87 = &mut cpu.x87;
    x87.set_control(word(0) as u16);
    x87.set_status(word(1) as u16);
    x87.set_full_tags(word(2) as u16);
    let (fip, fop, fdp) = match (wide, real) {
        (true, true) => {
            (word(3) & 0xffff | word(4) >> 12 << 16, word(4), word(5) & 0xffff | (word(6) >> 12 & 0xffff) << 16)
        }
        (true, false) => (word(3), word(4) >> 16, word(5)),
        (false, true) => (word(3) | (word(4) >> 12) << 16, word(4), word(5) | (word(6) >> 12) << 16),
        (false, false) => (word(3), 0, word(5)),
    };
    x87.fip = fip.into();
    x87.fop = fop as u16 & 0x7ff;
    x87.fdp = fdp.into();
}

/// FNSTENV: then all exceptions are masked.
fn store_environment<const WIDE: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.x87_present()?;
    let (image, size) = environment(cpu, WIDE);
    let address = cpu.linear(op, size as u64, true)?;
    cpu.store_slice(address, &image[..size])?;
    let control = cpu.x87.fcw | 0x3f;
    cpu.x87.set_control(control);
    Ok(())
}

fn load_environment_from<const WIDE: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.x87_ready()?;
    let mut image = [0; 28];
    let size = if WIDE { 28 } else { 14 };
    let address = cpu.linear(op, size as u64, false)?;
    cpu.load_slice(address, &mut image[..size])?;
    load_environment(cpu, &image, WIDE);
    Ok(())
}

/// FNSAVE: then as FNINIT.
fn save<const WIDE: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.x87_present()?;
    let mut image = [0; 108];
    let (environment, size) = environment(cpu, WIDE);
    image[..size].copy_from_slice(&environment[..size]);
    for i in 0..8 {
        let at = size + 10 * usize::from(i);
        image[at..at + 10].copy_from_slice(&extended_bytes(cpu.x87.st(i)));
    }
    let address = cpu.linear(op, size as u64 + 80, true)?;
    cpu.store_slice(address, &image[..size + 80])?;
    cpu.x87.initialize();
    Ok(())
}

fn restore<const WIDE: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.x87_ready()?;
    let mut image = [0; 108];
    let size = if WIDE { 28 } else { 14 };
    let address = cpu.linear(op, size as u64 + 80, false)?;
    cpu.load_slice(address, &mut image[..size + 80])?;
    load_environment(cpu, &image[..size], WIDE);
    for i in 0..8 {
        let at = size + 10 * usize::from(i);
        let physical = cpu.x87.physical(i);
        let mut bytes = [0; 10];
        bytes.copy_from_slice(&image[at..at + 10]);
        cpu.x87.regs[physical] = extended(&bytes);
    }
    Ok(())
}

/// XMM registers in the image: all sixteen in 64-bit mode, else eight; none while the operating system has not enabled them.
fn saved_registers(cpu: &Cpu) -> usize {
    match (cpu.cr4 & CR4_OSFXSR != 0, cpu.mode) {
        (false, _) => 0,
        (true, Mode::Long64) => 16,
        _ => 8,
    }
}

fn fx_address(cpu: &mut Cpu, op: &Op, write: bool) -> Exec<u64> {
    cpu.x87_present()?;
    let address = cpu.linear(op, 512, write)?;
    if cpu.mode == Mode::Long64 && !cpu.is_canonical(address) {
        // Faults as any access there, before alignment is looked at.
        cpu.load::<1>(address)?;
    }
    if address & 15 != 0 { Err(cpu.general_protection(0)) } else { Ok(address) }
}

fn fxsave<const WIDE: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let address = fx_address(cpu, op, true)?;
    let mut x87 = [0; LEGACY_X87_SIZE];
    cpu.x87.save_legacy(&mut x87, WIDE);
    x87[24..28].copy_from_slice(&cpu.mxcsr.to_le_bytes());
    x87[28..32].copy_from_slice(&MXCSR_MASK.to_le_bytes());
    let count = saved_registers(cpu);
    let mut image = [0; LEGACY_X87_SIZE + 256];
    image[..LEGACY_X87_SIZE].copy_from_slice(&x87);
    for (i, register) in cpu.ymm.iter().enumerate().take(count) {
        let at = LEGACY_X87_SIZE + 16 * i;
        image[at..at + 8].copy_from_slice(&register[0].to_le_bytes());
        image[at + 8..at + 16].copy_from_slice(&register[1].to_le_bytes());
    }
    cpu.store_slice(address, &image[..LEGACY_X87_SIZE + 16 * count])
}

fn fxrstor<const WIDE: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let address = fx_address(cpu, op, false)?;
    let image = cpu.load_bytes::<{ LEGACY_X87_SIZE + 256 }>(address)?;
    let mut x87 = [0; LEGACY_X87_SIZE];
    x87.copy_from_slice(&image[..LEGACY_X87_SIZE]);
    let mxcsr = u32::from_le_bytes([image[24], image[25], image[26], image[27]]);
    if mxcsr & !MXCSR_MASK != 0 {
        return Err(cpu.general_protection(0));
    }
    cpu.x87.restore_legacy(&x87, WIDE);
    let count = saved_registers(cpu);
    if count != 0 {
        cpu.mxcsr = mxcsr;
    }
    let quad = |at: usize| image[at..at + 8].iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
    for (i, register) in cpu.ymm.iter_mut().enumerate().take(count) {
        let at = LEGACY_X87_SIZE + 16 * i;
        register[0] = quad(at);
        register[1] = quad(at + 8);
    }
    Ok(())
}

pub(super) fn register(table: &mut Table) {
    table.one(Code::Fnstenv_m14byte, op!(store_environment::<false>));
    table.one(Code::Fnstenv_m28byte, op!(store_environment::<true>));
    table.one(Code::Fldenv_m14byte, op!(load_environment_from::<false>));
    table.one(Code::Fldenv_m28byte, op!(load_environment_from::<true>));
    table.one(Code::Fnsave_m94byte, op!(save::<false>));
    table.one(Code::Fnsave_m108byte, op!(save::<true>));
    table.one(Code::Frstor_m94byte, op!(restore::<false>));
    table.one(Code::Frstor_m108byte, op!(restore::<true>));
    table.one(Code::Fxsave_m512byte, op!(fxsave::<false>));
    table.one(Code::Fxsave64_m512byte, op!(fxsave::<true>));
    table.one(Code::Fxrstor_m512byte, op!(fxrstor::<false>));
    table.one(Code::Fxrstor64_m512byte, op!(fxrstor::<true>));
}
