//! The local APIC timer: one-shot, periodic and TSC-deadline (SDM vol. 3, 11.5.4).
//!
//! The timer is a function of time: nothing counts. It keeps the count at one moment and computes every other from it.

use crate::models::frequency::{CRYSTAL_PERIOD_NS, TSC_TICKS_PER_NS};
use serde::{Deserialize, Serialize};
use spec::apic::local_apic::{TimerMode, timer_divisor};

/// One moment, as the timer needs it: virtual time, and the processor's time-stamp counter at it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Virtual nanoseconds since power-on.
    pub nanoseconds: u64,
    /// IA32_TIME_STAMP_COUNTER, with whatever software added to it.
    pub tsc: u64,
}

/// The timer's registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Timer {
    /// Initial-count register.
    initial: u32,
    /// Divide configuration register.
    divide: u32,
    /// The count at `since`, when running.
    count: u32,
    /// Virtual time at which `count` stood.
    since: u64,
    /// IA32_TSC_DEADLINE; zero when disarmed.
    deadline: u64,
}

impl Timer {
    pub(super) const RESET: Self = Self { initial: 0, divide: 0, count: 0, since: 0, deadline: 0 };

    /// Nanoseconds for one step of the count.
    fn step(&self) -> u64 {
        CRYSTAL_PERIOD_NS * u64::from(timer_divisor(self.divide))
    }

    /// The moment the count reaches zero.
    fn expiry(&self) -> Option<u64> {
        (self.count != 0).then(|| self.since.saturating_add(u64::from(self.count) * self.step()))
    }

    pub(super) fn initial(&self) -> u32 {
        self.initial
    }

    pub(super) fn divide(&self) -> u32 {
        self.divide
    }

    /// Current-count register. The timer has been advanced to `at`.
    pub(super) fn current(&self, at: Moment) -> u32 {
        let elapsed = at.nanoseconds.saturating_sub(self.since) / self.step();
        self.count.saturating_sub(u32::try_from(elapsed).unwrap_or(u32::MAX))
    }

    pub(super) fn set_initial(&mut self, value: u32, at: Moment) {
        self.initial = value;
        self.count = value;
        self.since = at.nanoseconds;
    }

    pub(super) fn set_divide(&mut self, value: u32, at: Moment) {
        self.count = self.current(at);
        self.since = at.nanoseconds;
        self.divide = value & 0xb;
    }

    pub(super) fn deadline(&self) -> u64 {
        self.deadline
    }

    pub(super) fn set_deadline(&mut self, deadline: u64) {
        self.deadline = deadline;
    }

    /// A change of mode to or from TSC-deadline disarms the timer.
    pub(super) fn disarm(&mut self) {
        self.deadline = 0;
        self.count = 0;
    }

    /// Brings the timer to `at`; true when it expired on the way.
    pub(super) fn advance(&mut self, mode: TimerMode, at: Moment) -> bool {
        match mode {
            TimerMode::TscDeadline => {
                let fires = self.deadline != 0 && at.tsc >= self.deadline;
                if fires {
                    self.deadline = 0;
                }
                fires
            }
            TimerMode::OneShot | TimerMode::Periodic => {
                let Some(expiry) = self.expiry() else { return false };
                if expiry > at.nanoseconds {
                    return false;
                }
                if mode == TimerMode::OneShot || self.initial == 0 {
                    self.count = 0;
                } else {
                    let period = u64::from(self.initial) * self.step();
                    self.since = expiry + (at.nanoseconds - expiry) / period * period;
                    self.count = self.initial;
                }
                true
            }
            TimerMode::Reserved => false,
        }
    }

    /// The virtual time at which [`Timer::advance`] will next return true.
    pub(super) fn next(&self, mode: TimerMode, at: Moment) -> Option<u64> {
        match mode {
            TimerMode::TscDeadline => (self.deadline != 0).then(|| {
                let ticks = self.deadline.saturating_sub(at.tsc);
                at.nanoseconds.saturating_add(ticks.div_ceil(TSC_TICKS_PER_NS))
            }),
            TimerMode::OneShot | TimerMode::Periodic => self.expiry(),
            TimerMode::Reserved => None,
        }
    }
}
