//! One exit at a time, on a VMCS that is a map.

use super::*;
use crate::capabilities::tests::{detect, everything};
use crate::configuration::VmConfiguration;
use crate::testing::{TestHost, TestPages, TestVmcs};
use crate::vcpu::Activity;
use crate::vm::{End, Phase, Vm};
use alloc::sync::Arc;
use spec::vmx::qualification::{cr_access, io};
use spec::vmx::{SecondaryControls, VmcsField};
use spec::x86::{Cr0, Cr4};
use std::boxed::Box;
use std::collections::BTreeMap;
use std::vec::Vec;

struct Bench {
    vcpu: Vcpu,
    vmcs: TestVmcs,
    host: &'static TestHost,
}

impl Bench {
    fn new(vcpus: u8) -> Self {
        Self::on(&everything(), vcpus)
    }

    fn on(msrs: &BTreeMap<u32, u64>, vcpus: u8) -> Self {
        Self::after(msrs, vcpus, None)
    }

    /// A guest that waits for the one of this name.
    fn after(msrs: &BTreeMap<u32, u64>, vcpus: u8, after: Option<&str>) -> Self {
        let after = after.map(Into::into);
        let configuration = VmConfiguration { vcpus, network: true, after, ..crate::testing::guest("a") };
        let has = detect(msrs).unwrap();
        let host: &'static TestHost = Box::leak(Box::default());
        let switch = crate::network::Switch::new(host);
        let console = crate::console::Terminal::new(host).console("a", false);
        let environment =
            crate::vm::Environment { has: &has, pages: &TestPages, host, switch: &switch, remapping: None };
        let vm = Arc::new(Vm::new(0, configuration, Vec::new(), &console, &environment).unwrap());
        let mut bench = Self { vcpu: Vcpu::new(vm, 0, &has), vmcs: TestVmcs::default(), host };
        bench.vcpu.prepare(&mut bench.vmcs, bench.host);
        bench
    }

    fn set<T: crate::vmcs::Value>(&mut self, field: crate::vmcs::Field<T>, value: T) {
        (&mut self.vmcs as &mut dyn Vmcs).set(field, value);
    }

    fn get<T: crate::vmcs::Value>(&self, field: crate::vmcs::Field<T>) -> T {
        (&self.vmcs as &dyn Vmcs).get(field)
    }

    fn exit(&mut self, reason: ExitReason, qualification: u64) {
        self.set(field::EXIT_QUALIFICATION, qualification);
        self.set(field::EXIT_INSTRUCTION_LENGTH, 2);
        handle(Exit { vcpu: &mut self.vcpu, vmcs: &mut self.vmcs, host: self.host }, reason as u32);
    }

    /// The vector that the next VM entry injects.
    fn injected(&mut self) -> Option<u8> {
        self.set(field::ENTRY_INTERRUPTION_INFO, InterruptionInfo(0));
        self.vcpu.prepare(&mut self.vmcs, self.host);
        let info = self.get(field::ENTRY_INTERRUPTION_INFO);
        info.is_valid().then(|| info.vector())
    }
}

#[test]
fn a_guest_begins_where_its_image_is() {
    let bench = Bench::new(1);
    assert_eq!(bench.get(field::GUEST_RIP), 0x7c00);
    assert_eq!(bench.get(field::GUEST_CR0).0, Cr0::ET | Cr0::NE);
    assert_eq!(bench.vcpu.cr0(&bench.vmcs), Cr0::RESET);
}

#[test]
fn cpuid_shows_a_hypervisor_and_hides_vmx() {
    let mut bench = Bench::new(2);
    bench.vcpu.registers[0] = 1;
    bench.exit(ExitReason::Cpuid, 0);
    assert_eq!(bench.vcpu.registers[1] & (1 << 31 | 1 << 5 | 1 << 21 | 1 << 27), 1 << 31 | 1 << 21);
    assert_eq!(bench.vcpu.registers[3] >> 16, 2);
    assert_eq!(bench.get(field::GUEST_RIP), 0x7c02);
}

#[test]
fn out_goes_to_the_device_and_in_leaves_the_upper_bytes() {
    let mut bench = Bench::new(1);
    bench.vcpu.registers[0] = 0x1234_5678_9abc_de5a;
    bench.exit(ExitReason::Io, 0x3ff << io::PORT_SHIFT);
    bench.vcpu.registers[0] = 0x1234_5678_9abc_de00;
    bench.exit(ExitReason::Io, 0x3ff << io::PORT_SHIFT | io::IN);
    assert_eq!(bench.vcpu.registers[0], 0x1234_5678_9abc_de5a);
    bench.exit(ExitReason::Io, 0x1234 << io::PORT_SHIFT | io::IN | 3);
    assert_eq!(bench.vcpu.registers[0], 0xffff_ffff);
}

#[test]
fn a_halted_vcpu_waits_for_an_interrupt_that_it_admits() {
    let mut bench = Bench::new(1);
    bench.set(field::GUEST_RFLAGS, Rflags(Rflags::IF | 2));
    bench.exit(ExitReason::Hlt, 0);
    assert_eq!(bench.vcpu.activity, Activity::Halted(true));
    bench.vcpu.apic.write(spec::apic::local_apic::offset::SVR, 0x1ff, 0);
    bench.vcpu.attend(bench.host);
    assert!(!bench.vcpu.is_ready());
    bench.vcpu.mailbox().interrupt(bench.host, 0x41);
    bench.vcpu.attend(bench.host);
    assert!(bench.vcpu.is_ready());
    // The processor delivers it: nothing is injected, it is requested.
    assert_eq!(bench.injected(), None);
    assert_eq!(bench.get(field::GUEST_INTERRUPT_STATUS).requesting, 0x41);
}

#[test]
fn without_virtual_delivery_an_interrupt_waits_for_its_window() {
    let mut msrs = everything();
    let delivery = spec::vmx::SecondaryControls::VIRTUAL_INTERRUPT_DELIVERY;
    *msrs.get_mut(&spec::x86::msr::VMX_PROCBASED_CTLS2).unwrap() &= !(u64::from(delivery) << 32);
    let mut bench = Bench::on(&msrs, 1);
    bench.vcpu.apic.write(spec::apic::local_apic::offset::SVR, 0x1ff, 0);
    bench.vcpu.mailbox().interrupt(bench.host, 0x41);
    bench.vcpu.attend(bench.host);
    let window = spec::vmx::PrimaryControls::INTERRUPT_WINDOW_EXITING;
    assert_eq!(bench.injected(), None);
    assert!(bench.get(field::PRIMARY_CONTROLS).has(window));
    bench.set(field::GUEST_RFLAGS, Rflags(Rflags::IF | 2));
    assert_eq!(bench.injected(), Some(0x41));
    assert!(!bench.get(field::PRIMARY_CONTROLS).has(window));
    assert_eq!(bench.vcpu.apic.in_service(), Some(0x41));
}

#[test]
fn an_x2apic_is_reached_by_msrs_and_no_more_by_its_page() {
    let mut bench = Bench::new(1);
    let wrmsr = |bench: &mut Bench, number: u32, value: u64| {
        (bench.vcpu.registers[1], bench.vcpu.registers[0], bench.vcpu.registers[2]) =
            (number.into(), value & 0xffff_ffff, value >> 32);
        bench.exit(ExitReason::Wrmsr, 0);
        bench.injected()
    };
    assert_eq!(wrmsr(&mut bench, 0x80f, 0x1ff), Some(13));
    bench.vcpu.msr_bitmaps = [0x1000, 0x2000];
    assert_eq!(wrmsr(&mut bench, 0x1b, 0xfee0_0d00), None);
    let secondary = bench.get(field::SECONDARY_CONTROLS);
    assert!(secondary.has(SecondaryControls::VIRTUALIZE_X2APIC_MODE));
    assert!(!secondary.has(SecondaryControls::VIRTUALIZE_APIC_ACCESSES));
    assert_eq!(bench.get(field::MSR_BITMAPS), 0x2000);
    assert_eq!(wrmsr(&mut bench, 0x80f, 0x1ff), None);
    // An interrupt to itself, by its id of 32 bits; then one to nobody.
    assert_eq!(wrmsr(&mut bench, 0x830, 0x4041), None);
    assert_eq!(wrmsr(&mut bench, 0x830, 0x100_0000_4042), None);
    bench.vcpu.attend(bench.host);
    assert_eq!(bench.vcpu.apic.requested(), Some(0x41));
    // The mode is left by a reset only.
    assert_eq!(wrmsr(&mut bench, 0x1b, 0xfee0_0900), Some(13));
}

#[test]
fn what_is_not_the_guest_s_raises_its_fault() {
    let mut bench = Bench::new(1);
    bench.vcpu.registers[1] = 0x480;
    bench.exit(ExitReason::Rdmsr, 0);
    assert_eq!((bench.injected(), bench.get(field::GUEST_RIP)), (Some(13), 0x7c00));
    bench.exit(ExitReason::Vmxon, 0);
    assert_eq!(bench.injected(), Some(6));
    bench.vcpu.registers[0] = Cr4::VMXE;
    bench.exit(ExitReason::CrAccess, cr_access::MOV_TO_CR << cr_access::TYPE_SHIFT | 4);
    assert_eq!(bench.injected(), Some(13));
    // XCR0 with AVX and without SSE.
    (bench.vcpu.registers[0], bench.vcpu.registers[1]) = (5, 0);
    bench.exit(ExitReason::Xsetbv, 0);
    assert_eq!(bench.injected(), Some(13));
}

#[test]
fn there_are_no_error_codes_in_real_mode() {
    for (cr0, expected) in [(Cr0::NE, false), (Cr0::NE | Cr0::PE, true)] {
        let mut bench = Bench::new(1);
        bench.set(field::GUEST_CR0, Cr0(cr0));
        bench.vcpu.registers[1] = 0x480;
        bench.exit(ExitReason::Rdmsr, 0);
        assert_eq!(bench.injected(), Some(13));
        assert_eq!(bench.get(field::ENTRY_INTERRUPTION_INFO).has(InterruptionInfo::ERROR_CODE), expected);
    }
}

#[test]
fn entering_long_mode_sets_the_entry_control() {
    let mut bench = Bench::new(1);
    bench.set(field::GUEST_CR4, Cr4(Cr4::PAE | Cr4::VMXE));
    bench.set(field::GUEST_EFER, Efer(Efer::LME));
    bench.vcpu.registers[0] = Cr0::PG | Cr0::PE | Cr0::NE;
    bench.exit(ExitReason::CrAccess, cr_access::MOV_TO_CR << cr_access::TYPE_SHIFT);
    assert!(bench.get(field::ENTRY_CONTROLS).has(spec::vmx::EntryControls::IA32E_MODE_GUEST));
    assert!(bench.get(field::GUEST_EFER).has(Efer::LMA));
    assert_eq!(bench.get(field::GUEST_RIP), 0x7c02);
}

#[test]
fn an_interrupted_delivery_is_made_up_for() {
    let mut bench = Bench::new(1);
    let info = InterruptionInfo::new(0x31, spec::vmx::InterruptionType::External, false);
    bench.set(field::IDT_VECTORING_INFO, info);
    bench.exit(ExitReason::ExternalInterrupt, 0);
    bench.set(field::IDT_VECTORING_INFO, InterruptionInfo(0));
    assert_eq!(bench.injected(), Some(0x31));
}

#[test]
fn a_guest_that_does_what_is_not_handled_ends_alone() {
    let mut bench = Bench::new(1);
    bench.exit(ExitReason::TaskSwitch, 0);
    assert_eq!(bench.vcpu.vm.phase(), Phase::Ended);
    assert!(matches!(bench.vcpu.vm.outcome(), Some(End::Failed(why)) if why.contains("task switch")));
    bench.vcpu.attend(bench.host);
    assert_eq!(bench.vcpu.activity, Activity::Ended);
    assert!(bench.vcpu.vm.result().is_some());
}

#[test]
fn no_exit_reason_and_no_qualification_panics() {
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for _ in 0..2000 {
        let mut bench = Bench::new(1);
        for register in &mut bench.vcpu.registers {
            *register = next() >> (next() % 64);
        }
        for field in [VmcsField::GUEST_RIP, VmcsField::GUEST_CR3, VmcsField::GUEST_PHYSICAL_ADDRESS] {
            bench.vmcs.write(field, next() >> (next() % 64));
        }
        bench.vmcs.write(VmcsField::GUEST_CR0, next() & (Cr0::PG | Cr0::PE));
        bench.vmcs.write(VmcsField::GUEST_LINEAR_ADDRESS, next() >> (next() % 64));
        let reason = ExitReason::ALL[(next() % ExitReason::ALL.len() as u64) as usize];
        bench.exit(reason, next() >> (next() % 64));
        bench.vcpu.attend(bench.host);
        if bench.vcpu.is_ready() {
            let _ = bench.injected();
        }
    }
}

#[test]
fn a_guest_that_waits_for_another_stands_still_until_it_begins() {
    let mut bench = Bench::after(&everything(), 1, Some("other"));
    bench.vcpu.attend(bench.host);
    assert_eq!((bench.vcpu.activity, bench.vcpu.vm.phase()), (Activity::Standing, Phase::Waiting));
    let vms = [Arc::clone(&bench.vcpu.vm)];
    // The other is none of those that run: it has been refused, or is gone.
    assert_eq!(crate::vm::begin_waiting(bench.host, &vms), None);
    bench.vcpu.attend(bench.host);
    assert_eq!((bench.vcpu.activity, bench.vcpu.vm.phase()), (Activity::Running, Phase::Running));
    bench.vcpu.prepare(&mut bench.vmcs, bench.host);
    assert_eq!(bench.get(field::GUEST_RIP), 0x7c00);
}
