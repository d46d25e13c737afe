//! Every check that VM entry makes, by name (SDM Vol. 3C, 27.2 to 27.4).
//!
//! Each has its rule, the remedy, and the fields to look at beside the one that breaks the rule. The order is the manual's. A check that concerns several fields of one kind ("each of ES, CS, ...") is one variant:
//! the processor reports the field and its value beside it.

use super::VmInstructionError;
use super::exit_reason::ExitReason;
use super::fields::VmcsField;

/// Where a check belongs, which decides how its failure shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CheckGroup {
    /// VM-execution, VM-exit and VM-entry controls (27.2.1): VMfailValid with error 7.
    Controls,
    /// The host-state area and the address-space size (27.2.2 to 27.2.4): VMfailValid with error 8.
    Host,
    /// The guest-state area (27.3.1): a VM exit with basic reason 33.
    Guest,
    /// The VM-entry MSR-load area (27.4): a VM exit with basic reason 34.
    MsrLoading,
}

impl CheckGroup {
    /// The VM-instruction error of a failure in this group; `None` where the failure is a VM exit.
    #[must_use]
    pub const fn instruction_error(self) -> Option<VmInstructionError> {
        match self {
            CheckGroup::Controls => Some(VmInstructionError::InvalidControls),
            CheckGroup::Host => Some(VmInstructionError::InvalidHostState),
            CheckGroup::Guest | CheckGroup::MsrLoading => None,
        }
    }

    /// The basic exit reason of a failure in this group; `None` where the failure is a VM-instruction error.
    #[must_use]
    pub const fn exit_reason(self) -> Option<ExitReason> {
        match self {
            CheckGroup::Controls | CheckGroup::Host => None,
            CheckGroup::Guest => Some(ExitReason::InvalidGuestState),
            CheckGroup::MsrLoading => Some(ExitReason::MsrLoading),
        }
    }
}

macro_rules! checks {
    ($($group:ident $section:literal { $($name:ident $rule:literal $remedy:literal [$($field:ident),*];)* })*) => {
        /// A VM-entry check, named for the rule that is broken when it fails.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum EntryCheck {
            $($(#[doc = concat!($section, ": ", $rule)] $name,)*)*
        }

        impl EntryCheck {
            /// Every check, in the manual's order.
            pub const ALL: &'static [EntryCheck] = &[$($(EntryCheck::$name),*),*];

            /// The group.
            #[must_use]
            pub const fn group(self) -> CheckGroup {
                match self {
                    $($(EntryCheck::$name)|* => CheckGroup::$group,)*
                }
            }

            /// The section of SDM Vol. 3C (2023 and later).
            #[must_use]
            pub const fn section(self) -> &'static str {
                match self {
                    $($(EntryCheck::$name)|* => $section,)*
                }
            }

            /// The rule in a sentence.
            #[must_use]
            pub const fn rule(self) -> &'static str {
                match self {
                    $($(EntryCheck::$name => $rule,)*)*
                }
            }

            /// What would satisfy the rule, in a sentence or two for whoever writes the VMCS.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self {
                    $($(EntryCheck::$name => $remedy,)*)*
                }
            }

            /// Fields that matter for the rule, beside the one that the processor reports.
            #[must_use]
            pub const fn related(self) -> &'static [VmcsField] {
                match self {
                    $($(EntryCheck::$name => &[$(VmcsField::$field),*],)*)*
                }
            }

            /// The variant's name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $($(EntryCheck::$name => stringify!($name),)*)*
                }
            }
        }
    };
}

checks! {
    Controls "27.2.1.1" {
        PinBasedReserved "Reserved bits of the pin-based VM-execution controls must be as IA32_VMX_(TRUE_)PINBASED_CTLS says."
            "Read the capability MSR and use `(wanted | bits 31:0) & bits 63:32` as the control word." [];
        PrimaryReserved "Reserved bits of the primary processor-based VM-execution controls must be as IA32_VMX_(TRUE_)PROCBASED_CTLS says."
            "Read the capability MSR and use `(wanted | bits 31:0) & bits 63:32` as the control word." [];
        SecondaryReserved "Reserved bits of the secondary processor-based VM-execution controls must be as IA32_VMX_PROCBASED_CTLS2 says."
            "Clear the controls that bits 63:32 of IA32_VMX_PROCBASED_CTLS2 do not allow, or do without \"activate secondary controls\"." [PRIMARY_CONTROLS];
        TertiaryReserved "Reserved bits of the tertiary processor-based VM-execution controls must be 0, as IA32_VMX_PROCBASED_CTLS3 says."
            "Clear the controls that IA32_VMX_PROCBASED_CTLS3 does not allow, or do without \"activate tertiary controls\"." [PRIMARY_CONTROLS];
        Cr3TargetCount "The CR3-target count must not exceed the number in IA32_VMX_MISC."
            "Use a count of at most IA32_VMX_MISC bits 24:16." [];
        IoBitmapAddress "With I/O bitmaps in use, the address of each must be 4-KiB aligned and within the physical-address width."
            "Give both bitmaps a 4-KiB page each, or clear \"use I/O bitmaps\"." [PRIMARY_CONTROLS, IO_BITMAP_A, IO_BITMAP_B];
        MsrBitmapAddress "With MSR bitmaps in use, their address must be 4-KiB aligned and within the physical-address width."
            "Point the field to a 4-KiB page, or clear \"use MSR bitmaps\"." [PRIMARY_CONTROLS];
        VirtualApicAddress "With a TPR shadow, the virtual-APIC address must be 4-KiB aligned and within the physical-address width."
            "Point the field to a 4-KiB page, or clear \"use TPR shadow\"." [PRIMARY_CONTROLS];
        TprThresholdReserved "With a TPR shadow and no virtual-interrupt delivery, bits 31:4 of the TPR threshold must be 0."
            "Write a threshold of 0 to 15." [PRIMARY_CONTROLS, SECONDARY_CONTROLS];
        TprThresholdAboveVtpr "With a TPR shadow and neither APIC-access virtualization nor virtual-interrupt delivery, the TPR threshold must not exceed bits 7:4 of VTPR."
            "Lower the threshold to VTPR bits 7:4 or below (VTPR is at offset 80H of the virtual-APIC page); 0 never exits." [VIRTUAL_APIC_ADDRESS, PRIMARY_CONTROLS, SECONDARY_CONTROLS];
        VirtualNmisNeedNmiExiting "\"Virtual NMIs\" needs \"NMI exiting\"."
            "Set \"NMI exiting\", or clear \"virtual NMIs\"." [];
        NmiWindowNeedsVirtualNmis "\"NMI-window exiting\" needs \"virtual NMIs\"."
            "Set \"virtual NMIs\" (and \"NMI exiting\"), or clear \"NMI-window exiting\"." [PIN_BASED_CONTROLS];
        ApicAccessAddress "With APIC accesses virtualized, the APIC-access address must be 4-KiB aligned and within the physical-address width."
            "Point the field to a 4-KiB page, or clear \"virtualize APIC accesses\"." [SECONDARY_CONTROLS];
        ApicVirtualizationNeedsTprShadow "\"Virtualize x2APIC mode\", \"APIC-register virtualization\", \"virtual-interrupt delivery\" and \"IPI virtualization\" need \"use TPR shadow\"."
            "Set \"use TPR shadow\" with a virtual-APIC page, or clear the secondary (and tertiary) controls that need it." [PRIMARY_CONTROLS, VIRTUAL_APIC_ADDRESS];
        X2apicModeExcludesApicAccesses "\"Virtualize x2APIC mode\" and \"virtualize APIC accesses\" must not both be 1."
            "Keep the one that suits the guest's APIC mode and clear the other." [];
        VirtualInterruptDeliveryNeedsInterruptExiting "\"Virtual-interrupt delivery\" needs \"external-interrupt exiting\"."
            "Set \"external-interrupt exiting\", or clear \"virtual-interrupt delivery\"." [PIN_BASED_CONTROLS, SECONDARY_CONTROLS];
        PostedInterruptsNeedVirtualInterruptDelivery "\"Process posted interrupts\" needs \"virtual-interrupt delivery\"."
            "Set \"virtual-interrupt delivery\", or clear \"process posted interrupts\"." [PIN_BASED_CONTROLS, SECONDARY_CONTROLS];
        PostedInterruptsNeedAcknowledge "\"Process posted interrupts\" needs \"acknowledge interrupt on exit\"."
            "Set \"acknowledge interrupt on exit\", or clear \"process posted interrupts\"." [PIN_BASED_CONTROLS, EXIT_CONTROLS];
        PostedInterruptVector "The posted-interrupt notification vector must be at most 255."
            "Write a vector of 0 to 255." [PIN_BASED_CONTROLS];
        PostedInterruptDescriptor "The posted-interrupt descriptor address must be 64-byte aligned and within the physical-address width."
            "Give the 64-byte descriptor an address with bits 5:0 clear." [PIN_BASED_CONTROLS];
        PidPointerTable "With IPI virtualization, the PID-pointer table must be 8-byte aligned and lie within the physical-address width."
            "Align the table to 8 bytes and let its last entry lie below the physical-address width." [LAST_PID_POINTER_INDEX, TERTIARY_CONTROLS];
        VpidZero "With VPIDs enabled, the VPID must not be 0."
            "Give the guest a VPID of 1 to FFFFH, or clear \"enable VPID\"." [SECONDARY_CONTROLS];
        EptpMemoryType "The EPT pointer's memory type must be one that IA32_VMX_EPT_VPID_CAP reports."
            "Write 6 (WB) into bits 2:0 of the EPT pointer, or 0 (UC) where IA32_VMX_EPT_VPID_CAP bit 8 is 1." [SECONDARY_CONTROLS];
        EptpWalkLength "The EPT pointer's page-walk length must be one that IA32_VMX_EPT_VPID_CAP reports."
            "Write 3 into bits 5:3 of the EPT pointer for 4 levels (4 for 5 levels where IA32_VMX_EPT_VPID_CAP bit 7 is 1)." [SECONDARY_CONTROLS];
        EptpAccessedDirty "Bit 6 of the EPT pointer must be 0 when accessed and dirty flags are not supported."
            "Clear bit 6 of the EPT pointer: IA32_VMX_EPT_VPID_CAP bit 21 is 0." [SECONDARY_CONTROLS];
        EptpSupervisorShadowStack "Bit 7 of the EPT pointer must be 0 when supervisor shadow-stack control is not supported."
            "Clear bit 7 of the EPT pointer: IA32_VMX_EPT_VPID_CAP bit 23 is 0." [SECONDARY_CONTROLS];
        EptpReserved "Bits 11:8 and those beyond the physical-address width must be 0 in the EPT pointer."
            "Make the EPT pointer of the physical address of the top-level table (4-KiB aligned, within the width) and the flags in bits 7:0 alone." [SECONDARY_CONTROLS];
        PmlNeedsEpt "\"Enable PML\" needs \"enable EPT\"."
            "Set \"enable EPT\", or clear \"enable PML\"." [SECONDARY_CONTROLS];
        PmlAddress "The PML address must be 4-KiB aligned and within the physical-address width."
            "Point the field to a 4-KiB page, or clear \"enable PML\"." [SECONDARY_CONTROLS];
        UnrestrictedGuestNeedsEpt "\"Unrestricted guest\" needs \"enable EPT\"."
            "Set \"enable EPT\" and give an EPT pointer, or clear \"unrestricted guest\"." [EPT_POINTER, PRIMARY_CONTROLS];
        ModeBasedExecuteNeedsEpt "\"Mode-based execute control for EPT\" needs \"enable EPT\"."
            "Set \"enable EPT\", or clear \"mode-based execute control for EPT\"." [SECONDARY_CONTROLS];
        SubPageWriteNeedsEpt "\"Sub-page write permissions for EPT\" needs \"enable EPT\"."
            "Set \"enable EPT\", or clear \"sub-page write permissions for EPT\"." [SECONDARY_CONTROLS];
        SubPageTablePointer "The sub-page-permission-table pointer must be 4-KiB aligned and within the physical-address width."
            "Point the field to a 4-KiB page, or clear \"sub-page write permissions for EPT\"." [SECONDARY_CONTROLS];
        VmFunctionReserved "Reserved bits of the VM-function controls must be 0, as IA32_VMX_VMFUNC says."
            "Clear the functions that IA32_VMX_VMFUNC does not report." [SECONDARY_CONTROLS];
        EptpSwitchingNeedsEpt "\"EPTP switching\" needs \"enable EPT\"."
            "Set \"enable EPT\", or clear bit 0 (EPTP switching) of the VM-function controls." [VM_FUNCTION_CONTROLS];
        EptpListAddress "The EPTP-list address must be 4-KiB aligned and within the physical-address width."
            "Point the field to a 4-KiB page with the list, or clear bit 0 of the VM-function controls." [VM_FUNCTION_CONTROLS];
        VmreadBitmapAddress "With VMCS shadowing, the VMREAD-bitmap address must be 4-KiB aligned and within the physical-address width."
            "Point the field to a 4-KiB page, or clear \"VMCS shadowing\"." [SECONDARY_CONTROLS];
        VmwriteBitmapAddress "With VMCS shadowing, the VMWRITE-bitmap address must be 4-KiB aligned and within the physical-address width."
            "Point the field to a 4-KiB page, or clear \"VMCS shadowing\"." [SECONDARY_CONTROLS];
        VeInformationAddress "With EPT-violation #VE, the information address must be 4-KiB aligned and within the physical-address width."
            "Point the field to a 4-KiB page, or clear \"EPT-violation #VE\"." [SECONDARY_CONTROLS];
        PtGuestPhysicalNeedsEpt "\"Intel PT uses guest physical addresses\" needs \"enable EPT\"."
            "Set \"enable EPT\", or clear \"Intel PT uses guest physical addresses\"." [SECONDARY_CONTROLS];
        PtGuestPhysicalNeedsRtitControls "\"Intel PT uses guest physical addresses\" needs \"load IA32_RTIT_CTL\" and \"clear IA32_RTIT_CTL\"."
            "Set \"load IA32_RTIT_CTL\" (entry) and \"clear IA32_RTIT_CTL\" (exit), or clear \"Intel PT uses guest physical addresses\"." [SECONDARY_CONTROLS, ENTRY_CONTROLS, EXIT_CONTROLS];
        TscMultiplierZero "With TSC scaling, the TSC multiplier must not be 0."
            "Write a multiplier (2^48 stands for 1), or clear \"use TSC scaling\"." [SECONDARY_CONTROLS];
        HlatNeedsEpt "\"Enable HLAT\", \"EPT paging-write control\" and \"guest-paging verification\" need \"enable EPT\"."
            "Set \"enable EPT\", or clear the tertiary controls that need it." [SECONDARY_CONTROLS, TERTIARY_CONTROLS];
        HlatPointer "Reserved bits of the HLAT pointer, those beyond the physical-address width among them, must be 0."
            "Make the pointer of the table's physical address and PWT and PCD (bits 3 and 4) alone." [TERTIARY_CONTROLS];
        PasidDirectory "With PASID translation, each PASID directory must be 4-KiB aligned and within the physical-address width."
            "Point both PASID directories to 4-KiB pages, or clear \"PASID translation\"." [SECONDARY_CONTROLS];
    }
    Controls "27.2.1.2" {
        ExitReserved "Reserved bits of the primary VM-exit controls must be as IA32_VMX_(TRUE_)EXIT_CTLS says."
            "Read the capability MSR and use `(wanted | bits 31:0) & bits 63:32` as the control word." [];
        SecondaryExitReserved "Reserved bits of the secondary VM-exit controls must be 0, as IA32_VMX_EXIT_CTLS2 says."
            "Clear the controls that IA32_VMX_EXIT_CTLS2 does not allow, or do without \"activate secondary controls\"." [EXIT_CONTROLS];
        SaveTimerNeedsTimer "\"Save VMX-preemption timer value\" needs \"activate VMX-preemption timer\"."
            "Set \"activate VMX-preemption timer\", or clear \"save VMX-preemption timer value\"." [PIN_BASED_CONTROLS];
        ExitMsrStoreArea "The VM-exit MSR-store area must be 16-byte aligned and end within the physical-address width."
            "Align the area to 16 bytes and let it end within the physical-address width, or make its count 0." [EXIT_MSR_STORE_COUNT];
        ExitMsrLoadArea "The VM-exit MSR-load area must be 16-byte aligned and end within the physical-address width."
            "Align the area to 16 bytes and let it end within the physical-address width, or make its count 0." [EXIT_MSR_LOAD_COUNT];
    }
    Controls "27.2.1.3" {
        EntryReserved "Reserved bits of the VM-entry controls must be as IA32_VMX_(TRUE_)ENTRY_CTLS says."
            "Read the capability MSR and use `(wanted | bits 31:0) & bits 63:32` as the control word." [];
        InjectionType "The interruption type to inject must not be reserved (1, or 7 where MTF is not supported)."
            "Use type 0 (external interrupt), 2 (NMI), 3 (hardware exception), 4 (software interrupt), 5 (INT1) or 6 (INT3, INTO)." [];
        InjectionVector "The vector to inject must suit the type: 2 for an NMI, at most 31 for a hardware exception, 0 for an other event."
            "Inject an NMI as vector 2 and a hardware exception as a vector of 0 to 31; an other vector needs type 0 or 4." [];
        InjectionErrorCode "An error code must be delivered only, and with fixed error codes always, for hardware exceptions that have one and when the guest is in protected mode."
            "Set bit 11 for #DF, #TS, #NP, #SS, #GP, #PF and #AC as hardware exceptions, and clear it for every other event and for a guest with CR0.PE = 0." [ENTRY_EXCEPTION_ERROR_CODE, GUEST_CR0];
        InjectionReserved "Bits 30:12 of the VM-entry interruption information must be 0."
            "Clear bits 30:12. IDT-vectoring information copied here may have bit 12 set, which is undefined there." [];
        InjectionErrorCodeReserved "Bits 31:16 of the VM-entry exception error code must be 0."
            "Write an error code of 16 bits." [ENTRY_INTERRUPTION_INFO];
        InjectionInstructionLength "The VM-entry instruction length of a software event must be 1 to 15 (or 0 where IA32_VMX_MISC allows it)."
            "Write the length of the instruction that makes the event, as the VM-exit instruction length reports it." [ENTRY_INTERRUPTION_INFO];
        EntryMsrLoadArea "The VM-entry MSR-load area must be 16-byte aligned and end within the physical-address width."
            "Align the area to 16 bytes and let it end within the physical-address width, or make its count 0." [ENTRY_MSR_LOAD_COUNT];
        SmmControlsOutsideSmm "Outside SMM, \"entry to SMM\" and \"deactivate dual-monitor treatment\" must be 0."
            "Clear both controls; they are for a dual-monitor SMM transfer monitor only." [];
        SmmControlsExclude "\"Entry to SMM\" and \"deactivate dual-monitor treatment\" must not both be 1."
            "Clear one of the two." [];
    }
    Host "27.2.2" {
        HostCr0Fixed "The host CR0 must have the bits that VMX operation fixes."
            "Set every bit of IA32_VMX_CR0_FIXED0 (PE, NE and PG) and clear those that are 0 in IA32_VMX_CR0_FIXED1; the running CR0 satisfies this." [];
        HostCr4Fixed "The host CR4 must have the bits that VMX operation fixes."
            "Set every bit of IA32_VMX_CR4_FIXED0 (VMXE) and clear those that are 0 in IA32_VMX_CR4_FIXED1; the running CR4 satisfies this." [];
        HostCetNeedsWp "The host CR4.CET needs CR0.WP."
            "Set CR0.WP, or clear CR4.CET." [HOST_CR0];
        HostCr3Width "The host CR3 must have no bit beyond the physical-address width."
            "Write the physical address of the host's table; a bit above the width is often a PCID flag (bit 63) left in." [];
        HostSysenterCanonical "The host IA32_SYSENTER_ESP and IA32_SYSENTER_EIP must be canonical."
            "Copy the running MSR's value: bits 63:47 must all be equal (63:56 with 5-level paging in the processor)." [];
        HostPerfGlobalCtrl "Reserved bits of the host IA32_PERF_GLOBAL_CTRL must be 0."
            "Clear the bits of counters that do not exist, or clear \"load IA32_PERF_GLOBAL_CTRL\"." [EXIT_CONTROLS];
        HostPat "Each byte of the host IA32_PAT must be a memory type."
            "Use 0 (UC), 1 (WC), 4 (WT), 5 (WP), 6 (WB) or 7 (UC-) in each byte; the running IA32_PAT satisfies this." [EXIT_CONTROLS];
        HostEferReserved "Reserved bits of the host IA32_EFER must be 0."
            "Keep SCE, LME, LMA and NXE alone; the running IA32_EFER satisfies this." [EXIT_CONTROLS];
        HostEferMode "LMA and LME of the host IA32_EFER must each equal \"host address-space size\"."
            "Set both LMA and LME for a 64-bit host, clear both for a 32-bit one." [EXIT_CONTROLS];
        HostCet "The host IA32_S_CET must have no reserved bit, and it, SSP and the interrupt SSP table address must be canonical; SSP must be 4-byte aligned."
            "Copy the running CET MSRs, or clear \"load CET state\"." [EXIT_CONTROLS];
        HostPkrs "Bits 63:32 of the host IA32_PKRS must be 0."
            "Clear bits 63:32, or clear \"load PKRS\"." [EXIT_CONTROLS];
        HostSpecCtrl "Reserved bits of the host IA32_SPEC_CTRL must be 0."
            "Clear the bits that CPUID does not announce, or clear \"load IA32_SPEC_CTRL\"." [SECONDARY_EXIT_CONTROLS];
    }
    Host "27.2.3" {
        HostSelectorRplTi "RPL and TI of every host selector must be 0."
            "Clear bits 2:0: host selectors refer to the GDT with RPL 0. A selector of user mode (0x2b for DS, say) must be replaced by 0." [];
        HostCsZero "The host CS selector must not be 0."
            "Write the selector of the host's code segment, as CS holds it now." [];
        HostTrZero "The host TR selector must not be 0."
            "Write the selector of the host's TSS: load TR with LTR first if it is still 0." [];
        HostSsZero "The host SS selector must not be 0 when \"host address-space size\" is 0."
            "Write the selector of the host's stack segment; only a 64-bit host may have 0." [EXIT_CONTROLS];
        HostBaseCanonical "The host bases of FS, GS, GDTR, IDTR and TR must be canonical."
            "Copy the running base: bits 63:47 must all be equal (63:56 with 5-level paging in the processor)." [];
    }
    Host "27.2.4" {
        OutsideIa32eMode "Outside IA-32e mode, \"IA-32e mode guest\" and \"host address-space size\" must be 0."
            "Clear both controls, or execute the VM entry in 64-bit mode." [ENTRY_CONTROLS];
        HostAddressSpaceSizeInIa32eMode "In IA-32e mode, \"host address-space size\" must be 1."
            "Set \"host address-space size\": a VM exit returns to the 64-bit mode that executes the VM entry." [];
        Host32NoIa32eGuest "With \"host address-space size\" 0, \"IA-32e mode guest\" must be 0."
            "Clear \"IA-32e mode guest\": only a 64-bit host can run a 64-bit guest." [EXIT_CONTROLS];
        Host32NoPcide "With \"host address-space size\" 0, the host CR4.PCIDE must be 0."
            "Clear CR4.PCIDE of the host." [EXIT_CONTROLS];
        Host32Rip "With \"host address-space size\" 0, bits 63:32 of the host RIP must be 0."
            "Write an address below 4 GiB." [EXIT_CONTROLS];
        Host64Pae "With \"host address-space size\" 1, the host CR4.PAE must be 1."
            "Set CR4.PAE of the host." [EXIT_CONTROLS];
        Host64RipCanonical "With \"host address-space size\" 1, the host RIP must be canonical."
            "Write the address of the host's exit handler: bits 63:47 must all be equal." [EXIT_CONTROLS];
    }
    Guest "27.3.1.1" {
        GuestCr0Fixed "The guest CR0 must have the bits that VMX operation fixes (PE and PG are free for an unrestricted guest)."
            "Set NE, and PE and PG too unless \"unrestricted guest\" is 1; clear the bits that are 0 in IA32_VMX_CR0_FIXED1. What the guest shall see goes into the CR0 guest/host mask and read shadow." [SECONDARY_CONTROLS, CR0_MASK, CR0_READ_SHADOW];
        GuestPagingNeedsProtection "The guest CR0.PG needs CR0.PE."
            "Set PE, or clear PG." [SECONDARY_CONTROLS];
        GuestCr4Fixed "The guest CR4 must have the bits that VMX operation fixes."
            "Set VMXE (hide it by the CR4 guest/host mask and read shadow) and clear the bits that are 0 in IA32_VMX_CR4_FIXED1." [CR4_MASK, CR4_READ_SHADOW];
        GuestCetNeedsWp "The guest CR4.CET needs CR0.WP."
            "Set CR0.WP of the guest, or clear its CR4.CET." [GUEST_CR0];
        GuestDebugctl "Reserved bits of the guest IA32_DEBUGCTL must be 0."
            "Clear the reserved bits, or clear \"load debug controls\"." [ENTRY_CONTROLS];
        GuestIa32eNeedsPaging "An IA-32e mode guest needs CR0.PG and CR4.PAE."
            "Set PG in the guest's CR0 and PAE in its CR4, or clear \"IA-32e mode guest\"." [ENTRY_CONTROLS, GUEST_CR0, GUEST_CR4];
        GuestPcideNeedsIa32e "The guest CR4.PCIDE needs \"IA-32e mode guest\"."
            "Clear CR4.PCIDE of the guest, or set \"IA-32e mode guest\"." [ENTRY_CONTROLS];
        GuestCr3Width "The guest CR3 must have no bit beyond the physical-address width."
            "Clear the bits at and above the physical-address width (bit 63 of a value for MOV to CR3 among them)." [];
        GuestDr7High "Bits 63:32 of the guest DR7 must be 0."
            "Write DR7 with bits 63:32 clear, or clear \"load debug controls\"." [ENTRY_CONTROLS];
        GuestSysenterCanonical "The guest IA32_SYSENTER_ESP and IA32_SYSENTER_EIP must be canonical."
            "Write a canonical address: bits 63:47 must all be equal (63:56 with 5-level paging in the processor)." [];
        GuestPerfGlobalCtrl "Reserved bits of the guest IA32_PERF_GLOBAL_CTRL must be 0."
            "Clear the bits of counters that do not exist, or clear \"load IA32_PERF_GLOBAL_CTRL\"." [ENTRY_CONTROLS];
        GuestPat "Each byte of the guest IA32_PAT must be a memory type."
            "Use 0 (UC), 1 (WC), 4 (WT), 5 (WP), 6 (WB) or 7 (UC-) in each byte (the reset value is 0007040600070406H), or clear \"load IA32_PAT\"." [ENTRY_CONTROLS];
        GuestEferReserved "Reserved bits of the guest IA32_EFER must be 0."
            "Keep SCE, LME, LMA and NXE alone, or clear \"load IA32_EFER\"." [ENTRY_CONTROLS];
        GuestEferLma "LMA of the guest IA32_EFER must equal \"IA-32e mode guest\"."
            "Set LMA exactly when \"IA-32e mode guest\" is 1." [ENTRY_CONTROLS];
        GuestEferLme "With CR0.PG, LME of the guest IA32_EFER must equal LMA."
            "With paging on, LME and LMA go together: set both or clear both." [ENTRY_CONTROLS, GUEST_CR0];
        GuestBndcfgs "Reserved bits of the guest IA32_BNDCFGS must be 0 and its address canonical."
            "Clear bits 11:2 and make the address canonical, or clear \"load IA32_BNDCFGS\"." [ENTRY_CONTROLS];
        GuestRtitCtl "Reserved bits of the guest IA32_RTIT_CTL must be 0."
            "Clear the reserved bits, or clear \"load IA32_RTIT_CTL\"." [ENTRY_CONTROLS];
        GuestCet "The guest IA32_S_CET must have no reserved bit, and it and the interrupt SSP table address must be canonical."
            "Clear the reserved bits and make the addresses canonical, or clear \"load CET state\"." [ENTRY_CONTROLS, GUEST_S_CET, GUEST_INTERRUPT_SSP_TABLE];
        GuestLbrCtl "Reserved bits of the guest IA32_LBR_CTL must be 0."
            "Clear the reserved bits, or clear \"load guest IA32_LBR_CTL\"." [ENTRY_CONTROLS];
        GuestPkrs "Bits 63:32 of the guest IA32_PKRS must be 0."
            "Clear bits 63:32, or clear \"load PKRS\"." [ENTRY_CONTROLS];
        GuestUinv "Bits 15:8 of the guest UINV must be 0."
            "Write a vector of 0 to 255, or clear \"load UINV\"." [ENTRY_CONTROLS];
        GuestSpecCtrl "Reserved bits of the guest IA32_SPEC_CTRL must be 0."
            "Clear the bits that CPUID does not announce, or clear \"load IA32_SPEC_CTRL\"." [ENTRY_CONTROLS];
    }
    Guest "27.3.1.2" {
        TrSelectorLocal "TI of the TR selector must be 0."
            "Clear bit 2: a TSS is described in the GDT." [];
        LdtrSelectorLocal "TI of a usable LDTR's selector must be 0."
            "Clear bit 2, or make LDTR unusable (bit 16 of its access rights)." [GUEST_LDTR_ACCESS_RIGHTS];
        SsRplNotCsRpl "Outside virtual-8086 mode and without an unrestricted guest, the RPL of SS must equal the RPL of CS."
            "Give SS and CS the same RPL, which is the guest's CPL; only an unrestricted guest is free of this." [GUEST_CS_SELECTOR, SECONDARY_CONTROLS];
        V86Base "In virtual-8086 mode, the base of CS, SS, DS, ES, FS and GS must be the selector times 16."
            "Write selector * 16 into the base." [GUEST_RFLAGS];
        BaseCanonical "The bases of TR, FS and GS, and of a usable LDTR, must be canonical."
            "Write a canonical base: bits 63:47 must all be equal (63:56 with 5-level paging in the processor)." [];
        BaseHigh "Bits 63:32 of the base of CS, and of usable SS, DS and ES, must be 0."
            "Write a base below 4 GiB (0 for a 64-bit guest), or make the segment unusable." [];
        V86Limit "In virtual-8086 mode, the limit of CS, SS, DS, ES, FS and GS must be FFFFH."
            "Write FFFFH." [GUEST_RFLAGS];
        V86AccessRights "In virtual-8086 mode, the access rights of CS, SS, DS, ES, FS and GS must be F3H."
            "Write F3H: present, DPL 3, accessed read/write data." [GUEST_RFLAGS];
        CsType "CS must be an accessed code segment (type 9, 11, 13 or 15; also 3 for an unrestricted guest)."
            "Use type 11 (execute/read, accessed) for ordinary code; type 3 needs \"unrestricted guest\"." [SECONDARY_CONTROLS];
        SsType "A usable SS must be an accessed, writable data segment (type 3 or 7)."
            "Use type 3 (read/write, accessed), or make SS unusable." [];
        DataType "A usable DS, ES, FS or GS must be accessed, and readable if it is a code segment."
            "Use type 3 (read/write, accessed), or make the segment unusable." [];
        SegmentSystem "S must be 1 in CS and in usable SS, DS, ES, FS and GS."
            "Set bit 4, or make the segment unusable." [];
        CsDplType3 "The DPL of CS must be 0 when its type is 3."
            "Write DPL 0 into bits 6:5." [];
        CsDplNonConforming "The DPL of a non-conforming CS must equal the DPL of SS."
            "Give CS and SS the same DPL, the guest's CPL." [GUEST_SS_ACCESS_RIGHTS];
        CsDplConforming "The DPL of a conforming CS must not exceed the DPL of SS."
            "Give CS a DPL of at most that of SS." [GUEST_SS_ACCESS_RIGHTS];
        SsDplNotRpl "Without an unrestricted guest, the DPL of SS must equal its RPL."
            "Give the access rights of SS the DPL that is the selector's RPL (and the guest's CPL)." [SECONDARY_CONTROLS];
        SsDplNotZero "The DPL of SS must be 0 when the type of CS is 3 or CR0.PE is 0."
            "Write DPL 0: real mode runs at CPL 0." [GUEST_CR0, GUEST_CS_ACCESS_RIGHTS];
        DataDplBelowRpl "Without an unrestricted guest, the DPL of a usable DS, ES, FS or GS that is data or non-conforming code must not be below its RPL."
            "Raise the DPL to the selector's RPL, lower the RPL, or make the segment unusable." [SECONDARY_CONTROLS];
        SegmentNotPresent "P must be 1 in CS and in usable SS, DS, ES, FS and GS."
            "Set bit 7, or make the segment unusable (bit 16)." [];
        SegmentReserved "Bits 11:8 and 31:17 of the access rights of CS and of usable SS, DS, ES, FS and GS must be 0."
            "Clear bits 11:8 and 31:17. They are not those of a descriptor: bits 15:12 are its AVL, L, D/B and G." [];
        CsLongAndDefault "D/B must be 0 in a 64-bit CS of an IA-32e mode guest."
            "Clear bit 14 (D/B) for 64-bit code, or bit 13 (L) for compatibility mode." [ENTRY_CONTROLS];
        SegmentGranularity "G must be 0 if any of bits 11:0 of the limit is 0, and 1 if any of bits 31:20 is 1 (CS and usable SS, DS, ES, FS and GS)."
            "For G = 1 use a limit that ends in FFFH (a flat segment: FFFFFFFFH); for G = 0 one of at most FFFFFH." [];
        TrType "TR must be a busy TSS: type 11, or 3 outside IA-32e mode."
            "Write type 11: 8BH is a present, busy 32- or 64-bit TSS. A TSS descriptor read from the GDT has type 9 until LTR has marked it busy." [ENTRY_CONTROLS];
        TrSystem "S must be 0 in TR."
            "Clear bit 4: a TSS is a system segment (8BH)." [];
        TrNotPresent "P must be 1 in TR."
            "Set bit 7 (8BH)." [];
        TrReserved "Bits 11:8 and 31:17 of the access rights of TR must be 0."
            "Clear bits 11:8 and 31:17. They are not those of a descriptor: bits 15:12 are its AVL, L, D/B and G." [];
        TrGranularity "G must suit the limit of TR."
            "Use G = 0 with a limit such as 67H; with G = 1 the limit must end in FFFH." [];
        TrUnusable "TR must be usable."
            "Clear bit 16: a guest must have a TSS, if an empty one." [];
        LdtrType "A usable LDTR must be of type 2."
            "Write type 2 (82H), or make LDTR unusable (10000H)." [];
        LdtrSystem "S must be 0 in a usable LDTR."
            "Clear bit 4, or make LDTR unusable (10000H)." [];
        LdtrNotPresent "P must be 1 in a usable LDTR."
            "Set bit 7, or make LDTR unusable (10000H)." [];
        LdtrReserved "Bits 11:8 and 31:17 of the access rights of a usable LDTR must be 0."
            "Clear bits 11:8 and 31:17, or make LDTR unusable (10000H)." [];
        LdtrGranularity "G must suit the limit of a usable LDTR."
            "Use G = 0 with a limit of at most FFFFFH, or make LDTR unusable (10000H)." [];
    }
    Guest "27.3.1.3" {
        DescriptorTableBaseCanonical "The bases of GDTR and IDTR must be canonical."
            "Write a canonical base: bits 63:47 must all be equal (63:56 with 5-level paging in the processor)." [];
        DescriptorTableLimit "Bits 31:16 of the limits of GDTR and IDTR must be 0."
            "Write a limit of 16 bits." [];
    }
    Guest "27.3.1.4" {
        GuestRipHigh "Outside 64-bit mode, bits 63:32 of RIP must be 0."
            "Write a RIP below 4 GiB, or let the guest be in 64-bit mode (\"IA-32e mode guest\" and CS.L)." [ENTRY_CONTROLS, GUEST_CS_ACCESS_RIGHTS];
        GuestRipCanonical "In 64-bit mode, RIP must be canonical."
            "Write a RIP whose bits above the linear-address width are all equal." [ENTRY_CONTROLS, GUEST_CS_ACCESS_RIGHTS];
        RflagsReserved "Reserved bits of RFLAGS must be 0, and bit 1 must be 1."
            "Set bit 1 and clear bits 3, 5, 15 and 63:22: 2 is the value after reset." [];
        RflagsVm "RFLAGS.VM must be 0 in an IA-32e mode guest and with CR0.PE = 0."
            "Clear bit 17: virtual-8086 mode exists in protected mode outside IA-32e mode only." [ENTRY_CONTROLS, GUEST_CR0];
        RflagsIfForInterrupt "RFLAGS.IF must be 1 when an external interrupt is injected."
            "Inject the interrupt when the guest has IF = 1: \"interrupt-window exiting\" tells when." [ENTRY_INTERRUPTION_INFO];
        GuestSsp "SSP must be 4-byte aligned and canonical (below 4 GiB outside 64-bit mode)."
            "Write a canonical address with bits 1:0 clear, or clear \"load CET state\"." [ENTRY_CONTROLS];
    }
    Guest "27.3.1.5" {
        ActivityStateUnsupported "The activity state must be one that IA32_VMX_MISC reports."
            "Use 0 (active), or 1 (HLT), 2 (shutdown), 3 (wait for SIPI) where IA32_VMX_MISC bits 6, 7 and 8 report them." [];
        HltNeedsCpl0 "The activity state must not be HLT when the DPL of SS is not 0."
            "Use activity state 0 (active), or let the guest be at CPL 0." [GUEST_SS_ACCESS_RIGHTS];
        InactiveWithBlocking "The activity state must be active with blocking by STI or by MOV SS."
            "Use activity state 0 (active), or clear bits 1:0 of the interruptibility state." [GUEST_INTERRUPTIBILITY];
        ActivityStateForbidsInjection "The event to inject must be one that the activity state admits."
            "Use activity state 0 (active) when an event is injected: it wakes the guest." [ENTRY_INTERRUPTION_INFO];
        WaitForSipiEntryToSmm "The activity state must not be wait-for-SIPI on entry to SMM."
            "Use another activity state, or clear \"entry to SMM\"." [ENTRY_CONTROLS];
        InterruptibilityReserved "Reserved bits of the interruptibility state must be 0."
            "Clear bits 31:5." [];
        StiAndMovSs "Blocking by STI and by MOV SS must not both be 1."
            "Clear one of bits 0 and 1." [];
        StiNeedsIf "Blocking by STI needs RFLAGS.IF."
            "Clear bit 0 of the interruptibility state, or set RFLAGS.IF." [GUEST_RFLAGS];
        InterruptWithBlocking "Blocking by STI and by MOV SS must be 0 when an external interrupt is injected."
            "Clear bits 1:0 of the interruptibility state, or inject later, when an interrupt window opens." [ENTRY_INTERRUPTION_INFO];
        NmiWithMovSs "Blocking by MOV SS must be 0 when an NMI is injected."
            "Clear bit 1 of the interruptibility state, or inject the NMI later." [ENTRY_INTERRUPTION_INFO];
        SmiOutsideSmm "Blocking by SMI must be 0 outside SMM."
            "Clear bit 2 of the interruptibility state." [];
        SmiEntryToSmm "Blocking by SMI must be 1 on entry to SMM."
            "Set bit 2 of the interruptibility state, or clear \"entry to SMM\"." [ENTRY_CONTROLS];
        NmiWithVirtualNmiBlocking "Blocking by NMI must be 0 when an NMI is injected with virtual NMIs."
            "Inject the NMI when bit 3 of the interruptibility state is 0: \"NMI-window exiting\" tells when." [ENTRY_INTERRUPTION_INFO, PIN_BASED_CONTROLS];
        EnclaveInterruption "Enclave interruption needs a processor with SGX and no blocking by MOV SS."
            "Clear bit 4 of the interruptibility state." [];
        PendingDebugReserved "Reserved bits of the pending debug exceptions must be 0."
            "Keep bits 3:0, 12, 14 and 16 alone: this is not the layout of DR6." [];
        PendingDebugSingleStepMissing "With blocking by STI or MOV SS or in HLT, pending BS must be 1 when RFLAGS.TF is 1 and IA32_DEBUGCTL.BTF is 0."
            "Set bit 14 (BS): a guest with TF = 1 whose instruction is held in a shadow, or which is halted, owes a single-step trap." [GUEST_RFLAGS, GUEST_INTERRUPTIBILITY, GUEST_ACTIVITY_STATE, GUEST_DEBUGCTL];
        PendingDebugSingleStepExtra "With blocking by STI or MOV SS or in HLT, pending BS must be 0 when RFLAGS.TF is 0 or IA32_DEBUGCTL.BTF is 1."
            "Clear bit 14 (BS), or set RFLAGS.TF." [GUEST_RFLAGS, GUEST_INTERRUPTIBILITY, GUEST_ACTIVITY_STATE, GUEST_DEBUGCTL];
        PendingDebugRtm "Pending RTM needs a processor with RTM, no MOV SS blocking, and only the enabled-breakpoint bit beside it."
            "Clear bit 16." [GUEST_INTERRUPTIBILITY];
        LinkPointerAlignment "The VMCS link pointer must be 4-KiB aligned."
            "Write FFFFFFFFFFFFFFFFH (both halves) when no VMCS is linked; else the address of a 4-KiB region." [SECONDARY_CONTROLS];
        LinkPointerWidth "The VMCS link pointer must be within the physical-address width."
            "Write FFFFFFFFFFFFFFFFH when no VMCS is linked; 32-bit software must write the high half too." [SECONDARY_CONTROLS];
        LinkPointerRevision "The VMCS at the link pointer must have the processor's revision identifier."
            "Write FFFFFFFFFFFFFFFFH when no VMCS is linked: 0 does not mean none. Else put IA32_VMX_BASIC bits 30:0 into the region's first four bytes." [SECONDARY_CONTROLS];
        LinkPointerShadow "The VMCS at the link pointer must be a shadow VMCS exactly when \"VMCS shadowing\" is 1."
            "Set bit 31 of the region's first four bytes with \"VMCS shadowing\", clear it without." [SECONDARY_CONTROLS];
        LinkPointerCurrent "The VMCS link pointer must not be the current VMCS."
            "Use a region of its own for the shadow VMCS, or FFFFFFFFFFFFFFFFH when there is none." [SECONDARY_CONTROLS];
    }
    Guest "27.3.1.6" {
        PdpteReserved "With PAE paging, reserved bits of each present PDPTE must be 0."
            "Clear bits 2:1, 8:5 and those beyond the physical-address width in each entry with P = 1. With EPT the four fields count, not memory." [GUEST_CR3, GUEST_CR4, GUEST_PDPTE0, GUEST_PDPTE1, GUEST_PDPTE2, GUEST_PDPTE3];
    }
    MsrLoading "27.4" {
        MsrLoadFsGsBase "The VM-entry MSR-load area must not name IA32_FS_BASE or IA32_GS_BASE."
            "Use the fields for the bases of FS and GS." [ENTRY_MSR_LOAD_COUNT];
        MsrLoadX2apic "In x2APIC mode, the VM-entry MSR-load area must not name an MSR of 800H to 8FFH."
            "Take the MSR out of the area: the x2APIC is the processor's own." [ENTRY_MSR_LOAD_COUNT];
        MsrLoadSmmOnly "The VM-entry MSR-load area must not name an MSR that only SMM can write."
            "Take the MSR out of the area." [ENTRY_MSR_LOAD_COUNT];
        MsrLoadReserved "Bits 63:32 of an MSR-load entry must be 0."
            "Clear bits 63:32 of the entry: an entry is the MSR's number (32 bits), 32 reserved bits, and the value (64 bits)." [ENTRY_MSR_LOAD_COUNT];
        MsrLoadRefused "The value of an MSR-load entry must be one that WRMSR accepts at CPL 0."
            "Load an MSR that exists, with a value that WRMSR would accept." [ENTRY_MSR_LOAD_COUNT];
        MsrLoadModelSpecific "The MSR of a load entry must be one that the processor can load on VM entry."
            "Take the MSR out of the area, and keep within the number of entries that IA32_VMX_MISC bits 27:25 recommend." [ENTRY_MSR_LOAD_COUNT];
    }
}

impl core::fmt::Display for EntryCheck {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} (SDM Vol. 3C, {}): {}", self.name(), self.section(), self.rule())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_stand_in_the_order_of_sections() {
        let key = |c: &EntryCheck| {
            let mut parts = [0u8; 4];
            for (part, text) in parts.iter_mut().zip(c.section().split('.')) {
                *part = text.parse().expect("a section is numbers with dots");
            }
            parts
        };
        assert!(EntryCheck::ALL.windows(2).all(|w| key(&w[0]) <= key(&w[1])));
    }

    #[test]
    fn a_group_fails_either_by_error_or_by_exit() {
        for check in EntryCheck::ALL {
            let group = check.group();
            assert_ne!(group.instruction_error().is_some(), group.exit_reason().is_some(), "{check:?}");
            assert!(check.rule().ends_with('.'), "{check:?}");
            assert!(check.remedy().len() > 10 && check.remedy().ends_with(['.', ')']), "{check:?}");
        }
    }
}
