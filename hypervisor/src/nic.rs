//! A driver for a virtio network card (VIRTIO 1.2, 4.1 and 5.1): the machine's own, which the switch between guests leads to. It keeps one
//! frame in each descriptor and looks at the rings when it is told to; a message by MSI-X says when.

use crate::function::{bar, capabilities};
use crate::memory::{PAGE, Page, Pages, RegisterPage};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{Ordering, fence};
use spec::pci::capability::id;
use spec::pci::config as register;
use spec::pci::config::Command;
use spec::pci::message::{MsixControl, msix};
use spec::virtio::net::{Feature as NetFeature, HEADER_SIZE, QUEUE_RECEIVE, QUEUE_TRANSMIT, config};
use spec::virtio::pci::{DEVICE_ID_BASE, NO_VECTOR, VENDOR_ID, capability, capability_type, common};
use spec::virtio::ring::{DESCRIPTOR_SIZE, DescriptorFlags};
use spec::virtio::{DeviceStatus, Feature, device_type};

pub use crate::function::{Function, Message};

/// Descriptors of a queue.
const QUEUE: u16 = 64;
/// Bytes for a frame with its header.
const BUFFER: u64 = 2048;
/// The longest frame: header, a VLAN tag, 1500 bytes.
pub const LONGEST_FRAME: usize = 1518;

/// Words of a queue's page where its areas begin.
mod area {
    pub const AVAILABLE: usize = 256;
    pub const USED: usize = 512;
}

/// Tries to reset a device; each is an access to it.
const PATIENCE: u32 = 100_000;

/// Why there is no card.
pub type Refusal = &'static str;

/// A queue in a page of its own, with a buffer for each descriptor.
struct Queue {
    page: &'static RegisterPage,
    buffers: Vec<&'static Page>,
    /// Where a notification is written, and its value.
    notify: (u64, u16),
    available: u16,
    used: u16,
}

impl Queue {
    fn new(pages: &dyn Pages) -> Option<Self> {
        let buffers = (0..u64::from(QUEUE) * BUFFER / PAGE).map(|_| pages.page()).collect::<Option<_>>()?;
        Some(Self { page: pages.register_page()?, buffers, notify: (0, 0), available: 0, used: 0 })
    }

    fn set(&self, word: usize, value: u32) {
        self.page.0[word].store(value, Ordering::Relaxed);
    }

    fn get(&self, word: usize) -> u32 {
        self.page.0[word].load(Ordering::Relaxed)
    }

    /// The buffer of a descriptor: its page, and the first of its words.
    fn buffer(&self, descriptor: u16) -> (&'static Page, usize) {
        let in_page = (PAGE / BUFFER) as u16;
        let page = self.buffers[usize::from(descriptor / in_page)];
        (page, usize::from(descriptor % in_page) * (BUFFER / 8) as usize)
    }

    /// Gives the card a descriptor with `length` bytes of its buffer.
    fn offer(&mut self, descriptor: u16, length: u32, flags: u16) {
        let (page, first) = self.buffer(descriptor);
        let address = page.address() + 8 * first as u64;
        let at = usize::from(descriptor) * DESCRIPTOR_SIZE as usize / 4;
        for (n, word) in [address as u32, (address >> 32) as u32, length, flags.into()].into_iter().enumerate() {
            self.set(at + n, word);
        }
        let slot = usize::from(self.available % QUEUE);
        let word = area::AVAILABLE + 1 + slot / 2;
        let shift = 16 * (slot % 2);
        self.set(word, self.get(word) & !(0xffff << shift) | u32::from(descriptor) << shift);
        self.available = self.available.wrapping_add(1);
        // The descriptor is there before the index says so.
        fence(Ordering::SeqCst);
        self.set(area::AVAILABLE, u32::from(self.available) << 16);
    }

    /// Takes back a descriptor that the card has used: its number, and the bytes written.
    fn take(&mut self) -> Option<(u16, u32)> {
        if (self.get(area::USED) >> 16) as u16 == self.used {
            return None;
        }
        fence(Ordering::SeqCst);
        let at = area::USED + 1 + 2 * usize::from(self.used % QUEUE);
        self.used = self.used.wrapping_add(1);
        Some((self.get(at) as u16 % QUEUE, self.get(at + 1)))
    }
}

/// The card.
pub struct Nic {
    function: Box<dyn Function>,
    receive: Queue,
    transmit: Queue,
    /// Its address.
    pub mac: [u8; 6],
}

/// Where the card's structures are.
#[derive(Default)]
struct Places {
    common: u64,
    notify: u64,
    multiplier: u32,
    device: u64,
    table: Option<(u16, u64)>,
}

impl Nic {
    /// Whether it is a card that this drives.
    #[must_use]
    pub fn is_one(function: &dyn Function) -> bool {
        let id = u32::from(DEVICE_ID_BASE + device_type::NET) << 16 | u32::from(VENDOR_ID);
        function.config_read(register::VENDOR_ID, 4) == id
    }

    /// Resets the card and sets it up.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn start(function: Box<dyn Function>, pages: &dyn Pages, message: Option<Message>) -> Result<Self, Refusal> {
        let places = Places::find(&*function).ok_or("its registers are not below 4 GiB, or not all there")?;
        let command = function.config_read(register::COMMAND, 2);
        function.config_write(register::COMMAND, 2, command | u32::from(Command::MEMORY | Command::BUS_MASTER));
        let status = places.common + common::DEVICE_STATUS;
        function.write(status, 1, 0);
        if !(0..PATIENCE).any(|_| function.read(status, 1) == 0) {
            return Err("it does not reset");
        }
        let mut set = u32::from(DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER);
        function.write(status, 1, set);
        let wanted = NetFeature::MAC | Feature::VERSION_1;
        for half in 0..2 {
            function.write(places.common + common::DEVICE_FEATURE_SELECT, 4, half);
            let offered = function.read(places.common + common::DEVICE_FEATURE, 4);
            let part = |features: u64| (features >> (32 * half)) as u32;
            if offered & part(wanted) != part(wanted) {
                return Err("it has no address, or is none of version 1");
            }
            // A remapping unit has its pages where they are: what it says of its accesses can be accepted.
            let accepted = part(wanted) | offered & part(Feature::ACCESS_PLATFORM);
            function.write(places.common + common::DRIVER_FEATURE_SELECT, 4, half);
            function.write(places.common + common::DRIVER_FEATURE, 4, accepted);
        }
        set |= u32::from(DeviceStatus::FEATURES_OK);
        function.write(status, 1, set);
        if function.read(status, 1) & u32::from(DeviceStatus::FEATURES_OK) == 0 {
            return Err("it does not take the features");
        }
        let mac = core::array::from_fn(|n| function.read(places.device + config::MAC + n as u64, 1) as u8);
        let queue = || Queue::new(pages).ok_or("there is no memory for its queues");
        let mut nic = Self { receive: queue()?, transmit: queue()?, function, mac };
        nic.set_message(&places, message);
        let vector = if message.is_some() { 0 } else { NO_VECTOR };
        places.set_up(&*nic.function, QUEUE_RECEIVE, &mut nic.receive, vector)?;
        places.set_up(&*nic.function, QUEUE_TRANSMIT, &mut nic.transmit, NO_VECTOR)?;
        (0..QUEUE).for_each(|n| nic.receive.offer(n, BUFFER as u32, DescriptorFlags::WRITE));
        nic.function.write(status, 1, set | u32::from(DeviceStatus::DRIVER_OK));
        nic.notify(QUEUE_RECEIVE);
        Ok(nic)
    }

    /// Programs and enables MSI-X, of which it uses the first message.
    fn set_message(&self, places: &Places, message: Option<Message>) {
        let (Some((capability, table)), Some((address, data))) = (places.table, message) else { return };
        for (n, word) in [address as u32, (address >> 32) as u32, data, 0].into_iter().enumerate() {
            self.function.write(table + 4 * n as u64, 4, word);
        }
        let control = self.function.config_read(capability + 2, 2);
        self.function.config_write(capability + 2, 2, control | u32::from(MsixControl::ENABLE));
    }

    fn notify(&self, queue: u16) {
        let (address, value) = if queue == QUEUE_RECEIVE { self.receive.notify } else { self.transmit.notify };
        // What the card is to see is in memory before it is told.
        fence(Ordering::SeqCst);
        self.function.write(address, 2, value.into());
    }

    /// Sends a frame; false when it is too long, or the card has not sent those before.
    pub fn send(&mut self, frame: &[u8]) -> bool {
        while self.transmit.take().is_some() {}
        let waiting = self.transmit.available.wrapping_sub(self.transmit.used);
        if frame.len() > LONGEST_FRAME || waiting >= QUEUE {
            return false;
        }
        // Descriptors are used in turn, and there are as many as the ring has entries.
        let descriptor = self.transmit.available % QUEUE;
        let (page, first) = self.transmit.buffer(descriptor);
        let mut bytes = [0; BUFFER as usize];
        bytes[HEADER_SIZE..HEADER_SIZE + frame.len()].copy_from_slice(frame);
        let length = HEADER_SIZE + frame.len();
        for (n, word) in bytes[..length.next_multiple_of(8)].chunks_exact(8).enumerate() {
            let word = u64::from_le_bytes(word.try_into().unwrap_or_default());
            page.0[first + n].store(word, Ordering::Relaxed);
        }
        self.transmit.offer(descriptor, length as u32, 0);
        self.notify(QUEUE_TRANSMIT);
        true
    }

    /// The next frame that has come. Its buffer goes back to the card.
    pub fn receive(&mut self) -> Option<Vec<u8>> {
        loop {
            let (descriptor, length) = self.receive.take()?;
            let (page, first) = self.receive.buffer(descriptor);
            let length = (length as usize).min(BUFFER as usize);
            let mut bytes = Vec::with_capacity(length.next_multiple_of(8));
            for word in &page.0[first..first + length.div_ceil(8)] {
                bytes.extend(word.load(Ordering::Relaxed).to_le_bytes());
            }
            self.receive.offer(descriptor, BUFFER as u32, DescriptorFlags::WRITE);
            bytes.truncate(length);
            if length > HEADER_SIZE {
                bytes.drain(..HEADER_SIZE);
                return Some(bytes);
            }
        }
    }
}

impl Places {
    fn find(function: &dyn Function) -> Option<Self> {
        let mut places = Self::default();
        for (at, kind) in capabilities(function) {
            let read = |offset, size| function.config_read(at + offset, size);
            match kind {
                id::VENDOR => {
                    let start = bar(function, read(capability::BAR, 1));
                    let start = start.map(|start| start + u64::from(read(capability::OFFSET, 4)));
                    match read(capability::TYPE, 1) as u8 {
                        capability_type::COMMON => places.common = start?,
                        capability_type::DEVICE => places.device = start?,
                        capability_type::NOTIFY => {
                            places.notify = start?;
                            places.multiplier = read(capability::NOTIFY_MULTIPLIER, 4);
                        }
                        _ => {}
                    }
                }
                id::MSI_X => {
                    let table = read(msix::TABLE, 4);
                    places.table = bar(function, table & 7).map(|start| (at, start + u64::from(table & !7)));
                }
                _ => {}
            }
        }
        (places.common != 0 && places.device != 0 && places.notify != 0).then_some(places)
    }

    fn set_up(&self, function: &dyn Function, number: u16, queue: &mut Queue, vector: u16) -> Result<(), Refusal> {
        let write = |offset, size, value| function.write(self.common + offset, size, value);
        write(common::QUEUE_SELECT, 2, number.into());
        if function.read(self.common + common::QUEUE_SIZE, 2) < QUEUE.into() {
            return Err("its queues are too short");
        }
        write(common::QUEUE_SIZE, 2, QUEUE.into());
        write(common::QUEUE_MSIX_VECTOR, 2, vector.into());
        let page = queue.page.address();
        for (register, word) in
            [(common::QUEUE_DESC, 0), (common::QUEUE_DRIVER, area::AVAILABLE), (common::QUEUE_DEVICE, area::USED)]
        {
            let address = page + 4 * word as u64;
            write(register, 4, address as u32);
            write(register + 4, 4, (address >> 32) as u32);
        }
        let offset = function.read(self.common + common::QUEUE_NOTIFY_OFF, 2);
        queue.notify = (self.notify + u64::from(offset) * u64::from(self.multiplier), number);
        write(common::QUEUE_ENABLE, 2, 1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestPages;
    use devices::device::Device;
    use devices::network::NetworkBackend;
    use devices::pci::{InterruptPorts, PciFunction};
    use devices::ports::{Dma, DmaFault, Msi, Unconnected};
    use devices::virtio::net::Net;
    use devices::virtio::{VirtioPci, VirtioPorts};
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    /// Frames to the card and frames from it.
    type Cable = Arc<Mutex<(VecDeque<Vec<u8>>, Vec<Vec<u8>>)>>;

    struct Wire(Cable);

    impl NetworkBackend for Wire {
        fn send(&mut self, frame: &[u8]) {
            self.0.lock().unwrap().1.push(frame.to_vec());
        }
        fn poll(&mut self, _: u64) -> Option<Vec<u8>> {
            self.0.lock().unwrap().0.pop_front()
        }
        fn waiting_for_host(&self) -> bool {
            false
        }
    }

    /// The pages that the driver has, by which the card reaches memory.
    #[derive(Clone, Default)]
    struct Known(Arc<Mutex<Vec<Words>>>);

    #[derive(Clone, Copy)]
    enum Words {
        Wide(&'static Page),
        Narrow(&'static RegisterPage),
    }

    impl Pages for Known {
        fn page(&self) -> Option<&'static Page> {
            let page = TestPages.page()?;
            self.0.lock().unwrap().push(Words::Wide(page));
            Some(page)
        }
        fn register_page(&self) -> Option<&'static RegisterPage> {
            let page = TestPages.register_page()?;
            self.0.lock().unwrap().push(Words::Narrow(page));
            Some(page)
        }
        fn guest_memory(&self, size: u64) -> Option<Box<dyn crate::memory::GuestMemory>> {
            TestPages.guest_memory(size)
        }
    }

    impl Known {
        /// Does `access` to the byte at `address`, as a number of the word that it is in.
        fn byte(&self, address: u64, access: impl Fn(u8) -> u8) -> Result<u8, DmaFault> {
            let is_in = |base: u64| address >= base && address < base + PAGE;
            for words in &*self.0.lock().unwrap() {
                let offset = (address % PAGE) as usize;
                match words {
                    Words::Wide(page) if is_in(page.address()) => {
                        let word = &page.0[offset / 8];
                        let mut bytes = word.load(Ordering::Relaxed).to_le_bytes();
                        bytes[offset % 8] = access(bytes[offset % 8]);
                        word.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
                        return Ok(bytes[offset % 8]);
                    }
                    Words::Narrow(page) if is_in(page.address()) => {
                        let word = &page.0[offset / 4];
                        let mut bytes = word.load(Ordering::Relaxed).to_le_bytes();
                        bytes[offset % 4] = access(bytes[offset % 4]);
                        word.store(u32::from_le_bytes(bytes), Ordering::Relaxed);
                        return Ok(bytes[offset % 4]);
                    }
                    _ => {}
                }
            }
            Err(DmaFault { address })
        }
    }

    impl Dma for Known {
        fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), DmaFault> {
            for (n, byte) in buffer.iter_mut().enumerate() {
                *byte = self.byte(address + n as u64, |byte| byte)?;
            }
            Ok(())
        }
        fn write(&self, address: u64, data: &[u8]) -> Result<(), DmaFault> {
            data.iter().enumerate().try_for_each(|(n, new)| self.byte(address + n as u64, |_| *new).map(|_| ()))
        }
    }

    type Sent = Arc<Mutex<Vec<Message>>>;

    struct Messages(Sent);

    impl Msi for Messages {
        fn send(&self, address: u64, data: u32) {
            self.0.lock().unwrap().push((address, data));
        }
    }

    type Card = Arc<Mutex<VirtioPci<Net>>>;

    struct OfModel(Card);

    impl OfModel {
        fn at(&self, address: u64) -> (u8, u64) {
            let windows = self.0.lock().unwrap().windows();
            let window = windows.iter().find(|window| address.wrapping_sub(window.base) < window.size).unwrap();
            (window.bar, address - window.base)
        }
    }

    impl Function for OfModel {
        fn config_read(&self, offset: u16, size: u8) -> u32 {
            self.0.lock().unwrap().config_read(offset, size)
        }
        fn config_write(&self, offset: u16, size: u8, value: u32) {
            self.0.lock().unwrap().config_write(offset, size, value);
        }
        fn read(&self, address: u64, size: u8) -> u32 {
            let (bar, offset) = self.at(address);
            self.0.lock().unwrap().read(bar, offset, size) as u32
        }
        fn write(&self, address: u64, size: u8, value: u32) {
            let (bar, offset) = self.at(address);
            self.0.lock().unwrap().write(bar, offset, size, value.into());
        }
    }

    #[test]
    fn frames_go_both_ways_more_often_than_the_rings_are_long() {
        let (cable, pages, sent) = (Cable::default(), Known::default(), Sent::default());
        let interrupts = InterruptPorts { pin: Box::new(Unconnected), msi: Box::new(Messages(Arc::clone(&sent))) };
        let ports = VirtioPorts { dma: Box::new(pages.clone()), interrupts };
        let card: Card =
            Arc::new(Mutex::new(VirtioPci::new(Net::new(Box::new(Wire(cable.clone())), [2, 0, 0, 0, 0, 7]), ports)));
        for (bar, base) in [(1, 0xc000_0000), (4, 0xc001_0000)] {
            card.lock().unwrap().config_write(register::BAR0 + 4 * bar, 4, base);
        }
        let function = OfModel(Arc::clone(&card));
        assert!(Nic::is_one(&function));
        let mut nic = Nic::start(Box::new(function), &pages, Some((0xfee0_0000, 0xf5))).unwrap();
        assert_eq!(nic.mac, [2, 0, 0, 0, 0, 7]);
        for n in 0..200u8 {
            let frame = std::vec![n; 60 + usize::from(n)];
            assert!(nic.send(&frame));
            assert_eq!(cable.lock().unwrap().1.pop(), Some(frame.clone()));
            cable.lock().unwrap().0.push_back(frame.clone());
            card.lock().unwrap().poll_host(0);
            assert_eq!((nic.receive(), nic.receive()), (Some(frame), None));
        }
        assert_eq!(*sent.lock().unwrap(), [(0xfee0_0000, 0xf5); 200]);
        assert!(!nic.send(&[0; 1519]));
    }

    #[test]
    fn a_card_without_registers_is_refused() {
        struct Nothing;
        impl Function for Nothing {
            fn config_read(&self, _: u16, _: u8) -> u32 {
                u32::MAX
            }
            fn config_write(&self, _: u16, _: u8, _: u32) {}
            fn read(&self, _: u64, _: u8) -> u32 {
                0
            }
            fn write(&self, _: u64, _: u8, _: u32) {}
        }
        assert!(!Nic::is_one(&Nothing));
        assert!(Nic::start(Box::new(Nothing), &TestPages, None).is_err());
    }
}
