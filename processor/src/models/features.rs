//! A set of CPUID features.

use spec::x86::cpuid::{Feature, Register};

/// The features a model has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureSet([u64; 4]);

impl FeatureSet {
    /// The set of these features.
    #[must_use]
    pub const fn of(features: &[Feature]) -> Self {
        let mut words = [0; 4];
        let mut index = 0;
        while index < features.len() {
            let number = features[index] as usize;
            words[number / 64] |= 1 << (number % 64);
            index += 1;
        }
        Self(words)
    }

    /// The set with these features too.
    #[must_use]
    pub const fn with(self, features: &[Feature]) -> Self {
        let more = Self::of(features).0;
        let own = self.0;
        Self([own[0] | more[0], own[1] | more[1], own[2] | more[2], own[3] | more[3]])
    }

    /// The set without these features.
    #[must_use]
    pub const fn without(self, features: &[Feature]) -> Self {
        let less = Self::of(features).0;
        let own = self.0;
        Self([own[0] & !less[0], own[1] & !less[1], own[2] & !less[2], own[3] & !less[3]])
    }

    /// Whether `feature` is in the set.
    #[inline]
    #[must_use]
    pub const fn has(&self, feature: Feature) -> bool {
        self.0[feature as usize / 64] & 1 << (feature as usize % 64) != 0
    }

    /// The members, in the order of CPUID leaves.
    pub fn iter(&self) -> impl Iterator<Item = Feature> + '_ {
        Feature::ALL.iter().copied().filter(|&feature| self.has(feature))
    }

    /// The flags of one register of one leaf.
    #[must_use]
    pub fn flags(&self, leaf: u32, subleaf: u32, register: Register) -> u32 {
        self.iter()
            .map(Feature::place)
            .filter(|place| (place.leaf, place.subleaf, place.register) == (leaf, subleaf, register))
            .fold(0, |flags, place| flags | 1 << place.bit)
    }
}

/// What a feature cannot be had without.
pub(super) const REQUIREMENTS: &[(Feature, Feature)] = &[
    (Feature::SSE2, Feature::SSE),
    (Feature::SSE, Feature::FXSR),
    (Feature::SSE3, Feature::SSE2),
    (Feature::SSSE3, Feature::SSE3),
    (Feature::SSE4_1, Feature::SSSE3),
    (Feature::SSE4_2, Feature::SSE4_1),
    (Feature::AES, Feature::SSE2),
    (Feature::PCLMULQDQ, Feature::SSE2),
    (Feature::SHA, Feature::SSSE3),
    (Feature::AVX, Feature::XSAVE),
    (Feature::AVX, Feature::SSE4_2),
    (Feature::AVX2, Feature::AVX),
    (Feature::FMA, Feature::AVX),
    (Feature::F16C, Feature::AVX),
    (Feature::XSAVEOPT, Feature::XSAVE),
    (Feature::XSAVEC, Feature::XSAVE),
    (Feature::XGETBV_ECX1, Feature::XSAVE),
    (Feature::XSAVES, Feature::XSAVEC),
    (Feature::PKU, Feature::XSAVE),
    (Feature::PKS, Feature::LM),
    (Feature::CET_SSS, Feature::CET_SS),
    (Feature::PCID, Feature::LM),
    (Feature::LA57, Feature::LM),
    (Feature::PDPE1GB, Feature::LM),
    (Feature::X2APIC, Feature::APIC),
    (Feature::TSC_DEADLINE, Feature::APIC),
];
