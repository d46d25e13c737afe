//! The VMX-preemption timer (SDM Vol. 3C, 26.5.1).
//!
//! Nothing counts: the value loaded by VM entry becomes a deadline in virtual time, and the value saved by VM exits is what is left to it.

use super::capabilities::PREEMPTION_TIMER_SHIFT;
use crate::cpu::Cpu;
use crate::models::frequency::TSC_TICKS_PER_NS;
use crate::run::Activity;
use spec::vmx::{ExitControls, PinBasedControls, VmcsField};

/// The timer's counts at virtual time `now`: the TSC (as it is without adjustments) divided by the rate.
const fn counts(now: u64) -> u64 {
    now.wrapping_mul(TSC_TICKS_PER_NS) >> PREEMPTION_TIMER_SHIFT
}

impl Cpu {
    /// VM entry: the timer starts with the value in the VMCS.
    pub(super) fn start_preemption_timer(&mut self) {
        self.vmx.timer_deadline = u64::MAX;
        if self.vmx.controls.pin.has(PinBasedControls::PREEMPTION_TIMER) {
            self.vmx.timer_deadline = counts(self.now()) + self.vmx.vmcs.get(VmcsField::PREEMPTION_TIMER);
        }
    }

    /// VM exit: what is left goes into the VMCS if "save VMX-preemption timer value" is 1.
    pub(super) fn save_preemption_timer(&mut self) {
        if self.vmx.controls.exit.has(ExitControls::SAVE_PREEMPTION_TIMER) {
            let left = self.vmx.timer_deadline.saturating_sub(counts(self.now()));
            self.vmx.vmcs.set(VmcsField::PREEMPTION_TIMER, left & 0xffff_ffff);
        }
    }

    /// Whether the timer has counted down to zero.
    pub(super) fn preemption_timer_expired(&self) -> bool {
        self.vmx.timer_deadline != u64::MAX && counts(self.now()) >= self.vmx.timer_deadline
    }

    /// The virtual time at which the timer expires; `u64::MAX` when it does not run, or waits for the end of the wait-for-SIPI state.
    pub(crate) fn vmx_deadline(&self) -> u64 {
        if self.vmx.timer_deadline == u64::MAX || self.activity == Activity::WaitForSipi {
            return u64::MAX;
        }
        (self.vmx.timer_deadline << PREEMPTION_TIMER_SHIFT).div_ceil(TSC_TICKS_PER_NS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_count_is_32_ticks_of_the_tsc() {
        assert_eq!(counts(15), 0);
        assert_eq!(counts(16), 1);
        assert_eq!(counts(1_000_000_000), 2_000_000_000 / 32);
    }
}
