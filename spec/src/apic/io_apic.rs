//! The I/O APIC (Intel 82093AA datasheet, chapter 3).

/// The address where PCs have the first I/O APIC.
pub const DEFAULT_ADDRESS: u64 = 0xfec0_0000;
/// Offset of the index register (IOREGSEL).
pub const REGISTER_SELECT: u16 = 0x00;
/// Offset of the data register (IOWIN).
pub const WINDOW: u16 = 0x10;
/// Offset of the EOI register (version 20H and later).
pub const EOI: u16 = 0x40;

/// Indices of the registers.
pub mod index {
    /// Identification: bits 27:24.
    pub const ID: u8 = 0x00;
    /// Version (bits 7:0) and highest redirection entry (bits 23:16).
    pub const VERSION: u8 = 0x01;
    /// Arbitration.
    pub const ARBITRATION: u8 = 0x02;
    /// Low half of redirection entry 0; the high half follows, then the next entry.
    pub const REDIRECTION: u8 = 0x10;
}

named_bits! {
    /// A redirection table entry (82093AA, 3.2.4). Bits 7:0 are the vector, 10:8 the delivery mode, 63:56 the destination.
    Redirection(u64) {
        11 LOGICAL "destination mode: logical";
        12 DELIVERY_STATUS "delivery status: send pending";
        13 ACTIVE_LOW "pin polarity: active low";
        14 REMOTE_IRR "remote IRR: a level interrupt awaits its EOI";
        15 LEVEL "trigger mode: level";
        16 MASKED "masked";
    }
}

impl Redirection {
    /// Value after reset.
    pub const RESET: u64 = Redirection::MASKED;

    /// The vector.
    #[must_use]
    pub const fn vector(self) -> u8 {
        self.0 as u8
    }

    /// The destination's 8 bits.
    #[must_use]
    pub const fn destination(self) -> u8 {
        (self.0 >> 56) as u8
    }
}
