//! The default model: a server processor of the Ice Lake class, with what Vanderpool implements of it.
//!
//! Left out against a real one: AVX-512, VAES, GFNI, SGX, PT, RDT, PCONFIG, performance monitoring, power management.

use super::{Cache, CacheKind, FeatureSet, Model, VmxBits, VmxFeature, VmxFeatureSet};
use spec::x86::cpuid::Feature::*;
use spec::x86::msr::ArchCapabilities as Arch;

/// Not susceptible to branch history injection (IA32_ARCH_CAPABILITIES bit 20).
const BHI_NO: u64 = 1 << 20;
/// Not susceptible to indirect target selection (IA32_ARCH_CAPABILITIES bit 62).
const ITS_NO: u64 = 1 << 62;

pub(super) const MODEL: Model = Model {
    name: "icelake-server",
    description: "64-bit server processor of the Ice Lake class with VT-x; no AVX-512, no SGX, no TSX",
    brand: "Intel(R) Xeon(R) Processor (Icelake-Vanderpool)",
    signature: 0x0006_06a6,
    max_basic_leaf: 0x1f,
    physical_bits: 46,
    features: FeatureSet::of(&[
        FPU,
        VME,
        DE,
        PSE,
        TSC,
        MSR,
        PAE,
        MCE,
        CX8,
        APIC,
        SEP,
        MTRR,
        PGE,
        MCA,
        CMOV,
        PAT,
        PSE36,
        CLFSH,
        MMX,
        FXSR,
        SSE,
        SSE2,
        SS,
        SSE3,
        PCLMULQDQ,
        MONITOR,
        VMX,
        SSSE3,
        FMA,
        CX16,
        PCID,
        SSE4_1,
        SSE4_2,
        X2APIC,
        MOVBE,
        POPCNT,
        TSC_DEADLINE,
        AES,
        XSAVE,
        AVX,
        F16C,
        RDRAND,
        ARAT,
        FSGSBASE,
        FDP_EXCPTN_ONLY,
        FPU_CS_DS_DEPRECATED,
        TSC_ADJUST,
        BMI1,
        AVX2,
        FDP_EXCPTN_ONLY,
        SMEP,
        BMI2,
        ERMS,
        INVPCID,
        FPU_CS_DS_DEPRECATED,
        RDSEED,
        ADX,
        SMAP,
        CLFLUSHOPT,
        CLWB,
        SHA,
        UMIP,
        PKU,
        LA57,
        RDPID,
        FSRM,
        MD_CLEAR,
        IBRS_IBPB,
        STIBP,
        ARCH_CAPABILITIES,
        BHI_CTRL,
        XSAVEOPT,
        XSAVEC,
        XGETBV_ECX1,
        XSAVES,
        LAHF_LM,
        LZCNT,
        PREFETCHW,
        SYSCALL,
        NX,
        PDPE1GB,
        RDTSCP,
        LM,
        INVARIANT_TSC,
    ]),
    caches: &[
        Cache { level: 1, kind: CacheKind::Data, ways: 12, sets: 64, shared: false, inclusive: false },
        Cache { level: 1, kind: CacheKind::Instruction, ways: 8, sets: 64, shared: false, inclusive: false },
        Cache { level: 2, kind: CacheKind::Unified, ways: 20, sets: 1024, shared: false, inclusive: false },
        Cache { level: 3, kind: CacheKind::Unified, ways: 16, sets: 16384, shared: true, inclusive: false },
    ],
    vmx: VT_X,
    vmx_off: VmxBits::NONE,
    // An interpreter speculates nothing: none of the published side channels exists on it.
    arch_capabilities: Arch::RDCL_NO
        | Arch::IBRS_ALL
        | Arch::SKIP_L1DFL_VMENTRY
        | Arch::SSB_NO
        | Arch::MDS_NO
        | Arch::IF_PSCHANGE_MC_NO
        | Arch::TAA_NO
        | Arch::SBDR_SSDP_NO
        | Arch::FBSDP_NO
        | Arch::PSDP_NO
        | Arch::PBRSB_NO
        | Arch::GDS_NO
        | Arch::RFDS_NO
        | BHI_NO
        | ITS_NO,
    microcode: 0x0d00_03e7,
    platform_msrs: true,
};

const VT_X: VmxFeatureSet = VmxFeatureSet::of(&[
    VmxFeature::TrueControls,
    VmxFeature::VirtualNmis,
    VmxFeature::MsrBitmaps,
    VmxFeature::MonitorTrapFlag,
    VmxFeature::PreemptionTimer,
    VmxFeature::LoadPat,
    VmxFeature::LoadEfer,
    VmxFeature::VmwriteAny,
    VmxFeature::InjectLength0,
    VmxFeature::TprShadow,
    VmxFeature::ApicAccesses,
    VmxFeature::X2apicMode,
    VmxFeature::ApicRegisters,
    VmxFeature::VirtualInterrupts,
    VmxFeature::PostedInterrupts,
    VmxFeature::DescriptorTableExiting,
    VmxFeature::WbinvdExiting,
    VmxFeature::PauseLoopExiting,
    VmxFeature::TscScaling,
    VmxFeature::VmcsShadowing,
    VmxFeature::Vpid,
    VmxFeature::Ept,
    VmxFeature::EptExecuteOnly,
    VmxFeature::EptPages2M,
    VmxFeature::EptPages1G,
    VmxFeature::EptAccessedDirty,
    VmxFeature::EptAdvancedInfo,
    VmxFeature::UnrestrictedGuest,
    VmxFeature::EptpSwitching,
    VmxFeature::Pml,
    VmxFeature::VirtualizationExceptions,
    VmxFeature::ModeBasedExecute,
]);
