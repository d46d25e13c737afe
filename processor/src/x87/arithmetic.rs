//! Basic arithmetic: FADD, FSUB, FMUL, FDIV in all forms, FSQRT, FABS, FCHS, FRNDINT, FSCALE, FXTRACT, FPREM.

use super::transfer::{Double, Int16, Int32, Single, Source};
use crate::cpu::Cpu;
use crate::decode::{Op, Table};
use crate::op;
use crate::trap::Exec;
use iced_x86::Code;
use softfloat::{Env, F80, Operand, Quotient, RemainderKind};

/// A binary operation: destination operand first.
trait Binary {
    fn compute(a: Operand, b: Operand, env: &mut Env) -> F80;
}

macro_rules! binary {
    ($($name:ident: |$a:ident, $b:ident, $env:ident| $body:expr;)+) => { $(
        struct $name;
        impl Binary for $name {
            fn compute($a: Operand, $b: Operand, $env: &mut Env) -> F80 {
                $body
            }
        }
    )+ };
}

binary! {
    Add: |a, b, env| a.add(b, env);
    Sub: |a, b, env| a.sub(b, env);
    SubReversed: |a, b, env| b.sub(a, env);
    Mul: |a, b, env| a.mul(b, env);
    Div: |a, b, env| a.div(b, env);
    DivReversed: |a, b, env| b.div(a, env);
}

/// ST(i) and ST(j), one of which is ST(0), into the first; then perhaps a pop.
fn registers<O: Binary, const POP: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.x87_ready()?;
    let mut env = cpu.x87_begin(op);
    let (i, j) = (op.r[0] & 7, op.r[1] & 7);
    let store = if cpu.x87.empty(i) || cpu.x87.empty(j) {
        cpu.x87_stack_fault(op, false).then_some(F80::INDEFINITE)
    } else {
        let result = O::compute(cpu.x87.st(i).into(), cpu.x87.st(j).into(), &mut env);
        cpu.x87_conclude(op, &env).then_some(result)
    };
    if let Some(value) = store {
        cpu.x87.set_st(i, value);
        if POP {
            cpu.x87.pop();
        }
    }
    Ok(())
}

/// ST(0) and a memory operand into ST(0).
fn memory<O: Binary, S: Source>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.x87_ready()?;
    let source = S::load(cpu, op)?;
    let mut env = cpu.x87_begin(op);
    let store = if cpu.x87.empty(0) {
        cpu.x87_stack_fault(op, false).then_some(F80::INDEFINITE)
    } else {
        let result = O::compute(cpu.x87.st(0).into(), source, &mut env);
        cpu.x87_conclude(op, &env).then_some(result)
    };
    if let Some(value) = store {
        cpu.x87.set_st(0, value);
    }
    Ok(())
}

/// An operation on ST(0).
trait Unary {
    fn compute(a: F80, env: &mut Env) -> F80;
}

macro_rules! unary {
    ($($name:ident($a:ident, $env:ident) $body:expr;)+) => { $(
        struct $name;
        impl Unary for $name {
            fn compute($a: F80, $env: &mut Env) -> F80 {
                $body
            }
        }
    )+ };
}

unary! {
    Sqrt(a, env) a.sqrt(env);
    Round(a, env) a.round_to_integral(env);
    Negate(a, _env) a.negate();
    Absolute(a, _env) F80 { sign_exponent: a.sign_exponent & 0x7fff, ..a };
}

fn top<U: Unary>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.x87_ready()?;
    let mut env = cpu.x87_begin(op);
    let store = if cpu.x87.empty(0) {
        cpu.x87_stack_fault(op, false).then_some(F80::INDEFINITE)
    } else {
        let result = U::compute(cpu.x87.st(0), &mut env);
        cpu.x87_conclude(op, &env).then_some(result)
    };
    if let Some(value) = store {
        cpu.x87.set_st(0, value);
    }
    Ok(())
}

fn scale(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.x87_ready()?;
    let mut env = cpu.x87_begin(op);
    let store = if cpu.x87.empty(0) || cpu.x87.empty(1) {
        cpu.x87_stack_fault(op, false).then_some(F80::INDEFINITE)
    } else {
        let result = cpu.x87.st(0).scale(cpu.x87.st(1), &mut env);
        cpu.x87_conclude(op, &env).then_some(result)
    };
    if let Some(value) = store {
        cpu.x87.set_st(0, value);
    }
    Ok(())
}

/// FXTRACT: the exponent replaces ST(0), the significand is pushed.
fn extract(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.x87_ready()?;
    let mut env = cpu.x87_begin(op);
    let overflow = !cpu.x87.empty(7);
    let store = if cpu.x87.empty(0) || overflow {
        let overflow = overflow && !cpu.x87.empty(0);
        cpu.x87_stack_fault(op, overflow).then_some((F80::INDEFINITE, F80::INDEFINITE))
    } else {
        let result = cpu.x87.st(0).extract(&mut env);
        cpu.x87_conclude(op, &env).then_some(result)
    };
    if let Some((significand, exponent)) = store {
        cpu.x87.set_st(0, exponent);
        cpu.x87.push(significand);
    }
    Ok(())
}

fn remainder<const NEAREST: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.x87_ready()?;
    let mut env = cpu.x87_begin(op);
    let kind = if NEAREST { RemainderKind::Nearest } else { RemainderKind::Truncating };
    if cpu.x87.empty(0) || cpu.x87.empty(1) {
        cpu.x87.set_c2(false);
        if cpu.x87_stack_fault(op, false) {
            cpu.x87.set_st(0, F80::INDEFINITE);
        }
        return Ok(());
    }
    let (result, quotient) = cpu.x87.st(0).remainder(cpu.x87.st(1), kind, &mut env);
    if !cpu.x87_conclude(op, &env) {
        cpu.x87.set_c2(false);
    } else {
        match quotient {
            Quotient::Bits(q) => cpu.x87.set_conditions(q & 2 != 0, false, q & 1 != 0, q & 4 != 0),
            Quotient::Partial => cpu.x87.set_conditions(false, true, false, false),
            // C3 and C0 stay.
            Quotient::None => cpu.x87.set_c2(false),
        }
        cpu.x87.set_st(0, result);
    }
    Ok(())
}

macro_rules! forms {
    ($table:ident, $($op:ty: $st0_sti:ident, $sti_st0:ident, $pop:ident, $m32:ident, $m64:ident, $i16:ident, $i32:ident;)+) => { $(
        $table.one(Code::$st0_sti, op!(registers::<$op, false>));
        $table.one(Code::$sti_st0, op!(registers::<$op, false>));
        $table.one(Code::$pop, op!(registers::<$op, true>));
        $table.one(Code::$m32, op!(memory::<$op, Single>));
        $table.one(Code::$m64, op!(memory::<$op, Double>));
        $table.one(Code::$i16, op!(memory::<$op, Int16>));
        $table.one(Code::$i32, op!(memory::<$op, Int32>));
    )+ };
}

pub(super) fn register(table: &mut Table) {
    forms! { table,
        Add: Fadd_st0_sti, Fadd_sti_st0, Faddp_sti_st0, Fadd_m32fp, Fadd_m64fp, Fiadd_m16int, Fiadd_m32int;
        Sub: Fsub_st0_sti, Fsub_sti_st0, Fsubp_sti_st0, Fsub_m32fp, Fsub_m64fp, Fisub_m16int, Fisub_m32int;
        SubReversed: Fsubr_st0_sti, Fsubr_sti_st0, Fsubrp_sti_st0, Fsubr_m32fp, Fsubr_m64fp, Fisubr_m16int, Fisubr_m32int;
        Mul: Fmul_st0_sti, Fmul_sti_st0, Fmulp_sti_st0, Fmul_m32fp, Fmul_m64fp, Fimul_m16int, Fimul_m32int;
        Div: Fdiv_st0_sti, Fdiv_sti_st0, Fdivp_sti_st0, Fdiv_m32fp, Fdiv_m64fp, Fidiv_m16int, Fidiv_m32int;
        DivReversed: Fdivr_st0_sti, Fdivr_sti_st0, Fdivrp_sti_st0, Fdivr_m32fp, Fdivr_m64fp, Fidivr_m16int, Fidivr_m32int;
    }
    table.one(Code::Fsqrt, op!(top::<Sqrt>));
    table.one(Code::Frndint, op!(top::<Round>));
    table.one(Code::Fchs, op!(top::<Negate>));
    table.one(Code::Fabs, op!(top::<Absolute>));
    table.one(Code::Fscale, op!(scale));
    table.one(Code::Fxtract, op!(extract));
    table.one(Code::Fprem, op!(remainder::<false>));
    table.one(Code::Fprem1, op!(remainder::<true>));
}
