//! Starting a guest: kernels put in memory without firmware (Linux bzImage, PVH, multiboot 1), and firmware images.
//!
//! The loaders work on [`GuestMemory`] and give the first processor's state as data ([`InitialState`]); they know nothing of the
//! board or the processor. The `linux-loader` crate of rust-vmm was considered: it writes only through `vm-memory`'s guest
//! memory and has no multiboot, so the boot protocols are here and only ELF parsing comes from a library (`object`).

pub mod bzimage;
mod elf;
pub mod error;
pub mod firmware;
pub mod multiboot;
mod placement;
pub mod pvh;
pub mod state;

pub use error::BootError;
pub use state::{InitialState, Segment, Table};

use chipset::acpi::{AcpiTables, TABLES_ALIGNMENT};
use chipset::memory_map::{RamLayout, direct_boot_map, reserve};
use chipset::smbios::Smbios;
use placement::Placement;

/// An access to guest memory that is not all in RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutsideMemory {
    /// First address of the access.
    pub address: u64,
    /// Its length in bytes.
    pub length: u64,
}

/// The guest's RAM, laid out as [`RamLayout::new`] says.
pub trait GuestMemory {
    /// Writes `data` at `address`.
    ///
    /// # Errors
    /// When not all of it is RAM; nothing is written then.
    fn write(&mut self, address: u64, data: &[u8]) -> Result<(), OutsideMemory>;

    /// All RAM in bytes.
    fn size(&self) -> u64;
}

/// A kernel to start without firmware.
#[derive(Clone, Copy, Debug)]
pub struct DirectBoot<'a> {
    /// What to call the kernel towards the guest (multiboot command lines begin with it).
    pub name: &'a str,
    /// The kernel's file.
    pub kernel: &'a [u8],
    /// The initial RAM disk's file (for multiboot: the module).
    pub initrd: Option<&'a [u8]>,
    /// What to call the initrd towards the guest: a multiboot module's string.
    pub initrd_name: &'a str,
    /// The kernel's command line.
    pub command_line: &'a str,
    /// The ACPI tables of the board.
    pub acpi: Option<&'a AcpiTables>,
}

/// The kinds of kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelKind {
    /// Linux's bzImage.
    BzImage,
    /// An image with a multiboot 1 header.
    Multiboot,
    /// An ELF image with a PVH entry point.
    Pvh,
}

/// Where the RSDP is put.
const RSDP_ADDRESS: u64 = 0xe_0000;
/// Where the SMBIOS entry point and structures are put.
const SMBIOS_ADDRESS: u64 = 0xf_0000;
/// BIOS data area: segment of the extended BIOS data area.
const BDA_EBDA_SEGMENT: u64 = 0x40e;
/// BIOS data area: KiB of conventional memory.
const BDA_MEMORY_SIZE: u64 = 0x413;
/// Memory that a machine must have to be booted directly.
const MINIMUM_MEMORY: u64 = 2 << 20;

/// Tells what kind of kernel `image` is, by its contents.
///
/// # Errors
/// When it is none of those known, or clearly the beginning of something else.
pub fn detect(image: &[u8]) -> Result<KernelKind, BootError> {
    if bzimage::is_bzimage(image) {
        Ok(KernelKind::BzImage)
    } else if multiboot::find_header(image).is_some() {
        Ok(KernelKind::Multiboot)
    } else if elf::is_elf(image) {
        Ok(KernelKind::Pvh)
    } else if image.len() < 0x210 {
        Err(BootError::Truncated { what: "the kernel image", needs: 0x210, has: image.len() as u64 })
    } else {
        Err(BootError::NotAKernel)
    }
}

/// Bytes at the end of low RAM that the ACPI tables take.
fn acpi_size(tables: &AcpiTables) -> u64 {
    tables.size().next_multiple_of(0x1_0000)
}

/// Where [`load`] puts the ACPI tables.
pub fn acpi_address(ram: RamLayout, tables: &AcpiTables) -> u64 {
    ram.low.saturating_sub(acpi_size(tables)).next_multiple_of(TABLES_ALIGNMENT)
}

/// Puts the kernel, what it is given and the ACPI tables into `memory`; gives the state in which the first processor starts.
///
/// # Errors
/// When the kernel or the initrd are not what they should be, or do not fit. `memory` may have been written partly.
pub fn load(memory: &mut dyn GuestMemory, boot: &DirectBoot<'_>) -> Result<InitialState, BootError> {
    let kind = detect(boot.kernel)?;
    let ram = RamLayout::new(memory.size());
    if ram.low < MINIMUM_MEMORY {
        return Err(BootError::TooLittleMemory { needs: MINIMUM_MEMORY, has: ram.low });
    }
    if boot.command_line.contains('\0') {
        return Err(BootError::CommandLineHasNul);
    }
    let acpi_size = boot.acpi.map_or(0, acpi_size);
    let reserved = boot.acpi.map_or(&[][..], AcpiTables::reserved);
    let map = reserved.iter().fold(direct_boot_map(ram, acpi_size), |map, (first, last)| reserve(map, *first, *last));
    let top = ram.low.saturating_sub(acpi_size);
    memory.write(BDA_EBDA_SEGMENT, &0x9fc0u16.to_le_bytes())?;
    memory.write(BDA_MEMORY_SIZE, &639u16.to_le_bytes())?;
    let smbios = Smbios::new(ram, Some(env!("CARGO_PKG_VERSION"))).link(SMBIOS_ADDRESS as u32);
    memory.write(SMBIOS_ADDRESS, &smbios)?;
    let mut rsdp_address = 0;
    if let Some(tables) = boot.acpi {
        if top < MINIMUM_MEMORY / 2 {
            return Err(BootError::TooLittleMemory { needs: MINIMUM_MEMORY + acpi_size, has: ram.low });
        }
        let address = acpi_address(ram, tables);
        let (bytes, rsdp) = tables.link(address as u32);
        memory.write(address, &bytes)?;
        memory.write(RSDP_ADDRESS, &rsdp)?;
        rsdp_address = RSDP_ADDRESS;
    }
    let mut placement = Placement::new(memory, ram, top, map);
    for (first, last) in reserved {
        placement.keep_free("memory reserved for devices", *first, *last);
    }
    match kind {
        KernelKind::BzImage => bzimage::load(&mut placement, boot, rsdp_address),
        KernelKind::Multiboot => multiboot::load(&mut placement, boot),
        KernelKind::Pvh => pvh::load(&mut placement, boot, rsdp_address),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// RAM for tests.
    pub(crate) struct TestMemory(pub Vec<u8>);

    impl GuestMemory for TestMemory {
        fn write(&mut self, address: u64, data: &[u8]) -> Result<(), OutsideMemory> {
            let outside = OutsideMemory { address, length: data.len() as u64 };
            let start = usize::try_from(address).map_err(|_| outside)?;
            let to = self.0.get_mut(start..).and_then(|m| m.get_mut(..data.len())).ok_or(outside)?;
            to.copy_from_slice(data);
            Ok(())
        }
        fn size(&self) -> u64 {
            self.0.len() as u64
        }
    }

    impl TestMemory {
        pub(crate) fn new(mib: usize) -> Self {
            Self(vec![0; mib << 20])
        }
        pub(crate) fn u32(&self, at: u64) -> u32 {
            u32::from_le_bytes(self.0[at as usize..][..4].try_into().unwrap())
        }
        pub(crate) fn u64(&self, at: u64) -> u64 {
            u64::from_le_bytes(self.0[at as usize..][..8].try_into().unwrap())
        }
        pub(crate) fn text(&self, at: u64) -> String {
            let bytes = self.0[at as usize..].iter().copied().take_while(|b| *b != 0).collect();
            String::from_utf8(bytes).unwrap()
        }
    }

    pub(crate) fn boot<'a>(kernel: &'a [u8], initrd: Option<&'a [u8]>, command_line: &'a str) -> DirectBoot<'a> {
        DirectBoot { name: "kernel", kernel, initrd, initrd_name: "initrd", command_line, acpi: None }
    }

    pub(crate) fn acpi() -> AcpiTables {
        AcpiTables::new(&chipset::acpi::AcpiConfig {
            ram: RamLayout::new(16 << 20),
            processors: 1,
            serial_ports: vec![(0x3f8, 4)],
            keyboard_controller: false,
            iommu: None,
        })
    }

    /// A small deterministic generator for garbage.
    pub(crate) struct Random(pub u64);

    impl Random {
        pub(crate) fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }
    }

    /// Loads `image` cut at every kind of length and with random bytes changed: any outcome but a panic is right.
    pub(crate) fn abuse(image: &[u8]) {
        let mut memory = TestMemory::new(4);
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for length in (0..image.len().min(0x400)).step_by(3).chain((0x400..image.len()).step_by(0x331)) {
            let _ = load(&mut memory, &boot(&image[..length], None, "x"));
        }
        for _ in 0..600 {
            let mut image = image.to_vec();
            for _ in 0..1 + random.next() % 8 {
                let at = random.next() as usize % image.len().min(0x600);
                image[at] = random.next() as u8;
            }
            let initrd = vec![1; random.next() as usize % 0x2000];
            let _ = load(&mut memory, &boot(&image, Some(&initrd), "x"));
        }
    }

    #[test]
    fn what_is_not_a_kernel_is_refused_by_name() {
        assert_eq!(
            detect(b"#!/bin/sh\n"),
            Err(BootError::Truncated { what: "the kernel image", needs: 0x210, has: 10 })
        );
        assert_eq!(detect(&[0; 8192]), Err(BootError::NotAKernel));
        let mut random = Random(7);
        for _ in 0..200 {
            let image: Vec<u8> = (0..random.next() % 3000).map(|_| random.next() as u8).collect();
            assert!(load(&mut TestMemory::new(4), &boot(&image, None, "")).is_err());
        }
    }

    #[test]
    fn tiny_machines_and_odd_command_lines_are_refused() {
        let kernel = bzimage::tests::image(0x4000);
        assert!(matches!(
            load(&mut TestMemory::new(1), &boot(&kernel, None, "")),
            Err(BootError::TooLittleMemory { .. })
        ));
        assert_eq!(load(&mut TestMemory::new(8), &boot(&kernel, None, "a\0b")), Err(BootError::CommandLineHasNul));
    }
}
