//! Interrupt messages: what travels between local APICs, I/O APICs and message-signalled interrupts.

use spec::apic::local_apic::{DeliveryMode, Shorthand};

/// The physical or logical destination that names every processor, as a 32-bit destination.
pub const BROADCAST: u32 = 0xffff_ffff;

/// One interrupt message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterruptMessage {
    /// Destination. Senders with an 8-bit destination field widen 0xFF to [`BROADCAST`].
    pub destination: u32,
    /// True when `destination` is a logical one.
    pub logical: bool,
    /// What is delivered.
    pub delivery: DeliveryMode,
    /// The vector, where the delivery mode has one.
    pub vector: u8,
    /// True for a level-triggered interrupt: its EOI is broadcast.
    pub level_triggered: bool,
    /// Shorthand that replaces the destination.
    pub shorthand: Shorthand,
}

impl InterruptMessage {
    /// Widens an 8-bit destination field: 0xFF names everyone.
    #[must_use]
    pub const fn widen(destination: u8) -> u32 {
        if destination == 0xff { BROADCAST } else { destination as u32 }
    }

    /// Decodes a message-signalled interrupt, a write of `data` to `address` in 0xFEEx_xxxx (SDM vol. 3, 11.11).
    /// `None` when the delivery mode is reserved.
    #[must_use]
    pub fn from_msi(address: u64, data: u32) -> Option<Self> {
        let redirection_hint = address & (1 << 3) != 0;
        let delivery = DeliveryMode::of(data);
        if delivery == DeliveryMode::Reserved3 {
            return None;
        }
        Some(Self {
            destination: Self::widen((address >> 12) as u8),
            // Without the redirection hint the destination mode bit is ignored and the destination is physical only
            // on paper; chipsets honour the bit by itself, and systems in logical mode rely on that.
            logical: address & (1 << 2) != 0,
            delivery: if redirection_hint && delivery == DeliveryMode::Fixed {
                DeliveryMode::LowestPriority
            } else {
                delivery
            },
            vector: data as u8,
            level_triggered: data & (1 << 15) != 0,
            shorthand: Shorthand::None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn msi_fields_are_decoded() {
        let message = InterruptMessage::from_msi(0xfee0_3004, 0x0000_4131).unwrap();
        assert_eq!(message.destination, 3);
        assert!(message.logical);
        assert_eq!(message.delivery, DeliveryMode::LowestPriority);
        assert_eq!(message.vector, 0x31);
        assert!(!message.level_triggered);
    }

    #[test]
    fn msi_of_reserved_delivery_mode_is_nothing() {
        assert_eq!(InterruptMessage::from_msi(0xfee0_0000, 0x0331), None);
    }

    #[test]
    fn msi_destination_ff_names_everyone() {
        assert_eq!(InterruptMessage::from_msi(0xfeef_f000, 0x31).unwrap().destination, BROADCAST);
    }
}
