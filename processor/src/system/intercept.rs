//! Where VT-x takes part in system instructions. Outside VMX non-root operation none of this does anything.
//!
//! An instruction calls [`Cpu::intercept`] when its checks that come before a VM exit are done (invalid opcode, privilege) and
//! before it changes anything (SDM vol. 3C, 26.1).

use crate::cpu::Cpu;
use crate::decode::Op;
use crate::trap::Exec;

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

impl Cpu {
    /// Makes the VM exit that `what` causes, if it causes one. `op` is the instruction; for a task gate met while an event is
    /// delivered there is none.
    #[inline]
    pub(crate) fn intercept(&mut self, op: Option<&Op>, what: Intercept) -> Exec {
        let _ = (op, what);
        Ok(())
    }

    /// CR0 as MOV from CR0, SMSW and LMSW see it (guest/host mask and read shadow).
    #[inline]
    pub(crate) fn visible_cr0(&self) -> u64 {
        self.cr0
    }

    /// CR4 as MOV from CR4 sees it.
    #[inline]
    pub(crate) fn visible_cr4(&self) -> u64 {
        self.cr4
    }

    /// What MOV to CR0 of `value` really sets: bits that the host owns keep their value.
    #[inline]
    pub(crate) fn cr0_to_set(&self, value: u64) -> u64 {
        value
    }

    /// What MOV to CR4 of `value` really sets.
    #[inline]
    pub(crate) fn cr4_to_set(&self, value: u64) -> u64 {
        value
    }

    /// Bits that CR0 must have beyond the ordinary rules: VMX operation fixes some. `None`: #GP(0).
    #[inline]
    pub(crate) fn vmx_allows_cr0(&self, value: u64) -> bool {
        let _ = value;
        true
    }

    /// The same for CR4.
    #[inline]
    pub(crate) fn vmx_allows_cr4(&self, value: u64) -> bool {
        let _ = value;
        true
    }

    /// The TSC that RDTSC and RDMSR show: with the offset and multiplier of VMX non-root operation.
    #[inline]
    pub(crate) fn visible_tsc(&self) -> u64 {
        self.tsc()
    }

    /// A VMX capability MSR (0x480 to 0x493). `None`: it does not exist.
    pub(crate) fn vmx_capability(&self, msr: u32) -> Option<u64> {
        let _ = msr;
        None
    }

    /// A read of an MSR that VT-x answers itself (x2APIC virtualization). `None`: the ordinary way.
    pub(crate) fn virtual_msr_read(&mut self, msr: u32) -> Exec<Option<u64>> {
        let _ = msr;
        Ok(None)
    }

    /// A write of an MSR that VT-x takes itself. False: the ordinary way.
    pub(crate) fn virtual_msr_write(&mut self, msr: u32, value: u64) -> Exec<bool> {
        let _ = (msr, value);
        Ok(false)
    }

    /// CR8, when VT-x answers for it (TPR shadow). `None`: the local APIC does.
    pub(crate) fn virtual_cr8(&mut self) -> Option<u64> {
        None
    }

    /// A write to CR8 that VT-x takes. False: it goes to the local APIC.
    pub(crate) fn set_virtual_cr8(&mut self, value: u64) -> bool {
        let _ = value;
        false
    }
}
