//! VMX operation, from the hypervisor's side.
//!
//! [`Hypervisor::start`] enters VMX operation with one VMCS; [`state`] fills it with a host that is this program and a guest like it;
//! [`Hypervisor::enter`] runs the guest until something happens.

pub mod instructions;
pub mod legacy;
pub mod state;
mod stubs;

use crate::{boot, cpu, memory};
pub use instructions::{Failure, Registers};
use instructions::{vmclear, vmptrld, vmread, vmwrite, vmxon};
use spec::vmx::VmcsField as Field;
use spec::vmx::capability::basic;
use spec::x86::msr::{self, FeatureControl};
use spec::x86::{Cr0, Cr4};

/// What came of a VM entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// VMfail.
    Failed(Failure),
    /// A VM exit (or a VM-entry failure, which looks like one); the exit-reason field.
    Exit(u32),
}

/// What the hypervisor saw of its own state right after a VM exit, before it repaired it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostSeen {
    /// RSP.
    pub rsp: u64,
    /// RFLAGS.
    pub rflags: u64,
}

/// This program in VMX root operation.
#[derive(Debug)]
pub struct Hypervisor {
    /// The VMXON region.
    pub vmxon_region: u64,
    /// The region of the VMCS that is current.
    pub vmcs_region: u64,
    launched: bool,
}

impl Hypervisor {
    /// Enters VMX operation with a clear current VMCS.
    ///
    /// # Errors
    /// What the processor refused.
    pub fn start() -> Result<Self, &'static str> {
        if !cpu::has_vmx() {
            return Err("the processor has no VT-x");
        }
        enable()?;
        let vmxon_region = new_region();
        vmxon(vmxon_region).map_err(|_| "VMXON fails")?;
        let vmcs_region = new_region();
        let mut hypervisor = Self { vmxon_region, vmcs_region, launched: false };
        hypervisor.clear()?;
        Ok(hypervisor)
    }

    /// Makes the VMCS clear and current: its launch state becomes clear, its fields are to be written.
    ///
    /// # Errors
    /// What the processor refused.
    pub fn clear(&mut self) -> Result<(), &'static str> {
        vmclear(self.vmcs_region).map_err(|_| "VMCLEAR fails")?;
        vmptrld(self.vmcs_region).map_err(|_| "VMPTRLD fails")?;
        self.launched = false;
        Ok(())
    }

    /// VMLAUNCH, or VMRESUME after a first entry; comes back when the guest exits or the entry fails. `registers` are the guest's, before
    /// and after.
    pub fn enter(&mut self, registers: &mut Registers) -> Entered {
        let result = instructions::enter(registers, self.launched);
        match result {
            Err(failure) => Entered::Failed(failure),
            Ok(()) => {
                let reason = vmread(Field::EXIT_REASON).unwrap_or(0) as u32;
                // A failed entry does not launch the VMCS (SDM Vol. 3C, 27.8).
                self.launched |= reason >> 31 == 0;
                Entered::Exit(reason)
            }
        }
    }

    /// VMLAUNCH from protected mode with PAE paging by `table`. The VMCS is clear afterwards.
    pub fn enter_from_32_bits(&mut self, table: u64) -> Entered {
        self.launched = false;
        legacy::enter(self.vmxon_region, self.vmcs_region, table)
    }

    /// Whether the next entry is by VMRESUME.
    #[must_use]
    pub fn is_launched(&self) -> bool {
        self.launched
    }

    /// What the last VM exit loaded into RSP and RFLAGS.
    #[must_use]
    pub fn host_seen(&self) -> HostSeen {
        instructions::host_seen()
    }
}

/// Allows VMXON: IA32_FEATURE_CONTROL, and the bits that VMX operation fixes in CR0 and CR4.
fn enable() -> Result<(), &'static str> {
    let control = cpu::read_msr(msr::FEATURE_CONTROL).map_err(|_| "IA32_FEATURE_CONTROL cannot be read")?;
    let needed = FeatureControl::LOCK | FeatureControl::VMX_OUTSIDE_SMX;
    if control & FeatureControl::LOCK == 0 {
        cpu::write_msr(msr::FEATURE_CONTROL, control | needed).map_err(|_| "IA32_FEATURE_CONTROL cannot be set")?;
    } else if control & needed != needed {
        return Err("IA32_FEATURE_CONTROL is locked without VMX");
    }
    let fixed = |number| cpu::read_msr(number).unwrap_or(0);
    cpu::write_cr0(cpu::read_cr0() | fixed(msr::VMX_CR0_FIXED0) & Cr0::ALL);
    cpu::write_cr4(cpu::read_cr4() | fixed(msr::VMX_CR4_FIXED0) | Cr4::VMXE);
    Ok(())
}

/// The revision identifier.
#[must_use]
pub fn revision() -> u32 {
    (cpu::read_msr(msr::VMX_BASIC).unwrap_or(0) & basic::REVISION) as u32
}

/// A zeroed page with the revision identifier.
#[must_use]
pub fn new_region() -> u64 {
    let region = memory::take_pages(1);
    memory::write32(region, revision());
    region
}

/// Reads a field of the current VMCS; 0 if it does not exist.
#[must_use]
pub fn read(field: Field) -> u64 {
    vmread(field).unwrap_or(0)
}

/// Writes a field of the current VMCS. False: it does not exist, or cannot be written.
pub fn write(field: Field, value: u64) -> bool {
    vmwrite(field, value).is_ok()
}

/// Where the VMCS's host state says the hypervisor goes on after an exit.
#[must_use]
pub fn host_rip() -> u64 {
    instructions::host_rip()
}

/// The page tables that host and guests use.
#[must_use]
pub fn page_tables() -> u64 {
    boot::page_tables()
}
