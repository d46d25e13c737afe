//! VT-x features: what a CPU model may have of VT-x, under the names by which the command line switches it.
//!
//! A feature is one line here: its name, the bits of the capability MSRs that it brings, the features it cannot be had without, and the
//! CPUID feature that it goes with. The capability MSRs and the fields that a VMCS has follow from the bits (`crate::vmx::capabilities`).
//! To announce a feature that has been implemented, add it to the models that have it; [`super::full`] has everything that is.

use super::{Model, VmxBits};
use spec::vmx::capability::{EptVpidCap, basic, misc, vmfunc};
use spec::vmx::{
    EntryControls as Entry, ExitControls as Exit, PinBasedControls as Pin, PrimaryControls as Primary,
    SecondaryControls as Secondary, SecondaryExitControls as SecondaryExit, TertiaryControls as Tertiary,
};
use spec::x86::cpuid::Feature;

macro_rules! features {
    ($($variant:ident $name:literal { $($word:ident: $bits:expr),+ } [$($needs:ident),*] [$($cpuid:ident)?] $text:literal;)*) => {
        /// A feature of VT-x.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum VmxFeature {
            $(#[doc = concat!($text, ".")] $variant,)*
        }

        impl VmxFeature {
            /// Every feature, implemented or not; what one needs stands before it.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name on the command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// What it is, in a few words.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }

            /// The bits of the capability MSRs that it brings.
            #[must_use]
            pub const fn bits(self) -> VmxBits {
                match self {
                    $(Self::$variant => VmxBits { $($word: $bits,)+ ..VmxBits::NONE },)*
                }
            }

            /// The features that it cannot be had without.
            #[must_use]
            pub const fn needs(self) -> &'static [Self] {
                match self {
                    $(Self::$variant => &[$(Self::$needs),*],)*
                }
            }

            /// The CPUID feature without which it makes no sense.
            #[must_use]
            pub const fn cpuid(self) -> Option<Feature> {
                match self {
                    $(Self::$variant => [$(Some(Feature::$cpuid),)? None][0],)*
                }
            }
        }
    };
}

const EPT: u64 = EptVpidCap::WALK_4
    | EptVpidCap::MEMORY_UC
    | EptVpidCap::MEMORY_WB
    | EptVpidCap::INVEPT
    | EptVpidCap::INVEPT_SINGLE
    | EptVpidCap::INVEPT_ALL;
const INVVPID: u64 = EptVpidCap::INVVPID
    | EptVpidCap::INVVPID_ADDRESS
    | EptVpidCap::INVVPID_SINGLE
    | EptVpidCap::INVVPID_ALL
    | EptVpidCap::INVVPID_SINGLE_RETAIN_GLOBALS;

features! {
    TrueControls "true-controls" { basic: basic::TRUE_CONTROLS } [] [] "some default1 controls may be 0";
    VirtualNmis "virtual-nmis" { pin: Pin::VIRTUAL_NMIS, primary: Primary::NMI_WINDOW_EXITING } [] [] "virtual NMIs";
    MsrBitmaps "msr-bitmaps" { primary: Primary::USE_MSR_BITMAPS } [] [] "MSR bitmaps";
    MonitorTrapFlag "mtf" { primary: Primary::MONITOR_TRAP_FLAG } [] [] "monitor trap flag";
    PreemptionTimer "preemption-timer" { pin: Pin::PREEMPTION_TIMER, exit: Exit::SAVE_PREEMPTION_TIMER } [] []
        "VMX-preemption timer";
    LoadPat "load-pat" { entry: Entry::LOAD_PAT, exit: Exit::LOAD_PAT | Exit::SAVE_PAT } [] [PAT]
        "IA32_PAT saved and loaded";
    LoadEfer "load-efer" { entry: Entry::LOAD_EFER, exit: Exit::LOAD_EFER | Exit::SAVE_EFER } [] []
        "IA32_EFER saved and loaded";
    LoadPerfGlobalCtrl "load-perf-global-ctrl"
        { entry: Entry::LOAD_PERF_GLOBAL_CTRL, exit: Exit::LOAD_PERF_GLOBAL_CTRL | Exit::SAVE_PERF_GLOBAL_CTRL } [] [PDCM]
        "IA32_PERF_GLOBAL_CTRL saved and loaded";
    LoadBndcfgs "load-bndcfgs" { entry: Entry::LOAD_BNDCFGS, exit: Exit::CLEAR_BNDCFGS } [] [MPX]
        "IA32_BNDCFGS loaded and cleared";
    LoadCet "load-cet" { entry: Entry::LOAD_CET_STATE, exit: Exit::LOAD_CET_STATE } [] [] "CET state loaded";
    LoadPkrs "load-pkrs" { entry: Entry::LOAD_PKRS, exit: Exit::LOAD_PKRS } [] [PKS] "IA32_PKRS loaded";
    LoadSpecCtrl "load-spec-ctrl" { entry: Entry::LOAD_SPEC_CTRL, secondary_exit: SecondaryExit::LOAD_SPEC_CTRL } []
        [IBRS_IBPB] "IA32_SPEC_CTRL loaded";
    BusyShadowStack "busy-shadow-stack" { secondary_exit: SecondaryExit::PREMATURELY_BUSY_SHADOW_STACK } [] [CET_SS]
        "exits tell of prematurely busy shadow stacks (there are none: a new stack's frame lies beside its token)";
    AnyErrorCode "any-error-code" { basic: basic::ANY_ERROR_CODE } [] []
        "exceptions injected with or without an error code, whatever the vector";
    VmwriteAny "vmwrite-any" { misc: misc::VMWRITE_ANY } [] [] "VMWRITE to exit-information fields";
    InjectLength0 "inject-length-0" { misc: misc::INJECT_LENGTH_0 } [] []
        "software events injected with an instruction length of 0";
    TprShadow "tpr-shadow" { primary: Primary::USE_TPR_SHADOW } [] [] "TPR shadow";
    ApicAccesses "apic-accesses" { secondary: Secondary::VIRTUALIZE_APIC_ACCESSES } [] [] "APIC-access page";
    X2apicMode "x2apic-mode" { secondary: Secondary::VIRTUALIZE_X2APIC_MODE } [TprShadow] [X2APIC]
        "virtualized x2APIC mode";
    ApicRegisters "apic-registers" { secondary: Secondary::APIC_REGISTER_VIRTUALIZATION } [TprShadow] []
        "APIC-register virtualization";
    VirtualInterrupts "virtual-interrupts" { secondary: Secondary::VIRTUAL_INTERRUPT_DELIVERY } [TprShadow] []
        "virtual-interrupt delivery";
    PostedInterrupts "posted-interrupts" { pin: Pin::POSTED_INTERRUPTS } [VirtualInterrupts] []
        "posted-interrupt processing";
    VirtualizeSpecCtrl "virtualize-spec-ctrl" { tertiary: Tertiary::VIRTUALIZE_SPEC_CTRL } [] [IBRS_IBPB]
        "IA32_SPEC_CTRL virtualized";
    IpiVirtualization "ipi-virtualization" { tertiary: Tertiary::IPI_VIRTUALIZATION } [PostedInterrupts] []
        "IPI virtualization";
    DescriptorTableExiting "descriptor-table-exiting" { secondary: Secondary::DESCRIPTOR_TABLE_EXITING } [] []
        "exits of descriptor-table instructions";
    WbinvdExiting "wbinvd-exiting" { secondary: Secondary::WBINVD_EXITING } [] [] "exits of WBINVD";
    PauseLoopExiting "pause-loop-exiting" { secondary: Secondary::PAUSE_LOOP_EXITING } [] [] "PAUSE-loop exiting";
    TscScaling "tsc-scaling" { secondary: Secondary::USE_TSC_SCALING } [] [] "TSC scaling";
    VmcsShadowing "vmcs-shadowing" { secondary: Secondary::VMCS_SHADOWING } [VmwriteAny] [] "VMCS shadowing";
    BusLockExiting "bus-lock-exiting" { secondary: Secondary::BUS_LOCK_DETECTION } [] [] "exits after bus locks";
    NotifyExiting "notify-exiting" { secondary: Secondary::INSTRUCTION_TIMEOUT } [] []
        "exits when no instruction boundary comes in time";
    Vpid "vpid" { secondary: Secondary::ENABLE_VPID, ept_vpid: INVVPID } [] [] "virtual-processor identifiers";
    Ept "ept" { secondary: Secondary::ENABLE_EPT, ept_vpid: EPT } [] [] "extended page tables";
    EptExecuteOnly "ept-execute-only" { ept_vpid: EptVpidCap::EXECUTE_ONLY } [Ept] [] "EPT: execute-only pages";
    EptPages2M "ept-2m" { ept_vpid: EptVpidCap::PAGES_2M } [Ept] [] "EPT: 2 MiB pages";
    EptPages1G "ept-1g" { ept_vpid: EptVpidCap::PAGES_1G } [Ept] [] "EPT: 1 GiB pages";
    EptAccessedDirty "ept-ad" { ept_vpid: EptVpidCap::ACCESSED_DIRTY } [Ept] [] "EPT: accessed and dirty flags";
    Ept5Level "ept-5level" { ept_vpid: EptVpidCap::WALK_5 } [Ept] [] "EPT: 5 levels";
    EptAdvancedInfo "ept-advanced-info" { ept_vpid: EptVpidCap::ADVANCED_EXIT_INFO } [Ept] []
        "EPT: advanced exit information of violations";
    EptShadowStack "ept-shadow-stack" { ept_vpid: EptVpidCap::SUPERVISOR_SHADOW_STACK } [Ept] [CET_SS]
        "EPT: supervisor shadow-stack control";
    UnrestrictedGuest "unrestricted-guest" { secondary: Secondary::UNRESTRICTED_GUEST, misc: misc::STORE_LMA } [Ept] []
        "unrestricted guest";
    EptpSwitching "eptp-switching"
        { secondary: Secondary::ENABLE_VM_FUNCTIONS, vm_functions: vmfunc::EPTP_SWITCHING } [Ept] []
        "VM functions, with EPTP switching";
    Pml "pml" { secondary: Secondary::ENABLE_PML } [EptAccessedDirty] [] "page-modification logging";
    VirtualizationExceptions "ept-ve" { secondary: Secondary::EPT_VIOLATION_VE } [Ept] []
        "EPT violations as virtualization exceptions (#VE)";
    ModeBasedExecute "mbec" { secondary: Secondary::MODE_BASED_EXECUTE } [Ept] [] "mode-based execute control";
    SubPageWrite "spp" { secondary: Secondary::SUB_PAGE_WRITE } [Ept] [] "sub-page write permissions";
    Hlat "hlat" { tertiary: Tertiary::ENABLE_HLAT, ept_vpid: EptVpidCap::HLAT_PREFIX_1 } [Ept] [] "hypervisor-managed linear-address translation";
    PagingWrite "ept-paging-write" { tertiary: Tertiary::EPT_PAGING_WRITE } [Ept] [] "EPT paging-write control";
    GuestPagingVerification "guest-paging-verification" { tertiary: Tertiary::GUEST_PAGING_VERIFICATION } [Ept] []
        "guest-paging verification";
}

/// What every processor with VT-x has.
const BASE: VmxBits = VmxBits {
    pin: Pin::EXTERNAL_INTERRUPT_EXITING | Pin::NMI_EXITING,
    primary: Primary::INTERRUPT_WINDOW_EXITING
        | Primary::USE_TSC_OFFSETTING
        | Primary::HLT_EXITING
        | Primary::INVLPG_EXITING
        | Primary::MWAIT_EXITING
        | Primary::RDPMC_EXITING
        | Primary::RDTSC_EXITING
        | Primary::CR3_LOAD_EXITING
        | Primary::CR3_STORE_EXITING
        | Primary::CR8_LOAD_EXITING
        | Primary::CR8_STORE_EXITING
        | Primary::MOV_DR_EXITING
        | Primary::UNCONDITIONAL_IO_EXITING
        | Primary::USE_IO_BITMAPS
        | Primary::MONITOR_EXITING
        | Primary::PAUSE_EXITING,
    exit: Exit::SAVE_DEBUG_CONTROLS | Exit::HOST_ADDRESS_SPACE_SIZE | Exit::ACKNOWLEDGE_INTERRUPT_ON_EXIT,
    entry: Entry::LOAD_DEBUG_CONTROLS | Entry::IA32E_MODE_GUEST,
    misc: misc::ACTIVITY_HLT | misc::ACTIVITY_SHUTDOWN | misc::ACTIVITY_WAIT_FOR_SIPI,
    basic: basic::INS_OUTS_INFO,
    ..VmxBits::NONE
};

const fn secondary(bits: u32) -> VmxBits {
    VmxBits { secondary: bits, ..VmxBits::NONE }
}

/// Controls that come with an instruction which CPUID announces.
const BY_CPUID: &[(Feature, VmxBits)] = &[
    (Feature::RDTSCP, secondary(Secondary::ENABLE_RDTSCP)),
    (Feature::RDPID, secondary(Secondary::ENABLE_RDTSCP)),
    (Feature::RDRAND, secondary(Secondary::RDRAND_EXITING)),
    (Feature::RDSEED, secondary(Secondary::RDSEED_EXITING)),
    (Feature::INVPCID, secondary(Secondary::ENABLE_INVPCID)),
    (Feature::XSAVES, secondary(Secondary::ENABLE_XSAVES)),
    (Feature::WAITPKG, secondary(Secondary::ENABLE_USER_WAIT)),
];

impl VmxFeature {
    /// The feature of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|feature| feature.name() == name)
    }
}

impl Model {
    /// The bits of the VMX capability MSRs: controls that can be 1, and what else the model's VT-x has.
    #[must_use]
    pub fn vmx_bits(&self) -> VmxBits {
        if !self.has(Feature::VMX) {
            return VmxBits::NONE;
        }
        let by_cpuid = BY_CPUID.iter().filter(|(feature, _)| self.has(*feature)).map(|(_, bits)| *bits);
        let features = self.vmx.iter().map(VmxFeature::bits);
        let mut bits = by_cpuid.chain(features).fold(BASE, VmxBits::with).without(self.vmx_off);
        // Words that controls activate exist with the control.
        let off = self.vmx_off;
        if bits.secondary != 0 && off.primary & Primary::ACTIVATE_SECONDARY_CONTROLS == 0 {
            bits.primary |= Primary::ACTIVATE_SECONDARY_CONTROLS;
        } else {
            bits.secondary = 0;
        }
        if bits.tertiary != 0 && off.primary & Primary::ACTIVATE_TERTIARY_CONTROLS == 0 {
            bits.primary |= Primary::ACTIVATE_TERTIARY_CONTROLS;
        } else {
            bits.tertiary = 0;
        }
        if bits.secondary_exit != 0 && off.exit & Exit::ACTIVATE_SECONDARY_CONTROLS == 0 {
            bits.exit |= Exit::ACTIVATE_SECONDARY_CONTROLS;
        } else {
            bits.secondary_exit = 0;
        }
        bits
    }
}

/// A set of VT-x features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VmxFeatureSet(u64);

const _: () = assert!(VmxFeature::ALL.len() <= 64);

impl VmxFeatureSet {
    /// None.
    pub const NONE: Self = Self(0);

    /// The set of these features.
    #[must_use]
    pub const fn of(features: &[VmxFeature]) -> Self {
        Self::NONE.with(features)
    }

    /// The set with these features too.
    #[must_use]
    pub const fn with(self, features: &[VmxFeature]) -> Self {
        let mut bits = self.0;
        let mut index = 0;
        while index < features.len() {
            bits |= 1 << features[index] as u8;
            index += 1;
        }
        Self(bits)
    }

    /// The set without these features.
    #[must_use]
    pub const fn without(self, features: &[VmxFeature]) -> Self {
        Self(self.0 & !Self::of(features).0)
    }

    /// Whether `feature` is in the set.
    #[must_use]
    pub const fn has(&self, feature: VmxFeature) -> bool {
        self.0 >> feature as u8 & 1 != 0
    }

    /// The members, in the order of the table.
    pub fn iter(&self) -> impl Iterator<Item = VmxFeature> + use<> {
        let set = *self;
        VmxFeature::ALL.iter().copied().filter(move |feature| set.has(*feature))
    }

    /// The set without `feature` and without all that needs it.
    #[must_use]
    pub fn without_dependants(self, feature: VmxFeature) -> Self {
        self.without(&[feature]).supported()
    }

    /// The members whose needs are members.
    #[must_use]
    pub fn supported(self) -> Self {
        // What is needed stands first, so one pass suffices.
        self.iter().fold(Self::NONE, |kept, feature| {
            if feature.needs().iter().all(|needed| kept.has(*needed)) { kept.with(&[feature]) } else { kept }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_stands_before() {
        for feature in VmxFeature::ALL {
            assert!(feature.needs().iter().all(|needed| needed < feature), "{feature:?}");
        }
    }

    #[test]
    fn no_name_is_also_a_cpuid_features() {
        for feature in VmxFeature::ALL {
            assert!(Feature::ALL.iter().all(|other| other.name() != feature.name()), "{feature:?}");
        }
    }

    #[test]
    fn no_two_features_bring_the_same_bit() {
        for (n, feature) in VmxFeature::ALL.iter().enumerate() {
            assert!(!feature.bits().intersects(BASE), "{feature:?}");
            for other in &VmxFeature::ALL[..n] {
                assert!(!feature.bits().intersects(other.bits()), "{feature:?} and {other:?}");
            }
        }
    }

    #[test]
    fn without_ept_goes_all_that_needs_it() {
        use VmxFeature::*;
        let set = VmxFeatureSet::of(&[Vpid, Ept, EptAccessedDirty, Pml, UnrestrictedGuest]);
        assert_eq!(set.without_dependants(Ept), VmxFeatureSet::of(&[Vpid]));
        assert_eq!(set.without_dependants(EptAccessedDirty), VmxFeatureSet::of(&[Vpid, Ept, UnrestrictedGuest]));
    }
}
