//! The VMX capability MSRs (SDM Vol. 3D, appendix A).

/// IA32_VMX_BASIC (A.1).
pub mod basic {
    /// The VMCS revision identifier, bits 30:0.
    pub const REVISION: u64 = 0x7fff_ffff;
    /// Position of the size in bytes of a VMXON or VMCS region, bits 44:32.
    pub const REGION_SIZE_SHIFT: u32 = 32;
    /// Addresses of VMX structures are limited to 32 bits.
    pub const ADDRESSES_32: u64 = 1 << 48;
    /// Dual-monitor treatment of SMM is supported.
    pub const DUAL_MONITOR: u64 = 1 << 49;
    /// Position of the memory type for VMX structures, bits 53:50.
    pub const MEMORY_TYPE_SHIFT: u32 = 50;
    /// INS and OUTS exits report instruction information.
    pub const INS_OUTS_INFO: u64 = 1 << 54;
    /// The "true" capability MSRs exist: default1 bits may be 0.
    pub const TRUE_CONTROLS: u64 = 1 << 55;
    /// VM entry can inject a hardware exception with or without an error code, whatever its vector.
    pub const ANY_ERROR_CODE: u64 = 1 << 56;
}

/// IA32_VMX_MISC (A.6).
pub mod misc {
    /// The preemption timer counts down when this bit of the TSC changes, bits 4:0.
    pub const PREEMPTION_TIMER_RATE: u64 = 0x1f;
    /// VM exits store IA32_EFER.LMA into "IA-32e mode guest".
    pub const STORE_LMA: u64 = 1 << 5;
    /// Activity state HLT.
    pub const ACTIVITY_HLT: u64 = 1 << 6;
    /// Activity state shutdown.
    pub const ACTIVITY_SHUTDOWN: u64 = 1 << 7;
    /// Activity state wait-for-SIPI.
    pub const ACTIVITY_WAIT_FOR_SIPI: u64 = 1 << 8;
    /// Intel PT can be used in VMX operation.
    pub const INTEL_PT: u64 = 1 << 14;
    /// RDMSR can read IA32_SMBASE in SMM.
    pub const SMBASE: u64 = 1 << 15;
    /// Position of the number of CR3-target values, bits 24:16.
    pub const CR3_TARGETS_SHIFT: u32 = 16;
    /// Position of the recommended limit of MSR lists, bits 27:25: 512 * (n + 1).
    pub const MSR_LIST_SHIFT: u32 = 25;
    /// SMIs can be blocked with VMXOFF by IA32_SMM_MONITOR_CTL bit 2.
    pub const SMM_MONITOR_CTL_2: u64 = 1 << 28;
    /// VMWRITE can write every field, read-only ones too.
    pub const VMWRITE_ANY: u64 = 1 << 29;
    /// VM entry can inject a software event with an instruction length of 0.
    pub const INJECT_LENGTH_0: u64 = 1 << 30;
}

named_bits! {
    /// IA32_VMX_EPT_VPID_CAP (A.10).
    EptVpidCap(u64) {
        0 EXECUTE_ONLY "execute-only translations";
        6 WALK_4 "page-walk length of 4";
        7 WALK_5 "page-walk length of 5";
        8 MEMORY_UC "paging structures can be UC";
        14 MEMORY_WB "paging structures can be WB";
        16 PAGES_2M "2 MiB pages";
        17 PAGES_1G "1 GiB pages";
        20 INVEPT "INVEPT";
        21 ACCESSED_DIRTY "accessed and dirty flags";
        22 ADVANCED_EXIT_INFO "advanced VM-exit information for EPT violations";
        23 SUPERVISOR_SHADOW_STACK "supervisor shadow-stack control";
        25 INVEPT_SINGLE "single-context INVEPT";
        26 INVEPT_ALL "all-context INVEPT";
        32 INVVPID "INVVPID";
        40 INVVPID_ADDRESS "individual-address INVVPID";
        41 INVVPID_SINGLE "single-context INVVPID";
        42 INVVPID_ALL "all-context INVVPID";
        43 INVVPID_SINGLE_RETAIN_GLOBALS "single-context-retaining-globals INVVPID";
        48 HLAT_PREFIX_1 "maximum HLAT prefix size of 1 (bits 53:48)";
    }
}

/// A control capability MSR (A.3.1): the bits that must be 1 and the bits that may be 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlCapability {
    /// Bits 31:0: a control must be 1 where this is 1.
    pub required: u32,
    /// Bits 63:32: a control may be 1 where this is 1.
    pub allowed: u32,
}

impl ControlCapability {
    /// From the MSR's value.
    #[must_use]
    pub const fn from_msr(value: u64) -> Self {
        ControlCapability { required: value as u32, allowed: (value >> 32) as u32 }
    }

    /// The MSR's value.
    #[must_use]
    pub const fn to_msr(self) -> u64 {
        (self.allowed as u64) << 32 | self.required as u64
    }

    /// Whether control word `value` obeys the capability.
    #[must_use]
    pub const fn permits(self, value: u32) -> bool {
        value & self.required == self.required && value & !self.allowed == 0
    }
}

/// VM functions, IA32_VMX_VMFUNC (A.11).
pub mod vmfunc {
    /// VM function 0: EPTP switching.
    pub const EPTP_SWITCHING: u64 = 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_capability_permits() {
        let c = ControlCapability::from_msr(0x0000_00ff_0000_0016);
        assert!(c.permits(0x16) && c.permits(0x3f));
        assert!(!c.permits(0x14), "a required bit is missing");
        assert!(!c.permits(0x116), "a bit that is not allowed");
        assert_eq!(c.to_msr(), 0x0000_00ff_0000_0016);
    }
}
