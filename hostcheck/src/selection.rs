//! Which instructions are checked.

use iced_x86::{Code, CpuidFeature, EncodingKind, Mnemonic, OpCodeOperandKind};

/// CPUID features of the models, in iced's words, whose instructions user-mode code can execute.
pub const FEATURES: &[CpuidFeature] = &[
    CpuidFeature::INTEL8086,
    CpuidFeature::INTEL186,
    CpuidFeature::INTEL286,
    CpuidFeature::INTEL386,
    CpuidFeature::INTEL486,
    CpuidFeature::X64,
    CpuidFeature::FPU,
    CpuidFeature::FPU287,
    CpuidFeature::FPU387,
    CpuidFeature::CMOV,
    CpuidFeature::CX8,
    CpuidFeature::CMPXCHG16B,
    CpuidFeature::MMX,
    CpuidFeature::FXSR,
    CpuidFeature::SSE,
    CpuidFeature::SSE2,
    CpuidFeature::SSE3,
    CpuidFeature::SSSE3,
    CpuidFeature::SSE4_1,
    CpuidFeature::SSE4_2,
    CpuidFeature::POPCNT,
    CpuidFeature::LZCNT,
    CpuidFeature::BMI1,
    CpuidFeature::BMI2,
    CpuidFeature::ADX,
    CpuidFeature::MOVBE,
    CpuidFeature::AES,
    CpuidFeature::PCLMULQDQ,
    CpuidFeature::SHA,
    CpuidFeature::AVX,
    CpuidFeature::AVX2,
    CpuidFeature::FMA,
    CpuidFeature::F16C,
    CpuidFeature::CLFSH,
    CpuidFeature::CLFLUSHOPT,
    CpuidFeature::CLWB,
    CpuidFeature::MULTIBYTENOP,
    CpuidFeature::PAUSE,
    CpuidFeature::PREFETCHW,
    CpuidFeature::XSAVE,
    CpuidFeature::XSAVEC,
    CpuidFeature::XSAVEOPT,
    CpuidFeature::MSR,
];

/// Instructions that cannot be compared, and why.
pub const EXCLUDED: &[(&[Mnemonic], &str)] = &[
    (
        &[Mnemonic::Syscall, Mnemonic::Sysenter, Mnemonic::Int, Mnemonic::Sysexit, Mnemonic::Sysret],
        "enters the host's kernel",
    ),
    (
        &[
            Mnemonic::Cpuid,
            Mnemonic::Xgetbv,
            Mnemonic::Rdtsc,
            Mnemonic::Sgdt,
            Mnemonic::Sidt,
            Mnemonic::Sldt,
            Mnemonic::Smsw,
            Mnemonic::Str,
            Mnemonic::Lar,
            Mnemonic::Lsl,
            Mnemonic::Verr,
            Mnemonic::Verw,
        ],
        "shows the machine, which differs",
    ),
    (
        &[Mnemonic::Iret, Mnemonic::Iretd, Mnemonic::Iretq, Mnemonic::Retf],
        "changes segments, which the host's kernel owns",
    ),
    (&[Mnemonic::Xsetbv], "privileged"),
    (&[Mnemonic::Xsaveopt, Mnemonic::Xsaveopt64], "what it leaves out follows what the processor remembers"),
    (&[Mnemonic::Fstpnce, Mnemonic::Frstpm, Mnemonic::Fstdw, Mnemonic::Fstsg], "undocumented"),
    (&[Mnemonic::Int1], "the host's kernel reports it as a fault"),
    (&[Mnemonic::Rdmsr, Mnemonic::Wrmsr, Mnemonic::Swapgs], "privileged; tested with the system instructions"),
];

/// Why `code` is not checked, for codes that the models announce; `None` if it is.
pub fn excluded(code: Code) -> Option<&'static str> {
    let info = code.op_code();
    let mnemonic = code.mnemonic();
    if let Some((_, why)) = EXCLUDED.iter().find(|(list, _)| list.contains(&mnemonic)) {
        return Some(why);
    }
    if format!("{code:?}").ends_with("_0F0D") {
        return Some("a no-operation to Intel, undefined to AMD");
    }
    if !info.cpl3() {
        return Some("privileged");
    }
    let segment_load = matches!(mnemonic, Mnemonic::Mov | Mnemonic::Pop)
        && matches!(
            info.op0_kind(),
            OpCodeOperandKind::seg_reg | OpCodeOperandKind::fs | OpCodeOperandKind::gs | OpCodeOperandKind::ds
        );
    if segment_load || matches!(mnemonic, Mnemonic::Lss | Mnemonic::Lfs | Mnemonic::Lgs | Mnemonic::Lds | Mnemonic::Les)
    {
        return Some("changes segments, which the host's kernel owns");
    }
    if code.is_jmp_far() || code.is_jmp_far_indirect() || code.is_call_far() || code.is_call_far_indirect() {
        return Some("changes segments, which the host's kernel owns");
    }
    let kinds = || (0..info.op_count()).map(|i| info.op_kind(i));
    if kinds().any(|k| {
        matches!(
            k,
            OpCodeOperandKind::br16_1
                | OpCodeOperandKind::br16_2
                | OpCodeOperandKind::cr_reg
                | OpCodeOperandKind::dr_reg
                | OpCodeOperandKind::tr_reg
        )
    }) || matches!(mnemonic, Mnemonic::Jmp | Mnemonic::Call | Mnemonic::Ret) && info.operand_size() == 16
    {
        return Some("AMD and Intel differ in near branches with an operand-size prefix");
    }
    None
}

/// The codes that 64-bit user-mode code can execute on our models.
pub fn announced() -> Vec<Code> {
    Code::values()
        .filter(|code| {
            let info = code.op_code();
            info.is_instruction()
                && info.mode64()
                && matches!(info.encoding(), EncodingKind::Legacy | EncodingKind::VEX)
                && !info.fwait()
                && !code.cpuid_features().is_empty()
                && code.cpuid_features().iter().all(|f| FEATURES.contains(f))
        })
        .collect()
}

/// Whether the host has `feature`; what every 64-bit processor has is not asked for.
pub fn host_has(feature: CpuidFeature) -> bool {
    match feature {
        CpuidFeature::SSE3 => is_x86_feature_detected!("sse3"),
        CpuidFeature::SSSE3 => is_x86_feature_detected!("ssse3"),
        CpuidFeature::SSE4_1 => is_x86_feature_detected!("sse4.1"),
        CpuidFeature::SSE4_2 => is_x86_feature_detected!("sse4.2"),
        CpuidFeature::POPCNT => is_x86_feature_detected!("popcnt"),
        CpuidFeature::LZCNT => is_x86_feature_detected!("lzcnt"),
        CpuidFeature::BMI1 => is_x86_feature_detected!("bmi1"),
        CpuidFeature::BMI2 => is_x86_feature_detected!("bmi2"),
        CpuidFeature::ADX => is_x86_feature_detected!("adx"),
        CpuidFeature::MOVBE => is_x86_feature_detected!("movbe"),
        CpuidFeature::CMPXCHG16B => is_x86_feature_detected!("cmpxchg16b"),
        CpuidFeature::AES => is_x86_feature_detected!("aes"),
        CpuidFeature::PCLMULQDQ => is_x86_feature_detected!("pclmulqdq"),
        CpuidFeature::SHA => is_x86_feature_detected!("sha"),
        CpuidFeature::AVX => is_x86_feature_detected!("avx"),
        CpuidFeature::AVX2 => is_x86_feature_detected!("avx2"),
        CpuidFeature::FMA => is_x86_feature_detected!("fma"),
        CpuidFeature::F16C => is_x86_feature_detected!("f16c"),
        CpuidFeature::XSAVE => is_x86_feature_detected!("xsave"),
        CpuidFeature::XSAVEC => is_x86_feature_detected!("xsavec"),
        // CLFLUSHOPT and CLWB came to both makers after AVX2 and with SHA or before it; std does not know them.
        CpuidFeature::CLFLUSHOPT | CpuidFeature::CLWB => is_x86_feature_detected!("sha"),
        _ => true,
    }
}

/// The codes to check: announced, comparable, and on the host.
pub fn checked() -> Vec<Code> {
    announced()
        .into_iter()
        .filter(|&code| excluded(code).is_none() && code.cpuid_features().iter().all(|&f| host_has(f)))
        .collect()
}
