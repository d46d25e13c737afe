//! The state in which the first processor starts, as plain data.

/// A segment register, with the part that software does not see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Selector.
    pub selector: u16,
    /// Base address.
    pub base: u64,
    /// Limit in bytes.
    pub limit: u32,
    /// Access rights in the format of the VMCS (SDM volume 3, 25.4.1): type, S, DPL, P, AVL, L, D/B, G; bit 16 unusable.
    pub access_rights: u32,
}

impl Segment {
    /// Flat 32-bit code, read and execute, accessed.
    #[must_use]
    pub const fn code32(selector: u16) -> Self {
        Self { selector, base: 0, limit: u32::MAX, access_rights: 0xc09b }
    }

    /// Flat 32-bit data, read and write, accessed.
    #[must_use]
    pub const fn data32(selector: u16) -> Self {
        Self { selector, base: 0, limit: u32::MAX, access_rights: 0xc093 }
    }

    /// A busy 32-bit TSS at address 0.
    #[must_use]
    pub const fn tss32(selector: u16) -> Self {
        Self { selector, base: 0, limit: 0x67, access_rights: 0x8b }
    }

    /// No segment.
    #[must_use]
    pub const fn unusable() -> Self {
        Self { selector: 0, base: 0, limit: 0, access_rights: 1 << 16 }
    }

    /// The 8 bytes of a descriptor for this segment (SDM volume 3, 3.4.5).
    #[must_use]
    pub const fn descriptor(&self) -> u64 {
        let rights = (self.access_rights & 0xf0ff) as u64;
        let limit = if rights & 0x8000 != 0 { self.limit >> 12 } else { self.limit } as u64;
        limit & 0xffff
            | (self.base & 0xff_ffff) << 16
            | rights << 40
            | (limit & 0xf_0000) << 32
            | (self.base & 0xff00_0000) << 32
    }
}

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// Base address.
    pub base: u64,
    /// Limit in bytes.
    pub limit: u16,
}

/// The state in which the first processor starts. What is not here is as at reset; interrupts are off, and so is paging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitialState {
    /// RIP.
    pub rip: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8-R15.
    pub gprs: [u64; 16],
    /// ES, CS, SS, DS, FS, GS.
    pub segments: [Segment; 6],
    /// LDTR.
    pub ldtr: Segment,
    /// Task register.
    pub tr: Segment,
    /// GDTR.
    pub gdtr: Table,
    /// IDTR.
    pub idtr: Table,
    /// CR0.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// IA32_EFER.
    pub efer: u64,
}

/// Numbers of the general-purpose registers that loaders set, as in instruction encodings.
pub(super) mod gpr {
    pub const RAX: usize = 0;
    pub const RBX: usize = 3;
    pub const RSI: usize = 6;
}

const CR0_PE: u64 = 1 << 0;
const CR0_ET: u64 = 1 << 4;
/// Where the descriptors are put that the segments were "loaded" from.
pub(super) const GDT_ADDRESS: u64 = 0x1000;
/// Selectors as Linux's boot protocol wants them; multiboot and PVH leave them open.
pub(super) const CODE_SELECTOR: u16 = 0x10;
pub(super) const DATA_SELECTOR: u16 = 0x18;
const TSS_SELECTOR: u16 = 0x20;

/// The GDT for [`InitialState::flat32`].
pub(super) fn flat_gdt() -> [u64; 5] {
    let tss = Segment::tss32(TSS_SELECTOR).descriptor();
    [0, 0, Segment::code32(CODE_SELECTOR).descriptor(), Segment::data32(DATA_SELECTOR).descriptor(), tss]
}

impl InitialState {
    /// Flat 32-bit protected mode without paging, starting at `entry`: what all three boot protocols ask for. Needs
    /// [`flat_gdt`] at [`GDT_ADDRESS`].
    pub(super) fn flat32(entry: u32) -> Self {
        let data = Segment::data32(DATA_SELECTOR);
        Self {
            rip: entry.into(),
            rflags: 2,
            gprs: [0; 16],
            segments: [data, Segment::code32(CODE_SELECTOR), data, data, data, data],
            ldtr: Segment { access_rights: 0x82, limit: 0xffff, ..Segment::unusable() },
            tr: Segment::tss32(TSS_SELECTOR),
            gdtr: Table { base: GDT_ADDRESS, limit: 8 * 5 - 1 },
            idtr: Table { base: 0, limit: 0 },
            cr0: CR0_PE | CR0_ET,
            cr3: 0,
            cr4: 0,
            efer: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_descriptors_have_the_well_known_encodings() {
        assert_eq!(flat_gdt(), [0, 0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x0000_8b00_0000_0067]);
    }
}
