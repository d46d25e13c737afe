//! ADD, ADC, SUB, SBB, CMP, AND, OR, XOR, TEST, INC, DEC, NEG, NOT.

use super::operand::{read, write};
use crate::cpu::Cpu;
use crate::decode::{Op, Table};
use crate::flags::LateFlags;
use crate::trap::Exec;
use crate::{fast, op};
use iced_x86::Code;

/// A two-operand operation: the result and, if wanted, the flags.
pub trait Binary {
    /// The result is stored (not CMP, TEST).
    const STORES: bool = true;
    /// Computes on zero-extended operands of `N` bytes; `carry` is CF before.
    fn compute<const N: usize, const FLAGS: bool>(a: u64, b: u64, flags: &mut LateFlags) -> u64;
}

/// ADD.
pub struct Add;
/// ADC.
pub struct Adc;
/// SUB.
pub struct Sub;
/// SBB.
pub struct Sbb;
/// AND.
pub struct And;
/// OR.
pub struct Or;
/// XOR.
pub struct Xor;
/// CMP.
pub struct Cmp;
/// TEST.
pub struct Test;

#[inline(always)]
fn add_with<const N: usize, const FLAGS: bool>(a: u64, b: u64, carry: u64, flags: &mut LateFlags) -> u64 {
    let sum = a.wrapping_add(b).wrapping_add(carry);
    if FLAGS {
        *flags = LateFlags::with_carries(sum, a & b | (a | b) & !sum, N);
    }
    sum
}

#[inline(always)]
fn sub_with<const N: usize, const FLAGS: bool>(a: u64, b: u64, borrow: u64, flags: &mut LateFlags) -> u64 {
    let difference = a.wrapping_sub(b).wrapping_sub(borrow);
    if FLAGS {
        *flags = LateFlags::with_carries(difference, !a & b | (!a | b) & difference, N);
    }
    difference
}

macro_rules! binary {
    ($name:ident, $a:ident, $b:ident, $flags:ident, $body:expr) => {
        impl Binary for $name {
            #[inline(always)]
            fn compute<const N: usize, const FLAGS: bool>($a: u64, $b: u64, $flags: &mut LateFlags) -> u64 {
                $body
            }
        }
    };
}

macro_rules! logical {
    ($name:ident, $operator:tt) => {
        impl Binary for $name {
            #[inline(always)]
            fn compute<const N: usize, const FLAGS: bool>(a: u64, b: u64, flags: &mut LateFlags) -> u64 {
                let result = a $operator b;
                if FLAGS {
                    *flags = LateFlags::logical(result, N);
                }
                result
            }
        }
    };
}

binary!(Add, a, b, flags, add_with::<N, FLAGS>(a, b, 0, flags));
binary!(Adc, a, b, flags, add_with::<N, FLAGS>(a, b, flags.cf() as u64, flags));
binary!(Sub, a, b, flags, sub_with::<N, FLAGS>(a, b, 0, flags));
binary!(Sbb, a, b, flags, sub_with::<N, FLAGS>(a, b, flags.cf() as u64, flags));
logical!(And, &);
logical!(Or, |);
logical!(Xor, ^);

impl Binary for Cmp {
    const STORES: bool = false;
    #[inline(always)]
    fn compute<const N: usize, const FLAGS: bool>(a: u64, b: u64, flags: &mut LateFlags) -> u64 {
        sub_with::<N, FLAGS>(a, b, 0, flags)
    }
}

impl Binary for Test {
    const STORES: bool = false;
    #[inline(always)]
    fn compute<const N: usize, const FLAGS: bool>(a: u64, b: u64, flags: &mut LateFlags) -> u64 {
        And::compute::<N, FLAGS>(a, b, flags)
    }
}

/// Register with register.
#[inline(always)]
fn rr<B: Binary, const N: usize, const FLAGS: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let (a, b) = (read::<N>(cpu, op.r[0]), read::<N>(cpu, op.r[1]));
    let result = B::compute::<N, FLAGS>(a, b, &mut cpu.flags);
    if B::STORES {
        write::<N>(cpu, op.r[0], result);
    }
    Ok(())
}

/// Register with immediate.
#[inline(always)]
fn ri<B: Binary, const N: usize, const FLAGS: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let a = read::<N>(cpu, op.r[0]);
    let result = B::compute::<N, FLAGS>(a, super::operand::cut::<N>(op.imm), &mut cpu.flags);
    if B::STORES {
        write::<N>(cpu, op.r[0], result);
    }
    Ok(())
}

/// Register with memory.
#[inline(always)]
fn rm<const PATH: u8, B: Binary, const N: usize, const FLAGS: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let address = cpu.linear_in::<PATH>(op, N as u64, false)?;
    let b = cpu.load_for::<PATH, N>(op, address)?;
    let a = read::<N>(cpu, op.r[0]);
    let result = B::compute::<N, FLAGS>(a, b, &mut cpu.flags);
    if B::STORES {
        write::<N>(cpu, op.r[0], result);
    }
    Ok(())
}

#[inline(always)]
fn memory_with<const PATH: u8, B: Binary, const N: usize, const FLAGS: bool>(cpu: &mut Cpu, op: &Op, b: u64) -> Exec {
    let address = cpu.linear_in::<PATH>(op, N as u64, B::STORES)?;
    if B::STORES {
        let slot = cpu.locate_for::<PATH, N>(op, address)?;
        let a = cpu.load_at_in::<PATH, N>(slot)?;
        let mut flags = cpu.flags;
        let result = B::compute::<N, FLAGS>(a, b, &mut flags);
        cpu.store_at_in::<PATH, N>(slot, result)?;
        cpu.flags = flags;
    } else {
        let a = cpu.load_for::<PATH, N>(op, address)?;
        B::compute::<N, FLAGS>(a, b, &mut cpu.flags);
    }
    Ok(())
}

/// Memory with register.
#[inline(always)]
fn mr<const PATH: u8, B: Binary, const N: usize, const FLAGS: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let b = read::<N>(cpu, op.r[1]);
    memory_with::<PATH, B, N, FLAGS>(cpu, op, b)
}

/// Memory with immediate.
#[inline(always)]
fn mi<const PATH: u8, B: Binary, const N: usize, const FLAGS: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    memory_with::<PATH, B, N, FLAGS>(cpu, op, super::operand::cut::<N>(op.imm))
}

/// A one-operand operation.
pub trait Unary {
    /// Computes on a zero-extended operand of `N` bytes.
    fn compute<const N: usize, const FLAGS: bool>(a: u64, flags: &mut LateFlags) -> u64;
}

/// INC.
pub struct Inc;
/// DEC.
pub struct Dec;
/// NEG.
pub struct Neg;
/// NOT.
pub struct Not;

impl Unary for Inc {
    #[inline(always)]
    fn compute<const N: usize, const FLAGS: bool>(a: u64, flags: &mut LateFlags) -> u64 {
        let carry = flags.cf();
        let result = add_with::<N, FLAGS>(a, 1, 0, flags);
        if FLAGS {
            *flags = flags.set_cf(carry);
        }
        result
    }
}

impl Unary for Dec {
    #[inline(always)]
    fn compute<const N: usize, const FLAGS: bool>(a: u64, flags: &mut LateFlags) -> u64 {
        let carry = flags.cf();
        let result = sub_with::<N, FLAGS>(a, 1, 0, flags);
        if FLAGS {
            *flags = flags.set_cf(carry);
        }
        result
    }
}

impl Unary for Neg {
    #[inline(always)]
    fn compute<const N: usize, const FLAGS: bool>(a: u64, flags: &mut LateFlags) -> u64 {
        sub_with::<N, FLAGS>(0, a, 0, flags)
    }
}

impl Unary for Not {
    #[inline(always)]
    fn compute<const N: usize, const FLAGS: bool>(a: u64, _flags: &mut LateFlags) -> u64 {
        !a
    }
}

#[inline(always)]
fn unary_r<U: Unary, const N: usize, const FLAGS: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let a = read::<N>(cpu, op.r[0]);
    let result = U::compute::<N, FLAGS>(a, &mut cpu.flags);
    write::<N>(cpu, op.r[0], result);
    Ok(())
}

#[inline(always)]
fn unary_m<const PATH: u8, U: Unary, const N: usize, const FLAGS: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let address = cpu.linear_in::<PATH>(op, N as u64, true)?;
    let slot = cpu.locate_for::<PATH, N>(op, address)?;
    let a = cpu.load_at_in::<PATH, N>(slot)?;
    let mut flags = cpu.flags;
    let result = U::compute::<N, FLAGS>(a, &mut flags);
    cpu.store_at_in::<PATH, N>(slot, result)?;
    cpu.flags = flags;
    Ok(())
}

macro_rules! forms {
    ($table:ident, $name:ident, $n:literal, rm_r: [$($rm_r:ident),*], r_rm: [$($r_rm:ident),*], rm_i: [$($rm_i:ident),*]) => {
        $($table.set(Code::$rm_r, op!(rr::<$name, $n, true>), fast!(mr, $name, $n, true))
            .dead(op!(rr::<$name, $n, false>), fast!(mr, $name, $n, false)).safe();)*
        $($table.set(Code::$r_rm, op!(rr::<$name, $n, true>), fast!(rm, $name, $n, true))
            .dead(op!(rr::<$name, $n, false>), fast!(rm, $name, $n, false)).safe();)*
        $($table.set(Code::$rm_i, op!(ri::<$name, $n, true>), fast!(mi, $name, $n, true))
            .dead(op!(ri::<$name, $n, false>), fast!(mi, $name, $n, false)).safe();)*
    };
}

macro_rules! all_forms {
    ($table:ident, $name:ident) => { paste::paste! {
        forms!($table, $name, 1, rm_r: [[<$name _rm8_r8>]], r_rm: [[<$name _r8_rm8>]], rm_i: [[<$name _AL_imm8>], [<$name _rm8_imm8>], [<$name _rm8_imm8_82>]]);
        forms!($table, $name, 2, rm_r: [[<$name _rm16_r16>]], r_rm: [[<$name _r16_rm16>]], rm_i: [[<$name _AX_imm16>], [<$name _rm16_imm16>], [<$name _rm16_imm8>]]);
        forms!($table, $name, 4, rm_r: [[<$name _rm32_r32>]], r_rm: [[<$name _r32_rm32>]], rm_i: [[<$name _EAX_imm32>], [<$name _rm32_imm32>], [<$name _rm32_imm8>]]);
        forms!($table, $name, 8, rm_r: [[<$name _rm64_r64>]], r_rm: [[<$name _r64_rm64>]], rm_i: [[<$name _RAX_imm32>], [<$name _rm64_imm32>], [<$name _rm64_imm8>]]);
    }};
}

macro_rules! unary_forms {
    ($table:ident, $name:ident, $n:literal, [$($code:ident),*]) => {
        $($table.set(Code::$code, op!(unary_r::<$name, $n, true>), fast!(unary_m, $name, $n, true))
            .dead(op!(unary_r::<$name, $n, false>), fast!(unary_m, $name, $n, false)).safe();)*
    };
}

/// Registers this file's instructions.
pub fn register(table: &mut Table) {
    all_forms!(table, Add);
    all_forms!(table, Adc);
    all_forms!(table, Sub);
    all_forms!(table, Sbb);
    all_forms!(table, And);
    all_forms!(table, Or);
    all_forms!(table, Xor);
    all_forms!(table, Cmp);
    forms!(table, Test, 1, rm_r: [Test_rm8_r8], r_rm: [], rm_i: [Test_AL_imm8, Test_rm8_imm8, Test_rm8_imm8_F6r1]);
    forms!(table, Test, 2, rm_r: [Test_rm16_r16], r_rm: [], rm_i: [Test_AX_imm16, Test_rm16_imm16, Test_rm16_imm16_F7r1]);
    forms!(table, Test, 4, rm_r: [Test_rm32_r32], r_rm: [], rm_i: [Test_EAX_imm32, Test_rm32_imm32, Test_rm32_imm32_F7r1]);
    forms!(table, Test, 8, rm_r: [Test_rm64_r64], r_rm: [], rm_i: [Test_RAX_imm32, Test_rm64_imm32, Test_rm64_imm32_F7r1]);
    unary_forms!(table, Inc, 1, [Inc_rm8]);
    unary_forms!(table, Inc, 2, [Inc_r16, Inc_rm16]);
    unary_forms!(table, Inc, 4, [Inc_r32, Inc_rm32]);
    unary_forms!(table, Inc, 8, [Inc_rm64]);
    unary_forms!(table, Dec, 1, [Dec_rm8]);
    unary_forms!(table, Dec, 2, [Dec_r16, Dec_rm16]);
    unary_forms!(table, Dec, 4, [Dec_r32, Dec_rm32]);
    unary_forms!(table, Dec, 8, [Dec_rm64]);
    unary_forms!(table, Neg, 1, [Neg_rm8]);
    unary_forms!(table, Neg, 2, [Neg_rm16]);
    unary_forms!(table, Neg, 4, [Neg_rm32]);
    unary_forms!(table, Neg, 8, [Neg_rm64]);
    unary_forms!(table, Not, 1, [Not_rm8]);
    unary_forms!(table, Not, 2, [Not_rm16]);
    unary_forms!(table, Not, 4, [Not_rm32]);
    unary_forms!(table, Not, 8, [Not_rm64]);
}
