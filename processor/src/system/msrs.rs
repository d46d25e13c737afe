//! The model-specific registers that are no part of anything else, and RDMSR and WRMSR.

use crate::models::{MCG_BANKS, MTRR_VARIABLE_RANGES, Model};
use serde::{Deserialize, Serialize};

/// Memory type range registers (SDM vol. 3A, 12.11).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mtrrs {
    /// IA32_MTRR_DEF_TYPE.
    pub default_type: u64,
    /// The eleven fixed-range registers, in the order of addresses.
    pub fixed: [u64; 11],
    /// IA32_MTRR_PHYSBASEn and IA32_MTRR_PHYSMASKn.
    pub variable: [(u64, u64); MTRR_VARIABLE_RANGES],
}

/// MSRs that only RDMSR and WRMSR (and what they control) touch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Msrs {
    /// IA32_STAR.
    pub star: u64,
    /// IA32_LSTAR.
    pub lstar: u64,
    /// IA32_CSTAR.
    pub cstar: u64,
    /// IA32_FMASK.
    pub fmask: u64,
    /// IA32_KERNEL_GS_BASE.
    pub kernel_gs_base: u64,
    /// IA32_SYSENTER_CS.
    pub sysenter_cs: u64,
    /// IA32_SYSENTER_ESP.
    pub sysenter_esp: u64,
    /// IA32_SYSENTER_EIP.
    pub sysenter_eip: u64,
    /// IA32_TSC_AUX.
    pub tsc_aux: u64,
    /// What software added to the TSC by writing it or IA32_TSC_ADJUST.
    pub tsc_adjust: u64,
    /// IA32_PAT.
    pub pat: u64,
    /// MTRRs.
    pub mtrrs: Mtrrs,
    /// IA32_MISC_ENABLE.
    pub misc_enable: u64,
    /// IA32_FEATURE_CONTROL.
    pub feature_control: u64,
    /// IA32_SPEC_CTRL.
    pub spec_ctrl: u64,
    /// IA32_DEBUGCTL.
    pub debugctl: u64,
    /// IA32_XSS.
    pub xss: u64,
    /// IA32_BIOS_SIGN_ID.
    pub bios_sign_id: u64,
    /// IA32_MCG_STATUS.
    pub mcg_status: u64,
    /// CTL, STATUS, ADDR and MISC of each machine-check bank.
    pub machine_check: [[u64; 4]; MCG_BANKS],
}

impl Msrs {
    /// Values after power-up.
    #[must_use]
    pub fn reset(model: &Model) -> Self {
        let reset = model.reset_msrs();
        Self {
            pat: reset.pat,
            misc_enable: reset.misc_enable,
            feature_control: reset.feature_control.unwrap_or(0),
            bios_sign_id: reset.bios_sign_id,
            ..Self::default()
        }
    }
}
