//! RFLAGS (SDM Vol. 1, 3.4.3; Vol. 3A, 2.3).

named_bits! {
    /// RFLAGS.
    Rflags(u64) {
        0 CF "carry";
        1 FIXED1 "reserved, always 1";
        2 PF "parity";
        4 AF "auxiliary carry";
        6 ZF "zero";
        7 SF "sign";
        8 TF "trap";
        9 IF "interrupt enable";
        10 DF "direction";
        11 OF "overflow";
        14 NT "nested task";
        16 RF "resume";
        17 VM "virtual-8086 mode";
        18 AC "alignment check / access control";
        19 VIF "virtual interrupt flag";
        20 VIP "virtual interrupt pending";
        21 ID "CPUID can be used";
    }
}

impl Rflags {
    /// The I/O privilege level, bits 13:12.
    pub const IOPL: u64 = 3 << 12;
    /// Position of the I/O privilege level.
    pub const IOPL_SHIFT: u32 = 12;
    /// CF, PF, AF, ZF, SF and OF.
    pub const STATUS: u64 = Rflags::CF | Rflags::PF | Rflags::AF | Rflags::ZF | Rflags::SF | Rflags::OF;
    /// Bits that can be 1.
    pub const DEFINED: u64 = Rflags::ALL | Rflags::IOPL;

    /// The I/O privilege level.
    #[inline]
    #[must_use]
    pub const fn iopl(self) -> u8 {
        ((self.0 >> 12) & 3) as u8
    }
}
