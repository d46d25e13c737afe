//! APIC virtualization and virtual interrupts, one rule of SDM Vol. 3C, chapter 30, at a time.

use super::capabilities::VmxCapabilities;
use super::tests::{CPUID, EPT_TABLES, GUEST_RIP, HLT, Host, NOP, VIRTUAL_APIC, VMLAUNCH};
use crate::apic::InterruptMessage;
use crate::cpu::{RAX, RBX, RCX, RDI, RDX};
use crate::models::Model;
use crate::run::Activity;
use spec::apic::local_apic::DeliveryMode;
use spec::vmx::VmcsField as F;
use spec::vmx::posted_interrupts as pid;
use spec::vmx::{
    EntryCheck, ExitControls, ExitReason, InterruptionInfo, InterruptionType, PinBasedControls as Pin,
    PrimaryControls as Primary, SecondaryControls as Secondary, TertiaryControls as Tertiary,
};

/// The APIC-access page.
const PAGE: u64 = 0x3_0000;
/// The posted-interrupt descriptor.
const DESCRIPTOR: u64 = 0x4_0000;
/// The PID-pointer table.
const TABLE: u64 = 0x4_1000;
/// Where the guest's interrupt handlers are.
const HANDLER: u64 = 0xb000;
/// mov eax, [rdi]
const LOAD: &[u8] = &[0x8b, 0x07];
/// mov [rdi], eax
const STORE: &[u8] = &[0x89, 0x07];
const RDMSR: &[u8] = &[0x0f, 0x32];
const WRMSR: &[u8] = &[0x0f, 0x30];
const STI: u8 = 0xfb;
/// The notification vector.
const NOTIFICATION: u8 = 0xf2;

/// A host whose guest has a TPR shadow, the secondary controls `secondary`, and an APIC-access page.
fn host(secondary: u32) -> Host {
    let mut host = Host::new();
    host.machine.cpu.vmx.capabilities = VmxCapabilities::new(&Model::named("full").unwrap());
    host.machine.cpu.apic.set_virtual_wire();
    host.add(F::PRIMARY_CONTROLS, Primary::USE_TPR_SHADOW);
    host.add(F::SECONDARY_CONTROLS, secondary);
    host.add(F::PIN_BASED_CONTROLS, Pin::EXTERNAL_INTERRUPT_EXITING);
    host.set(F::VIRTUAL_APIC_ADDRESS, VIRTUAL_APIC);
    host.set(F::APIC_ACCESS_ADDRESS, PAGE);
    host
}

fn xapic(more: u32) -> Host {
    host(Secondary::VIRTUALIZE_APIC_ACCESSES | more)
}

fn x2apic(more: u32) -> Host {
    host(Secondary::VIRTUALIZE_X2APIC_MODE | more)
}

const REGISTERS: u32 = Secondary::APIC_REGISTER_VIRTUALIZATION;
const DELIVERY: u32 = Secondary::VIRTUAL_INTERRUPT_DELIVERY;

/// Adds posted-interrupt processing and IPI virtualization.
fn post(host: &mut Host) {
    host.add(F::PIN_BASED_CONTROLS, Pin::POSTED_INTERRUPTS);
    host.add(F::EXIT_CONTROLS, ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT);
    host.add(F::PRIMARY_CONTROLS, Primary::ACTIVATE_TERTIARY_CONTROLS);
    host.set(F::TERTIARY_CONTROLS, Tertiary::IPI_VIRTUALIZATION);
    host.set(F::POSTED_INTERRUPT_NOTIFICATION_VECTOR, u64::from(NOTIFICATION));
    host.set(F::POSTED_INTERRUPT_DESCRIPTOR, DESCRIPTOR);
    host.set(F::PID_POINTER_TABLE, TABLE);
    host.set(F::LAST_PID_POINTER_INDEX, 2);
}

fn register(host: &Host, offset: u64) -> u64 {
    host.machine.load(VIRTUAL_APIC + offset, 4)
}

fn set_register(host: &mut Host, offset: u64, value: u64) {
    host.machine.store(VIRTUAL_APIC + offset, 4, value);
}

/// A guest's access to the APIC-access page by `code`, CPUID after it: how it exits.
fn access(host: &mut Host, code: &[u8], offset: u64) -> ExitReason {
    host.machine.cpu.regs[RDI] = PAGE + offset;
    host.set(F::GUEST_RIP, GUEST_RIP);
    let mut code = code.to_vec();
    code.extend_from_slice(CPUID);
    host.enter(&code, 10).expect("an exit")
}

fn notify(host: &mut Host, vector: u8) {
    let message = InterruptMessage::from_msi(0xfee0_0000, u32::from(vector)).unwrap();
    host.machine.cpu.accept(&message);
}

fn refused(host: &mut Host) -> Option<EntryCheck> {
    host.machine.cpu.rip = 0x8000;
    host.machine.execute(VMLAUNCH, 1);
    assert_eq!(host.machine.cpu.rflags() & 0x41, 0x40, "VMfailValid");
    host.machine.cpu.vmx.last_failed_check.map(|failed| failed.check)
}

#[test]
fn reads_of_the_page_by_register() {
    let read_by_registers = |at: u64| {
        matches!(at, 0x20 | 0x30 | 0x80 | 0xb0 | 0xd0 | 0xe0 | 0xf0 | 0x280 | 0x300 | 0x310 | 0x380 | 0x3e0)
            || (0x100..0x280).contains(&at)
            || (0x320..=0x370).contains(&at)
    };
    for at in (0..0x400).step_by(0x10) {
        for (secondary, virtualized) in
            [(0, at == 0x80), (DELIVERY, matches!(at, 0x80 | 0xb0 | 0x300)), (REGISTERS, read_by_registers(at))]
        {
            let mut host = xapic(secondary);
            set_register(&mut host, at, 0x0123_4567);
            let reason = access(&mut host, LOAD, at);
            assert_eq!(reason == ExitReason::Cpuid, virtualized, "{at:#x} {secondary:#x}");
            if virtualized {
                assert_eq!(host.machine.cpu.regs[RAX], 0x0123_4567);
            } else {
                assert_eq!((reason, host.get(F::EXIT_QUALIFICATION)), (ExitReason::ApicAccess, at));
            }
        }
    }
}

#[test]
fn writes_of_the_page_by_register() {
    let written_by_registers = |at: u64| {
        matches!(at, 0x20 | 0x80 | 0xb0 | 0xd0 | 0xe0 | 0xf0 | 0x280 | 0x300 | 0x310 | 0x380 | 0x3e0)
            || (0x320..=0x370).contains(&at)
    };
    for at in (0..0x400).step_by(0x10) {
        for (secondary, virtualized) in
            [(0, at == 0x80), (DELIVERY, matches!(at, 0x80 | 0xb0 | 0x300)), (REGISTERS, written_by_registers(at))]
        {
            let mut host = xapic(secondary);
            host.machine.cpu.regs[RAX] = 0xff00_0041;
            let reason = access(&mut host, STORE, at);
            let expected = match at {
                _ if !virtualized => (ExitReason::ApicAccess, 0x1000 | at),
                0x80 | 0x310 => (ExitReason::Cpuid, 0),
                0xb0 if secondary == DELIVERY => (ExitReason::Cpuid, 0),
                _ => (ExitReason::ApicWrite, at),
            };
            assert_eq!((reason, host.get(F::EXIT_QUALIFICATION)), expected, "{at:#x} {secondary:#x}");
            if reason == ExitReason::ApicWrite {
                assert_eq!(host.get(F::GUEST_RIP), GUEST_RIP + 2, "trap-like");
                assert_eq!(register(&host, at), 0xff00_0041);
            }
        }
    }
    let mut host = xapic(REGISTERS);
    host.machine.cpu.regs[RAX] = 0x1234_5678;
    access(&mut host, STORE, 0x310);
    access(&mut host, STORE, 0x80);
    assert_eq!((register(&host, 0x310), register(&host, 0x80)), (0x1200_0000, 0x78), "what a register keeps");
}

#[test]
fn only_accesses_within_32_bits_of_one_register_are_virtualized() {
    let mut host = xapic(REGISTERS);
    let load8 = [0x48, 0x8b, 0x07];
    let load1 = [0x8a, 0x07];
    assert_eq!(access(&mut host, &load8, 0x80), ExitReason::ApicAccess);
    assert_eq!(access(&mut host, LOAD, 0x81), ExitReason::ApicAccess);
    assert_eq!(access(&mut host, LOAD, 0x84), ExitReason::ApicAccess);
    assert_eq!(access(&mut host, &load1, 0x83), ExitReason::Cpuid);
    host.set(F::PRIMARY_CONTROLS, host.get(F::PRIMARY_CONTROLS) & !u64::from(Primary::USE_TPR_SHADOW));
    host.set(F::SECONDARY_CONTROLS, host.get(F::SECONDARY_CONTROLS) & !u64::from(REGISTERS));
    assert_eq!(access(&mut host, LOAD, 0x80), ExitReason::ApicAccess, "without a TPR shadow");
}

#[test]
fn a_read_and_a_write_of_one_instruction_are_both_virtualized() {
    let mut host = xapic(0);
    set_register(&mut host, 0x80, 0x10);
    // add dword [rdi], 0x20
    assert_eq!(access(&mut host, &[0x83, 0x07, 0x20], 0x80), ExitReason::Cpuid);
    assert_eq!(register(&host, 0x80), 0x30);
}

#[test]
fn each_iteration_of_a_repeated_store_is_emulated() {
    let mut host = xapic(REGISTERS);
    host.machine.cpu.regs[RCX] = 2;
    // rep stosd
    assert_eq!(access(&mut host, &[0xf3, 0xab], 0x280), ExitReason::ApicWrite);
    assert_eq!((host.get(F::EXIT_QUALIFICATION), host.machine.cpu.regs[RCX]), (0x280, 1));
    assert_eq!(host.get(F::GUEST_RIP), GUEST_RIP, "the instruction is not over");
    assert_eq!(host.resume(10), Some(ExitReason::ApicAccess), "the next iteration's place is no register");
    assert_eq!(host.get(F::EXIT_QUALIFICATION), 0x1284);
}

#[test]
fn fetches_walks_events_and_monitor_exit() {
    let mut host = xapic(REGISTERS);
    host.set(F::GUEST_RIP, PAGE + 0x123);
    assert_eq!(host.resume(5), Some(ExitReason::ApicAccess));
    assert_eq!(host.get(F::EXIT_QUALIFICATION), 0x2123);

    let mut host = xapic(REGISTERS);
    // monitor
    host.machine.cpu.regs[RCX] = 0;
    host.machine.cpu.regs[RAX] = PAGE + 0x80;
    assert_eq!(host.enter(&[0x0f, 0x01, 0xc8], 5), Some(ExitReason::ApicAccess));
    assert_eq!(host.get(F::EXIT_QUALIFICATION), 0x4080);

    let mut host = xapic(REGISTERS);
    host.set(F::GUEST_RSP, PAGE + 0x90);
    host.machine.idt(6, 8, HANDLER, 0x8e);
    assert_eq!(host.enter(&[0x0f, 0x0b], 5), Some(ExitReason::ApicAccess));
    assert_eq!(host.get(F::EXIT_QUALIFICATION), 0x3088);
    let vectoring = InterruptionInfo::new(6, InterruptionType::HardwareException, false);
    assert_eq!(host.get(F::IDT_VECTORING_INFO), u64::from(vectoring.0));

    // The guest's page tables lie in the page.
    let mut host = xapic(REGISTERS);
    host.ept_entry(crate::testing::PAGE_TABLES, PAGE | 0x37);
    assert_eq!(host.enter(&[NOP], 5), Some(ExitReason::ApicAccess));
    assert_eq!(host.get(F::EXIT_QUALIFICATION) >> 12, 15);
    assert_ne!(EPT_TABLES, PAGE);
}

#[test]
fn x2apic_reads() {
    for (secondary, number, virtualized) in [
        (0, 0x808, true),
        (0, 0x80a, false),
        (REGISTERS, 0x80a, true),
        (REGISTERS, 0x8ff, true),
        (DELIVERY, 0x80b, false),
    ] {
        let mut host = x2apic(secondary);
        host.machine.store(VIRTUAL_APIC + ((number & 0xff) << 4), 8, 0x1122_3344_5566_7788);
        host.machine.cpu.regs[RCX] = number;
        host.add(F::EXCEPTION_BITMAP, 1 << 13);
        let mut code = RDMSR.to_vec();
        code.extend_from_slice(CPUID);
        host.add(F::PRIMARY_CONTROLS, Primary::USE_MSR_BITMAPS);
        host.set(F::MSR_BITMAPS, 0x6_0000);
        let reason = host.enter(&code, 5);
        if virtualized {
            assert_eq!(reason, Some(ExitReason::Cpuid), "{number:#x}");
            assert_eq!((host.machine.cpu.regs[RDX], host.machine.cpu.regs[RAX]), (0x1122_3344, 0x5566_7788));
        } else {
            assert_eq!(reason, Some(ExitReason::ExceptionOrNmi), "{number:#x}: the local APIC is in xAPIC mode");
        }
    }
}

/// WRMSR in a guest with x2APIC virtualization; interrupts are on.
fn write_msr(host: &mut Host, number: u64, value: u64) -> Option<ExitReason> {
    host.machine.cpu.regs[RCX] = number;
    host.machine.cpu.regs[RAX] = value & 0xffff_ffff;
    host.machine.cpu.regs[RDX] = value >> 32;
    host.add(F::EXCEPTION_BITMAP, 1 << 13);
    host.add(F::PRIMARY_CONTROLS, Primary::USE_MSR_BITMAPS);
    host.set(F::MSR_BITMAPS, 0x6_0000);
    host.set(F::GUEST_RIP, GUEST_RIP);
    let mut code = WRMSR.to_vec();
    code.extend_from_slice(CPUID);
    host.enter(&code, 5)
}

#[test]
fn x2apic_writes() {
    let general_protection = Some(ExitReason::ExceptionOrNmi);
    let mut host = x2apic(DELIVERY);
    assert_eq!(write_msr(&mut host, 0x808, 0x35), Some(ExitReason::Cpuid));
    assert_eq!((register(&host, 0x80), register(&host, 0xa0)), (0x35, 0x35), "TPR and PPR");
    assert_eq!(write_msr(&mut host, 0x808, 0x100), general_protection);
    assert_eq!(write_msr(&mut host, 0x80b, 1), general_protection);
    assert_eq!(write_msr(&mut host, 0x83f, 0x100), general_protection);
    assert_eq!(write_msr(&mut host, 0x83f, 0x0f), Some(ExitReason::ApicWrite));
    assert_eq!((host.get(F::EXIT_QUALIFICATION), host.get(F::GUEST_RIP)), (0x3f0, GUEST_RIP + 2));
    assert_eq!(write_msr(&mut host, 0x83f, 0x31), Some(ExitReason::Cpuid));
    assert_eq!((host.get(F::GUEST_INTERRUPT_STATUS), register(&host, 0x210)), (0x31, 1 << 17));
    assert_eq!(write_msr(&mut host, 0x830, 0x41), general_protection, "not virtualized, and not in x2APIC mode");
    let mut host = x2apic(0);
    assert_eq!(write_msr(&mut host, 0x83f, 0x31), general_protection);
    assert_eq!(write_msr(&mut host, 0x80b, 0), general_protection);
}

#[test]
fn entry_computes_the_priority_and_delivers_what_is_pending() {
    let mut host = xapic(DELIVERY);
    set_register(&mut host, 0x80, 0x45);
    host.set(F::GUEST_INTERRUPT_STATUS, 0x3341);
    host.set(F::GUEST_RFLAGS, 0x202);
    assert_eq!(host.enter(&[NOP, 0x0f, 0xa2], 10), Some(ExitReason::Cpuid), "vector 41H is not above priority 45H");
    assert_eq!(register(&host, 0xa0), 0x45);
    set_register(&mut host, 0x80, 0x25);
    set_register(&mut host, 0x220, 1 << 1);
    set_register(&mut host, 0x210, 1 << 20);
    host.machine.idt(0x41, 8, HANDLER, 0x8e);
    host.machine.write(HANDLER, CPUID);
    assert_eq!(host.resume(10), Some(ExitReason::Cpuid));
    assert_eq!(host.get(F::GUEST_RIP), HANDLER);
    assert_eq!(host.get(F::GUEST_INTERRUPT_STATUS), 0x4134, "the next request, and the vector in service");
    assert_eq!((register(&host, 0xa0), register(&host, 0x120), register(&host, 0x220)), (0x40, 2, 0));
}

#[test]
fn shadows_and_if_hold_a_virtual_interrupt_back() {
    let mut host = xapic(DELIVERY);
    host.set(F::GUEST_INTERRUPT_STATUS, 0x51);
    set_register(&mut host, 0x220, 1 << 17);
    host.machine.idt(0x51, 8, HANDLER, 0x8e);
    host.machine.write(HANDLER, CPUID);
    assert_eq!(host.enter(&[NOP, STI, NOP, NOP], 10), Some(ExitReason::Cpuid));
    assert_eq!(host.machine.load(0x7000 - 40, 8), GUEST_RIP + 3, "after the instruction that follows STI");
    let mut host = xapic(DELIVERY);
    host.set(F::GUEST_INTERRUPT_STATUS, 0x51);
    host.set(F::GUEST_RFLAGS, 0x202);
    host.add(F::PRIMARY_CONTROLS, Primary::INTERRUPT_WINDOW_EXITING);
    assert_eq!(host.enter(&[NOP], 10), Some(ExitReason::InterruptWindow), "no virtual interrupt is recognized");
    assert_eq!(host.get(F::GUEST_INTERRUPT_STATUS), 0x51);
}

#[test]
fn a_virtual_interrupt_ends_hlt() {
    let mut host = xapic(DELIVERY);
    host.set(F::GUEST_INTERRUPT_STATUS, 0x51);
    host.set(F::GUEST_RFLAGS, 0x202);
    host.set(F::GUEST_ACTIVITY_STATE, 1);
    host.machine.idt(0x51, 8, HANDLER, 0x8e);
    host.machine.write(HANDLER, CPUID);
    assert_eq!(host.enter(&[NOP], 10), Some(ExitReason::Cpuid));
    assert_eq!((host.get(F::GUEST_RIP), host.get(F::GUEST_ACTIVITY_STATE)), (HANDLER, 0));
}

#[test]
fn the_end_of_an_interrupt() {
    for exits in [false, true] {
        let mut host = xapic(DELIVERY);
        host.set(F::GUEST_INTERRUPT_STATUS, 0x6300);
        set_register(&mut host, 0x130, 1 << 3);
        set_register(&mut host, 0x110, 1 << 1);
        if exits {
            host.set(F::EOI_EXIT_BITMAP_1, 1 << 0x23);
        }
        let reason = access(&mut host, STORE, 0xb0);
        assert_eq!((host.get(F::GUEST_INTERRUPT_STATUS), register(&host, 0x130)), (0x2100, 0));
        assert_eq!(register(&host, 0xa0), 0x20);
        if exits {
            assert_eq!((reason, host.get(F::EXIT_QUALIFICATION)), (ExitReason::VirtualizedEoi, 0x63));
            assert_eq!(host.get(F::GUEST_RIP), GUEST_RIP + 2);
        } else {
            assert_eq!(reason, ExitReason::Cpuid);
        }
    }
}

#[test]
fn a_self_ipi_through_the_command_register() {
    let mut host = xapic(DELIVERY);
    host.machine.cpu.regs[RAX] = 0x4_0055;
    assert_eq!(access(&mut host, STORE, 0x300), ExitReason::Cpuid);
    assert_eq!((host.get(F::GUEST_INTERRUPT_STATUS), register(&host, 0x220)), (0x55, 1 << 21));
    for command in [0x4_000f, 0x4_8055, 0x4_0155, 0x4_1055, 0x14_0055, 0x55] {
        let mut host = xapic(DELIVERY);
        host.machine.cpu.regs[RAX] = command;
        assert_eq!(access(&mut host, STORE, 0x300), ExitReason::ApicWrite, "{command:#x}");
        assert_eq!((host.get(F::EXIT_QUALIFICATION), host.get(F::GUEST_INTERRUPT_STATUS)), (0x300, 0));
    }
}

#[test]
fn posted_interrupts_are_taken_over_without_an_exit() {
    let mut host = xapic(DELIVERY);
    post(&mut host);
    host.set(F::GUEST_ACTIVITY_STATE, 1);
    host.set(F::GUEST_RFLAGS, 0x202);
    host.machine.idt(0x84, 8, HANDLER, 0x8e);
    host.machine.write(HANDLER, &[NOP, HLT]);
    assert_eq!(host.enter(&[NOP], 3), None, "halted");
    notify(&mut host, NOTIFICATION);
    host.machine.store(DESCRIPTOR + 32, 8, pid::OUTSTANDING | 0x5500_0000);
    host.machine.steps(2);
    assert_eq!(host.machine.cpu.activity, Activity::Halted, "nothing was posted: HLT goes on");
    assert_eq!(host.machine.load(DESCRIPTOR + 32, 8), 0x5500_0000, "the rest of the descriptor stays");
    host.machine.store(DESCRIPTOR + 16, 8, 1 << 4);
    host.machine.store(DESCRIPTOR + 8, 8, 1 << 0x3f);
    notify(&mut host, NOTIFICATION);
    assert!(host.machine.cpu.has_work());
    host.machine.steps(2);
    let cpu = &host.machine.cpu;
    assert!(cpu.vmx.non_root);
    assert_eq!((cpu.rip, cpu.activity), (HANDLER + 2, Activity::Halted), "the handler has run");
    assert!(!cpu.apic.is_requested(NOTIFICATION) && cpu.apic.processor_priority() == 0, "the notification is over");
    assert_eq!(host.get(F::GUEST_INTERRUPT_STATUS), 0x847f);
    assert_eq!(host.machine.load(DESCRIPTOR + 8, 8) | host.machine.load(DESCRIPTOR + 16, 8), 0);
    assert_eq!((register(&host, 0x230), register(&host, 0x140)), (1 << 31, 1 << 4));
    notify(&mut host, 0x61);
    host.machine.steps(1);
    assert!(!host.machine.cpu.vmx.non_root, "any other interrupt exits");
    assert_eq!(host.get(F::EXIT_INTERRUPTION_INFO), 0x8000_0061);
}

#[test]
fn an_ipi_is_posted_and_notified_once() {
    let mut host = xapic(REGISTERS | DELIVERY);
    post(&mut host);
    set_register(&mut host, 0x310, 0x0200_0000);
    host.machine.store(TABLE + 16, 8, (DESCRIPTOR + 0x40) | pid::POINTER_VALID);
    host.machine.store(DESCRIPTOR + 0x60, 8, 0x0300 << 32 | u64::from(NOTIFICATION) << 16);
    host.machine.cpu.regs[RAX] = 0x61;
    assert_eq!(access(&mut host, STORE, 0x300), ExitReason::Cpuid);
    assert_eq!(host.machine.load(DESCRIPTOR + 0x48, 8), 1 << 0x21);
    assert_eq!(host.machine.load(DESCRIPTOR + 0x60, 8) & 3, pid::OUTSTANDING);
    let sent = host.machine.bus.log().messages.clone();
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].destination, sent[0].vector, sent[0].delivery), (3, NOTIFICATION, DeliveryMode::Fixed));
    assert_eq!(access(&mut host, STORE, 0x300), ExitReason::Cpuid);
    assert_eq!(host.machine.bus.log().messages.len(), 1, "a notification is outstanding");
}

#[test]
fn ipis_that_cannot_be_virtualized_exit() {
    let mut host = x2apic(DELIVERY);
    post(&mut host);
    host.machine.store(TABLE, 8, DESCRIPTOR | pid::POINTER_VALID);
    host.machine.store(TABLE + 8, 8, DESCRIPTOR);
    host.machine.store(TABLE + 16, 8, DESCRIPTOR | 3);
    host.machine.store(DESCRIPTOR + 32, 8, pid::SUPPRESS);
    assert_eq!(write_msr(&mut host, 0x830, 0x55), Some(ExitReason::Cpuid));
    assert_eq!(host.machine.load(DESCRIPTOR + 8, 8), 1 << 0x15);
    assert!(host.machine.bus.log().messages.is_empty(), "notification is suppressed");
    for command in [0x0f, 1 << 32 | 0x55, 2 << 32 | 0x55, 3 << 32 | 0x55, 0x855, 0x155, 0x1055, 0x8055, 0x8_0055] {
        assert_eq!(write_msr(&mut host, 0x830, command), Some(ExitReason::ApicWrite), "{command:#x}");
        assert_eq!((host.get(F::EXIT_QUALIFICATION), host.machine.load(VIRTUAL_APIC + 0x300, 8)), (0x300, command));
    }
    assert_eq!(write_msr(&mut host, 0x830, 0x2055), Some(ExitReason::ExceptionOrNmi), "a reserved bit");
}

#[test]
fn each_rule_of_entry() {
    use EntryCheck::*;
    let all = || {
        let mut host = xapic(REGISTERS | DELIVERY);
        post(&mut host);
        host
    };
    assert!(all().enter(CPUID, 3).is_some());
    let without = |field: F, bit: u32| move |host: &mut Host| host.set(field, host.get(field) & !u64::from(bit));
    type Change = Box<dyn Fn(&mut Host)>;
    let set = |field: F, value: u64| -> Change { Box::new(move |host: &mut Host| host.set(field, value)) };
    let cases: [(EntryCheck, Change); 12] = [
        (
            VirtualInterruptDeliveryNeedsInterruptExiting,
            Box::new(without(F::PIN_BASED_CONTROLS, Pin::EXTERNAL_INTERRUPT_EXITING)),
        ),
        (PostedInterruptsNeedVirtualInterruptDelivery, Box::new(without(F::SECONDARY_CONTROLS, DELIVERY))),
        (
            PostedInterruptsNeedAcknowledge,
            Box::new(without(F::EXIT_CONTROLS, ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT)),
        ),
        (PostedInterruptVector, set(F::POSTED_INTERRUPT_NOTIFICATION_VECTOR, 0x100)),
        (PostedInterruptDescriptor, set(F::POSTED_INTERRUPT_DESCRIPTOR, DESCRIPTOR + 0x20)),
        (PostedInterruptDescriptor, set(F::POSTED_INTERRUPT_DESCRIPTOR, 1 << 52)),
        (PidPointerTable, set(F::PID_POINTER_TABLE, TABLE + 4)),
        (PidPointerTable, set(F::PID_POINTER_TABLE, (1 << 52) - 16)),
        (ApicVirtualizationNeedsTprShadow, Box::new(without(F::PRIMARY_CONTROLS, Primary::USE_TPR_SHADOW))),
        (TertiaryReserved, set(F::TERTIARY_CONTROLS, 1 << 63)),
        (
            X2apicModeExcludesApicAccesses,
            Box::new(|host| host.add(F::SECONDARY_CONTROLS, Secondary::VIRTUALIZE_X2APIC_MODE)),
        ),
        (VirtualApicAddress, set(F::VIRTUAL_APIC_ADDRESS, 8)),
    ];
    for (check, change) in cases {
        let mut host = all();
        change(&mut host);
        assert_eq!(refused(&mut host), Some(check));
    }
    let mut host = all();
    host.set(F::TPR_THRESHOLD, 0x25);
    assert!(host.enter(CPUID, 3).is_some(), "with virtual-interrupt delivery the threshold means nothing");
}

#[test]
fn the_monitor_trap_flag_counts_an_iteration_and_a_delivered_interrupt() {
    let mut host = xapic(DELIVERY);
    host.add(F::PRIMARY_CONTROLS, Primary::MONITOR_TRAP_FLAG);
    host.machine.cpu.regs[RCX] = 3;
    host.machine.cpu.regs[RDI] = 0x6000;
    // rep stosb
    assert_eq!(host.enter(&[0xf3, 0xaa], 5), Some(ExitReason::MonitorTrapFlag));
    assert_eq!((host.get(F::GUEST_RIP), host.machine.cpu.regs[RCX]), (GUEST_RIP, 2), "after one iteration");
    host.machine.cpu.regs[RBX] = 0;
    host.set(F::GUEST_RFLAGS, 0x202);
    host.set(F::GUEST_INTERRUPT_STATUS, 0x51);
    host.machine.idt(0x51, 8, HANDLER, 0x8e);
    assert_eq!(host.resume(5), Some(ExitReason::MonitorTrapFlag));
    assert_eq!(host.get(F::GUEST_RIP), HANDLER, "before the handler's first instruction");
}
