//! Control-flow enforcement technology: shadow stacks and indirect branch tracking (SDM Vol. 1, chapter 17).

named_bits! {
    /// IA32_U_CET and IA32_S_CET (SDM Vol. 1, 17.1; Vol. 4, table 2-2). Bits 63:12 are the page of the legacy code-page bitmap.
    CetControl(u64) {
        0 SH_STK_EN "shadow stacks enabled";
        1 WR_SHSTK_EN "WRSS enabled";
        2 ENDBR_EN "indirect branch tracking enabled";
        3 LEG_IW_EN "legacy compatibility treatment: the code-page bitmap is looked up";
        4 NO_TRACK_EN "NOTRACK prefix honoured";
        5 SUPPRESS_DIS "suppression by legacy code disabled";
        10 SUPPRESS "indirect branch tracking suppressed";
        11 TRACKER "the tracker waits for ENDBRANCH";
    }
}

impl CetControl {
    /// Bits 9:6, which must be 0.
    pub const RESERVED: u64 = 0x3c0;
    /// The bits that exist with shadow stacks.
    pub const SHADOW_STACK: u64 = CetControl::SH_STK_EN | CetControl::WR_SHSTK_EN;
    /// The linear address of the legacy code-page bitmap.
    pub const BITMAP: u64 = !0xfff;
    /// The bits that exist with indirect branch tracking.
    pub const BRANCH_TRACKING: u64 = CetControl::BITMAP
        | CetControl::ENDBR_EN
        | CetControl::LEG_IW_EN
        | CetControl::NO_TRACK_EN
        | CetControl::SUPPRESS_DIS
        | CetControl::SUPPRESS
        | CetControl::TRACKER;

    /// Whether the control can have this value on a processor with the features behind the bits of `existing`: no reserved bit,
    /// and not both SUPPRESS and TRACKER. That the bitmap's address is canonical is checked elsewhere.
    #[must_use]
    pub const fn is_valid(self, existing: u64) -> bool {
        self.0 & !existing == 0
            && self.0 & (CetControl::SUPPRESS | CetControl::TRACKER) != CetControl::SUPPRESS | CetControl::TRACKER
    }
}

/// Error codes of #CP (SDM Vol. 3A, 6.15, interrupt 21).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ControlProtectionCode {
    /// NEAR-RET: the return addresses of a near RET do not match.
    NearRet = 1,
    /// FAR-RET/IRET: the frame that a far RET or IRET pops from the shadow stack is wrong.
    FarRetIret = 2,
    /// ENDBRANCH: no ENDBRANCH at the target of an indirect branch.
    EndBranch = 3,
    /// RSTORSSP: the token is not a right restore token.
    Rstorssp = 4,
    /// SETSSBSY: the token is not a free supervisor shadow-stack token.
    Setssbsy = 5,
}

/// Bit 0 of a supervisor shadow-stack token: the stack is in use. Of a restore token: it was made in 64-bit mode.
pub const TOKEN_BUSY: u64 = 1;
/// Bit 1 of a token: a previous-SSP token.
pub const TOKEN_PREVIOUS: u64 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suppress_and_tracker_exclude_each_other() {
        let all = CetControl::SHADOW_STACK | CetControl::BRANCH_TRACKING;
        assert!(CetControl(CetControl::SUPPRESS | CetControl::ENDBR_EN).is_valid(all));
        assert!(!CetControl(CetControl::SUPPRESS | CetControl::TRACKER).is_valid(all));
        assert!(!CetControl(1 << 6).is_valid(all) && !CetControl(1 << 9).is_valid(all));
        assert!(!CetControl(CetControl::ENDBR_EN).is_valid(CetControl::SHADOW_STACK));
    }
}
