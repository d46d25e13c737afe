//! VM exits (SDM Vol. 3C, chapter 28).

mod host;
pub mod instruction_info;
mod save;

use crate::cpu::Cpu;
use crate::decode::Op;
use crate::system::event::{Event, EventKind};
use crate::trap::{Trap, Trapped};
use spec::vmx::exit_reason::exit_reason_flags;
use spec::vmx::qualification::EptViolation;
use spec::vmx::{ExitReason, InterruptionInfo, InterruptionType, VmcsField as Field};
use spec::x86::exceptions::Vector;

/// Virtual nanoseconds that a VM entry or a VM exit takes beside that of its instruction: about 400 cycles each on the processors
/// modelled. A hypervisor and its guest may rely on transitions not being free: the preemption timer counts over each.
const TRANSITION_TIME: u64 = 200;

/// What a VM exit records (SDM Vol. 3C, 25.9 and 28.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The basic exit reason.
    pub reason: ExitReason,
    /// The exit qualification.
    pub qualification: u64,
    /// The instruction's length, for exits due to instructions.
    pub length: u32,
    /// VM-exit instruction information.
    pub info: u32,
    /// Guest-linear address.
    pub linear: u64,
    /// Guest-physical address.
    pub physical: u64,
    /// VM-exit interruption information.
    pub interruption: InterruptionInfo,
    /// VM-exit interruption error code.
    pub error_code: u32,
}

impl Default for Exit {
    fn default() -> Self {
        Self::new(ExitReason::ExceptionOrNmi, 0)
    }
}

impl Exit {
    /// An exit with nothing but a reason and a qualification.
    #[must_use]
    pub const fn new(reason: ExitReason, qualification: u64) -> Self {
        Self {
            reason,
            qualification,
            length: 0,
            info: 0,
            linear: 0,
            physical: 0,
            interruption: InterruptionInfo(0),
            error_code: 0,
        }
    }

    /// Whether the exit is due to an exception of the class of faults, after which RF is saved as 1 (28.3.3).
    fn sets_resume_flag(&self) -> bool {
        use spec::x86::exceptions::{Class, Vector};
        self.interruption.kind() == InterruptionType::HardwareException
            && Vector::from_number(self.interruption.vector()).is_none_or(|vector| vector.class() == Class::Fault)
    }

    /// An exit due to the instruction `op`.
    #[must_use]
    pub const fn of_instruction(reason: ExitReason, op: &Op) -> Self {
        let mut exit = Self::new(reason, 0);
        exit.length = op.length as u32;
        exit
    }
}

/// The event as interruption information.
#[must_use]
pub fn interruption_info(event: Event) -> InterruptionInfo {
    let kind = match event.kind {
        EventKind::External => InterruptionType::External,
        EventKind::Nmi => InterruptionType::Nmi,
        EventKind::HardwareException => InterruptionType::HardwareException,
        EventKind::SoftwareInterrupt => InterruptionType::SoftwareInterrupt,
        EventKind::PrivilegedSoftwareException => InterruptionType::PrivilegedSoftwareException,
        EventKind::SoftwareException => InterruptionType::SoftwareException,
    };
    InterruptionInfo::new(event.vector, kind, event.error.is_some())
}

impl Cpu {
    /// Traps with the VM exit `exit`.
    #[cold]
    pub(crate) fn vm_exit(&mut self, exit: Exit) -> Trapped {
        self.vmx.pending = exit;
        self.trapped(Trap::VmExit)
    }

    /// Makes the VM exit that the last instruction asked for.
    pub(crate) fn vm_exit_pending(&mut self) {
        self.events.interrupted = true;
        let exit = self.vmx.pending;
        let vectoring = self.events.delivering.take();
        self.make_exit(exit, vectoring);
    }

    /// The time that a transition between VMX root and non-root operation takes.
    pub(super) fn spend_transition(&mut self) {
        self.idle_time = self.idle_time.wrapping_add(TRANSITION_TIME);
    }

    /// Makes the VM exit `exit`; `vectoring` is the event whose delivery it interrupts (28.2.4).
    pub(super) fn make_exit(&mut self, exit: Exit, vectoring: Option<Event>) {
        self.spend_transition();
        let exit = self.with_nmi_unblocking(exit, vectoring);
        self.record_exit(exit, vectoring);
        let resume = match exit.reason {
            ExitReason::ExceptionOrNmi => exit.sets_resume_flag(),
            ExitReason::EptViolation
            | ExitReason::EptMisconfiguration
            | ExitReason::PmlFull
            | ExitReason::SppEvent
            | ExitReason::ApicAccess => vectoring.is_none(),
            ExitReason::TripleFault
            | ExitReason::ExternalInterrupt
            | ExitReason::Init
            | ExitReason::InterruptWindow
            | ExitReason::NmiWindow
            | ExitReason::PreemptionTimer => self.rflags & spec::x86::Rflags::RF != 0,
            _ => false,
        };
        // The VM-entry interruption information is used up.
        let info = self.vmx.vmcs.get(Field::ENTRY_INTERRUPTION_INFO) & !u64::from(InterruptionInfo::VALID);
        self.vmx.vmcs.set(Field::ENTRY_INTERRUPTION_INFO, info);
        self.save_guest(resume);
        self.note_exit(&exit);
        let stored = self.store_exit_msrs();
        self.load_host();
        if !stored {
            return self.vmx_abort(host::abort::SAVE_MSRS);
        }
        if exit.interruption.is_valid() && exit.interruption.kind() == InterruptionType::Nmi {
            self.events.nmi_blocked = true;
        }
        self.load_exit_msrs();
    }

    /// Marks an exit due to a fault of an IRET that unblocked NMIs (28.2.3): the hypervisor is to block them again.
    fn with_nmi_unblocking(&mut self, exit: Exit, vectoring: Option<Event>) -> Exit {
        let mut exit = exit;
        if std::mem::take(&mut self.vmx.iret_unblocked_nmi) && vectoring.is_none() {
            match exit.reason {
                ExitReason::ExceptionOrNmi if exit.interruption.vector() != Vector::DoubleFault as u8 => {
                    exit.interruption.0 |= InterruptionInfo::NMI_UNBLOCKING;
                }
                ExitReason::EptViolation | ExitReason::PmlFull | ExitReason::SppEvent => {
                    exit.qualification |= EptViolation::NMI_UNBLOCKING;
                }
                _ => {}
            }
        }
        exit
    }

    /// 28.2: the VM-exit information fields.
    fn record_exit(&mut self, exit: Exit, vectoring: Option<Event>) {
        let length = match vectoring {
            Some(event) if event.length != 0 => u32::from(event.length),
            _ => exit.length,
        };
        // An exit for another reason right after an instruction that locked the bus tells of that, too.
        let locked = std::mem::take(&mut self.vmx.bus_lock) && exit.reason != ExitReason::BusLock;
        let flags = if locked { exit_reason_flags::BUS_LOCK } else { 0 };
        let mut set = |field, value: u64| self.vmx.vmcs.set(field, value);
        set(Field::EXIT_REASON, u64::from(exit.reason as u32 | flags));
        set(Field::EXIT_QUALIFICATION, exit.qualification);
        set(Field::GUEST_LINEAR_ADDRESS, exit.linear);
        set(Field::GUEST_PHYSICAL_ADDRESS, exit.physical);
        set(Field::EXIT_INTERRUPTION_INFO, u64::from(exit.interruption.0));
        set(Field::EXIT_INTERRUPTION_ERROR_CODE, u64::from(exit.error_code));
        set(Field::IDT_VECTORING_INFO, vectoring.map_or(0, |event| u64::from(interruption_info(event).0)));
        set(Field::IDT_VECTORING_ERROR_CODE, vectoring.and_then(|event| event.error).map_or(0, u64::from));
        set(Field::EXIT_INSTRUCTION_LENGTH, u64::from(length));
        set(Field::EXIT_INSTRUCTION_INFO, u64::from(exit.info));
    }

    /// A VM entry failed after the checks on controls and host state: the host goes on, no guest state is saved (27.8).
    pub(super) fn failed_entry_exit(&mut self, exit: Exit) {
        self.vmx.vmcs.set(Field::EXIT_REASON, u64::from(exit.reason as u32 | exit_reason_flags::ENTRY_FAILURE));
        self.vmx.vmcs.set(Field::EXIT_QUALIFICATION, exit.qualification);
        if !self.vmx.non_root {
            // The checks failed before the controls came into force; the host is loaded by the exit controls all the same.
            self.vmx.controls.exit.0 = self.vmx.vmcs.get32(Field::EXIT_CONTROLS);
            self.vmx.controls.secondary.0 = self.vmx.vmcs.get32(Field::SECONDARY_CONTROLS);
        }
        self.load_host();
        self.load_exit_msrs();
    }
}
