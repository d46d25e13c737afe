//! The timer of a local APIC: one-shot and periodic, at 1 GHz before the divider. Nothing counts: the count follows from the time.

use crate::host::Nanoseconds;
use spec::apic::local_apic::{TimerMode, timer_divisor};

/// The timer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timer {
    initial: u32,
    divide: u32,
    periodic: bool,
    /// When the count comes to zero.
    expiry: Option<Nanoseconds>,
}

impl Timer {
    fn step(&self) -> u64 {
        timer_divisor(self.divide).into()
    }

    fn period(&self) -> u64 {
        u64::from(self.initial) * self.step()
    }

    /// The LVT entry was written.
    pub fn set_lvt(&mut self, lvt: u32, now: Nanoseconds) {
        self.periodic = TimerMode::of(lvt) == TimerMode::Periodic;
        if TimerMode::of(lvt) == TimerMode::TscDeadline || self.expiry.is_some_and(|expiry| expiry < now) {
            self.expiry = None;
        }
    }

    /// The initial count was written: the timer starts, or stops.
    pub fn set_initial(&mut self, value: u32, now: Nanoseconds) {
        self.initial = value;
        self.expiry = (value != 0).then(|| now + self.period());
    }

    /// The divider was written: the count goes on from where it is.
    pub fn set_divide(&mut self, value: u32, now: Nanoseconds) {
        let count = self.current(now);
        self.divide = value;
        self.expiry = self.expiry.map(|_| now + u64::from(count) * self.step());
    }

    /// The current count.
    #[must_use]
    pub fn current(&self, now: Nanoseconds) -> u32 {
        let left = self.expiry.map_or(0, |expiry| expiry.saturating_sub(now) / self.step());
        u32::try_from(left).unwrap_or(u32::MAX)
    }

    /// When the count comes to zero.
    #[must_use]
    pub fn deadline(&self) -> Option<Nanoseconds> {
        self.expiry
    }

    /// Lets it come to `now`; true when the count came to zero on the way.
    pub fn advance(&mut self, now: Nanoseconds) -> bool {
        let Some(expiry) = self.expiry.filter(|expiry| *expiry <= now) else { return false };
        let period = self.period();
        // Periods that nobody was there for merge into one.
        self.expiry = (self.periodic && period != 0).then(|| expiry + ((now - expiry) / period + 1) * period);
        true
    }
}
