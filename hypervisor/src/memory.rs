//! Memory as the modules here see it: pages that processor and hypervisor both read and write, and a guest's memory.

use core::sync::atomic::{AtomicU32, AtomicU64};

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
pub trait Pages {
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

/// A guest's memory, by guest-physical addresses from 0.
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
