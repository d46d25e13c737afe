//! CMP and TEST with the Jcc that follows, as one handler: the condition is taken from the operands themselves. The Jcc keeps its place in the block,
//! so counting and faults are as without fusion.

use super::alu::{Binary, Cmp, Test};
use super::control::take;
use super::operand::{cut, read};
use crate::cpu::Cpu;
use crate::decode::op::{FAST, FLAT, Shape};
use crate::decode::{At, Handler, Stop, Table};
use crate::flags::sign_extend;
use iced_x86::Code;

/// A comparison that can tell a condition without going through the flags.
trait Compare: Binary {
    fn holds<const CC: u8, const N: usize>(a: u64, b: u64, cpu: &Cpu) -> bool;
}

impl Compare for Cmp {
    #[inline(always)]
    fn holds<const CC: u8, const N: usize>(a: u64, b: u64, cpu: &Cpu) -> bool {
        let (x, y) = (sign_extend(a, N) as i64, sign_extend(b, N) as i64);
        let holds = match CC >> 1 {
            1 => a < b,
            2 => a == b,
            3 => a <= b,
            6 => x < y,
            7 => x <= y,
            // Overflow, sign and parity are rare after CMP.
            _ => return cpu.flags.condition(CC),
        };
        holds != (CC & 1 != 0)
    }
}

impl Compare for Test {
    #[inline(always)]
    fn holds<const CC: u8, const N: usize>(a: u64, b: u64, cpu: &Cpu) -> bool {
        let result = sign_extend(a & b, N) as i64;
        let holds = match CC >> 1 {
            0 | 1 => false,
            2 | 3 => result == 0,
            4 | 6 => result < 0,
            7 => result <= 0,
            _ => return cpu.flags.condition(CC),
        };
        holds != (CC & 1 != 0)
    }
}

/// Where the operands come from, as the instruction's name has them.
const RR: u8 = 0;
const RI: u8 = 1;
const RM: u8 = 2;
const MR: u8 = 3;
const MI: u8 = 4;

fn fused<C: Compare, const FORM: u8, const PATH: u8, const N: usize, const CC: u8>(cpu: &mut Cpu, at: At) -> Stop {
    let Some(branch) = at.following() else { return plain(cpu, at) };
    let op = at.op();
    let memory = if matches!(FORM, RM | MR | MI) {
        let Ok(linear) = cpu.linear_in::<PATH>(op, N as u64, false) else { return plain(cpu, at) };
        let Ok(value) = cpu.load_for::<PATH, N>(op, linear) else { return plain(cpu, at) };
        value
    } else {
        0
    };
    let (a, b) = match FORM {
        RR => (read::<N>(cpu, op.r[0]), read::<N>(cpu, op.r[1])),
        RI => (read::<N>(cpu, op.r[0]), cut::<N>(op.imm)),
        RM => (read::<N>(cpu, op.r[0]), memory),
        MR => (memory, read::<N>(cpu, op.r[1])),
        _ => (memory, cut::<N>(op.imm)),
    };
    C::compute::<N, true>(a, b, &mut cpu.flags);
    if C::holds::<CC, N>(a, b, cpu) { take::<8>(cpu, branch) } else { branch.next(cpu) }
}

/// The comparison alone, for what the fused form does not do.
#[cold]
fn plain(cpu: &mut Cpu, at: At) -> Stop {
    if at.op().shape() == Shape::Flat {
        cpu.bring_near(at.op());
    }
    (Table::shared().get(at.op().code()).mem.any)(cpu, at)
}

/// The handlers of one comparison, by condition.
pub type ByCondition = [Handler; 16];

macro_rules! by_condition {
    ($name:ident, $form:ident, $path:ident, $n:literal) => {{
        static HANDLERS: ByCondition = [
            fused::<$name, $form, $path, $n, 0>,
            fused::<$name, $form, $path, $n, 1>,
            fused::<$name, $form, $path, $n, 2>,
            fused::<$name, $form, $path, $n, 3>,
            fused::<$name, $form, $path, $n, 4>,
            fused::<$name, $form, $path, $n, 5>,
            fused::<$name, $form, $path, $n, 6>,
            fused::<$name, $form, $path, $n, 7>,
            fused::<$name, $form, $path, $n, 8>,
            fused::<$name, $form, $path, $n, 9>,
            fused::<$name, $form, $path, $n, 10>,
            fused::<$name, $form, $path, $n, 11>,
            fused::<$name, $form, $path, $n, 12>,
            fused::<$name, $form, $path, $n, 13>,
            fused::<$name, $form, $path, $n, 14>,
            fused::<$name, $form, $path, $n, 15>,
        ];
        &HANDLERS
    }};
}

macro_rules! forms {
    ($name:ident, $reg:ident, $mem:ident, $n:literal) => {
        [
            by_condition!($name, $reg, FAST, $n),
            by_condition!($name, $mem, FAST, $n),
            by_condition!($name, $mem, FLAT, $n),
        ]
    };
}

macro_rules! sizes {
    ($t:ident, $($n:literal, $bits:literal, $acc:ident, $imm:literal);*) => { paste::paste! { $(
        $t.fuse(Code::[<Cmp_rm $bits _r $bits>], forms!(Cmp, RR, MR, $n));
        $t.fuse(Code::[<Cmp_r $bits _rm $bits>], forms!(Cmp, RR, RM, $n));
        $t.fuse(Code::[<Cmp_rm $bits _imm8>], forms!(Cmp, RI, MI, $n));
        $t.fuse(Code::[<Cmp_ $acc _imm $imm>], forms!(Cmp, RI, RI, $n));
        $t.fuse(Code::[<Test_rm $bits _r $bits>], forms!(Test, RR, MR, $n));
        $t.fuse(Code::[<Test_rm $bits _imm $imm>], forms!(Test, RI, MI, $n));
        $t.fuse(Code::[<Test_ $acc _imm $imm>], forms!(Test, RI, RI, $n));
    )* }};
}

/// Registers the fused forms of what [`super::alu`] has registered.
pub fn register(table: &mut Table) {
    sizes!(table, 1, 8, AL, 8; 2, 16, AX, 16; 4, 32, EAX, 32; 8, 64, RAX, 32);
    table.fuse(Code::Cmp_rm16_imm16, forms!(Cmp, RI, MI, 2));
    table.fuse(Code::Cmp_rm32_imm32, forms!(Cmp, RI, MI, 4));
    table.fuse(Code::Cmp_rm64_imm32, forms!(Cmp, RI, MI, 8));
}
