//! The static tables.

use super::RemappingConfig;
use super::{AcpiConfig, AcpiTables, Fixup, dsdt};
use crate::memory_map::{
    ECAM_BASE, HPET_BASE, IO_APIC_BASE, IOMMU_BASE, IOMMU_SIZE, LOCAL_APIC_BASE, PM_BASE, SCI_IRQ,
};
use crate::power::offset;
use crate::root_complex::RESET_CONTROL;
use acpi_tables::Aml;
use acpi_tables::facs::FACS;
use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::mcfg::MCFG;
use acpi_tables::sdt::Sdt;

pub(super) const OEM_ID: [u8; 6] = *b"VNDRPL";
pub(super) const OEM_TABLE_ID: [u8; 8] = *b"VNDRPOOL";
pub(super) const OEM_REVISION: u32 = 1;

/// Offset of the checksum in every table header.
const CHECKSUM: usize = 9;
/// Index of the century in CMOS memory.
const RTC_CENTURY: u8 = 0x32;

/// Collects tables; remembers what depends on their address.
#[derive(Default)]
struct Builder {
    bytes: Vec<u8>,
    fixups: Vec<Fixup>,
}

impl Builder {
    /// Appends a table; gives its offset.
    fn add(&mut self, table: &dyn Aml) -> usize {
        self.bytes.resize(self.bytes.len().next_multiple_of(64), 0);
        let at = self.bytes.len();
        table.to_aml_bytes(&mut self.bytes);
        at
    }

    /// Declares the `size` bytes at `field` of the table at `table` to point to the table at `target`.
    fn point(&mut self, table: usize, field: usize, size: usize, target: usize) {
        let at = table + field;
        self.bytes[at..at + size].copy_from_slice(&(target as u64).to_le_bytes()[..size]);
        self.fixups.push(Fixup::Pointer { at, size });
    }

    /// Declares the checksum of the table from `table` to the end to depend on its pointers.
    fn checksum(&mut self, table: usize, length: usize) {
        self.bytes[table + CHECKSUM] = 0; // firmware subtracts the sum from what is there
        self.fixups.push(Fixup::Checksum { at: table + CHECKSUM, start: table, length });
    }
}

pub(super) fn build(config: &AcpiConfig) -> AcpiTables {
    let mut builder = Builder::default();
    let facs = builder.add(&FACS::new());
    let dsdt = builder.add(&sdt(*b"DSDT", 2, &dsdt::aml(config)));
    let fadt = builder.add(&fadt(config));
    builder.point(fadt, 36, 4, facs);
    builder.point(fadt, 40, 4, dsdt);
    builder.point(fadt, 140, 8, dsdt);
    builder.checksum(fadt, acpi_tables::fadt::FADT::len());

    let mut listed = vec![fadt, builder.add(&madt(config)), builder.add(&hpet()), builder.add(&mcfg())];
    if let Some(iommu) = &config.iommu {
        listed.push(builder.add(&dmar(iommu)));
    }
    let mut root = |signature, width: usize| {
        let at = builder.add(&sdt(signature, 1, &vec![0; width * listed.len()]));
        for (i, table) in listed.iter().enumerate() {
            builder.point(at, 36 + width * i, width, *table);
        }
        builder.checksum(at, 36 + width * listed.len());
        at
    };
    let rsdt = root(*b"RSDT", 4);
    let xsdt = root(*b"XSDT", 8);
    let (rsdp, rsdp_fixups) = rsdp(rsdt, xsdt);
    let Builder { bytes, fixups } = builder;
    let reserved = config.iommu.iter().flat_map(|iommu| &iommu.reserved).map(|memory| (memory.first, memory.last));
    AcpiTables { tables: bytes, fixups, rsdp, rsdp_fixups, reserved: reserved.collect() }
}

/// A table with a standard header.
fn sdt(signature: [u8; 4], revision: u8, contents: &[u8]) -> Sdt {
    let mut sdt = Sdt::new(signature, 36, revision, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    sdt.append_slice(contents);
    sdt
}

/// RSDP of revision 2 (ACPI 6.5, 5.2.5.3), with both root tables.
fn rsdp(rsdt: usize, xsdt: usize) -> (Vec<u8>, Vec<Fixup>) {
    let mut bytes = b"RSD PTR \0".to_vec();
    bytes.extend(OEM_ID);
    bytes.push(2);
    bytes.extend((rsdt as u32).to_le_bytes());
    bytes.extend(36u32.to_le_bytes());
    bytes.extend((xsdt as u64).to_le_bytes());
    bytes.extend([0; 4]);
    let fixups = vec![
        Fixup::Pointer { at: 16, size: 4 },
        Fixup::Pointer { at: 24, size: 8 },
        Fixup::Checksum { at: 8, start: 0, length: 20 },
        Fixup::Checksum { at: 32, start: 0, length: 36 },
    ];
    (bytes, fixups)
}

/// Fixed hardware (ACPI 6.5, 5.2.9): always in ACPI mode (no SMI command), power button and clock alarm as fixed hardware.
fn fadt(config: &AcpiConfig) -> acpi_tables::fadt::FADT {
    let port = |offset: u16, bytes: u8, access| {
        GAS::new(AddressSpace::SystemIo, 8 * bytes, 0, access, u64::from(PM_BASE + offset))
    };
    let block = |offset: u16| u32::from(PM_BASE + offset).into();
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        .flag(Flags::SlpButton)
        .flag(Flags::ResetRegSup)
        .preferred_pm_profile(PmProfile::Unspecified)
        .gpe_info(u32::from(PM_BASE + offset::GPE0_STS), 0, 16, 0, 0);
    fadt.sci_int = u16::from(SCI_IRQ).into();
    fadt.pm1a_evt_blk = block(offset::PM1_STS);
    fadt.pm1_evt_len = 4;
    fadt.pm1a_cnt_blk = block(offset::PM1_CNT);
    fadt.pm1_cnt_len = 2;
    fadt.pm_tmr_blk = block(offset::PM1_TMR);
    fadt.pm_tmr_len = 4;
    fadt.x_pm1a_evt_blk = port(offset::PM1_STS, 4, AccessSize::WordAccess);
    fadt.x_pm1a_cnt_blk = port(offset::PM1_CNT, 2, AccessSize::WordAccess);
    fadt.x_pm_tmr_blk = port(offset::PM1_TMR, 4, AccessSize::DwordAccess);
    fadt.x_gpe0_blk = port(offset::GPE0_STS, 16, AccessSize::ByteAccess);
    fadt.p_lvl2_lat = 0xfff.into(); // more than 100: no C2
    fadt.p_lvl3_lat = 0xfff.into(); // more than 1000: no C3
    fadt.century = RTC_CENTURY;
    // Legacy devices; 8042 if there; no VGA.
    fadt.iapc_boot_arch = (1 << 0 | u16::from(config.keyboard_controller) << 1 | 1 << 2).into();
    fadt.reset_reg = GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, RESET_CONTROL.into());
    fadt.reset_value = 0x0f;
    fadt.finalize()
}

/// Interrupt controllers (ACPI 6.5, 5.2.12).
fn madt(config: &AcpiConfig) -> Sdt {
    const PCAT_COMPAT: u32 = 1;
    const ALL_PROCESSORS: u8 = 0xff;
    /// Active high, level-triggered (MPS INTI flags).
    const LEVEL_HIGH: u16 = 0b1101;
    let mut contents = (LOCAL_APIC_BASE as u32).to_le_bytes().to_vec();
    contents.extend(PCAT_COMPAT.to_le_bytes());
    for id in 0..config.processors {
        contents.extend([0, 8, id, id, 1, 0, 0, 0]); // processor local APIC, enabled
    }
    contents.extend([1, 12, 0, 0]); // I/O APIC with id 0
    contents.extend((IO_APIC_BASE as u32).to_le_bytes());
    contents.extend(0u32.to_le_bytes());
    // Interrupt source overrides: the PIT is wired to input 2; the interrupts that the chipset shares are level-triggered.
    for (irq, input, flags) in
        [(0, 2, 0), (5, 5, LEVEL_HIGH), (SCI_IRQ, SCI_IRQ, LEVEL_HIGH), (10, 10, LEVEL_HIGH), (11, 11, LEVEL_HIGH)]
    {
        contents.extend([2, 10, 0, irq]);
        contents.extend(u32::from(input).to_le_bytes());
        contents.extend(flags.to_le_bytes());
    }
    contents.extend([4, 6, ALL_PROCESSORS, 0, 0, 1]); // NMI at LINT1
    sdt(*b"APIC", 3, &contents)
}

/// IA-PC HPET specification 1.0a, 3.2.4.
fn hpet() -> Sdt {
    let mut contents = 0x8086_a201u32.to_le_bytes().to_vec(); // general capabilities: 3 comparators, 64 bits, legacy route
    contents.extend([0, 64, 0, 0]); // memory space, 64 bits
    contents.extend(HPET_BASE.to_le_bytes());
    contents.extend([0; 4]); // number 0, minimum tick not told, no page protection
    sdt(*b"HPET", 1, &contents)
}

/// VT-d, 8.1 to 8.5. A unit for all functions that no other is for comes after the others.
fn dmar(iommu: &RemappingConfig) -> Sdt {
    use spec::vtd::dmar::{
        ALL, HARDWARE_UNIT, INTERRUPT_REMAPPING, RESERVED_MEMORY, ROOT_PORT_ATS, SCOPE_ENDPOINT, SCOPE_HPET,
        SCOPE_IO_APIC,
    };
    let flags = if iommu.interrupt_remapping { INTERRUPT_REMAPPING } else { 0 };
    let mut contents = vec![iommu.host_address_width - 1, flags];
    contents.extend([0; 10]);
    let scope = |kind, source: u16| [kind, 8, 0, 0, 0, (source >> 8) as u8, (source >> 3 & 31) as u8, source as u8 & 7];
    let endpoints =
        |functions: &[u16]| functions.iter().flat_map(|source| scope(SCOPE_ENDPOINT, *source)).collect::<Vec<u8>>();
    let mut structure = |kind: u16, body: &[u8]| {
        contents.extend(kind.to_le_bytes());
        contents.extend((4 + body.len() as u16).to_le_bytes());
        contents.extend(body);
    };
    // Flags, one page of registers, segment 0, the base.
    let unit = |flags: u8, base: u64, scopes: &[u8]| [&[flags, 0, 0, 0], &base.to_le_bytes()[..], scopes].concat();
    for (base, functions) in (IOMMU_BASE + IOMMU_SIZE..).step_by(IOMMU_SIZE as usize).zip(&iommu.scopes) {
        structure(HARDWARE_UNIT, &unit(0, base, &endpoints(functions)));
    }
    let scopes = [scope(SCOPE_IO_APIC, iommu.io_apic), scope(SCOPE_HPET, iommu.hpet)].concat();
    structure(HARDWARE_UNIT, &unit(ALL, IOMMU_BASE, &scopes));
    for memory in &iommu.reserved {
        let body =
            [&[0; 4][..], &memory.first.to_le_bytes(), &memory.last.to_le_bytes(), &endpoints(&memory.functions)];
        structure(RESERVED_MEMORY, &body.concat());
    }
    if iommu.device_tlb {
        structure(ROOT_PORT_ATS, &[ALL, 0, 0, 0]);
    }
    sdt(*b"DMAR", 1, &contents)
}

/// PCI Firmware Specification 3.3, 4.1.2.
fn mcfg() -> MCFG {
    let mut mcfg = MCFG::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    mcfg.add_ecam(ECAM_BASE, 0, 0, 255);
    mcfg
}
