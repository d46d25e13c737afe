//! Guest non-register state (SDM Vol. 3C, 25.4.2).

/// The activity state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ActivityState {
    /// 0: executing instructions.
    Active = 0,
    /// 1: halted by HLT.
    Hlt = 1,
    /// 2: shut down by a triple fault.
    Shutdown = 2,
    /// 3: waiting for a start-up IPI.
    WaitForSipi = 3,
}

impl ActivityState {
    /// The state with this number.
    #[must_use]
    pub const fn from_number(n: u32) -> Option<ActivityState> {
        Some(match n {
            0 => ActivityState::Active,
            1 => ActivityState::Hlt,
            2 => ActivityState::Shutdown,
            3 => ActivityState::WaitForSipi,
            _ => return None,
        })
    }
}

named_bits! {
    /// The interruptibility state (SDM Vol. 3C, table 25-3).
    Interruptibility(u32) {
        0 STI "blocking by STI";
        1 MOV_SS "blocking by MOV SS";
        2 SMI "blocking by SMI";
        3 NMI "blocking by NMI (with virtual NMIs: virtual-NMI blocking)";
        4 ENCLAVE "enclave interruption";
    }
}

named_bits! {
    /// Pending debug exceptions (SDM Vol. 3C, table 25-4).
    PendingDebug(u64) {
        0 B0 "breakpoint 0 condition met";
        1 B1 "breakpoint 1 condition met";
        2 B2 "breakpoint 2 condition met";
        3 B3 "breakpoint 3 condition met";
        11 BLD "a bus lock was asserted";
        12 ENABLED_BREAKPOINT "at least one enabled data or I/O breakpoint was met";
        14 BS "single step";
        16 RTM "inside an RTM region";
    }
}
