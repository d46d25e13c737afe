//! Descriptors of the invalidation queue (VT-d, 6.5.2), and why the queue stops.

/// An enumeration whose values are known to be all there are.
macro_rules! listed {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $code:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum $name {
            $($(#[$doc])* $variant = $code,)*
        }

        impl $name {
            /// All there are.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];
        }
    };
}

listed! {
    /// What a descriptor asks for. Bits 3:0 of its first quadword are the low bits of the type, 11:9 the high ones.
    DescriptorType {
        /// Context cache (6.5.2.1).
        ContextCache = 1,
        /// IOTLB (6.5.2.3).
        Iotlb = 2,
        /// Device TLB, requests without PASID (6.5.2.5).
        DeviceTlb = 3,
        /// Interrupt entry cache (6.5.2.7).
        InterruptEntryCache = 4,
        /// Wait (6.5.2.8).
        Wait = 5,
        /// IOTLB, by PASID (6.5.2.4).
        PasidIotlb = 6,
        /// PASID cache (6.5.2.2).
        PasidCache = 7,
        /// Device TLB, requests with PASID (6.5.2.6).
        PasidDeviceTlb = 8,
        /// Page group response (7.7.1).
        PageGroupResponse = 9,
    }
}

impl DescriptorType {
    /// The type of a descriptor, from its first quadword.
    #[must_use]
    pub fn of(first: u64) -> Option<Self> {
        let number = (first & 0xf | first >> 5 & 0x70) as u8;
        Self::ALL.iter().copied().find(|kind| *kind as u8 == number)
    }

    /// The bits of quadwords 0 and 1 that are reserved.
    #[must_use]
    pub const fn reserved(self) -> (u64, u64) {
        match self {
            Self::ContextCache => (0xfffc_0000_0000_f1c0, !0),
            Self::Iotlb => (0xffff_ffff_0000_f100, 0xf80),
            Self::DeviceTlb => (0x000f_0000_ffe0_01f0, 0xffe),
            Self::InterruptEntryCache => (0xffff_0000_07ff_f1e0, !0),
            Self::Wait => (0xffff_f100, 3),
            Self::PasidIotlb => (0xfff0_0000_0000_f1c0, 0xf80),
            Self::PasidCache => (0xfff0_0000_0000_f1c0, !0),
            Self::PasidDeviceTlb => (0, 0x7fe),
            Self::PageGroupResponse => (0xfff0_0000_0000_01c0, 0xffff_ffff_ffff_f003),
        }
    }
}

/// Position of the granularity in descriptors that have one, bits 5:4.
pub const GRANULARITY_SHIFT: u32 = 4;
/// Position of the domain id, bits 31:16.
pub const DOMAIN_SHIFT: u32 = 16;
/// Position of the source id in context-cache and device-TLB descriptors, bits 47:32.
pub const SOURCE_SHIFT: u32 = 32;
/// Position of the function mask in a context-cache descriptor, bits 49:48.
pub const FUNCTION_MASK_SHIFT: u32 = 48;
/// Position of the PASID, bits 51:32.
pub const PASID_SHIFT: u32 = 32;
/// Position of the source id in PASID-based device-TLB descriptors and page group responses, bits 31:16.
pub const PASID_SOURCE_SHIFT: u32 = 16;

/// Granularities of context-cache and IOTLB invalidation.
pub mod granularity {
    /// Everything.
    pub const GLOBAL: u64 = 1;
    /// One domain.
    pub const DOMAIN: u64 = 2;
    /// One device of a domain, or one range of pages of a domain.
    pub const SELECTIVE: u64 = 3;
}

/// Granularities of PASID-cache invalidation.
pub mod pasid_granularity {
    /// All PASIDs of a domain.
    pub const DOMAIN: u64 = 0;
    /// One PASID of a domain.
    pub const PASID: u64 = 1;
    /// Everything.
    pub const GLOBAL: u64 = 3;
}

/// Granularities of PASID-based IOTLB invalidation.
pub mod pasid_iotlb_granularity {
    /// One PASID of a domain.
    pub const PASID: u64 = 2;
    /// One range of pages of a PASID.
    pub const PAGES: u64 = 3;
}

/// IOTLB descriptors, second quadword: the address mask, bits 5:0; 2^n pages.
pub const ADDRESS_MASK: u64 = 0x3f;
/// IOTLB descriptors, second quadword, bit 6: only leaf entries changed.
pub const LEAF_ONLY: u64 = 1 << 6;
/// Device-TLB descriptor, second quadword, bit 0: the address tells a range of more than one page.
pub const DEVICE_TLB_SIZE: u64 = 1 << 0;
/// PASID-based device-TLB descriptor, second quadword, bit 0: all PASIDs.
pub const DEVICE_TLB_GLOBAL: u64 = 1 << 0;
/// PASID-based device-TLB descriptor, second quadword, bit 11: the address tells a range of more than one page.
pub const PASID_DEVICE_TLB_SIZE: u64 = 1 << 11;

/// Interrupt-entry-cache descriptor.
pub mod interrupt_entry {
    /// Bit 4: index-selective instead of global.
    pub const SELECTIVE: u64 = 1 << 4;
    /// Position of the index mask, bits 31:27.
    pub const MASK_SHIFT: u32 = 27;
    /// Position of the index, bits 47:32.
    pub const INDEX_SHIFT: u32 = 32;
}

/// Wait descriptor. Bits 63:32 are the status data; the second quadword is the status address.
pub mod wait {
    /// Bit 4: interrupt when complete.
    pub const INTERRUPT: u64 = 1 << 4;
    /// Bit 5: write the status data when complete.
    pub const STATUS_WRITE: u64 = 1 << 5;
    /// Bit 6: what follows starts only when all before is complete.
    pub const FENCE: u64 = 1 << 6;
    /// Bit 7: drain page requests.
    pub const PAGE_REQUEST_DRAIN: u64 = 1 << 7;
    /// Position of the status data.
    pub const DATA_SHIFT: u32 = 32;
}

listed! {
    /// Why the queue stopped: bits 3:0 of the error record (VT-d, 11.4.9.9).
    QueueError {
        /// The tail is beyond the end of the queue.
        InvalidTail = 1,
        /// A descriptor could not be read.
        Fetch = 2,
        /// A descriptor's type is not supported.
        InvalidType = 3,
        /// A reserved field is not 0, or a field's value is reserved.
        ReservedField = 4,
        /// The width of descriptors is not supported, or too small for the mode of translation.
        InvalidWidth = 5,
        /// The tail is not aligned to the descriptors.
        TailAlignment = 6,
        /// A descriptor that the mode of translation does not have.
        InvalidMode = 7,
    }
}
