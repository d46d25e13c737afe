//! The machine's PCI functions.

use alloc::boxed::Box;
use alloc::vec::Vec;
use bare::{device, pci};
use hypervisor::assignment::Bus;
use hypervisor::function::Function;
use spec::pci::config as register;
use spin::Mutex;

/// Configuration space is reached by two ports, one after the other.
static CONFIGURATION: Mutex<()> = Mutex::new(());

/// A function of the machine.
pub struct OfMachine(pci::Function);

impl OfMachine {
    /// Its source id.
    pub fn source(&self) -> u16 {
        self.0.source()
    }

    /// All that there are.
    pub fn all() -> impl Iterator<Item = OfMachine> {
        pci::Function::all().map(OfMachine).filter(|function| function.config_read(register::VENDOR_ID, 2) != 0xffff)
    }
}

impl Function for OfMachine {
    fn config_read(&self, offset: u16, size: u8) -> u32 {
        let _lock = CONFIGURATION.lock();
        self.0.config_read(offset, size)
    }
    fn config_write(&self, offset: u16, size: u8, value: u32) {
        let _lock = CONFIGURATION.lock();
        self.0.config_write(offset, size, value);
    }
    fn read(&self, address: u64, size: u8) -> u32 {
        device::read(address, size)
    }
    fn write(&self, address: u64, size: u8, value: u32) {
        device::write(address, size, value);
    }
}

/// Bus 0.
pub struct RootBus;

impl Bus for RootBus {
    fn functions(&self) -> Vec<u16> {
        OfMachine::all().map(|function| function.source()).collect()
    }

    fn function(&self, source: u16) -> Option<Box<dyn Function>> {
        Some(Box::new(OfMachine(pci::Function::of_source(source)?)))
    }
}
