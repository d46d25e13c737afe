//! MOV, MOVZX, MOVSX, MOVSXD, LEA, XCHG, CMOVcc, SETcc, BSWAP, MOVBE, CMPXCHG, XADD, sign extensions, NOP.

use super::operand::{cut, read, write};
use crate::cpu::{Cpu, RAX, RBX, RCX, RDX};
use crate::decode::op::{FLAT, INDEXED};
use crate::decode::{Op, Table};
use crate::flags::{LateFlags, ZF, sign_extend};
use crate::trap::Exec;
use crate::{fast, op};
use iced_x86::Code;

#[inline(always)]
fn mov_rr<const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    let value = read::<N>(cpu, op.r[1]);
    write::<N>(cpu, op.r[0], value);
    Ok(())
}

#[inline(always)]
fn mov_rm<const PATH: u8, const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    let address = cpu.linear_in::<PATH>(op, N as u64, false)?;
    let value = cpu.load_for::<PATH, N>(op, address)?;
    write::<N>(cpu, op.r[0], value);
    Ok(())
}

#[inline(always)]
fn mov_mr<const PATH: u8, const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    let address = cpu.linear_in::<PATH>(op, N as u64, true)?;
    cpu.store_for::<PATH, N>(op, address, read::<N>(cpu, op.r[1]))
}

#[inline(always)]
fn mov_ri<const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    write::<N>(cpu, op.r[0], op.imm);
    Ok(())
}

#[inline(always)]
fn mov_mi<const PATH: u8, const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    let address = cpu.linear_in::<PATH>(op, N as u64, true)?;
    cpu.store_for::<PATH, N>(op, address, cut::<N>(op.imm))
}

/// Zero- or sign-extends from `S` to `N` bytes.
#[inline(always)]
fn extend<const SIGNED: bool, const S: usize>(value: u64) -> u64 {
    if SIGNED { sign_extend(value, S) } else { value }
}

#[inline(always)]
fn movx_rr<const SIGNED: bool, const N: usize, const S: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    let value = read::<S>(cpu, op.r[1]);
    write::<N>(cpu, op.r[0], extend::<SIGNED, S>(value));
    Ok(())
}

#[inline(always)]
fn movx_rm<const PATH: u8, const SIGNED: bool, const N: usize, const S: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    let address = cpu.linear_in::<PATH>(op, S as u64, false)?;
    let value = cpu.load_for::<PATH, S>(op, address)?;
    write::<N>(cpu, op.r[0], extend::<SIGNED, S>(value));
    Ok(())
}

#[inline(always)]
fn lea<const PATH: u8, const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    let address = match PATH {
        FLAT => cpu.regs[op.base as usize].wrapping_add(op.disp),
        INDEXED => cpu.offset_of(op),
        _ => cpu.effective_address(op),
    };
    write::<N>(cpu, op.r[0], address);
    Ok(())
}

#[inline(always)]
fn xchg_rr<const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    let (a, b) = (read::<N>(cpu, op.r[0]), read::<N>(cpu, op.r[1]));
    write::<N>(cpu, op.r[0], b);
    write::<N>(cpu, op.r[1], a);
    Ok(())
}

#[inline(always)]
fn xchg_mr<const PATH: u8, const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    let address = cpu.linear_in::<PATH>(op, N as u64, true)?;
    let slot = cpu.locate_for::<PATH, N>(op, address)?;
    let old = cpu.load_at_in::<PATH, N>(slot)?;
    cpu.store_at_in::<PATH, N>(slot, read::<N>(cpu, op.r[1]))?;
    write::<N>(cpu, op.r[1], old);
    Ok(())
}

#[inline(always)]
fn cmov_rr<const CC: u8, const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    // The destination is written even if the condition is false: a 32-bit one loses its upper half.
    let source = if cpu.flags.condition(CC) { op.r[1] } else { op.r[0] };
    let value = read::<N>(cpu, source);
    write::<N>(cpu, op.r[0], value);
    Ok(())
}

#[inline(always)]
fn cmov_rm<const PATH: u8, const CC: u8, const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    let address = cpu.linear_in::<PATH>(op, N as u64, false)?;
    let loaded = cpu.load_for::<PATH, N>(op, address)?;
    let value = if cpu.flags.condition(CC) { loaded } else { read::<N>(cpu, op.r[0]) };
    write::<N>(cpu, op.r[0], value);
    Ok(())
}

#[inline(always)]
fn set_r<const CC: u8>(cpu: &mut Cpu, op: &Op) -> Exec {
    let value = cpu.flags.condition(CC) as u64;
    write::<1>(cpu, op.r[0], value);
    Ok(())
}

#[inline(always)]
fn set_m<const PATH: u8, const CC: u8>(cpu: &mut Cpu, op: &Op) -> Exec {
    let address = cpu.linear_in::<PATH>(op, 1, true)?;
    cpu.store_for::<PATH, 1>(op, address, cpu.flags.condition(CC) as u64)
}

fn bswap<const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    let value = read::<N>(cpu, op.r[0]);
    // The 16-bit form is undefined; processors clear the word.
    let swapped = match N {
        2 => 0,
        4 => (value as u32).swap_bytes() as u64,
        _ => value.swap_bytes(),
    };
    write::<N>(cpu, op.r[0], swapped);
    Ok(())
}

fn swap<const N: usize>(value: u64) -> u64 {
    value.swap_bytes() >> (64 - 8 * N)
}

fn movbe_rm<const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    let address = cpu.linear(op, N as u64, false)?;
    let value = cpu.load::<N>(address)?;
    write::<N>(cpu, op.r[0], swap::<N>(value));
    Ok(())
}

fn movbe_mr<const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    let address = cpu.linear(op, N as u64, true)?;
    cpu.store::<N>(address, swap::<N>(read::<N>(cpu, op.r[1])))
}

#[inline(always)]
fn compare<const N: usize>(a: u64, b: u64) -> LateFlags {
    let difference = a.wrapping_sub(b);
    LateFlags::with_carries(difference, !a & b | (!a | b) & difference, N)
}

fn cmpxchg_rr<const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    let (accumulator, old) = (read::<N>(cpu, RAX as u8), read::<N>(cpu, op.r[0]));
    cpu.flags = compare::<N>(accumulator, old);
    if accumulator == old {
        let new = read::<N>(cpu, op.r[1]);
        write::<N>(cpu, op.r[0], new);
    } else {
        write::<N>(cpu, RAX as u8, old);
    }
    Ok(())
}

fn cmpxchg_mr<const PATH: u8, const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    let address = cpu.linear_in::<PATH>(op, N as u64, true)?;
    let slot = cpu.locate_for::<PATH, N>(op, address)?;
    let old = cpu.load_at_in::<PATH, N>(slot)?;
    let accumulator = read::<N>(cpu, RAX as u8);
    // Memory is written in either case: with what was there if the values differ.
    let new = if accumulator == old { read::<N>(cpu, op.r[1]) } else { old };
    cpu.store_at_in::<PATH, N>(slot, new)?;
    cpu.flags = compare::<N>(accumulator, old);
    if accumulator != old {
        write::<N>(cpu, RAX as u8, old);
    }
    Ok(())
}

fn set_zf(cpu: &mut Cpu, zero: bool) {
    let bits = cpu.flags.bits() & !ZF | if zero { ZF } else { 0 };
    cpu.flags = LateFlags::from_bits(bits);
}

fn cmpxchg8b(cpu: &mut Cpu, op: &Op) -> Exec {
    let address = cpu.linear(op, 8, true)?;
    let slot = cpu.locate_write::<8>(address)?;
    let old = cpu.load_at::<8>(slot)?;
    let wide = |high: usize, low: usize, cpu: &Cpu| (cpu.regs[high] << 32) | cut::<4>(cpu.regs[low]);
    let equal = old == wide(RDX, RAX, cpu);
    let new = if equal { wide(RCX, RBX, cpu) } else { old };
    cpu.store_at::<8>(slot, new)?;
    if !equal {
        cpu.regs[RAX] = cut::<4>(old);
        cpu.regs[RDX] = old >> 32;
    }
    set_zf(cpu, equal);
    Ok(())
}

fn cmpxchg16b(cpu: &mut Cpu, op: &Op) -> Exec {
    let address = cpu.linear(op, 16, true)?;
    if address & 15 != 0 {
        return Err(cpu.general_protection(0));
    }
    cpu.probe_write(address, 16)?;
    let old = u128::from_le_bytes(cpu.load_bytes::<16>(address)?);
    let wide = |high: usize, low: usize, cpu: &Cpu| (cpu.regs[high] as u128) << 64 | cpu.regs[low] as u128;
    let equal = old == wide(RDX, RAX, cpu);
    let new = if equal { wide(RCX, RBX, cpu) } else { old };
    if !cpu.exchange_16_locked(address, old, new)? {
        cpu.store_bytes(address, new.to_le_bytes())?;
    }
    if !equal {
        cpu.regs[RAX] = old as u64;
        cpu.regs[RDX] = (old >> 64) as u64;
    }
    set_zf(cpu, equal);
    Ok(())
}

fn add_flags<const N: usize>(a: u64, b: u64) -> (u64, LateFlags) {
    let sum = a.wrapping_add(b);
    (sum, LateFlags::with_carries(sum, a & b | (a | b) & !sum, N))
}

fn xadd_rr<const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    let (a, b) = (read::<N>(cpu, op.r[0]), read::<N>(cpu, op.r[1]));
    let (sum, flags) = add_flags::<N>(a, b);
    write::<N>(cpu, op.r[1], a);
    write::<N>(cpu, op.r[0], sum);
    cpu.flags = flags;
    Ok(())
}

fn xadd_mr<const PATH: u8, const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    let address = cpu.linear_in::<PATH>(op, N as u64, true)?;
    let slot = cpu.locate_for::<PATH, N>(op, address)?;
    let old = cpu.load_at_in::<PATH, N>(slot)?;
    let (sum, flags) = add_flags::<N>(old, read::<N>(cpu, op.r[1]));
    cpu.store_at_in::<PATH, N>(slot, sum)?;
    write::<N>(cpu, op.r[1], old);
    cpu.flags = flags;
    Ok(())
}

/// CBW, CWDE, CDQE: sign-extends the lower half of the accumulator.
fn extend_accumulator<const N: usize>(cpu: &mut Cpu, _op: &Op) -> Exec {
    let half = cpu.regs[RAX];
    write::<N>(cpu, RAX as u8, sign_extend(half, N / 2));
    Ok(())
}

/// CWD, CDQ, CQO: fills the data register with the accumulator's sign.
#[inline(always)]
fn spread_sign<const N: usize>(cpu: &mut Cpu, _op: &Op) -> Exec {
    let sign = (sign_extend(cpu.regs[RAX], N) as i64 >> 63) as u64;
    write::<N>(cpu, RDX as u8, sign);
    Ok(())
}

#[inline(always)]
fn nop(_cpu: &mut Cpu, _op: &Op) -> Exec {
    Ok(())
}

/// A hint that names memory but does not access it.
fn nop_memory(_cpu: &mut Cpu, _op: &Op) -> Exec {
    Ok(())
}

fn xlat(cpu: &mut Cpu, op: &Op) -> Exec {
    // iced gives the operand as [rBX + AL] with AL as index: the slot holds the whole register, so it is computed here.
    let index = cpu.regs[RAX] as u8 as u64;
    let mut plain = *op;
    plain.index = crate::cpu::ZERO_REG;
    plain.disp = index;
    let address = cpu.linear(&plain, 1, false)?;
    let value = cpu.load::<1>(address)?;
    write::<1>(cpu, RAX as u8, value);
    Ok(())
}

macro_rules! mov {
    ($t:ident, $n:literal, $bits:literal, $acc:ident, $wide:literal) => {
        paste::paste! {
            $t.set(Code::[<Mov_rm $bits _r $bits>], op!(mov_rr::<$n>), fast!(mov_mr, $n)).safe();
            $t.set(Code::[<Mov_r $bits _rm $bits>], op!(mov_rr::<$n>), fast!(mov_rm, $n)).safe();
            $t.set(Code::[<Mov_rm $bits _imm $wide>], op!(mov_ri::<$n>), fast!(mov_mi, $n)).safe();
            $t.set(Code::[<Mov_r $bits _imm $bits>], op!(mov_ri::<$n>), op!(mov_ri::<$n>)).safe();
            $t.one(Code::[<Mov_ $acc _moffs $bits>], fast!(mov_rm, $n));
            $t.one(Code::[<Mov_moffs $bits _ $acc>], fast!(mov_mr, $n));
            $t.set(Code::[<Xchg_rm $bits _r $bits>], op!(xchg_rr::<$n>), fast!(xchg_mr, $n)).safe();
            $t.set(Code::[<Cmpxchg_rm $bits _r $bits>], op!(cmpxchg_rr::<$n>), fast!(cmpxchg_mr, $n)).safe();
            $t.set(Code::[<Xadd_rm $bits _r $bits>], op!(xadd_rr::<$n>), fast!(xadd_mr, $n)).safe();
        }
    };
}

macro_rules! wide_moves {
    ($t:ident, $n:literal, $bits:literal, $acc:ident) => { paste::paste! {
        $t.one(Code::[<Lea_r $bits _m>], fast!(lea, $n)).safe();
        $t.one(Code::[<Xchg_r $bits _ $acc>], op!(xchg_rr::<$n>)).safe();
        $t.one(Code::[<Bswap_r $bits>], op!(bswap::<$n>)).safe();
        $t.one(Code::[<Movbe_r $bits _m $bits>], op!(movbe_rm::<$n>));
        $t.one(Code::[<Movbe_m $bits _r $bits>], op!(movbe_mr::<$n>));
        $t.set(Code::[<Movzx_r $bits _rm8>], op!(movx_rr::<false, $n, 1>), fast!(movx_rm, false, $n, 1)).safe();
        $t.set(Code::[<Movzx_r $bits _rm16>], op!(movx_rr::<false, $n, 2>), fast!(movx_rm, false, $n, 2)).safe();
        $t.set(Code::[<Movsx_r $bits _rm8>], op!(movx_rr::<true, $n, 1>), fast!(movx_rm, true, $n, 1)).safe();
        $t.set(Code::[<Movsx_r $bits _rm16>], op!(movx_rr::<true, $n, 2>), fast!(movx_rm, true, $n, 2)).safe();
        $t.set(Code::[<Nop_rm $bits>], op!(nop), op!(nop_memory)).safe();
        for code in [Code::[<Reservednop_rm $bits _r $bits _0F0D>], Code::[<Reservednop_rm $bits _r $bits _0F18>], Code::[<Reservednop_rm $bits _r $bits _0F19>],
            Code::[<Reservednop_rm $bits _r $bits _0F1A>], Code::[<Reservednop_rm $bits _r $bits _0F1B>], Code::[<Reservednop_rm $bits _r $bits _0F1C>],
            Code::[<Reservednop_rm $bits _r $bits _0F1D>], Code::[<Reservednop_rm $bits _r $bits _0F1E>], Code::[<Reservednop_rm $bits _r $bits _0F1F>]] {
            $t.set(code, op!(nop), op!(nop_memory)).safe();
        }
    }};
}

macro_rules! conditional {
    ($t:ident, $($name:ident = $cc:literal),*) => { paste::paste! { $(
        $t.set(Code::[<Cmov $name _r16_rm16>], op!(cmov_rr::<$cc, 2>), fast!(cmov_rm, $cc, 2)).safe();
        $t.set(Code::[<Cmov $name _r32_rm32>], op!(cmov_rr::<$cc, 4>), fast!(cmov_rm, $cc, 4)).safe();
        $t.set(Code::[<Cmov $name _r64_rm64>], op!(cmov_rr::<$cc, 8>), fast!(cmov_rm, $cc, 8)).safe();
        $t.set(Code::[<Set $name _rm8>], op!(set_r::<$cc>), fast!(set_m, $cc)).safe();
    )* }};
}

/// Registers this file's instructions.
pub fn register(table: &mut Table) {
    mov!(table, 1, 8, AL, 8);
    mov!(table, 2, 16, AX, 16);
    mov!(table, 4, 32, EAX, 32);
    mov!(table, 8, 64, RAX, 32);
    wide_moves!(table, 2, 16, AX);
    wide_moves!(table, 4, 32, EAX);
    wide_moves!(table, 8, 64, RAX);
    conditional!(
        table,
        o = 0,
        no = 1,
        b = 2,
        ae = 3,
        e = 4,
        ne = 5,
        be = 6,
        a = 7,
        s = 8,
        ns = 9,
        p = 10,
        np = 11,
        l = 12,
        ge = 13,
        le = 14,
        g = 15
    );
    table.set(Code::Movsxd_r16_rm16, op!(mov_rr::<2>), fast!(mov_rm, 2)).safe();
    table.set(Code::Movsxd_r32_rm32, op!(mov_rr::<4>), fast!(mov_rm, 4)).safe();
    table.set(Code::Movsxd_r64_rm32, op!(movx_rr::<true, 8, 4>), fast!(movx_rm, true, 8, 4)).safe();
    table.one(Code::Movnti_m32_r32, fast!(mov_mr, 4));
    table.one(Code::Movnti_m64_r64, fast!(mov_mr, 8));
    table.one(Code::Cmpxchg8b_m64, op!(cmpxchg8b));
    table.one(Code::Cmpxchg16b_m128, op!(cmpxchg16b));
    table.one(Code::Cbw, op!(extend_accumulator::<2>)).safe();
    table.one(Code::Cwde, op!(extend_accumulator::<4>)).safe();
    table.one(Code::Cdqe, op!(extend_accumulator::<8>)).safe();
    table.one(Code::Cwd, op!(spread_sign::<2>)).safe();
    table.one(Code::Cdq, op!(spread_sign::<4>)).safe();
    table.one(Code::Cqo, op!(spread_sign::<8>)).safe();
    for code in [Code::Nopw, Code::Nopd, Code::Nopq, Code::Endbr32, Code::Endbr64] {
        table.one(code, op!(nop)).safe();
    }
    table.one(Code::Xlat_m8, op!(xlat));
}
