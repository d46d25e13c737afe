//! Where VT-x takes part in system instructions. Outside VMX non-root operation none of this does anything.
//!
//! An instruction calls `Cpu::intercept` (in [`crate::vmx::intercept`]) when its checks that come before a VM exit are done (invalid opcode, privilege) and
//! before it changes anything (SDM vol. 3C, 26.1).

/// An instruction that VMX non-root operation may intercept, with what its exit qualification and information need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intercept {
    /// CPUID.
    Cpuid,
    /// HLT.
    Hlt,
    /// INVD.
    Invd,
    /// WBINVD or WBNOINVD.
    Wbinvd,
    /// INVLPG of a linear address.
    Invlpg(u64),
    /// INVPCID; the descriptor's linear address is not computed yet.
    Invpcid,
    /// RDTSC.
    Rdtsc,
    /// RDTSCP.
    Rdtscp,
    /// RDPID.
    Rdpid,
    /// RDPMC.
    Rdpmc,
    /// RDMSR of this MSR.
    Rdmsr(u32),
    /// WRMSR to this MSR.
    Wrmsr(u32),
    /// XSETBV.
    Xsetbv,
    /// MONITOR.
    Monitor,
    /// MWAIT; whether the monitor is armed.
    Mwait(bool),
    /// PAUSE.
    Pause,
    /// UMONITOR, UMWAIT or TPAUSE, before all else.
    UserWait,
    /// UMWAIT; whether UMONITOR has armed the monitor.
    Umwait(bool),
    /// TPAUSE.
    Tpause,
    /// RDRAND.
    Rdrand,
    /// RDSEED.
    Rdseed,
    /// MOV from CR3 or CR8 to a general register.
    ReadCr {
        /// Control register.
        cr: u8,
        /// General register.
        register: u8,
    },
    /// MOV to a control register.
    WriteCr {
        /// Control register.
        cr: u8,
        /// General register.
        register: u8,
        /// The value.
        value: u64,
    },
    /// CLTS.
    Clts,
    /// LMSW.
    Lmsw {
        /// The source operand.
        value: u16,
        /// Its linear address, if it is in memory.
        linear: Option<u64>,
    },
    /// MOV from or to a debug register.
    MovDr {
        /// Debug register.
        dr: u8,
        /// General register.
        register: u8,
        /// MOV from the debug register.
        read: bool,
    },
    /// IN, OUT, INS, OUTS.
    Io {
        /// Port.
        port: u16,
        /// Bytes: 1, 2 or 4.
        size: u8,
        /// IN or INS.
        input: bool,
        /// INS or OUTS: the linear address of the memory operand.
        string: Option<u64>,
        /// With a REP prefix.
        repeated: bool,
        /// The port is an immediate.
        immediate: bool,
    },
    /// LGDT, LIDT, SGDT, SIDT: exit reason 46.
    GdtrIdtr,
    /// LLDT, LTR, SLDT, STR: exit reason 47.
    LdtrTr,
    /// XSAVES, with EDX:EAX & (XCR0 | IA32_XSS).
    Xsaves(u64),
    /// XRSTORS, likewise.
    Xrstors(u64),
    /// RDPKRU and the like need nothing; a task switch always exits.
    TaskSwitch {
        /// Selector of the new task's TSS.
        selector: u16,
        /// What asked for it.
        source: TaskSwitchSource,
    },
}

/// What asked for a task switch, numbered as in the exit qualification (SDM vol. 3C, table 28-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TaskSwitchSource {
    /// CALL.
    Call = 0,
    /// IRET.
    Iret = 1,
    /// JMP.
    Jump = 2,
    /// A task gate in the IDT.
    Gate = 3,
}
