//! The virtual-APIC page, and the virtualization of TPR, PPR, EOI, self-IPIs and of writes to the APIC-access page
//! (SDM Vol. 3C, 30.1 to 30.4).
//!
//! Accesses to the APIC-access page ([`super::apic_access`]), MOV CR8 and the x2APIC's MSRs ([`super::x2apic_virtualization`]) come here.
//! The VM exits that follow are trap-like: they wait in [`super::Vmx::apic_exit`] for the end of the instruction.

use super::exit::Exit;
use crate::cpu::Cpu;
use crate::run::attention;
use serde::{Deserialize, Serialize};
use spec::apic::local_apic::{DeliveryMode, Icr, Shorthand, offset};
use spec::vmx::{ExitReason, PrimaryControls as Primary, SecondaryControls as Secondary, TertiaryControls, VmcsField};

/// A virtualized write to the APIC-access page whose emulation is due when the operation is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApicWrite {
    /// Offset in the page.
    pub offset: u16,
    /// Bytes written.
    pub size: u8,
}

/// A trap-like VM exit of APIC virtualization, due at the end of the instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ApicExit {
    /// VTPR fell below the TPR threshold.
    TprBelowThreshold,
    /// The end of this interrupt is to be seen by the hypervisor.
    VirtualizedEoi(u8),
    /// A write to the register at this offset is for the hypervisor to carry out.
    Write(u16),
}

/// Bits that must be 0 in VICR_LO for a write to it to be virtualized: 31:20, 17:16, 13 and 12.
const ICR_RESERVED: u32 = 0xfff3_3000;

/// The first vector that is not illegal.
const FIRST_VECTOR: u8 = 16;

impl Cpu {
    /// "IPI virtualization" is 1.
    pub(super) fn ipi_virtualization(&self) -> bool {
        self.vmx.controls.tertiary.has(TertiaryControls::IPI_VIRTUALIZATION)
    }

    fn virtual_apic_register(&self, offset: u16) -> u64 {
        self.vmx.vmcs.get(VmcsField::VIRTUAL_APIC_ADDRESS).wrapping_add(u64::from(offset))
    }

    /// The low `N` bytes of a register in the virtual-APIC page.
    pub(super) fn virtual_register<const N: usize>(&mut self, offset: u16) -> u64 {
        self.physical_load::<N>(self.virtual_apic_register(offset))
    }

    /// Sets the low `N` bytes of a register in the virtual-APIC page.
    pub(super) fn set_virtual_register<const N: usize>(&mut self, offset: u16, value: u64) {
        self.physical_store::<N>(self.virtual_apic_register(offset), value);
    }

    /// VTPR.
    pub(crate) fn virtual_tpr(&mut self) -> u32 {
        self.virtual_register::<4>(offset::TPR) as u32
    }

    /// Writes VTPR (bits 31:8 become 0) and virtualizes the TPR.
    pub(super) fn set_virtual_tpr(&mut self, value: u8) {
        self.set_virtual_register::<4>(offset::TPR, u64::from(value));
        self.virtualize_tpr();
    }

    /// CR8 as the TPR shadow has it (30.3). `None`: the local APIC's is to be used.
    pub(crate) fn virtual_cr8(&mut self) -> Option<u64> {
        if !self.vmx.controls.primary.has(Primary::USE_TPR_SHADOW) {
            return None;
        }
        Some(u64::from(self.virtual_tpr() >> 4 & 15))
    }

    /// A write to CR8 that the TPR shadow takes. False: it goes to the local APIC.
    pub(crate) fn set_virtual_cr8(&mut self, value: u64) -> bool {
        let shadow = self.vmx.controls.primary.has(Primary::USE_TPR_SHADOW);
        if shadow {
            self.set_virtual_tpr((value as u8 & 15) << 4);
        }
        shadow
    }

    /// TPR virtualization (30.1.2).
    pub(super) fn virtualize_tpr(&mut self) {
        if self.vmx.controls.secondary.has(Secondary::VIRTUAL_INTERRUPT_DELIVERY) {
            self.virtualize_ppr();
            self.evaluate_virtual_interrupts();
        } else if u64::from(self.virtual_tpr() >> 4 & 15) < self.vmx.vmcs.get(VmcsField::TPR_THRESHOLD) & 15 {
            self.apic_exit_due(ApicExit::TprBelowThreshold);
        }
    }

    /// PPR virtualization (30.1.3).
    pub(super) fn virtualize_ppr(&mut self) {
        let (task, in_service) = (self.virtual_tpr() as u8, self.svi());
        let priority = if task >> 4 >= in_service >> 4 { task } else { in_service & 0xf0 };
        self.set_virtual_register::<4>(offset::PPR, u64::from(priority));
    }

    /// EOI virtualization (30.1.4).
    pub(super) fn virtualize_eoi(&mut self) {
        const BITMAP: [VmcsField; 4] = [
            VmcsField::EOI_EXIT_BITMAP_0,
            VmcsField::EOI_EXIT_BITMAP_1,
            VmcsField::EOI_EXIT_BITMAP_2,
            VmcsField::EOI_EXIT_BITMAP_3,
        ];
        let vector = self.svi();
        self.set_virtual_vector(offset::ISR, vector, false);
        let in_service = self.highest_virtual_vector(offset::ISR);
        self.set_svi(in_service);
        self.virtualize_ppr();
        if self.vmx.vmcs.get(BITMAP[usize::from(vector >> 6)]) >> (vector & 63) & 1 != 0 {
            self.apic_exit_due(ApicExit::VirtualizedEoi(vector));
        } else {
            self.evaluate_virtual_interrupts();
        }
    }

    /// Self-IPI virtualization (30.1.5).
    pub(super) fn virtualize_self_ipi(&mut self, vector: u8) {
        self.set_virtual_vector(offset::IRR, vector, true);
        self.set_rvi(self.rvi().max(vector));
        self.evaluate_virtual_interrupts();
    }

    /// A trap-like exit becomes due.
    pub(super) fn apic_exit_due(&mut self, exit: ApicExit) {
        self.vmx.apic_exit = Some(exit);
        self.attention |= attention::EVENT;
    }

    /// Makes the exit that is due, if one is. True: a VM exit was made.
    pub(super) fn make_apic_exit(&mut self) -> bool {
        let Some(exit) = self.vmx.apic_exit.take() else { return false };
        self.make_exit(
            match exit {
                ApicExit::TprBelowThreshold => Exit::new(ExitReason::TprBelowThreshold, 0),
                ApicExit::VirtualizedEoi(vector) => Exit::new(ExitReason::VirtualizedEoi, u64::from(vector)),
                ApicExit::Write(offset) => Exit::new(ExitReason::ApicWrite, u64::from(offset)),
            },
            None,
        );
        true
    }

    /// APIC-write emulation (30.4.3.2), which comes before everything else at the end of an operation. True: a VM exit was made.
    #[inline]
    pub(crate) fn vmx_emulate_apic_write(&mut self) -> bool {
        let Some(write) = self.vmx.apic_write.take() else { return false };
        self.emulate_apic_write(write.offset);
        self.make_apic_exit()
    }

    fn emulate_apic_write(&mut self, at: u16) {
        let delivery = self.vmx.controls.secondary.has(Secondary::VIRTUAL_INTERRUPT_DELIVERY);
        match at & 0xffc {
            offset::TPR => {
                let task = self.virtual_tpr() as u8;
                self.set_virtual_tpr(task);
            }
            offset::EOI if delivery => {
                self.set_virtual_register::<4>(offset::EOI, 0);
                self.virtualize_eoi();
            }
            offset::ICR_LOW => {
                let command = self.virtual_register::<4>(offset::ICR_LOW) as u32;
                if delivery && self_ipi_of(command).is_some_and(|vector| vector >= FIRST_VECTOR) {
                    self.virtualize_self_ipi(command as u8);
                } else {
                    let destination = self.virtual_register::<4>(offset::ICR_HIGH) as u32 >> 24;
                    self.virtualize_ipi_command(command, destination);
                }
            }
            offset::ICR_HIGH => {
                let destination = self.virtual_register::<4>(offset::ICR_HIGH) & 0xff00_0000;
                self.set_virtual_register::<4>(offset::ICR_HIGH, destination);
            }
            _ => self.apic_exit_due(ApicExit::Write(at)),
        }
    }

    /// A write of `command` to the interrupt command register: IPI virtualization where it is possible (30.1.6), else an APIC-write VM exit.
    pub(super) fn virtualize_ipi_command(&mut self, command: u32, destination: u32) {
        let virtualized = self.ipi_virtualization()
            && command & ICR_RESERVED == 0
            && is_plain_fixed(command)
            && Shorthand::of(command) == Shorthand::None
            && u64::from(command) & Icr::LOGICAL == 0
            && command as u8 >= FIRST_VECTOR
            && self.virtualize_ipi(command as u8, destination);
        if !virtualized {
            self.apic_exit_due(ApicExit::Write(offset::ICR_LOW));
        }
    }
}

/// Edge-triggered, with delivery mode "fixed".
fn is_plain_fixed(command: u32) -> bool {
    u64::from(command) & Icr::LEVEL == 0 && DeliveryMode::of(command) == DeliveryMode::Fixed
}

/// The vector of a command that asks for nothing but an interrupt to the processor itself.
fn self_ipi_of(command: u32) -> Option<u8> {
    let to_itself = Shorthand::of(command) == Shorthand::Itself;
    (command & ICR_RESERVED == 0 && to_itself && is_plain_fixed(command)).then_some(command as u8)
}
