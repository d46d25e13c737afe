//! MUL, IMUL, DIV, IDIV, MULX, ADCX, ADOX.

use super::operand::{cut, read, write};
use crate::cpu::{Cpu, RAX, RDX};
use crate::decode::{Op, Table};
use crate::flags::{CF, LateFlags, OF, sign_extend};
use crate::op;
use crate::trap::Exec;
use iced_x86::Code;

/// The operand in register 0 or memory.
#[inline(always)]
fn operand<const N: usize, const MEMORY: bool>(cpu: &mut Cpu, op: &Op, slot: usize) -> Exec<u64> {
    if MEMORY {
        let address = cpu.linear(op, N as u64, false)?;
        cpu.load::<N>(address)
    } else {
        Ok(read::<N>(cpu, op.r[slot]))
    }
}

/// Writes a double-width product: AX for bytes, else the pair DX:AX.
#[inline(always)]
fn write_wide<const N: usize>(cpu: &mut Cpu, low: u64, high: u64) {
    if N == 1 {
        write::<2>(cpu, RAX as u8, low & 0xff | (high & 0xff) << 8);
    } else {
        write::<N>(cpu, RAX as u8, low);
        write::<N>(cpu, RDX as u8, high);
    }
}

/// Flags of a multiplication whose low half is `low`. SF, ZF, AF and PF are undefined; on Intel's processors SF and PF are those of the low half,
/// ZF and AF clear.
#[inline(always)]
fn product_flags<const N: usize>(low: u64, overflow: bool) -> LateFlags {
    // Not zero, and of the same sign and parity.
    let shown = if low == 0 { 3 } else { low };
    LateFlags::with_carry_overflow(shown, N, overflow, overflow)
}

#[inline(always)]
fn mul<const N: usize, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let b = operand::<N, MEMORY>(cpu, op, 0)?;
    let product = read::<N>(cpu, RAX as u8) as u128 * b as u128;
    let (low, high) = (cut::<N>(product as u64), (product >> (8 * N)) as u64);
    write_wide::<N>(cpu, low, high);
    let overflow = cut::<N>(high) != 0;
    cpu.flags = product_flags::<N>(low, overflow);
    Ok(())
}

#[inline(always)]
fn imul_wide<const N: usize, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let b = operand::<N, MEMORY>(cpu, op, 0)?;
    let a = read::<N>(cpu, RAX as u8);
    let product = sign_extend(a, N) as i64 as i128 * sign_extend(b, N) as i64 as i128;
    let (low, high) = (cut::<N>(product as u64), (product >> (8 * N)) as u64);
    write_wide::<N>(cpu, low, high);
    let overflow = product != sign_extend(low, N) as i64 as i128;
    cpu.flags = product_flags::<N>(low, overflow);
    Ok(())
}

#[inline(always)]
fn imul_flags<const N: usize>(a: u64, b: u64) -> (u64, LateFlags) {
    let product = sign_extend(a, N) as i64 as i128 * sign_extend(b, N) as i64 as i128;
    let low = cut::<N>(product as u64);
    let overflow = product != sign_extend(low, N) as i64 as i128;
    (low, product_flags::<N>(low, overflow))
}

#[inline(always)]
fn imul_two<const N: usize, const MEMORY: bool, const FLAGS: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let b = operand::<N, MEMORY>(cpu, op, 1)?;
    let (low, flags) = imul_flags::<N>(read::<N>(cpu, op.r[0]), b);
    write::<N>(cpu, op.r[0], low);
    if FLAGS {
        cpu.flags = flags;
    }
    Ok(())
}

#[inline(always)]
fn imul_three<const N: usize, const MEMORY: bool, const FLAGS: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let a = operand::<N, MEMORY>(cpu, op, 1)?;
    let (low, flags) = imul_flags::<N>(a, cut::<N>(op.imm));
    write::<N>(cpu, op.r[0], low);
    if FLAGS {
        cpu.flags = flags;
    }
    Ok(())
}

/// The double-width dividend.
fn dividend<const N: usize>(cpu: &Cpu) -> u128 {
    if N == 1 {
        read::<2>(cpu, RAX as u8) as u128
    } else {
        (read::<N>(cpu, RDX as u8) as u128) << (8 * N) | read::<N>(cpu, RAX as u8) as u128
    }
}

fn write_quotient<const N: usize>(cpu: &mut Cpu, quotient: u64, remainder: u64) {
    if N == 1 {
        write::<2>(cpu, RAX as u8, quotient & 0xff | (remainder & 0xff) << 8);
    } else {
        write::<N>(cpu, RAX as u8, quotient);
        write::<N>(cpu, RDX as u8, remainder);
    }
}

// The flags are undefined after a division; they are kept.
fn div<const N: usize, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let divisor = operand::<N, MEMORY>(cpu, op, 0)? as u128;
    let dividend = dividend::<N>(cpu);
    if divisor == 0 || dividend >> (8 * N) >= divisor {
        return Err(cpu.divide_error());
    }
    if N == 8 && dividend >> 64 != 0 {
        write_quotient::<N>(cpu, (dividend / divisor) as u64, (dividend % divisor) as u64);
    } else {
        let (dividend, divisor) = (dividend as u64, divisor as u64);
        write_quotient::<N>(cpu, dividend / divisor, dividend % divisor);
    }
    Ok(())
}

fn idiv<const N: usize, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let divisor = sign_extend(operand::<N, MEMORY>(cpu, op, 0)?, N) as i64 as i128;
    let unused = 128 - 16 * N as u32;
    let dividend = (dividend::<N>(cpu) << unused) as i128 >> unused;
    let Some(quotient) = dividend.checked_div(divisor) else { return Err(cpu.divide_error()) };
    if quotient != sign_extend(quotient as u64, N) as i64 as i128 {
        return Err(cpu.divide_error());
    }
    write_quotient::<N>(cpu, quotient as u64, (dividend - quotient * divisor) as u64);
    Ok(())
}

fn mulx<const N: usize, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let b = operand::<N, MEMORY>(cpu, op, 2)?;
    let product = read::<N>(cpu, RDX as u8) as u128 * b as u128;
    // If both destinations are the same register it gets the high half.
    write::<N>(cpu, op.r[1], product as u64);
    write::<N>(cpu, op.r[0], (product >> (8 * N)) as u64);
    Ok(())
}

/// ADCX (carry through CF) and ADOX (through OF).
fn add_through<const N: usize, const MEMORY: bool, const OVERFLOW: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let b = operand::<N, MEMORY>(cpu, op, 1)?;
    let flag = if OVERFLOW { OF } else { CF };
    let bits = cpu.flags.bits();
    let sum = read::<N>(cpu, op.r[0]) as u128 + b as u128 + (bits & flag != 0) as u128;
    write::<N>(cpu, op.r[0], sum as u64);
    let carry = sum >> (8 * N) != 0;
    cpu.flags = LateFlags::from_bits(bits & !flag | if carry { flag } else { 0 });
    Ok(())
}

macro_rules! sizes {
    ($t:ident, $($n:literal, $bits:literal);*) => { paste::paste! { $(
        $t.set(Code::[<Mul_rm $bits>], op!(mul::<$n, false>), op!(mul::<$n, true>)).safe();
        $t.set(Code::[<Imul_rm $bits>], op!(imul_wide::<$n, false>), op!(imul_wide::<$n, true>)).safe();
        $t.set(Code::[<Div_rm $bits>], op!(div::<$n, false>), op!(div::<$n, true>));
        $t.set(Code::[<Idiv_rm $bits>], op!(idiv::<$n, false>), op!(idiv::<$n, true>));
    )* }};
}

macro_rules! wide_sizes {
    ($t:ident, $($n:literal, $bits:literal, $imm:literal);*) => { paste::paste! { $(
        $t.set(Code::[<Imul_r $bits _rm $bits>], op!(imul_two::<$n, false, true>), op!(imul_two::<$n, true, true>))
            .dead(op!(imul_two::<$n, false, false>), op!(imul_two::<$n, true, false>)).safe();
        $t.set(Code::[<Imul_r $bits _rm $bits _imm $imm>], op!(imul_three::<$n, false, true>), op!(imul_three::<$n, true, true>))
            .dead(op!(imul_three::<$n, false, false>), op!(imul_three::<$n, true, false>)).safe();
        $t.set(Code::[<Imul_r $bits _rm $bits _imm8>], op!(imul_three::<$n, false, true>), op!(imul_three::<$n, true, true>))
            .dead(op!(imul_three::<$n, false, false>), op!(imul_three::<$n, true, false>)).safe();
    )* }};
}

/// Registers this file's instructions.
pub fn register(table: &mut Table) {
    sizes!(table, 1, 8; 2, 16; 4, 32; 8, 64);
    wide_sizes!(table, 2, 16, 16; 4, 32, 32; 8, 64, 32);
    table.set(Code::VEX_Mulx_r32_r32_rm32, op!(mulx::<4, false>), op!(mulx::<4, true>)).safe();
    table.set(Code::VEX_Mulx_r64_r64_rm64, op!(mulx::<8, false>), op!(mulx::<8, true>)).safe();
    table.set(Code::Adcx_r32_rm32, op!(add_through::<4, false, false>), op!(add_through::<4, true, false>)).safe();
    table.set(Code::Adcx_r64_rm64, op!(add_through::<8, false, false>), op!(add_through::<8, true, false>)).safe();
    table.set(Code::Adox_r32_rm32, op!(add_through::<4, false, true>), op!(add_through::<4, true, true>)).safe();
    table.set(Code::Adox_r64_rm64, op!(add_through::<8, false, true>), op!(add_through::<8, true, true>)).safe();
}
