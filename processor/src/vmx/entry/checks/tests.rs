//! One broken rule at a time: a valid VMCS with one change fails exactly the check that the change breaks.

use super::*;
use crate::models::Model;
use crate::vmx::vmcs::REVISION;
use spec::vmx::VmcsField as F;
use spec::vmx::{CheckGroup, InterruptionInfo, InterruptionType};

fn capabilities() -> VmxCapabilities {
    let full = Model::named("full").expect("the model exists");
    VmxCapabilities::new(&Model { physical_bits: 46, ..full })
}

fn context() -> EntryContext {
    EntryContext { long_mode: true, link_revision: REVISION, ..EntryContext::default() }
}

/// A VMCS that passes every check: a 64-bit host, a 64-bit guest with EPT.
pub(super) fn valid() -> Vmcs {
    let c = capabilities();
    let mut v = Vmcs::default();
    v.pointer = 0x5000;
    let secondary = SecondaryControls::ENABLE_EPT | SecondaryControls::ENABLE_VPID;
    v.set(F::PIN_BASED_CONTROLS, u64::from(c.pin.required));
    v.set(F::PRIMARY_CONTROLS, u64::from(c.primary.required | PrimaryControls::ACTIVATE_SECONDARY_CONTROLS));
    v.set(F::SECONDARY_CONTROLS, u64::from(secondary));
    v.set(F::EXIT_CONTROLS, u64::from(c.exit.required | ExitControls::HOST_ADDRESS_SPACE_SIZE));
    let entry = EntryControls::IA32E_MODE_GUEST | EntryControls::LOAD_DEBUG_CONTROLS;
    v.set(F::ENTRY_CONTROLS, u64::from(c.entry.required | entry));
    v.set(F::VPID, 1);
    v.set(F::EPT_POINTER, 0x1000 | 6 | 3 << 3);
    for field in [F::HOST_CR0, F::GUEST_CR0] {
        v.set(field, 0x8000_0031);
    }
    for field in [F::HOST_CR4, F::GUEST_CR4] {
        v.set(field, 0x2020);
    }
    v.set(F::HOST_CS_SELECTOR, 8);
    v.set(F::HOST_SS_SELECTOR, 0x10);
    v.set(F::HOST_TR_SELECTOR, 0x20);
    v.set(F::GUEST_CS_ACCESS_RIGHTS, 0xa09b);
    for (limit, rights) in [
        (F::GUEST_SS_LIMIT, F::GUEST_SS_ACCESS_RIGHTS),
        (F::GUEST_DS_LIMIT, F::GUEST_DS_ACCESS_RIGHTS),
        (F::GUEST_ES_LIMIT, F::GUEST_ES_ACCESS_RIGHTS),
        (F::GUEST_FS_LIMIT, F::GUEST_FS_ACCESS_RIGHTS),
        (F::GUEST_GS_LIMIT, F::GUEST_GS_ACCESS_RIGHTS),
    ] {
        v.set(limit, 0xffff_ffff);
        v.set(rights, 0xc093);
    }
    v.set(F::GUEST_CS_LIMIT, 0xffff_ffff);
    v.set(F::GUEST_TR_LIMIT, 0x67);
    v.set(F::GUEST_TR_ACCESS_RIGHTS, 0x8b);
    v.set(F::GUEST_LDTR_ACCESS_RIGHTS, 0x1_0000);
    v.set(F::GUEST_DR7, 0x400);
    v.set(F::GUEST_RFLAGS, 2);
    v.set(F::VMCS_LINK_POINTER, u64::MAX);
    v
}

fn run(v: &Vmcs, context: EntryContext) -> Option<EntryCheck> {
    let c = capabilities();
    controls_and_host(v, &c, context).and_then(|()| guest(v, &c, context)).err().map(|failed| failed.check)
}

fn fails(changes: &[(F, u64)]) -> Option<EntryCheck> {
    let mut v = valid();
    for &(field, value) in changes {
        v.set(field, value);
    }
    run(&v, context())
}

fn with(field: F, bits: u32) -> (F, u64) {
    (field, valid().get(field) | u64::from(bits))
}

fn without(field: F, bits: u32) -> (F, u64) {
    (field, valid().get(field) & !u64::from(bits))
}

fn inject(vector: u8, kind: InterruptionType, error_code: bool) -> (F, u64) {
    (F::ENTRY_INTERRUPTION_INFO, u64::from(InterruptionInfo::new(vector, kind, error_code).0))
}

#[test]
fn the_valid_vmcs_passes() {
    assert_eq!(fails(&[]), None);
}

#[test]
fn each_rule_on_controls() {
    use EntryCheck::*;
    use spec::vmx::{
        ExitControls as X, PinBasedControls as P, PrimaryControls as P1, SecondaryControls as P2,
        TertiaryControls as P3,
    };
    let hw = InterruptionType::HardwareException;
    let page = 0x1001;
    let tertiary = with(F::PRIMARY_CONTROLS, P1::ACTIVATE_TERTIARY_CONTROLS);
    let no_ept = |control: u32| (F::SECONDARY_CONTROLS, u64::from(control));
    let cases: &[(EntryCheck, &[(F, u64)])] = &[
        (PinBasedReserved, &[(F::PIN_BASED_CONTROLS, 0)]),
        (PinBasedReserved, &[with(F::PIN_BASED_CONTROLS, 1 << 8)]),
        (PrimaryReserved, &[with(F::PRIMARY_CONTROLS, 1 << 18)]),
        (SecondaryReserved, &[with(F::SECONDARY_CONTROLS, 1 << 29)]),
        (TertiaryReserved, &[tertiary, (F::TERTIARY_CONTROLS, 1 << 63)]),
        (Cr3TargetCount, &[(F::CR3_TARGET_COUNT, 5)]),
        (IoBitmapAddress, &[with(F::PRIMARY_CONTROLS, P1::USE_IO_BITMAPS), (F::IO_BITMAP_B, page)]),
        (MsrBitmapAddress, &[with(F::PRIMARY_CONTROLS, P1::USE_MSR_BITMAPS), (F::MSR_BITMAPS, 1 << 46)]),
        (VirtualApicAddress, &[with(F::PRIMARY_CONTROLS, P1::USE_TPR_SHADOW), (F::VIRTUAL_APIC_ADDRESS, page)]),
        (TprThresholdReserved, &[with(F::PRIMARY_CONTROLS, P1::USE_TPR_SHADOW), (F::TPR_THRESHOLD, 16)]),
        (TprThresholdAboveVtpr, &[with(F::PRIMARY_CONTROLS, P1::USE_TPR_SHADOW), (F::TPR_THRESHOLD, 1)]),
        (VirtualNmisNeedNmiExiting, &[with(F::PIN_BASED_CONTROLS, P::VIRTUAL_NMIS)]),
        (NmiWindowNeedsVirtualNmis, &[with(F::PRIMARY_CONTROLS, P1::NMI_WINDOW_EXITING)]),
        (
            ApicAccessAddress,
            &[with(F::SECONDARY_CONTROLS, P2::VIRTUALIZE_APIC_ACCESSES), (F::APIC_ACCESS_ADDRESS, page)],
        ),
        (ApicVirtualizationNeedsTprShadow, &[with(F::SECONDARY_CONTROLS, P2::VIRTUALIZE_X2APIC_MODE)]),
        (
            X2apicModeExcludesApicAccesses,
            &[
                with(F::PRIMARY_CONTROLS, P1::USE_TPR_SHADOW),
                with(F::SECONDARY_CONTROLS, P2::VIRTUALIZE_X2APIC_MODE | P2::VIRTUALIZE_APIC_ACCESSES),
            ],
        ),
        (VpidZero, &[(F::VPID, 0)]),
        (EptpMemoryType, &[(F::EPT_POINTER, 0x1000 | 5 | 3 << 3)]),
        (EptpWalkLength, &[(F::EPT_POINTER, 0x1000 | 6 | 5 << 3)]),
        (EptpReserved, &[(F::EPT_POINTER, 0x1000 | 6 | 3 << 3 | 1 << 8)]),
        (EptpReserved, &[(F::EPT_POINTER, 1 << 46 | 6 | 3 << 3)]),
        (PmlNeedsEpt, &[no_ept(P2::ENABLE_PML)]),
        (PmlAddress, &[with(F::SECONDARY_CONTROLS, P2::ENABLE_PML), (F::PML_ADDRESS, page)]),
        (UnrestrictedGuestNeedsEpt, &[no_ept(P2::UNRESTRICTED_GUEST)]),
        (ModeBasedExecuteNeedsEpt, &[no_ept(P2::MODE_BASED_EXECUTE)]),
        (SubPageWriteNeedsEpt, &[no_ept(P2::SUB_PAGE_WRITE)]),
        (SubPageTablePointer, &[with(F::SECONDARY_CONTROLS, P2::SUB_PAGE_WRITE), (F::SPP_TABLE_POINTER, 1 << 46)]),
        (VmFunctionReserved, &[with(F::SECONDARY_CONTROLS, P2::ENABLE_VM_FUNCTIONS), (F::VM_FUNCTION_CONTROLS, 2)]),
        (
            EptpSwitchingNeedsEpt,
            &[(F::SECONDARY_CONTROLS, u64::from(P2::ENABLE_VM_FUNCTIONS)), (F::VM_FUNCTION_CONTROLS, 1)],
        ),
        (
            EptpListAddress,
            &[
                with(F::SECONDARY_CONTROLS, P2::ENABLE_VM_FUNCTIONS),
                (F::VM_FUNCTION_CONTROLS, 1),
                (F::EPTP_LIST_ADDRESS, 8),
            ],
        ),
        (VmreadBitmapAddress, &[with(F::SECONDARY_CONTROLS, P2::VMCS_SHADOWING), (F::VMREAD_BITMAP, page)]),
        (VmwriteBitmapAddress, &[with(F::SECONDARY_CONTROLS, P2::VMCS_SHADOWING), (F::VMWRITE_BITMAP, 1 << 46)]),
        (VeInformationAddress, &[with(F::SECONDARY_CONTROLS, P2::EPT_VIOLATION_VE), (F::VE_INFORMATION_ADDRESS, page)]),
        (TscMultiplierZero, &[with(F::SECONDARY_CONTROLS, P2::USE_TSC_SCALING)]),
        (HlatNeedsEpt, &[tertiary, no_ept(0), (F::TERTIARY_CONTROLS, P3::ENABLE_HLAT)]),
        (HlatNeedsEpt, &[tertiary, no_ept(0), (F::TERTIARY_CONTROLS, P3::EPT_PAGING_WRITE)]),
        (HlatNeedsEpt, &[tertiary, no_ept(0), (F::TERTIARY_CONTROLS, P3::GUEST_PAGING_VERIFICATION)]),
        (HlatPointer, &[tertiary, (F::TERTIARY_CONTROLS, P3::ENABLE_HLAT), (F::HLAT_POINTER, 0x1020)]),
        (HlatPointer, &[tertiary, (F::TERTIARY_CONTROLS, P3::ENABLE_HLAT), (F::HLAT_POINTER, 1 << 46)]),
        (ExitReserved, &[with(F::EXIT_CONTROLS, X::CLEAR_BNDCFGS)]),
        (SaveTimerNeedsTimer, &[with(F::EXIT_CONTROLS, X::SAVE_PREEMPTION_TIMER)]),
        (ExitMsrStoreArea, &[(F::EXIT_MSR_STORE_COUNT, 1), (F::EXIT_MSR_STORE_ADDRESS, 8)]),
        (ExitMsrLoadArea, &[(F::EXIT_MSR_LOAD_COUNT, 2), (F::EXIT_MSR_LOAD_ADDRESS, (1 << 46) - 16)]),
        (EntryReserved, &[(F::ENTRY_CONTROLS, 0)]),
        (EntryReserved, &[with(F::ENTRY_CONTROLS, EntryControls::ENTRY_TO_SMM)]),
        (InjectionType, &[inject(0, InterruptionType::Reserved, false)]),
        (InjectionVector, &[inject(3, InterruptionType::Nmi, false)]),
        (InjectionVector, &[inject(32, hw, false)]),
        (InjectionVector, &[inject(1, InterruptionType::Other, false)]),
        (InjectionErrorCode, &[inject(14, InterruptionType::SoftwareInterrupt, true)]),
        (InjectionReserved, &[(F::ENTRY_INTERRUPTION_INFO, 0x8000_1306)]),
        (InjectionErrorCodeReserved, &[inject(14, hw, true), (F::ENTRY_EXCEPTION_ERROR_CODE, 1 << 16)]),
        (
            InjectionInstructionLength,
            &[inject(3, InterruptionType::SoftwareException, false), (F::ENTRY_INSTRUCTION_LENGTH, 16)],
        ),
        (EntryMsrLoadArea, &[(F::ENTRY_MSR_LOAD_COUNT, 1), (F::ENTRY_MSR_LOAD_ADDRESS, 1 << 46)]),
    ];
    for (check, changes) in cases {
        assert_eq!(fails(changes), Some(*check), "{changes:x?}");
        assert_eq!(check.group(), CheckGroup::Controls);
    }
}

#[test]
fn each_rule_on_the_host() {
    use EntryCheck::*;
    use spec::vmx::ExitControls as X;
    let cases: &[(EntryCheck, &[(F, u64)])] = &[
        (HostCr0Fixed, &[(F::HOST_CR0, 0x8000_0011)]),
        (HostCr0Fixed, &[(F::HOST_CR0, 0x1_8000_0031)]),
        (HostCr4Fixed, &[(F::HOST_CR4, 0x20)]),
        (HostCr4Fixed, &[(F::HOST_CR4, 0x2020 | 1 << 15)]),
        (HostCr3Width, &[(F::HOST_CR3, 1 << 46)]),
        (HostSysenterCanonical, &[(F::HOST_SYSENTER_EIP, 1 << 62)]),
        (HostPat, &[with(F::EXIT_CONTROLS, X::LOAD_PAT), (F::HOST_PAT, 2)]),
        (HostEferReserved, &[with(F::EXIT_CONTROLS, X::LOAD_EFER), (F::HOST_EFER, 0x502)]),
        (HostEferMode, &[with(F::EXIT_CONTROLS, X::LOAD_EFER), (F::HOST_EFER, 0x100)]),
        (HostSelectorRplTi, &[(F::HOST_DS_SELECTOR, 0x1b)]),
        (HostCsZero, &[(F::HOST_CS_SELECTOR, 0)]),
        (HostTrZero, &[(F::HOST_TR_SELECTOR, 0)]),
        (HostBaseCanonical, &[(F::HOST_GS_BASE, 0xaaaa_aaaa_aaaa_aaaa)]),
        (HostAddressSpaceSizeInIa32eMode, &[without(F::EXIT_CONTROLS, X::HOST_ADDRESS_SPACE_SIZE)]),
        (Host64Pae, &[(F::HOST_CR4, 0x2000)]),
        (Host64RipCanonical, &[(F::HOST_RIP, 1 << 57)]),
    ];
    for (check, changes) in cases {
        assert_eq!(fails(changes), Some(*check), "{changes:x?}");
        assert_eq!(check.group(), CheckGroup::Host);
    }
}

#[test]
fn rules_on_a_32_bit_host() {
    let outside = EntryContext { long_mode: false, ..context() };
    let mut v = valid();
    assert_eq!(run(&v, outside), Some(EntryCheck::OutsideIa32eMode));
    let exit = v.get(F::EXIT_CONTROLS) & !u64::from(ExitControls::HOST_ADDRESS_SPACE_SIZE);
    v.set(F::EXIT_CONTROLS, exit);
    v.set(F::HOST_SS_SELECTOR, 0);
    assert_eq!(run(&v, outside), Some(EntryCheck::HostSsZero));
    v.set(F::HOST_SS_SELECTOR, 0x10);
    let entry = v.get(F::ENTRY_CONTROLS) & !u64::from(EntryControls::IA32E_MODE_GUEST);
    v.set(F::ENTRY_CONTROLS, entry);
    v.set(F::HOST_CR4, 0x2020 | 1 << 17);
    assert_eq!(run(&v, outside), Some(EntryCheck::Host32NoPcide));
    v.set(F::HOST_CR4, 0x2020);
    v.set(F::HOST_RIP, 1 << 32);
    assert_eq!(run(&v, outside), Some(EntryCheck::Host32Rip));
}

#[test]
fn each_rule_on_guest_registers() {
    use EntryCheck::*;
    let long_off = without(F::ENTRY_CONTROLS, EntryControls::IA32E_MODE_GUEST);
    let load_efer = with(F::ENTRY_CONTROLS, EntryControls::LOAD_EFER);
    let external = inject(0x40, InterruptionType::External, false);
    let nmi = inject(2, InterruptionType::Nmi, false);
    let virtual_nmis = with(F::PIN_BASED_CONTROLS, PinBasedControls::NMI_EXITING | PinBasedControls::VIRTUAL_NMIS);
    let cases: &[(EntryCheck, &[(F, u64)])] = &[
        (GuestCr0Fixed, &[(F::GUEST_CR0, 0x31)]),
        (
            GuestPagingNeedsProtection,
            &[with(F::SECONDARY_CONTROLS, SecondaryControls::UNRESTRICTED_GUEST), (F::GUEST_CR0, 0x8000_0030)],
        ),
        (GuestCr4Fixed, &[(F::GUEST_CR4, 0x20)]),
        (GuestDebugctl, &[(F::GUEST_DEBUGCTL, 8)]),
        (GuestIa32eNeedsPaging, &[(F::GUEST_CR4, 0x2000)]),
        (GuestPcideNeedsIa32e, &[long_off, (F::GUEST_CR4, 0x2_2020)]),
        (GuestCr3Width, &[(F::GUEST_CR3, 1 << 50)]),
        (GuestDr7High, &[(F::GUEST_DR7, 1 << 32)]),
        (GuestSysenterCanonical, &[(F::GUEST_SYSENTER_ESP, 1 << 60)]),
        (GuestPat, &[with(F::ENTRY_CONTROLS, EntryControls::LOAD_PAT), (F::GUEST_PAT, 3)]),
        (GuestEferReserved, &[load_efer, (F::GUEST_EFER, 1 << 12 | 0x500)]),
        (GuestEferLma, &[load_efer, (F::GUEST_EFER, 0)]),
        (GuestEferLme, &[load_efer, (F::GUEST_EFER, 0x400)]),
        (DescriptorTableBaseCanonical, &[(F::GUEST_IDTR_BASE, 1 << 63)]),
        (DescriptorTableLimit, &[(F::GUEST_GDTR_LIMIT, 0x1_0000)]),
        (GuestRipHigh, &[(F::GUEST_CS_ACCESS_RIGHTS, 0xc09b), (F::GUEST_RIP, 1 << 32)]),
        (GuestRipCanonical, &[(F::GUEST_RIP, 1 << 57)]),
        (RflagsReserved, &[(F::GUEST_RFLAGS, 0)]),
        (RflagsReserved, &[(F::GUEST_RFLAGS, 0xa)]),
        (RflagsIfForInterrupt, &[external]),
        (ActivityStateUnsupported, &[(F::GUEST_ACTIVITY_STATE, 4)]),
        (InactiveWithBlocking, &[(F::GUEST_ACTIVITY_STATE, 1), (F::GUEST_INTERRUPTIBILITY, 2)]),
        (
            ActivityStateForbidsInjection,
            &[(F::GUEST_ACTIVITY_STATE, 1), inject(6, InterruptionType::HardwareException, false)],
        ),
        (ActivityStateForbidsInjection, &[(F::GUEST_ACTIVITY_STATE, 3), nmi]),
        (InterruptibilityReserved, &[(F::GUEST_INTERRUPTIBILITY, 32)]),
        (StiAndMovSs, &[(F::GUEST_INTERRUPTIBILITY, 3)]),
        (StiNeedsIf, &[(F::GUEST_INTERRUPTIBILITY, 1)]),
        (InterruptWithBlocking, &[external, (F::GUEST_RFLAGS, 0x202), (F::GUEST_INTERRUPTIBILITY, 1)]),
        (NmiWithMovSs, &[nmi, (F::GUEST_INTERRUPTIBILITY, 2)]),
        (SmiOutsideSmm, &[(F::GUEST_INTERRUPTIBILITY, 4)]),
        (NmiWithVirtualNmiBlocking, &[nmi, virtual_nmis, (F::GUEST_INTERRUPTIBILITY, 8)]),
        (EnclaveInterruption, &[(F::GUEST_INTERRUPTIBILITY, 16)]),
        (PendingDebugReserved, &[(F::GUEST_PENDING_DEBUG, 1 << 13)]),
        (PendingDebugSingleStepMissing, &[(F::GUEST_RFLAGS, 0x302), (F::GUEST_INTERRUPTIBILITY, 1)]),
        (PendingDebugSingleStepExtra, &[(F::GUEST_ACTIVITY_STATE, 1), (F::GUEST_PENDING_DEBUG, 1 << 14)]),
        (PendingDebugRtm, &[(F::GUEST_PENDING_DEBUG, 1 << 16)]),
        (LinkPointerAlignment, &[(F::VMCS_LINK_POINTER, 0x1008)]),
        (LinkPointerWidth, &[(F::VMCS_LINK_POINTER, 1 << 46)]),
        (LinkPointerCurrent, &[(F::VMCS_LINK_POINTER, 0x5000)]),
    ];
    for (check, changes) in cases {
        assert_eq!(fails(changes), Some(*check), "{changes:x?}");
        assert_eq!(check.group(), CheckGroup::Guest);
    }
}

#[test]
fn each_rule_on_guest_segments() {
    use EntryCheck::*;
    let v86 = [without(F::ENTRY_CONTROLS, EntryControls::IA32E_MODE_GUEST), (F::GUEST_RFLAGS, 1 << 17 | 2)];
    let unrestricted = with(F::SECONDARY_CONTROLS, SecondaryControls::UNRESTRICTED_GUEST);
    let cases: &[(EntryCheck, &[(F, u64)])] = &[
        (TrSelectorLocal, &[(F::GUEST_TR_SELECTOR, 4)]),
        (LdtrSelectorLocal, &[(F::GUEST_LDTR_SELECTOR, 4), (F::GUEST_LDTR_ACCESS_RIGHTS, 0x82)]),
        (SsRplNotCsRpl, &[(F::GUEST_CS_SELECTOR, 3)]),
        (V86Base, &[v86[0], v86[1], (F::GUEST_DS_SELECTOR, 1)]),
        (V86Limit, &[v86[0], v86[1]]),
        (BaseCanonical, &[(F::GUEST_FS_BASE, 1 << 62)]),
        (BaseHigh, &[(F::GUEST_DS_BASE, 1 << 32)]),
        (CsType, &[(F::GUEST_CS_ACCESS_RIGHTS, 0xa09a)]),
        (CsType, &[(F::GUEST_CS_ACCESS_RIGHTS, 0xa093)]),
        (SsType, &[(F::GUEST_SS_ACCESS_RIGHTS, 0xc091)]),
        (DataType, &[(F::GUEST_GS_ACCESS_RIGHTS, 0xc099)]),
        (SegmentSystem, &[(F::GUEST_CS_ACCESS_RIGHTS, 0xa08b)]),
        (CsDplType3, &[unrestricted, (F::GUEST_CS_ACCESS_RIGHTS, 0xc0b3)]),
        (CsDplNonConforming, &[(F::GUEST_CS_ACCESS_RIGHTS, 0xa0fb)]),
        (CsDplConforming, &[(F::GUEST_CS_ACCESS_RIGHTS, 0xa0bf)]),
        (SsDplNotRpl, &[(F::GUEST_CS_ACCESS_RIGHTS, 0xa0fb), (F::GUEST_SS_ACCESS_RIGHTS, 0xc0f3)]),
        (DataDplBelowRpl, &[(F::GUEST_ES_SELECTOR, 3)]),
        (SegmentNotPresent, &[(F::GUEST_DS_ACCESS_RIGHTS, 0xc013)]),
        (SegmentReserved, &[(F::GUEST_ES_ACCESS_RIGHTS, 0xc193)]),
        (CsLongAndDefault, &[(F::GUEST_CS_ACCESS_RIGHTS, 0xe09b)]),
        (SegmentGranularity, &[(F::GUEST_FS_LIMIT, 0x1_fffe)]),
        (TrType, &[(F::GUEST_TR_ACCESS_RIGHTS, 0x83)]),
        (TrSystem, &[(F::GUEST_TR_ACCESS_RIGHTS, 0x9b)]),
        (TrNotPresent, &[(F::GUEST_TR_ACCESS_RIGHTS, 0x0b)]),
        (TrReserved, &[(F::GUEST_TR_ACCESS_RIGHTS, 0x2_008b)]),
        (TrGranularity, &[(F::GUEST_TR_LIMIT, 0x10_0000)]),
        (TrUnusable, &[(F::GUEST_TR_ACCESS_RIGHTS, 0x1_008b)]),
        (LdtrType, &[(F::GUEST_LDTR_ACCESS_RIGHTS, 0x83)]),
        (LdtrSystem, &[(F::GUEST_LDTR_ACCESS_RIGHTS, 0x92)]),
        (LdtrNotPresent, &[(F::GUEST_LDTR_ACCESS_RIGHTS, 0x02)]),
        (LdtrReserved, &[(F::GUEST_LDTR_ACCESS_RIGHTS, 0x182)]),
        (LdtrGranularity, &[(F::GUEST_LDTR_ACCESS_RIGHTS, 0x82), (F::GUEST_LDTR_LIMIT, 0x10_0000)]),
        (
            HltNeedsCpl0,
            &[
                (F::GUEST_ACTIVITY_STATE, 1),
                (F::GUEST_CS_SELECTOR, 3),
                (F::GUEST_SS_SELECTOR, 3),
                (F::GUEST_CS_ACCESS_RIGHTS, 0xa0fb),
                (F::GUEST_SS_ACCESS_RIGHTS, 0xc0f3),
            ],
        ),
    ];
    for (check, changes) in cases {
        assert_eq!(fails(changes), Some(*check), "{changes:x?}");
        assert_eq!(check.group(), CheckGroup::Guest);
    }
}

#[test]
fn v86_access_rights_are_f3() {
    let mut v = valid();
    for (field, value) in [without(F::ENTRY_CONTROLS, EntryControls::IA32E_MODE_GUEST), (F::GUEST_RFLAGS, 0x2_0002)] {
        v.set(field, value);
    }
    for n in 0..6 {
        v.set(F(F::GUEST_ES_LIMIT.0 + 2 * n), 0xffff);
        v.set(F(F::GUEST_ES_ACCESS_RIGHTS.0 + 2 * n), 0xf3);
    }
    assert_eq!(run(&v, context()), None);
    v.set(F::GUEST_GS_ACCESS_RIGHTS, 0x93);
    assert_eq!(run(&v, context()), Some(EntryCheck::V86AccessRights));
}

#[test]
fn virtual_8086_needs_protected_mode_outside_ia32e() {
    let mut v = valid();
    v.set(F::GUEST_RFLAGS, 0x2_0002);
    for n in 0..6 {
        v.set(F(F::GUEST_ES_LIMIT.0 + 2 * n), 0xffff);
        v.set(F(F::GUEST_ES_ACCESS_RIGHTS.0 + 2 * n), 0xf3);
    }
    assert_eq!(run(&v, context()), Some(EntryCheck::RflagsVm));
}

#[test]
fn a_linked_vmcs_needs_our_revision_and_no_shadow_bit() {
    let mut v = valid();
    v.set(F::VMCS_LINK_POINTER, 0x9000);
    assert_eq!(run(&v, context()), None);
    let with_revision = |link_revision| run(&v, EntryContext { link_revision, ..context() });
    assert_eq!(with_revision(REVISION ^ 1), Some(EntryCheck::LinkPointerRevision));
    assert_eq!(with_revision(REVISION | 1 << 31), Some(EntryCheck::LinkPointerShadow));
    let (field, shadowing) = with(F::SECONDARY_CONTROLS, SecondaryControls::VMCS_SHADOWING);
    v.set(field, shadowing);
    let with_revision = |link_revision| run(&v, EntryContext { link_revision, ..context() });
    assert_eq!(with_revision(REVISION), Some(EntryCheck::LinkPointerShadow));
    assert_eq!(with_revision(REVISION | 1 << 31), None);
}

#[test]
fn pdptes_come_from_the_vmcs_with_ept_and_from_memory_without() {
    let mut v = valid();
    for (field, value) in [without(F::ENTRY_CONTROLS, EntryControls::IA32E_MODE_GUEST), (F::GUEST_PDPTE2, 3)] {
        v.set(field, value);
    }
    v.set(F::GUEST_CS_ACCESS_RIGHTS, 0xc09b);
    assert_eq!(run(&v, context()), Some(EntryCheck::PdpteReserved));
    v.set(F::SECONDARY_CONTROLS, 0);
    assert_eq!(run(&v, context()), None);
    let bad = EntryContext { pdptes: [0, 0x1001, 1 << 46 | 1, 0], ..context() };
    assert_eq!(run(&v, bad), Some(EntryCheck::PdpteReserved));
}

#[test]
fn events_that_a_halted_guest_admits() {
    let halted = (F::GUEST_ACTIVITY_STATE, 1);
    let interrupts = (F::GUEST_RFLAGS, 0x202);
    assert_eq!(fails(&[halted, interrupts, inject(0x30, InterruptionType::External, false)]), None);
    assert_eq!(fails(&[halted, inject(2, InterruptionType::Nmi, false)]), None);
    assert_eq!(fails(&[halted, inject(18, InterruptionType::HardwareException, false)]), None);
    assert_eq!(fails(&[halted, inject(0, InterruptionType::Other, false)]), None);
}

#[test]
fn rules_on_cet_state_and_protection_keys() {
    use EntryCheck::*;
    use spec::vmx::{EntryControls as E, ExitControls as X};
    let capabilities = VmxCapabilities::new(&Model::named("full").unwrap());
    let fails = |changes: &[(F, u64)]| {
        let mut v = valid();
        for &(field, value) in changes {
            v.set(field, value);
        }
        let checked = controls_and_host(&v, &capabilities, context());
        checked.and_then(|()| guest(&v, &capabilities, context())).err().map(|failed| failed.check)
    };
    let (exit, entry) = (with(F::EXIT_CONTROLS, X::LOAD_CET_STATE), with(F::ENTRY_CONTROLS, E::LOAD_CET_STATE));
    let (exit_keys, entry_keys) = (with(F::EXIT_CONTROLS, X::LOAD_PKRS), with(F::ENTRY_CONTROLS, E::LOAD_PKRS));
    let secondary = with(F::EXIT_CONTROLS, X::ACTIVATE_SECONDARY_CONTROLS);
    let exit_speculation = (F::SECONDARY_EXIT_CONTROLS, 4);
    let entry_speculation = with(F::ENTRY_CONTROLS, E::LOAD_SPEC_CTRL);
    let both = 1 << 10 | 1 << 11;
    let cases: &[(EntryCheck, &[(F, u64)])] = &[
        (HostCetNeedsWp, &[(F::HOST_CR4, 0x2020 | 1 << 23)]),
        (HostCet, &[exit, (F::HOST_S_CET, 1 << 6)]),
        (HostCet, &[exit, (F::HOST_S_CET, both)]),
        (HostCet, &[exit, (F::HOST_S_CET, 1 << 60)]),
        (HostCet, &[exit, (F::HOST_SSP, 2)]),
        (HostCet, &[exit, (F::HOST_INTERRUPT_SSP_TABLE, 1 << 60)]),
        (HostPkrs, &[exit_keys, (F::HOST_PKRS, 1 << 32)]),
        (GuestCetNeedsWp, &[(F::GUEST_CR4, 0x2020 | 1 << 23)]),
        (GuestCet, &[entry, (F::GUEST_S_CET, 1 << 9)]),
        (GuestCet, &[entry, (F::GUEST_S_CET, both)]),
        (GuestCet, &[entry, (F::GUEST_INTERRUPT_SSP_TABLE, 1 << 60)]),
        (GuestPkrs, &[entry_keys, (F::GUEST_PKRS, 1 << 32)]),
        (HostSpecCtrl, &[secondary, exit_speculation, (F::HOST_SPEC_CTRL, 8)]),
        (GuestSpecCtrl, &[entry_speculation, (F::GUEST_SPEC_CTRL, 8)]),
        (SecondaryExitReserved, &[secondary, (F::SECONDARY_EXIT_CONTROLS, 1)]),
        (GuestSsp, &[entry, (F::GUEST_SSP, 2)]),
        (GuestSsp, &[entry, (F::GUEST_SSP, 1 << 60)]),
        (InjectionErrorCode, &[inject(2, InterruptionType::Nmi, true)]),
    ];
    for (check, changes) in cases {
        assert_eq!(fails(changes), Some(*check), "{changes:x?}");
    }
    let values = [(F::HOST_S_CET, 3), (F::HOST_SSP, 4), (F::GUEST_S_CET, 0x405), (F::GUEST_SSP, 8), (F::GUEST_PKRS, 5)];
    assert_eq!(fails(&[&[exit, entry][..], &values[..]].concat()), None);
    assert_eq!(fails(&values), None, "nothing is checked that is not loaded");
    let hw = InterruptionType::HardwareException;
    assert_eq!((fails(&[inject(21, hw, true)]), fails(&[inject(6, hw, true)])), (None, None), "any error code");
    let capabilities = VmxCapabilities::new(&Model::named("icelake-server").unwrap());
    for change in [inject(13, hw, false), inject(6, hw, true)] {
        let mut v = valid();
        v.set(change.0, change.1);
        let checked = controls_and_host(&v, &capabilities, context());
        assert_eq!(checked.err().map(|failed| failed.check), Some(InjectionErrorCode), "{change:x?}");
    }
}
