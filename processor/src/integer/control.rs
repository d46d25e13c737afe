//! Near control transfers: JMP, Jcc, CALL, RET, LOOP, JrCXZ.

use super::operand::{cut, read};
use crate::cpu::{Cpu, Mode, RCX, RIP_BASE_REG};
use crate::decode::op::{ADDRESS_16, ADDRESS_32, SLOW};
use crate::decode::{At, Handler, Op, Stop, Table};
use crate::segment::CS;
use crate::trap::{Exec, Trapped};
use crate::{branch, fast_branch};
use iced_x86::Code;

impl Cpu {
    /// Checks a near branch target: canonical in 64-bit mode, else within CS. #GP(0) belongs to the branch (SDM Vol 2, JMP).
    #[inline(always)]
    pub fn check_target(&mut self, target: u64) -> Exec {
        let fits =
            if self.mode == Mode::Long64 { self.is_canonical(target) } else { target <= self.segs[CS].limit as u64 };
        if fits { Ok(()) } else { Err(self.general_protection(0)) }
    }

    /// Whether a relative branch of 64-bit code stays in the half of the canonical addresses in which it is: so it needs no further check.
    #[inline(always)]
    fn relative_target_is_fine<const N: usize>(&self, target: u64) -> bool {
        N == 8 && (target ^ self.regs[RIP_BASE_REG as usize]) >> 47 == 0
    }

    /// As [`Cpu::check_target`]; the fast form of a body (`PATH` is not [`SLOW`]) misses.
    #[inline(always)]
    fn check_target_in<const PATH: u8>(&mut self, target: u64) -> Exec {
        if PATH == SLOW {
            return self.check_target(target);
        }
        if self.mode == Mode::Long64 && self.is_canonical(target) { Ok(()) } else { Err(Trapped::MISS) }
    }
}

/// The target of a relative branch with operand size `N`.
#[inline(always)]
fn relative<const N: usize>(cpu: &Cpu, op: &Op) -> u64 {
    cut::<N>(cpu.regs[RIP_BASE_REG as usize].wrapping_add(op.imm))
}

#[inline(always)]
fn jmp<const PATH: u8, const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    let target = relative::<N>(cpu, op);
    if !cpu.relative_target_is_fine::<N>(target) {
        cpu.check_target_in::<PATH>(target)?;
    }
    cpu.rip = target;
    Ok(())
}

/// A conditional branch stays inside its block: taken, it leaves; not taken, the next operation follows.
fn jcc<const CC: u8, const N: usize>(cpu: &mut Cpu, at: At) -> Stop {
    if cpu.flags.condition(CC) { take::<N>(cpu, at) } else { at.next(cpu) }
}

/// Takes the conditional branch.
#[inline(always)]
pub(super) fn take<const N: usize>(cpu: &mut Cpu, at: At) -> Stop {
    if N == 8
        && let Some(next) = at.follow(cpu)
    {
        return next.run(cpu);
    }
    let target = relative::<N>(cpu, at.op());
    if !cpu.relative_target_is_fine::<N>(target) {
        return take_checked(cpu, at, target);
    }
    leave_to(cpu, at, target)
}

#[cold]
fn take_checked(cpu: &mut Cpu, at: At, target: u64) -> Stop {
    if let Err(why) = cpu.check_target(target) {
        return cpu.leave(at, why);
    }
    leave_to(cpu, at, target)
}

#[inline(always)]
fn leave_to(cpu: &mut Cpu, at: At, target: u64) -> Stop {
    cpu.rip = target;
    cpu.instructions += u64::from(at.op().number);
    at.leave(cpu);
    Stop::Taken
}

#[inline(always)]
fn fall(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.rip = cpu.next_rip(op);
    Ok(())
}

#[inline(always)]
fn jmp_r<const PATH: u8, const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    let target = read::<N>(cpu, op.r[0]);
    cpu.check_target_in::<PATH>(target)?;
    cpu.rip = target;
    Ok(())
}

#[inline(always)]
fn jmp_m<const PATH: u8, const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    let address = cpu.linear_in::<PATH>(op, N as u64, false)?;
    let target = cpu.load_in::<PATH, N>(address)?;
    cpu.check_target_in::<PATH>(target)?;
    cpu.rip = target;
    Ok(())
}

#[inline(always)]
fn call_to<const PATH: u8, const N: usize>(cpu: &mut Cpu, op: &Op, target: u64) -> Exec {
    cpu.check_target_in::<PATH>(target)?;
    call_checked::<PATH, N>(cpu, op, target)
}

#[inline(always)]
fn call_checked<const PATH: u8, const N: usize>(cpu: &mut Cpu, op: &Op, target: u64) -> Exec {
    let back = if N == 8 {
        cpu.regs[RIP_BASE_REG as usize].wrapping_add(u64::from(op.offset) + u64::from(op.length))
    } else {
        cut::<N>(cpu.next_rip(op))
    };
    cpu.push_in::<PATH, N>(back)?;
    cpu.rip = target;
    Ok(())
}

#[inline(always)]
fn call<const PATH: u8, const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    let target = relative::<N>(cpu, op);
    if cpu.relative_target_is_fine::<N>(target) {
        return call_checked::<PATH, N>(cpu, op, target);
    }
    call_to::<PATH, N>(cpu, op, target)
}

#[inline(always)]
fn call_r<const PATH: u8, const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    let target = read::<N>(cpu, op.r[0]);
    call_to::<PATH, N>(cpu, op, target)
}

#[inline(always)]
fn call_m<const PATH: u8, const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    let address = cpu.linear_in::<PATH>(op, N as u64, false)?;
    let target = cpu.load_in::<PATH, N>(address)?;
    call_to::<PATH, N>(cpu, op, target)
}

/// RET, with the number of bytes to release in `imm` (0 for the plain form).
#[inline(always)]
fn ret<const PATH: u8, const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    let target = cpu.peek_stack_in::<PATH, N>(0)?;
    cpu.check_target_in::<PATH>(target)?;
    cpu.release_stack::<N>((N as u64).wrapping_add(op.imm & 0xffff));
    cpu.rip = target;
    Ok(())
}

/// RCX, ECX or CX as the address size says; decremented by `by`.
fn count(cpu: &mut Cpu, op: &Op, by: u64) -> u64 {
    let mask = if op.has(ADDRESS_16) {
        0xffff
    } else if op.has(ADDRESS_32) {
        0xffff_ffff
    } else {
        u64::MAX
    };
    let value = cpu.regs[RCX].wrapping_sub(by) & mask;
    if by != 0 {
        // A 32-bit count clears the upper half of RCX, a 16-bit one keeps it.
        cpu.regs[RCX] = if mask == 0xffff { cpu.regs[RCX] & !0xffff | value } else { value };
    }
    value
}

/// LOOP (`KIND` 0), LOOPE (1), LOOPNE (2), JrCXZ (3); the counter's width is in `op.size` and moved to the address flags here.
fn loop_<const KIND: u8, const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    let mut sized = *op;
    sized.flags &= !(ADDRESS_16 | ADDRESS_32);
    sized.flags |= match op.size {
        2 => ADDRESS_16,
        4 => ADDRESS_32,
        _ => 0,
    };
    let old = cpu.regs[RCX];
    let left = count(cpu, &sized, (KIND != 3) as u64);
    let taken = match KIND {
        0 => left != 0,
        1 => left != 0 && cpu.flags.zf(),
        2 => left != 0 && !cpu.flags.zf(),
        _ => left == 0,
    };
    if !taken {
        return fall(cpu, op);
    }
    let done = jmp::<SLOW, N>(cpu, op);
    if done.is_err() {
        cpu.regs[RCX] = old;
    }
    done
}

macro_rules! conditions {
    ($t:ident, $($name:ident = $cc:literal),*) => { paste::paste! { $(
        $t.one(Code::[<J $name _rel8_16>], jcc::<$cc, 2> as Handler).jumps($cc);
        $t.one(Code::[<J $name _rel16>], jcc::<$cc, 2> as Handler).jumps($cc);
        $t.one(Code::[<J $name _rel8_32>], jcc::<$cc, 4> as Handler).jumps($cc);
        $t.one(Code::[<J $name _rel32_32>], jcc::<$cc, 4> as Handler).jumps($cc);
        $t.one(Code::[<J $name _rel8_64>], jcc::<$cc, 8> as Handler).jumps($cc);
        $t.one(Code::[<J $name _rel32_64>], jcc::<$cc, 8> as Handler).jumps($cc);
    )* }};
}

macro_rules! loops {
    ($t:ident, $($name:ident = $kind:literal),*) => { paste::paste! { $(
        $t.end(Code::[<$name _rel8_16_CX>], branch!(loop_::<$kind, 2>)).sized(2);
        $t.end(Code::[<$name _rel8_16_ECX>], branch!(loop_::<$kind, 2>)).sized(4);
        $t.end(Code::[<$name _rel8_16_RCX>], branch!(loop_::<$kind, 2>)).sized(8);
        $t.end(Code::[<$name _rel8_32_CX>], branch!(loop_::<$kind, 4>)).sized(2);
        $t.end(Code::[<$name _rel8_32_ECX>], branch!(loop_::<$kind, 4>)).sized(4);
        $t.end(Code::[<$name _rel8_64_ECX>], branch!(loop_::<$kind, 8>)).sized(4);
        $t.end(Code::[<$name _rel8_64_RCX>], branch!(loop_::<$kind, 8>)).sized(8);
    )* }};
}

/// A branch's register and memory forms.
fn both(table: &mut Table, code: Code, reg: Handler, mem: Handler) {
    table.end(code, reg).mem = mem.into();
}

/// Registers this file's instructions.
pub fn register(table: &mut Table) {
    conditions!(
        table,
        o = 0,
        no = 1,
        b = 2,
        ae = 3,
        e = 4,
        ne = 5,
        be = 6,
        a = 7,
        s = 8,
        ns = 9,
        p = 10,
        np = 11,
        l = 12,
        ge = 13,
        le = 14,
        g = 15
    );
    loops!(table, Loop = 0, Loope = 1, Loopne = 2);
    table.end(Code::Jcxz_rel8_16, branch!(loop_::<3, 2>)).sized(2);
    table.end(Code::Jcxz_rel8_32, branch!(loop_::<3, 4>)).sized(2);
    table.end(Code::Jecxz_rel8_16, branch!(loop_::<3, 2>)).sized(4);
    table.end(Code::Jecxz_rel8_32, branch!(loop_::<3, 4>)).sized(4);
    table.end(Code::Jecxz_rel8_64, branch!(loop_::<3, 8>)).sized(4);
    table.end(Code::Jrcxz_rel8_16, branch!(loop_::<3, 2>)).sized(8);
    table.end(Code::Jrcxz_rel8_64, branch!(loop_::<3, 8>)).sized(8);
    for code in [Code::Jmp_rel8_16, Code::Jmp_rel16] {
        table.end(code, fast_branch!(jmp, 2));
    }
    for code in [Code::Jmp_rel8_32, Code::Jmp_rel32_32] {
        table.end(code, fast_branch!(jmp, 4));
    }
    for code in [Code::Jmp_rel8_64, Code::Jmp_rel32_64] {
        table.end(code, fast_branch!(jmp, 8));
    }
    table.end(Code::Call_rel16, fast_branch!(call, 2));
    table.end(Code::Call_rel32_32, fast_branch!(call, 4));
    table.end(Code::Call_rel32_64, fast_branch!(call, 8));
    both(table, Code::Jmp_rm16, fast_branch!(jmp_r, 2), fast_branch!(jmp_m, 2));
    both(table, Code::Jmp_rm32, fast_branch!(jmp_r, 4), fast_branch!(jmp_m, 4));
    both(table, Code::Jmp_rm64, fast_branch!(jmp_r, 8), fast_branch!(jmp_m, 8));
    both(table, Code::Call_rm16, fast_branch!(call_r, 2), fast_branch!(call_m, 2));
    both(table, Code::Call_rm32, fast_branch!(call_r, 4), fast_branch!(call_m, 4));
    both(table, Code::Call_rm64, fast_branch!(call_r, 8), fast_branch!(call_m, 8));
    for code in [Code::Retnw, Code::Retnw_imm16] {
        table.end(code, fast_branch!(ret, 2));
    }
    for code in [Code::Retnd, Code::Retnd_imm16] {
        table.end(code, fast_branch!(ret, 4));
    }
    for code in [Code::Retnq, Code::Retnq_imm16] {
        table.end(code, fast_branch!(ret, 8));
    }
}
