//! PC firmware: finding and checking the image, and what it is told by fw_cfg. The firmware finds everything else itself.

use super::BootError;
use chipset::acpi::AcpiTables;
use chipset::fw_cfg::{Items, key};
use chipset::memory_map::{FOUR_GIB, RamLayout, Range, RangeKind, reserve};
use chipset::smbios::Smbios;
use std::path::{Path, PathBuf};

/// The file of Debian's `seabios` package.
const SEABIOS_FILE: &str = "bios-256k.bin";
/// Where distributions put it.
const SEABIOS_DIRECTORIES: [&str; 3] = ["/usr/share/seabios", "/usr/share/qemu", "/usr/local/share/qemu"];
/// Images are flash parts of whole 64 KiB blocks.
const BLOCK: u64 = 0x1_0000;
const MAX_SIZE: u64 = 16 << 20;
/// The last part of the image also appears below 1 MiB, where real mode code runs.
const LEGACY_WINDOW: u64 = 128 << 10;

/// A firmware image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firmware {
    image: Vec<u8>,
}

impl Firmware {
    /// Checks that `image` can be firmware.
    ///
    /// # Errors
    /// When its size is not that of a flash part.
    pub fn new(image: Vec<u8>) -> Result<Self, BootError> {
        let size = image.len() as u64;
        if size == 0 || size > MAX_SIZE || !size.is_multiple_of(BLOCK) {
            return Err(BootError::BadFirmware { size });
        }
        Ok(Self { image })
    }

    /// Reads the image at `path`.
    ///
    /// # Errors
    /// When the file cannot be read or has a wrong size.
    pub fn read(path: &Path) -> Result<Self, BootError> {
        let unreadable = |error: std::io::Error| BootError::Unreadable { path: path.into(), reason: error.to_string() };
        let size = std::fs::metadata(path).map_err(unreadable)?.len();
        if size > MAX_SIZE {
            return Err(BootError::BadFirmware { size });
        }
        Self::new(std::fs::read(path).map_err(unreadable)?)
    }

    /// Finds SeaBIOS where Debian's package and others put it.
    ///
    /// # Errors
    /// When it is not there.
    pub fn find_seabios() -> Result<PathBuf, BootError> {
        SEABIOS_DIRECTORIES
            .iter()
            .map(|directory| Path::new(directory).join(SEABIOS_FILE))
            .find(|path| path.is_file())
            .ok_or(BootError::NoFirmware { file: SEABIOS_FILE, package: "seabios" })
    }

    /// The whole image, to be mapped so that it ends at 4 GiB.
    #[must_use]
    pub fn image(&self) -> &[u8] {
        &self.image
    }

    /// First address of the whole image.
    #[must_use]
    pub fn base(&self) -> u64 {
        FOUR_GIB - self.image.len() as u64
    }

    /// The last part of the image, to be mapped so that it ends at 1 MiB (as far as the PAM registers say that reads there
    /// go to the firmware).
    #[must_use]
    pub fn legacy(&self) -> &[u8] {
        &self.image[self.image.len() - self.image.len().min(LEGACY_WINDOW as usize)..]
    }

    /// First address of [`legacy`](Self::legacy).
    #[must_use]
    pub fn legacy_base(&self) -> u64 {
        (1 << 20) - self.legacy().len() as u64
    }
}

/// What firmware is told.
#[derive(Clone, Copy, Debug)]
pub struct FirmwareConfig<'a> {
    /// Where RAM is.
    pub ram: RamLayout,
    /// Processors.
    pub processors: u8,
    /// ACPI tables for firmware to install.
    pub acpi: &'a AcpiTables,
    /// I/O port of the serial port that shall carry the text screen; none if `None`.
    pub serial_console: Option<u16>,
    /// Devices to boot from, best first, as OpenFirmware paths (for example `/pci@i0cf8/scsi@2/disk@0,0`).
    pub boot_order: &'a [String],
    /// Milliseconds that the boot menu waits for a key; no menu if `None`.
    pub boot_menu_wait: Option<u16>,
}

/// The OpenFirmware path by which firmware knows a virtio-blk function on bus 0.
#[must_use]
pub fn virtio_block_path(device: u8, function: u8) -> String {
    match function {
        0 => format!("/pci@i0cf8/scsi@{device:x}/disk@0,0"),
        function => format!("/pci@i0cf8/scsi@{device:x},{function:x}/disk@0,0"),
    }
}

/// The OpenFirmware path by which firmware knows the drive on `port` of the SATA controller 00:1f.2.
#[must_use]
pub fn sata_path(port: u8) -> String {
    format!("/pci@i0cf8/pci8086,2922@1f,2/drive@{port:x}/disk@0")
}

/// The fw_cfg items for a boot through firmware.
///
/// # Errors
/// When the items contradict each other, which is a mistake of the caller.
pub fn fw_cfg_items(config: &FirmwareConfig<'_>) -> Result<Items, BootError> {
    let FirmwareConfig { ram, processors, acpi, serial_console, boot_order, boot_menu_wait } = *config;
    let mut items = Items::new();
    let processors = u16::from(processors);
    items.set(key::UUID, &[0; 16]);
    items.set(key::RAM_SIZE, &ram.size().to_le_bytes());
    // Without a display; a serial console is told by a file of its own.
    items.set(key::NOGRAPHIC, &u16::from(serial_console.is_some()).to_le_bytes());
    items.set(key::NB_CPUS, &processors.to_le_bytes());
    items.set(key::MAX_CPUS, &processors.to_le_bytes());
    items.set(key::BOOT_MENU, &u16::from(boot_menu_wait.is_some()).to_le_bytes());
    items.set(key::NUMA, &0u64.to_le_bytes());
    items.set(key::IRQ0_OVERRIDE, &1u32.to_le_bytes());

    let mut map = vec![Range { base: 0, size: ram.low, kind: RangeKind::Ram }];
    if ram.high > 0 {
        map.push(Range { base: FOUR_GIB, size: ram.high, kind: RangeKind::Ram });
    }
    let map = acpi.reserved().iter().fold(map, |map, (first, last)| reserve(map, *first, *last));
    items.add_file("etc/e820", map.into_iter().flat_map(Range::to_e820).collect())?;
    acpi.add_to(&mut items)?;
    Smbios::new(ram, None).add_to(&mut items)?;
    if let Some(port) = serial_console {
        items.add_file("etc/sercon-port", u64::from(port).to_le_bytes().to_vec())?;
    }
    if let Some(wait) = boot_menu_wait {
        items.add_file("etc/boot-menu-wait", u64::from(wait).to_le_bytes().to_vec())?;
    }
    if !boot_order.is_empty() {
        let mut order = boot_order.join("\n").into_bytes();
        order.push(0);
        items.add_file("bootorder", order)?;
    }
    // With nothing to boot from, say so and stop instead of resetting again and again.
    items.add_file("etc/boot-fail-wait", u64::from(u32::MAX).to_le_bytes().to_vec())?;
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_ends_at_four_gib_and_its_last_part_at_one_mib() {
        let firmware = Firmware::new((0..256usize << 10).map(|i| (i >> 12) as u8).collect()).unwrap();
        assert_eq!((firmware.base(), firmware.legacy_base()), (0xfffc_0000, 0xe_0000));
        assert_eq!(firmware.legacy(), &firmware.image()[128 << 10..]);
        let small = Firmware::new(vec![0; 64 << 10]).unwrap();
        assert_eq!(small.legacy_base(), 0xf_0000);
    }

    #[test]
    fn files_of_a_wrong_size_are_refused() {
        for size in [0, 1, 0xffff, (16 << 20) + 0x1_0000] {
            assert_eq!(Firmware::new(vec![0; size]), Err(BootError::BadFirmware { size: size as u64 }));
        }
        let missing = Firmware::read(Path::new("/nonexistent/bios.bin")).unwrap_err();
        assert!(matches!(missing, BootError::Unreadable { .. }));
    }

    #[test]
    fn items_tell_the_map_of_ram_and_the_boot_order() {
        let ram = RamLayout::new(4 << 30);
        let acpi = super::super::tests::acpi();
        let order = [virtio_block_path(2, 0), virtio_block_path(3, 1)];
        let config = FirmwareConfig {
            ram,
            processors: 2,
            acpi: &acpi,
            serial_console: Some(0x3f8),
            boot_order: &order,
            boot_menu_wait: None,
        };
        let items = fw_cfg_items(&config).unwrap();
        assert_eq!(items.file("etc/e820").unwrap().len(), 40);
        assert_eq!(items.file("bootorder").unwrap(), b"/pci@i0cf8/scsi@2/disk@0,0\n/pci@i0cf8/scsi@3,1/disk@0,0\0");
        assert_eq!(items.file("etc/sercon-port").unwrap(), 0x3f8u64.to_le_bytes());
    }
}
