//! The high precision event timers (IA-PC HPET specification 1.0a).
//!
//! Region 0: 1 KiB of memory. The main counter counts 10 ns steps (100 MHz) in 64 bits; three timers, all of them periodic
//! and 64 bits wide, with FSB (MSI) delivery.
//!
//! A timer's line is a wire of its own into the I/O APIC input that software chose; in legacy replacement timer 0 drives
//! IRQ 0 (I/O APIC input 2) and timer 1 IRQ 8 in place of the PIT and the RTC, which the board disconnects while
//! [`Hpet::legacy_replacement`] holds.

use crate::device::{Device, Region};
use crate::ports::{Clock, Msi, Nanoseconds, PinBox};
use alloc::boxed::Box;
use serde::{Deserialize, Serialize};

/// Number of timers.
pub const TIMERS: usize = 3;

/// Nanoseconds of one count.
pub const PERIOD: u64 = 10;

/// I/O APIC inputs that a timer may be routed to: 2, and 16 to 23.
pub const ROUTES: u32 = 0x00ff_0004;

/// General capabilities: 10^7 femtoseconds a count, vendor 8086, legacy replacement, 64-bit counter, three timers,
/// revision 1.
const CAPABILITIES: u64 = (PERIOD * 1_000_000) << 32 | 0x8086 << 16 | 1 << 15 | 1 << 13 | (TIMERS as u64 - 1) << 8 | 1;

/// General configuration.
mod config {
    pub const ENABLE: u64 = 1;
    pub const LEGACY: u64 = 2;
}

/// Timer configuration (specification 2.3.8).
mod timer {
    pub const LEVEL: u64 = 1 << 1;
    pub const INTERRUPT: u64 = 1 << 2;
    pub const PERIODIC: u64 = 1 << 3;
    pub const SET_ACCUMULATOR: u64 = 1 << 6;
    pub const FORCE_32: u64 = 1 << 8;
    pub const ROUTE_SHIFT: u32 = 9;
    pub const FSB: u64 = 1 << 14;
    /// Periodic capable, 64 bits, FSB capable; routes above.
    pub const CAPABILITIES: u64 = (super::ROUTES as u64) << 32 | 1 << 15 | 1 << 5 | 1 << 4;
    /// What software writes and reads back.
    pub const WRITABLE: u64 = LEVEL | INTERRUPT | PERIODIC | FORCE_32 | 0x1f << ROUTE_SHIFT | FSB;
}

/// Saved state of one timer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // The fields are those of the runtime type.
pub struct TimerState {
    pub config: u64,
    pub comparator: u64,
    pub period: u64,
    pub fsb: u64,
    pub set_accumulator: bool,
    pub armed: bool,
}

/// One timer.
#[derive(Debug, Default)]
struct Timer {
    config: u64,
    /// The count at which it fires next.
    comparator: u64,
    /// The period: what software wrote to the comparator last.
    period: u64,
    /// FSB route: value in the low half, address in the high half.
    fsb: u64,
    /// The next comparator write sets the accumulator of a periodic timer.
    set_accumulator: bool,
    /// Has not fired for this comparator value yet.
    armed: bool,
}

impl Timer {
    fn mask(&self) -> u64 {
        if self.config & timer::FORCE_32 != 0 { u64::from(u32::MAX) } else { u64::MAX }
    }

    fn is_periodic(&self) -> bool {
        self.config & timer::PERIODIC != 0
    }

    /// Counts from `counter` to the next match: 1 up to the full range. None when the timer has nothing to wait for.
    fn until_match(&self, counter: u64) -> Option<u64> {
        if !self.armed {
            return None;
        }
        let distance = self.comparator.wrapping_sub(counter) & self.mask();
        Some(if distance == 0 { self.mask() } else { distance })
    }
}

/// Saved state of [`Hpet`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // The fields are those of the runtime type.
pub struct HpetState {
    pub config: u64,
    pub status: u64,
    pub counter: u64,
    pub counted_at: u64,
    pub timers: [TimerState; TIMERS],
    pub levels: u32,
    pub legacy_levels: u8,
}

/// The event timer block.
pub struct Hpet {
    config: u64,
    /// Level-triggered timers that have fired.
    status: u64,
    /// The main counter at `counted_at`.
    counter: u64,
    /// The count of the clock (nanoseconds over ten) to which everything has been brought.
    counted_at: u64,
    timers: [Timer; TIMERS],
    /// Levels of the wires to the I/O APIC.
    levels: u32,
    /// Levels of IRQ 0 (bit 0) and IRQ 8 (bit 1).
    legacy_levels: u8,
    /// Wires to the I/O APIC's inputs, by input.
    lines: [Option<PinBox>; 24],
    /// Legacy replacement of IRQ 0 and IRQ 8.
    legacy: [PinBox; 2],
    msi: Box<dyn Msi>,
    clock: Box<dyn Clock>,
}

impl Hpet {
    /// A stopped block. `line` makes the wire to the I/O APIC input it is given, for each input of [`ROUTES`];
    /// `legacy` are the wires that stand in for the PIT's IRQ 0 and the RTC's IRQ 8.
    pub fn new(
        mut line: impl FnMut(u8) -> PinBox,
        legacy: [PinBox; 2],
        msi: Box<dyn Msi>,
        clock: Box<dyn Clock>,
    ) -> Self {
        let lines = core::array::from_fn(|input| (ROUTES >> input & 1 != 0).then(|| line(input as u8)));
        Self {
            config: 0,
            status: 0,
            counter: 0,
            counted_at: clock.now() / PERIOD,
            timers: Default::default(),
            levels: 0,
            legacy_levels: 0,
            lines,
            legacy,
            msi,
            clock,
        }
    }

    /// True while the PIT and the RTC are cut off from their interrupt lines.
    pub fn legacy_replacement(&self) -> bool {
        self.config & config::LEGACY != 0
    }

    fn enabled(&self) -> bool {
        self.config & config::ENABLE != 0
    }

    /// Moves the counter to `count` of the clock, firing what was passed on the way.
    fn catch_up(&mut self, count: u64) {
        let passed = count.saturating_sub(self.counted_at);
        self.counted_at = self.counted_at.max(count);
        if !self.enabled() || passed == 0 {
            return;
        }
        let before = self.counter;
        self.counter = before.wrapping_add(passed);
        for index in 0..TIMERS {
            let timer = &mut self.timers[index];
            let Some(distance) = timer.until_match(before).filter(|&distance| distance <= passed) else { continue };
            if timer.is_periodic() && timer.period != 0 {
                // Periods that were missed merge into one interrupt.
                let periods = (passed - distance) / timer.period + 1;
                timer.comparator = timer.comparator.wrapping_add(periods.wrapping_mul(timer.period)) & timer.mask();
            } else if timer.config & timer::FORCE_32 == 0 {
                // Comes round after 2^64 counts, thousands of years; a 32-bit timer fires each time the counter does.
                timer.armed = false;
            }
            self.fire(index);
        }
    }

    /// The I/O APIC input of timer `index`, unless it goes to a legacy line (`Err` with its number) or nowhere.
    fn route(&self, index: usize) -> Option<Result<usize, usize>> {
        if self.legacy_replacement() && index < 2 {
            return Some(Err(index));
        }
        let input = (self.timers[index].config >> timer::ROUTE_SHIFT & 0x1f) as usize;
        self.lines.get(input)?.as_ref()?;
        Some(Ok(input))
    }

    fn fire(&mut self, index: usize) {
        let timer = &self.timers[index];
        let level = timer.config & timer::LEVEL != 0;
        if level {
            self.status |= 1 << index;
        }
        if timer.config & timer::INTERRUPT == 0 {
            return;
        }
        if timer.config & timer::FSB != 0 {
            self.msi.send(timer.fsb >> 32, timer.fsb as u32);
        } else if level {
            self.drive();
        } else {
            // An edge: high and low again, unless a level holds the wire up.
            match self.route(index) {
                Some(Ok(input)) if self.levels >> input & 1 == 0 => {
                    if let Some(line) = &self.lines[input] {
                        line.set(true);
                        line.set(false);
                    }
                }
                Some(Err(irq)) if self.legacy_levels >> irq & 1 == 0 => {
                    self.legacy[irq].set(true);
                    self.legacy[irq].set(false);
                }
                _ => {}
            }
        }
    }

    /// Drives the wires of level-triggered timers.
    fn drive(&mut self) {
        let (mut levels, mut legacy_levels) = (0_u32, 0_u8);
        for (index, timer) in self.timers.iter().enumerate() {
            let wanted = timer.config & (timer::LEVEL | timer::INTERRUPT | timer::FSB);
            if wanted != timer::LEVEL | timer::INTERRUPT || self.status >> index & 1 == 0 {
                continue;
            }
            match self.route(index) {
                Some(Ok(input)) => levels |= 1 << input,
                Some(Err(irq)) => legacy_levels |= 1 << irq,
                None => {}
            }
        }
        let changed = levels ^ core::mem::replace(&mut self.levels, levels);
        for (input, line) in self.lines.iter().enumerate() {
            if let (1, Some(line)) = (changed >> input & 1, line) {
                line.set(levels >> input & 1 != 0);
            }
        }
        let changed = legacy_levels ^ core::mem::replace(&mut self.legacy_levels, legacy_levels);
        for (irq, line) in self.legacy.iter().enumerate() {
            if changed >> irq & 1 != 0 {
                line.set(legacy_levels >> irq & 1 != 0);
            }
        }
    }

    fn set_alarm(&self) {
        let next = if self.enabled() {
            self.timers
                .iter()
                .filter(|timer| timer.config & timer::INTERRUPT != 0)
                .filter_map(|timer| timer.until_match(self.counter))
                .min()
        } else {
            None
        };
        let deadline = next.and_then(|counts| self.counted_at.checked_add(counts)?.checked_mul(PERIOD));
        self.clock.set_alarm(deadline);
    }

    fn read_register(&self, offset: u64) -> u64 {
        match offset {
            0x000 => CAPABILITIES,
            0x010 => self.config,
            0x020 => self.status,
            0x0f0 => self.counter,
            0x100.. => {
                let Some(timer) = self.timers.get((offset as usize - 0x100) / 0x20) else { return 0 };
                match offset & 0x1f {
                    0x00 => timer::CAPABILITIES | timer.config,
                    0x08 => timer.comparator,
                    0x10 => timer.fsb,
                    _ => 0,
                }
            }
            _ => 0,
        }
    }

    /// Writes the bits of `mask` of the 64-bit register at `offset`.
    fn write_register(&mut self, offset: u64, value: u64, mask: u64) {
        let merge = |old: u64| (old & !mask) | (value & mask);
        match offset {
            0x010 => self.config = merge(self.config) & (config::ENABLE | config::LEGACY),
            0x020 => self.status &= !(value & mask),
            // Software may write the counter only while it is stopped (specification 2.3.7).
            0x0f0 if !self.enabled() => {
                self.counter = merge(self.counter);
                self.timers.iter_mut().for_each(|timer| timer.armed = true);
            }
            0x100.. => {
                let index = (offset as usize - 0x100) / 0x20;
                if let Some(timer) = self.timers.get_mut(index) {
                    match offset & 0x1f {
                        0x00 => {
                            let config = merge(timer.config);
                            self.write_config(index, config, mask);
                        }
                        0x08 => self.write_comparator(index, value, mask),
                        0x10 => timer.fsb = merge(timer.fsb),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        self.drive();
    }

    fn write_config(&mut self, index: usize, value: u64, mask: u64) {
        let timer = &mut self.timers[index];
        if mask & timer::SET_ACCUMULATOR != 0 {
            timer.set_accumulator = value & timer::SET_ACCUMULATOR != 0;
        }
        timer.config = value & timer::WRITABLE;
        if timer.config & timer::FORCE_32 != 0 {
            timer.comparator &= timer.mask();
            timer.period &= timer.mask();
        }
        if timer.config & timer::LEVEL == 0 {
            self.status &= !(1 << index);
        }
    }

    fn write_comparator(&mut self, index: usize, value: u64, mask: u64) {
        let timer = &mut self.timers[index];
        let merge = |old: u64| (old & !mask) | (value & mask);
        let periodic = timer.is_periodic();
        if !periodic || timer.set_accumulator {
            timer.comparator = merge(timer.comparator) & timer.mask();
            timer.armed = true;
        }
        if periodic {
            timer.period = merge(timer.period) & timer.mask();
            timer.armed = true;
        }
        // The bit clears itself (specification 2.3.8): each write that means the accumulator sets it anew.
        timer.set_accumulator = false;
    }

    /// The state for a snapshot.
    pub fn save(&self) -> HpetState {
        let Self {
            config,
            status,
            counter,
            counted_at,
            timers,
            levels,
            legacy_levels,
            lines: _,
            legacy: _,
            msi: _,
            clock: _,
        } = self;
        HpetState {
            config: *config,
            status: *status,
            counter: *counter,
            counted_at: *counted_at,
            timers: core::array::from_fn(|index| {
                let &Timer { config, comparator, period, fsb, set_accumulator, armed } = &timers[index];
                TimerState { config, comparator, period, fsb, set_accumulator, armed }
            }),
            levels: *levels,
            legacy_levels: *legacy_levels,
        }
    }

    /// Takes the state of a snapshot and asks for its alarm again.
    pub fn restore(&mut self, state: &HpetState) {
        let HpetState { config, status, counter, counted_at, timers, levels, legacy_levels } = state;
        self.config = *config;
        self.status = *status;
        self.counter = *counter;
        self.counted_at = *counted_at;
        self.timers = core::array::from_fn(|index| {
            let &TimerState { config, comparator, period, fsb, set_accumulator, armed } = &timers[index];
            Timer { config, comparator, period, fsb, set_accumulator, armed }
        });
        self.levels = *levels;
        self.legacy_levels = *legacy_levels;
        self.set_alarm();
    }
}

impl Device for Hpet {
    fn read(&mut self, region: Region, offset: u64, size: u8) -> u64 {
        if region != 0 || offset >= 0x400 {
            return 0;
        }
        self.catch_up(self.clock.now() / PERIOD);
        self.set_alarm();
        let value = self.read_register(offset & !7) >> (8 * (offset & 7));
        if size >= 8 { value } else { value & ((1 << (8 * u32::from(size))) - 1) }
    }

    fn write(&mut self, region: Region, offset: u64, size: u8, value: u64) {
        if region != 0 || offset >= 0x400 {
            return;
        }
        self.catch_up(self.clock.now() / PERIOD);
        let shift = 8 * (offset & 7);
        let mask = if size >= 8 { u64::MAX } else { (1 << (8 * u32::from(size))) - 1 };
        self.write_register(offset & !7, value << shift, mask << shift);
        self.set_alarm();
    }

    fn alarm(&mut self, now: Nanoseconds) {
        self.catch_up(now / PERIOD);
        self.set_alarm();
    }

    fn reset(&mut self) {
        self.catch_up(self.clock.now() / PERIOD);
        self.config = 0;
        self.status = 0;
        self.counter = 0;
        self.timers = Default::default();
        self.drive();
        self.set_alarm();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeClock, RecordingMsi, RecordingPin};
    use alloc::vec::Vec;

    struct Bench {
        hpet: Hpet,
        lines: Vec<RecordingPin>,
        legacy: [RecordingPin; 2],
        msi: RecordingMsi,
        clock: FakeClock,
    }

    impl Bench {
        fn new() -> Self {
            let lines: Vec<_> = (0..24).map(|_| RecordingPin::new()).collect();
            let legacy = [RecordingPin::new(), RecordingPin::new()];
            let (msi, clock) = (RecordingMsi::new(), FakeClock::new());
            let hpet = Hpet::new(
                |input| Box::new(lines[usize::from(input)].clone()),
                [Box::new(legacy[0].clone()), Box::new(legacy[1].clone())],
                Box::new(msi.clone()),
                Box::new(clock.clone()),
            );
            Self { hpet, lines, legacy, msi, clock }
        }

        fn get(&mut self, offset: u64) -> u64 {
            self.hpet.read(0, offset, 8)
        }

        fn set(&mut self, offset: u64, value: u64) {
            self.hpet.write(0, offset, 8, value);
        }

        fn at(&mut self, counts: u64) -> usize {
            self.clock.run(&mut self.hpet, counts * PERIOD, 1000)
        }
    }

    #[test]
    fn capabilities_tell_100_mhz_and_three_timers() {
        let mut b = Bench::new();
        assert_eq!(b.get(0), 0x0098_9680_8086_a201);
        assert_eq!(b.hpet.read(0, 4, 4), 10_000_000);
        assert_eq!(b.get(0x100), 0x00ff_0004_0000_8030);
        assert_eq!(b.get(0x160), 0);
    }

    #[test]
    fn the_counter_counts_while_enabled_and_is_written_while_stopped() {
        let mut b = Bench::new();
        b.at(10);
        assert_eq!(b.get(0xf0), 0);
        b.set(0xf0, 1000);
        b.set(0x10, 1);
        b.at(25);
        assert_eq!(b.get(0xf0), 1015);
        b.set(0xf0, 0);
        assert_eq!(b.get(0xf0), 1015);
        b.set(0x10, 0);
        b.at(100);
        assert_eq!(b.get(0xf0), 1015);
        b.hpet.write(0, 0xf4, 4, 7);
        assert_eq!(b.get(0xf0), 7 << 32 | 1015);
    }

    #[test]
    fn one_shot_makes_one_edge_on_its_route() {
        let mut b = Bench::new();
        b.set(0x140, 20 << 9 | timer::INTERRUPT);
        b.set(0x148, 50);
        b.set(0x10, 1);
        b.at(49);
        assert_eq!(b.lines[20].take_changes(), []);
        b.at(1000);
        assert_eq!(b.lines[20].take_changes(), [true, false]);
        assert_eq!(b.get(0x20), 0);
    }

    #[test]
    fn periodic_fires_each_period_after_the_accumulator_was_set() {
        let mut b = Bench::new();
        b.set(0x10, 1);
        b.set(0x100, 2 << 9 | timer::INTERRUPT | timer::PERIODIC | timer::SET_ACCUMULATOR);
        b.set(0x108, 30);
        b.set(0x108, 100);
        assert_eq!(b.at(29), 0);
        assert_eq!(b.at(30), 1);
        assert_eq!(b.at(530), 5);
        assert_eq!(b.lines[2].take_rises(), 6);
        assert_eq!(b.get(0x108), 630);
    }

    #[test]
    fn level_interrupt_stands_until_status_is_cleared() {
        let mut b = Bench::new();
        b.set(0x100, 16 << 9 | timer::INTERRUPT | timer::LEVEL);
        b.set(0x108, 10);
        b.set(0x10, 1);
        b.at(10);
        assert!(b.lines[16].level());
        assert_eq!(b.get(0x20), 1);
        b.set(0x20, 1);
        assert!(!b.lines[16].level());
    }

    #[test]
    fn legacy_replacement_drives_irq_0_and_8() {
        let mut b = Bench::new();
        for timer in [0x100, 0x120] {
            b.set(timer, 20 << 9 | timer::INTERRUPT);
            b.set(timer + 8, 10);
        }
        b.set(0x10, 3);
        assert!(b.hpet.legacy_replacement());
        b.at(20);
        assert_eq!(b.legacy[0].take_changes(), [true, false]);
        assert_eq!(b.legacy[1].take_changes(), [true, false]);
        assert_eq!(b.lines[20].take_changes(), []);
    }

    #[test]
    fn fsb_delivery_sends_the_message() {
        let mut b = Bench::new();
        b.set(0x120, timer::INTERRUPT | timer::FSB);
        b.set(0x130, 0xfee0_1000_0000_0041);
        b.set(0x128, 10);
        b.set(0x10, 1);
        b.at(20);
        assert_eq!(b.msi.take(), [(0xfee0_1000, 0x41)]);
    }

    #[test]
    fn a_32_bit_timer_matches_the_low_half() {
        let mut b = Bench::new();
        b.set(0xf0, 0x1_ffff_fff0);
        b.set(0x100, 2 << 9 | timer::INTERRUPT | timer::FORCE_32);
        b.set(0x108, 0x10);
        b.set(0x10, 1);
        assert_eq!(b.clock.deadline(), Some(0x20 * PERIOD));
        b.at(0x20);
        assert_eq!(b.lines[2].take_rises(), 1);
    }

    #[test]
    fn a_comparator_in_the_past_does_not_fire_at_once() {
        let mut b = Bench::new();
        b.set(0x10, 1);
        b.at(100);
        b.set(0x100, 2 << 9 | timer::INTERRUPT);
        b.set(0x108, 50);
        b.at(200);
        assert_eq!(b.lines[2].take_rises(), 0);
    }

    #[test]
    fn missed_periods_merge() {
        let mut b = Bench::new();
        b.set(0x10, 1);
        b.set(0x100, 2 << 9 | timer::INTERRUPT | timer::PERIODIC | timer::SET_ACCUMULATOR);
        b.set(0x108, 10);
        b.set(0x108, 10);
        b.clock.set(1005 * PERIOD);
        b.hpet.alarm(1005 * PERIOD);
        assert_eq!(b.lines[2].take_rises(), 1);
        assert_eq!(b.get(0x108), 1010);
    }

    #[test]
    fn state_goes_through_save_and_restore() {
        let mut b = Bench::new();
        b.set(0x100, 16 << 9 | timer::INTERRUPT | timer::LEVEL | timer::PERIODIC | timer::SET_ACCUMULATOR);
        b.set(0x108, 10);
        b.set(0x108, 100);
        b.set(0x10, 1);
        b.at(15);
        let state = b.hpet.save();
        let mut c = Bench::new();
        c.clock.set(150);
        c.hpet.restore(&state);
        assert_eq!(c.hpet.save(), state);
        assert_eq!(c.clock.deadline(), Some(110 * PERIOD));
    }
}
