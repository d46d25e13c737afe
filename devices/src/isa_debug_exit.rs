//! `isa-debug-exit`: a port by which a test ends the run (QEMU's device of that name).
//!
//! Region 0: the port, 0xF4 by custom. A write of `v` ends the run with exit status `(v << 1) | 1`, so a test never looks
//! like a normal end.

use crate::device::{Device, Region};
use crate::ports::{Power, PowerRequest};
use alloc::boxed::Box;

/// The port where test suites expect the device.
pub const DEFAULT_PORT: u16 = 0xf4;

/// The device. It has no state.
pub struct IsaDebugExit {
    power: Box<dyn Power>,
}

impl IsaDebugExit {
    /// A device that reports to `power`.
    pub fn new(power: Box<dyn Power>) -> Self {
        Self { power }
    }
}

impl Device for IsaDebugExit {
    fn read(&mut self, _region: Region, _offset: u64, _size: u8) -> u64 {
        0
    }

    fn write(&mut self, _region: Region, _offset: u64, _size: u8, value: u64) {
        self.power.request(PowerRequest::Exit((value as u32) << 1 | 1));
    }

    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::RecordingPower;

    #[test]
    fn the_status_is_twice_the_value_plus_one() {
        let power = RecordingPower::new();
        let mut device = IsaDebugExit::new(Box::new(power.clone()));
        assert_eq!(device.read(0, 0, 1), 0);
        device.write(0, 0, 4, 0);
        device.write(0, 0, 4, 0xffff_ffff);
        assert_eq!(power.take(), [PowerRequest::Exit(1), PowerRequest::Exit(u32::MAX)]);
    }
}
