//! General registers as operands of 1, 2, 4 and 8 bytes.

use crate::cpu::Cpu;

/// Cuts a value to `N` bytes.
#[inline(always)]
pub fn cut<const N: usize>(value: u64) -> u64 {
    match N {
        1 => value as u8 as u64,
        2 => value as u16 as u64,
        4 => value as u32 as u64,
        _ => value,
    }
}

/// The register that a slot names: for `N` = 1 it may be marked as a high byte.
#[inline(always)]
fn number<const N: usize>(slot: u8) -> usize {
    (if N == 1 { slot & 31 } else { slot }) as usize
}

/// Reads a general register, zero-extended. For `N` = 1 the slot may name AH…BH.
#[inline(always)]
pub fn read<const N: usize>(cpu: &Cpu, slot: u8) -> u64 {
    let register = cpu.regs[number::<N>(slot)];
    if N == 1 { (register >> ((slot >> 5 & 1) * 8)) as u8 as u64 } else { cut::<N>(register) }
}

/// Writes a general register: 32-bit writes clear the upper half, 8- and 16-bit ones keep the rest.
#[inline(always)]
pub fn write<const N: usize>(cpu: &mut Cpu, slot: u8, value: u64) {
    let register = &mut cpu.regs[number::<N>(slot)];
    *register = match N {
        1 => {
            let shift = (slot >> 5 & 1) * 8;
            *register & !(0xff << shift) | (value as u8 as u64) << shift
        }
        2 => *register & !0xffff | value as u16 as u64,
        4 => value as u32 as u64,
        _ => value,
    };
}
