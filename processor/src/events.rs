//! Between instructions: interrupts, NMI, INIT, SIPI, debug traps, timers, in the architecture's order (SDM Vol 3A, 6.9, table 6-2).

use crate::cpu::Cpu;
use crate::decode::cache::CodeCache;
use crate::run::{Activity, Boundary, RunExit, attention};

impl Cpu {
    /// The earliest virtual time at which this processor's own timers want attention.
    pub fn next_deadline(&self) -> u64 {
        u64::MAX
    }

    /// Time `now` is not before `next_deadline`: timers act. True when one did.
    pub(crate) fn deadline_reached(&mut self, now: u64) -> bool {
        let _ = now;
        false
    }

    /// Sees to everything in [`Cpu::attention`] but code and the bus.
    pub(crate) fn between_instructions(&mut self, code: &mut CodeCache) -> Boundary {
        self.attention &= !attention::EVENT;
        match self.activity {
            Activity::Active => {}
            Activity::Shutdown => return Boundary::Leave(RunExit::TripleFault),
            Activity::Halted | Activity::WaitForSipi => return Boundary::Leave(RunExit::Idle),
        }
        if self.attention & (attention::DEBUG | attention::SHADOW) != 0 {
            self.attention &= !attention::SHADOW;
            if let Some(exit) = self.step(code) {
                return Boundary::Leave(exit);
            }
            return Boundary::Again;
        }
        Boundary::Go
    }

    /// Raises an exception at the current RIP: VT-x may intercept it, else it is delivered through the IDT; a fault while delivering makes a
    /// double, then a triple fault.
    pub(crate) fn exception(&mut self, vector: u8, error: Option<u32>) {
        let _ = (vector, error);
        self.activity = Activity::Shutdown;
        self.attention |= attention::INACTIVE;
    }

    /// Makes the VM exit that the last instruction asked for.
    pub(crate) fn vm_exit_pending(&mut self) {}
}
