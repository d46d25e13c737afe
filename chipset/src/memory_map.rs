//! The physical memory map and the fixed I/O ports of the board, those of QEMU's q35 so that stock firmware fits.

use serde::{Deserialize, Serialize};

/// One mebibyte.
pub const MIB: u64 = 1 << 20;
/// One gibibyte.
pub const GIB: u64 = 1 << 30;

/// End of conventional memory: the extended BIOS data area begins here.
pub const EBDA_BASE: u64 = 0x9_fc00;
/// Legacy video memory, also the window of compatible SMRAM.
pub const VGA_BASE: u64 = 0xa_0000;
/// The range that the PAM registers shadow, up to 1 MiB.
pub const PAM_BASE: u64 = 0xc_0000;
/// Where PCIEXBAR puts the ECAM window (firmware's choice on q35, ours in a direct boot).
pub const ECAM_BASE: u64 = 0xb000_0000;
/// Size of the ECAM window for 256 buses.
pub const ECAM_SIZE: u64 = 256 * MIB;
/// First address of the 32-bit window for PCI memory BARs.
pub const PCI_MEMORY32_BASE: u64 = ECAM_BASE + ECAM_SIZE;
/// End of the 32-bit window for PCI memory BARs (exclusive).
pub const PCI_MEMORY32_END: u64 = IO_APIC_BASE;
/// First port of the window for PCI I/O BARs.
pub const PCI_IO_BASE: u16 = 0xc000;
/// Size of the 64-bit window for PCI memory BARs, above all RAM.
pub const PCI_MEMORY64_SIZE: u64 = 64 * GIB;
/// I/O APIC registers.
pub const IO_APIC_BASE: u64 = 0xfec0_0000;
/// HPET registers.
pub const HPET_BASE: u64 = 0xfed0_0000;
/// Registers of the remapping unit, where there is one; of others, each with functions of its own, [`IOMMU_SIZE`] further on.
pub const IOMMU_BASE: u64 = 0xfed9_0000;
/// Size of a remapping unit's registers.
pub const IOMMU_SIZE: u64 = 0x1000;
/// Root complex register block of the ICH9.
pub const RCBA_BASE: u64 = 0xfed1_c000;
/// Size of the root complex register block.
pub const RCBA_SIZE: u64 = 0x4000;
/// Local APIC registers at reset.
pub const LOCAL_APIC_BASE: u64 = 0xfee0_0000;
/// End of the 32-bit address space; firmware ends here.
pub const FOUR_GIB: u64 = 4 * GIB;

/// ACPI power management block (PMBASE).
pub const PM_BASE: u16 = 0x600;
/// Length of the power management block.
pub const PM_SIZE: u16 = 0x80;
/// ISA interrupt of the ACPI system control interrupt.
pub const SCI_IRQ: u8 = 9;

/// Where RAM is: below 4 GiB from address 0, and from 4 GiB on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RamLayout {
    /// Bytes of RAM from address 0.
    pub low: u64,
    /// Bytes of RAM from 4 GiB.
    pub high: u64,
}

impl RamLayout {
    /// Splits `size` bytes of RAM as q35 does: all of it below the ECAM window if it fits there, otherwise 2 GiB low and
    /// the rest high.
    #[must_use]
    pub const fn new(size: u64) -> Self {
        if size < ECAM_BASE { Self { low: size, high: 0 } } else { Self { low: 2 * GIB, high: size - 2 * GIB } }
    }

    /// All RAM in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.low + self.high
    }

    /// The window for 64-bit PCI BARs: first address and size.
    #[must_use]
    pub const fn pci_memory64(&self) -> (u64, u64) {
        ((FOUR_GIB + self.high).next_multiple_of(GIB), PCI_MEMORY64_SIZE)
    }
}

/// Address range types of the system address map (ACPI 6.5, 15, table 15.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u32)]
pub enum RangeKind {
    /// Usable RAM.
    Ram = 1,
    /// Not usable by the operating system.
    Reserved = 2,
    /// ACPI tables: usable once they have been read.
    AcpiReclaim = 3,
}

/// One entry of the system address map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// First address.
    pub base: u64,
    /// Length in bytes.
    pub size: u64,
    /// What is there.
    pub kind: RangeKind,
}

impl Range {
    /// The 20 bytes that BIOS interrupt 15h, function E820h gives.
    #[must_use]
    pub fn to_e820(self) -> [u8; 20] {
        let mut bytes = [0; 20];
        bytes[..8].copy_from_slice(&self.base.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.size.to_le_bytes());
        bytes[16..].copy_from_slice(&(self.kind as u32).to_le_bytes());
        bytes
    }
}

/// The system address map of a machine without firmware, whose ACPI tables take the last `acpi_size` bytes of low RAM.
#[must_use]
pub fn direct_boot_map(ram: RamLayout, acpi_size: u64) -> Vec<Range> {
    let range = |base, end, kind| Range { base, size: end - base, kind };
    let acpi = ram.low.saturating_sub(acpi_size).max(MIB);
    let mut map = vec![
        range(0, EBDA_BASE.min(ram.low), RangeKind::Ram),
        range(EBDA_BASE, VGA_BASE, RangeKind::Reserved),
        range(0xe_0000, MIB, RangeKind::Reserved),
    ];
    if acpi > MIB {
        map.push(range(MIB, acpi, RangeKind::Ram));
    }
    if ram.low > acpi {
        map.push(range(acpi, ram.low, RangeKind::AcpiReclaim));
    }
    map.push(range(ECAM_BASE, ECAM_BASE + ECAM_SIZE, RangeKind::Reserved));
    map.push(range(RCBA_BASE, RCBA_BASE + RCBA_SIZE, RangeKind::Reserved));
    if ram.high > 0 {
        map.push(range(FOUR_GIB, FOUR_GIB + ram.high, RangeKind::Ram));
    }
    map
}

/// Takes `first..=last` out of the RAM of `map`: it is reserved. What of it is no RAM stays what it is.
#[must_use]
pub fn reserve(map: Vec<Range>, first: u64, last: u64) -> Vec<Range> {
    let mut result = Vec::new();
    for range in map {
        let (base, end) = (range.base, range.base + range.size);
        let (from, to) = (first.clamp(base, end), last.saturating_add(1).clamp(base, end));
        if range.kind != RangeKind::Ram || from >= to {
            result.push(range);
            continue;
        }
        for (base, end, kind) in [(base, from, range.kind), (from, to, RangeKind::Reserved), (to, end, range.kind)] {
            if base < end {
                result.push(Range { base, size: end - base, kind });
            }
        }
    }
    result
}

/// What the CMOS memory holds besides the clock, as (index, value): sizes of RAM, boot order, number of processors, in the
/// places where PC firmware looks for them.
#[must_use]
pub fn cmos_contents(ram: RamLayout, processors: u8) -> Vec<(u8, u8)> {
    let word = |value: u64| (value.min(0xffff) as u16).to_le_bytes();
    let base = word(640);
    let extended = word(ram.low.saturating_sub(MIB) / 1024);
    let above_16m = word(ram.low.saturating_sub(16 * MIB) / 0x1_0000);
    let high = (ram.high / 0x1_0000).to_le_bytes();
    vec![
        (0x14, 0x06), // equipment: mathematics coprocessor, PS/2 mouse port
        (0x15, base[0]),
        (0x16, base[1]),
        (0x17, extended[0]),
        (0x18, extended[1]),
        (0x30, extended[0]),
        (0x31, extended[1]),
        (0x34, above_16m[0]),
        (0x35, above_16m[1]),
        (0x38, 0x01), // bits 7:4 third boot device none; bit 0: a floppy needs no signature
        (0x3d, 0x32), // first the disc (2 = hard disk), then CD-ROM (3)
        (0x5b, high[0]),
        (0x5c, high[1]),
        (0x5d, high[2]),
        (0x5f, processors.saturating_sub(1)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_that_would_reach_the_ecam_window_is_split_at_two_gib() {
        assert_eq!(RamLayout::new(2 * GIB), RamLayout { low: 2 * GIB, high: 0 });
        assert_eq!(RamLayout::new(ECAM_BASE - 1).high, 0);
        assert_eq!(RamLayout::new(ECAM_BASE), RamLayout { low: 2 * GIB, high: 768 * MIB });
        assert_eq!(RamLayout::new(8 * GIB).size(), 8 * GIB);
    }

    #[test]
    fn reserved_memory_splits_the_ram_that_it_lies_in() {
        let ram = |base, size| Range { base, size, kind: RangeKind::Ram };
        let reserved = |base, size| Range { base, size, kind: RangeKind::Reserved };
        let map = vec![ram(0, 0x1_0000), reserved(0x1_0000, 0x1000), ram(0x2_0000, 0x1_0000)];
        let expected = [
            ram(0, 0x8000),
            reserved(0x8000, 0x8000),
            reserved(0x1_0000, 0x1000),
            reserved(0x2_0000, 0x2000),
            ram(0x2_2000, 0xe000),
        ];
        assert_eq!(reserve(map, 0x8000, 0x2_1fff), expected);
    }

    #[test]
    fn direct_boot_map_is_ordered_and_does_not_overlap() {
        for size in [MIB, 2 * MIB, 64 * MIB, 2 * GIB, 6 * GIB] {
            let map = direct_boot_map(RamLayout::new(size), 0x1_0000);
            for pair in map.windows(2) {
                assert!(pair[0].base + pair[0].size <= pair[1].base, "{pair:x?}");
            }
        }
    }

    #[test]
    fn cmos_tells_memory_above_16_mib_in_64_kib_units() {
        let cmos = cmos_contents(RamLayout::new(128 * MIB), 4);
        let at = |index| cmos.iter().find(|(i, _)| *i == index).unwrap().1;
        assert_eq!(u16::from_le_bytes([at(0x34), at(0x35)]), 112 * 16);
        assert_eq!(at(0x5f), 3);
    }
}
