//! What the event loop between instructions ([`crate::events`]) asks VT-x (SDM Vol. 3C, 26.2 and 26.5 to 26.7).

use crate::cpu::Cpu;
use crate::system::event::Event;

/// Events in VMX operation. Each of these does nothing outside it.
impl Cpu {
    /// The virtual time at which the VMX-preemption timer expires.
    #[inline]
    pub(crate) fn vmx_deadline(&self) -> u64 {
        u64::MAX
    }

    /// That time has come, perhaps.
    pub(crate) fn vmx_deadline_reached(&mut self) {}

    /// INIT waits: VMX root operation.
    pub(crate) fn vmx_blocks_init(&self) -> bool {
        false
    }

    /// INIT makes a VM exit. True when it did.
    pub(crate) fn vmx_init_exit(&mut self) -> bool {
        false
    }

    /// A start-up message makes a VM exit. True when it did.
    pub(crate) fn vmx_startup_exit(&mut self, vector: u8) -> bool {
        let _ = vector;
        false
    }

    /// VT-x's events between debug traps and NMIs, in order: monitor trap flag, preemption timer, NMI window, interrupt window, TPR
    /// threshold. True when one made a VM exit.
    pub(crate) fn vmx_see_to_events(&mut self) -> bool {
        false
    }

    /// Blocking by NMI does not hold back an NMI (it makes a VM exit while virtual NMIs are blocked).
    pub(crate) fn vmx_ignores_nmi_blocking(&self) -> bool {
        false
    }

    /// An NMI that is not blocked makes a VM exit. True when it did.
    pub(crate) fn vmx_nmi_exit(&mut self) -> bool {
        false
    }

    /// The interrupt that [`crate::apic::LocalApic::pending`] shows makes a VM exit, whatever RFLAGS.IF is. True when it did.
    pub(crate) fn vmx_interrupt_exit(&mut self) -> bool {
        false
    }

    /// The exception bitmap makes a VM exit of `event`. CR2, DR6 and DR7 are as before it; `Cpu::fault_address` and
    /// `PendingEvents::debug_bits` have what would enter them. True when it did.
    pub(crate) fn vmx_exception_exit(&mut self, event: Event) -> bool {
        let _ = event;
        false
    }

    /// A triple fault makes a VM exit. True when it did.
    pub(crate) fn vmx_triple_fault_exit(&mut self) -> bool {
        false
    }
}
