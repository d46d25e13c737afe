//! Processor features that VT-x loads, saves and intercepts, on the model that has them all.

use super::tests::Host;
use crate::models::Model;
use spec::vmx::{EntryControls, ExitControls, ExitReason, SecondaryExitControls, VmcsField as F};
use spec::x86::msr::{self, SpecCtrl};
use spec::x86::{CetControl, Cr0, Cr4};

const CPUID: &[u8] = &[0x0f, 0xa2];

fn host() -> Host {
    Host::with_model(Model::named("full").unwrap())
}

#[test]
fn cet_state_is_loaded_when_asked_and_always_saved() {
    let mut host = host();
    host.set(F::GUEST_S_CET, CetControl::WR_SHSTK_EN);
    host.set(F::GUEST_SSP, 0x1000);
    host.set(F::HOST_SSP, 0x2000);
    host.machine.cpu.ssp = 0x3000;
    assert_eq!(host.enter(CPUID, 5), Some(ExitReason::Cpuid));
    assert_eq!((host.get(F::GUEST_S_CET), host.get(F::GUEST_SSP), host.machine.cpu.ssp), (0, 0x3000, 0x3000));
    host.add(F::ENTRY_CONTROLS, EntryControls::LOAD_CET_STATE);
    host.add(F::EXIT_CONTROLS, ExitControls::LOAD_CET_STATE);
    host.set(F::GUEST_S_CET, CetControl::WR_SHSTK_EN);
    host.set(F::GUEST_SSP, 0x1000);
    host.set(F::GUEST_INTERRUPT_SSP_TABLE, 0x5000);
    host.set(F::HOST_S_CET, CetControl::NO_TRACK_EN);
    // rdmsr of IA32_S_CET would exit: the guest's own instruction shows SSP.
    host.set(F::GUEST_CR4, host.get(F::GUEST_CR4) | Cr4::CET);
    host.set(F::GUEST_CR0, host.get(F::GUEST_CR0) | Cr0::WP);
    host.set(F::GUEST_S_CET, CetControl::SH_STK_EN);
    assert_eq!(host.enter(&[0xf3, 0x48, 0x0f, 0x1e, 0xc9, 0x0f, 0xa2], 5), Some(ExitReason::Cpuid)); // rdsspq rcx; cpuid
    assert_eq!(host.machine.cpu.regs[1], 0x1000);
    assert_eq!((host.get(F::GUEST_S_CET), host.get(F::GUEST_INTERRUPT_SSP_TABLE)), (CetControl::SH_STK_EN, 0x5000));
    assert_eq!((host.machine.cpu.msrs.s_cet, host.machine.cpu.ssp), (CetControl::NO_TRACK_EN, 0x2000));
}

#[test]
fn protection_keys_of_supervisor_pages_are_loaded_and_saved() {
    let mut host = host();
    host.machine.cpu.msrs.pkrs = 7;
    host.set(F::GUEST_PKRS, 1);
    host.set(F::HOST_PKRS, 2);
    assert_eq!(host.enter(CPUID, 5), Some(ExitReason::Cpuid));
    assert_eq!((host.get(F::GUEST_PKRS), host.machine.cpu.msrs.pkrs), (7, 7));
    host.add(F::ENTRY_CONTROLS, EntryControls::LOAD_PKRS);
    host.add(F::EXIT_CONTROLS, ExitControls::LOAD_PKRS);
    host.set(F::GUEST_PKRS, 1);
    assert_eq!(host.enter(CPUID, 5), Some(ExitReason::Cpuid));
    assert_eq!((host.get(F::GUEST_PKRS), host.machine.cpu.msrs.pkrs), (1, 2));
}

#[test]
fn spec_ctrl_is_loaded_by_its_controls_and_always_saved() {
    let mut host = host();
    host.set(F::GUEST_SPEC_CTRL, SpecCtrl::IBRS);
    host.set(F::HOST_SPEC_CTRL, SpecCtrl::STIBP);
    assert_eq!(host.enter(CPUID, 5), Some(ExitReason::Cpuid));
    assert_eq!((host.get(F::GUEST_SPEC_CTRL), host.machine.cpu.msrs.spec_ctrl), (0, 0));
    host.add(F::ENTRY_CONTROLS, EntryControls::LOAD_SPEC_CTRL);
    host.set(F::GUEST_SPEC_CTRL, SpecCtrl::IBRS);
    assert_eq!(host.enter(CPUID, 5), Some(ExitReason::Cpuid));
    assert_eq!((host.get(F::GUEST_SPEC_CTRL), host.machine.cpu.msrs.spec_ctrl), (SpecCtrl::IBRS, SpecCtrl::IBRS));
    host.set(F::SECONDARY_EXIT_CONTROLS, SecondaryExitControls::LOAD_SPEC_CTRL);
    assert_eq!(host.enter(CPUID, 5), Some(ExitReason::Cpuid));
    assert_eq!(host.machine.cpu.msrs.spec_ctrl, SpecCtrl::IBRS, "the word is not in force");
    host.add(F::EXIT_CONTROLS, ExitControls::ACTIVATE_SECONDARY_CONTROLS);
    assert_eq!(host.enter(CPUID, 5), Some(ExitReason::Cpuid));
    assert_eq!((host.get(F::GUEST_SPEC_CTRL), host.machine.cpu.msrs.spec_ctrl), (SpecCtrl::IBRS, SpecCtrl::STIBP));
}

#[test]
fn a_guest_that_waits_for_endbranch_goes_on_waiting_after_an_exit() {
    let mut host = host();
    host.add(F::ENTRY_CONTROLS, EntryControls::LOAD_CET_STATE);
    host.add(F::EXIT_CONTROLS, ExitControls::LOAD_CET_STATE);
    host.set(F::GUEST_CR4, host.get(F::GUEST_CR4) | Cr4::CET);
    host.set(F::GUEST_CR0, host.get(F::GUEST_CR0) | Cr0::WP);
    host.set(F::GUEST_S_CET, CetControl::ENDBR_EN | CetControl::TRACKER);
    host.set(F::EXCEPTION_BITMAP, 1 << 21);
    assert_eq!(host.enter(CPUID, 5), Some(ExitReason::ExceptionOrNmi));
    assert_eq!((host.get(F::EXIT_INTERRUPTION_INFO), host.get(F::EXIT_INTERRUPTION_ERROR_CODE)), (0x8000_0b15, 3));
    assert_eq!(host.enter(&[0xf3, 0x0f, 0x1e, 0xfa, 0x0f, 0xa2], 5), Some(ExitReason::Cpuid)); // endbr64; cpuid
    assert_eq!(host.get(F::GUEST_S_CET), CetControl::ENDBR_EN);
}

#[test]
fn perf_global_ctrl_is_loaded_and_saved_by_its_controls() {
    let mut host = host();
    let control = |host: &mut Host| host.machine.cpu.read_msr(msr::PERF_GLOBAL_CTRL);
    host.set(F::GUEST_PERF_GLOBAL_CTRL, 1 << 32);
    host.set(F::HOST_PERF_GLOBAL_CTRL, 2);
    assert_eq!(host.enter(CPUID, 5), Some(ExitReason::Cpuid));
    assert_eq!((host.get(F::GUEST_PERF_GLOBAL_CTRL), control(&mut host)), (1 << 32, Some(0xf)));
    host.add(F::ENTRY_CONTROLS, EntryControls::LOAD_PERF_GLOBAL_CTRL);
    host.add(F::EXIT_CONTROLS, ExitControls::LOAD_PERF_GLOBAL_CTRL);
    assert_eq!(host.enter(CPUID, 5), Some(ExitReason::Cpuid));
    assert_eq!((host.get(F::GUEST_PERF_GLOBAL_CTRL), control(&mut host)), (1 << 32, Some(2)));
    host.set(F::GUEST_PERF_GLOBAL_CTRL, 4);
    host.set(F::ENTRY_CONTROLS, host.get(F::ENTRY_CONTROLS) & !u64::from(EntryControls::LOAD_PERF_GLOBAL_CTRL));
    host.add(F::EXIT_CONTROLS, ExitControls::SAVE_PERF_GLOBAL_CTRL);
    assert_eq!(host.enter(CPUID, 5), Some(ExitReason::Cpuid));
    assert_eq!(host.get(F::GUEST_PERF_GLOBAL_CTRL), 2);
}
