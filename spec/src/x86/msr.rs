//! Model-specific registers: their numbers (SDM Vol. 4, chapter 2).

macro_rules! msrs {
    ($($name:ident = $number:literal, $text:literal;)*) => {
        $(#[doc = $text] pub const $name: u32 = $number;)*

        /// Every MSR named here: its number and its name.
        pub const NAMED: &[(u32, &str)] = &[$(($number, stringify!($name))),*];
    };
}

msrs! {
    P5_MC_ADDR = 0x0, "IA32_P5_MC_ADDR: machine-check address of the P5 family.";
    P5_MC_TYPE = 0x1, "IA32_P5_MC_TYPE: machine-check type of the P5 family.";
    MONITOR_FILTER_SIZE = 0x6, "IA32_MONITOR_FILTER_SIZE: MONITOR line size.";
    TSC = 0x10, "IA32_TIME_STAMP_COUNTER.";
    PLATFORM_ID = 0x17, "IA32_PLATFORM_ID.";
    APIC_BASE = 0x1b, "IA32_APIC_BASE: address, enables and BSP flag of the local APIC.";
    FEATURE_CONTROL = 0x3a, "IA32_FEATURE_CONTROL: lock and VMX enables.";
    TSC_ADJUST = 0x3b, "IA32_TSC_ADJUST.";
    SPEC_CTRL = 0x48, "IA32_SPEC_CTRL: speculation control.";
    PRED_CMD = 0x49, "IA32_PRED_CMD: prediction command (IBPB).";
    BIOS_UPDT_TRIG = 0x79, "IA32_BIOS_UPDT_TRIG: microcode update trigger.";
    BIOS_SIGN_ID = 0x8b, "IA32_BIOS_SIGN_ID: microcode revision.";
    SMM_MONITOR_CTL = 0x9b, "IA32_SMM_MONITOR_CTL.";
    SMBASE = 0x9e, "IA32_SMBASE.";
    PMC0 = 0xc1, "IA32_PMC0: general performance counter 0; 1 to 7 follow.";
    CORE_CAPABILITIES = 0xcf, "IA32_CORE_CAPABILITIES.";
    PLATFORM_INFO = 0xce, "MSR_PLATFORM_INFO.";
    UMWAIT_CONTROL = 0xe1, "IA32_UMWAIT_CONTROL.";
    PKG_CST_CONFIG_CONTROL = 0xe2, "MSR_PKG_CST_CONFIG_CONTROL: package C-state limits.";
    MPERF = 0xe7, "IA32_MPERF.";
    APERF = 0xe8, "IA32_APERF.";
    MTRRCAP = 0xfe, "IA32_MTRRCAP.";
    ARCH_CAPABILITIES = 0x10a, "IA32_ARCH_CAPABILITIES.";
    FLUSH_CMD = 0x10b, "IA32_FLUSH_CMD: L1 data cache flush.";
    BBL_CR_CTL3 = 0x11e, "MSR_BBL_CR_CTL3.";
    TSX_CTRL = 0x122, "IA32_TSX_CTRL.";
    MCU_OPT_CTRL = 0x123, "IA32_MCU_OPT_CTRL.";
    MISC_FEATURES_ENABLES = 0x140, "MSR_MISC_FEATURES_ENABLES.";
    SYSENTER_CS = 0x174, "IA32_SYSENTER_CS.";
    SYSENTER_ESP = 0x175, "IA32_SYSENTER_ESP.";
    SYSENTER_EIP = 0x176, "IA32_SYSENTER_EIP.";
    MCG_CAP = 0x179, "IA32_MCG_CAP.";
    MCG_STATUS = 0x17a, "IA32_MCG_STATUS.";
    MCG_CTL = 0x17b, "IA32_MCG_CTL.";
    PERFEVTSEL0 = 0x186, "IA32_PERFEVTSEL0; 1 to 7 follow.";
    PERF_STATUS = 0x198, "IA32_PERF_STATUS.";
    PERF_CTL = 0x199, "IA32_PERF_CTL.";
    CLOCK_MODULATION = 0x19a, "IA32_CLOCK_MODULATION.";
    THERM_INTERRUPT = 0x19b, "IA32_THERM_INTERRUPT.";
    THERM_STATUS = 0x19c, "IA32_THERM_STATUS.";
    MISC_ENABLE = 0x1a0, "IA32_MISC_ENABLE.";
    TEMPERATURE_TARGET = 0x1a2, "MSR_TEMPERATURE_TARGET.";
    ENERGY_PERF_BIAS = 0x1b0, "IA32_ENERGY_PERF_BIAS.";
    DEBUGCTL = 0x1d9, "IA32_DEBUGCTL.";
    LASTBRANCHFROMIP = 0x1db, "LASTBRANCHFROMIP.";
    LASTBRANCHTOIP = 0x1dc, "LASTBRANCHTOIP.";
    POWER_CTL = 0x1fc, "MSR_POWER_CTL: C1E and energy control.";
    MTRR_PHYSBASE0 = 0x200, "IA32_MTRR_PHYSBASE0; base and mask of the variable ranges alternate from here.";
    MTRR_PHYSMASK0 = 0x201, "IA32_MTRR_PHYSMASK0.";
    MTRR_FIX64K_00000 = 0x250, "IA32_MTRR_FIX64K_00000.";
    MTRR_FIX16K_80000 = 0x258, "IA32_MTRR_FIX16K_80000.";
    MTRR_FIX16K_A0000 = 0x259, "IA32_MTRR_FIX16K_A0000.";
    MTRR_FIX4K_C0000 = 0x268, "IA32_MTRR_FIX4K_C0000; seven more follow, to F8000 at 26FH.";
    PAT = 0x277, "IA32_PAT.";
    MC0_CTL2 = 0x280, "IA32_MC0_CTL2; one for each bank.";
    MTRR_DEF_TYPE = 0x2ff, "IA32_MTRR_DEF_TYPE.";
    FIXED_CTR0 = 0x309, "IA32_FIXED_CTR0; 1 and 2 follow.";
    PERF_CAPABILITIES = 0x345, "IA32_PERF_CAPABILITIES.";
    FIXED_CTR_CTRL = 0x38d, "IA32_FIXED_CTR_CTRL.";
    PERF_GLOBAL_STATUS = 0x38e, "IA32_PERF_GLOBAL_STATUS.";
    PERF_GLOBAL_CTRL = 0x38f, "IA32_PERF_GLOBAL_CTRL.";
    PERF_GLOBAL_OVF_CTRL = 0x390, "IA32_PERF_GLOBAL_OVF_CTRL.";
    PEBS_ENABLE = 0x3f1, "IA32_PEBS_ENABLE.";
    MC0_CTL = 0x400, "IA32_MC0_CTL; STATUS, ADDR and MISC follow, then the next bank.";
    MC0_STATUS = 0x401, "IA32_MC0_STATUS.";
    MC0_ADDR = 0x402, "IA32_MC0_ADDR.";
    MC0_MISC = 0x403, "IA32_MC0_MISC.";
    VMX_BASIC = 0x480, "IA32_VMX_BASIC.";
    VMX_PINBASED_CTLS = 0x481, "IA32_VMX_PINBASED_CTLS.";
    VMX_PROCBASED_CTLS = 0x482, "IA32_VMX_PROCBASED_CTLS.";
    VMX_EXIT_CTLS = 0x483, "IA32_VMX_EXIT_CTLS.";
    VMX_ENTRY_CTLS = 0x484, "IA32_VMX_ENTRY_CTLS.";
    VMX_MISC = 0x485, "IA32_VMX_MISC.";
    VMX_CR0_FIXED0 = 0x486, "IA32_VMX_CR0_FIXED0.";
    VMX_CR0_FIXED1 = 0x487, "IA32_VMX_CR0_FIXED1.";
    VMX_CR4_FIXED0 = 0x488, "IA32_VMX_CR4_FIXED0.";
    VMX_CR4_FIXED1 = 0x489, "IA32_VMX_CR4_FIXED1.";
    VMX_VMCS_ENUM = 0x48a, "IA32_VMX_VMCS_ENUM.";
    VMX_PROCBASED_CTLS2 = 0x48b, "IA32_VMX_PROCBASED_CTLS2.";
    VMX_EPT_VPID_CAP = 0x48c, "IA32_VMX_EPT_VPID_CAP.";
    VMX_TRUE_PINBASED_CTLS = 0x48d, "IA32_VMX_TRUE_PINBASED_CTLS.";
    VMX_TRUE_PROCBASED_CTLS = 0x48e, "IA32_VMX_TRUE_PROCBASED_CTLS.";
    VMX_TRUE_EXIT_CTLS = 0x48f, "IA32_VMX_TRUE_EXIT_CTLS.";
    VMX_TRUE_ENTRY_CTLS = 0x490, "IA32_VMX_TRUE_ENTRY_CTLS.";
    VMX_VMFUNC = 0x491, "IA32_VMX_VMFUNC.";
    VMX_PROCBASED_CTLS3 = 0x492, "IA32_VMX_PROCBASED_CTLS3.";
    VMX_EXIT_CTLS2 = 0x493, "IA32_VMX_EXIT_CTLS2.";
    A_PMC0 = 0x4c1, "IA32_A_PMC0: general performance counter 0, written in full width; 1 to 7 follow.";
    DS_AREA = 0x600, "IA32_DS_AREA.";
    RTIT_CTL = 0x570, "IA32_RTIT_CTL.";
    RAPL_POWER_UNIT = 0x606, "MSR_RAPL_POWER_UNIT.";
    U_CET = 0x6a0, "IA32_U_CET.";
    S_CET = 0x6a2, "IA32_S_CET.";
    PL0_SSP = 0x6a4, "IA32_PL0_SSP; 1 to 3 follow.";
    INTERRUPT_SSP_TABLE_ADDR = 0x6a8, "IA32_INTERRUPT_SSP_TABLE_ADDR.";
    TSC_DEADLINE = 0x6e0, "IA32_TSC_DEADLINE.";
    PKRS = 0x6e1, "IA32_PKRS.";
    X2APIC_FIRST = 0x800, "First of the x2APIC registers: 800H + the xAPIC offset / 16.";
    X2APIC_LAST = 0x8ff, "Last of the x2APIC range.";
    DEBUG_INTERFACE = 0xc80, "IA32_DEBUG_INTERFACE.";
    BNDCFGS = 0xd90, "IA32_BNDCFGS.";
    XSS = 0xda0, "IA32_XSS.";
    LBR_CTL = 0x14ce, "IA32_LBR_CTL.";
    EFER = 0xc000_0080, "IA32_EFER.";
    STAR = 0xc000_0081, "IA32_STAR.";
    LSTAR = 0xc000_0082, "IA32_LSTAR.";
    CSTAR = 0xc000_0083, "IA32_CSTAR.";
    FMASK = 0xc000_0084, "IA32_FMASK.";
    FS_BASE = 0xc000_0100, "IA32_FS_BASE.";
    GS_BASE = 0xc000_0101, "IA32_GS_BASE.";
    KERNEL_GS_BASE = 0xc000_0102, "IA32_KERNEL_GS_BASE.";
    TSC_AUX = 0xc000_0103, "IA32_TSC_AUX.";
}

named_bits! {
    /// IA32_FEATURE_CONTROL (SDM Vol. 3C, 24.7).
    FeatureControl(u64) {
        0 LOCK "lock: writes raise #GP until reset, and VMXON needs it";
        1 VMX_IN_SMX "VMXON allowed inside SMX operation";
        2 VMX_OUTSIDE_SMX "VMXON allowed outside SMX operation";
        17 SGX_LC "SGX launch control enable";
        18 SGX "SGX global enable";
        20 LMCE "local machine check on";
    }
}

named_bits! {
    /// IA32_APIC_BASE (SDM Vol. 3A, 11.4.4). The base address is bits MAXPHYADDR-1:12.
    ApicBase(u64) {
        8 BSP "bootstrap processor";
        10 X2APIC "x2APIC mode enable";
        11 ENABLE "APIC global enable";
    }
}

impl ApicBase {
    /// The address after reset.
    pub const DEFAULT_ADDRESS: u64 = 0xfee0_0000;
    /// The base address's bits (before the limit of MAXPHYADDR).
    pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
}

named_bits! {
    /// IA32_MISC_ENABLE (SDM Vol. 4, table 2-2).
    MiscEnable(u64) {
        0 FAST_STRING "fast-string operation";
        3 THERMAL_CONTROL "automatic thermal control circuit";
        7 PERFMON "performance monitoring available";
        11 BTS_UNAVAILABLE "branch trace storage unavailable";
        12 PEBS_UNAVAILABLE "processor event-based sampling unavailable";
        16 ENHANCED_SPEEDSTEP "enhanced SpeedStep enable";
        18 MONITOR "MONITOR/MWAIT enable";
        22 LIMIT_CPUID "limit CPUID to leaf 3";
        23 XTPR_DISABLE "xTPR messages disabled";
        34 XD_DISABLE "execute-disable bit disabled";
    }
}

named_bits! {
    /// IA32_MTRRCAP (SDM Vol. 3A, 12.11.1). Bits 7:0 are the number of variable ranges.
    MtrrCap(u64) {
        8 FIXED "fixed ranges supported";
        10 WC "write-combining supported";
        11 SMRR "system-management range registers supported";
    }
}

named_bits! {
    /// IA32_MTRR_DEF_TYPE (SDM Vol. 3A, 12.11.2.1). Bits 7:0 are the default type.
    MtrrDefType(u64) {
        10 FIXED_ENABLE "fixed ranges enabled";
        11 ENABLE "MTRRs enabled";
    }
}

named_bits! {
    /// IA32_SPEC_CTRL (SDM Vol. 4, table 2-2).
    SpecCtrl(u64) {
        0 IBRS "indirect branch restricted speculation";
        1 STIBP "single thread indirect branch predictors";
        2 SSBD "speculative store bypass disable";
        10 BHI_DIS_S "branch history injection prevented in supervisor mode";
    }
}

named_bits! {
    /// IA32_ARCH_CAPABILITIES (SDM Vol. 4, table 2-2).
    ArchCapabilities(u64) {
        0 RDCL_NO "not susceptible to rogue data cache load (Meltdown)";
        1 IBRS_ALL "enhanced IBRS";
        2 RSBA "RSB alternate";
        3 SKIP_L1DFL_VMENTRY "no L1D flush needed on VM entry";
        4 SSB_NO "not susceptible to speculative store bypass";
        5 MDS_NO "not susceptible to MDS";
        6 IF_PSCHANGE_MC_NO "no machine check on a page-size change without invalidation";
        7 TSX_CTRL "IA32_TSX_CTRL exists";
        8 TAA_NO "not affected by TAA";
        13 SBDR_SSDP_NO "not affected by SBDR or SSDP";
        14 FBSDP_NO "not affected by FBSDP";
        15 PSDP_NO "not affected by PSDP";
        24 PBRSB_NO "not affected by post-barrier RSB prediction";
        26 GDS_NO "not affected by gather data sampling";
        27 RFDS_NO "not affected by register file data sampling";
    }
}
