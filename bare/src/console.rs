//! The first serial port, and port E9H where Bochs has its console.

use crate::cpu::{input8, output8};
use core::fmt;

const PORT: u16 = 0x3f8;
const LINE_STATUS: u16 = PORT + 5;
const DATA_READY: u8 = 0x01;
const HOLDING_EMPTY: u8 = 0x20;
const TRANSMITTER_EMPTY: u8 = 0x40;
/// Reads of the line status before a byte is sent anyway: there may be no serial port.
const PATIENCE: u32 = 100_000;

/// Where `println!` writes.
#[derive(Debug)]
pub struct Console;

impl Console {
    /// 115200 bits per second, 8 data bits, no interrupts.
    pub fn set_up() {
        for (port, value) in [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 3), (2, 7), (4, 3)] {
            output8(PORT + port, value);
        }
    }

    /// Lets the serial port interrupt when something has been received.
    pub fn interrupt_on_input() {
        output8(PORT + 1, 1);
        // OUT2 opens the way to the interrupt controller.
        output8(PORT + 4, 0xb);
    }

    /// The next byte that the serial port has received.
    #[must_use]
    pub fn read() -> Option<u8> {
        let status = input8(LINE_STATUS);
        // All ones: there is no port.
        (status != 0xff && status & DATA_READY != 0).then(|| input8(PORT))
    }

    fn wait(flag: u8) {
        let _ = (0..PATIENCE).find(|_| input8(LINE_STATUS) & flag != 0);
    }

    /// Waits until the last byte is on the line.
    pub fn finish() {
        Console::wait(TRANSMITTER_EMPTY);
    }

    /// Sends a byte.
    pub fn byte(byte: u8) {
        Console::wait(HOLDING_EMPTY);
        output8(PORT, byte);
        output8(0xe9, byte);
    }
}

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(Console::byte);
        Ok(())
    }
}

/// Prints a line on the console.
#[macro_export]
macro_rules! println {
    ($($argument:tt)*) => {{
        use core::fmt::Write as _;
        let _ = writeln!($crate::console::Console, $($argument)*);
    }};
}
