//! Transcendental instructions: FSIN, FCOS, FSINCOS, FPTAN, FPATAN, F2XM1, FYL2X, FYL2XP1.

use crate::cpu::Cpu;
use crate::decode::{Op, Table};
use crate::op;
use crate::trap::Exec;
use iced_x86::Code;
use softfloat::{Env, F80};

/// What an instruction with up to two results leaves: the new ST(0), and what is pushed upon it.
enum Answer {
    One(F80),
    Two(F80, F80),
    /// |ST(0)| is 2^63 or more: C2 is set and nothing changes.
    OutOfRange,
}

/// FSIN, FCOS, FSINCOS, FPTAN, F2XM1.
fn of_top<F: OfTop>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.x87_ready()?;
    let mut env = cpu.x87_begin(op);
    let answer = if cpu.x87.empty(0) || F::PUSHES && !cpu.x87.empty(7) {
        let overflow = !cpu.x87.empty(0);
        let indefinite = F80::INDEFINITE;
        cpu.x87_stack_fault(op, overflow).then_some(if F::PUSHES {
            Answer::Two(indefinite, indefinite)
        } else {
            Answer::One(indefinite)
        })
    } else {
        let answer = F::compute(cpu.x87.st(0), &mut env);
        cpu.x87_conclude(op, &env).then_some(answer)
    };
    if F::RANGE {
        cpu.x87.set_c2(matches!(answer, Some(Answer::OutOfRange)));
    }
    match answer {
        Some(Answer::One(value)) => cpu.x87.set_st(0, value),
        Some(Answer::Two(first, pushed)) => {
            cpu.x87.set_st(0, first);
            cpu.x87.push(pushed);
        }
        Some(Answer::OutOfRange) | None => {}
    }
    Ok(())
}

trait OfTop {
    /// Pushes a second result.
    const PUSHES: bool;
    /// Reports arguments out of range in C2.
    const RANGE: bool;
    fn compute(a: F80, env: &mut Env) -> Answer;
}

macro_rules! of_top {
    ($($name:ident, $pushes:literal, $range:literal, |$a:ident, $env:ident| $body:expr;)+) => { $(
        struct $name;
        impl OfTop for $name {
            const PUSHES: bool = $pushes;
            const RANGE: bool = $range;
            fn compute($a: F80, $env: &mut Env) -> Answer {
                $body
            }
        }
    )+ };
}

of_top! {
    Sine, false, true, |a, env| a.sin(env).map_or(Answer::OutOfRange, Answer::One);
    Cosine, false, true, |a, env| a.cos(env).map_or(Answer::OutOfRange, Answer::One);
    SineCosine, true, true, |a, env| a.sin_cos(env).map_or(Answer::OutOfRange, |(sin, cos)| Answer::Two(sin, cos));
    // The pushed one is 1.0, or the NaN again.
    Tangent, true, true, |a, env| a.tan(env).map_or(Answer::OutOfRange, |(tan, one)| Answer::Two(tan, one));
    Exponential, false, false, |a, env| Answer::One(a.exp2_minus_1(env));
}

/// FPATAN, FYL2X, FYL2XP1: ST(1) and ST(0) into ST(1), then a pop.
fn of_two<const WHICH: u8>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.x87_ready()?;
    let mut env = cpu.x87_begin(op);
    let result = if cpu.x87.empty(0) || cpu.x87.empty(1) {
        cpu.x87_stack_fault(op, false).then_some(F80::INDEFINITE)
    } else {
        let (x, y) = (cpu.x87.st(0), cpu.x87.st(1));
        let result = match WHICH {
            0 => F80::atan2(y, x, &mut env),
            1 => F80::y_log2_x(y, x, &mut env),
            _ => F80::y_log2_x_plus_1(y, x, &mut env),
        };
        cpu.x87_conclude(op, &env).then_some(result)
    };
    if let Some(value) = result {
        cpu.x87.set_st(1, value);
        cpu.x87.pop();
    }
    Ok(())
}

pub(super) fn register(table: &mut Table) {
    table.one(Code::Fsin, op!(of_top::<Sine>));
    table.one(Code::Fcos, op!(of_top::<Cosine>));
    table.one(Code::Fsincos, op!(of_top::<SineCosine>));
    table.one(Code::Fptan, op!(of_top::<Tangent>));
    table.one(Code::F2xm1, op!(of_top::<Exponential>));
    table.one(Code::Fpatan, op!(of_two::<0>));
    table.one(Code::Fyl2x, op!(of_two::<1>));
    table.one(Code::Fyl2xp1, op!(of_two::<2>));
}
