//! SHL, SHR, SAR, ROL, ROR, RCL, RCR, SHLD, SHRD, and BMI2's SHLX, SHRX, SARX, RORX.

use super::operand::{cut, read, write};
use crate::cpu::{Cpu, RCX};
use crate::decode::{Op, Table};
use crate::flags::{LateFlags, sign_extend};
use crate::op;
use crate::trap::Exec;
use iced_x86::Code;

/// A shift or rotate of an operand of `N` bytes by `count` (already masked to 5 or 6 bits, not zero).
trait Shift {
    fn compute<const N: usize>(a: u64, count: u32, flags: &mut LateFlags) -> u64;
}

struct Shl;
struct Shr;
struct Sar;
struct Rol;
struct Ror;
struct Rcl;
struct Rcr;

#[inline(always)]
fn top<const N: usize>(value: u64) -> bool {
    value >> (8 * N - 1) & 1 != 0
}

// OF is defined for counts of one only; for others these formulas give what Intel's processors do.
impl Shift for Shl {
    #[inline(always)]
    fn compute<const N: usize>(a: u64, count: u32, flags: &mut LateFlags) -> u64 {
        let bits = 8 * N as u32;
        let result = if count < 64 { cut::<N>(a << count) } else { 0 };
        let carry = count <= bits && a >> (bits - count) & 1 != 0;
        *flags = LateFlags::with_carry_overflow(result, N, carry, top::<N>(result) != carry);
        result
    }
}

impl Shift for Shr {
    #[inline(always)]
    fn compute<const N: usize>(a: u64, count: u32, flags: &mut LateFlags) -> u64 {
        let result = a >> count;
        let carry = a >> (count - 1) & 1 != 0;
        *flags = LateFlags::with_carry_overflow(result, N, carry, top::<N>(result ^ result << 1));
        result
    }
}

impl Shift for Sar {
    #[inline(always)]
    fn compute<const N: usize>(a: u64, count: u32, flags: &mut LateFlags) -> u64 {
        let wide = sign_extend(a, N) as i64;
        let result = cut::<N>((wide >> count) as u64);
        *flags = LateFlags::with_carry_overflow(result, N, wide >> (count - 1) & 1 != 0, false);
        result
    }
}

#[inline(always)]
fn rotated(flags: &mut LateFlags, carry: bool, overflow: bool) {
    // CF and OF only; the others stay.
    let bits = flags.bits() & !(crate::flags::CF | crate::flags::OF);
    *flags = LateFlags::from_bits(bits | carry as u64 | (overflow as u64) << 11);
}

impl Shift for Rol {
    #[inline(always)]
    fn compute<const N: usize>(a: u64, count: u32, flags: &mut LateFlags) -> u64 {
        let bits = 8 * N as u32;
        let by = count % bits;
        let result = if by == 0 { a } else { cut::<N>(a << by | a >> (bits - by)) };
        let carry = result & 1 != 0;
        rotated(flags, carry, top::<N>(result) != carry);
        result
    }
}

impl Shift for Ror {
    #[inline(always)]
    fn compute<const N: usize>(a: u64, count: u32, flags: &mut LateFlags) -> u64 {
        let bits = 8 * N as u32;
        let by = count % bits;
        let result = if by == 0 { a } else { cut::<N>(a >> by | a << (bits - by)) };
        rotated(flags, top::<N>(result), top::<N>(result ^ result << 1));
        result
    }
}

impl Shift for Rcl {
    fn compute<const N: usize>(a: u64, count: u32, flags: &mut LateFlags) -> u64 {
        let bits = 8 * N as u32;
        let by = count % (bits + 1);
        if by == 0 {
            return a;
        }
        let wide = (flags.cf() as u128) << bits | a as u128;
        let turned = wide << by | wide >> (bits + 1 - by);
        let result = cut::<N>(turned as u64);
        let carry = turned >> bits & 1 != 0;
        rotated(flags, carry, top::<N>(result) != carry);
        result
    }
}

impl Shift for Rcr {
    fn compute<const N: usize>(a: u64, count: u32, flags: &mut LateFlags) -> u64 {
        let bits = 8 * N as u32;
        let by = count % (bits + 1);
        if by == 0 {
            return a;
        }
        let wide = (flags.cf() as u128) << bits | a as u128;
        let turned = wide >> by | wide << (bits + 1 - by);
        let result = cut::<N>(turned as u64);
        rotated(flags, turned >> bits & 1 != 0, top::<N>(result ^ result << 1));
        result
    }
}

#[inline(always)]
fn masked<const N: usize>(count: u64) -> u32 {
    (count & if N == 8 { 63 } else { 31 }) as u32
}

#[inline(always)]
fn shift_r<S: Shift, const N: usize, const FLAGS: bool>(cpu: &mut Cpu, op: &Op, count: u64) -> Exec {
    let count = masked::<N>(count);
    let a = read::<N>(cpu, op.r[0]);
    let mut flags = cpu.flags;
    let result = if count == 0 { a } else { S::compute::<N>(a, count, &mut flags) };
    if FLAGS {
        cpu.flags = flags;
    }
    // A 32-bit destination loses its upper half even if the count is zero.
    write::<N>(cpu, op.r[0], result);
    Ok(())
}

#[inline(always)]
fn shift_m<S: Shift, const N: usize>(cpu: &mut Cpu, op: &Op, count: u64) -> Exec {
    let count = masked::<N>(count);
    let address = cpu.linear(op, N as u64, true)?;
    let slot = cpu.locate_write::<N>(address)?;
    let a = cpu.load_at::<N>(slot)?;
    if count != 0 {
        let mut flags = cpu.flags;
        let result = S::compute::<N>(a, count, &mut flags);
        cpu.store_at::<N>(slot, result)?;
        cpu.flags = flags;
    }
    Ok(())
}

#[inline(always)]
fn imm_r<S: Shift, const N: usize, const FLAGS: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    shift_r::<S, N, FLAGS>(cpu, op, op.imm)
}

#[inline(always)]
fn imm_m<S: Shift, const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    shift_m::<S, N>(cpu, op, op.imm)
}

#[inline(always)]
fn cl_r<S: Shift, const N: usize, const FLAGS: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    shift_r::<S, N, FLAGS>(cpu, op, cpu.regs[RCX])
}

#[inline(always)]
fn cl_m<S: Shift, const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    shift_m::<S, N>(cpu, op, cpu.regs[RCX])
}

/// SHLD (`LEFT`) and SHRD of `a` with bits from `b`. For 16-bit operands and counts above 16 (undefined) the bits come from `a` again, as on Intel's processors.
fn double<const N: usize, const LEFT: bool>(a: u64, b: u64, count: u32, flags: &mut LateFlags) -> u64 {
    let bits = 8 * N as u32;
    let (a, b) = (a as u128, b as u128);
    let (result, carry) = if LEFT {
        let wide = if N == 2 { a << 32 | b << 16 | a } else { a << bits | b };
        let width = if N == 2 { 48 } else { 2 * bits };
        let shifted = wide << count;
        ((shifted >> (width - bits)) as u64, wide >> (width - count) & 1 != 0)
    } else {
        let wide = if N == 2 { a << 32 | b << 16 | a } else { b << bits | a };
        ((wide >> count) as u64, wide >> (count - 1) & 1 != 0)
    };
    let result = cut::<N>(result);
    *flags = LateFlags::with_carry_overflow(result, N, carry, top::<N>(result ^ a as u64));
    result
}

fn double_r<const N: usize, const LEFT: bool>(cpu: &mut Cpu, op: &Op, count: u64) -> Exec {
    let count = masked::<N>(count);
    let a = read::<N>(cpu, op.r[0]);
    let b = read::<N>(cpu, op.r[1]);
    let result = if count == 0 { a } else { double::<N, LEFT>(a, b, count, &mut cpu.flags) };
    write::<N>(cpu, op.r[0], result);
    Ok(())
}

fn double_m<const N: usize, const LEFT: bool>(cpu: &mut Cpu, op: &Op, count: u64) -> Exec {
    let count = masked::<N>(count);
    let address = cpu.linear(op, N as u64, true)?;
    let slot = cpu.locate_write::<N>(address)?;
    let a = cpu.load_at::<N>(slot)?;
    if count != 0 {
        let mut flags = cpu.flags;
        let result = double::<N, LEFT>(a, read::<N>(cpu, op.r[1]), count, &mut flags);
        cpu.store_at::<N>(slot, result)?;
        cpu.flags = flags;
    }
    Ok(())
}

fn double_imm_r<const N: usize, const LEFT: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    double_r::<N, LEFT>(cpu, op, op.imm)
}
fn double_imm_m<const N: usize, const LEFT: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    double_m::<N, LEFT>(cpu, op, op.imm)
}
fn double_cl_r<const N: usize, const LEFT: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    double_r::<N, LEFT>(cpu, op, cpu.regs[RCX])
}
fn double_cl_m<const N: usize, const LEFT: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    double_m::<N, LEFT>(cpu, op, cpu.regs[RCX])
}

/// The second operand of a three-operand BMI2 instruction: register or memory.
#[inline(always)]
fn second<const N: usize, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec<u64> {
    if MEMORY {
        let address = cpu.linear(op, N as u64, false)?;
        cpu.load::<N>(address)
    } else {
        Ok(read::<N>(cpu, op.r[1]))
    }
}

/// SHLX (0), SHRX (1), SARX (2): no flags.
fn shift_x<const KIND: u8, const N: usize, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let a = second::<N, MEMORY>(cpu, op)?;
    let count = masked::<N>(cpu.regs[op.r[2] as usize]);
    let result = match KIND {
        0 => a << count,
        1 => a >> count,
        _ => (sign_extend(a, N) as i64 >> count) as u64,
    };
    write::<N>(cpu, op.r[0], result);
    Ok(())
}

fn rorx<const N: usize, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let a = second::<N, MEMORY>(cpu, op)?;
    let count = masked::<N>(op.imm);
    let result = if N == 4 { (a as u32).rotate_right(count) as u64 } else { a.rotate_right(count) };
    write::<N>(cpu, op.r[0], result);
    Ok(())
}

macro_rules! shifts {
    ($t:ident, $($name:ident),*; $n:literal, $bits:literal) => { paste::paste! { $(
        $t.set(Code::[<$name _rm $bits _imm8>], op!(imm_r::<$name, $n, true>), op!(imm_m::<$name, $n>))
            .dead(op!(imm_r::<$name, $n, false>), op!(imm_m::<$name, $n>)).safe();
        $t.set(Code::[<$name _rm $bits _1>], op!(imm_r::<$name, $n, true>), op!(imm_m::<$name, $n>))
            .dead(op!(imm_r::<$name, $n, false>), op!(imm_m::<$name, $n>)).safe();
        $t.set(Code::[<$name _rm $bits _CL>], op!(cl_r::<$name, $n, true>), op!(cl_m::<$name, $n>))
            .dead(op!(cl_r::<$name, $n, false>), op!(cl_m::<$name, $n>)).safe();
    )* }};
}

macro_rules! sal {
    ($t:ident, $($n:literal, $bits:literal);*) => { paste::paste! { $(
        $t.set(Code::[<Sal_rm $bits _imm8>], op!(imm_r::<Shl, $n, true>), op!(imm_m::<Shl, $n>))
            .dead(op!(imm_r::<Shl, $n, false>), op!(imm_m::<Shl, $n>)).safe();
        $t.set(Code::[<Sal_rm $bits _1>], op!(imm_r::<Shl, $n, true>), op!(imm_m::<Shl, $n>))
            .dead(op!(imm_r::<Shl, $n, false>), op!(imm_m::<Shl, $n>)).safe();
        $t.set(Code::[<Sal_rm $bits _CL>], op!(cl_r::<Shl, $n, true>), op!(cl_m::<Shl, $n>))
            .dead(op!(cl_r::<Shl, $n, false>), op!(cl_m::<Shl, $n>)).safe();
    )* }};
}

macro_rules! doubles {
    ($t:ident, $($n:literal, $bits:literal);*) => { paste::paste! { $(
        $t.set(Code::[<Shld_rm $bits _r $bits _imm8>], op!(double_imm_r::<$n, true>), op!(double_imm_m::<$n, true>)).safe();
        $t.set(Code::[<Shrd_rm $bits _r $bits _imm8>], op!(double_imm_r::<$n, false>), op!(double_imm_m::<$n, false>)).safe();
        $t.set(Code::[<Shld_rm $bits _r $bits _CL>], op!(double_cl_r::<$n, true>), op!(double_cl_m::<$n, true>)).safe();
        $t.set(Code::[<Shrd_rm $bits _r $bits _CL>], op!(double_cl_r::<$n, false>), op!(double_cl_m::<$n, false>)).safe();
    )* }};
}

/// Registers this file's instructions.
pub fn register(table: &mut Table) {
    shifts!(table, Shl, Shr, Sar, Rol, Ror, Rcl, Rcr; 1, 8);
    shifts!(table, Shl, Shr, Sar, Rol, Ror, Rcl, Rcr; 2, 16);
    shifts!(table, Shl, Shr, Sar, Rol, Ror, Rcl, Rcr; 4, 32);
    shifts!(table, Shl, Shr, Sar, Rol, Ror, Rcl, Rcr; 8, 64);
    sal!(table, 1, 8; 2, 16; 4, 32; 8, 64);
    doubles!(table, 2, 16; 4, 32; 8, 64);
    table.set(Code::VEX_Shlx_r32_rm32_r32, op!(shift_x::<0, 4, false>), op!(shift_x::<0, 4, true>)).safe();
    table.set(Code::VEX_Shlx_r64_rm64_r64, op!(shift_x::<0, 8, false>), op!(shift_x::<0, 8, true>)).safe();
    table.set(Code::VEX_Shrx_r32_rm32_r32, op!(shift_x::<1, 4, false>), op!(shift_x::<1, 4, true>)).safe();
    table.set(Code::VEX_Shrx_r64_rm64_r64, op!(shift_x::<1, 8, false>), op!(shift_x::<1, 8, true>)).safe();
    table.set(Code::VEX_Sarx_r32_rm32_r32, op!(shift_x::<2, 4, false>), op!(shift_x::<2, 4, true>)).safe();
    table.set(Code::VEX_Sarx_r64_rm64_r64, op!(shift_x::<2, 8, false>), op!(shift_x::<2, 8, true>)).safe();
    table.set(Code::VEX_Rorx_r32_rm32_imm8, op!(rorx::<4, false>), op!(rorx::<4, true>)).safe();
    table.set(Code::VEX_Rorx_r64_rm64_imm8, op!(rorx::<8, false>), op!(rorx::<8, true>)).safe();
}
