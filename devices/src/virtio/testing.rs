//! A driver for tests: sets a device up as a guest does, through its BARs, and builds rings by hand.

use super::pci::{MSIX_BAR, VIRTIO_BAR, VirtioPci, VirtioPorts};
use super::{VirtioDevice, queue::RingError};
use crate::device::Device;
use crate::pci::{InterruptPorts, PciFunction};
use crate::ports::Dma;
use crate::testing::{RecordingMsi, RecordingPin, VecDma};
use alloc::boxed::Box;
use alloc::vec::Vec;
use spec::virtio::pci::common;
use spec::virtio::ring::DescriptorFlags;
use spec::virtio::{DeviceStatus, Feature};

/// Where buffers may lie.
pub const DATA: u64 = 0x10_0000;
const MEMORY: usize = 0x40_0000;

/// The addresses of queue `n`: descriptors, available ring, used ring.
fn areas(n: u16) -> (u64, u64, u64) {
    let base = 0x1_0000 * (u64::from(n) + 1);
    (base, base + 0x8000, base + 0xc000)
}

/// A descriptor: address, length, flags, next.
#[derive(Clone, Copy)]
pub struct Descriptor(pub u64, pub u32, pub u16, pub u16);

pub struct Driver<D: VirtioDevice> {
    pub function: VirtioPci<D>,
    pub memory: VecDma,
    pub msi: RecordingMsi,
    pub pin: RecordingPin,
    available: Vec<u16>,
    seen: Vec<u16>,
    next_descriptor: u16,
}

impl<D: VirtioDevice> Driver<D> {
    /// The device as power-on leaves it, with memory decoding and bus mastering on.
    pub fn cold(device: D) -> Self {
        let (memory, msi, pin) = (VecDma::new(MEMORY), RecordingMsi::new(), RecordingPin::new());
        let ports = VirtioPorts {
            dma: Box::new(memory.clone()),
            interrupts: InterruptPorts { pin: Box::new(pin.clone()), msi: Box::new(msi.clone()) },
        };
        let mut function = VirtioPci::new(device, ports);
        function.config_write(4, 2, 6);
        Self { function, memory, msi, pin, available: Vec::new(), seen: Vec::new(), next_descriptor: 0 }
    }

    /// The device with everything it offers accepted but `without`, and all queues enabled, by INTx.
    pub fn running(device: D, without: u64) -> Self {
        let mut driver = Self::cold(device);
        driver.start(without);
        driver
    }

    pub fn common(&mut self, offset: u64, size: u8) -> u64 {
        self.function.read(VIRTIO_BAR, offset, size)
    }

    pub fn set_common(&mut self, offset: u64, size: u8, value: u64) {
        self.function.write(VIRTIO_BAR, offset, size, value);
    }

    pub fn status(&mut self) -> u8 {
        self.common(common::DEVICE_STATUS, 1) as u8
    }

    pub fn needs_reset(&mut self) -> bool {
        self.status() & DeviceStatus::NEEDS_RESET != 0
    }

    pub fn offered(&mut self) -> u64 {
        self.set_common(common::DEVICE_FEATURE_SELECT, 4, 0);
        let low = self.common(common::DEVICE_FEATURE, 4);
        self.set_common(common::DEVICE_FEATURE_SELECT, 4, 1);
        low | self.common(common::DEVICE_FEATURE, 4) << 32
    }

    pub fn accept(&mut self, features: u64) {
        for half in 0..2 {
            self.set_common(common::DRIVER_FEATURE_SELECT, 4, half);
            self.set_common(common::DRIVER_FEATURE, 4, features >> (32 * half) & 0xffff_ffff);
        }
    }

    pub fn start(&mut self, without: u64) {
        self.set_common(common::DEVICE_STATUS, 1, 0);
        self.set_common(common::DEVICE_STATUS, 1, 3);
        let features = self.offered() & !without;
        self.accept(features);
        self.set_common(common::DEVICE_STATUS, 1, 11);
        assert_eq!(self.status(), 11, "the device accepts its own features");
        let queues = self.common(common::NUM_QUEUES, 2) as u16;
        self.available = alloc::vec![0; usize::from(queues)];
        self.seen = alloc::vec![0; usize::from(queues)];
        self.next_descriptor = 0;
        for n in 0..queues {
            let (descriptors, available, used) = areas(n);
            for at in [available, used] {
                self.memory.put(at, &[0; 0x1000]);
            }
            self.set_common(common::QUEUE_SELECT, 2, n.into());
            self.set_common(common::QUEUE_DESC, 8, descriptors);
            self.set_common(common::QUEUE_DRIVER, 4, available);
            self.set_common(common::QUEUE_DEVICE, 4, used);
            self.set_common(common::QUEUE_MSIX_VECTOR, 2, u64::from(n) + 1);
            self.set_common(common::QUEUE_ENABLE, 2, 1);
        }
        self.set_common(common::CONFIG_MSIX_VECTOR, 2, 0);
        self.set_common(common::DEVICE_STATUS, 1, 15);
    }

    /// Turns MSI-X on; vector `n` sends data 0x40 + n.
    pub fn enable_msix(&mut self) {
        let msix = self.msix();
        for n in 0..u64::from(self.function.config_read(msix + 2, 2) & 0x7ff) + 1 {
            self.function.write(MSIX_BAR, n * 16, 8, 0xfee0_0000);
            self.function.write(MSIX_BAR, n * 16 + 8, 8, 0x40 + n);
        }
        self.function.config_write(msix + 2, 2, 0x8000);
    }

    /// Offset of the MSI-X capability.
    pub fn msix(&mut self) -> u16 {
        let mut at = self.function.config_read(0x34, 1) as u16;
        while self.function.config_read(at, 1) != 0x11 {
            at = self.function.config_read(at + 1, 1) as u16;
            assert_ne!(at, 0, "there is an MSI-X capability");
        }
        at
    }

    pub fn queue_size(&mut self, queue: u16) -> u16 {
        self.set_common(common::QUEUE_SELECT, 2, queue.into());
        self.common(common::QUEUE_SIZE, 2) as u16
    }

    pub fn put_descriptor(&self, at: u64, descriptor: Descriptor) {
        let Descriptor(address, length, flags, next) = descriptor;
        self.memory.put(at, &address.to_le_bytes());
        self.memory.put(at + 8, &length.to_le_bytes());
        self.memory.put(at + 12, &flags.to_le_bytes());
        self.memory.put(at + 14, &next.to_le_bytes());
    }

    pub fn set_descriptor(&self, queue: u16, index: u16, descriptor: Descriptor) {
        self.put_descriptor(areas(queue).0 + 16 * u64::from(index), descriptor);
    }

    /// Makes chain `head` available without telling the device.
    pub fn offer(&mut self, queue: u16, head: u16) {
        let size = self.queue_size(queue);
        let at = areas(queue).1;
        let index = self.available[usize::from(queue)];
        self.memory.put(at + 4 + 2 * u64::from(index % size), &head.to_le_bytes());
        self.available[usize::from(queue)] = index.wrapping_add(1);
        self.memory.put(at + 2, &index.wrapping_add(1).to_le_bytes());
    }

    pub fn set_available_index(&self, queue: u16, index: u16) {
        self.memory.put(areas(queue).1 + 2, &index.to_le_bytes());
    }

    /// The driver wants an interrupt for used entry `index`.
    pub fn set_used_event(&mut self, queue: u16, index: u16) {
        let size = self.queue_size(queue);
        self.memory.put(areas(queue).1 + 4 + 2 * u64::from(size), &index.to_le_bytes());
    }

    /// The device wants a notification for available entry of this index.
    pub fn available_event(&mut self, queue: u16) -> u16 {
        let size = self.queue_size(queue);
        let bytes = self.memory.bytes(areas(queue).2 + 4 + 8 * u64::from(size), 2);
        u16::from_le_bytes([bytes[0], bytes[1]])
    }

    pub fn kick(&mut self, queue: u16) {
        self.function.write(VIRTIO_BAR, 0x3000 + 4 * u64::from(queue), 2, queue.into());
    }

    /// Adds a chain of (address, length) buffers, readable ones first; gives its head.
    pub fn add(&mut self, queue: u16, readable: &[(u64, u32)], writable: &[(u64, u32)]) -> u16 {
        let size = self.queue_size(queue);
        let total = readable.len() + writable.len();
        let head = self.next_descriptor % size;
        let buffers = readable.iter().map(|b| (*b, 0)).chain(writable.iter().map(|b| (*b, DescriptorFlags::WRITE)));
        for (i, ((address, length), write)) in buffers.enumerate() {
            let index = self.next_descriptor % size;
            self.next_descriptor = (index + 1) % size;
            let more = if i + 1 < total { DescriptorFlags::NEXT } else { 0 };
            self.set_descriptor(queue, index, Descriptor(address, length, write | more, self.next_descriptor));
        }
        self.offer(queue, head);
        head
    }

    /// The used entries not yet seen: head and length.
    pub fn used(&mut self, queue: u16) -> Vec<(u16, u32)> {
        let size = self.queue_size(queue);
        let at = areas(queue).2;
        let bytes = self.memory.bytes(at + 2, 2);
        let index = u16::from_le_bytes([bytes[0], bytes[1]]);
        let mut entries = Vec::new();
        while self.seen[usize::from(queue)] != index {
            let seen = &mut self.seen[usize::from(queue)];
            let entry = self.memory.bytes(at + 4 + 8 * u64::from(*seen % size), 8);
            *seen = seen.wrapping_add(1);
            entries.push((
                u16::from_le_bytes([entry[0], entry[1]]),
                u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]),
            ));
        }
        entries
    }
}

/// A device that echoes: what it reads of a chain it writes to it, and remembers nothing.
pub struct Echo;

impl VirtioDevice for Echo {
    type State = ();
    fn device_type(&self) -> u16 {
        42
    }
    fn class(&self) -> u32 {
        0xff_00_00
    }
    fn features(&self) -> u64 {
        1
    }
    fn queue_sizes(&self) -> &[u16] {
        &[16, 8]
    }
    fn config_read(&self, offset: usize, data: &mut [u8]) {
        super::device::read_structure(&[1, 2, 3, 4], offset, data);
    }
    fn notify(&mut self, queue: u16, queues: &mut super::Queues<'_>) {
        while let Some(mut chain) = queues.pop(queue) {
            let mut buffer = [0; 64];
            let mut written = 0;
            loop {
                let Some(n) = queues.read(&mut chain, &mut buffer) else { return };
                if n == 0 {
                    break;
                }
                let Some(n) = queues.write(&mut chain, &buffer[..n]) else { return };
                written += n as u64;
            }
            queues.push(queue, chain.head, written);
        }
        queues.request_notification(queue);
    }
    fn reset(&mut self) {}
    fn save(&self) {}
    fn restore(&mut self, (): &()) {}
}

/// Without event index, so that every use interrupts.
pub const NO_EVENT_IDX: u64 = Feature::RING_EVENT_IDX;

#[test]
fn chains_are_echoed_and_interrupt() {
    let mut driver = Driver::running(Echo, NO_EVENT_IDX);
    driver.memory.put(DATA, b"hello, world");
    let head = driver.add(0, &[(DATA, 5), (DATA + 5, 7)], &[(DATA + 0x100, 8), (DATA + 0x200, 100)]);
    driver.kick(0);
    assert_eq!(driver.used(0), [(head, 12)]);
    assert_eq!(driver.memory.bytes(DATA + 0x100, 8), b"hello, w");
    assert_eq!(driver.memory.bytes(DATA + 0x200, 4), b"orld");
    assert!(driver.pin.level());
    assert_eq!(driver.function.read(VIRTIO_BAR, 0x1000, 1), 1, "ISR: queue");
    assert!(!driver.pin.level(), "reading ISR acknowledges");
    assert_eq!(driver.function.read(VIRTIO_BAR, 0x1000, 1), 0);
}

#[test]
fn msix_replaces_the_pin_and_masking_holds_back() {
    let mut driver = Driver::running(Echo, NO_EVENT_IDX);
    driver.enable_msix();
    driver.add(1, &[(DATA, 5)], &[]);
    driver.kick(1);
    assert_eq!(driver.msi.take(), [(0xfee0_0000, 0x42)]);
    assert!(!driver.pin.level());
    driver.function.write(MSIX_BAR, 2 * 16 + 12, 4, 1);
    driver.add(1, &[(DATA, 5)], &[]);
    driver.kick(1);
    assert_eq!(driver.msi.take(), []);
    assert_eq!(driver.function.read(MSIX_BAR, 0x800, 8), 1 << 2, "the pending bit is set");
    driver.function.write(MSIX_BAR, 2 * 16 + 12, 4, 0);
    assert_eq!(driver.msi.take(), [(0xfee0_0000, 0x42)]);
    assert_eq!(driver.function.read(MSIX_BAR, 0x800, 8), 0);
    let msix = driver.msix();
    driver.function.config_write(msix + 2, 2, 0xc000);
    driver.add(0, &[(DATA, 5)], &[]);
    driver.kick(0);
    assert_eq!(driver.msi.take(), [], "function mask");
    driver.function.config_write(msix + 2, 2, 0x8000);
    assert_eq!(driver.msi.take(), [(0xfee0_0000, 0x41)]);
}

#[test]
fn interrupt_disable_keeps_the_pin_low() {
    let mut driver = Driver::running(Echo, NO_EVENT_IDX);
    driver.function.config_write(4, 2, 0x406);
    driver.add(0, &[(DATA, 5)], &[]);
    driver.kick(0);
    assert!(!driver.pin.level());
    assert_ne!(driver.function.config_read(6, 2) & 8, 0, "but the status says it is pending");
    driver.function.config_write(4, 2, 6);
    assert!(driver.pin.level());
}

#[test]
fn features_not_offered_or_without_version_1_are_refused() {
    let mut driver = Driver::cold(Echo);
    for features in [0x3 | Feature::VERSION_1, 0x1] {
        driver.set_common(common::DEVICE_STATUS, 1, 0);
        driver.set_common(common::DEVICE_STATUS, 1, 3);
        driver.accept(features);
        driver.set_common(common::DEVICE_STATUS, 1, 11);
        assert_eq!(driver.status(), 3);
        driver.set_common(common::DEVICE_STATUS, 1, 7);
        assert_eq!(driver.status(), 3, "nor is there operation without features");
    }
}

#[test]
fn writing_zero_to_status_resets() {
    let mut driver = Driver::running(Echo, 0);
    driver.set_common(common::DEVICE_STATUS, 1, 0);
    assert_eq!(driver.status(), 0);
    driver.set_common(common::QUEUE_SELECT, 2, 1);
    assert_eq!(driver.common(common::QUEUE_ENABLE, 2), 0);
    assert_eq!(driver.common(common::QUEUE_SIZE, 2), 8);
    assert_eq!(driver.common(common::QUEUE_MSIX_VECTOR, 2), 0xffff);
    assert_eq!(driver.common(common::QUEUE_DESC, 8), 0);
    driver.set_common(common::QUEUE_SELECT, 2, 2);
    assert_eq!(driver.common(common::QUEUE_SIZE, 2), 0, "a queue that does not exist has size 0");
}

#[test]
fn event_index_spares_interrupts_and_notifications() {
    let mut driver = Driver::running(Echo, 0);
    driver.set_used_event(0, 1);
    driver.add(0, &[(DATA, 1)], &[]);
    driver.kick(0);
    assert!(!driver.pin.level(), "entry 0 is not the one asked for");
    assert_eq!(driver.available_event(0), 1);
    driver.add(0, &[(DATA, 1)], &[]);
    driver.kick(0);
    assert!(driver.pin.level());
    assert_eq!(driver.available_event(0), 2);
}

#[test]
fn the_no_interrupt_flag_is_heeded() {
    let mut driver = Driver::running(Echo, NO_EVENT_IDX);
    driver.memory.put(0x1_8000, &1u16.to_le_bytes());
    driver.add(0, &[(DATA, 1)], &[]);
    driver.kick(0);
    assert_eq!(driver.used(0).len(), 1);
    assert!(!driver.pin.level());
}

#[test]
fn indirect_tables_work_after_direct_descriptors() {
    let mut driver = Driver::running(Echo, NO_EVENT_IDX);
    driver.memory.put(DATA, b"abcdef");
    let table = DATA + 0x1000;
    driver.put_descriptor(table, Descriptor(DATA + 2, 4, DescriptorFlags::NEXT, 2));
    driver.put_descriptor(table + 32, Descriptor(DATA + 0x100, 10, DescriptorFlags::WRITE, 0));
    driver.set_descriptor(0, 0, Descriptor(DATA, 2, DescriptorFlags::NEXT, 5));
    driver.set_descriptor(0, 5, Descriptor(table, 48, DescriptorFlags::INDIRECT, 0));
    driver.offer(0, 0);
    driver.kick(0);
    assert_eq!(driver.used(0), [(0, 6)]);
    assert_eq!(driver.memory.bytes(DATA + 0x100, 6), b"abcdef");
}

/// Makes one bad chain available and expects the error.
fn expect_reset(what: RingError, without: u64, descriptors: &[(u16, Descriptor)], head: u16) {
    let mut driver = Driver::running(Echo, without);
    for (index, descriptor) in descriptors {
        driver.set_descriptor(0, *index, *descriptor);
    }
    driver.offer(0, head);
    driver.kick(0);
    assert!(driver.needs_reset(), "{what:?}");
    assert!(driver.pin.level(), "the driver is told");
    assert_eq!(driver.function.read(VIRTIO_BAR, 0x1000, 1), 2, "ISR: configuration");
    driver.kick(0);
    assert_eq!(driver.used(0), [], "nothing happens any more");
    driver.start(without);
    driver.add(0, &[(DATA, 1)], &[]);
    driver.kick(0);
    assert_eq!(driver.used(0).len(), 1, "until the reset");
}

#[test]
fn malformed_chains_need_a_reset() {
    use DescriptorFlags as F;
    let d = Descriptor;
    expect_reset(RingError::ChainTooLong, 0, &[(0, d(DATA, 1, F::NEXT, 1)), (1, d(DATA, 1, F::NEXT, 0))], 0);
    expect_reset(RingError::DescriptorIndex, 0, &[], 16);
    expect_reset(RingError::DescriptorIndex, 0, &[(0, d(DATA, 1, F::NEXT, 16))], 0);
    expect_reset(RingError::ZeroLength, 0, &[(0, d(DATA, 0, 0, 0))], 0);
    expect_reset(RingError::AddressOverflow, 0, &[(0, d(u64::MAX, 2, 0, 0))], 0);
    expect_reset(RingError::ChainTooLarge, 0, &[(0, d(DATA, u32::MAX, 0, 0))], 0);
    let fault = crate::ports::DmaFault { address: 1 << 40 };
    expect_reset(RingError::Fault(fault), 0, &[(0, d(1 << 40, 2, 0, 0))], 0);
    expect_reset(
        RingError::ReadableAfterWritable,
        0,
        &[(0, d(DATA, 1, F::NEXT | F::WRITE, 1)), (1, d(DATA, 1, 0, 0))],
        0,
    );
    expect_reset(RingError::Indirect, 0, &[(0, d(DATA, 17, F::INDIRECT, 0))], 0);
    expect_reset(RingError::Indirect, 0, &[(0, d(DATA, 16, F::INDIRECT | F::NEXT, 1))], 0);
    expect_reset(RingError::Indirect, Feature::RING_INDIRECT_DESC, &[(0, d(DATA, 16, F::INDIRECT, 0))], 0);
    // The table of queue 0 as its own indirect table: nested.
    expect_reset(RingError::Indirect, 0, &[(0, d(areas(0).0, 16, F::INDIRECT, 0))], 0);
}

#[test]
fn an_available_index_too_far_ahead_needs_a_reset() {
    let mut driver = Driver::running(Echo, 0);
    driver.set_available_index(0, 17);
    driver.kick(0);
    assert!(driver.needs_reset());
}

#[test]
fn rings_outside_memory_need_a_reset() {
    let mut driver = Driver::cold(Echo);
    driver.start(0);
    driver.set_common(common::DEVICE_STATUS, 1, 0);
    driver.set_common(common::DEVICE_STATUS, 1, 3);
    driver.accept(Feature::VERSION_1);
    driver.set_common(common::DEVICE_STATUS, 1, 11);
    driver.set_common(common::QUEUE_SELECT, 2, 0);
    driver.set_common(common::QUEUE_DRIVER, 8, 1 << 40);
    driver.set_common(common::QUEUE_ENABLE, 2, 1);
    driver.set_common(common::DEVICE_STATUS, 1, 15);
    assert!(driver.needs_reset());
}

#[test]
fn without_bus_mastering_nothing_is_read_until_it_is_back() {
    let mut driver = Driver::running(Echo, NO_EVENT_IDX);
    driver.function.config_write(4, 2, 2);
    driver.add(0, &[(DATA, 1)], &[]);
    driver.kick(0);
    assert_eq!(driver.used(0), []);
    driver.function.config_write(4, 2, 6);
    assert_eq!(driver.used(0).len(), 1);
}

#[test]
fn structures_can_be_reached_from_configuration_space() {
    let mut driver = Driver::cold(Echo);
    let mut at = driver.function.config_read(0x34, 1) as u16;
    while driver.function.config_read(at, 1) != 9 || driver.function.config_read(at + 3, 1) != 5 {
        at = driver.function.config_read(at + 1, 1) as u16;
    }
    driver.function.config_write(at + 4, 1, VIRTIO_BAR.into());
    driver.function.config_write(at + 8, 4, common::DEVICE_STATUS as u32);
    driver.function.config_write(at + 12, 4, 1);
    driver.function.config_write(at + 16, 1, 3);
    assert_eq!(driver.status(), 3);
    assert_eq!(driver.function.config_read(at + 16, 1), 3);
    driver.function.config_write(at + 8, 4, 0x2002);
    driver.function.config_write(at + 12, 4, 2);
    assert_eq!(driver.function.config_read(at + 16, 2), 0x0403, "device configuration");
    driver.function.config_write(at + 12, 4, 3);
    driver.function.config_read(at + 16, 4);
}

#[test]
fn function_level_reset_leaves_power_on_state() {
    let mut driver = Driver::running(Echo, 0);
    driver.enable_msix();
    let fresh = Driver::cold(Echo).function.save();
    driver.function.config_write(0x40 + 8, 2, 0x8000);
    driver.function.config_write(4, 2, 6);
    assert_eq!(driver.function.save(), fresh);
}

#[test]
fn a_saved_device_goes_on_where_it_was() {
    let mut driver = Driver::running(Echo, NO_EVENT_IDX);
    driver.add(0, &[(DATA, 1)], &[]);
    driver.kick(0);
    let state = driver.function.save();
    let mut other = Driver::cold(Echo);
    let image = driver.memory.bytes(0, MEMORY);
    other.memory.put(0, &image);
    other.function.restore(&state);
    assert_eq!(other.function.save(), state);
    assert!(other.pin.level());
    driver.function = other.function;
    driver.memory = other.memory;
    driver.used(0);
    driver.add(0, &[(DATA, 1)], &[]);
    driver.kick(0);
    assert_eq!(driver.used(0).len(), 1);
    let mut bytes = [0; 2];
    driver.memory.read(areas(0).2 + 2, &mut bytes).unwrap();
    assert_eq!(bytes, [2, 0]);
}

/// A small generator for seeded tests.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Fills rings with half-plausible garbage, `rounds` times, and pokes at the registers: nothing may panic or hang.
pub fn fuzz<D: VirtioDevice>(make: impl Fn() -> D, seed: u64, rounds: u32) {
    let mut random = Random(seed);
    let mut driver = Driver::running(make(), 0);
    for _ in 0..rounds {
        let queues = driver.common(common::NUM_QUEUES, 2).max(1);
        let queue = random.below(queues) as u16;
        for _ in 0..random.below(12) {
            let address = match random.below(8) {
                0 => random.next(),
                1 => areas(queue).0 + random.below(0x100) * 16,
                _ => DATA + random.below(0x20_0000),
            };
            let length = match random.below(8) {
                0 => random.next() as u32,
                1 => 16 * random.below(300) as u32,
                2 => 1,
                _ => random.below(2000) as u32,
            };
            let flags = [0, 1, 1, 2, 3, 3, 4, random.next() as u16][random.below(8) as usize];
            let next = random.below(10) as u16;
            driver.set_descriptor(queue, random.below(8) as u16, Descriptor(address, length, flags, next));
        }
        for _ in 0..8 {
            let word = if random.below(3) == 0 { random.next() } else { random.below(20) };
            driver.memory.put(DATA + random.below(0x20_0000), &word.to_le_bytes());
        }
        // Plausible request headers where buffers often begin.
        let header = [random.below(15).to_le_bytes(), random.below(3000).to_le_bytes()].concat();
        driver.memory.put(DATA, &header);
        driver.set_descriptor(queue, 0, Descriptor(DATA, 16, (random.next() & 3) as u16, random.below(8) as u16));
        for _ in 0..random.below(4) {
            driver.offer(queue, random.below(9) as u16);
        }
        driver.kick(queue);
        driver.function.poll_host(random.below(1 << 40));
        if random.below(4) == 0 {
            let (offset, size) = (random.below(0x5000), [1, 2, 4, 8][random.below(4) as usize]);
            let region = [1, 4, 4, 0][random.below(4) as usize];
            driver.function.read(region, offset, size);
            let value = random.next();
            driver.function.write(region, offset % 0x60 + offset / 0x1000 * 0x1000, size, value);
            driver.function.config_write(random.below(4096) as u16, 4, value as u32);
            driver.function.config_read(random.below(0x1_0000) as u16, 4);
            driver.function.config_write(4, 2, 6);
        }
        if driver.status() != 15 {
            driver.start(0);
        }
    }
}

#[test]
fn random_rings_do_not_harm_the_transport() {
    fuzz(|| Echo, 1, 3000);
}
