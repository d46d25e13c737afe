//! The 8254 programmable interval timer (Intel 8254 data sheet, 231164) and port 0x61 (ICH9 data sheet, 13.7.1).
//!
//! Regions: 0 is ports 0x40-0x43, 1 is port 0x61. Channel 0 drives the IRQ 0 wire, channel 1 refreshes nothing (the
//! refresh bit of port 0x61 toggles all the same), channel 2 has its gate and its output at port 0x61.
//!
//! A channel keeps no running counter. It remembers the input clock at which its counting element was loaded; count and
//! output follow from the clocks that have passed since, so nothing drifts and nothing happens between accesses.

use crate::device::{Device, Region};
use crate::ports::{Clock, Nanoseconds, PinBox};
use alloc::boxed::Box;
use serde::{Deserialize, Serialize};

/// Frequency of the input clock in Hz.
pub const FREQUENCY: u64 = 1_193_182;

/// Input clocks between two toggles of the refresh bit (15 microseconds).
const REFRESH: u64 = 18;

/// The input clocks that have passed at `now`.
fn clocks_at(now: Nanoseconds) -> u64 {
    // u64 nanoseconds times 1.19 MHz over 10^9 fits in u64.
    (u128::from(now) * u128::from(FREQUENCY) / 1_000_000_000) as u64
}

/// The first time at which `clocks` input clocks have passed.
fn time_of(clocks: u64) -> Nanoseconds {
    let time = (u128::from(clocks) * 1_000_000_000).div_ceil(u128::from(FREQUENCY));
    u64::try_from(time).unwrap_or(u64::MAX)
}

/// Saved state of one channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // The fields are those of the runtime type.
pub struct ChannelState {
    pub control: u8,
    pub gate: bool,
    pub count: u32,
    pub start: Option<u64>,
    pub passed: u64,
    pub next_count: Option<u32>,
    pub write_low: Option<u8>,
    pub read_high: bool,
    pub latched_count: Option<u16>,
    pub latched_status: Option<u8>,
}

/// One channel.
#[derive(Debug)]
struct Channel {
    /// The control word: bits 5:4 access, 3:1 mode, 0 BCD.
    control: u8,
    gate: bool,
    /// The count in the counting element, 1 to 65536 (10000 in BCD); 0 when none has been written since the control word.
    count: u32,
    /// The input clock from which the counting element counts; none when it stands still.
    start: Option<u64>,
    /// Clocks counted before `start` (gate low in modes 0 and 4).
    passed: u64,
    /// Written, but not yet in the counting element: waiting for the end of the period (modes 2 and 3) or for the
    /// gate (modes 1 and 5).
    next_count: Option<u32>,
    /// First byte of a two-byte write.
    write_low: Option<u8>,
    /// The next read of a two-byte access is the high byte.
    read_high: bool,
    latched_count: Option<u16>,
    latched_status: Option<u8>,
}

impl Channel {
    fn new(gate: bool) -> Self {
        Self {
            // Undefined after power-on; this keeps the output low until software programs it.
            control: 0x30,
            gate,
            count: 0,
            start: None,
            passed: 0,
            next_count: None,
            write_low: None,
            read_high: false,
            latched_count: None,
            latched_status: None,
        }
    }

    /// Operating mode 0 to 5; 6 and 7 are 2 and 3.
    fn mode(&self) -> u8 {
        match self.control >> 1 & 7 {
            mode @ 6.. => mode - 4,
            mode => mode,
        }
    }

    fn access(&self) -> u8 {
        self.control >> 4 & 3
    }

    fn bcd(&self) -> bool {
        self.control & 1 != 0
    }

    /// Clocks counted at clock `at`, including the one that loads the counting element.
    fn elapsed(&self, at: u64) -> u64 {
        self.passed + self.start.map_or(0, |start| at.saturating_sub(start))
    }

    /// The period of modes 2 and 3. A count of 1 is illegal there; it behaves as 2.
    fn period(&self) -> u64 {
        u64::from(self.count.max(2))
    }

    /// Clocks that the output of mode 3 is high in each period.
    fn high_part(&self) -> u64 {
        self.period().div_ceil(2)
    }

    /// Brings a count that waits for the end of the period into the counting element.
    fn advance(&mut self, at: u64) {
        let (Some(next), Some(start)) = (self.next_count, self.start) else { return };
        let boundary = match self.mode() {
            2 => self.period(),
            3 if self.elapsed_at_write() % self.period() < self.high_part() => self.high_part(),
            3 => self.period(),
            _ => return,
        };
        let cycle = self.elapsed_at_write() / self.period() * self.period();
        let load = start + cycle + boundary - self.passed.min(cycle + boundary);
        if at < load {
            return;
        }
        // A new count at the end of the high half of a square wave goes on with a low half.
        let low_half = self.mode() == 3 && boundary != self.period();
        self.count = next;
        self.next_count = None;
        self.start = Some(load);
        self.passed = if low_half { self.high_part() } else { 0 };
    }

    /// Elapsed clocks when the waiting count was written: kept in `passed`, to which a write moves the start.
    fn elapsed_at_write(&self) -> u64 {
        self.passed
    }

    /// The level of the output at clock `at`.
    fn output(&self, at: u64) -> bool {
        let elapsed = self.elapsed(at);
        let counting = self.start.is_some() || self.passed > 0;
        match self.mode() {
            0 => self.count != 0 && counting && elapsed >= u64::from(self.count),
            1 => self.start.is_none() || self.before_start(at) || elapsed >= u64::from(self.count),
            2 => !self.gate || self.start.is_none() || elapsed % self.period() != self.period() - 1,
            3 => !self.gate || self.start.is_none() || elapsed % self.period() < self.high_part(),
            _ => !counting || elapsed != u64::from(self.count),
        }
    }

    fn before_start(&self, at: u64) -> bool {
        self.start.is_some_and(|start| at < start)
    }

    /// The next clock after `at` at which the output may change.
    fn next_change(&self, at: u64) -> Option<u64> {
        let start = self.start?;
        if at < start {
            return Some(start);
        }
        let elapsed = self.elapsed(at);
        let count = u64::from(self.count);
        let target = match self.mode() {
            0 | 1 => (elapsed < count).then_some(count),
            2 | 3 if !self.gate => None,
            2 => {
                let phase = elapsed % self.period();
                let low = self.period() - 1;
                Some(elapsed - phase + if phase < low { low } else { self.period() })
            }
            3 => {
                let phase = elapsed % self.period();
                Some(elapsed - phase + if phase < self.high_part() { self.high_part() } else { self.period() })
            }
            _ if elapsed < count => Some(count),
            _ => (elapsed == count).then_some(count + 1),
        };
        Some(start + (target? - self.passed))
    }

    /// The counting element as software reads it.
    fn current(&self, at: u64) -> u16 {
        let elapsed = self.elapsed(at);
        let modulus = if self.bcd() { 10_000 } else { 65_536 };
        let count = u64::from(self.count);
        let value = match self.mode() {
            2 => self.period() - elapsed % self.period(),
            3 => {
                // Decrements by two; an odd count gives its extra clock to the high half.
                let phase = elapsed % self.period();
                let even = self.period() & !1;
                if phase < self.high_part() { even - 2 * phase } else { even - 2 * (phase - self.high_part()) }
            }
            _ => (count + modulus - elapsed % modulus) % modulus,
        } % modulus;
        if self.bcd() { to_bcd(value as u32) } else { value as u16 }
    }

    fn write_control(&mut self, control: u8) {
        self.control = control & 0x3f;
        self.count = 0;
        self.start = None;
        self.passed = 0;
        self.next_count = None;
        self.write_low = None;
        self.read_high = false;
        self.latched_count = None;
        self.latched_status = None;
    }

    fn write(&mut self, value: u8, at: u64) {
        let raw = match (self.access(), self.write_low) {
            (1, _) => u16::from(value),
            (2, _) => u16::from(value) << 8,
            (_, None) => {
                self.write_low = Some(value);
                // In mode 0 the first byte stops the counting (data sheet, mode 0).
                if self.mode() == 0 {
                    self.start = None;
                    self.passed = 0;
                }
                return;
            }
            (_, Some(low)) => u16::from_le_bytes([low, value]),
        };
        self.write_low = None;
        let modulus = if self.bcd() { 10_000 } else { 65_536 };
        let count = match if self.bcd() { from_bcd(raw) } else { u32::from(raw) } {
            0 => modulus,
            count => count,
        };
        match self.mode() {
            0 | 4 => {
                self.count = count;
                self.passed = 0;
                self.start = self.gate.then_some(at + 1);
            }
            2 | 3 if self.count == 0 => {
                self.count = count;
                self.start = self.gate.then_some(at + 1);
            }
            2 | 3 => {
                self.next_count = Some(count);
                // Note where in the period this was: the count is taken at the end of it.
                if let Some(start) = self.start
                    && at >= start
                {
                    self.passed = self.elapsed(at) % self.period();
                    self.start = Some(at);
                }
            }
            _ if self.count == 0 => self.count = count,
            _ => self.next_count = Some(count),
        }
    }

    fn set_gate(&mut self, gate: bool, at: u64) {
        if gate == self.gate {
            return;
        }
        self.gate = gate;
        match self.mode() {
            0 | 4 if self.count != 0 && self.write_low.is_none() => {
                if gate {
                    self.start = Some(at + 1);
                } else {
                    self.passed = self.elapsed(at);
                    self.start = None;
                }
            }
            1 | 5 if gate && self.count != 0 => {
                self.count = self.next_count.take().unwrap_or(self.count);
                self.passed = 0;
                self.start = Some(at + 1);
            }
            2 | 3 if self.count != 0 => {
                if gate {
                    self.count = self.next_count.take().unwrap_or(self.count);
                    self.passed = 0;
                    self.start = Some(at + 1);
                } else {
                    // What is in the counting element stays for reading.
                    self.passed = self.elapsed(at) % self.period();
                    self.start = None;
                }
            }
            _ => {}
        }
    }

    /// The null count bit: what was written last is not in the counting element yet.
    fn null_count(&self, at: u64) -> bool {
        self.next_count.is_some() || self.count == 0 || self.start.is_none_or(|start| at < start) && self.passed == 0
    }

    fn latch_count(&mut self, at: u64) {
        if self.latched_count.is_none() {
            self.latched_count = Some(self.current(at));
            self.read_high = false;
        }
    }

    fn latch_status(&mut self, at: u64) {
        if self.latched_status.is_none() {
            let output = if self.output(at) { 0x80 } else { 0 };
            let null = if self.null_count(at) { 0x40 } else { 0 };
            self.latched_status = Some(self.control | output | null);
        }
    }

    fn read(&mut self, at: u64) -> u8 {
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let value = self.latched_count.unwrap_or_else(|| self.current(at));
        let high = match self.access() {
            1 => false,
            2 => true,
            _ => {
                self.read_high = !self.read_high;
                !self.read_high
            }
        };
        // The latch holds until all its bytes have been read.
        if high || self.access() == 1 {
            self.latched_count = None;
        }
        value.to_le_bytes()[usize::from(high)]
    }

    fn save(&self) -> ChannelState {
        let &Self {
            control,
            gate,
            count,
            start,
            passed,
            next_count,
            write_low,
            read_high,
            latched_count,
            latched_status,
        } = self;
        ChannelState {
            control,
            gate,
            count,
            start,
            passed,
            next_count,
            write_low,
            read_high,
            latched_count,
            latched_status,
        }
    }

    fn restore(state: &ChannelState) -> Self {
        let &ChannelState {
            control,
            gate,
            count,
            start,
            passed,
            next_count,
            write_low,
            read_high,
            latched_count,
            latched_status,
        } = state;
        Self { control, gate, count, start, passed, next_count, write_low, read_high, latched_count, latched_status }
    }
}

fn to_bcd(value: u32) -> u16 {
    (0..4).fold(0, |bcd, digit| bcd | (value / 10_u32.pow(digit) % 10) << (4 * digit)) as u16
}

/// Digits above 9 count as they stand, as in a decimal counter that is loaded with them.
fn from_bcd(bcd: u16) -> u32 {
    (0..4).map(|digit| u32::from(bcd >> (4 * digit) & 0xf) * 10_u32.pow(digit)).sum::<u32>().min(16_665)
}

/// Saved state of [`Pit`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // The fields are those of the runtime type.
pub struct PitState {
    pub channels: [ChannelState; 3],
    pub port61: u8,
    pub output_level: bool,
    pub alarm_at: Option<u64>,
}

/// The timer and port 0x61.
pub struct Pit {
    channels: [Channel; 3],
    /// Bits 3:0 of port 0x61: gate of channel 2, speaker, and two that have no effect.
    port61: u8,
    /// Level of the IRQ 0 wire.
    output_level: bool,
    /// Input clock of the alarm: where channel 0's output changes next.
    alarm_at: Option<u64>,
    interrupt: PinBox,
    clock: Box<dyn Clock>,
}

impl Pit {
    /// A timer whose channels have not been programmed; `interrupt` is channel 0's output.
    pub fn new(interrupt: PinBox, clock: Box<dyn Clock>) -> Self {
        Self {
            channels: [Channel::new(true), Channel::new(true), Channel::new(false)],
            port61: 0,
            output_level: false,
            alarm_at: None,
            interrupt,
            clock,
        }
    }

    fn now(&self) -> u64 {
        clocks_at(self.clock.now())
    }

    /// Takes everything to clock `at`; the wire shows the changes since the last call.
    fn update(&mut self, at: u64) {
        // Not more than one pulse of those that nobody looked at: an edge must not be lost, further ones merge.
        for _ in 0..2 {
            match self.alarm_at {
                Some(due) if due < at => {
                    self.channels[0].advance(due);
                    self.drive(due);
                    self.alarm_at = self.channels[0].next_change(due);
                }
                _ => break,
            }
        }
        for channel in &mut self.channels {
            channel.advance(at);
        }
        self.drive(at);
        self.alarm_at = self.channels[0].next_change(at);
        self.clock.set_alarm(self.alarm_at.map(time_of));
    }

    fn drive(&mut self, at: u64) {
        let level = self.channels[0].output(at);
        if level != self.output_level {
            self.output_level = level;
            self.interrupt.set(level);
        }
    }

    fn write_control(&mut self, value: u8, at: u64) {
        if value >> 6 == 3 {
            // Read-back: the bits that latch are active low.
            for (index, channel) in self.channels.iter_mut().enumerate() {
                if value & (2 << index) != 0 {
                    if value & 0x20 == 0 {
                        channel.latch_count(at);
                    }
                    if value & 0x10 == 0 {
                        channel.latch_status(at);
                    }
                }
            }
            return;
        }
        let channel = &mut self.channels[usize::from(value >> 6)];
        if value & 0x30 == 0 {
            channel.latch_count(at);
        } else {
            channel.write_control(value);
        }
    }

    fn read_port61(&self, at: u64) -> u8 {
        let refresh = if (at / REFRESH) & 1 != 0 { 0x10 } else { 0 };
        let output = if self.channels[2].output(at) { 0x20 } else { 0 };
        self.port61 | refresh | output
    }

    /// The state for a snapshot.
    pub fn save(&self) -> PitState {
        let Self { channels: [a, b, c], port61, output_level, alarm_at, interrupt: _, clock: _ } = self;
        PitState {
            channels: [a.save(), b.save(), c.save()],
            port61: *port61,
            output_level: *output_level,
            alarm_at: *alarm_at,
        }
    }

    /// Takes the state of a snapshot and asks for its alarm again.
    pub fn restore(&mut self, state: &PitState) {
        let PitState { channels: [a, b, c], port61, output_level, alarm_at } = state;
        self.channels = [Channel::restore(a), Channel::restore(b), Channel::restore(c)];
        self.port61 = *port61;
        self.output_level = *output_level;
        self.alarm_at = *alarm_at;
        self.clock.set_alarm(self.alarm_at.map(time_of));
    }
}

impl Device for Pit {
    fn read(&mut self, region: Region, offset: u64, size: u8) -> u64 {
        let at = self.now();
        self.update(at);
        let mut value = 0;
        for byte in 0..u64::from(size) {
            let register = match (region, offset.wrapping_add(byte)) {
                (0, index @ 0..3) => self.channels[index as usize].read(at),
                (0, 3) => 0,
                (1, 0) => self.read_port61(at),
                _ => 0xff,
            };
            value |= u64::from(register) << (8 * byte);
        }
        value
    }

    fn write(&mut self, region: Region, offset: u64, size: u8, value: u64) {
        let at = self.now();
        self.update(at);
        for byte in 0..u64::from(size) {
            let register = (value >> (8 * byte)) as u8;
            match (region, offset.wrapping_add(byte)) {
                (0, index @ 0..3) => self.channels[index as usize].write(register, at),
                (0, 3) => self.write_control(register, at),
                (1, 0) => {
                    self.port61 = register & 0x0f;
                    self.channels[2].set_gate(register & 1 != 0, at);
                }
                _ => {}
            }
        }
        self.alarm_at = None;
        self.update(at);
    }

    fn alarm(&mut self, now: Nanoseconds) {
        self.update(clocks_at(now));
    }

    fn reset(&mut self) {
        self.channels = [Channel::new(true), Channel::new(true), Channel::new(false)];
        self.port61 = 0;
        self.alarm_at = None;
        let at = self.now();
        self.update(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeClock, RecordingPin};

    struct Bench {
        pit: Pit,
        pin: RecordingPin,
        clock: FakeClock,
    }

    impl Bench {
        fn new() -> Self {
            let (pin, clock) = (RecordingPin::new(), FakeClock::new());
            let pit = Pit::new(Box::new(pin.clone()), Box::new(clock.clone()));
            Self { pit, pin, clock }
        }

        fn out(&mut self, port: u64, value: u8) {
            let (region, offset) = if port == 0x61 { (1, 0) } else { (0, port - 0x40) };
            self.pit.write(region, offset, 1, u64::from(value));
        }

        fn inb(&mut self, port: u64) -> u8 {
            let (region, offset) = if port == 0x61 { (1, 0) } else { (0, port - 0x40) };
            self.pit.read(region, offset, 1) as u8
        }

        fn program(&mut self, channel: u8, mode: u8, count: u16) {
            self.out(0x43, channel << 6 | 0x30 | mode << 1);
            self.out(0x40 + u64::from(channel), count as u8);
            self.out(0x40 + u64::from(channel), (count >> 8) as u8);
        }

        /// Moves to the input clock `clocks`, ringing alarms.
        fn at(&mut self, clocks: u64) {
            self.clock.run(&mut self.pit, time_of(clocks), 100_000);
        }

        fn count(&mut self, channel: u8) -> u16 {
            let low = self.inb(0x40 + u64::from(channel));
            let high = self.inb(0x40 + u64::from(channel));
            u16::from_le_bytes([low, high])
        }

        fn status(&mut self, channel: u8) -> u8 {
            self.out(0x43, 0xe0 | 2 << channel);
            self.inb(0x40 + u64::from(channel))
        }
    }

    #[test]
    fn clocks_and_times_are_inverse_without_drift() {
        for clocks in [0, 1, 2, 1_193_181, 1_193_182, 1_193_182 * 86_400 * 365] {
            assert_eq!(clocks_at(time_of(clocks)), clocks);
            assert!(clocks == 0 || clocks_at(time_of(clocks) - 1) == clocks - 1);
        }
        assert_eq!(time_of(FREQUENCY * 1000), 1_000_000_000_000);
    }

    #[test]
    fn mode_0_rises_count_plus_one_clocks_after_the_write() {
        let mut b = Bench::new();
        b.program(0, 0, 100);
        b.at(100);
        assert!(!b.pin.level());
        b.at(101);
        assert!(b.pin.level());
        assert_eq!(b.count(0), 0);
        b.at(103);
        assert_eq!(b.count(0), 0xfffe);
        b.at(1_000_000);
        assert_eq!(b.pin.take_rises(), 1);
        assert_eq!(b.clock.deadline(), None);
    }

    #[test]
    fn mode_0_first_byte_stops_counting() {
        let mut b = Bench::new();
        b.program(0, 0, 100);
        b.at(50);
        b.out(0x40, 10);
        b.at(500);
        assert!(!b.pin.level());
        b.out(0x40, 0);
        b.at(511);
        assert!(b.pin.level());
    }

    #[test]
    fn mode_0_gate_low_suspends_counting() {
        let mut b = Bench::new();
        b.out(0x61, 1);
        b.program(2, 0, 1000);
        b.at(401);
        b.out(0x61, 0);
        b.at(5000);
        assert_eq!(b.count(2), 600);
        assert_eq!(b.inb(0x61) & 0x20, 0);
        b.out(0x61, 1);
        b.at(5600);
        assert_eq!(b.inb(0x61) & 0x20, 0);
        b.at(5601);
        assert_eq!(b.inb(0x61) & 0x20, 0x20);
    }

    #[test]
    fn mode_1_is_a_retriggerable_one_shot() {
        let mut b = Bench::new();
        b.program(2, 1, 100);
        b.at(10);
        assert_eq!(b.inb(0x61) & 0x20, 0x20);
        b.out(0x61, 1);
        b.at(50);
        assert_eq!(b.inb(0x61) & 0x20, 0);
        b.out(0x61, 0);
        b.out(0x61, 1);
        b.at(150);
        assert_eq!(b.inb(0x61) & 0x20, 0);
        b.at(151);
        assert_eq!(b.inb(0x61) & 0x20, 0x20);
    }

    #[test]
    fn mode_2_is_low_for_the_last_clock_of_each_period() {
        let mut b = Bench::new();
        b.program(0, 2, 11_932);
        b.at(1_193_200);
        assert_eq!(b.pin.take_rises(), 1 + 99);
        b.at(1 + 11_932 * 200 - 2);
        assert!(b.pin.level());
        b.at(1 + 11_932 * 200 - 1);
        assert!(!b.pin.level());
        assert_eq!(b.count(0), 1);
        b.at(1 + 11_932 * 200);
        assert!(b.pin.level());
        assert_eq!(b.count(0), 11_932);
    }

    #[test]
    fn mode_2_takes_a_new_count_at_the_end_of_the_period() {
        let mut b = Bench::new();
        b.program(0, 2, 1000);
        b.at(501);
        b.out(0x40, 100);
        b.out(0x40, 0);
        assert_eq!(b.status(0) & 0x40, 0x40);
        assert_eq!(b.count(0), 500);
        b.at(1001);
        assert_eq!(b.status(0) & 0x40, 0);
        assert_eq!(b.count(0), 100);
        b.at(1101);
        assert_eq!(b.count(0), 100);
    }

    #[test]
    fn mode_3_is_high_for_the_longer_half_and_counts_by_two() {
        let mut b = Bench::new();
        b.program(0, 3, 5);
        b.at(1);
        b.pin.take_changes();
        let mut levels = alloc::vec::Vec::new();
        for clock in 1..11 {
            b.at(clock);
            levels.push(b.pin.level());
        }
        assert_eq!(levels, [true, true, true, false, false, true, true, true, false, false]);
        b.at(11);
        assert_eq!(b.count(0), 4);
        b.at(12);
        assert_eq!(b.count(0), 2);
    }

    #[test]
    fn mode_3_takes_a_new_count_at_the_end_of_the_half() {
        let mut b = Bench::new();
        b.program(0, 3, 1000);
        b.at(101);
        b.out(0x40, 20);
        b.out(0x40, 0);
        b.at(500);
        assert!(b.pin.level());
        b.at(501);
        assert!(!b.pin.level());
        b.at(510);
        assert!(!b.pin.level());
        b.at(511);
        assert!(b.pin.level());
        b.at(521);
        assert!(!b.pin.level());
    }

    #[test]
    fn mode_4_strobes_once() {
        let mut b = Bench::new();
        b.program(0, 4, 100);
        b.at(100);
        assert!(b.pin.level());
        b.at(101);
        assert!(!b.pin.level());
        b.at(102);
        assert!(b.pin.level());
        b.at(200_000);
        assert_eq!(b.pin.take_changes(), [true, false, true]);
    }

    #[test]
    fn mode_5_strobes_after_the_gate() {
        let mut b = Bench::new();
        b.program(2, 5, 10);
        b.at(100);
        b.out(0x61, 1);
        b.at(111);
        assert_eq!(b.inb(0x61) & 0x20, 0);
        b.at(112);
        assert_eq!(b.inb(0x61) & 0x20, 0x20);
    }

    #[test]
    fn a_latched_count_holds_until_read() {
        let mut b = Bench::new();
        b.program(0, 2, 0);
        b.at(1001);
        b.out(0x43, 0);
        b.at(2001);
        assert_eq!(b.count(0), (65_536_u32 - 1000) as u16);
        assert_eq!(b.count(0), (65_536_u32 - 2000) as u16);
    }

    #[test]
    fn read_back_gives_status_before_count() {
        let mut b = Bench::new();
        b.program(0, 2, 1000);
        b.at(101);
        b.out(0x43, 0xc2);
        assert_eq!(b.inb(0x40), 0x80 | 0x34);
        assert_eq!(b.count(0), 900);
    }

    #[test]
    fn bcd_counts_in_decimal() {
        let mut b = Bench::new();
        b.out(0x43, 0x35);
        b.out(0x40, 0x00);
        b.out(0x40, 0x10);
        b.at(2);
        assert_eq!(b.count(0), 0x0999);
        b.at(1001);
        assert_eq!(b.count(0), 0x1000);
    }

    #[test]
    fn single_byte_access_reads_and_writes_one_byte() {
        let mut b = Bench::new();
        b.out(0x43, 0x20 | 4);
        b.out(0x40, 0x12);
        b.at(1);
        assert_eq!(b.inb(0x40), 0x12);
        b.out(0x43, 0x10 | 4);
        b.out(0x40, 0x12);
        b.at(2);
        assert_eq!((b.inb(0x40), b.inb(0x40)), (0x12, 0x12));
    }

    #[test]
    fn the_refresh_bit_toggles_every_15_microseconds() {
        let mut b = Bench::new();
        assert_eq!(b.inb(0x61) & 0x10, 0);
        b.at(18);
        assert_eq!(b.inb(0x61) & 0x10, 0x10);
        b.at(36);
        assert_eq!(b.inb(0x61) & 0x10, 0);
    }

    #[test]
    fn a_late_alarm_still_makes_an_edge() {
        let mut b = Bench::new();
        b.program(0, 2, 1000);
        b.at(1);
        b.pin.take_changes();
        let late = time_of(10_500);
        b.clock.set(late);
        b.pit.alarm(late);
        assert_eq!(b.pin.take_changes(), [false, true]);
    }

    #[test]
    fn state_goes_through_save_and_restore() {
        let mut b = Bench::new();
        b.program(0, 2, 1000);
        b.program(2, 3, 77);
        b.at(345);
        b.out(0x43, 0);
        let state = b.pit.save();
        let mut c = Bench::new();
        c.clock.set(time_of(345));
        c.pit.restore(&state);
        assert_eq!(c.pit.save(), state);
        assert_eq!(c.clock.deadline(), b.clock.deadline());
        assert_eq!(c.count(0), 1000 - 344);
    }
}
