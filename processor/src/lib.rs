//! One logical processor.

pub mod apic;
pub mod models;
pub mod simd;
