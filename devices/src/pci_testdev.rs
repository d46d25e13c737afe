//! `pci-testdev`: counts writes to its BARs (QEMU's `docs/specs/pci-testdev`).
//!
//! BAR 0 is 4 KiB of memory, BAR 1 is 256 ports. Each begins with a header: writing a test number to byte 0 starts that
//! test; the header then tells the access that the test wants (width, offset, data), counts the writes that match, and
//! names the test.

use crate::device::{Device, Region};
use crate::pci::config::{BarKind, ConfigSpace, Identity};
use crate::pci::core::{FunctionCore, FunctionCoreState, InterruptPorts};
use crate::pci::{PciFunction, Window, decode, encode};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Tests of each BAR, with the data that a write must have; none if any data counts.
const TESTS: [(&str, Option<u8>); 3] =
    [("no-eventfd", Some(MATCHING)), ("wildcard-eventfd", None), ("datamatch-eventfd", Some(MATCHING))];
const MATCHING: u8 = 0xfa;
const ANY: u8 = 0xce;

/// What distinguishes the two BARs: the prefix of test names, and where writes are counted.
const BARS: [(&str, u32); 2] = [("mmio-", 2048), ("portio-", 128)];

/// Header fields before the name.
const NAME: usize = 16;

/// A test that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// BAR 0 or 1.
    pub bar: u8,
    /// Index of the test.
    pub test: u8,
    /// Writes counted.
    pub count: u32,
}

impl Run {
    fn index(self) -> u32 {
        u32::from(self.bar) * TESTS.len() as u32 + u32::from(self.test)
    }

    fn offset(self) -> u32 {
        BARS[usize::from(self.bar)].1 + self.index()
    }

    fn header(self) -> Vec<u8> {
        let (name, data) = TESTS[usize::from(self.test)];
        let mut header = Vec::with_capacity(NAME + 32);
        header.extend([self.index() as u8, 1, 0, 0]);
        header.extend(self.offset().to_le_bytes());
        header.extend(u32::from(data.unwrap_or(ANY)).to_le_bytes());
        header.extend(self.count.to_le_bytes());
        header.extend(BARS[usize::from(self.bar)].0.bytes().chain(name.bytes()));
        header.push(0);
        header
    }
}

/// Saved state of [`PciTestdev`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PciTestdevState {
    /// Configuration space.
    pub core: FunctionCoreState,
    /// The test that runs.
    pub run: Option<Run>,
}

/// The function.
pub struct PciTestdev {
    core: FunctionCore,
    run: Option<Run>,
}

impl PciTestdev {
    /// A function of vendor 1B36, device 0005. It never interrupts.
    pub fn new(ports: InterruptPorts) -> Self {
        let identity = Identity {
            vendor: 0x1b36,
            device: 0x0005,
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
            revision: 0,
            class: 0x00_ff00,
            multifunction: false,
        };
        let mut config = ConfigSpace::conventional(identity);
        config.add_bar(0, BarKind::Memory32 { prefetchable: false }, 4096);
        config.add_bar(1, BarKind::Io, 256);
        Self { core: FunctionCore::new(config, ports), run: None }
    }

    fn write_byte(&mut self, bar: u8, offset: u64, value: u8) {
        if offset == 0 {
            self.run = (usize::from(value) < TESTS.len()).then_some(Run { bar, test: value, count: 0 });
            return;
        }
        let Some(run) = &mut self.run else { return };
        let wanted = TESTS[usize::from(run.test)].1;
        if run.bar == bar && offset == u64::from(run.offset()) && wanted.is_none_or(|wanted| wanted == value) {
            run.count = run.count.wrapping_add(1);
        }
    }

    /// The state for a snapshot.
    pub fn save(&self) -> PciTestdevState {
        let Self { core, run } = self;
        PciTestdevState { core: core.save(), run: *run }
    }

    /// Takes the state of a snapshot.
    pub fn restore(&mut self, state: &PciTestdevState) {
        let PciTestdevState { core, run } = state;
        self.core.restore(core);
        self.run = run.filter(|run| run.bar < 2 && usize::from(run.test) < TESTS.len());
    }
}

impl Device for PciTestdev {
    fn read(&mut self, _region: Region, offset: u64, size: u8) -> u64 {
        let Some(run) = self.run else { return 0 };
        let header = run.header();
        (0..u64::from(size.min(8))).fold(0, |value, byte| {
            let index = usize::try_from(offset.wrapping_add(byte)).unwrap_or(usize::MAX);
            value | u64::from(header.get(index).copied().unwrap_or(0)) << (8 * byte)
        })
    }

    fn write(&mut self, region: Region, offset: u64, size: u8, value: u64) {
        if region > 1 {
            return;
        }
        for byte in 0..u64::from(size.min(8)) {
            self.write_byte(region, offset.wrapping_add(byte), (value >> (8 * byte)) as u8);
        }
    }

    fn reset(&mut self) {
        self.core.reset();
        self.run = None;
    }
}

impl PciFunction for PciTestdev {
    fn config_read(&mut self, offset: u16, size: u8) -> u32 {
        self.core.config_read(offset, size)
    }

    fn config_write(&mut self, offset: u16, size: u8, value: u32) -> bool {
        self.core.config_write(offset, size, value).windows
    }

    fn windows(&self) -> Vec<Window> {
        self.core.windows()
    }

    fn save_encoded(&self) -> Vec<u8> {
        encode(&self.save())
    }

    fn restore_encoded(&mut self, state: &[u8]) -> bool {
        decode(state).map(|state| self.restore(&state)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::Unconnected;
    use crate::testing::RecordingMsi;
    use alloc::boxed::Box;

    fn testdev() -> PciTestdev {
        PciTestdev::new(InterruptPorts { pin: Box::new(Unconnected), msi: Box::new(RecordingMsi::new()) })
    }

    #[test]
    fn is_1b36_0005_with_a_memory_and_an_io_bar() {
        let mut device = testdev();
        assert_eq!(device.config_read(0, 4), 0x0005_1b36);
        for (bar, value) in [(0x10, 0xffff_f000), (0x14, 0xffff_ff01)] {
            device.config_write(bar, 4, u32::MAX);
            assert_eq!(device.config_read(bar, 4), value);
        }
    }

    #[test]
    fn counts_the_writes_that_match() {
        let mut device = testdev();
        for (bar, test) in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)] {
            device.write(bar, 0, 1, test);
            assert_eq!(device.read(bar, 1, 1), 1);
            let (offset, data) = (device.read(bar, 4, 4), device.read(bar, 8, 4));
            for value in [data, data, data ^ 1] {
                device.write(bar, offset, 1, value);
            }
            device.write(bar, offset + 1, 1, data);
            assert_eq!(device.read(bar, 12, 4), if test == 1 { 3 } else { 2 });
        }
        let name: Vec<u8> = (0..9).map(|index| device.read(1, 16 + index, 1) as u8).collect();
        assert_eq!(name, b"portio-da");
    }

    #[test]
    fn a_test_that_does_not_exist_reads_as_unsupported() {
        let mut device = testdev();
        device.write(0, 0, 1, 3);
        assert_eq!(device.read(0, 1, 1), 0);
    }

    #[test]
    fn state_goes_through_save_and_restore() {
        let mut device = testdev();
        device.write(0, 0, 1, 1);
        device.write(0, 2049, 1, 1);
        let mut other = testdev();
        other.restore(&device.save());
        assert_eq!(other.save(), device.save());
        assert_eq!(other.read(0, 12, 4), 1);
    }
}
