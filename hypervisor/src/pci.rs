//! A guest's PCI bus, by configuration mechanism #1 (PCI Local Bus Specification 3.0, 3.2.2.3.2): a host bridge, and functions with their
//! memory windows placed as firmware would: models, and functions of the machine that are assigned to the guest.

use crate::assignment::Assigned;
use crate::ept::Ept;
use crate::host::Nanoseconds;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use devices::pci::{ConfigSpace, Identity, PciFunction, Window, WindowKind};
use spec::pci::config::{self as register, Command};
use spec::virtio::device_type;
use spec::virtio::pci::DEVICE_ID_BASE;

/// Where the functions' windows are.
pub const WINDOWS: u64 = 0xe000_0000;
/// The room for all windows of a function, on whose boundary they begin.
const ROOM: u64 = 0x10_0000;
/// The room for one window.
const STEP: u64 = 0x1_0000;

/// Where the windows of assigned functions are, which may be larger.
const ASSIGNED: core::ops::Range<u64> = 0xe800_0000..0xfe00_0000;

/// CONFIG_ADDRESS: enable bit.
const ENABLE: u32 = 1 << 31;

/// A function and the BARs that are placed.
enum Function {
    Model(Box<dyn PciFunction>, &'static [u8]),
    Assigned(Box<Assigned>),
}

impl Function {
    fn get(&mut self) -> &mut dyn PciFunction {
        match self {
            Self::Model(function, _) => &mut **function,
            Self::Assigned(function) => &mut **function,
        }
    }
}

/// The bus.
pub struct PciBus {
    address: u32,
    bridge: ConfigSpace,
    /// Functions 0 of devices 1, 2, ...
    functions: Vec<Function>,
    windows: Vec<(usize, Window)>,
    /// Where windows of assigned functions may be placed.
    room: u64,
    /// Windows of assigned functions have moved.
    moved: bool,
}

impl Default for PciBus {
    fn default() -> Self {
        // Of the 440FX, which every kernel knows and none drives.
        let bridge = ConfigSpace::conventional(Identity {
            vendor: 0x8086,
            device: 0x1237,
            subsystem_vendor: 0x8086,
            subsystem: 0,
            revision: 0,
            class: 0x06_0000,
            multifunction: false,
        });
        Self { address: 0, bridge, functions: Vec::new(), windows: Vec::new(), room: ASSIGNED.start, moved: false }
    }
}

impl PciBus {
    /// Adds a function with memory windows in these BARs, one of 32 bits or the lower half of one of 64 each.
    pub fn add(&mut self, function: Box<dyn PciFunction>, bars: &'static [u8]) {
        self.functions.push(Function::Model(function, bars));
        self.place(self.functions.len() - 1);
    }

    /// Adds a function of the machine's.
    ///
    /// # Errors
    /// When there is no room for its registers.
    pub fn add_assigned(&mut self, mut function: Assigned) -> Result<(), String> {
        self.room = function.place(self.room, ASSIGNED.end)?;
        self.functions.push(Function::Assigned(Box::new(function)));
        Ok(())
    }

    /// Gives a function the windows that it has at first.
    fn place(&mut self, number: usize) {
        if let Some(Function::Model(function, bars)) = self.functions.get_mut(number) {
            place(&mut **function, WINDOWS + ROOM * number as u64, bars);
        }
        self.find_windows();
    }

    /// Reset, after which the windows are where they were at first.
    pub fn reset(&mut self) {
        for number in 0..self.functions.len() {
            self.functions[number].get().reset();
            self.place(number);
        }
    }

    fn assigned(&mut self) -> impl Iterator<Item = &mut Assigned> {
        self.functions.iter_mut().filter_map(|function| match function {
            Function::Model(..) => None,
            Function::Assigned(function) => Some(&mut **function),
        })
    }

    /// Takes the assigned functions: they reach the memory that `ept` leads to.
    ///
    /// # Errors
    /// Why that is not possible.
    pub fn take_functions(&mut self, ept: &mut Ept) -> Result<(), String> {
        self.assigned().try_for_each(|function| function.take(ept))?;
        self.find_windows();
        Ok(())
    }

    /// When the resets of all assigned functions are complete.
    #[must_use]
    pub fn functions_ready_at(&mut self) -> Option<Nanoseconds> {
        self.assigned().filter_map(|function| function.ready_at()).max()
    }

    /// The resets of assigned functions are complete.
    pub fn resume_functions(&mut self) {
        self.assigned().for_each(Assigned::finish_reset);
        self.find_windows();
    }

    /// A vCPU has gone to another processor.
    pub fn vcpu_moved(&mut self) {
        self.assigned().for_each(|function| function.vcpu_moved());
    }

    /// Releases the assigned functions.
    pub fn release_functions(&mut self) {
        self.assigned().for_each(Assigned::release);
        self.find_windows();
    }

    /// Whether windows of assigned functions have moved since this was asked last.
    pub fn take_moved(&mut self) -> bool {
        core::mem::take(&mut self.moved)
    }

    /// The page of the machine's at the guest-physical page `address`, if it has registers of an assigned function that the guest accesses
    /// itself.
    pub fn registers(&mut self, address: u64) -> Option<u64> {
        let (number, bar, offset) = self.find(address)?;
        match self.functions.get(number)? {
            Function::Model(..) => None,
            Function::Assigned(function) => function.registers(bar, offset),
        }
    }

    /// Takes what others have for the functions.
    pub fn poll(&mut self, now: Nanoseconds) {
        self.functions.iter_mut().for_each(|function| function.get().poll_host(now));
    }

    /// Whether there is a virtio console.
    #[must_use]
    pub fn has_console(&mut self) -> bool {
        self.console().is_some()
    }

    fn console(&mut self) -> Option<&mut dyn PciFunction> {
        const CONSOLE: u32 = DEVICE_ID_BASE as u32 + device_type::CONSOLE as u32;
        self.functions.iter_mut().find_map(|function| match function {
            Function::Model(function, _) => {
                let is_one = function.config_read(register::DEVICE_ID, 2) == CONSOLE;
                is_one.then_some(&mut **function as &mut dyn PciFunction)
            }
            Function::Assigned(_) => None,
        })
    }

    /// Gives the virtio console what was typed; the number of bytes that it takes.
    pub fn receive(&mut self, bytes: &[u8]) -> usize {
        self.console().map_or(0, |function| function.receive(bytes))
    }

    fn find_windows(&mut self) {
        let mut windows = Vec::new();
        for (number, function) in self.functions.iter_mut().enumerate() {
            windows.extend(function.get().windows().into_iter().map(|window| (number, window)));
        }
        if windows != self.windows {
            self.moved |= self.functions.iter().any(|function| matches!(function, Function::Assigned(_)));
            self.windows = windows;
        }
    }

    /// Reads CONFIG_ADDRESS or CONFIG_DATA at `port` (CF8H to CFFH).
    pub fn read(&mut self, port: u16, size: u8) -> u32 {
        if port < 0xcfc {
            return if port == 0xcf8 && size == 4 { self.address } else { u32::MAX };
        }
        let offset = self.offset(port);
        match self.selected() {
            Some(0) => self.bridge.read(offset, size),
            Some(device) => match self.functions.get_mut(device - 1) {
                Some(function) => function.get().config_read(offset, size),
                None => u32::MAX,
            },
            None => u32::MAX,
        }
    }

    /// Writes CONFIG_ADDRESS or CONFIG_DATA.
    pub fn write(&mut self, port: u16, size: u8, value: u32) {
        if port < 0xcfc {
            if port == 0xcf8 && size == 4 {
                self.address = value & 0x80ff_fffc;
            }
            return;
        }
        let offset = self.offset(port);
        let changed = match self.selected() {
            None => false,
            Some(0) => {
                self.bridge.write(offset, size, value);
                false
            }
            Some(device) => {
                let function = self.functions.get_mut(device - 1);
                function.is_some_and(|function| function.get().config_write(offset, size, value))
            }
        };
        if changed {
            self.find_windows();
        }
    }

    fn offset(&self, port: u16) -> u16 {
        (self.address & 0xfc) as u16 | port & 3
    }

    /// The device on bus 0 whose function 0 is selected.
    fn selected(&self) -> Option<usize> {
        let (bus, function) = (self.address >> 16 & 0xff, self.address >> 8 & 7);
        (self.address & ENABLE != 0 && bus == 0 && function == 0).then_some((self.address >> 11 & 31) as usize)
    }

    /// The function's number, BAR and offset at a guest-physical address.
    fn find(&self, address: u64) -> Option<(usize, u8, u64)> {
        let holds = |window: &Window| {
            window.kind == WindowKind::Memory && address >= window.base && address - window.base < window.size
        };
        let (number, window) = self.windows.iter().find(|(_, window)| holds(window))?;
        Some((*number, window.bar, address - window.base))
    }

    fn at(&mut self, address: u64) -> Option<(&mut dyn PciFunction, u8, u64)> {
        let (number, bar, offset) = self.find(address)?;
        Some((self.functions.get_mut(number)?.get(), bar, offset))
    }

    /// Reads a function's memory; `None` where there is none.
    pub fn read_memory(&mut self, address: u64, size: u8) -> Option<u64> {
        self.at(address).map(|(function, bar, offset)| function.read(bar, offset, size))
    }

    /// Writes a function's memory; false where there is none.
    pub fn write_memory(&mut self, address: u64, size: u8, value: u64) -> bool {
        self.at(address).map(|(function, bar, offset)| function.write(bar, offset, size, value)).is_some()
    }
}

fn place(function: &mut dyn PciFunction, base: u64, bars: &[u8]) {
    for (n, bar) in bars.iter().enumerate() {
        let address = base + STEP * n as u64;
        function.config_write(register::BAR0 + 4 * u16::from(*bar), 4, address as u32);
    }
    function.config_write(register::COMMAND, 2, u32::from(Command::MEMORY | Command::BUS_MASTER));
}
