//! Virtual interrupts: guest interrupt status, evaluation and delivery (SDM Vol. 3C, 25.4.2 and 30.2).

use crate::cpu::Cpu;
use crate::run::attention;
use crate::system::event::Event;
use spec::apic::local_apic::offset;
use spec::vmx::{PrimaryControls as Primary, SecondaryControls as Secondary, VmcsField};
use spec::x86::Rflags;

impl Cpu {
    /// RVI: the highest virtual interrupt requested, 0 for none.
    pub(super) fn rvi(&self) -> u8 {
        self.vmx.vmcs.get(VmcsField::GUEST_INTERRUPT_STATUS) as u8
    }

    /// SVI: the highest virtual interrupt in service, 0 for none.
    pub(super) fn svi(&self) -> u8 {
        (self.vmx.vmcs.get(VmcsField::GUEST_INTERRUPT_STATUS) >> 8) as u8
    }

    pub(super) fn set_rvi(&mut self, vector: u8) {
        let status = u64::from(self.svi()) << 8 | u64::from(vector);
        self.vmx.vmcs.set(VmcsField::GUEST_INTERRUPT_STATUS, status);
    }

    pub(super) fn set_svi(&mut self, vector: u8) {
        let status = u64::from(vector) << 8 | u64::from(self.rvi());
        self.vmx.vmcs.set(VmcsField::GUEST_INTERRUPT_STATUS, status);
    }

    /// Sets or clears a vector's bit in VISR or VIRR, eight registers that begin at `first`.
    pub(super) fn set_virtual_vector(&mut self, first: u16, vector: u8, set: bool) {
        let at = register_of(first, vector >> 5);
        let bit = 1 << (vector & 31);
        let old = self.virtual_register::<4>(at);
        self.set_virtual_register::<4>(at, if set { old | bit } else { old & !bit });
    }

    /// The highest vector in VISR or VIRR; 0 when there is none.
    pub(super) fn highest_virtual_vector(&mut self, first: u16) -> u8 {
        (0..8u8)
            .rev()
            .find_map(|word| {
                let bits = self.virtual_register::<4>(register_of(first, word)) as u32;
                (bits != 0).then(|| word << 5 | (31 - bits.leading_zeros()) as u8)
            })
            .unwrap_or(0)
    }

    /// VM entry: the processor's priority is computed, and pending virtual interrupts evaluated (27.3.2.5).
    pub(super) fn start_virtual_interrupts(&mut self) {
        if self.vmx.controls.secondary.has(Secondary::VIRTUAL_INTERRUPT_DELIVERY) {
            self.virtualize_ppr();
            self.evaluate_virtual_interrupts();
        }
    }

    /// Evaluation of pending virtual interrupts (30.2.1). What it finds stays until the next evaluation or delivery.
    pub(super) fn evaluate_virtual_interrupts(&mut self) {
        let priority = self.virtual_register::<1>(offset::PPR) as u8;
        self.vmx.virtual_interrupt =
            !self.vmx.controls.primary.has(Primary::INTERRUPT_WINDOW_EXITING) && self.rvi() >> 4 > priority >> 4;
        if self.vmx.virtual_interrupt {
            self.attention |= attention::EVENT;
        }
    }

    /// A virtual interrupt is recognized, and RFLAGS.IF lets it through.
    pub(crate) fn virtual_interrupt_ready(&self) -> bool {
        self.vmx.virtual_interrupt && self.rflags & Rflags::IF != 0
    }

    /// Virtual-interrupt delivery (30.2.2), when no shadow holds interrupts back. True when one was delivered.
    pub(crate) fn deliver_virtual_interrupt(&mut self) -> bool {
        if !self.virtual_interrupt_ready() {
            return false;
        }
        let vector = self.rvi();
        self.set_virtual_vector(offset::ISR, vector, true);
        self.set_svi(vector);
        self.set_virtual_register::<4>(offset::PPR, u64::from(vector & 0xf0));
        self.set_virtual_vector(offset::IRR, vector, false);
        let next = self.highest_virtual_vector(offset::IRR);
        self.set_rvi(next);
        self.vmx.virtual_interrupt = false;
        self.activity_resumes();
        self.deliver_or_escalate(Event::external(vector), None);
        true
    }
}

/// The offset of register `word` of eight that begin at `first`.
const fn register_of(first: u16, word: u8) -> u16 {
    first + 0x10 * (word as u16 & 7)
}
