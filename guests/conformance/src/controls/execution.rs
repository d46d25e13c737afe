//! Pin-based and primary processor-based VM-execution controls.

use super::{ControlCase, Effect, Verdict, case, expect, to_the_end};
use crate::change::Change::{Feature, Memory, Or, Page, Register, RegisterPage, Set, Unsupported};
use crate::code;
use crate::trial::{Outcome, Trial};
use bare::vmx::state::Word;
use bare::{exceptions, vmx};
use spec::vmx::{
    ExitControls as X, ExitReason as R, Interruptibility, PinBasedControls as P, PrimaryControls as P1,
    SecondaryControls as P2, VmInstructionError, VmcsField as F,
};

const APIC: u64 = 0xfee0_0000;
const NMI_TO_0: u64 = 0x4400;
const SELF: u64 = 0x4_0000;
const RAX: usize = 0;
const RCX: usize = 1;
const RSI: usize = 6;
const RDI: usize = 7;
const NMI: u8 = 2;

const fn pin(bit: u32, changes: &'static [crate::change::Change], effect: Effect) -> ControlCase {
    case(Word::Pin, bit as u64, changes, effect)
}

const fn primary(bit: u32, changes: &'static [crate::change::Change], effect: Effect) -> ControlCase {
    case(Word::Primary, bit as u64, changes, effect)
}

pub(super) const CASES: &[ControlCase] = &[
    pin(
        P::EXTERNAL_INTERRUPT_EXITING,
        &[Set(F::GUEST_RFLAGS, 0x202), Register(RDI, APIC), Register(RSI, SELF | 0x40)],
        Effect::Seen(external_interrupt),
    ),
    pin(P::NMI_EXITING, &[Register(RDI, APIC), Register(RSI, NMI_TO_0)], Effect::Seen(nmi)),
    // Both with blocking by NMI: with virtual NMIs it is virtual NMIs that are blocked.
    pin(
        P::VIRTUAL_NMIS,
        &[
            Or(F::PIN_BASED_CONTROLS, P::NMI_EXITING as u64),
            Set(F::GUEST_INTERRUPTIBILITY, Interruptibility::NMI as u64),
            Register(RDI, APIC),
            Register(RSI, NMI_TO_0),
        ],
        Effect::Seen(virtual_nmis),
    ),
    pin(P::PREEMPTION_TIMER, &[Set(F::PREEMPTION_TIMER, 16)], Effect::Seen(preemption_timer)),
    pin(
        P::POSTED_INTERRUPTS,
        &[
            Or(F::PRIMARY_CONTROLS, P1::USE_TPR_SHADOW as u64),
            Or(F::PIN_BASED_CONTROLS, P::EXTERNAL_INTERRUPT_EXITING as u64),
            Or(F::SECONDARY_CONTROLS, P2::VIRTUAL_INTERRUPT_DELIVERY as u64),
            Or(F::EXIT_CONTROLS, X::ACKNOWLEDGE_INTERRUPT_ON_EXIT as u64),
            Page(F::VIRTUAL_APIC_ADDRESS, 0, 0),
            Page(F::POSTED_INTERRUPT_DESCRIPTOR, 1, 0),
            Set(F::POSTED_INTERRUPT_NOTIFICATION_VECTOR, 0xf2),
            // Vector 50H is posted, with a notification outstanding.
            Memory(1, 8, 1 << 16),
            Memory(1, 32, 1),
            Set(F::GUEST_RFLAGS, 0x202),
            Register(RDI, APIC),
            Register(RSI, SELF | 0xf2),
        ],
        Effect::Seen(posted_interrupts),
    ),
    primary(
        P1::INTERRUPT_WINDOW_EXITING,
        &[Set(F::GUEST_RFLAGS, 0x202)],
        Effect::Exits(R::InterruptWindow, code::nops),
    ),
    primary(P1::USE_TSC_OFFSETTING, &[Set(F::TSC_OFFSET, 1 << 60)], Effect::Seen(tsc_offsetting)),
    primary(P1::HLT_EXITING, &[Or(F::PIN_BASED_CONTROLS, P::PREEMPTION_TIMER as u64)], Effect::Seen(hlt)),
    primary(P1::INVLPG_EXITING, &[RegisterPage(RDI, 0, 0)], Effect::Exits(R::Invlpg, code::invlpg)),
    primary(P1::MWAIT_EXITING, &[Feature(1, 0, 2, 3, "MONITOR")], Effect::Seen(mwait)),
    primary(P1::RDPMC_EXITING, &[], Effect::Seen(rdpmc)),
    primary(P1::RDTSC_EXITING, &[], Effect::Exits(R::Rdtsc, code::rdtsc)),
    primary(P1::CR3_LOAD_EXITING, &[], Effect::Seen(cr3_load)),
    primary(P1::CR3_STORE_EXITING, &[], Effect::Exits(R::CrAccess, code::mov_from_cr3)),
    primary(P1::ACTIVATE_TERTIARY_CONTROLS, &[Unsupported(F::TERTIARY_CONTROLS)], Effect::Seen(checked)),
    primary(P1::CR8_LOAD_EXITING, &[], Effect::Exits(R::CrAccess, code::mov_to_cr8)),
    primary(P1::CR8_STORE_EXITING, &[], Effect::Exits(R::CrAccess, code::mov_from_cr8)),
    primary(
        P1::USE_TPR_SHADOW,
        &[Page(F::VIRTUAL_APIC_ADDRESS, 0, 0), Memory(0, 0x80, 0x50)],
        Effect::Seen(tpr_shadow),
    ),
    primary(
        P1::NMI_WINDOW_EXITING,
        &[Or(F::PIN_BASED_CONTROLS, (P::NMI_EXITING | P::VIRTUAL_NMIS) as u64)],
        Effect::Exits(R::NmiWindow, code::nops),
    ),
    primary(P1::MOV_DR_EXITING, &[], Effect::Exits(R::DrAccess, code::mov_from_dr7)),
    primary(P1::UNCONDITIONAL_IO_EXITING, &[], Effect::Exits(R::Io, code::out_immediate)),
    primary(
        P1::USE_IO_BITMAPS,
        &[Page(F::IO_BITMAP_A, 0, 0), Memory(0, 0x10, 1)],
        Effect::Exits(R::Io, code::out_immediate),
    ),
    // With bitmaps that do not name the port, "unconditional I/O exiting" says nothing.
    primary(
        P1::USE_IO_BITMAPS,
        &[Or(F::PRIMARY_CONTROLS, P1::UNCONDITIONAL_IO_EXITING as u64)],
        Effect::Seen(io_bitmaps_override),
    ),
    primary(P1::MONITOR_TRAP_FLAG, &[], Effect::Exits(R::MonitorTrapFlag, code::nops)),
    primary(P1::USE_MSR_BITMAPS, &[Register(RCX, 0x10)], Effect::Seen(msr_bitmaps)),
    primary(
        P1::MONITOR_EXITING,
        &[Feature(1, 0, 2, 3, "MONITOR"), RegisterPage(RAX, 0, 0)],
        Effect::Exits(R::Monitor, code::monitor),
    ),
    primary(P1::PAUSE_EXITING, &[], Effect::Exits(R::Pause, code::pause)),
    primary(P1::ACTIVATE_SECONDARY_CONTROLS, &[Unsupported(F::SECONDARY_CONTROLS)], Effect::Seen(checked)),
];

fn external_interrupt(trial: &mut Trial, on: bool) -> Verdict {
    trial.guest_code(code::send);
    let outcome = trial.enter();
    let right = if on { outcome.is(R::ExternalInterrupt) } else { outcome.delivered() == Some(0x40) };
    expect(right, "the interrupt does something else", outcome)
}

fn nmi(trial: &mut Trial, on: bool) -> Verdict {
    trial.guest_code(code::send);
    let outcome = trial.enter();
    let right = if on { outcome.is(R::ExceptionOrNmi) } else { outcome.delivered() == Some(NMI) };
    expect(right, "the NMI does something else", outcome)
}

fn virtual_nmis(trial: &mut Trial, on: bool) -> Verdict {
    trial.guest_code(code::send);
    let outcome = trial.enter();
    if on {
        return expect(outcome.is(R::ExceptionOrNmi), "virtual-NMI blocking blocks NMIs", outcome);
    }
    expect(outcome.is_done(), "blocking by NMI does not block NMIs", outcome)?;
    bare::cpu::unblock_nmis();
    expect(exceptions::take_interrupt() == Some(NMI), "the blocked NMI is lost", outcome)
}

fn preemption_timer(trial: &mut Trial, on: bool) -> Verdict {
    trial.guest_code(code::count);
    let outcome = trial.enter();
    expect(if on { outcome.is(R::PreemptionTimer) } else { outcome.is_done() }, "another end", outcome)
}

fn posted_interrupts(trial: &mut Trial, on: bool) -> Verdict {
    trial.guest_code(code::send);
    let outcome = trial.enter();
    let right = if on { outcome.delivered() == Some(0x50) } else { outcome.is(R::ExternalInterrupt) };
    expect(right, "the notification does something else", outcome)
}

fn tsc_offsetting(trial: &mut Trial, on: bool) -> Verdict {
    let outcome = to_the_end(trial, code::rdtsc)?;
    expect((trial.registers[RAX] >> 60 == 1) == on, "RDTSC does not show it", outcome)
}

/// A guest that is halted: only the preemption timer ends it.
fn hlt(trial: &mut Trial, on: bool) -> Verdict {
    trial.guest_code(code::hlt);
    let outcome = trial.enter();
    let halted = outcome.is(R::PreemptionTimer) && vmx::read(F::GUEST_ACTIVITY_STATE) == 1;
    expect(if on { outcome.is(R::Hlt) } else { halted }, "another end", outcome)
}

/// MWAIT without MONITOR before it does not wait.
fn mwait(trial: &mut Trial, on: bool) -> Verdict {
    trial.guest_code(code::mwait);
    let outcome = trial.enter();
    let waited = outcome.is_done() || outcome.is(R::PreemptionTimer);
    expect(if on { outcome.is(R::Mwait) } else { waited }, "another end", outcome)
}

/// There may be no counters, which is #GP.
fn rdpmc(trial: &mut Trial, on: bool) -> Verdict {
    trial.guest_code(code::rdpmc);
    let outcome = trial.enter();
    let ran = outcome.is_done() || outcome.delivered() == Some(13);
    expect(if on { outcome.is(R::Rdpmc) } else { ran }, "another end", outcome)
}

fn cr3_load(trial: &mut Trial, on: bool) -> Verdict {
    trial.registers[RAX] = vmx::page_tables();
    trial.guest_code(code::mov_to_cr3);
    let outcome = trial.enter();
    expect(if on { outcome.is(R::CrAccess) } else { outcome.is_done() }, "another end", outcome)?;
    // A CR3-target value does not exit.
    trial.hypervisor.clear().map_err(|_| ("VMCLEAR fails", outcome))?;
    vmx::write(F::CR3_TARGET_0, vmx::page_tables());
    vmx::write(F::CR3_TARGET_COUNT, 1);
    to_the_end(trial, code::mov_to_cr3).map(|_| ())
}

/// The other word of controls has a reserved bit, which fails the entry only where the word is in force.
fn checked(trial: &mut Trial, on: bool) -> Verdict {
    let outcome: Outcome = trial.enter();
    let right = if on { outcome.failed_with(VmInstructionError::InvalidControls) } else { outcome.is_done() };
    expect(right, "the word's check is not as the control says", outcome)
}

fn tpr_shadow(trial: &mut Trial, on: bool) -> Verdict {
    let outcome = to_the_end(trial, code::mov_from_cr8)?;
    expect(trial.registers[RAX] == if on { 5 } else { 0 }, "CR8 is another", outcome)
}

fn io_bitmaps_override(trial: &mut Trial, on: bool) -> Verdict {
    trial.guest_code(code::out_immediate);
    let outcome = trial.enter();
    expect(if on { outcome.is_done() } else { outcome.is(R::Io) }, "another end", outcome)
}

fn msr_bitmaps(trial: &mut Trial, on: bool) -> Verdict {
    trial.guest_code(code::rdmsr);
    let outcome = trial.enter();
    expect(if on { outcome.is_done() } else { outcome.is(R::Rdmsr) }, "another end", outcome)
}
