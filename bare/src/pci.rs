//! PCI functions: configuration space by mechanism #1 (PCI Local Bus Specification 3.0, 3.2.2.3.2), and their memory.
#![allow(unsafe_code, reason = "devices' registers are at addresses")]

use crate::cpu::{input32, output32};
use spec::pci::config::{CONFIG_ADDRESS, CONFIG_DATA};

const ENABLE: u32 = 1 << 31;
/// Where devices' memory is: above all memory that the program has.
const DEVICES: core::ops::Range<u64> = 0xa000_0000..1 << 32;

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

/// Reads 1, 2 or 4 bytes of a device's memory, at a multiple of that; all ones where there can be none.
#[must_use]
pub fn read(address: u64, size: u8) -> u32 {
    if !DEVICES.contains(&address) || !address.is_multiple_of(size.into()) {
        return u32::MAX;
    }
    // SAFETY: an aligned access where only devices are, mapped one to one.
    unsafe {
        match size {
            1 => (address as *const u8).read_volatile().into(),
            2 => (address as *const u16).read_volatile().into(),
            _ => (address as *const u32).read_volatile(),
        }
    }
}

/// Writes a device's memory. What the device does to the program's memory is what it was told before.
pub fn write(address: u64, size: u8, value: u32) {
    if !DEVICES.contains(&address) || !address.is_multiple_of(size.into()) {
        return;
    }
    // SAFETY: as in `read`.
    unsafe {
        match size {
            1 => (address as *mut u8).write_volatile(value as u8),
            2 => (address as *mut u16).write_volatile(value as u16),
            _ => (address as *mut u32).write_volatile(value),
        }
    }
}
