//! Events in the guest and what exits say of them.

use super::{CPUID, GUEST_RIP, Host, NOP};
use crate::apic::InterruptMessage;
use crate::run::Activity;
use crate::testing::{CODE32, CODE64, DATA, DPL3, IDT};
use spec::vmx::qualification::EptViolation;
use spec::vmx::{
    EntryControls, ExitReason, InterruptionInfo, PinBasedControls as Pin, SecondaryControls as Secondary,
    VmcsField as F,
};
use spec::x86::{Cr0, Cr4, Rflags};

const IRETQ: &[u8] = &[0x48, 0xcf];

fn interrupt_61() -> InterruptMessage {
    InterruptMessage::from_msi(0xfee0_0000, 0x61).unwrap()
}

#[test]
fn mwait_is_never_an_activity_state() {
    let mut host = Host::new();
    host.add(F::PIN_BASED_CONTROLS, Pin::EXTERNAL_INTERRUPT_EXITING);
    host.machine.cpu.apic.set_virtual_wire();
    host.machine.cpu.regs[0] = 0x6000;
    (host.machine.cpu.regs[1], host.machine.cpu.regs[2]) = (0, 0);
    assert_eq!(host.enter(&[0x0f, 0x01, 0xc8, 0x0f, 0x01, 0xc9], 5), None); // monitor; mwait
    assert_eq!((host.machine.cpu.activity, host.machine.cpu.monitor.waiting), (Activity::Halted, true));
    host.machine.cpu.accept(&interrupt_61());
    host.machine.steps(1);
    assert_eq!(host.get(F::EXIT_REASON), ExitReason::ExternalInterrupt as u64);
    assert_eq!((host.get(F::GUEST_ACTIVITY_STATE), host.get(F::GUEST_RIP)), (0, GUEST_RIP + 6));
}

#[test]
fn an_entry_clears_address_range_monitoring() {
    let mut host = Host::new();
    host.machine.cpu.regs[0] = 0x6000;
    (host.machine.cpu.regs[1], host.machine.cpu.regs[2]) = (0, 0);
    host.machine.cpu.rip = 0x8100;
    host.machine.execute(&[0x0f, 0x01, 0xc8], 1); // monitor, by the host
    assert!(host.machine.cpu.monitor.armed);
    assert_eq!(host.enter(&[0x0f, 0x01, 0xc9, 0x0f, 0xa2], 5), Some(ExitReason::Cpuid)); // mwait; cpuid
}

#[test]
fn what_would_make_a_double_fault_is_intercepted_itself() {
    let mut host = Host::new();
    host.set(F::EXCEPTION_BITMAP, 1 << 13 | 1 << 8);
    host.set(F::GUEST_IDTR_LIMIT, 0);
    host.machine.cpu.regs[1] = 0;
    assert_eq!(host.enter(&[0xf7, 0xf1], 5), Some(ExitReason::ExceptionOrNmi)); // div ecx
    assert_eq!(host.get(F::EXIT_INTERRUPTION_INFO), 0x8000_0b0d);
    assert_eq!(host.get(F::IDT_VECTORING_INFO), 0x8000_0300);
}

#[test]
fn an_exit_between_iterations_saves_rf() {
    for (count, saved) in [(2, Rflags::RF), (1, 0)] {
        let mut host = Host::new();
        host.add(F::PIN_BASED_CONTROLS, Pin::EXTERNAL_INTERRUPT_EXITING);
        host.machine.cpu.apic.set_virtual_wire();
        (host.machine.cpu.regs[1], host.machine.cpu.regs[7]) = (count, 0x6ffe);
        // Runs within a page are stored at once: the second page begins another go.
        assert_eq!(host.enter(&[0xf3, 0x66, 0xab, NOP, NOP], 1), None); // rep stosw
        host.machine.cpu.accept(&interrupt_61());
        host.machine.steps(1);
        assert_eq!(host.get(F::EXIT_REASON), ExitReason::ExternalInterrupt as u64);
        assert_eq!((host.machine.cpu.regs[1], host.get(F::GUEST_RFLAGS) & Rflags::RF), (count - 1, saved));
    }
}

/// A guest whose NMIs are blocked virtually and that ends that by an IRET with its stack at `rsp`.
fn iret(host: &mut Host, rsp: u64) -> Option<ExitReason> {
    host.add(F::PIN_BASED_CONTROLS, Pin::NMI_EXITING | Pin::VIRTUAL_NMIS);
    host.set(F::GUEST_INTERRUPTIBILITY, 8);
    host.set(F::GUEST_RSP, rsp);
    host.enter(IRETQ, 5)
}

#[test]
fn exits_of_a_faulting_iret_tell_that_it_unblocked_nmis() {
    let mut host = Host::new();
    host.set(F::EXCEPTION_BITMAP, 1 << 14);
    assert_eq!(iret(&mut host, 0x40_0000), Some(ExitReason::ExceptionOrNmi));
    assert_eq!(host.get(F::EXIT_INTERRUPTION_INFO), u64::from(0x8000_0b0e | InterruptionInfo::NMI_UNBLOCKING));
    assert_eq!(host.get(F::GUEST_INTERRUPTIBILITY), 0);
    let mut host = Host::new();
    host.ept_entry(0x3_0000, 0);
    assert_eq!(iret(&mut host, 0x3_0000), Some(ExitReason::EptViolation));
    assert_ne!(host.get(F::EXIT_QUALIFICATION) & EptViolation::NMI_UNBLOCKING, 0);
    // The same access when nothing was blocked.
    host.set(F::GUEST_INTERRUPTIBILITY, 0);
    assert_eq!(host.resume(5), Some(ExitReason::EptViolation));
    assert_eq!(host.get(F::EXIT_QUALIFICATION) & EptViolation::NMI_UNBLOCKING, 0);
}

#[test]
fn a_virtualization_exception_of_a_faulting_iret_tells_that_it_unblocked_nmis() {
    const AREA: u64 = 0x4_0000;
    for blocked in [true, false] {
        let mut host = Host::new();
        host.add(F::SECONDARY_CONTROLS, Secondary::EPT_VIOLATION_VE);
        host.set(F::VE_INFORMATION_ADDRESS, AREA);
        host.set(F::EXCEPTION_BITMAP, 1 << 20);
        host.ept_entry(0x3_0000, 0);
        let expected = if blocked {
            (iret(&mut host, 0x3_0000), 1)
        } else {
            host.set(F::GUEST_RSP, 0x3_0000);
            (host.enter(IRETQ, 5), 0)
        };
        assert_eq!(expected.0, Some(ExitReason::ExceptionOrNmi));
        assert_eq!(host.machine.load(AREA, 4), ExitReason::EptViolation as u64);
        assert_eq!(host.machine.load(AREA + 8, 8) >> 12 & 1, expected.1, "bit 12 of the qualification");
        assert_eq!(host.get(F::EXIT_INTERRUPTION_INFO), 0x8000_0314 | expected.1 << 12);
    }
}

#[test]
fn a_start_up_ipi_exits_with_its_vector_and_is_lost_elsewhere() {
    let mut host = Host::new();
    host.set(F::GUEST_ACTIVITY_STATE, 3);
    assert_eq!(host.enter(CPUID, 5), None, "the guest waits");
    host.machine.cpu.events.startup = Some(0x9a);
    host.machine.cpu.recheck_events();
    host.machine.steps(1);
    assert_eq!(host.get(F::EXIT_REASON), ExitReason::Sipi as u64);
    assert_eq!((host.get(F::EXIT_QUALIFICATION), host.get(F::GUEST_ACTIVITY_STATE)), (0x9a, 3));
    assert_eq!(host.get(F::GUEST_RIP), GUEST_RIP);
}

#[test]
fn a_guest_in_an_endless_delivery_is_left_when_the_instruction_times_out() {
    let mut host = Host::of_model("full");
    let m = &mut host.machine;
    // IST1 of #DB lies on a data breakpoint: each #DB causes the next.
    m.store(0x3000 + 0x24, 8, 0x6000);
    m.idt(1, 8, 0xb000, 0x8e);
    m.store(IDT + 16 + 4, 1, 1);
    m.cpu.dr[0] = 0x6000 - 8;
    host.set(F::GUEST_TR_BASE, 0x3000);
    host.set(F::GUEST_DR7, 0xd_0401);
    host.add(F::ENTRY_CONTROLS, EntryControls::LOAD_DEBUG_CONTROLS);
    host.add(F::SECONDARY_CONTROLS, Secondary::INSTRUCTION_TIMEOUT);
    host.set(F::INSTRUCTION_TIMEOUT, 1000);
    let begin = host.machine.cpu.now();
    assert_eq!(host.enter(&[0xf1], 1000), Some(ExitReason::InstructionTimeout)); // int1
    assert_eq!((host.get(F::EXIT_QUALIFICATION), host.get(F::GUEST_RIP)), (0, 0xb000));
    let crystal = host.machine.cpu.now() - begin;
    assert!((10_000..20_000).contains(&crystal), "1000 ticks of 10 ns: {crystal}");
    // Without the control it goes on for ever.
    host.set(F::SECONDARY_CONTROLS, host.get(F::SECONDARY_CONTROLS) & !u64::from(Secondary::INSTRUCTION_TIMEOUT));
    host.set(F::GUEST_RIP, GUEST_RIP);
    assert_eq!(host.resume(1000), None);
}

#[test]
fn an_instruction_timeout_reports_the_event_that_cannot_be_delivered() {
    let mut host = Host::of_model("full");
    // Protected mode without paging at CPL 3, the stack misaligned, #AC handled at CPL 3, too.
    let m = &mut host.machine;
    m.gdt(&[0, CODE64, DATA, CODE32 | DPL3, DATA | DPL3]);
    m.store(IDT + 17 * 8, 8, 0x0000_ee00_001b_b000);
    host.add(F::SECONDARY_CONTROLS, Secondary::UNRESTRICTED_GUEST);
    host.set(F::ENTRY_CONTROLS, host.get(F::ENTRY_CONTROLS) & !u64::from(EntryControls::IA32E_MODE_GUEST));
    host.set(F::GUEST_CR0, Cr0::PE | Cr0::NE | Cr0::ET | Cr0::AM);
    host.set(F::GUEST_CR4, Cr4::VMXE);
    host.set(F::GUEST_RFLAGS, 0x4_0002);
    host.set(F::GUEST_RSP, 0x7001);
    for n in 0..6u32 {
        host.set(F(F::GUEST_ES_SELECTOR.0 + 2 * n), if n == 1 { 0x1b } else { 0x23 });
        host.set(F(F::GUEST_ES_ACCESS_RIGHTS.0 + 2 * n), if n == 1 { 0xc0fb } else { 0xc0f3 });
    }
    host.add(F::SECONDARY_CONTROLS, Secondary::INSTRUCTION_TIMEOUT);
    host.set(F::INSTRUCTION_TIMEOUT, 1000);
    assert_eq!(host.enter(&[0x50], 1000), Some(ExitReason::InstructionTimeout)); // push eax
    assert_eq!(host.get(F::IDT_VECTORING_INFO), 0x8000_0b11);
}
