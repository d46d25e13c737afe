//! A vCPU with its VMCS, and the registers that are switched with it.

use crate::processor;
use crate::vmx::{self, CurrentVmcs, ExtendedState, vmclear, vmptrld};
use bare::processors::Tables;
use hypervisor::capabilities::Capabilities;
use hypervisor::host::vector;
use hypervisor::memory::Pages;
use hypervisor::vcpu::{SWITCHED_MSRS, Vcpu};
use hypervisor::vmcs::{Vmcs, field};
use spec::vmx::{EntryControls, PinBasedControls, PrimaryControls, SecondaryControls, VmcsField as Field};
use spec::x86::Xcr0;

/// Time-stamp counts between two PAUSEs of a loop.
const PAUSE_GAP: u64 = 128;
/// Time-stamp counts of a loop before it exits: longer than any lock is held whose owner runs.
const PAUSE_WINDOW: u64 = 1 << 14;

/// A vCPU on this processor.
pub struct Slot {
    /// The vCPU.
    pub vcpu: Vcpu,
    region: u64,
    launched: bool,
    state: ExtendedState,
    extended: bool,
    /// Which of the MSRs that are switched exist.
    exists: [bool; SWITCHED_MSRS.len()],
    /// CR2, DR0 to DR3, DR6.
    debug: [u64; 6],
}

impl Slot {
    /// Makes the VMCS of `vcpu`. `None`: there is no memory for it.
    pub fn new(mut vcpu: Vcpu, vpid: u16, has: &Capabilities, msr_bitmaps: [u64; 2], tables: &Tables) -> Option<Self> {
        vcpu.msr_bitmaps = msr_bitmaps;
        let page = || crate::memory::PAGES.page().map(|page| page.address());
        let region = page()?;
        vmx::set_revision(has, region);
        let state = ExtendedState::new(page()?);
        let exists = SWITCHED_MSRS.map(processor::has_msr);
        let debug = [0, 0, 0, 0, 0, 0xffff_0ff0];
        let slot = Self { vcpu, region, launched: false, state, extended: false, exists, debug };
        vmclear(region).ok()?;
        vmptrld(region).ok()?;
        slot.write_controls(vpid);
        slot.write_host(tables);
        processor::label(slot.vcpu.vm.index, slot.vcpu.index, region);
        Some(slot)
    }

    fn write_host(&self, tables: &Tables) {
        vmx::write_host(&mut CurrentVmcs, tables, self.vcpu.controls.entry & EntryControls::LOAD_PAT != 0);
    }

    /// Makes the vCPU ready to go to another processor. It is not the one whose registers are loaded.
    pub fn leave(&mut self) {
        if let Err(failure) = vmclear(self.region) {
            panic!("VMCLEAR: {failure:?}");
        }
        self.launched = false;
    }

    /// Takes the vCPU, which another processor has left, to this one.
    pub fn arrive(&mut self, tables: &Tables) {
        if let Err(failure) = vmptrld(self.region) {
            panic!("VMPTRLD: {failure:?}");
        }
        self.write_host(tables);
        self.vcpu.statistics.moves += 1;
    }

    fn write_controls(&self, vpid: u16) {
        let controls = &self.vcpu.controls;
        let vmcs: &mut dyn Vmcs = &mut CurrentVmcs;
        vmcs.set(field::PIN_BASED_CONTROLS, PinBasedControls(controls.pin));
        vmcs.set(field::PRIMARY_CONTROLS, PrimaryControls(controls.primary));
        vmcs.set(field::SECONDARY_CONTROLS, SecondaryControls(controls.secondary));
        vmcs.set(field::EXIT_CONTROLS, controls.exit);
        vmcs.set(field::ENTRY_CONTROLS, EntryControls(controls.entry));
        for zero in [
            Field::EXCEPTION_BITMAP,
            Field::PAGE_FAULT_ERROR_CODE_MASK,
            Field::PAGE_FAULT_ERROR_CODE_MATCH,
            Field::CR3_TARGET_COUNT,
            Field::EXIT_MSR_STORE_COUNT,
            Field::EXIT_MSR_LOAD_COUNT,
            Field::ENTRY_MSR_LOAD_COUNT,
        ] {
            vmcs.write(zero, 0);
        }
        vmcs.set(field::MSR_BITMAPS, self.vcpu.msr_bitmaps[0]);
        vmcs.set(field::EPT_POINTER, self.vcpu.vm.ept_pointer());
        if controls.has(SecondaryControls::ENABLE_VPID) {
            vmcs.set(field::VPID, vpid);
        }
        if controls.has(SecondaryControls::PAUSE_LOOP_EXITING) {
            vmcs.write(Field::PLE_GAP, PAUSE_GAP);
            vmcs.write(Field::PLE_WINDOW, PAUSE_WINDOW);
        }
        let virtualization = self.vcpu.virtualization;
        if virtualization.shadows_tpr() {
            vmcs.set(field::VIRTUAL_APIC_ADDRESS, self.vcpu.apic.page().address());
            vmcs.set(field::TPR_THRESHOLD, 0);
        }
        if let Some(page) = self.vcpu.vm.apic_access {
            vmcs.set(field::APIC_ACCESS_ADDRESS, page);
        }
        if virtualization.delivers() {
            for bitmap in
                [field::EOI_EXIT_BITMAP_0, field::EOI_EXIT_BITMAP_1, field::EOI_EXIT_BITMAP_2, field::EOI_EXIT_BITMAP_3]
            {
                vmcs.set(bitmap, 0);
            }
            vmcs.write(Field::GUEST_INTERRUPT_STATUS, 0);
        }
        if controls.pin & PinBasedControls::POSTED_INTERRUPTS != 0 {
            vmcs.set(field::POSTED_INTERRUPT_NOTIFICATION_VECTOR, vector::NOTIFY.into());
            vmcs.set(field::POSTED_INTERRUPT_DESCRIPTOR, self.vcpu.mailbox().interrupts.address());
        }
    }

    /// Makes this the processor's vCPU: its VMCS current, its registers loaded.
    pub fn load(&mut self) {
        if let Err(failure) = vmptrld(self.region) {
            panic!("VMPTRLD: {failure:?}");
        }
        self.switched().for_each(|(number, value)| processor::write_msr(number, *value));
        processor::write_debug(&self.debug);
        processor::set_xcr0(self.vcpu.xcr0);
    }

    /// Another vCPU is going to be loaded.
    pub fn unload(&mut self) {
        self.switched().for_each(|(number, value)| *value = processor::read_msr(number));
        self.debug = processor::read_debug();
    }

    fn switched(&mut self) -> impl Iterator<Item = (u32, &mut u64)> {
        let exists = self.exists;
        SWITCHED_MSRS.into_iter().zip(&mut self.vcpu.msrs).zip(exists).filter_map(|(msr, exists)| exists.then_some(msr))
    }

    /// Enters the guest; comes back after the VM exit, with the exit-reason field.
    ///
    /// # Errors
    /// The VM-instruction error, when VMLAUNCH or VMRESUME failed.
    pub fn enter(&mut self) -> Result<u32, u64> {
        let extended = self.vcpu.xcr0 & Xcr0::SSE != 0;
        if extended && !self.extended {
            self.state.becomes_extended();
        }
        self.extended = extended;
        let entered = vmx::enter(&mut self.vcpu.registers, self.launched, self.state, extended);
        if entered.is_err() {
            return Err(CurrentVmcs.read(Field::VM_INSTRUCTION_ERROR));
        }
        let reason = CurrentVmcs.read(Field::EXIT_REASON) as u32;
        self.launched |= reason >> 31 == 0;
        Ok(reason)
    }
}
