//! The memory-mapped registers of a remapping unit (VT-d, 11.4): offsets and bits.

/// Version: minor in bits 3:0, major in 7:4.
pub const VERSION: u64 = 0x00;
/// Capabilities, 64 bits: [`super::capability::Capability`].
pub const CAPABILITY: u64 = 0x08;
/// Extended capabilities, 64 bits: [`super::capability::ExtendedCapability`].
pub const EXTENDED_CAPABILITY: u64 = 0x10;
/// Global command: [`GlobalCommand`].
pub const GLOBAL_COMMAND: u64 = 0x18;
/// Global status: [`GlobalCommand`], each bit telling the state of what the command with it asks for.
pub const GLOBAL_STATUS: u64 = 0x1c;
/// Root table address, 64 bits.
pub const ROOT_TABLE_ADDRESS: u64 = 0x20;
/// Context command, 64 bits: register-based invalidation of the context cache.
pub const CONTEXT_COMMAND: u64 = 0x28;
/// Fault status: [`FaultStatus`].
pub const FAULT_STATUS: u64 = 0x34;
/// Fault event control: [`EventControl`]. Data, address and upper address follow.
pub const FAULT_EVENT_CONTROL: u64 = 0x38;
/// Protected memory enable.
pub const PROTECTED_MEMORY_ENABLE: u64 = 0x64;
/// Base of the protected low memory region.
pub const PROTECTED_LOW_BASE: u64 = 0x68;
/// Limit of the protected low memory region.
pub const PROTECTED_LOW_LIMIT: u64 = 0x6c;
/// Base of the protected high memory region, 64 bits.
pub const PROTECTED_HIGH_BASE: u64 = 0x70;
/// Limit of the protected high memory region, 64 bits.
pub const PROTECTED_HIGH_LIMIT: u64 = 0x78;
/// Invalidation queue head, 64 bits.
pub const QUEUE_HEAD: u64 = 0x80;
/// Invalidation queue tail, 64 bits.
pub const QUEUE_TAIL: u64 = 0x88;
/// Invalidation queue address, 64 bits.
pub const QUEUE_ADDRESS: u64 = 0x90;
/// Invalidation completion status: bit 0, a wait descriptor with the interrupt flag is complete.
pub const COMPLETION_STATUS: u64 = 0x9c;
/// Invalidation event control: [`EventControl`]. Data, address and upper address follow.
pub const INVALIDATION_EVENT_CONTROL: u64 = 0xa0;
/// Invalidation queue error record, 64 bits.
pub const QUEUE_ERROR: u64 = 0xb0;
/// Interrupt remapping table address, 64 bits.
pub const INTERRUPT_TABLE_ADDRESS: u64 = 0xb8;
/// Page request queue head, 64 bits.
pub const PAGE_QUEUE_HEAD: u64 = 0xc0;
/// Page request queue tail, 64 bits.
pub const PAGE_QUEUE_TAIL: u64 = 0xc8;
/// Page request queue address, 64 bits.
pub const PAGE_QUEUE_ADDRESS: u64 = 0xd0;
/// Page request status: bit 0 pending request, bit 1 overflow.
pub const PAGE_REQUEST_STATUS: u64 = 0xdc;
/// Page request event control: [`EventControl`]. Data, address and upper address follow.
pub const PAGE_EVENT_CONTROL: u64 = 0xe0;
/// Size of the registers.
pub const SIZE: u64 = 0x1000;

named_bits! {
    /// Global command and global status (VT-d, 11.4.4).
    GlobalCommand(u32) {
        23 COMPATIBILITY_FORMAT "compatibility-format interrupts pass";
        24 SET_INTERRUPT_TABLE "set interrupt-remapping table pointer";
        25 INTERRUPT_REMAPPING "interrupt remapping enable";
        26 QUEUED_INVALIDATION "queued invalidation enable";
        27 WRITE_BUFFER_FLUSH "write buffer flush";
        28 ADVANCED_FAULT_LOG "advanced fault logging enable";
        29 SET_FAULT_LOG "set fault log pointer";
        30 SET_ROOT_TABLE "set root-table pointer";
        31 TRANSLATION "translation enable";
    }
}

named_bits! {
    /// Fault status (VT-d, 11.4.7.1). Bits 15:8 are the index of the first pending fault record.
    FaultStatus(u32) {
        0 OVERFLOW "primary fault overflow";
        1 PENDING "primary pending fault";
        4 QUEUE_ERROR "invalidation queue error";
        5 COMPLETION_ERROR "invalidation completion error";
        6 TIMEOUT_ERROR "invalidation time-out error";
        7 PAGE_REQUEST_OVERFLOW "page request overflow (deprecated)";
    }
}

impl FaultStatus {
    /// Position of the index of the first pending fault record.
    pub const RECORD_INDEX_SHIFT: u32 = 8;
    /// Software clears these by writing 1.
    pub const CLEARABLE: u32 = FaultStatus::OVERFLOW
        | FaultStatus::QUEUE_ERROR
        | FaultStatus::COMPLETION_ERROR
        | FaultStatus::TIMEOUT_ERROR
        | FaultStatus::PAGE_REQUEST_OVERFLOW;
}

named_bits! {
    /// Control of one of the unit's own events (VT-d, 11.4.7.2).
    EventControl(u32) {
        30 PENDING "interrupt pending";
        31 MASK "interrupt masked";
    }
}

/// The root table address register (VT-d, 11.4.5).
pub mod root_table {
    /// Position of the translation table mode, bits 11:10.
    pub const MODE_SHIFT: u32 = 10;
    /// Mode: legacy.
    pub const LEGACY: u64 = 0;
    /// Mode: scalable.
    pub const SCALABLE: u64 = 1;
    /// Mode: abort DMA.
    pub const ABORT: u64 = 3;
}

/// The context command register (VT-d, 11.4.6).
pub mod context_command {
    /// Bit 63: invalidate; reads 1 until done.
    pub const INVALIDATE: u64 = 1 << 63;
    /// Position of the granularity asked for: 1 global, 2 domain, 3 device.
    pub const GRANULARITY_SHIFT: u32 = 61;
    /// Position of the granularity performed.
    pub const PERFORMED_SHIFT: u32 = 59;
    /// Position of the function mask.
    pub const FUNCTION_MASK_SHIFT: u32 = 32;
    /// Position of the source id.
    pub const SOURCE_SHIFT: u32 = 16;
}

/// The IOTLB registers, at the offset that ECAP_REG tells (VT-d, 11.4.8).
pub mod iotlb {
    /// Offset of the invalidate address register: bits 5:0 the address mask, 6 the hint, 63:12 the address.
    pub const ADDRESS: u64 = 0;
    /// Offset of the invalidate register.
    pub const COMMAND: u64 = 8;
    /// Bit 63: invalidate; reads 1 until done.
    pub const INVALIDATE: u64 = 1 << 63;
    /// Position of the granularity asked for: 1 global, 2 domain, 3 page.
    pub const GRANULARITY_SHIFT: u32 = 60;
    /// Position of the granularity performed.
    pub const PERFORMED_SHIFT: u32 = 57;
    /// Position of the domain id.
    pub const DOMAIN_SHIFT: u32 = 32;
}

/// A fault recording register, 128 bits (VT-d, 11.4.7.6): bits of its high quadword. The low one is the address of the page, or the
/// interrupt index in bits 63:48.
pub mod fault_record {
    /// Length in bytes.
    pub const SIZE: u64 = 16;
    /// Bit 63: holds a fault.
    pub const FAULT: u64 = 1 << 63;
    /// Bit 62: type bit 1; read or AtomicOp (with type bit 2, bit 28, clear: 1 is a read, 0 a write).
    pub const READ: u64 = 1 << 62;
    /// Position of the address type, bits 61:60: 0 untranslated, 1 translation request, 2 translated.
    pub const ADDRESS_TYPE_SHIFT: u32 = 60;
    /// Position of the PASID, bits 59:40.
    pub const PASID_SHIFT: u32 = 40;
    /// Position of the fault reason, bits 39:32.
    pub const REASON_SHIFT: u32 = 32;
    /// Bit 31: the request had a PASID.
    pub const PASID_PRESENT: u64 = 1 << 31;
    /// Bit 30: execute permission was requested.
    pub const EXECUTE: u64 = 1 << 30;
    /// Bit 29: with supervisor privilege.
    pub const PRIVILEGED: u64 = 1 << 29;
    /// Bit 28: type bit 2; a page request.
    pub const PAGE_REQUEST: u64 = 1 << 28;
}

/// The interrupt remapping table address register (VT-d, 11.4.9.1).
pub mod interrupt_table {
    /// Bits 3:0: the table has 2^(n+1) entries.
    pub const SIZE: u64 = 0xf;
    /// Bit 11: extended interrupt mode; destinations have 32 bits (x2APIC).
    pub const EXTENDED: u64 = 1 << 11;
}

/// The invalidation queue's registers (VT-d, 11.4.9).
pub mod queue {
    /// Address register, bits 2:0: the queue has 2^n pages.
    pub const SIZE: u64 = 7;
    /// Address register, bit 11: descriptors have 256 bits instead of 128.
    pub const WIDE: u64 = 1 << 11;
    /// The bits of head and tail that count, with descriptors of 128 bits.
    pub const POINTER: u64 = 0x7_fff0;
    /// Completion status, bit 0: wait descriptor complete.
    pub const COMPLETE: u32 = 1;
    /// Error record: position of the source id of a time-out, bits 47:32.
    pub const TIMEOUT_SOURCE_SHIFT: u32 = 32;
    /// Error record: position of the source id of a completion error, bits 63:48.
    pub const COMPLETION_SOURCE_SHIFT: u32 = 48;
}

/// The page request queue's registers (VT-d, 11.4.10).
pub mod page_queue {
    /// The bits of head and tail that count.
    pub const POINTER: u64 = 0x7_ffe0;
    /// Status, bit 0: a page request is pending.
    pub const PENDING: u32 = 1 << 0;
    /// Status, bit 1: the queue overflowed.
    pub const OVERFLOW: u32 = 1 << 1;
}

/// Protected memory enable, bit 31 (VT-d, 11.4.12).
pub const PROTECTED_ENABLE: u32 = 1 << 31;
/// Protected memory status, bit 0.
pub const PROTECTED_STATUS: u32 = 1 << 0;
