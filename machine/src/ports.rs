//! The ports that the board hands to devices: queues and cells shared with the board, never the board itself.

use chipset::memory_map::{FOUR_GIB, RamLayout};
use devices::pci::ats;
use devices::ports::{Clock, Dma, DmaFault, Msi, Nanoseconds, Pin, Power, PowerRequest};
use processor::GuestRam;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst, fence};
use std::sync::{Arc, Mutex, MutexGuard};

/// A wire of the board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// ISA interrupt: an input of the 8259 pair and of the I/O APIC (0 is its input 2).
    Isa(u8),
    /// IRQ 0 or 8 from the HPET in legacy replacement.
    HpetLegacy(u8),
    /// An input of the I/O APIC only.
    IoApic(u8),
    /// INTx (0 = A) of a device on bus 0.
    Pci(u8, u8),
    /// The 8259's interrupt output.
    PicOutput,
    /// The keyboard controller's reset line.
    Reset,
}

/// What a device asked of the board while it ran.
#[derive(Clone, Debug)]
pub enum Request {
    /// A wire changed.
    Line(Line, bool),
    /// A message-signalled interrupt from a requester.
    Message(u16, u64, u32),
    /// An interrupt of the remapping unit itself.
    UnitEvent(u64, u32),
    /// A message of the remapping unit to a function, by requester id.
    ToFunction(u16, ats::Message),
    /// A device's write to what is no memory: to another device's registers, if they are there.
    Peer(u64, Vec<u8>),
    /// Power.
    Power(PowerRequest),
}

/// The state that ports share with the board.
#[derive(Default)]
pub struct Wires {
    requests: Mutex<Vec<Request>>,
    /// Something was queued, or an alarm was set.
    pending: AtomicBool,
    now: AtomicU64,
    alarms: Mutex<Vec<Option<Nanoseconds>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Wires {
    /// Queues a request.
    pub fn push(&self, request: Request) {
        lock(&self.requests).push(request);
        self.pending.store(true, Relaxed);
    }

    /// Takes everything queued.
    pub fn take(&self) -> Vec<Request> {
        self.pending.store(false, Relaxed);
        std::mem::take(&mut *lock(&self.requests))
    }

    /// Something wants the board's attention.
    pub fn pending(&self) -> bool {
        self.pending.load(Relaxed)
    }

    /// Marks that the board must look.
    pub fn raise(&self) {
        self.pending.store(true, Relaxed);
    }

    /// Sets the time that devices see. It never goes back.
    pub fn set_now(&self, now: Nanoseconds) {
        self.now.fetch_max(now, Relaxed);
    }

    /// The time that devices see.
    pub fn now(&self) -> Nanoseconds {
        self.now.load(Relaxed)
    }

    /// The earliest alarm and its number; the lowest number first when two are at the same time.
    pub fn next_alarm(&self) -> Option<(Nanoseconds, usize)> {
        lock(&self.alarms).iter().enumerate().filter_map(|(id, at)| Some(((*at)?, id))).min()
    }

    /// Every alarm, by number of its clock.
    pub fn alarms(&self) -> Vec<Option<Nanoseconds>> {
        lock(&self.alarms).clone()
    }

    /// Forgets what was asked and sets the alarms. `None`: there are not so many clocks.
    pub fn restore(&self, alarms: &[Option<Nanoseconds>]) -> Option<()> {
        self.take();
        let mut mine = lock(&self.alarms);
        (mine.len() == alarms.len()).then(|| mine.copy_from_slice(alarms))
    }

    /// Clears alarm `id`.
    pub fn clear_alarm(&self, id: usize) {
        if let Some(slot) = lock(&self.alarms).get_mut(id) {
            *slot = None;
        }
    }
}

/// A pin wired to a line.
pub struct BoardPin(pub Arc<Wires>, pub Line);

impl Pin for BoardPin {
    fn set(&self, level: bool) {
        self.0.push(Request::Line(self.1, level));
    }
}

/// The messages of one requester.
pub struct BoardMsi(pub Arc<Wires>, pub u16);

impl Msi for BoardMsi {
    fn send(&self, address: u64, data: u32) {
        self.0.push(Request::Message(self.1, address, data));
    }
}

/// A device's clock: its number is that of its alarm.
pub struct BoardClock(Arc<Wires>, usize);

impl BoardClock {
    /// The clock with the next number, and that number.
    pub fn new(wires: &Arc<Wires>) -> (Self, usize) {
        let mut alarms = lock(&wires.alarms);
        alarms.push(None);
        (Self(wires.clone(), alarms.len() - 1), alarms.len() - 1)
    }
}

impl Clock for BoardClock {
    fn now(&self) -> Nanoseconds {
        self.0.now()
    }

    fn set_alarm(&self, deadline: Option<Nanoseconds>) {
        let mut alarms = lock(&self.0.alarms);
        if alarms[self.1] != deadline {
            alarms[self.1] = deadline;
            self.0.raise();
        }
    }
}

/// Power requests of devices and of the chipset.
pub struct BoardPower(pub Arc<Wires>);

impl Power for BoardPower {
    fn request(&self, request: PowerRequest) {
        self.0.push(Request::Power(request));
    }
}

/// A device's way by physical addresses: to memory, and by writes to the registers of other devices, where the root complex passes these
/// on. What is read of them would have to wait for the other device; such requests are refused.
#[derive(Clone)]
pub struct PeerDma {
    /// Memory.
    pub memory: BoardDma,
    /// Where the writes go.
    pub wires: Arc<Wires>,
}

impl Dma for PeerDma {
    fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), DmaFault> {
        self.memory.read(address, buffer)
    }

    fn write(&self, address: u64, data: &[u8]) -> Result<(), DmaFault> {
        /// No register takes more at once than a page has.
        const MOST: usize = 4096;
        let written = self.memory.write(address, data);
        if written.is_ok() || data.len() > MOST || !self.memory.is_beyond(address, data.len()) {
            return written;
        }
        // A posted write: nobody tells whether it arrives.
        self.wires.push(Request::Peer(address, data.to_vec()));
        Ok(())
    }
}

/// Memory by physical addresses: the remapping unit's own.
#[derive(Clone)]
pub struct BoardDma {
    /// Guest RAM.
    pub ram: Arc<GuestRam>,
    /// Where it is.
    pub layout: RamLayout,
}

impl BoardDma {
    fn offset(&self, address: u64, length: usize) -> Result<u64, DmaFault> {
        let length = length as u64;
        let fault = DmaFault { address };
        let end = address.checked_add(length).ok_or(fault)?;
        if end <= self.layout.low {
            Ok(address)
        } else if address >= FOUR_GIB && end <= FOUR_GIB + self.layout.high {
            Ok(address - FOUR_GIB + self.layout.low)
        } else {
            Err(fault)
        }
    }
}

impl BoardDma {
    /// No byte of it is memory.
    fn is_beyond(&self, address: u64, length: usize) -> bool {
        let Some(end) = address.checked_add(length as u64) else { return false };
        address >= self.layout.low && (end <= FOUR_GIB || address >= FOUR_GIB + self.layout.high)
    }
}

impl Dma for BoardDma {
    fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), DmaFault> {
        let offset = self.offset(address, buffer.len())?;
        // A device's accesses are in order, also a load after a store to elsewhere: processors may run meanwhile.
        fence(SeqCst);
        self.ram.read(offset, buffer);
        Ok(())
    }

    fn write(&self, address: u64, data: &[u8]) -> Result<(), DmaFault> {
        self.ram.write(self.offset(address, data.len())?, data);
        Ok(())
    }
}
