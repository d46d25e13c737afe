//! Checks on the guest's segment registers (SDM Vol. 3C, 27.3.1.2).

use super::{CheckCase, case};
use crate::change::Change::{self, Clear, Or, Set};
use crate::trial::Base;
use spec::vmx::EntryCheck as C;
use spec::vmx::{SecondaryControls as P2, VmcsField as F};

const HIGH: u64 = 1 << 63;
const UNRESTRICTED: &[Change] = &[Or(F::SECONDARY_CONTROLS, (P2::UNRESTRICTED_GUEST | P2::ENABLE_EPT) as u64)];
/// An LDT that can be used.
const LDT: &[Change] = &[Set(F::GUEST_LDTR_ACCESS_RIGHTS, 0x82), Set(F::GUEST_LDTR_LIMIT, 0xff)];
/// Code and stack at privilege level 3.
const USER: &[Change] = &[
    Set(F::GUEST_CS_SELECTOR, 0x23),
    Set(F::GUEST_SS_SELECTOR, 0x2b),
    Set(F::GUEST_CS_ACCESS_RIGHTS, 0xa0fb),
    Set(F::GUEST_SS_ACCESS_RIGHTS, 0xc0f3),
];
const UNUSABLE: u64 = 1 << 16;

pub(super) const CASES: &[CheckCase] = &[
    case(C::TrSelectorLocal, &[], &[], &[Or(F::GUEST_TR_SELECTOR, 4)]),
    case(C::LdtrSelectorLocal, LDT, &[], &[Or(F::GUEST_LDTR_SELECTOR, 4)]),
    case(C::SsRplNotCsRpl, &[], &[], &[Or(F::GUEST_SS_SELECTOR, 3), Or(F::GUEST_SS_ACCESS_RIGHTS, 0x60)]),
    case(C::V86Base, &[], &[], &[Set(F::GUEST_DS_SELECTOR, 1)]).on(Base::V86),
    case(C::V86Base, &[], &[], &[Set(F::GUEST_CS_BASE, 0x10)]).on(Base::V86),
    case(C::BaseCanonical, &[], &[Set(F::GUEST_FS_BASE, !0xfff)], &[Set(F::GUEST_FS_BASE, HIGH)]),
    case(C::BaseCanonical, &[], &[], &[Set(F::GUEST_GS_BASE, HIGH)]),
    case(C::BaseCanonical, &[], &[], &[Set(F::GUEST_TR_BASE, HIGH)]),
    case(C::BaseCanonical, LDT, &[], &[Set(F::GUEST_LDTR_BASE, HIGH)]),
    case(C::BaseHigh, &[], &[], &[Or(F::GUEST_CS_BASE, 1 << 32)]),
    case(C::BaseHigh, &[], &[], &[Or(F::GUEST_SS_BASE, 1 << 32)]),
    case(C::BaseHigh, &[], &[Or(F::GUEST_DS_BASE, 1 << 31)], &[Or(F::GUEST_DS_BASE, 1 << 32)]),
    case(
        C::BaseHigh,
        &[],
        &[Or(F::GUEST_ES_BASE, 1 << 40), Or(F::GUEST_ES_ACCESS_RIGHTS, UNUSABLE)],
        &[Or(F::GUEST_ES_BASE, 1 << 40)],
    ),
    case(C::V86Limit, &[], &[], &[Set(F::GUEST_CS_LIMIT, 0x1_ffff)]).on(Base::V86),
    case(C::V86Limit, &[], &[], &[Set(F::GUEST_GS_LIMIT, 0xfffe)]).on(Base::V86),
    case(C::V86AccessRights, &[], &[], &[Set(F::GUEST_SS_ACCESS_RIGHTS, 0x93)]).on(Base::V86),
    case(C::V86AccessRights, &[], &[], &[Set(F::GUEST_CS_ACCESS_RIGHTS, 0xfb)]).on(Base::V86),
    case(C::CsType, &[], &[], &[Set(F::GUEST_CS_ACCESS_RIGHTS, 0xa09a)]),
    case(C::CsType, &[], &[], &[Set(F::GUEST_CS_ACCESS_RIGHTS, 0xa093)]),
    case(C::SsType, &[], &[Set(F::GUEST_SS_ACCESS_RIGHTS, 0xc097)], &[Set(F::GUEST_SS_ACCESS_RIGHTS, 0xc091)]),
    case(C::SsType, &[], &[], &[Set(F::GUEST_SS_ACCESS_RIGHTS, 0xc09b)]),
    case(C::DataType, &[], &[Set(F::GUEST_DS_ACCESS_RIGHTS, 0xc091)], &[Set(F::GUEST_DS_ACCESS_RIGHTS, 0xc090)]),
    case(C::DataType, &[], &[Set(F::GUEST_GS_ACCESS_RIGHTS, 0xc09b)], &[Set(F::GUEST_GS_ACCESS_RIGHTS, 0xc099)]),
    case(C::SegmentSystem, &[], &[], &[Clear(F::GUEST_CS_ACCESS_RIGHTS, 0x10)]),
    case(C::SegmentSystem, &[], &[], &[Clear(F::GUEST_SS_ACCESS_RIGHTS, 0x10)]),
    case(
        C::SegmentSystem,
        &[],
        &[Clear(F::GUEST_FS_ACCESS_RIGHTS, 0x10), Or(F::GUEST_FS_ACCESS_RIGHTS, UNUSABLE)],
        &[Clear(F::GUEST_FS_ACCESS_RIGHTS, 0x10)],
    ),
    case(C::CsDplType3, &[], &[Set(F::GUEST_CS_ACCESS_RIGHTS, 0x93)], &[Set(F::GUEST_CS_ACCESS_RIGHTS, 0xb3)])
        .on(Base::Real),
    case(C::CsDplNonConforming, USER, &[], &[Set(F::GUEST_CS_ACCESS_RIGHTS, 0xa09b)]),
    case(C::CsDplNonConforming, &[], &[], &[Set(F::GUEST_CS_ACCESS_RIGHTS, 0xa0fb)]),
    case(C::CsDplConforming, &[], &[Set(F::GUEST_CS_ACCESS_RIGHTS, 0xa09f)], &[Set(F::GUEST_CS_ACCESS_RIGHTS, 0xa0bf)]),
    case(C::SsDplNotRpl, USER, &[], &[Set(F::GUEST_CS_ACCESS_RIGHTS, 0xa09f), Set(F::GUEST_SS_ACCESS_RIGHTS, 0xc0d3)]),
    // CS with DPL 0 that conforms, so that nothing else depends on the DPL of SS.
    case(
        C::SsDplNotZero,
        UNRESTRICTED,
        &[],
        &[Set(F::GUEST_CS_ACCESS_RIGHTS, 0x93), Set(F::GUEST_SS_ACCESS_RIGHTS, 0xf3)],
    )
    .on(Base::Real),
    case(C::SsDplNotZero, &[], &[], &[Set(F::GUEST_CS_ACCESS_RIGHTS, 0x9f), Set(F::GUEST_SS_ACCESS_RIGHTS, 0xf3)])
        .on(Base::Real),
    case(C::DataDplBelowRpl, &[], &[], &[Or(F::GUEST_ES_SELECTOR, 3)]),
    case(
        C::DataDplBelowRpl,
        &[],
        &[Or(F::GUEST_DS_SELECTOR, 3), Set(F::GUEST_DS_ACCESS_RIGHTS, 0xc09f)],
        &[Or(F::GUEST_DS_SELECTOR, 3), Set(F::GUEST_DS_ACCESS_RIGHTS, 0xc09b)],
    ),
    case(C::SegmentNotPresent, &[], &[], &[Clear(F::GUEST_CS_ACCESS_RIGHTS, 0x80)]),
    case(C::SegmentNotPresent, &[], &[], &[Clear(F::GUEST_DS_ACCESS_RIGHTS, 0x80)]),
    case(C::SegmentReserved, &[], &[], &[Or(F::GUEST_CS_ACCESS_RIGHTS, 0x800)]),
    case(C::SegmentReserved, &[], &[Or(F::GUEST_ES_ACCESS_RIGHTS, 0x1000)], &[Or(F::GUEST_ES_ACCESS_RIGHTS, 0x100)]),
    case(C::SegmentReserved, &[], &[], &[Or(F::GUEST_SS_ACCESS_RIGHTS, 1 << 17)]),
    case(C::CsLongAndDefault, &[], &[], &[Or(F::GUEST_CS_ACCESS_RIGHTS, 0x4000)]),
    case(C::SegmentGranularity, &[Set(F::GUEST_FS_LIMIT, 0xf_fffe)], &[Clear(F::GUEST_FS_ACCESS_RIGHTS, 0x8000)], &[]),
    case(
        C::SegmentGranularity,
        &[Clear(F::GUEST_DS_ACCESS_RIGHTS, 0x8000)],
        &[Set(F::GUEST_DS_LIMIT, 0xf_ffff)],
        &[Set(F::GUEST_DS_LIMIT, 0x10_0fff)],
    ),
    case(C::SegmentGranularity, &[], &[], &[Set(F::GUEST_CS_LIMIT, 0xffff_f000)]),
    case(C::TrType, &[], &[], &[Set(F::GUEST_TR_ACCESS_RIGHTS, 0x89)]),
    case(C::TrType, &[], &[], &[Set(F::GUEST_TR_ACCESS_RIGHTS, 0x83)]),
    case(C::TrType, &[], &[Set(F::GUEST_TR_ACCESS_RIGHTS, 0x83)], &[Set(F::GUEST_TR_ACCESS_RIGHTS, 0x81)])
        .on(Base::Pae),
    case(C::TrSystem, &[], &[], &[Or(F::GUEST_TR_ACCESS_RIGHTS, 0x10)]),
    case(C::TrNotPresent, &[], &[], &[Clear(F::GUEST_TR_ACCESS_RIGHTS, 0x80)]),
    case(C::TrReserved, &[], &[], &[Or(F::GUEST_TR_ACCESS_RIGHTS, 0x400)]),
    case(C::TrReserved, &[], &[], &[Or(F::GUEST_TR_ACCESS_RIGHTS, 1 << 31)]),
    case(C::TrGranularity, &[], &[Set(F::GUEST_TR_LIMIT, 0xf_ffff)], &[Set(F::GUEST_TR_LIMIT, 0x10_0fff)]),
    case(
        C::TrGranularity,
        &[Or(F::GUEST_TR_ACCESS_RIGHTS, 0x8000)],
        &[Set(F::GUEST_TR_LIMIT, 0xfff)],
        &[Set(F::GUEST_TR_LIMIT, 0x67)],
    ),
    case(C::TrUnusable, &[], &[], &[Or(F::GUEST_TR_ACCESS_RIGHTS, UNUSABLE)]),
    case(C::LdtrType, LDT, &[], &[Set(F::GUEST_LDTR_ACCESS_RIGHTS, 0x83)]),
    case(C::LdtrSystem, LDT, &[], &[Or(F::GUEST_LDTR_ACCESS_RIGHTS, 0x10)]),
    case(C::LdtrNotPresent, LDT, &[], &[Clear(F::GUEST_LDTR_ACCESS_RIGHTS, 0x80)]),
    case(C::LdtrReserved, LDT, &[], &[Or(F::GUEST_LDTR_ACCESS_RIGHTS, 0x100)]),
    case(C::LdtrGranularity, LDT, &[Set(F::GUEST_LDTR_LIMIT, 0xf_ffff)], &[Set(F::GUEST_LDTR_LIMIT, 0x10_0fff)]),
];
