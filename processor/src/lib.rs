//! One logical processor.

pub mod simd;
