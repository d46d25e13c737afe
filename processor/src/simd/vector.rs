//! The common shape of vector instructions: one handler that does the action of [`super::operations`] on registers and memory.
//!
//! What each encoding is (width, where the sources are, size and alignment of the memory operand) comes from iced's own tables, once.
//! The integer instructions that programs use most have handlers of their own, with the lane function inlined.

use std::sync::LazyLock;

use iced_x86::{Code, EncodingKind, OpCodeOperandKind};
use softfloat::Env;

use super::access::Ymm;
use super::lanes::Xmm;
use super::mmx::Joining;
use super::operations::{Action, Order, action};
use super::{integer, shuffle};
use crate::cpu::Cpu;
use crate::decode::{Op, Table};
use crate::trap::Exec;
use crate::{fast, op};

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
    /// The action works on two halves.
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

/// The generic handler; `MEMORY`: the last source is in memory.
fn vector<const MEMORY: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    let Some(form) = form(op.code) else { return Err(cpu.undefined_opcode()) };
    cpu.vector_ready(form.vex)?;
    let b = if MEMORY { cpu.load_vector(op, form.memory, form.aligned)? } else { cpu.ymm(op.r[(form.b & 3) as usize]) };
    let a = cpu.ymm(op.r[(form.a & 3) as usize]);
    let imm = op.imm as u8;
    let wide = form.wide;
    macro_rules! both {
        (|$i:ident| $half:expr) => {{
            let mut value = [Xmm::ZERO; 2];
            for $i in 0..1 + usize::from(wide) {
                value[$i] = $half;
            }
            value
        }};
    }
    let result: Ymm = match form.action {
        Action::Unary(f) => both!(|i| f(&b[i])),
        Action::UnaryImm(f, by) => both!(|i| f(&b[i], imm >> (by * i as u8))),
        Action::Binary(f) => both!(|i| f(&a[i], &b[i])),
        Action::BinaryImm(f, by) => both!(|i| f(&a[i], &b[i], imm >> (by * i as u8))),
        Action::Ternary(f) => {
            let mask = cpu.ymm(if form.vex { op.r[3] } else { 0 });
            both!(|i| f(&a[i], &b[i], &mask[i]))
        }
        Action::Shift(f) if form.count_is_immediate => both!(|i| f(&b[i], u64::from(imm))),
        Action::Shift(f) => both!(|i| f(&a[i], b[0].low())),
        Action::Extend(f, step) => {
            both!(|i| f(&Xmm::from_bits(b[0].bits() >> (8 * u32::from(step) * i as u32))))
        }
        Action::Broadcast(bytes) => {
            let filled = broadcast(&b[0], bytes);
            [filled, if wide { filled } else { Xmm::ZERO }]
        }
        Action::InsertSingle => {
            let lane = if MEMORY { b[0].low32() } else { b[0].u32s()[usize::from(imm >> 6)] };
            [shuffle::insert_single(&a[0], lane, imm), Xmm::ZERO]
        }
        Action::PermuteAcross32 => shuffle::permute_across32(&a, &b),
        Action::PermuteAcross64 => shuffle::permute_across64(&b, imm),
        Action::PermuteHalves => shuffle::permute_halves(&a, &b, imm),
        Action::InsertHalf => {
            let mut whole = a;
            whole[usize::from(imm & 1)] = b[0];
            whole
        }
        Action::Float(_) | Action::Convert(_) | Action::Widen(_) | Action::Narrow(_) | Action::Fused(..) => {
            floating(cpu, op, form, &a, &b)?
        }
    };
    if !form.vex {
        cpu.set_xmm(op.r[0], result[0]);
    } else {
        cpu.set_ymm(op.r[0], result);
    }
    Ok(())
}

/// The actions that depend on MXCSR.
fn floating(cpu: &mut Cpu, op: &Op, form: &Form, a: &Ymm, b: &Ymm) -> Exec<Ymm> {
    let mut env = Env::from_mxcsr(cpu.mxcsr);
    let (imm, wide) = (op.imm as u8, form.wide);
    let mut result = [Xmm::ZERO; 2];
    match form.action {
        Action::Float(f) => {
            result[0] = f(&a[0], &b[0], imm, &mut env);
            if wide {
                result[1] = f(&a[1], &b[1], imm, &mut env);
            }
        }
        Action::Convert(f) => {
            result[0] = f(&b[0], imm, &mut env);
            if wide {
                result[1] = f(&b[1], imm, &mut env);
            }
        }
        Action::Widen(f) => {
            result[0] = f(&b[0], imm, &mut env);
            if wide {
                result[1] = f(&Xmm::from_low(b[0].high()), imm, &mut env);
            }
        }
        Action::Narrow(f) => {
            let low = f(&b[0], imm, &mut env).low();
            let high = if wide { f(&b[1], imm, &mut env).low() } else { 0 };
            result[0] = Xmm::from_u64s([low, high]);
        }
        Action::Fused(f, order, scalar) => {
            let (first, second, third) = (cpu.ymm(op.r[0]), a, b);
            for i in 0..1 + usize::from(wide) {
                let (x, y, z) = match order {
                    Order::O132 => (&first[i], &third[i], &second[i]),
                    Order::O213 => (&second[i], &first[i], &third[i]),
                    Order::O231 => (&second[i], &third[i], &first[i]),
                };
                result[i] = f(x, y, z, &mut env);
            }
            match scalar {
                4 => result[0] = first[0].with_low32(result[0].low32()),
                8 => result[0] = first[0].with_low(result[0].low()),
                _ => {}
            }
        }
        _ => {}
    }
    cpu.settle(&env)?;
    Ok(result)
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

/// A lane function as a type, so that handlers can be made with it inlined.
trait Lanes {
    fn apply(a: &Xmm, b: &Xmm) -> Xmm;
}

#[inline(always)]
fn direct<const FAST: bool, L: Lanes>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.vector_ready_in::<FAST>(false)?;
    cpu.set_xmm(op.r[0], L::apply(&cpu.xmm(op.r[0]), &cpu.xmm(op.r[1])));
    Ok(())
}

#[inline(always)]
fn direct_memory<const FAST: bool, L: Lanes>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.vector_ready_in::<FAST>(false)?;
    let b = cpu.load_xmm::<FAST, true>(op)?;
    cpu.set_xmm(op.r[0], L::apply(&cpu.xmm(op.r[0]), &b));
    Ok(())
}

#[inline(always)]
fn direct128<const FAST: bool, L: Lanes>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.vector_ready_in::<FAST>(true)?;
    cpu.set_xmm_clear(op.r[0], L::apply(&cpu.xmm(op.r[1]), &cpu.xmm(op.r[2])));
    Ok(())
}

#[inline(always)]
fn direct128_memory<const FAST: bool, L: Lanes>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.vector_ready_in::<FAST>(true)?;
    let b = cpu.load_xmm::<FAST, false>(op)?;
    cpu.set_xmm_clear(op.r[0], L::apply(&cpu.xmm(op.r[1]), &b));
    Ok(())
}

#[inline(always)]
fn direct256<const FAST: bool, L: Lanes>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.vector_ready_in::<FAST>(true)?;
    let (a, b) = (cpu.ymm(op.r[1]), cpu.ymm(op.r[2]));
    cpu.set_ymm(op.r[0], [L::apply(&a[0], &b[0]), L::apply(&a[1], &b[1])]);
    Ok(())
}

#[inline(always)]
fn direct256_memory<const FAST: bool, L: Lanes>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.vector_ready_in::<FAST>(true)?;
    let b = cpu.load_ymm::<FAST, false>(op)?;
    let a = cpu.ymm(op.r[1]);
    cpu.set_ymm(op.r[0], [L::apply(&a[0], &b[0]), L::apply(&a[1], &b[1])]);
    Ok(())
}

macro_rules! direct {
    ($table:ident: $($function:path: $([$legacy:ident $vex128:ident $vex256:ident])+;)+) => {$({
        struct L;
        impl Lanes for L {
            #[inline(always)]
            fn apply(a: &Xmm, b: &Xmm) -> Xmm {
                $function(a, b)
            }
        }
        $(
            $table.set(Code::$legacy, fast!(direct, L), fast!(direct_memory, L));
            $table.set(Code::$vex128, fast!(direct128, L), fast!(direct128_memory, L));
            $table.set(Code::$vex256, fast!(direct256, L), fast!(direct256_memory, L));
        )+
    })+};
}

/// Registers the instructions of the common shape.
pub(super) fn register(table: &mut Table) {
    direct! { table:
        integer::and:
            [Pand_xmm_xmmm128 VEX_Vpand_xmm_xmm_xmmm128 VEX_Vpand_ymm_ymm_ymmm256]
            [Andps_xmm_xmmm128 VEX_Vandps_xmm_xmm_xmmm128 VEX_Vandps_ymm_ymm_ymmm256]
            [Andpd_xmm_xmmm128 VEX_Vandpd_xmm_xmm_xmmm128 VEX_Vandpd_ymm_ymm_ymmm256];
        integer::and_not:
            [Pandn_xmm_xmmm128 VEX_Vpandn_xmm_xmm_xmmm128 VEX_Vpandn_ymm_ymm_ymmm256];
        integer::or:
            [Por_xmm_xmmm128 VEX_Vpor_xmm_xmm_xmmm128 VEX_Vpor_ymm_ymm_ymmm256];
        integer::xor:
            [Pxor_xmm_xmmm128 VEX_Vpxor_xmm_xmm_xmmm128 VEX_Vpxor_ymm_ymm_ymmm256]
            [Xorps_xmm_xmmm128 VEX_Vxorps_xmm_xmm_xmmm128 VEX_Vxorps_ymm_ymm_ymmm256]
            [Xorpd_xmm_xmmm128 VEX_Vxorpd_xmm_xmm_xmmm128 VEX_Vxorpd_ymm_ymm_ymmm256];
        integer::equal8:
            [Pcmpeqb_xmm_xmmm128 VEX_Vpcmpeqb_xmm_xmm_xmmm128 VEX_Vpcmpeqb_ymm_ymm_ymmm256];
        integer::equal32:
            [Pcmpeqd_xmm_xmmm128 VEX_Vpcmpeqd_xmm_xmm_xmmm128 VEX_Vpcmpeqd_ymm_ymm_ymmm256];
        integer::min_u8:
            [Pminub_xmm_xmmm128 VEX_Vpminub_xmm_xmm_xmmm128 VEX_Vpminub_ymm_ymm_ymmm256];
        integer::sub8:
            [Psubb_xmm_xmmm128 VEX_Vpsubb_xmm_xmm_xmmm128 VEX_Vpsubb_ymm_ymm_ymmm256];
        integer::add8:
            [Paddb_xmm_xmmm128 VEX_Vpaddb_xmm_xmm_xmmm128 VEX_Vpaddb_ymm_ymm_ymmm256];
        integer::add32:
            [Paddd_xmm_xmmm128 VEX_Vpaddd_xmm_xmm_xmmm128 VEX_Vpaddd_ymm_ymm_ymmm256];
        integer::add64:
            [Paddq_xmm_xmmm128 VEX_Vpaddq_xmm_xmm_xmmm128 VEX_Vpaddq_ymm_ymm_ymmm256];
        shuffle::bytes:
            [Pshufb_xmm_xmmm128 VEX_Vpshufb_xmm_xmm_xmmm128 VEX_Vpshufb_ymm_ymm_ymmm256];
        shuffle::unpack_low64:
            [Punpcklqdq_xmm_xmmm128 VEX_Vpunpcklqdq_xmm_xmm_xmmm128 VEX_Vpunpcklqdq_ymm_ymm_ymmm256];
    }
    for code in Code::values() {
        if form_of(code).is_some_and(|form| !form.mmx) && !table.get(code).known {
            table.set(code, op!(vector::<false>), op!(vector::<true>));
        }
    }
}

/// The codes of the common shape that work on MMX registers.
pub(super) fn mmx_forms() -> impl Iterator<Item = Code> {
    Code::values().filter(|&code| form(code as u16).is_some_and(|form| form.mmx))
}
