//! Moves between vector registers, general registers and memory (SDM volume 1, 5.4 to 5.13, "data transfer").

use super::lanes::Xmm;
use crate::cpu::Cpu;
use crate::decode::op::VEX;
use crate::decode::{Op, Table};
use crate::integer::operand;
use crate::trap::Exec;
use crate::{fast, op};
use iced_x86::Code;

/// Encodings as a const parameter: legacy SSE, VEX.128, VEX.256.
const LEGACY: u8 = 0;
const VEX128: u8 = 1;
const VEX256: u8 = 2;

/// A whole register to a whole register, for load and store encodings alike.
#[inline(always)]
fn copy<const PATH: u8, const ENCODING: u8>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.vector_ready_in::<PATH>(ENCODING != LEGACY)?;
    match ENCODING {
        LEGACY => cpu.set_xmm(op.r[0], cpu.xmm(op.r[1])),
        VEX128 => cpu.set_xmm_clear(op.r[0], cpu.xmm(op.r[1])),
        _ => cpu.set_ymm(op.r[0], cpu.ymm(op.r[1])),
    }
    Ok(())
}

#[inline(always)]
fn load<const PATH: u8, const ENCODING: u8, const ALIGNED: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.vector_ready_in::<PATH>(ENCODING != LEGACY)?;
    if ENCODING == VEX256 {
        let value = cpu.load_ymm::<PATH, ALIGNED>(op)?;
        cpu.set_ymm(op.r[0], value);
    } else {
        let value = cpu.load_xmm::<PATH, ALIGNED>(op)?;
        cpu.set_xmm_as(ENCODING == VEX128, op.r[0], value);
    }
    Ok(())
}

#[inline(always)]
fn store<const PATH: u8, const ENCODING: u8, const ALIGNED: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.vector_ready_in::<PATH>(ENCODING != LEGACY)?;
    if ENCODING == VEX256 {
        cpu.store_ymm::<PATH, ALIGNED>(op, cpu.ymm(op.r[1]))
    } else {
        cpu.store_xmm::<PATH, ALIGNED>(op, cpu.xmm(op.r[1]))
    }
}

/// MOVD, MOVQ, MOVSS, MOVSD from memory: the rest of the XMM register becomes zero.
#[inline(always)]
fn load_low<const PATH: u8, const N: usize, const V: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.vector_ready_in::<PATH>(V)?;
    let value = cpu.load_operand_in::<PATH, N>(op)?;
    cpu.set_xmm_as(V, op.r[0], Xmm::from_low(value));
    Ok(())
}

/// MOVD, MOVQ, MOVSS, MOVSD, MOVLPS to memory.
#[inline(always)]
fn store_low<const PATH: u8, const N: usize, const V: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.vector_ready_in::<PATH>(V)?;
    cpu.store_operand_in::<PATH, N>(op, cpu.xmm(op.r[1]).low())
}

/// MOVHPS, MOVHPD to memory.
fn store_high(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.vector_ready(op.has(VEX))?;
    cpu.store_operand::<8>(op, cpu.xmm(op.r[1]).high())
}

/// MOVD, MOVQ from a general register.
#[inline(always)]
fn from_general<const PATH: u8, const N: usize, const V: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.vector_ready_in::<PATH>(V)?;
    cpu.set_xmm_as(V, op.r[0], Xmm::from_low(operand::read::<N>(cpu, op.r[1])));
    Ok(())
}

/// MOVD, MOVQ to a general register.
#[inline(always)]
fn to_general<const PATH: u8, const N: usize, const V: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.vector_ready_in::<PATH>(V)?;
    let value = cpu.xmm(op.r[1]).low();
    operand::write::<N>(cpu, op.r[0], value);
    Ok(())
}

/// MOVQ between XMM registers: the upper quadword becomes zero.
#[inline(always)]
fn copy_low<const PATH: u8, const V: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.vector_ready_in::<PATH>(V)?;
    cpu.set_xmm_as(V, op.r[0], Xmm::from_low(cpu.xmm(op.r[1]).low()));
    Ok(())
}

/// MOVSS and MOVSD between registers: the lowest lane is replaced. `N` is 4 or 8.
#[inline(always)]
fn merge<const PATH: u8, const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.vector_ready_in::<PATH>(false)?;
    let low = cpu.xmm(op.r[1]).low();
    let q = &mut cpu.ymm[(op.r[0] & 15) as usize];
    q[0] = if N == 4 { q[0] & !0xffff_ffff | low & 0xffff_ffff } else { low };
    Ok(())
}

/// VMOVSS and VMOVSD between registers: the upper lanes come from the first source.
#[inline(always)]
fn merge_vex<const PATH: u8, const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.vector_ready_in::<PATH>(true)?;
    let (a, b) = (cpu.xmm(op.r[1]), cpu.xmm(op.r[2]));
    cpu.set_xmm_clear(op.r[0], if N == 4 { a.with_low32(b.low32()) } else { a.with_low(b.low()) });
    Ok(())
}

macro_rules! whole {
    ($table:ident, $aligned:literal: $($legacy:ident $vex128:ident $vex256:ident, $store:ident $store128:ident $store256:ident;)+) => {$(
        $table.set(Code::$legacy, fast!(copy, LEGACY), fast!(load, LEGACY, $aligned));
        $table.set(Code::$vex128, fast!(copy, VEX128), fast!(load, VEX128, $aligned));
        $table.set(Code::$vex256, fast!(copy, VEX256), fast!(load, VEX256, $aligned));
        $table.set(Code::$store, fast!(copy, LEGACY), fast!(store, LEGACY, $aligned));
        $table.set(Code::$store128, fast!(copy, VEX128), fast!(store, VEX128, $aligned));
        $table.set(Code::$store256, fast!(copy, VEX256), fast!(store, VEX256, $aligned));
    )+};
}

/// Registers the moves.
pub(super) fn register(table: &mut Table) {
    whole! { table, false:
        Movups_xmm_xmmm128 VEX_Vmovups_xmm_xmmm128 VEX_Vmovups_ymm_ymmm256,
        Movups_xmmm128_xmm VEX_Vmovups_xmmm128_xmm VEX_Vmovups_ymmm256_ymm;
        Movupd_xmm_xmmm128 VEX_Vmovupd_xmm_xmmm128 VEX_Vmovupd_ymm_ymmm256,
        Movupd_xmmm128_xmm VEX_Vmovupd_xmmm128_xmm VEX_Vmovupd_ymmm256_ymm;
        Movdqu_xmm_xmmm128 VEX_Vmovdqu_xmm_xmmm128 VEX_Vmovdqu_ymm_ymmm256,
        Movdqu_xmmm128_xmm VEX_Vmovdqu_xmmm128_xmm VEX_Vmovdqu_ymmm256_ymm;
    }
    whole! { table, true:
        Movaps_xmm_xmmm128 VEX_Vmovaps_xmm_xmmm128 VEX_Vmovaps_ymm_ymmm256,
        Movaps_xmmm128_xmm VEX_Vmovaps_xmmm128_xmm VEX_Vmovaps_ymmm256_ymm;
        Movapd_xmm_xmmm128 VEX_Vmovapd_xmm_xmmm128 VEX_Vmovapd_ymm_ymmm256,
        Movapd_xmmm128_xmm VEX_Vmovapd_xmmm128_xmm VEX_Vmovapd_ymmm256_ymm;
        Movdqa_xmm_xmmm128 VEX_Vmovdqa_xmm_xmmm128 VEX_Vmovdqa_ymm_ymmm256,
        Movdqa_xmmm128_xmm VEX_Vmovdqa_xmmm128_xmm VEX_Vmovdqa_ymmm256_ymm;
    }
    table.one(Code::Lddqu_xmm_m128, fast!(load, LEGACY, false));
    table.one(Code::VEX_Vlddqu_xmm_m128, fast!(load, VEX128, false));
    table.one(Code::VEX_Vlddqu_ymm_m256, fast!(load, VEX256, false));
    table.one(Code::Movntdqa_xmm_m128, fast!(load, LEGACY, true));
    table.one(Code::VEX_Vmovntdqa_xmm_m128, fast!(load, VEX128, true));
    table.one(Code::VEX_Vmovntdqa_ymm_m256, fast!(load, VEX256, true));
    for code in [Code::Movntps_m128_xmm, Code::Movntpd_m128_xmm, Code::Movntdq_m128_xmm] {
        table.one(code, fast!(store, LEGACY, true));
    }
    for code in [Code::VEX_Vmovntps_m128_xmm, Code::VEX_Vmovntpd_m128_xmm, Code::VEX_Vmovntdq_m128_xmm] {
        table.one(code, fast!(store, VEX128, true));
    }
    for code in [Code::VEX_Vmovntps_m256_ymm, Code::VEX_Vmovntpd_m256_ymm, Code::VEX_Vmovntdq_m256_ymm] {
        table.one(code, fast!(store, VEX256, true));
    }

    table.set(Code::Movss_xmm_xmmm32, fast!(merge, 4), fast!(load_low, 4, false));
    table.set(Code::Movss_xmmm32_xmm, fast!(merge, 4), fast!(store_low, 4, false));
    table.set(Code::Movsd_xmm_xmmm64, fast!(merge, 8), fast!(load_low, 8, false));
    table.set(Code::Movsd_xmmm64_xmm, fast!(merge, 8), fast!(store_low, 8, false));
    table.one(Code::VEX_Vmovss_xmm_m32, fast!(load_low, 4, true));
    table.one(Code::VEX_Vmovss_m32_xmm, fast!(store_low, 4, true));
    table.one(Code::VEX_Vmovsd_xmm_m64, fast!(load_low, 8, true));
    table.one(Code::VEX_Vmovsd_m64_xmm, fast!(store_low, 8, true));
    table.one(Code::VEX_Vmovss_xmm_xmm_xmm, fast!(merge_vex, 4));
    table.one(Code::VEX_Vmovss_xmm_xmm_xmm_0F11, fast!(merge_vex, 4));
    table.one(Code::VEX_Vmovsd_xmm_xmm_xmm, fast!(merge_vex, 8));
    table.one(Code::VEX_Vmovsd_xmm_xmm_xmm_0F11, fast!(merge_vex, 8));

    for code in [Code::Movlps_m64_xmm, Code::Movlpd_m64_xmm] {
        table.one(code, fast!(store_low, 8, false));
    }
    for code in [Code::VEX_Vmovlps_m64_xmm, Code::VEX_Vmovlpd_m64_xmm] {
        table.one(code, fast!(store_low, 8, true));
    }
    for code in [Code::Movhps_m64_xmm, Code::Movhpd_m64_xmm, Code::VEX_Vmovhps_m64_xmm, Code::VEX_Vmovhpd_m64_xmm] {
        table.one(code, op!(store_high));
    }

    table.set(Code::Movd_xmm_rm32, fast!(from_general, 4, false), fast!(load_low, 4, false));
    table.set(Code::Movq_xmm_rm64, fast!(from_general, 8, false), fast!(load_low, 8, false));
    table.set(Code::VEX_Vmovd_xmm_rm32, fast!(from_general, 4, true), fast!(load_low, 4, true));
    table.set(Code::VEX_Vmovq_xmm_rm64, fast!(from_general, 8, true), fast!(load_low, 8, true));
    table.set(Code::Movd_rm32_xmm, fast!(to_general, 4, false), fast!(store_low, 4, false));
    table.set(Code::Movq_rm64_xmm, fast!(to_general, 8, false), fast!(store_low, 8, false));
    table.set(Code::VEX_Vmovd_rm32_xmm, fast!(to_general, 4, true), fast!(store_low, 4, true));
    table.set(Code::VEX_Vmovq_rm64_xmm, fast!(to_general, 8, true), fast!(store_low, 8, true));
    table.set(Code::Movq_xmm_xmmm64, fast!(copy_low, false), fast!(load_low, 8, false));
    table.set(Code::VEX_Vmovq_xmm_xmmm64, fast!(copy_low, true), fast!(load_low, 8, true));
    table.set(Code::Movq_xmmm64_xmm, fast!(copy_low, false), fast!(store_low, 8, false));
    table.set(Code::VEX_Vmovq_xmmm64_xmm, fast!(copy_low, true), fast!(store_low, 8, true));
}
