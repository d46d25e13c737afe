//! The user-mode network: any frames, on sockets that are none of the host's. What its other ends do is part of the input.

use crate::input::Input;
use devices::network::user::sockets::{Datagrams, Progress, Sockets, Stream};
use devices::network::{NetworkBackend, UserNetwork};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const GATEWAY_MAC: [u8; 6] = [0x52, 0x55, 10, 0, 2, 2];
const GUEST: [u8; 4] = [10, 0, 2, 15];
/// Other ends: the gateway, the name server, strangers, and addresses that nothing has.
const PEERS: [[u8; 4]; 8] = [
    [10, 0, 2, 2],
    [10, 0, 2, 3],
    [192, 0, 2, 1],
    [198, 51, 100, 7],
    [10, 0, 2, 99],
    [127, 0, 0, 1],
    [224, 0, 0, 1],
    [255, 255, 255, 255],
];
const PORTS: [u16; 4] = [80, 53, 67, 7];

/// What the other ends do, in the order in which they are asked: one byte decides one call.
#[derive(Clone, Default)]
struct World(Arc<Mutex<VecDeque<u8>>>);

impl World {
    fn decisions(&self) -> MutexGuard<'_, VecDeque<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next decision; `usual` when none is left.
    fn decide(&self, usual: u8) -> u8 {
        self.decisions().pop_front().unwrap_or(usual)
    }
}

/// An answer's number of bytes, or none yet, or an error.
fn outcome(decision: u8, most: usize) -> io::Result<usize> {
    match decision >> 5 {
        0 => Err(ErrorKind::WouldBlock.into()),
        1 => Err(ErrorKind::ConnectionReset.into()),
        2 => Err(ErrorKind::Interrupted.into()),
        3 => Ok(0),
        4 => Ok(most),
        _ => Ok(most.min(usize::from(decision & 31) * 48 + 1)),
    }
}

struct FakeStream(World);

impl Read for FakeStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        outcome(self.0.decide(0), buffer.len())
    }
}

impl Write for FakeStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        outcome(self.0.decide(0x80), bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for FakeStream {
    fn progress(&self) -> Progress {
        match self.0.decide(0xff) {
            0..=0x1f => Progress::Waiting,
            0x20..=0x3f => Progress::Refused,
            _ => Progress::Connected,
        }
    }

    fn finish(&mut self) {}
}

struct FakeDatagrams {
    world: World,
    last: SocketAddrV4,
}

impl Datagrams for FakeDatagrams {
    fn send_to(&mut self, payload: &[u8], to: SocketAddrV4) -> io::Result<()> {
        self.last = to;
        outcome(self.world.decide(0x80), payload.len()).map(|_| ())
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let decision = self.world.decide(0);
        let from = if decision & 1 == 0 { self.last } else { SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 9), 9) };
        outcome(decision, buffer.len()).map(|length| (length, SocketAddr::V4(from)))
    }
}

impl Sockets for World {
    fn connect(&mut self, _to: SocketAddrV4) -> Option<Box<dyn Stream>> {
        (self.decide(0xff) >= 0x20).then(|| Box::new(FakeStream(self.clone())) as Box<dyn Stream>)
    }

    fn datagrams(&mut self) -> Option<Box<dyn Datagrams>> {
        let last = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9);
        (self.decide(0xff) >= 0x20).then(|| Box::new(FakeDatagrams { world: self.clone(), last }) as Box<dyn Datagrams>)
    }
}

/// The Internet checksum over `parts` (RFC 1071); all but the last have an even length.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let mut sum = 0_u64;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0));
        }
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

fn ethernet(kind: u16, payload: &[u8]) -> Vec<u8> {
    [&GATEWAY_MAC[..], &GUEST_MAC, &kind.to_be_bytes(), payload].concat()
}

/// An IPv4 packet with right checksums, those of TCP, UDP and ICMP included.
fn ipv4(protocol: u8, to: [u8; 4], mut payload: Vec<u8>) -> Vec<u8> {
    let length = payload.len() as u16;
    let pseudo = [&GUEST[..], &to, &[0, protocol], &length.to_be_bytes()].concat();
    let (at, over): (usize, &[u8]) = match protocol {
        6 => (16, &pseudo),
        17 => (6, &pseudo),
        _ => (2, &[]),
    };
    if payload.len() >= at + 2 {
        payload[at..at + 2].fill(0);
        let sum = checksum(&[over, &payload]);
        payload[at..at + 2].copy_from_slice(&sum);
    }
    let mut header = vec![0x45, 0];
    header.extend((20 + length).to_be_bytes());
    header.extend([0, 1, 0, 0, 64, protocol, 0, 0]);
    header.extend(GUEST);
    header.extend(to);
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum);
    ethernet(0x800, &[header, payload].concat())
}

/// The guest's side of one TCP connection, as far as the last segment from the network told it.
#[derive(Clone, Copy, Default)]
struct Side {
    sequence: u32,
    acknowledged: u32,
}

struct Bench {
    network: UserNetwork,
    sides: [Side; 4],
    now: u64,
}

impl Bench {
    /// Lets the network say what it has to say; keeps what belongs to the connections.
    fn poll(&mut self) {
        for _ in 0..1024 {
            let Some(frame) = self.network.poll(self.now) else { return };
            assert!(frame.len() <= 1514, "a frame of {} bytes for the guest", frame.len());
            let Some(tcp) = frame.get(34..54).filter(|_| frame[12..14] == [8, 0] && frame[23] == 6) else { continue };
            let word = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
            let side = &mut self.sides[usize::from(tcp[3] & 3)];
            let length = (frame.len() - 34) as u32 - u32::from(tcp[12] >> 4) * 4;
            side.acknowledged = word(4).wrapping_add(length).wrapping_add(u32::from(tcp[13] & 3 != 0));
            side.sequence = word(8);
        }
        panic!("the network sends without end");
    }

    fn tcp(&mut self, input: &mut Input<'_>, shape: u8) {
        let (which, flags) = (usize::from(shape & 3), input.byte() & 0x3f);
        let to = PEERS[usize::from(input.byte()) % PEERS.len()];
        let port = PORTS[usize::from(shape >> 2 & 3)];
        let mut side = self.sides[which];
        if shape & 0x10 != 0 {
            side.sequence = side.sequence.wrapping_add(input.number(2) as u32).wrapping_sub(0x100);
        }
        if shape & 0x20 != 0 {
            side.acknowledged = side.acknowledged.wrapping_add(input.number(2) as u32).wrapping_sub(0x100);
        }
        let mut segment = (40_000 + which as u16).to_be_bytes().to_vec();
        segment.extend(port.to_be_bytes());
        segment.extend(side.sequence.to_be_bytes());
        segment.extend(side.acknowledged.to_be_bytes());
        let options = if shape & 0x40 != 0 { (input.byte() & 3) as usize * 4 } else { 0 };
        segment.extend([(5 + options as u8 / 4) << 4, flags]);
        segment.extend(input.number(2).to_be_bytes()[6..].iter());
        segment.extend([0; 4]);
        segment.extend(input.bytes(options));
        let length = if shape & 0x80 != 0 { usize::from(input.byte()) * 5 } else { 0 };
        segment.resize(segment.len() + length, shape);
        let frame = ipv4(6, to, segment);
        self.network.send(&frame);
    }
}

/// Any sequence of frames, other ends and passing time.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let world = World::default();
    let network = UserNetwork::with_sockets(Box::new(world.clone()), Some(Ipv4Addr::new(192, 0, 2, 53)));
    let mut bench = Bench { network, sides: [Side::default(); 4], now: 0 };
    while !input.is_empty() {
        let operation = input.byte();
        match operation & 0x0f {
            0..=4 => {
                let shape = input.byte();
                bench.tcp(&mut input, shape);
            }
            5 | 6 => {
                let to = PEERS[usize::from(input.byte()) % PEERS.len()];
                let mut datagram = (5000 + u16::from(input.byte())).to_be_bytes().to_vec();
                datagram.extend(PORTS[usize::from(operation >> 4 & 3)].to_be_bytes());
                let length = usize::from(input.byte());
                let payload = input.bytes(length);
                datagram.extend((8 + payload.len() as u16).to_be_bytes());
                datagram.extend([0, 0]);
                datagram.extend(payload);
                bench.network.send(&ipv4(17, to, datagram));
            }
            7 => bench.network.send(&dhcp(&mut input)),
            8 => {
                let to = PEERS[usize::from(operation >> 4) % PEERS.len()];
                let length = usize::from(input.byte());
                let payload = input.bytes(length);
                bench.network.send(&ipv4(1, to, [&[8, 0, 0, 0, 0, 1, 0, 2][..], payload].concat()));
            }
            9 => {
                let target = PEERS[usize::from(operation >> 4) % PEERS.len()];
                let request = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &GUEST_MAC, &GUEST, &[0; 6], &target].concat();
                bench.network.send(&ethernet(0x806, &request));
            }
            10 => {
                let length = usize::from(input.byte()) * 6;
                bench.network.send(input.bytes(length));
            }
            11 => {
                let kind = [0x800, 0x806][usize::from(operation >> 4 & 1)];
                let length = usize::from(input.byte());
                bench.network.send(&ethernet(kind, input.bytes(length)));
            }
            12 => {
                let count = usize::from(operation >> 4) + 1;
                world.decisions().extend(input.bytes(count));
            }
            13 => {
                bench.now = bench.now.saturating_add(input.number(2) << (operation >> 3 & 0x1e));
                bench.network.waiting_for_host();
            }
            _ => bench.poll(),
        }
        if operation & 0x80 != 0 {
            bench.poll();
        }
    }
}

/// A DHCP message, in order but for its type and options.
fn dhcp(input: &mut Input<'_>) -> Vec<u8> {
    let mut message = vec![0; 240];
    message[..4].copy_from_slice(&[1, 1, 6, 0]);
    message[28..34].copy_from_slice(&GUEST_MAC);
    message[236..240].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
    let kind = input.byte();
    message.extend([53, 1, kind % 9]);
    if kind & 0x80 == 0 {
        message.extend([50, 4]);
        message.extend(GUEST);
    }
    let length = usize::from(input.byte() & 0x3f);
    message.extend(input.bytes(length));
    message.push(255);
    let mut datagram = vec![0, 68, 0, 67];
    datagram.extend((8 + message.len() as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(message);
    ipv4(17, [255; 4], datagram)
}
