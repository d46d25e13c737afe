//! `pc-testdev`: what kvm-unit-tests drives interrupt lines and accesses of all widths with (QEMU's device of that name).
//!
//! Regions: 0 is ports 0xE0-0xE3 (an echo register, any width), 1 is ports 0xE4-0xE7 (flush a page: nothing to do here,
//! nothing is held back), 2 is ports 0xE8-0xEB (the echo register byte by byte), 3 is ports 0x2000-0x2017 (level of each
//! interrupt line), 4 is 64 KiB of memory at 0xFF00_0000.

use crate::device::{Device, Region};
use crate::ports::PinBox;
use alloc::vec;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Number of interrupt lines.
pub const LINES: usize = 24;

/// Bytes of the memory window.
pub const MEMORY: usize = 0x1_0000;

/// Saved state of [`PcTestdev`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // The fields are those of the runtime type.
pub struct PcTestdevState {
    pub echo: u32,
    pub memory: Vec<u8>,
}

/// The device.
pub struct PcTestdev {
    echo: u32,
    memory: Vec<u8>,
    lines: [PinBox; LINES],
}

impl PcTestdev {
    /// A device whose interrupt lines are `line` of each number.
    pub fn new(mut line: impl FnMut(u8) -> PinBox) -> Self {
        Self { echo: 0, memory: vec![0; MEMORY], lines: core::array::from_fn(|index| line(index as u8)) }
    }

    /// Bits of the echo register that an access of `size` bytes at `offset` sees, and their position.
    fn echo_window(offset: u64, size: u8) -> (u32, u32) {
        let shift = 8 * (offset & 3) as u32;
        let width = if size >= 4 { u32::MAX } else { (1 << (8 * u32::from(size))) - 1 };
        (width, shift)
    }

    fn memory_window(&self, offset: u64, size: u8) -> Option<core::ops::Range<usize>> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(usize::from(size.min(8)))?;
        (end <= self.memory.len()).then_some(start..end)
    }

    /// The state for a snapshot.
    pub fn save(&self) -> PcTestdevState {
        let Self { echo, memory, lines: _ } = self;
        PcTestdevState { echo: *echo, memory: memory.clone() }
    }

    /// Takes the state of a snapshot.
    pub fn restore(&mut self, state: &PcTestdevState) {
        let PcTestdevState { echo, memory } = state;
        self.echo = *echo;
        self.memory.clone_from(memory);
        self.memory.resize(MEMORY, 0);
    }
}

impl Device for PcTestdev {
    fn read(&mut self, region: Region, offset: u64, size: u8) -> u64 {
        match region {
            0 | 2 => {
                let (width, shift) = Self::echo_window(offset, size);
                u64::from(self.echo >> shift & width)
            }
            4 => {
                let Some(window) = self.memory_window(offset, size) else { return 0 };
                let mut bytes = [0; 8];
                bytes[..window.len()].copy_from_slice(&self.memory[window]);
                u64::from_le_bytes(bytes)
            }
            _ => 0,
        }
    }

    fn write(&mut self, region: Region, offset: u64, size: u8, value: u64) {
        match region {
            0 | 2 => {
                let (width, shift) = Self::echo_window(offset, size);
                self.echo = (self.echo & !(width << shift)) | (value as u32 & width) << shift;
            }
            3 => {
                if let Some(line) = self.lines.get(offset as usize) {
                    line.set(value != 0);
                }
            }
            4 => {
                if let Some(window) = self.memory_window(offset, size) {
                    let length = window.len();
                    self.memory[window].copy_from_slice(&value.to_le_bytes()[..length]);
                }
            }
            _ => {}
        }
    }

    fn reset(&mut self) {
        self.echo = 0;
        self.memory.fill(0);
        for line in &self.lines {
            line.set(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::RecordingPin;
    use alloc::boxed::Box;

    fn testdev() -> (PcTestdev, Vec<RecordingPin>) {
        let pins: Vec<_> = (0..LINES).map(|_| RecordingPin::new()).collect();
        (PcTestdev::new(|line| Box::new(pins[usize::from(line)].clone())), pins)
    }

    #[test]
    fn the_echo_register_keeps_what_each_width_wrote() {
        let (mut device, _) = testdev();
        device.write(0, 0, 4, 0x1122_3344);
        device.write(0, 1, 1, 0xaa);
        device.write(0, 2, 2, 0xbbcc);
        assert_eq!(device.read(0, 0, 4), 0xbbcc_aa44);
        assert_eq!(device.read(2, 3, 1), 0xbb);
    }

    #[test]
    fn each_port_drives_its_interrupt_line() {
        let (mut device, pins) = testdev();
        device.write(3, 0x17, 1, 1);
        assert!(pins[23].level());
        device.write(3, 0x17, 1, 0);
        assert!(!pins[23].level());
    }

    #[test]
    fn memory_holds_accesses_of_all_widths_within_it() {
        let (mut device, _) = testdev();
        device.write(4, 0xfff8, 8, 0x0123_4567_89ab_cdef);
        assert_eq!(device.read(4, 0xfff9, 4), 0x6789_abcd);
        device.write(4, 0xffff, 2, 0x5555);
        assert_eq!(device.read(4, 0xffff, 2), 0);
        assert_eq!(device.read(4, 0xffff, 1), 0x01);
    }

    #[test]
    fn state_goes_through_save_and_restore() {
        let (mut device, _) = testdev();
        device.write(0, 0, 4, 7);
        device.write(4, 5, 1, 9);
        let (mut other, _) = testdev();
        other.restore(&device.save());
        assert_eq!(other.save(), device.save());
    }
}
