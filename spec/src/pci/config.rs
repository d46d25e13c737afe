//! The header of configuration space: offsets and bits (PCI Local Bus 3.0, 6.1 and 6.2; PCI Express Base 7.5.1).

/// The port of the address register of configuration mechanism 1.
pub const CONFIG_ADDRESS: u16 = 0xcf8;
/// The port of the data register of configuration mechanism 1.
pub const CONFIG_DATA: u16 = 0xcfc;

/// Vendor ID, 2 bytes; FFFFH where no function answers.
pub const VENDOR_ID: u16 = 0x00;
/// Device ID, 2 bytes.
pub const DEVICE_ID: u16 = 0x02;
/// Command, 2 bytes.
pub const COMMAND: u16 = 0x04;
/// Status, 2 bytes.
pub const STATUS: u16 = 0x06;
/// Revision ID, 1 byte.
pub const REVISION_ID: u16 = 0x08;
/// Class code, 3 bytes: interface, sub-class, class.
pub const CLASS_CODE: u16 = 0x09;
/// Cache line size, 1 byte.
pub const CACHE_LINE_SIZE: u16 = 0x0c;
/// Latency timer, 1 byte.
pub const LATENCY_TIMER: u16 = 0x0d;
/// Header type, 1 byte: bit 7 for a multi-function device, bits 6:0 the layout.
pub const HEADER_TYPE: u16 = 0x0e;
/// Built-in self test, 1 byte.
pub const BIST: u16 = 0x0f;
/// Base address register 0; up to 5 (type 0) or 1 (type 1) follow, 4 bytes apart.
pub const BAR0: u16 = 0x10;
/// Subsystem vendor ID, 2 bytes (type 0).
pub const SUBSYSTEM_VENDOR_ID: u16 = 0x2c;
/// Subsystem ID, 2 bytes (type 0).
pub const SUBSYSTEM_ID: u16 = 0x2e;
/// Expansion ROM base address (type 0).
pub const ROM: u16 = 0x30;
/// First capability's offset, 1 byte.
pub const CAPABILITIES: u16 = 0x34;
/// Interrupt line, 1 byte.
pub const INTERRUPT_LINE: u16 = 0x3c;
/// Interrupt pin, 1 byte: 0 none, 1 to 4 INTA# to INTD#.
pub const INTERRUPT_PIN: u16 = 0x3d;

/// Header type bits.
pub mod header_type {
    /// An endpoint.
    pub const ENDPOINT: u8 = 0;
    /// A PCI-to-PCI bridge.
    pub const BRIDGE: u8 = 1;
    /// Functions other than 0 exist.
    pub const MULTI_FUNCTION: u8 = 0x80;
}

/// Offsets in the type 1 (bridge) header.
pub mod bridge {
    /// Primary bus number, 1 byte.
    pub const PRIMARY_BUS: u16 = 0x18;
    /// Secondary bus number, 1 byte.
    pub const SECONDARY_BUS: u16 = 0x19;
    /// Subordinate bus number, 1 byte.
    pub const SUBORDINATE_BUS: u16 = 0x1a;
    /// Secondary latency timer, 1 byte.
    pub const SECONDARY_LATENCY: u16 = 0x1b;
    /// I/O base, 1 byte.
    pub const IO_BASE: u16 = 0x1c;
    /// I/O limit, 1 byte.
    pub const IO_LIMIT: u16 = 0x1d;
    /// Secondary status, 2 bytes.
    pub const SECONDARY_STATUS: u16 = 0x1e;
    /// Memory base, 2 bytes.
    pub const MEMORY_BASE: u16 = 0x20;
    /// Memory limit, 2 bytes.
    pub const MEMORY_LIMIT: u16 = 0x22;
    /// Prefetchable memory base, 2 bytes.
    pub const PREFETCHABLE_BASE: u16 = 0x24;
    /// Prefetchable memory limit, 2 bytes.
    pub const PREFETCHABLE_LIMIT: u16 = 0x26;
    /// Prefetchable base, upper 32 bits.
    pub const PREFETCHABLE_BASE_UPPER: u16 = 0x28;
    /// Prefetchable limit, upper 32 bits.
    pub const PREFETCHABLE_LIMIT_UPPER: u16 = 0x2c;
    /// I/O base, upper 16 bits.
    pub const IO_BASE_UPPER: u16 = 0x30;
    /// I/O limit, upper 16 bits.
    pub const IO_LIMIT_UPPER: u16 = 0x32;
    /// Expansion ROM base address.
    pub const ROM: u16 = 0x38;
    /// Bridge control, 2 bytes.
    pub const CONTROL: u16 = 0x3e;
}

named_bits! {
    /// The command register.
    Command(u16) {
        0 IO "I/O space enable";
        1 MEMORY "memory space enable";
        2 BUS_MASTER "bus master enable";
        3 SPECIAL_CYCLES "special cycle enable";
        4 MEMORY_WRITE_INVALIDATE "memory write and invalidate enable";
        5 VGA_SNOOP "VGA palette snoop";
        6 PARITY "parity error response";
        8 SERR "SERR# enable";
        9 FAST_BACK_TO_BACK "fast back-to-back enable";
        10 INTX_DISABLE "interrupt (INTx) disable";
    }
}

named_bits! {
    /// The status register. Bits 8, 11 to 15 are cleared by writing 1.
    Status(u16) {
        3 INTERRUPT "interrupt (INTx) pending";
        4 CAPABILITIES "capabilities list present";
        5 CAPABLE_66MHZ "66 MHz capable";
        7 FAST_BACK_TO_BACK "fast back-to-back capable";
        8 MASTER_DATA_PARITY "master data parity error";
        11 SIGNALED_TARGET_ABORT "signaled target abort";
        12 RECEIVED_TARGET_ABORT "received target abort";
        13 RECEIVED_MASTER_ABORT "received master abort";
        14 SIGNALED_SYSTEM_ERROR "signaled system error";
        15 DETECTED_PARITY "detected parity error";
    }
}

named_bits! {
    /// The low bits of a base address register. Bits 2:1 of a memory BAR are its width.
    Bar(u32) {
        0 IO "I/O space";
        2 MEMORY_64 "64-bit memory address; the next register holds the upper half";
        3 PREFETCHABLE "prefetchable memory";
    }
}

impl Bar {
    /// The address bits of an I/O BAR.
    pub const IO_ADDRESS: u32 = 0xffff_fffc;
    /// The address bits of a memory BAR.
    pub const MEMORY_ADDRESS: u32 = 0xffff_fff0;
    /// Bit 0 of the expansion ROM register: enable.
    pub const ROM_ENABLE: u32 = 1;
}

/// Class, sub-class and interface as one 24-bit number (PCI Code and ID Assignment).
pub mod class {
    /// SATA controller, AHCI.
    pub const SATA_AHCI: u32 = 0x01_06_01;
    /// SCSI storage controller.
    pub const SCSI: u32 = 0x01_00_00;
    /// Other mass storage.
    pub const STORAGE_OTHER: u32 = 0x01_80_00;
    /// Ethernet controller.
    pub const ETHERNET: u32 = 0x02_00_00;
    /// VGA-compatible controller.
    pub const VGA: u32 = 0x03_00_00;
    /// Host bridge.
    pub const HOST_BRIDGE: u32 = 0x06_00_00;
    /// ISA bridge.
    pub const ISA_BRIDGE: u32 = 0x06_01_00;
    /// PCI-to-PCI bridge.
    pub const PCI_BRIDGE: u32 = 0x06_04_00;
    /// Simple communication controller, other.
    pub const COMMUNICATION_OTHER: u32 = 0x07_80_00;
    /// SMBus controller.
    pub const SMBUS: u32 = 0x0c_05_00;
    /// Unclassified.
    pub const OTHER: u32 = 0xff_00_00;
}

/// A function's address: bus, device and function, as in a requester ID.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bdf(pub u16);

impl Bdf {
    /// From bus, device (0 to 31) and function (0 to 7); higher bits of the last two are dropped.
    #[must_use]
    pub const fn new(bus: u8, device: u8, function: u8) -> Bdf {
        Bdf((bus as u16) << 8 | (device as u16 & 0x1f) << 3 | function as u16 & 7)
    }

    /// The bus number.
    #[must_use]
    pub const fn bus(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// The device number.
    #[must_use]
    pub const fn device(self) -> u8 {
        (self.0 >> 3) as u8 & 0x1f
    }

    /// The function number.
    #[must_use]
    pub const fn function(self) -> u8 {
        self.0 as u8 & 7
    }
}
