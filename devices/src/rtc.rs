//! The MC146818 real-time clock with its CMOS RAM (Motorola MC146818A data sheet; ICH9 data sheet, 13.6).
//!
//! Region 0: ports 0x70-0x73: index and data of the first 128 bytes, index and data of the second 128.
//!
//! The date is the start date given at construction plus virtual time. The ten time registers are bytes of the CMOS RAM;
//! they are brought up to date when somebody looks, or when an interrupt is due.

use crate::device::{Device, Region};
use crate::ports::{Clock, Nanoseconds, PinBox};
use alloc::boxed::Box;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Register numbers.
mod register {
    pub const SECONDS: usize = 0;
    pub const SECONDS_ALARM: usize = 1;
    pub const MINUTES: usize = 2;
    pub const MINUTES_ALARM: usize = 3;
    pub const HOURS: usize = 4;
    pub const HOURS_ALARM: usize = 5;
    pub const DAY_OF_WEEK: usize = 6;
    pub const DAY_OF_MONTH: usize = 7;
    pub const MONTH: usize = 8;
    pub const YEAR: usize = 9;
    pub const A: usize = 10;
    pub const B: usize = 11;
    pub const C: usize = 12;
    pub const D: usize = 13;
    pub const CENTURY: usize = 0x32;
}

/// Register A: update in progress.
const UIP: u8 = 0x80;
/// Register B.
mod b {
    pub const SET: u8 = 0x80;
    pub const PERIODIC: u8 = 0x40;
    pub const ALARM: u8 = 0x20;
    pub const UPDATE: u8 = 0x10;
    pub const BINARY: u8 = 0x04;
    pub const HOURS_24: u8 = 0x02;
}
/// Register C: the flags stand at the places of their enable bits.
const IRQF: u8 = 0x80;
/// Register D: valid RAM and time.
const VRT: u8 = 0x80;

const SECOND: u64 = 1_000_000_000;
/// UIP rises this long before the registers change (data sheet, t_BUC).
const UPDATE_WARNING: u64 = 244_140;
/// The time base of the periodic interrupt in Hz.
const BASE_FREQUENCY: u64 = 32_768;

/// 2026-01-01T00:00:00Z in seconds since 1970, the start date of a machine that is not told another.
pub const DEFAULT_START: i64 = 1_767_225_600;

/// A broken-down date and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Civil {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
}

impl Civil {
    /// Days since 1970-01-01 in the proleptic Gregorian calendar, counting years from March.
    fn days(&self) -> i64 {
        let year = self.year - i64::from(self.month <= 2);
        let day_of_year = (153 * ((self.month + 9) % 12) + 2) / 5 + self.day - 1;
        let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
        era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
    }

    fn seconds(&self) -> i64 {
        self.days() * 86_400 + self.hour * 3600 + self.minute * 60 + self.second
    }

    fn from_seconds(seconds: i64) -> Self {
        let (days, time) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let days = days + 719_468;
        let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        Self {
            year: era * 400 + year_of_era + i64::from(month <= 2),
            month,
            day: day_of_year - (153 * month_from_march + 2) / 5 + 1,
            hour: time / 3600,
            minute: time / 60 % 60,
            second: time % 60,
        }
    }
}

/// Saved state of [`Rtc`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // The fields are those of the runtime type.
pub struct RtcState {
    pub ram: Vec<u8>,
    pub index: u8,
    pub extended_index: u8,
    pub flags: u8,
    pub chain_start: Nanoseconds,
    pub seconds_done: u64,
    pub periods_done: u64,
    pub output_level: bool,
}

/// The clock and its RAM.
pub struct Rtc {
    /// Both halves of the CMOS RAM; the clock's registers are its first 14 bytes, except C.
    ram: [u8; 256],
    index: u8,
    extended_index: u8,
    /// Register C without IRQF.
    flags: u8,
    /// When the divider chain started; seconds pass at whole seconds from here.
    chain_start: Nanoseconds,
    /// Seconds since `chain_start` that the time registers have taken in.
    seconds_done: u64,
    /// Periods of the periodic interrupt since `chain_start` that the flag has taken in.
    periods_done: u64,
    output_level: bool,
    interrupt: PinBox,
    clock: Box<dyn Clock>,
}

impl Rtc {
    /// A clock that shows `start` (seconds since 1970-01-01T00:00:00Z, see [`DEFAULT_START`]) at the clock's present time;
    /// `interrupt` is IRQ 8.
    pub fn new(start: i64, interrupt: PinBox, clock: Box<dyn Clock>) -> Self {
        let mut rtc = Self {
            ram: [0; 256],
            index: 0,
            extended_index: 0,
            flags: 0,
            chain_start: clock.now(),
            seconds_done: 0,
            periods_done: 0,
            output_level: false,
            interrupt,
            clock,
        };
        rtc.ram[register::A] = 0x26;
        rtc.ram[register::B] = b::HOURS_24;
        rtc.ram[register::D] = VRT;
        rtc.set_time(start.clamp(-62_167_219_200, 253_402_300_799));
        rtc
    }

    /// Sets a byte of the CMOS RAM for the firmware (memory sizes, boot order). 0-13 are the clock's registers and are left alone.
    pub fn set_cmos(&mut self, index: u8, value: u8) {
        if usize::from(index) > register::D {
            self.ram[usize::from(index)] = value;
        }
    }

    /// A byte of the CMOS RAM as software would read it, without side effects.
    pub fn cmos(&self, index: u8) -> u8 {
        self.ram[usize::from(index)]
    }

    fn decode(&self, value: u8) -> i64 {
        if self.ram[register::B] & b::BINARY != 0 {
            i64::from(value)
        } else {
            i64::from(value >> 4) * 10 + i64::from(value & 0xf)
        }
    }

    fn encode(&self, value: i64) -> u8 {
        if self.ram[register::B] & b::BINARY != 0 {
            value as u8
        } else {
            (((value / 10 % 10) << 4) | (value % 10)) as u8
        }
    }

    fn decode_hour(&self, value: u8) -> i64 {
        if self.ram[register::B] & b::HOURS_24 != 0 {
            self.decode(value)
        } else {
            self.decode(value & 0x7f) % 12 + if value & 0x80 != 0 { 12 } else { 0 }
        }
    }

    fn encode_hour(&self, hour: i64) -> u8 {
        if self.ram[register::B] & b::HOURS_24 != 0 {
            self.encode(hour)
        } else {
            let afternoon = if hour >= 12 { 0x80 } else { 0 };
            self.encode((hour + 11) % 12 + 1) | afternoon
        }
    }

    /// The date in the registers; what software left out of range is brought into it.
    fn time(&self) -> i64 {
        let field = |index: usize| self.decode(self.ram[index]);
        Civil {
            year: field(register::CENTURY).min(99) * 100 + field(register::YEAR).min(99),
            month: field(register::MONTH).clamp(1, 12),
            day: field(register::DAY_OF_MONTH).clamp(1, 31),
            hour: self.decode_hour(self.ram[register::HOURS]).min(23),
            minute: field(register::MINUTES).min(59),
            second: field(register::SECONDS).min(59),
        }
        .seconds()
    }

    fn set_time(&mut self, seconds: i64) {
        let civil = Civil::from_seconds(seconds);
        self.ram[register::SECONDS] = self.encode(civil.second);
        self.ram[register::MINUTES] = self.encode(civil.minute);
        self.ram[register::HOURS] = self.encode_hour(civil.hour);
        // 1970-01-01 was a Thursday; Sunday is 1.
        self.ram[register::DAY_OF_WEEK] = self.encode((civil.days() + 4).rem_euclid(7) + 1);
        self.ram[register::DAY_OF_MONTH] = self.encode(civil.day);
        self.ram[register::MONTH] = self.encode(civil.month);
        self.ram[register::YEAR] = self.encode(civil.year.rem_euclid(100));
        self.ram[register::CENTURY] = self.encode(civil.year.div_euclid(100).rem_euclid(100));
    }

    /// True while the divider chain runs: with a 32.768 kHz crystal, divider bits 010.
    fn chain_runs(&self) -> bool {
        self.ram[register::A] & 0x70 == 0x20
    }

    fn updates(&self) -> bool {
        self.chain_runs() && self.ram[register::B] & b::SET == 0
    }

    /// Seconds from the time in the registers to the next one that matches the alarm, 1 to 86400; none if it never does.
    fn until_alarm(&self) -> Option<u64> {
        let wildcard = |index: usize| self.ram[index] & 0xc0 == 0xc0;
        let matches = |index: usize, value: i64| wildcard(index) || self.decode(self.ram[index]) == value;
        let hour_matches =
            |hour: i64| wildcard(register::HOURS_ALARM) || self.decode_hour(self.ram[register::HOURS_ALARM]) == hour;
        let now = self.time().rem_euclid(86_400);
        for hours in 0..=24 {
            let hour_start = (now / 3600 + hours) * 3600;
            if !hour_matches(hour_start / 3600 % 24) {
                continue;
            }
            for minute in 0..60 {
                let minute_start = hour_start + minute * 60;
                if minute_start + 59 <= now || !matches(register::MINUTES_ALARM, minute) {
                    continue;
                }
                let second =
                    (0..60).find(|&second| minute_start + second > now && matches(register::SECONDS_ALARM, second));
                if let Some(second) = second {
                    return u64::try_from(minute_start + second - now).ok();
                }
            }
        }
        None
    }

    /// Clocks of the time base between periodic interrupts; none when they are off (rate bits 0).
    fn period(&self) -> Option<u64> {
        match self.ram[register::A] & 0xf {
            0 => None,
            // The two fastest rates do not exist with this crystal and stand for slower ones.
            rate @ 1..3 => Some(1 << (rate + 6)),
            rate => Some(1 << (rate - 1)),
        }
    }

    fn base_clocks(&self, now: Nanoseconds) -> u64 {
        let passed = u128::from(now.saturating_sub(self.chain_start));
        (passed * u128::from(BASE_FREQUENCY) / u128::from(SECOND)) as u64
    }

    /// Takes registers and flags to `now`.
    fn catch_up(&mut self, now: Nanoseconds) {
        if !self.chain_runs() {
            return;
        }
        let seconds = now.saturating_sub(self.chain_start) / SECOND;
        let passed = seconds.saturating_sub(self.seconds_done);
        self.seconds_done = seconds;
        if passed > 0 && self.ram[register::B] & b::SET == 0 {
            if self.until_alarm().is_some_and(|due| due <= passed) {
                self.flags |= b::ALARM;
            }
            self.flags |= b::UPDATE;
            let time = self.time().saturating_add(passed as i64);
            self.set_time(time.rem_euclid(315_569_520_000));
        }
        if let Some(period) = self.period() {
            let periods = self.base_clocks(now) / period;
            if periods > self.periods_done {
                self.flags |= b::PERIODIC;
            }
            self.periods_done = periods;
        }
    }

    /// The flags that are enabled.
    fn pending(&self) -> u8 {
        self.flags & self.ram[register::B] & (b::PERIODIC | b::ALARM | b::UPDATE)
    }

    /// Drives the interrupt and asks for the alarm of the next one.
    fn update(&mut self) {
        let level = self.pending() != 0;
        if level != self.output_level {
            self.output_level = level;
            self.interrupt.set(level);
        }
        self.clock.set_alarm(if level { None } else { self.next_interrupt() });
    }

    fn next_interrupt(&self) -> Option<Nanoseconds> {
        if !self.chain_runs() {
            return None;
        }
        let enabled = self.ram[register::B];
        let mut next: Option<Nanoseconds> = None;
        let mut at = |time: u128| {
            if let Ok(time) = u64::try_from(time) {
                next = Some(next.map_or(time, |next| next.min(time)));
            }
        };
        let start = u128::from(self.chain_start);
        let second = |count: u64| start + u128::from(self.seconds_done + count) * u128::from(SECOND);
        if self.updates() && enabled & b::UPDATE != 0 {
            at(second(1));
        } else if self.updates()
            && enabled & b::ALARM != 0
            && let Some(due) = self.until_alarm()
        {
            at(second(due));
        }
        if enabled & b::PERIODIC != 0
            && let Some(period) = self.period()
        {
            let clocks = u128::from(self.periods_done + 1) * u128::from(period);
            at(start + (clocks * u128::from(SECOND)).div_ceil(u128::from(BASE_FREQUENCY)));
        }
        next
    }

    fn update_in_progress(&self, now: Nanoseconds) -> bool {
        self.updates() && now >= self.chain_start && (now - self.chain_start) % SECOND >= SECOND - UPDATE_WARNING
    }

    fn read_cmos(&mut self, index: usize, now: Nanoseconds) -> u8 {
        match index {
            register::A => self.ram[register::A] | if self.update_in_progress(now) { UIP } else { 0 },
            register::C => {
                let irqf = if self.pending() != 0 { IRQF } else { 0 };
                core::mem::take(&mut self.flags) | irqf
            }
            _ => self.ram[index],
        }
    }

    fn write_cmos(&mut self, index: usize, value: u8, now: Nanoseconds) {
        match index {
            register::A => {
                let ran = self.chain_runs();
                self.ram[register::A] = value & !UIP;
                if !ran && self.chain_runs() {
                    // The first update comes half a second after the divider is released (data sheet, register A).
                    self.chain_start = now;
                    self.seconds_done = 0;
                    if let Some(earlier) = now.checked_sub(SECOND / 2) {
                        self.chain_start = earlier;
                    }
                }
                self.periods_done = self.period().map_or(0, |period| self.base_clocks(now) / period);
            }
            register::B => {
                // SET clears the update interrupt enable (data sheet, register B).
                self.ram[register::B] = if value & b::SET != 0 { value & !b::UPDATE } else { value };
            }
            register::C | register::D => {}
            _ => self.ram[index] = value,
        }
    }

    /// The state for a snapshot.
    pub fn save(&self) -> RtcState {
        let Self {
            ram,
            index,
            extended_index,
            flags,
            chain_start,
            seconds_done,
            periods_done,
            output_level,
            interrupt: _,
            clock: _,
        } = self;
        RtcState {
            ram: ram.to_vec(),
            index: *index,
            extended_index: *extended_index,
            flags: *flags,
            chain_start: *chain_start,
            seconds_done: *seconds_done,
            periods_done: *periods_done,
            output_level: *output_level,
        }
    }

    /// Takes the state of a snapshot and asks for its alarm again. RAM beyond 256 bytes is ignored.
    pub fn restore(&mut self, state: &RtcState) {
        let RtcState { ram, index, extended_index, flags, chain_start, seconds_done, periods_done, output_level } =
            state;
        for (byte, saved) in self.ram.iter_mut().zip(ram) {
            *byte = *saved;
        }
        self.index = *index & 0x7f;
        self.extended_index = *extended_index & 0x7f;
        self.flags = *flags;
        self.chain_start = *chain_start;
        self.seconds_done = *seconds_done;
        self.periods_done = *periods_done;
        self.output_level = *output_level;
        self.clock.set_alarm(if self.output_level { None } else { self.next_interrupt() });
    }
}

impl Device for Rtc {
    fn read(&mut self, region: Region, offset: u64, size: u8) -> u64 {
        let now = self.clock.now();
        self.catch_up(now);
        let mut value = 0;
        for byte in 0..u64::from(size) {
            let register = match (region, offset.wrapping_add(byte)) {
                (0, 1) => self.read_cmos(usize::from(self.index), now),
                (0, 2) => self.extended_index,
                (0, 3) => self.ram[0x80 + usize::from(self.extended_index)],
                // The index register is write-only.
                _ => 0xff,
            };
            value |= u64::from(register) << (8 * byte);
        }
        self.update();
        value
    }

    fn write(&mut self, region: Region, offset: u64, size: u8, value: u64) {
        let now = self.clock.now();
        self.catch_up(now);
        for byte in 0..u64::from(size) {
            let register = (value >> (8 * byte)) as u8;
            match (region, offset.wrapping_add(byte)) {
                // Bit 7 masks NMI, of which this board has no source.
                (0, 0) => self.index = register & 0x7f,
                (0, 1) => self.write_cmos(usize::from(self.index), register, now),
                (0, 2) => self.extended_index = register & 0x7f,
                (0, 3) => self.ram[0x80 + usize::from(self.extended_index)] = register,
                _ => {}
            }
        }
        self.update();
    }

    fn alarm(&mut self, now: Nanoseconds) {
        self.catch_up(now);
        self.update();
    }

    fn reset(&mut self) {
        // The reset pin clears the interrupt enables and flags; time and RAM are kept by the battery.
        self.catch_up(self.clock.now());
        self.ram[register::B] &= !(b::PERIODIC | b::ALARM | b::UPDATE | 0x08);
        self.flags = 0;
        self.index = 0;
        self.extended_index = 0;
        self.update();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeClock, RecordingPin};

    struct Bench {
        rtc: Rtc,
        pin: RecordingPin,
        clock: FakeClock,
    }

    impl Bench {
        fn new() -> Self {
            let (pin, clock) = (RecordingPin::new(), FakeClock::new());
            let rtc = Rtc::new(DEFAULT_START, Box::new(pin.clone()), Box::new(clock.clone()));
            Self { rtc, pin, clock }
        }

        fn get(&mut self, index: u8) -> u8 {
            self.rtc.write(0, 0, 1, u64::from(index));
            self.rtc.read(0, 1, 1) as u8
        }

        fn set(&mut self, index: u8, value: u8) {
            self.rtc.write(0, 0, 1, u64::from(index));
            self.rtc.write(0, 1, 1, u64::from(value));
        }

        fn at(&mut self, time: Nanoseconds) {
            self.clock.run(&mut self.rtc, time, 10_000);
        }

        fn date(&mut self) -> [u8; 8] {
            [0x32, 9, 8, 7, 6, 4, 2, 0].map(|index| self.get(index))
        }
    }

    #[test]
    fn starts_on_new_year_2026_a_thursday_in_bcd() {
        let mut b = Bench::new();
        assert_eq!(b.date(), [0x20, 0x26, 1, 1, 5, 0, 0, 0]);
        assert_eq!(b.get(0x0d), 0x80);
    }

    #[test]
    fn time_passes_with_the_clock() {
        let mut b = Bench::new();
        b.at(59 * SECOND + SECOND - 1);
        assert_eq!(b.get(0), 0x59);
        b.at(60 * SECOND);
        assert_eq!((b.get(0), b.get(2)), (0, 1));
        b.at((31 * 86_400 + 13 * 3600) * SECOND);
        assert_eq!(b.date(), [0x20, 0x26, 2, 1, 1, 0x13, 0, 0]);
    }

    #[test]
    fn leap_days_and_centuries_are_those_of_the_gregorian_calendar() {
        for (seconds, year, month, day) in [
            (951_782_400, 2000, 2, 29),
            (4_107_542_400, 2100, 3, 1),
            (1_709_164_800, 2024, 2, 29),
            (-86_400, 1969, 12, 31),
        ] {
            let civil = Civil::from_seconds(seconds);
            assert_eq!((civil.year, civil.month, civil.day), (year, month, day));
            assert_eq!(civil.seconds(), seconds);
        }
    }

    #[test]
    fn binary_and_12_hour_formats() {
        let mut b = Bench::new();
        b.set(0x0b, 0x80);
        for (index, value) in [(4, 0x92), (2, 0x59), (0, 0x59)] {
            b.set(index, value);
        }
        b.set(0x0b, 0);
        b.at(SECOND);
        assert_eq!((b.get(4), b.get(2), b.get(0)), (0x81, 0, 0));
        b.at(SECOND * 3600 * 11);
        assert_eq!(b.get(4), 0x91);
        let mut b = Bench::new();
        b.set(0x0b, 0x86);
        for (index, value) in [(4, 23), (2, 59), (0, 59), (7, 31), (8, 12), (9, 99), (0x32, 20)] {
            b.set(index, value);
        }
        b.set(0x0b, 0x06);
        b.at(SECOND);
        assert_eq!([0x32, 9, 8, 7, 4].map(|index| b.get(index)), [21, 0, 1, 1, 0]);
    }

    #[test]
    fn set_stops_updates() {
        let mut b = Bench::new();
        b.set(0x0b, 0x82);
        b.at(10 * SECOND);
        assert_eq!(b.get(0), 0);
        b.set(0x0b, 0x02);
        b.at(11 * SECOND);
        assert_eq!(b.get(0), 1);
    }

    #[test]
    fn uip_warns_before_each_update() {
        let mut b = Bench::new();
        b.at(SECOND - UPDATE_WARNING - 1);
        assert_eq!(b.get(0x0a), 0x26);
        b.at(SECOND - UPDATE_WARNING);
        assert_eq!(b.get(0x0a), 0xa6);
        b.at(SECOND);
        assert_eq!(b.get(0x0a), 0x26);
    }

    #[test]
    fn update_interrupt_comes_each_second_and_c_clears_it() {
        let mut b = Bench::new();
        b.set(0x0b, 0x12);
        b.at(SECOND);
        assert!(b.pin.level());
        assert_eq!(b.get(0x0c), 0xd0);
        assert!(!b.pin.level());
        b.at(2 * SECOND - 1);
        assert!(!b.pin.level());
        b.at(2 * SECOND);
        assert!(b.pin.level());
    }

    #[test]
    fn periodic_interrupt_has_the_rate_of_register_a() {
        let mut b = Bench::new();
        b.set(0x0b, 0x42);
        let mut count = 0;
        while let Some(deadline) = b.clock.deadline().filter(|&deadline| deadline <= SECOND) {
            b.at(deadline);
            assert!(b.pin.level());
            assert_eq!(b.get(0x0c) & 0xc0, 0xc0);
            count += 1;
        }
        assert_eq!(count, 1024);
        b.set(0x0a, 0x2f);
        let now = b.clock.now();
        assert_eq!(b.clock.deadline(), Some(now + SECOND / 2));
    }

    #[test]
    fn alarm_matches_with_wildcards() {
        let mut b = Bench::new();
        for (index, value) in [(1, 0x30), (3, 0xff), (5, 0xff), (0x0b, 0x22)] {
            b.set(index, value);
        }
        assert_eq!(b.clock.deadline(), Some(30 * SECOND));
        b.at(30 * SECOND);
        assert_eq!(b.get(0x0c), 0xf0);
        assert_eq!(b.clock.deadline(), Some(90 * SECOND));
        for (index, value) in [(1, 0), (3, 0), (5, 0)] {
            b.set(index, value);
        }
        assert_eq!(b.clock.deadline(), Some(86_400 * SECOND));
        b.set(5, 0x25);
        assert_eq!(b.clock.deadline(), None);
    }

    #[test]
    fn flags_are_set_without_their_enables() {
        let mut b = Bench::new();
        b.at(SECOND);
        assert_eq!(b.get(0x0c), 0x50 | if b.rtc.ram[1] == 1 { 0x20 } else { 0 });
        assert!(!b.pin.level());
    }

    #[test]
    fn releasing_the_divider_updates_half_a_second_later() {
        let mut b = Bench::new();
        b.at(3 * SECOND);
        b.set(0x0a, 0x76);
        b.at(5 * SECOND);
        assert_eq!(b.get(0), 3);
        b.set(0x0a, 0x26);
        b.at(5 * SECOND + SECOND / 2 - 1);
        assert_eq!(b.get(0), 3);
        b.at(5 * SECOND + SECOND / 2);
        assert_eq!(b.get(0), 4);
    }

    #[test]
    fn both_banks_of_ram_hold_bytes() {
        let mut b = Bench::new();
        b.rtc.set_cmos(0x34, 0x12);
        b.rtc.set_cmos(0x5b, 0x99);
        assert_eq!((b.get(0x34), b.get(0x5b)), (0x12, 0x99));
        b.rtc.write(0, 2, 1, 0x7f);
        b.rtc.write(0, 3, 1, 0x42);
        assert_eq!(b.rtc.read(0, 3, 1), 0x42);
        assert_eq!(b.rtc.cmos(0xff), 0x42);
        assert_eq!(b.get(0x7f), 0);
    }

    #[test]
    fn garbage_in_the_time_registers_becomes_a_date() {
        let mut b = Bench::new();
        for index in 0..10 {
            b.set(index, 0xff);
        }
        b.set(0x32, 0xff);
        b.at(SECOND);
        assert!(b.get(8) <= 0x12);
    }

    #[test]
    fn state_goes_through_save_and_restore() {
        let mut b = Bench::new();
        b.set(0x0b, 0x72);
        b.at(SECOND / 3);
        let state = b.rtc.save();
        let mut c = Bench::new();
        c.clock.set(SECOND / 3);
        c.rtc.restore(&state);
        assert_eq!(c.rtc.save(), state);
        assert_eq!(c.clock.deadline(), b.clock.deadline());
    }
}
