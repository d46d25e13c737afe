//! Events in VMX non-root operation: which of them exit, and the exits that come between instructions
//! (SDM Vol. 3C, 26.2, 26.5 and 28.1).

use super::exit::{Exit, interruption_info};
use crate::cpu::Cpu;
use crate::models::frequency::CRYSTAL_PERIOD_NS;
use crate::run::{Activity, attention};
use crate::system::event::{Event, EventKind, Shadow};
use crate::trap::Trap;
use spec::vmx::{
    ExitControls, ExitReason, InterruptionInfo, InterruptionType, PinBasedControls as Pin, PrimaryControls as Primary,
    SecondaryControls as Secondary, VmcsField,
};
use spec::x86::Rflags;
use spec::x86::exceptions::Vector;

impl Cpu {
    /// INIT signals are blocked in VMX root operation.
    pub(crate) fn vmx_blocks_init(&self) -> bool {
        self.vmx.on && !self.vmx.non_root
    }

    /// INIT in non-root operation. True: a VM exit was made.
    pub(crate) fn vmx_init_exit(&mut self) -> bool {
        if !self.vmx.non_root {
            return false;
        }
        self.make_exit(Exit::new(ExitReason::Init, 0), None);
        true
    }

    /// A start-up IPI in non-root operation, in the wait-for-SIPI state.
    pub(crate) fn vmx_startup_exit(&mut self, vector: u8) -> bool {
        if !self.vmx.non_root {
            return false;
        }
        self.make_exit(Exit::new(ExitReason::Sipi, u64::from(vector)), None);
        true
    }

    /// With virtual NMIs, nothing blocks NMIs in non-root operation: bit 3 of the interruptibility state is about virtual NMIs.
    pub(crate) fn vmx_ignores_nmi_blocking(&self) -> bool {
        self.vmx.controls.pin.has(Pin::VIRTUAL_NMIS)
    }

    /// An NMI. True: a VM exit was made.
    pub(crate) fn vmx_nmi_exit(&mut self) -> bool {
        if !self.vmx.controls.pin.has(Pin::NMI_EXITING) {
            return false;
        }
        let mut exit = Exit::new(ExitReason::ExceptionOrNmi, 0);
        exit.interruption = InterruptionInfo::new(2, InterruptionType::Nmi, false);
        self.make_exit(exit, None);
        true
    }

    /// Whether IRET has NMIs to unblock: virtual ones when there are virtual NMIs, none when NMIs exit without virtual NMIs, else
    /// real ones (26.3).
    pub(crate) fn vmx_iret_unblocks_nmi(&self) -> bool {
        let pin = self.vmx.controls.pin;
        if pin.has(Pin::VIRTUAL_NMIS) {
            self.vmx.virtual_nmi_blocking
        } else {
            self.events.nmi_blocked && !pin.has(Pin::NMI_EXITING)
        }
    }

    /// IRET unblocks those NMIs.
    pub(crate) fn vmx_unblock_nmi(&mut self) {
        if self.vmx.controls.pin.has(Pin::VIRTUAL_NMIS) {
            self.vmx.virtual_nmi_blocking = false;
        } else {
            self.events.nmi_blocked = false;
        }
    }

    /// The IRET that unblocked NMIs has to be run again: they are blocked as they were.
    pub(crate) fn vmx_reblock_nmi(&mut self, blocked: bool) {
        if self.vmx.controls.pin.has(Pin::VIRTUAL_NMIS) {
            self.vmx.virtual_nmi_blocking |= blocked;
        } else {
            self.events.nmi_blocked |= blocked;
        }
    }

    /// External interrupts exit, whatever RFLAGS.IF is.
    pub(crate) fn vmx_takes_interrupts(&self) -> bool {
        self.vmx.controls.pin.has(Pin::EXTERNAL_INTERRUPT_EXITING)
    }

    /// An external interrupt is pending and not held back by the shadow. True: a VM exit was made, or it was the notification of posted
    /// interrupts and has been seen to.
    pub(crate) fn vmx_interrupt_exit(&mut self) -> bool {
        if !self.vmx.controls.pin.has(Pin::EXTERNAL_INTERRUPT_EXITING) {
            return false;
        }
        let mut exit = Exit::new(ExitReason::ExternalInterrupt, 0);
        if self.vmx.controls.exit.has(ExitControls::ACKNOWLEDGE_INTERRUPT_ON_EXIT) {
            let vector = self.acknowledge_interrupt();
            if self.process_posted_interrupts(vector) {
                return true;
            }
            exit.interruption = InterruptionInfo::new(vector, InterruptionType::External, false);
        }
        self.make_exit(exit, None);
        true
    }

    /// The guest shuts down.
    pub(crate) fn vmx_triple_fault_exit(&mut self) -> bool {
        if !self.vmx.non_root {
            return false;
        }
        self.make_exit(Exit::new(ExitReason::TripleFault, 0), None);
        true
    }

    /// Exits that come before debug traps: those of APIC virtualization, then MTF, then bus locks. True: a VM exit was made.
    pub(crate) fn vmx_trap_like_exit(&mut self) -> bool {
        if !self.vmx.non_root {
            return false;
        }
        if self.make_apic_exit() {
            return true;
        }
        if self.vmx.mtf_pending {
            self.make_exit(Exit::new(ExitReason::MonitorTrapFlag, 0), None);
            return true;
        }
        if self.vmx.bus_lock {
            self.make_exit(Exit::new(ExitReason::BusLock, 0), None);
            return true;
        }
        false
    }

    /// An instruction of the guest ran on its own, or what it raised was delivered: with "monitor trap flag" an exit is pending.
    pub(crate) fn vmx_instruction_done(&mut self) {
        if self.vmx.controls.primary.has(Primary::MONITOR_TRAP_FLAG) {
            self.vmx.mtf_pending = true;
            self.attention |= attention::EVENT;
        }
    }

    /// Exits that come after debug traps and before NMIs: the preemption timer, then the NMI window. True: a VM exit was made.
    pub(crate) fn vmx_see_to_events(&mut self) -> bool {
        if !self.vmx.non_root {
            return false;
        }
        if self.preemption_timer_expired() {
            self.make_exit(Exit::new(ExitReason::PreemptionTimer, 0), None);
            return true;
        }
        if self.vmx.controls.primary.has(Primary::NMI_WINDOW_EXITING)
            && !self.vmx.virtual_nmi_blocking
            && self.events.shadow != Shadow::MovSs
        {
            self.make_exit(Exit::new(ExitReason::NmiWindow, 0), None);
            return true;
        }
        false
    }

    /// The exit that comes after NMIs and before interrupts: the interrupt window. True: a VM exit was made.
    pub(crate) fn vmx_interrupt_window_exit(&mut self) -> bool {
        if !self.vmx.controls.primary.has(Primary::INTERRUPT_WINDOW_EXITING)
            || self.rflags & Rflags::IF == 0
            || self.events.shadow != Shadow::None
            || self.activity == Activity::Shutdown
        {
            return false;
        }
        self.make_exit(Exit::new(ExitReason::InterruptWindow, 0), None);
        true
    }

    /// No instruction boundary is reached. With "instruction timeout", a VM exit is made after the time that the field gives, in ticks of the
    /// core crystal clock (26.2); what was being delivered is reported as interrupted.
    pub(crate) fn vmx_instruction_timeout(&mut self) {
        if !self.vmx.non_root || !self.vmx.controls.secondary.has(Secondary::INSTRUCTION_TIMEOUT) {
            return;
        }
        let waited = self.now().wrapping_sub(self.events.barren.since) / CRYSTAL_PERIOD_NS;
        if waited >= self.vmx.vmcs.get(VmcsField::INSTRUCTION_TIMEOUT) {
            let vectoring = self.events.retried.take().map(|(event, _)| event);
            self.make_exit(Exit::new(ExitReason::InstructionTimeout, 0), vectoring);
        }
    }

    /// The preemption timer's time has come; [`Cpu::vmx_see_to_events`] does the rest.
    pub(crate) fn vmx_deadline_reached(&mut self) {}

    /// An exception, before it is delivered: the exception bitmap. `vectoring` is the event whose delivery raised it. True: a VM exit
    /// was made.
    pub(crate) fn vmx_exception_exit(&mut self, event: Event, vectoring: Option<Event>) -> bool {
        if !self.vmx.non_root || !self.exception_exits(event) {
            return false;
        }
        let mut exit = Exit::new(ExitReason::ExceptionOrNmi, 0);
        exit.interruption = interruption_info(event);
        exit.error_code = event.error.unwrap_or(0);
        exit.length = u32::from(event.length);
        if event.vector == Vector::PageFault as u8 {
            exit.qualification = self.fault_address;
        } else if event.vector == Vector::Debug as u8 && event.kind == EventKind::HardwareException {
            exit.qualification = self.events.debug_bits;
        }
        self.make_exit(exit, vectoring);
        true
    }

    fn exception_exits(&self, event: Event) -> bool {
        if matches!(event.kind, EventKind::External | EventKind::Nmi | EventKind::SoftwareInterrupt) {
            return false;
        }
        let bitmap = self.vmx.vmcs.get32(VmcsField::EXCEPTION_BITMAP);
        let chosen = bitmap >> (event.vector & 31) & 1 != 0;
        if event.vector != Vector::PageFault as u8 {
            return chosen;
        }
        let mask = self.vmx.vmcs.get32(VmcsField::PAGE_FAULT_ERROR_CODE_MASK);
        let matched = self.vmx.vmcs.get32(VmcsField::PAGE_FAULT_ERROR_CODE_MATCH);
        chosen == (event.error.unwrap_or(0) & mask == matched)
    }

    /// Delivers an event that VM entry injects: it is not itself subject to the exception bitmap; a fault on the way is.
    pub(super) fn deliver_injected(&mut self, event: Event) {
        if self.deliver(event).is_ok() {
            return;
        }
        match self.trap {
            Trap::Exception { vector, error } => {
                if let Some((next, vectoring)) = self.nested(event, Event::exception(vector, error)) {
                    self.deliver_or_escalate(next, vectoring);
                }
            }
            Trap::VmExit => self.vm_exit_pending(),
            Trap::Shutdown | Trap::RetryExact | Trap::RetryOnce | Trap::Continue => {}
        }
    }
}
