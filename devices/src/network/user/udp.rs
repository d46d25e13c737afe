//! UDP by host sockets: one for each port of the guest, answering only to where the guest has sent.

use super::sockets::Datagrams;
use super::{GATEWAY_MAC, Host, MTU, Stack, frame};
use crate::ports::Nanoseconds;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use std::net::{SocketAddr, SocketAddrV4};

/// Ports of the guest in use at a time.
const FLOWS_MAX: usize = 128;
/// Other ends of one port.
const PEERS_MAX: usize = 32;
/// A port unused for so long is closed.
const IDLE: Nanoseconds = 120_000_000_000;
/// How long an answer is waited for before idle time may be skipped again.
const ANSWER: Nanoseconds = 5_000_000_000;
/// The largest payload that fits a frame without fragments.
const PAYLOAD_MAX: usize = MTU - 28;

struct UdpFlow {
    socket: Box<dyn Datagrams>,
    /// By the host's address, the address that the guest used.
    peers: BTreeMap<SocketAddrV4, SocketAddrV4>,
    last_used: Nanoseconds,
    /// When the guest asked something that has not been answered.
    asked: Option<Nanoseconds>,
}

/// The UDP traffic going on, by the guest's end.
#[derive(Default)]
pub struct UdpFlows {
    flows: BTreeMap<SocketAddrV4, UdpFlow>,
}

impl UdpFlows {
    /// Nothing is going on.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// Sends a datagram of the guest on its way.
    pub fn accept(
        &mut self,
        now: Nanoseconds,
        host: &mut Host,
        source: SocketAddrV4,
        destination: SocketAddrV4,
        payload: &[u8],
    ) {
        let Some(to) = host.map.host(*destination.ip(), destination.port()) else { return };
        if !self.flows.contains_key(&source) {
            if self.flows.len() >= FLOWS_MAX {
                let oldest = self.flows.iter().min_by_key(|(_, flow)| flow.last_used).map(|(key, _)| *key);
                oldest.and_then(|key| self.flows.remove(&key));
            }
            let Some(socket) = host.sockets.datagrams() else { return };
            self.flows.insert(source, UdpFlow { socket, peers: BTreeMap::new(), last_used: now, asked: None });
        }
        let Some(flow) = self.flows.get_mut(&source) else { return };
        if flow.peers.len() >= PEERS_MAX && !flow.peers.contains_key(&to) {
            flow.peers.pop_first();
        }
        flow.peers.insert(to, destination);
        flow.last_used = now;
        // What cannot be sent is lost, as datagrams are.
        if flow.socket.send_to(payload, to).is_ok() {
            flow.asked = Some(now);
        }
    }

    /// Takes what has come for the guest.
    pub fn work(&mut self, stack: &mut Stack) {
        let now = stack.now;
        let mut buffer = [0; 2048];
        for (guest, flow) in &mut self.flows {
            while stack.cable.room_to_guest() {
                let (n, from) = match flow.socket.receive(&mut buffer) {
                    Ok((n, SocketAddr::V4(from))) => (n, from),
                    Ok(_) => continue,
                    Err(error) => {
                        // Nobody listens at the other end: no answer will come.
                        if error.kind() == std::io::ErrorKind::ConnectionRefused {
                            flow.asked = None;
                        }
                        break;
                    }
                };
                let Some(seen_as) = flow.peers.get(&from) else { continue };
                flow.last_used = now;
                flow.asked = None;
                if n <= PAYLOAD_MAX {
                    let frame = frame::udp((GATEWAY_MAC, *seen_as), (stack.guest_mac, *guest), &buffer[..n]);
                    stack.cable.push_to_guest(frame);
                }
            }
        }
        self.flows.retain(|_, flow| now.saturating_sub(flow.last_used) < IDLE);
    }

    /// An answer to the guest may be on its way.
    pub fn waiting_for_host(&self, now: Nanoseconds) -> bool {
        self.flows.values().any(|flow| flow.asked.is_some_and(|at| now.saturating_sub(at) < ANSWER))
    }
}
