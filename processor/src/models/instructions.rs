//! Which instruction-set extensions, as the decoder names them, a model's features give.

use super::Model;
use iced_x86::CpuidFeature;
use spec::x86::cpuid::Feature;

impl Model {
    /// Whether the model has the instructions that the decoder files under `extension`; without them they are #UD.
    #[must_use]
    pub fn has_instructions(&self, extension: CpuidFeature) -> bool {
        use CpuidFeature as X;
        let feature = match extension {
            X::INTEL8086
            | X::INTEL186
            | X::INTEL286
            | X::INTEL386
            | X::INTEL486
            | X::CPUID
            | X::MULTIBYTENOP
            | X::PAUSE
            | X::RDPMC
            | X::TSC
            // These lie in encodings that older processors ignore: ENDBR and RDSSP are no-operations without CET (of the rest of CET
            // nothing is registered), cache hints do nothing, and WBNOINVD is WBINVD.
            | X::CET_IBT
            | X::CET_SS
            | X::CLDEMOTE
            | X::PREFETCHWT1
            | X::WBNOINVD => return true,
            X::X64 => Feature::LM,
            X::FPU | X::FPU287 | X::FPU387 => Feature::FPU,
            X::CMOV => Feature::CMOV,
            X::CX8 => Feature::CX8,
            X::CMPXCHG16B => Feature::CX16,
            X::CLFSH => Feature::CLFSH,
            X::CLFLUSHOPT => Feature::CLFLUSHOPT,
            X::CLWB => Feature::CLWB,
            X::FXSR => Feature::FXSR,
            X::MMX => Feature::MMX,
            X::SSE => Feature::SSE,
            X::SSE2 => Feature::SSE2,
            X::SSE3 => Feature::SSE3,
            X::SSSE3 => Feature::SSSE3,
            X::SSE4_1 => Feature::SSE4_1,
            X::SSE4_2 => Feature::SSE4_2,
            X::AES => Feature::AES,
            X::PCLMULQDQ => Feature::PCLMULQDQ,
            X::SHA => Feature::SHA,
            X::AVX => Feature::AVX,
            X::AVX2 => Feature::AVX2,
            X::FMA => Feature::FMA,
            X::F16C => Feature::F16C,
            X::BMI1 => Feature::BMI1,
            X::BMI2 => Feature::BMI2,
            X::ADX => Feature::ADX,
            X::MOVBE => Feature::MOVBE,
            X::POPCNT => Feature::POPCNT,
            X::LZCNT => Feature::LZCNT,
            X::PREFETCHW => Feature::PREFETCHW,
            X::RDRAND => Feature::RDRAND,
            X::RDSEED => Feature::RDSEED,
            X::RDTSCP => Feature::RDTSCP,
            X::RDPID => Feature::RDPID,
            X::FSGSBASE => Feature::FSGSBASE,
            X::INVPCID => Feature::INVPCID,
            X::PKU => Feature::PKU,
            X::SMAP => Feature::SMAP,
            X::MSR => Feature::MSR,
            X::MONITOR => Feature::MONITOR,
            X::SEP => Feature::SEP,
            X::SYSCALL => Feature::SYSCALL,
            X::XSAVE => Feature::XSAVE,
            X::XSAVEOPT => Feature::XSAVEOPT,
            X::XSAVEC => Feature::XSAVEC,
            X::XSAVES => Feature::XSAVES,
            X::VMX | X::INVEPT | X::INVVPID => Feature::VMX,
            _ => return false,
        };
        self.has(feature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_follow_the_features() {
        let big = Model::default_model();
        let small = Model::named("basic64").unwrap();
        for extension in [CpuidFeature::AVX2, CpuidFeature::VMX, CpuidFeature::BMI1, CpuidFeature::XSAVES] {
            assert!(big.has_instructions(extension) && !small.has_instructions(extension), "{extension:?}");
        }
        for extension in [CpuidFeature::INTEL8086, CpuidFeature::X64, CpuidFeature::SSE2, CpuidFeature::MULTIBYTENOP] {
            assert!(big.has_instructions(extension) && small.has_instructions(extension), "{extension:?}");
        }
        assert!(!big.has_instructions(CpuidFeature::AVX512F) && !big.has_instructions(CpuidFeature::D3NOW));
    }
}
