//! VT-d in the hypervisor's hands: every function's accesses to memory and its interrupts pass the remapping units, and nobody's does who has
//! not been given a domain. So no device reaches the hypervisor's memory or another guest's.
//!
//! | module | is |
//! | --- | --- |
//! | [`dmar`] | which units there are, and for whom |
//! | [`unit`] | one unit: its tables |
//! | [`own`] | the domain of a function that the hypervisor uses itself |
//! | [`routes`] | where an assigned function's interrupts go |

pub mod dmar;
pub mod own;
pub mod routes;
pub mod unit;

use crate::host::Nanoseconds;
use crate::memory::Pages;
use crate::nic::Message;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use dmar::Dmar;
use spec::vtd::FaultRecord;
use spec::vtd::interrupts::{RemappingEntry, request};
use spin::{Mutex, MutexGuard};
use unit::{Hardware, Refusal, Unit};

/// The host's vectors for interrupts that are not posted.
const LINES: core::ops::RangeInclusive<u8> = 0x40..=0xef;
/// The domain of the functions that the hypervisor uses. 0 is not used: units with caching mode keep it for entries that are not present.
const OWN_DOMAIN: u16 = 1;
/// The first guest's domain.
const FIRST_DOMAIN: u16 = 2;

/// The domain of the guest with this number.
#[must_use]
pub fn domain(vm: usize) -> u16 {
    FIRST_DOMAIN + vm as u16
}

/// Whom an interrupt with a host's vector is for.
#[derive(Clone, Copy, Debug)]
struct Line {
    vm: usize,
    message: Option<Message>,
}

/// The units.
pub struct Remapping {
    dmar: Dmar,
    units: Vec<Mutex<Unit>>,
    pages: &'static dyn Pages,
    /// The guests that functions are assigned to.
    owners: Mutex<BTreeMap<u16, usize>>,
    lines: Mutex<Vec<Line>>,
    /// When functions that have been reset are ready again.
    resets: Mutex<BTreeMap<u16, Nanoseconds>>,
    lost: AtomicU64,
}

impl Remapping {
    /// Turns all units on that `dmar` tells of; `hardware` reaches the one at an address. `faults` is the message by which they tell of faults.
    ///
    /// # Errors
    /// The unit that cannot be used, and why. Others may be on then.
    pub fn start(
        dmar: Dmar,
        pages: &'static dyn Pages,
        faults: Message,
        hardware: impl Fn(u64) -> Box<dyn Hardware>,
    ) -> Result<Self, (u64, Refusal)> {
        let unit = |place: &dmar::Place| {
            let unit = Unit::new(hardware(place.base), pages, faults).map_err(|why| (place.base, why))?;
            Ok(Mutex::new(unit))
        };
        let units = dmar.units.iter().map(unit).collect::<Result<_, _>>()?;
        let (owners, lines, resets) = (Mutex::default(), Mutex::default(), Mutex::default());
        Ok(Self { dmar, units, pages, owners, lines, resets, lost: AtomicU64::new(0) })
    }

    /// How many units there are.
    #[must_use]
    pub fn units(&self) -> usize {
        self.units.len()
    }

    fn unit(&self, source: u16) -> Result<MutexGuard<'_, Unit>, Refusal> {
        let unit = self.dmar.unit_of(source).and_then(|n| self.units.get(n));
        Ok(unit.ok_or("no remapping unit is for it")?.lock())
    }

    /// Whether every unit posts interrupts, or remaps them.
    #[must_use]
    pub fn interrupts(&self) -> Interrupts {
        if self.units.iter().all(|unit| unit.lock().posts()) {
            Interrupts::Posted
        } else if self.dmar.interrupt_remapping && self.units.iter().all(|unit| unit.lock().remaps_interrupts()) {
            Interrupts::Remapped
        } else {
            Interrupts::Unprotected
        }
    }

    /// Whether the unit of a function walks tables with pages of 2 MiB.
    #[must_use]
    pub fn has_large_pages(&self, source: u16) -> bool {
        self.unit(source).is_ok_and(|unit| unit.large_pages())
    }

    /// Why a function cannot be given to the guest with the number `vm`, as far as the units are concerned.
    ///
    /// # Errors
    /// The reason.
    pub fn check(&self, source: u16, vm: usize) -> Result<(), Refusal> {
        let unit = self.unit(source)?;
        if !self.dmar.interrupt_remapping || !unit.remaps_interrupts() {
            return Err("its remapping unit does not remap interrupts: nothing would keep it from sending any vector");
        }
        if self.dmar.reserved.contains(&source) {
            return Err("firmware needs its access to reserved memory (RMRR)");
        }
        if unit.has_domain(domain(vm)) { Ok(()) } else { Err("its remapping unit has no more domains") }
    }

    /// Gives a function to a guest: `ept` leads to the tables of its domain, which are those of its memory.
    ///
    /// # Errors
    /// Why that is not possible.
    pub fn attach(&self, source: u16, vm: usize, ept: &mut crate::ept::Ept) -> Result<(), Refusal> {
        let mut unit = self.unit(source)?;
        let top = ept.second_stage(self.pages, unit.levels()).ok_or("there is no memory for its tables")?;
        unit.attach(self.pages, source, domain(vm), top)?;
        self.owners.lock().insert(source, vm);
        Ok(())
    }

    /// Takes a function from the guest that has it: it reaches nothing then.
    ///
    /// # Errors
    /// When a unit does not do it.
    pub fn detach(&self, source: u16) -> Result<(), Refusal> {
        let Some(vm) = self.owners.lock().remove(&source) else { return Ok(()) };
        self.unit(source)?.detach(self.pages, source, domain(vm))
    }

    /// A function is being reset, and ready again at `end`.
    pub fn note_reset(&self, source: u16, end: Nanoseconds) {
        self.resets.lock().insert(source, end);
    }

    /// When the last reset of a function is complete.
    #[must_use]
    pub fn reset_end(&self, source: u16) -> Option<Nanoseconds> {
        self.resets.lock().get(&source).copied()
    }

    /// Has the units forget what they keep of a guest's domain.
    ///
    /// # Errors
    /// When a unit does not do it.
    pub fn forget_domain(&self, vm: usize) -> Result<(), Refusal> {
        self.units.iter().try_for_each(|unit| unit.lock().forget_domain(domain(vm)))
    }

    /// Takes the vectors for `count` interrupts of the guest `vm` that may not be posted; the first one.
    #[must_use]
    fn take_lines(&self, vm: usize, count: u16) -> Option<u8> {
        let mut lines = self.lines.lock();
        let first = lines.len();
        let room = LINES.len() - first;
        (usize::from(count) <= room).then(|| lines.resize(first + usize::from(count), Line { vm, message: None }))?;
        Some(LINES.start() + first as u8)
    }

    fn set_line(&self, vector: u8, message: Option<Message>) {
        if let Some(line) = self.lines.lock().get_mut(usize::from(vector - LINES.start())) {
            line.message = message;
        }
    }

    /// The guest and its message that an interrupt with this vector of the host is for.
    #[must_use]
    pub fn line(&self, vector: u8) -> Option<(usize, Message)> {
        let line = *self.lines.lock().get(usize::from(vector.checked_sub(*LINES.start())?))?;
        Some((line.vm, line.message?))
    }

    /// The vectors that interrupts of functions may have.
    #[must_use]
    pub fn lines(&self) -> core::ops::Range<u8> {
        *LINES.start()..LINES.start() + self.lines.lock().len() as u8
    }

    /// The message by which a function of the hypervisor's own interrupts the first processor with `vector`. `None`: there are no entries left.
    #[must_use]
    pub fn own_message(&self, source: u16, vector: u8) -> Option<Message> {
        let mut unit = self.unit(source).ok()?;
        if !unit.remaps_interrupts() {
            return Some((spec::pci::message::MESSAGE_BASE, vector.into()));
        }
        let index = unit.take_entries(1)?;
        unit.set_entry(index, RemappingEntry::remapped(vector, 0, source)).ok()?;
        Some((request::address(index), 0))
    }

    /// The index of an interrupt-remapping entry by which the I/O APIC interrupts the first processor with `vector`. `None`: interrupts of the
    /// I/O APIC are not remapped, or there is no entry.
    #[must_use]
    pub fn io_apic_entry(&self, vector: u8) -> Option<u16> {
        let (unit, source) = self.dmar.io_apic()?;
        let mut unit = self.units.get(unit)?.lock();
        let index = unit.take_entries(1)?;
        unit.set_entry(index, RemappingEntry::remapped(vector, 0, source)).ok()?;
        Some(index)
    }

    /// The faults that the units have recorded, with the guests that the functions belong to.
    #[must_use]
    pub fn take_faults(&self) -> Vec<(Option<usize>, FaultRecord)> {
        let mut faults = Vec::new();
        for unit in &self.units {
            let mut unit = unit.lock();
            // A function that goes wild makes faults faster than they are taken.
            for _ in 0..MOST_FAULTS {
                let Some(fault) = unit.take_fault() else { break };
                faults.push((self.owners.lock().get(&fault.source).copied(), fault));
            }
            if unit.take_overflow() {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
        faults
    }

    /// How often there were more faults than the units record.
    #[must_use]
    pub fn overflows(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// Faults of one unit that are taken at once.
const MOST_FAULTS: usize = 64;

/// What becomes of functions' interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupts {
    /// They are posted to vCPUs.
    Posted,
    /// They are remapped, and the hypervisor passes them on.
    Remapped,
    /// Nothing is between them and the processors.
    Unprotected,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::unit::tests::{CAPABILITY, EXTENDED, TestHardware};
    use super::*;
    use crate::ept::Ept;
    use crate::testing::TestPages;
    use spec::vtd::capability::{Capability, ExtendedCapability};

    pub(crate) const FUNCTION: u16 = 5 << 3;

    pub(crate) fn with(capability: u64, extended: u64) -> Remapping {
        let dmar = Dmar::parse(&dmar::tests::table());
        let hardware =
            |_| -> Box<dyn Hardware> { Box::new(TestHardware { capability, extended, ..TestHardware::new() }) };
        Remapping::start(dmar, &TestPages, (0xfee0_0000, 0xf7), hardware).unwrap()
    }

    #[test]
    fn what_a_unit_cannot_protect_is_refused_in_words() {
        let remapping = with(CAPABILITY, EXTENDED);
        assert_eq!((remapping.units(), remapping.interrupts()), (2, Interrupts::Posted));
        assert_eq!(remapping.check(FUNCTION, 0), Ok(()));
        assert!(remapping.check(3 << 3, 0).unwrap_err().contains("RMRR"));
        let few = with(CAPABILITY & !7, EXTENDED);
        assert_eq!((few.check(FUNCTION, 13), few.check(FUNCTION, 14).is_err()), (Ok(()), true));
        let plain = with(CAPABILITY, EXTENDED & !ExtendedCapability::INTERRUPT_REMAPPING);
        assert!(plain.check(FUNCTION, 0).unwrap_err().contains("does not remap interrupts"));
        assert_eq!(plain.interrupts(), Interrupts::Unprotected);
        let remapped = with(CAPABILITY & !Capability::POSTED_INTERRUPTS, EXTENDED);
        assert_eq!(remapped.interrupts(), Interrupts::Remapped);
    }

    #[test]
    fn faults_are_their_owner_s() {
        let remapping = with(CAPABILITY, EXTENDED);
        let mut ept = Ept::new(&TestPages, true).unwrap();
        assert!(ept.map(&TestPages, 0, 0x4000_0000, 2 << 20));
        remapping.attach(FUNCTION, 3, &mut ept).unwrap();
        assert_eq!(remapping.owners.lock().get(&FUNCTION), Some(&3));
        remapping.detach(FUNCTION).unwrap();
        assert_eq!(remapping.owners.lock().get(&FUNCTION), None);
        // Nobody's any more: nothing to do.
        remapping.detach(FUNCTION).unwrap();
    }

    #[test]
    fn vectors_of_the_host_lead_to_a_guest_s_message() {
        let remapping = with(CAPABILITY, EXTENDED);
        assert_eq!((remapping.take_lines(2, 3), remapping.take_lines(4, 1)), (Some(0x40), Some(0x43)));
        remapping.set_line(0x42, Some((0xfee0_1000, 0x61)));
        assert_eq!(remapping.line(0x42), Some((2, (0xfee0_1000, 0x61))));
        assert_eq!((remapping.line(0x43), remapping.line(0x44), remapping.line(0x20)), (None, None, None));
        assert_eq!((remapping.lines(), remapping.take_lines(1, 173)), (0x40..0x44, None));
    }

    #[test]
    fn the_hypervisor_s_own_interrupts_have_entries_as_well() {
        let remapping = with(CAPABILITY, EXTENDED);
        assert_eq!(remapping.own_message(FUNCTION, 0xf5), Some((0xfee0_0010, 0)));
        assert_eq!(remapping.io_apic_entry(0xf6), Some(1));
        let plain = with(CAPABILITY, EXTENDED & !ExtendedCapability::INTERRUPT_REMAPPING);
        assert_eq!(plain.own_message(FUNCTION, 0xf5), Some((0xfee0_0000, 0xf5)));
        assert_eq!(plain.io_apic_entry(0xf6), None);
    }
}
