//! MMX: the 64-bit registers that alias the x87's (SDM volume 1, chapter 9).
//!
//! The lane functions are those of SSE. Lane-wise ones work on the low half as they stand; where a 128-bit function's low half is not
//! the 64-bit instruction, [`Joining`] says how to get that.

use iced_x86::{Code, Mnemonic};
use softfloat::{Env, F64, Sse};

use super::convert::{self, Convert};
use super::lanes::{Binary, Xmm};
use super::operations::Action;
use super::vector::{form, mmx_forms};
use super::{integer, masked, shuffle};
use crate::cpu::Cpu;
use crate::decode::{Op, Table};
use crate::integer::operand;
use crate::op;
use crate::trap::Exec;

/// How a function of two 128-bit vectors serves two 64-bit operands.
#[derive(Clone, Copy)]
pub(super) enum Joining {
    /// The low half of the result for the operands in the low halves.
    Low,
    /// Both operands in one vector: packs and pairs.
    Joined,
    /// The high half of what this function gives: the high unpacks are the upper half of the low ones.
    High(Binary),
    /// PSHUFB: selectors have three bits.
    Selectors,
}

impl Joining {
    /// That of a mnemonic.
    pub(super) fn of(mnemonic: Mnemonic) -> Self {
        use Mnemonic::*;
        match mnemonic {
            Packsswb | Packuswb | Packssdw | Phaddw | Phaddd | Phaddsw | Phsubw | Phsubd | Phsubsw => Self::Joined,
            Punpckhbw => Self::High(shuffle::unpack_low8),
            Punpckhwd => Self::High(shuffle::unpack_low16),
            Punpckhdq => Self::High(shuffle::unpack_low32),
            Pshufb => Self::Selectors,
            _ => Self::Low,
        }
    }
}

/// Writes MMi as the last act of an instruction.
#[inline(always)]
fn finish(cpu: &mut Cpu, slot: u8, value: u64) -> Exec {
    cpu.x87.enter_mmx();
    cpu.x87.set_mmx(slot, value);
    Ok(())
}

/// The instructions of the common shape.
#[inline(never)]
fn packed<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let Some(form) = form(op.code) else { return Err(cpu.undefined_opcode()) };
    cpu.check_mmx()?;
    let b = if MEMORY {
        cpu.load_vector(op, form.memory, false)?[0].low()
    } else {
        cpu.x87.mmx(op.r[(form.b & 3) as usize])
    };
    let a = cpu.x87.mmx(op.r[(form.a & 3) as usize]);
    let imm = op.imm as u8;
    let (low_a, low_b) = (Xmm::from_low(a), Xmm::from_low(b));
    let result = match form.action {
        Action::Unary(f) => f(&low_b).low(),
        Action::UnaryImm(f, _) => f(&low_b, imm).low(),
        Action::Binary(f) => match form.joining {
            Joining::Low => f(&low_a, &low_b).low(),
            Joining::Joined => {
                let joined = Xmm::from_u64s([a, b]);
                f(&joined, &joined).low()
            }
            Joining::High(f) => f(&low_a, &low_b).high(),
            Joining::Selectors => f(&low_a, &Xmm::from_low(b & shuffle::MMX_BYTE_SELECT)).low(),
        },
        // PALIGNR is the only one.
        Action::BinaryImm(..) => shuffle::align_right_mmx(a, b, imm),
        Action::Shift(f) if form.count_is_immediate => f(&low_b, u64::from(imm)).low(),
        Action::Shift(f) => f(&low_a, b).low(),
        _ => return Err(cpu.undefined_opcode()),
    };
    finish(cpu, op.r[0], result)
}

fn emms(cpu: &mut Cpu, _op: &Op) -> Exec {
    cpu.check_mmx()?;
    cpu.x87.leave_mmx();
    Ok(())
}

/// MOVD, MOVQ to an MMX register from a general one or memory of `N` bytes.
fn load<const N: usize, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_mmx()?;
    let value = if MEMORY { cpu.load_operand::<N>(op)? } else { operand::read::<N>(cpu, op.r[1]) };
    finish(cpu, op.r[0], value)
}

/// MOVD, MOVQ from an MMX register to a general one or memory of `N` bytes; MOVNTQ.
fn store<const N: usize, const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_mmx()?;
    let value = cpu.x87.mmx(op.r[1]);
    if MEMORY {
        cpu.store_operand::<N>(op, value)?;
    } else {
        operand::write::<N>(cpu, op.r[0], value);
    }
    cpu.x87.enter_mmx();
    Ok(())
}

/// MOVQ between MMX registers.
fn copy(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_mmx()?;
    let value = cpu.x87.mmx(op.r[1]);
    finish(cpu, op.r[0], value)
}

fn to_xmm(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.sse_ready()?;
    cpu.check_mmx()?;
    cpu.set_xmm(op.r[0], Xmm::from_low(cpu.x87.mmx(op.r[1])));
    cpu.x87.enter_mmx();
    Ok(())
}

fn from_xmm(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.sse_ready()?;
    cpu.check_mmx()?;
    let value = cpu.xmm(op.r[1]).low();
    finish(cpu, op.r[0], value)
}

fn sign_mask(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_mmx()?;
    let mask = integer::sign_mask8(&Xmm::from_low(cpu.x87.mmx(op.r[1])));
    operand::write::<4>(cpu, op.r[0], u64::from(mask));
    cpu.x87.enter_mmx();
    Ok(())
}

fn extract_word(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_mmx()?;
    let value = cpu.x87.mmx(op.r[1]) >> (16 * (op.imm & 3)) & 0xffff;
    operand::write::<4>(cpu, op.r[0], value);
    cpu.x87.enter_mmx();
    Ok(())
}

fn insert_word<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_mmx()?;
    let word = if MEMORY { cpu.load_operand::<2>(op)? } else { operand::read::<2>(cpu, op.r[1]) };
    let shift = 16 * (op.imm & 3);
    let value = cpu.x87.mmx(op.r[0]) & !(0xffff << shift) | word << shift;
    finish(cpu, op.r[0], value)
}

#[inline(never)]
fn masked_store(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.check_mmx()?;
    let (source, mask) = (cpu.x87.mmx(op.r[1]), cpu.x87.mmx(op.r[2]));
    masked::store_masked_bytes(cpu, op, &source.to_le_bytes(), &mask.to_le_bytes())?;
    cpu.x87.enter_mmx();
    Ok(())
}

/// CVTPS2PI, CVTTPS2PI, CVTPD2PI, CVTTPD2PI: `BYTES` of vector or memory to an MMX register.
#[inline(never)]
fn convert_to_mmx<const BYTES: u8, const MEMORY: bool>(cpu: &mut Cpu, op: &Op, convert: Convert) -> Exec {
    cpu.sse_ready()?;
    cpu.check_mmx()?;
    let source = if MEMORY { cpu.load_vector(op, BYTES, true)?[0] } else { cpu.xmm(op.r[1]) };
    let mut env = Env::from_mxcsr(cpu.mxcsr);
    let value = convert(&source, 0, &mut env).low();
    // Processors are in MMX state even when the conversion raises #XM.
    cpu.x87.enter_mmx();
    cpu.settle(&env)?;
    finish(cpu, op.r[0], value)
}

fn singles_to_mmx<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    convert_to_mmx::<8, MEMORY>(cpu, op, convert::low_singles_to_dwords)
}

fn singles_to_mmx_truncated<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    convert_to_mmx::<8, MEMORY>(cpu, op, convert::low_singles_to_dwords_truncated)
}

fn doubles_to_mmx<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    convert_to_mmx::<16, MEMORY>(cpu, op, convert::doubles_to_dwords)
}

fn doubles_to_mmx_truncated<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    convert_to_mmx::<16, MEMORY>(cpu, op, convert::doubles_to_dwords_truncated)
}

/// The source of CVTPI2PS and CVTPI2PD. The x87 state is touched only if the source is an MMX register (SDM volume 2, CVTPI2PD; processors
/// do the same for CVTPI2PS).
fn two_dwords<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec<u64> {
    cpu.sse_ready()?;
    if MEMORY {
        return cpu.load_operand::<8>(op);
    }
    cpu.check_mmx()?;
    Ok(cpu.x87.mmx(op.r[1]))
}

/// CVTPI2PS: two doublewords to the two low singles; the upper quadword stays.
#[inline(never)]
fn mmx_to_singles<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let source = two_dwords::<MEMORY>(cpu, op)?;
    let mut env = Env::from_mxcsr(cpu.mxcsr);
    let low = convert::low_dwords_to_singles(&Xmm::from_low(source), 0, &mut env).low();
    if !MEMORY {
        cpu.x87.enter_mmx();
    }
    cpu.settle(&env)?;
    cpu.set_xmm(op.r[0], cpu.xmm(op.r[0]).with_low(low));
    Ok(())
}

/// CVTPI2PD: exact, so there are no exceptions.
#[inline(never)]
fn mmx_to_doubles<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let source = two_dwords::<MEMORY>(cpu, op)?;
    let mut env = Env::from_mxcsr(cpu.mxcsr);
    let lanes = [source as i32, (source >> 32) as i32];
    cpu.set_xmm(op.r[0], Xmm::from_f64s(lanes.map(|lane| F64::from_i64(lane.into(), &mut env))));
    if !MEMORY {
        cpu.x87.enter_mmx();
    }
    Ok(())
}

/// Registers the MMX instructions.
pub(super) fn register(table: &mut Table) {
    for code in mmx_forms() {
        table.set(code, op!(packed::<false>), op!(packed::<true>));
    }
    table.one(Code::Emms, op!(emms));
    table.set(Code::Movd_mm_rm32, op!(load::<4, false>), op!(load::<4, true>));
    table.set(Code::Movq_mm_rm64, op!(load::<8, false>), op!(load::<8, true>));
    table.set(Code::Movd_rm32_mm, op!(store::<4, false>), op!(store::<4, true>));
    table.set(Code::Movq_rm64_mm, op!(store::<8, false>), op!(store::<8, true>));
    table.set(Code::Movq_mm_mmm64, op!(copy), op!(load::<8, true>));
    table.set(Code::Movq_mmm64_mm, op!(copy), op!(store::<8, true>));
    table.one(Code::Movntq_m64_mm, op!(store::<8, true>));
    table.one(Code::Movq2dq_xmm_mm, op!(to_xmm));
    table.one(Code::Movdq2q_mm_xmm, op!(from_xmm));
    for code in [Code::Pmovmskb_r32_mm, Code::Pmovmskb_r64_mm] {
        table.one(code, op!(sign_mask));
    }
    for code in [Code::Pextrw_r32_mm_imm8, Code::Pextrw_r64_mm_imm8] {
        table.one(code, op!(extract_word));
    }
    for code in [Code::Pinsrw_mm_r32m16_imm8, Code::Pinsrw_mm_r64m16_imm8] {
        table.set(code, op!(insert_word::<false>), op!(insert_word::<true>));
    }
    table.one(Code::Maskmovq_rDI_mm_mm, op!(masked_store));
    table.set(Code::Cvtps2pi_mm_xmmm64, op!(singles_to_mmx::<false>), op!(singles_to_mmx::<true>));
    table.set(Code::Cvttps2pi_mm_xmmm64, op!(singles_to_mmx_truncated::<false>), op!(singles_to_mmx_truncated::<true>));
    table.set(Code::Cvtpd2pi_mm_xmmm128, op!(doubles_to_mmx::<false>), op!(doubles_to_mmx::<true>));
    table.set(
        Code::Cvttpd2pi_mm_xmmm128,
        op!(doubles_to_mmx_truncated::<false>),
        op!(doubles_to_mmx_truncated::<true>),
    );
    table.set(Code::Cvtpi2ps_xmm_mmm64, op!(mmx_to_singles::<false>), op!(mmx_to_singles::<true>));
    table.set(Code::Cvtpi2pd_xmm_mmm64, op!(mmx_to_doubles::<false>), op!(mmx_to_doubles::<true>));
}
