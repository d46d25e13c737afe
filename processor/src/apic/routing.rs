//! Who takes a message: destination matching and lowest-priority arbitration (SDM vol. 3, 11.6.2 and 11.6.2.4).

use super::message::{BROADCAST, InterruptMessage};
use super::{LocalApic, Mode};
use spec::apic::local_apic::{DeliveryMode, Shorthand};

impl LocalApic {
    /// Whether this APIC is named by `destination`, a physical APIC id or, if `logical`, a logical destination.
    #[must_use]
    pub fn matches(&self, destination: u32, logical: bool) -> bool {
        match self.mode() {
            Mode::Disabled => false,
            _ if destination == BROADCAST => true,
            Mode::X2Apic if logical => {
                let own = self.logical_destination();
                destination >> 16 == own >> 16 && destination & own & 0xffff != 0
            }
            Mode::X2Apic => destination == self.x2apic_id(),
            Mode::XApic if destination > 0xff => false,
            Mode::XApic if logical => {
                let own = self.logical_destination() >> 24;
                if destination == 0xff {
                    true
                } else if self.is_flat() {
                    destination & own != 0
                } else {
                    // Cluster 15 names every cluster.
                    (destination >> 4 == own >> 4 || destination >> 4 == 0xf) && destination & own & 0xf != 0
                }
            }
            Mode::XApic => destination == self.xapic_id(),
        }
    }
}

/// The indices, in rising order, of the APICs that are to [`accept`](LocalApic::accept) `message`. `sender` is the index of
/// the APIC that sent it, `None` for a device or an I/O APIC.
///
/// Of several candidates for a lowest-priority message the one with the lowest processor priority takes it, the first
/// of them when they are equal.
pub fn targets<'a>(
    apics: impl Iterator<Item = &'a LocalApic>,
    sender: Option<usize>,
    message: &InterruptMessage,
) -> Vec<usize> {
    let mut named: Vec<usize> = Vec::new();
    let mut lowest: Option<(u8, usize)> = None;
    for (index, apic) in apics.enumerate() {
        let is_named = match message.shorthand {
            Shorthand::None => apic.matches(message.destination, message.logical),
            Shorthand::Itself => Some(index) == sender,
            Shorthand::AllIncludingSelf => apic.mode() != Mode::Disabled,
            Shorthand::AllExcludingSelf => apic.mode() != Mode::Disabled && Some(index) != sender,
        };
        if !is_named {
            continue;
        }
        if message.delivery == DeliveryMode::LowestPriority {
            let priority = apic.processor_priority();
            if apic.is_software_enabled() && lowest.is_none_or(|(best, _)| priority < best) {
                lowest = Some((priority, index));
            }
        } else {
            named.push(index);
        }
    }
    named.extend(lowest.map(|(_, index)| index));
    named
}
