//! The ACPI tables of the board (ACPI 6.5, 5.2), in a form that goes to the guest in two ways: linked to an address and
//! written to memory when there is no firmware, or handed to firmware with a script that links them (`etc/table-loader` of
//! fw_cfg).

mod dsdt;
mod tables;

use crate::fw_cfg::{FileError, Items};
use crate::memory_map::RamLayout;

/// What the tables tell about the board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcpiConfig {
    /// Where RAM is (the windows for PCI lie around it).
    pub ram: RamLayout,
    /// Number of processors; their local APIC ids are 0, 1, ... At most 255.
    pub processors: u8,
    /// Serial ports: first I/O port and ISA interrupt.
    pub serial_ports: Vec<(u16, u8)>,
    /// A keyboard controller is at ports 0x60 and 0x64.
    pub keyboard_controller: bool,
    /// The remapping unit, if there is one.
    pub iommu: Option<RemappingConfig>,
}

/// Memory that functions need at all times, whoever has them (RMRR).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReservedMemory {
    /// First address.
    pub first: u64,
    /// Last address.
    pub last: u64,
    /// Source ids of the functions.
    pub functions: Vec<u16>,
}

/// What the DMAR table tells about the remapping units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemappingConfig {
    /// Bits of physical addresses.
    pub host_address_width: u8,
    /// It remaps interrupts.
    pub interrupt_remapping: bool,
    /// Functions may have TLBs of their own.
    pub device_tlb: bool,
    /// Source id of the I/O APIC.
    pub io_apic: u16,
    /// Source id of the HPET.
    pub hpet: u16,
    /// For each unit besides the first, the source ids of the functions that are its alone.
    pub scopes: Vec<Vec<u16>>,
    /// Reserved memory.
    pub reserved: Vec<ReservedMemory>,
}

/// A place in the tables that depends on where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fixup {
    /// `size` bytes at `at` hold an offset into the tables, to which their address is added.
    Pointer { at: usize, size: usize },
    /// The byte at `at` makes the sum of `length` bytes from `start` zero.
    Checksum { at: usize, start: usize, length: usize },
}

/// The tables, not yet linked to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcpiTables {
    /// All tables but the RSDP.
    tables: Vec<u8>,
    fixups: Vec<Fixup>,
    rsdp: Vec<u8>,
    rsdp_fixups: Vec<Fixup>,
    /// Memory that the tables give to functions: first and last address.
    reserved: Vec<(u64, u64)>,
}

/// Alignment of the tables in memory: the FACS, which is first, asks for 64 bytes.
pub const TABLES_ALIGNMENT: u64 = 64;
/// Offset in the tables of the waking vector: the FACS is first (ACPI 6.5, 5.2.10). An operating system puts there where it wants to go on in
/// real mode after a sleep, as a physical address below 1 MiB.
pub const WAKING_VECTOR: u64 = 12;
const TABLES_FILE: &str = "etc/acpi/tables";
const RSDP_FILE: &str = "etc/acpi/rsdp";

impl AcpiTables {
    /// Makes the tables for `config`.
    #[must_use]
    pub fn new(config: &AcpiConfig) -> Self {
        tables::build(config)
    }

    /// Memory that the tables give to functions, which the operating system is not to use: first and last address.
    #[must_use]
    pub fn reserved(&self) -> &[(u64, u64)] {
        &self.reserved
    }

    /// Size of the tables (without the RSDP) in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.tables.len() as u64
    }

    /// The tables as they must stand at `address` (a multiple of [`TABLES_ALIGNMENT`], below 4 GiB), and the RSDP for them, to
    /// be put on a 16-byte boundary in 0xE0000-0xFFFFF.
    #[must_use]
    pub fn link(&self, address: u32) -> (Vec<u8>, Vec<u8>) {
        let link = |bytes: &[u8], fixups: &[Fixup]| {
            let mut bytes = bytes.to_vec();
            for fixup in fixups {
                match *fixup {
                    Fixup::Pointer { at, size } => {
                        let field = &mut bytes[at..at + size];
                        let mut value = [0; 8];
                        value[..size].copy_from_slice(field);
                        let value = u64::from_le_bytes(value).wrapping_add(address.into()).to_le_bytes();
                        field.copy_from_slice(&value[..size]);
                    }
                    Fixup::Checksum { at, start, length } => {
                        bytes[at] = 0;
                        bytes[at] = sum(&bytes[start..start + length]).wrapping_neg();
                    }
                }
            }
            bytes
        };
        (link(&self.tables, &self.fixups), link(&self.rsdp, &self.rsdp_fixups))
    }

    /// Adds the tables and the script that links them to `items`, for firmware.
    ///
    /// # Errors
    /// When `items` has ACPI tables already.
    pub fn add_to(&self, items: &mut Items) -> Result<(), FileError> {
        let mut script = Vec::new();
        script.extend(loader::allocate(RSDP_FILE, 16, loader::ZONE_FSEG));
        script.extend(loader::allocate(TABLES_FILE, TABLES_ALIGNMENT as u32, loader::ZONE_HIGH));
        for (file, fixups) in [(TABLES_FILE, &self.fixups), (RSDP_FILE, &self.rsdp_fixups)] {
            for fixup in fixups {
                script.extend(match *fixup {
                    Fixup::Pointer { at, size } => loader::add_pointer(file, TABLES_FILE, at as u32, size as u8),
                    Fixup::Checksum { at, start, length } => {
                        loader::add_checksum(file, at as u32, start as u32, length as u32)
                    }
                });
            }
        }
        items.add_file(TABLES_FILE, self.tables.clone())?;
        items.add_file(RSDP_FILE, self.rsdp.clone())?;
        items.add_file("etc/table-loader", script)
    }
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// Commands of the linker script: 128 bytes each, integers little-endian, file names in fields of 56 bytes.
mod loader {
    pub const ZONE_HIGH: u8 = 1;
    pub const ZONE_FSEG: u8 = 2;

    fn command(number: u32, parts: &[&[u8]]) -> Vec<u8> {
        let mut bytes = number.to_le_bytes().to_vec();
        bytes.extend(parts.concat());
        bytes.resize(128, 0);
        bytes
    }

    fn name(name: &str) -> [u8; 56] {
        let mut field = [0; 56];
        field[..name.len()].copy_from_slice(name.as_bytes());
        field
    }

    pub fn allocate(file: &str, alignment: u32, zone: u8) -> Vec<u8> {
        command(1, &[&name(file), &alignment.to_le_bytes(), &[zone]])
    }

    pub fn add_pointer(file: &str, target: &str, offset: u32, size: u8) -> Vec<u8> {
        command(2, &[&name(file), &name(target), &offset.to_le_bytes(), &[size]])
    }

    pub fn add_checksum(file: &str, at: u32, start: u32, length: u32) -> Vec<u8> {
        command(3, &[&name(file), &at.to_le_bytes(), &start.to_le_bytes(), &length.to_le_bytes()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_map::GIB;

    fn tables() -> AcpiTables {
        AcpiTables::new(&AcpiConfig {
            ram: RamLayout::new(6 * GIB),
            processors: 4,
            serial_ports: vec![(0x3f8, 4), (0x2f8, 3)],
            keyboard_controller: true,
            iommu: None,
        })
    }

    fn dword(bytes: &[u8], at: usize) -> usize {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
    }

    /// Walks from the RSDP through RSDT and XSDT; gives the tables by signature.
    fn walk<'a>(tables: &'a [u8], rsdp: &[u8], base: usize) -> Vec<&'a [u8]> {
        let table = |address: usize| {
            let at = address - base;
            &tables[at..at + dword(tables, at + 4)]
        };
        let rsdt = table(dword(rsdp, 16));
        let xsdt = table(dword(rsdp, 24));
        assert_eq!((&rsdt[..4], &xsdt[..4]), (&b"RSDT"[..], &b"XSDT"[..]));
        let narrow: Vec<usize> = rsdt[36..].chunks(4).map(|c| dword(c, 0)).collect();
        let wide: Vec<usize> = xsdt[36..].chunks(8).map(|c| dword(c, 0)).collect();
        assert_eq!(narrow, wide);
        let mut found: Vec<&[u8]> = wide.into_iter().map(table).collect();
        let fadt = found.iter().find(|t| &t[..4] == b"FACP").unwrap();
        let (facs, dsdt) = (table(dword(fadt, 36)), table(dword(fadt, 40)));
        assert_eq!(dword(fadt, 140), dword(fadt, 40), "X_DSDT");
        assert_eq!(dword(fadt, 36), base, "the FACS is first, as WAKING_VECTOR says");
        found.extend([dsdt, facs, rsdt, xsdt]);
        found
    }

    #[test]
    fn every_table_is_found_from_the_rsdp_with_the_right_checksum() {
        let (bytes, rsdp) = tables().link(0x7fff_0000);
        assert_eq!((&rsdp[..8], sum(&rsdp[..20]), sum(&rsdp)), (&b"RSD PTR "[..], 0, 0));
        let found = walk(&bytes, &rsdp, 0x7fff_0000);
        let mut names: Vec<&[u8]> = found.iter().map(|t| &t[..4]).collect();
        names.sort_unstable();
        assert_eq!(names, [b"APIC", b"DSDT", b"FACP", b"FACS", b"HPET", b"MCFG", b"RSDT", b"XSDT"]);
        for table in found.iter().filter(|t| &t[..4] != b"FACS") {
            assert_eq!(sum(table), 0, "{:?}", std::str::from_utf8(&table[..4]));
        }
    }

    #[test]
    fn script_of_the_loader_gives_the_same_tables_as_linking() {
        let mut items = Items::new();
        tables().add_to(&mut items).unwrap();
        let mut files: Vec<(&str, Vec<u8>, u32)> = [(TABLES_FILE, 0x7fe0_0040), (RSDP_FILE, 0xf_5a00)]
            .map(|(name, at)| (name, items.file(name).unwrap().to_vec(), at))
            .into();
        let text = |bytes: &[u8]| String::from_utf8(bytes.iter().copied().take_while(|b| *b != 0).collect()).unwrap();
        for entry in items.file("etc/table-loader").unwrap().chunks(128) {
            let index = files.iter().position(|f| f.0 == text(&entry[4..60])).unwrap();
            match dword(entry, 0) {
                1 => assert!(dword(entry, 60).is_power_of_two()),
                2 => {
                    let target = files.iter().find(|f| f.0 == text(&entry[60..116])).unwrap().2;
                    let (at, size) = (dword(entry, 116), usize::from(entry[120]));
                    let field = &mut files[index].1[at..at + size];
                    let mut value = [0; 8];
                    value[..size].copy_from_slice(field);
                    field.copy_from_slice(&(u64::from_le_bytes(value) + u64::from(target)).to_le_bytes()[..size]);
                }
                3 => {
                    let (at, start, length) = (dword(entry, 60), dword(entry, 64), dword(entry, 68));
                    // Firmware subtracts from what is there.
                    let file = &mut files[index].1;
                    file[at] = file[at].wrapping_sub(sum(&file[start..start + length]));
                }
                other => panic!("command {other}"),
            }
        }
        let (linked, rsdp) = tables().link(0x7fe0_0040);
        assert!(files[0].1 == linked && files[1].1 == rsdp);
    }

    #[test]
    fn dmar_names_the_unit_and_the_sources_of_interrupts_that_are_no_functions() {
        let iommu = RemappingConfig {
            host_address_width: 46,
            interrupt_remapping: true,
            device_tlb: false,
            io_apic: 0xff00,
            hpet: 0xff01,
            scopes: Vec::new(),
            reserved: Vec::new(),
        };
        let config = AcpiConfig {
            ram: RamLayout::new(GIB),
            processors: 1,
            serial_ports: Vec::new(),
            keyboard_controller: true,
            iommu: Some(iommu),
        };
        let (bytes, rsdp) = AcpiTables::new(&config).link(0x3fff_0000);
        let found = walk(&bytes, &rsdp, 0x3fff_0000);
        let dmar = found.iter().find(|table| &table[..4] == b"DMAR").unwrap();
        assert_eq!((sum(dmar), &dmar[36..38]), (0, &[45, 1][..]));
        let unit = &dmar[48..];
        assert_eq!((&unit[..8], unit.len()), (&[0, 0, 32, 0, 1, 0, 0, 0][..], 32));
        assert_eq!(unit[8..16], crate::memory_map::IOMMU_BASE.to_le_bytes());
        assert_eq!(unit[16..24], [3, 8, 0, 0, 0, 0xff, 0, 0], "I/O APIC 0 at ff:00.0");
        assert_eq!(unit[24..32], [4, 8, 0, 0, 0, 0xff, 0, 1], "HPET 0 at ff:00.1");
    }

    #[test]
    fn dmar_names_units_with_functions_of_their_own_before_the_one_for_all_others() {
        let iommu = RemappingConfig {
            host_address_width: 46,
            interrupt_remapping: true,
            device_tlb: true,
            io_apic: 0xff00,
            hpet: 0xff01,
            scopes: vec![vec![0x18, 0x21]],
            reserved: vec![ReservedMemory { first: 0x7_0000, last: 0x7_ffff, functions: vec![0x18] }],
        };
        let config = AcpiConfig {
            ram: RamLayout::new(GIB),
            processors: 1,
            serial_ports: Vec::new(),
            keyboard_controller: true,
            iommu: Some(iommu),
        };
        let tables = AcpiTables::new(&config);
        assert_eq!(tables.reserved(), [(0x7_0000, 0x7_ffff)]);
        let (bytes, rsdp) = tables.link(0x3fff_0000);
        let found = walk(&bytes, &rsdp, 0x3fff_0000);
        let dmar = found.iter().find(|table| &table[..4] == b"DMAR").unwrap();
        let mut structures = Vec::new();
        let mut at = 48;
        while at < dmar.len() {
            let length = usize::from(dmar[at + 2]);
            structures.push(&dmar[at..at + length]);
            at += length;
        }
        let kinds: Vec<u8> = structures.iter().map(|structure| structure[0]).collect();
        assert_eq!(kinds, [0, 0, 1, 2]);
        let scoped = structures[0];
        assert_eq!((scoped[4], &scoped[8..16]), (0, &(crate::memory_map::IOMMU_BASE + 0x1000).to_le_bytes()[..]));
        assert_eq!(scoped[16..], [1, 8, 0, 0, 0, 0, 3, 0, 1, 8, 0, 0, 0, 0, 4, 1]);
        assert_eq!(structures[1][4], 1, "all others");
        let reserved = structures[2];
        assert_eq!(
            (&reserved[8..16], &reserved[16..24]),
            (&0x7_0000u64.to_le_bytes()[..], &0x7_ffffu64.to_le_bytes()[..])
        );
        assert_eq!(reserved[24..], [1, 8, 0, 0, 0, 0, 3, 0]);
    }

    #[test]
    fn tables_are_deterministic() {
        assert_eq!(tables(), tables());
    }
}
