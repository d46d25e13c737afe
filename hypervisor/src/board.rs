//! A guest's devices: PIC, PIT, RTC, I/O APIC, a 16550 and a PCI bus with virtio functions, the models of the crate `devices`, and the ports
//! that end or reset the guest.

use crate::assignment::Assigned;
use crate::configuration::Disk;
use crate::ept::Ept;
use crate::host::Nanoseconds;
use crate::memory::GuestMemory;
use crate::pci::PciBus;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use devices::device::Device;
use devices::ioapic::IoApic;
use devices::network::NetworkBackend;
use devices::pci::InterruptPorts;
use devices::pic::DualPic;
use devices::pit::Pit;
use devices::ports::{Clock, Dma, DmaFault, Msi, Output, Pin, Unconnected};
use devices::rtc::Rtc;
use devices::serial::Serial;
use devices::storage::MemoryStorage;
use devices::virtio::blk::Block;
use devices::virtio::console::Console;
use devices::virtio::net::Net;
use devices::virtio::{self, VirtioDevice, VirtioPci, VirtioPorts};
use spin::Mutex;

/// Guest-physical address of the I/O APIC.
pub const IO_APIC: u64 = 0xfec0_0000;

/// 2026-01-01T00:00:00Z: what the guests' clocks begin with.
const START_DATE: i64 = 1_767_225_600;

/// What a guest asks of its board as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// To end, with a status (port F4H).
    End(u32),
    /// To start again (ports 64H, 92H, CF9H).
    Reset,
}

/// What came of accesses or time for the rest of the guest.
#[derive(Debug, Default)]
pub struct Effects {
    /// Messages of the I/O APIC: address and data.
    pub messages: Vec<(u64, u32)>,
    /// INTR of the PIC, if it changed.
    pub intr: Option<bool>,
    /// A request.
    pub power: Option<Power>,
    /// Registers of functions assigned to the guest have moved.
    pub moved: bool,
}

const NEVER: u64 = u64::MAX;

/// Keys that wait for the guest; more are lost, as on any keyboard.
const MOST_TYPED: usize = 4096;

/// Columns and rows of a virtio console.
const CONSOLE_SIZE: (u16, u16) = (80, 25);

/// The board's time, and the alarm of one device.
#[derive(Clone, Default)]
struct DeviceClock {
    now: Arc<AtomicU64>,
    deadline: Arc<AtomicU64>,
}

impl DeviceClock {
    fn new(now: &Arc<AtomicU64>) -> Self {
        Self { now: Arc::clone(now), deadline: Arc::new(AtomicU64::new(NEVER)) }
    }

    fn deadline(&self) -> Nanoseconds {
        self.deadline.load(Ordering::Relaxed)
    }

    /// Takes the alarm if it is due.
    fn take(&self, now: Nanoseconds) -> bool {
        let due = self.deadline() <= now;
        if due {
            self.deadline.store(NEVER, Ordering::Relaxed);
        }
        due
    }
}

impl Clock for DeviceClock {
    fn now(&self) -> Nanoseconds {
        self.now.load(Ordering::Relaxed)
    }
    fn set_alarm(&self, deadline: Option<Nanoseconds>) {
        self.deadline.store(deadline.unwrap_or(NEVER), Ordering::Relaxed);
    }
}

type Queue<T> = Arc<Mutex<Vec<T>>>;

/// An interrupt line: changes wait in a queue until the device has returned.
struct Line(u8, Queue<(u8, bool)>);

impl Pin for Line {
    fn set(&self, level: bool) {
        self.1.lock().push((self.0, level));
    }
}

struct Messages(Queue<(u64, u32)>);

impl Msi for Messages {
    fn send(&self, address: u64, data: u32) {
        self.0.lock().push((address, data));
    }
}

/// A guest's memory as its devices see it.
struct Memory(Arc<dyn GuestMemory>);

impl Dma for Memory {
    fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), DmaFault> {
        self.0.read(address, buffer).map_err(|_| DmaFault { address })
    }
    fn write(&self, address: u64, data: &[u8]) -> Result<(), DmaFault> {
        self.0.write(address, data).map_err(|_| DmaFault { address })
    }
}

/// The BARs of a virtio function that are memory.
const VIRTIO_BARS: [u8; 2] = [virtio::pci::MSIX_BAR, virtio::pci::VIRTIO_BAR];

/// The devices.
pub struct Board {
    now: Arc<AtomicU64>,
    pic: DualPic,
    pit: Pit,
    rtc: Rtc,
    io_apic: IoApic,
    serial: Serial,
    pci: PciBus,
    /// What was typed and has not been taken.
    typed: VecDeque<u8>,
    clocks: [DeviceClock; 3],
    lines: Queue<(u8, bool)>,
    messages: Queue<(u64, u32)>,
    intr: bool,
    power: Option<Power>,
}

impl Board {
    /// Devices after power-on; what the serial port sends goes to `console`.
    #[must_use]
    pub fn new(console: Box<dyn Output>) -> Self {
        let now = Arc::new(AtomicU64::new(0));
        let (lines, messages) = (Queue::default(), Queue::default());
        let clocks = [0; 3].map(|_| DeviceClock::new(&now));
        let line = |number| Box::new(Line(number, Arc::clone(&lines)));
        let clock = |number: usize| Box::new(clocks[number].clone());
        Self {
            pic: DualPic::new(Box::new(Unconnected)),
            pit: Pit::new(line(0), clock(0)),
            rtc: Rtc::new(START_DATE, line(8), clock(1)),
            io_apic: IoApic::new(Box::new(Messages(Arc::clone(&messages)))),
            serial: Serial::new(line(4), console, clock(2)),
            pci: PciBus::default(),
            typed: VecDeque::new(),
            now,
            clocks,
            lines,
            messages,
            intr: false,
            power: None,
        }
    }

    fn add(&mut self, memory: &Arc<dyn GuestMemory>, device: impl VirtioDevice + 'static) {
        let msi = Box::new(Messages(Arc::clone(&self.messages)));
        let interrupts = InterruptPorts { pin: Box::new(Unconnected), msi };
        let ports = VirtioPorts { dma: Box::new(Memory(Arc::clone(memory))), interrupts };
        self.pci.add(Box::new(VirtioPci::new(device, ports)), &VIRTIO_BARS);
    }

    /// Adds a network card with the address `mac` on `backend`.
    pub fn add_network(&mut self, memory: &Arc<dyn GuestMemory>, backend: Box<dyn NetworkBackend>, mac: [u8; 6]) {
        self.add(memory, Net::new(backend, mac));
    }

    /// Adds a disk.
    pub fn add_disk(&mut self, memory: &Arc<dyn GuestMemory>, disk: &Disk, serial: &str) {
        let storage = match disk {
            Disk::Image(contents) => MemoryStorage::with_contents(contents),
            Disk::Empty(size) => MemoryStorage::new(u64::from(*size) << 20),
        };
        self.add(memory, Block::new(Box::new(storage), serial));
    }

    /// Adds a virtio console, which then gets what is typed.
    pub fn add_console(&mut self, memory: &Arc<dyn GuestMemory>, output: Box<dyn Output>) {
        self.add(memory, Console::new(output, CONSOLE_SIZE));
    }

    /// Adds a function of the machine's.
    ///
    /// # Errors
    /// Why it cannot be.
    pub fn add_assigned(&mut self, function: Assigned) -> Result<(), String> {
        self.pci.add_assigned(function)
    }

    /// Takes the assigned functions: see [`PciBus::take_functions`].
    ///
    /// # Errors
    /// Why that is not possible.
    pub fn take_functions(&mut self, ept: &mut Ept) -> Result<(), String> {
        self.pci.take_functions(ept)
    }

    /// See [`PciBus::functions_ready_at`].
    #[must_use]
    pub fn functions_ready_at(&mut self) -> Option<Nanoseconds> {
        self.pci.functions_ready_at()
    }

    /// See [`PciBus::resume_functions`].
    pub fn resume_functions(&mut self) {
        self.pci.resume_functions();
    }

    /// A vCPU has gone to another processor, to which interrupts of functions are to follow.
    pub fn vcpu_moved(&mut self) {
        self.pci.vcpu_moved();
    }

    /// Releases the assigned functions.
    pub fn release_functions(&mut self) {
        self.pci.release_functions();
    }

    /// See [`PciBus::registers`].
    pub fn registers(&mut self, address: u64) -> Option<u64> {
        self.pci.registers(address)
    }

    /// Takes what was typed for the guest.
    pub fn type_bytes(&mut self, bytes: &[u8], now: Nanoseconds) {
        self.now.store(now, Ordering::Relaxed);
        let room = MOST_TYPED - self.typed.len();
        self.typed.extend(&bytes[..bytes.len().min(room)]);
        self.feed();
    }

    /// Gives what was typed to the console as far as that takes it.
    fn feed(&mut self) {
        if self.typed.is_empty() {
            return;
        }
        let bytes = self.typed.make_contiguous();
        let taken = if self.pci.has_console() { self.pci.receive(bytes) } else { self.serial.receive(bytes) };
        self.typed.drain(..taken);
    }

    /// Takes what the network has for the guest.
    pub fn poll(&mut self, now: Nanoseconds) {
        self.now.store(now, Ordering::Relaxed);
        self.pci.poll(now);
    }

    /// Power-on reset of every device.
    pub fn reset(&mut self) {
        let devices: [&mut dyn Device; 5] =
            [&mut self.pic, &mut self.pit, &mut self.rtc, &mut self.io_apic, &mut self.serial];
        devices.into_iter().for_each(Device::reset);
        self.pci.reset();
        self.power = None;
    }

    /// The device at `port`, with the region and the offset in it.
    fn at(&mut self, port: u16) -> Option<(&mut dyn Device, u8, u64)> {
        Some(match port {
            0x20..=0x21 => (&mut self.pic, 0, u64::from(port - 0x20)),
            0xa0..=0xa1 => (&mut self.pic, 1, u64::from(port - 0xa0)),
            0x4d0..=0x4d1 => (&mut self.pic, 2, u64::from(port - 0x4d0)),
            0x40..=0x43 => (&mut self.pit, 0, u64::from(port - 0x40)),
            0x61 => (&mut self.pit, 1, 0),
            0x70..=0x73 => (&mut self.rtc, 0, u64::from(port - 0x70)),
            0x3f8..=0x3ff => (&mut self.serial, 0, u64::from(port - 0x3f8)),
            _ => return None,
        })
    }

    /// IN. A port without a device reads all ones.
    pub fn input(&mut self, port: u16, size: u8, now: Nanoseconds) -> u64 {
        self.now.store(now, Ordering::Relaxed);
        match self.at(port) {
            Some((device, region, offset)) => {
                let value = device.read(region, offset, size);
                // There may be room for more of what was typed.
                self.feed();
                value
            }
            None if (0xcf8..=0xcff).contains(&port) => self.pci.read(port, size).into(),
            None => u64::MAX,
        }
    }

    /// OUT.
    pub fn output(&mut self, port: u16, size: u8, value: u64, now: Nanoseconds) {
        self.now.store(now, Ordering::Relaxed);
        match (port, self.at(port)) {
            (_, Some((device, region, offset))) => {
                device.write(region, offset, size, value);
                self.feed();
            }
            (0xf4, None) => self.power = Some(Power::End(value as u32)),
            (0x64, None) if value as u8 == 0xfe => self.power = Some(Power::Reset),
            (0x92, None) if value & 1 != 0 => self.power = Some(Power::Reset),
            (0xcf9, None) if size == 1 && value & 4 != 0 => self.power = Some(Power::Reset),
            (0xcf8..=0xcff, None) => self.pci.write(port, size, value as u32),
            _ => {}
        }
    }

    /// Reads the I/O APIC.
    pub fn read_io_apic(&mut self, offset: u64, size: u8) -> u64 {
        self.io_apic.read(0, offset, size)
    }

    /// Writes the I/O APIC.
    pub fn write_io_apic(&mut self, offset: u64, size: u8, value: u64) {
        self.io_apic.write(0, offset, size, value);
    }

    /// Reads the memory of a PCI function; all ones where there is none.
    pub fn read_memory(&mut self, address: u64, size: u8, now: Nanoseconds) -> u64 {
        self.now.store(now, Ordering::Relaxed);
        self.pci.read_memory(address, size).unwrap_or(u64::MAX)
    }

    /// Writes the memory of a PCI function.
    pub fn write_memory(&mut self, address: u64, size: u8, value: u64, now: Nanoseconds) {
        self.now.store(now, Ordering::Relaxed);
        self.pci.write_memory(address, size, value);
        self.feed();
    }

    /// A local APIC has ended the interrupt `vector`.
    pub fn end_of_interrupt(&mut self, vector: u8) {
        self.io_apic.eoi(vector);
    }

    /// The vectors whose end the I/O APIC waits for, as 256 bits.
    #[must_use]
    pub fn level_vectors(&self) -> [u64; 4] {
        let mut set = [0; 4];
        for vector in (0..=255u8).filter(|vector| self.io_apic.is_level_vector(*vector)) {
            set[usize::from(vector >> 6)] |= 1 << (vector & 63);
        }
        set
    }

    /// INTR of the PIC.
    #[must_use]
    pub fn intr(&self) -> bool {
        self.pic.output()
    }

    /// The processor's acknowledge cycle: the vector.
    pub fn acknowledge(&mut self) -> u8 {
        self.pic.acknowledge()
    }

    /// When a device next has to be looked at.
    #[must_use]
    pub fn deadline(&self) -> Nanoseconds {
        self.clocks.iter().map(DeviceClock::deadline).min().unwrap_or(NEVER)
    }

    /// Lets the devices' alarms that are due at `now` happen.
    pub fn advance(&mut self, now: Nanoseconds) {
        self.now.store(now, Ordering::Relaxed);
        for (number, device) in
            [&mut self.pit as &mut dyn Device, &mut self.rtc, &mut self.serial].into_iter().enumerate()
        {
            if self.clocks[number].take(now) {
                device.alarm(now);
            }
        }
    }

    /// Carries what the devices have done to the interrupt controllers, and tells what is left for others to do.
    pub fn take_effects(&mut self) -> Effects {
        for (line, level) in core::mem::take(&mut *self.lines.lock()) {
            self.pic.set_line(line, level);
            // The timer is at input 2, as on every board since the first with an I/O APIC.
            self.io_apic.set_line(if line == 0 { 2 } else { line }, level);
        }
        let intr = self.pic.output();
        let changed = core::mem::replace(&mut self.intr, intr) != intr;
        Effects {
            messages: core::mem::take(&mut *self.messages.lock()),
            intr: changed.then_some(intr),
            power: self.power.take(),
            moved: self.pci.take_moved(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use devices::ports::Discard;

    fn out(board: &mut Board, writes: &[(u16, u64)]) {
        writes.iter().for_each(|(port, value)| board.output(*port, 1, *value, 0));
    }

    /// PIC at vectors 20H and 28H with input 0 open, PIT channel 0 in mode 2 at 1 kHz.
    fn with_timer() -> Board {
        let mut board = Board::new(Box::new(Discard));
        out(&mut board, &[(0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 1), (0x21, 0xfe)]);
        out(&mut board, &[(0x43, 0x34), (0x40, 0xa9), (0x40, 0x04)]);
        board
    }

    /// Lets the timer's alarms happen until `now`; what came of them.
    fn advance(board: &mut Board, now: Nanoseconds) -> Vec<Effects> {
        let mut all = Vec::new();
        while board.deadline() <= now {
            board.advance(board.deadline());
            all.push(board.take_effects());
        }
        all
    }

    #[test]
    fn the_timer_reaches_the_pic() {
        let mut board = with_timer();
        // The output rises with the mode.
        assert_eq!(board.take_effects().intr, Some(true));
        assert_eq!((board.acknowledge(), board.intr()), (0x20, false));
        board.output(0x20, 1, 0x20, 0);
        assert_eq!(board.take_effects().intr, Some(false));
        let effects = advance(&mut board, 2_000_000);
        assert_eq!(effects.iter().filter(|effects| effects.intr == Some(true)).count(), 1);
        assert_eq!(board.acknowledge(), 0x20);
    }

    #[test]
    fn the_timer_reaches_input_2_of_the_io_apic() {
        let mut board = with_timer();
        let _ = board.take_effects();
        board.write_io_apic(0, 4, 0x14);
        board.write_io_apic(0x10, 4, 0x31);
        let messages: Vec<_> =
            advance(&mut board, 10_500_000).into_iter().flat_map(|effects| effects.messages).collect();
        assert_eq!(messages, [(0xfee0_0000, 0x4031); 10]);
    }

    #[test]
    fn what_is_typed_waits_for_the_serial_port_to_take_it() {
        let mut board = Board::new(Box::new(Discard));
        let typed: Vec<u8> = (0..100).collect();
        board.type_bytes(&typed, 0);
        let read: Vec<u8> = (0..100).map(|_| board.input(0x3f8, 1, 0) as u8).collect();
        assert_eq!(read, typed);
        board.type_bytes(&[7; 2 * MOST_TYPED], 0);
        assert!(board.typed.len() <= MOST_TYPED);
    }

    #[test]
    fn power_is_asked_for_by_ports() {
        let mut board = Board::new(Box::new(Discard));
        for (port, value, expected) in [(0xf4, 3, Power::End(3)), (0x64, 0xfe, Power::Reset), (0xcf9, 6, Power::Reset)]
        {
            board.output(port, 1, value, 0);
            assert_eq!(board.take_effects().power, Some(expected));
        }
        board.output(0x64, 1, 0x20, 0);
        assert_eq!(board.take_effects().power, None);
        assert_eq!(board.input(0x1234, 1, 0) as u8, 0xff);
    }
}
