//! The vector instructions: MMX, SSE to SSE4.2, AES, PCLMULQDQ, SHA, AVX, AVX2, FMA, F16C.
//!
//! `lanes`, `integer`, `shift`, `shuffle`, `string_compare` and `crypto` are pure functions of vectors and serve the 64-, 128-
//! and 256-bit forms of an instruction alike.

pub mod convert;
pub mod crypto;
pub mod float;
pub mod fma;
pub mod integer;
pub mod lanes;
#[cfg(all(test, target_arch = "x86_64"))]
mod native_float_tests;
#[cfg(all(test, target_arch = "x86_64"))]
mod native_tests;
pub mod shift;
pub mod shuffle;
pub mod string_compare;
