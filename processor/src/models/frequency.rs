//! The clocks of every model. One instruction takes one nanosecond of virtual time, and every other frequency is a whole
//! multiple or fraction of that, so that no time is ever rounded.

/// Frequency of the time-stamp counter, in hertz; also the nominal frequency of the processor.
pub const TSC_HZ: u64 = 2_000_000_000;
/// Ticks of the time-stamp counter in a nanosecond.
pub const TSC_TICKS_PER_NS: u64 = TSC_HZ / 1_000_000_000;
/// Frequency of the core crystal clock, in hertz; the APIC timer counts it (CPUID leaf 0x15).
pub const CRYSTAL_HZ: u64 = 100_000_000;
/// Nanoseconds between two ticks of the core crystal clock.
pub const CRYSTAL_PERIOD_NS: u64 = 1_000_000_000 / CRYSTAL_HZ;
