//! Any VMCS: after a VM entry that fails, the hypervisor's state is what the manual says; a guest that is entered runs for a while.

use crate::generate::Random;
use crate::input::Input;
use crate::processor::{CODE, Machine, STACK, Start};
use processor::cpu::Cpu;
use processor::segment::Segment;
use processor::vmx::vmcs::REVISION;
use spec::vmx::exit_reason::exit_reason_flags;
use spec::vmx::{EntryControls, ExitControls, FieldType, PrimaryControls, SecondaryControls, VmcsField as F, Width};

const VMXON_REGION: u64 = 0x3_4000;
const VMCS_REGION: u64 = 0x3_5000;
/// Where a guest finds zeroes, and what the valid VMCS's addresses lead to.
const PAGE: u64 = 0x3_6000;
const EPT: u64 = 0x3_8000;
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
fn machine() -> Machine {
    let mut machine = Machine::new(Start::Long(0));
    let ram = &machine.ram;
    for region in [VMXON_REGION, VMCS_REGION] {
        ram.write(region, &REVISION.to_le_bytes());
    }
    ram.write(EPT, &((EPT + 0x1000) | 7).to_le_bytes());
    ram.write(EPT + 0x1000, &0xb7u64.to_le_bytes());
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

/// One byte that chooses (0: every field from the seed that follows; else single fields), then for each field two bytes that name it, one
/// that says how it changes, and the value.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut machine = machine();
    let vmcs = &mut machine.cpu.vmx.vmcs;
    if input.byte() == 0 {
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
    assert_eq!(cpu.rip, before.get(F::HOST_RIP), "RIP");
    assert_eq!(cpu.regs[4], before.get(F::HOST_RSP), "RSP");
    assert_eq!(cpu.rflags() & !0x1_0000, 2, "RFLAGS");
    assert_eq!(cpu.cr3, before.get(F::HOST_CR3), "CR3");
    assert_eq!(cpu.dr[7], 0x400, "DR7");
    assert_eq!(cpu.segs[1].selector, before.get(F::HOST_CS_SELECTOR) as u16, "CS");
    assert_eq!((cpu.gdtr.base, cpu.gdtr.limit), (before.get(F::HOST_GDTR_BASE), 0xffff), "GDTR");
    assert_eq!((cpu.idtr.base, cpu.idtr.limit), (before.get(F::HOST_IDTR_BASE), 0xffff), "IDTR");
    assert_eq!(cpu.tr.base, before.get(F::HOST_TR_BASE), "TR");
    let general = |state: &State| {
        let mut registers = state.registers;
        registers[4] = 0;
        registers
    };
    assert_eq!(general(&State::of(cpu)), general(&state), "general registers");
}

/// The valid VMCS, and random ones.
pub fn seeds() -> Vec<Vec<u8>> {
    vec![vec![1], vec![0, 1, 2, 3, 4, 5, 6, 7, 8], vec![1, 60, 2, 1, 3, 100, 3, 1, 5]]
}
