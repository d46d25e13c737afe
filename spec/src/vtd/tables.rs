//! The tables in memory (VT-d, chapter 9).

/// The address in an entry, bits 63:12; those above the host address width are reserved.
pub const ADDRESS: u64 = !0xfff;
/// Bit 0 of root, context and PASID entries.
pub const PRESENT: u64 = 1 << 0;
/// Bit 1 of context entries, PASID directory and PASID table entries: faults are not recorded.
pub const FAULT_PROCESSING_DISABLED: u64 = 1 << 1;

/// The root entry, 16 bytes, one for each bus (VT-d, 9.1 and 9.2). In scalable mode the low quadword has the table of devices 0 to 15, the
/// high one that of 16 to 31.
pub mod root {
    /// Size in bytes.
    pub const SIZE: u64 = 16;
    /// Reserved bits of a quadword in use.
    pub const RESERVED: u64 = 0xffe;
}

/// The context entry of legacy mode, 16 bytes, one for each function (VT-d, 9.3).
pub mod context {
    /// Size in bytes.
    pub const SIZE: u64 = 16;
    /// Position of the translation type, bits 3:2 of the low quadword.
    pub const TYPE_SHIFT: u32 = 2;
    /// Type: untranslated requests are translated, translation and translated requests blocked.
    pub const TYPE_SECOND_STAGE: u64 = 0;
    /// Type: the device has a device TLB; all kinds of requests are allowed.
    pub const TYPE_DEVICE_TLB: u64 = 1;
    /// Type: untranslated requests pass as they are.
    pub const TYPE_PASS_THROUGH: u64 = 2;
    /// Reserved bits of the low quadword.
    pub const RESERVED_LOW: u64 = 0xff0;
    /// The address width, bits 2:0 of the high quadword: 1 3 levels, 2 4 levels, 3 5 levels.
    pub const WIDTH: u64 = 7;
    /// Position of the domain id, bits 23:8 of the high quadword.
    pub const DOMAIN_SHIFT: u32 = 8;
    /// Reserved bits of the high quadword.
    pub const RESERVED_HIGH: u64 = 0xffff_ffff_ff00_0080;
}

/// The context entry of scalable mode, 32 bytes (VT-d, 9.4).
pub mod scalable_context {
    /// Size in bytes.
    pub const SIZE: u64 = 32;
    /// Bit 2: the device has a device TLB.
    pub const DEVICE_TLB: u64 = 1 << 2;
    /// Bit 3: requests with PASID are allowed.
    pub const PASID_ENABLE: u64 = 1 << 3;
    /// Bit 4: page requests are allowed.
    pub const PAGE_REQUEST_ENABLE: u64 = 1 << 4;
    /// Reserved bits of the first quadword.
    pub const RESERVED_0: u64 = 0x1e0;
    /// Position of the PASID directory's size, bits 11:9: it has 2^(n+7) entries.
    pub const DIRECTORY_SIZE_SHIFT: u32 = 9;
    /// The PASID of requests without PASID, bits 19:0 of the second quadword.
    pub const RID_PASID: u64 = 0xf_ffff;
    /// Bit 20 of the second quadword: requests without PASID have supervisor privilege.
    pub const RID_PRIVILEGE: u64 = 1 << 20;
    /// Reserved bits of the second quadword.
    pub const RESERVED_1: u64 = !0x1f_ffff;
}

/// The PASID directory entry, 8 bytes (VT-d, 9.5).
pub mod pasid_directory {
    /// Size in bytes.
    pub const SIZE: u64 = 8;
    /// Reserved bits.
    pub const RESERVED: u64 = 0xffc;
    /// Entries in one PASID table, as a power of two.
    pub const TABLE_BITS: u32 = 6;
}

/// The PASID table entry, 64 bytes (VT-d, 9.6), by quadword.
pub mod pasid {
    /// Size in bytes.
    pub const SIZE: u64 = 64;
    /// Quadword 0: position of the second stage's address width, bits 4:2.
    pub const WIDTH_SHIFT: u32 = 2;
    /// Quadword 0: position of the translation type, bits 8:6.
    pub const TYPE_SHIFT: u32 = 6;
    /// Type: first stage only.
    pub const TYPE_FIRST_STAGE: u64 = 1;
    /// Type: second stage only.
    pub const TYPE_SECOND_STAGE: u64 = 2;
    /// Type: nested.
    pub const TYPE_NESTED: u64 = 3;
    /// Type: pass-through.
    pub const TYPE_PASS_THROUGH: u64 = 4;
    /// Quadword 0, bit 9: the second stage has accessed and dirty flags.
    pub const SECOND_STAGE_ACCESSED_DIRTY: u64 = 1 << 9;
    /// Quadword 0: reserved bits.
    pub const RESERVED_0: u64 = 0xc20;
    /// Quadword 1: the domain id, bits 15:0.
    pub const DOMAIN: u64 = 0xffff;
    /// Quadword 1: reserved bits. Page-walk snoop (23), page snoop (24) and memory types are accepted.
    pub const RESERVED_1: u64 = 0x7f_0000;
    /// Quadword 2, bit 0: supervisor requests are allowed.
    pub const SUPERVISOR_REQUESTS: u64 = 1 << 0;
    /// Quadword 2, bit 1: execute requests are allowed.
    pub const EXECUTE_REQUESTS: u64 = 1 << 1;
    /// Quadword 2: position of the first stage's paging mode, bits 3:2: 0 4 levels, 1 5 levels.
    pub const PAGING_MODE_SHIFT: u32 = 2;
    /// Quadword 2, bit 4: supervisor writes obey the write permission.
    pub const WRITE_PROTECT: u64 = 1 << 4;
    /// Quadword 2, bit 5: no-execute enable.
    pub const NO_EXECUTE: u64 = 1 << 5;
    /// Quadword 2, bit 6: supervisor-mode execution prevention.
    pub const SMEP: u64 = 1 << 6;
    /// Quadword 2, bit 7: extended accessed flags.
    pub const EXTENDED_ACCESSED: u64 = 1 << 7;
    /// Quadword 2: reserved bits.
    pub const RESERVED_2: u64 = 0xf00;
}

named_bits! {
    /// A second-stage paging entry (VT-d, 9.8). Bits 63:52 are ignored.
    SecondStageEntry(u64) {
        0 READ "read";
        1 WRITE "write";
        7 PAGE "maps a large page";
        8 ACCESSED "accessed";
        9 DIRTY "dirty";
        11 SNOOP "snoop";
    }
}

named_bits! {
    /// A first-stage paging entry (VT-d, 9.7).
    FirstStageEntry(u64) {
        0 PRESENT "present";
        1 WRITE "read/write";
        2 USER "user/supervisor";
        5 ACCESSED "accessed";
        6 DIRTY "dirty";
        7 PAGE "maps a large page";
        10 EXTENDED_ACCESSED "extended accessed";
        63 NO_EXECUTE "execute disable";
    }
}

/// The range of addresses in which a write is an interrupt request (VT-d, 3.14).
pub const INTERRUPT_RANGE: core::ops::RangeInclusive<u64> = 0xfee0_0000..=0xfeef_ffff;

/// Paging levels of an address-width field (context and PASID entries): 1, 2, 3 are 3, 4, 5 levels.
#[must_use]
pub const fn levels_of_width(width: u64) -> Option<u32> {
    match width {
        1..=3 => Some(width as u32 + 2),
        _ => None,
    }
}

/// Bits of the addresses that `levels` levels translate: 39, 48, 57.
#[must_use]
pub const fn address_bits(levels: u32) -> u32 {
    12 + 9 * levels
}
