//! A PCI function of the machine, as its driver sees it.

use spec::pci::config::{self as register, Bar};

/// A PCI function.
pub trait Function: Send {
    /// Reads 1, 2 or 4 bytes of configuration space.
    fn config_read(&self, offset: u16, size: u8) -> u32;
    /// Writes configuration space.
    fn config_write(&self, offset: u16, size: u8, value: u32);
    /// Reads 1, 2 or 4 bytes of the function's memory at a physical address.
    fn read(&self, address: u64, size: u8) -> u32;
    /// Writes the function's memory.
    fn write(&self, address: u64, size: u8, value: u32);
}

/// A message that interrupts: address and data.
pub type Message = (u64, u32);

/// More capabilities than fit into configuration space.
const MOST_CAPABILITIES: usize = 48;

/// The offsets and identifiers of a function's capabilities.
pub fn capabilities(function: &dyn Function) -> impl Iterator<Item = (u16, u8)> {
    let next = |at: u16| {
        let next = function.config_read(at, 1) as u16 & 0xfc;
        (next >= 0x40).then_some(next)
    };
    let all = core::iter::successors(next(register::CAPABILITIES), move |at| next(at + 1));
    all.take(MOST_CAPABILITIES).map(|at| (at, function.config_read(at, 1) as u8))
}

/// The address in a memory BAR, if it is one below 4 GiB.
#[must_use]
pub fn bar(function: &dyn Function, number: u32) -> Option<u64> {
    let offset = register::BAR0 + 4 * number as u16;
    let low = function.config_read(offset, 4);
    let high = if low & Bar::MEMORY_64 != 0 { function.config_read(offset + 4, 4) } else { 0 };
    let address = low & Bar::MEMORY_ADDRESS;
    (number < 6 && low & Bar::IO == 0 && address != 0 && high == 0).then_some(address.into())
}
