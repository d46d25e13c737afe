//! Instructions between vectors and general registers or flags: insert, extract, masks, scalar conversions, comparisons that set
//! flags, string comparisons, half-register stores.

use iced_x86::Code;
use softfloat::{Env, F32, F64, PE, Relation, Rounding, Sse};

use super::lanes::Xmm;
use super::{convert, integer, string_compare};
use crate::cpu::{Cpu, RAX, RCX, RDX};
use crate::decode::op::SLOW;
use crate::decode::op::VEX;
use crate::decode::{Op, Table};
use crate::flags::{self, LateFlags};
use crate::integer::operand;
use crate::trap::Exec;
use crate::{fast, op};

/// Sets ZF, PF and CF; OF, SF and AF become clear.
fn set_flags(cpu: &mut Cpu, zf: bool, pf: bool, cf: bool) {
    let bit = |set: bool, flag: u64| if set { flag } else { 0 };
    cpu.flags = LateFlags::from_bits(bit(zf, flags::ZF) | bit(pf, flags::PF) | bit(cf, flags::CF));
}

/// A scalar source of `N` bytes: the low end of an XMM register, or memory.
#[inline(always)]
fn scalar_source<const N: usize, const MEMORY: bool>(cpu: &mut Cpu, op: &Op, slot: usize) -> Exec<u64> {
    if MEMORY { cpu.load_operand::<N>(op) } else { Ok(cpu.xmm(op.r[slot & 3]).low()) }
}

/// COMISS, UCOMISS, COMISD, UCOMISD and their VEX forms. `N` is 4 or 8.
#[inline(never)]
fn compare<const N: usize, const SIGNALING: bool, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.vector_ready(op.has(VEX))?;
    let b = scalar_source::<N, MEMORY>(cpu, op, 1)?;
    let a = cpu.xmm(op.r[0]).low();
    let mut env = Env::from_mxcsr(cpu.mxcsr);
    let relation: Relation = if N == 4 {
        F32(a as u32).compare(F32(b as u32), SIGNALING, &mut env)
    } else {
        F64(a).compare(F64(b), SIGNALING, &mut env)
    };
    cpu.settle(&env)?;
    let (zf, pf, cf) = relation.zf_pf_cf();
    set_flags(cpu, zf, pf, cf);
    Ok(())
}

/// CVTSI2SS, CVTSI2SD: `FROM` bytes of integer to `TO` bytes of floating point.
#[inline(never)]
fn from_integer<const FROM: usize, const TO: usize, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let vex = op.has(VEX);
    cpu.vector_ready(vex)?;
    let (a, source) = if vex { (op.r[1], op.r[2]) } else { (op.r[0], op.r[1]) };
    let value = if MEMORY { cpu.load_operand::<FROM>(op)? } else { operand::read::<FROM>(cpu, source) };
    let value = if FROM == 4 { i64::from(value as i32) } else { value as i64 };
    let a = cpu.xmm(a);
    // Integers of as many bits as the significand convert exactly, without flags.
    if TO == 8 && value.unsigned_abs() <= 1 << 53 {
        cpu.set_xmm_as(vex, op.r[0], a.with_low((value as f64).to_bits()));
        return Ok(());
    }
    let mut env = Env::from_mxcsr(cpu.mxcsr);
    let result = if TO == 4 {
        a.with_low32(F32::from_i64(value, &mut env).0)
    } else {
        a.with_low(F64::from_i64(value, &mut env).0)
    };
    cpu.settle(&env)?;
    cpu.set_xmm_as(vex, op.r[0], result);
    Ok(())
}

/// CVTSS2SI, CVTSD2SI and, with `TRUNCATE`, CVTTSS2SI, CVTTSD2SI: `FROM` bytes of floating point to `TO` bytes of integer.
#[inline(never)]
fn to_integer<const FROM: usize, const TO: usize, const TRUNCATE: bool, const MEMORY: bool>(
    cpu: &mut Cpu,
    op: &Op,
) -> Exec {
    cpu.vector_ready(op.has(VEX))?;
    let source = scalar_source::<FROM, MEMORY>(cpu, op, 1)?;
    let mut env = Env::from_mxcsr(cpu.mxcsr);
    let rounding = if TRUNCATE { Rounding::Zero } else { env.rounding };
    let plain = if FROM == 4 { f64::from(f32::from_bits(source as u32)) } else { f64::from_bits(source) };
    let limit = if TO == 4 { 2f64.powi(31) } else { 2f64.powi(63) };
    let value = match (FROM, TO) {
        // What fits and is no denormal: the host's truncation, inexact if there was a fraction.
        _ if TRUNCATE && (1.0..limit).contains(&plain.abs()) => {
            let whole = plain as i64;
            if whole as f64 != plain {
                env.flags |= PE;
            }
            whole as u64
        }
        (4, 4) => F32(source as u32).to_i32(rounding, &mut env) as u64,
        (4, _) => F32(source as u32).to_i64(rounding, &mut env) as u64,
        (_, 4) => F64(source).to_i32(rounding, &mut env) as u64,
        _ => F64(source).to_i64(rounding, &mut env) as u64,
    };
    cpu.settle(&env)?;
    operand::write::<TO>(cpu, op.r[0], value);
    Ok(())
}

/// PMOVMSKB, MOVMSKPS, MOVMSKPD: the sign bits of lanes of `LANE` bytes.
#[inline(always)]
fn sign_mask<const PATH: u8, const LANE: usize, const V: bool, const WIDE: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.vector_ready_in::<PATH>(V)?;
    let source = cpu.ymm(op.r[1]);
    let mask = |half: &Xmm| match LANE {
        1 => integer::sign_mask8(half),
        4 => integer::sign_mask32(half),
        _ => integer::sign_mask64(half),
    };
    let mut value = mask(&source[0]);
    if WIDE {
        value |= mask(&source[1]) << (16 / LANE);
    }
    operand::write::<4>(cpu, op.r[0], u64::from(value));
    Ok(())
}

/// PTEST (`LANE` 16), VTESTPS (4), VTESTPD (8).
#[inline(never)]
fn test<const LANE: usize, const WIDE: bool, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let vex = op.has(VEX);
    cpu.vector_ready(vex)?;
    let b = if MEMORY { cpu.load_vector(op, if WIDE { 32 } else { 16 }, !vex)? } else { cpu.ymm(op.r[1]) };
    let a = cpu.ymm(op.r[0]);
    let bits = match LANE {
        4 => integer::TEST_PS,
        8 => integer::TEST_PD,
        _ => integer::TEST_ALL,
    };
    let (mut zf, mut cf) = integer::test(&a[0], &b[0], bits);
    if WIDE {
        let (zf_high, cf_high) = integer::test(&a[1], &b[1], bits);
        (zf, cf) = (zf & zf_high, cf & cf_high);
    }
    set_flags(cpu, zf, false, cf);
    Ok(())
}

/// The lane of `N` bytes that the immediate selects.
fn lane<const N: usize>(vector: &Xmm, imm: u8) -> u64 {
    let index = usize::from(imm);
    match N {
        1 => u64::from(vector.u8s()[index & 15]),
        2 => u64::from(vector.u16s()[index & 7]),
        4 => u64::from(vector.u32s()[index & 3]),
        _ => vector.u64s()[index & 1],
    }
}

/// PEXTRB, PEXTRW, PEXTRD, PEXTRQ, EXTRACTPS.
#[inline(never)]
fn extract<const N: usize, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.vector_ready(op.has(VEX))?;
    let value = lane::<N>(&cpu.xmm(op.r[1]), op.imm as u8);
    if MEMORY {
        return cpu.store_operand::<N>(op, value);
    }
    operand::write::<8>(cpu, op.r[0], value);
    Ok(())
}

/// PINSRB, PINSRW, PINSRD, PINSRQ.
#[inline(never)]
fn insert<const N: usize, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let vex = op.has(VEX);
    cpu.vector_ready(vex)?;
    let (a, source) = if vex { (op.r[1], op.r[2]) } else { (op.r[0], op.r[1]) };
    let value = if MEMORY { cpu.load_operand::<N>(op)? } else { cpu.regs[source as usize] };
    let mut vector = cpu.xmm(a);
    let at = N * (op.imm as usize & (16 / N - 1));
    vector.0[at..at + N].copy_from_slice(&value.to_le_bytes()[..N]);
    cpu.set_xmm_as(vex, op.r[0], vector);
    Ok(())
}

/// VEXTRACTF128, VEXTRACTI128.
#[inline(never)]
fn extract_half<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.avx_ready()?;
    let value = cpu.ymm(op.r[1])[op.imm as usize & 1];
    if MEMORY {
        return cpu.store_xmm::<SLOW, false>(op, value);
    }
    cpu.set_xmm_clear(op.r[0], value);
    Ok(())
}

/// VCVTPS2PH; `WIDE`: from a YMM register.
#[inline(never)]
fn to_halves<const WIDE: bool, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.avx_ready()?;
    let source = cpu.ymm(op.r[1]);
    let mut env = Env::from_mxcsr(cpu.mxcsr);
    let imm = op.imm as u8;
    let low = convert::singles_to_halves(&source[0], imm, &mut env).low();
    let high = if WIDE { convert::singles_to_halves(&source[1], imm, &mut env).low() } else { 0 };
    let result = Xmm::from_u64s([low, high]);
    // The conversion's flags and exception come before anything that the store may meet, as on Intel's processors.
    cpu.settle(&env)?;
    if !MEMORY {
        cpu.set_xmm_clear(op.r[0], result);
        return Ok(());
    }
    let address = cpu.linear(op, if WIDE { 16 } else { 8 }, true)?;
    if WIDE { cpu.store_bytes::<16>(address, result.0) } else { cpu.store::<8>(address, low) }
}

/// PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM. `LENGTH`: 0 implicit, else the bytes of the length registers.
#[inline(never)]
fn compare_strings<const LENGTH: usize, const MASK: bool, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let vex = op.has(VEX);
    cpu.vector_ready(vex)?;
    let b = if MEMORY { cpu.load_xmm::<SLOW, false>(op)? } else { cpu.xmm(op.r[1]) };
    let a = cpu.xmm(op.r[0]);
    let imm = op.imm as u8;
    let found = match LENGTH {
        0 => string_compare::implicit(&a, &b, imm),
        4 => {
            let (la, lb) = (cpu.regs[RAX] as i32, cpu.regs[RDX] as i32);
            string_compare::explicit(&a, &b, la.into(), lb.into(), imm)
        }
        _ => string_compare::explicit(&a, &b, cpu.regs[RAX] as i64, cpu.regs[RDX] as i64, imm),
    };
    if MASK {
        cpu.set_xmm_as(vex, 0, found.mask(imm));
    } else {
        operand::write::<4>(cpu, RCX as u8, u64::from(found.index(imm)));
    }
    let bit = |set: bool, flag: u64| if set { flag } else { 0 };
    cpu.flags = LateFlags::from_bits(
        bit(found.cf, flags::CF) | bit(found.zf, flags::ZF) | bit(found.sf, flags::SF) | bit(found.of, flags::OF),
    );
    Ok(())
}

macro_rules! with_memory {
    ($function:ident [$($parameter:tt),+] $memory:literal) => {
        $function::<$($parameter,)+ $memory>
    };
}
macro_rules! both_forms {
    ($table:ident: $($function:ident $parameters:tt: $($code:ident)+;)+) => {$($(
        $table.set(
            Code::$code,
            op!(with_memory!($function $parameters false)),
            op!(with_memory!($function $parameters true)),
        );
    )+)+};
}
macro_rules! sign_masks {
    ($table:ident: $($lane:literal $vex:literal $wide:literal: $($code:ident)+;)+) => {$($(
        $table.one(Code::$code, fast!(sign_mask, $lane, $vex, $wide));
    )+)+};
}

/// Registers these instructions.
pub(super) fn register(table: &mut Table) {
    both_forms! { table:
        compare [4, true]: Comiss_xmm_xmmm32 VEX_Vcomiss_xmm_xmmm32;
        compare [4, false]: Ucomiss_xmm_xmmm32 VEX_Vucomiss_xmm_xmmm32;
        compare [8, true]: Comisd_xmm_xmmm64 VEX_Vcomisd_xmm_xmmm64;
        compare [8, false]: Ucomisd_xmm_xmmm64 VEX_Vucomisd_xmm_xmmm64;
        from_integer [4, 4]: Cvtsi2ss_xmm_rm32 VEX_Vcvtsi2ss_xmm_xmm_rm32;
        from_integer [8, 4]: Cvtsi2ss_xmm_rm64 VEX_Vcvtsi2ss_xmm_xmm_rm64;
        from_integer [4, 8]: Cvtsi2sd_xmm_rm32 VEX_Vcvtsi2sd_xmm_xmm_rm32;
        from_integer [8, 8]: Cvtsi2sd_xmm_rm64 VEX_Vcvtsi2sd_xmm_xmm_rm64;
        to_integer [4, 4, false]: Cvtss2si_r32_xmmm32 VEX_Vcvtss2si_r32_xmmm32;
        to_integer [4, 8, false]: Cvtss2si_r64_xmmm32 VEX_Vcvtss2si_r64_xmmm32;
        to_integer [8, 4, false]: Cvtsd2si_r32_xmmm64 VEX_Vcvtsd2si_r32_xmmm64;
        to_integer [8, 8, false]: Cvtsd2si_r64_xmmm64 VEX_Vcvtsd2si_r64_xmmm64;
        to_integer [4, 4, true]: Cvttss2si_r32_xmmm32 VEX_Vcvttss2si_r32_xmmm32;
        to_integer [4, 8, true]: Cvttss2si_r64_xmmm32 VEX_Vcvttss2si_r64_xmmm32;
        to_integer [8, 4, true]: Cvttsd2si_r32_xmmm64 VEX_Vcvttsd2si_r32_xmmm64;
        to_integer [8, 8, true]: Cvttsd2si_r64_xmmm64 VEX_Vcvttsd2si_r64_xmmm64;
        test [16, false]: Ptest_xmm_xmmm128 VEX_Vptest_xmm_xmmm128;
        test [16, true]: VEX_Vptest_ymm_ymmm256;
        test [4, false]: VEX_Vtestps_xmm_xmmm128;
        test [4, true]: VEX_Vtestps_ymm_ymmm256;
        test [8, false]: VEX_Vtestpd_xmm_xmmm128;
        test [8, true]: VEX_Vtestpd_ymm_ymmm256;
        extract [1]: Pextrb_r32m8_xmm_imm8 Pextrb_r64m8_xmm_imm8 VEX_Vpextrb_r32m8_xmm_imm8 VEX_Vpextrb_r64m8_xmm_imm8;
        extract [2]: Pextrw_r32m16_xmm_imm8 Pextrw_r64m16_xmm_imm8 VEX_Vpextrw_r32m16_xmm_imm8 VEX_Vpextrw_r64m16_xmm_imm8
            Pextrw_r32_xmm_imm8 Pextrw_r64_xmm_imm8 VEX_Vpextrw_r32_xmm_imm8 VEX_Vpextrw_r64_xmm_imm8;
        extract [4]: Pextrd_rm32_xmm_imm8 VEX_Vpextrd_rm32_xmm_imm8 Extractps_rm32_xmm_imm8 Extractps_r64m32_xmm_imm8
            VEX_Vextractps_rm32_xmm_imm8 VEX_Vextractps_r64m32_xmm_imm8;
        extract [8]: Pextrq_rm64_xmm_imm8 VEX_Vpextrq_rm64_xmm_imm8;
        insert [1]: Pinsrb_xmm_r32m8_imm8 Pinsrb_xmm_r64m8_imm8 VEX_Vpinsrb_xmm_xmm_r32m8_imm8
            VEX_Vpinsrb_xmm_xmm_r64m8_imm8;
        insert [2]: Pinsrw_xmm_r32m16_imm8 Pinsrw_xmm_r64m16_imm8 VEX_Vpinsrw_xmm_xmm_r32m16_imm8
            VEX_Vpinsrw_xmm_xmm_r64m16_imm8;
        insert [4]: Pinsrd_xmm_rm32_imm8 VEX_Vpinsrd_xmm_xmm_rm32_imm8;
        insert [8]: Pinsrq_xmm_rm64_imm8 VEX_Vpinsrq_xmm_xmm_rm64_imm8;
        to_halves [false]: VEX_Vcvtps2ph_xmmm64_xmm_imm8;
        to_halves [true]: VEX_Vcvtps2ph_xmmm128_ymm_imm8;
        compare_strings [4, false]: Pcmpestri_xmm_xmmm128_imm8 VEX_Vpcmpestri_xmm_xmmm128_imm8;
        compare_strings [8, false]: Pcmpestri64_xmm_xmmm128_imm8 VEX_Vpcmpestri64_xmm_xmmm128_imm8;
        compare_strings [4, true]: Pcmpestrm_xmm_xmmm128_imm8 VEX_Vpcmpestrm_xmm_xmmm128_imm8;
        compare_strings [8, true]: Pcmpestrm64_xmm_xmmm128_imm8 VEX_Vpcmpestrm64_xmm_xmmm128_imm8;
        compare_strings [0, false]: Pcmpistri_xmm_xmmm128_imm8 VEX_Vpcmpistri_xmm_xmmm128_imm8;
        compare_strings [0, true]: Pcmpistrm_xmm_xmmm128_imm8 VEX_Vpcmpistrm_xmm_xmmm128_imm8;
    }
    for code in [Code::VEX_Vextractf128_xmmm128_ymm_imm8, Code::VEX_Vextracti128_xmmm128_ymm_imm8] {
        table.set(code, op!(extract_half::<false>), op!(extract_half::<true>));
    }
    sign_masks! { table:
        1 false false: Pmovmskb_r32_xmm Pmovmskb_r64_xmm;
        1 true false: VEX_Vpmovmskb_r32_xmm VEX_Vpmovmskb_r64_xmm;
        1 true true: VEX_Vpmovmskb_r32_ymm VEX_Vpmovmskb_r64_ymm;
        4 false false: Movmskps_r32_xmm Movmskps_r64_xmm;
        4 true false: VEX_Vmovmskps_r32_xmm VEX_Vmovmskps_r64_xmm;
        4 true true: VEX_Vmovmskps_r32_ymm VEX_Vmovmskps_r64_ymm;
        8 false false: Movmskpd_r32_xmm Movmskpd_r64_xmm;
        8 true false: VEX_Vmovmskpd_r32_xmm VEX_Vmovmskpd_r64_xmm;
        8 true true: VEX_Vmovmskpd_r32_ymm VEX_Vmovmskpd_r64_ymm;
    }
}
