//! The machine's remapping units, and what they tell of while guests run.

use crate::memory::PAGES;
use crate::processor::{PROCESSOR, say};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use bare::{acpi, exceptions, vtd};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use hypervisor::function::Message;
use hypervisor::host::{Host as _, vector};
use hypervisor::remapping::dmar::Dmar;
use hypervisor::remapping::unit::{Hardware, Refusal};
use hypervisor::remapping::{Interrupts, Remapping};
use hypervisor::report::{SAID_FAULTS, fault, whose};
use hypervisor::vm::Vm;
use spec::vtd::FaultRecord;
use spec::vtd::registers::{self as register, GlobalCommand};

/// A unit by its registers.
struct Registers(vtd::Unit);

impl Hardware for Registers {
    fn capability(&self) -> u64 {
        self.0.read64(register::CAPABILITY)
    }
    fn extended_capability(&self) -> u64 {
        self.0.read64(register::EXTENDED_CAPABILITY)
    }
    fn start(&mut self, root: u64, interrupts: Option<u64>, (address, data): Message) -> Result<(), Refusal> {
        self.0.stop()?;
        self.0.set_root_table(root)?;
        self.0.start_queue()?;
        if let Some(table) = interrupts {
            self.0.set_interrupt_table(table)?;
        }
        self.0.forget_faults();
        self.0.set_event(register::FAULT_EVENT_CONTROL, address, data);
        Ok(())
    }
    fn enable(&mut self, interrupts: bool) -> Result<(), Refusal> {
        if interrupts {
            self.0.command(GlobalCommand::INTERRUPT_REMAPPING, true)?;
        }
        self.0.command(GlobalCommand::TRANSLATION, true)
    }
    fn submit(&mut self, first: u64, second: u64) {
        self.0.submit(first, second);
    }
    fn wait(&mut self) -> Result<(), Refusal> {
        self.0.wait()
    }
    fn take_fault(&mut self) -> Option<FaultRecord> {
        self.0.take_fault()
    }
    fn take_overflow(&mut self) -> bool {
        self.0.take_overflow()
    }
}

/// Turns the units on, if there are any.
///
/// # Errors
/// Why there are none in use.
pub fn start() -> Result<Arc<Remapping>, String> {
    let dmar = acpi::find(*b"DMAR").map(Dmar::parse).filter(|dmar| !dmar.units.is_empty());
    let Some(dmar) = dmar else {
        return Err(
            "there is no remapping unit (VT-d) between devices and memory: [iommu] in the machine file makes one"
                .into(),
        );
    };
    let hardware = |base| -> Box<dyn Hardware> { Box::new(Registers(vtd::Unit::new(base, false))) };
    let message = (0xfee0_0000, vector::FAULT.into());
    match Remapping::start(dmar, &PAGES, message, hardware) {
        Ok(remapping) => {
            let interrupts = match remapping.interrupts() {
                Interrupts::Posted => "interrupts remapped and posted",
                Interrupts::Remapped => "interrupts remapped, not posted",
                Interrupts::Unprotected => "interrupts not remapped",
            };
            let units = match remapping.units() {
                1 => "1 remapping unit".into(),
                count => alloc::format!("{count} remapping units"),
            };
            say!("VT-d: {units}, devices kept from memory, {interrupts}");
            Ok(Arc::new(remapping))
        }
        Err((base, why)) => {
            say!("VT-d: the remapping unit at {base:#x} is not used: {why}");
            Err(alloc::format!("the remapping unit at {base:#x} is not used: {why}"))
        }
    }
}

/// How many interrupts of each vector have been passed on.
static PASSED: [AtomicU32; 256] = [const { AtomicU32::new(0) }; 256];
/// Fault events that came outside guests and have been seen to.
static SEEN: AtomicU32 = AtomicU32::new(0);
/// Faults of functions that no guest has.
static OTHERS: AtomicU64 = AtomicU64::new(0);
/// A fault event has ended a guest's turn.
static FAULTS: AtomicBool = AtomicBool::new(false);

/// Notes an interrupt that a VM exit has acknowledged.
pub fn arrived(remapping: &Remapping, vms: &[Arc<Vm>], vector: u8) {
    if vector == vector::FAULT {
        FAULTS.store(true, Ordering::Relaxed);
    }
    pass(remapping, vms, vector);
}

fn pass(remapping: &Remapping, vms: &[Arc<Vm>], vector: u8) {
    if let Some((vm, (address, data))) = remapping.line(vector)
        && let Some(vm) = vms.get(vm)
    {
        vm.destinations.deliver_message(&PROCESSOR, address, data);
    }
}

/// Passes on the functions' interrupts that have come outside guests.
pub fn pass_all(remapping: &Remapping, vms: &[Arc<Vm>]) {
    for vector in remapping.lines() {
        let count = exceptions::interrupts(vector);
        if PASSED[usize::from(vector)].swap(count, Ordering::Relaxed) != count {
            pass(remapping, vms, vector);
        }
    }
}

/// Whether a unit has told of faults since this was asked last. It tells the first processor.
pub fn have_faults_come() -> bool {
    let count = exceptions::interrupts(vector::FAULT);
    FAULTS.swap(false, Ordering::Relaxed) | (SEEN.swap(count, Ordering::Relaxed) != count)
}

/// Tells of the faults that the units have recorded.
pub fn tell_faults(remapping: &Remapping, vms: &[Arc<Vm>]) {
    for (owner, record) in remapping.take_faults() {
        let vm = owner.and_then(|owner| vms.get(owner));
        let before = vm.map_or_else(|| OTHERS.fetch_add(1, Ordering::Relaxed), |vm| vm.note_fault());
        let name = vm.map(|vm| &*vm.configuration.name);
        if before < SAID_FAULTS {
            say!("{}", fault(name, &record));
        } else if before == SAID_FAULTS {
            say!("{}: more faults are only counted", whose(name));
        }
    }
}
