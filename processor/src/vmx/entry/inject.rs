//! After the state is loaded: event injection and what is pending (SDM Vol. 3C, 27.6 and 27.7).

use crate::cpu::Cpu;
use crate::observe::Happening;
use crate::run::{Activity, attention};
use crate::system::event::{Event, EventKind, Shadow};
use crate::vmx::apic_virtualization::ApicExit;
use spec::vmx::{
    InterruptionInfo, InterruptionType, PendingDebug, PinBasedControls as Pin, PrimaryControls as Primary,
    SecondaryControls as Secondary, VmcsField as Field,
};
use spec::x86::Dr6;

impl Cpu {
    /// The guest is loaded: delivers the event to inject, or makes pending what the guest state says.
    pub(super) fn after_entry(&mut self) {
        self.events.interrupted = true;
        self.events.delivering = None;
        let info = InterruptionInfo(self.vmx.vmcs.get32(Field::ENTRY_INTERRUPTION_INFO));
        if info.is_valid() {
            self.inject(info);
        } else {
            self.restore_pending_debug();
        }
        if !self.vmx.non_root {
            return;
        }
        self.check_tpr_threshold_at_entry();
        self.start_virtual_interrupts();
        if self.activity != Activity::Active {
            self.attention |= attention::INACTIVE;
        }
        self.attention |= attention::EVENT | attention::DEADLINE;
        if self.rflags & crate::flags::TF != 0 || self.events.next_shadow != Shadow::None || self.events.debug_trap != 0
        {
            self.attention |= attention::DEBUG;
        }
    }

    fn inject(&mut self, info: InterruptionInfo) {
        let vector = info.vector();
        let length = self.vmx.vmcs.get32(Field::ENTRY_INSTRUCTION_LENGTH) as u8;
        let error = self.vmx.vmcs.get32(Field::ENTRY_EXCEPTION_ERROR_CODE);
        let (kind, length) = match info.kind() {
            InterruptionType::External => (EventKind::External, 0),
            InterruptionType::Nmi => (EventKind::Nmi, 0),
            InterruptionType::HardwareException => (EventKind::HardwareException, 0),
            InterruptionType::SoftwareInterrupt => (EventKind::SoftwareInterrupt, length),
            InterruptionType::PrivilegedSoftwareException => (EventKind::PrivilegedSoftwareException, length),
            InterruptionType::SoftwareException => (EventKind::SoftwareException, length),
            InterruptionType::Reserved | InterruptionType::Other => {
                // A pending MTF VM exit: no event is delivered, and the guest's first instruction is not run.
                self.vmx.mtf_pending = true;
                self.attention |= attention::EVENT;
                self.restore_pending_debug();
                return;
            }
        };
        if kind == EventKind::Nmi {
            if self.vmx.controls.pin.has(Pin::VIRTUAL_NMIS) {
                self.vmx.virtual_nmi_blocking = true;
            } else {
                self.events.nmi_blocked = true;
            }
        }
        self.events.next_shadow = Shadow::None;
        self.activity_resumes();
        let error = info.has(InterruptionInfo::ERROR_CODE).then_some(error);
        let event = Event { vector, kind, error, length };
        self.observe(Happening::Injection(event));
        self.deliver_injected(event);
        if self.vmx.non_root && self.vmx.controls.primary.has(Primary::MONITOR_TRAP_FLAG) {
            self.vmx.mtf_pending = true;
        }
    }

    fn restore_pending_debug(&mut self) {
        if matches!(self.activity, Activity::Shutdown | Activity::WaitForSipi) {
            return;
        }
        let pending = self.vmx.vmcs.get(Field::GUEST_PENDING_DEBUG);
        if pending & (PendingDebug::ENABLED_BREAKPOINT | PendingDebug::BS) != 0 {
            self.events.debug_trap = pending & (Dr6::HIT | Dr6::BLD | Dr6::BS);
        }
    }

    /// 27.7.7: a TPR threshold above VTPR, possible only with APIC accesses virtualized, causes a VM exit right after the entry.
    fn check_tpr_threshold_at_entry(&mut self) {
        let controls = self.vmx.controls;
        if controls.primary.has(Primary::USE_TPR_SHADOW)
            && controls.secondary.has(Secondary::VIRTUALIZE_APIC_ACCESSES)
            && !controls.secondary.has(Secondary::VIRTUAL_INTERRUPT_DELIVERY)
            && u64::from(self.virtual_tpr() >> 4 & 15) < self.vmx.vmcs.get(Field::TPR_THRESHOLD) & 15
        {
            self.apic_exit_due(ApicExit::TprBelowThreshold);
        }
    }
}
