//! Every check that VM entry makes, by name (SDM Vol. 3C, 27.2 to 27.4).
//!
//! The order is the manual's. A check that concerns several fields of one kind ("each of ES, CS, ...") is one variant:
//! the processor reports the field and its value beside it.

use super::VmInstructionError;
use super::exit_reason::ExitReason;

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
    ($($group:ident $section:literal { $($name:ident $rule:literal;)* })*) => {
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
        PinBasedReserved "Reserved bits of the pin-based VM-execution controls must be as IA32_VMX_(TRUE_)PINBASED_CTLS says.";
        PrimaryReserved "Reserved bits of the primary processor-based VM-execution controls must be as IA32_VMX_(TRUE_)PROCBASED_CTLS says.";
        SecondaryReserved "Reserved bits of the secondary processor-based VM-execution controls must be as IA32_VMX_PROCBASED_CTLS2 says.";
        TertiaryReserved "Reserved bits of the tertiary processor-based VM-execution controls must be 0, as IA32_VMX_PROCBASED_CTLS3 says.";
        Cr3TargetCount "The CR3-target count must not exceed the number in IA32_VMX_MISC.";
        IoBitmapAddress "With I/O bitmaps in use, the address of each must be 4-KiB aligned and within the physical-address width.";
        MsrBitmapAddress "With MSR bitmaps in use, their address must be 4-KiB aligned and within the physical-address width.";
        VirtualApicAddress "With a TPR shadow, the virtual-APIC address must be 4-KiB aligned and within the physical-address width.";
        TprThresholdReserved "With a TPR shadow and no virtual-interrupt delivery, bits 31:4 of the TPR threshold must be 0.";
        TprThresholdAboveVtpr "With a TPR shadow and neither APIC-access virtualization nor virtual-interrupt delivery, the TPR threshold must not exceed bits 7:4 of VTPR.";
        VirtualNmisNeedNmiExiting "\"Virtual NMIs\" needs \"NMI exiting\".";
        NmiWindowNeedsVirtualNmis "\"NMI-window exiting\" needs \"virtual NMIs\".";
        ApicAccessAddress "With APIC accesses virtualized, the APIC-access address must be 4-KiB aligned and within the physical-address width.";
        ApicVirtualizationNeedsTprShadow "\"Virtualize x2APIC mode\", \"APIC-register virtualization\", \"virtual-interrupt delivery\" and \"IPI virtualization\" need \"use TPR shadow\".";
        X2apicModeExcludesApicAccesses "\"Virtualize x2APIC mode\" and \"virtualize APIC accesses\" must not both be 1.";
        VirtualInterruptDeliveryNeedsInterruptExiting "\"Virtual-interrupt delivery\" needs \"external-interrupt exiting\".";
        PostedInterruptsNeedVirtualInterruptDelivery "\"Process posted interrupts\" needs \"virtual-interrupt delivery\".";
        PostedInterruptsNeedAcknowledge "\"Process posted interrupts\" needs \"acknowledge interrupt on exit\".";
        PostedInterruptVector "The posted-interrupt notification vector must be at most 255.";
        PostedInterruptDescriptor "The posted-interrupt descriptor address must be 64-byte aligned and within the physical-address width.";
        PidPointerTable "With IPI virtualization, the PID-pointer table must be 8-byte aligned and lie within the physical-address width.";
        VpidZero "With VPIDs enabled, the VPID must not be 0.";
        EptpMemoryType "The EPT pointer's memory type must be one that IA32_VMX_EPT_VPID_CAP reports.";
        EptpWalkLength "The EPT pointer's page-walk length must be one that IA32_VMX_EPT_VPID_CAP reports.";
        EptpAccessedDirty "Bit 6 of the EPT pointer must be 0 when accessed and dirty flags are not supported.";
        EptpSupervisorShadowStack "Bit 7 of the EPT pointer must be 0 when supervisor shadow-stack control is not supported.";
        EptpReserved "Bits 11:8 and those beyond the physical-address width must be 0 in the EPT pointer.";
        PmlNeedsEpt "\"Enable PML\" needs \"enable EPT\".";
        PmlAddress "The PML address must be 4-KiB aligned and within the physical-address width.";
        UnrestrictedGuestNeedsEpt "\"Unrestricted guest\" needs \"enable EPT\".";
        ModeBasedExecuteNeedsEpt "\"Mode-based execute control for EPT\" needs \"enable EPT\".";
        SubPageWriteNeedsEpt "\"Sub-page write permissions for EPT\" needs \"enable EPT\".";
        SubPageTablePointer "The sub-page-permission-table pointer must be 4-KiB aligned and within the physical-address width.";
        VmFunctionReserved "Reserved bits of the VM-function controls must be 0, as IA32_VMX_VMFUNC says.";
        EptpSwitchingNeedsEpt "\"EPTP switching\" needs \"enable EPT\".";
        EptpListAddress "The EPTP-list address must be 4-KiB aligned and within the physical-address width.";
        VmreadBitmapAddress "With VMCS shadowing, the VMREAD-bitmap address must be 4-KiB aligned and within the physical-address width.";
        VmwriteBitmapAddress "With VMCS shadowing, the VMWRITE-bitmap address must be 4-KiB aligned and within the physical-address width.";
        VeInformationAddress "With EPT-violation #VE, the information address must be 4-KiB aligned and within the physical-address width.";
        PtGuestPhysicalNeedsEpt "\"Intel PT uses guest physical addresses\" needs \"enable EPT\".";
        PtGuestPhysicalNeedsRtitControls "\"Intel PT uses guest physical addresses\" needs \"load IA32_RTIT_CTL\" and \"clear IA32_RTIT_CTL\".";
        TscMultiplierZero "With TSC scaling, the TSC multiplier must not be 0.";
        HlatNeedsEpt "\"Enable HLAT\", \"EPT paging-write control\" and \"guest-paging verification\" need \"enable EPT\".";
        HlatPointer "Reserved bits of the HLAT pointer, those beyond the physical-address width among them, must be 0.";
        PasidDirectory "With PASID translation, each PASID directory must be 4-KiB aligned and within the physical-address width.";
    }
    Controls "27.2.1.2" {
        ExitReserved "Reserved bits of the primary VM-exit controls must be as IA32_VMX_(TRUE_)EXIT_CTLS says.";
        SecondaryExitReserved "Reserved bits of the secondary VM-exit controls must be 0, as IA32_VMX_EXIT_CTLS2 says.";
        SaveTimerNeedsTimer "\"Save VMX-preemption timer value\" needs \"activate VMX-preemption timer\".";
        ExitMsrStoreArea "The VM-exit MSR-store area must be 16-byte aligned and end within the physical-address width.";
        ExitMsrLoadArea "The VM-exit MSR-load area must be 16-byte aligned and end within the physical-address width.";
    }
    Controls "27.2.1.3" {
        EntryReserved "Reserved bits of the VM-entry controls must be as IA32_VMX_(TRUE_)ENTRY_CTLS says.";
        InjectionType "The interruption type to inject must not be reserved (1, or 7 where MTF is not supported).";
        InjectionVector "The vector to inject must suit the type: 2 for an NMI, at most 31 for a hardware exception, 0 for an other event.";
        InjectionErrorCode "An error code must be delivered only, and with fixed error codes always, for hardware exceptions that have one and when the guest is in protected mode.";
        InjectionReserved "Bits 30:12 of the VM-entry interruption information must be 0.";
        InjectionErrorCodeReserved "Bits 31:16 of the VM-entry exception error code must be 0.";
        InjectionInstructionLength "The VM-entry instruction length of a software event must be 1 to 15 (or 0 where IA32_VMX_MISC allows it).";
        EntryMsrLoadArea "The VM-entry MSR-load area must be 16-byte aligned and end within the physical-address width.";
        SmmControlsOutsideSmm "Outside SMM, \"entry to SMM\" and \"deactivate dual-monitor treatment\" must be 0.";
        SmmControlsExclude "\"Entry to SMM\" and \"deactivate dual-monitor treatment\" must not both be 1.";
    }
    Host "27.2.2" {
        HostCr0Fixed "The host CR0 must have the bits that VMX operation fixes.";
        HostCr4Fixed "The host CR4 must have the bits that VMX operation fixes.";
        HostCetNeedsWp "The host CR4.CET needs CR0.WP.";
        HostCr3Width "The host CR3 must have no bit beyond the physical-address width.";
        HostSysenterCanonical "The host IA32_SYSENTER_ESP and IA32_SYSENTER_EIP must be canonical.";
        HostPerfGlobalCtrl "Reserved bits of the host IA32_PERF_GLOBAL_CTRL must be 0.";
        HostPat "Each byte of the host IA32_PAT must be a memory type.";
        HostEferReserved "Reserved bits of the host IA32_EFER must be 0.";
        HostEferMode "LMA and LME of the host IA32_EFER must each equal \"host address-space size\".";
        HostCet "The host IA32_S_CET must have no reserved bit, and it, SSP and the interrupt SSP table address must be canonical; SSP must be 4-byte aligned.";
        HostPkrs "Bits 63:32 of the host IA32_PKRS must be 0.";
    }
    Host "27.2.3" {
        HostSelectorRplTi "RPL and TI of every host selector must be 0.";
        HostCsZero "The host CS selector must not be 0.";
        HostTrZero "The host TR selector must not be 0.";
        HostSsZero "The host SS selector must not be 0 when \"host address-space size\" is 0.";
        HostBaseCanonical "The host bases of FS, GS, GDTR, IDTR and TR must be canonical.";
    }
    Host "27.2.4" {
        OutsideIa32eMode "Outside IA-32e mode, \"IA-32e mode guest\" and \"host address-space size\" must be 0.";
        HostAddressSpaceSizeInIa32eMode "In IA-32e mode, \"host address-space size\" must be 1.";
        Host32NoIa32eGuest "With \"host address-space size\" 0, \"IA-32e mode guest\" must be 0.";
        Host32NoPcide "With \"host address-space size\" 0, the host CR4.PCIDE must be 0.";
        Host32Rip "With \"host address-space size\" 0, bits 63:32 of the host RIP must be 0.";
        Host64Pae "With \"host address-space size\" 1, the host CR4.PAE must be 1.";
        Host64RipCanonical "With \"host address-space size\" 1, the host RIP must be canonical.";
    }
    Guest "27.3.1.1" {
        GuestCr0Fixed "The guest CR0 must have the bits that VMX operation fixes (PE and PG are free for an unrestricted guest).";
        GuestPagingNeedsProtection "The guest CR0.PG needs CR0.PE.";
        GuestCr4Fixed "The guest CR4 must have the bits that VMX operation fixes.";
        GuestCetNeedsWp "The guest CR4.CET needs CR0.WP.";
        GuestDebugctl "Reserved bits of the guest IA32_DEBUGCTL must be 0.";
        GuestIa32eNeedsPaging "An IA-32e mode guest needs CR0.PG and CR4.PAE.";
        GuestPcideNeedsIa32e "The guest CR4.PCIDE needs \"IA-32e mode guest\".";
        GuestCr3Width "The guest CR3 must have no bit beyond the physical-address width.";
        GuestDr7High "Bits 63:32 of the guest DR7 must be 0.";
        GuestSysenterCanonical "The guest IA32_SYSENTER_ESP and IA32_SYSENTER_EIP must be canonical.";
        GuestPerfGlobalCtrl "Reserved bits of the guest IA32_PERF_GLOBAL_CTRL must be 0.";
        GuestPat "Each byte of the guest IA32_PAT must be a memory type.";
        GuestEferReserved "Reserved bits of the guest IA32_EFER must be 0.";
        GuestEferLma "LMA of the guest IA32_EFER must equal \"IA-32e mode guest\".";
        GuestEferLme "With CR0.PG, LME of the guest IA32_EFER must equal LMA.";
        GuestBndcfgs "Reserved bits of the guest IA32_BNDCFGS must be 0 and its address canonical.";
        GuestRtitCtl "Reserved bits of the guest IA32_RTIT_CTL must be 0.";
        GuestCet "The guest IA32_S_CET must have no reserved bit, and it and the interrupt SSP table address must be canonical.";
        GuestLbrCtl "Reserved bits of the guest IA32_LBR_CTL must be 0.";
        GuestPkrs "Bits 63:32 of the guest IA32_PKRS must be 0.";
        GuestUinv "Bits 15:8 of the guest UINV must be 0.";
    }
    Guest "27.3.1.2" {
        TrSelectorLocal "TI of the TR selector must be 0.";
        LdtrSelectorLocal "TI of a usable LDTR's selector must be 0.";
        SsRplNotCsRpl "Outside virtual-8086 mode and without an unrestricted guest, the RPL of SS must equal the RPL of CS.";
        V86Base "In virtual-8086 mode, the base of CS, SS, DS, ES, FS and GS must be the selector times 16.";
        BaseCanonical "The bases of TR, FS and GS, and of a usable LDTR, must be canonical.";
        BaseHigh "Bits 63:32 of the base of CS, and of usable SS, DS and ES, must be 0.";
        V86Limit "In virtual-8086 mode, the limit of CS, SS, DS, ES, FS and GS must be FFFFH.";
        V86AccessRights "In virtual-8086 mode, the access rights of CS, SS, DS, ES, FS and GS must be F3H.";
        CsType "CS must be an accessed code segment (type 9, 11, 13 or 15; also 3 for an unrestricted guest).";
        SsType "A usable SS must be an accessed, writable data segment (type 3 or 7).";
        DataType "A usable DS, ES, FS or GS must be accessed, and readable if it is a code segment.";
        SegmentSystem "S must be 1 in CS and in usable SS, DS, ES, FS and GS.";
        CsDplType3 "The DPL of CS must be 0 when its type is 3.";
        CsDplNonConforming "The DPL of a non-conforming CS must equal the DPL of SS.";
        CsDplConforming "The DPL of a conforming CS must not exceed the DPL of SS.";
        SsDplNotRpl "Without an unrestricted guest, the DPL of SS must equal its RPL.";
        SsDplNotZero "The DPL of SS must be 0 when the type of CS is 3 or CR0.PE is 0.";
        DataDplBelowRpl "Without an unrestricted guest, the DPL of a usable DS, ES, FS or GS that is data or non-conforming code must not be below its RPL.";
        SegmentNotPresent "P must be 1 in CS and in usable SS, DS, ES, FS and GS.";
        SegmentReserved "Bits 11:8 and 31:17 of the access rights of CS and of usable SS, DS, ES, FS and GS must be 0.";
        CsLongAndDefault "D/B must be 0 in a 64-bit CS of an IA-32e mode guest.";
        SegmentGranularity "G must be 0 if any of bits 11:0 of the limit is 0, and 1 if any of bits 31:20 is 1 (CS and usable SS, DS, ES, FS and GS).";
        TrType "TR must be a busy TSS: type 11, or 3 outside IA-32e mode.";
        TrSystem "S must be 0 in TR.";
        TrNotPresent "P must be 1 in TR.";
        TrReserved "Bits 11:8 and 31:17 of the access rights of TR must be 0.";
        TrGranularity "G must suit the limit of TR.";
        TrUnusable "TR must be usable.";
        LdtrType "A usable LDTR must be of type 2.";
        LdtrSystem "S must be 0 in a usable LDTR.";
        LdtrNotPresent "P must be 1 in a usable LDTR.";
        LdtrReserved "Bits 11:8 and 31:17 of the access rights of a usable LDTR must be 0.";
        LdtrGranularity "G must suit the limit of a usable LDTR.";
    }
    Guest "27.3.1.3" {
        DescriptorTableBaseCanonical "The bases of GDTR and IDTR must be canonical.";
        DescriptorTableLimit "Bits 31:16 of the limits of GDTR and IDTR must be 0.";
    }
    Guest "27.3.1.4" {
        GuestRipHigh "Outside 64-bit mode, bits 63:32 of RIP must be 0.";
        GuestRipCanonical "In 64-bit mode, RIP must be canonical.";
        RflagsReserved "Reserved bits of RFLAGS must be 0, and bit 1 must be 1.";
        RflagsVm "RFLAGS.VM must be 0 in an IA-32e mode guest and with CR0.PE = 0.";
        RflagsIfForInterrupt "RFLAGS.IF must be 1 when an external interrupt is injected.";
        GuestSsp "SSP must be 4-byte aligned and canonical (below 4 GiB outside 64-bit mode).";
    }
    Guest "27.3.1.5" {
        ActivityStateUnsupported "The activity state must be one that IA32_VMX_MISC reports.";
        HltNeedsCpl0 "The activity state must not be HLT when the DPL of SS is not 0.";
        InactiveWithBlocking "The activity state must be active with blocking by STI or by MOV SS.";
        ActivityStateForbidsInjection "The event to inject must be one that the activity state admits.";
        WaitForSipiEntryToSmm "The activity state must not be wait-for-SIPI on entry to SMM.";
        InterruptibilityReserved "Reserved bits of the interruptibility state must be 0.";
        StiAndMovSs "Blocking by STI and by MOV SS must not both be 1.";
        StiNeedsIf "Blocking by STI needs RFLAGS.IF.";
        InterruptWithBlocking "Blocking by STI and by MOV SS must be 0 when an external interrupt is injected.";
        NmiWithMovSs "Blocking by MOV SS must be 0 when an NMI is injected.";
        SmiOutsideSmm "Blocking by SMI must be 0 outside SMM.";
        SmiEntryToSmm "Blocking by SMI must be 1 on entry to SMM.";
        NmiWithVirtualNmiBlocking "Blocking by NMI must be 0 when an NMI is injected with virtual NMIs.";
        EnclaveInterruption "Enclave interruption needs a processor with SGX and no blocking by MOV SS.";
        PendingDebugReserved "Reserved bits of the pending debug exceptions must be 0.";
        PendingDebugSingleStepMissing "With blocking by STI or MOV SS or in HLT, pending BS must be 1 when RFLAGS.TF is 1 and IA32_DEBUGCTL.BTF is 0.";
        PendingDebugSingleStepExtra "With blocking by STI or MOV SS or in HLT, pending BS must be 0 when RFLAGS.TF is 0 or IA32_DEBUGCTL.BTF is 1.";
        PendingDebugRtm "Pending RTM needs a processor with RTM, no MOV SS blocking, and only the enabled-breakpoint bit beside it.";
        LinkPointerAlignment "The VMCS link pointer must be 4-KiB aligned.";
        LinkPointerWidth "The VMCS link pointer must be within the physical-address width.";
        LinkPointerRevision "The VMCS at the link pointer must have the processor's revision identifier.";
        LinkPointerShadow "The VMCS at the link pointer must be a shadow VMCS exactly when \"VMCS shadowing\" is 1.";
        LinkPointerCurrent "The VMCS link pointer must not be the current VMCS.";
    }
    Guest "27.3.1.6" {
        PdpteReserved "With PAE paging, reserved bits of each present PDPTE must be 0.";
    }
    MsrLoading "27.4" {
        MsrLoadFsGsBase "The VM-entry MSR-load area must not name IA32_FS_BASE or IA32_GS_BASE.";
        MsrLoadX2apic "In x2APIC mode, the VM-entry MSR-load area must not name an MSR of 800H to 8FFH.";
        MsrLoadSmmOnly "The VM-entry MSR-load area must not name an MSR that only SMM can write.";
        MsrLoadReserved "Bits 63:32 of an MSR-load entry must be 0.";
        MsrLoadRefused "The value of an MSR-load entry must be one that WRMSR accepts at CPL 0.";
        MsrLoadModelSpecific "The MSR of a load entry must be one that the processor can load on VM entry.";
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
        }
    }
}
