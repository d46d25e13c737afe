//! The VM-entry MSR-load area (SDM Vol. 3C, 27.4). The first entry of each list can be loaded, the second is the one in question.

use super::{CheckCase, case};
use crate::change::Change::{self, Msr, Page, Set, X2apic};
use spec::vmx::EntryCheck as C;
use spec::vmx::VmcsField as F;
use spec::x86::msr;

const LIST: &[Change] = &[
    Set(F::ENTRY_MSR_LOAD_COUNT, 2),
    Page(F::ENTRY_MSR_LOAD_ADDRESS, 0, 0),
    Msr(0, 0, msr::SYSENTER_CS as u64, 0),
    Msr(0, 1, GOOD, 0),
];
const IN_X2APIC_MODE: &[Change] = &[X2apic, LIST[0], LIST[1], LIST[2], LIST[3]];
const GOOD: u64 = msr::KERNEL_GS_BASE as u64;

pub(super) const CASES: &[CheckCase] = &[
    case(C::MsrLoadFsGsBase, LIST, &[], &[Msr(0, 1, msr::FS_BASE as u64, 0)]),
    case(C::MsrLoadFsGsBase, LIST, &[], &[Msr(0, 1, msr::GS_BASE as u64, 0)]),
    case(C::MsrLoadX2apic, IN_X2APIC_MODE, &[], &[Msr(0, 1, msr::X2APIC_FIRST as u64 + 8, 0)]),
    case(C::MsrLoadSmmOnly, LIST, &[], &[Msr(0, 1, msr::SMM_MONITOR_CTL as u64, 0)]),
    case(C::MsrLoadReserved, LIST, &[], &[Msr(0, 1, GOOD | 1 << 32, 0)]),
    case(C::MsrLoadRefused, LIST, &[Msr(0, 1, GOOD, !0xfff)], &[Msr(0, 1, GOOD, 1 << 63)]),
    case(C::MsrLoadRefused, LIST, &[], &[Msr(0, 1, 0x4000_0000, 0)]),
    case(C::MsrLoadModelSpecific, LIST, &[], &[Msr(0, 1, msr::BIOS_UPDT_TRIG as u64, 0)]),
];
