//! CPU models: named types, with what they announce in CPUID and in their model-specific registers.
//!
//! A model announces only what the processor does. [`Model::named`] finds one by the name the command line uses, with
//! `-feature` and `+feature` to change it. The VMX capability MSRs of a model are computed in [`crate::vmx`] from its VT-x features.

mod basic64;
mod choice;
mod cpuid;
mod features;
pub mod frequency;
mod full;
mod icelake_server;
mod msrs;
mod vmx64;
mod vmx_bits;
mod vmx_features;

pub use cpuid::{CpuidContext, CpuidResult};
pub use features::FeatureSet;
pub use msrs::{MCG_BANKS, MTRR_VARIABLE_RANGES, ResetMsrs};
pub use vmx_bits::{VmxBits, VmxWord, hyphenated};
pub use vmx_features::{VmxFeature, VmxFeatureSet};

use spec::x86::cpuid::Feature;

/// One cache, as CPUID leaf 4 describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cache {
    /// 1 for the first level.
    pub level: u8,
    /// What it holds.
    pub kind: CacheKind,
    /// Associativity.
    pub ways: u32,
    /// Number of sets; lines are 64 bytes.
    pub sets: u32,
    /// Whether every core of the package shares it.
    pub shared: bool,
    /// Whether it holds what the caches of lower levels hold.
    pub inclusive: bool,
}

/// What a cache holds, in the encoding of CPUID leaf 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CacheKind {
    /// Data.
    Data = 1,
    /// Instructions.
    Instruction = 2,
    /// Both.
    Unified = 3,
}

/// A CPU model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// The name by which it is chosen.
    pub name: &'static str,
    /// What it is, in one line.
    pub description: &'static str,
    /// The brand string of CPUID leaves 0x8000_0002 to 4; at most 47 bytes.
    pub brand: &'static str,
    /// Family, model and stepping, as CPUID leaf 1 gives them in EAX.
    pub signature: u32,
    /// Highest basic CPUID leaf.
    pub max_basic_leaf: u32,
    /// MAXPHYADDR: width of a physical address.
    pub physical_bits: u8,
    /// Features announced, but for those that follow the processor's state (OSXSAVE, OSPKE) or the machine (HTT).
    pub features: FeatureSet,
    /// Caches, first level first.
    pub caches: &'static [Cache],
    /// Features of VT-x, when the model has VMX.
    pub vmx: VmxFeatureSet,
    /// Single bits of the VMX capability MSRs that are switched off although a feature brings them.
    pub vmx_off: VmxBits,
    /// IA32_ARCH_CAPABILITIES, when the model has it.
    pub arch_capabilities: u64,
    /// The microcode revision in IA32_BIOS_SIGN_ID.
    pub microcode: u32,
    /// Whether the MSRs of the platform exist that systems look for on this family and model: MSR_PLATFORM_INFO,
    /// MSR_PKG_CST_CONFIG_CONTROL, MSR_POWER_CTL.
    pub platform_msrs: bool,
}

impl Model {
    /// Every model, the default first.
    pub const ALL: &'static [Self] = &[icelake_server::MODEL, full::MODEL, vmx64::MODEL, basic64::MODEL];

    /// The model that machines have unless another is asked for.
    #[must_use]
    pub fn default_model() -> Self {
        Self::ALL[0].clone()
    }

    /// Whether the model announces `feature`.
    #[inline]
    #[must_use]
    pub const fn has(&self, feature: Feature) -> bool {
        self.features.has(feature)
    }

    /// Width of a linear address: 57 with 5-level paging, or 48.
    #[must_use]
    pub const fn linear_bits(&self) -> u8 {
        if self.has(Feature::LA57) { 57 } else { 48 }
    }

    /// The state components that XCR0 can enable; zero without XSAVE.
    #[must_use]
    pub const fn xcr0_supported(&self) -> u64 {
        use spec::x86::control_registers::Xcr0;
        if !self.has(Feature::XSAVE) {
            return 0;
        }
        Xcr0::X87
            | Xcr0::SSE
            | if self.has(Feature::AVX) { Xcr0::AVX } else { 0 }
            | if self.has(Feature::PKU) { Xcr0::PKRU } else { 0 }
    }

    /// The state components that IA32_XSS can enable; zero without XSAVES.
    #[must_use]
    pub const fn xss_supported(&self) -> u64 {
        use spec::x86::control_registers::Xcr0;
        if self.has(Feature::XSAVES) && (self.has(Feature::CET_SS) || self.has(Feature::CET_IBT)) {
            Xcr0::CET_U | Xcr0::CET_S
        } else {
            0
        }
    }

    /// The bits of CR4 that can be set; VMXE among them when the model has VMX.
    #[must_use]
    pub const fn cr4_supported(&self) -> u64 {
        use spec::x86::control_registers::Cr4;
        let bits: &[(Feature, u64)] = &[
            (Feature::VME, Cr4::VME | Cr4::PVI),
            (Feature::TSC, Cr4::TSD),
            (Feature::DE, Cr4::DE),
            (Feature::PSE, Cr4::PSE),
            (Feature::PAE, Cr4::PAE),
            (Feature::MCE, Cr4::MCE),
            (Feature::PGE, Cr4::PGE),
            (Feature::FXSR, Cr4::OSFXSR),
            (Feature::SSE, Cr4::OSXMMEXCPT),
            (Feature::UMIP, Cr4::UMIP),
            (Feature::LA57, Cr4::LA57),
            (Feature::VMX, Cr4::VMXE),
            (Feature::FSGSBASE, Cr4::FSGSBASE),
            (Feature::PCID, Cr4::PCIDE),
            (Feature::XSAVE, Cr4::OSXSAVE),
            (Feature::SMEP, Cr4::SMEP),
            (Feature::SMAP, Cr4::SMAP),
            (Feature::PKU, Cr4::PKE),
            (Feature::CET_SS, Cr4::CET),
            (Feature::CET_IBT, Cr4::CET),
            (Feature::PKS, Cr4::PKS),
        ];
        let mut supported = Cr4::PCE;
        let mut index = 0;
        while index < bits.len() {
            if self.has(bits[index].0) {
                supported |= bits[index].1;
            }
            index += 1;
        }
        supported
    }

    /// The bits of IA32_EFER that can be set.
    #[must_use]
    pub const fn efer_supported(&self) -> u64 {
        use spec::x86::efer::Efer;
        (if self.has(Feature::SYSCALL) { Efer::SCE } else { 0 })
            | if self.has(Feature::LM) { Efer::LME | Efer::LMA } else { 0 }
            | if self.has(Feature::NX) { Efer::NXE } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vmxe_exists_with_vmx_only() {
        use spec::x86::control_registers::Cr4;
        let allowed = |name| Model::named(name).unwrap().cr4_supported() & Cr4::VMXE != 0;
        assert!(allowed("icelake-server") && allowed("vmx64") && !allowed("basic64"));
    }
}
