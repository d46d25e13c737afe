//! The network seen by a guest, whose TCP/IP stack is the same library's.

use super::*;
use crate::network::NetworkBackend;
use smoltcp::iface::SocketHandle;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::tcp;
use smoltcp::wire::{
    DhcpMessageType, DhcpPacket, DhcpRepr, EthernetFrame, EthernetProtocol, EthernetRepr, Icmpv4Packet, Icmpv4Repr,
    IpProtocol, Ipv4Packet, Ipv4Repr,
};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

const GUEST_MAC: EthernetAddress = EthernetAddress([0x52, 0x54, 0, 0x12, 0x34, 0x56]);

/// A guest with a TCP/IP stack, on the network.
struct Guest {
    network: UserNetwork,
    cable: Cable,
    interface: Interface,
    sockets: SocketSet<'static>,
    now: Nanoseconds,
}

impl Guest {
    fn new() -> Self {
        let mut cable = Cable::default();
        let mut interface =
            Interface::new(Config::new(HardwareAddress::Ethernet(GUEST_MAC)), &mut cable, Instant::ZERO);
        interface.update_ip_addrs(|addresses| addresses.push(IpCidr::new(GUEST.into(), 24)).unwrap());
        interface.routes_mut().add_default_ipv4_route(GATEWAY).unwrap();
        Self { network: UserNetwork::new(), cable, interface, sockets: SocketSet::new(Vec::new()), now: 0 }
    }

    fn connect(&mut self, to: (Ipv4Address, u16), from: u16) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(alloc::vec![0; 65536]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.connect(self.interface.context(), to, from).unwrap();
        self.sockets.add(socket)
    }

    fn tcp(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// One millisecond of the guest's time.
    fn step(&mut self) {
        self.now += 1_000_000;
        let now = Instant::from_micros(i64::try_from(self.now / 1000).unwrap());
        self.interface.poll(now, &mut self.cable, &mut self.sockets);
        // What the guest sends is in `to_guest` of its own cable.
        while let Some(frame) = self.cable.to_guest.pop_front() {
            self.network.send(&frame);
        }
        while let Some(frame) = self.network.poll(self.now) {
            self.cable.to_stack.push_back(frame);
        }
    }

    /// Steps until `done`; real time passes with it, as the host needs some.
    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        for _ in 0..3000 {
            if done(self) {
                return;
            }
            self.step();
            std::thread::sleep(Duration::from_micros(100));
        }
        panic!("{what} did not happen");
    }
}

fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

#[test]
fn a_page_is_fetched_from_the_hosts_loopback() {
    let (listener, port) = listener();
    let body: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
    let expected = body.clone();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 5];
        stream.read_exact(&mut request).unwrap();
        stream.write_all(&body).unwrap();
        request
    });
    let mut guest = Guest::new();
    assert!(!guest.network.waiting_for_host());
    let socket = guest.connect((GATEWAY, port), 40000);
    guest.until("the connection", |guest| guest.tcp(socket).may_send());
    guest.tcp(socket).send_slice(b"GET /").unwrap();
    guest.step();
    assert!(guest.network.waiting_for_host());
    let mut received = Vec::new();
    guest.until("the end of the page", |guest| {
        while guest.tcp(socket).can_recv() {
            guest.tcp(socket).recv(|bytes| (bytes.len(), received.extend_from_slice(bytes))).unwrap();
        }
        !guest.tcp(socket).may_recv()
    });
    assert_eq!(&server.join().unwrap(), b"GET /");
    assert!(received == expected);
    guest.tcp(socket).close();
    guest.until("the connection's end", |guest| guest.tcp(socket).state() == tcp::State::Closed);
    assert!(!guest.network.waiting_for_host());
    guest.now += 11_000_000_000;
    guest.until("the end of TIME-WAIT", |guest| guest.network.tcp.is_empty());
}

#[test]
fn much_is_sent_and_half_closed_connections_still_answer() {
    let (listener, port) = listener();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(&all.len().to_le_bytes()).unwrap();
    });
    let mut guest = Guest::new();
    let socket = guest.connect((GATEWAY, port), 40000);
    guest.until("the connection", |guest| guest.tcp(socket).may_send());
    let mut left = 1_000_000;
    guest.until("sending", |guest| {
        while left > 0 && guest.tcp(socket).can_send() {
            left -= guest.tcp(socket).send_slice(&[7; 4096][..left.min(4096)]).unwrap();
        }
        left == 0
    });
    guest.tcp(socket).close();
    guest.until("the answer", |guest| guest.tcp(socket).recv_queue() == 8);
    let mut answer = [0; 8];
    guest.tcp(socket).recv_slice(&mut answer).unwrap();
    assert_eq!(u64::from_le_bytes(answer), 1_000_000);
    server.join().unwrap();
}

#[test]
fn connections_nobody_takes_are_refused() {
    let (listener, port) = listener();
    drop(listener);
    let mut guest = Guest::new();
    let refused = guest.connect((GATEWAY, port), 40000);
    let nobody = guest.connect((NAME_SERVER, 1), 40001);
    guest.until("the refusals", |guest| {
        guest.tcp(refused).state() == tcp::State::Closed && guest.tcp(nobody).state() == tcp::State::Closed
    });
    assert!(guest.network.tcp.is_empty());
}

#[test]
fn several_connections_do_not_mix() {
    let (listener, port) = listener();
    let server = std::thread::spawn(move || {
        for _ in 0..8 {
            let (mut stream, _) = listener.accept().unwrap();
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            stream.write_all(&[byte[0] + 100]).unwrap();
        }
    });
    let mut guest = Guest::new();
    let sockets: Vec<_> = (0..8u16).map(|i| guest.connect((GATEWAY, port), 40000 + i)).collect();
    guest.until("the connections", |guest| sockets.iter().all(|socket| guest.tcp(*socket).may_send()));
    for (i, socket) in (0u8..).zip(&sockets) {
        guest.tcp(*socket).send_slice(&[i]).unwrap();
    }
    guest.until("the answers", |guest| sockets.iter().all(|socket| guest.tcp(*socket).can_recv()));
    for (i, socket) in (0u8..).zip(&sockets) {
        let mut byte = [0];
        guest.tcp(*socket).recv_slice(&mut byte).unwrap();
        assert_eq!(byte, [i + 100]);
    }
    server.join().unwrap();
}

fn udp_frame(to: (Ipv4Address, u16), payload: &[u8]) -> Vec<u8> {
    frame::udp((GUEST_MAC, SocketAddrV4::new(GUEST, 5000)), (GATEWAY_MAC, SocketAddrV4::new(to.0, to.1)), payload)
}

#[test]
fn datagrams_are_exchanged_with_the_hosts_loopback() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let port = server.local_addr().unwrap().port();
    let mut network = UserNetwork::new();
    network.send(&udp_frame((GATEWAY, port), b"ping"));
    assert!(network.waiting_for_host());
    let mut buffer = [0; 10];
    let (n, from) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..n], b"ping");
    // A stranger may not answer.
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.send_to(b"evil", from).unwrap();
    server.send_to(b"pong", from).unwrap();
    let reply = (0..1000).find_map(|i| {
        std::thread::sleep(Duration::from_micros(100));
        network.poll(i)
    });
    let reply = reply.unwrap();
    let parsed = frame::parse(&reply, GUEST_MAC).unwrap();
    let Contents::Udp { source, destination, payload } = parsed.contents else { panic!("UDP") };
    assert_eq!(source, SocketAddrV4::new(GATEWAY, port));
    assert_eq!(destination, SocketAddrV4::new(GUEST, 5000));
    assert_eq!(payload, b"pong");
    assert!(!network.waiting_for_host());
}

#[test]
fn an_unanswered_question_is_not_waited_for_without_end() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut network = UserNetwork::new();
    network.poll(1);
    network.send(&udp_frame((GATEWAY, server.local_addr().unwrap().port()), b"?"));
    assert!(network.waiting_for_host());
    network.poll(10_000_000_000);
    assert!(!network.waiting_for_host());
    network.poll(200_000_000_000);
    assert!(network.udp.is_empty());
}

/// Sends a DHCP message; gives the answer's type, address, router and frame.
fn dhcp(network: &mut UserNetwork, message_type: DhcpMessageType, wanted: Option<Ipv4Address>) -> Option<Vec<u8>> {
    let repr = DhcpRepr {
        message_type,
        transaction_id: 0x1234,
        secs: 0,
        client_hardware_address: GUEST_MAC,
        client_ip: Ipv4Address::UNSPECIFIED,
        your_ip: Ipv4Address::UNSPECIFIED,
        server_ip: Ipv4Address::UNSPECIFIED,
        router: None,
        subnet_mask: None,
        relay_agent_ip: Ipv4Address::UNSPECIFIED,
        broadcast: false,
        requested_ip: wanted,
        client_identifier: None,
        server_identifier: None,
        parameter_request_list: None,
        dns_servers: None,
        max_size: None,
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    };
    let mut payload = alloc::vec![0; repr.buffer_len()];
    repr.emit(&mut DhcpPacket::new_unchecked(&mut payload[..])).unwrap();
    network.send(&frame::udp(
        (GUEST_MAC, SocketAddrV4::new(Ipv4Address::UNSPECIFIED, 68)),
        (EthernetAddress::BROADCAST, SocketAddrV4::new(Ipv4Address::BROADCAST, 67)),
        &payload,
    ));
    network.poll(0)
}

#[test]
fn dhcp_gives_the_address_gateway_and_name_server() {
    let mut network = UserNetwork::new();
    let check = |frame: Vec<u8>, expected: DhcpMessageType| {
        let parsed = frame::parse(&frame, GUEST_MAC).unwrap();
        let Contents::Udp { destination, payload, .. } = parsed.contents else { panic!("UDP") };
        assert_eq!(destination, SocketAddrV4::new(Ipv4Address::BROADCAST, 68));
        let packet = DhcpPacket::new_checked(payload).unwrap();
        let repr = DhcpRepr::parse(&packet).unwrap();
        assert_eq!((repr.message_type, repr.transaction_id), (expected, 0x1234));
        (repr.your_ip, repr.router, repr.subnet_mask, repr.dns_servers.map(|servers| servers[0]))
    };
    let all = (GUEST, Some(GATEWAY), Some(Ipv4Address::new(255, 255, 255, 0)), Some(NAME_SERVER));
    let offer = dhcp(&mut network, DhcpMessageType::Discover, None).unwrap();
    assert_eq!(check(offer, DhcpMessageType::Offer), all);
    let ack = dhcp(&mut network, DhcpMessageType::Request, Some(GUEST)).unwrap();
    assert_eq!(check(ack, DhcpMessageType::Ack), all);
    let nak = dhcp(&mut network, DhcpMessageType::Request, Some(Ipv4Address::new(10, 0, 2, 16))).unwrap();
    assert_eq!(check(nak, DhcpMessageType::Nak).0, Ipv4Address::UNSPECIFIED);
    assert!(dhcp(&mut network, DhcpMessageType::Release, None).is_none());
}

fn ping(to: Ipv4Address) -> Vec<u8> {
    let checksums = ChecksumCapabilities::default();
    let icmp = Icmpv4Repr::EchoRequest { ident: 1, seq_no: 2, data: b"abc" };
    let ip = Ipv4Repr {
        src_addr: GUEST,
        dst_addr: to,
        next_header: IpProtocol::Icmp,
        payload_len: icmp.buffer_len(),
        hop_limit: 64,
    };
    let ethernet = EthernetRepr { src_addr: GUEST_MAC, dst_addr: GATEWAY_MAC, ethertype: EthernetProtocol::Ipv4 };
    let mut bytes = alloc::vec![0; 34 + icmp.buffer_len()];
    ethernet.emit(&mut EthernetFrame::new_unchecked(&mut bytes[..]));
    ip.emit(&mut Ipv4Packet::new_unchecked(&mut bytes[14..]), &checksums);
    icmp.emit(&mut Icmpv4Packet::new_unchecked(&mut bytes[34..]), &checksums);
    bytes
}

fn arp(from: Ipv4Address, target: Ipv4Address) -> Vec<u8> {
    use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr};
    let repr = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: GUEST_MAC,
        source_protocol_addr: from,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: target,
    };
    let ethernet =
        EthernetRepr { src_addr: GUEST_MAC, dst_addr: EthernetAddress::BROADCAST, ethertype: EthernetProtocol::Arp };
    let mut bytes = alloc::vec![0; 14 + repr.buffer_len()];
    ethernet.emit(&mut EthernetFrame::new_unchecked(&mut bytes[..]));
    repr.emit(&mut ArpPacket::new_unchecked(&mut bytes[14..]));
    bytes
}

#[test]
fn the_gateway_answers_arp_and_ping_and_nobody_else_does() {
    let mut network = UserNetwork::new();
    for target in [GUEST, Ipv4Address::new(10, 0, 2, 77)] {
        network.send(&arp(GUEST, target));
        assert_eq!(network.poll(0), None, "{target}");
    }
    network.send(&arp(GUEST, GATEWAY));
    let reply = network.poll(0).unwrap();
    assert_eq!(&reply[..12], [GUEST_MAC.0, GATEWAY_MAC.0].concat());
    network.send(&ping(GATEWAY));
    let reply = network.poll(0).unwrap();
    assert_eq!(reply[34], 0, "echo reply");
    network.send(&ping(Ipv4Address::new(9, 9, 9, 9)));
    assert_eq!(network.poll(0), None);
}

#[test]
fn addresses_map_to_the_host_or_to_nothing() {
    let hosts = HostMap { resolver: Some(Ipv4Address::new(192, 0, 2, 53)) };
    let host = |a: [u8; 4], port| hosts.host(Ipv4Address::from(a), port).map(SocketAddr::V4);
    assert_eq!(host([10, 0, 2, 2], 80), Some("127.0.0.1:80".parse().unwrap()));
    assert_eq!(host([10, 0, 2, 3], 53), Some("192.0.2.53:53".parse().unwrap()));
    assert_eq!(host([192, 0, 2, 1], 80), Some("192.0.2.1:80".parse().unwrap()));
    for nowhere in [[10, 0, 2, 3], [10, 0, 2, 99], [127, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 255], [0, 0, 0, 0]] {
        assert_eq!(host(nowhere, 80), None);
    }
}

#[test]
fn random_frames_do_no_harm() {
    let mut random = 0x1234_5678_9abc_def1_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let mut network = UserNetwork::new();
    let seeds = [udp_frame((GATEWAY, 67), &[0; 300]), ping(GATEWAY), arp(GUEST, GATEWAY)];
    for i in 0..5000 {
        let mut frame = seeds[next() as usize % seeds.len()].clone();
        for _ in 0..next() % 6 {
            // Not the addresses at the IP layer, so that no socket of the host reaches out.
            let at = next() as usize % frame.len();
            if !(26..36).contains(&at) {
                frame[at] = next() as u8;
            }
        }
        frame.truncate(frame.len() - (next() as usize % 20).min(frame.len()) * usize::from(next() & 3 == 0));
        network.send(&frame);
        network.poll(i);
    }
}
