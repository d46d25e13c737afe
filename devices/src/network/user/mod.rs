//! The user-mode network: a small IPv4 network made of the host's ordinary sockets, without privileges.
//!
//! | address | is |
//! | --- | --- |
//! | 10.0.2.2 | gateway, DHCP server, and the host's loopback: port n there is 127.0.0.1:n of the host |
//! | 10.0.2.3 | DNS: what arrives goes to the host's resolver |
//! | 10.0.2.15 | the guest, by DHCP |
//! | any other outside 10.0.2.0/24 | itself, through the host's sockets |
//!
//! TCP towards the guest is `smoltcp`'s, listening on every address; each connection is joined to a connection of the host.
//! UDP and DHCP are answered frame by frame. ICMP echo is answered for 10.0.2.2 and 10.0.2.3 only, because without
//! privileges the host cannot ask others. IPv6 and IP fragments are dropped.
//!
//! Guest-facing time is virtual time. What comes from the host comes when the host has it: the machine polls between
//! slices, and what it got could be recorded there.

mod dhcp;
mod frame;
pub mod sockets;
mod tcp;
mod udp;

use super::NetworkBackend;
use crate::ports::Nanoseconds;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use frame::{Contents, Parsed};
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr, Ipv4Address, Ipv4Cidr};
use sockets::{HostSockets, Sockets};
use std::net::{IpAddr, SocketAddrV4};
use tcp::TcpFlows;
use udp::UdpFlows;

/// The gateway, and the host.
pub const GATEWAY: Ipv4Address = Ipv4Address::new(10, 0, 2, 2);
/// The name server.
pub const NAME_SERVER: Ipv4Address = Ipv4Address::new(10, 0, 2, 3);
/// The guest.
pub const GUEST: Ipv4Address = Ipv4Address::new(10, 0, 2, 15);
/// The network.
const NETWORK: Ipv4Cidr = Ipv4Cidr::new(Ipv4Address::new(10, 0, 2, 0), 24);
/// The gateway's hardware address.
const GATEWAY_MAC: EthernetAddress = EthernetAddress([0x52, 0x55, 10, 0, 2, 2]);
const MTU: usize = 1500;
/// Frames that may wait in either direction.
const QUEUE_MAX: usize = 512;

/// The cable between guest and TCP/IP stack, as the stack sees it.
#[derive(Debug, Default)]
struct Cable {
    to_stack: VecDeque<Vec<u8>>,
    to_guest: VecDeque<Vec<u8>>,
}

impl Cable {
    fn room_to_guest(&self) -> bool {
        self.to_guest.len() < QUEUE_MAX
    }

    fn push_to_guest(&mut self, frame: Vec<u8>) {
        if self.room_to_guest() {
            self.to_guest.push_back(frame);
        }
    }
}

struct RxToken(Vec<u8>);
struct TxToken<'a>(&'a mut VecDeque<Vec<u8>>);

impl phy::RxToken for RxToken {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl phy::TxToken for TxToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = alloc::vec![0; len];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}

impl phy::Device for Cable {
    type RxToken<'a> = RxToken;
    type TxToken<'a> = TxToken<'a>;

    fn receive(&mut self, _timestamp: Instant) -> Option<(RxToken, TxToken<'_>)> {
        if !self.room_to_guest() {
            return None;
        }
        let frame = self.to_stack.pop_front()?;
        Some((RxToken(frame), TxToken(&mut self.to_guest)))
    }

    fn transmit(&mut self, _timestamp: Instant) -> Option<TxToken<'_>> {
        self.room_to_guest().then_some(TxToken(&mut self.to_guest))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = MTU + 14;
        capabilities
    }
}

/// The guest-facing stack: what the protocol modules share.
struct Stack {
    cable: Cable,
    interface: Interface,
    sockets: SocketSet<'static>,
    now: Nanoseconds,
    /// The guest's hardware address, once it has sent anything.
    guest_mac: EthernetAddress,
}

impl Stack {
    fn instant(&self) -> Instant {
        Instant::from_micros(i64::try_from(self.now / 1000).unwrap_or(i64::MAX))
    }

    /// Lets the stack take what the guest sent and send what it has.
    fn run(&mut self) {
        let now = self.instant();
        self.interface.poll(now, &mut self.cable, &mut self.sockets);
    }

    fn give(&mut self, frame: &[u8]) {
        if self.cable.to_stack.len() < QUEUE_MAX {
            self.cable.to_stack.push_back(frame.to_vec());
        }
    }
}

/// The addresses of the host that stand behind those the guest uses.
#[derive(Clone, Copy, Debug)]
struct HostMap {
    resolver: Option<Ipv4Address>,
}

impl HostMap {
    /// Where a connection to `address`:`port` goes; `None` where nothing is.
    fn host(self, address: Ipv4Address, port: u16) -> Option<SocketAddrV4> {
        let host = match address {
            GATEWAY => Ipv4Address::LOCALHOST,
            NAME_SERVER if port == 53 => self.resolver?,
            _ if NETWORK.contains_addr(&address) => return None,
            _ if address.is_loopback() || address.is_multicast() || address.is_broadcast() => return None,
            _ if address.is_unspecified() => return None,
            _ => address,
        };
        Some(SocketAddrV4::new(host, port))
    }
}

/// The host: its addresses and its sockets.
struct Host {
    map: HostMap,
    sockets: Box<dyn Sockets>,
}

/// The first IPv4 name server of the host.
fn host_resolver() -> Option<Ipv4Address> {
    let text = std::fs::read_to_string("/etc/resolv.conf").ok()?;
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        match (words.next()?, words.next()?.parse()) {
            ("nameserver", Ok(IpAddr::V4(address))) => Some(address),
            _ => None,
        }
    })
}

/// The user-mode network.
pub struct UserNetwork {
    stack: Stack,
    host: Host,
    tcp: TcpFlows,
    udp: UdpFlows,
}

impl Default for UserNetwork {
    fn default() -> Self {
        Self::new()
    }
}

impl UserNetwork {
    /// A network with nothing going on, made of the host's sockets.
    pub fn new() -> Self {
        Self::with_sockets(Box::new(HostSockets), host_resolver())
    }

    /// A network made of `sockets`, whose name server is at `resolver`.
    pub fn with_sockets(sockets: Box<dyn Sockets>, resolver: Option<Ipv4Address>) -> Self {
        let mut cable = Cable::default();
        // The seed decides the stack's initial sequence numbers: always the same, so that runs can be repeated.
        let config = Config::new(HardwareAddress::Ethernet(GATEWAY_MAC));
        let mut interface = Interface::new(config, &mut cable, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            for address in [GATEWAY, NAME_SERVER] {
                // Two addresses is what the library has room for by default.
                let _ = addresses.push(IpCidr::new(address.into(), NETWORK.prefix_len()));
            }
        });
        interface.set_any_ip(true);
        let stack = Stack {
            cable,
            interface,
            sockets: SocketSet::new(Vec::new()),
            now: 0,
            guest_mac: EthernetAddress::BROADCAST,
        };
        Self {
            stack,
            host: Host { map: HostMap { resolver }, sockets },
            tcp: TcpFlows::default(),
            udp: UdpFlows::default(),
        }
    }
}

impl NetworkBackend for UserNetwork {
    fn send(&mut self, frame: &[u8]) {
        let Some(Parsed { source_mac, contents }) = frame::parse(frame, GATEWAY_MAC) else { return };
        self.stack.guest_mac = source_mac;
        match contents {
            Contents::Arp { target } => {
                // The stack would answer for every address, the guest's own included.
                if target == GATEWAY || target == NAME_SERVER {
                    self.stack.give(frame);
                }
            }
            Contents::Icmp { destination } => {
                if destination == GATEWAY || destination == NAME_SERVER {
                    self.stack.give(frame);
                }
            }
            Contents::Tcp { flow, opens } => self.tcp.accept(&mut self.stack, &mut self.host, flow, opens, frame),
            Contents::Udp { source, destination, payload } => {
                if destination.port() == dhcp::SERVER_PORT {
                    if let Some(reply) = dhcp::answer(payload) {
                        self.stack.cable.push_to_guest(reply);
                    }
                } else {
                    self.udp.accept(self.stack.now, &mut self.host, source, destination, payload);
                }
            }
        }
    }

    fn poll(&mut self, now: Nanoseconds) -> Option<Vec<u8>> {
        if let Some(frame) = self.stack.cable.to_guest.pop_front() {
            return Some(frame);
        }
        self.stack.now = now;
        if !self.stack.cable.to_stack.is_empty() || !self.tcp.is_empty() {
            self.stack.run();
        }
        if self.tcp.work(&mut self.stack) {
            self.stack.run();
        }
        self.udp.work(&mut self.stack);
        self.stack.cable.to_guest.pop_front()
    }

    fn waiting_for_host(&self) -> bool {
        self.tcp.waiting_for_host(&self.stack) || self.udp.waiting_for_host(self.stack.now)
    }
}

#[cfg(test)]
mod tests;
