//! PCI functions: configuration space by mechanism #1 (PCI Local Bus Specification 3.0, 3.2.2.3.2).

use crate::cpu::{input32, output32};
use spec::pci::config::{CONFIG_ADDRESS, CONFIG_DATA};

const ENABLE: u32 = 1 << 31;

/// A function on bus 0. One processor accesses configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    device: u8,
    function: u8,
}

impl Function {
    /// Every function that there could be on bus 0.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..32).flat_map(|device| (0..8).map(move |function| Self { device, function }))
    }

    /// The function on bus 0 with this source id; `None` when that names another bus.
    #[must_use]
    pub fn of_source(source: u16) -> Option<Self> {
        let (device, function) = ((source >> 3 & 31) as u8, (source & 7) as u8);
        (source >> 8 == 0).then_some(Self { device, function })
    }

    /// Its source id.
    #[must_use]
    pub fn source(self) -> u16 {
        u16::from(self.device) << 3 | u16::from(self.function)
    }

    fn select(self, offset: u16) {
        let function = u32::from(self.device) << 11 | u32::from(self.function) << 8;
        output32(CONFIG_ADDRESS, ENABLE | function | u32::from(offset & 0xfc));
    }

    /// Reads 1, 2 or 4 bytes of configuration space, within 4.
    #[must_use]
    pub fn config_read(self, offset: u16, size: u8) -> u32 {
        self.select(offset);
        input32(CONFIG_DATA) >> (8 * (offset & 3)) & mask(size)
    }

    /// Writes configuration space. The other bytes of the 4 are written with what they are.
    pub fn config_write(self, offset: u16, size: u8, value: u32) {
        let shift = 8 * (offset & 3);
        self.select(offset);
        let other = if size == 4 { 0 } else { input32(CONFIG_DATA) & !(mask(size) << shift) };
        output32(CONFIG_DATA, other | (value & mask(size)) << shift);
    }
}

fn mask(size: u8) -> u32 {
    u32::MAX >> (32 - 8 * u32::from(size.clamp(1, 4)))
}
