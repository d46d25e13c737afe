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

/// Address translation services capability: offsets from its start (PCI Express Base 5.0, 10.5.1).
pub mod ats {
    /// Capabilities, 2 bytes: bits 4:0 how many invalidations the function takes at once, 0 for 32.
    pub const CAPABILITIES: u16 = 4;
    /// Capabilities bit 5: untranslated addresses are aligned to pages.
    pub const PAGE_ALIGNED: u16 = 1 << 5;
    /// Capabilities bit 6: invalidations of all PASIDs at once.
    pub const GLOBAL_INVALIDATE: u16 = 1 << 6;
    /// Control, 2 bytes.
    pub const CONTROL: u16 = 6;
    /// Control bit 15: enable.
    pub const ENABLE: u16 = 1 << 15;
    /// Control bits 4:0: the smallest translation unit, 2^n pages of 4 KiB.
    pub const SMALLEST_UNIT: u16 = 0x1f;
    /// Length in bytes.
    pub const LENGTH: u16 = 8;
}

/// Page request capability: offsets from its start (PCI Express Base 5.0, 10.5.2).
pub mod pri {
    /// Control, 2 bytes.
    pub const CONTROL: u16 = 4;
    /// Control bit 0: enable.
    pub const ENABLE: u16 = 1 << 0;
    /// Control bit 1: reset, while not enabled.
    pub const RESET: u16 = 1 << 1;
    /// Status, 2 bytes.
    pub const STATUS: u16 = 6;
    /// Status bit 0: a response of failure has come.
    pub const RESPONSE_FAILURE: u16 = 1 << 0;
    /// Status bit 1: a response has come for a group that is not outstanding.
    pub const UNEXPECTED_GROUP: u16 = 1 << 1;
    /// Status bit 8: no page request is outstanding that was made before the interface was turned off.
    pub const STOPPED: u16 = 1 << 8;
    /// Status bit 15: responses have the PASID of the request.
    pub const RESPONSE_PASID: u16 = 1 << 15;
    /// Outstanding page requests the function can have, 4 bytes.
    pub const CAPACITY: u16 = 8;
    /// Outstanding page requests the function may have, 4 bytes.
    pub const ALLOCATION: u16 = 12;
    /// Length in bytes.
    pub const LENGTH: u16 = 16;
}

/// PASID capability: offsets from its start (PCI Express Base 5.0, 7.8.8).
pub mod pasid {
    /// Capabilities, 2 bytes.
    pub const CAPABILITIES: u16 = 4;
    /// Control, 2 bytes, of the same bits; bit 0 is enable.
    pub const CONTROL: u16 = 6;
    /// Control bit 0: enable.
    pub const ENABLE: u16 = 1 << 0;
    /// Bit 1: execute permission.
    pub const EXECUTE: u16 = 1 << 1;
    /// Bit 2: privileged mode.
    pub const PRIVILEGED: u16 = 1 << 2;
    /// Position of the width of PASIDs in bits, capabilities bits 12:8.
    pub const WIDTH_SHIFT: u32 = 8;
    /// Length in bytes.
    pub const LENGTH: u16 = 8;
}
