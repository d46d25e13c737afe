//! VT-x: VMX operation, the VMCS, VM entries and exits, EPT (SDM Vol. 3C, chapters 24 to 31).
//!
//! | module | is |
//! | --- | --- |
//! | `capabilities` | the capability MSRs, computed from the CPU model's VT-x features |
//! | `fields` | which fields a VMCS has, by what the processor can do |
//! | `vmcs` | the current VMCS as fields, and its form in memory |
//! | `instructions` | VMXON to VMFUNC |
//! | `shadowing` | VMREAD and VMWRITE in non-root operation that reach the shadow VMCS |
//! | `entry` | VM entry: `checks`, `load` of the guest's state, `inject`ion of events |
//! | `intercept` | what instructions ask before they run in VMX non-root operation |
//! | `events` | which events exit; windows, MTF and the other exits between instructions |
//! | `exit` | making a VM exit: what is recorded, `save` of the guest, load of the `host` |
//! | `msr_list` | the MSR areas of entries and exits |
//! | `msr_bitmap` | where the bit of an MSR or a port is |
//! | `ept`, `guest_memory` | the EPT walk, and what its failures become: VM exits, virtualization exceptions; HLAT, page-modification log |
//! | `apic_virtualization` | the virtual-APIC page: TPR, PPR, EOI, IPIs; the exits of its writes |
//! | `apic_access`, `x2apic_virtualization` | accesses to it by the APIC-access page and by MSRs |
//! | `virtual_interrupts`, `posted_interrupts` | evaluation and delivery of virtual interrupts; those that others post |
//! | `preemption_timer`, `pause_loop` | the two timers of non-root operation |

mod apic_access;
#[cfg(test)]
mod apic_tests;
pub mod apic_virtualization;
pub mod capabilities;
pub mod entry;
pub mod ept;
mod events;
pub mod exit;
#[cfg(test)]
mod feature_tests;
mod fields;
mod guest_memory;
pub mod instructions;
pub mod intercept;
pub mod msr_bitmap;
mod msr_list;
pub mod pause_loop;
mod posted_interrupts;
mod preemption_timer;
mod shadowing;
pub mod state;
#[cfg(test)]
mod tests;
mod virtual_interrupts;
pub mod vmcs;
mod x2apic_virtualization;

pub use capabilities::VmxCapabilities;
pub use exit::Exit;
pub use vmcs::Vmcs;

use spec::vmx::{
    EntryCheck, EntryControls, ExitControls, PinBasedControls, PrimaryControls, SecondaryControls,
    SecondaryExitControls, TertiaryControls, VmcsField,
};

/// The controls in force in VMX non-root operation; all zero elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Controls {
    /// Pin-based.
    pub pin: PinBasedControls,
    /// Primary processor-based.
    pub primary: PrimaryControls,
    /// Secondary processor-based; zero when not activated.
    pub secondary: SecondaryControls,
    /// Tertiary processor-based; zero when not activated.
    pub tertiary: TertiaryControls,
    /// VM-exit.
    pub exit: ExitControls,
    /// Secondary VM-exit; zero when not activated.
    pub secondary_exit: SecondaryExitControls,
    /// VM-entry.
    pub entry: EntryControls,
}

impl Controls {
    /// The controls in `vmcs`.
    #[must_use]
    pub fn of(vmcs: &Vmcs) -> Self {
        let primary = PrimaryControls(vmcs.get32(VmcsField::PRIMARY_CONTROLS));
        let exit = ExitControls(vmcs.get32(VmcsField::EXIT_CONTROLS));
        let if_activated = |activated: bool, field| if activated { vmcs.get(field) } else { 0 };
        let secondary = primary.has(PrimaryControls::ACTIVATE_SECONDARY_CONTROLS);
        let tertiary = primary.has(PrimaryControls::ACTIVATE_TERTIARY_CONTROLS);
        let secondary_exit = exit.has(ExitControls::ACTIVATE_SECONDARY_CONTROLS);
        Self {
            pin: PinBasedControls(vmcs.get32(VmcsField::PIN_BASED_CONTROLS)),
            primary,
            secondary: SecondaryControls(if_activated(secondary, VmcsField::SECONDARY_CONTROLS) as u32),
            tertiary: TertiaryControls(if_activated(tertiary, VmcsField::TERTIARY_CONTROLS)),
            exit,
            secondary_exit: SecondaryExitControls(if_activated(secondary_exit, VmcsField::SECONDARY_EXIT_CONTROLS)),
            entry: EntryControls(vmcs.get32(VmcsField::ENTRY_CONTROLS)),
        }
    }
}

/// A VM-entry check that failed, with the field it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailedCheck {
    /// The rule broken.
    pub check: EntryCheck,
    /// The field whose value breaks it.
    pub field: Option<VmcsField>,
    /// The field's value.
    pub value: u64,
}

impl std::fmt::Display for FailedCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.check)?;
        match self.field {
            Some(field) => write!(f, " {field:?} is {:#x}.", self.value),
            None => Ok(()),
        }
    }
}

/// VT-x state of one processor.
#[derive(Debug)]
pub struct Vmx {
    /// What the capability MSRs say.
    pub capabilities: VmxCapabilities,
    /// In VMX operation (VMXON executed).
    pub on: bool,
    /// In VMX non-root operation.
    pub non_root: bool,
    /// The VMXON pointer while in VMX operation.
    pub vmxon_pointer: u64,
    /// The current VMCS; its pointer is [`vmcs::NO_POINTER`] when there is none.
    pub vmcs: Box<Vmcs>,
    /// The controls in force.
    pub controls: Controls,
    /// Why the last VM entry failed, if it did.
    pub last_failed_check: Option<FailedCheck>,
    /// When the guest executed PAUSE.
    pub pause_loop: pause_loop::PauseLoop,
    /// The EPT pointer in force; 0 without EPT.
    pub eptp: u64,
    /// The VPID in force; 0 in root operation and without VPIDs.
    pub vpid: u16,
    /// Virtual NMIs are blocked.
    pub virtual_nmi_blocking: bool,
    /// The instruction that has just faulted is an IRET that unblocked NMIs.
    pub(crate) iret_unblocked_nmi: bool,
    /// A monitor-trap-flag exit is due before the next instruction.
    pub mtf_pending: bool,
    /// The last instruction asserted a bus lock: an exit is due.
    pub bus_lock: bool,
    /// When the preemption timer expires, in its own counts; `u64::MAX` when it does not run.
    pub timer_deadline: u64,
    /// A write to the APIC-access page is to be emulated at the end of the operation.
    pub apic_write: Option<apic_virtualization::ApicWrite>,
    /// An exit of APIC virtualization is due after the instruction.
    pub apic_exit: Option<apic_virtualization::ApicExit>,
    /// A pending virtual interrupt is recognized.
    pub virtual_interrupt: bool,
    /// The exit to be made when the trap [`crate::trap::Trap::VmExit`] is seen to.
    pub(crate) pending: Exit,
}

impl Vmx {
    /// Outside VMX operation.
    #[must_use]
    pub fn new(capabilities: VmxCapabilities) -> Self {
        Self {
            capabilities,
            on: false,
            non_root: false,
            vmxon_pointer: vmcs::NO_POINTER,
            vmcs: Box::default(),
            controls: Controls::default(),
            last_failed_check: None,
            pause_loop: pause_loop::PauseLoop::default(),
            eptp: 0,
            vpid: 0,
            virtual_nmi_blocking: false,
            iret_unblocked_nmi: false,
            mtf_pending: false,
            bus_lock: false,
            timer_deadline: u64::MAX,
            apic_write: None,
            apic_exit: None,
            virtual_interrupt: false,
            pending: Exit::default(),
        }
    }

    /// Nothing of APIC virtualization waits any more: VM exits, VM entries.
    pub(crate) fn forget_apic_virtualization(&mut self) {
        self.apic_write = None;
        self.apic_exit = None;
        self.virtual_interrupt = false;
    }

    /// Outside VMX operation again, with no current VMCS: reset, VMXOFF.
    pub(crate) fn leave_operation(&mut self) {
        self.on = false;
        self.non_root = false;
        self.vmxon_pointer = vmcs::NO_POINTER;
        self.vmcs.pointer = vmcs::NO_POINTER;
        self.controls = Controls::default();
        self.forget_apic_virtualization();
        (self.eptp, self.vpid) = (0, 0);
        self.virtual_nmi_blocking = false;
        self.mtf_pending = false;
        self.bus_lock = false;
        self.timer_deadline = u64::MAX;
    }
}
