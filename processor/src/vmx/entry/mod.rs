//! VM entries (SDM Vol. 3C, chapter 27).

pub mod checks;
mod inject;
mod load;

pub(super) use load::{CR0_KEPT, LDTR, TR, nth};

use super::exit::Exit;
use super::msr_list;
use super::vmcs::NO_POINTER;
use super::{Controls, FailedCheck};
use crate::cpu::Cpu;
use crate::observe::Happening;
use crate::system::event::Shadow;
use crate::trap::Exec;
use checks::EntryContext;
use spec::vmx::{
    EntryCheck, EntryControls, PrimaryControls as Primary, SecondaryControls as Secondary, VmInstructionError as Error,
    VmcsField,
};
use spec::x86::{Cr0, Cr3, Cr4};

impl Cpu {
    /// VMLAUNCH (`launch`) or VMRESUME; `next` is the RIP of the following instruction, where it goes on if it fails.
    pub(super) fn vm_entry(&mut self, next: u64, launch: bool) -> Exec {
        self.rip = next;
        if let Some(error) = self.basic_check(launch) {
            self.vm_fail(error);
            return Ok(());
        }
        if !self.vmx.vmcs.is_current() || self.vmx.vmcs.shadow {
            self.vm_fail_invalid();
            return Ok(());
        }
        let context = self.entry_context();
        if let Err(failed) = checks::controls_and_host(&self.vmx.vmcs, &self.vmx.capabilities, context) {
            self.note_failed_entry(failed, 0);
            self.vm_fail(failed.check.group().instruction_error().unwrap_or(Error::InvalidControls));
            return Ok(());
        }
        if let Err(failed) = checks::guest(&self.vmx.vmcs, &self.vmx.capabilities, context) {
            let qualification = qualification_of(failed.check);
            self.entry_failure(failed, qualification);
            return Ok(());
        }
        self.spend_transition();
        let host_debugctl = self.msrs.debugctl;
        self.enter_non_root();
        self.load_guest(context);
        if let Err((entry, failed)) = self.load_entry_msrs() {
            self.msrs.debugctl = host_debugctl;
            self.entry_failure(failed, entry);
            return Ok(());
        }
        if launch {
            self.vmx.vmcs.launched = true;
        }
        self.vmx.last_failed_check = None;
        self.observe(Happening::Entry { launch });
        self.after_entry();
        Ok(())
    }

    /// 27.1: what is checked before the VMCS is looked at.
    fn basic_check(&self, launch: bool) -> Option<Error> {
        if !self.vmx.vmcs.is_current() || self.vmx.vmcs.shadow {
            return None;
        }
        if self.events.shadow == Shadow::MovSs {
            return Some(Error::EntryMovSsBlocking);
        }
        match (launch, self.vmx.vmcs.launched) {
            (true, true) => Some(Error::VmlaunchNotClear),
            (false, false) => Some(Error::VmresumeNotLaunched),
            _ => None,
        }
    }

    /// What the checks need from memory and from the processor.
    fn entry_context(&mut self) -> EntryContext {
        let mut context = EntryContext { long_mode: self.long_mode(), ..EntryContext::default() };
        let vmcs = &self.vmx.vmcs;
        let Controls { primary, secondary, entry, .. } = Controls::of(vmcs);
        let link = vmcs.get(VmcsField::VMCS_LINK_POINTER);
        let (cr0, cr3, cr4) =
            (vmcs.get(VmcsField::GUEST_CR0), vmcs.get(VmcsField::GUEST_CR3), vmcs.get(VmcsField::GUEST_CR4));
        let long_guest = entry.has(EntryControls::IA32E_MODE_GUEST);
        if primary.has(Primary::USE_TPR_SHADOW) {
            context.virtual_tpr = self.virtual_tpr();
        }
        if link != NO_POINTER {
            context.link_revision = self.physical_load::<4>(link & !3) as u32;
        }
        let pae = cr0 & Cr0::PG != 0 && cr4 & Cr4::PAE != 0 && !long_guest;
        if pae && !secondary.has(Secondary::ENABLE_EPT) {
            let table = cr3 & Cr3::PAE_TABLE;
            context.pdptes = std::array::from_fn(|n| self.physical_load::<8>(table + 8 * n as u64));
        }
        context
    }

    /// The controls of the current VMCS come into force.
    fn enter_non_root(&mut self) {
        let vmcs = &self.vmx.vmcs;
        let controls = Controls::of(vmcs);
        let ept = controls.secondary.has(Secondary::ENABLE_EPT);
        self.vmx.eptp = if ept { vmcs.get(VmcsField::EPT_POINTER) } else { 0 };
        let vpid = controls.secondary.has(Secondary::ENABLE_VPID);
        self.vmx.vpid = if vpid { vmcs.get(VmcsField::VPID) as u16 } else { 0 };
        self.vmx.controls = controls;
        self.vmx.non_root = true;
        self.vmx.pause_loop = Default::default();
        self.vmx.forget_apic_virtualization();
        self.vmx.mtf_pending = false;
        self.vmx.bus_lock = false;
        if !vpid {
            // Without a VPID, entries void the translations of VPID 0 (29.4.3.1).
            self.tlb.flush_where(|key| key.vpid == 0);
        }
    }

    /// The VM-entry MSR-load area (27.4). On failure the number of the entry, from 1.
    fn load_entry_msrs(&mut self) -> Result<(), (u64, FailedCheck)> {
        let count = self.vmx.vmcs.get32(VmcsField::ENTRY_MSR_LOAD_COUNT);
        let address = self.vmx.vmcs.get(VmcsField::ENTRY_MSR_LOAD_ADDRESS);
        for n in 0..u64::from(count) {
            let entry = msr_list::Entry::load(self, address + 16 * n);
            let loaded = if n >= msr_list::LIMIT { Err(EntryCheck::MsrLoadModelSpecific) } else { entry.write(self) };
            if let Err(check) = loaded {
                let field = Some(VmcsField::ENTRY_MSR_LOAD_ADDRESS);
                return Err((n + 1, FailedCheck { check, field, value: address }));
            }
        }
        Ok(())
    }

    fn note_failed_entry(&mut self, failed: FailedCheck, qualification: u64) {
        self.vmx.last_failed_check = Some(failed);
        self.observe(Happening::EntryFailed { failed, qualification });
    }

    /// 27.8: a VM entry that fails after the checks on controls and host state is a VM exit that saves no guest state.
    fn entry_failure(&mut self, failed: FailedCheck, qualification: u64) {
        self.note_failed_entry(failed, qualification);
        let reason = failed.check.group().exit_reason().unwrap_or(spec::vmx::ExitReason::InvalidGuestState);
        self.failed_entry_exit(Exit::new(reason, qualification));
    }
}

/// The exit qualification of a VM-entry failure due to invalid guest state (27.8). 3 is for an NMI injected under blocking by STI, which
/// this processor admits.
fn qualification_of(check: EntryCheck) -> u64 {
    match check {
        EntryCheck::PdpteReserved => 2,
        EntryCheck::LinkPointerAlignment
        | EntryCheck::LinkPointerWidth
        | EntryCheck::LinkPointerRevision
        | EntryCheck::LinkPointerShadow
        | EntryCheck::LinkPointerCurrent => 4,
        _ => 0,
    }
}
