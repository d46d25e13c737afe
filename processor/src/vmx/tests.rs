//! A small hypervisor by hand: a 64-bit host with one VMCS, guests of a few instructions.

use super::vmcs::{NO_POINTER, REVISION};
use crate::apic::InterruptMessage;
use crate::cpu::{RAX, RCX, RDI};
use crate::models::Model;
use crate::run::Activity;
use crate::testing::Machine;
use spec::vmx::VmcsField as F;
use spec::vmx::ept::EptEntry;
use spec::vmx::qualification::EptViolation;
use spec::vmx::{
    EntryCheck, EntryControls, ExitControls, ExitReason, InterruptionInfo, InterruptionType, PinBasedControls as Pin,
    PrimaryControls as Primary, SecondaryControls as Secondary, VmInstructionError,
};

const VMXON_REGION: u64 = 0x1_0000;
const VMCS_REGION: u64 = 0x1_1000;
pub(super) const VIRTUAL_APIC: u64 = 0x1_2000;
pub(super) const EPT_TABLES: u64 = 0x2_0000;
/// Where the host goes on after an exit.
const HOST_RIP: u64 = 0x9000;
/// Where the guest begins.
pub(super) const GUEST_RIP: u64 = 0xa000;

const VMXON_RDI: &[u8] = &[0xf3, 0x0f, 0xc7, 0x37];
const VMPTRLD_RDI: &[u8] = &[0x0f, 0xc7, 0x37];
const VMCLEAR_RDI: &[u8] = &[0x66, 0x0f, 0xc7, 0x37];
const VMREAD_RAX_RCX: &[u8] = &[0x0f, 0x78, 0xc8];
const VMWRITE_RCX_RAX: &[u8] = &[0x0f, 0x79, 0xc8];
pub(super) const VMLAUNCH: &[u8] = &[0x0f, 0x01, 0xc2];
const VMRESUME: &[u8] = &[0x0f, 0x01, 0xc3];
const VMXOFF: &[u8] = &[0x0f, 0x01, 0xc4];
pub(super) const CPUID: &[u8] = &[0x0f, 0xa2];
pub(super) const NOP: u8 = 0x90;
pub(super) const HLT: u8 = 0xf4;

mod events;
mod memory;
mod reduced;
mod shadowing;
mod waiting;

pub(super) struct Host {
    pub(super) machine: Machine,
}

impl Host {
    /// In VMX operation with a current VMCS that describes a 64-bit guest with EPT (the first 2 MiB one to one) like the host itself.
    pub(super) fn new() -> Self {
        Self::with_model(Model::default_model())
    }

    /// As [`Host::new`], on the model that `choice` names.
    fn of_model(choice: &str) -> Self {
        Self::with_model(Model::named(choice).unwrap())
    }

    /// As [`Host::new`], on another CPU model.
    pub(super) fn with_model(model: Model) -> Self {
        let mut host = Self { machine: Machine::long_with(model) };
        let m = &mut host.machine;
        m.cpu.cr0 |= 0x20;
        m.cpu.cr4 |= 0x2000;
        m.cpu.tr = crate::segment::Segment { selector: 0x28, base: 0, limit: 0x67, access: 0x8b };
        m.store(VMXON_REGION, 4, u64::from(REVISION));
        m.store(VMCS_REGION, 4, u64::from(REVISION));
        m.store(0x5000, 8, VMXON_REGION);
        m.store(0x5008, 8, VMCS_REGION);
        host.run_with_rdi(VMXON_RDI, 0x5000);
        host.run_with_rdi(VMCLEAR_RDI, 0x5008);
        host.run_with_rdi(VMPTRLD_RDI, 0x5008);
        assert_eq!(host.status(), 0);
        host.identity_ept();
        host.set_up_vmcs();
        host
    }

    fn run_with_rdi(&mut self, code: &[u8], rdi: u64) {
        self.machine.cpu.regs[RDI] = rdi;
        self.machine.execute(code, 1);
    }

    /// CF and ZF.
    fn status(&self) -> u64 {
        self.machine.cpu.rflags() & 0x41
    }

    fn identity_ept(&mut self) {
        let m = &mut self.machine;
        m.store(EPT_TABLES, 8, (EPT_TABLES + 0x1000) | 7);
        m.store(EPT_TABLES + 0x1000, 8, (EPT_TABLES + 0x2000) | 7);
        m.store(EPT_TABLES + 0x2000, 8, (EPT_TABLES + 0x3000) | 7);
        for page in 0..512 {
            m.store(EPT_TABLES + 0x3000 + 8 * page, 8, page << 12 | 0x37);
        }
    }

    /// Changes the EPT entry of a page.
    pub(super) fn ept_entry(&mut self, page: u64, entry: u64) {
        self.machine.store(EPT_TABLES + 0x3000 + 8 * (page >> 12), 8, entry);
        self.machine.cpu.tlb.flush_all();
    }

    fn set_up_vmcs(&mut self) {
        let c = self.machine.cpu.vmx.capabilities.clone();
        let primary = c.primary.required | Primary::ACTIVATE_SECONDARY_CONTROLS;
        self.set(F::PIN_BASED_CONTROLS, u64::from(c.pin.required));
        self.set(F::PRIMARY_CONTROLS, u64::from(primary & c.primary.allowed));
        let secondary = (Secondary::ENABLE_EPT | Secondary::ENABLE_VPID) & c.secondary.allowed;
        self.set(F::SECONDARY_CONTROLS, u64::from(secondary));
        self.set(F::EXIT_CONTROLS, u64::from(c.exit.required | ExitControls::HOST_ADDRESS_SPACE_SIZE));
        self.set(F::ENTRY_CONTROLS, u64::from(c.entry.required | EntryControls::IA32E_MODE_GUEST));
        self.set(F::VPID, 1);
        self.set(F::EPT_POINTER, EPT_TABLES | 6 | 3 << 3);
        self.set(F::VMCS_LINK_POINTER, u64::MAX);
        let (cr0, cr3, cr4) = (self.machine.cpu.cr0, self.machine.cpu.cr3, self.machine.cpu.cr4);
        for (host, guest, value) in [
            (F::HOST_CR0, F::GUEST_CR0, cr0),
            (F::HOST_CR3, F::GUEST_CR3, cr3),
            (F::HOST_CR4, F::GUEST_CR4, cr4),
            (F::HOST_RSP, F::GUEST_RSP, 0x7000),
            (F::HOST_GDTR_BASE, F::GUEST_GDTR_BASE, self.machine.cpu.gdtr.base),
            (F::HOST_IDTR_BASE, F::GUEST_IDTR_BASE, crate::testing::IDT),
        ] {
            self.set(host, value);
            self.set(guest, value);
        }
        self.set(F::HOST_RIP, HOST_RIP);
        self.set(F::GUEST_RIP, GUEST_RIP);
        self.set(F::GUEST_GDTR_LIMIT, u64::from(self.machine.cpu.gdtr.limit));
        self.set(F::GUEST_IDTR_LIMIT, 0xfff);
        for n in 0..6u32 {
            let segment = self.machine.cpu.segs[n as usize];
            self.set(F(F::GUEST_ES_SELECTOR.0 + 2 * n), u64::from(segment.selector));
            self.set(F(F::HOST_ES_SELECTOR.0 + 2 * n), u64::from(segment.selector));
            self.set(F(F::GUEST_ES_LIMIT.0 + 2 * n), u64::from(segment.limit));
            self.set(F(F::GUEST_ES_ACCESS_RIGHTS.0 + 2 * n), u64::from(segment.access));
        }
        self.set(F::HOST_TR_SELECTOR, 0x28);
        self.set(F::GUEST_TR_SELECTOR, 0x28);
        self.set(F::GUEST_TR_LIMIT, 0x67);
        self.set(F::GUEST_TR_ACCESS_RIGHTS, 0x8b);
        self.set(F::GUEST_LDTR_ACCESS_RIGHTS, 0x1_0000);
        self.set(F::GUEST_RFLAGS, 2);
        self.set(F::GUEST_DR7, 0x400);
    }

    pub(super) fn set(&mut self, field: F, value: u64) {
        self.machine.cpu.vmx.vmcs.set(field, value);
    }

    pub(super) fn get(&self, field: F) -> u64 {
        self.machine.cpu.vmx.vmcs.get(field)
    }

    pub(super) fn add(&mut self, field: F, bits: u32) {
        self.set(field, self.get(field) | u64::from(bits));
    }

    fn unrestricted_real_mode(&mut self) {
        self.add(F::SECONDARY_CONTROLS, Secondary::UNRESTRICTED_GUEST);
        self.set(F::ENTRY_CONTROLS, self.get(F::ENTRY_CONTROLS) & !u64::from(EntryControls::IA32E_MODE_GUEST));
        self.set(F::GUEST_CR0, 0x30);
        self.set(F::GUEST_CR4, 0x2000);
        for n in 0..6u32 {
            self.set(F(F::GUEST_ES_SELECTOR.0 + 2 * n), 0);
            self.set(F(F::GUEST_ES_LIMIT.0 + 2 * n), 0xffff);
            self.set(F(F::GUEST_ES_ACCESS_RIGHTS.0 + 2 * n), 0x93);
        }
        self.set(F::GUEST_CS_ACCESS_RIGHTS, 0x9b);
    }

    /// Puts `code` at the guest's RIP, enters by VMLAUNCH or VMRESUME, and runs until the guest exits, at most `limit` instructions.
    pub(super) fn enter(&mut self, code: &[u8], limit: u64) -> Option<ExitReason> {
        self.machine.write(self.get(F::GUEST_RIP), code);
        self.resume(limit)
    }

    pub(super) fn resume(&mut self, limit: u64) -> Option<ExitReason> {
        self.machine.cpu.rip = 0x8000;
        self.machine.write(HOST_RIP, &[NOP; 4]);
        let entry = if self.machine.cpu.vmx.vmcs.launched { VMRESUME } else { VMLAUNCH };
        self.machine.execute(entry, 1);
        for _ in 0..limit {
            if !self.machine.cpu.vmx.non_root {
                break;
            }
            self.machine.steps(1);
        }
        if self.machine.cpu.vmx.non_root {
            return None;
        }
        assert_eq!(self.machine.cpu.rip & !3, HOST_RIP, "the host goes on at its RIP");
        ExitReason::from_number(self.get(F::EXIT_REASON) as u16)
    }
}

#[test]
fn a_guest_exits_at_cpuid() {
    let mut host = Host::new();
    assert_eq!(host.enter(&[NOP, 0x0f, 0xa2], 10), Some(ExitReason::Cpuid));
    assert_eq!(host.get(F::GUEST_RIP), GUEST_RIP + 1);
    assert_eq!(host.get(F::EXIT_INSTRUCTION_LENGTH), 2);
    assert!(host.machine.cpu.vmx.vmcs.launched);
    host.set(F::GUEST_RIP, GUEST_RIP + 3);
    assert_eq!(host.enter(CPUID, 10), Some(ExitReason::Cpuid), "VMRESUME");
}

#[test]
fn vmread_and_vmwrite_reach_the_fields() {
    let mut host = Host::new();
    host.machine.cpu.regs[RCX] = u64::from(F::EPT_POINTER.high().0);
    host.machine.cpu.regs[RAX] = 0x1234;
    host.machine.execute(VMWRITE_RCX_RAX, 1);
    assert_eq!((host.status(), host.get(F::EPT_POINTER) >> 32), (0, 0x1234));
    host.machine.cpu.regs[RAX] = 0;
    host.machine.execute(VMREAD_RAX_RCX, 1);
    assert_eq!(host.machine.cpu.regs[RAX], 0x1234);
    host.machine.cpu.regs[RCX] = u64::from(F::SHARED_EPT_POINTER.0);
    host.machine.execute(VMREAD_RAX_RCX, 1);
    assert_eq!(
        (host.status(), host.get(F::VM_INSTRUCTION_ERROR)),
        (0x40, VmInstructionError::UnsupportedComponent as u64)
    );
}

#[test]
fn a_vmcs_comes_back_from_its_region() {
    let mut host = Host::new();
    host.set(F::GUEST_RSP, 0x1234_5678);
    host.run_with_rdi(VMCLEAR_RDI, 0x5008);
    assert_eq!(host.machine.cpu.vmx.vmcs.pointer, NO_POINTER);
    *host.machine.cpu.vmx.vmcs = super::Vmcs::default();
    host.run_with_rdi(VMPTRLD_RDI, 0x5008);
    assert_eq!(host.get(F::GUEST_RSP), 0x1234_5678);
    assert!(!host.machine.cpu.vmx.vmcs.launched);
    assert_eq!(host.enter(CPUID, 5), Some(ExitReason::Cpuid));
}

#[test]
fn failures_that_are_not_exits() {
    let mut host = Host::new();
    host.machine.execute(VMRESUME, 1);
    assert_eq!(host.get(F::VM_INSTRUCTION_ERROR), VmInstructionError::VmresumeNotLaunched as u64);
    host.set(F::VPID, 0);
    host.machine.execute(VMLAUNCH, 1);
    assert_eq!((host.status(), host.get(F::VM_INSTRUCTION_ERROR)), (0x40, VmInstructionError::InvalidControls as u64));
    assert_eq!(host.machine.cpu.vmx.last_failed_check.map(|failed| failed.check), Some(EntryCheck::VpidZero));
    host.run_with_rdi(VMCLEAR_RDI, 0x5008);
    host.machine.execute(VMLAUNCH, 1);
    assert_eq!(host.status(), 1, "VMfailInvalid without a current VMCS");
    host.machine.execute(VMXOFF, 1);
    assert!(!host.machine.cpu.vmx.on);
    host.machine.idt(6, 8, HOST_RIP, 0x8e);
    host.machine.execute(VMXOFF, 1);
    assert_eq!(host.machine.cpu.rip, HOST_RIP, "#UD outside VMX operation");
}

#[test]
fn an_invalid_guest_state_is_an_exit_that_keeps_the_guest_state() {
    let mut host = Host::new();
    host.set(F::GUEST_RFLAGS, 0);
    assert_eq!(host.enter(CPUID, 5), Some(ExitReason::InvalidGuestState));
    assert_eq!(host.get(F::EXIT_REASON), 0x8000_0021);
    assert_eq!(host.get(F::GUEST_RFLAGS), 0);
    assert!(!host.machine.cpu.vmx.vmcs.launched);
    assert_eq!(host.machine.cpu.vmx.last_failed_check.map(|failed| failed.check), Some(EntryCheck::RflagsReserved));
}

#[test]
fn an_unrestricted_guest_runs_in_real_mode() {
    let mut host = Host::new();
    host.unrestricted_real_mode();
    host.add(F::PRIMARY_CONTROLS, Primary::HLT_EXITING);
    // mov ax, 0x1234; mov [0x600], ax; hlt
    let code = [0xb8, 0x34, 0x12, 0xa3, 0x00, 0x06, HLT];
    assert_eq!(host.enter(&code, 10), Some(ExitReason::Hlt));
    assert_eq!(host.machine.load(0x600, 2), 0x1234);
    assert_eq!(host.get(F::GUEST_RIP), GUEST_RIP + 6);
    assert_eq!(host.machine.cpu.cr0 & 0x8000_0001, 0x8000_0001, "the host is back in 64-bit mode");
}

#[test]
fn an_ept_violation_tells_address_and_access() {
    let mut host = Host::new();
    host.ept_entry(0x3_0000, 0);
    // mov [0x30008], eax
    let code = [0x89, 0x04, 0x25, 0x08, 0x00, 0x03, 0x00];
    assert_eq!(host.enter(&code, 10), Some(ExitReason::EptViolation));
    assert_eq!((host.get(F::GUEST_PHYSICAL_ADDRESS), host.get(F::GUEST_LINEAR_ADDRESS)), (0x3_0008, 0x3_0008));
    let expected = EptViolation::WRITE | EptViolation::LINEAR_VALID | EptViolation::TRANSLATED;
    let advanced = EptViolation::USER_PAGE | EptViolation::WRITABLE_PAGE;
    assert_eq!(host.get(F::EXIT_QUALIFICATION), expected | advanced);
    assert_eq!(host.get(F::GUEST_RFLAGS) & 0x1_0000, 0x1_0000, "RF is saved as 1");
    host.ept_entry(0x3_0000, 0x3_0000 | EptEntry::WRITE | EptEntry::READ | 0x30);
    assert_eq!(host.resume(1), None, "the instruction completes");
}

#[test]
fn a_store_that_violates_ept_leaves_no_pending_debug_exception() {
    let mut host = Host::new();
    host.ept_entry(0x3_0000, 0x3_0000 | EptEntry::READ | 0x30);
    host.add(F::ENTRY_CONTROLS, EntryControls::LOAD_DEBUG_CONTROLS);
    host.set(F::GUEST_DR7, 1 | 1 << 16 | 0x400);
    host.machine.cpu.dr[0] = 0x3_0008;
    // mov [0x30008], eax
    assert_eq!(host.enter(&[0x89, 0x04, 0x25, 0x08, 0x00, 0x03, 0x00], 5), Some(ExitReason::EptViolation));
    assert_eq!(host.get(F::GUEST_PENDING_DEBUG), 0);
    host.ept_entry(0x3_0000, 0x3_0000 | EptEntry::WRITE | EptEntry::READ | 0x30);
    host.set(F::EXCEPTION_BITMAP, 1 << 1);
    assert_eq!(host.resume(5), Some(ExitReason::ExceptionOrNmi));
    assert_eq!((host.get(F::GUEST_RIP), host.get(F::EXIT_QUALIFICATION)), (GUEST_RIP + 7, 1));
}

#[test]
fn a_write_to_a_read_only_page_violates_after_a_read_was_cached() {
    let mut host = Host::new();
    host.ept_entry(0x3_0000, 0x3_0000 | EptEntry::READ | 0x30);
    // mov eax, [0x30000]; mov [0x30000], eax
    let code = [0x8b, 0x04, 0x25, 0, 0, 3, 0, 0x89, 0x04, 0x25, 0, 0, 3, 0];
    assert_eq!(host.enter(&code, 10), Some(ExitReason::EptViolation));
    assert_eq!(host.get(F::GUEST_RIP), GUEST_RIP + 7);
    assert_eq!(host.get(F::EXIT_QUALIFICATION) & 0x3f, EptViolation::WRITE | EptViolation::READABLE);
}

#[test]
fn ports_and_msrs_exit_by_their_bitmaps() {
    let mut host = Host::new();
    let (io, msrs) = (0x4_0000, 0x4_2000);
    host.add(F::PRIMARY_CONTROLS, Primary::USE_IO_BITMAPS | Primary::USE_MSR_BITMAPS);
    host.set(F::IO_BITMAP_A, io);
    host.set(F::IO_BITMAP_B, io + 0x1000);
    host.set(F::MSR_BITMAPS, msrs);
    host.machine.store(io + 0x80 / 8, 1, 1);
    host.machine.store(msrs + 0x400 + 0x82 / 8, 1, 4);
    // out 0x90, al; out 0x80, al
    assert_eq!(host.enter(&[0xe6, 0x90, 0xe6, 0x80], 10), Some(ExitReason::Io));
    assert_eq!(host.get(F::EXIT_QUALIFICATION), 0x80 << 16 | 1 << 6);
    assert_eq!(host.machine.bus.log().port_writes.len(), 1);
    // mov ecx, 0xc0000081; rdmsr; inc ecx; rdmsr
    host.set(F::GUEST_RIP, GUEST_RIP + 0x100);
    let code = [0xb9, 0x81, 0, 0, 0xc0, 0x0f, 0x32, 0xff, 0xc1, 0x0f, 0x32];
    assert_eq!(host.enter(&code, 10), Some(ExitReason::Rdmsr));
    assert_eq!(host.machine.cpu.regs[RCX], 0xc000_0082);
}

#[test]
fn control_register_masks_and_shadows() {
    let mut host = Host::new();
    host.set(F::CR0_MASK, 8);
    host.set(F::CR0_READ_SHADOW, 0);
    host.set(F::GUEST_CR0, host.get(F::GUEST_CR0) | 8);
    // mov rax, cr0 (TS reads 0); mov cr0, rax (the same: no exit, TS stays); or eax, 8; mov cr0, rax (exits)
    let code = [0x0f, 0x20, 0xc0, 0x0f, 0x22, 0xc0, 0x83, 0xc8, 0x08, 0x0f, 0x22, 0xc0];
    assert_eq!(host.enter(&code, 10), Some(ExitReason::CrAccess));
    assert_eq!(host.get(F::GUEST_RIP), GUEST_RIP + 9);
    assert_eq!(host.get(F::EXIT_QUALIFICATION), 0);
    assert_eq!(host.get(F::GUEST_CR0) & 8, 8);
    assert_eq!(host.machine.cpu.regs[RAX] & 8, 8);
}

#[test]
fn the_exception_bitmap_and_the_page_fault_mask_choose() {
    let mut host = Host::new();
    host.set(F::EXCEPTION_BITMAP, 1 << 6 | 1 << 14);
    assert_eq!(host.enter(&[0x0f, 0x0b], 10), Some(ExitReason::ExceptionOrNmi));
    let info = InterruptionInfo::new(6, InterruptionType::HardwareException, false);
    assert_eq!(host.get(F::EXIT_INTERRUPTION_INFO), u64::from(info.0));
    // A write to an unmapped linear address: error code 2.
    host.set(F::GUEST_RIP, GUEST_RIP + 0x10);
    assert_eq!(host.enter(&[0x89, 0x04, 0x25, 0, 0, 0x40, 0], 10), Some(ExitReason::ExceptionOrNmi));
    assert_eq!((host.get(F::EXIT_QUALIFICATION), host.get(F::EXIT_INTERRUPTION_ERROR_CODE)), (0x40_0000, 2));
    assert_eq!(host.machine.cpu.cr2, 0, "CR2 is not changed by the exit");
    host.set(F::PAGE_FAULT_ERROR_CODE_MASK, 2);
    host.machine.idt(14, 8, 0xb000, 0x8e);
    host.machine.write(0xb000, CPUID);
    assert_eq!(host.resume(10), Some(ExitReason::Cpuid), "the mask lets this fault through to the guest");
    assert_eq!(host.machine.cpu.cr2, 0x40_0000);
}

#[test]
fn an_injected_exception_is_delivered_and_not_intercepted() {
    let mut host = Host::new();
    host.set(F::EXCEPTION_BITMAP, u64::from(u32::MAX));
    let info = InterruptionInfo::new(13, InterruptionType::HardwareException, true);
    host.set(F::ENTRY_INTERRUPTION_INFO, u64::from(info.0));
    host.set(F::ENTRY_EXCEPTION_ERROR_CODE, 0x18);
    host.machine.idt(13, 8, 0xb000, 0x8e);
    host.machine.write(0xb000, CPUID);
    assert_eq!(host.enter(&[NOP], 10), Some(ExitReason::Cpuid));
    assert_eq!((host.get(F::GUEST_RIP), host.get(F::GUEST_RSP)), (0xb000, 0x7000 - 48));
    assert_eq!(host.machine.load(0x7000 - 48, 8), 0x18);
    assert_eq!(host.get(F::ENTRY_INTERRUPTION_INFO) >> 31, 0, "the valid bit is cleared by the exit");
}

#[test]
fn an_ept_violation_during_delivery_reports_the_event() {
    let mut host = Host::new();
    let info = InterruptionInfo::new(0x41, InterruptionType::External, false);
    host.set(F::ENTRY_INTERRUPTION_INFO, u64::from(info.0));
    host.set(F::GUEST_RFLAGS, 0x202);
    host.machine.idt(0x41, 8, 0xb000, 0x8e);
    host.ept_entry(0x6000, 0);
    assert_eq!(host.enter(&[NOP], 10), Some(ExitReason::EptViolation));
    assert_eq!(host.get(F::IDT_VECTORING_INFO), u64::from(info.0));
    assert_eq!((host.get(F::GUEST_RIP), host.get(F::GUEST_RSP)), (GUEST_RIP, 0x7000));
    assert_eq!(host.get(F::GUEST_RFLAGS), 0x202);
}

#[test]
fn a_software_interrupt_that_cannot_be_delivered_reports_its_length() {
    let mut host = Host::new();
    host.set(F::EXCEPTION_BITMAP, 1 << 11);
    host.machine.idt(0x50, 8, 0xb000, 0x0e);
    assert_eq!(host.enter(&[0xcd, 0x50], 10), Some(ExitReason::ExceptionOrNmi));
    let expected = InterruptionInfo::new(0x50, InterruptionType::SoftwareInterrupt, false);
    assert_eq!(host.get(F::IDT_VECTORING_INFO), u64::from(expected.0));
    assert_eq!((host.get(F::EXIT_INSTRUCTION_LENGTH), host.get(F::GUEST_RIP)), (2, GUEST_RIP));
}

#[test]
fn the_preemption_timer_ends_a_loop_and_is_saved() {
    let mut host = Host::new();
    host.add(F::PIN_BASED_CONTROLS, Pin::PREEMPTION_TIMER);
    host.add(F::EXIT_CONTROLS, ExitControls::SAVE_PREEMPTION_TIMER);
    host.set(F::PREEMPTION_TIMER, 10);
    assert_eq!(host.enter(&[0xeb, 0xfe], 1000), Some(ExitReason::PreemptionTimer));
    assert_eq!(host.get(F::PREEMPTION_TIMER), 0);
    host.set(F::PREEMPTION_TIMER, 1000);
    assert_eq!(host.enter(CPUID, 10), Some(ExitReason::Cpuid));
    assert!((970..1000).contains(&host.get(F::PREEMPTION_TIMER)), "it has counted, if only over the exit");
    host.set(F::PREEMPTION_TIMER, 0);
    assert_eq!(host.resume(10), Some(ExitReason::PreemptionTimer), "before the first instruction");
}

#[test]
fn the_monitor_trap_flag_exits_after_each_instruction() {
    let mut host = Host::new();
    host.add(F::PRIMARY_CONTROLS, Primary::MONITOR_TRAP_FLAG);
    assert_eq!(host.enter(&[NOP; 8], 10), Some(ExitReason::MonitorTrapFlag));
    assert_eq!(host.get(F::GUEST_RIP), GUEST_RIP + 1);
    assert_eq!(host.resume(10), Some(ExitReason::MonitorTrapFlag));
    assert_eq!(host.get(F::GUEST_RIP), GUEST_RIP + 2);
    let info = InterruptionInfo::new(6, InterruptionType::HardwareException, false);
    host.set(F::ENTRY_INTERRUPTION_INFO, u64::from(info.0));
    host.machine.idt(6, 8, 0xb000, 0x8e);
    assert_eq!(host.resume(10), Some(ExitReason::MonitorTrapFlag));
    assert_eq!(host.get(F::GUEST_RIP), 0xb000, "after the injected event, before its handler's first instruction");
}

#[test]
fn windows_open_when_nothing_blocks() {
    let mut host = Host::new();
    host.add(F::PRIMARY_CONTROLS, Primary::INTERRUPT_WINDOW_EXITING);
    // nop; sti; nop; nop
    assert_eq!(host.enter(&[NOP, 0xfb, NOP, NOP], 10), Some(ExitReason::InterruptWindow));
    assert_eq!(host.get(F::GUEST_RIP), GUEST_RIP + 3, "not in the shadow of STI");
    let mut host = Host::new();
    host.add(F::PIN_BASED_CONTROLS, Pin::NMI_EXITING | Pin::VIRTUAL_NMIS);
    host.add(F::PRIMARY_CONTROLS, Primary::NMI_WINDOW_EXITING);
    host.set(F::GUEST_INTERRUPTIBILITY, 8);
    assert_eq!(host.enter(&[NOP; 4], 3), None, "virtual NMIs are blocked");
    let mut host = Host::new();
    host.add(F::PIN_BASED_CONTROLS, Pin::NMI_EXITING | Pin::VIRTUAL_NMIS);
    host.add(F::PRIMARY_CONTROLS, Primary::NMI_WINDOW_EXITING);
    assert_eq!(host.enter(&[NOP; 4], 3), Some(ExitReason::NmiWindow));
    assert_eq!(host.get(F::GUEST_RIP), GUEST_RIP);
}

#[test]
fn an_external_interrupt_exits_whatever_if_is_and_is_acknowledged_on_demand() {
    let message = InterruptMessage::from_msi(0xfee0_0000, 0x61).unwrap();
    for acknowledge in [false, true] {
        let mut host = Host::new();
        host.add(F::PIN_BASED_CONTROLS, Pin::EXTERNAL_INTERRUPT_EXITING);
        if acknowledge {
            host.add(F::EXIT_CONTROLS, ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT);
        }
        host.machine.cpu.apic.set_virtual_wire();
        host.machine.cpu.accept(&message);
        assert_eq!(host.enter(&[NOP; 4], 5), Some(ExitReason::ExternalInterrupt));
        let expected = InterruptionInfo::new(0x61, InterruptionType::External, false);
        let info = if acknowledge { u64::from(expected.0) } else { 0 };
        assert_eq!(host.get(F::EXIT_INTERRUPTION_INFO), info);
        assert_eq!(host.machine.cpu.apic.is_requested(0x61), !acknowledge);
    }
}

#[test]
fn an_nmi_exits_and_blocks_nmis_in_the_host() {
    let mut host = Host::new();
    host.add(F::PIN_BASED_CONTROLS, Pin::NMI_EXITING);
    host.set(F::GUEST_ACTIVITY_STATE, 1);
    assert_eq!(host.enter(&[NOP; 4], 3), None, "halted");
    host.machine.cpu.events.nmi = true;
    host.machine.cpu.recheck_events();
    host.machine.steps(1);
    assert!(!host.machine.cpu.vmx.non_root);
    assert_eq!(host.get(F::EXIT_INTERRUPTION_INFO), 0x8000_0202);
    assert_eq!(host.get(F::GUEST_ACTIVITY_STATE), 1, "the guest stays halted");
    assert!(host.machine.cpu.events.nmi_blocked);
    assert_eq!(host.machine.cpu.activity, Activity::Active);
}

#[test]
fn cr8_goes_to_the_tpr_shadow_and_the_threshold_exits() {
    let mut host = Host::new();
    host.add(F::PRIMARY_CONTROLS, Primary::USE_TPR_SHADOW);
    host.set(F::VIRTUAL_APIC_ADDRESS, VIRTUAL_APIC);
    host.machine.store(VIRTUAL_APIC + 0x80, 4, 0x50);
    host.set(F::TPR_THRESHOLD, 4);
    // mov rax, cr8; dec eax; mov cr8, rax; dec eax; mov cr8, rax; nop
    let code = [0x44, 0x0f, 0x20, 0xc0, 0xff, 0xc8, 0x44, 0x0f, 0x22, 0xc0, 0xff, 0xc8, 0x44, 0x0f, 0x22, 0xc0, NOP];
    assert_eq!(host.enter(&code, 20), Some(ExitReason::TprBelowThreshold));
    assert_eq!((host.get(F::GUEST_RIP), host.machine.load(VIRTUAL_APIC + 0x80, 4)), (GUEST_RIP + 16, 0x30));
}

#[test]
fn the_apic_access_page_virtualizes_the_tpr_and_exits_elsewhere() {
    let mut host = Host::new();
    host.add(F::PRIMARY_CONTROLS, Primary::USE_TPR_SHADOW);
    host.add(F::SECONDARY_CONTROLS, Secondary::VIRTUALIZE_APIC_ACCESSES);
    host.set(F::VIRTUAL_APIC_ADDRESS, VIRTUAL_APIC);
    host.set(F::APIC_ACCESS_ADDRESS, 0x3_0000);
    // mov dword [0x30080], 0x20; mov eax, [0x30080]; mov [0x300b0], eax
    let code = [
        0xc7, 0x04, 0x25, 0x80, 0, 3, 0, 0x20, 0, 0, 0, 0x8b, 0x04, 0x25, 0x80, 0, 3, 0, 0x89, 0x04, 0x25, 0xb0, 0, 3,
        0,
    ];
    assert_eq!(host.enter(&code, 20), Some(ExitReason::ApicAccess));
    assert_eq!(host.get(F::EXIT_QUALIFICATION), 0x10b0);
    assert_eq!(host.get(F::EXIT_INSTRUCTION_LENGTH), 7);
    assert_eq!((host.machine.cpu.regs[RAX], host.machine.load(VIRTUAL_APIC + 0x80, 4)), (0x20, 0x20));
}

#[test]
fn a_triple_fault_of_the_guest_is_an_exit() {
    let mut host = Host::new();
    host.set(F::GUEST_IDTR_LIMIT, 0);
    assert_eq!(host.enter(&[0x0f, 0x0b], 5), Some(ExitReason::TripleFault));
    assert_eq!(host.machine.cpu.activity, Activity::Active);
}

#[test]
fn msr_areas_are_stored_and_loaded() {
    let mut host = Host::new();
    let (entry, exit) = (0x5_0000, 0x5_1000);
    for (at, number, value) in [(entry, 0xc000_0102, 0x1111), (exit, 0xc000_0102, 0x2222)] {
        host.machine.store(at, 8, number);
        host.machine.store(at + 8, 8, value);
    }
    host.set(F::ENTRY_MSR_LOAD_ADDRESS, entry);
    host.set(F::ENTRY_MSR_LOAD_COUNT, 1);
    host.set(F::EXIT_MSR_LOAD_ADDRESS, exit);
    host.set(F::EXIT_MSR_LOAD_COUNT, 1);
    host.machine.store(exit + 0x100, 8, 0xc000_0102);
    host.set(F::EXIT_MSR_STORE_ADDRESS, exit + 0x100);
    host.set(F::EXIT_MSR_STORE_COUNT, 1);
    assert_eq!(host.enter(CPUID, 5), Some(ExitReason::Cpuid));
    assert_eq!(host.machine.load(exit + 0x108, 8), 0x1111);
    assert_eq!(host.machine.cpu.msrs.kernel_gs_base, 0x2222);
    host.machine.store(entry, 8, 0xc000_0100);
    assert_eq!(host.resume(5), Some(ExitReason::MsrLoading));
    assert_eq!(host.get(F::EXIT_QUALIFICATION), 1);
    assert_eq!(host.machine.cpu.vmx.last_failed_check.map(|failed| failed.check), Some(EntryCheck::MsrLoadFsGsBase));
}

#[test]
fn the_tsc_is_scaled_and_offset() {
    let mut host = Host::new();
    host.add(F::PRIMARY_CONTROLS, Primary::USE_TSC_OFFSETTING);
    host.add(F::SECONDARY_CONTROLS, Secondary::USE_TSC_SCALING);
    host.set(F::TSC_MULTIPLIER, 3 << 48);
    host.set(F::TSC_OFFSET, 1_000_000);
    // rdtsc; mov esi, eax; cpuid
    assert_eq!(host.enter(&[0x0f, 0x31, 0x89, 0xc6, 0x0f, 0xa2], 5), Some(ExitReason::Cpuid));
    let seen = host.machine.cpu.regs[6];
    let own = (seen - 1_000_000) / 3;
    assert_eq!((seen - 1_000_000) % 3, 0);
    assert!(own <= host.machine.cpu.tsc() && own + 10_000 > host.machine.cpu.tsc());
}

#[test]
fn a_guest_page_table_behind_ept_is_reported_as_such() {
    let mut host = Host::new();
    host.set(F::GUEST_CR3, 0x3_0000);
    host.ept_entry(0x3_0000, 0);
    assert_eq!(host.enter(&[NOP], 5), Some(ExitReason::EptViolation));
    let expected = EptViolation::READ | EptViolation::LINEAR_VALID;
    assert_eq!(host.get(F::EXIT_QUALIFICATION), expected);
    assert_eq!(host.get(F::GUEST_LINEAR_ADDRESS), GUEST_RIP);
}

#[test]
fn setting_an_accessed_flag_behind_a_read_only_ept_page_is_a_read_and_a_write() {
    let mut host = Host::new();
    host.machine.store(0x3_0000, 8, (crate::testing::PAGE_TABLES + 0x1000) | 7);
    host.set(F::GUEST_CR3, 0x3_0000);
    host.ept_entry(0x3_0000, 0x3_0000 | EptEntry::READ | 0x30);
    assert_eq!(host.enter(&[NOP], 5), Some(ExitReason::EptViolation));
    let access = EptViolation::READ | EptViolation::WRITE;
    assert_eq!(host.get(F::EXIT_QUALIFICATION), access | EptViolation::READABLE | EptViolation::LINEAR_VALID);
}

#[test]
fn eptp_switching_changes_the_guest_physical_memory() {
    let mut host = Host::new();
    let (list, second) = (0x5_0000, 0x6_0000);
    host.add(F::SECONDARY_CONTROLS, Secondary::ENABLE_VM_FUNCTIONS);
    host.set(F::VM_FUNCTION_CONTROLS, 1);
    host.set(F::EPTP_LIST_ADDRESS, list);
    host.machine.store(list + 8, 8, second | 6 | 3 << 3);
    for page in 0..4 {
        let entry = host.machine.load(EPT_TABLES + 0x1000 * page, 8);
        let entry = if page < 3 { (second + 0x1000 * (page + 1)) | 7 } else { entry };
        host.machine.store(second + 0x1000 * page, 8, entry);
    }
    for page in 1..512 {
        let physical = if page == 0x30 { 0x3_1000 } else { page << 12 };
        host.machine.store(second + 0x3000 + 8 * page, 8, physical | 0x37);
    }
    host.machine.store(0x3_0000, 4, 1);
    host.machine.store(0x3_1000, 4, 2);
    // mov esi, [0x30000]; xor eax, eax; mov ecx, 1; vmfunc; mov edi, [0x30000]; mov ecx, 2; vmfunc
    let code = [
        0x8b, 0x34, 0x25, 0, 0, 3, 0, 0x31, 0xc0, 0xb9, 1, 0, 0, 0, 0x0f, 0x01, 0xd4, 0x8b, 0x3c, 0x25, 0, 0, 3, 0,
        0xb9, 2, 0, 0, 0, 0x0f, 0x01, 0xd4,
    ];
    assert_eq!(host.enter(&code, 20), Some(ExitReason::Vmfunc));
    assert_eq!((host.machine.cpu.regs[6], host.machine.cpu.regs[7]), (1, 2));
}

#[test]
fn a_pause_loop_exits() {
    let mut host = Host::new();
    host.add(F::SECONDARY_CONTROLS, Secondary::PAUSE_LOOP_EXITING);
    host.set(F::PLE_GAP, 128);
    host.set(F::PLE_WINDOW, 4096);
    // pause; jmp $-2
    assert_eq!(host.enter(&[0xf3, 0x90, 0xeb, 0xfc], 2000), Some(ExitReason::Pause));
}

#[test]
fn invept_and_invvpid_check_their_operands() {
    let mut host = Host::new();
    let invept = [0x66, 0x0f, 0x38, 0x80, 0x07]; // invept rax, [rdi]
    let invvpid = [0x66, 0x0f, 0x38, 0x81, 0x07]; // invvpid rax, [rdi]
    let mut status = |code: &[u8], kind, low, high| {
        host.machine.store(0x5010, 8, low);
        host.machine.store(0x5018, 8, high);
        host.machine.cpu.regs[RAX] = kind;
        host.run_with_rdi(code, 0x5010);
        host.status()
    };
    assert_eq!(status(&invept, 1, EPT_TABLES | 6 | 3 << 3, 0), 0);
    assert_eq!(status(&invept, 1, EPT_TABLES, 0), 0x40, "an EPT pointer that VM entry would refuse");
    assert_eq!(status(&invept, 2, 0, 0), 0);
    assert_eq!(status(&invept, 3, 0, 0), 0x40);
    for kind in [0, 1, 3] {
        assert_eq!(status(&invvpid, kind, 1, 0), 0);
        assert_eq!(status(&invvpid, kind, 0, 0), 0x40, "VPID 0");
    }
    assert_eq!(status(&invvpid, 2, 0, 0), 0);
    assert_eq!(status(&invvpid, 2, 0x1_0000, 0), 0x40, "reserved bits");
    assert_eq!(status(&invvpid, 0, 1, 1 << 62), 0x40, "a non-canonical address");
    assert_eq!(status(&invvpid, 4, 1, 0), 0x40);
}
