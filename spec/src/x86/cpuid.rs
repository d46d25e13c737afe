//! CPUID leaves and feature bits (SDM Vol. 2A, CPUID).

/// A register that CPUID fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Register {
    /// EAX.
    Eax,
    /// EBX.
    Ebx,
    /// ECX.
    Ecx,
    /// EDX.
    Edx,
}

/// Where a feature flag stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The leaf (EAX of CPUID).
    pub leaf: u32,
    /// The sub-leaf (ECX of CPUID), 0 for leaves without.
    pub subleaf: u32,
    /// The register.
    pub register: Register,
    /// The bit, 0 to 31.
    pub bit: u8,
}

/// The leaves with values other than feature flags.
pub mod leaf {
    /// Highest basic leaf and the vendor's name.
    pub const VENDOR: u32 = 0;
    /// Family, model, stepping; APIC id, CLFLUSH size, feature flags.
    pub const VERSION: u32 = 1;
    /// Cache and TLB descriptors.
    pub const CACHE_DESCRIPTORS: u32 = 2;
    /// Deterministic cache parameters, one sub-leaf for each cache.
    pub const CACHE_PARAMETERS: u32 = 4;
    /// MONITOR and MWAIT line sizes and sub-states.
    pub const MONITOR: u32 = 5;
    /// Thermal and power management.
    pub const THERMAL: u32 = 6;
    /// Structured extended feature flags.
    pub const EXTENDED_FEATURES: u32 = 7;
    /// Architectural performance monitoring.
    pub const PERFMON: u32 = 0xa;
    /// Topology: threads and cores.
    pub const TOPOLOGY: u32 = 0xb;
    /// XSAVE: components, sizes and offsets.
    pub const XSAVE: u32 = 0xd;
    /// Time stamp counter and core crystal clock ratio.
    pub const TSC: u32 = 0x15;
    /// Processor frequencies in MHz.
    pub const FREQUENCY: u32 = 0x16;
    /// Topology, version 2.
    pub const TOPOLOGY_V2: u32 = 0x1f;
    /// Leaves 4000_0000H to 4000_00FFH are kept for hypervisors.
    pub const HYPERVISOR: u32 = 0x4000_0000;
    /// Highest extended leaf.
    pub const EXTENDED_MAX: u32 = 0x8000_0000;
    /// Extended feature flags.
    pub const EXTENDED_FLAGS: u32 = 0x8000_0001;
    /// First of the three leaves of the brand string.
    pub const BRAND: u32 = 0x8000_0002;
    /// L2 cache.
    pub const L2_CACHE: u32 = 0x8000_0006;
    /// Invariant TSC.
    pub const POWER: u32 = 0x8000_0007;
    /// Physical and linear address widths.
    pub const ADDRESS_SIZES: u32 = 0x8000_0008;
}

macro_rules! features {
    ($($variant:ident $name:literal ($leaf:literal, $sub:literal, $reg:ident, $bit:literal) $text:literal;)*) => {
        /// A feature that CPUID announces with one bit.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[allow(non_camel_case_types, reason = "the manual's names")]
        #[repr(u8)]
        pub enum Feature {
            $(#[doc = concat!($text, ".")] $variant,)*
        }

        impl Feature {
            /// Every feature, in the order of leaves.
            pub const ALL: &'static [Feature] = &[$(Feature::$variant),*];

            /// The leaf, sub-leaf, register and bit.
            #[must_use]
            pub const fn place(self) -> Place {
                match self {
                    $(Feature::$variant => Place { leaf: $leaf, subleaf: $sub, register: Register::$reg, bit: $bit },)*
                }
            }

            /// The name Linux shows in `/proc/cpuinfo` where it has one.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Feature::$variant => $name,)*
                }
            }

            /// What it is, in a few words.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self {
                    $(Feature::$variant => $text,)*
                }
            }
        }
    };
}

features! {
    SSE3 "sse3" (0x1, 0, Ecx, 0) "SSE3";
    PCLMULQDQ "pclmulqdq" (0x1, 0, Ecx, 1) "PCLMULQDQ";
    DTES64 "dtes64" (0x1, 0, Ecx, 2) "64-bit DS area";
    MONITOR "monitor" (0x1, 0, Ecx, 3) "MONITOR and MWAIT";
    DS_CPL "ds_cpl" (0x1, 0, Ecx, 4) "CPL-qualified debug store";
    VMX "vmx" (0x1, 0, Ecx, 5) "virtual machine extensions";
    SMX "smx" (0x1, 0, Ecx, 6) "safer mode extensions";
    EIST "est" (0x1, 0, Ecx, 7) "enhanced SpeedStep";
    TM2 "tm2" (0x1, 0, Ecx, 8) "thermal monitor 2";
    SSSE3 "ssse3" (0x1, 0, Ecx, 9) "SSSE3";
    SDBG "sdbg" (0x1, 0, Ecx, 11) "IA32_DEBUG_INTERFACE";
    FMA "fma" (0x1, 0, Ecx, 12) "FMA3";
    CX16 "cx16" (0x1, 0, Ecx, 13) "CMPXCHG16B";
    XTPR "xtpr" (0x1, 0, Ecx, 14) "xTPR update control";
    PDCM "pdcm" (0x1, 0, Ecx, 15) "IA32_PERF_CAPABILITIES";
    PCID "pcid" (0x1, 0, Ecx, 17) "process-context identifiers";
    DCA "dca" (0x1, 0, Ecx, 18) "direct cache access";
    SSE4_1 "sse4_1" (0x1, 0, Ecx, 19) "SSE4.1";
    SSE4_2 "sse4_2" (0x1, 0, Ecx, 20) "SSE4.2";
    X2APIC "x2apic" (0x1, 0, Ecx, 21) "x2APIC";
    MOVBE "movbe" (0x1, 0, Ecx, 22) "MOVBE";
    POPCNT "popcnt" (0x1, 0, Ecx, 23) "POPCNT";
    TSC_DEADLINE "tsc_deadline_timer" (0x1, 0, Ecx, 24) "TSC-deadline APIC timer";
    AES "aes" (0x1, 0, Ecx, 25) "AES-NI";
    XSAVE "xsave" (0x1, 0, Ecx, 26) "XSAVE, XRSTOR, XSETBV, XGETBV";
    OSXSAVE "osxsave" (0x1, 0, Ecx, 27) "CR4.OSXSAVE as it is now";
    AVX "avx" (0x1, 0, Ecx, 28) "AVX";
    F16C "f16c" (0x1, 0, Ecx, 29) "half-precision conversions";
    RDRAND "rdrand" (0x1, 0, Ecx, 30) "RDRAND";
    HYPERVISOR "hypervisor" (0x1, 0, Ecx, 31) "running under a hypervisor";
    FPU "fpu" (0x1, 0, Edx, 0) "x87 unit";
    VME "vme" (0x1, 0, Edx, 1) "virtual-8086 mode enhancements";
    DE "de" (0x1, 0, Edx, 2) "debugging extensions";
    PSE "pse" (0x1, 0, Edx, 3) "page size extension";
    TSC "tsc" (0x1, 0, Edx, 4) "time stamp counter";
    MSR "msr" (0x1, 0, Edx, 5) "RDMSR and WRMSR";
    PAE "pae" (0x1, 0, Edx, 6) "physical address extension";
    MCE "mce" (0x1, 0, Edx, 7) "machine-check exception";
    CX8 "cx8" (0x1, 0, Edx, 8) "CMPXCHG8B";
    APIC "apic" (0x1, 0, Edx, 9) "local APIC, as enabled now";
    SEP "sep" (0x1, 0, Edx, 11) "SYSENTER and SYSEXIT";
    MTRR "mtrr" (0x1, 0, Edx, 12) "memory type range registers";
    PGE "pge" (0x1, 0, Edx, 13) "global pages";
    MCA "mca" (0x1, 0, Edx, 14) "machine-check architecture";
    CMOV "cmov" (0x1, 0, Edx, 15) "conditional moves";
    PAT "pat" (0x1, 0, Edx, 16) "page attribute table";
    PSE36 "pse36" (0x1, 0, Edx, 17) "36-bit page size extension";
    PSN "pn" (0x1, 0, Edx, 18) "processor serial number";
    CLFSH "clflush" (0x1, 0, Edx, 19) "CLFLUSH";
    DS "dts" (0x1, 0, Edx, 21) "debug store";
    ACPI "acpi" (0x1, 0, Edx, 22) "thermal monitor and clock control";
    MMX "mmx" (0x1, 0, Edx, 23) "MMX";
    FXSR "fxsr" (0x1, 0, Edx, 24) "FXSAVE and FXRSTOR";
    SSE "sse" (0x1, 0, Edx, 25) "SSE";
    SSE2 "sse2" (0x1, 0, Edx, 26) "SSE2";
    SS "ss" (0x1, 0, Edx, 27) "self snoop";
    HTT "ht" (0x1, 0, Edx, 28) "several logical processors in the package";
    TM "tm" (0x1, 0, Edx, 29) "thermal monitor";
    PBE "pbe" (0x1, 0, Edx, 31) "pending break enable";
    DTHERM "dtherm" (0x6, 0, Eax, 0) "digital temperature sensor";
    TURBO "ida" (0x6, 0, Eax, 1) "turbo boost";
    ARAT "arat" (0x6, 0, Eax, 2) "always-running APIC timer";
    PLN "pln" (0x6, 0, Eax, 4) "power limit notification";
    PTM "pts" (0x6, 0, Eax, 6) "package thermal management";
    FSGSBASE "fsgsbase" (0x7, 0, Ebx, 0) "RDFSBASE, RDGSBASE, WRFSBASE, WRGSBASE";
    TSC_ADJUST "tsc_adjust" (0x7, 0, Ebx, 1) "IA32_TSC_ADJUST";
    SGX "sgx" (0x7, 0, Ebx, 2) "software guard extensions";
    BMI1 "bmi1" (0x7, 0, Ebx, 3) "BMI1";
    HLE "hle" (0x7, 0, Ebx, 4) "hardware lock elision";
    AVX2 "avx2" (0x7, 0, Ebx, 5) "AVX2";
    FDP_EXCPTN_ONLY "fdp_excptn_only" (0x7, 0, Ebx, 6) "x87 data pointer updated only on exceptions";
    SMEP "smep" (0x7, 0, Ebx, 7) "supervisor-mode execution prevention";
    BMI2 "bmi2" (0x7, 0, Ebx, 8) "BMI2";
    ERMS "erms" (0x7, 0, Ebx, 9) "enhanced REP MOVSB and STOSB";
    INVPCID "invpcid" (0x7, 0, Ebx, 10) "INVPCID";
    RTM "rtm" (0x7, 0, Ebx, 11) "restricted transactional memory";
    PQM "cqm" (0x7, 0, Ebx, 12) "resource director monitoring";
    FPU_CS_DS_DEPRECATED "fpu_cs_ds_deprecated" (0x7, 0, Ebx, 13) "x87 CS and DS deprecated";
    MPX "mpx" (0x7, 0, Ebx, 14) "memory protection extensions";
    PQE "rdt_a" (0x7, 0, Ebx, 15) "resource director allocation";
    AVX512F "avx512f" (0x7, 0, Ebx, 16) "AVX-512 foundation";
    AVX512DQ "avx512dq" (0x7, 0, Ebx, 17) "AVX-512 doubleword and quadword";
    RDSEED "rdseed" (0x7, 0, Ebx, 18) "RDSEED";
    ADX "adx" (0x7, 0, Ebx, 19) "ADCX and ADOX";
    SMAP "smap" (0x7, 0, Ebx, 20) "supervisor-mode access prevention";
    AVX512_IFMA "avx512ifma" (0x7, 0, Ebx, 21) "AVX-512 integer FMA";
    CLFLUSHOPT "clflushopt" (0x7, 0, Ebx, 23) "CLFLUSHOPT";
    CLWB "clwb" (0x7, 0, Ebx, 24) "CLWB";
    INTEL_PT "intel_pt" (0x7, 0, Ebx, 25) "processor trace";
    AVX512CD "avx512cd" (0x7, 0, Ebx, 28) "AVX-512 conflict detection";
    SHA "sha_ni" (0x7, 0, Ebx, 29) "SHA";
    AVX512BW "avx512bw" (0x7, 0, Ebx, 30) "AVX-512 byte and word";
    AVX512VL "avx512vl" (0x7, 0, Ebx, 31) "AVX-512 vector length";
    PREFETCHWT1 "prefetchwt1" (0x7, 0, Ecx, 0) "PREFETCHWT1";
    AVX512_VBMI "avx512vbmi" (0x7, 0, Ecx, 1) "AVX-512 VBMI";
    UMIP "umip" (0x7, 0, Ecx, 2) "user-mode instruction prevention";
    PKU "pku" (0x7, 0, Ecx, 3) "protection keys for user pages";
    OSPKE "ospke" (0x7, 0, Ecx, 4) "CR4.PKE as it is now";
    WAITPKG "waitpkg" (0x7, 0, Ecx, 5) "UMONITOR, UMWAIT, TPAUSE";
    AVX512_VBMI2 "avx512_vbmi2" (0x7, 0, Ecx, 6) "AVX-512 VBMI2";
    CET_SS "shstk" (0x7, 0, Ecx, 7) "CET shadow stacks";
    GFNI "gfni" (0x7, 0, Ecx, 8) "Galois field instructions";
    VAES "vaes" (0x7, 0, Ecx, 9) "vector AES";
    VPCLMULQDQ "vpclmulqdq" (0x7, 0, Ecx, 10) "vector PCLMULQDQ";
    AVX512_VNNI "avx512_vnni" (0x7, 0, Ecx, 11) "AVX-512 VNNI";
    AVX512_BITALG "avx512_bitalg" (0x7, 0, Ecx, 12) "AVX-512 BITALG";
    AVX512_VPOPCNTDQ "avx512_vpopcntdq" (0x7, 0, Ecx, 14) "AVX-512 VPOPCNTDQ";
    LA57 "la57" (0x7, 0, Ecx, 16) "57-bit linear addresses";
    RDPID "rdpid" (0x7, 0, Ecx, 22) "RDPID and IA32_TSC_AUX";
    KL "kl" (0x7, 0, Ecx, 23) "key locker";
    BUS_LOCK_DETECT "bus_lock_detect" (0x7, 0, Ecx, 24) "bus-lock debug exception";
    CLDEMOTE "cldemote" (0x7, 0, Ecx, 25) "CLDEMOTE";
    MOVDIRI "movdiri" (0x7, 0, Ecx, 27) "MOVDIRI";
    MOVDIR64B "movdir64b" (0x7, 0, Ecx, 28) "MOVDIR64B";
    ENQCMD "enqcmd" (0x7, 0, Ecx, 29) "ENQCMD";
    PKS "pks" (0x7, 0, Ecx, 31) "protection keys for supervisor pages";
    FSRM "fsrm" (0x7, 0, Edx, 4) "fast short REP MOVSB";
    UINTR "uintr" (0x7, 0, Edx, 5) "user interrupts";
    AVX512_VP2INTERSECT "avx512_vp2intersect" (0x7, 0, Edx, 8) "AVX-512 VP2INTERSECT";
    MD_CLEAR "md_clear" (0x7, 0, Edx, 10) "VERW clears buffers";
    SERIALIZE "serialize" (0x7, 0, Edx, 14) "SERIALIZE";
    HYBRID "hybrid_cpu" (0x7, 0, Edx, 15) "hybrid part";
    TSXLDTRK "tsxldtrk" (0x7, 0, Edx, 16) "TSX suspend load tracking";
    PCONFIG "pconfig" (0x7, 0, Edx, 18) "PCONFIG";
    CET_IBT "ibt" (0x7, 0, Edx, 20) "CET indirect branch tracking";
    AMX_BF16 "amx_bf16" (0x7, 0, Edx, 22) "AMX bfloat16";
    AVX512_FP16 "avx512_fp16" (0x7, 0, Edx, 23) "AVX-512 FP16";
    AMX_TILE "amx_tile" (0x7, 0, Edx, 24) "AMX tiles";
    AMX_INT8 "amx_int8" (0x7, 0, Edx, 25) "AMX int8";
    IBRS_IBPB "spec_ctrl" (0x7, 0, Edx, 26) "IA32_SPEC_CTRL.IBRS and IA32_PRED_CMD.IBPB";
    STIBP "intel_stibp" (0x7, 0, Edx, 27) "single thread indirect branch predictors";
    L1D_FLUSH "flush_l1d" (0x7, 0, Edx, 28) "IA32_FLUSH_CMD";
    ARCH_CAPABILITIES "arch_capabilities" (0x7, 0, Edx, 29) "IA32_ARCH_CAPABILITIES";
    CORE_CAPABILITIES "core_capabilities" (0x7, 0, Edx, 30) "IA32_CORE_CAPABILITIES";
    SSBD "spec_ctrl_ssbd" (0x7, 0, Edx, 31) "speculative store bypass disable";
    AVX_VNNI "avx_vnni" (0x7, 1, Eax, 4) "AVX VNNI";
    AVX512_BF16 "avx512_bf16" (0x7, 1, Eax, 5) "AVX-512 bfloat16";
    FZRM "fzrm" (0x7, 1, Eax, 10) "fast zero-length REP MOVSB";
    FSRS "fsrs" (0x7, 1, Eax, 11) "fast short REP STOSB";
    FSRC "fsrc" (0x7, 1, Eax, 12) "fast short REP CMPSB and SCASB";
    FRED "fred" (0x7, 1, Eax, 17) "flexible return and event delivery";
    LAM "lam" (0x7, 1, Eax, 26) "linear address masking";
    CET_SSS "cet_sss" (0x7, 1, Edx, 18) "supervisor shadow stacks never become prematurely busy";
    BHI_CTRL "bhi_ctrl" (0x7, 2, Edx, 4) "IA32_SPEC_CTRL.BHI_DIS_S";
    XSAVEOPT "xsaveopt" (0xd, 1, Eax, 0) "XSAVEOPT";
    XSAVEC "xsavec" (0xd, 1, Eax, 1) "XSAVEC and compacted XRSTOR";
    XGETBV_ECX1 "xgetbv1" (0xd, 1, Eax, 2) "XGETBV with ECX = 1";
    XSAVES "xsaves" (0xd, 1, Eax, 3) "XSAVES, XRSTORS and IA32_XSS";
    XFD "xfd" (0xd, 1, Eax, 4) "extended feature disable";
    LAHF_LM "lahf_lm" (0x8000_0001, 0, Ecx, 0) "LAHF and SAHF in 64-bit mode";
    LZCNT "abm" (0x8000_0001, 0, Ecx, 5) "LZCNT";
    PREFETCHW "3dnowprefetch" (0x8000_0001, 0, Ecx, 8) "PREFETCHW";
    SYSCALL "syscall" (0x8000_0001, 0, Edx, 11) "SYSCALL and SYSRET in 64-bit mode";
    NX "nx" (0x8000_0001, 0, Edx, 20) "execute-disable";
    PDPE1GB "pdpe1gb" (0x8000_0001, 0, Edx, 26) "1 GiB pages";
    RDTSCP "rdtscp" (0x8000_0001, 0, Edx, 27) "RDTSCP and IA32_TSC_AUX";
    LM "lm" (0x8000_0001, 0, Edx, 29) "Intel 64";
    INVARIANT_TSC "constant_tsc" (0x8000_0007, 0, Edx, 8) "invariant TSC";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_features_share_a_bit() {
        for (i, a) in Feature::ALL.iter().enumerate() {
            for b in &Feature::ALL[i + 1..] {
                assert_ne!(a.place(), b.place(), "{a:?} and {b:?}");
                assert_ne!(a.name(), b.name(), "{a:?} and {b:?}");
            }
        }
    }

    #[test]
    fn known_places() {
        assert_eq!(Feature::VMX.place(), Place { leaf: 1, subleaf: 0, register: Register::Ecx, bit: 5 });
        assert_eq!(Feature::LM.place(), Place { leaf: 0x8000_0001, subleaf: 0, register: Register::Edx, bit: 29 });
    }
}
