//! Comparison: FCOM, FUCOM, FICOM, FCOMI, FTST, FXAM.

use super::state::C1;
use super::transfer::{Double, Int16, Int32, Single, Source};
use crate::cpu::Cpu;
use crate::decode::{Op, Table};
use crate::flags::LateFlags;
use crate::op;
use crate::trap::Exec;
use iced_x86::Code;
use softfloat::{Class, F80, Operand, Relation};

/// Compares ST(0) with `other` (`None`: that register is empty) and pops `pops` registers.
///
/// With an unmasked IE or DE nothing is popped. Where the manual has the conditions left alone with an unmasked IE (SDM Vol. 2, FCOM), and C1
/// cleared by FCOMI, processors of both makers say unordered, and leave C1 to stack faults; so do we.
fn compare(cpu: &mut Cpu, op: &Op, other: Option<Operand>, signaling: bool, pops: u8, eflags: bool) {
    let mut env = cpu.x87_begin(op);
    let c1 = cpu.x87.fsw & C1 != 0;
    let (relation, completes) = match other {
        Some(other) if !cpu.x87.empty(0) => {
            let relation = Operand::from(cpu.x87.st(0)).compare(other, signaling, &mut env);
            let completes = cpu.x87_conclude(op, &env);
            if eflags {
                cpu.x87.set_c1(c1);
            }
            (relation, completes)
        }
        _ => (Relation::Unordered, cpu.x87_stack_fault(op, false)),
    };
    let (zf, pf, cf) = relation.zf_pf_cf();
    if eflags {
        cpu.flags = LateFlags::from_bits(u64::from(zf) << 6 | u64::from(pf) << 2 | u64::from(cf));
    } else {
        cpu.x87.set_conditions(zf, pf, false, cf);
    }
    for _ in 0..if completes { pops } else { 0 } {
        cpu.x87.pop();
    }
}

fn with_register<const SIGNALING: bool, const POPS: u8, const EFLAGS: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.x87_ready()?;
    // FCOMPP and FUCOMPP have no operands: they take ST(1).
    let i = if POPS == 2 { 1 } else { op.r[1] & 7 };
    let other = if cpu.x87.empty(i) { None } else { Some(cpu.x87.st(i).into()) };
    compare(cpu, op, other, SIGNALING, POPS, EFLAGS);
    Ok(())
}

fn with_memory<S: Source, const POPS: u8>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.x87_ready()?;
    let other = S::load(cpu, op)?;
    compare(cpu, op, Some(other), true, POPS, false);
    Ok(())
}

fn test(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.x87_ready()?;
    compare(cpu, op, Some(F80::ZERO.into()), true, 0, false);
    Ok(())
}

/// FXAM (SDM Vol. 2, table 3-24).
fn examine(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.x87_ready()?;
    cpu.x87_begin(op);
    let value = cpu.x87.st(0);
    let (c3, c2, c0) = if cpu.x87.empty(0) {
        (true, false, true)
    } else {
        match value.classify() {
            (Class::Unsupported, _) => (false, false, false),
            (Class::Quiet | Class::Signaling, _) => (false, false, true),
            (Class::Finite, false) => (false, true, false),
            (Class::Infinity, _) => (false, true, true),
            (Class::Zero, _) => (true, false, false),
            (Class::Finite, true) => (true, true, false),
        }
    };
    cpu.x87.set_conditions(c3, c2, value.sign(), c0);
    Ok(())
}

pub(super) fn register(table: &mut Table) {
    for code in [Code::Fcom_st0_sti, Code::Fcom_st0_sti_DCD0] {
        table.one(code, op!(with_register::<true, 0, false>));
    }
    for code in [Code::Fcomp_st0_sti, Code::Fcomp_st0_sti_DCD8, Code::Fcomp_st0_sti_DED0] {
        table.one(code, op!(with_register::<true, 1, false>));
    }
    table.one(Code::Fcompp, op!(with_register::<true, 2, false>));
    table.one(Code::Fucom_st0_sti, op!(with_register::<false, 0, false>));
    table.one(Code::Fucomp_st0_sti, op!(with_register::<false, 1, false>));
    table.one(Code::Fucompp, op!(with_register::<false, 2, false>));
    table.one(Code::Fcomi_st0_sti, op!(with_register::<true, 0, true>));
    table.one(Code::Fcomip_st0_sti, op!(with_register::<true, 1, true>));
    table.one(Code::Fucomi_st0_sti, op!(with_register::<false, 0, true>));
    table.one(Code::Fucomip_st0_sti, op!(with_register::<false, 1, true>));
    table.one(Code::Fcom_m32fp, op!(with_memory::<Single, 0>));
    table.one(Code::Fcomp_m32fp, op!(with_memory::<Single, 1>));
    table.one(Code::Fcom_m64fp, op!(with_memory::<Double, 0>));
    table.one(Code::Fcomp_m64fp, op!(with_memory::<Double, 1>));
    table.one(Code::Ficom_m16int, op!(with_memory::<Int16, 0>));
    table.one(Code::Ficomp_m16int, op!(with_memory::<Int16, 1>));
    table.one(Code::Ficom_m32int, op!(with_memory::<Int32, 0>));
    table.one(Code::Ficomp_m32int, op!(with_memory::<Int32, 1>));
    table.one(Code::Ftst, op!(test));
    table.one(Code::Fxam, op!(examine));
}
