//! Processors with less than the default model has.

use super::*;
use spec::vmx::PendingDebug;

#[test]
fn without_ept_a_guest_runs_on_the_hosts_memory() {
    let mut host = Host::of_model("icelake-server,-ept,-vpid");
    assert_eq!(host.get(F::SECONDARY_CONTROLS), 0);
    assert_eq!(host.enter(CPUID, 1), Some(ExitReason::Cpuid));
    host.run_with_rdi(VMCLEAR_RDI, 0x5008);
    host.run_with_rdi(VMPTRLD_RDI, 0x5008);
    host.set(F::SECONDARY_CONTROLS, u64::from(Secondary::ENABLE_EPT));
    assert_eq!(host.failed_check(), Some(EntryCheck::SecondaryReserved));
}

#[test]
fn without_an_unrestricted_guest_vm_entry_needs_protection_and_paging() {
    for choice in ["icelake-server,-unrestricted-guest", "icelake-server,-ept"] {
        for cr0 in [0x30, 0x31] {
            let mut host = Host::of_model(choice);
            host.set(F::ENTRY_CONTROLS, host.get(F::ENTRY_CONTROLS) & !u64::from(EntryControls::IA32E_MODE_GUEST));
            host.set(F::GUEST_CR0, cr0);
            assert_eq!(host.enter(CPUID, 1), Some(ExitReason::InvalidGuestState));
            let failed = host.machine.cpu.vmx.last_failed_check.map(|failed| failed.check);
            assert_eq!(failed, Some(EntryCheck::GuestCr0Fixed));
        }
    }
}

#[test]
fn without_an_unrestricted_guest_exits_do_not_store_lma() {
    let mut host = Host::of_model("icelake-server,-unrestricted-guest");
    assert_eq!(host.enter(CPUID, 1), Some(ExitReason::Cpuid));
    assert_ne!(host.get(F::ENTRY_CONTROLS) & u64::from(EntryControls::IA32E_MODE_GUEST), 0, "it stays as it was");
}

#[test]
fn invalidation_instructions_go_with_their_features() {
    let invept: &[u8] = &[0x66, 0x0f, 0x38, 0x80, 0x07];
    let invvpid: &[u8] = &[0x66, 0x0f, 0x38, 0x81, 0x07];
    for (choice, code) in [("full,-ept", invept), ("full,-vpid", invvpid)] {
        let mut host = Host::of_model(choice);
        host.machine.idt(6, 8, 0x9800, 0x8e);
        host.run_with_rdi(code, 0x5000);
        assert_eq!(host.machine.cpu.rip, 0x9800, "{choice}: #UD");
    }
    let mut host = Host::of_model("full,-ept-vpid.single-context-invept");
    host.machine.cpu.regs[RAX] = 1;
    host.machine.store(0x5020, 8, host.get(F::EPT_POINTER));
    host.run_with_rdi(invept, 0x5020);
    assert_eq!(host.status(), 0x40, "a type that is not there fails");
}

#[test]
fn controls_without_their_feature_fail_the_check_of_reserved_bits() {
    let cases = [
        ("tpr-shadow", F::PRIMARY_CONTROLS, Primary::USE_TPR_SHADOW, EntryCheck::PrimaryReserved),
        ("msr-bitmaps", F::PRIMARY_CONTROLS, Primary::USE_MSR_BITMAPS, EntryCheck::PrimaryReserved),
        ("mtf", F::PRIMARY_CONTROLS, Primary::MONITOR_TRAP_FLAG, EntryCheck::PrimaryReserved),
        ("vpid", F::SECONDARY_CONTROLS, Secondary::ENABLE_VPID, EntryCheck::SecondaryReserved),
        ("preemption-timer", F::PIN_BASED_CONTROLS, Pin::PREEMPTION_TIMER, EntryCheck::PinBasedReserved),
    ];
    for (name, field, bit, check) in cases {
        let mut host = Host::of_model(&format!("icelake-server,-{name}"));
        host.add(field, bit);
        assert_eq!(host.failed_check(), Some(check), "{name}");
    }
}

#[test]
fn without_supervisor_shadow_stack_control_its_bit_is_reserved() {
    let pointer = 0x1000 | 6 | 3 << 3 | 1 << 7;
    for (model, check) in [("full,-ept-shadow-stack", Some(EntryCheck::EptpSupervisorShadowStack)), ("full", None)] {
        let mut host = Host::of_model(model);
        host.set(F::EPT_POINTER, pointer);
        assert_eq!(host.failed_check(), check, "{model}");
    }
}

#[test]
fn a_pending_bus_lock_is_reserved_where_there_is_no_detection() {
    for (model, check) in [("full", None), ("full,-bus_lock_detect", Some(EntryCheck::PendingDebugReserved))] {
        let mut host = Host::of_model(model);
        host.set(F::GUEST_PENDING_DEBUG, PendingDebug::BLD | PendingDebug::ENABLED_BREAKPOINT);
        assert_eq!(host.failed_check(), check, "{model}");
    }
}

#[test]
fn without_tertiary_controls_they_cannot_be_activated() {
    let mut host = Host::of_model("icelake-server");
    assert!(!host.machine.cpu.vmx.capabilities.has_field(F::TERTIARY_CONTROLS));
    host.add(F::PRIMARY_CONTROLS, Primary::ACTIVATE_TERTIARY_CONTROLS);
    assert_eq!(host.failed_check(), Some(EntryCheck::PrimaryReserved));
}

impl Host {
    /// The check at which VMLAUNCH fails.
    fn failed_check(&mut self) -> Option<EntryCheck> {
        self.machine.execute(VMLAUNCH, 1);
        self.machine.cpu.vmx.last_failed_check.map(|failed| failed.check)
    }
}
