//! Segment selectors and descriptors (SDM Vol. 3A, 3.4 and 3.5).

/// A segment selector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Selector(pub u16);

impl Selector {
    /// The requested privilege level.
    #[inline]
    #[must_use]
    pub const fn rpl(self) -> u8 {
        (self.0 & 3) as u8
    }

    /// Whether the index is into the LDT (TI).
    #[inline]
    #[must_use]
    pub const fn is_local(self) -> bool {
        self.0 & 4 != 0
    }

    /// The byte offset of the descriptor in its table.
    #[inline]
    #[must_use]
    pub const fn offset(self) -> u16 {
        self.0 & !7
    }

    /// Whether this is a null selector: index 0 of the GDT, whatever the RPL.
    #[inline]
    #[must_use]
    pub const fn is_null(self) -> bool {
        self.0 & !3 == 0
    }
}

/// A code, data or system segment descriptor as its 8 bytes in memory (SDM Vol. 3A, figure 3-8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptor(pub u64);

impl Descriptor {
    /// Bit 40: accessed (in code and data segments).
    pub const ACCESSED: u64 = 1 << 40;
    /// Bit 41: readable (code) or writable (data); in a TSS descriptor, busy.
    pub const RW_OR_BUSY: u64 = 1 << 41;

    /// The base address, bits 31:0.
    #[inline]
    #[must_use]
    pub const fn base(self) -> u32 {
        (self.0 >> 16) as u32 & 0x00ff_ffff | (self.0 >> 32) as u32 & 0xff00_0000
    }

    /// The 20-bit limit field, not scaled.
    #[inline]
    #[must_use]
    pub const fn raw_limit(self) -> u32 {
        self.0 as u32 & 0xffff | (self.0 >> 32) as u32 & 0xf_0000
    }

    /// The limit in bytes: the last valid offset, scaled by G.
    #[inline]
    #[must_use]
    pub const fn limit(self) -> u32 {
        if self.access().has(AccessRights::G) { self.raw_limit() << 12 | 0xfff } else { self.raw_limit() }
    }

    /// The access rights in the layout of LAR and the VMCS, without the "unusable" bit.
    #[inline]
    #[must_use]
    pub const fn access(self) -> AccessRights {
        AccessRights((self.0 >> 40) as u32 & 0xf0ff)
    }
}

named_bits! {
    /// Access rights of a segment in the layout of the VMCS (SDM Vol. 3C, table 25-2): bits 55:40 of the descriptor without
    /// the limit's part, and "unusable".
    AccessRights(u32) {
        4 S "code or data segment (0: system)";
        7 P "present";
        12 AVL "available to software";
        13 L "64-bit code segment";
        14 DB "default operation size: 32 bits";
        15 G "granularity: limit in 4 KiB pages";
        16 UNUSABLE "segment unusable (VMCS only)";
    }
}

impl AccessRights {
    /// Bits that must be 0: 11:8 and 31:17.
    pub const RESERVED: u32 = 0xfffe_0f00;
    /// Type bit 0 of code and data segments: accessed.
    pub const ACCESSED: u32 = 1;
    /// Type bit 1: writable (data), readable (code).
    pub const RW: u32 = 2;
    /// Type bit 2: expand-down (data), conforming (code).
    pub const DC: u32 = 4;
    /// Type bit 3: code.
    pub const CODE: u32 = 8;

    /// The type field, bits 3:0.
    #[inline]
    #[must_use]
    pub const fn segment_type(self) -> u8 {
        (self.0 & 0xf) as u8
    }

    /// The descriptor privilege level.
    #[inline]
    #[must_use]
    pub const fn dpl(self) -> u8 {
        (self.0 >> 5 & 3) as u8
    }

    /// Whether this is a code or data segment.
    #[inline]
    #[must_use]
    pub const fn is_code_or_data(self) -> bool {
        self.has(AccessRights::S)
    }

    /// Whether this is a code segment.
    #[inline]
    #[must_use]
    pub const fn is_code(self) -> bool {
        self.has(AccessRights::S | AccessRights::CODE)
    }

    /// Whether this is a writable data segment.
    #[inline]
    #[must_use]
    pub const fn is_writable_data(self) -> bool {
        self.0 & (AccessRights::S | AccessRights::CODE | AccessRights::RW) == AccessRights::S | AccessRights::RW
    }

    /// Whether this is an expand-down data segment.
    #[inline]
    #[must_use]
    pub const fn is_expand_down(self) -> bool {
        self.0 & (AccessRights::S | AccessRights::CODE | AccessRights::DC) == AccessRights::S | AccessRights::DC
    }

    /// Whether this is a conforming code segment.
    #[inline]
    #[must_use]
    pub const fn is_conforming(self) -> bool {
        self.has(AccessRights::S | AccessRights::CODE | AccessRights::DC)
    }
}

/// Types of system descriptors, S = 0 (SDM Vol. 3A, table 3-2). In IA-32e mode only 2, 9, 11, 12, 14 and 15 exist.
pub mod system_type {
    /// 16-bit TSS, available.
    pub const TSS_16_AVAILABLE: u8 = 1;
    /// LDT.
    pub const LDT: u8 = 2;
    /// 16-bit TSS, busy.
    pub const TSS_16_BUSY: u8 = 3;
    /// 16-bit call gate.
    pub const CALL_GATE_16: u8 = 4;
    /// Task gate.
    pub const TASK_GATE: u8 = 5;
    /// 16-bit interrupt gate.
    pub const INTERRUPT_GATE_16: u8 = 6;
    /// 16-bit trap gate.
    pub const TRAP_GATE_16: u8 = 7;
    /// 32-bit TSS (64-bit in IA-32e mode), available.
    pub const TSS_AVAILABLE: u8 = 9;
    /// 32-bit TSS (64-bit in IA-32e mode), busy.
    pub const TSS_BUSY: u8 = 11;
    /// 32-bit call gate (64-bit in IA-32e mode).
    pub const CALL_GATE: u8 = 12;
    /// 32-bit interrupt gate (64-bit in IA-32e mode).
    pub const INTERRUPT_GATE: u8 = 14;
    /// 32-bit trap gate (64-bit in IA-32e mode).
    pub const TRAP_GATE: u8 = 15;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_code_segment_decodes() {
        let d = Descriptor(0x00cf_9b00_0000_ffff);
        assert_eq!((d.base(), d.raw_limit(), d.limit()), (0, 0xf_ffff, 0xffff_ffff));
        assert_eq!(d.access().0, 0xc09b);
        assert!(d.access().is_code() && !d.access().is_conforming() && !d.access().is_writable_data());
    }

    #[test]
    fn base_is_gathered_from_three_places() {
        assert_eq!(Descriptor(0x1200_0034_5678_0000).base(), 0x1234_5678);
    }
}
