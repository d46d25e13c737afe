//! Direct assignment: which functions of the machine a guest gets, and why not.
//!
//! | module | is |
//! | --- | --- |
//! | [`layout`] | what a function has: its registers, its capabilities |
//! | [`function`] | the function as the guest sees it |

pub mod function;
pub mod layout;

use crate::configuration::{Configuration, VmConfiguration};
use crate::function::Function;
use crate::remapping::Remapping;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use layout::Layout;
use spec::pci::config::{self as register, Bdf};
use spec::virtio::device_type;
use spec::virtio::pci::{DEVICE_ID_BASE, VENDOR_ID};

pub use function::Assigned;

/// Functions that machine files have names for: name, vendor, device.
const KINDS: [(&str, u16, u16); 5] = [
    ("edu", 0x1234, 0x11e8),
    ("dma-tester", spec::dma_tester::VENDOR, spec::dma_tester::DEVICE),
    ("disk", VENDOR_ID, DEVICE_ID_BASE + device_type::BLOCK),
    ("network", VENDOR_ID, DEVICE_ID_BASE + device_type::NET),
    ("entropy", VENDOR_ID, DEVICE_ID_BASE + device_type::RNG),
];

/// The name that a kind of function has in machine files.
fn kind(function: &dyn Function) -> Option<&'static str> {
    let read = |offset| function.config_read(offset, 2) as u16;
    let (vendor, device) = (read(register::VENDOR_ID), read(register::DEVICE_ID));
    KINDS.iter().find(|kind| (kind.1, kind.2) == (vendor, device)).map(|kind| kind.0)
}

/// A function as `00:05.0`.
pub struct Place(pub u16);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = Bdf(self.0);
        write!(f, "{:02x}:{:02x}.{}", at.bus(), at.device(), at.function())
    }
}

/// Which function a machine file means: its place `00:05.0`, or its kind, the first or `edu 2`, the second one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The one at this place.
    At(u16),
    /// The one of this kind with this number, from 1.
    Kind(&'static str, usize),
}

impl Wanted {
    /// From the words of a machine file.
    ///
    /// # Errors
    /// What there is, when it is neither.
    pub fn parse(text: &str) -> Result<Self, String> {
        let place = || {
            let (bus, rest) = text.split_once(':')?;
            let (device, function) = rest.split_once('.')?;
            let hexadecimal = |digits| u8::from_str_radix(digits, 16).ok();
            let (bus, device, function) = (hexadecimal(bus)?, hexadecimal(device)?, hexadecimal(function)?);
            (device < 32 && function < 8).then(|| Self::At(Bdf::new(bus, device, function).0))
        };
        let named = || {
            let (name, number) = text.split_once(' ').unwrap_or((text, "1"));
            let number = number.parse().ok().filter(|number| *number != 0)?;
            KINDS.iter().find(|kind| kind.0 == name).map(|kind| Self::Kind(kind.0, number))
        };
        place().or_else(named).ok_or_else(|| {
            let names = KINDS.map(|kind| kind.0).join(", ");
            format!("{text} is no function: give its place like 00:05.0, or its kind ({names}), with a number for the second and so on")
        })
    }
}

/// The functions of the machine.
pub trait Bus {
    /// Their source ids, in ascending order.
    fn functions(&self) -> Vec<u16>;
    /// One of them.
    fn function(&self, source: u16) -> Option<Box<dyn Function>>;
}

/// A function that a guest gets.
pub struct Chosen {
    /// Its source id.
    pub source: u16,
    /// What to call it.
    pub name: String,
    /// What it has.
    pub layout: Layout,
    /// The function.
    pub function: Box<dyn Function>,
}

/// What decides about assignments.
pub struct Terms<'a> {
    /// The machine's functions.
    pub bus: &'a dyn Bus,
    /// The remapping units, or why there are none.
    pub remapping: Result<&'a Remapping, &'a str>,
    /// The functions that the hypervisor uses.
    pub own: &'a [u16],
}

impl Terms<'_> {
    /// The functions of each guest, or why it is refused.
    #[must_use]
    pub fn choose(&self, configuration: &Configuration) -> Vec<Result<Vec<Chosen>, String>> {
        let vms = &configuration.vms;
        let found: Vec<Result<Vec<u16>, String>> =
            vms.iter().map(|vm| vm.assign.iter().map(|text| self.find(text)).collect()).collect();
        let all = |n: usize| found[n].as_deref().unwrap_or_default();
        let refusal = |number: usize| {
            let mine = all(number);
            for (n, source) in mine.iter().enumerate() {
                let place = Place(*source);
                if mine[..n].contains(source) {
                    return Some(format!("it is given {place} twice"));
                }
                let other = (0..vms.len()).find(|other| {
                    *other != number && all(*other).contains(source) && !are_in_turn(vms, number, *other)
                });
                if let Some(other) = other {
                    let other = &vms[other].name;
                    return Some(format!("{place} is given to {other} as well: one of them is to run after the other"));
                }
                if let Err(why) = self.admits(number, *source, mine) {
                    return Some(format!("{place} cannot be assigned: {why}"));
                }
            }
            None
        };
        (0..vms.len())
            .map(|number| match (&found[number], refusal(number)) {
                (Err(why), _) => Err(why.clone()),
                (_, Some(why)) => Err(why),
                (Ok(sources), None) => sources.iter().map(|source| self.chosen(*source)).collect(),
            })
            .collect()
    }

    fn find(&self, text: &str) -> Result<u16, String> {
        let wanted = Wanted::parse(text)?;
        let mut functions = self.bus.functions().into_iter();
        let found = match wanted {
            Wanted::At(place) => functions.find(|source| *source == place),
            Wanted::Kind(name, number) => {
                let is_one = |source: &u16| self.bus.function(*source).and_then(|it| kind(&*it)) == Some(name);
                functions.filter(is_one).nth(number - 1)
            }
        };
        found.ok_or_else(|| format!("there is no function {text} on this machine"))
    }

    /// Whether the function can be the guest's with this number, who gets `mine`.
    fn admits(&self, number: usize, source: u16, mine: &[u16]) -> Result<(), String> {
        if self.own.contains(&source) {
            return Err("the hypervisor uses it itself, as guests have network = true".into());
        }
        let remapping = self.remapping.map_err(str::to_string)?;
        // Nothing says that a device keeps the accesses of its functions to each other from passing beside the remapping unit.
        let siblings = self.bus.functions().into_iter().filter(|other| other >> 3 == source >> 3);
        if let Some(sibling) = siblings.into_iter().find(|other| !mine.contains(other)) {
            return Err(format!(
                "{} is of the same device, so both are in one group and go to one guest",
                Place(sibling)
            ));
        }
        remapping.check(source, number).map_err(str::to_string)
    }

    fn chosen(&self, source: u16) -> Result<Chosen, String> {
        let function = self.bus.function(source).ok_or("there is no such function")?;
        let name = match kind(&*function) {
            Some(kind) => format!("{} ({kind})", Place(source)),
            None => Place(source).to_string(),
        };
        let layout = Layout::find(&*function).map_err(|why| format!("{name} cannot be assigned: {why}"))?;
        Ok(Chosen { source, name, layout, function })
    }
}

/// Whether one of the guests runs after the other has ended.
fn are_in_turn(vms: &[VmConfiguration], one: usize, other: usize) -> bool {
    let is_after = |late: usize, early: usize| {
        let before = |vm: &usize| {
            let name = vms[*vm].after.as_ref()?;
            vms.iter().position(|vm| vm.name == *name)
        };
        core::iter::successors(before(&late), before).take(vms.len()).any(|vm| vm == early)
    };
    is_after(one, other) || is_after(other, one)
}

#[cfg(test)]
mod tests;
