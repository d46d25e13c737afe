//! Interrupt remapping and posting (VT-d, chapter 5; 9.10 to 9.12).

/// A remappable request's address (VT-d, 5.1.2.2). Bit 4 tells the format, as in [`crate::pci::message::MessageAddress::REMAPPABLE`].
pub mod request {
    /// Bit 4: remappable format.
    pub const REMAPPABLE: u64 = 1 << 4;
    /// Bit 3: the data's subhandle is added to the handle.
    pub const SUBHANDLE_VALID: u64 = 1 << 3;
    /// Bit 2: bit 15 of the handle.
    pub const HANDLE_HIGH: u64 = 1 << 2;
    /// Position of bits 14:0 of the handle, bits 19:5.
    pub const HANDLE_SHIFT: u32 = 5;
    /// The subhandle in the data; the other bits are reserved.
    pub const SUBHANDLE: u32 = 0xffff;

    /// The address of a request for the interrupt-remapping entry `index`, without a subhandle.
    #[must_use]
    pub const fn address(index: u16) -> u64 {
        let high = if index >> 15 != 0 { HANDLE_HIGH } else { 0 };
        crate::pci::message::MESSAGE_BASE | REMAPPABLE | high | (index as u64 & 0x7fff) << HANDLE_SHIFT
    }
}

/// The interrupt-remapping table entry, 16 bytes: its two quadwords (VT-d, 9.10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemappingEntry {
    /// The low quadword.
    pub low: u64,
    /// The high quadword.
    pub high: u64,
}

impl RemappingEntry {
    /// Size in bytes.
    pub const SIZE: u64 = 16;
    /// Bit 0: present.
    pub const PRESENT: u64 = 1 << 0;
    /// Bit 1: faults are not recorded.
    pub const FAULT_PROCESSING_DISABLED: u64 = 1 << 1;
    /// Bit 2: logical destination.
    pub const LOGICAL: u64 = 1 << 2;
    /// Bit 3: redirection hint.
    pub const REDIRECTION_HINT: u64 = 1 << 3;
    /// Bit 4: level-triggered.
    pub const LEVEL: u64 = 1 << 4;
    /// Position of the delivery mode, bits 7:5.
    pub const DELIVERY_SHIFT: u32 = 5;
    /// Bit 14 of a posted entry: urgent.
    pub const URGENT: u64 = 1 << 14;
    /// Bit 15: posted instead of remapped.
    pub const POSTED: u64 = 1 << 15;
    /// Position of the vector, bits 23:16.
    pub const VECTOR_SHIFT: u32 = 16;
    /// Reserved bits of the low quadword of a remapped entry.
    pub const RESERVED_LOW: u64 = 0xff00_7000;
    /// Reserved bits of the low quadword of a posted entry.
    pub const POSTED_RESERVED_LOW: u64 = 0x3f_ff00_30fc;
    /// Reserved bits of the high quadword of a remapped entry.
    pub const RESERVED_HIGH: u64 = !0xf_ffff;
    /// Reserved bits of the high quadword of a posted entry.
    pub const POSTED_RESERVED_HIGH: u64 = 0xfff0_0000;

    /// Position of the source validation type, bits 83:82, in the high quadword.
    pub const VALIDATION_SHIFT: u32 = 18;

    /// An entry that is not present.
    pub const ABSENT: Self = Self { low: 0, high: 0 };

    /// Edge-triggered with fixed delivery of `vector` to the processor whose 8-bit APIC id is `destination`, for `source` alone.
    #[must_use]
    pub const fn remapped(vector: u8, destination: u8, source: u16) -> Self {
        let low = Self::PRESENT | (vector as u64) << Self::VECTOR_SHIFT | (destination as u64) << 40;
        Self { low, high: Self::verified(source) }
    }

    /// Posts `vector` to the descriptor at `descriptor`, a multiple of 64, for `source` alone.
    #[must_use]
    pub const fn posted(vector: u8, descriptor: u64, source: u16) -> Self {
        let low = Self::PRESENT | Self::POSTED | (vector as u64) << Self::VECTOR_SHIFT | descriptor << 32;
        Self { low, high: Self::verified(source) | descriptor & !0xffff_ffff }
    }

    /// All of the source id is verified.
    const fn verified(source: u16) -> u64 {
        1 << Self::VALIDATION_SHIFT | source as u64
    }

    /// Whether the entry is present.
    #[must_use]
    pub const fn is_present(self) -> bool {
        self.low & Self::PRESENT != 0
    }

    /// Whether the interrupt is posted instead of remapped.
    #[must_use]
    pub const fn is_posted(self) -> bool {
        self.low & Self::POSTED != 0
    }

    /// The vector.
    #[must_use]
    pub const fn vector(self) -> u8 {
        (self.low >> Self::VECTOR_SHIFT) as u8
    }

    /// The destination field, bits 63:32 of a remapped entry: 32 bits in extended interrupt mode, else an 8-bit id in bits 15:8.
    #[must_use]
    pub const fn destination(self) -> u32 {
        (self.low >> 32) as u32
    }

    /// The source id that is verified.
    #[must_use]
    pub const fn source(self) -> u16 {
        self.high as u16
    }

    /// Source-id qualifier: how many low bits of the function number are ignored, 0 to 3.
    #[must_use]
    pub const fn qualifier(self) -> u8 {
        (self.high >> 16 & 3) as u8
    }

    /// Source validation type: 0 none, 1 source id with qualifier, 2 range of buses, 3 reserved.
    #[must_use]
    pub const fn validation(self) -> u8 {
        (self.high >> 18 & 3) as u8
    }

    /// Address of the posted-interrupt descriptor of a posted entry, a multiple of 64.
    #[must_use]
    pub const fn descriptor(self) -> u64 {
        self.low >> 32 & 0xffff_ffc0 | self.high & 0xffff_ffff_0000_0000
    }
}

/// The posted-interrupt descriptor's control quadword as VT-d has it (VT-d, 9.12); its other fields are in
/// [`crate::vmx::posted_interrupts`].
pub mod posted {
    /// Reserved bits of the control quadword: 15:2 and 31:24.
    pub const RESERVED: u64 = 0xff00_fffc;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_say_what_they_were_made_of() {
        let entry = RemappingEntry::posted(0x61, 0x1_2345_6780, 0x28);
        assert!(entry.is_present() && entry.is_posted());
        assert_eq!((entry.vector(), entry.descriptor(), entry.source()), (0x61, 0x1_2345_6780, 0x28));
        assert_eq!((entry.validation(), entry.qualifier()), (1, 0));
        assert_eq!(entry.low & RemappingEntry::POSTED_RESERVED_LOW, 0);
        assert_eq!(entry.high & RemappingEntry::POSTED_RESERVED_HIGH, 0);
        let entry = RemappingEntry::remapped(0x40, 3, 0x28);
        assert!(entry.is_present() && !entry.is_posted());
        assert_eq!((entry.vector(), entry.destination() >> 8, entry.validation()), (0x40, 3, 1));
        assert_eq!((entry.low & RemappingEntry::RESERVED_LOW, entry.high & RemappingEntry::RESERVED_HIGH), (0, 0));
    }

    #[test]
    fn a_request_has_its_handle_in_two_places() {
        assert_eq!(request::address(9), 0xfee0_0130);
        assert_eq!(request::address(0x8001), 0xfee0_0034);
    }
}
