//! Where the interrupts of an assigned function go: the guest programs messages as on any machine, the function sends remappable requests, and
//! the entries that these name say what the guest's message means.

use super::Remapping;
use super::unit::Refusal;
use crate::destinations::Destinations;
use crate::nic::Message;
use crate::posted::Mailbox;
use alloc::sync::Arc;
use spec::vtd::interrupts::{RemappingEntry, request};

/// The interrupts of one function.
pub struct Routes {
    remapping: Arc<Remapping>,
    destinations: Arc<Destinations>,
    source: u16,
    /// The first of its entries.
    first: u16,
    /// The vector of the host for the first of them, where they are not posted.
    vector: u8,
    count: u16,
}

impl Routes {
    /// Takes what `count` interrupts of a function need that is the guest `vm`'s, with these vCPUs.
    ///
    /// # Errors
    /// Why that is not possible.
    pub fn new(
        remapping: &Arc<Remapping>,
        destinations: &Arc<Destinations>,
        source: u16,
        vm: usize,
        count: u16,
    ) -> Result<Self, Refusal> {
        let first =
            remapping.unit(source)?.take_entries(count).ok_or("there are not enough interrupt-remapping entries")?;
        let vector = remapping.take_lines(vm, count).ok_or("there are not enough vectors for its interrupts")?;
        let (remapping, destinations) = (Arc::clone(remapping), Arc::clone(destinations));
        Ok(Self { remapping, destinations, source, first, vector, count })
    }

    /// What the function is to send for its interrupt `n`.
    #[must_use]
    pub fn request(&self, n: u16) -> Message {
        (request::address(self.first + n), 0)
    }

    /// The entry for a message of the guest's: posted where one vCPU is meant and the unit posts, whether its processor reads the descriptor or
    /// the hypervisor; else the hypervisor delivers it, on that vCPU's processor if there is one.
    fn entry(&self, n: u16, posts: bool, (address, data): Message) -> RemappingEntry {
        match self.destinations.only(address, data) {
            Some(mailbox) if posts => RemappingEntry::posted(data as u8, mailbox.interrupts.address(), self.source),
            only => {
                let processor = only.map_or(0, Mailbox::processor);
                RemappingEntry::remapped(self.vector + n as u8, processor as u8, self.source)
            }
        }
    }

    /// From now on the function's interrupt `n` is this message of the guest's, or blocked.
    pub fn set(&self, n: u16, message: Option<Message>) {
        if n >= self.count {
            return;
        }
        let Ok(mut unit) = self.remapping.unit(self.source) else { return };
        let posts = unit.posts();
        self.remapping.set_line(self.vector + n as u8, message);
        let entry = message.map_or(RemappingEntry::ABSENT, |message| self.entry(n, posts, message));
        // A unit that does not invalidate any more delivers at worst what this guest wanted before.
        let _ = unit.set_entry(self.first + n, entry);
    }

    /// A vCPU has gone to another processor: what the hypervisor delivers to it comes there from now on.
    pub fn refresh(&self) {
        for n in 0..self.count {
            let message = self.remapping.line(self.vector + n as u8).map(|(_, message)| message);
            if message.is_some() {
                self.set(n, message);
            }
        }
    }

    /// Blocks all.
    pub fn clear(&self) {
        (0..self.count).for_each(|n| self.set(n, None));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{FUNCTION, with};
    use super::super::unit::tests::{CAPABILITY, EXTENDED};
    use super::*;
    use crate::testing::destinations;
    use spec::vtd::capability::Capability;

    const TO_SECOND: Message = (0xfee0_1000, 0x4061);

    fn routes(capability: u64) -> (Arc<Remapping>, Arc<Destinations>, Routes) {
        let (remapping, destinations) = (Arc::new(with(capability, EXTENDED)), destinations(2));
        let routes = Routes::new(&remapping, &destinations, FUNCTION, 7, 2).unwrap();
        (remapping, destinations, routes)
    }

    #[test]
    fn an_interrupt_for_one_vcpu_is_posted_to_it() {
        let (_, destinations, routes) = routes(CAPABILITY);
        assert_eq!((routes.request(0), routes.request(1)), ((0xfee0_0010, 0), (0xfee0_0030, 0)));
        let entry = routes.entry(1, true, TO_SECOND);
        assert!(entry.is_posted());
        assert_eq!((entry.vector(), entry.source(), entry.validation()), (0x61, FUNCTION, 1));
        assert_eq!(entry.descriptor(), destinations.mailboxes[1].interrupts.address());
    }

    #[test]
    fn what_cannot_be_posted_comes_to_the_hypervisor() {
        let (remapping, _, routes) = routes(CAPABILITY);
        // All vCPUs, an NMI, a vector that there is not.
        for message in [(0xfeef_f000, 0x4061), (0xfee0_1000, 0x4400), (0xfee0_1000, 0x4003)] {
            let entry = routes.entry(1, true, message);
            assert!(entry.is_present() && !entry.is_posted(), "{message:x?}");
            assert_eq!(entry.vector(), 0x41);
        }
        routes.set(1, Some(TO_SECOND));
        assert_eq!((remapping.line(0x41), remapping.line(0x40)), (Some((7, TO_SECOND)), None));
        routes.clear();
        assert_eq!(remapping.line(0x41), None);
    }

    #[test]
    fn without_posting_every_interrupt_does() {
        let (_, destinations, routes) = routes(CAPABILITY & !Capability::POSTED_INTERRUPTS);
        destinations.mailboxes[1].settle(3, true);
        let entry = routes.entry(0, false, TO_SECOND);
        assert_eq!((entry.is_posted(), entry.destination() >> 8), (false, 3), "to where the vCPU is");
    }
}
