//! The common shape of vector instructions: a handler for XMM and one for YMM registers that do the action of [`super::operations`] on registers and memory.
//!
//! What each encoding is (width, where the sources are, size and alignment of the memory operand) comes from iced's own tables, once.
//! `direct` has handlers of their own, with the lane function inlined, for those that programs use most.

use std::sync::LazyLock;

use iced_x86::{Code, EncodingKind, OpCodeOperandKind};
use softfloat::Env;

use super::access::Ymm;
use super::lanes::Xmm;
use super::mmx::Joining;
use super::operations::{Action, Order, action};
use super::shuffle;
use crate::cpu::Cpu;
use crate::decode::{Op, Table};
use crate::op;
use crate::trap::Exec;

/// An encoding of the common shape.
#[derive(Clone, Copy)]
pub(super) struct Form {
    /// What it computes.
    pub action: Action,
    /// Which register operand the first source is.
    pub a: u8,
    /// Which operand the last source is: a register, or the memory operand.
    pub b: u8,
    /// Bytes of the memory operand.
    pub memory: u8,
    /// A misaligned memory operand is #GP(0).
    pub aligned: bool,
    /// VEX-encoded.
    pub vex: bool,
    /// Works on YMM registers.
    pub wide: bool,
    /// Works on MMX registers.
    pub mmx: bool,
    /// How its function serves MMX registers.
    pub joining: Joining,
    /// The count of a shift is the immediate.
    pub count_is_immediate: bool,
}

/// The forms by iced's `Code`.
static FORMS: LazyLock<Box<[Option<Form>]>> = LazyLock::new(|| Code::values().map(form_of).collect());

/// The form of `code`, if it has the common shape.
#[inline(always)]
pub(super) fn form(code: u16) -> Option<&'static Form> {
    FORMS.get(code as usize)?.as_ref()
}

fn form_of(code: Code) -> Option<Form> {
    let info = code.op_code();
    let vex = match info.encoding() {
        EncodingKind::Legacy => false,
        EncodingKind::VEX => true,
        _ => return None,
    };
    let kinds: Vec<OpCodeOperandKind> = (0..info.op_count()).map(|i| info.op_kind(i)).collect();
    use OpCodeOperandKind as K;
    let immediate = matches!(kinds.last(), Some(K::imm8));
    let action = action(code.mnemonic(), immediate)?;
    let vector = |kind: &K| {
        matches!(
            kind,
            K::mm_reg
                | K::mm_rm
                | K::mm_or_mem
                | K::xmm_reg
                | K::xmm_rm
                | K::xmm_vvvv
                | K::xmm_or_mem
                | K::ymm_reg
                | K::ymm_rm
                | K::ymm_vvvv
                | K::ymm_or_mem
                | K::mem
        )
    };
    let mmx = |kind: &K| matches!(kind, K::mm_reg | K::mm_rm | K::mm_or_mem);
    let wide = |kind: &K| matches!(kind, K::ymm_reg | K::ymm_rm | K::ymm_vvvv | K::ymm_or_mem);
    // A store, or an exchange with another kind of register, has its own handler.
    if matches!(kinds[0], K::mem) || kinds.iter().any(mmx) != kinds.iter().all(|k| mmx(k) || !vector(k)) {
        return None;
    }
    let sources = kinds.iter().take_while(|kind| vector(kind)).count() as u8;
    let memory = info.memory_size().size() as u8;
    let unaligned_legacy = memory != 16 || kinds.iter().any(mmx);
    Some(Form {
        action,
        a: u8::from(sources > 2),
        b: sources - 1,
        memory,
        aligned: !vex && !unaligned_legacy,
        vex,
        wide: kinds.iter().any(wide),
        mmx: kinds.iter().any(mmx),
        joining: Joining::of(code.mnemonic()),
        count_is_immediate: immediate && matches!(action, Action::Shift(_)),
    })
}

/// What an action may need for one half of its result.
struct Sources<'a> {
    /// The destination, as it was.
    first: &'a Xmm,
    a: &'a Xmm,
    b: &'a Xmm,
    /// The low half of the last source.
    low: &'a Xmm,
    mask: &'a Xmm,
    imm: u8,
}

/// The actions without MXCSR on half `i`.
#[inline(always)]
fn half(form: &Form, i: u8, s: &Sources) -> Xmm {
    match form.action {
        Action::Unary(f) => f(s.b),
        Action::UnaryImm(f, by) => f(s.b, s.imm >> (by * i)),
        Action::Binary(f) => f(s.a, s.b),
        Action::BinaryImm(f, by) => f(s.a, s.b, s.imm >> (by * i)),
        Action::Ternary(f) => f(s.a, s.b, s.mask),
        Action::Shift(f) if form.count_is_immediate => f(s.b, u64::from(s.imm)),
        Action::Shift(f) => f(s.a, s.low.low()),
        Action::Extend(f, step) => f(&Xmm::from_bits(s.low.bits() >> (8 * u32::from(step) * u32::from(i)))),
        Action::Broadcast(bytes) => broadcast(s.low, bytes),
        // Not functions of halves: `vector256` has them.
        _ => *s.b,
    }
}

/// The actions with MXCSR on half `i`. [`Action::Narrow`] gives the low 64 bits only.
#[inline(always)]
fn floating_half(form: &Form, i: u8, s: &Sources, env: &mut Env) -> Xmm {
    match form.action {
        Action::Float(f) => f(s.a, s.b, s.imm, env),
        Action::Convert(f) | Action::Narrow(f) => f(s.b, s.imm, env),
        Action::Widen(f) => f(&Xmm::from_low(s.low.u64s()[usize::from(i)]), s.imm, env),
        Action::Fused(f, order, scalar) => {
            let (x, y, z) = match order {
                Order::O132 => (s.first, s.b, s.a),
                Order::O213 => (s.a, s.first, s.b),
                Order::O231 => (s.a, s.b, s.first),
            };
            let result = f(x, y, z, env);
            match scalar {
                4 => s.first.with_low32(result.low32()),
                8 => s.first.with_low(result.low()),
                _ => result,
            }
        }
        _ => *s.b,
    }
}

/// The handler of XMM forms; `MEMORY`: the last source is in memory. Not inlined, so that the handler itself, which goes on with the next
/// instruction by a jump, has no variables on the stack.
#[inline(never)]
fn vector128<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let Some(form) = form(op.code) else { return Err(cpu.undefined_opcode()) };
    cpu.vector_ready(form.vex)?;
    let b =
        if MEMORY { cpu.load_vector(op, form.memory, form.aligned)?[0] } else { cpu.xmm(op.r[(form.b & 3) as usize]) };
    let (first, a) = (cpu.xmm(op.r[0]), cpu.xmm(op.r[(form.a & 3) as usize]));
    let imm = op.imm as u8;
    let mut sources = Sources { first: &first, a: &a, b: &b, low: &b, mask: &b, imm };
    let result = match form.action {
        Action::Float(_) | Action::Convert(_) | Action::Widen(_) | Action::Narrow(_) | Action::Fused(..) => {
            let mut env = Env::from_mxcsr(cpu.mxcsr);
            let result = floating_half(form, 0, &sources, &mut env);
            cpu.settle(&env)?;
            result
        }
        Action::InsertSingle => {
            let lane = if MEMORY { b.low32() } else { b.u32s()[usize::from(imm >> 6)] };
            shuffle::insert_single(&a, lane, imm)
        }
        Action::Ternary(_) => {
            let mask = cpu.xmm(if form.vex { op.r[3] } else { 0 });
            sources.mask = &mask;
            half(form, 0, &sources)
        }
        _ => half(form, 0, &sources),
    };
    cpu.set_xmm_as(form.vex, op.r[0], result);
    Ok(())
}

/// The handler of YMM forms, all of them VEX-encoded.
#[inline(never)]
fn vector256<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let Some(form) = form(op.code) else { return Err(cpu.undefined_opcode()) };
    cpu.avx_ready()?;
    let b = if MEMORY { cpu.load_vector(op, form.memory, form.aligned)? } else { cpu.ymm(op.r[(form.b & 3) as usize]) };
    let (first, a) = (cpu.ymm(op.r[0]), cpu.ymm(op.r[(form.a & 3) as usize]));
    let mask = cpu.ymm(op.r[3]);
    let imm = op.imm as u8;
    let sources = |i: usize| Sources { first: &first[i], a: &a[i], b: &b[i], low: &b[0], mask: &mask[i], imm };
    let result: Ymm = match form.action {
        Action::PermuteAcross32 => shuffle::permute_across32(&a, &b),
        Action::PermuteAcross64 => shuffle::permute_across64(&b, imm),
        Action::PermuteHalves => shuffle::permute_halves(&a, &b, imm),
        Action::InsertHalf => {
            let mut whole = a;
            whole[usize::from(imm & 1)] = b[0];
            whole
        }
        Action::Float(_) | Action::Convert(_) | Action::Widen(_) | Action::Narrow(_) | Action::Fused(..) => {
            let mut env = Env::from_mxcsr(cpu.mxcsr);
            let low = floating_half(form, 0, &sources(0), &mut env);
            let high = floating_half(form, 1, &sources(1), &mut env);
            cpu.settle(&env)?;
            if matches!(form.action, Action::Narrow(_)) {
                [Xmm::from_u64s([low.low(), high.low()]), Xmm::ZERO]
            } else {
                [low, high]
            }
        }
        _ => [half(form, 0, &sources(0)), half(form, 1, &sources(1))],
    };
    cpu.set_ymm(op.r[0], result);
    Ok(())
}

fn broadcast(b: &Xmm, bytes: u8) -> Xmm {
    match bytes {
        1 => Xmm([b.0[0]; 16]),
        2 => Xmm::from_u16s([b.u16s()[0]; 8]),
        4 => Xmm::from_u32s([b.low32(); 4]),
        8 => Xmm::from_u64s([b.low(); 2]),
        _ => *b,
    }
}

/// Registers the instructions of the common shape that nobody has registered before.
pub(super) fn register(table: &mut Table) {
    for code in Code::values() {
        match form(code as u16) {
            Some(form) if form.mmx || table.get(code).known => {}
            Some(form) if form.wide => {
                table.set(code, op!(vector256::<false>), op!(vector256::<true>));
            }
            Some(_) => {
                table.set(code, op!(vector128::<false>), op!(vector128::<true>));
            }
            None => {}
        }
    }
}

/// The codes of the common shape that work on MMX registers.
pub(super) fn mmx_forms() -> impl Iterator<Item = Code> {
    Code::values().filter(|&code| form(code as u16).is_some_and(|form| form.mmx))
}
