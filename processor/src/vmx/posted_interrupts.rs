//! Posted-interrupt processing (SDM Vol. 3C, 30.6) and IPI virtualization, which posts interrupts to others (30.1.6).

use crate::apic::{Effect, InterruptMessage, Mode};
use crate::cpu::Cpu;
use spec::apic::local_apic::{DeliveryMode, Shorthand, offset};
use spec::vmx::posted_interrupts as descriptor;
use spec::vmx::{PinBasedControls as Pin, VmcsField};

impl Cpu {
    /// The processor has acknowledged the external interrupt `vector`. True: it was the notification, the posted interrupts were taken
    /// over, and there is no VM exit.
    pub(super) fn process_posted_interrupts(&mut self, vector: u8) -> bool {
        let notification = self.vmx.vmcs.get(VmcsField::POSTED_INTERRUPT_NOTIFICATION_VECTOR);
        if !self.vmx.controls.pin.has(Pin::POSTED_INTERRUPTS) || u64::from(vector) != notification {
            return false;
        }
        let posted = self.vmx.vmcs.get(VmcsField::POSTED_INTERRUPT_DESCRIPTOR);
        let control = posted.wrapping_add(descriptor::CONTROL);
        self.physical_update::<8>(control, |word| word & !descriptor::OUTSTANDING);
        let end = self.apic.end_of_interrupt();
        self.apic_effect(end);
        let mut highest = 0;
        for word in 0..8u16 {
            let at = posted.wrapping_add(4 * u64::from(word));
            if self.physical_load::<4>(at) == 0 {
                continue;
            }
            let requests = self.physical_update::<4>(at, |_| 0) as u32;
            let register = offset::IRR + 0x10 * word;
            let irr = self.virtual_register::<4>(register);
            self.set_virtual_register::<4>(register, irr | u64::from(requests));
            highest = (32 * word + 31) as u8 - requests.leading_zeros() as u8;
        }
        self.set_rvi(self.rvi().max(highest));
        self.evaluate_virtual_interrupts();
        // MWAIT is over; HLT goes on unless a virtual interrupt is delivered.
        if self.monitor.waiting {
            self.activity_resumes();
        }
        true
    }

    /// IPI virtualization: posts `vector` to the virtual processor with the virtual APIC id `destination`. False: it cannot be done here,
    /// and an APIC-write VM exit is to follow.
    pub(super) fn virtualize_ipi(&mut self, vector: u8, destination: u32) -> bool {
        if u64::from(destination) > self.vmx.vmcs.get(VmcsField::LAST_PID_POINTER_INDEX) {
            return false;
        }
        let table = self.vmx.vmcs.get(VmcsField::PID_POINTER_TABLE);
        let pointer = self.physical_load::<8>(table.wrapping_add(u64::from(destination) << 3));
        if pointer >> self.physical_bits != 0 || pointer & descriptor::POINTER_FLAGS != descriptor::POINTER_VALID {
            return false;
        }
        let posted = pointer & !descriptor::POINTER_FLAGS;
        let request = posted + u64::from(vector >> 6) * 8;
        self.physical_update::<8>(request, |requests| requests | 1 << (vector & 63));
        let notifies = |control: u64| control & (descriptor::OUTSTANDING | descriptor::SUPPRESS) == 0;
        let control = self.physical_update::<8>(posted + descriptor::CONTROL, |control| {
            if notifies(control) { control | descriptor::OUTSTANDING } else { control }
        });
        if notifies(control) {
            self.send_notification(
                (control >> descriptor::NOTIFICATION_VECTOR_SHIFT) as u8,
                (control >> descriptor::DESTINATION_SHIFT) as u32,
            );
        }
        true
    }

    /// Sends the IPI that a write of NDST and NV to the interrupt command register would send.
    fn send_notification(&mut self, vector: u8, destination: u32) {
        let destination = match self.apic.mode() {
            Mode::Disabled => return,
            Mode::XApic => InterruptMessage::widen((destination >> 8) as u8),
            Mode::X2Apic => destination,
        };
        self.apic_effect(Some(Effect::Send(InterruptMessage {
            destination,
            logical: false,
            delivery: DeliveryMode::Fixed,
            vector,
            level_triggered: false,
            shorthand: Shorthand::None,
        })));
    }
}
