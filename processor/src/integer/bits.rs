//! BT, BTS, BTR, BTC, BSF, BSR, TZCNT, LZCNT, POPCNT, BMI1 and BMI2's bit instructions, CRC32.

use super::operand::{cut, read, write};
use crate::cpu::Cpu;
use crate::decode::{Op, Table};
use crate::flags::{CF, LateFlags, SF, ZF, sign_extend};
use crate::op;
use crate::trap::Exec;
use iced_x86::Code;

const TEST: u8 = 0;
const SET: u8 = 1;
const RESET: u8 = 2;
const COMPLEMENT: u8 = 3;

#[inline(always)]
fn change<const KIND: u8>(value: u64, mask: u64) -> u64 {
    match KIND {
        SET => value | mask,
        RESET => value & !mask,
        COMPLEMENT => value ^ mask,
        _ => value,
    }
}

/// BT and kin on a register, with the bit number from register 1 or the immediate.
#[inline(always)]
fn bit_r<const KIND: u8, const N: usize, const IMM: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let number = if IMM { op.imm } else { read::<N>(cpu, op.r[1]) };
    let mask = 1u64 << (number & (8 * N as u64 - 1));
    let value = read::<N>(cpu, op.r[0]);
    cpu.flags = cpu.flags.set_cf(value & mask != 0);
    if KIND != TEST {
        write::<N>(cpu, op.r[0], change::<KIND>(value, mask));
    }
    Ok(())
}

/// On memory: a register bit number is signed and reaches beyond the operand (SDM Vol 2A, BT).
#[inline(always)]
fn bit_m<const KIND: u8, const N: usize, const IMM: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let number = if IMM { op.imm & (8 * N as u64 - 1) } else { sign_extend(read::<N>(cpu, op.r[1]), N) };
    let bits = 8 * N as u64;
    let mask = 1u64 << (number & (bits - 1));
    let mut moved = *op;
    moved.disp = op.disp.wrapping_add(((number as i64 >> bits.trailing_zeros()) * N as i64) as u64);
    let address = cpu.linear(&moved, N as u64, KIND != TEST)?;
    if KIND == TEST {
        let value = cpu.load::<N>(address)?;
        cpu.flags = cpu.flags.set_cf(value & mask != 0);
    } else {
        let slot = cpu.locate_write::<N>(address)?;
        let value = cpu.load_at::<N>(slot)?;
        cpu.store_at::<N>(slot, change::<KIND>(value, mask))?;
        cpu.flags = cpu.flags.set_cf(value & mask != 0);
    }
    Ok(())
}

/// Source operand 1: register or memory.
#[inline(always)]
fn source<const N: usize, const MEMORY: bool>(cpu: &mut Cpu, op: &Op, slot: usize) -> Exec<u64> {
    if MEMORY {
        let address = cpu.linear(op, N as u64, false)?;
        cpu.load::<N>(address)
    } else {
        Ok(read::<N>(cpu, op.r[slot]))
    }
}

/// BSF, BSR: ZF says whether the source is zero; then the destination keeps its value, as on every processor. PF is undefined, and on Intel's
/// processors tells the parity of the result (of a zero source); the others are cleared.
#[inline(always)]
fn scan<const N: usize, const MEMORY: bool, const REVERSE: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let value = source::<N, MEMORY>(cpu, op, 1)?;
    if value == 0 {
        cpu.flags = LateFlags::logical(0, 8);
        return Ok(());
    }
    let result = if REVERSE { 63 - value.leading_zeros() } else { value.trailing_zeros() };
    // Not zero, and of the same parity.
    cpu.flags = LateFlags::logical(result as u64 ^ 0x300, 8);
    write::<N>(cpu, op.r[0], result as u64);
    Ok(())
}

/// LZCNT, TZCNT: CF for a zero source, ZF for a zero result; the others are undefined, and cleared on Intel's processors.
#[inline(always)]
fn count_zeros<const N: usize, const MEMORY: bool, const LEADING: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let value = source::<N, MEMORY>(cpu, op, 1)?;
    let bits = 8 * N as u32;
    let result = if LEADING { value.leading_zeros() - (64 - bits) } else { value.trailing_zeros().min(bits) };
    write::<N>(cpu, op.r[0], result as u64);
    cpu.flags = LateFlags::from_bits(if value == 0 { CF } else { 0 } | if result == 0 { ZF } else { 0 });
    Ok(())
}

#[inline(always)]
fn popcnt<const N: usize, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let value = source::<N, MEMORY>(cpu, op, 1)?;
    write::<N>(cpu, op.r[0], value.count_ones() as u64);
    cpu.flags = LateFlags::from_bits(if value == 0 { ZF } else { 0 });
    Ok(())
}

/// The flags of BMI1's logical results: ZF and SF of the result, CF given, OF clear; AF and PF are undefined, and cleared on Intel's processors.
fn bmi_flags<const N: usize>(cpu: &mut Cpu, result: u64, carry: bool) {
    let zero = if result == 0 { ZF } else { 0 };
    let sign = if sign_extend(result, N) >> 63 != 0 { SF } else { 0 };
    cpu.flags = LateFlags::from_bits(carry as u64 | zero | sign);
}

fn andn<const N: usize, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let b = source::<N, MEMORY>(cpu, op, 2)?;
    let result = cut::<N>(!read::<N>(cpu, op.r[1]) & b);
    write::<N>(cpu, op.r[0], result);
    bmi_flags::<N>(cpu, result, false);
    Ok(())
}

/// BLSR (0), BLSMSK (1), BLSI (2).
fn lowest<const KIND: u8, const N: usize, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let a = source::<N, MEMORY>(cpu, op, 1)?;
    let (result, carry) = match KIND {
        0 => (a & a.wrapping_sub(1), a == 0),
        1 => (a ^ a.wrapping_sub(1), a == 0),
        _ => (a & a.wrapping_neg(), a != 0),
    };
    let result = cut::<N>(result);
    write::<N>(cpu, op.r[0], result);
    bmi_flags::<N>(cpu, result, carry);
    Ok(())
}

fn bextr<const N: usize, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let a = source::<N, MEMORY>(cpu, op, 1)?;
    let control = cpu.regs[op.r[2] as usize];
    let (start, length) = (control & 0xff, control >> 8 & 0xff);
    let shifted = if start < 64 { a >> start } else { 0 };
    let result = if length < 64 { shifted & ((1 << length) - 1) } else { shifted };
    write::<N>(cpu, op.r[0], result);
    // SF is undefined, and cleared too.
    cpu.flags = LateFlags::from_bits(if result == 0 { ZF } else { 0 });
    Ok(())
}

fn bzhi<const N: usize, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let a = source::<N, MEMORY>(cpu, op, 1)?;
    let index = cpu.regs[op.r[2] as usize] & 0xff;
    let bits = 8 * N as u64;
    let result = if index < bits { a & ((1 << index) - 1) } else { a };
    write::<N>(cpu, op.r[0], result);
    bmi_flags::<N>(cpu, result, index >= bits);
    Ok(())
}

fn pdep<const N: usize, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let mut mask = source::<N, MEMORY>(cpu, op, 2)?;
    let mut value = read::<N>(cpu, op.r[1]);
    let mut result = 0;
    while mask != 0 {
        let lowest = mask & mask.wrapping_neg();
        result |= if value & 1 != 0 { lowest } else { 0 };
        value >>= 1;
        mask ^= lowest;
    }
    write::<N>(cpu, op.r[0], result);
    Ok(())
}

fn pext<const N: usize, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let mut mask = source::<N, MEMORY>(cpu, op, 2)?;
    let value = read::<N>(cpu, op.r[1]);
    let (mut result, mut at) = (0, 0);
    while mask != 0 {
        let lowest = mask & mask.wrapping_neg();
        result |= ((value & lowest != 0) as u64) << at;
        at += 1;
        mask ^= lowest;
    }
    write::<N>(cpu, op.r[0], result);
    Ok(())
}

const CRC32C: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut value = i as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 != 0 { value >> 1 ^ 0x82f6_3b78 } else { value >> 1 };
            bit += 1;
        }
        table[i] = value;
        i += 1;
    }
    table
};

fn crc32<const N: usize, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let value = source::<N, MEMORY>(cpu, op, 1)?;
    let mut crc = cpu.regs[op.r[0] as usize] as u32;
    for byte in &value.to_le_bytes()[..N] {
        crc = crc >> 8 ^ CRC32C[((crc ^ *byte as u32) & 0xff) as usize];
    }
    write::<8>(cpu, op.r[0], crc as u64);
    Ok(())
}

macro_rules! bit_tests {
    ($t:ident, $($name:ident = $kind:ident),*; $n:literal, $bits:literal) => { paste::paste! { $(
        $t.set(Code::[<$name _rm $bits _r $bits>], op!(bit_r::<$kind, $n, false>), op!(bit_m::<$kind, $n, false>)).safe();
        $t.set(Code::[<$name _rm $bits _imm8>], op!(bit_r::<$kind, $n, true>), op!(bit_m::<$kind, $n, true>)).safe();
    )* }};
}

macro_rules! counts {
    ($t:ident, $($n:literal, $bits:literal);*) => { paste::paste! { $(
        $t.set(Code::[<Bsf_r $bits _rm $bits>], op!(scan::<$n, false, false>), op!(scan::<$n, true, false>)).safe();
        $t.set(Code::[<Bsr_r $bits _rm $bits>], op!(scan::<$n, false, true>), op!(scan::<$n, true, true>)).safe();
        $t.set(Code::[<Tzcnt_r $bits _rm $bits>], op!(count_zeros::<$n, false, false>), op!(count_zeros::<$n, true, false>)).safe();
        $t.set(Code::[<Lzcnt_r $bits _rm $bits>], op!(count_zeros::<$n, false, true>), op!(count_zeros::<$n, true, true>)).safe();
        $t.set(Code::[<Popcnt_r $bits _rm $bits>], op!(popcnt::<$n, false>), op!(popcnt::<$n, true>)).safe();
    )* }};
}

macro_rules! bmi {
    ($t:ident, $($n:literal, $bits:literal);*) => { paste::paste! { $(
        $t.set(Code::[<VEX_Andn_r $bits _r $bits _rm $bits>], op!(andn::<$n, false>), op!(andn::<$n, true>)).safe();
        $t.set(Code::[<VEX_Blsr_r $bits _rm $bits>], op!(lowest::<0, $n, false>), op!(lowest::<0, $n, true>)).safe();
        $t.set(Code::[<VEX_Blsmsk_r $bits _rm $bits>], op!(lowest::<1, $n, false>), op!(lowest::<1, $n, true>)).safe();
        $t.set(Code::[<VEX_Blsi_r $bits _rm $bits>], op!(lowest::<2, $n, false>), op!(lowest::<2, $n, true>)).safe();
        $t.set(Code::[<VEX_Bextr_r $bits _rm $bits _r $bits>], op!(bextr::<$n, false>), op!(bextr::<$n, true>)).safe();
        $t.set(Code::[<VEX_Bzhi_r $bits _rm $bits _r $bits>], op!(bzhi::<$n, false>), op!(bzhi::<$n, true>)).safe();
        $t.set(Code::[<VEX_Pdep_r $bits _r $bits _rm $bits>], op!(pdep::<$n, false>), op!(pdep::<$n, true>)).safe();
        $t.set(Code::[<VEX_Pext_r $bits _r $bits _rm $bits>], op!(pext::<$n, false>), op!(pext::<$n, true>)).safe();
    )* }};
}

/// Registers this file's instructions.
pub fn register(table: &mut Table) {
    bit_tests!(table, Bt = TEST, Bts = SET, Btr = RESET, Btc = COMPLEMENT; 2, 16);
    bit_tests!(table, Bt = TEST, Bts = SET, Btr = RESET, Btc = COMPLEMENT; 4, 32);
    bit_tests!(table, Bt = TEST, Bts = SET, Btr = RESET, Btc = COMPLEMENT; 8, 64);
    counts!(table, 2, 16; 4, 32; 8, 64);
    bmi!(table, 4, 32; 8, 64);
    table.set(Code::Crc32_r32_rm8, op!(crc32::<1, false>), op!(crc32::<1, true>)).safe();
    table.set(Code::Crc32_r64_rm8, op!(crc32::<1, false>), op!(crc32::<1, true>)).safe();
    table.set(Code::Crc32_r32_rm16, op!(crc32::<2, false>), op!(crc32::<2, true>)).safe();
    table.set(Code::Crc32_r32_rm32, op!(crc32::<4, false>), op!(crc32::<4, true>)).safe();
    table.set(Code::Crc32_r64_rm64, op!(crc32::<8, false>), op!(crc32::<8, true>)).safe();
}
