//! Who takes a message: destination matching and lowest-priority arbitration (SDM vol. 3, 11.6.2 and 11.6.2.4).

use super::message::{BROADCAST, InterruptMessage};
use super::{LocalApic, Mode};
use spec::apic::local_apic::{DeliveryMode, Shorthand};

/// What decides whether an APIC takes a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    mode: Mode,
    id: u32,
    logical_destination: u32,
    is_flat: bool,
    is_software_enabled: bool,
    priority: u8,
}

impl LocalApic {
    /// What the APIC's registers make of it for those who send messages.
    #[must_use]
    pub fn address(&self) -> Address {
        Address {
            mode: self.mode(),
            id: if self.mode() == Mode::X2Apic { self.x2apic_id() } else { self.xapic_id() },
            logical_destination: self.logical_destination(),
            is_flat: self.is_flat(),
            is_software_enabled: self.is_software_enabled(),
            priority: self.processor_priority(),
        }
    }

    /// Whether this APIC is named by `destination`, a physical APIC id or, if `logical`, a logical destination.
    #[must_use]
    pub fn matches(&self, destination: u32, logical: bool) -> bool {
        self.address().matches(destination, logical)
    }
}

impl Address {
    /// As [`LocalApic::matches`].
    #[must_use]
    pub fn matches(&self, destination: u32, logical: bool) -> bool {
        match self.mode {
            Mode::Disabled => false,
            _ if destination == BROADCAST => true,
            Mode::X2Apic if logical => {
                let own = self.logical_destination;
                destination >> 16 == own >> 16 && destination & own & 0xffff != 0
            }
            Mode::X2Apic => destination == self.id,
            Mode::XApic if destination > 0xff => false,
            Mode::XApic if logical => {
                let own = self.logical_destination >> 24;
                if destination == 0xff {
                    true
                } else if self.is_flat {
                    destination & own != 0
                } else {
                    // Cluster 15 names every cluster.
                    (destination >> 4 == own >> 4 || destination >> 4 == 0xf) && destination & own & 0xf != 0
                }
            }
            Mode::XApic => destination == self.id,
        }
    }
}

/// The indices, in rising order, of the APICs that are to [`accept`](LocalApic::accept) `message`. `sender` is the index of
/// the APIC that sent it, `None` for a device or an I/O APIC.
///
/// Of several candidates for a lowest-priority message the one with the lowest processor priority takes it, the first
/// of them when they are equal.
pub fn targets(apics: impl Iterator<Item = Address>, sender: Option<usize>, message: &InterruptMessage) -> Vec<usize> {
    let mut named: Vec<usize> = Vec::new();
    let mut lowest: Option<(u8, usize)> = None;
    for (index, apic) in apics.enumerate() {
        let is_named = match message.shorthand {
            Shorthand::None => apic.matches(message.destination, message.logical),
            Shorthand::Itself => Some(index) == sender,
            Shorthand::AllIncludingSelf => apic.mode != Mode::Disabled,
            Shorthand::AllExcludingSelf => apic.mode != Mode::Disabled && Some(index) != sender,
        };
        if !is_named {
            continue;
        }
        if message.delivery == DeliveryMode::LowestPriority {
            if apic.is_software_enabled && lowest.is_none_or(|(best, _)| apic.priority < best) {
                lowest = Some((apic.priority, index));
            }
        } else {
            named.push(index);
        }
    }
    named.extend(lowest.map(|(_, index)| index));
    named
}
