//! Secondary and tertiary processor-based VM-execution controls.

use super::{ControlCase, Effect, INVALID_OPCODE, Verdict, case, expect, to_the_end};
use crate::change::Change::{
    self, Feature, Hole, HoleTable, Memory, Or, Page, Register, RegisterHole, RegisterPage, Revision, Set, X2apic,
};
use crate::code;
use crate::trial::{Base, Trial};
use bare::vmx::state::Word;
use bare::{cpu, memory, vmx};
use spec::vmx::ept::EptEntry;
use spec::vmx::exit_reason::exit_reason_flags;
use spec::vmx::{
    ExitReason as R, PinBasedControls as P, PrimaryControls as P1, SecondaryControls as P2, TertiaryControls as P3,
    VmInstructionError, VmcsField as F,
};
use spec::x86::{Cr0, Cr4};

const PRIMARY: F = F::PRIMARY_CONTROLS;
const SECONDARY: F = F::SECONDARY_CONTROLS;
const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;
const RDI: usize = 7;
const EPT: Change = Or(SECONDARY, P2::ENABLE_EPT as u64);
const TPR_SHADOW: Change = Or(PRIMARY, P1::USE_TPR_SHADOW as u64);
const MSR_BITMAPS: Change = Or(PRIMARY, P1::USE_MSR_BITMAPS as u64);

const fn secondary(bit: u32, changes: &'static [Change], effect: Effect) -> ControlCase {
    case(Word::Secondary, bit as u64, changes, effect)
}

pub(super) const CASES: &[ControlCase] = &[
    secondary(
        P2::VIRTUALIZE_APIC_ACCESSES,
        &[Page(F::APIC_ACCESS_ADDRESS, 0, 0), RegisterPage(RDI, 0, 0x20)],
        Effect::Exits(R::ApicAccess, code::load),
    ),
    secondary(
        P2::ENABLE_EPT,
        &[Hole(0), Register(RDI, crate::change::HOLE)],
        Effect::Exits(R::EptViolation, code::load),
    ),
    secondary(P2::DESCRIPTOR_TABLE_EXITING, &[RegisterPage(RDI, 0, 0)], Effect::Exits(R::GdtrIdtr, code::sgdt)),
    secondary(P2::DESCRIPTOR_TABLE_EXITING, &[], Effect::Exits(R::LdtrTr, code::sldt)),
    secondary(P2::ENABLE_RDTSCP, &[Feature(0x8000_0001, 0, 3, 27, "RDTSCP")], Effect::Defines(code::rdtscp)),
    secondary(P2::ENABLE_RDTSCP, &[Feature(7, 0, 2, 22, "RDPID")], Effect::Defines(code::rdpid)),
    secondary(
        P2::VIRTUALIZE_X2APIC_MODE,
        &[
            TPR_SHADOW,
            MSR_BITMAPS,
            X2apic,
            Page(F::VIRTUAL_APIC_ADDRESS, 0, 0),
            Memory(0, 0x80, 0x50),
            Register(RCX, 0x808),
        ],
        Effect::Seen(x2apic_mode),
    ),
    // A VPID of 0 fails the entry only where there are VPIDs.
    secondary(P2::ENABLE_VPID, &[Set(F::VPID, 0)], Effect::Seen(vpid)),
    secondary(P2::WBINVD_EXITING, &[], Effect::Exits(R::Wbinvd, code::wbinvd)),
    secondary(P2::UNRESTRICTED_GUEST, &[EPT], Effect::Seen(unrestricted_guest)).on(Base::Pae),
    secondary(
        P2::APIC_REGISTER_VIRTUALIZATION,
        &[
            TPR_SHADOW,
            Or(SECONDARY, P2::VIRTUALIZE_APIC_ACCESSES as u64),
            Page(F::VIRTUAL_APIC_ADDRESS, 0, 0),
            Page(F::APIC_ACCESS_ADDRESS, 1, 0),
            Memory(0, 0x30, 0x1234_5678),
            RegisterPage(RDI, 1, 0x30),
        ],
        Effect::Seen(apic_registers),
    ),
    secondary(
        P2::VIRTUAL_INTERRUPT_DELIVERY,
        &[
            TPR_SHADOW,
            Or(F::PIN_BASED_CONTROLS, P::EXTERNAL_INTERRUPT_EXITING as u64),
            Page(F::VIRTUAL_APIC_ADDRESS, 0, 0),
            Memory(0, 0x220, 1 << 16),
            Set(F::GUEST_INTERRUPT_STATUS, 0x50),
            Set(F::GUEST_RFLAGS, 0x202),
        ],
        Effect::Seen(virtual_interrupt),
    ),
    secondary(P2::PAUSE_LOOP_EXITING, &[Set(F::PLE_GAP, 0x1000), Set(F::PLE_WINDOW, 0x1000)], Effect::Seen(pause_loop)),
    secondary(P2::RDRAND_EXITING, &[], Effect::Exits(R::Rdrand, code::rdrand)),
    secondary(P2::ENABLE_INVPCID, &[RegisterPage(RDI, 0, 0), Register(RDX, 2)], Effect::Defines(code::invpcid)),
    secondary(P2::ENABLE_VM_FUNCTIONS, &[EPT], Effect::Seen(vm_functions)),
    secondary(
        P2::VMCS_SHADOWING,
        &[Page(F::VMCS_LINK_POINTER, 0, 0), Register(RCX, F::GUEST_CR0.0 as u64)],
        Effect::Seen(vmcs_shadowing),
    ),
    secondary(P2::RDSEED_EXITING, &[], Effect::Exits(R::Rdseed, code::rdseed)),
    secondary(
        P2::ENABLE_PML,
        &[EPT, Or(F::EPT_POINTER, 0x40), Page(F::PML_ADDRESS, 1, 0), Set(F::PML_INDEX, 5), RegisterHole(RDI, 0, 8)],
        Effect::Seen(page_modification_log),
    ),
    // A page without access: a convertible EPT violation.
    secondary(
        P2::EPT_VIOLATION_VE,
        &[EPT, Page(F::VE_INFORMATION_ADDRESS, 1, 0), Hole(0), RegisterHole(RDI, 0, 0)],
        Effect::Seen(virtualization_exception),
    ),
    secondary(
        P2::ENABLE_XSAVES,
        &[Feature(1, 0, 2, 26, "XSAVE"), Or(F::GUEST_CR4, Cr4::OSXSAVE), RegisterPage(RDI, 0, 0)],
        Effect::Defines(code::xsaves),
    ),
    // The guest is at privilege level 3, in pages that user-mode linear addresses may not be fetched from.
    secondary(P2::MODE_BASED_EXECUTE, USER, Effect::Exits(R::EptViolation, code::nops)),
    // A page that is not writable, whose sub-page permissions there are none of.
    secondary(
        P2::SUB_PAGE_WRITE,
        &[EPT, HoleTable(3, 0, SUB_PAGES), Page(F::SPP_TABLE_POINTER, 2, 0), RegisterHole(RDI, 0, 0)],
        Effect::Seen(sub_pages),
    ),
    secondary(
        P2::USE_TSC_SCALING,
        &[Or(PRIMARY, P1::USE_TSC_OFFSETTING as u64), Set(F::TSC_MULTIPLIER, 1 << 32)],
        Effect::Seen(tsc_scaling),
    ),
    secondary(P2::ENABLE_USER_WAIT, &[Feature(7, 0, 2, 5, "WAITPKG"), Register(RCX, 1)], Effect::Defines(code::tpause)),
    secondary(P2::BUS_LOCK_DETECTION, &[RegisterPage(RDI, 0, 0x3e)], Effect::Exits(R::BusLock, code::split_lock)),
    secondary(P2::INSTRUCTION_TIMEOUT, ENDLESS, Effect::Seen(instruction_timeout)).on(Base::Pae),
    // The table of the hypervisor maps the guest's PML4 read-only, but for the processor's own writes.
    case(
        Word::Tertiary,
        P3::EPT_PAGING_WRITE,
        &[EPT, HoleTable(3, 0, READ_ONLY | EptEntry::PAGING_WRITE)],
        Effect::Seen(paging_write),
    ),
    // A page that asks for paging structures with paging-write access, which there are none of.
    case(
        Word::Tertiary,
        P3::GUEST_PAGING_VERIFICATION,
        &[
            EPT,
            Or(F::TERTIARY_CONTROLS, P3::EPT_PAGING_WRITE),
            HoleTable(3, 0, READ_ONLY | EptEntry::VERIFY_GUEST_PAGING),
            RegisterHole(RDI, 0, 0),
        ],
        Effect::Exits(R::EptViolation, code::load),
    ),
    case(
        Word::Tertiary,
        P3::VIRTUALIZE_SPEC_CTRL,
        &[MSR_BITMAPS, Register(RCX, 0x48), Set(F::SPEC_CTRL_SHADOW, 0x1234)],
        Effect::Seen(spec_ctrl),
    ),
    case(
        Word::Tertiary,
        P3::IPI_VIRTUALIZATION,
        &[
            TPR_SHADOW,
            X2apic,
            MSR_BITMAPS,
            Or(SECONDARY, P2::VIRTUALIZE_X2APIC_MODE as u64),
            Page(F::PID_POINTER_TABLE, 1, 0),
            Set(F::LAST_PID_POINTER_INDEX, 0),
            // The only entry is not valid, so that sending to it exits.
            Register(RCX, 0x830),
            Register(RAX, 0x40),
        ],
        Effect::Exits(R::ApicWrite, code::wrmsr),
    ),
    // The table of the hypervisor maps nothing, so the first fetch is a page fault.
    case(
        Word::Tertiary,
        P3::ENABLE_HLAT,
        &[EPT, Page(F::HLAT_POINTER, 1, 0), Set(F::EXCEPTION_BITMAP, 1 << 14)],
        Effect::Exits(R::ExceptionOrNmi, code::nops),
    ),
];

const USER: &[Change] = &[
    EPT,
    Set(F::GUEST_CS_SELECTOR, 0x23),
    Set(F::GUEST_SS_SELECTOR, 0x2b),
    Set(F::GUEST_CS_ACCESS_RIGHTS, 0xa0fb),
    Set(F::GUEST_SS_ACCESS_RIGHTS, 0xc0f3),
];

/// Write-back, without write access, with sub-page permissions.
pub(crate) const SUB_PAGES: u64 = EptEntry::READ | EptEntry::EXECUTE | 6 << 3 | EptEntry::SUB_PAGE_WRITE;

/// Write-back, read access alone.
const READ_ONLY: u64 = EptEntry::READ | 6 << 3;

/// A guest at privilege level 3 that pushes onto a misaligned stack. Its handler of #AC has the same stack, so that the delivery of #AC
/// raises #AC.
pub(crate) const ENDLESS: &[Change] = &[
    Set(F::INSTRUCTION_TIMEOUT, 1000),
    Page(F::GUEST_GDTR_BASE, 0, 0),
    Memory(0, 0x18, 0x00cf_fb00_0000_ffff),
    Memory(0, 0x20, 0x00cf_f300_0000_ffff),
    Set(F::GUEST_GDTR_LIMIT, 0x27),
    Page(F::GUEST_IDTR_BASE, 1, 0),
    Memory(1, 17 * 8, 0x0000_ee00_001b_1000),
    Set(F::GUEST_IDTR_LIMIT, 0x8f),
    Set(F::GUEST_CS_SELECTOR, 0x1b),
    Set(F::GUEST_CS_ACCESS_RIGHTS, 0xc0fb),
    Set(F::GUEST_SS_SELECTOR, 0x23),
    Set(F::GUEST_SS_ACCESS_RIGHTS, 0xc0f3),
    Or(F::GUEST_CR0, Cr0::AM),
    Set(F::GUEST_RFLAGS, 0x4_0002),
    Page(F::GUEST_RSP, 2, 0x801),
];

/// Without the control the guest would never be left: then it does something else.
fn instruction_timeout(trial: &mut Trial, on: bool) -> Verdict {
    if !on {
        return to_the_end(trial, code::nops).map(|_| ());
    }
    trial.guest_code(code::push);
    let outcome = trial.enter();
    expect(outcome.is(R::InstructionTimeout), "another end", outcome)?;
    expect(vmx::read(F::IDT_VECTORING_INFO) == 0x8000_0b11, "#AC is not what was being delivered", outcome)
}

/// The accessed flags of the guest's PML4 are clear.
fn paging_write(trial: &mut Trial, on: bool) -> Verdict {
    memory::copy_code(trial.page(0), vmx::page_tables(), memory::PAGE);
    memory::write(trial.page(0), memory::read(trial.page(0)) & !0x20);
    let table = trial.places().in_hole(0);
    vmx::write(F::GUEST_CR3, table);
    let outcome = trial.enter();
    let accessed = memory::read(trial.page(0)) & 0x20 != 0;
    let right = if on { outcome.is_done() && accessed } else { outcome.is(R::EptViolation) && !accessed };
    expect(right, "another end, or another accessed flag", outcome)
}

fn spec_ctrl(trial: &mut Trial, on: bool) -> Verdict {
    let outcome = to_the_end(trial, code::rdmsr)?;
    expect((trial.registers[RAX] == 0x1234) == on, "the guest sees another value", outcome)
}

fn sub_pages(trial: &mut Trial, on: bool) -> Verdict {
    trial.guest_code(code::store);
    let outcome = trial.enter();
    expect(outcome.is(if on { R::SppEvent } else { R::EptViolation }), "another end", outcome)
}

fn x2apic_mode(trial: &mut Trial, on: bool) -> Verdict {
    let outcome = to_the_end(trial, code::rdmsr)?;
    expect(trial.registers[RAX] == if on { 0x50 } else { 0 }, "the task priority is another", outcome)
}

fn vpid(trial: &mut Trial, on: bool) -> Verdict {
    let outcome = trial.enter();
    let right = if on { outcome.failed_with(VmInstructionError::InvalidControls) } else { outcome.is_done() };
    expect(right, "the VPID's check is not as the control says", outcome)
}

/// A guest without paging.
fn unrestricted_guest(trial: &mut Trial, on: bool) -> Verdict {
    vmx::write(F::GUEST_CR0, vmx::read(F::GUEST_CR0) & !Cr0::PG);
    let outcome = trial.enter();
    let failed = R::InvalidGuestState as u32 | exit_reason_flags::ENTRY_FAILURE;
    let right = if on { outcome.is_done() } else { outcome.exit().is_some_and(|exit| exit.reason == failed) };
    expect(right, "paging is not as free as the control says", outcome)
}

fn apic_registers(trial: &mut Trial, on: bool) -> Verdict {
    trial.guest_code(code::load32);
    let outcome = trial.enter();
    if !on {
        return expect(outcome.is(R::ApicAccess), "another end", outcome);
    }
    let right = outcome.is_done() && trial.registers[RAX] == 0x1234_5678;
    expect(right, "the register does not come from the virtual-APIC page", outcome)
}

fn virtual_interrupt(trial: &mut Trial, on: bool) -> Verdict {
    trial.guest_code(code::nops);
    let outcome = trial.enter();
    expect(if on { outcome.delivered() == Some(0x50) } else { outcome.is_done() }, "another end", outcome)
}

fn pause_loop(trial: &mut Trial, on: bool) -> Verdict {
    vmx::write(F::PIN_BASED_CONTROLS, vmx::read(F::PIN_BASED_CONTROLS) & !u64::from(P::PREEMPTION_TIMER));
    trial.guest_code(code::pause_loop);
    let outcome = trial.enter();
    expect(if on { outcome.is(R::Pause) } else { outcome.is_done() }, "another end", outcome)
}

/// No function is enabled: VMFUNC exits, or is undefined.
fn vm_functions(trial: &mut Trial, on: bool) -> Verdict {
    trial.guest_code(code::vmfunc);
    let outcome = trial.enter();
    let right = if on { outcome.is(R::Vmfunc) } else { outcome.delivered() == Some(INVALID_OPCODE) };
    expect(right, "another end", outcome)
}

/// The bitmaps are zero: VMREAD reads the shadow VMCS.
fn vmcs_shadowing(trial: &mut Trial, on: bool) -> Verdict {
    let shadow = if on { 1 << 31 } else { 0 };
    let prepared = trial.apply(&[Revision(0, shadow)]);
    trial.guest_code(code::vmread);
    let outcome = trial.enter();
    let right = prepared.is_ok() && if on { outcome.is_done() } else { outcome.is(R::Vmread) };
    expect(right, "another end", outcome)
}

fn page_modification_log(trial: &mut Trial, on: bool) -> Verdict {
    let outcome = to_the_end(trial, code::store)?;
    let logged = memory::read(trial.page(1) + 8 * 5);
    let address = trial.places().in_hole(0);
    let right = if on {
        logged == address && vmx::read(F::PML_INDEX) == 4
    } else {
        logged == 0 && vmx::read(F::PML_INDEX) == 5
    };
    expect(right, "the log or its index is not as it should be", outcome)
}

fn virtualization_exception(trial: &mut Trial, on: bool) -> Verdict {
    trial.guest_code(code::load);
    let outcome = trial.enter();
    if !on {
        return expect(outcome.is(R::EptViolation), "another end", outcome);
    }
    expect(outcome.delivered() == Some(20), "no #VE", outcome)?;
    let information = trial.page(1);
    let address = trial.places().in_hole(0);
    let right = memory::read(information) == 0xffff_ffff_0000_0030
        && memory::read(information + 16) == address
        && memory::read(information + 24) == address;
    expect(right, "the virtualization-exception information is another", outcome)
}

/// The multiplier is 2 to the power of -16.
fn tsc_scaling(trial: &mut Trial, on: bool) -> Verdict {
    let before = cpu::timestamp();
    let outcome = to_the_end(trial, code::rdtsc)?;
    let seen = trial.registers[RAX];
    let right = if on { seen >= before >> 16 && seen <= cpu::timestamp() >> 16 } else { seen >= before };
    expect(right, "RDTSC does not show it", outcome)
}
