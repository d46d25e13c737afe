//! The debug registers (SDM vol. 3B, 18.2).

use super::intercept::Intercept;
use crate::cpu::Cpu;
use crate::decode::{Op, Table};
use crate::run::attention;
use crate::trap::{Exec, Trap};
use crate::{last, op};
use iced_x86::Code;
use spec::x86::control_registers::Cr4;
use spec::x86::cpuid::Feature;
use spec::x86::debug::{Dr6, Dr7};

pub(super) fn register(table: &mut Table) {
    table.one(Code::Mov_r32_dr, op!(mov_from_dr)).sized(4);
    table.one(Code::Mov_r64_dr, op!(mov_from_dr)).sized(8);
    table.end(Code::Mov_dr_r32, last!(mov_to_dr)).sized(4);
    table.end(Code::Mov_dr_r64, last!(mov_to_dr)).sized(8);
}

/// Bits of DR6 that software can change.
const DR6_WRITABLE: u64 = Dr6::HIT | Dr6::BD | Dr6::BS | Dr6::BT;
/// Bits of DR7 that can be 1.
const DR7_WRITABLE: u64 = 0xffff_23ff | Dr7::FIXED1;

/// The register that a number names: 4 and 5 are 6 and 7 unless CR4.DE.
fn number(cpu: &mut Cpu, dr: u8) -> Exec<usize> {
    match dr {
        4 | 5 if cpu.cr4 & Cr4::DE != 0 => Err(cpu.undefined_opcode()),
        4 | 5 => Ok(usize::from(dr) + 2),
        0..8 => Ok(usize::from(dr)),
        _ => Err(cpu.undefined_opcode()),
    }
}

/// With DR7.GD any access is a debug fault.
fn check_general_detect(cpu: &mut Cpu) -> Exec {
    if cpu.dr[7] & Dr7::GD == 0 {
        return Ok(());
    }
    cpu.events.debug_bits = Dr6::BD;
    Err(cpu.trapped(Trap::Exception { vector: 1, error: None }))
}

fn mov_from_dr(cpu: &mut Cpu, op: &Op) -> Exec {
    let (register, dr) = (op.r[0] & 15, op.r[1]);
    let number = number(cpu, dr)?;
    cpu.require_cpl0()?;
    cpu.intercept(Some(op), Intercept::MovDr { dr, register, read: true })?;
    check_general_detect(cpu)?;
    let value = cpu.dr[number];
    cpu.regs[register as usize] = if op.size == 4 { value & 0xffff_ffff } else { value };
    Ok(())
}

fn mov_to_dr(cpu: &mut Cpu, op: &Op) -> Exec {
    let (dr, register) = (op.r[0], op.r[1] & 15);
    let number = number(cpu, dr)?;
    cpu.require_cpl0()?;
    cpu.intercept(Some(op), Intercept::MovDr { dr, register, read: false })?;
    check_general_detect(cpu)?;
    let value = cpu.regs[register as usize] & if op.size == 4 { 0xffff_ffff } else { u64::MAX };
    if number >= 6 && value >> 32 != 0 {
        return Err(cpu.general_protection(0));
    }
    cpu.set_debug_register(number, value);
    Ok(())
}

impl Cpu {
    /// Sets DR0 to DR3, DR6 or DR7, keeping the bits that are fixed.
    pub(crate) fn set_debug_register(&mut self, number: usize, value: u64) {
        self.dr[number & 7] = match number {
            // BLD is 0 for a bus lock, and always 1 on a processor that does not detect them.
            6 if self.model.has(Feature::BUS_LOCK_DETECT) => Dr6::RESET & !Dr6::BLD | value & (DR6_WRITABLE | Dr6::BLD),
            6 => Dr6::RESET | value & DR6_WRITABLE,
            7 => value & DR7_WRITABLE | Dr7::FIXED1,
            _ => value,
        };
        self.mmu_mode_changed();
        self.attention |= attention::EVENT;
    }
}
