//! The machine's own network card, if it has one that `hypervisor::nic` drives.

use crate::memory::PAGES;
use crate::processor::say;
use alloc::boxed::Box;
use bare::{device, pci};
use hypervisor::host::{Host as _, vector};
use hypervisor::network::Switch;
use hypervisor::nic::{Function, Nic};

/// A function of the machine.
struct OfMachine(pci::Function);

impl Function for OfMachine {
    fn config_read(&self, offset: u16, size: u8) -> u32 {
        self.0.config_read(offset, size)
    }
    fn config_write(&self, offset: u16, size: u8, value: u32) {
        self.0.config_write(offset, size, value);
    }
    fn read(&self, address: u64, size: u8) -> u32 {
        device::read(address, size)
    }
    fn write(&self, address: u64, size: u8, value: u32) {
        device::write(address, size, value);
    }
}

/// Connects the switch to the machine's card, whose messages go to the first processor.
pub fn connect(switch: &Switch) {
    let Some(function) = pci::Function::all().map(OfMachine).find(|function| Nic::is_one(function)) else { return };
    match Nic::start(Box::new(function), &PAGES, Some((0xfee0_0000, vector::NIC.into()))) {
        Ok(nic) => {
            say!("the machine's network card is {:02x?}: guests reach its network", nic.mac);
            switch.connect(nic);
        }
        Err(why) => say!("the machine's network card is not used: {why}"),
    }
}
