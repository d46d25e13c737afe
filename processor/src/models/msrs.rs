//! Model-specific registers with the values they have after reset, and the constants among them.

use super::Model;
use super::frequency::{CRYSTAL_HZ, TSC_HZ};
use spec::x86::cpuid::Feature;
use spec::x86::msr::{FeatureControl, MiscEnable, MtrrCap};
use spec::x86::paging::PAT_RESET;

/// IA32_MISC_ENABLE: MONITOR/MWAIT enabled.
pub(super) const MISC_ENABLE_MONITOR: u64 = MiscEnable::MONITOR;
/// IA32_MISC_ENABLE: CPUID shows no leaf above 2.
pub(super) const MISC_ENABLE_LIMIT_CPUID: u64 = MiscEnable::LIMIT_CPUID;

/// Number of variable-range MTRRs.
pub const MTRR_VARIABLE_RANGES: usize = 8;
/// Number of machine-check banks.
pub const MCG_BANKS: usize = 4;

/// Values after reset of the MSRs that are not zero then or never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResetMsrs {
    /// IA32_FEATURE_CONTROL as firmware leaves it: locked, VMXON allowed outside SMX. `None`: the MSR does not exist.
    pub feature_control: Option<u64>,
    /// IA32_MISC_ENABLE.
    pub misc_enable: u64,
    /// The bits of IA32_MISC_ENABLE that software may change.
    pub misc_enable_writable: u64,
    /// IA32_PAT.
    pub pat: u64,
    /// IA32_MTRRCAP; constant.
    pub mtrr_cap: u64,
    /// IA32_MCG_CAP; constant.
    pub mcg_cap: u64,
    /// IA32_PLATFORM_ID; constant.
    pub platform_id: u64,
    /// MSR_PLATFORM_INFO; constant. Bits 15:8 are the TSC's ratio to the bus clock.
    pub platform_info: u64,
    /// IA32_BIOS_SIGN_ID: the microcode revision in the upper half.
    pub bios_sign_id: u64,
    /// IA32_ARCH_CAPABILITIES; constant. `None`: the MSR does not exist.
    pub arch_capabilities: Option<u64>,
}

impl Model {
    /// The MSRs' values after reset.
    #[must_use]
    pub fn reset_msrs(&self) -> ResetMsrs {
        let monitor = if self.has(Feature::MONITOR) { MiscEnable::MONITOR } else { 0 };
        let perfmon = if self.has(Feature::PDCM) { MiscEnable::PERFMON } else { 0 };
        let execute_disable = if self.has(Feature::NX) { MiscEnable::XD_DISABLE } else { 0 };
        // Power, heat and the front-side bus are not modelled: their controls can be written and read.
        let storage = MiscEnable::THERMAL_CONTROL | MiscEnable::ENHANCED_SPEEDSTEP | MiscEnable::XTPR_DISABLE;
        ResetMsrs {
            feature_control: self.has(Feature::VMX).then_some(FeatureControl::LOCK | FeatureControl::VMX_OUTSIDE_SMX),
            misc_enable: MiscEnable::FAST_STRING
                | MiscEnable::BTS_UNAVAILABLE
                | MiscEnable::PEBS_UNAVAILABLE
                | monitor
                | perfmon,
            misc_enable_writable: MiscEnable::FAST_STRING
                | MiscEnable::LIMIT_CPUID
                | monitor
                | execute_disable
                | storage,
            pat: PAT_RESET,
            mtrr_cap: MTRR_VARIABLE_RANGES as u64 | MtrrCap::FIXED | MtrrCap::WC,
            mcg_cap: MCG_BANKS as u64,
            platform_id: 0,
            platform_info: (TSC_HZ / CRYSTAL_HZ) << 8,
            bios_sign_id: u64::from(self.microcode) << 32,
            arch_capabilities: self.has(Feature::ARCH_CAPABILITIES).then_some(self.arch_capabilities),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vmx_is_enabled_and_locked_where_it_exists() {
        let control = |name| Model::named(name).unwrap().reset_msrs().feature_control;
        assert_eq!(control("icelake-server"), Some(5));
        assert_eq!(control("basic64"), None);
    }

    #[test]
    fn platform_info_times_the_bus_clock_is_the_tsc() {
        let ratio = Model::default_model().reset_msrs().platform_info >> 8 & 0xff;
        assert_eq!(ratio * CRYSTAL_HZ, TSC_HZ);
    }
}
