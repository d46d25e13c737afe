//! A 16550A serial port (PC16550D data sheet, National Semiconductor).
//!
//! Region 0: 8 ports (0x3F8 for COM1).
//!
//! The transmitter takes no time: a byte written leaves at once and the transmitter is empty again. Received bytes wait
//! at the host until there is room, so only loopback can overrun. The interrupt is not gated by OUT2, as on the boards
//! that stock systems are tested on.

use crate::device::{Device, Region};
use crate::ports::{Clock, Nanoseconds, Output, PinBox};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use serde::{Deserialize, Serialize};

/// Depth of the receiver FIFO.
const FIFO_DEPTH: usize = 16;

/// Interrupt enable register.
mod ier {
    pub const RECEIVED: u8 = 1;
    pub const THR_EMPTY: u8 = 2;
    pub const LINE_STATUS: u8 = 4;
    pub const MODEM_STATUS: u8 = 8;
}

/// Interrupt identification register.
mod iir {
    pub const NONE: u8 = 0x01;
    pub const MODEM_STATUS: u8 = 0x00;
    pub const THR_EMPTY: u8 = 0x02;
    pub const RECEIVED: u8 = 0x04;
    pub const LINE_STATUS: u8 = 0x06;
    pub const TIMEOUT: u8 = 0x0c;
    pub const FIFOS: u8 = 0xc0;
}

/// Line status register.
mod lsr {
    pub const DATA_READY: u8 = 0x01;
    pub const OVERRUN: u8 = 0x02;
    pub const BREAK: u8 = 0x10;
    /// Overrun, parity, framing, break.
    pub const ERRORS: u8 = 0x1e;
    /// Holding register and shift register empty: always, as transmission takes no time.
    pub const TRANSMITTER_EMPTY: u8 = 0x60;
}

/// Modem control register.
mod mcr {
    pub const DTR: u8 = 0x01;
    pub const RTS: u8 = 0x02;
    pub const OUT1: u8 = 0x04;
    pub const OUT2: u8 = 0x08;
    pub const LOOPBACK: u8 = 0x10;
}

/// Modem status register.
mod msr {
    pub const RING_WENT_OFF: u8 = 0x04;
    pub const DELTAS: u8 = 0x0f;
    pub const CTS: u8 = 0x10;
    pub const DSR: u8 = 0x20;
    pub const RI: u8 = 0x40;
    pub const DCD: u8 = 0x80;
    /// The host side is a terminal that is always there.
    pub const CONNECTED: u8 = CTS | DSR | DCD;
}

/// Saved state of [`Serial`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // The fields are those of the runtime type.
pub struct SerialState {
    pub divisor: u16,
    pub ier: u8,
    pub lcr: u8,
    pub mcr: u8,
    pub msr: u8,
    pub scratch: u8,
    pub fcr: u8,
    pub errors: u8,
    pub fifo: alloc::vec::Vec<(u8, u8)>,
    pub last: u8,
    pub thr_empty_pending: bool,
    pub timeout_at: Option<Nanoseconds>,
    pub timed_out: bool,
    pub output_level: bool,
}

/// A 16550A serial port.
pub struct Serial {
    divisor: u16,
    ier: u8,
    lcr: u8,
    mcr: u8,
    /// Modem status with its delta bits.
    msr: u8,
    scratch: u8,
    /// FIFO control: bit 0 and the trigger level in bits 7:6.
    fcr: u8,
    /// Error bits of LSR that stand.
    errors: u8,
    /// Received bytes, each with the error bits that it brings to LSR when it becomes the oldest.
    fifo: VecDeque<(u8, u8)>,
    /// What the receiver buffer reads when it is empty: the last byte received.
    last: u8,
    thr_empty_pending: bool,
    /// When bytes below the trigger level have waited for four character times.
    timeout_at: Option<Nanoseconds>,
    timed_out: bool,
    output_level: bool,
    interrupt: PinBox,
    output: Box<dyn Output>,
    clock: Box<dyn Clock>,
}

impl Serial {
    /// A port after reset; `interrupt` is its IRQ line, transmitted bytes go to `output`.
    pub fn new(interrupt: PinBox, output: Box<dyn Output>, clock: Box<dyn Clock>) -> Self {
        Self {
            divisor: 12,
            ier: 0,
            lcr: 0,
            mcr: 0,
            msr: msr::CONNECTED,
            scratch: 0,
            fcr: 0,
            errors: 0,
            fifo: VecDeque::with_capacity(FIFO_DEPTH),
            last: 0,
            thr_empty_pending: false,
            timeout_at: None,
            timed_out: false,
            output_level: false,
            interrupt,
            output,
            clock,
        }
    }

    fn capacity(&self) -> usize {
        if self.fcr & 1 != 0 { FIFO_DEPTH } else { 1 }
    }

    /// How many bytes [`Self::receive`] takes now.
    pub fn room(&self) -> usize {
        if self.mcr & mcr::LOOPBACK != 0 { 0 } else { self.capacity().saturating_sub(self.fifo.len()) }
    }

    /// Bytes arriving from the host; gives how many were taken. The host offers the rest again when there is room.
    pub fn receive(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.room());
        for &byte in &bytes[..count] {
            self.push(byte, 0);
        }
        self.update();
        count
    }

    /// A break condition arriving from the host (the SysRq key of a Linux console); false if there was no room.
    pub fn receive_break(&mut self) -> bool {
        if self.room() == 0 {
            return false;
        }
        self.push(0, lsr::BREAK);
        self.update();
        true
    }

    fn push(&mut self, byte: u8, errors: u8) {
        if self.fifo.len() >= self.capacity() {
            self.errors |= lsr::OVERRUN;
            if self.fcr & 1 == 0 {
                // Without FIFOs the new byte replaces the unread one.
                self.fifo.clear();
            } else {
                return;
            }
        }
        if self.fifo.is_empty() {
            self.errors |= errors;
        }
        self.fifo.push_back((byte, errors));
        self.restart_timeout();
    }

    /// The FIFO timeout counts from the last byte received or read (data sheet 8.4.1).
    fn restart_timeout(&mut self) {
        self.timed_out = false;
        self.timeout_at = (self.fcr & 1 != 0 && !self.fifo.is_empty())
            .then(|| self.clock.now().saturating_add(self.characters_time(4)));
        self.clock.set_alarm(self.timeout_at);
    }

    /// Duration of `count` characters: start, data, parity and stop bits at 115200 / divisor baud.
    fn characters_time(&self, count: u64) -> Nanoseconds {
        let data = 5 + u64::from(self.lcr & 3);
        let bits = 1 + data + u64::from(self.lcr >> 3 & 1) + 1 + u64::from(self.lcr >> 2 & 1);
        count * bits * u64::from(self.divisor.max(1)) * 1_000_000_000 / 115_200
    }

    fn trigger(&self) -> usize {
        if self.fcr & 1 == 0 { 1 } else { [1, 4, 8, 14][usize::from(self.fcr >> 6)] }
    }

    /// The interrupt of highest priority that is enabled and pending.
    fn identify(&self) -> u8 {
        if self.ier & ier::LINE_STATUS != 0 && self.errors != 0 {
            iir::LINE_STATUS
        } else if self.ier & ier::RECEIVED != 0 && self.fifo.len() >= self.trigger() {
            iir::RECEIVED
        } else if self.ier & ier::RECEIVED != 0 && self.timed_out && !self.fifo.is_empty() {
            iir::TIMEOUT
        } else if self.ier & ier::THR_EMPTY != 0 && self.thr_empty_pending {
            iir::THR_EMPTY
        } else if self.ier & ier::MODEM_STATUS != 0 && self.msr & msr::DELTAS != 0 {
            iir::MODEM_STATUS
        } else {
            iir::NONE
        }
    }

    fn update(&mut self) {
        let level = self.identify() != iir::NONE;
        if level != self.output_level {
            self.output_level = level;
            self.interrupt.set(level);
        }
    }

    fn transmit(&mut self, byte: u8) {
        if self.mcr & mcr::LOOPBACK != 0 {
            self.push(byte, 0);
        } else {
            self.output.write(&[byte]);
        }
        self.thr_empty_pending = true;
    }

    fn write_fcr(&mut self, value: u8) {
        let toggled = (self.fcr ^ value) & 1 != 0;
        let enabled = value & 1 != 0;
        // The other bits are only taken while bit 0 is one.
        self.fcr = if enabled { value & 0xc1 } else { 0 };
        if toggled || (enabled && value & 2 != 0) {
            self.fifo.clear();
            self.errors &= !(lsr::ERRORS & !lsr::OVERRUN);
        }
        self.restart_timeout();
    }

    fn write_mcr(&mut self, value: u8) {
        self.mcr = value & 0x1f;
        let inputs = if self.mcr & mcr::LOOPBACK == 0 {
            msr::CONNECTED
        } else {
            [(mcr::RTS, msr::CTS), (mcr::DTR, msr::DSR), (mcr::OUT1, msr::RI), (mcr::OUT2, msr::DCD)]
                .iter()
                .filter(|(output, _)| self.mcr & output != 0)
                .fold(0, |inputs, (_, input)| inputs | input)
        };
        let changed = (self.msr ^ inputs) >> 4;
        // The ring indicator reports only its trailing edge.
        let deltas = (changed & !msr::RING_WENT_OFF) | (changed & (self.msr >> 4) & msr::RING_WENT_OFF);
        self.msr = inputs | (self.msr & msr::DELTAS) | deltas;
    }

    fn read_register(&mut self, offset: u64) -> u8 {
        let divisor = self.lcr & 0x80 != 0;
        match offset {
            0 if divisor => self.divisor as u8,
            0 => {
                if let Some((byte, _)) = self.fifo.pop_front() {
                    self.last = byte;
                    if let Some((_, errors)) = self.fifo.front() {
                        self.errors |= errors;
                    }
                    self.restart_timeout();
                }
                self.last
            }
            1 if divisor => (self.divisor >> 8) as u8,
            1 => self.ier,
            2 => {
                let interrupt = self.identify();
                // Reading the register while it names this source is what clears it.
                if interrupt == iir::THR_EMPTY {
                    self.thr_empty_pending = false;
                }
                interrupt | if self.fcr & 1 != 0 { iir::FIFOS } else { 0 }
            }
            3 => self.lcr,
            4 => self.mcr,
            5 => {
                let ready = if self.fifo.is_empty() { 0 } else { lsr::DATA_READY };
                ready | lsr::TRANSMITTER_EMPTY | core::mem::take(&mut self.errors) | self.fifo_error()
            }
            6 => {
                let value = self.msr;
                self.msr &= !msr::DELTAS;
                value
            }
            7 => self.scratch,
            _ => 0xff,
        }
    }

    /// Bit 7 of LSR: a byte with an error waits in the FIFO.
    fn fifo_error(&self) -> u8 {
        if self.fcr & 1 != 0 && self.fifo.iter().any(|&(_, errors)| errors != 0) { 0x80 } else { 0 }
    }

    fn write_register(&mut self, offset: u64, value: u8) {
        let divisor = self.lcr & 0x80 != 0;
        match offset {
            0 if divisor => self.divisor = (self.divisor & 0xff00) | u16::from(value),
            0 => self.transmit(value),
            1 if divisor => self.divisor = (self.divisor & 0x00ff) | u16::from(value) << 8,
            1 => {
                // Enabling the interrupt while the holding register is empty makes it pending.
                if value & !self.ier & ier::THR_EMPTY != 0 {
                    self.thr_empty_pending = true;
                }
                self.ier = value & 0x0f;
            }
            2 => self.write_fcr(value),
            3 => self.lcr = value,
            4 => self.write_mcr(value),
            7 => self.scratch = value,
            _ => {}
        }
    }

    /// The state for a snapshot.
    pub fn save(&self) -> SerialState {
        let Self {
            divisor,
            ier,
            lcr,
            mcr,
            msr,
            scratch,
            fcr,
            errors,
            fifo,
            last,
            thr_empty_pending,
            timeout_at,
            timed_out,
            output_level,
            interrupt: _,
            output: _,
            clock: _,
        } = self;
        SerialState {
            divisor: *divisor,
            ier: *ier,
            lcr: *lcr,
            mcr: *mcr,
            msr: *msr,
            scratch: *scratch,
            fcr: *fcr,
            errors: *errors,
            fifo: fifo.iter().copied().collect(),
            last: *last,
            thr_empty_pending: *thr_empty_pending,
            timeout_at: *timeout_at,
            timed_out: *timed_out,
            output_level: *output_level,
        }
    }

    /// Takes the state of a snapshot and asks for its alarm again.
    pub fn restore(&mut self, state: &SerialState) {
        let SerialState {
            divisor,
            ier,
            lcr,
            mcr,
            msr,
            scratch,
            fcr,
            errors,
            fifo,
            last,
            thr_empty_pending,
            timeout_at,
            timed_out,
            output_level,
        } = state;
        self.divisor = *divisor;
        self.ier = *ier;
        self.lcr = *lcr;
        self.mcr = *mcr;
        self.msr = *msr;
        self.scratch = *scratch;
        self.fcr = *fcr;
        self.errors = *errors;
        self.fifo = fifo.iter().copied().collect();
        self.last = *last;
        self.thr_empty_pending = *thr_empty_pending;
        self.timeout_at = *timeout_at;
        self.timed_out = *timed_out;
        self.output_level = *output_level;
        self.clock.set_alarm(*timeout_at);
    }
}

impl Device for Serial {
    fn read(&mut self, region: Region, offset: u64, size: u8) -> u64 {
        if region != 0 {
            return u64::MAX;
        }
        let mut value = 0;
        for byte in 0..u64::from(size) {
            value |= u64::from(self.read_register(offset.wrapping_add(byte))) << (8 * byte);
        }
        self.update();
        value
    }

    fn write(&mut self, region: Region, offset: u64, size: u8, value: u64) {
        if region != 0 {
            return;
        }
        for byte in 0..u64::from(size) {
            self.write_register(offset.wrapping_add(byte), (value >> (8 * byte)) as u8);
        }
        self.update();
    }

    fn alarm(&mut self, now: Nanoseconds) {
        if self.timeout_at.is_some_and(|deadline| now >= deadline) {
            self.timeout_at = None;
            self.timed_out = true;
            self.update();
        }
    }

    fn reset(&mut self) {
        // Master reset leaves the divisor, the scratch register and the receiver buffer alone (data sheet, table I).
        self.ier = 0;
        self.lcr = 0;
        self.fcr = 0;
        self.errors = 0;
        self.fifo.clear();
        self.thr_empty_pending = false;
        self.mcr = 0;
        self.msr = msr::CONNECTED;
        self.restart_timeout();
        self.update();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeClock, RecordingPin, VecOutput};

    struct Bench {
        uart: Serial,
        pin: RecordingPin,
        output: VecOutput,
        clock: FakeClock,
    }

    impl Bench {
        fn new() -> Self {
            let (pin, output, clock) = (RecordingPin::new(), VecOutput::new(), FakeClock::new());
            let uart = Serial::new(Box::new(pin.clone()), Box::new(output.clone()), Box::new(clock.clone()));
            Self { uart, pin, output, clock }
        }

        fn get(&mut self, offset: u64) -> u8 {
            self.uart.read(0, offset, 1) as u8
        }

        fn set(&mut self, offset: u64, value: u8) {
            self.uart.write(0, offset, 1, u64::from(value));
        }
    }

    #[test]
    fn transmits_at_once() {
        let mut b = Bench::new();
        b.set(0, b'A');
        assert_eq!(b.output.take(), b"A");
        assert_eq!(b.get(5), 0x60);
    }

    #[test]
    fn enabling_thre_makes_it_pending_and_reading_iir_clears_it() {
        let mut b = Bench::new();
        for _ in 0..2 {
            b.set(1, 2);
            assert!(b.pin.level());
            assert_eq!(b.get(2), 0x02);
            assert!(!b.pin.level());
            assert_eq!(b.get(2), 0x01);
            b.set(1, 0);
        }
        b.set(1, 2);
        b.get(2);
        b.set(0, b'x');
        assert!(b.pin.level());
    }

    #[test]
    fn iir_names_the_source_of_highest_priority() {
        let mut b = Bench::new();
        b.set(1, 0x0f);
        b.set(4, 0x10);
        b.set(0, 1);
        b.set(0, 2);
        assert_eq!(b.get(2), 0x06);
        assert_eq!(b.get(5), 0x63);
        assert_eq!(b.get(2), 0x04);
        assert_eq!(b.get(0), 2);
        assert_eq!(b.get(2), 0x02);
        assert_eq!(b.get(2), 0x00);
        b.get(6);
        assert_eq!(b.get(2), 0x01);
    }

    #[test]
    fn fifo_raises_at_the_trigger_level_and_after_four_characters() {
        let mut b = Bench::new();
        b.set(2, 0x41 | 6);
        b.set(1, 1);
        b.set(3, 3);
        assert_eq!(b.uart.receive(b"abc"), 3);
        assert!(!b.pin.level());
        assert_eq!(b.uart.receive(b"d"), 1);
        assert_eq!(b.get(2), 0xc4);
        b.get(0);
        assert!(!b.pin.level());
        // 4 characters of 10 bits at 9600 baud.
        let deadline = b.clock.deadline().unwrap();
        assert_eq!(deadline, 4 * 10 * 12 * 1_000_000_000 / 115_200);
        b.clock.run(&mut b.uart, deadline, 10);
        assert_eq!(b.get(2), 0xcc);
        b.get(0);
        assert!(!b.pin.level());
    }

    #[test]
    fn takes_no_more_than_there_is_room_for() {
        let mut b = Bench::new();
        assert_eq!(b.uart.receive(b"abc"), 1);
        assert_eq!(b.get(0), b'a');
        b.set(2, 1);
        assert_eq!(b.uart.receive(&[7; 40]), 16);
        assert_eq!(b.uart.room(), 0);
        assert_eq!(b.get(5) & 2, 0);
    }

    #[test]
    fn loopback_connects_modem_control_to_modem_status() {
        let mut b = Bench::new();
        b.set(4, 0x1a);
        assert_eq!(b.get(6) & 0xf0, 0x90);
        b.set(0, b'z');
        assert_eq!(b.output.take(), b"");
        assert_eq!(b.get(0), b'z');
        b.set(4, 0x0b);
        assert_eq!(b.get(6) & 0xf0, 0xb0);
    }

    #[test]
    fn ring_reports_only_its_trailing_edge() {
        let mut b = Bench::new();
        b.set(4, 0x1b);
        b.get(6);
        b.set(4, 0x1f);
        assert_eq!(b.get(6) & 0x0f, 0);
        b.set(4, 0x1b);
        assert_eq!(b.get(6) & 0x0f, 4);
    }

    #[test]
    fn divisor_latch_hides_data_and_ier() {
        let mut b = Bench::new();
        b.set(3, 0x80);
        b.set(0, 0x34);
        b.set(1, 0x12);
        assert_eq!((b.get(0), b.get(1)), (0x34, 0x12));
        b.set(3, 3);
        assert_eq!(b.get(1), 0);
        assert_eq!(b.output.take(), b"");
    }

    #[test]
    fn a_16550a_is_recognized_by_iir_and_has_no_enhanced_registers() {
        let mut b = Bench::new();
        b.set(1, 0xff);
        assert_eq!(b.get(1), 0x0f);
        b.set(1, 0);
        b.set(2, 1);
        assert_eq!(b.get(2), 0xc1);
        b.set(3, 0xbf);
        assert_ne!(b.get(2), 0);
        b.set(7, 0x5a);
        assert_eq!(b.get(7), 0x5a);
    }

    #[test]
    fn a_break_raises_line_status() {
        let mut b = Bench::new();
        b.set(2, 1);
        b.set(1, 4);
        assert!(b.uart.receive_break());
        assert_eq!(b.get(2), 0xc6);
        assert_eq!(b.get(5), 0xf1);
        assert_eq!(b.get(0), 0);
        assert_eq!(b.get(5), 0x60);
    }

    #[test]
    fn state_goes_through_save_and_restore() {
        let mut b = Bench::new();
        b.set(2, 0xc1);
        b.set(1, 1);
        b.uart.receive(b"ab");
        let state = b.uart.save();
        let mut c = Bench::new();
        c.uart.restore(&state);
        assert_eq!(c.uart.save(), state);
        assert_eq!(c.clock.deadline(), b.clock.deadline());
        assert_eq!(c.get(0), b'a');
    }
}
