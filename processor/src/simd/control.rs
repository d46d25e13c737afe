//! Vector state and memory hints: LDMXCSR, STMXCSR, VZEROUPPER, VZEROALL, PREFETCHh, fences.

use iced_x86::Code;

use crate::cpu::{Cpu, Mode};
use crate::decode::op::VEX;
use crate::decode::{Op, Table};
use crate::op;
use crate::trap::Exec;

/// The bits of MXCSR that exist; the others must be zero (SDM volume 1, 10.2.3; MXCSR_MASK of FXSAVE).
pub const MXCSR_MASK: u32 = 0xffff;

fn load_mxcsr(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.vector_ready(op.has(VEX))?;
    let value = cpu.load_operand::<4>(op)? as u32;
    if value & !MXCSR_MASK != 0 {
        return Err(cpu.general_protection(0));
    }
    cpu.mxcsr = value;
    Ok(())
}

fn store_mxcsr(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.vector_ready(op.has(VEX))?;
    cpu.store_operand::<4>(op, u64::from(cpu.mxcsr))
}

/// The vector registers that exist in this mode: outside 64-bit mode the upper eight are left alone.
fn reachable(cpu: &mut Cpu) -> &mut [[u64; 4]] {
    let count = if cpu.mode == Mode::Long64 { 16 } else { 8 };
    &mut cpu.ymm[..count]
}

fn zero_upper(cpu: &mut Cpu, _op: &Op) -> Exec {
    cpu.avx_ready()?;
    for register in reachable(cpu) {
        (register[2], register[3]) = (0, 0);
    }
    Ok(())
}

fn zero_all(cpu: &mut Cpu, _op: &Op) -> Exec {
    cpu.avx_ready()?;
    reachable(cpu).fill([0; 4]);
    Ok(())
}

/// Hints and orderings that an interpreter, which does one access after the other, has nothing to do for. A prefetch does not fault.
fn nothing(_cpu: &mut Cpu, _op: &Op) -> Exec {
    Ok(())
}

/// MFENCE and SFENCE: the host's stores are the guest's, and translated code may have left some of them on their way.
fn fence(_cpu: &mut Cpu, _op: &Op) -> Exec {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    Ok(())
}

/// Registers these instructions.
pub(super) fn register(table: &mut Table) {
    table.one(Code::Ldmxcsr_m32, op!(load_mxcsr));
    table.one(Code::VEX_Vldmxcsr_m32, op!(load_mxcsr));
    table.one(Code::Stmxcsr_m32, op!(store_mxcsr));
    table.one(Code::VEX_Vstmxcsr_m32, op!(store_mxcsr));
    table.one(Code::VEX_Vzeroupper, op!(zero_upper));
    table.one(Code::VEX_Vzeroall, op!(zero_all));
    for code in [
        Code::Prefetchnta_m8,
        Code::Prefetcht0_m8,
        Code::Prefetcht1_m8,
        Code::Prefetcht2_m8,
        Code::Prefetch_m8,
        Code::Prefetchw_m8,
        Code::Prefetchreserved3_m8,
        Code::Prefetchreserved4_m8,
        Code::Prefetchreserved5_m8,
        Code::Prefetchreserved6_m8,
        Code::Prefetchreserved7_m8,
        Code::Lfence,
        Code::Lfence_E9,
        Code::Lfence_EA,
        Code::Lfence_EB,
        Code::Lfence_EC,
        Code::Lfence_ED,
        Code::Lfence_EE,
        Code::Lfence_EF,
    ] {
        table.one(code, op!(nothing)).safe();
    }
    for code in [
        Code::Mfence,
        Code::Mfence_F1,
        Code::Mfence_F2,
        Code::Mfence_F3,
        Code::Mfence_F4,
        Code::Mfence_F5,
        Code::Mfence_F6,
        Code::Mfence_F7,
        Code::Sfence,
        Code::Sfence_F9,
        Code::Sfence_FA,
        Code::Sfence_FB,
        Code::Sfence_FC,
        Code::Sfence_FD,
        Code::Sfence_FE,
        Code::Sfence_FF,
    ] {
        table.one(code, op!(fence)).safe();
    }
}
