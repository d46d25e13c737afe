//! DAA, DAS, AAA, AAS, AAM, AAD, and the flag instructions CLC, STC, CMC, CLD, STD, LAHF, SAHF, SALC.

use super::operand::{read, write};
use crate::cpu::{Cpu, RAX};
use crate::decode::{Op, Table};
use crate::flags::{self, AF, CF, LateFlags, PF, SF, ZF};
use crate::op;
use crate::trap::Exec;
use iced_x86::Code;

const AL: u8 = 0;
const AH: u8 = 0x20;

fn set(cpu: &mut Cpu, result: u64, carry: bool, adjust: bool) {
    let bits = LateFlags::logical(result, 1).bits() | if carry { CF } else { 0 } | if adjust { AF } else { 0 };
    cpu.flags = LateFlags::from_bits(bits);
}

/// DAA and DAS.
fn decimal_adjust<const SUBTRACT: bool>(cpu: &mut Cpu, _op: &Op) -> Exec {
    let old = read::<1>(cpu, AL);
    let carry_in = cpu.flags.cf();
    let step = |value: u64, by: u64| if SUBTRACT { value.wrapping_sub(by) } else { value.wrapping_add(by) };
    let (mut al, mut carry) = (old, false);
    let adjust = old & 15 > 9 || cpu.flags.af();
    if adjust {
        al = step(al, 6);
        carry = carry_in || al > 0xff;
    }
    if old > 0x99 || carry_in {
        al = step(al, 0x60);
        carry = true;
    } else if !SUBTRACT {
        carry = false;
    }
    write::<1>(cpu, AL, al);
    set(cpu, al & 0xff, carry, adjust);
    Ok(())
}

/// AAA and AAS.
fn ascii_adjust<const SUBTRACT: bool>(cpu: &mut Cpu, _op: &Op) -> Exec {
    let ax = read::<2>(cpu, RAX as u8);
    let adjust = ax & 15 > 9 || cpu.flags.af();
    let moved = match (adjust, SUBTRACT) {
        (false, _) => ax,
        (true, false) => ax.wrapping_add(0x106),
        (true, true) => ax.wrapping_sub(0x106),
    };
    let result = moved & 0xff0f;
    write::<2>(cpu, RAX as u8, result);
    set(cpu, result & 0xff, adjust, adjust);
    Ok(())
}

fn aam(cpu: &mut Cpu, op: &Op) -> Exec {
    let base = op.imm & 0xff;
    if base == 0 {
        return Err(cpu.divide_error());
    }
    let al = read::<1>(cpu, AL);
    write::<1>(cpu, AH, al / base);
    write::<1>(cpu, AL, al % base);
    set(cpu, al % base, false, false);
    Ok(())
}

fn aad(cpu: &mut Cpu, op: &Op) -> Exec {
    let result = read::<1>(cpu, AL).wrapping_add(read::<1>(cpu, AH).wrapping_mul(op.imm & 0xff)) & 0xff;
    write::<2>(cpu, RAX as u8, result);
    set(cpu, result, false, false);
    Ok(())
}

fn salc(cpu: &mut Cpu, _op: &Op) -> Exec {
    let value = if cpu.flags.cf() { 0xff } else { 0 };
    write::<1>(cpu, AL, value);
    Ok(())
}

fn clc(cpu: &mut Cpu, _op: &Op) -> Exec {
    cpu.flags = cpu.flags.set_cf(false);
    Ok(())
}

fn stc(cpu: &mut Cpu, _op: &Op) -> Exec {
    cpu.flags = cpu.flags.set_cf(true);
    Ok(())
}

fn cmc(cpu: &mut Cpu, _op: &Op) -> Exec {
    cpu.flags = cpu.flags.set_cf(!cpu.flags.cf());
    Ok(())
}

fn cld(cpu: &mut Cpu, _op: &Op) -> Exec {
    cpu.rflags &= !flags::DF;
    Ok(())
}

fn std(cpu: &mut Cpu, _op: &Op) -> Exec {
    cpu.rflags |= flags::DF;
    Ok(())
}

const LOW: u64 = CF | PF | AF | ZF | SF;

fn lahf(cpu: &mut Cpu, _op: &Op) -> Exec {
    let value = cpu.flags.bits() & LOW | 2;
    write::<1>(cpu, AH, value);
    Ok(())
}

fn sahf(cpu: &mut Cpu, _op: &Op) -> Exec {
    let bits = cpu.flags.bits() & !LOW | read::<1>(cpu, AH) & LOW;
    cpu.flags = LateFlags::from_bits(bits);
    Ok(())
}

/// Registers this file's instructions.
pub fn register(table: &mut Table) {
    table.one(Code::Daa, op!(decimal_adjust::<false>)).safe();
    table.one(Code::Das, op!(decimal_adjust::<true>)).safe();
    table.one(Code::Aaa, op!(ascii_adjust::<false>)).safe();
    table.one(Code::Aas, op!(ascii_adjust::<true>)).safe();
    table.one(Code::Aam_imm8, op!(aam));
    table.one(Code::Aad_imm8, op!(aad)).safe();
    table.one(Code::Salc, op!(salc)).safe();
    table.one(Code::Clc, op!(clc)).safe();
    table.one(Code::Stc, op!(stc)).safe();
    table.one(Code::Cmc, op!(cmc)).safe();
    table.one(Code::Cld, op!(cld)).safe();
    table.one(Code::Std, op!(std)).safe();
    table.one(Code::Lahf, op!(lahf)).safe();
    table.one(Code::Sahf, op!(sahf)).safe();
}
