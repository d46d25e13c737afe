//! Call, interrupt, trap and task gates (SDM Vol. 3A, 5.8.3, 6.11 and 6.14.1).

/// A gate as its bytes in memory: 8 in legacy modes, 16 in IA-32e mode (`high` is 0 for 8-byte gates).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gate {
    /// Bytes 7:0.
    pub low: u64,
    /// Bytes 15:8.
    pub high: u64,
}

impl Gate {
    /// The type field, one of [`super::descriptors::system_type`].
    #[inline]
    #[must_use]
    pub const fn gate_type(self) -> u8 {
        (self.low >> 40 & 0xf) as u8
    }

    /// Whether the S bit is 0, as it must be for a gate.
    #[inline]
    #[must_use]
    pub const fn is_system(self) -> bool {
        self.low & 1 << 44 == 0
    }

    /// The descriptor privilege level.
    #[inline]
    #[must_use]
    pub const fn dpl(self) -> u8 {
        (self.low >> 45 & 3) as u8
    }

    /// Whether the gate is present.
    #[inline]
    #[must_use]
    pub const fn is_present(self) -> bool {
        self.low & 1 << 47 != 0
    }

    /// The target's selector; of a task gate, the TSS's.
    #[inline]
    #[must_use]
    pub const fn selector(self) -> u16 {
        (self.low >> 16) as u16
    }

    /// The entry point of a 16-bit gate.
    #[inline]
    #[must_use]
    pub const fn offset_16(self) -> u16 {
        self.low as u16
    }

    /// The entry point of a 32-bit gate.
    #[inline]
    #[must_use]
    pub const fn offset_32(self) -> u32 {
        self.low as u32 & 0xffff | (self.low >> 32) as u32 & 0xffff_0000
    }

    /// The entry point of a 64-bit gate.
    #[inline]
    #[must_use]
    pub const fn offset_64(self) -> u64 {
        self.offset_32() as u64 | self.high << 32
    }

    /// The interrupt-stack-table index of a 64-bit interrupt or trap gate; 0 for none.
    #[inline]
    #[must_use]
    pub const fn ist(self) -> u8 {
        (self.low >> 32 & 7) as u8
    }

    /// The parameter count of a legacy call gate (words or doublewords).
    #[inline]
    #[must_use]
    pub const fn parameter_count(self) -> u8 {
        (self.low >> 32 & 0x1f) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offset_of_a_64_bit_gate_is_gathered() {
        let g = Gate { low: 0x8182_8e03_0010_0200, high: 0xffff_ffff };
        assert_eq!(g.offset_64(), 0xffff_ffff_8182_0200);
        assert_eq!((g.selector(), g.ist(), g.gate_type(), g.dpl()), (0x10, 3, 14, 0));
        assert!(g.is_present() && g.is_system());
    }
}
