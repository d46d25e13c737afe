//! Extended page tables: entries, the EPT pointer, INVEPT and INVVPID (SDM Vol. 3C, 25.6.11 and 29.3; 31.3).

named_bits! {
    /// An EPT paging-structure entry (SDM Vol. 3C, tables 29-1 to 29-6).
    EptEntry(u64) {
        0 READ "read access";
        1 WRITE "write access";
        2 EXECUTE "execute access (with mode-based execute control: for supervisor-mode linear addresses)";
        6 IGNORE_PAT "ignore PAT (in entries that map a page)";
        7 PAGE "maps a page (in a PDPTE or PDE)";
        8 ACCESSED "accessed";
        9 DIRTY "dirty (in entries that map a page)";
        10 EXECUTE_USER "execute access for user-mode linear addresses";
        57 VERIFY_GUEST_PAGING "verify guest paging";
        58 PAGING_WRITE "paging-write access";
        60 SUPERVISOR_SHADOW_STACK "supervisor shadow stack";
        61 SUB_PAGE_WRITE "sub-page write permissions";
        63 SUPPRESS_VE "suppress #VE";
    }
}

impl EptEntry {
    /// Read, write and execute access.
    pub const PERMISSIONS: u64 = EptEntry::READ | EptEntry::WRITE | EptEntry::EXECUTE;
    /// Position of the memory type, bits 5:3, in entries that map a page.
    pub const MEMORY_TYPE_SHIFT: u32 = 3;
    /// The physical address, bits 51:12.
    pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
    /// Reserved in an entry that refers to another table: bits 7:3 of a PML4E, 6:3 of a PDPTE or PDE.
    pub const TABLE_RESERVED: u64 = 0x78;
}

/// The EPT pointer (SDM Vol. 3C, table 25-9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Eptp(pub u64);

impl Eptp {
    /// Bit 6: accessed and dirty flags enabled.
    pub const ACCESSED_DIRTY: u64 = 1 << 6;
    /// Bit 7: supervisor shadow-stack control.
    pub const SUPERVISOR_SHADOW_STACK: u64 = 1 << 7;
    /// The address of the top-level table.
    pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
    /// Bits 11:8, reserved.
    pub const RESERVED: u64 = 0xf00;

    /// The memory type of the paging structures, bits 2:0.
    #[must_use]
    pub const fn memory_type(self) -> u8 {
        (self.0 & 7) as u8
    }

    /// The page-walk length, bits 5:3 plus 1.
    #[must_use]
    pub const fn walk_length(self) -> u8 {
        (self.0 >> 3 & 7) as u8 + 1
    }

    /// Whether supervisor shadow-stack accesses are allowed only where the entry that maps the page says so.
    #[must_use]
    pub const fn supervisor_shadow_stack(self) -> bool {
        self.0 & Self::SUPERVISOR_SHADOW_STACK != 0
    }

    /// Whether accessed and dirty flags are enabled.
    #[must_use]
    pub const fn accessed_dirty(self) -> bool {
        self.0 & Eptp::ACCESSED_DIRTY != 0
    }

    /// The address of the top-level table.
    #[must_use]
    pub const fn table(self) -> u64 {
        self.0 & Eptp::ADDRESS
    }
}

/// The sub-page-permission table: 4 levels of tables (SDM Vol. 3C, 29.3.4).
pub mod sub_page {
    /// Bit 0 of an entry above the last level: it refers to a table.
    pub const VALID: u64 = 1;
    /// The address in such an entry, bits 51:12. All other bits are reserved.
    pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
    /// The bits of an entry of the last level that are not reserved: bit 2n is 1 if the n-th 128 bytes of the page can be written.
    pub const WRITABLE: u64 = 0x5555_5555_5555_5555;
}

/// The virtualization-exception information area (SDM Vol. 3C, table 26-1): offsets.
pub mod ve_information {
    /// The exit reason that an EPT violation would have had (32 bits).
    pub const REASON: u64 = 0;
    /// FFFFFFFFH while the area is in use; no virtualization exception occurs unless it is 0 (32 bits).
    pub const BUSY: u64 = 4;
    /// The exit qualification (64 bits).
    pub const QUALIFICATION: u64 = 8;
    /// The guest-linear address (64 bits).
    pub const LINEAR: u64 = 16;
    /// The guest-physical address (64 bits).
    pub const PHYSICAL: u64 = 24;
    /// The EPTP index (16 bits).
    pub const EPTP_INDEX: u64 = 32;
}

/// INVEPT types (SDM Vol. 3C, 31.3, INVEPT).
pub mod invept_type {
    /// One EPTP.
    pub const SINGLE_CONTEXT: u64 = 1;
    /// Every EPTP.
    pub const ALL_CONTEXT: u64 = 2;
}

/// INVVPID types (SDM Vol. 3C, 31.3, INVVPID).
pub mod invvpid_type {
    /// One address of one VPID.
    pub const INDIVIDUAL_ADDRESS: u64 = 0;
    /// One VPID.
    pub const SINGLE_CONTEXT: u64 = 1;
    /// Every VPID but 0.
    pub const ALL_CONTEXT: u64 = 2;
    /// One VPID, but not its global translations.
    pub const SINGLE_CONTEXT_RETAINING_GLOBALS: u64 = 3;
}
