//! Registers of devices in memory, and memory above 4 GiB: addresses at which Rust has nothing.
#![allow(unsafe_code, reason = "devices are at addresses")]

/// The first address of the PCI configuration window and of what follows it: above all memory below 4 GiB.
const FIRST: u64 = 0xb000_0000;

fn check(address: u64, size: u64) {
    assert!(address >= FIRST && address.is_multiple_of(size), "{address:#x} is no register");
}

macro_rules! access {
    ($read:ident, $write:ident, $type:ty, $size:literal) => {
        #[doc = concat!("Reads ", $size, " bytes of a device's register, or of memory above 4 GiB that is mapped.")]
        ///
        /// # Panics
        /// When `address` is below those of devices, or not aligned.
        #[must_use]
        pub fn $read(address: u64) -> $type {
            check(address, $size);
            // SAFETY: no Rust object is there; reading has no effect on those that are elsewhere.
            unsafe { (address as *const $type).read_volatile() }
        }

        #[doc = concat!("Writes ", $size, " bytes of a device's register, or of memory above 4 GiB that is mapped.")]
        ///
        /// # Panics
        /// When `address` is below those of devices, or not aligned.
        pub fn $write(address: u64, value: $type) {
            check(address, $size);
            // SAFETY: no Rust object is there. What a device does with memory is what the program told it.
            unsafe { (address as *mut $type).write_volatile(value) };
        }
    };
}

access!(read8, write8, u8, 1);
access!(read16, write16, u16, 2);
access!(read32, write32, u32, 4);
access!(read64, write64, u64, 8);

/// Reads 1, 2 or 4 bytes of a device's register.
///
/// # Panics
/// As [`read32`].
#[must_use]
pub fn read(address: u64, size: u8) -> u32 {
    match size {
        1 => read8(address).into(),
        2 => read16(address).into(),
        _ => read32(address),
    }
}

/// Writes 1, 2 or 4 bytes of a device's register.
///
/// # Panics
/// As [`write32`].
pub fn write(address: u64, size: u8, value: u32) {
    match size {
        1 => write8(address, value as u8),
        2 => write16(address, value as u16),
        _ => write32(address, value),
    }
}
