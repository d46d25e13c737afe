//! Bits of paging-structure entries (SDM Vol. 3A, chapter 4).

named_bits! {
    /// An entry of a PML5, PML4, PDPT, page directory or page table.
    Entry(u64) {
        0 P "present";
        1 RW "writable";
        2 US "user-mode accesses allowed";
        3 PWT "page-level write-through";
        4 PCD "page-level cache disable";
        5 A "accessed";
        6 D "dirty (in entries that map a page)";
        7 PS "maps a page (in a page table's entry: PAT)";
        8 G "global (in entries that map a page)";
        11 R "HLAT restart";
        12 PAT_LARGE "PAT, in entries that map a page larger than 4 KiB";
        63 XD "execute-disable";
    }
}

impl Entry {
    /// PAT, in entries that map a 4 KiB page.
    pub const PAT_4K: u64 = 1 << 7;
    /// The physical address of a table or a 4 KiB page, bits 51:12.
    pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
    /// The physical address of a 2 MiB page.
    pub const ADDRESS_2M: u64 = 0x000f_ffff_ffe0_0000;
    /// The physical address of a 1 GiB page.
    pub const ADDRESS_1G: u64 = 0x000f_ffff_c000_0000;
    /// The protection key, bits 62:59.
    pub const PROTECTION_KEY: u64 = 0xf << 59;
    /// Position of the protection key.
    pub const PROTECTION_KEY_SHIFT: u32 = 59;
    /// Bits that must be 0 in a PDPTE register of PAE paging, apart from those at and above MAXPHYADDR
    /// (SDM Vol. 3A, table 4-8): 2:1 and 8:5.
    pub const PAE_PDPTE_RESERVED: u64 = 0x1e6;
}

/// Memory types, in the encoding of PAT entries, MTRRs and EPT entries (SDM Vol. 3A, 12.11 and 12.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum MemoryType {
    /// UC, strong uncacheable.
    Uncacheable = 0,
    /// WC, write combining.
    WriteCombining = 1,
    /// WT, write-through.
    WriteThrough = 4,
    /// WP, write-protected.
    WriteProtected = 5,
    /// WB, write-back.
    WriteBack = 6,
    /// UC-, uncacheable that MTRRs can override to WC; PAT only.
    UncacheableMinus = 7,
}

impl MemoryType {
    /// The type with this number; `None` for the reserved 2, 3 and those above 7.
    #[must_use]
    pub const fn from_number(n: u8) -> Option<MemoryType> {
        Some(match n {
            0 => MemoryType::Uncacheable,
            1 => MemoryType::WriteCombining,
            4 => MemoryType::WriteThrough,
            5 => MemoryType::WriteProtected,
            6 => MemoryType::WriteBack,
            7 => MemoryType::UncacheableMinus,
            _ => return None,
        })
    }

    /// Whether every byte of `pat` (a value for IA32_PAT) is a memory type that PAT allows.
    #[must_use]
    pub const fn pat_is_valid(pat: u64) -> bool {
        let mut i = 0;
        while i < 8 {
            if MemoryType::from_number((pat >> (i * 8)) as u8).is_none() {
                return false;
            }
            i += 1;
        }
        true
    }
}

/// IA32_PAT after reset (SDM Vol. 3A, table 12-12).
pub const PAT_RESET: u64 = 0x0007_0406_0007_0406;
