//! Checks on the host-state area and the address-space size (SDM Vol. 3C, 27.2.2 to 27.2.4).

use super::{CheckCase, case};
use crate::change::Change::{self, BeyondWidth, Clear, Or, Set, Unsupported};
use crate::trial::Base;
use spec::vmx::EntryCheck as C;
use spec::vmx::{EntryControls as E, ExitControls as X, SecondaryExitControls as X2, VmcsField as F};
use spec::x86::msr::SpecCtrl;
use spec::x86::{Cr0, Cr4, Efer};

const EXIT: F = F::EXIT_CONTROLS;
const HIGH: u64 = 1 << 63;
const LOAD_EFER: &[Change] = &[Or(EXIT, X::LOAD_EFER as u64)];
const LOAD_PAT: &[Change] = &[Or(EXIT, X::LOAD_PAT as u64)];
const LOAD_CET: &[Change] = &[Or(EXIT, X::LOAD_CET_STATE as u64)];

pub(super) const CASES: &[CheckCase] = &[
    case(C::HostCr0Fixed, &[], &[], &[Clear(F::HOST_CR0, Cr0::NE)]),
    case(C::HostCr0Fixed, &[], &[], &[Clear(F::HOST_CR0, Cr0::PG)]),
    case(C::HostCr0Fixed, &[], &[], &[Unsupported(F::HOST_CR0)]),
    case(C::HostCr4Fixed, &[], &[], &[Clear(F::HOST_CR4, Cr4::VMXE)]),
    case(C::HostCr4Fixed, &[], &[], &[Unsupported(F::HOST_CR4)]),
    case(C::HostCetNeedsWp, &[Or(F::HOST_CR4, Cr4::CET)], &[], &[Clear(F::HOST_CR0, Cr0::WP)]),
    case(C::HostCr3Width, &[], &[], &[BeyondWidth(F::HOST_CR3)]),
    case(C::HostSysenterCanonical, &[], &[], &[Set(F::HOST_SYSENTER_ESP, HIGH)]),
    case(C::HostSysenterCanonical, &[], &[Set(F::HOST_SYSENTER_EIP, !0xfff)], &[Set(F::HOST_SYSENTER_EIP, HIGH)]),
    case(
        C::HostPerfGlobalCtrl,
        &[Or(EXIT, X::LOAD_PERF_GLOBAL_CTRL as u64)],
        &[],
        &[Set(F::HOST_PERF_GLOBAL_CTRL, HIGH)],
    ),
    case(C::HostPat, LOAD_PAT, &[Set(F::HOST_PAT, 0x0706_0504_0100_0406)], &[Set(F::HOST_PAT, 2)]),
    case(C::HostPat, LOAD_PAT, &[], &[Set(F::HOST_PAT, 8 << 56)]),
    case(C::HostEferReserved, LOAD_EFER, &[Or(F::HOST_EFER, 1)], &[Or(F::HOST_EFER, 2)]),
    case(C::HostEferMode, LOAD_EFER, &[], &[Clear(F::HOST_EFER, Efer::LMA)]),
    case(C::HostEferMode, LOAD_EFER, &[], &[Clear(F::HOST_EFER, Efer::LME)]),
    case(C::HostCet, LOAD_CET, &[], &[Set(F::HOST_S_CET, 1 << 6)]),
    case(C::HostCet, LOAD_CET, &[], &[Set(F::HOST_S_CET, HIGH)]),
    case(C::HostCet, LOAD_CET, &[Set(F::HOST_SSP, 4)], &[Set(F::HOST_SSP, 2)]),
    case(C::HostCet, LOAD_CET, &[], &[Set(F::HOST_INTERRUPT_SSP_TABLE, HIGH)]),
    case(C::HostPkrs, &[Or(EXIT, X::LOAD_PKRS as u64)], &[], &[Set(F::HOST_PKRS, 1 << 32)]),
    case(
        C::HostSpecCtrl,
        &[Or(F::SECONDARY_EXIT_CONTROLS, X2::LOAD_SPEC_CTRL)],
        &[Set(F::HOST_SPEC_CTRL, SpecCtrl::IBRS)],
        &[Set(F::HOST_SPEC_CTRL, HIGH)],
    ),
    case(C::HostSelectorRplTi, &[], &[], &[Or(F::HOST_ES_SELECTOR, 3)]),
    case(C::HostSelectorRplTi, &[], &[], &[Or(F::HOST_CS_SELECTOR, 4)]),
    case(C::HostSelectorRplTi, &[], &[], &[Or(F::HOST_SS_SELECTOR, 1)]),
    case(C::HostSelectorRplTi, &[], &[], &[Or(F::HOST_DS_SELECTOR, 2)]),
    case(C::HostSelectorRplTi, &[], &[], &[Or(F::HOST_FS_SELECTOR, 4)]),
    case(C::HostSelectorRplTi, &[], &[], &[Or(F::HOST_GS_SELECTOR, 3)]),
    case(C::HostSelectorRplTi, &[], &[], &[Or(F::HOST_TR_SELECTOR, 4)]),
    case(C::HostCsZero, &[], &[], &[Set(F::HOST_CS_SELECTOR, 0)]),
    case(C::HostTrZero, &[], &[], &[Set(F::HOST_TR_SELECTOR, 0)]),
    case(C::HostBaseCanonical, &[], &[], &[Set(F::HOST_FS_BASE, HIGH)]),
    case(C::HostBaseCanonical, &[], &[Set(F::HOST_GS_BASE, !0)], &[Set(F::HOST_GS_BASE, 1 << 62)]),
    case(C::HostBaseCanonical, &[], &[], &[Set(F::HOST_TR_BASE, HIGH)]),
    case(C::HostBaseCanonical, &[], &[], &[Set(F::HOST_GDTR_BASE, HIGH)]),
    case(C::HostBaseCanonical, &[], &[], &[Set(F::HOST_IDTR_BASE, HIGH)]),
    case(C::HostAddressSpaceSizeInIa32eMode, &[], &[], &[Clear(EXIT, X::HOST_ADDRESS_SPACE_SIZE as u64)]),
    case(C::Host64Pae, &[], &[], &[Clear(F::HOST_CR4, Cr4::PAE)]),
    case(C::Host64RipCanonical, &[], &[], &[Set(F::HOST_RIP, HIGH)]),
    case(C::OutsideIa32eMode, &[], &[], &[Or(EXIT, X::HOST_ADDRESS_SPACE_SIZE as u64)]).on(Base::Legacy),
    case(C::OutsideIa32eMode, &[], &[], &[Or(F::ENTRY_CONTROLS, E::IA32E_MODE_GUEST as u64)]).on(Base::Legacy),
    case(C::HostSsZero, &[], &[], &[Set(F::HOST_SS_SELECTOR, 0)]).on(Base::Legacy),
    case(C::Host32NoPcide, &[], &[], &[Or(F::HOST_CR4, Cr4::PCIDE)]).on(Base::Legacy),
    case(C::Host32Rip, &[], &[], &[Or(F::HOST_RIP, 1 << 32)]).on(Base::Legacy),
];
