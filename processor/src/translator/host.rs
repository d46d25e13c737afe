//! What the host's processor has.

use iced_x86::CpuidFeature;

/// Whether this host can run translations.
pub fn supported() -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    {
        std::arch::is_x86_feature_detected!("bmi2")
            && std::arch::is_x86_feature_detected!("avx")
            && std::arch::is_x86_feature_detected!("sse4.2")
            && std::arch::is_x86_feature_detected!("xsave")
    }
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    {
        false
    }
}

/// The instruction-set extensions that may be emitted.
#[derive(Clone, Debug)]
pub(super) struct Features(Vec<CpuidFeature>);

impl Features {
    /// Those of this host.
    pub(super) fn of_host() -> Self {
        use CpuidFeature as F;
        let mut have = vec![
            F::INTEL8086,
            F::INTEL186,
            F::INTEL286,
            F::INTEL386,
            F::INTEL486,
            F::X64,
            F::CMOV,
            F::FPU,
            F::FPU287,
            F::FPU387,
            F::CX8,
            F::SSE,
            F::SSE2,
            F::MULTIBYTENOP,
        ];
        #[cfg(target_arch = "x86_64")]
        {
            macro_rules! detect {
                ($($name:tt $feature:ident),*) => {
                    $(if std::arch::is_x86_feature_detected!($name) { have.push(F::$feature); })*
                };
            }
            detect!(
                "sse3" SSE3, "ssse3" SSSE3, "sse4.1" SSE4_1, "sse4.2" SSE4_2, "popcnt" POPCNT, "lzcnt" LZCNT, "bmi1" BMI1, "bmi2" BMI2,
                "movbe" MOVBE, "adx" ADX, "cmpxchg16b" CMPXCHG16B, "avx" AVX, "avx2" AVX2, "fma" FMA, "f16c" F16C, "aes" AES,
                "pclmulqdq" PCLMULQDQ, "sha" SHA
            );
        }
        Self(have)
    }

    /// All of `wanted` are there.
    pub(super) fn have(&self, wanted: &[CpuidFeature]) -> bool {
        wanted.iter().all(|feature| self.0.contains(feature))
    }
}
