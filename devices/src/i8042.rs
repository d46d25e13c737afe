//! The 8042 keyboard controller with an AT keyboard, and port 0x92 (IBM PS/2 hardware interface technical reference,
//! keyboard and auxiliary device controller).
//!
//! Regions: 0 is port 0x60 (data), 1 is port 0x64 (status and command), 2 is port 0x92 (A20 and fast reset).
//!
//! There is no auxiliary device: its interface test fails, which is how drivers find out.

use crate::device::{Device, Region};
use crate::ports::PinBox;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Bytes that the keyboard holds back while nobody reads.
const KEYBOARD_BUFFER: usize = 16;

/// Status register.
mod status {
    pub const OUTPUT_FULL: u8 = 0x01;
    pub const SYSTEM: u8 = 0x04;
    pub const COMMAND: u8 = 0x08;
    pub const UNLOCKED: u8 = 0x10;
    pub const AUXILIARY: u8 = 0x20;
    pub const TIMEOUT: u8 = 0x40;
}

/// Controller command byte (RAM byte 0).
mod command_byte {
    pub const KEYBOARD_INTERRUPT: u8 = 0x01;
    pub const AUXILIARY_INTERRUPT: u8 = 0x02;
    pub const SYSTEM: u8 = 0x04;
    pub const KEYBOARD_DISABLED: u8 = 0x10;
    pub const AUXILIARY_DISABLED: u8 = 0x20;
    pub const TRANSLATE: u8 = 0x40;
}

/// Scan code set 2 to set 1, for codes 0 to 0x7f; the others but 0x83 and 0x84 pass unchanged.
const TRANSLATION: [u8; 128] = [
    0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59, //
    0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b, //
    0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d, //
    0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f, //
    0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61, //
    0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76, //
    0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f, //
    0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54,
];

/// Where the byte in the output buffer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// The controller itself or the keyboard.
    Keyboard,
    /// The auxiliary interface.
    Auxiliary,
    /// The auxiliary interface, for a device that did not answer.
    Timeout,
}

/// Saved state of [`I8042`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // The fields are those of the runtime type.
pub struct I8042State {
    pub ram: Vec<u8>,
    pub pending_command: Option<u8>,
    pub last_was_command: bool,
    pub output: Option<(u8, Source)>,
    pub last_output: u8,
    pub replies: Vec<(u8, Source)>,
    pub a20: bool,
    pub levels: u8,
    pub keyboard: Vec<u8>,
    pub keyboard_command: Option<u8>,
    pub scanning: bool,
    pub last_sent: u8,
    pub break_prefix: bool,
}

/// The wires of the controller.
pub struct I8042Pins {
    /// IRQ 1.
    pub keyboard: PinBox,
    /// IRQ 12.
    pub auxiliary: PinBox,
    /// A20 of the processors: high lets the address bit through.
    pub a20: PinBox,
    /// Reset of the machine: a pulse.
    pub reset: PinBox,
}

/// Controller and keyboard.
pub struct I8042 {
    /// Controller RAM; byte 0 is the command byte.
    ram: [u8; 32],
    /// A command that waits for its data byte at port 0x60.
    pending_command: Option<u8>,
    last_was_command: bool,
    /// The output buffer.
    output: Option<(u8, Source)>,
    /// What port 0x60 reads when the buffer is empty.
    last_output: u8,
    /// Replies of the controller that wait for the output buffer.
    replies: VecDeque<(u8, Source)>,
    a20: bool,
    /// Levels of IRQ 1 (bit 0) and IRQ 12 (bit 1).
    levels: u8,
    /// Bytes that the keyboard wants to send.
    keyboard: VecDeque<u8>,
    /// A keyboard command that waits for its argument.
    keyboard_command: Option<u8>,
    scanning: bool,
    last_sent: u8,
    /// Translation has seen the prefix of a break code.
    break_prefix: bool,
    pins: I8042Pins,
}

impl I8042 {
    /// A controller after power-on. A20 is open, as firmware and direct boot both expect.
    pub fn new(pins: I8042Pins) -> Self {
        pins.a20.set(true);
        let mut ram = [0; 32];
        ram[0] = command_byte::KEYBOARD_INTERRUPT | command_byte::TRANSLATE | command_byte::AUXILIARY_DISABLED;
        Self {
            ram,
            pending_command: None,
            last_was_command: false,
            output: None,
            last_output: 0,
            replies: VecDeque::new(),
            a20: true,
            levels: 0,
            keyboard: VecDeque::new(),
            keyboard_command: None,
            scanning: true,
            last_sent: 0,
            break_prefix: false,
            pins,
        }
    }

    /// The keyboard sends `code`, a byte of scan code set 2 (0xF0 before a code releases the key); false when its buffer
    /// is full or scanning is off.
    pub fn key(&mut self, code: u8) -> bool {
        if !self.scanning || self.keyboard.len() >= KEYBOARD_BUFFER {
            return false;
        }
        self.keyboard.push_back(code);
        self.update();
        true
    }

    fn reply(&mut self, value: u8, source: Source) {
        // A guest that never reads cannot make the queue grow.
        if self.replies.len() < KEYBOARD_BUFFER {
            self.replies.push_back((value, source));
        }
    }

    fn translate(&mut self, code: u8) -> Option<u8> {
        if self.ram[0] & command_byte::TRANSLATE == 0 {
            return Some(code);
        }
        if code == 0xf0 {
            self.break_prefix = true;
            return None;
        }
        let translated = match code {
            0x83 => 0x41,
            0x84 => 0x54,
            _ => TRANSLATION.get(usize::from(code)).copied().unwrap_or(code),
        };
        Some(if core::mem::take(&mut self.break_prefix) { translated | 0x80 } else { translated })
    }

    /// Fills the output buffer if it is empty, and drives the interrupt lines.
    fn update(&mut self) {
        while self.output.is_none() {
            if let Some(reply) = self.replies.pop_front() {
                self.output = Some(reply);
            } else if self.ram[0] & command_byte::KEYBOARD_DISABLED == 0
                && let Some(code) = self.keyboard.pop_front()
            {
                self.output = self.translate(code).map(|code| (code, Source::Keyboard));
            } else {
                break;
            }
        }
        let keyboard =
            matches!(self.output, Some((_, Source::Keyboard))) && self.ram[0] & command_byte::KEYBOARD_INTERRUPT != 0;
        let auxiliary = matches!(self.output, Some((_, Source::Auxiliary | Source::Timeout)))
            && self.ram[0] & command_byte::AUXILIARY_INTERRUPT != 0;
        let levels = u8::from(keyboard) | u8::from(auxiliary) << 1;
        let changed = levels ^ core::mem::replace(&mut self.levels, levels);
        if changed & 1 != 0 {
            self.pins.keyboard.set(keyboard);
        }
        if changed & 2 != 0 {
            self.pins.auxiliary.set(auxiliary);
        }
    }

    fn read_data(&mut self) -> u8 {
        if let Some((value, _)) = self.output.take() {
            self.last_output = value;
            // The lines fall before the next byte raises them again.
            let levels = core::mem::take(&mut self.levels);
            if levels & 1 != 0 {
                self.pins.keyboard.set(false);
            }
            if levels & 2 != 0 {
                self.pins.auxiliary.set(false);
            }
        }
        self.update();
        self.last_output
    }

    fn status(&self) -> u8 {
        let output = match self.output {
            None => 0,
            Some((_, Source::Keyboard)) => status::OUTPUT_FULL,
            Some((_, Source::Auxiliary)) => status::OUTPUT_FULL | status::AUXILIARY,
            Some((_, Source::Timeout)) => status::OUTPUT_FULL | status::AUXILIARY | status::TIMEOUT,
        };
        let system = if self.ram[0] & command_byte::SYSTEM != 0 { status::SYSTEM } else { 0 };
        let command = if self.last_was_command { status::COMMAND } else { 0 };
        output | system | command | status::UNLOCKED
    }

    fn set_a20(&mut self, open: bool) {
        if open != self.a20 {
            self.a20 = open;
            self.pins.a20.set(open);
        }
    }

    fn pulse_reset(&self) {
        self.pins.reset.set(true);
        self.pins.reset.set(false);
    }

    /// The output port: reset (active low), A20, and the two interrupt lines.
    fn output_port(&self) -> u8 {
        0x01 | u8::from(self.a20) << 1 | self.levels << 4 | 0xc0
    }

    fn command(&mut self, value: u8) {
        self.last_was_command = true;
        self.pending_command = None;
        match value {
            0x20..=0x3f => self.reply(self.ram[usize::from(value - 0x20)], Source::Keyboard),
            0x60..=0x7f | 0xd1..=0xd4 => self.pending_command = Some(value),
            0xa7 => self.ram[0] |= command_byte::AUXILIARY_DISABLED,
            0xa8 => self.ram[0] &= !command_byte::AUXILIARY_DISABLED,
            // Auxiliary interface test: clock line stuck high, as with nothing plugged in.
            0xa9 => self.reply(0x02, Source::Keyboard),
            0xaa => {
                self.ram[0] |= command_byte::SYSTEM;
                self.reply(0x55, Source::Keyboard);
            }
            0xab => self.reply(0x00, Source::Keyboard),
            0xad => self.ram[0] |= command_byte::KEYBOARD_DISABLED,
            0xae => self.ram[0] &= !command_byte::KEYBOARD_DISABLED,
            // Input port: not locked, manufacturing jumper open.
            0xc0 => self.reply(0xa0, Source::Keyboard),
            0xd0 => self.reply(self.output_port(), Source::Keyboard),
            0xdd | 0xdf => self.set_a20(value == 0xdf),
            0xe0 => self.reply(0x00, Source::Keyboard),
            // Pulse low the output port lines whose bit is zero: bit 0 is reset.
            0xf0..=0xff if value & 1 == 0 => self.pulse_reset(),
            _ => {}
        }
        self.update();
    }

    fn write_data(&mut self, value: u8) {
        self.last_was_command = false;
        match self.pending_command.take() {
            None => {
                // Data for the keyboard enables its interface.
                self.ram[0] &= !command_byte::KEYBOARD_DISABLED;
                self.keyboard_write(value);
            }
            Some(command @ 0x60..=0x7f) => self.ram[usize::from(command - 0x60)] = value,
            Some(0xd1) => {
                self.set_a20(value & 2 != 0);
                if value & 1 == 0 {
                    self.pulse_reset();
                }
            }
            Some(0xd2) => self.reply(value, Source::Keyboard),
            // Without an auxiliary interface what was to be looped back there comes back here.
            Some(0xd3) => self.reply(value, Source::Keyboard),
            Some(_) => self.reply(0xfe, Source::Timeout),
        }
        self.update();
    }

    /// The keyboard answers; a full buffer loses the oldest.
    fn send(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.keyboard.len() >= KEYBOARD_BUFFER {
                self.keyboard.pop_front();
            }
            self.keyboard.push_back(byte);
            self.last_sent = byte;
        }
    }

    /// A byte from the controller to the keyboard.
    fn keyboard_write(&mut self, value: u8) {
        const ACKNOWLEDGE: u8 = 0xfa;
        const RESEND: u8 = 0xfe;
        // An argument is below 0xed; anything else is a new command.
        if let Some(command) = self.keyboard_command.take()
            && value < 0xed
        {
            match (command, value) {
                // Which scan code set: only set 2 exists.
                (0xf0, 0) => self.send(&[ACKNOWLEDGE, 2]),
                (0xf0, 2) | (0xed | 0xf3, _) => self.send(&[ACKNOWLEDGE]),
                _ => self.send(&[RESEND]),
            }
            return;
        }
        match value {
            0xed | 0xf0 | 0xf3 => {
                self.keyboard_command = Some(value);
                self.send(&[ACKNOWLEDGE]);
            }
            0xee => self.send(&[0xee]),
            0xf2 => self.send(&[ACKNOWLEDGE, 0xab, 0x83]),
            0xf4 => {
                self.scanning = true;
                self.send(&[ACKNOWLEDGE]);
            }
            // Default and disable, set default.
            0xf5 | 0xf6 => {
                self.keyboard.clear();
                self.scanning = value == 0xf6;
                self.send(&[ACKNOWLEDGE]);
            }
            0xfe => self.send(&[self.last_sent]),
            0xff => {
                self.keyboard.clear();
                self.break_prefix = false;
                self.scanning = true;
                self.send(&[ACKNOWLEDGE, 0xaa]);
            }
            _ => self.send(&[RESEND]),
        }
    }

    /// The state for a snapshot.
    pub fn save(&self) -> I8042State {
        let Self {
            ram,
            pending_command,
            last_was_command,
            output,
            last_output,
            replies,
            a20,
            levels,
            keyboard,
            keyboard_command,
            scanning,
            last_sent,
            break_prefix,
            pins: _,
        } = self;
        I8042State {
            ram: ram.to_vec(),
            pending_command: *pending_command,
            last_was_command: *last_was_command,
            output: *output,
            last_output: *last_output,
            replies: replies.iter().copied().collect(),
            a20: *a20,
            levels: *levels,
            keyboard: keyboard.iter().copied().collect(),
            keyboard_command: *keyboard_command,
            scanning: *scanning,
            last_sent: *last_sent,
            break_prefix: *break_prefix,
        }
    }

    /// Takes the state of a snapshot.
    pub fn restore(&mut self, state: &I8042State) {
        let I8042State {
            ram,
            pending_command,
            last_was_command,
            output,
            last_output,
            replies,
            a20,
            levels,
            keyboard,
            keyboard_command,
            scanning,
            last_sent,
            break_prefix,
        } = state;
        for (byte, saved) in self.ram.iter_mut().zip(ram) {
            *byte = *saved;
        }
        self.pending_command = *pending_command;
        self.last_was_command = *last_was_command;
        self.output = *output;
        self.last_output = *last_output;
        self.replies = replies.iter().copied().collect();
        self.a20 = *a20;
        self.levels = *levels;
        self.keyboard = keyboard.iter().copied().collect();
        self.keyboard_command = *keyboard_command;
        self.scanning = *scanning;
        self.last_sent = *last_sent;
        self.break_prefix = *break_prefix;
    }
}

impl Device for I8042 {
    fn read(&mut self, region: Region, _offset: u64, size: u8) -> u64 {
        let value = match region {
            0 => self.read_data(),
            1 => self.status(),
            2 => u8::from(self.a20) << 1,
            _ => 0xff,
        };
        let rest = if size >= 8 { u64::MAX } else { (1 << (8 * u32::from(size))) - 1 };
        u64::from(value) | (rest & !0xff)
    }

    fn write(&mut self, region: Region, _offset: u64, _size: u8, value: u64) {
        let value = value as u8;
        match region {
            0 => self.write_data(value),
            1 => self.command(value),
            2 => {
                self.set_a20(value & 2 != 0);
                if value & 1 != 0 {
                    self.pulse_reset();
                }
            }
            _ => {}
        }
    }

    fn reset(&mut self) {
        self.ram = [0; 32];
        self.ram[0] = command_byte::KEYBOARD_INTERRUPT | command_byte::TRANSLATE | command_byte::AUXILIARY_DISABLED;
        self.pending_command = None;
        self.last_was_command = false;
        self.output = None;
        self.last_output = 0;
        self.replies.clear();
        self.keyboard.clear();
        self.keyboard_command = None;
        self.scanning = true;
        self.last_sent = 0;
        self.break_prefix = false;
        self.set_a20(true);
        self.update();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::RecordingPin;
    use alloc::boxed::Box;

    #[derive(Clone, Default)]
    struct Pins {
        keyboard: RecordingPin,
        a20: RecordingPin,
        reset: RecordingPin,
    }

    fn controller() -> (I8042, Pins) {
        let pins = Pins::default();
        let boxed = I8042Pins {
            keyboard: Box::new(pins.keyboard.clone()),
            auxiliary: Box::new(RecordingPin::new()),
            a20: Box::new(pins.a20.clone()),
            reset: Box::new(pins.reset.clone()),
        };
        (I8042::new(boxed), pins)
    }

    fn data(c: &mut I8042) -> Vec<u8> {
        let mut bytes = Vec::new();
        while c.read(1, 0, 1) & 1 != 0 {
            bytes.push(c.read(0, 0, 1) as u8);
        }
        bytes
    }

    #[test]
    fn self_test_answers_55_and_sets_the_system_flag() {
        let (mut c, _) = controller();
        c.write(1, 0, 1, 0xaa);
        assert_eq!(data(&mut c), [0x55]);
        assert_eq!(c.read(1, 0, 1) & 4, 4);
    }

    #[test]
    fn the_command_byte_is_written_and_read() {
        let (mut c, _) = controller();
        c.write(1, 0, 1, 0x60);
        c.write(0, 0, 1, 0x65);
        c.write(1, 0, 1, 0x20);
        assert_eq!(data(&mut c), [0x65]);
    }

    #[test]
    fn keyboard_reset_acknowledges_and_passes_its_test() {
        let (mut c, pins) = controller();
        c.write(0, 0, 1, 0xff);
        assert!(pins.keyboard.level());
        assert_eq!(data(&mut c), [0xfa, 0xaa]);
        assert!(!pins.keyboard.level());
        assert_eq!(pins.keyboard.take_rises(), 2);
    }

    #[test]
    fn scan_codes_are_translated_to_set_1() {
        let (mut c, _) = controller();
        for code in [0x1c, 0xf0, 0x1c, 0xe0, 0x75] {
            assert!(c.key(code));
        }
        assert_eq!(data(&mut c), [0x1e, 0x9e, 0xe0, 0x48]);
        c.write(1, 0, 1, 0x60);
        c.write(0, 0, 1, 0x00);
        for code in [0xf0, 0x1c] {
            c.key(code);
        }
        assert_eq!(data(&mut c), [0xf0, 0x1c]);
    }

    #[test]
    fn a_disabled_keyboard_waits() {
        let (mut c, _) = controller();
        c.write(1, 0, 1, 0xad);
        c.key(0x1c);
        assert_eq!(data(&mut c), []);
        c.write(1, 0, 1, 0xae);
        assert_eq!(data(&mut c), [0x1e]);
        for _ in 0..KEYBOARD_BUFFER + 1 {
            c.key(0x1c);
        }
        assert!(!c.key(0x1c));
    }

    #[test]
    fn keyboard_commands_with_arguments() {
        let (mut c, _) = controller();
        for byte in [0xed, 0x07, 0xf3, 0x20, 0xf0, 0x00, 0xf2, 0xee, 0x12] {
            c.write(0, 0, 1, byte);
        }
        // The identification is translated, too: 0x83 reads as 0x41.
        assert_eq!(data(&mut c), [0xfa, 0xfa, 0xfa, 0xfa, 0xfa, 0xfa, 0x41, 0xfa, 0xab, 0x41, 0xee, 0xfe]);
    }

    #[test]
    fn a20_by_output_port_command_and_port_92() {
        let (mut c, pins) = controller();
        assert!(pins.a20.level());
        c.write(1, 0, 1, 0xd1);
        c.write(0, 0, 1, 0xdd);
        assert!(!pins.a20.level());
        assert_eq!(c.read(2, 0, 1), 0);
        c.write(1, 0, 1, 0xd0);
        assert_eq!(data(&mut c)[0] & 3, 1);
        c.write(2, 0, 1, 2);
        assert!(pins.a20.level());
        c.write(1, 0, 1, 0xdd);
        assert!(!pins.a20.level());
        c.write(1, 0, 1, 0xdf);
        assert!(pins.a20.level());
        assert_eq!(pins.reset.take_rises(), 0);
    }

    #[test]
    fn reset_by_pulse_output_port_and_port_92() {
        let (mut c, pins) = controller();
        c.write(1, 0, 1, 0xfe);
        assert_eq!(pins.reset.take_rises(), 1);
        c.write(1, 0, 1, 0xff);
        assert_eq!(pins.reset.take_rises(), 0);
        c.write(1, 0, 1, 0xd1);
        c.write(0, 0, 1, 0x02);
        assert_eq!(pins.reset.take_rises(), 1);
        c.write(2, 0, 1, 3);
        assert_eq!(pins.reset.take_rises(), 1);
    }

    #[test]
    fn no_auxiliary_device_is_found() {
        let (mut c, _) = controller();
        c.write(1, 0, 1, 0xd3);
        c.write(0, 0, 1, 0x5a);
        assert_eq!(c.read(1, 0, 1) & 0x21, 0x01);
        assert_eq!(data(&mut c), [0x5a]);
        c.write(1, 0, 1, 0xa9);
        assert_ne!(data(&mut c), [0]);
        c.write(1, 0, 1, 0xd4);
        c.write(0, 0, 1, 0xff);
        assert_eq!(c.read(1, 0, 1) & 0x61, 0x61);
    }

    #[test]
    fn state_goes_through_save_and_restore() {
        let (mut c, _) = controller();
        c.key(0xf0);
        c.key(0x1c);
        c.write(0, 0, 1, 0xf2);
        let state = c.save();
        let (mut other, _) = controller();
        other.restore(&state);
        assert_eq!(other.save(), state);
        assert_eq!(data(&mut other), [0x9e, 0xfa, 0xab, 0x41]);
    }
}
