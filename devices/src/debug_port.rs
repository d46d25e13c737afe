//! Debug output of firmware: the port that SeaBIOS and OVMF log to, and the POST code port.
//!
//! Regions: 0 is port 0x402 (answers 0xE9, by which firmware recognizes it; bytes written go to the host), 1 is port 0x80.

use crate::device::{Device, Region};
use crate::ports::Output;
use alloc::boxed::Box;
use serde::{Deserialize, Serialize};

/// What the log port reads: the mark of its presence.
const PRESENT: u64 = 0xe9;

/// Saved state of [`DebugPort`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DebugPortState {
    /// The last code written to port 0x80.
    pub post: u8,
}

/// Both ports.
pub struct DebugPort {
    /// The last code written to port 0x80.
    post: u8,
    output: Box<dyn Output>,
}

impl DebugPort {
    /// A log that goes to `output`.
    pub fn new(output: Box<dyn Output>) -> Self {
        Self { post: 0, output }
    }

    /// The last POST code.
    pub fn post(&self) -> u8 {
        self.post
    }

    /// The state for a snapshot.
    pub fn save(&self) -> DebugPortState {
        let Self { post, output: _ } = self;
        DebugPortState { post: *post }
    }

    /// Takes the state of a snapshot.
    pub fn restore(&mut self, state: &DebugPortState) {
        let DebugPortState { post } = state;
        self.post = *post;
    }
}

impl Device for DebugPort {
    fn read(&mut self, region: Region, _offset: u64, size: u8) -> u64 {
        match (region, size) {
            (0, _) => PRESENT,
            // Port 0x80 is write-only.
            (_, 1) => 0xff,
            (_, 2) => 0xffff,
            _ => 0xffff_ffff,
        }
    }

    fn write(&mut self, region: Region, _offset: u64, _size: u8, value: u64) {
        match region {
            0 => self.output.write(&[value as u8]),
            1 => self.post = value as u8,
            _ => {}
        }
    }

    fn reset(&mut self) {
        self.post = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::VecOutput;

    #[test]
    fn firmware_recognizes_the_log_and_writes_to_it() {
        let output = VecOutput::new();
        let mut port = DebugPort::new(Box::new(output.clone()));
        assert_eq!(port.read(0, 0, 1), 0xe9);
        for byte in b"Sea" {
            port.write(0, 0, 1, u64::from(*byte));
        }
        assert_eq!(output.take(), b"Sea");
    }

    #[test]
    fn the_post_code_is_kept() {
        let mut port = DebugPort::new(Box::new(VecOutput::new()));
        port.write(1, 0, 1, 0x5a);
        assert_eq!(port.post(), 0x5a);
        let mut other = DebugPort::new(Box::new(VecOutput::new()));
        other.restore(&port.save());
        assert_eq!(other.save(), port.save());
    }
}
