//! MSI and MSI-X (PCI Local Bus 3.0, 6.8; message format: SDM Vol. 3A, 11.11).

/// The MSI capability: offsets from its start.
pub mod msi {
    /// Message control, 2 bytes.
    pub const CONTROL: u16 = 2;
    /// Message address, low half.
    pub const ADDRESS: u16 = 4;
    /// Message address, high half (64-bit capability).
    pub const ADDRESS_HIGH: u16 = 8;
    /// Message data, 32-bit capability.
    pub const DATA_32: u16 = 8;
    /// Message data, 64-bit capability.
    pub const DATA_64: u16 = 12;
}

named_bits! {
    /// MSI message control. Bits 3:1 are the log2 of vectors asked for, 6:4 of vectors enabled.
    MsiControl(u16) {
        0 ENABLE "MSI enable";
        7 ADDRESS_64 "64-bit address capable";
        8 PER_VECTOR_MASKING "per-vector masking capable";
    }
}

/// The MSI-X capability: offsets from its start.
pub mod msix {
    /// Message control, 2 bytes.
    pub const CONTROL: u16 = 2;
    /// Table: bits 2:0 the BAR, the rest the offset.
    pub const TABLE: u16 = 4;
    /// Pending bit array: bits 2:0 the BAR, the rest the offset.
    pub const PBA: u16 = 8;
    /// Length of the capability in bytes.
    pub const LENGTH: u16 = 12;
    /// Length of a table entry in bytes: address low, address high, data, vector control.
    pub const ENTRY_SIZE: u64 = 16;
    /// Offset of the address's low half in an entry.
    pub const ENTRY_ADDRESS: u64 = 0;
    /// Offset of the address's high half in an entry.
    pub const ENTRY_ADDRESS_HIGH: u64 = 4;
    /// Offset of the data in an entry.
    pub const ENTRY_DATA: u64 = 8;
    /// Offset of the vector control in an entry.
    pub const ENTRY_CONTROL: u64 = 12;
    /// Vector control bit 0: masked.
    pub const ENTRY_MASKED: u32 = 1;
    /// The most vectors a function can have.
    pub const MAX_VECTORS: u16 = 2048;
}

named_bits! {
    /// MSI-X message control. Bits 10:0 are the number of vectors less 1.
    MsixControl(u16) {
        14 FUNCTION_MASK "function mask";
        15 ENABLE "MSI-X enable";
    }
}

/// The first address of the range that messages to local APICs use; bits 31:20 are FEEH.
pub const MESSAGE_BASE: u64 = 0xfee0_0000;

named_bits! {
    /// A message's address in compatibility format (SDM Vol. 3A, 11.11.1). Bits 19:12 are the destination ID.
    MessageAddress(u32) {
        2 LOGICAL "destination mode: logical";
        3 REDIRECTION_HINT "redirection hint: to the processor of lowest priority";
        4 REMAPPABLE "remappable format (VT-d interrupt remapping)";
    }
}

impl MessageAddress {
    /// The destination ID.
    #[must_use]
    pub const fn destination(self) -> u8 {
        (self.0 >> 12) as u8
    }
}

named_bits! {
    /// A message's data in compatibility format (SDM Vol. 3A, 11.11.2). Bits 7:0 are the vector, 10:8 the delivery mode.
    MessageData(u32) {
        14 ASSERT "level: assert";
        15 LEVEL "trigger mode: level";
    }
}
