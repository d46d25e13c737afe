//! Any VMCS: after a VM entry that fails, the hypervisor's state is what the manual says; a guest that is entered runs for a while.

use crate::generate::Random;
use crate::input::Input;
use crate::processor::{CODE, Machine, STACK, Start};
use processor::cpu::Cpu;
use processor::models::Model;
use processor::segment::Segment;
use processor::vmx::Vmcs;
use processor::vmx::vmcs::REVISION;
use spec::vmx::exit_reason::exit_reason_flags;
use spec::vmx::{
    EntryControls, ExitControls, ExitReason, FieldType, PrimaryControls, SecondaryControls, SecondaryExitControls,
    VmcsField as F, Width,
};
use spec::x86::{Cr0, Cr4, Efer};
use std::sync::LazyLock;

const VMXON_REGION: u64 = 0x3_4000;
const VMCS_REGION: u64 = 0x3_5000;
/// Where a guest finds zeroes, and what the valid VMCS's addresses lead to.
const PAGE: u64 = 0x3_6000;
const EPT: u64 = 0x3_8000;
/// Areas of MSRs to load: the first entries can be, the third of the one and the second of the other cannot.
const ENTRY_MSRS: u64 = 0x3_7000;
const EXIT_MSRS: u64 = 0x3_7800;
const KERNEL_GS_BASE: u64 = 0xc000_0102;
const LSTAR: u64 = 0xc000_0082;
const FS_BASE: u64 = 0xc000_0100;
/// Where the host goes on: HLT.
const HOST: u64 = 0x1_4000;
const HOST_STACK: u64 = STACK - 0x1000;
const VMLAUNCH: &[u8] = &[0x0f, 0x01, 0xc2];
/// No exit has this reason: the field is as it was.
const NO_EXIT: u64 = 0x7fff_ffff;
/// Nanoseconds that an entered guest, and what comes after it, may run.
const BUDGET: u64 = 3000;

/// What an entry that fails by VMfail may not change.
#[derive(Debug, PartialEq)]
struct State {
    registers: [u64; 16],
    control: [u64; 5],
    segments: [Segment; 8],
    tables: [(u64, u16); 2],
    debug: [u64; 2],
}

impl State {
    fn of(cpu: &Cpu) -> Self {
        let segments = core::array::from_fn(|n| match n {
            6 => cpu.ldtr,
            7 => cpu.tr,
            _ => cpu.segs[n],
        });
        Self {
            registers: core::array::from_fn(|n| cpu.regs[n]),
            control: [cpu.cr0, cpu.cr2, cpu.cr3, cpu.cr4, cpu.efer],
            segments,
            tables: [(cpu.gdtr.base, cpu.gdtr.limit), (cpu.idtr.base, cpu.idtr.limit)],
            debug: [cpu.dr[7], cpu.msrs.debugctl],
        }
    }
}

/// A processor in VMX operation, with a valid VMCS: a 64-bit guest like the host, with EPT.
fn machine(model: Model) -> Machine {
    let mut machine = Machine::with_model(Start::Long(0), model);
    let ram = &machine.ram;
    for region in [VMXON_REGION, VMCS_REGION] {
        ram.write(region, &REVISION.to_le_bytes());
    }
    ram.write(EPT, &((EPT + 0x1000) | 7).to_le_bytes());
    ram.write(EPT + 0x1000, &0xb7u64.to_le_bytes());
    for (area, numbers) in [(ENTRY_MSRS, &[KERNEL_GS_BASE, LSTAR, FS_BASE]), (EXIT_MSRS, &[LSTAR, FS_BASE, LSTAR])] {
        for (at, number) in (area..).step_by(16).zip(numbers) {
            ram.write(at, &number.to_le_bytes());
        }
    }
    ram.write(CODE, VMLAUNCH);
    ram.write(HOST, &[0xf4]);
    let cpu = &mut machine.cpu;
    cpu.cr0 |= 0x20;
    cpu.cr4 |= 0x2000;
    cpu.mode_changed();
    cpu.vmx.on = true;
    cpu.vmx.vmxon_pointer = VMXON_REGION;
    cpu.vmx.vmcs.pointer = VMCS_REGION;
    let c = cpu.vmx.capabilities.clone();
    let long = u64::from(ExitControls::HOST_ADDRESS_SPACE_SIZE);
    let secondary = SecondaryControls::ENABLE_EPT | SecondaryControls::ENABLE_VPID;
    let fields = [
        (F::PIN_BASED_CONTROLS, u64::from(c.pin.required)),
        (F::PRIMARY_CONTROLS, u64::from(c.primary.required | PrimaryControls::ACTIVATE_SECONDARY_CONTROLS)),
        (F::SECONDARY_CONTROLS, u64::from(secondary & c.secondary.allowed)),
        (F::EXIT_CONTROLS, u64::from(c.exit.required) | long),
        (F::ENTRY_CONTROLS, u64::from(c.entry.required | EntryControls::IA32E_MODE_GUEST)),
        (F::VPID, 1),
        (F::EPT_POINTER, EPT | 6 | 3 << 3),
        (F::VMCS_LINK_POINTER, u64::MAX),
        (F::TSC_MULTIPLIER, 1 << 48),
        (F::IO_BITMAP_A, PAGE),
        (F::IO_BITMAP_B, PAGE),
        (F::MSR_BITMAPS, PAGE),
        (F::VIRTUAL_APIC_ADDRESS, PAGE),
        (F::ENTRY_MSR_LOAD_ADDRESS, ENTRY_MSRS),
        (F::EXIT_MSR_LOAD_ADDRESS, EXIT_MSRS),
        (F::EXIT_MSR_STORE_ADDRESS, PAGE),
        (F::HOST_CR0, cpu.cr0),
        (F::GUEST_CR0, cpu.cr0),
        (F::HOST_CR3, cpu.cr3),
        (F::GUEST_CR3, cpu.cr3),
        (F::HOST_CR4, cpu.cr4),
        (F::GUEST_CR4, cpu.cr4),
        (F::HOST_EFER, cpu.efer),
        (F::GUEST_EFER, cpu.efer),
        (F::HOST_PAT, cpu.msrs.pat),
        (F::GUEST_PAT, cpu.msrs.pat),
        (F::HOST_RSP, HOST_STACK),
        (F::GUEST_RSP, STACK),
        (F::HOST_RIP, HOST),
        (F::GUEST_RIP, HOST),
        (F::HOST_TR_SELECTOR, 0x38),
        (F::GUEST_TR_SELECTOR, 0x38),
        (F::GUEST_TR_BASE, cpu.tr.base),
        (F::GUEST_TR_LIMIT, 0x67),
        (F::GUEST_TR_ACCESS_RIGHTS, 0x8b),
        (F::GUEST_LDTR_ACCESS_RIGHTS, 0x1_0000),
        (F::HOST_GDTR_BASE, cpu.gdtr.base),
        (F::GUEST_GDTR_BASE, cpu.gdtr.base),
        (F::GUEST_GDTR_LIMIT, u64::from(cpu.gdtr.limit)),
        (F::HOST_IDTR_BASE, cpu.idtr.base),
        (F::GUEST_IDTR_BASE, cpu.idtr.base),
        (F::GUEST_IDTR_LIMIT, u64::from(cpu.idtr.limit)),
        (F::GUEST_RFLAGS, 2),
        (F::GUEST_DR7, 0x400),
        (F::EXIT_REASON, NO_EXIT),
    ];
    for (field, value) in fields {
        cpu.vmx.vmcs.set(field, value);
    }
    for n in 0..6u32 {
        let segment = cpu.segs[n as usize];
        let nth = |first: F| F(first.0 + 2 * n);
        cpu.vmx.vmcs.set(nth(F::HOST_ES_SELECTOR), u64::from(segment.selector));
        cpu.vmx.vmcs.set(nth(F::GUEST_ES_SELECTOR), u64::from(segment.selector));
        cpu.vmx.vmcs.set(nth(F::GUEST_ES_LIMIT), u64::from(segment.limit));
        cpu.vmx.vmcs.set(nth(F::GUEST_ES_ACCESS_RIGHTS), u64::from(segment.access & 0x1_f0ff));
    }
    machine
}

fn cut(field: F, value: u64) -> u64 {
    match field.width() {
        Width::Bits16 => value & 0xffff,
        Width::Bits32 => value & 0xffff_ffff,
        Width::Bits64 | Width::Natural => value,
    }
}

/// The model with everything.
fn full() -> Model {
    static FULL: LazyLock<Model> = LazyLock::new(|| Model::named("full").unwrap_or_else(|_| Model::default_model()));
    FULL.clone()
}

/// One byte that chooses (bit 1: the model `full`; the others 0: every field from the seed that follows; else single fields), then for each field two bytes that name it, one
/// that says how it changes, and the value.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.byte();
    let mut machine = machine(if kind & 2 == 0 { Model::default_model() } else { full() });
    let vmcs = &mut machine.cpu.vmx.vmcs;
    if kind & !2 == 0 {
        let mut random = Random::new(input.number(8));
        for (field, _) in F::ALL.iter().filter(|(field, _)| *field != F::EXIT_REASON) {
            vmcs.set(*field, cut(*field, random.draw()));
        }
    }
    for _ in 0..16 {
        if input.is_empty() {
            break;
        }
        let field = F::ALL[input.below(F::ALL.len() as u64) as usize].0;
        let before = vmcs.get(field);
        let value = match input.byte() % 5 {
            0 => input.number(8),
            1 => before ^ 1 << (input.byte() & 63),
            2 => u64::from(input.byte()),
            3 => input.number(2) << 4,
            _ => before ^ input.number(4),
        };
        if field != F::EXIT_REASON {
            vmcs.set(field, cut(field, value));
        }
    }
    enter(&mut machine);
    machine.run(BUDGET, BUDGET);
}

fn enter(machine: &mut Machine) {
    let state = State::of(&machine.cpu);
    let before = machine.cpu.vmx.vmcs.clone();
    machine.run(1, 1);
    let cpu = &machine.cpu;
    let vmcs = &cpu.vmx.vmcs;
    if cpu.vmx.non_root {
        assert!(vmcs.launched, "the guest is entered, so the VMCS is launched");
        return;
    }
    let reason = vmcs.get(F::EXIT_REASON);
    if reason == NO_EXIT {
        // VMfailValid: ZF alone of the status flags, an error, the next instruction, and nothing else (31.2).
        let error = vmcs.get(F::VM_INSTRUCTION_ERROR);
        let group = cpu.vmx.last_failed_check.map(|failed| failed.check.group());
        assert_eq!(group.and_then(|group| group.instruction_error()).map(|error| error as u64), Some(error));
        assert_eq!(cpu.rflags() & 0x8d5, 0x40, "RFLAGS");
        assert_eq!(cpu.rip, CODE + VMLAUNCH.len() as u64, "RIP");
        assert_eq!(State::of(cpu), state, "the state of the host");
        assert!(!vmcs.launched, "a failed entry launches nothing");
        let same = |field: F| field == F::VM_INSTRUCTION_ERROR || vmcs.get(field) == before.get(field);
        assert!(F::ALL.iter().all(|(field, _)| same(*field)), "a field of the VMCS has changed");
        return;
    }
    if reason & u64::from(exit_reason_flags::ENTRY_FAILURE) == 0 {
        assert!(vmcs.launched, "the guest was entered and has exited at once");
        return;
    }
    // 27.8: a VM-entry failure loads the host's state and saves none of the guest's.
    let group = cpu.vmx.last_failed_check.map(|failed| failed.check.group());
    let basic = group.and_then(|group| group.exit_reason()).map(|reason| reason as u64);
    assert_eq!(basic, Some(reason & 0xffff), "the exit reason");
    assert!(!vmcs.launched, "a failed entry launches nothing");
    let kept = |field: F| match field.field_type() {
        FieldType::ExitInformation => matches!(field, F::EXIT_REASON | F::EXIT_QUALIFICATION),
        _ => false,
    };
    let same = |field: F| kept(field) || vmcs.get(field) == before.get(field);
    if let Some((field, _)) = F::ALL.iter().find(|(field, _)| !same(*field)) {
        panic!("{field:?} has changed");
    }
    if cpu.activity == processor::run::Activity::Shutdown {
        // A VMX abort: the host's MSRs could not be loaded.
        return;
    }
    let qualification = vmcs.get(F::EXIT_QUALIFICATION);
    if reason & 0xffff == ExitReason::MsrLoading as u64 {
        let count = before.get(F::ENTRY_MSR_LOAD_COUNT);
        assert!((1..=count).contains(&qualification), "entry {qualification} of {count} in the MSR area");
        if before.get(F::ENTRY_MSR_LOAD_ADDRESS) == ENTRY_MSRS {
            assert_eq!(qualification, 3, "IA32_FS_BASE is the third");
            assert_eq!(cpu.msrs.kernel_gs_base, 0, "the first entry is loaded");
        }
    } else {
        assert!(matches!(qualification, 0 | 2 | 4), "qualification {qualification}");
    }
    host_is_loaded(cpu, &before);
    let general = |state: &State| {
        let mut registers = state.registers;
        registers[4] = 0;
        registers
    };
    assert_eq!(general(&State::of(cpu)), general(&state), "general registers");
}

/// The host state that every VM exit loads, that of a failed entry, too (28.5).
fn host_is_loaded(cpu: &Cpu, vmcs: &Vmcs) {
    let host = |field| vmcs.get(field);
    let exit = ExitControls(vmcs.get32(F::EXIT_CONTROLS));
    let wide = exit.has(ExitControls::HOST_ADDRESS_SPACE_SIZE);
    assert_eq!((cpu.rip, cpu.regs[4]), (host(F::HOST_RIP), host(F::HOST_RSP)), "RIP and RSP");
    assert_eq!(cpu.rflags(), 2, "RFLAGS");
    let cr0 = Cr0::PE | Cr0::MP | Cr0::EM | Cr0::TS | Cr0::NE | Cr0::WP | Cr0::AM | Cr0::PG;
    assert_eq!(cpu.cr0 & cr0, host(F::HOST_CR0) & cr0, "CR0");
    assert_eq!(cpu.cr3, host(F::HOST_CR3), "CR3");
    let cr4 = host(F::HOST_CR4);
    assert_eq!(cpu.cr4, if wide { cr4 | Cr4::PAE } else { cr4 & !Cr4::PCIDE }, "CR4");
    assert_eq!((cpu.dr[7], cpu.cpl), (0x400, 0), "DR7 and CPL");
    let mode = Efer::LMA | Efer::LME;
    assert_eq!(cpu.efer & mode, if wide { mode } else { 0 }, "IA32_EFER");
    for n in 0..6u32 {
        let (segment, selector) = (cpu.segs[n as usize], host(F(F::HOST_ES_SELECTOR.0 + 2 * n)) as u16);
        let base = match n {
            4 => host(F::HOST_FS_BASE),
            5 => host(F::HOST_GS_BASE),
            _ => 0,
        };
        assert_eq!((segment.selector, segment.base), (selector, base), "segment register {n}");
        let rights = match (n, wide) {
            (1, true) => 0xa09b,
            (1, false) => 0xc09b,
            (2, false) => 0xc093,
            _ if selector == 0 => 0x1_0000,
            _ => 0xc093,
        };
        assert_eq!(segment.access & 0x1_f0ff, rights, "access rights of segment register {n}");
    }
    assert_eq!((cpu.tr.selector, cpu.tr.base), (host(F::HOST_TR_SELECTOR) as u16, host(F::HOST_TR_BASE)), "TR");
    assert_eq!((cpu.tr.limit, cpu.tr.access & 0x1_f0ff), (0x67, 0x8b), "TR's limit and access rights");
    assert_eq!((cpu.ldtr.selector, cpu.ldtr.access & 0x1_0000), (0, 0x1_0000), "LDTR is unusable");
    assert_eq!((cpu.gdtr.base, cpu.gdtr.limit), (host(F::HOST_GDTR_BASE), 0xffff), "GDTR");
    assert_eq!((cpu.idtr.base, cpu.idtr.limit), (host(F::HOST_IDTR_BASE), 0xffff), "IDTR");
    if host(F::EXIT_MSR_LOAD_COUNT) != 0 {
        return;
    }
    assert_eq!(cpu.msrs.debugctl, 0, "IA32_DEBUGCTL");
    assert_eq!(cpu.msrs.sysenter_cs, host(F::HOST_SYSENTER_CS), "IA32_SYSENTER_CS");
    assert_eq!(cpu.msrs.sysenter_esp, host(F::HOST_SYSENTER_ESP), "IA32_SYSENTER_ESP");
    assert_eq!(cpu.msrs.sysenter_eip, host(F::HOST_SYSENTER_EIP), "IA32_SYSENTER_EIP");
    if exit.has(ExitControls::LOAD_PAT) {
        assert_eq!(cpu.msrs.pat, host(F::HOST_PAT), "IA32_PAT");
    }
    if exit.has(ExitControls::LOAD_EFER) {
        assert_eq!(cpu.efer, host(F::HOST_EFER), "IA32_EFER");
    }
    if exit.has(ExitControls::LOAD_PKRS) {
        assert_eq!(u64::from(cpu.msrs.pkrs), host(F::HOST_PKRS), "IA32_PKRS");
    }
    if exit.has(ExitControls::ACTIVATE_SECONDARY_CONTROLS)
        && host(F::SECONDARY_EXIT_CONTROLS) & SecondaryExitControls::LOAD_SPEC_CTRL != 0
    {
        assert_eq!(cpu.msrs.spec_ctrl, host(F::HOST_SPEC_CTRL), "IA32_SPEC_CTRL");
    }
    if exit.has(ExitControls::LOAD_CET_STATE) {
        assert_eq!((cpu.msrs.s_cet, cpu.ssp), (host(F::HOST_S_CET), host(F::HOST_SSP)), "IA32_S_CET and SSP");
        assert_eq!(cpu.msrs.interrupt_ssp_table, host(F::HOST_INTERRUPT_SSP_TABLE), "IA32_INTERRUPT_SSP_TABLE_ADDR");
    }
}

/// The valid VMCS, and random ones.
pub fn seeds() -> Vec<Vec<u8>> {
    let noise = |kind| vec![kind, 1, 2, 3, 4, 5, 6, 7, 8];
    vec![vec![1], vec![3], noise(0), noise(2), vec![1, 60, 2, 1, 3, 100, 3, 1, 5]]
}
