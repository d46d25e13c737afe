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

/// Offset of the table's flags.
pub const FLAGS: usize = 37;
/// Offset of the first structure.
pub const STRUCTURES: usize = 48;

/// A structure: type and length in 2 bytes each, then its own.
pub mod structure {
    /// Length of the whole structure.
    pub const LENGTH: usize = 2;
    /// DRHD: flags, 1 byte.
    pub const UNIT_FLAGS: usize = 4;
    /// DRHD, RMRR: the PCI segment, 2 bytes.
    pub const SEGMENT: usize = 6;
    /// DRHD: base of the registers; RMRR: first address of the memory; 8 bytes.
    pub const BASE: usize = 8;
    /// DRHD: the first device scope.
    pub const UNIT_SCOPES: usize = 16;
    /// RMRR: the first device scope.
    pub const RESERVED_SCOPES: usize = 24;
}

/// A device scope (VT-d, 8.3.1): offsets.
pub mod scope {
    /// Type, 1 byte.
    pub const TYPE: usize = 0;
    /// Length, 1 byte.
    pub const LENGTH: usize = 1;
    /// The bus number where the path begins.
    pub const BUS: usize = 5;
    /// The path: device and function, 1 byte each, for each bridge and the function itself.
    pub const PATH: usize = 6;
}

/// Device scope: a PCI bridge with all that is below it.
pub const SCOPE_BRIDGE: u8 = 2;
