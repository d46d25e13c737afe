//! What others ask of a vCPU: interrupts, in the form of the processor's posted-interrupt descriptor (SDM Vol. 3C, 30.6), whether the
//! processor reads it itself or we do; INIT, start-up IPIs, NMIs.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use spec::vmx::posted_interrupts::{DESTINATION_SHIFT, NOTIFICATION_VECTOR_SHIFT, OUTSTANDING};

use crate::host::{Host, ProcessorId, vector};

/// The posted-interrupt descriptor.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct PostedInterrupts {
    requests: [AtomicU64; 4],
    control: AtomicU64,
    reserved: [u64; 3],
}

impl PostedInterrupts {
    /// The physical address.
    #[must_use]
    pub fn address(&self) -> u64 {
        core::ptr::from_ref(self) as u64
    }

    /// Requests `vector`. True: nothing was outstanding before, so the vCPU has to be told.
    pub fn post(&self, vector: u8) -> bool {
        self.requests[usize::from(vector >> 6)].fetch_or(1 << (vector & 63), Ordering::SeqCst);
        self.control.fetch_or(OUTSTANDING, Ordering::SeqCst) & OUTSTANDING == 0
    }

    /// Whether something is outstanding.
    #[must_use]
    pub fn outstanding(&self) -> bool {
        self.control.load(Ordering::SeqCst) & OUTSTANDING != 0
    }

    /// Takes every request, as 256 bits.
    #[must_use]
    pub fn take(&self) -> [u64; 4] {
        self.control.fetch_and(!OUTSTANDING, Ordering::SeqCst);
        [0, 1, 2, 3].map(|word| self.requests[word].swap(0, Ordering::SeqCst))
    }

    /// Where notifications go: by `vector` to the local APIC with the id `destination`, in xAPIC mode (bits 47:40).
    pub fn set_notification(&self, vector: u8, destination: u32) {
        let control = u64::from(vector) << NOTIFICATION_VECTOR_SHIFT;
        let control = control | u64::from(destination) << (DESTINATION_SHIFT + 8);
        // Requests may come meanwhile.
        let change = |before| Some(before & OUTSTANDING | control);
        let _ = self.control.fetch_update(Ordering::SeqCst, Ordering::SeqCst, change);
    }
}

/// Signals besides interrupts, as bits.
pub mod signal {
    /// INIT.
    pub const INIT: u32 = 1 << 0;
    /// A start-up IPI, with its vector in bits 15:8.
    pub const START_UP: u32 = 1 << 1;
    /// NMI.
    pub const NMI: u32 = 1 << 2;
    /// Something about the PIC's output, or the guest's end: look.
    pub const LOOK: u32 = 1 << 3;
    /// Position of the start-up vector.
    pub const VECTOR_SHIFT: u32 = 8;
}

/// What others ask of one vCPU.
#[derive(Debug, Default)]
pub struct Mailbox {
    /// Interrupts.
    pub interrupts: PostedInterrupts,
    signals: AtomicU32,
    processor: AtomicU32,
    inside: AtomicBool,
    /// The processor takes posted interrupts while the guest runs.
    posts: AtomicBool,
}

impl Mailbox {
    /// Says on which processor the vCPU lives, and whether that takes posted interrupts by itself.
    pub fn settle(&self, processor: ProcessorId, posts: bool) {
        self.processor.store(processor, Ordering::SeqCst);
        self.posts.store(posts, Ordering::SeqCst);
        self.set_turn(false);
    }

    /// The processor on which the vCPU lives.
    #[must_use]
    pub fn processor(&self) -> ProcessorId {
        self.processor.load(Ordering::SeqCst)
    }

    /// Says that it is the vCPU's turn on its processor, or is not any more. A remapping unit that posts tells a processor whose turn it is by
    /// the vector for posted interrupts; else it calls it as we do, for the vCPU may have to be woken, and another guest that runs there would
    /// take that vector for its own.
    pub fn set_turn(&self, turn: bool) {
        let takes = turn && self.posts.load(Ordering::SeqCst);
        let vector = if takes { vector::NOTIFY } else { vector::KICK };
        self.interrupts.set_notification(vector, self.processor.load(Ordering::SeqCst));
    }

    /// Says that the vCPU is about to enter its guest, or has left it.
    pub fn set_inside(&self, inside: bool) {
        self.inside.store(inside, Ordering::SeqCst);
    }

    /// Requests an interrupt.
    pub fn interrupt(&self, host: &dyn Host, vector: u8) {
        if self.interrupts.post(vector) {
            let processor = self.processor.load(Ordering::SeqCst);
            if processor == host.processor() {
                // It looks before it enters the guest again.
            } else if self.posts.load(Ordering::SeqCst) && self.inside.load(Ordering::SeqCst) {
                host.notify(processor);
            } else {
                host.kick(processor);
            }
        }
    }

    /// Sends signals.
    pub fn signal(&self, host: &dyn Host, signals: u32) {
        self.signals.fetch_or(signals, Ordering::SeqCst);
        let processor = self.processor.load(Ordering::SeqCst);
        if processor != host.processor() {
            host.kick(processor);
        }
    }

    /// Takes the signals.
    #[must_use]
    pub fn take_signals(&self) -> u32 {
        if self.signals.load(Ordering::SeqCst) == 0 { 0 } else { self.signals.swap(0, Ordering::SeqCst) }
    }

    /// Whether there is anything.
    #[must_use]
    pub fn has_mail(&self) -> bool {
        self.signals.load(Ordering::SeqCst) != 0 || self.interrupts.outstanding()
    }

    /// Forgets everything: the guest starts again.
    pub fn empty(&self) {
        let _ = self.take_signals();
        let _ = self.interrupts.take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestHost;

    #[test]
    fn a_vcpu_is_told_once_and_in_the_way_that_its_processor_understands() {
        let (host, mailbox) = (TestHost::default(), Mailbox::default());
        mailbox.settle(3, true);
        mailbox.set_inside(true);
        mailbox.interrupt(&host, 0x41);
        mailbox.interrupt(&host, 0xfe);
        assert_eq!(*host.calls.lock().unwrap(), [(3, true)]);
        assert_eq!(mailbox.interrupts.take(), [0, 2, 0, 1 << 62]);
        mailbox.set_inside(false);
        mailbox.interrupt(&host, 0x41);
        assert_eq!(host.calls.lock().unwrap().last(), Some(&(3, false)));
    }

    #[test]
    fn a_unit_that_posts_wakes_a_vcpu_whose_turn_it_is_not() {
        let mailbox = Mailbox::default();
        let control = || mailbox.interrupts.control.load(Ordering::SeqCst);
        let expected = |vector: u8, processor: u64| {
            u64::from(vector) << NOTIFICATION_VECTOR_SHIFT | processor << (DESTINATION_SHIFT + 8)
        };
        mailbox.settle(3, true);
        assert_eq!(control(), expected(vector::KICK, 3));
        mailbox.set_turn(true);
        assert_eq!(control(), expected(vector::NOTIFY, 3));
        mailbox.set_turn(false);
        assert_eq!(control(), expected(vector::KICK, 3));
        // It goes to a processor that takes no posted interrupts.
        mailbox.settle(1, false);
        mailbox.set_turn(true);
        assert_eq!(control(), expected(vector::KICK, 1));
    }

    #[test]
    fn nobody_is_called_on_the_sender_s_own_processor() {
        let (host, mailbox) = (TestHost::default(), Mailbox::default());
        mailbox.settle(0, true);
        mailbox.interrupt(&host, 0x41);
        mailbox.signal(&host, signal::INIT);
        assert!(host.calls.lock().unwrap().is_empty());
        assert!(mailbox.has_mail());
        assert_eq!(mailbox.take_signals(), signal::INIT);
    }

    #[test]
    fn the_descriptor_has_the_processor_s_layout() {
        let posted = PostedInterrupts::default();
        assert_eq!(core::mem::size_of_val(&posted), 64);
        assert_eq!(posted.address() % 64, 0);
        posted.post(0x41);
        posted.set_notification(vector::KICK, 3);
        posted.set_notification(vector::NOTIFY, 4);
        let control = posted.control.load(Ordering::SeqCst);
        assert_eq!(
            control,
            OUTSTANDING | u64::from(vector::NOTIFY) << NOTIFICATION_VECTOR_SHIFT | 4 << (DESTINATION_SHIFT + 8)
        );
    }
}
