//! The operations of a block, and places among them.
//!
//! A handler goes on with the operation after its own without asking whether there is one: behind a block's operations lies one more that ends
//! it. And a branch that is taken goes on with the block that it is linked to, if any, without leaving to the run loop. That is why `unsafe` is
//! here.
#![allow(unsafe_code)]

use super::op::{Op, Stop};
use crate::cpu::{Cpu, RIP_BASE_REG};
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;

/// The operations of a block, at least one.
#[derive(Debug)]
pub struct Ops(NonNull<[Op]>);

// SAFETY: the operations are owned; links lead to others of the same cache, which goes to another thread as a whole.
unsafe impl Send for Ops {}

impl Drop for Ops {
    fn drop(&mut self) {
        // SAFETY: made by `Box::leak` in `new`.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

impl Ops {
    /// Of `ops`; a block that is not left before goes on at RIP base + `end`.
    pub fn new(mut ops: Vec<Op>, end: u64) -> Self {
        ops.push(Op { imm: end, length: 0, ..Op::new(fall_through) });
        Self(NonNull::from(Box::leak(ops.into_boxed_slice())))
    }

    /// The first operation.
    #[inline(always)]
    pub fn first(&self) -> At<'_> {
        At(self.0.cast(), PhantomData)
    }

    /// Runs the block, and those that it is linked to. Gives where the last one was left (for [`Stop::Done`], where it was entered).
    #[inline(always)]
    pub fn run(&self, cpu: &mut Cpu) -> (Stop, At<'_>) {
        let first = self.first();
        cpu.trail.entered = first.address();
        let stop = first.run(cpu);
        let place = if stop == Stop::Done { cpu.trail.entered } else { cpu.trail.left };
        // SAFETY: a place of this block or one reached by links, which are there as long as nothing of the cache is dropped.
        (stop, unsafe { At::from_address(place) })
    }
}

impl Deref for Ops {
    type Target = [Op];

    /// Without the one that ends the block.
    fn deref(&self) -> &[Op] {
        // SAFETY: owned, and borrowed as `self` is.
        let ops = unsafe { self.0.as_ref() };
        &ops[..ops.len() - 1]
    }
}

/// The way through linked blocks.
#[derive(Debug, Default)]
pub struct Trail {
    /// The first operation of the running block.
    entered: usize,
    /// The operation that trapped, or the branch taken.
    left: usize,
    /// Links are followed while fewer instructions than this were executed, …
    pub(crate) until: u64,
    /// … and while this is [`crate::memory::tlb::Tlb::changes`].
    pub(crate) changes: u64,
}

/// An operation, and those that follow it. Handlers are given one of their own operation, which is never the one that ends a block, except to
/// [`fall_through`]: so there is always an operation behind.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct At<'a>(NonNull<Op>, PhantomData<&'a Op>);

impl<'a> At<'a> {
    /// The operation.
    #[inline(always)]
    pub fn op(self) -> &'a Op {
        // SAFETY: a place is in operations that live for `'a`.
        unsafe { self.0.as_ref() }
    }

    /// Where it is in the host's memory.
    #[inline(always)]
    pub fn address(self) -> usize {
        self.0.as_ptr().expose_provenance()
    }

    /// The place at an address that [`At::address`] gave.
    ///
    /// # Safety
    /// It was the address of an operation that is not the end of its block, and that block lives for `'a`.
    #[inline(always)]
    pub(crate) unsafe fn from_address(address: usize) -> Self {
        // SAFETY: no place is at address 0, as the caller promises.
        Self(unsafe { NonNull::new_unchecked(std::ptr::with_exposed_provenance_mut(address)) }, PhantomData)
    }

    #[inline(always)]
    fn after(self) -> Self {
        // SAFETY: this is not the last operation, as said above.
        Self(unsafe { self.0.add(1) }, PhantomData)
    }

    /// The instruction that follows in the block, if any.
    #[inline(always)]
    pub fn following(self) -> Option<Self> {
        let after = self.after();
        (after.op().length != 0).then_some(after)
    }

    /// The block is left here.
    #[inline(always)]
    pub fn leave(self, cpu: &mut Cpu) {
        cpu.trail.left = self.address();
    }

    /// Links this branch to the block of `ops`: it is there as long as this one.
    pub(crate) fn link(self, ops: &Ops) {
        // SAFETY: the pointer is of the owner; nobody holds a reference to this field.
        unsafe { (*self.0.as_ptr()).disp = ops.first().address() as u64 };
    }

    /// Where to go on when this branch is taken, if it is linked and there is nothing to see to before.
    #[inline(always)]
    pub fn follow(self, cpu: &mut Cpu) -> Option<Self> {
        let link = self.op().disp as usize;
        let instructions = cpu.instructions + u64::from(self.op().number);
        let go_on = instructions < cpu.trail.until && cpu.attention == 0 && cpu.tlb.changes == cpu.trail.changes;
        if link == 0 || !go_on {
            return None;
        }
        cpu.instructions = instructions;
        cpu.trail.entered = link;
        // SAFETY: the first operation of a block that is there as long as this one.
        Some(unsafe { At::from_address(link) })
    }

    /// Runs this operation and what follows: compiled to a jump, as [`At::next`] is.
    #[inline(always)]
    pub fn run(self, cpu: &mut Cpu) -> Stop {
        (self.op().run)(cpu, self)
    }

    /// Runs what follows this operation: compiled to a jump at opt-level 1 and above.
    #[inline(always)]
    pub fn next(self, cpu: &mut Cpu) -> Stop {
        self.after().run(cpu)
    }
}

/// Follows the last instruction of a block. It must not look at what follows itself.
fn fall_through(cpu: &mut Cpu, at: At) -> Stop {
    cpu.rip = cpu.cut_rip(cpu.regs[RIP_BASE_REG as usize].wrapping_add(at.op().imm));
    Stop::Done
}

#[cfg(test)]
mod tests {
    use crate::cet::CetCode;
    use crate::decode::cache::BlockKind;
    use crate::run::{Activity, RunExit};
    use crate::testing::Machine;

    const CODE: u64 = 0x8000;
    /// 50 times, counted down in ECX: add eax, 1; cmp ecx, 25; jne (over) mov byte [that 1], 2; dec ecx; jnz. Then hlt.
    const CHANGES_ITSELF: [u8; 26] = [
        0xb9, 50, 0, 0, 0, 0x83, 0xc0, 1, 0x83, 0xf9, 25, 0x75, 8, 0xc6, 0x04, 0x25, 0x07, 0x80, 0, 0, 2, 0xff, 0xc9,
        0x75, 0xec, 0xf4,
    ];
    /// The sum, and the instructions executed.
    const OUTCOME: (u64, u64) = (26 + 2 * 24, 1 + 50 * 5 + 1 + 1);

    fn machine() -> Machine {
        let mut machine = Machine::long();
        machine.cpu.rip = CODE;
        machine.cpu.regs[0] = 0;
        machine.write(CODE, &CHANGES_ITSELF);
        machine
    }

    fn outcome(machine: &Machine) -> (u64, u64) {
        (machine.cpu.regs[0], machine.cpu.instructions)
    }

    #[test]
    fn links_end_with_the_code_they_lead_to() {
        let mut machine = machine();
        machine.run_to_halt(1000);
        assert_eq!(outcome(&machine), OUTCOME);
        let kind = BlockKind { code_size: 2, single: false, cet: CetCode::Off, locks: false };
        let block = machine.code.find(CODE + 5, kind).and_then(|index| machine.code.block(index)).unwrap();
        assert_ne!(block.ops[2].disp, 0, "the first branch is linked");
    }

    #[test]
    fn a_limit_is_kept_in_linked_blocks() {
        let mut machine = machine();
        for until in (0..400).step_by(97) {
            if machine.cpu.run(&mut machine.code, until) == RunExit::Deadline {
                assert_eq!(machine.cpu.now(), until);
            }
        }
        assert_eq!(machine.cpu.activity, Activity::Halted);
        assert_eq!(outcome(&machine), OUTCOME);
    }
}
