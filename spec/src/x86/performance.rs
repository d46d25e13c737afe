//! Architectural performance monitoring (SDM Vol. 3B, chapter 20).

named_bits! {
    /// IA32_PERFEVTSELx (SDM Vol. 3B, 20.2.1.1). Bits 7:0 are the event, 15:8 its unit mask, 31:24 the counter mask.
    EventSelect(u64) {
        16 USR "count at CPL above 0";
        17 OS "count at CPL 0";
        18 EDGE "count the condition's beginnings";
        19 PIN_CONTROL "toggle PMi pins";
        20 INT "interrupt at overflow";
        21 ANY_THREAD "count for all threads of the core";
        22 EN "enable";
        23 INV "invert the comparison with the counter mask";
    }
}

impl EventSelect {
    /// The event and its unit mask.
    pub const EVENT: u64 = 0xffff;
    /// Position of the counter mask.
    pub const COUNTER_MASK_SHIFT: u32 = 24;
}

/// Event and unit mask of an architectural event (SDM Vol. 3B, table 20-1): unhalted core cycles.
pub const CORE_CYCLES: u64 = 0x3c;
/// Instructions retired.
pub const INSTRUCTIONS: u64 = 0xc0;
/// Unhalted reference cycles.
pub const REFERENCE_CYCLES: u64 = 0x13c;

/// CPUID leaf 0AH, EBX: architectural events that are not available.
pub mod unavailable {
    /// Last-level cache references.
    pub const CACHE_REFERENCES: u32 = 1 << 3;
    /// Last-level cache misses.
    pub const CACHE_MISSES: u32 = 1 << 4;
    /// Branch instructions retired.
    pub const BRANCHES: u32 = 1 << 5;
    /// Mispredicted branches retired.
    pub const MISPREDICTED_BRANCHES: u32 = 1 << 6;
}

named_bits! {
    /// The four bits of a fixed-function counter in IA32_FIXED_CTR_CTRL (SDM Vol. 3B, 20.2.2).
    FixedControl(u64) {
        0 OS "count at CPL 0";
        1 USR "count at CPL above 0";
        2 ANY_THREAD "count for all threads of the core";
        3 PMI "interrupt at overflow";
    }
}

named_bits! {
    /// IA32_PERF_GLOBAL_STATUS (SDM Vol. 3B, 20.2.2). Bits 31:0 are general counters' overflows, from bit 32 on those of fixed-function ones.
    GlobalStatus(u64) {
        62 BUFFER "the debug store overflowed";
        63 CHANGED "the condition changed";
    }
}

named_bits! {
    /// IA32_PERF_CAPABILITIES (SDM Vol. 3B, 20.8.2 and 18.4.8.1). Bits 5:0 are the format of last-branch records.
    PerfCapabilities(u64) {
        12 FREEZE_WHILE_SMM "counters can be frozen in SMM";
        13 FULL_WIDTH_WRITE "counters can be written in full width, through IA32_A_PMCx";
    }
}
