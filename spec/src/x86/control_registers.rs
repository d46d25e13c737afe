//! CR0, CR3, CR4 and XCR0 (SDM Vol. 3A, 2.5 and 2.6).

named_bits! {
    /// CR0 (SDM Vol. 3A, 2.5).
    Cr0(u64) {
        0 PE "protection enable";
        1 MP "monitor coprocessor";
        2 EM "x87 emulation";
        3 TS "task switched";
        4 ET "extension type, always 1";
        5 NE "numeric error";
        16 WP "write protect";
        18 AM "alignment mask";
        29 NW "not write-through";
        30 CD "cache disable";
        31 PG "paging";
    }
}

impl Cr0 {
    /// The value after power-up, reset and INIT without CD/NW kept (SDM Vol. 3A, table 10-1).
    pub const RESET: u64 = Cr0::CD | Cr0::NW | Cr0::ET;
}

named_bits! {
    /// CR3 with 4-level and 5-level paging (SDM Vol. 3A, tables 4-12 and 4-13). PWT and PCD are part of the PCID when CR4.PCIDE = 1.
    Cr3(u64) {
        3 PWT "page-level write-through";
        4 PCD "page-level cache disable";
        61 LAM_U57 "linear-address masking for user pointers, bits 62:57";
        62 LAM_U48 "linear-address masking for user pointers, bits 62:48";
        63 NO_FLUSH "with CR4.PCIDE = 1, a move to CR3 keeps the PCID's translations; never stored in CR3";
    }
}

impl Cr3 {
    /// The process-context identifier when CR4.PCIDE = 1.
    pub const PCID: u64 = 0xfff;
    /// The table's physical address with PAE paging.
    pub const PAE_TABLE: u64 = 0xffff_ffe0;
    /// The table's physical address with 32-bit paging.
    pub const TABLE_32: u64 = 0xffff_f000;
}

named_bits! {
    /// CR4 (SDM Vol. 3A, 2.5).
    Cr4(u64) {
        0 VME "virtual-8086 mode extensions";
        1 PVI "protected-mode virtual interrupts";
        2 TSD "time stamp disable";
        3 DE "debugging extensions";
        4 PSE "page size extensions";
        5 PAE "physical address extension";
        6 MCE "machine-check enable";
        7 PGE "page global enable";
        8 PCE "performance-monitoring counter enable";
        9 OSFXSR "operating system supports FXSAVE and FXRSTOR";
        10 OSXMMEXCPT "operating system supports unmasked SIMD floating-point exceptions";
        11 UMIP "user-mode instruction prevention";
        12 LA57 "57-bit linear addresses (5-level paging)";
        13 VMXE "VMX enable";
        14 SMXE "SMX enable";
        16 FSGSBASE "RDFSBASE, RDGSBASE, WRFSBASE and WRGSBASE enable";
        17 PCIDE "process-context identifiers enable";
        18 OSXSAVE "XSAVE and processor extended states enable";
        19 KL "key locker enable";
        20 SMEP "supervisor-mode execution prevention";
        21 SMAP "supervisor-mode access prevention";
        22 PKE "protection keys for user-mode pages";
        23 CET "control-flow enforcement technology";
        24 PKS "protection keys for supervisor-mode pages";
        25 UINTR "user interrupts enable";
        28 LAM_SUP "linear-address masking for supervisor pointers";
        32 FRED "flexible return and event delivery";
    }
}

named_bits! {
    /// XCR0 and, for the supervisor components, IA32_XSS (SDM Vol. 1, 13.1 and 13.3).
    Xcr0(u64) {
        0 X87 "x87 state, always 1";
        1 SSE "SSE state: XMM registers and MXCSR";
        2 AVX "AVX state: upper halves of the YMM registers";
        3 BNDREGS "MPX bound registers";
        4 BNDCSR "MPX bound configuration";
        5 OPMASK "AVX-512 opmask registers";
        6 ZMM_HI256 "AVX-512 upper halves of ZMM0 to ZMM15";
        7 HI16_ZMM "AVX-512 ZMM16 to ZMM31";
        8 PT "processor trace (IA32_XSS)";
        9 PKRU "protection-key rights for user pages";
        11 CET_U "CET user state (IA32_XSS)";
        12 CET_S "CET supervisor state (IA32_XSS)";
        17 TILECFG "AMX tile configuration";
        18 TILEDATA "AMX tile data";
    }
}
