//! The machine's own network card, if it has one that `hypervisor::nic` drives.

use crate::functions::OfMachine;
use crate::memory::PAGES;
use crate::processor::say;
use alloc::boxed::Box;
use hypervisor::host::{Host as _, vector};
use hypervisor::memory::Pages;
use hypervisor::network::Switch;
use hypervisor::nic::Nic;
use hypervisor::remapping::Remapping;

/// The source id of the machine's card.
pub fn card() -> Option<u16> {
    find().map(|function| function.source())
}

fn find() -> Option<OfMachine> {
    OfMachine::all().find(|function| Nic::is_one(function))
}

/// Connects the switch to the machine's card, whose messages go to the first processor. Behind a remapping unit it reaches its own pages only.
pub fn connect(switch: &Switch, remapping: Option<&Remapping>) {
    let Some(function) = find() else { return };
    let source = function.source();
    let vector = vector::NIC;
    let started = match remapping {
        None => Nic::start(Box::new(function), &PAGES, Some((0xfee0_0000, vector.into()))),
        Some(remapping) => remapping.confine(source).and_then(|pages| {
            Nic::start(Box::new(function), &pages as &dyn Pages, remapping.own_message(source, vector))
        }),
    };
    match started {
        Ok(nic) => {
            say!("the machine's network card is {:02x?}: guests reach its network", nic.mac);
            switch.connect(nic);
        }
        Err(why) => say!("the machine's network card is not used: {why}"),
    }
}
