//! The virtio devices: any register access, and queues whose descriptors are any bytes.

use crate::input::Input;
use devices::device::Device;
use devices::network::NetworkBackend;
use devices::pci::{InterruptPorts, PciFunction};
use devices::ports::Nanoseconds;
use devices::storage::MemoryStorage;
use devices::testing::{RecordingMsi, RecordingPin, VecDma, VecOutput};
use devices::virtio::blk::Block;
use devices::virtio::console::Console;
use devices::virtio::net::Net;
use devices::virtio::pci::VIRTIO_BAR;
use devices::virtio::rng::Entropy;
use devices::virtio::{VirtioDevice, VirtioPci, VirtioPorts};
use spec::virtio::pci::common;

/// Memory of the machine.
const MEMORY: usize = 0x2_0000;
/// Size of the queues when they are set up in order.
const QUEUE_SIZE: u64 = 16;

/// The first byte chooses the device.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 4 {
        0 => exercise(&mut input, || Block::new(Box::new(MemoryStorage::new(1 << 20)), "disk")),
        1 => exercise(&mut input, || Console::new(Box::new(VecOutput::new()), (80, 25))),
        2 => exercise(&mut input, || Entropy::new(1)),
        _ => exercise(&mut input, || Net::new(Box::new(Echo::default()), [2, 0, 0, 0, 0, 1])),
    }
}

/// A network that sends back what it gets, up to a bound.
#[derive(Default)]
struct Echo {
    frames: Vec<Vec<u8>>,
}

impl NetworkBackend for Echo {
    fn send(&mut self, frame: &[u8]) {
        if self.frames.len() < 32 {
            self.frames.push(frame.to_vec());
        }
    }

    fn poll(&mut self, _now: Nanoseconds) -> Option<Vec<u8>> {
        self.frames.pop()
    }

    fn waiting_for_host(&self) -> bool {
        false
    }
}

/// Where the parts of queue `queue` lie when it is set up in order.
fn areas(queue: u64) -> [u64; 3] {
    let base = 0x1000 + queue * 0x1000;
    [base, base + 0x400, base + 0x800]
}

struct Bench<D: VirtioDevice> {
    function: VirtioPci<D>,
    dma: VecDma,
}

impl<D: VirtioDevice> Bench<D> {
    fn new(device: D, dma: VecDma) -> Self {
        let interrupts = InterruptPorts { pin: Box::new(RecordingPin::new()), msi: Box::new(RecordingMsi::new()) };
        Self { function: VirtioPci::new(device, VirtioPorts { dma: Box::new(dma.clone()), interrupts }), dma }
    }

    fn set(&mut self, register: u64, size: u8, value: u64) {
        self.function.write(VIRTIO_BAR, register, size, value);
    }

    /// Does what a driver does; `features` are those it accepts of the low half.
    fn start(&mut self, features: u64) {
        self.function.config_write(4, 2, 6);
        self.set(common::DEVICE_STATUS, 1, 0);
        self.set(common::DEVICE_STATUS, 1, 3);
        for (half, value) in [(0, features), (1, 3)] {
            self.set(common::DEVICE_FEATURE_SELECT, 4, half);
            let offered = self.function.read(VIRTIO_BAR, common::DEVICE_FEATURE, 4);
            self.set(common::DRIVER_FEATURE_SELECT, 4, half);
            self.set(common::DRIVER_FEATURE, 4, offered & value);
        }
        self.set(common::DEVICE_STATUS, 1, 11);
        for queue in 0..4 {
            self.set(common::QUEUE_SELECT, 2, queue);
            self.set(common::QUEUE_SIZE, 2, QUEUE_SIZE);
            for (register, address) in
                [common::QUEUE_DESC, common::QUEUE_DRIVER, common::QUEUE_DEVICE].into_iter().zip(areas(queue))
            {
                self.set(register, 8, address);
            }
            self.set(common::QUEUE_ENABLE, 2, 1);
        }
        self.set(common::DEVICE_STATUS, 1, 15);
    }

    /// Writes a descriptor table with a chain in order, of which any field may be wrong, and offers it.
    fn offer(&mut self, input: &mut Input<'_>, queue: u64) {
        let [table, available, _] = areas(queue);
        let count = u64::from(input.byte() % 6);
        for index in 0..=count {
            let kind = input.byte();
            let address = match kind >> 6 {
                0..=2 => 0x8000 + input.number(2),
                _ => input.number(8),
            };
            let length = match kind >> 4 & 3 {
                0 => 16,
                1 => input.number(2),
                2 => u64::from(kind & 1) + 512,
                _ => input.number(4),
            };
            let next = if index < count { 1 } else { 0 };
            let flags = if kind & 8 != 0 { input.number(2) } else { next | u64::from(kind & 2) };
            let following = if kind & 4 != 0 { input.number(2) } else { index + 1 };
            let mut descriptor = Vec::with_capacity(16);
            descriptor.extend(address.to_le_bytes());
            descriptor.extend((length as u32).to_le_bytes());
            descriptor.extend((flags as u16).to_le_bytes());
            descriptor.extend((following as u16).to_le_bytes());
            self.dma.put(table + 16 * index, &descriptor);
        }
        let mut bytes = self.dma.bytes(available + 2, 2);
        let index = u16::from_le_bytes([bytes[0], bytes[1]]);
        let head = if input.byte() & 0x80 != 0 { input.number(2) as u16 } else { 0 };
        self.dma.put(available + 4 + 2 * (u64::from(index) % QUEUE_SIZE), &head.to_le_bytes());
        bytes = index.wrapping_add(1).to_le_bytes().to_vec();
        self.dma.put(available + 2, &bytes);
    }

    fn notify(&mut self, queue: u64) {
        self.function.write(VIRTIO_BAR, 0x3000 + 4 * queue, 2, queue);
    }
}

fn exercise<D: VirtioDevice>(input: &mut Input<'_>, build: impl Fn() -> D) {
    let dma = VecDma::new(MEMORY);
    let mut bench = Bench::new(build(), dma.clone());
    let mut now = 0;
    while !input.is_empty() {
        let operation = input.byte();
        let queue = u64::from(operation >> 6);
        match operation & 0x0f {
            0 => bench.start(input.number(4)),
            1..=4 => {
                bench.offer(input, queue);
                bench.notify(queue);
            }
            5 => bench.notify(queue),
            6 => {
                // Request headers and the like.
                let address = 0x8000 + input.number(2);
                dma.put(address, input.bytes(16));
            }
            7 => {
                let address = input.below(MEMORY as u64 - 256);
                let bytes = input.bytes(usize::from(operation >> 4) + 1);
                dma.put(address, bytes);
            }
            8 => {
                now += 1000;
                bench.function.poll_host(now);
            }
            9 | 10 => {
                let (offset, size) = (input.below(0x40), input.access_size());
                let value = input.number(size);
                bench.function.write(VIRTIO_BAR, offset, size, value);
            }
            11 => {
                let (region, size) = (input.byte() % 6, input.access_size());
                let (offset, value) = (input.below(0x5000), input.number(size));
                bench.function.write(region, offset, size, value);
                bench.function.read(region, offset, size);
            }
            12 => {
                let (offset, size) = (input.below(4096) as u16, 1 << (input.byte() % 3));
                bench.function.config_write(offset, size, input.number(size) as u32);
                bench.function.config_read(offset, size);
                bench.function.windows();
            }
            13 => {
                let state = bench.function.save();
                let mut copy = Bench::new(build(), dma.clone());
                copy.function.restore(&state);
                assert_eq!(copy.function.save(), state, "a snapshot does not hold all of the state");
            }
            14 => {
                let (offset, size) = (0x2000 + input.below(0x40), input.access_size());
                bench.function.write(VIRTIO_BAR, offset, size, input.number(2));
                bench.function.read(VIRTIO_BAR, offset, size);
            }
            _ if operation >> 4 == 0 => bench.function.reset(),
            _ => {}
        }
    }
}
