//! Checks on the VMX controls (SDM Vol. 3C, 27.2.1).

use super::{CheckCase, When, case};
use crate::change::Change::{BeyondWidth, Clear, Cr3Targets, Memory, Msr, Or, Page, Required, Set, Unsupported};
use crate::trial::Base;
use spec::vmx::EntryCheck as C;
use spec::vmx::capability::{EptVpidCap, basic, misc};
use spec::vmx::ept::Eptp;
use spec::vmx::{
    EntryControls as N, ExitControls as X, PinBasedControls as P, PrimaryControls as P1, SecondaryControls as P2,
    TertiaryControls as P3, VmcsField as F,
};
use spec::x86::msr;

const PIN: F = F::PIN_BASED_CONTROLS;
const PRIMARY: F = F::PRIMARY_CONTROLS;
const SECONDARY: F = F::SECONDARY_CONTROLS;
const TERTIARY: F = F::TERTIARY_CONTROLS;
const EXIT: F = F::EXIT_CONTROLS;
const ENTRY: F = F::ENTRY_CONTROLS;
const INFO: F = F::ENTRY_INTERRUPTION_INFO;

const TPR_SHADOW: crate::change::Change = Or(PRIMARY, P1::USE_TPR_SHADOW as u64);
const EPT: crate::change::Change = Or(SECONDARY, P2::ENABLE_EPT as u64);
const DELIVERY: crate::change::Change = Or(SECONDARY, P2::VIRTUAL_INTERRUPT_DELIVERY as u64);
const POSTED: crate::change::Change = Or(PIN, (P::POSTED_INTERRUPTS | P::EXTERNAL_INTERRUPT_EXITING) as u64);
const ACKNOWLEDGE: crate::change::Change = Or(EXIT, X::ACKNOWLEDGE_INTERRUPT_ON_EXIT as u64);
/// A PAT is an MSR that both lists can have.
const ONE_MSR: crate::change::Change = Msr(0, 0, msr::KERNEL_GS_BASE as u64, 0);

pub(super) const CASES: &[CheckCase] = &[
    case(C::PinBasedReserved, &[], &[], &[Required(PIN)]),
    case(C::PinBasedReserved, &[], &[], &[Unsupported(PIN)]),
    case(C::PrimaryReserved, &[], &[], &[Required(PRIMARY)]),
    case(C::PrimaryReserved, &[], &[], &[Unsupported(PRIMARY)]),
    case(C::SecondaryReserved, &[Or(SECONDARY, 0)], &[], &[Unsupported(SECONDARY)]),
    case(C::TertiaryReserved, &[Or(TERTIARY, 0)], &[], &[Unsupported(TERTIARY)]),
    case(C::Cr3TargetCount, &[], &[Cr3Targets(0)], &[Cr3Targets(1)]),
    case(C::IoBitmapAddress, &[Or(PRIMARY, P1::USE_IO_BITMAPS as u64)], &[], &[Or(F::IO_BITMAP_A, 0x800)]),
    case(C::IoBitmapAddress, &[Or(PRIMARY, P1::USE_IO_BITMAPS as u64)], &[], &[BeyondWidth(F::IO_BITMAP_B)]),
    case(C::MsrBitmapAddress, &[Or(PRIMARY, P1::USE_MSR_BITMAPS as u64)], &[], &[Or(F::MSR_BITMAPS, 1)]),
    case(C::MsrBitmapAddress, &[Or(PRIMARY, P1::USE_MSR_BITMAPS as u64)], &[], &[BeyondWidth(F::MSR_BITMAPS)]),
    case(C::VirtualApicAddress, &[TPR_SHADOW], &[], &[Or(F::VIRTUAL_APIC_ADDRESS, 0x10)]),
    case(C::VirtualApicAddress, &[TPR_SHADOW], &[], &[BeyondWidth(F::VIRTUAL_APIC_ADDRESS)]),
    case(
        C::TprThresholdReserved,
        &[TPR_SHADOW, Page(F::VIRTUAL_APIC_ADDRESS, 0, 0), Memory(0, 0x80, 0xf0)],
        &[Set(F::TPR_THRESHOLD, 15)],
        &[Set(F::TPR_THRESHOLD, 16)],
    ),
    case(
        C::TprThresholdAboveVtpr,
        &[TPR_SHADOW, Page(F::VIRTUAL_APIC_ADDRESS, 0, 0), Memory(0, 0x80, 0x30)],
        &[Set(F::TPR_THRESHOLD, 3)],
        &[Set(F::TPR_THRESHOLD, 4)],
    ),
    case(C::VirtualNmisNeedNmiExiting, &[Or(PIN, P::VIRTUAL_NMIS as u64)], &[Or(PIN, P::NMI_EXITING as u64)], &[]),
    case(
        C::NmiWindowNeedsVirtualNmis,
        &[Or(PIN, P::NMI_EXITING as u64), Or(PRIMARY, P1::NMI_WINDOW_EXITING as u64)],
        &[Or(PIN, P::VIRTUAL_NMIS as u64)],
        &[],
    ),
    case(
        C::ApicAccessAddress,
        &[Or(SECONDARY, P2::VIRTUALIZE_APIC_ACCESSES as u64)],
        &[],
        &[Or(F::APIC_ACCESS_ADDRESS, 0x10)],
    ),
    case(
        C::ApicAccessAddress,
        &[Or(SECONDARY, P2::VIRTUALIZE_APIC_ACCESSES as u64)],
        &[],
        &[BeyondWidth(F::APIC_ACCESS_ADDRESS)],
    ),
    case(C::ApicVirtualizationNeedsTprShadow, &[Or(SECONDARY, P2::VIRTUALIZE_X2APIC_MODE as u64)], &[TPR_SHADOW], &[]),
    case(
        C::ApicVirtualizationNeedsTprShadow,
        &[Or(SECONDARY, P2::APIC_REGISTER_VIRTUALIZATION as u64)],
        &[TPR_SHADOW],
        &[],
    ),
    case(
        C::ApicVirtualizationNeedsTprShadow,
        &[DELIVERY, Or(PIN, P::EXTERNAL_INTERRUPT_EXITING as u64)],
        &[TPR_SHADOW],
        &[],
    ),
    case(C::ApicVirtualizationNeedsTprShadow, &[Or(TERTIARY, P3::IPI_VIRTUALIZATION)], &[TPR_SHADOW], &[]),
    case(
        C::X2apicModeExcludesApicAccesses,
        &[TPR_SHADOW, Or(SECONDARY, P2::VIRTUALIZE_X2APIC_MODE as u64)],
        &[],
        &[Or(SECONDARY, P2::VIRTUALIZE_APIC_ACCESSES as u64)],
    ),
    case(
        C::VirtualInterruptDeliveryNeedsInterruptExiting,
        &[TPR_SHADOW, DELIVERY],
        &[Or(PIN, P::EXTERNAL_INTERRUPT_EXITING as u64)],
        &[],
    ),
    case(C::PostedInterruptsNeedVirtualInterruptDelivery, &[TPR_SHADOW, POSTED, ACKNOWLEDGE], &[DELIVERY], &[]),
    case(C::PostedInterruptsNeedAcknowledge, &[TPR_SHADOW, POSTED, DELIVERY], &[ACKNOWLEDGE], &[]),
    case(
        C::PostedInterruptVector,
        &[TPR_SHADOW, POSTED, DELIVERY, ACKNOWLEDGE],
        &[Set(F::POSTED_INTERRUPT_NOTIFICATION_VECTOR, 0xff)],
        &[Set(F::POSTED_INTERRUPT_NOTIFICATION_VECTOR, 0x100)],
    ),
    case(
        C::PostedInterruptDescriptor,
        &[TPR_SHADOW, POSTED, DELIVERY, ACKNOWLEDGE],
        &[Or(F::POSTED_INTERRUPT_DESCRIPTOR, 0x40)],
        &[Or(F::POSTED_INTERRUPT_DESCRIPTOR, 0x20)],
    ),
    case(
        C::PostedInterruptDescriptor,
        &[TPR_SHADOW, POSTED, DELIVERY, ACKNOWLEDGE],
        &[],
        &[BeyondWidth(F::POSTED_INTERRUPT_DESCRIPTOR)],
    ),
    case(
        C::PidPointerTable,
        &[TPR_SHADOW, Or(TERTIARY, P3::IPI_VIRTUALIZATION)],
        &[Or(F::PID_POINTER_TABLE, 8)],
        &[Or(F::PID_POINTER_TABLE, 4)],
    ),
    case(
        C::PidPointerTable,
        &[TPR_SHADOW, Or(TERTIARY, P3::IPI_VIRTUALIZATION)],
        &[],
        &[BeyondWidth(F::PID_POINTER_TABLE)],
    ),
    case(C::VpidZero, &[Or(SECONDARY, P2::ENABLE_VPID as u64)], &[Set(F::VPID, 1)], &[Set(F::VPID, 0)]),
    case(C::EptpMemoryType, &[EPT], &[], &[Or(F::EPT_POINTER, 7)]),
    case(C::EptpMemoryType, &[EPT], &[], &[Clear(F::EPT_POINTER, 7), Or(F::EPT_POINTER, 1)]),
    case(C::EptpWalkLength, &[EPT], &[], &[Or(F::EPT_POINTER, 0x38)]),
    case(C::EptpWalkLength, &[EPT], &[], &[Clear(F::EPT_POINTER, 0x38), Or(F::EPT_POINTER, 2 << 3)]),
    case(C::EptpAccessedDirty, &[EPT], &[], &[Or(F::EPT_POINTER, Eptp::ACCESSED_DIRTY)])
        .when(When::NoEptVpid(EptVpidCap::ACCESSED_DIRTY)),
    case(C::EptpSupervisorShadowStack, &[EPT], &[], &[Or(F::EPT_POINTER, Eptp::SUPERVISOR_SHADOW_STACK)])
        .when(When::NoEptVpid(EptVpidCap::SUPERVISOR_SHADOW_STACK)),
    case(C::EptpReserved, &[EPT], &[], &[Or(F::EPT_POINTER, 0x100)]),
    case(C::EptpReserved, &[EPT], &[], &[Or(F::EPT_POINTER, 0x800)]),
    case(C::EptpReserved, &[EPT], &[], &[BeyondWidth(F::EPT_POINTER)]),
    case(C::PmlNeedsEpt, &[Or(SECONDARY, P2::ENABLE_PML as u64)], &[EPT], &[]),
    case(C::PmlAddress, &[EPT, Or(SECONDARY, P2::ENABLE_PML as u64)], &[], &[Or(F::PML_ADDRESS, 8)]),
    case(C::PmlAddress, &[EPT, Or(SECONDARY, P2::ENABLE_PML as u64)], &[], &[BeyondWidth(F::PML_ADDRESS)]),
    case(C::UnrestrictedGuestNeedsEpt, &[Or(SECONDARY, P2::UNRESTRICTED_GUEST as u64)], &[EPT], &[]),
    case(C::ModeBasedExecuteNeedsEpt, &[Or(SECONDARY, P2::MODE_BASED_EXECUTE as u64)], &[EPT], &[]),
    case(C::SubPageWriteNeedsEpt, &[Or(SECONDARY, P2::SUB_PAGE_WRITE as u64)], &[EPT], &[]),
    case(
        C::SubPageTablePointer,
        &[EPT, Or(SECONDARY, P2::SUB_PAGE_WRITE as u64)],
        &[],
        &[Or(F::SPP_TABLE_POINTER, 0x800)],
    ),
    case(
        C::SubPageTablePointer,
        &[EPT, Or(SECONDARY, P2::SUB_PAGE_WRITE as u64)],
        &[],
        &[BeyondWidth(F::SPP_TABLE_POINTER)],
    ),
    case(
        C::VmFunctionReserved,
        &[Or(SECONDARY, P2::ENABLE_VM_FUNCTIONS as u64)],
        &[],
        &[Set(F::VM_FUNCTION_CONTROLS, 1 << 63)],
    ),
    case(
        C::EptpSwitchingNeedsEpt,
        &[Or(SECONDARY, P2::ENABLE_VM_FUNCTIONS as u64), Set(F::VM_FUNCTION_CONTROLS, 1)],
        &[EPT],
        &[],
    ),
    case(
        C::EptpListAddress,
        &[EPT, Or(SECONDARY, P2::ENABLE_VM_FUNCTIONS as u64), Set(F::VM_FUNCTION_CONTROLS, 1)],
        &[],
        &[Or(F::EPTP_LIST_ADDRESS, 8)],
    ),
    case(
        C::EptpListAddress,
        &[EPT, Or(SECONDARY, P2::ENABLE_VM_FUNCTIONS as u64), Set(F::VM_FUNCTION_CONTROLS, 1)],
        &[],
        &[BeyondWidth(F::EPTP_LIST_ADDRESS)],
    ),
    case(C::VmreadBitmapAddress, &[Or(SECONDARY, P2::VMCS_SHADOWING as u64)], &[], &[Or(F::VMREAD_BITMAP, 1)]),
    case(C::VmreadBitmapAddress, &[Or(SECONDARY, P2::VMCS_SHADOWING as u64)], &[], &[BeyondWidth(F::VMREAD_BITMAP)]),
    case(C::VmwriteBitmapAddress, &[Or(SECONDARY, P2::VMCS_SHADOWING as u64)], &[], &[Or(F::VMWRITE_BITMAP, 0x800)]),
    case(C::VmwriteBitmapAddress, &[Or(SECONDARY, P2::VMCS_SHADOWING as u64)], &[], &[BeyondWidth(F::VMWRITE_BITMAP)]),
    case(
        C::VeInformationAddress,
        &[EPT, Or(SECONDARY, P2::EPT_VIOLATION_VE as u64)],
        &[],
        &[Or(F::VE_INFORMATION_ADDRESS, 0x40)],
    ),
    case(
        C::VeInformationAddress,
        &[EPT, Or(SECONDARY, P2::EPT_VIOLATION_VE as u64)],
        &[],
        &[BeyondWidth(F::VE_INFORMATION_ADDRESS)],
    ),
    case(
        C::PtGuestPhysicalNeedsEpt,
        &[
            Or(SECONDARY, P2::PT_USES_GUEST_PHYSICAL as u64),
            Or(ENTRY, N::LOAD_RTIT_CTL as u64),
            Or(EXIT, X::CLEAR_RTIT_CTL as u64),
        ],
        &[EPT],
        &[],
    ),
    case(
        C::PtGuestPhysicalNeedsRtitControls,
        &[EPT, Or(SECONDARY, P2::PT_USES_GUEST_PHYSICAL as u64), Or(EXIT, X::CLEAR_RTIT_CTL as u64)],
        &[Or(ENTRY, N::LOAD_RTIT_CTL as u64)],
        &[],
    ),
    case(
        C::TscMultiplierZero,
        &[Or(SECONDARY, P2::USE_TSC_SCALING as u64)],
        &[Set(F::TSC_MULTIPLIER, 1)],
        &[Set(F::TSC_MULTIPLIER, 0)],
    ),
    case(C::HlatNeedsEpt, &[Or(TERTIARY, P3::EPT_PAGING_WRITE)], &[EPT], &[]),
    case(C::HlatNeedsEpt, &[Or(TERTIARY, P3::GUEST_PAGING_VERIFICATION)], &[EPT], &[]),
    case(
        C::HlatPointer,
        &[EPT, Or(TERTIARY, P3::ENABLE_HLAT), Set(F::HLAT_PREFIX_SIZE, 1)],
        &[],
        &[BeyondWidth(F::HLAT_POINTER)],
    ),
    case(
        C::HlatPointer,
        &[EPT, Or(TERTIARY, P3::ENABLE_HLAT), Set(F::HLAT_PREFIX_SIZE, 1)],
        &[],
        &[Or(F::HLAT_POINTER, 0x20)],
    ),
    case(C::PasidDirectory, &[Or(SECONDARY, P2::PASID_TRANSLATION as u64)], &[], &[Or(F::LOW_PASID_DIRECTORY, 8)]),
    case(C::ExitReserved, &[], &[], &[Required(EXIT)]),
    case(C::ExitReserved, &[], &[], &[Unsupported(EXIT)]),
    case(
        C::SecondaryExitReserved,
        &[Or(F::SECONDARY_EXIT_CONTROLS, 0)],
        &[],
        &[Unsupported(F::SECONDARY_EXIT_CONTROLS)],
    ),
    case(
        C::SaveTimerNeedsTimer,
        &[Or(EXIT, X::SAVE_PREEMPTION_TIMER as u64)],
        &[Or(PIN, P::PREEMPTION_TIMER as u64)],
        &[Clear(PIN, P::PREEMPTION_TIMER as u64)],
    ),
    case(
        C::ExitMsrStoreArea,
        &[Set(F::EXIT_MSR_STORE_COUNT, 1), Page(F::EXIT_MSR_STORE_ADDRESS, 0, 0), ONE_MSR],
        &[],
        &[Or(F::EXIT_MSR_STORE_ADDRESS, 8)],
    ),
    case(
        C::ExitMsrStoreArea,
        &[Set(F::EXIT_MSR_STORE_COUNT, 1), Page(F::EXIT_MSR_STORE_ADDRESS, 0, 0), ONE_MSR],
        &[],
        &[BeyondWidth(F::EXIT_MSR_STORE_ADDRESS)],
    ),
    case(
        C::ExitMsrLoadArea,
        &[Set(F::EXIT_MSR_LOAD_COUNT, 1), Page(F::EXIT_MSR_LOAD_ADDRESS, 0, 0), ONE_MSR],
        &[],
        &[Or(F::EXIT_MSR_LOAD_ADDRESS, 8)],
    ),
    case(
        C::ExitMsrLoadArea,
        &[Set(F::EXIT_MSR_LOAD_COUNT, 1), Page(F::EXIT_MSR_LOAD_ADDRESS, 0, 0), ONE_MSR],
        &[],
        &[BeyondWidth(F::EXIT_MSR_LOAD_ADDRESS)],
    ),
    case(C::EntryReserved, &[], &[], &[Required(ENTRY)]),
    case(C::EntryReserved, &[], &[], &[Unsupported(ENTRY)]),
    case(C::InjectionType, &[], &[Set(INFO, 0x8000_0306)], &[Set(INFO, 0x8000_0106)]),
    case(C::InjectionVector, &[], &[Set(INFO, 0x8000_0202)], &[Set(INFO, 0x8000_0203)]),
    case(C::InjectionVector, &[], &[Set(INFO, 0x8000_031f)], &[Set(INFO, 0x8000_0320)]),
    case(
        C::InjectionVector,
        &[Or(PRIMARY, P1::MONITOR_TRAP_FLAG as u64)],
        &[Set(INFO, 0x8000_0700)],
        &[Set(INFO, 0x8000_0701)],
    ),
    case(C::InjectionErrorCode, &[], &[Set(INFO, 0x8000_0b0d)], &[Set(INFO, 0x8000_030d)])
        .when(When::NoBasic(basic::ANY_ERROR_CODE)),
    case(C::InjectionErrorCode, &[], &[Set(INFO, 0x8000_0306)], &[Set(INFO, 0x8000_0b06)])
        .when(When::NoBasic(basic::ANY_ERROR_CODE)),
    case(C::InjectionErrorCode, &[], &[Set(INFO, 0x8000_0202)], &[Set(INFO, 0x8000_0a02)]),
    case(C::InjectionErrorCode, &[], &[Set(INFO, 0x8000_030d)], &[Set(INFO, 0x8000_0b0d)]).on(Base::Real),
    case(C::InjectionReserved, &[], &[Set(INFO, 0x8000_0306)], &[Set(INFO, 0x8000_1306)]),
    case(C::InjectionReserved, &[], &[Set(INFO, 0x8000_0306)], &[Set(INFO, 0xc000_0306)]),
    case(
        C::InjectionErrorCodeReserved,
        &[Set(INFO, 0x8000_0b0d)],
        &[Set(F::ENTRY_EXCEPTION_ERROR_CODE, 0x7fff)],
        &[Set(F::ENTRY_EXCEPTION_ERROR_CODE, 0x1_0000)],
    ),
    case(
        C::InjectionInstructionLength,
        &[Set(INFO, 0x8000_0480)],
        &[Set(F::ENTRY_INSTRUCTION_LENGTH, 15)],
        &[Set(F::ENTRY_INSTRUCTION_LENGTH, 16)],
    ),
    case(
        C::InjectionInstructionLength,
        &[Set(INFO, 0x8000_0603)],
        &[Set(F::ENTRY_INSTRUCTION_LENGTH, 1)],
        &[Set(F::ENTRY_INSTRUCTION_LENGTH, 0)],
    )
    .when(When::NoMisc(misc::INJECT_LENGTH_0)),
    case(
        C::EntryMsrLoadArea,
        &[Set(F::ENTRY_MSR_LOAD_COUNT, 1), Page(F::ENTRY_MSR_LOAD_ADDRESS, 0, 0), ONE_MSR],
        &[],
        &[Or(F::ENTRY_MSR_LOAD_ADDRESS, 4)],
    ),
    case(
        C::EntryMsrLoadArea,
        &[Set(F::ENTRY_MSR_LOAD_COUNT, 1), Page(F::ENTRY_MSR_LOAD_ADDRESS, 0, 0), ONE_MSR],
        &[],
        &[BeyondWidth(F::ENTRY_MSR_LOAD_ADDRESS)],
    ),
    case(C::SmmControlsOutsideSmm, &[], &[], &[Or(ENTRY, N::ENTRY_TO_SMM as u64)]),
    case(C::SmmControlsOutsideSmm, &[], &[], &[Or(ENTRY, N::DEACTIVATE_DUAL_MONITOR as u64)]),
];
