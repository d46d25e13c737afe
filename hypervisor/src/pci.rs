//! A guest's PCI bus, by configuration mechanism #1 (PCI Local Bus Specification 3.0, 3.2.2.3.2): a host bridge, and functions with their
//! memory windows placed as firmware would.

use crate::host::Nanoseconds;
use alloc::boxed::Box;
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

/// CONFIG_ADDRESS: enable bit.
const ENABLE: u32 = 1 << 31;

/// The bus.
pub struct PciBus {
    address: u32,
    bridge: ConfigSpace,
    /// Functions 0 of devices 1, 2, ...
    functions: Vec<Box<dyn PciFunction>>,
    windows: Vec<(usize, Window)>,
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
        Self { address: 0, bridge, functions: Vec::new(), windows: Vec::new() }
    }
}

impl PciBus {
    /// Adds a function with memory windows in these BARs, one of 32 bits or the lower half of one of 64 each.
    pub fn add(&mut self, mut function: Box<dyn PciFunction>, bars: &[u8]) {
        place(&mut *function, WINDOWS + ROOM * self.functions.len() as u64, bars);
        self.functions.push(function);
        self.find_windows();
    }

    /// Reset, after which the windows are where they were at first.
    pub fn reset(&mut self, bars: &[u8]) {
        for (number, function) in self.functions.iter_mut().enumerate() {
            function.reset();
            place(&mut **function, WINDOWS + ROOM * number as u64, bars);
        }
        self.find_windows();
    }

    /// Takes what others have for the functions.
    pub fn poll(&mut self, now: Nanoseconds) {
        self.functions.iter_mut().for_each(|function| function.poll_host(now));
    }

    /// Whether there is a virtio console.
    #[must_use]
    pub fn has_console(&mut self) -> bool {
        self.console().is_some()
    }

    fn console(&mut self) -> Option<&mut Box<dyn PciFunction>> {
        const CONSOLE: u32 = DEVICE_ID_BASE as u32 + device_type::CONSOLE as u32;
        let is_one = |function: &mut Box<dyn PciFunction>| function.config_read(register::DEVICE_ID, 2) == CONSOLE;
        let number = self.functions.iter_mut().position(is_one)?;
        self.functions.get_mut(number)
    }

    /// Gives the virtio console what was typed; the number of bytes that it takes.
    pub fn receive(&mut self, bytes: &[u8]) -> usize {
        self.console().map_or(0, |function| function.receive(bytes))
    }

    fn find_windows(&mut self) {
        self.windows.clear();
        for (number, function) in self.functions.iter().enumerate() {
            self.windows.extend(function.windows().into_iter().map(|window| (number, window)));
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
                Some(function) => function.config_read(offset, size),
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
                self.functions.get_mut(device - 1).is_some_and(|function| function.config_write(offset, size, value))
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

    /// The function, BAR and offset at a guest-physical address.
    fn at(&mut self, address: u64) -> Option<(&mut dyn PciFunction, u8, u64)> {
        let holds = |window: &Window| {
            window.kind == WindowKind::Memory && address >= window.base && address - window.base < window.size
        };
        let (number, window) = self.windows.iter().find(|(_, window)| holds(window))?;
        Some((&mut **self.functions.get_mut(*number)?, window.bar, address - window.base))
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
