//! PUSH, POP, PUSHA, POPA, ENTER, LEAVE, and the stack primitives that other instructions use.

use super::operand::{cut, read, write};
use crate::cpu::{Cpu, Mode, RBP, RSP};
use crate::decode::op::SLOW;
use crate::decode::{Op, Table};
use crate::segment::SS;
use crate::trap::{Exec, Trapped};
use crate::{fast, op};
use iced_x86::Code;

impl Cpu {
    /// The linear address of `size` bytes at stack offset `offset`.
    #[inline(always)]
    pub fn stack_linear(&mut self, offset: u64, size: u64, write: bool) -> Exec<u64> {
        if self.mode == Mode::Long64 { Ok(offset) } else { self.segment_linear(SS, offset, size, write) }
    }

    /// RSP plus `delta`, within the stack's width; the offset that it names.
    #[inline(always)]
    pub fn stack_offset(&self, delta: u64) -> u64 {
        self.regs[RSP].wrapping_add(delta) & self.stack_mask()
    }

    /// Sets RSP, SP or ESP as the stack's width says.
    #[inline(always)]
    pub fn set_stack_offset(&mut self, offset: u64) {
        let mask = self.stack_mask();
        let kept = if mask == 0xffff { self.regs[RSP] & !0xffff } else { 0 };
        self.regs[RSP] = offset & mask | kept;
    }

    /// As [`Cpu::stack_linear`]; the fast form of a body (`PATH` is not [`SLOW`]) misses where a segment would have to be checked.
    #[inline(always)]
    pub(crate) fn stack_linear_in<const PATH: u8>(&mut self, offset: u64, size: u64, write: bool) -> Exec<u64> {
        if size == 8 {
            return Ok(offset);
        }
        if PATH != SLOW {
            return if self.mode == Mode::Long64 { Ok(offset) } else { Err(Trapped::MISS) };
        }
        self.stack_linear(offset, size, write)
    }

    /// As [`Cpu::stack_offset`], before an access of `N` bytes: eight are pushed and popped in 64-bit mode only.
    #[inline(always)]
    fn stack_offset_for<const N: usize>(&self, delta: u64) -> u64 {
        if N == 8 { self.regs[RSP].wrapping_add(delta) } else { self.stack_offset(delta) }
    }

    /// As [`Cpu::set_stack_offset`], in the manner of [`Cpu::stack_offset_for`].
    #[inline(always)]
    fn set_stack_offset_for<const N: usize>(&mut self, offset: u64) {
        if N == 8 {
            self.regs[RSP] = offset;
        } else {
            self.set_stack_offset(offset);
        }
    }

    /// Moves the stack pointer up by `bytes`, after an access of `N` bytes.
    #[inline(always)]
    pub(super) fn release_stack<const N: usize>(&mut self, bytes: u64) {
        let offset = self.stack_offset_for::<N>(bytes);
        self.set_stack_offset_for::<N>(offset);
    }

    /// Pushes `N` bytes.
    #[inline(always)]
    pub fn push<const N: usize>(&mut self, value: u64) -> Exec {
        self.push_in::<SLOW, N>(value)
    }

    #[inline(always)]
    pub(crate) fn push_in<const PATH: u8, const N: usize>(&mut self, value: u64) -> Exec {
        let offset = self.stack_offset_for::<N>((N as u64).wrapping_neg());
        let address = self.stack_linear_in::<PATH>(offset, N as u64, true)?;
        self.store_in::<PATH, N>(address, value)?;
        self.set_stack_offset_for::<N>(offset);
        Ok(())
    }

    /// Pops `N` bytes.
    #[inline(always)]
    pub fn pop<const N: usize>(&mut self) -> Exec<u64> {
        self.pop_in::<SLOW, N>()
    }

    #[inline(always)]
    pub(crate) fn pop_in<const PATH: u8, const N: usize>(&mut self) -> Exec<u64> {
        let offset = self.stack_offset_for::<N>(0);
        let address = self.stack_linear_in::<PATH>(offset, N as u64, false)?;
        let value = self.load_in::<PATH, N>(address)?;
        self.set_stack_offset_for::<N>(offset.wrapping_add(N as u64));
        Ok(value)
    }

    /// Reads `N` bytes at stack offset RSP + `delta`, popping nothing.
    #[inline(always)]
    pub fn peek_stack<const N: usize>(&mut self, delta: u64) -> Exec<u64> {
        self.peek_stack_in::<SLOW, N>(delta)
    }

    #[inline(always)]
    pub(crate) fn peek_stack_in<const PATH: u8, const N: usize>(&mut self, delta: u64) -> Exec<u64> {
        let offset = self.stack_offset_for::<N>(delta);
        let address = self.stack_linear_in::<PATH>(offset, N as u64, false)?;
        self.load_in::<PATH, N>(address)
    }
}

#[inline(always)]
fn push_r<const PATH: u8, const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    let value = read::<N>(cpu, op.r[0]);
    cpu.push_in::<PATH, N>(value)
}

#[inline(always)]
fn push_m<const PATH: u8, const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    let address = cpu.linear_in::<PATH>(op, N as u64, false)?;
    let value = cpu.load_in::<PATH, N>(address)?;
    cpu.push_in::<PATH, N>(value)
}

#[inline(always)]
fn push_i<const PATH: u8, const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.push_in::<PATH, N>(cut::<N>(op.imm))
}

#[inline(always)]
fn pop_r<const PATH: u8, const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    let value = cpu.pop_in::<PATH, N>()?;
    write::<N>(cpu, op.r[0], value);
    Ok(())
}

fn pop_m<const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    // An address based on RSP uses its value after the pop (SDM Vol 2B, POP).
    let old = cpu.regs[RSP];
    let value = cpu.pop::<N>()?;
    let stored = cpu.linear(op, N as u64, true).and_then(|address| cpu.store::<N>(address, value));
    if stored.is_err() {
        cpu.regs[RSP] = old;
    }
    stored
}

fn pusha<const N: usize>(cpu: &mut Cpu, _op: &Op) -> Exec {
    let old = cpu.regs[RSP];
    for slot in 0..8u8 {
        let value = if slot as usize == RSP { cut::<N>(old) } else { read::<N>(cpu, slot) };
        if let Err(why) = cpu.push::<N>(value) {
            cpu.regs[RSP] = old;
            return Err(why);
        }
    }
    Ok(())
}

fn popa<const N: usize>(cpu: &mut Cpu, _op: &Op) -> Exec {
    let mut values = [0; 8];
    for (i, value) in values.iter_mut().enumerate() {
        *value = cpu.peek_stack::<N>((i * N) as u64)?;
    }
    for (i, value) in values.into_iter().enumerate() {
        let slot = 7 - i;
        if slot != RSP {
            write::<N>(cpu, slot as u8, value);
        }
    }
    let offset = cpu.stack_offset(8 * N as u64);
    cpu.set_stack_offset(offset);
    Ok(())
}

fn enter<const N: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    let (old_sp, old_bp) = (cpu.regs[RSP], cpu.regs[RBP]);
    let done = enter_frame::<N>(cpu, op.imm & 0xffff, op.extra & 31);
    if done.is_err() {
        cpu.regs[RSP] = old_sp;
        cpu.regs[RBP] = old_bp;
    }
    done
}

fn enter_frame<const N: usize>(cpu: &mut Cpu, size: u64, level: u8) -> Exec {
    let value = read::<N>(cpu, RBP as u8);
    cpu.push::<N>(value)?;
    let frame = cpu.regs[RSP];
    if level > 0 {
        let mut pointer = cpu.regs[RBP];
        for _ in 1..level {
            pointer = pointer.wrapping_sub(N as u64);
            let offset = pointer & cpu.stack_mask();
            let address = cpu.stack_linear(offset, N as u64, false)?;
            let value = cpu.load::<N>(address)?;
            cpu.push::<N>(value)?;
        }
        cpu.push::<N>(cut::<N>(frame))?;
    }
    let offset = cpu.stack_offset(size.wrapping_neg());
    // The new stack top is touched as a write would be (SDM Vol 2A, ENTER).
    let address = cpu.stack_linear(offset, N as u64, true)?;
    cpu.probe_write(address, N)?;
    cpu.set_stack_offset(offset);
    write::<N>(cpu, RBP as u8, frame);
    Ok(())
}

#[inline(always)]
fn leave<const PATH: u8, const N: usize>(cpu: &mut Cpu, _op: &Op) -> Exec {
    let offset = cpu.regs[RBP] & cpu.stack_mask();
    let address = cpu.stack_linear_in::<PATH>(offset, N as u64, false)?;
    let value = cpu.load_in::<PATH, N>(address)?;
    cpu.set_stack_offset(offset.wrapping_add(N as u64));
    write::<N>(cpu, RBP as u8, value);
    Ok(())
}

macro_rules! sizes {
    ($t:ident, $n:literal, $bits:literal) => {
        paste::paste! {
            $t.one(Code::[<Push_r $bits>], fast!(push_r, $n));
            $t.one(Code::[<Pop_r $bits>], fast!(pop_r, $n));
            $t.set(Code::[<Push_rm $bits>], fast!(push_r, $n), fast!(push_m, $n));
            $t.set(Code::[<Pop_rm $bits>], fast!(pop_r, $n), op!(pop_m::<$n>));
        }
    };
}

/// Registers this file's instructions.
pub fn register(table: &mut Table) {
    sizes!(table, 2, 16);
    sizes!(table, 4, 32);
    sizes!(table, 8, 64);
    table.one(Code::Push_imm16, fast!(push_i, 2));
    table.one(Code::Pushd_imm32, fast!(push_i, 4));
    table.one(Code::Pushq_imm32, fast!(push_i, 8));
    table.one(Code::Pushw_imm8, fast!(push_i, 2));
    table.one(Code::Pushd_imm8, fast!(push_i, 4));
    table.one(Code::Pushq_imm8, fast!(push_i, 8));
    table.one(Code::Pushaw, op!(pusha::<2>));
    table.one(Code::Pushad, op!(pusha::<4>));
    table.one(Code::Popaw, op!(popa::<2>));
    table.one(Code::Popad, op!(popa::<4>));
    table.one(Code::Enterw_imm16_imm8, op!(enter::<2>));
    table.one(Code::Enterd_imm16_imm8, op!(enter::<4>));
    table.one(Code::Enterq_imm16_imm8, op!(enter::<8>));
    table.one(Code::Leavew, fast!(leave, 2));
    table.one(Code::Leaved, fast!(leave, 4));
    table.one(Code::Leaveq, fast!(leave, 8));
}
