//! One remapping unit: its root and context tables in legacy mode (VT-d, 3.4 and 9.1 to 9.3) and its interrupt-remapping table.

use crate::memory::{Page, Pages};
use crate::nic::Message;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use core::sync::atomic::{Ordering, fence};
use spec::vtd::FaultRecord;
use spec::vtd::capability::{Capability, ExtendedCapability};
use spec::vtd::interrupts::RemappingEntry;
use spec::vtd::invalidation::{DOMAIN_SHIFT, DescriptorType, GRANULARITY_SHIFT, granularity, interrupt_entry};
use spec::vtd::tables::{PRESENT, context};

/// Why not.
pub type Refusal = &'static str;

/// What the program on bare metal does with a unit.
pub trait Hardware: Send {
    /// CAP_REG.
    fn capability(&self) -> u64;
    /// ECAP_REG.
    fn extended_capability(&self) -> u64;
    /// Gives the unit its tables, with an invalidation queue, and has it tell of faults by a message. Nothing is turned on yet but the queue.
    ///
    /// # Errors
    /// When the unit does not do it.
    fn start(&mut self, root: u64, interrupts: Option<u64>, faults: Message) -> Result<(), Refusal>;
    /// Turns DMA remapping on, and interrupt remapping where there is a table.
    ///
    /// # Errors
    /// When the unit does not do it.
    fn enable(&mut self, interrupts: bool) -> Result<(), Refusal>;
    /// Puts a descriptor into the invalidation queue.
    fn submit(&mut self, first: u64, second: u64);
    /// Waits until everything in the queue is carried out.
    ///
    /// # Errors
    /// When it is not.
    fn wait(&mut self) -> Result<(), Refusal>;
    /// The oldest fault, whose record is free then.
    fn take_fault(&mut self) -> Option<FaultRecord>;
    /// Whether faults have been lost since this was asked last.
    fn take_overflow(&mut self) -> bool;
}

/// Entries of the interrupt-remapping table: a page of them.
pub const ENTRIES: u16 = 256;
/// The size of such a table in the address register: 2^(n+1) entries.
const TABLE_SIZE: u64 = 7;

/// A unit.
pub struct Unit {
    hardware: Box<dyn Hardware>,
    root: &'static Page,
    /// The context tables by their buses.
    contexts: BTreeMap<u8, &'static Page>,
    interrupts: Option<&'static Page>,
    /// Entries of the interrupt-remapping table that somebody has.
    taken: u16,
}

impl Unit {
    /// Turns the unit on with nobody in a domain: no function reaches memory, none interrupts.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn new(mut hardware: Box<dyn Hardware>, pages: &dyn Pages, faults: Message) -> Result<Self, Refusal> {
        let extended = ExtendedCapability(hardware.extended_capability());
        if !extended.has(ExtendedCapability::QUEUED_INVALIDATION) {
            return Err("it has no queued invalidation");
        }
        if !extended.has(ExtendedCapability::COHERENT) {
            return Err("it does not see what is in the processors' caches");
        }
        if levels(hardware.capability()).is_none() {
            return Err("it walks no tables of 3 or 4 levels");
        }
        let page = || pages.page().ok_or("there is no memory for its tables");
        let root = page()?;
        let remaps = extended.has(ExtendedCapability::INTERRUPT_REMAPPING);
        let interrupts = if remaps { Some(page()?) } else { None };
        hardware.start(root.address(), interrupts.map(|table| table.address() | TABLE_SIZE), faults)?;
        let mut unit = Self { hardware, root, contexts: BTreeMap::new(), interrupts, taken: 0 };
        unit.forget_contexts();
        unit.hardware.submit(DescriptorType::Iotlb as u64 | granularity::GLOBAL << GRANULARITY_SHIFT, 0);
        if remaps {
            unit.hardware.submit(DescriptorType::InterruptEntryCache as u64, 0);
        }
        unit.hardware.wait()?;
        unit.hardware.enable(remaps)?;
        Ok(unit)
    }

    /// Levels of the tables that it walks.
    #[must_use]
    pub fn levels(&self) -> u32 {
        levels(self.hardware.capability()).unwrap_or(4)
    }

    /// Whether it knows pages of 2 MiB.
    #[must_use]
    pub fn large_pages(&self) -> bool {
        self.hardware.capability() >> Capability::LARGE_PAGES_SHIFT & 1 != 0
    }

    /// Whether it remaps interrupts.
    #[must_use]
    pub fn remaps_interrupts(&self) -> bool {
        self.interrupts.is_some()
    }

    /// Whether it posts interrupts.
    #[must_use]
    pub fn posts(&self) -> bool {
        self.interrupts.is_some() && self.hardware.capability() & Capability::POSTED_INTERRUPTS != 0
    }

    /// Whether there can be a domain of this number.
    #[must_use]
    pub fn has_domain(&self, number: u16) -> bool {
        let bits = 4 + 2 * (self.hardware.capability() >> Capability::DOMAINS_SHIFT & 7);
        u64::from(number) >> bits == 0
    }

    /// The context entry of `source`: its table, made where it is missing, and its first word.
    fn context(&mut self, pages: &dyn Pages, source: u16) -> Option<(&'static Page, usize)> {
        let bus = (source >> 8) as u8;
        let table = match self.contexts.get(&bus) {
            Some(table) => *table,
            None => {
                let table = pages.page()?;
                self.contexts.insert(bus, table);
                self.root.0[2 * usize::from(bus)].store(table.address() | PRESENT, Ordering::SeqCst);
                table
            }
        };
        Some((table, 2 * usize::from(source & 0xff)))
    }

    /// Puts a function into the domain `number`, whose tables of [`Self::levels`] levels begin at `top`.
    ///
    /// # Errors
    /// When there is no memory, or the unit does not carry out an invalidation.
    pub fn attach(&mut self, pages: &dyn Pages, source: u16, number: u16, top: u64) -> Result<(), Refusal> {
        let width = u64::from(self.levels() - 2);
        let (table, word) = self.context(pages, source).ok_or("there is no memory for its tables")?;
        table.0[word + 1].store(u64::from(number) << context::DOMAIN_SHIFT | width, Ordering::SeqCst);
        let kind = context::TYPE_SECOND_STAGE << context::TYPE_SHIFT;
        table.0[word].store(top | kind | PRESENT, Ordering::SeqCst);
        self.forget_contexts();
        self.forget_domain(number)
    }

    /// Takes a function out of its domain: nothing that it asks for reaches memory.
    ///
    /// # Errors
    /// When the unit does not carry out an invalidation.
    pub fn detach(&mut self, pages: &dyn Pages, source: u16, number: u16) -> Result<(), Refusal> {
        if let Some((table, word)) = self.context(pages, source) {
            table.0[word].store(0, Ordering::SeqCst);
            table.0[word + 1].store(0, Ordering::SeqCst);
        }
        self.forget_contexts();
        self.forget_domain(number)
    }

    fn forget_contexts(&mut self) {
        self.hardware.submit(DescriptorType::ContextCache as u64 | granularity::GLOBAL << GRANULARITY_SHIFT, 0);
    }

    /// Invalidates what the unit keeps of a domain's tables.
    ///
    /// # Errors
    /// When the unit does not carry it out.
    pub fn forget_domain(&mut self, number: u16) -> Result<(), Refusal> {
        let domain = u64::from(number) << DOMAIN_SHIFT;
        self.hardware.submit(DescriptorType::Iotlb as u64 | granularity::DOMAIN << GRANULARITY_SHIFT | domain, 0);
        self.hardware.wait()
    }

    /// Takes `count` entries of the interrupt-remapping table, one after the other; the first one's index.
    #[must_use]
    pub fn take_entries(&mut self, count: u16) -> Option<u16> {
        let first = self.taken;
        self.taken = first.checked_add(count).filter(|end| *end <= ENTRIES && self.interrupts.is_some())?;
        Some(first)
    }

    /// Writes an entry of the interrupt-remapping table.
    ///
    /// # Errors
    /// When there is none of that index, or the unit does not carry out an invalidation.
    pub fn set_entry(&mut self, index: u16, entry: RemappingEntry) -> Result<(), Refusal> {
        let table = self.interrupts.filter(|_| index < ENTRIES).ok_or("it remaps no such interrupt")?;
        let word = 2 * usize::from(index);
        let [low, high] = [0, 1].map(|n| &table.0[word + n]);
        if (low.load(Ordering::SeqCst), high.load(Ordering::SeqCst)) == (entry.low, entry.high) {
            return Ok(());
        }
        // The unit reads both halves at once: no mixture of two entries is ever present.
        low.store(0, Ordering::SeqCst);
        high.store(entry.high, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        low.store(entry.low, Ordering::SeqCst);
        let descriptor = DescriptorType::InterruptEntryCache as u64 | interrupt_entry::SELECTIVE;
        self.hardware.submit(descriptor | u64::from(index) << interrupt_entry::INDEX_SHIFT, 0);
        self.hardware.wait()
    }

    /// The oldest fault.
    pub fn take_fault(&mut self) -> Option<FaultRecord> {
        self.hardware.take_fault()
    }

    /// Whether faults have been lost since this was asked last.
    pub fn take_overflow(&mut self) -> bool {
        self.hardware.take_overflow()
    }
}

/// The levels of the tables that a unit walks: 4 where it can, since extended page tables have 4.
fn levels(capability: u64) -> Option<u32> {
    let widths = capability >> Capability::WIDTHS_SHIFT & 0x1f;
    [4, 3].into_iter().find(|levels| widths >> (levels - 2) & 1 != 0)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::TestPages;
    use alloc::sync::Arc;
    use spin::Mutex;
    use std::vec::Vec;

    /// What a unit was told: its tables, its invalidations.
    #[derive(Debug, Default)]
    pub(crate) struct Told {
        pub tables: (u64, Option<u64>),
        pub enabled: bool,
        pub submitted: Vec<u64>,
        pub faults: Vec<FaultRecord>,
    }

    pub(crate) struct TestHardware {
        pub told: Arc<Mutex<Told>>,
        pub capability: u64,
        pub extended: u64,
    }

    /// What our machine's unit has by default.
    pub(crate) const CAPABILITY: u64 = 6 | 6 << 8 | 3 << 34 | Capability::POSTED_INTERRUPTS;
    pub(crate) const EXTENDED: u64 = ExtendedCapability::COHERENT
        | ExtendedCapability::QUEUED_INVALIDATION
        | ExtendedCapability::INTERRUPT_REMAPPING;

    impl TestHardware {
        pub(crate) fn new() -> Self {
            Self { told: Arc::default(), capability: CAPABILITY, extended: EXTENDED }
        }
    }

    impl Hardware for TestHardware {
        fn capability(&self) -> u64 {
            self.capability
        }
        fn extended_capability(&self) -> u64 {
            self.extended
        }
        fn start(&mut self, root: u64, interrupts: Option<u64>, _: Message) -> Result<(), Refusal> {
            self.told.lock().tables = (root, interrupts);
            Ok(())
        }
        fn enable(&mut self, _: bool) -> Result<(), Refusal> {
            self.told.lock().enabled = true;
            Ok(())
        }
        fn submit(&mut self, first: u64, _: u64) {
            self.told.lock().submitted.push(first);
        }
        fn wait(&mut self) -> Result<(), Refusal> {
            Ok(())
        }
        fn take_fault(&mut self) -> Option<FaultRecord> {
            self.told.lock().faults.pop()
        }
        fn take_overflow(&mut self) -> bool {
            false
        }
    }

    fn unit(hardware: TestHardware) -> Result<Unit, Refusal> {
        Unit::new(Box::new(hardware), &TestPages, (0xfee0_0000, 0xf7))
    }

    fn word(page: &Page, n: usize) -> u64 {
        page.0[n].load(Ordering::SeqCst)
    }

    #[test]
    fn nothing_is_enabled_before_the_caches_are_empty() {
        let hardware = TestHardware::new();
        let told = Arc::clone(&hardware.told);
        let unit = unit(hardware).unwrap();
        let told = told.lock();
        assert_eq!(told.submitted, [0x11, 0x12, 0x4]);
        assert_eq!(told.tables, (unit.root.address(), unit.interrupts.map(|table| table.address() | 7)));
        assert!(told.enabled && unit.root.0.iter().all(|word| word.load(Ordering::SeqCst) == 0));
    }

    #[test]
    fn a_unit_that_cannot_do_it_is_refused() {
        for (capability, extended, word) in [
            (CAPABILITY, EXTENDED & !ExtendedCapability::QUEUED_INVALIDATION, "queued"),
            (CAPABILITY, EXTENDED & !ExtendedCapability::COHERENT, "caches"),
            (CAPABILITY & !(0x1f << 8), EXTENDED, "levels"),
        ] {
            let refusal = unit(TestHardware { capability, extended, ..TestHardware::new() }).err().unwrap();
            assert!(refusal.contains(word), "{refusal}");
        }
        let narrow = TestHardware { capability: CAPABILITY & !(0x1f << 8) | 2 << 8, ..TestHardware::new() };
        assert_eq!(unit(narrow).unwrap().levels(), 3);
        let plain =
            TestHardware { extended: EXTENDED & !ExtendedCapability::INTERRUPT_REMAPPING, ..TestHardware::new() };
        let mut plain = unit(plain).unwrap();
        assert!(!plain.remaps_interrupts() && !plain.posts() && plain.take_entries(1).is_none());
    }

    #[test]
    fn a_context_entry_is_there_between_attaching_and_detaching() {
        let hardware = TestHardware::new();
        let told = Arc::clone(&hardware.told);
        let mut unit = unit(hardware).unwrap();
        told.lock().submitted.clear();
        unit.attach(&TestPages, 0x128, 5, 0x1234_5000).unwrap();
        let table = unit.contexts[&1];
        assert_eq!(word(unit.root, 2), table.address() | 1);
        assert_eq!((word(table, 0x50), word(table, 0x51)), (0x1234_5001, 5 << 8 | 2));
        // Contexts, then the domain.
        assert_eq!(told.lock().submitted, [0x11, 0x5_0022]);
        unit.detach(&TestPages, 0x128, 5).unwrap();
        assert_eq!((word(table, 0x50), word(table, 0x51)), (0, 0));
        assert_eq!(told.lock().submitted, [0x11, 0x5_0022, 0x11, 0x5_0022]);
    }

    #[test]
    fn entries_of_the_interrupt_table_are_taken_once_and_told_to_the_unit() {
        let hardware = TestHardware::new();
        let told = Arc::clone(&hardware.told);
        let mut unit = unit(hardware).unwrap();
        assert_eq!((unit.take_entries(3), unit.take_entries(1)), (Some(0), Some(3)));
        assert_eq!(unit.take_entries(253), None);
        told.lock().submitted.clear();
        let entry = RemappingEntry::posted(0x61, 0x1000, 0x28);
        unit.set_entry(3, entry).unwrap();
        unit.set_entry(3, entry).unwrap();
        let table = unit.interrupts.unwrap();
        assert_eq!((word(table, 6), word(table, 7)), (entry.low, entry.high));
        assert_eq!(told.lock().submitted, [0x3_0000_0014]);
        assert!(unit.set_entry(ENTRIES, entry).is_err());
    }
}
