//! Interruption-information fields (SDM Vol. 3C, tables 25-17, 25-19 and 25-20).

/// The type of an event, bits 10:8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum InterruptionType {
    /// 0: external interrupt.
    External = 0,
    /// 1: reserved.
    Reserved = 1,
    /// 2: non-maskable interrupt.
    Nmi = 2,
    /// 3: hardware exception.
    HardwareException = 3,
    /// 4: software interrupt (INT n).
    SoftwareInterrupt = 4,
    /// 5: privileged software exception (INT1).
    PrivilegedSoftwareException = 5,
    /// 6: software exception (INT3, INTO).
    SoftwareException = 6,
    /// 7: other event: a pending MTF exit (VM entry), SYSCALL or SYSENTER with FRED.
    Other = 7,
}

impl InterruptionType {
    /// The type in bits 10:8 of an interruption-information field.
    #[must_use]
    pub const fn of(info: u32) -> InterruptionType {
        match info >> 8 & 7 {
            0 => InterruptionType::External,
            1 => InterruptionType::Reserved,
            2 => InterruptionType::Nmi,
            3 => InterruptionType::HardwareException,
            4 => InterruptionType::SoftwareInterrupt,
            5 => InterruptionType::PrivilegedSoftwareException,
            6 => InterruptionType::SoftwareException,
            _ => InterruptionType::Other,
        }
    }

    /// Whether this is INT n, INT1, INT3 or INTO, which have an instruction length.
    #[must_use]
    pub const fn is_software(self) -> bool {
        matches!(
            self,
            InterruptionType::SoftwareInterrupt
                | InterruptionType::PrivilegedSoftwareException
                | InterruptionType::SoftwareException
        )
    }
}

named_bits! {
    /// VM-entry and VM-exit interruption information and IDT-vectoring information. Bits 7:0 are the vector, 10:8 the type.
    InterruptionInfo(u32) {
        11 ERROR_CODE "an error code is delivered (entry) or valid (exit, IDT vectoring)";
        12 NMI_UNBLOCKING "NMI unblocking due to IRET (exit); undefined (IDT vectoring)";
        31 VALID "valid";
    }
}

impl InterruptionInfo {
    /// Reserved bits of the VM-entry field: 30:12 (13 with FRED is not counted).
    pub const ENTRY_RESERVED: u32 = 0x7fff_f000;

    /// A valid field.
    #[must_use]
    pub const fn new(vector: u8, kind: InterruptionType, error_code: bool) -> InterruptionInfo {
        InterruptionInfo(
            InterruptionInfo::VALID
                | vector as u32
                | (kind as u32) << 8
                | if error_code { InterruptionInfo::ERROR_CODE } else { 0 },
        )
    }

    /// The vector.
    #[must_use]
    pub const fn vector(self) -> u8 {
        self.0 as u8
    }

    /// The type.
    #[must_use]
    pub const fn kind(self) -> InterruptionType {
        InterruptionType::of(self.0)
    }

    /// Whether bit 31 is 1.
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.has(InterruptionInfo::VALID)
    }
}
