//! Frames from the guest taken apart as far as the network needs it, and UDP frames to the guest put together.

use alloc::vec::Vec;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpProtocol, Ipv4Address,
    Ipv4Packet, Ipv4Repr, TcpPacket, UdpPacket, UdpRepr,
};
use std::net::SocketAddrV4;

/// A TCP connection as the guest names it: its own end, the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// The guest's end.
    pub guest: SocketAddrV4,
    /// The other end.
    pub remote: SocketAddrV4,
}

/// A frame from the guest.
pub struct Parsed<'a> {
    /// Who sent it.
    pub source_mac: EthernetAddress,
    /// What is in it.
    pub contents: Contents<'a>,
}

/// What the network cares about.
pub enum Contents<'a> {
    /// ARP for `target`.
    Arp { target: Ipv4Address },
    /// ICMP to `destination`.
    Icmp { destination: Ipv4Address },
    /// A TCP segment; `opens`: SYN without ACK.
    Tcp { flow: Flow, opens: bool },
    /// A UDP datagram.
    Udp { source: SocketAddrV4, destination: SocketAddrV4, payload: &'a [u8] },
}

/// Takes a frame apart; `None` for what is damaged, not for us, or not spoken here.
pub fn parse(frame: &[u8], gateway: EthernetAddress) -> Option<Parsed<'_>> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    let source_mac = frame.src_addr();
    let to = frame.dst_addr();
    if !source_mac.is_unicast() || to != gateway && !to.is_broadcast() {
        return None;
    }
    let contents = match frame.ethertype() {
        EthernetProtocol::Arp => {
            let packet = ArpPacket::new_checked(frame.payload()).ok()?;
            let ArpRepr::EthernetIpv4 { target_protocol_addr: target, .. } = ArpRepr::parse(&packet).ok()? else {
                return None;
            };
            Contents::Arp { target }
        }
        EthernetProtocol::Ipv4 => ipv4(frame.payload())?,
        _ => return None,
    };
    Some(Parsed { source_mac, contents })
}

fn ipv4(bytes: &[u8]) -> Option<Contents<'_>> {
    let packet = Ipv4Packet::new_checked(bytes).ok()?;
    let checksums = ChecksumCapabilities::default();
    let ip = Ipv4Repr::parse(&packet, &checksums).ok()?;
    if packet.more_frags() || packet.frag_offset() != 0 {
        return None;
    }
    let payload = packet.payload();
    Some(match ip.next_header {
        IpProtocol::Icmp => Contents::Icmp { destination: ip.dst_addr },
        IpProtocol::Tcp => {
            let tcp = TcpPacket::new_checked(payload).ok()?;
            Contents::Tcp {
                flow: Flow {
                    guest: SocketAddrV4::new(ip.src_addr, tcp.src_port()),
                    remote: SocketAddrV4::new(ip.dst_addr, tcp.dst_port()),
                },
                opens: tcp.syn() && !tcp.ack(),
            }
        }
        IpProtocol::Udp => {
            let udp = UdpPacket::new_checked(payload).ok()?;
            let repr = UdpRepr::parse(&udp, &ip.src_addr.into(), &ip.dst_addr.into(), &checksums).ok()?;
            Contents::Udp {
                source: SocketAddrV4::new(ip.src_addr, repr.src_port),
                destination: SocketAddrV4::new(ip.dst_addr, repr.dst_port),
                payload: udp.payload(),
            }
        }
        _ => return None,
    })
}

/// A UDP datagram as a frame.
pub fn udp(
    (from_mac, from): (EthernetAddress, SocketAddrV4),
    (to_mac, to): (EthernetAddress, SocketAddrV4),
    payload: &[u8],
) -> Vec<u8> {
    let checksums = ChecksumCapabilities::default();
    let udp = UdpRepr { src_port: from.port(), dst_port: to.port() };
    let ip = Ipv4Repr {
        src_addr: *from.ip(),
        dst_addr: *to.ip(),
        next_header: IpProtocol::Udp,
        payload_len: udp.header_len() + payload.len(),
        hop_limit: 64,
    };
    let ethernet = EthernetRepr { src_addr: from_mac, dst_addr: to_mac, ethertype: EthernetProtocol::Ipv4 };
    let headers = ethernet.buffer_len() + ip.buffer_len();
    let mut bytes = alloc::vec![0; headers + udp.header_len() + payload.len()];
    ethernet.emit(&mut EthernetFrame::new_unchecked(&mut bytes[..]));
    ip.emit(&mut Ipv4Packet::new_unchecked(&mut bytes[ethernet.buffer_len()..]), &checksums);
    udp.emit(
        &mut UdpPacket::new_unchecked(&mut bytes[headers..]),
        &ip.src_addr.into(),
        &ip.dst_addr.into(),
        payload.len(),
        |buffer| buffer.copy_from_slice(payload),
        &checksums,
    );
    bytes
}
