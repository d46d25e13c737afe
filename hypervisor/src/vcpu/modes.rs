//! The guest's CR0, CR4 and IA32_EFER: what it believes they are, and what the processor gets.
//!
//! CD and NW are not the guest's, and NE and VMXE are always 1 (VMX operation needs them). Without "unrestricted guest" the processor must
//! have paging on: a guest that believes it is off runs on page tables that map 4 GiB one to one, at [`IDENTITY`].

use super::Vcpu;
use crate::vmcs::{Vmcs, field};
use spec::vmx::{EntryControls, PrimaryControls};
use spec::x86::{Cr0, Cr3, Cr4, Efer};

/// Where the page directory for guests without paging is in their physical memory, where the processor needs one.
pub const IDENTITY: u64 = 0xfefb_c000;

/// What the guest believes, where it cannot be in the VMCS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shadow {
    /// CR3, while the guest's paging is off and the processor's is not.
    pub cr3: u64,
    /// IA32_EFER, where writes of it exit.
    pub efer: u64,
}

/// Bits of CR4 that guests may set where CPUID announces what they are for.
const CR4_GUESTS: u64 = Cr4::VME
    | Cr4::PVI
    | Cr4::TSD
    | Cr4::DE
    | Cr4::PSE
    | Cr4::PAE
    | Cr4::MCE
    | Cr4::PGE
    | Cr4::OSFXSR
    | Cr4::OSXMMEXCPT
    | Cr4::UMIP
    | Cr4::FSGSBASE
    | Cr4::PCIDE
    | Cr4::OSXSAVE
    | Cr4::SMEP
    | Cr4::SMAP;

/// Why a guest cannot have a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The instruction raises #GP(0).
    Fault,
    /// The processor cannot run a guest in that mode.
    Mode,
}

impl Vcpu {
    /// The bits of CR0 that the guest does not own.
    #[must_use]
    pub(crate) fn cr0_mask(&self) -> u64 {
        let restricted = if self.unrestricted { 0 } else { Cr0::PE | Cr0::PG };
        Cr0::NE | Cr0::CD | Cr0::NW | restricted
    }

    /// The bits of CR4 that the guest does not own.
    #[must_use]
    pub(crate) fn cr4_mask(&self) -> u64 {
        !CR4_GUESTS | if self.unrestricted { 0 } else { Cr4::PSE | Cr4::PAE }
    }

    /// CR0 as the guest sees it.
    #[must_use]
    pub(crate) fn cr0(&self, vmcs: &dyn Vmcs) -> u64 {
        let mask = self.cr0_mask();
        vmcs.get(field::GUEST_CR0).0 & !mask | vmcs.get(field::CR0_READ_SHADOW).0 & mask
    }

    /// CR4 as the guest sees it.
    #[must_use]
    pub(crate) fn cr4(&self, vmcs: &dyn Vmcs) -> u64 {
        let mask = self.cr4_mask();
        vmcs.get(field::GUEST_CR4).0 & !mask | vmcs.get(field::CR4_READ_SHADOW).0 & mask
    }

    /// IA32_EFER as the guest sees it.
    #[must_use]
    pub(crate) fn efer(&self, vmcs: &dyn Vmcs) -> u64 {
        if self.unrestricted { vmcs.get(field::GUEST_EFER).0 } else { self.shadow.efer }
    }

    /// Whether the processor pages for a guest that believes it does not.
    #[must_use]
    pub(crate) fn pages_for_guest(&self, vmcs: &dyn Vmcs) -> bool {
        !self.unrestricted && self.cr0(vmcs) & Cr0::PG == 0
    }

    /// The guest sets CR0.
    pub(crate) fn set_cr0(&mut self, vmcs: &mut dyn Vmcs, value: u64) -> Result<(), Refused> {
        let invalid = value & (Cr0::PG | Cr0::PE) == Cr0::PG || value & (Cr0::NW | Cr0::CD) == Cr0::NW;
        let efer = self.efer(vmcs);
        let long = value & Cr0::PG != 0 && efer & Efer::LME != 0;
        if invalid || long && self.cr4(vmcs) & Cr4::PAE == 0 {
            return Err(Refused::Fault);
        }
        if !self.unrestricted && value & Cr0::PE == 0 {
            return Err(Refused::Mode);
        }
        let paged_for = self.pages_for_guest(vmcs);
        let cr4 = self.cr4(vmcs);
        vmcs.set(field::CR0_READ_SHADOW, Cr0(value));
        let mut real = value & !(Cr0::CD | Cr0::NW) | Cr0::NE;
        if !self.unrestricted {
            real |= Cr0::PE | Cr0::PG;
        }
        vmcs.set(field::GUEST_CR0, Cr0(real));
        self.set_efer(vmcs, if long { efer | Efer::LMA } else { efer & !Efer::LMA });
        if !self.unrestricted {
            self.switch_tables(vmcs, paged_for);
            self.set_real_cr4(vmcs, cr4);
        }
        if value & Cr0::PG != 0 && !long && cr4 & Cr4::PAE != 0 {
            self.load_pdptes(vmcs);
        }
        Ok(())
    }

    /// The guest sets CR4.
    pub(crate) fn set_cr4(&mut self, vmcs: &mut dyn Vmcs, value: u64) -> Result<(), Refused> {
        let long = self.efer(vmcs) & Efer::LMA != 0;
        let pcid = value & Cr4::PCIDE != 0 && !long;
        if value & !CR4_GUESTS != 0 || pcid || long && value & Cr4::PAE == 0 {
            return Err(Refused::Fault);
        }
        self.set_real_cr4(vmcs, value);
        if self.cr0(vmcs) & Cr0::PG != 0 && !long && value & Cr4::PAE != 0 {
            self.load_pdptes(vmcs);
        }
        Ok(())
    }

    fn set_real_cr4(&mut self, vmcs: &mut dyn Vmcs, value: u64) {
        vmcs.set(field::CR4_READ_SHADOW, Cr4(value));
        let own = if self.pages_for_guest(vmcs) { value & !Cr4::PAE & !Cr4::PCIDE | Cr4::PSE } else { value };
        vmcs.set(field::GUEST_CR4, Cr4(own | Cr4::VMXE));
    }

    /// Writes IA32_EFER and the control that goes with LMA.
    pub(crate) fn set_efer(&mut self, vmcs: &mut dyn Vmcs, value: u64) {
        self.shadow.efer = value;
        let active = value & Efer::LMA != 0;
        let real = if self.pages_for_guest(vmcs) { value & !(Efer::LME | Efer::LMA) } else { value };
        vmcs.set(field::GUEST_EFER, Efer(real));
        let mode = EntryControls::IA32E_MODE_GUEST;
        vmcs.update(field::ENTRY_CONTROLS, |entry| {
            EntryControls(if active { entry.0 | mode } else { entry.0 & !mode })
        });
    }

    /// Changes between the guest's page tables and ours.
    fn switch_tables(&mut self, vmcs: &mut dyn Vmcs, before: bool) {
        let now = self.pages_for_guest(vmcs);
        let exits = PrimaryControls::CR3_LOAD_EXITING | PrimaryControls::CR3_STORE_EXITING;
        match (before, now) {
            (false, true) => {
                self.shadow.cr3 = vmcs.get(field::GUEST_CR3);
                vmcs.set(field::GUEST_CR3, IDENTITY);
                self.controls.primary |= exits;
            }
            (true, false) => {
                vmcs.set(field::GUEST_CR3, self.shadow.cr3);
                self.controls.primary &= !exits;
            }
            (false, false) => {}
            (true, true) => vmcs.set(field::GUEST_CR3, IDENTITY),
        }
        vmcs.set(field::PRIMARY_CONTROLS, PrimaryControls(self.controls.primary));
    }

    /// With PAE paging and EPT, VM entries take the PDPTEs from the VMCS. An access outside memory gives entries that are not present.
    fn load_pdptes(&self, vmcs: &mut dyn Vmcs) {
        let table = vmcs.get(field::GUEST_CR3) & Cr3::PAE_TABLE;
        let entry = |n: u64| self.vm.memory.read_number(table + 8 * n, 8).unwrap_or(0);
        vmcs.set(field::GUEST_PDPTE0, entry(0));
        vmcs.set(field::GUEST_PDPTE1, entry(1));
        vmcs.set(field::GUEST_PDPTE2, entry(2));
        vmcs.set(field::GUEST_PDPTE3, entry(3));
    }
}
