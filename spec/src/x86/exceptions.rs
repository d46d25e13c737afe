//! Exception vectors, their classes, and error codes (SDM Vol. 3A, 6.3 to 6.15).

/// Vectors 0 to 31, defined by the architecture (SDM Vol. 3A, table 6-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Vector {
    /// #DE, divide error.
    DivideError = 0,
    /// #DB, debug exception.
    Debug = 1,
    /// Non-maskable interrupt.
    Nmi = 2,
    /// #BP, breakpoint (INT3).
    Breakpoint = 3,
    /// #OF, overflow (INTO).
    Overflow = 4,
    /// #BR, BOUND range exceeded.
    BoundRange = 5,
    /// #UD, invalid opcode.
    InvalidOpcode = 6,
    /// #NM, device not available.
    DeviceNotAvailable = 7,
    /// #DF, double fault.
    DoubleFault = 8,
    /// Coprocessor segment overrun, not raised by processors after the 386.
    CoprocessorSegmentOverrun = 9,
    /// #TS, invalid TSS.
    InvalidTss = 10,
    /// #NP, segment not present.
    SegmentNotPresent = 11,
    /// #SS, stack-segment fault.
    StackFault = 12,
    /// #GP, general protection.
    GeneralProtection = 13,
    /// #PF, page fault.
    PageFault = 14,
    /// #MF, x87 floating-point error.
    X87FloatingPoint = 16,
    /// #AC, alignment check.
    AlignmentCheck = 17,
    /// #MC, machine check.
    MachineCheck = 18,
    /// #XM, SIMD floating-point exception.
    SimdFloatingPoint = 19,
    /// #VE, virtualization exception.
    Virtualization = 20,
    /// #CP, control protection.
    ControlProtection = 21,
}

/// How an exception is reported (SDM Vol. 3A, 6.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The saved RIP is that of the faulting instruction.
    Fault,
    /// The saved RIP is that of the next instruction.
    Trap,
    /// A fault or a trap, by its cause (#DB).
    FaultOrTrap,
    /// No reliable restart.
    Abort,
    /// Not an exception (NMI).
    Interrupt,
}

/// The part an exception plays in the double-fault rule (SDM Vol. 3A, table 6-4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contribution {
    /// Handled serially.
    Benign,
    /// Two of these make a double fault.
    Contributory,
    /// After a page fault, this or a contributory one makes a double fault.
    PageFault,
    /// The double fault itself; a contributory exception or page fault during its delivery shuts down.
    DoubleFault,
}

impl Vector {
    /// Whether delivery pushes an error code.
    #[must_use]
    pub const fn has_error_code(self) -> bool {
        has_error_code(self as u8)
    }

    /// How the exception is reported.
    #[must_use]
    pub const fn class(self) -> Class {
        match self {
            Vector::Debug => Class::FaultOrTrap,
            Vector::Nmi => Class::Interrupt,
            Vector::Breakpoint | Vector::Overflow => Class::Trap,
            Vector::DoubleFault | Vector::MachineCheck | Vector::CoprocessorSegmentOverrun => Class::Abort,
            _ => Class::Fault,
        }
    }

    /// The part this exception plays in the double-fault rule.
    #[must_use]
    pub const fn contribution(self) -> Contribution {
        match self {
            Vector::DivideError
            | Vector::InvalidTss
            | Vector::SegmentNotPresent
            | Vector::StackFault
            | Vector::GeneralProtection
            | Vector::ControlProtection => Contribution::Contributory,
            Vector::PageFault | Vector::Virtualization => Contribution::PageFault,
            Vector::DoubleFault => Contribution::DoubleFault,
            _ => Contribution::Benign,
        }
    }

    /// The vector with number `n`, if the architecture defines it.
    #[must_use]
    pub const fn from_number(n: u8) -> Option<Vector> {
        Some(match n {
            0 => Vector::DivideError,
            1 => Vector::Debug,
            2 => Vector::Nmi,
            3 => Vector::Breakpoint,
            4 => Vector::Overflow,
            5 => Vector::BoundRange,
            6 => Vector::InvalidOpcode,
            7 => Vector::DeviceNotAvailable,
            8 => Vector::DoubleFault,
            9 => Vector::CoprocessorSegmentOverrun,
            10 => Vector::InvalidTss,
            11 => Vector::SegmentNotPresent,
            12 => Vector::StackFault,
            13 => Vector::GeneralProtection,
            14 => Vector::PageFault,
            16 => Vector::X87FloatingPoint,
            17 => Vector::AlignmentCheck,
            18 => Vector::MachineCheck,
            19 => Vector::SimdFloatingPoint,
            20 => Vector::Virtualization,
            21 => Vector::ControlProtection,
            _ => return None,
        })
    }
}

/// Whether an exception with vector `n` pushes an error code.
#[must_use]
pub const fn has_error_code(n: u8) -> bool {
    matches!(n, 8 | 10..=14 | 17 | 21)
}

named_bits! {
    /// The error code of a page fault (SDM Vol. 3A, 4.7).
    PageFaultCode(u32) {
        0 P "a protection violation of a present page (0: page not present)";
        1 W "the access was a write";
        2 U "a user-mode access";
        3 RSVD "a reserved bit was 1 in a paging-structure entry";
        4 I "an instruction fetch";
        5 PK "a protection-key violation";
        6 SS "a shadow-stack access";
        7 HLAT "during HLAT paging";
        15 SGX "an SGX access-control violation";
    }
}

named_bits! {
    /// The error code of a fault about a selector (SDM Vol. 3A, 6.13). Bits 15:3 are the selector's index.
    SelectorErrorCode(u32) {
        0 EXT "an event external to the program";
        1 IDT "the index is into the IDT";
        2 TI "the index is into the LDT";
    }
}
