//! Checks on the guest's registers but for its segments (SDM Vol. 3C, 27.3.1.1, 27.3.1.3, 27.3.1.4 and 27.3.1.6).

use super::{CheckCase, case};
use crate::change::Change::{self, BeyondWidth, Clear, Memory, Or, Page, Set, Unsupported};
use crate::trial::Base;
use spec::vmx::EntryCheck as C;
use spec::vmx::{EntryControls as N, SecondaryControls as P2, VmcsField as F};
use spec::x86::msr::SpecCtrl;
use spec::x86::{Cr0, Cr4, Efer};

const ENTRY: F = F::ENTRY_CONTROLS;
const HIGH: u64 = 1 << 63;
const LOAD_DEBUG: &[Change] = &[Or(ENTRY, N::LOAD_DEBUG_CONTROLS as u64)];
const LOAD_EFER: &[Change] = &[Or(ENTRY, N::LOAD_EFER as u64)];
const LOAD_PAT: &[Change] = &[Or(ENTRY, N::LOAD_PAT as u64)];
const LOAD_CET: &[Change] = &[Or(ENTRY, N::LOAD_CET_STATE as u64)];
const UNRESTRICTED: &[Change] = &[Or(F::SECONDARY_CONTROLS, (P2::UNRESTRICTED_GUEST | P2::ENABLE_EPT) as u64)];
const EPT: &[Change] = &[Or(F::SECONDARY_CONTROLS, P2::ENABLE_EPT as u64)];

pub(super) const CASES: &[CheckCase] = &[
    case(C::GuestCr0Fixed, &[], &[], &[Clear(F::GUEST_CR0, Cr0::NE)]),
    case(C::GuestCr0Fixed, &[], &[], &[Clear(F::GUEST_CR0, Cr0::PE)]),
    case(C::GuestCr0Fixed, &[], &[], &[Unsupported(F::GUEST_CR0)]),
    case(C::GuestPagingNeedsProtection, UNRESTRICTED, &[], &[Clear(F::GUEST_CR0, Cr0::PE)]),
    case(C::GuestCr4Fixed, &[], &[], &[Clear(F::GUEST_CR4, Cr4::VMXE)]),
    case(C::GuestCr4Fixed, &[], &[], &[Unsupported(F::GUEST_CR4)]),
    case(C::GuestCetNeedsWp, &[Or(F::GUEST_CR4, Cr4::CET)], &[], &[Clear(F::GUEST_CR0, Cr0::WP)]),
    case(C::GuestDebugctl, LOAD_DEBUG, &[Set(F::GUEST_DEBUGCTL, 2)], &[Set(F::GUEST_DEBUGCTL, 1 << 20)]),
    case(C::GuestIa32eNeedsPaging, &[], &[], &[Clear(F::GUEST_CR4, Cr4::PAE)]),
    case(C::GuestIa32eNeedsPaging, UNRESTRICTED, &[], &[Clear(F::GUEST_CR0, Cr0::PG)]),
    case(C::GuestPcideNeedsIa32e, &[], &[], &[Or(F::GUEST_CR4, Cr4::PCIDE)]).on(Base::Pae),
    case(C::GuestCr3Width, &[], &[], &[BeyondWidth(F::GUEST_CR3)]),
    case(C::GuestDr7High, LOAD_DEBUG, &[Set(F::GUEST_DR7, 0x400)], &[Set(F::GUEST_DR7, 1 << 32 | 0x400)]),
    case(C::GuestSysenterCanonical, &[], &[Set(F::GUEST_SYSENTER_ESP, !7)], &[Set(F::GUEST_SYSENTER_ESP, HIGH)]),
    case(C::GuestSysenterCanonical, &[], &[], &[Set(F::GUEST_SYSENTER_EIP, HIGH)]),
    case(
        C::GuestPerfGlobalCtrl,
        &[Or(ENTRY, N::LOAD_PERF_GLOBAL_CTRL as u64)],
        &[],
        &[Set(F::GUEST_PERF_GLOBAL_CTRL, HIGH)],
    ),
    case(C::GuestPat, LOAD_PAT, &[Set(F::GUEST_PAT, 0x0706_0504_0100_0406)], &[Set(F::GUEST_PAT, 3)]),
    case(C::GuestPat, LOAD_PAT, &[], &[Set(F::GUEST_PAT, 9 << 32)]),
    case(C::GuestEferReserved, LOAD_EFER, &[Or(F::GUEST_EFER, 1)], &[Or(F::GUEST_EFER, 2)]),
    case(C::GuestEferLma, LOAD_EFER, &[], &[Clear(F::GUEST_EFER, Efer::LMA)]),
    case(C::GuestEferLma, LOAD_EFER, &[], &[Or(F::GUEST_EFER, Efer::LMA)]).on(Base::Pae),
    case(C::GuestEferLme, LOAD_EFER, &[], &[Clear(F::GUEST_EFER, Efer::LME)]),
    case(C::GuestBndcfgs, &[Or(ENTRY, N::LOAD_BNDCFGS as u64)], &[], &[Set(F::GUEST_BNDCFGS, 4)]),
    case(C::GuestBndcfgs, &[Or(ENTRY, N::LOAD_BNDCFGS as u64)], &[], &[Set(F::GUEST_BNDCFGS, HIGH)]),
    case(C::GuestRtitCtl, &[Or(ENTRY, N::LOAD_RTIT_CTL as u64)], &[], &[Set(F::GUEST_RTIT_CTL, HIGH)]),
    case(C::GuestCet, LOAD_CET, &[], &[Set(F::GUEST_S_CET, 1 << 6)]),
    case(C::GuestCet, LOAD_CET, &[], &[Set(F::GUEST_S_CET, HIGH)]),
    case(C::GuestCet, LOAD_CET, &[], &[Set(F::GUEST_INTERRUPT_SSP_TABLE, HIGH)]),
    case(C::GuestLbrCtl, &[Or(ENTRY, N::LOAD_LBR_CTL as u64)], &[], &[Set(F::GUEST_LBR_CTL, HIGH)]),
    case(C::GuestPkrs, &[Or(ENTRY, N::LOAD_PKRS as u64)], &[], &[Set(F::GUEST_PKRS, 1 << 32)]),
    case(
        C::GuestSpecCtrl,
        &[Or(ENTRY, N::LOAD_SPEC_CTRL as u64)],
        &[Set(F::GUEST_SPEC_CTRL, SpecCtrl::IBRS)],
        &[Set(F::GUEST_SPEC_CTRL, HIGH)],
    ),
    case(C::GuestUinv, &[Or(ENTRY, N::LOAD_UINV as u64)], &[Set(F::GUEST_UINV, 0xff)], &[Set(F::GUEST_UINV, 0x100)]),
    case(C::DescriptorTableBaseCanonical, &[], &[], &[Set(F::GUEST_GDTR_BASE, HIGH)]),
    case(C::DescriptorTableBaseCanonical, &[], &[], &[Set(F::GUEST_IDTR_BASE, HIGH)]),
    case(C::DescriptorTableLimit, &[], &[Set(F::GUEST_GDTR_LIMIT, 0xffff)], &[Set(F::GUEST_GDTR_LIMIT, 0x1_0000)]),
    case(C::DescriptorTableLimit, &[], &[Set(F::GUEST_IDTR_LIMIT, 0xffff)], &[Set(F::GUEST_IDTR_LIMIT, 1 << 31)]),
    case(C::GuestRipHigh, &[], &[], &[Or(F::GUEST_RIP, 1 << 32)]).on(Base::Pae),
    case(C::GuestRipHigh, &[Set(F::GUEST_CS_ACCESS_RIGHTS, 0xc09b)], &[], &[Or(F::GUEST_RIP, HIGH)]),
    case(C::GuestRipCanonical, &[], &[], &[Or(F::GUEST_RIP, HIGH)]),
    case(C::RflagsReserved, &[], &[Set(F::GUEST_RFLAGS, 2)], &[Set(F::GUEST_RFLAGS, 0)]),
    case(C::RflagsReserved, &[], &[Set(F::GUEST_RFLAGS, 0x0020_0cd7)], &[Set(F::GUEST_RFLAGS, 0xa)]),
    case(C::RflagsReserved, &[], &[], &[Set(F::GUEST_RFLAGS, 1 << 32 | 2)]),
    case(
        C::RflagsVm,
        &[],
        &[],
        &[Clear(F::GUEST_CR0, 0), Or(ENTRY, N::IA32E_MODE_GUEST as u64), Or(F::GUEST_EFER, 0x500)],
    )
    .on(Base::V86),
    case(
        C::RflagsIfForInterrupt,
        &[Set(F::ENTRY_INTERRUPTION_INFO, 0x8000_0040)],
        &[Set(F::GUEST_RFLAGS, 0x202)],
        &[Set(F::GUEST_RFLAGS, 2)],
    ),
    case(C::GuestSsp, LOAD_CET, &[Set(F::GUEST_SSP, 4)], &[Set(F::GUEST_SSP, 2)]),
    case(C::GuestSsp, LOAD_CET, &[], &[Set(F::GUEST_SSP, HIGH)]),
    // Bits 2:1 of a present PDPTE are reserved. Without EPT the PDPTEs are those in memory, with EPT those in the VMCS.
    case(C::PdpteReserved, &[], &[], &[Page(F::GUEST_CR3, 0, 0), Memory(0, 0, 0x1007)]).on(Base::Pae),
    case(C::PdpteReserved, &[], &[], &[Page(F::GUEST_CR3, 0, 0), Memory(0, 24, HIGH | 1)]).on(Base::Pae),
    case(C::PdpteReserved, EPT, &[Set(F::GUEST_PDPTE3, 6)], &[Set(F::GUEST_PDPTE3, 7)]).on(Base::Pae),
    case(C::PdpteReserved, EPT, &[], &[BeyondWidth(F::GUEST_PDPTE2)]).on(Base::Pae),
];
