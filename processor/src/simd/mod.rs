//! The vector instructions: MMX, SSE to SSE4.2, AES, PCLMULQDQ, SHA, AVX, AVX2, FMA, F16C.
//!
//! `lanes`, `integer`, `shift`, `shuffle`, `string_compare`, `crypto`, `float`, `fma` and `convert` are pure functions of vectors and
//! serve the 64-, 128- and 256-bit forms of an instruction alike. `operations` says which function each mnemonic is; `vector` (and `direct`,
//! for the most frequent) runs those whose operands have the common shape; `moves`, `scalar`, `masked`, `mmx` and `control` have the rest.

mod access;
mod control;
pub mod convert;
pub mod crypto;
mod direct;
pub mod float;
pub mod fma;
pub mod integer;
pub mod lanes;
mod masked;
mod mmx;
mod moves;
mod operations;
mod scalar;
pub mod shift;
pub mod shuffle;
pub mod string_compare;
mod vector;

pub use control::MXCSR_MASK;

#[cfg(test)]
mod handler_tests;
#[cfg(all(test, target_arch = "x86_64"))]
mod native_float_tests;
#[cfg(all(test, target_arch = "x86_64"))]
mod native_tests;

use crate::decode::Table;

/// Registers all vector instructions.
pub fn register(table: &mut Table) {
    moves::register(table);
    scalar::register(table);
    masked::register(table);
    control::register(table);
    direct::register(table);
    vector::register(table);
    mmx::register(table);
}

#[cfg(test)]
mod tests {
    use crate::decode::Table;
    use iced_x86::{Code, CpuidFeature, EncodingKind};

    #[test]
    fn every_code_of_these_extensions_has_a_handler() {
        use CpuidFeature::*;
        let ours = [
            MMX, SSE, SSE2, SSE3, SSSE3, SSE4_1, SSE4_2, AES, VAES, PCLMULQDQ, VPCLMULQDQ, SHA, AVX, AVX2, FMA, F16C,
            PREFETCHW,
        ];
        let table = Table::shared();
        let missing: Vec<Code> = Code::values()
            .filter(|code| matches!(code.op_code().encoding(), EncodingKind::Legacy | EncodingKind::VEX))
            .filter(|code| code.cpuid_features().iter().all(|feature| ours.contains(feature)))
            .filter(|code| !table.get(*code).known)
            .collect();
        assert_eq!(missing, []);
    }
}
