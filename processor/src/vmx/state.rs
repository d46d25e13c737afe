//! The saved state of VT-x.

use super::apic_virtualization::{ApicExit, ApicWrite};
use super::vmcs::Vmcs;
use super::{Controls, Vmx, pause_loop};
use serde::{Deserialize, Serialize};
use spec::vmx::{
    EntryControls, ExitControls, PinBasedControls, PrimaryControls, SecondaryControls, SecondaryExitControls,
    TertiaryControls, VmcsField,
};

/// Saved state of [`Vmx`]. What follows from the CPU model, and what only diagnoses, is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmxState {
    on: bool,
    non_root: bool,
    vmxon_pointer: u64,
    vmcs_pointer: u64,
    vmcs_launched: bool,
    vmcs_shadow: bool,
    /// The fields in the order of [`VmcsField::ALL`].
    vmcs_fields: Vec<u64>,
    /// Pin-based, primary, secondary, tertiary, exit, secondary exit and entry controls.
    controls: [u64; 7],
    pause_loop: pause_loop::PauseLoop,
    eptp: u64,
    vpid: u16,
    virtual_nmi_blocking: bool,
    mtf_pending: bool,
    bus_lock: bool,
    timer_deadline: u64,
    apic_write: Option<ApicWrite>,
    apic_exit: Option<ApicExit>,
    virtual_interrupt: bool,
}

impl Vmx {
    /// The state at an instruction boundary.
    #[must_use]
    pub fn save(&self) -> VmxState {
        let Self {
            capabilities: _,
            on,
            non_root,
            vmxon_pointer,
            vmcs,
            controls,
            last_failed_check: _,
            pause_loop,
            eptp,
            vpid,
            virtual_nmi_blocking,
            iret_unblocked_nmi: _,
            mtf_pending,
            bus_lock,
            timer_deadline,
            apic_write,
            apic_exit,
            virtual_interrupt,
            pending: _,
        } = self;
        let Controls { pin, primary, secondary, tertiary, exit, secondary_exit, entry } = *controls;
        VmxState {
            on: *on,
            non_root: *non_root,
            vmxon_pointer: *vmxon_pointer,
            vmcs_pointer: vmcs.pointer,
            vmcs_launched: vmcs.launched,
            vmcs_shadow: vmcs.shadow,
            vmcs_fields: VmcsField::ALL.iter().map(|(field, _)| vmcs.get(*field)).collect(),
            controls: [
                pin.0.into(),
                primary.0.into(),
                secondary.0.into(),
                tertiary.0,
                exit.0.into(),
                secondary_exit.0,
                entry.0.into(),
            ],
            pause_loop: *pause_loop,
            eptp: *eptp,
            vpid: *vpid,
            virtual_nmi_blocking: *virtual_nmi_blocking,
            mtf_pending: *mtf_pending,
            bus_lock: *bus_lock,
            timer_deadline: *timer_deadline,
            apic_write: *apic_write,
            apic_exit: *apic_exit,
            virtual_interrupt: *virtual_interrupt,
        }
    }

    /// Takes up a saved state; the capabilities stay.
    pub fn restore(&mut self, state: &VmxState) {
        let mut restored = Self::new(self.capabilities.clone());
        let mut vmcs = Vmcs::default();
        (vmcs.pointer, vmcs.launched) = (state.vmcs_pointer, state.vmcs_launched);
        vmcs.shadow = state.vmcs_shadow;
        for ((field, _), value) in VmcsField::ALL.iter().zip(&state.vmcs_fields) {
            vmcs.set(*field, *value);
        }
        let [pin, primary, secondary, tertiary, exit, secondary_exit, entry] = state.controls;
        restored.on = state.on;
        restored.non_root = state.non_root;
        restored.vmxon_pointer = state.vmxon_pointer;
        *restored.vmcs = vmcs;
        restored.controls = Controls {
            pin: PinBasedControls(pin as u32),
            primary: PrimaryControls(primary as u32),
            secondary: SecondaryControls(secondary as u32),
            tertiary: TertiaryControls(tertiary),
            exit: ExitControls(exit as u32),
            secondary_exit: SecondaryExitControls(secondary_exit),
            entry: EntryControls(entry as u32),
        };
        restored.pause_loop = state.pause_loop;
        restored.eptp = state.eptp;
        restored.vpid = state.vpid;
        restored.virtual_nmi_blocking = state.virtual_nmi_blocking;
        restored.mtf_pending = state.mtf_pending;
        restored.bus_lock = state.bus_lock;
        restored.timer_deadline = state.timer_deadline;
        restored.apic_write = state.apic_write;
        restored.apic_exit = state.apic_exit;
        restored.virtual_interrupt = state.virtual_interrupt;
        *self = restored;
    }
}
