//! The network card (VIRTIO 1.2 section 5.1): one pair of queues, no offloads.

use super::device::{Queues, VirtioDevice, read_structure};
use crate::network::NetworkBackend;
use crate::ports::Nanoseconds;
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};
use spec::pci::config::class;
use spec::virtio::device_type;
use spec::virtio::net::{Feature, HEADER_SIZE, QUEUE_RECEIVE, QUEUE_TRANSMIT, config};

const QUEUE_SIZE: u16 = 256;
/// The largest frame: Ethernet header, a VLAN tag and the MTU.
const FRAME_MAX: usize = 14 + 4 + MTU as usize;
/// The largest MTU that the guest may set.
const MTU: u16 = 1500;
/// Bit of the configuration's status: the link is up (section 5.1.4).
const LINK_UP: u16 = 1;
/// Offset of `num_buffers` in the header.
const NUM_BUFFERS: usize = 10;

/// The saved state of a [`Net`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetState {
    /// A frame taken from the backend for which the guest had no buffers.
    pub waiting: Option<Vec<u8>>,
}

/// A virtio network card.
pub struct Net {
    backend: Box<dyn NetworkBackend>,
    mac: [u8; 6],
    buffer: Vec<u8>,
    waiting: Option<Vec<u8>>,
}

impl Net {
    /// A card with address `mac` on `backend`.
    pub fn new(backend: Box<dyn NetworkBackend>, mac: [u8; 6]) -> Self {
        Self { backend, mac, buffer: vec![0; HEADER_SIZE + FRAME_MAX], waiting: None }
    }

    /// Hands `frame` to the driver; false when it has not the buffers for it now.
    fn deliver(queues: &mut Queues<'_>, frame: &[u8]) -> bool {
        let mergeable = queues.features & Feature::MRG_RXBUF != 0;
        let total = HEADER_SIZE + frame.len();
        let mut chains = Vec::new();
        let mut room = 0;
        while room < total as u64 {
            let Some(chain) = queues.pop(QUEUE_RECEIVE) else {
                queues.unpop(QUEUE_RECEIVE, chains.len() as u16);
                return false;
            };
            room += chain.writable.remaining();
            chains.push(chain);
            if !mergeable {
                break;
            }
        }
        if room < total as u64 {
            // Too small a buffer without merging (section 5.1.6.3.1 forbids it): the frame is lost, as on a real wire.
            queues.unpop(QUEUE_RECEIVE, chains.len() as u16);
            return true;
        }
        let mut header = [0; HEADER_SIZE];
        header[NUM_BUFFERS..].copy_from_slice(&(chains.len() as u16).to_le_bytes());
        let mut rest = frame;
        for (index, chain) in chains.iter_mut().enumerate() {
            let mut written = 0;
            if index == 0 {
                let Some(n) = queues.write(chain, &header) else { return true };
                if n < HEADER_SIZE {
                    queues.fail(super::queue::RingError::Layout);
                    return true;
                }
                written += n;
            }
            let Some(n) = queues.write(chain, rest) else { return true };
            rest = &rest[n..];
            queues.push(QUEUE_RECEIVE, chain.head, (written + n) as u64);
        }
        true
    }
}

impl VirtioDevice for Net {
    type State = NetState;

    fn device_type(&self) -> u16 {
        device_type::NET
    }

    fn class(&self) -> u32 {
        class::ETHERNET
    }

    fn features(&self) -> u64 {
        Feature::MAC | Feature::STATUS | Feature::MRG_RXBUF | Feature::MTU
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE, QUEUE_SIZE]
    }

    fn config_read(&self, offset: usize, data: &mut [u8]) {
        let mut bytes = [0; config::LENGTH as usize];
        bytes[..6].copy_from_slice(&self.mac);
        bytes[config::STATUS as usize..][..2].copy_from_slice(&LINK_UP.to_le_bytes());
        bytes[config::MAX_QUEUE_PAIRS as usize..][..2].copy_from_slice(&1u16.to_le_bytes());
        bytes[config::MTU as usize..][..2].copy_from_slice(&MTU.to_le_bytes());
        read_structure(&bytes, offset, data);
    }

    fn notify(&mut self, queue: u16, queues: &mut Queues<'_>) {
        // New receive buffers are found by the next poll; no need to be told of them.
        if queue != QUEUE_TRANSMIT {
            return;
        }
        while let Some(mut chain) = queues.pop(QUEUE_TRANSMIT) {
            let Some(n) = queues.read(&mut chain, &mut self.buffer) else { return };
            // Without offloads the header says nothing. A frame above the MTU is dropped, as by any switch.
            if n > HEADER_SIZE && chain.readable.remaining() == 0 {
                self.backend.send(&self.buffer[HEADER_SIZE..n]);
            }
            queues.push(QUEUE_TRANSMIT, chain.head, 0);
        }
        queues.request_notification(QUEUE_TRANSMIT);
    }

    fn poll_host(&mut self, now: Nanoseconds, queues: &mut Queues<'_>) {
        // No more at once than the guest has buffers, so a backend without end cannot keep us here.
        for _ in 0..QUEUE_SIZE {
            let Some(frame) = self.waiting.take().or_else(|| self.backend.poll(now)) else { return };
            if frame.len() <= FRAME_MAX && !Self::deliver(queues, &frame) {
                self.waiting = Some(frame);
                return;
            }
        }
    }

    fn waiting_for_host(&self) -> bool {
        self.backend.waiting_for_host()
    }

    fn reset(&mut self) {
        self.waiting = None;
    }

    fn save(&self) -> NetState {
        let Self { backend: _, mac: _, buffer: _, waiting } = self;
        NetState { waiting: waiting.clone() }
    }

    fn restore(&mut self, state: &NetState) {
        let NetState { waiting } = state;
        self.waiting = waiting.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{DATA, Driver, fuzz};
    use super::*;
    use crate::device::Device;
    use alloc::collections::VecDeque;
    use alloc::sync::Arc;
    use std::sync::Mutex;

    /// Frames to the guest and frames from it.
    type Cable = Arc<Mutex<(VecDeque<Vec<u8>>, Vec<Vec<u8>>)>>;

    struct Wire(Cable);

    impl NetworkBackend for Wire {
        fn send(&mut self, frame: &[u8]) {
            self.0.lock().unwrap().1.push(frame.to_vec());
        }
        fn poll(&mut self, _now: Nanoseconds) -> Option<Vec<u8>> {
            self.0.lock().unwrap().0.pop_front()
        }
        fn waiting_for_host(&self) -> bool {
            false
        }
    }

    fn card(without: u64) -> (Driver<Net>, Cable) {
        let cable = Cable::default();
        let net = Net::new(Box::new(Wire(cable.clone())), [0x52, 0x54, 0, 0x12, 0x34, 0x56]);
        (Driver::running(net, without), cable)
    }

    #[test]
    fn frames_leave_without_their_header() {
        let (mut driver, cable) = card(0);
        driver.memory.put(DATA + 12, &[7; 60]);
        driver.add(QUEUE_TRANSMIT, &[(DATA, 12), (DATA + 12, 60)], &[]);
        driver.add(QUEUE_TRANSMIT, &[(DATA, 5000)], &[]);
        driver.kick(QUEUE_TRANSMIT);
        assert_eq!(driver.used(QUEUE_TRANSMIT).len(), 2);
        assert_eq!(cable.lock().unwrap().1, [alloc::vec![7; 60]], "and one too long is dropped");
    }

    #[test]
    fn frames_wait_for_buffers_and_are_merged() {
        let (mut driver, cable) = card(0);
        let frame: Vec<u8> = (0..200).collect();
        cable.lock().unwrap().0.push_back(frame.clone());
        driver.add(QUEUE_RECEIVE, &[], &[(DATA, 100)]);
        driver.function.poll_host(0);
        assert_eq!(driver.used(QUEUE_RECEIVE), [], "one buffer is not enough");
        assert!(driver.function.save().device.waiting.is_some());
        driver.add(QUEUE_RECEIVE, &[], &[(DATA + 0x1000, 1000)]);
        driver.function.poll_host(0);
        let used = driver.used(QUEUE_RECEIVE);
        assert_eq!([used[0].1, used[1].1], [100, 112]);
        let header = driver.memory.bytes(DATA, 12);
        assert_eq!(header, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
        let received = [driver.memory.bytes(DATA + 12, 88), driver.memory.bytes(DATA + 0x1000, 112)].concat();
        assert_eq!(received, frame);
    }

    #[test]
    fn without_merging_a_frame_takes_one_buffer_or_is_lost() {
        let (mut driver, cable) = card(Feature::MRG_RXBUF);
        driver.add(QUEUE_RECEIVE, &[], &[(DATA, 112)]);
        cable.lock().unwrap().0.extend([alloc::vec![1; 101], alloc::vec![2; 100]]);
        driver.function.poll_host(0);
        assert_eq!(driver.used(QUEUE_RECEIVE), [(0, 112)]);
        assert_eq!(driver.memory.bytes(DATA + 10, 3), [1, 0, 2]);
    }

    #[test]
    fn the_configuration_tells_address_and_link() {
        let (mut driver, _) = card(0);
        assert_eq!(driver.common(0x2000, 8), 0x0001_5634_1200_5452);
    }

    #[test]
    fn random_rings_do_no_harm() {
        fuzz(
            || {
                let cable = Cable::default();
                cable.lock().unwrap().0.extend((0..200).map(|i| alloc::vec![i as u8; i * 9]));
                Net::new(Box::new(Wire(cable)), [2, 0, 0, 0, 0, 1])
            },
            5,
            2000,
        );
    }
}
