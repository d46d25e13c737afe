//! Data transfer: loads, stores, exchange, conditional moves, constants.

use crate::cpu::Cpu;
use crate::decode::{Op, Table};
use crate::op;
use crate::trap::Exec;
use iced_x86::Code;
use softfloat::{Env, F32, F64, F80, OE, Operand, Rounding, UE};

/// A memory operand in one of its formats.
pub(super) trait Source {
    fn load(cpu: &mut Cpu, op: &Op) -> Exec<Operand>;
}

pub(super) struct Single;
pub(super) struct Double;
pub(super) struct Int16;
pub(super) struct Int32;

impl Source for Single {
    fn load(cpu: &mut Cpu, op: &Op) -> Exec<Operand> {
        let address = cpu.linear(op, 4, false)?;
        Ok(F32(cpu.load::<4>(address)? as u32).into())
    }
}

impl Source for Double {
    fn load(cpu: &mut Cpu, op: &Op) -> Exec<Operand> {
        let address = cpu.linear(op, 8, false)?;
        Ok(F64(cpu.load::<8>(address)?).into())
    }
}

impl Source for Int16 {
    fn load(cpu: &mut Cpu, op: &Op) -> Exec<Operand> {
        let address = cpu.linear(op, 2, false)?;
        Ok(F80::from_i64(i64::from(cpu.load::<2>(address)? as i16)).into())
    }
}

impl Source for Int32 {
    fn load(cpu: &mut Cpu, op: &Op) -> Exec<Operand> {
        let address = cpu.linear(op, 4, false)?;
        Ok(F80::from_i64(i64::from(cpu.load::<4>(address)? as i32)).into())
    }
}

/// Pushes what `value` gives unless the stack is full. Of the exceptions found before computing, only an unmasked IE withholds the push.
fn push_with(cpu: &mut Cpu, op: &Op, value: impl FnOnce(&mut Env) -> F80) -> Exec {
    let mut env = cpu.x87_begin(op);
    if !cpu.x87.empty(7) {
        if cpu.x87_stack_fault(op, true) {
            cpu.x87.push(F80::INDEFINITE);
        }
        return Ok(());
    }
    let value = value(&mut env);
    cpu.x87_conclude(op, &env);
    if env.flags & !env.masks & softfloat::IE == 0 {
        cpu.x87.push(value);
    }
    Ok(())
}

fn load_single(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.x87_ready()?;
    let address = cpu.linear(op, 4, false)?;
    let value = F32(cpu.load::<4>(address)? as u32);
    push_with(cpu, op, |env| value.to_f80(env))
}

fn load_double(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.x87_ready()?;
    let address = cpu.linear(op, 8, false)?;
    let value = F64(cpu.load::<8>(address)?);
    push_with(cpu, op, |env| value.to_f80(env))
}

fn load_extended(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.x87_ready()?;
    let address = cpu.linear(op, 10, false)?;
    let bytes = cpu.load_bytes::<10>(address)?;
    push_with(cpu, op, |_| extended(&bytes))
}

/// An 80-bit number from memory.
pub(super) fn extended(bytes: &[u8; 10]) -> F80 {
    let [a, b, c, d, e, f, g, h, i, j] = *bytes;
    F80 { significand: u64::from_le_bytes([a, b, c, d, e, f, g, h]), sign_exponent: u16::from_le_bytes([i, j]) }
}

/// An 80-bit number as it stands in memory.
pub(super) fn extended_bytes(value: F80) -> [u8; 10] {
    let mut bytes = [0; 10];
    bytes[..8].copy_from_slice(&value.significand.to_le_bytes());
    bytes[8..].copy_from_slice(&value.sign_exponent.to_le_bytes());
    bytes
}

fn load_integer<const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.x87_ready()?;
    let address = cpu.linear(op, N as u64, false)?;
    let value = cpu.load::<N>(address)?;
    let shift = 64 - 8 * N as u32;
    push_with(cpu, op, |_| F80::from_i64((value << shift) as i64 >> shift))
}

fn load_bcd(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.x87_ready()?;
    let address = cpu.linear(op, 10, false)?;
    let bcd = cpu.load_bytes::<10>(address)?;
    push_with(cpu, op, |_| F80::from_bcd(&bcd))
}

/// FLD ST(i): the register is read before the push moves the top.
fn load_register(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.x87_ready()?;
    let i = op.r[0] & 7;
    let source = cpu.x87.st(i);
    if cpu.x87.empty(i) {
        cpu.x87_begin(op);
        if cpu.x87_stack_fault(op, false) {
            cpu.x87.push(F80::INDEFINITE);
        }
        return Ok(());
    }
    push_with(cpu, op, |_| source)
}

/// Stores ST(0) converted by `convert` into `N` bytes; `indefinite` is the masked response to an empty ST(0).
///
/// What an unmasked exception withholds is not stored, and its address not even looked at, as on Intel's processors: then no fault of the
/// operand comes before the exception, which the next instruction reports.
fn store_with<const N: usize, const POP: bool>(
    cpu: &mut Cpu,
    op: &Op,
    indefinite: [u8; N],
    convert: impl FnOnce(F80, &mut Env) -> [u8; N],
) -> Exec {
    cpu.x87_ready()?;
    let mut env = Env::from_fcw(cpu.x87.fcw);
    if cpu.x87.empty(0) {
        if env.masks & softfloat::IE != 0 {
            let address = cpu.linear(op, N as u64, true)?;
            cpu.store_bytes::<N>(address, indefinite)?;
        }
        cpu.x87_begin(op);
        if cpu.x87_stack_fault(op, false) && POP {
            cpu.x87.pop();
        }
        return Ok(());
    }
    let bytes = convert(cpu.x87.st(0), &mut env);
    // Unmasked overflow and underflow leave memory and the stack alone too (SDM Vol. 1, 8.5.4 and 8.5.5).
    let store = !env.withheld() && env.flags & !env.masks & (OE | UE) == 0;
    if store {
        let address = cpu.linear(op, N as u64, true)?;
        cpu.store_bytes::<N>(address, bytes)?;
    } else {
        // No rounding took place that anybody sees.
        env.flags &= !softfloat::PE;
        env.rounded_up = false;
    }
    cpu.x87_begin(op);
    cpu.x87_conclude(op, &env);
    if store && POP {
        cpu.x87.pop();
    }
    Ok(())
}

fn store_single<const POP: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    store_with::<4, POP>(cpu, op, 0xffc0_0000u32.to_le_bytes(), |a, env| a.to_f32(env).0.to_le_bytes())
}

fn store_double<const POP: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    store_with::<8, POP>(cpu, op, 0xfff8_0000_0000_0000u64.to_le_bytes(), |a, env| a.to_f64(env).0.to_le_bytes())
}

fn store_extended(cpu: &mut Cpu, op: &Op) -> Exec {
    store_with::<10, true>(cpu, op, extended_bytes(F80::INDEFINITE), |a, _| extended_bytes(a))
}

fn store_bcd(cpu: &mut Cpu, op: &Op) -> Exec {
    store_with::<10, true>(cpu, op, [0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff], F80::to_bcd)
}

fn rounding<const TRUNCATE: bool>(env: &Env) -> Rounding {
    if TRUNCATE { Rounding::Zero } else { env.rounding }
}

fn store_16<const POP: bool, const TRUNCATE: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    store_with::<2, POP>(cpu, op, i16::MIN.to_le_bytes(), |a, env| {
        a.to_i16(rounding::<TRUNCATE>(env), env).to_le_bytes()
    })
}

fn store_32<const POP: bool, const TRUNCATE: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    store_with::<4, POP>(cpu, op, i32::MIN.to_le_bytes(), |a, env| {
        a.to_i32(rounding::<TRUNCATE>(env), env).to_le_bytes()
    })
}

fn store_64<const TRUNCATE: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    store_with::<8, true>(cpu, op, i64::MIN.to_le_bytes(), |a, env| {
        a.to_i64(rounding::<TRUNCATE>(env), env).to_le_bytes()
    })
}

/// FST ST(i).
fn store_register<const POP: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.x87_ready()?;
    cpu.x87_begin(op);
    let value = if !cpu.x87.empty(0) {
        cpu.x87.set_c1(false);
        cpu.x87.st(0)
    } else if cpu.x87_stack_fault(op, false) {
        F80::INDEFINITE
    } else {
        return Ok(());
    };
    cpu.x87.set_st(op.r[0] & 7, value);
    if POP {
        cpu.x87.pop();
    }
    Ok(())
}

/// FSTPNCE: as FSTP ST(i), but an empty ST(0) is no fault.
fn store_register_no_check(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.x87_ready()?;
    cpu.x87_begin(op);
    let value = if cpu.x87.empty(0) { F80::INDEFINITE } else { cpu.x87.st(0) };
    cpu.x87.set_c1(false);
    cpu.x87.set_st(op.r[0] & 7, value);
    cpu.x87.pop();
    Ok(())
}

fn exchange(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.x87_ready()?;
    cpu.x87_begin(op);
    let i = op.r[1] & 7;
    let (mut a, mut b) = (cpu.x87.st(0), cpu.x87.st(i));
    if cpu.x87.empty(0) || cpu.x87.empty(i) {
        if cpu.x87.empty(0) {
            a = F80::INDEFINITE;
        }
        if cpu.x87.empty(i) {
            b = F80::INDEFINITE;
        }
        if !cpu.x87_stack_fault(op, false) {
            return Ok(());
        }
    } else {
        cpu.x87.set_c1(false);
    }
    cpu.x87.set_st(0, b);
    cpu.x87.set_st(i, a);
    Ok(())
}

/// FCMOVcc: `CONDITION` as in SETcc.
fn conditional_move<const CONDITION: u8>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.x87_ready()?;
    cpu.x87_begin(op);
    let i = op.r[1] & 7;
    if cpu.x87.empty(0) || cpu.x87.empty(i) {
        // Whether or not the condition holds.
        if cpu.x87_stack_fault(op, false) {
            cpu.x87.set_st(0, F80::INDEFINITE);
        }
        return Ok(());
    }
    if cpu.flags.condition(CONDITION) {
        let value = cpu.x87.st(i);
        cpu.x87.set_st(0, value);
    }
    Ok(())
}

/// A constant: its leading 64 bits rounded down, whether to nearest is one more, and the exponent. `rounds` is false for exact ones.
fn constant<const SIGNIFICAND: u64, const EXPONENT: u16, const NEAREST_UP: bool, const EXACT: bool>(
    cpu: &mut Cpu,
    op: &Op,
) -> Exec {
    cpu.x87_ready()?;
    push_with(cpu, op, |env| {
        let up = match env.rounding {
            Rounding::Nearest => NEAREST_UP,
            Rounding::Up => !EXACT,
            Rounding::Down | Rounding::Zero => false,
        };
        F80 { significand: SIGNIFICAND + u64::from(up), sign_exponent: EXPONENT }
    })
}

pub(super) fn register(table: &mut Table) {
    table.one(Code::Fld_m32fp, op!(load_single));
    table.one(Code::Fld_m64fp, op!(load_double));
    table.one(Code::Fld_m80fp, op!(load_extended));
    table.one(Code::Fld_sti, op!(load_register));
    table.one(Code::Fild_m16int, op!(load_integer::<2>));
    table.one(Code::Fild_m32int, op!(load_integer::<4>));
    table.one(Code::Fild_m64int, op!(load_integer::<8>));
    table.one(Code::Fbld_m80bcd, op!(load_bcd));
    table.one(Code::Fst_m32fp, op!(store_single::<false>));
    table.one(Code::Fstp_m32fp, op!(store_single::<true>));
    table.one(Code::Fst_m64fp, op!(store_double::<false>));
    table.one(Code::Fstp_m64fp, op!(store_double::<true>));
    table.one(Code::Fstp_m80fp, op!(store_extended));
    table.one(Code::Fbstp_m80bcd, op!(store_bcd));
    table.one(Code::Fist_m16int, op!(store_16::<false, false>));
    table.one(Code::Fistp_m16int, op!(store_16::<true, false>));
    table.one(Code::Fisttp_m16int, op!(store_16::<true, true>));
    table.one(Code::Fist_m32int, op!(store_32::<false, false>));
    table.one(Code::Fistp_m32int, op!(store_32::<true, false>));
    table.one(Code::Fisttp_m32int, op!(store_32::<true, true>));
    table.one(Code::Fistp_m64int, op!(store_64::<false>));
    table.one(Code::Fisttp_m64int, op!(store_64::<true>));
    table.one(Code::Fst_sti, op!(store_register::<false>));
    for code in [Code::Fstp_sti, Code::Fstp_sti_DFD0, Code::Fstp_sti_DFD8] {
        table.one(code, op!(store_register::<true>));
    }
    table.one(Code::Fstpnce_sti, op!(store_register_no_check));
    for code in [Code::Fxch_st0_sti, Code::Fxch_st0_sti_DDC8, Code::Fxch_st0_sti_DFC8] {
        table.one(code, op!(exchange));
    }
    table.one(Code::Fcmovb_st0_sti, op!(conditional_move::<2>));
    table.one(Code::Fcmove_st0_sti, op!(conditional_move::<4>));
    table.one(Code::Fcmovbe_st0_sti, op!(conditional_move::<6>));
    table.one(Code::Fcmovu_st0_sti, op!(conditional_move::<10>));
    table.one(Code::Fcmovnb_st0_sti, op!(conditional_move::<3>));
    table.one(Code::Fcmovne_st0_sti, op!(conditional_move::<5>));
    table.one(Code::Fcmovnbe_st0_sti, op!(conditional_move::<7>));
    table.one(Code::Fcmovnu_st0_sti, op!(conditional_move::<11>));
    table.one(Code::Fldz, op!(constant::<0, 0, false, true>));
    table.one(Code::Fld1, op!(constant::<0x8000_0000_0000_0000, 0x3fff, false, true>));
    table.one(Code::Fldl2t, op!(constant::<0xd49a_784b_cd1b_8afe, 0x4000, false, false>));
    table.one(Code::Fldl2e, op!(constant::<0xb8aa_3b29_5c17_f0bb, 0x3fff, true, false>));
    table.one(Code::Fldpi, op!(constant::<0xc90f_daa2_2168_c234, 0x4000, true, false>));
    table.one(Code::Fldlg2, op!(constant::<0x9a20_9a84_fbcf_f798, 0x3ffd, true, false>));
    table.one(Code::Fldln2, op!(constant::<0xb172_17f7_d1cf_79ab, 0x3ffe, true, false>));
}
