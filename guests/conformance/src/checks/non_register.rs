//! Checks on the guest's non-register state (SDM Vol. 3C, 27.3.1.5).

use super::{CheckCase, When, case};
use crate::change::Change::{self, BeyondWidth, CurrentVmcs, Or, Page, Revision, Set};
use spec::vmx::EntryCheck as C;
use spec::vmx::capability::misc;
use spec::vmx::{
    ActivityState, EntryControls as N, Interruptibility as I, PendingDebug, PinBasedControls as P,
    SecondaryControls as P2, VmcsField as F,
};

const ACTIVITY: F = F::GUEST_ACTIVITY_STATE;
const BLOCKING: F = F::GUEST_INTERRUPTIBILITY;
const PENDING: F = F::GUEST_PENDING_DEBUG;
const INFO: F = F::ENTRY_INTERRUPTION_INFO;
const RFLAGS: F = F::GUEST_RFLAGS;
const LINK: F = F::VMCS_LINK_POINTER;
const HLT: u64 = ActivityState::Hlt as u64;
const SHUTDOWN: u64 = ActivityState::Shutdown as u64;
const WAIT: u64 = ActivityState::WaitForSipi as u64;
const NMI: u64 = 0x8000_0202;
const INTERRUPT: u64 = 0x8000_0040;
/// What ends a guest that is halted.
const TIMER: Change = Or(F::PIN_BASED_CONTROLS, P::PREEMPTION_TIMER as u64);
/// Without it, IA32_DEBUGCTL.BTF in the VMCS says nothing.
const LOAD_DEBUG: Change = Or(F::ENTRY_CONTROLS, N::LOAD_DEBUG_CONTROLS as u64);

pub(super) const CASES: &[CheckCase] = &[
    case(C::ActivityStateUnsupported, &[TIMER], &[Set(ACTIVITY, HLT)], &[Set(ACTIVITY, 4)])
        .when(When::Misc(misc::ACTIVITY_HLT)),
    case(C::ActivityStateUnsupported, &[], &[], &[Set(ACTIVITY, HLT)]).when(When::NoMisc(misc::ACTIVITY_HLT)),
    case(C::ActivityStateUnsupported, &[], &[], &[Set(ACTIVITY, SHUTDOWN)]).when(When::NoMisc(misc::ACTIVITY_SHUTDOWN)),
    case(
        C::HltNeedsCpl0,
        &[
            Set(F::GUEST_CS_SELECTOR, 0x23),
            Set(F::GUEST_SS_SELECTOR, 0x2b),
            Set(F::GUEST_CS_ACCESS_RIGHTS, 0xa0fb),
            Set(F::GUEST_SS_ACCESS_RIGHTS, 0xc0f3),
        ],
        &[],
        &[Set(ACTIVITY, HLT)],
    )
    .when(When::Misc(misc::ACTIVITY_HLT)),
    case(
        C::InactiveWithBlocking,
        &[TIMER, Set(ACTIVITY, HLT), Set(RFLAGS, 0x202)],
        &[],
        &[Set(BLOCKING, I::STI as u64)],
    )
    .when(When::Misc(misc::ACTIVITY_HLT)),
    case(C::InactiveWithBlocking, &[TIMER, Set(ACTIVITY, HLT)], &[], &[Set(BLOCKING, I::MOV_SS as u64)])
        .when(When::Misc(misc::ACTIVITY_HLT)),
    case(C::ActivityStateForbidsInjection, &[Set(ACTIVITY, HLT)], &[Set(INFO, NMI)], &[Set(INFO, 0x8000_0306)])
        .when(When::Misc(misc::ACTIVITY_HLT)),
    case(C::ActivityStateForbidsInjection, &[Set(ACTIVITY, HLT)], &[Set(INFO, 0x8000_0301)], &[Set(INFO, 0x8000_0300)])
        .when(When::Misc(misc::ACTIVITY_HLT)),
    case(
        C::ActivityStateForbidsInjection,
        &[Set(ACTIVITY, SHUTDOWN), Set(RFLAGS, 0x202)],
        &[Set(INFO, NMI)],
        &[Set(INFO, INTERRUPT)],
    )
    .when(When::Misc(misc::ACTIVITY_SHUTDOWN)),
    case(C::ActivityStateForbidsInjection, &[Set(INFO, NMI)], &[], &[Set(ACTIVITY, WAIT)])
        .when(When::Misc(misc::ACTIVITY_WAIT_FOR_SIPI)),
    case(C::InterruptibilityReserved, &[], &[], &[Set(BLOCKING, 1 << 5)]),
    case(C::InterruptibilityReserved, &[], &[], &[Set(BLOCKING, 1 << 31)]),
    case(
        C::StiAndMovSs,
        &[Set(RFLAGS, 0x202)],
        &[Set(BLOCKING, I::MOV_SS as u64)],
        &[Set(BLOCKING, (I::STI | I::MOV_SS) as u64)],
    ),
    case(C::StiNeedsIf, &[Set(BLOCKING, I::STI as u64)], &[Set(RFLAGS, 0x202)], &[]),
    case(C::InterruptWithBlocking, &[Set(RFLAGS, 0x202), Set(INFO, INTERRUPT)], &[], &[Set(BLOCKING, I::STI as u64)]),
    case(
        C::InterruptWithBlocking,
        &[Set(RFLAGS, 0x202), Set(INFO, INTERRUPT)],
        &[],
        &[Set(BLOCKING, I::MOV_SS as u64)],
    ),
    case(C::NmiWithMovSs, &[Set(INFO, NMI)], &[], &[Set(BLOCKING, I::MOV_SS as u64)]),
    case(C::SmiOutsideSmm, &[], &[], &[Set(BLOCKING, I::SMI as u64)]),
    case(
        C::NmiWithVirtualNmiBlocking,
        &[Or(F::PIN_BASED_CONTROLS, (P::NMI_EXITING | P::VIRTUAL_NMIS) as u64), Set(INFO, NMI)],
        &[],
        &[Set(BLOCKING, I::NMI as u64)],
    ),
    case(C::EnclaveInterruption, &[], &[], &[Set(BLOCKING, (I::ENCLAVE | I::MOV_SS) as u64)]),
    case(C::PendingDebugReserved, &[], &[], &[Set(PENDING, 1 << 4)]),
    case(C::PendingDebugReserved, &[], &[], &[Set(PENDING, 1 << 13)]),
    case(C::PendingDebugReserved, &[], &[], &[Set(PENDING, 1 << 63)]),
    case(
        C::PendingDebugSingleStepMissing,
        &[LOAD_DEBUG, Set(RFLAGS, 0x302), Set(BLOCKING, I::STI as u64)],
        &[Set(PENDING, PendingDebug::BS)],
        &[],
    ),
    case(
        C::PendingDebugSingleStepMissing,
        &[LOAD_DEBUG, Set(RFLAGS, 0x102), Set(BLOCKING, I::MOV_SS as u64)],
        &[Set(F::GUEST_DEBUGCTL, 2)],
        &[],
    ),
    case(
        C::PendingDebugSingleStepExtra,
        &[LOAD_DEBUG, Set(BLOCKING, I::MOV_SS as u64), Set(PENDING, PendingDebug::BS)],
        &[Set(RFLAGS, 0x102)],
        &[],
    ),
    case(
        C::PendingDebugSingleStepExtra,
        &[TIMER, LOAD_DEBUG, Set(ACTIVITY, HLT), Set(PENDING, PendingDebug::BS), Set(RFLAGS, 0x102)],
        &[],
        &[Set(F::GUEST_DEBUGCTL, 2)],
    )
    .when(When::Misc(misc::ACTIVITY_HLT)),
    case(
        C::PendingDebugRtm,
        &[Set(BLOCKING, I::MOV_SS as u64)],
        &[],
        &[Set(PENDING, PendingDebug::RTM | PendingDebug::ENABLED_BREAKPOINT)],
    ),
    case(C::LinkPointerAlignment, &[Revision(0, 0)], &[Page(LINK, 0, 0)], &[Page(LINK, 0, 8)]),
    case(C::LinkPointerWidth, &[Revision(0, 0), Page(LINK, 0, 0)], &[], &[BeyondWidth(LINK)]),
    case(C::LinkPointerRevision, &[Page(LINK, 0, 0)], &[Revision(0, 0)], &[Revision(0, 1)]),
    case(C::LinkPointerShadow, &[Page(LINK, 0, 0)], &[Revision(0, 0)], &[Revision(0, 1 << 31)]),
    case(
        C::LinkPointerShadow,
        &[Or(F::SECONDARY_CONTROLS, P2::VMCS_SHADOWING as u64), Page(LINK, 0, 0)],
        &[Revision(0, 1 << 31)],
        &[Revision(0, 0)],
    ),
    case(C::LinkPointerCurrent, &[], &[], &[CurrentVmcs(LINK)]),
];
