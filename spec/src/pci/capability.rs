//! Capability identifiers (PCI Code and ID Assignment, chapters 2 and 3).

/// Capabilities of the first 256 bytes: byte 0 the ID, byte 1 the next one's offset.
pub mod id {
    /// Power management.
    pub const POWER_MANAGEMENT: u8 = 0x01;
    /// Message-signalled interrupts.
    pub const MSI: u8 = 0x05;
    /// Vendor specific.
    pub const VENDOR: u8 = 0x09;
    /// Subsystem vendor ID of a bridge.
    pub const BRIDGE_SUBSYSTEM: u8 = 0x0d;
    /// PCI Express.
    pub const EXPRESS: u8 = 0x10;
    /// MSI-X.
    pub const MSI_X: u8 = 0x11;
    /// Serial ATA.
    pub const SATA: u8 = 0x12;
    /// Advanced features.
    pub const ADVANCED_FEATURES: u8 = 0x13;
}

/// Extended capabilities from offset 100H: bits 15:0 the ID, 19:16 the version, 31:20 the next one's offset.
pub mod extended_id {
    /// Advanced error reporting.
    pub const AER: u16 = 0x0001;
    /// Device serial number.
    pub const SERIAL_NUMBER: u16 = 0x0003;
    /// Access control services.
    pub const ACS: u16 = 0x000d;
    /// Alternative routing-ID interpretation.
    pub const ARI: u16 = 0x000e;
    /// Address translation services.
    pub const ATS: u16 = 0x000f;
    /// Single-root I/O virtualization.
    pub const SR_IOV: u16 = 0x0010;
    /// Page request interface.
    pub const PRI: u16 = 0x0013;
    /// Process address space ID.
    pub const PASID: u16 = 0x001b;
}

/// Where the extended capabilities begin.
pub const EXTENDED_FIRST: u16 = 0x100;

/// Power management capability: offsets from its start (PCI Power Management 1.2, 3.2).
pub mod power {
    /// Capabilities, 2 bytes: bits 2:0 the version, 3 for 1.2.
    pub const CAPABILITIES: u16 = 2;
    /// Control and status, 2 bytes: bits 1:0 the power state.
    pub const CONTROL: u16 = 4;
    /// Control bit 3: no reset on the way from D3hot to D0.
    pub const NO_SOFT_RESET: u16 = 1 << 3;
    /// Length in bytes.
    pub const LENGTH: u16 = 8;
}
