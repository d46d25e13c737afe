//! Which instruction-set extensions, as the decoder names them, a CPU model announces.

use crate::models::Model;
use iced_x86::CpuidFeature;
use spec::x86::cpuid::Feature;

/// Whether `model` has the instructions that `feature` stands for.
pub fn announces(model: &Model, feature: CpuidFeature) -> bool {
    use CpuidFeature as F;
    let needed = match feature {
        F::INTEL8086
        | F::INTEL186
        | F::INTEL286
        | F::INTEL386
        | F::INTEL486
        | F::X64
        | F::PAUSE
        | F::MULTIBYTENOP
        | F::CPUID
        | F::FPU
        | F::FPU287
        | F::FPU387
        | F::CET_IBT
        | F::CET_SS
        | F::MPX
        | F::RDPMC
        | F::CLDEMOTE
        | F::PREFETCHWT1
        | F::WBNOINVD => {
            // ENDBR and RDSSP, CLDEMOTE, PREFETCHWT1 and MPX' encodings are no-operations where the feature is not announced, and WBNOINVD is WBINVD.
            return true;
        }
        F::TSC => Feature::TSC,
        F::MSR => Feature::MSR,
        F::CX8 => Feature::CX8,
        F::CMPXCHG16B => Feature::CX16,
        F::CMOV => Feature::CMOV,
        F::SEP => Feature::SEP,
        F::SYSCALL => Feature::SYSCALL,
        F::CLFSH => Feature::CLFSH,
        F::CLFLUSHOPT => Feature::CLFLUSHOPT,
        F::CLWB => Feature::CLWB,
        F::MMX => Feature::MMX,
        F::FXSR => Feature::FXSR,
        F::SSE => Feature::SSE,
        F::SSE2 => Feature::SSE2,
        F::SSE3 => Feature::SSE3,
        F::SSSE3 => Feature::SSSE3,
        F::SSE4_1 => Feature::SSE4_1,
        F::SSE4_2 => Feature::SSE4_2,
        F::AES => Feature::AES,
        F::PCLMULQDQ => Feature::PCLMULQDQ,
        F::SHA => Feature::SHA,
        F::AVX => Feature::AVX,
        F::AVX2 => Feature::AVX2,
        F::FMA => Feature::FMA,
        F::F16C => Feature::F16C,
        F::BMI1 => Feature::BMI1,
        F::BMI2 => Feature::BMI2,
        F::LZCNT => Feature::LZCNT,
        F::POPCNT => Feature::POPCNT,
        F::MOVBE => Feature::MOVBE,
        F::ADX => Feature::ADX,
        F::RDRAND => Feature::RDRAND,
        F::RDSEED => Feature::RDSEED,
        F::RDTSCP => Feature::RDTSCP,
        F::RDPID => Feature::RDPID,
        F::FSGSBASE => Feature::FSGSBASE,
        F::INVPCID => Feature::INVPCID,
        F::SMAP => Feature::SMAP,
        F::PKU => Feature::PKU,
        F::WAITPKG => Feature::WAITPKG,
        F::MONITOR => Feature::MONITOR,
        F::XSAVE => Feature::XSAVE,
        F::XSAVEOPT => Feature::XSAVEOPT,
        F::XSAVEC => Feature::XSAVEC,
        F::XSAVES => Feature::XSAVES,
        F::PREFETCHW => Feature::PREFETCHW,
        F::VMX | F::INVEPT | F::INVVPID => Feature::VMX,
        _ => return false,
    };
    model.has(needed)
}
