//! What a remapping unit can do (VT-d, 11.4.2 and 11.4.3).

named_bits! {
    /// The single bits of CAP_REG; the fields are below.
    Capability(u64) {
        3 ADVANCED_FAULT_LOG "advanced fault logging";
        4 WRITE_BUFFER "needs write-buffer flushes";
        5 PROTECTED_LOW "protected low-memory region";
        6 PROTECTED_HIGH "protected high-memory region";
        7 CACHING_MODE "caches entries that are not present";
        22 ZERO_LENGTH_READ "zero-length reads of write-only pages";
        39 PAGE_SELECTIVE "page-selective invalidation";
        54 WRITE_DRAINING "write draining";
        55 READ_DRAINING "read draining";
        56 FIRST_STAGE_1G "first-stage pages of 1 GiB";
        59 POSTED_INTERRUPTS "posted interrupts";
        60 FIRST_STAGE_5_LEVELS "first-stage translation with 5 levels";
        61 ENHANCED_COMMANDS "enhanced commands";
        62 SET_INTERRUPT_TABLE_FLUSHES "setting the interrupt-remapping table pointer invalidates";
        63 SET_ROOT_TABLE_FLUSHES "setting the root-table pointer invalidates";
    }
}

impl Capability {
    /// Bits 2:0: domain ids have 4 + 2n bits.
    pub const DOMAINS_SHIFT: u32 = 0;
    /// Bits 12:8: the address widths supported; bit 1 of it 39 bits (3 levels), 2 48 bits (4), 3 57 bits (5).
    pub const WIDTHS_SHIFT: u32 = 8;
    /// Bits 21:16: the maximum guest address width, less 1.
    pub const MAXIMUM_WIDTH_SHIFT: u32 = 16;
    /// Bits 33:24: offset of the fault records in units of 16 bytes.
    pub const FAULT_RECORDS_SHIFT: u32 = 24;
    /// Bits 37:34: second-stage large pages; bit 0 of it 2 MiB, 1 1 GiB.
    pub const LARGE_PAGES_SHIFT: u32 = 34;
    /// Bits 47:40: the number of fault records, less 1.
    pub const FAULT_RECORD_COUNT_SHIFT: u32 = 40;
    /// Bits 53:48: the largest address mask.
    pub const MAXIMUM_MASK_SHIFT: u32 = 48;
}

named_bits! {
    /// The single bits of ECAP_REG; the fields are below.
    ExtendedCapability(u64) {
        0 COHERENT "page walks are coherent";
        1 QUEUED_INVALIDATION "queued invalidation";
        2 DEVICE_TLB "device TLBs";
        3 INTERRUPT_REMAPPING "interrupt remapping";
        4 EXTENDED_INTERRUPT_MODE "extended interrupt mode (x2APIC)";
        6 PASS_THROUGH "pass-through";
        7 SNOOP_CONTROL "snoop control";
        25 MEMORY_TYPES "memory types";
        26 NESTED "nested translation";
        29 PAGE_REQUESTS "page requests";
        30 EXECUTE_REQUESTS "execute requests";
        31 SUPERVISOR_REQUESTS "supervisor requests";
        33 NO_WRITE_FLAG "no-write flag";
        34 EXTENDED_ACCESSED "extended accessed flags";
        40 PASID "requests with PASID";
        41 DEVICE_TLB_THROTTLE "device-TLB invalidation throttling";
        42 PAGE_REQUEST_DRAIN "page-request draining";
        43 SCALABLE_MODE "scalable mode";
        44 VIRTUAL_COMMANDS "virtual commands";
        45 SECOND_STAGE_ACCESSED_DIRTY "accessed and dirty flags of the second stage";
        46 SECOND_STAGE "second-stage translation in scalable mode";
        47 FIRST_STAGE "first-stage translation";
        48 SCALABLE_WALK_COHERENT "page walks in scalable mode are coherent";
        49 RID_PASID "RID_PASID";
        51 PERFORMANCE_MONITORING "performance monitoring";
        52 ABORT_DMA "abort-DMA mode";
        53 RID_PRIVILEGE "RID_PRIV";
    }
}

impl ExtendedCapability {
    /// Bits 17:8: offset of the IOTLB registers in units of 16 bytes.
    pub const IOTLB_REGISTERS_SHIFT: u32 = 8;
    /// Bits 23:20: the largest handle mask of an interrupt-entry-cache invalidation.
    pub const MAXIMUM_HANDLE_MASK_SHIFT: u32 = 20;
    /// Bits 39:35: PASIDs have n + 1 bits.
    pub const PASID_SIZE_SHIFT: u32 = 35;
}
