//! The PCI Express capability (PCI Express Base, 7.5.3) and ECAM (7.2.2).

/// Offsets from the start of the capability.
pub mod offset {
    /// Capabilities, 2 bytes: bits 3:0 the version (2), 7:4 the port type, 8 slot implemented.
    pub const CAPABILITIES: u16 = 0x02;
    /// Device capabilities.
    pub const DEVICE_CAPABILITIES: u16 = 0x04;
    /// Device control, 2 bytes.
    pub const DEVICE_CONTROL: u16 = 0x08;
    /// Device status, 2 bytes.
    pub const DEVICE_STATUS: u16 = 0x0a;
    /// Link capabilities.
    pub const LINK_CAPABILITIES: u16 = 0x0c;
    /// Link control, 2 bytes.
    pub const LINK_CONTROL: u16 = 0x10;
    /// Link status, 2 bytes.
    pub const LINK_STATUS: u16 = 0x12;
    /// Slot capabilities.
    pub const SLOT_CAPABILITIES: u16 = 0x14;
    /// Slot control, 2 bytes.
    pub const SLOT_CONTROL: u16 = 0x18;
    /// Slot status, 2 bytes.
    pub const SLOT_STATUS: u16 = 0x1a;
    /// Root control, 2 bytes.
    pub const ROOT_CONTROL: u16 = 0x1c;
    /// Root capabilities, 2 bytes.
    pub const ROOT_CAPABILITIES: u16 = 0x1e;
    /// Root status.
    pub const ROOT_STATUS: u16 = 0x20;
    /// Device capabilities 2.
    pub const DEVICE_CAPABILITIES_2: u16 = 0x24;
    /// Device control 2, 2 bytes.
    pub const DEVICE_CONTROL_2: u16 = 0x28;
    /// Link capabilities 2.
    pub const LINK_CAPABILITIES_2: u16 = 0x2c;
    /// Link control 2, 2 bytes.
    pub const LINK_CONTROL_2: u16 = 0x30;
    /// Length in bytes of a version 2 capability.
    pub const LENGTH: u16 = 0x3c;
}

/// What a function is: bits 7:4 of the capabilities register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PortType {
    /// PCI Express endpoint.
    Endpoint = 0,
    /// Legacy endpoint.
    LegacyEndpoint = 1,
    /// Root port of a root complex.
    RootPort = 4,
    /// Upstream port of a switch.
    UpstreamPort = 5,
    /// Downstream port of a switch.
    DownstreamPort = 6,
    /// PCI Express to PCI bridge.
    ToPciBridge = 7,
    /// Root-complex integrated endpoint.
    IntegratedEndpoint = 9,
    /// Root-complex event collector.
    EventCollector = 10,
}

named_bits! {
    /// Device capabilities. Bits 2:0 are the maximum payload size, 128 bytes shifted left.
    DeviceCapabilities(u32) {
        5 EXTENDED_TAG "extended tags supported";
        15 ROLE_BASED_ERRORS "role-based error reporting";
        28 FLR "function-level reset supported";
    }
}

named_bits! {
    /// Device control.
    DeviceControl(u16) {
        0 CORRECTABLE "correctable error reporting enable";
        1 NON_FATAL "non-fatal error reporting enable";
        2 FATAL "fatal error reporting enable";
        3 UNSUPPORTED "unsupported request reporting enable";
        4 RELAXED_ORDERING "relaxed ordering enable";
        8 EXTENDED_TAG "extended tag enable";
        11 NO_SNOOP "no-snoop enable";
        15 INITIATE_FLR "initiate function-level reset";
    }
}

/// The offset of a function's configuration space in an ECAM window.
#[must_use]
pub const fn ecam_offset(bdf: super::config::Bdf) -> u64 {
    (bdf.0 as u64) << 12
}

/// Bytes of an ECAM window for each bus.
pub const ECAM_BYTES_PER_BUS: u64 = 1 << 20;
