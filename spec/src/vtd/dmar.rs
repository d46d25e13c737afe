//! The ACPI table that reports remapping units: DMAR (VT-d, 8.1 to 8.6).

/// DMAR flags, bit 0: interrupt remapping is there.
pub const INTERRUPT_REMAPPING: u8 = 1 << 0;
/// DMAR flags, bit 1: x2APIC is not to be used.
pub const X2APIC_OPT_OUT: u8 = 1 << 1;

/// Structure: DMA-remapping hardware unit (DRHD).
pub const HARDWARE_UNIT: u16 = 0;
/// Structure: reserved memory region (RMRR).
pub const RESERVED_MEMORY: u16 = 1;
/// Structure: root port ATS capability (ATSR).
pub const ROOT_PORT_ATS: u16 = 2;
/// DRHD and ATSR flags, bit 0: all functions (or root ports) of the segment that no other structure names.
pub const ALL: u8 = 1 << 0;

/// Device scope: a PCI endpoint.
pub const SCOPE_ENDPOINT: u8 = 1;
/// Device scope: an I/O APIC.
pub const SCOPE_IO_APIC: u8 = 3;
/// Device scope: an HPET that sends messages.
pub const SCOPE_HPET: u8 = 4;
