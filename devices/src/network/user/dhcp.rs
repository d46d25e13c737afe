//! The DHCP server (RFC 2131): one address for whoever asks.

use super::frame;
use super::{GATEWAY, GATEWAY_MAC, GUEST, NAME_SERVER, NETWORK};
use alloc::vec::Vec;
use smoltcp::wire::{DhcpMessageType, DhcpPacket, DhcpRepr, Ipv4Address};
use std::net::SocketAddrV4;

/// The server's port.
pub const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
/// One day.
const LEASE_SECONDS: u32 = 86400;

/// The frame that answers the DHCP message `payload`, if it wants an answer.
pub fn answer(payload: &[u8]) -> Option<Vec<u8>> {
    let packet = DhcpPacket::new_checked(payload).ok()?;
    let request = DhcpRepr::parse(&packet).ok()?;
    let wanted = request.requested_ip.or(Some(request.client_ip).filter(|ip| !ip.is_unspecified()));
    let (message_type, address) = match request.message_type {
        DhcpMessageType::Discover => (DhcpMessageType::Offer, GUEST),
        DhcpMessageType::Request if request.server_identifier.is_some_and(|server| server != GATEWAY) => return None,
        DhcpMessageType::Request if wanted == Some(GUEST) => (DhcpMessageType::Ack, GUEST),
        DhcpMessageType::Request => (DhcpMessageType::Nak, Ipv4Address::UNSPECIFIED),
        DhcpMessageType::Inform => (DhcpMessageType::Ack, Ipv4Address::UNSPECIFIED),
        _ => return None,
    };
    let refused = message_type == DhcpMessageType::Nak;
    let lease = (address == GUEST).then_some(LEASE_SECONDS);
    let mut reply = DhcpRepr {
        message_type,
        transaction_id: request.transaction_id,
        secs: 0,
        client_hardware_address: request.client_hardware_address,
        client_ip: request.client_ip,
        your_ip: address,
        server_ip: GATEWAY,
        router: (!refused).then_some(GATEWAY),
        subnet_mask: (!refused).then(|| NETWORK.netmask()),
        relay_agent_ip: Ipv4Address::UNSPECIFIED,
        broadcast: request.broadcast,
        requested_ip: None,
        client_identifier: None,
        server_identifier: Some(GATEWAY),
        parameter_request_list: None,
        dns_servers: (!refused).then(Default::default),
        max_size: None,
        lease_duration: lease,
        renew_duration: lease.map(|seconds| seconds / 2),
        rebind_duration: lease.map(|seconds| seconds / 8 * 7),
        additional_options: &[],
    };
    if let Some(servers) = &mut reply.dns_servers {
        let _ = servers.push(NAME_SERVER);
    }
    let mut bytes = alloc::vec![0; reply.buffer_len()];
    reply.emit(&mut DhcpPacket::new_unchecked(&mut bytes[..])).ok()?;
    // A client without an address hears broadcasts only; one that renews is addressed.
    let to = if request.client_ip.is_unspecified() || refused { Ipv4Address::BROADCAST } else { request.client_ip };
    Some(frame::udp(
        (GATEWAY_MAC, SocketAddrV4::new(GATEWAY, SERVER_PORT)),
        (request.client_hardware_address, SocketAddrV4::new(to, CLIENT_PORT)),
        &bytes,
    ))
}
