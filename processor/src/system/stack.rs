//! A stack that is written or read before the registers that name it are committed.

use crate::cpu::{Cpu, Mode, RSP};
use crate::flags;
use crate::memory::tlb;
use crate::segment::{BIG, EXPAND_DOWN, SS, Segment};
use crate::trap::Exec;
use spec::x86::control_registers::Cr4;
use spec::x86::exceptions::Vector;

/// A stack pointer on the move.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stack {
    /// Base, limit and rights; unused when `long`.
    segment: Segment,
    /// Where the pointer stands.
    pub pointer: u64,
    /// Which bits of the pointer move.
    mask: u64,
    /// 64-bit: no segment.
    long: bool,
    /// TLB access class.
    class: usize,
    /// Error code of the stack fault.
    error: u32,
}

impl Cpu {
    /// The access class of privilege level `cpl`.
    fn class_of(&self, cpl: u8) -> usize {
        if cpl == 3 {
            tlb::USER
        } else if self.rflags & flags::AC != 0 && self.cr4 & Cr4::SMAP != 0 {
            tlb::SUPERVISOR_AC
        } else {
            tlb::SUPERVISOR
        }
    }

    /// The stack now in use.
    pub(crate) fn current_stack(&self) -> Stack {
        Stack {
            segment: self.segs[SS],
            pointer: self.regs[RSP],
            mask: self.stack_mask(),
            long: self.mode == Mode::Long64,
            class: self.class_of(self.cpl),
            error: self.external_bit(),
        }
    }

    /// A legacy stack of privilege level `cpl` in `segment`, whose faults name it.
    pub(crate) fn legacy_stack(&self, segment: Segment, pointer: u64, cpl: u8) -> Stack {
        Stack {
            segment,
            pointer,
            mask: if segment.access & BIG != 0 { 0xffff_ffff } else { 0xffff },
            long: false,
            class: self.class_of(cpl),
            error: self.selector_error(segment.selector),
        }
    }

    /// A 64-bit stack of privilege level `cpl`.
    pub(crate) fn long_stack(&self, pointer: u64, cpl: u8) -> Stack {
        Stack {
            segment: Segment::default(),
            pointer,
            mask: u64::MAX,
            long: true,
            class: self.class_of(cpl),
            error: self.external_bit(),
        }
    }

    /// Sets RSP to where `stack` stands.
    pub(crate) fn commit_stack_pointer(&mut self, stack: &Stack) {
        self.regs[RSP] = stack.pointer;
    }
}

impl Stack {
    fn linear(&self, cpu: &mut Cpu, offset: u64, size: u64) -> Exec<u64> {
        if self.long {
            if cpu.is_canonical(offset) && cpu.is_canonical(offset.wrapping_add(size - 1)) {
                return Ok(offset);
            }
            return Err(cpu.raise(Vector::StackFault as u8, Some(self.error)));
        }
        let last = offset + (size - 1);
        let limit = u64::from(self.segment.limit);
        let fits = if self.segment.access & EXPAND_DOWN != 0 && !cpu.paragraphs() {
            offset > limit && last <= self.mask
        } else {
            last <= limit
        };
        if fits {
            Ok(self.segment.base.wrapping_add(offset) & 0xffff_ffff)
        } else {
            Err(cpu.raise(Vector::StackFault as u8, Some(self.error)))
        }
    }

    fn moved(&self, by: u64) -> u64 {
        let moved = self.pointer.wrapping_add(by) & self.mask;
        // A 32-bit stack pointer is extended with zeroes, a 16-bit one leaves the rest of ESP alone.
        if self.mask == 0xffff { self.pointer & !0xffff | moved } else { moved }
    }

    /// Pushes the low `size` bytes (2, 4, 8) of `value`.
    pub(crate) fn push(&mut self, cpu: &mut Cpu, size: u8, value: u64) -> Exec {
        let pointer = self.moved(u64::from(size).wrapping_neg());
        let linear = self.linear(cpu, pointer & self.mask, u64::from(size))?;
        cpu.store_slow(linear, usize::from(size), value, self.class)?;
        self.pointer = pointer;
        Ok(())
    }

    /// Pops `size` bytes.
    pub(crate) fn pop(&mut self, cpu: &mut Cpu, size: u8) -> Exec<u64> {
        let linear = self.linear(cpu, self.pointer & self.mask, u64::from(size))?;
        let value = cpu.load_slow(linear, usize::from(size), self.class)?;
        self.pointer = self.moved(u64::from(size));
        Ok(value)
    }

    /// Moves the pointer by `bytes` without access.
    pub(crate) fn skip(&mut self, bytes: u64) {
        self.pointer = self.moved(bytes);
    }
}
