//! Watching a processor: what explanations, traces and counts of VM exits are made from.
//!
//! An observer gets the processor by shared reference. It sees everything and can change nothing, so that a run is the same whether or not
//! somebody watches. The places that tell it something are slow ones anyway; without an observer each costs one branch. A little is always
//! remembered ([`History`]), for what is asked only afterwards: the last VM exits, and the deliveries that led to a triple fault.

use crate::cpu::Cpu;
use crate::system::event::Event;
use crate::trap::Trap;
use crate::vmx::{Exit, FailedCheck};
use spec::vmx::{ExitReason, VmInstructionError, VmcsField};

/// Something that an observer is told, at the moment at which the processor's registers are as the description says.
#[derive(Clone, Copy, Debug)]
pub enum Happening<'a> {
    /// A VM entry succeeded: the guest's registers are loaded, nothing of it has run, and nothing is injected yet.
    Entry {
        /// By VMLAUNCH; else VMRESUME.
        launch: bool,
    },
    /// The VM entry just made injects this event. [`Happening::Delivering`] follows.
    Injection(Event),
    /// A VM exit: the VMCS has its information and the guest's state, the registers are still the guest's.
    Exit(&'a Exit),
    /// A VM entry failed by this check. The registers are the host's, RIP at the instruction after the VM entry.
    EntryFailed {
        /// The check.
        failed: FailedCheck,
        /// The exit qualification, when the failure is a VM exit.
        qualification: u64,
    },
    /// A VMX instruction failed; [`History::instruction`] says which.
    InstructionFailed(Option<VmInstructionError>),
    /// An interrupt or exception is about to be delivered. For #PF, CR2 is set already.
    Delivering(Event),
    /// The delivery of the last entry of [`History::deliveries`] raised another exception.
    DeliveryFailed,
    /// The processor shuts down: a triple fault outside VMX non-root operation. In it there is a VM exit instead.
    TripleFault,
    /// A VMX abort with this indicator (SDM Vol. 3C, 28.7).
    VmxAbort(u32),
    /// RDMSR or WRMSR was done.
    Msr {
        /// The MSR's number.
        number: u32,
        /// The value read or written.
        value: u64,
        /// By WRMSR.
        write: bool,
    },
    /// A port was read or written.
    Port {
        /// The port.
        port: u16,
        /// Bytes: 1, 2 or 4.
        size: u8,
        /// The value read or written.
        value: u32,
        /// By OUT or OUTS.
        write: bool,
    },
}

/// Who watches a processor.
pub trait Observer: Send {
    /// Takes notice of `what`. `cpu` has no observer during the call.
    fn observe(&mut self, cpu: &Cpu, what: Happening<'_>);
}

/// A VM exit, for later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PastExit {
    /// Virtual time, in nanoseconds.
    pub now: u64,
    /// The VMCS.
    pub vmcs: u64,
    /// The exit-reason field.
    pub reason: u32,
    /// The exit qualification.
    pub qualification: u64,
    /// The guest's RIP.
    pub rip: u64,
    /// The VM-exit interruption information.
    pub interruption: u32,
    /// The guest-physical address, for exits that have one.
    pub physical: u64,
}

/// A delivery through the IDT that raised an exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailedDelivery {
    /// What was delivered.
    pub event: Event,
    /// RIP at that time.
    pub rip: u64,
    /// Vector of the exception raised by that.
    pub vector: u8,
    /// Its error code.
    pub error: Option<u32>,
    /// The linear address, when it is #PF.
    pub address: u64,
}

/// VM exits that are remembered.
pub const PAST_EXITS: usize = 8;
/// Failed deliveries in a row that are remembered; three make a triple fault.
pub const DELIVERIES: usize = 4;

/// What is remembered without an observer. It serves diagnosis only and is no part of the saved state.
#[derive(Clone, Copy, Debug, Default)]
pub struct History {
    exits: [PastExit; PAST_EXITS],
    exit_count: u64,
    deliveries: [Option<FailedDelivery>; DELIVERIES],
    delivery_count: usize,
    /// The VMX instruction that began last, as the exit reason that it has, and its RIP.
    pub instruction: Option<(ExitReason, u64)>,
}

impl History {
    /// The last VM exits, the oldest first.
    pub fn exits(&self) -> impl Iterator<Item = &PastExit> {
        let first = self.exit_count.saturating_sub(PAST_EXITS as u64);
        (first..self.exit_count).map(|n| &self.exits[n as usize % PAST_EXITS])
    }

    /// Deliveries that failed one because of the other, the first one first.
    pub fn deliveries(&self) -> impl Iterator<Item = &FailedDelivery> {
        self.deliveries[..self.delivery_count].iter().flatten()
    }

    /// A delivery succeeded, or the event is the hypervisor's: what failed before has led to nothing.
    #[inline(always)]
    pub(crate) fn forget_deliveries(&mut self) {
        self.delivery_count = 0;
    }

    #[cold]
    fn note_delivery(&mut self, failed: FailedDelivery) {
        if self.delivery_count == DELIVERIES {
            self.deliveries.rotate_left(1);
            self.delivery_count -= 1;
        }
        self.deliveries[self.delivery_count] = Some(failed);
        self.delivery_count += 1;
    }
}

impl Cpu {
    /// Tells the observer, if there is one.
    #[inline(always)]
    pub(crate) fn observe(&mut self, what: Happening<'_>) {
        if self.observer.is_some() {
            self.tell(what);
        }
    }

    #[cold]
    #[inline(never)]
    fn tell(&mut self, what: Happening<'_>) {
        if let Some(mut observer) = self.observer.take() {
            observer.observe(self, what);
            self.observer = Some(observer);
        }
    }

    /// The delivery of `event` ended in the exception that [`Cpu::trap`] holds.
    #[cold]
    pub(crate) fn delivery_failed(&mut self, event: Event) {
        if let Trap::Exception { vector, error } = self.trap {
            let (rip, address) = (self.rip, self.fault_address);
            self.history.note_delivery(FailedDelivery { event, rip, vector, error, address });
            self.observe(Happening::DeliveryFailed);
        }
    }

    /// The VM exit `exit` is recorded in the VMCS, and the guest is saved.
    pub(crate) fn note_exit(&mut self, exit: &Exit) {
        let slot = self.history.exit_count as usize % PAST_EXITS;
        self.history.exits[slot] = PastExit {
            now: self.now(),
            vmcs: self.vmx.vmcs.pointer,
            reason: self.vmx.vmcs.get32(VmcsField::EXIT_REASON),
            qualification: exit.qualification,
            rip: self.rip,
            interruption: exit.interruption.0,
            physical: exit.physical,
        };
        self.history.exit_count += 1;
        self.observe(Happening::Exit(exit));
        self.history.forget_deliveries();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Machine;
    use std::sync::{Arc, Mutex};

    /// Notes the names of what happens.
    struct Notes(Arc<Mutex<Vec<String>>>);

    impl Observer for Notes {
        fn observe(&mut self, _cpu: &Cpu, what: Happening<'_>) {
            let text = match what {
                Happening::Delivering(event) => format!("deliver {}", event.vector),
                other => format!("{other:?}"),
            };
            self.0.lock().unwrap().push(text);
        }
    }

    #[test]
    fn a_triple_fault_leaves_the_chain_of_its_deliveries() {
        let mut machine = Machine::protected();
        let notes = Arc::new(Mutex::new(Vec::new()));
        machine.cpu.observer = Some(Box::new(Notes(notes.clone())));
        machine.cpu.idtr.limit = 0;
        machine.execute(&[0x0f, 0x0b], 1); // ud2
        let chain: Vec<_> = machine.cpu.history.deliveries().map(|d| (d.event.vector, d.vector)).collect();
        assert_eq!(chain, [(6, 13), (13, 13), (8, 13)]);
        let notes = notes.lock().unwrap();
        assert_eq!(notes.last().map(String::as_str), Some("TripleFault"));
        assert_eq!(notes.iter().filter(|note| note.starts_with("deliver")).count(), 3);
    }

    #[test]
    fn a_delivery_that_succeeds_begins_the_chain_anew() {
        let mut machine = Machine::protected();
        machine.idt(13, 8, 0x9000, 0x8e);
        machine.execute(&[0x0f, 0x0b], 1); // ud2, whose gate is not there: #GP is delivered
        assert_eq!(machine.at().1, 0x9000);
        assert_eq!(machine.cpu.history.deliveries().count(), 0);
    }

    #[test]
    fn ports_and_msrs_are_told() {
        let mut machine = Machine::protected();
        let notes = Arc::new(Mutex::new(Vec::new()));
        machine.cpu.observer = Some(Box::new(Notes(notes.clone())));
        machine.cpu.regs[1] = 0x277;
        machine.execute(&[0xe6, 0x80, 0x0f, 0x32], 2); // out 0x80, al; rdmsr
        let notes = notes.lock().unwrap();
        assert_eq!(notes[0], "Port { port: 128, size: 1, value: 0, write: true }");
        assert_eq!(notes[1], "Msr { number: 631, value: 1974748653749254, write: false }");
    }
}
