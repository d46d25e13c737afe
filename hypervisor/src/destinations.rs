//! Whom interrupt messages to a guest's local APICs reach.

use crate::apic;
use crate::host::Host;
use crate::memory::RegisterPage;
use crate::posted::{Mailbox, signal};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use spec::apic::local_apic::{DeliveryMode, Icr};

/// A guest's local APICs, by the numbers of its vCPUs.
pub struct Destinations {
    /// The ways to the vCPUs.
    pub mailboxes: Vec<Arc<Mailbox>>,
    /// The registers' pages.
    pub pages: Vec<&'static RegisterPage>,
    /// The vCPUs whose local APIC is in x2APIC mode, as bits.
    x2apics: AtomicU32,
}

impl Destinations {
    /// Local APICs with these registers, in xAPIC mode.
    #[must_use]
    pub fn new(pages: Vec<&'static RegisterPage>) -> Self {
        let mailboxes = pages.iter().map(|_| Arc::default()).collect();
        Self { mailboxes, pages, x2apics: AtomicU32::new(0) }
    }

    /// A vCPU's local APIC has gone into x2APIC mode, or out of it.
    pub fn set_x2apic(&self, vcpu: usize, on: bool) {
        if on {
            self.x2apics.fetch_or(1 << vcpu, Ordering::SeqCst);
        } else {
            self.x2apics.fetch_and(!(1 << vcpu), Ordering::SeqCst);
        }
    }

    /// Whether a vCPU's local APIC is in x2APIC mode.
    #[must_use]
    pub fn is_x2apic(&self, vcpu: usize) -> bool {
        self.x2apics.load(Ordering::SeqCst) >> vcpu & 1 != 0
    }

    /// The vCPUs with this destination, as x2APICs write it.
    fn meant(&self, destination: u32, logical: bool) -> impl Iterator<Item = usize> {
        (0..self.mailboxes.len()).filter(move |&vcpu| {
            if !logical {
                destination == u32::MAX || destination as usize == vcpu
            } else if self.is_x2apic(vcpu) {
                apic::is_x2apic_logical_destination(vcpu as u32, destination)
            } else {
                apic::is_logical_destination(self.pages[vcpu], destination as u8)
            }
        })
    }

    /// Delivers an interrupt message to the vCPUs with this destination, as x2APICs write it.
    pub fn deliver(&self, host: &dyn Host, destination: u32, logical: bool, data: u32) {
        for vcpu in self.meant(destination, logical) {
            self.send(host, vcpu, data);
            if DeliveryMode::of(data) == DeliveryMode::LowestPriority {
                break;
            }
        }
    }

    /// Delivers a message that a device sends.
    pub fn deliver_message(&self, host: &dyn Host, address: u64, data: u32) {
        let (destination, logical) = parts(address);
        self.deliver(host, destination, logical, data);
    }

    /// The one vCPU that a device's message interrupts; `None` when it is another number, or no interrupt by a vector.
    #[must_use]
    pub fn only(&self, address: u64, data: u32) -> Option<&Mailbox> {
        let (destination, logical) = parts(address);
        let mut meant = self.meant(destination, logical);
        let (first, second) = (meant.next()?, meant.next());
        let is_one = match DeliveryMode::of(data) {
            DeliveryMode::Fixed => second.is_none(),
            DeliveryMode::LowestPriority => true,
            _ => false,
        };
        (is_one && data as u8 >= 16).then(|| &*self.mailboxes[first])
    }

    /// Sends what `data` says to a vCPU.
    pub fn send(&self, host: &dyn Host, vcpu: usize, data: u32) {
        let mailbox = &self.mailboxes[vcpu];
        match DeliveryMode::of(data) {
            // Vectors below 16 are illegal (11.5.3).
            DeliveryMode::Fixed | DeliveryMode::LowestPriority if data as u8 >= 16 => {
                mailbox.interrupt(host, data as u8);
            }
            DeliveryMode::Nmi => mailbox.signal(host, signal::NMI),
            // The level de-assert of old APICs is nothing.
            DeliveryMode::Init if u64::from(data) & Icr::ASSERT != 0 => mailbox.signal(host, signal::INIT),
            DeliveryMode::StartUp => mailbox.signal(host, signal::START_UP | (data & 0xff) << signal::VECTOR_SHIFT),
            _ => {}
        }
    }
}

/// The destination of a message's address, as x2APICs write it, and whether it is a logical one.
fn parts(address: u64) -> (u32, bool) {
    let destination = (address >> 12) as u8;
    (if destination == 0xff { u32::MAX } else { destination.into() }, address & 1 << 2 != 0)
}

#[cfg(test)]
mod tests {
    use crate::testing::{TestHost, destinations};

    #[test]
    fn one_vcpu_is_meant_or_several_are() {
        let all = destinations(3);
        let only = |address, data| all.only(address, data).map(core::ptr::from_ref);
        assert_eq!(only(0xfee0_2000, 0x4061), Some(&raw const *all.mailboxes[2]));
        assert_eq!(only(0xfee0_3000, 0x4061), None, "there is none of that number");
        assert_eq!((only(0xfeef_f000, 0x4061), only(0xfee0_1000, 0x4461)), (None, None), "all, or an NMI");
        // Any of them will do.
        assert_eq!(only(0xfeef_f000, 0x4161), Some(&raw const *all.mailboxes[0]));
        let host = TestHost::default();
        all.deliver_message(&host, 0xfeef_f000, 0x4061);
        assert!(all.mailboxes.iter().all(|mailbox| mailbox.has_mail()));
    }
}
