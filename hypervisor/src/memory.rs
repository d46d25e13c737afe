//! Memory as the modules here see it: pages that processor and hypervisor both read and write, and a guest's memory.

use core::sync::atomic::{AtomicU32, AtomicU64};

/// Where a guest's memory stops below 4 GiB, for its devices.
pub const LOW: u64 = 3 << 30;
/// Where the rest of it begins.
pub const HIGH: u64 = 4 << 30;

/// The guest-physical ranges of `size` bytes of memory: the first address and the length of each. The second may be empty.
#[must_use]
pub fn ranges(size: u64) -> [(u64, u64); 2] {
    [(0, size.min(LOW)), (HIGH, size.saturating_sub(LOW))]
}

/// Where `length` bytes at a guest-physical address are in `size` bytes of memory.
///
/// # Errors
/// When not all of it is memory.
pub fn offset(size: u64, address: u64, length: u64) -> Result<u64, OutsideMemory> {
    let mut before = 0;
    for (base, range) in ranges(size) {
        let within = address.checked_sub(base).filter(|offset| *offset <= range && range - offset >= length);
        if let Some(offset) = within {
            return Ok(before + offset);
        }
        before += range;
    }
    Err(OutsideMemory)
}

/// Bytes in a page.
pub const PAGE: u64 = 4096;

/// A page for the processor's own structures, as 64-bit words. Its address is its physical address.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct Page(pub [AtomicU64; 512]);

/// A page of 32-bit registers: the virtual-APIC page.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct RegisterPage(pub [AtomicU32; 1024]);

impl Page {
    /// The physical address.
    #[must_use]
    pub fn address(&self) -> u64 {
        core::ptr::from_ref(self) as u64
    }
}

impl RegisterPage {
    /// The physical address.
    #[must_use]
    pub fn address(&self) -> u64 {
        core::ptr::from_ref(self) as u64
    }
}

/// Where pages come from. They are zeroed and never given back.
pub trait Pages: Sync {
    /// A page; `None` when there are none left.
    fn page(&self) -> Option<&'static Page>;
    /// A page of 32-bit registers.
    fn register_page(&self) -> Option<&'static RegisterPage>;
    /// Memory for a guest: `size` bytes, a multiple of 2 MiB, on a boundary of 2 MiB.
    fn guest_memory(&self, size: u64) -> Option<alloc::boxed::Box<dyn GuestMemory>>;
}

/// An access to a guest's memory that is not all in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutsideMemory;

/// A guest's memory, by guest-physical addresses: those of [`ranges`].
pub trait GuestMemory: Send + Sync {
    /// Its physical address.
    fn base(&self) -> u64;
    /// Its size in bytes.
    fn size(&self) -> u64;
    /// Reads.
    ///
    /// # Errors
    /// When not all of it is memory.
    fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), OutsideMemory>;
    /// Writes.
    ///
    /// # Errors
    /// When not all of it is memory; nothing is written then.
    fn write(&self, address: u64, data: &[u8]) -> Result<(), OutsideMemory>;
    /// Fills it with zeroes.
    fn clear(&self);

    /// Reads a little-endian number of `size` bytes, 8 at the most.
    ///
    /// # Errors
    /// When not all of it is memory.
    fn read_number(&self, address: u64, size: usize) -> Result<u64, OutsideMemory> {
        let mut bytes = [0; 8];
        self.read(address, bytes.get_mut(..size).ok_or(OutsideMemory)?)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_beyond_3_gib_is_above_4() {
        assert_eq!(ranges(1 << 20), [(0, 1 << 20), (HIGH, 0)]);
        assert_eq!(ranges(5 << 30), [(0, LOW), (HIGH, 2 << 30)]);
        assert_eq!(offset(5 << 30, LOW - 8, 8), Ok(LOW - 8));
        assert_eq!(offset(5 << 30, LOW - 8, 9), Err(OutsideMemory));
        assert_eq!(offset(5 << 30, HIGH, 8), Ok(LOW));
        assert_eq!(offset(5 << 30, HIGH + (2 << 30) - 1, 2), Err(OutsideMemory));
        assert_eq!(offset(1 << 20, u64::MAX, 2), Err(OutsideMemory));
        assert_eq!(offset(1 << 20, HIGH, 1), Err(OutsideMemory));
    }
}
