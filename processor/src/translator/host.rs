//! What the host's processor has.

use super::emit::Quiet;
use super::state::State;
use core::mem::offset_of;
use iced_x86::{Code, CpuidFeature, Mnemonic};

/// Whether this host can run translations.
pub fn supported() -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    {
        std::arch::is_x86_feature_detected!("avx")
            && std::arch::is_x86_feature_detected!("sse4.2")
            && std::arch::is_x86_feature_detected!("xsave")
    }
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    {
        false
    }
}

const KEPT: Quiet = Quiet::Kept(offset_of!(State, rax) as i32);

/// Whether the host has PEXT, and not by microcode, which takes a hundred cycles and more: AMD's processors before Zen 3 (family 19h), and Hygon's.
fn has_fast_pext() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::__cpuid;
        let vendor = __cpuid(0).ebx;
        let signature = __cpuid(1).eax;
        let family = (signature >> 8 & 15) + (signature >> 20 & 0xff);
        // "Auth", "Hygo".
        let microcode =
            matches!(vendor.to_le_bytes(), [b'A', b'u', b't', b'h'] | [b'H', b'y', b'g', b'o']) && family < 0x19;
        std::arch::is_x86_feature_detected!("bmi2") && !microcode
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// What the host has and how it behaves.
#[derive(Clone, Debug)]
pub(super) struct Features {
    /// The instruction-set extensions that may be emitted.
    extensions: Vec<CpuidFeature>,
    /// The codes of these.
    have: Box<[bool]>,
    /// See [`super::probe::alike`].
    alike: Mnemonics,
    /// How code is made that touches no flag.
    quiet: Quiet,
    /// See [`super::probe::shifts_alike`].
    shifts: Mnemonics,
}

/// Some mnemonics.
#[derive(Clone, Debug)]
struct Mnemonics(Box<[bool]>);

impl Mnemonics {
    fn of(mnemonics: &[Mnemonic]) -> Self {
        let mut all = vec![false; Mnemonic::values().len()].into_boxed_slice();
        mnemonics.iter().for_each(|&mnemonic| all[mnemonic as usize] = true);
        Self(all)
    }

    fn contains(&self, mnemonic: Mnemonic) -> bool {
        self.0[mnemonic as usize]
    }
}

/// Which codes need these extensions only.
fn codes(extensions: &[CpuidFeature]) -> Box<[bool]> {
    Code::values().map(|code| code.cpuid_features().iter().all(|feature| extensions.contains(feature))).collect()
}

/// The extensions that this host has, of those that may be emitted.
pub(super) fn extensions() -> Vec<CpuidFeature> {
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
    have
}

impl Features {
    /// Those of this host.
    pub(super) fn of_host() -> Self {
        let extensions = extensions();
        Self {
            have: codes(&extensions),
            extensions,
            alike: Mnemonics::of(super::probe::alike()),
            shifts: Mnemonics::of(super::probe::shifts_alike()),
            quiet: if has_fast_pext() { Quiet::Bmi2 } else { KEPT },
        }
    }

    /// The same without BMI2.
    pub(super) fn without_bmi2(mut self) -> Self {
        self.extensions.retain(|feature| *feature != CpuidFeature::BMI2);
        Self { have: codes(&self.extensions), quiet: KEPT, ..self }
    }

    /// How code is made that touches no flag.
    pub(super) fn quiet(&self) -> Quiet {
        self.quiet
    }

    /// The same, taking the host to do nothing that is undefined as the interpreter does.
    pub(super) fn unlike(self) -> Self {
        Self { alike: Mnemonics::of(&[]), shifts: Mnemonics::of(&[]), ..self }
    }

    /// This host's flags after `mnemonic` are the interpreter's, also those that the manual leaves undefined.
    pub(super) fn alike(&self, mnemonic: Mnemonic) -> bool {
        self.alike.contains(mnemonic)
    }

    /// The same of a shift or rotate by any number, but for AF.
    pub(super) fn shifts_alike(&self, mnemonic: Mnemonic) -> bool {
        self.shifts.contains(mnemonic)
    }

    /// All extensions that `code` needs are there.
    pub(super) fn have(&self, code: Code) -> bool {
        self.have[code as usize]
    }
}
