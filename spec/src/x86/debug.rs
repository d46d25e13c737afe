//! Debug registers and IA32_DEBUGCTL (SDM Vol. 3B, 18.2 and 18.4.1).

named_bits! {
    /// DR6, the debug status register.
    Dr6(u64) {
        0 B0 "breakpoint 0 condition detected";
        1 B1 "breakpoint 1 condition detected";
        2 B2 "breakpoint 2 condition detected";
        3 B3 "breakpoint 3 condition detected";
        11 BLD "bus-lock detected (0 = detected)";
        13 BD "debug register access detected";
        14 BS "single step";
        15 BT "task switch";
        16 RTM "restricted transactional memory (0 = inside a region)";
    }
}

impl Dr6 {
    /// Value after reset; also the bits that always read 1 on a processor with neither RTM nor bus-lock detection.
    pub const RESET: u64 = 0xffff_0ff0;
    /// B0 to B3.
    pub const HIT: u64 = 0xf;
}

named_bits! {
    /// DR7, the debug control register.
    Dr7(u64) {
        0 L0 "local enable of breakpoint 0";
        1 G0 "global enable of breakpoint 0";
        2 L1 "local enable of breakpoint 1";
        3 G1 "global enable of breakpoint 1";
        4 L2 "local enable of breakpoint 2";
        5 G2 "global enable of breakpoint 2";
        6 L3 "local enable of breakpoint 3";
        7 G3 "global enable of breakpoint 3";
        8 LE "local exact breakpoint enable";
        9 GE "global exact breakpoint enable";
        10 FIXED1 "reserved, always 1";
        11 RTM "advanced debugging of transactional regions";
        13 GD "general detect enable";
    }
}

impl Dr7 {
    /// Value after reset.
    pub const RESET: u64 = 0x400;
    /// Local and global enables of all four breakpoints.
    pub const ENABLES: u64 = 0xff;

    /// Whether breakpoint `n` (0 to 3) is enabled locally or globally.
    #[inline]
    #[must_use]
    pub const fn enabled(self, n: u32) -> bool {
        self.0 >> (n * 2) & 3 != 0
    }

    /// The condition of breakpoint `n`.
    #[inline]
    #[must_use]
    pub const fn condition(self, n: u32) -> BreakCondition {
        match self.0 >> (16 + n * 4) & 3 {
            0 => BreakCondition::Execute,
            1 => BreakCondition::Write,
            2 => BreakCondition::Io,
            _ => BreakCondition::ReadWrite,
        }
    }

    /// The length in bytes of breakpoint `n`.
    #[inline]
    #[must_use]
    pub const fn length(self, n: u32) -> u64 {
        match self.0 >> (18 + n * 4) & 3 {
            0 => 1,
            1 => 2,
            2 => 8,
            _ => 4,
        }
    }
}

/// When a breakpoint triggers: the R/W field of DR7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakCondition {
    /// 00: instruction execution.
    Execute,
    /// 01: data write.
    Write,
    /// 10: I/O read or write when CR4.DE = 1, undefined otherwise.
    Io,
    /// 11: data read or write.
    ReadWrite,
}

named_bits! {
    /// IA32_DEBUGCTL, MSR 1D9H.
    DebugCtl(u64) {
        0 LBR "last branch, interrupt and exception recording";
        1 BTF "single-step on branches";
        2 BLD "bus-lock detection";
        6 TR "trace messages";
        7 BTS "branch trace store";
        8 BTINT "branch trace interrupt";
        9 BTS_OFF_OS "branch trace store off at CPL 0";
        10 BTS_OFF_USR "branch trace store off at CPL above 0";
        11 FREEZE_LBRS_ON_PMI "freeze LBRs on a performance-monitoring interrupt";
        12 FREEZE_PERFMON_ON_PMI "freeze counters on a performance-monitoring interrupt";
        13 UNCORE_PMI_EN "uncore performance-monitoring interrupt enable";
        14 FREEZE_WHILE_SMM "freeze counters while in SMM";
        15 RTM "advanced debugging of transactional regions";
    }
}
