//! The checks that VM entry makes on the VMCS (SDM Vol. 3C, 27.2 and 27.3.1), in the manual's order.
//!
//! Each is a variant of [`EntryCheck`]. They are functions of a plain view: the VMCS, the capability MSRs, and the little that
//! has to be read elsewhere ([`EntryContext`]).

mod controls;
mod guest;
mod host;
mod segments;
#[cfg(test)]
mod tests;

pub use controls::bad_ept_pointer;

use crate::vmx::{Controls, FailedCheck, Vmcs, VmxCapabilities};
use spec::vmx::{
    EntryCheck, EntryControls, ExitControls, PinBasedControls, PrimaryControls, SecondaryControls,
    SecondaryExitControls, TertiaryControls, VmcsField,
};

/// What the checks need besides the VMCS and the capabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntryContext {
    /// The processor is in IA-32e mode (IA32_EFER.LMA = 1).
    pub long_mode: bool,
    /// VTPR in the virtual-APIC page, if "use TPR shadow" is 1 and the address is valid.
    pub virtual_tpr: u32,
    /// The first four bytes at the VMCS link pointer, if there is one.
    pub link_revision: u32,
    /// The four PDPTEs that CR3 refers to, for a PAE guest without EPT.
    pub pdptes: [u64; 4],
}

type Checked = Result<(), FailedCheck>;

/// The view that the checks have.
struct View<'a> {
    vmcs: &'a Vmcs,
    capabilities: &'a VmxCapabilities,
    context: EntryContext,
    pin: PinBasedControls,
    primary: PrimaryControls,
    secondary: SecondaryControls,
    tertiary: TertiaryControls,
    exit: ExitControls,
    secondary_exit: SecondaryExitControls,
    entry: EntryControls,
}

impl<'a> View<'a> {
    fn new(vmcs: &'a Vmcs, capabilities: &'a VmxCapabilities, context: EntryContext) -> Self {
        let Controls { pin, primary, secondary, tertiary, exit, secondary_exit, entry } = Controls::of(vmcs);
        Self { vmcs, capabilities, context, pin, primary, secondary, tertiary, exit, secondary_exit, entry }
    }

    #[inline(always)]
    fn get(&self, field: VmcsField) -> u64 {
        self.vmcs.get(field)
    }

    /// Fails with `check` about `field` unless the rule `holds`.
    #[inline(always)]
    fn require(&self, holds: bool, check: EntryCheck, field: VmcsField) -> Checked {
        if holds { Ok(()) } else { Err(FailedCheck { check, field: Some(field), value: self.get(field) }) }
    }

    /// Whether `address` has no bit beyond the physical-address width.
    fn in_width(&self, address: u64) -> bool {
        address >> self.capabilities.physical_bits == 0
    }

    /// Whether `field` is the address of a 4-KiB page.
    fn is_page(&self, field: VmcsField) -> bool {
        let address = self.get(field);
        address & 0xfff == 0 && self.in_width(address)
    }

    /// Whether `address` is canonical for the processor's linear-address width.
    fn is_canonical(&self, address: u64) -> bool {
        let unused = 64 - u32::from(self.capabilities.linear_bits);
        ((address << unused) as i64 >> unused) as u64 == address
    }
}

/// The checks on controls and the host-state area (27.2): a failure is a VM-instruction error.
pub fn controls_and_host(vmcs: &Vmcs, capabilities: &VmxCapabilities, context: EntryContext) -> Checked {
    let view = View::new(vmcs, capabilities, context);
    view.execution_controls()?;
    view.exit_controls()?;
    view.entry_controls()?;
    view.host_registers()?;
    view.host_segments()?;
    view.address_space_size()
}

/// The checks on the guest-state area (27.3.1): a failure is a VM exit.
pub fn guest(vmcs: &Vmcs, capabilities: &VmxCapabilities, context: EntryContext) -> Checked {
    let view = View::new(vmcs, capabilities, context);
    view.guest_registers()?;
    view.guest_segments()?;
    view.guest_descriptor_tables()?;
    view.guest_rip_rflags()?;
    view.guest_non_register()?;
    view.guest_pdptes()
}
