//! The network between guests: a switch that learns behind which port an address is. One port may be the machine's own network card.

use crate::host::{Host, Nanoseconds};
use crate::nic::Nic;
use crate::posted::{Mailbox, signal};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};
use devices::network::NetworkBackend;
use spin::{Mutex, RwLock};

/// Frames that wait for a guest; more are dropped, as on a wire.
const LONGEST_QUEUE: usize = 512;
/// Addresses that are remembered; a guest that makes up more makes others be flooded.
const MOST_ADDRESSES: usize = 256;

/// Frames taken from the machine's card at once.
const AT_ONCE: usize = 64;
/// The port of the machine's card.
const UPLINK: usize = usize::MAX;

type Address = [u8; 6];

/// The side of a port that its guest looks at.
#[derive(Default)]
struct Wire {
    frames: Mutex<VecDeque<Vec<u8>>>,
    /// How many there are, for those who only look.
    waiting: AtomicUsize,
    mailbox: Mutex<Option<Arc<Mailbox>>>,
}

/// The switch.
pub struct Switch {
    host: &'static dyn Host,
    wires: RwLock<Vec<Arc<Wire>>>,
    addresses: RwLock<BTreeMap<Address, usize>>,
    uplink: Mutex<Option<Nic>>,
}

/// A guest's port.
#[derive(Clone)]
pub struct Port {
    switch: Arc<Switch>,
    number: usize,
    wire: Arc<Wire>,
}

impl Switch {
    /// A switch without ports.
    #[must_use]
    pub fn new(host: &'static dyn Host) -> Arc<Self> {
        Arc::new(Self { host, wires: RwLock::default(), addresses: RwLock::default(), uplink: Mutex::new(None) })
    }

    /// A new port.
    #[must_use]
    pub fn port(self: &Arc<Self>) -> Port {
        let mut wires = self.wires.write();
        let wire = Arc::new(Wire::default());
        wires.push(Arc::clone(&wire));
        Port { switch: Arc::clone(self), number: wires.len() - 1, wire }
    }

    /// The MAC address of the card at a port: locally administered.
    #[must_use]
    pub fn address(port: &Port) -> [u8; 6] {
        [0x52, 0x54, 0, 0x56, 0x50, port.number as u8 + 1]
    }

    /// Connects the machine's own network card.
    pub fn connect(&self, nic: Nic) {
        *self.uplink.lock() = Some(nic);
    }

    /// Takes what the machine's card has received.
    pub fn poll(&self) {
        for _ in 0..AT_ONCE {
            let Some(frame) = self.uplink.lock().as_mut().and_then(Nic::receive) else { return };
            self.forward(UPLINK, &frame);
        }
    }

    fn forward(&self, from: usize, frame: &[u8]) {
        let (Some(to), Some(source)) = (address(frame, 0), address(frame, 6)) else { return };
        let addresses = self.addresses.read();
        let known = addresses.get(&to).copied();
        let learned = addresses.get(&source) == Some(&from);
        drop(addresses);
        if !learned && !is_group(source) {
            let mut addresses = self.addresses.write();
            if addresses.len() < MOST_ADDRESSES || addresses.contains_key(&source) {
                addresses.insert(source, from);
            }
        }
        let wires = self.wires.read();
        for (number, wire) in wires.iter().enumerate() {
            if number != from && known.is_none_or(|known| known == number) {
                self.give(wire, frame);
            }
        }
        drop(wires);
        if from != UPLINK
            && known.is_none_or(|known| known == UPLINK)
            && let Some(nic) = &mut *self.uplink.lock()
        {
            // What the card has no room for is lost, as on a wire.
            nic.send(frame);
        }
    }

    fn give(&self, wire: &Wire, frame: &[u8]) {
        let frame = frame.to_vec();
        let mut frames = wire.frames.lock();
        if frames.len() < LONGEST_QUEUE {
            frames.push_back(frame);
        }
        let first = frames.len() == 1;
        wire.waiting.store(frames.len(), Ordering::SeqCst);
        drop(frames);
        if let Some(mailbox) = &*wire.mailbox.lock()
            && first
        {
            mailbox.signal(self.host, signal::LOOK);
        }
    }
}

fn address(frame: &[u8], at: usize) -> Option<Address> {
    frame.get(at..at + 6)?.try_into().ok()
}

fn is_group(address: Address) -> bool {
    address[0] & 1 != 0
}

impl Port {
    /// Says who is called when a frame comes.
    pub fn call(&self, mailbox: Arc<Mailbox>) {
        *self.wire.mailbox.lock() = Some(mailbox);
    }

    /// Whether frames wait.
    #[must_use]
    pub fn has_frames(&self) -> bool {
        self.wire.waiting.load(Ordering::SeqCst) != 0
    }

    /// The port as what a card is connected to.
    #[must_use]
    pub fn backend(&self) -> Box<dyn NetworkBackend> {
        Box::new(self.clone())
    }
}

impl NetworkBackend for Port {
    fn send(&mut self, frame: &[u8]) {
        self.switch.forward(self.number, frame);
    }

    fn poll(&mut self, _: Nanoseconds) -> Option<Vec<u8>> {
        let mut frames = self.wire.frames.lock();
        let frame = frames.pop_front();
        self.wire.waiting.store(frames.len(), Ordering::SeqCst);
        frame
    }

    fn waiting_for_host(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestHost;

    fn switch(ports: usize) -> Vec<Port> {
        let host: &'static TestHost = Box::leak(Box::default());
        let switch = Switch::new(host);
        (0..ports).map(|_| switch.port()).collect()
    }

    fn frame(to: u8, from: u8) -> Vec<u8> {
        let mut frame = std::vec![0; 60];
        (frame[5], frame[11]) = (to, from);
        if to == 0xff {
            frame[..6].fill(0xff);
        }
        frame
    }

    #[test]
    fn what_is_known_goes_to_one_port_and_all_else_to_the_others() {
        let mut ports = switch(3);
        ports[0].send(&frame(0xff, 1));
        assert!(ports[0].poll(0).is_none() && ports[1].poll(0).is_some() && ports[2].poll(0).is_some());
        ports[1].send(&frame(1, 2));
        assert_eq!(ports[0].poll(0), Some(frame(1, 2)));
        assert!(ports[2].poll(0).is_none());
        // To itself, and too short to be one.
        ports[0].send(&frame(1, 1));
        ports[0].send(&[0; 11]);
        assert!(ports.iter_mut().all(|port| port.poll(0).is_none()));
    }

    #[test]
    fn a_guest_that_sends_without_end_takes_neither_memory_nor_the_table() {
        let mut ports = switch(2);
        for n in 0..2000u16 {
            let mut frame = frame(0xff, 0);
            frame[7..9].copy_from_slice(&n.to_le_bytes());
            ports[0].send(&frame);
        }
        assert_eq!(ports[1].wire.frames.lock().len(), LONGEST_QUEUE);
        assert_eq!(ports[0].switch.addresses.read().len(), MOST_ADDRESSES);
    }
}
