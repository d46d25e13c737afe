//! Bus locks: those of an operating system's interest raise #DB (SDM Vol. 3B, 18.3.1.6), those of a hypervisor's exit ("VMM bus-lock
//! detection", Vol. 3C, 26.2), both after the instruction. Here a bus lock is a locked access across a cache line; memory types have no effect,
//! so that there are no locked accesses to uncacheable memory.
//!
//! Where nobody watches it costs nothing: code is decoded for whether somebody does, and then each instruction that may assert a bus lock has a
//! block of its own, with a handler before it that looks at the address.

use crate::cpu::Cpu;
use crate::decode::op::{LOCK, MEMORY_FIRST};
use crate::decode::{At, Op, Stop};
use crate::flags::sign_extend;
use crate::run::attention;
use iced_x86::{Instruction, Mnemonic, OpCodeOperandKind as Kind, OpKind};
use spec::vmx::SecondaryControls as Secondary;
use spec::x86::Dr6;
use spec::x86::debug::DebugCtl;

/// Bytes in a cache line.
const LINE: u64 = 64;

/// Who watches for bus locks; a part of the translation context, for code is looked up and translated by it.
pub(crate) mod watchers {
    /// The operating system, where CPL is not 0.
    pub const SYSTEM: u8 = 1;
    /// The hypervisor.
    pub const HYPERVISOR: u8 = 2;
}

/// Whether an instruction may assert a bus lock.
pub(crate) fn may_lock_bus(instruction: &Instruction) -> bool {
    let exchanges = instruction.mnemonic() == Mnemonic::Xchg;
    (instruction.has_lock_prefix() || exchanges)
        && (0..instruction.op_count()).any(|n| instruction.op_kind(n) == OpKind::Memory)
}

/// Stands before the operation of such an instruction, where bus locks are watched for.
pub(crate) fn watched(cpu: &mut Cpu, at: At) -> Stop {
    let locks = cpu.would_lock_bus(at.op());
    let exact = std::mem::replace(&mut cpu.exact, true);
    let stop = at.next(cpu);
    cpu.exact = exact;
    if locks && stop == Stop::Done {
        cpu.bus_locked();
    }
    stop
}

impl Cpu {
    /// Who watches for bus locks in this translation context.
    #[inline]
    pub(crate) fn bus_lock_watchers(&self) -> u8 {
        let system = if self.msrs.debugctl & DebugCtl::BLD != 0 { watchers::SYSTEM } else { 0 };
        let detects = self.vmx.controls.secondary.has(Secondary::BUS_LOCK_DETECTION);
        system | if detects { watchers::HYPERVISOR } else { 0 }
    }

    /// Whether `watchers` watch at the current privilege level.
    #[inline]
    pub(crate) fn watched_by(&self, watchers: u8) -> bool {
        watchers & watchers::HYPERVISOR != 0 || watchers != 0 && self.cpl != 0
    }

    /// Whether `op`, which may lock the bus and is to run now, would.
    fn would_lock_bus(&self, op: &Op) -> bool {
        let (code, exchanges) = (op.code().op_code(), op.code().mnemonic() == Mnemonic::Xchg);
        if !op.has(MEMORY_FIRST) || !op.has(LOCK) && !exchanges {
            return false;
        }
        let size = code.memory_size().size() as u64;
        // A bit number in a register reaches beyond the operand.
        let bits = match (op.code().mnemonic(), code.op_kind(1)) {
            (Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc, Kind::r16_reg | Kind::r32_reg | Kind::r64_reg) => {
                let number = sign_extend(self.regs[op.r[1] as usize & 15], size as usize) as i64;
                (number >> (8 * size).trailing_zeros()) as u64
            }
            _ => 0,
        };
        let base = self.segs[op.seg as usize & 7].base;
        let linear = self.effective_address(op).wrapping_add(bits.wrapping_mul(size)).wrapping_add(base);
        linear % LINE + size > LINE
    }

    /// The instruction that asserted a bus lock completed: an exit or #DB follows.
    fn bus_locked(&mut self) {
        let watchers = self.bus_lock_watchers();
        if watchers & watchers::HYPERVISOR != 0 {
            self.vmx.bus_lock = true;
        }
        if watchers & watchers::SYSTEM != 0 && self.cpl != 0 {
            self.events.debug_trap |= Dr6::BLD;
        }
        self.attention |= attention::EVENT;
    }
}
