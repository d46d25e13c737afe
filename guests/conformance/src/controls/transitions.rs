//! VM-exit and VM-entry controls.

use super::{ControlCase, Effect, Verdict, case, expect, to_the_end};
use crate::change::Change::{self, Or, Register, Set, Unsupported};
use crate::code;
use crate::trial::{Base, Trial};
use bare::vmx::state::Word;
use bare::{cpu, vmx};
use spec::vmx::exit_reason::exit_reason_flags;
use spec::vmx::{
    EntryControls as N, ExitControls as X, ExitReason as R, PinBasedControls as P, PrimaryControls as P1,
    SecondaryExitControls as X2, VmInstructionError, VmcsField as F,
};
use spec::x86::Efer;
use spec::x86::msr::{self, SpecCtrl};

const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;
const RDI: usize = 7;
const RSI: usize = 6;
/// Two orders of memory types, neither that after reset.
const PAT_A: u64 = 0x0606_0606_0606_0606;
const PAT_B: u64 = 0x0004_0107_0605_0006;
const MSR_BITMAPS: Change = Or(F::PRIMARY_CONTROLS, P1::USE_MSR_BITMAPS as u64);

const fn exit(bit: u32, changes: &'static [Change], effect: Effect) -> ControlCase {
    case(Word::Exit, bit as u64, changes, effect)
}

const fn exit2(bit: u64, changes: &'static [Change], effect: Effect) -> ControlCase {
    case(Word::SecondaryExit, bit, changes, effect)
}

const fn entry(bit: u32, changes: &'static [Change], effect: Effect) -> ControlCase {
    case(Word::Entry, bit as u64, changes, effect)
}

pub(super) const CASES: &[ControlCase] = &[
    exit(X::SAVE_DEBUG_CONTROLS, &[Register(RAX, 0x402)], Effect::Seen(save_debug)),
    exit(X::HOST_ADDRESS_SPACE_SIZE, &[], Effect::Seen(host_address_space_size)),
    exit(
        X::LOAD_PERF_GLOBAL_CTRL,
        &[Set(F::HOST_PERF_GLOBAL_CTRL, 1)],
        Effect::Seen(|trial, on| host_msr(trial, on, msr::PERF_GLOBAL_CTRL, 1)),
    ),
    exit(
        X::ACKNOWLEDGE_INTERRUPT_ON_EXIT,
        &[
            Or(F::PIN_BASED_CONTROLS, P::EXTERNAL_INTERRUPT_EXITING as u64),
            Set(F::GUEST_RFLAGS, 0x202),
            Register(RDI, 0xfee0_0000),
            Register(RSI, 0x4_0040),
        ],
        Effect::Seen(acknowledge),
    ),
    exit(
        X::SAVE_PAT,
        &[MSR_BITMAPS, Set(F::GUEST_PAT, PAT_A), WRITE_PAT[0], WRITE_PAT[1], WRITE_PAT[2]],
        Effect::Seen(save_pat),
    ),
    exit(X::LOAD_PAT, &[Set(F::HOST_PAT, PAT_A)], Effect::Seen(|trial, on| host_msr(trial, on, msr::PAT, PAT_A))),
    exit(
        X::SAVE_EFER,
        &[MSR_BITMAPS, Set(F::GUEST_EFER, 0), Register(RCX, msr::EFER as u64), Register(RAX, 0x501)],
        Effect::Seen(save_efer),
    ),
    exit(X::LOAD_EFER, &[Or(F::HOST_EFER, Efer::SCE)], Effect::Seen(load_host_efer)),
    exit(
        X::SAVE_PREEMPTION_TIMER,
        &[Or(F::PIN_BASED_CONTROLS, P::PREEMPTION_TIMER as u64), Set(F::PREEMPTION_TIMER, 0x1000_0000)],
        Effect::Seen(save_timer),
    ),
    exit(X::LOAD_CET_STATE, &[Set(F::HOST_S_CET, 1)], Effect::Seen(|trial, on| host_msr(trial, on, msr::S_CET, 1))),
    exit(X::LOAD_PKRS, &[Set(F::HOST_PKRS, 4)], Effect::Seen(|trial, on| host_msr(trial, on, msr::PKRS, 4))),
    exit(
        X::SAVE_PERF_GLOBAL_CTRL,
        &[MSR_BITMAPS, Register(RCX, msr::PERF_GLOBAL_CTRL as u64), Register(RAX, 1), Register(RDX, 0)],
        Effect::Seen(save_perf_global_ctrl),
    ),
    exit2(
        X2::LOAD_SPEC_CTRL,
        &[Set(F::HOST_SPEC_CTRL, SpecCtrl::IBRS)],
        Effect::Seen(|trial, on| host_msr(trial, on, msr::SPEC_CTRL, SpecCtrl::IBRS)),
    ),
    exit2(X2::PREMATURELY_BUSY_SHADOW_STACK, &[], Effect::Seen(no_busy_shadow_stack)),
    exit(X::ACTIVATE_SECONDARY_CONTROLS, &[Unsupported(F::SECONDARY_EXIT_CONTROLS)], Effect::Seen(checked)),
    entry(N::LOAD_DEBUG_CONTROLS, &[Set(F::GUEST_DR7, 0x408)], Effect::Seen(load_debug)),
    entry(N::IA32E_MODE_GUEST, &[Register(RAX, 10)], Effect::Seen(ia32e_mode)).on(Base::Pae),
    entry(
        N::LOAD_PERF_GLOBAL_CTRL,
        &[MSR_BITMAPS, Set(F::GUEST_PERF_GLOBAL_CTRL, 1), Register(RCX, msr::PERF_GLOBAL_CTRL as u64)],
        Effect::Seen(|trial, on| guest_msr(trial, on, 1)),
    ),
    entry(
        N::LOAD_PAT,
        &[MSR_BITMAPS, Set(F::GUEST_PAT, PAT_B), Register(RCX, msr::PAT as u64)],
        Effect::Seen(|trial, on| guest_msr(trial, on, PAT_B)),
    ),
    entry(
        N::LOAD_EFER,
        &[MSR_BITMAPS, Set(F::GUEST_EFER, 0x501), Register(RCX, msr::EFER as u64)],
        Effect::Seen(|trial, on| guest_msr(trial, on, 0x501)),
    ),
    entry(
        N::LOAD_CET_STATE,
        &[MSR_BITMAPS, Set(F::GUEST_S_CET, 1), Register(RCX, msr::S_CET as u64)],
        Effect::Seen(|trial, on| guest_msr(trial, on, 1)),
    ),
    entry(
        N::LOAD_PKRS,
        &[MSR_BITMAPS, Set(F::GUEST_PKRS, 4), Register(RCX, msr::PKRS as u64)],
        Effect::Seen(|trial, on| guest_msr(trial, on, 4)),
    ),
    entry(
        N::LOAD_SPEC_CTRL,
        &[MSR_BITMAPS, Set(F::GUEST_SPEC_CTRL, SpecCtrl::IBRS), Register(RCX, msr::SPEC_CTRL as u64)],
        Effect::Seen(|trial, on| guest_msr(trial, on, SpecCtrl::IBRS)),
    ),
];

const WRITE_PAT: [Change; 3] =
    [Register(RCX, msr::PAT as u64), Register(RAX, PAT_B & 0xffff_ffff), Register(RDX, PAT_B >> 32)];

fn save_debug(trial: &mut Trial, on: bool) -> Verdict {
    let outcome = to_the_end(trial, code::mov_to_dr7)?;
    expect(vmx::read(F::GUEST_DR7) == if on { 0x402 } else { 0x400 }, "DR7 in the VMCS is another", outcome)?;
    expect(cpu::read_dr7() == 0x400, "the host's DR7 is not 400H", outcome)
}

fn host_address_space_size(trial: &mut Trial, on: bool) -> Verdict {
    let outcome = trial.enter();
    let right = if on { outcome.is_done() } else { outcome.failed_with(VmInstructionError::InvalidHostState) };
    expect(right, "the check is not as the control says", outcome)
}

/// After the exit the host has `value` in an MSR, or what was there before, which is another.
fn host_msr(trial: &mut Trial, on: bool, number: u32, value: u64) -> Verdict {
    let before = cpu::read_msr(number).unwrap_or(0);
    let outcome = to_the_end(trial, code::nops)?;
    let right = cpu::read_msr(number) == Ok(if on { value } else { before });
    expect(right && before != value, "the host's MSR is another", outcome)
}

/// The guest reads `value` in the MSR that RCX names, or something else.
fn guest_msr(trial: &mut Trial, on: bool, value: u64) -> Verdict {
    let outcome = to_the_end(trial, code::rdmsr)?;
    expect((trial.registers[RAX] == value) == on, "the guest's MSR is another", outcome)
}

/// Neither setting makes an exit tell of a busy shadow stack where there is none.
fn no_busy_shadow_stack(trial: &mut Trial, _on: bool) -> Verdict {
    let outcome = to_the_end(trial, code::nops)?;
    let flags = outcome.exit().map_or(0, |exit| exit.reason) & exit_reason_flags::PREMATURELY_BUSY_SHADOW_STACK;
    expect(flags == 0, "the exit tells of a busy shadow stack", outcome)
}

fn acknowledge(trial: &mut Trial, on: bool) -> Verdict {
    trial.guest_code(code::send);
    let outcome = trial.enter();
    expect(outcome.is(R::ExternalInterrupt), "another end", outcome)?;
    let information = outcome.exit().map_or(0, |exit| exit.interruption);
    expect(information == if on { 0x8000_0040 } else { 0 }, "another interruption information", outcome)?;
    // What was not acknowledged is still there.
    cpu::admit_interrupts();
    let taken = bare::exceptions::take_interrupt();
    expect(taken == if on { None } else { Some(0x40) }, "the interrupt is not where it should be", outcome)
}

fn save_pat(trial: &mut Trial, on: bool) -> Verdict {
    let outcome = to_the_end(trial, code::wrmsr)?;
    expect(vmx::read(F::GUEST_PAT) == if on { PAT_B } else { PAT_A }, "the PAT in the VMCS is another", outcome)
}

fn save_efer(trial: &mut Trial, on: bool) -> Verdict {
    let outcome = to_the_end(trial, code::wrmsr)?;
    expect(vmx::read(F::GUEST_EFER) == if on { 0x501 } else { 0 }, "EFER in the VMCS is another", outcome)
}

fn save_perf_global_ctrl(trial: &mut Trial, on: bool) -> Verdict {
    let outcome = to_the_end(trial, code::wrmsr)?;
    let saved = vmx::read(F::GUEST_PERF_GLOBAL_CTRL);
    expect(saved == u64::from(on), "IA32_PERF_GLOBAL_CTRL in the VMCS is another", outcome)
}

fn load_host_efer(trial: &mut Trial, on: bool) -> Verdict {
    let outcome = to_the_end(trial, code::nops)?;
    let seen = cpu::read_msr(msr::EFER).unwrap_or(0) & Efer::SCE != 0;
    expect(seen == on, "the host's EFER is another", outcome)
}

fn save_timer(trial: &mut Trial, on: bool) -> Verdict {
    let outcome = to_the_end(trial, code::count)?;
    let left = vmx::read(F::PREEMPTION_TIMER);
    expect(if on { left < 0x1000_0000 } else { left == 0x1000_0000 }, "the timer's value is another", outcome)
}

fn checked(trial: &mut Trial, on: bool) -> Verdict {
    let outcome = trial.enter();
    let right = if on { outcome.failed_with(VmInstructionError::InvalidControls) } else { outcome.is_done() };
    expect(right, "the word's check is not as the control says", outcome)
}

fn load_debug(trial: &mut Trial, on: bool) -> Verdict {
    let outcome = to_the_end(trial, code::mov_from_dr7)?;
    expect(trial.registers[3] == if on { 0x408 } else { 0x400 }, "the guest's DR7 is another", outcome)
}

/// The same bytes of code do nothing in 64-bit mode, and decrement EAX twice in others.
fn ia32e_mode(trial: &mut Trial, on: bool) -> Verdict {
    if on {
        // A guest in IA-32e mode needs four levels of page tables, and 64-bit code.
        vmx::write(F::GUEST_CR3, vmx::page_tables());
        vmx::write(F::GUEST_CS_ACCESS_RIGHTS, vmx::state::CODE64);
        vmx::write(F::GUEST_EFER, vmx::read(F::GUEST_EFER) | Efer::LMA | Efer::LME);
    }
    let outcome = to_the_end(trial, code::nop_or_dec_eax_twice)?;
    expect(trial.registers[RAX] == if on { 10 } else { 8 }, "the code runs in another mode", outcome)
}
