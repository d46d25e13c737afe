//! VM-execution, VM-exit and VM-entry controls (SDM Vol. 3C, 25.6 to 25.8).

named_bits! {
    /// Pin-based VM-execution controls (SDM Vol. 3C, table 25-5).
    PinBasedControls(u32) {
        0 EXTERNAL_INTERRUPT_EXITING "external-interrupt exiting";
        3 NMI_EXITING "NMI exiting";
        5 VIRTUAL_NMIS "virtual NMIs";
        6 PREEMPTION_TIMER "activate VMX-preemption timer";
        7 POSTED_INTERRUPTS "process posted interrupts";
    }
}

impl PinBasedControls {
    /// Bits that are 1 in the default1 class (SDM Vol. 3D, A.3.1).
    pub const DEFAULT1: u32 = 0x16;
}

named_bits! {
    /// Primary processor-based VM-execution controls (SDM Vol. 3C, table 25-6).
    PrimaryControls(u32) {
        2 INTERRUPT_WINDOW_EXITING "interrupt-window exiting";
        3 USE_TSC_OFFSETTING "use TSC offsetting";
        7 HLT_EXITING "HLT exiting";
        9 INVLPG_EXITING "INVLPG exiting";
        10 MWAIT_EXITING "MWAIT exiting";
        11 RDPMC_EXITING "RDPMC exiting";
        12 RDTSC_EXITING "RDTSC exiting";
        15 CR3_LOAD_EXITING "CR3-load exiting";
        16 CR3_STORE_EXITING "CR3-store exiting";
        17 ACTIVATE_TERTIARY_CONTROLS "activate tertiary controls";
        19 CR8_LOAD_EXITING "CR8-load exiting";
        20 CR8_STORE_EXITING "CR8-store exiting";
        21 USE_TPR_SHADOW "use TPR shadow";
        22 NMI_WINDOW_EXITING "NMI-window exiting";
        23 MOV_DR_EXITING "MOV-DR exiting";
        24 UNCONDITIONAL_IO_EXITING "unconditional I/O exiting";
        25 USE_IO_BITMAPS "use I/O bitmaps";
        27 MONITOR_TRAP_FLAG "monitor trap flag";
        28 USE_MSR_BITMAPS "use MSR bitmaps";
        29 MONITOR_EXITING "MONITOR exiting";
        30 PAUSE_EXITING "PAUSE exiting";
        31 ACTIVATE_SECONDARY_CONTROLS "activate secondary controls";
    }
}

impl PrimaryControls {
    /// Bits that are 1 in the default1 class (SDM Vol. 3D, A.3.2): 1, 4 to 6, 8, 13 to 16 and 26.
    pub const DEFAULT1: u32 = 0x0401_e172;
}

named_bits! {
    /// Secondary processor-based VM-execution controls (SDM Vol. 3C, table 25-7).
    SecondaryControls(u32) {
        0 VIRTUALIZE_APIC_ACCESSES "virtualize APIC accesses";
        1 ENABLE_EPT "enable EPT";
        2 DESCRIPTOR_TABLE_EXITING "descriptor-table exiting";
        3 ENABLE_RDTSCP "enable RDTSCP";
        4 VIRTUALIZE_X2APIC_MODE "virtualize x2APIC mode";
        5 ENABLE_VPID "enable VPID";
        6 WBINVD_EXITING "WBINVD exiting";
        7 UNRESTRICTED_GUEST "unrestricted guest";
        8 APIC_REGISTER_VIRTUALIZATION "APIC-register virtualization";
        9 VIRTUAL_INTERRUPT_DELIVERY "virtual-interrupt delivery";
        10 PAUSE_LOOP_EXITING "PAUSE-loop exiting";
        11 RDRAND_EXITING "RDRAND exiting";
        12 ENABLE_INVPCID "enable INVPCID";
        13 ENABLE_VM_FUNCTIONS "enable VM functions";
        14 VMCS_SHADOWING "VMCS shadowing";
        15 ENABLE_ENCLS_EXITING "enable ENCLS exiting";
        16 RDSEED_EXITING "RDSEED exiting";
        17 ENABLE_PML "enable PML";
        18 EPT_VIOLATION_VE "EPT-violation #VE";
        19 CONCEAL_VMX_FROM_PT "conceal VMX from PT";
        20 ENABLE_XSAVES "enable XSAVES/XRSTORS";
        21 PASID_TRANSLATION "PASID translation";
        22 MODE_BASED_EXECUTE "mode-based execute control for EPT";
        23 SUB_PAGE_WRITE "sub-page write permissions for EPT";
        24 PT_USES_GUEST_PHYSICAL "Intel PT uses guest physical addresses";
        25 USE_TSC_SCALING "use TSC scaling";
        26 ENABLE_USER_WAIT "enable user wait and pause";
        27 ENABLE_PCONFIG "enable PCONFIG";
        28 ENABLE_ENCLV_EXITING "enable ENCLV exiting";
        30 BUS_LOCK_DETECTION "VMM bus-lock detection";
        31 INSTRUCTION_TIMEOUT "instruction timeout";
    }
}

named_bits! {
    /// Tertiary processor-based VM-execution controls (SDM Vol. 3C, table 25-8).
    TertiaryControls(u64) {
        0 LOADIWKEY_EXITING "LOADIWKEY exiting";
        1 ENABLE_HLAT "enable HLAT";
        2 EPT_PAGING_WRITE "EPT paging-write control";
        3 GUEST_PAGING_VERIFICATION "guest-paging verification";
        4 IPI_VIRTUALIZATION "IPI virtualization";
        6 ENABLE_MSR_LIST "enable MSR-list instructions";
        7 VIRTUALIZE_SPEC_CTRL "virtualize IA32_SPEC_CTRL";
    }
}

named_bits! {
    /// Primary VM-exit controls (SDM Vol. 3C, table 25-13).
    ExitControls(u32) {
        2 SAVE_DEBUG_CONTROLS "save debug controls";
        9 HOST_ADDRESS_SPACE_SIZE "host address-space size";
        12 LOAD_PERF_GLOBAL_CTRL "load IA32_PERF_GLOBAL_CTRL";
        15 ACKNOWLEDGE_INTERRUPT_ON_EXIT "acknowledge interrupt on exit";
        18 SAVE_PAT "save IA32_PAT";
        19 LOAD_PAT "load IA32_PAT";
        20 SAVE_EFER "save IA32_EFER";
        21 LOAD_EFER "load IA32_EFER";
        22 SAVE_PREEMPTION_TIMER "save VMX-preemption timer value";
        23 CLEAR_BNDCFGS "clear IA32_BNDCFGS";
        24 CONCEAL_VMX_FROM_PT "conceal VMX from PT";
        25 CLEAR_RTIT_CTL "clear IA32_RTIT_CTL";
        26 CLEAR_LBR_CTL "clear IA32_LBR_CTL";
        27 CLEAR_UINV "clear UINV";
        28 LOAD_CET_STATE "load CET state";
        29 LOAD_PKRS "load PKRS";
        30 SAVE_PERF_GLOBAL_CTRL "save IA32_PERF_GLOBAL_CTRL";
        31 ACTIVATE_SECONDARY_CONTROLS "activate secondary controls";
    }
}

impl ExitControls {
    /// Bits that are 1 in the default1 class (SDM Vol. 3D, A.4): 0 to 8, 10, 11, 13, 14, 16 and 17.
    pub const DEFAULT1: u32 = 0x0003_6dff;
}

named_bits! {
    /// Secondary VM-exit controls (SDM Vol. 3C, table 25-14).
    SecondaryExitControls(u64) {
        0 SAVE_FRED "save FRED";
        1 LOAD_FRED "load FRED";
        2 LOAD_SPEC_CTRL "load IA32_SPEC_CTRL";
        3 PREMATURELY_BUSY_SHADOW_STACK "prematurely busy shadow stack";
    }
}

named_bits! {
    /// VM-entry controls (SDM Vol. 3C, table 25-16).
    EntryControls(u32) {
        2 LOAD_DEBUG_CONTROLS "load debug controls";
        9 IA32E_MODE_GUEST "IA-32e mode guest";
        10 ENTRY_TO_SMM "entry to SMM";
        11 DEACTIVATE_DUAL_MONITOR "deactivate dual-monitor treatment";
        13 LOAD_PERF_GLOBAL_CTRL "load IA32_PERF_GLOBAL_CTRL";
        14 LOAD_PAT "load IA32_PAT";
        15 LOAD_EFER "load IA32_EFER";
        16 LOAD_BNDCFGS "load IA32_BNDCFGS";
        17 CONCEAL_VMX_FROM_PT "conceal VMX from PT";
        18 LOAD_RTIT_CTL "load IA32_RTIT_CTL";
        19 LOAD_UINV "load UINV";
        20 LOAD_CET_STATE "load CET state";
        21 LOAD_LBR_CTL "load guest IA32_LBR_CTL";
        22 LOAD_PKRS "load PKRS";
        23 LOAD_FRED "load FRED";
        24 LOAD_SPEC_CTRL "load IA32_SPEC_CTRL";
    }
}

impl EntryControls {
    /// Bits that are 1 in the default1 class (SDM Vol. 3D, A.5): 0 to 8 and 12.
    pub const DEFAULT1: u32 = 0x0000_11ff;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default1_holds_the_listed_bits() {
        let bits = |list: &[u32]| list.iter().fold(0u32, |w, b| w | 1 << b);
        assert_eq!(PinBasedControls::DEFAULT1, bits(&[1, 2, 4]));
        assert_eq!(PrimaryControls::DEFAULT1, bits(&[1, 4, 5, 6, 8, 13, 14, 15, 16, 26]));
        assert_eq!(ExitControls::DEFAULT1, bits(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 13, 14, 16, 17]));
        assert_eq!(EntryControls::DEFAULT1, bits(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 12]));
    }
}
