//! Broken VMCSs of the kind that people ask about, one at a time, and what is said of each. The texts are in `snapshots/`;
//! `UPDATE_EXPECT=1 cargo test -p machine explain` writes them anew.

use super::{Explainer, Explanation, Kind, Kinds};
use crate::boot::firmware::Firmware;
use crate::watch::Watchers;
use crate::{Boot, Config, Machine};
use expect_test::{ExpectFile, expect_file};
use processor::segment::Segment;
use processor::vmx::vmcs::REVISION;
use spec::vmx::VmcsField as F;
use spec::vmx::ept::Eptp;
use spec::vmx::{
    EntryControls, ExitControls, InterruptionInfo, InterruptionType, PrimaryControls as Primary,
    SecondaryControls as Secondary,
};
use std::sync::{Arc, Mutex};

const PAGE_TABLES: u64 = 0x10_0000;
const EPT_TABLES: u64 = 0x20_0000;
const VMCS: u64 = 0x1_1000;
const HOST_CODE: u64 = 0x8000;
const GUEST_CODE: u64 = 0xa000;
const FLAT_CODE: u32 = 0xa09b;
const FLAT_DATA: u32 = 0xc093;

/// A machine whose processor is a 64-bit hypervisor with a current VMCS, about to enter a guest like itself behind EPT (the first 2 MiB one
/// to one).
struct Hypervisor {
    machine: Machine,
    told: Arc<Mutex<Vec<Explanation>>>,
}

impl Hypervisor {
    fn new() -> Self {
        let firmware = Firmware::new(vec![0xf4; 0x1_0000]).expect("64 KiB are an image");
        let mut config = Config::new(Boot::Firmware(firmware));
        config.memory = 16 << 20;
        let mut this = Self { machine: Machine::new(config).expect("a machine"), told: Arc::default() };
        let told = this.told.clone();
        let sink = Box::new(move |explanation: &Explanation| told.lock().unwrap().push(explanation.clone()));
        let explainer = Some(Explainer::new("all".parse::<Kinds>().unwrap(), sink));
        this.machine.watch(Watchers { explainer, ..Watchers::default() });
        this.tables();
        this.host();
        this.fields();
        this
    }

    fn store(&self, address: u64, bytes: &[u8]) {
        let cpu = &self.machine.cpus[0];
        let (offset, _) = cpu.map.lookup(address).expect("memory is there");
        cpu.ram.write(offset, bytes);
    }

    fn store_64(&self, address: u64, value: u64) {
        self.store(address, &value.to_le_bytes());
    }

    fn tables(&self) {
        for (base, flags) in [(PAGE_TABLES, 7), (EPT_TABLES, 7)] {
            self.store_64(base, (base + 0x1000) | flags);
            self.store_64(base + 0x1000, (base + 0x2000) | flags);
        }
        self.store_64(PAGE_TABLES + 0x2000, 0x87);
        self.store_64(EPT_TABLES + 0x2000, (EPT_TABLES + 0x3000) | 7);
        for page in 0..512 {
            self.store_64(EPT_TABLES + 0x3000 + 8 * page, page << 12 | 0x37);
        }
        self.store(VMCS, &REVISION.to_le_bytes());
    }

    fn host(&mut self) {
        let cpu = &mut self.machine.cpus[0];
        (cpu.cr0, cpu.cr3, cpu.cr4, cpu.efer) = (0x8000_0031, PAGE_TABLES, 0x2020, 0x500);
        for (number, segment) in cpu.segs.iter_mut().enumerate() {
            let code = number == processor::segment::CS;
            let (selector, access) = if code { (8, FLAT_CODE) } else { (0x10, FLAT_DATA) };
            *segment = Segment { selector, base: 0, limit: u32::MAX, access };
        }
        cpu.tr = Segment { selector: 0x20, base: 0, limit: 0x67, access: 0x8b };
        cpu.rip = HOST_CODE;
        cpu.vmx.on = true;
        cpu.vmx.vmxon_pointer = 0x1_0000;
        cpu.vmx.vmcs.pointer = VMCS;
        cpu.mode_changed();
    }

    fn fields(&mut self) {
        let c = self.machine.cpus[0].vmx.capabilities.clone();
        let secondary = Secondary::ENABLE_EPT | Secondary::ENABLE_VPID;
        let entry = EntryControls::IA32E_MODE_GUEST | EntryControls::LOAD_EFER | EntryControls::LOAD_PAT;
        let exit = ExitControls::HOST_ADDRESS_SPACE_SIZE;
        self.set(F::PIN_BASED_CONTROLS, u64::from(c.pin.required));
        self.set(F::PRIMARY_CONTROLS, u64::from(c.primary.required | Primary::ACTIVATE_SECONDARY_CONTROLS));
        self.set(F::SECONDARY_CONTROLS, u64::from(secondary));
        self.set(F::EXIT_CONTROLS, u64::from(c.exit.required | exit));
        self.set(F::ENTRY_CONTROLS, u64::from(c.entry.required | entry));
        self.set(F::VPID, 1);
        self.set(F::EPT_POINTER, EPT_TABLES | 6 | 3 << 3);
        self.set(F::VMCS_LINK_POINTER, u64::MAX);
        for (host, guest, value) in [
            (F::HOST_CR0, F::GUEST_CR0, 0x8000_0031),
            (F::HOST_CR3, F::GUEST_CR3, PAGE_TABLES),
            (F::HOST_CR4, F::GUEST_CR4, 0x2020),
            (F::HOST_RSP, F::GUEST_RSP, 0x7000),
            (F::HOST_RIP, F::GUEST_RIP, GUEST_CODE),
        ] {
            self.set(host, value);
            self.set(guest, value);
        }
        self.set(F::HOST_RIP, HOST_CODE + 0x100);
        self.set(F::GUEST_EFER, 0x500);
        self.set(F::GUEST_PAT, spec::x86::paging::PAT_RESET);
        for n in 0..6u32 {
            let (selector, access) = if n == 1 { (8, FLAT_CODE) } else { (0x10, FLAT_DATA) };
            self.set(F(F::GUEST_ES_SELECTOR.0 + 2 * n), selector);
            self.set(F(F::HOST_ES_SELECTOR.0 + 2 * n), selector);
            self.set(F(F::GUEST_ES_LIMIT.0 + 2 * n), 0xffff_ffff);
            self.set(F(F::GUEST_ES_ACCESS_RIGHTS.0 + 2 * n), u64::from(access));
        }
        self.set(F::HOST_TR_SELECTOR, 0x20);
        self.set(F::GUEST_TR_SELECTOR, 0x20);
        self.set(F::GUEST_TR_LIMIT, 0x67);
        self.set(F::GUEST_TR_ACCESS_RIGHTS, 0x8b);
        self.set(F::GUEST_LDTR_ACCESS_RIGHTS, 0x1_0000);
        self.set(F::GUEST_RFLAGS, 2);
        self.set(F::GUEST_DR7, 0x400);
        // hlt in the host, wherever it goes on
        self.store(HOST_CODE, &[0x0f, 0x01, 0xc2, 0xf4]);
        self.store(HOST_CODE + 0x100, &[0xf4]);
    }

    fn set(&mut self, field: F, value: u64) {
        self.machine.cpus[0].vmx.vmcs.set(field, value);
    }

    fn get(&self, field: F) -> u64 {
        self.machine.cpus[0].vmx.vmcs.get(field)
    }

    /// Runs the host's VMLAUNCH with `guest` as the guest's code, until the host halts. What was told.
    fn run(&mut self, guest: &[u8]) -> Vec<Explanation> {
        self.store(GUEST_CODE, guest);
        let until = self.machine.cpus[0].now() + 10_000;
        let Machine { cpus, code, .. } = &mut self.machine;
        cpus[0].run(code, until);
        std::mem::take(&mut *self.told.lock().unwrap())
    }
}

/// Changes the valid VMCS by `change`, enters it, and compares the one explanation with the text of `expected`, in which `check` is named.
fn broken(check: &str, change: impl FnOnce(&mut Hypervisor), expected: ExpectFile) {
    let mut hypervisor = Hypervisor::new();
    change(&mut hypervisor);
    let told = hypervisor.run(&[0x0f, 0xa2]);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].check.map(|rule| rule.name), Some(check));
    assert!(told[0].remedy.is_some());
    expected.assert_eq(&told[0].to_string());
}

#[test]
fn the_valid_vmcs_enters_and_nothing_is_told() {
    let mut hypervisor = Hypervisor::new();
    assert_eq!(hypervisor.run(&[0x0f, 0xa2]), []);
    assert_eq!(hypervisor.get(F::EXIT_REASON), spec::vmx::ExitReason::Cpuid as u64);
}

#[test]
fn cr0_without_ne() {
    let change = |h: &mut Hypervisor| h.set(F::GUEST_CR0, 0x8000_0011);
    broken("GuestCr0Fixed", change, expect_file!["snapshots/cr0-without-ne.txt"]);
}

#[test]
fn cr4_without_vmxe() {
    let change = |h: &mut Hypervisor| h.set(F::HOST_CR4, 0x20);
    broken("HostCr4Fixed", change, expect_file!["snapshots/cr4-without-vmxe.txt"]);
}

#[test]
fn tr_not_busy() {
    let change = |h: &mut Hypervisor| h.set(F::GUEST_TR_ACCESS_RIGHTS, 0x89);
    broken("TrType", change, expect_file!["snapshots/tr-not-busy.txt"]);
}

#[test]
fn limit_that_does_not_suit_the_granularity() {
    let change = |h: &mut Hypervisor| h.set(F::GUEST_CS_LIMIT, 0xf_fff0);
    broken("SegmentGranularity", change, expect_file!["snapshots/limit-and-granularity.txt"]);
}

#[test]
fn rflags_without_bit_1() {
    let change = |h: &mut Hypervisor| h.set(F::GUEST_RFLAGS, 0x200);
    broken("RflagsReserved", change, expect_file!["snapshots/rflags-without-bit-1.txt"]);
}

#[test]
fn pat_with_a_byte_that_is_no_memory_type() {
    let change = |h: &mut Hypervisor| h.set(F::GUEST_PAT, 0x0007_0406_0002_0406);
    broken("GuestPat", change, expect_file!["snapshots/pat.txt"]);
}

#[test]
fn base_that_is_not_canonical() {
    let change = |h: &mut Hypervisor| h.set(F::GUEST_FS_BASE, 0x1234_8000_0000_0000);
    broken("BaseCanonical", change, expect_file!["snapshots/base-not-canonical.txt"]);
}

#[test]
fn page_fault_injected_without_an_error_code() {
    let info = InterruptionInfo::new(14, InterruptionType::HardwareException, false).0;
    let change = |h: &mut Hypervisor| h.set(F::ENTRY_INTERRUPTION_INFO, u64::from(info));
    broken("InjectionErrorCode", change, expect_file!["snapshots/injection-without-error-code.txt"]);
}

#[test]
fn activity_state_that_does_not_exist() {
    let change = |h: &mut Hypervisor| h.set(F::GUEST_ACTIVITY_STATE, 4);
    broken("ActivityStateUnsupported", change, expect_file!["snapshots/activity-state.txt"]);
}

#[test]
fn ept_pointer_without_a_memory_type() {
    let change = |h: &mut Hypervisor| h.set(F::EPT_POINTER, Eptp(EPT_TABLES | 1 | 3 << 3).0);
    broken("EptpMemoryType", change, expect_file!["snapshots/eptp-memory-type.txt"]);
}

#[test]
fn link_pointer_of_zero() {
    let change = |h: &mut Hypervisor| h.set(F::VMCS_LINK_POINTER, 0);
    broken("LinkPointerRevision", change, expect_file!["snapshots/link-pointer-zero.txt"]);
}

#[test]
fn host_selector_with_an_rpl() {
    let change = |h: &mut Hypervisor| h.set(F::HOST_DS_SELECTOR, 0x2b);
    broken("HostSelectorRplTi", change, expect_file!["snapshots/host-selector.txt"]);
}

#[test]
fn unrestricted_guest_without_ept() {
    let change = |h: &mut Hypervisor| h.set(F::SECONDARY_CONTROLS, u64::from(Secondary::UNRESTRICTED_GUEST));
    broken("UnrestrictedGuestNeedsEpt", change, expect_file!["snapshots/unrestricted-guest-without-ept.txt"]);
}

#[test]
fn controls_that_the_capability_msr_does_not_allow() {
    let change = |h: &mut Hypervisor| h.set(F::PIN_BASED_CONTROLS, 1 << 8);
    broken("PinBasedReserved", change, expect_file!["snapshots/pin-based-controls.txt"]);
}

#[test]
fn msr_that_cannot_be_loaded() {
    let change = |h: &mut Hypervisor| {
        h.store_64(0x3_0000, 0x277);
        h.store_64(0x3_0008, spec::x86::paging::PAT_RESET);
        h.store_64(0x3_0010, 0xc000_0080);
        h.store_64(0x3_0018, 0xffff);
        h.set(F::ENTRY_MSR_LOAD_COUNT, 2);
        h.set(F::ENTRY_MSR_LOAD_ADDRESS, 0x3_0000);
    };
    broken("MsrLoadRefused", change, expect_file!["snapshots/msr-load.txt"]);
}

/// The one explanation of `kind` that entering the guest with this code gives.
fn of_guest(kind: Kind, change: impl FnOnce(&mut Hypervisor), code: &[u8], expected: ExpectFile) {
    let mut hypervisor = Hypervisor::new();
    change(&mut hypervisor);
    let told = hypervisor.run(code);
    let last = told.last().unwrap_or_else(|| panic!("nothing was told"));
    assert_eq!(last.kind, kind, "{told:?}");
    expected.assert_eq(&last.to_string());
}

/// mov [0x30008], eax
const STORE: &[u8] = &[0x89, 0x04, 0x25, 0x08, 0x00, 0x03, 0x00];

#[test]
fn an_ept_violation_is_walked() {
    let change = |h: &mut Hypervisor| h.store_64(EPT_TABLES + 0x3000 + 8 * 0x30, 0x3_0000 | 0x35);
    of_guest(Kind::EptViolation, change, STORE, expect_file!["snapshots/ept-violation.txt"]);
}

#[test]
fn an_ept_misconfiguration_is_walked() {
    let change = |h: &mut Hypervisor| h.store_64(EPT_TABLES + 0x3000 + 8 * 0x30, 0x3_0000 | 0x36);
    of_guest(Kind::EptMisconfiguration, change, STORE, expect_file!["snapshots/ept-misconfiguration.txt"]);
}

#[test]
fn a_triple_fault_of_a_guest_shows_its_chain() {
    let change = |h: &mut Hypervisor| {
        // #PF has a gate that is not present; #DF has none.
        h.set(F::GUEST_IDTR_BASE, 0x2000);
        h.set(F::GUEST_IDTR_LIMIT, 15 * 16 - 1);
        h.store_64(0x2000 + 14 * 16, 0x0000_0e00_0008_9000);
    };
    // mov eax, [0x40000000]
    let code = [0x8b, 0x04, 0x25, 0x00, 0x00, 0x00, 0x40];
    of_guest(Kind::TripleFault, change, &code, expect_file!["snapshots/triple-fault.txt"]);
}

#[test]
fn a_page_fault_is_walked() {
    // ud2 at a #PF handler that is not there; the first thing told is the page fault.
    let mut hypervisor = Hypervisor::new();
    let told = hypervisor.run(&[0x8b, 0x04, 0x25, 0x00, 0x00, 0x00, 0x40]);
    assert_eq!(told[0].kind, Kind::PageFault);
    expect_file!["snapshots/page-fault.txt"].assert_eq(&told[0].to_string());
}

#[test]
fn a_vmx_instruction_that_fails_shows_its_operands() {
    let mut hypervisor = Hypervisor::new();
    hypervisor.store(HOST_CODE, &[0x0f, 0x78, 0xc8, 0xf4]); // vmread rax, rcx
    hypervisor.machine.cpus[0].regs[1] = 0x6400_0001;
    let told = hypervisor.run(&[]);
    assert_eq!(told.len(), 1);
    expect_file!["snapshots/vmread.txt"].assert_eq(&told[0].to_string());
}

#[test]
fn vmresume_of_a_clear_vmcs() {
    let mut hypervisor = Hypervisor::new();
    hypervisor.store(HOST_CODE, &[0x0f, 0x01, 0xc3, 0xf4]);
    let told = hypervisor.run(&[]);
    assert_eq!(told.len(), 1);
    expect_file!["snapshots/vmresume-not-launched.txt"].assert_eq(&told[0].to_string());
}

#[test]
fn the_same_as_json() {
    let mut hypervisor = Hypervisor::new();
    hypervisor.set(F::GUEST_TR_ACCESS_RIGHTS, 0x89);
    let told = hypervisor.run(&[0x0f, 0xa2]);
    let text = serde_json::to_string_pretty(&told[0]).expect("plain data");
    expect_file!["snapshots/tr-not-busy.json"].assert_eq(&text);
}

#[test]
fn the_same_again_is_only_counted() {
    let mut hypervisor = Hypervisor::new();
    hypervisor.set(F::GUEST_RFLAGS, 0);
    assert_eq!(hypervisor.run(&[]).len(), 1);
    hypervisor.machine.cpus[0].rip = HOST_CODE;
    hypervisor.machine.cpus[0].activity = processor::run::Activity::Active;
    assert_eq!(hypervisor.run(&[]).len(), 0);
    let watchers = hypervisor.machine.watchers();
    let repeated: Vec<_> = watchers.explainer.as_ref().unwrap().repeated().collect();
    assert_eq!(repeated.len(), 1);
    assert_eq!(repeated[0].1, 2);
}

#[test]
fn the_run_is_the_same_whether_or_not_it_is_watched() {
    let digest = |watched: bool, code: &[u8]| {
        let mut hypervisor = Hypervisor::new();
        if !watched {
            hypervisor.machine.watch(Watchers::default());
        }
        let told = hypervisor.run(code);
        assert_eq!(told.is_empty(), !watched);
        hypervisor.machine.digest()
    };
    // A page fault that becomes a triple fault; an invalid opcode that does.
    for code in [&[0x8b, 0x04, 0x25, 0x00, 0x00, 0x00, 0x40][..], &[0x0f, 0x0b]] {
        assert_eq!(digest(true, code), digest(false, code));
    }
}
