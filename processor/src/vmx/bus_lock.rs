//! "VMM bus-lock detection" (SDM Vol. 3C, 26.2): an exit after an instruction that asserted a bus lock. Here that is a locked access across a
//! cache line; memory types have no effect, so that there are no locked accesses to uncacheable memory.

use crate::cpu::Cpu;
use crate::decode::Op;
use crate::decode::op::{LOCK, MEMORY_FIRST};
use crate::flags::sign_extend;
use crate::run::attention;
use iced_x86::{Mnemonic, OpCodeOperandKind as Kind};
use spec::vmx::SecondaryControls as Secondary;

/// Bytes in a cache line.
const LINE: u64 = 64;

impl Cpu {
    /// Whether `op`, which is to run now, would assert a bus lock that the hypervisor wants to hear of.
    pub(crate) fn would_lock_bus(&self, op: &Op) -> bool {
        if !self.vmx.controls.secondary.has(Secondary::BUS_LOCK_DETECTION) || !op.has(MEMORY_FIRST) {
            return false;
        }
        let (code, exchanges) = (op.code().op_code(), op.code().mnemonic() == Mnemonic::Xchg);
        if !op.has(LOCK) && !exchanges {
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

    /// The instruction that asserted a bus lock completed: an exit follows.
    pub(crate) fn bus_locked(&mut self) {
        self.vmx.bus_lock = true;
        self.attention |= attention::EVENT;
    }
}
