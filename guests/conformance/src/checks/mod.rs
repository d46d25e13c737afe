//! For each VM-entry check, VMCSs that just pass it and VMCSs that fail it, as data.

mod controls;
mod guest;
mod host;
mod msr_loading;
mod non_register;
mod segments;

use crate::change::{Change, Obstacle};
use crate::report::Report;
use crate::trial::{Base, Outcome, Trial};
use bare::vmx::state;
use bare::{cpu, println};
use spec::vmx::capability::{EptVpidCap, basic, misc};
use spec::vmx::exit_reason::exit_reason_flags;
use spec::vmx::{CheckGroup, EntryCheck};
use spec::x86::msr;

/// On which processors a case says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// On all that have the controls.
    Always,
    /// IA32_VMX_EPT_VPID_CAP has these bits.
    EptVpid(u64),
    /// IA32_VMX_EPT_VPID_CAP has none of these bits.
    NoEptVpid(u64),
    /// IA32_VMX_MISC has these bits.
    Misc(u64),
    /// IA32_VMX_MISC has none of these bits.
    NoMisc(u64),
    /// IA32_VMX_BASIC has none of these bits.
    NoBasic(u64),
}

impl When {
    fn obstacle(self) -> Option<Obstacle> {
        let has = |number, bits| cpu::read_msr(number).unwrap_or(0) & bits != 0;
        let (holds, what) = match self {
            When::Always => return None,
            When::EptVpid(bits) => (has(msr::VMX_EPT_VPID_CAP, bits), ept_name(bits)),
            When::NoEptVpid(bits) => (!has(msr::VMX_EPT_VPID_CAP, bits), "a processor without it"),
            When::Misc(misc::ACTIVITY_HLT) => (has(msr::VMX_MISC, misc::ACTIVITY_HLT), "activity state HLT"),
            When::Misc(bits) => (has(msr::VMX_MISC, bits), "a bit of IA32_VMX_MISC"),
            When::NoMisc(bits) => (!has(msr::VMX_MISC, bits), "a processor without it"),
            When::NoBasic(basic::ANY_ERROR_CODE) => {
                (!has(msr::VMX_BASIC, basic::ANY_ERROR_CODE), "a processor with fixed error codes")
            }
            When::NoBasic(bits) => (!has(msr::VMX_BASIC, bits), "a processor without it"),
        };
        if holds { None } else { Some(Obstacle::Missing(what)) }
    }
}

fn ept_name(bits: u64) -> &'static str {
    EptVpidCap::NAMED.iter().find(|(bit, _)| bits & bit != 0).map_or("a bit of IA32_VMX_EPT_VPID_CAP", |(_, name)| name)
}

/// A check, a VMCS that just passes it, and one that fails it.
#[derive(Clone, Copy, Debug)]
pub struct CheckCase {
    /// The check.
    pub check: EntryCheck,
    /// The guest's mode.
    pub base: Base,
    /// On which processors.
    pub when: When,
    /// What both VMCSs have.
    pub with: &'static [Change],
    /// What the one that passes has besides.
    pub pass: &'static [Change],
    /// What the one that fails has besides.
    pub fail: &'static [Change],
}

/// A case in a 64-bit guest.
const fn case(
    check: EntryCheck,
    with: &'static [Change],
    pass: &'static [Change],
    fail: &'static [Change],
) -> CheckCase {
    CheckCase { check, base: Base::Long, when: When::Always, with, pass, fail }
}

impl CheckCase {
    const fn on(self, base: Base) -> Self {
        Self { base, ..self }
    }

    const fn when(self, when: When) -> Self {
        Self { when, ..self }
    }
}

/// A check that no VMCS can be seen to fail here, and why. When what it needs is announced, it must have a case.
#[derive(Clone, Copy, Debug)]
pub struct Unraisable {
    /// The check.
    pub check: EntryCheck,
    /// Why.
    pub why: &'static str,
}

const fn never(check: EntryCheck, why: &'static str) -> Unraisable {
    Unraisable { check, why }
}

/// Checks that others always come before, whatever the processor.
pub const UNRAISABLE: &[Unraisable] = &[
    never(EntryCheck::SmmControlsExclude, "outside SMM either control alone fails SmmControlsOutsideSmm"),
    never(EntryCheck::WaitForSipiEntryToSmm, "outside SMM \"entry to SMM\" fails SmmControlsOutsideSmm"),
    never(EntryCheck::SmiEntryToSmm, "outside SMM \"entry to SMM\" fails SmmControlsOutsideSmm"),
    never(EntryCheck::Host32NoIa32eGuest, "OutsideIa32eMode and HostAddressSpaceSizeInIa32eMode come before it"),
];

/// Every case.
pub fn cases() -> impl Iterator<Item = &'static CheckCase> {
    [controls::CASES, host::CASES, guest::CASES, segments::CASES, non_register::CASES, msr_loading::CASES]
        .into_iter()
        .flatten()
}

/// The exit qualification of a failure (SDM Vol. 3C, 27.8).
fn qualification(check: EntryCheck) -> u64 {
    match check {
        EntryCheck::PdpteReserved => 2,
        EntryCheck::LinkPointerAlignment
        | EntryCheck::LinkPointerWidth
        | EntryCheck::LinkPointerRevision
        | EntryCheck::LinkPointerShadow
        | EntryCheck::LinkPointerCurrent => 4,
        // The second entry of the list: the first one can be loaded.
        _ if check.group() == CheckGroup::MsrLoading => 2,
        _ => 0,
    }
}

/// Runs every case, those in x2APIC mode or the others.
pub fn run(trial: &mut Trial, report: &mut Report, x2apic: bool) {
    for (index, case) in cases().enumerate().filter(|(_, case)| crate::needs_x2apic(case.with) == x2apic) {
        let number = cases().take(index).filter(|other| other.check == case.check).count();
        run_case(trial, report, case, number);
    }
}

/// Says which checks have no case.
pub fn find_missing(report: &mut Report) {
    for check in EntryCheck::ALL {
        let has_case = cases().any(|case| case.check == *check);
        match UNRAISABLE.iter().find(|row| row.check == *check) {
            None if !has_case => report.fail("check", check.name(), 0, "has no case"),
            Some(_) if has_case => report.fail("check", check.name(), 0, "has a case and a reason to have none"),
            Some(row) => println!("none check {}: {}", check.name(), row.why),
            None => {}
        }
    }
}

fn run_case(trial: &mut Trial, report: &mut Report, case: &CheckCase, number: usize) {
    let name = case.check.name();
    let entered = match enter_both(trial, report, case) {
        Ok(entered) => entered,
        Err(obstacle) => return report.skip("check", name, number, obstacle),
    };
    let ([(seen, Err(what)), _] | [_, (seen, Err(what))]) = entered else {
        return report.ok("check", name, number);
    };
    report.fail("check", name, number, format_args!("{what}: {seen}"));
}

type Entered = (Outcome, Result<(), &'static str>);

/// Enters the guest of the VMCS that should fail and of the one that should pass; what came of it and what is wrong with that.
fn enter_both(trial: &mut Trial, report: &Report, case: &CheckCase) -> Result<[Entered; 2], Obstacle> {
    if let Some(obstacle) = case.when.obstacle() {
        return Err(obstacle);
    }
    trial.prepare(case.base)?;
    trial.apply(case.with)?;
    trial.apply(case.fail)?;
    let failing = trial.enter();
    report.failed_check(case.check as u16);
    let verdict = failed_as_the_manual_says(trial, case.check, failing);
    trial.prepare(case.base)?;
    trial.apply(case.with)?;
    trial.apply(case.pass)?;
    let passing = trial.enter();
    let passed = matches!(passing, Outcome::Exit(exit) if exit.reason & exit_reason_flags::ENTRY_FAILURE == 0);
    let other = if passed { Ok(()) } else { Err("the VMCS that should pass fails") };
    Ok([(failing, verdict), (passing, other)])
}

/// What is wrong with the failure of `check`, and with the state that it leaves.
fn failed_as_the_manual_says(trial: &mut Trial, check: EntryCheck, outcome: Outcome) -> Result<(), &'static str> {
    if let Some(error) = check.group().instruction_error() {
        return match outcome {
            Outcome::Failed(failure) if failure.is(error) => Ok(()),
            _ => Err("no VMfailValid with the error of its group"),
        };
    }
    let Outcome::Exit(exit) = outcome else { return Err("no VM-entry failure") };
    let reason = check.group().exit_reason().map_or(0, |reason| reason as u32) | exit_reason_flags::ENTRY_FAILURE;
    if exit.reason != reason {
        return Err("another exit reason");
    }
    if exit.qualification != qualification(check) {
        return Err("another exit qualification");
    }
    // 27.8: the host's state is loaded, the launch state stays.
    let seen = trial.hypervisor.host_seen();
    if seen.rsp != state::HOST_RSP || seen.rflags & !0x10000 != 2 {
        return Err("the host's RSP or RFLAGS is not that of the VMCS");
    }
    if trial.hypervisor.is_launched() {
        return Err("the VMCS is launched");
    }
    Ok(())
}
