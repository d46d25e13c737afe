//! Where jumps to other pages lead: from linear addresses to translations, for all contexts together.
//!
//! Translations hold for a page of RAM and a kind of code; these have a number. Each state block tells for a linear page, which page of code its fetches
//! found there since it was last flushed ([`super::state::State::fetched`]): what is to be added to a linear address for its *place*, which is the number
//! of that page with the offset in it. What is flushed is that table alone; the rest is shared by all contexts.
//!
//! * A jump whose distance is known is linked: its code has the place that its target had, and goes there if it is still that one's. So it reads one
//!   entry, which it shares with all jumps to that page.
//! * Others, above all returns, look into a table by the target's linear address, which is faster than by the place that has to be looked up first. A
//!   target of the table has sixteen bytes, for four bytes of code: its place, which tells the linear page and the page of code at once, and the
//!   translation. Each has a second slot, for a target that had to give way.
//!
//! Control arrives [`LEAD`] bytes before the entry, with the target in R14, from which the page's linear address is taken. What reaches into a second page
//! checks there that this is still in its place.
#![allow(unsafe_code)]

use crate::memory::ram::PAGE_SIZE;
use memmap2::{MmapMut, MmapOptions};
use rustc_hash::{FxHashMap, FxHashSet};
use std::io;

/// Entries of linear pages in [`super::state::State::fetched`].
pub(super) const PAGES: usize = 1 << 14;
/// Every place is below this, and linear pages that share an entry are as far from each other, or farther: so a wrong page never looks like the right
/// one.
const RANGE: u64 = PAGES as u64 * PAGE_SIZE;
/// The number of no page, of whose places there is no target. Nor is there of page 0, for a slot without a target has place 0.
pub(super) const NONE: u64 = PAGES as u64 - 1;
/// First slots of a table; each has a second one, for a target that had to give way.
const JUMPS: usize = 1 << 15;
/// Bits of a target that do not count for its slot.
pub(super) const SHIFT: u32 = 2;
/// The bits that do.
pub(super) const INDEX: u64 = (JUMPS as u64 - 1) << SHIFT;
/// Bytes of a slot: the negated place, and where to go.
const SLOT: usize = 16;
/// From a slot to where to go.
pub(super) const LEADS_TO: i32 = 8;
/// From a first slot to the second one.
pub(super) const SECOND: i32 = (JUMPS * SLOT) as i32;
/// Tables: what runs at the same addresses, and not for the same, has tables of its own.
const TABLES: usize = 4;
/// Bytes of code before an entry, for who comes from another page.
pub(super) const LEAD: u64 = 16;

/// What has a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct CodePage {
    /// Where it is in RAM.
    pub offset: u64,
    /// See [`crate::decode::cache::BlockKind`].
    pub code_size: u8,
    /// The same.
    pub locks: bool,
}

/// The entry of a linear page in [`super::state::State::fetched`].
pub(super) fn entry_of(linear: u64) -> usize {
    (linear / PAGE_SIZE) as usize % PAGES
}

/// That entry, for a page of code.
pub(super) fn fetched(linear: u64, number: u64) -> u64 {
    (number * PAGE_SIZE).wrapping_sub(linear & !(PAGE_SIZE - 1))
}

/// The place of a byte of code, to which a page's number was given.
pub(super) fn place(linear: u64, number: u64) -> u64 {
    number * PAGE_SIZE + linear % PAGE_SIZE
}

/// A jump of known distance in the code.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site {
    /// The end of the doubleword that is the target's negated place.
    pub place: u64,
    /// The end of the jump that is taken then.
    pub jump: u64,
    /// Where that goes if it is not linked.
    pub unlinked: u64,
    /// The entry that it is linked to, or 0.
    pub entry: u64,
}

/// What is to be written into the code: a doubleword, and where it ends.
pub(super) type Patch = (u64, u32);

fn displacement(end: u64, target: u64) -> Patch {
    (end, target.wrapping_sub(end) as u32)
}

/// Which table of targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Table {
    /// Code of users.
    pub user: bool,
    /// In VMX non-root operation.
    pub non_root: bool,
}

impl Table {
    /// Where it begins among all.
    fn start(self) -> usize {
        (usize::from(self.user) + 2 * usize::from(self.non_root)) * 2 * JUMPS * SLOT
    }

    /// Where the slots of a target are, the first one first.
    fn slots(self, linear: u64) -> [usize; 2] {
        let first = self.start() + ((linear & INDEX) >> SHIFT) as usize * SLOT;
        [first, first + SECOND as usize]
    }
}

/// The tables of targets, the numbers of pages, and the jumps that may be linked.
pub(super) struct Jumps {
    memory: MmapMut,
    numbers: FxHashMap<CodePage, u64>,
    sites: Vec<Site>,
    /// The sites that are linked to an entry.
    linked: FxHashMap<u64, Vec<u32>>,
    /// Entries of void translations, of which the tables may still tell.
    void: FxHashSet<u64>,
}

impl Jumps {
    /// Empty ones.
    ///
    /// # Errors
    /// When the host refuses the memory.
    pub(super) fn new() -> io::Result<Self> {
        let memory = MmapOptions::new().len(TABLES * 2 * JUMPS * SLOT).no_reserve_swap().map_anon()?;
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        Ok(Self {
            memory,
            numbers: FxHashMap::default(),
            sites: Vec::new(),
            linked: FxHashMap::default(),
            void: FxHashSet::default(),
        })
    }

    /// No address of a translation is valid any more, nor is any number.
    pub(super) fn forget(&mut self) {
        self.memory.fill(0);
        self.numbers.clear();
        self.sites.clear();
        self.linked.clear();
        self.void.clear();
    }

    /// There may be no more numbers for a block, which may be in two pages.
    pub(super) fn full(&self) -> bool {
        self.numbers.len() as u64 + 2 >= NONE
    }

    /// Where a table is.
    pub(super) fn table(&self, table: Table) -> u64 {
        self.memory.as_ptr() as u64 + table.start() as u64
    }

    /// The number of a page, if it has one.
    pub(super) fn number(&self, page: CodePage) -> Option<u64> {
        self.numbers.get(&page).copied()
    }

    /// The number of a page, given now if it has none; `None` if there are no more.
    pub(super) fn give_number(&mut self, page: CodePage) -> Option<u64> {
        if let Some(number) = self.number(page) {
            return Some(number);
        }
        let number = self.numbers.len() as u64 + 1;
        if number >= NONE {
            return None;
        }
        self.numbers.insert(page, number);
        Some(number)
    }

    fn slot(&self, at: usize) -> [u64; 2] {
        [at, at + LEADS_TO as usize].map(|at| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&self.memory[at..at + 8]);
            u64::from_ne_bytes(bytes)
        })
    }

    fn put(&mut self, at: usize, slot: [u64; 2]) {
        for (at, value) in [at, at + LEADS_TO as usize].into_iter().zip(slot) {
            self.memory[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        }
    }

    /// Enters the translation of the target at `linear`, whose place is `place`.
    pub(super) fn enter(&mut self, table: Table, linear: u64, place: u64, entry: u64) {
        let [first, second] = table.slots(linear);
        let negated = place.wrapping_neg();
        let new = [negated, entry.wrapping_sub(LEAD)];
        if self.slot(second)[0] == negated {
            return self.put(second, new);
        }
        let old = self.slot(first);
        if old[0] != 0 && old[0] != negated {
            self.put(second, old);
        }
        self.put(first, new);
    }

    /// The translation of the target at `linear`, if it is there and holds.
    pub(super) fn find(&self, table: Table, linear: u64, place: u64) -> Option<u64> {
        if place == 0 || place >= RANGE {
            return None;
        }
        let negated = place.wrapping_neg();
        let slots = table.slots(linear).map(|slot| self.slot(slot));
        let entry = slots.into_iter().find(|slot| slot[0] == negated)?[1] + LEAD;
        (!self.void.contains(&entry)).then_some(entry)
    }

    /// The number of the next jump to be added.
    pub(super) fn next_site(&self) -> u32 {
        self.sites.len() as u32
    }

    /// Adds jumps that are not linked, in the order of their numbers.
    pub(super) fn add_sites(&mut self, sites: &[Site]) {
        self.sites.extend_from_slice(sites);
    }

    /// The jump with this number is to go to the translation at `entry` of the target at `place`.
    pub(super) fn link(&mut self, site: u32, place: u64, entry: u64) -> Option<[Patch; 2]> {
        let known = self.sites.get_mut(site as usize)?;
        let old = std::mem::replace(&mut known.entry, entry);
        let Site { place: at, jump, .. } = *known;
        if old != entry {
            if let Some(sites) = self.linked.get_mut(&old) {
                sites.retain(|&other| other != site);
            }
            self.linked.entry(entry).or_default().push(site);
        }
        Some([(at, (place as u32).wrapping_neg()), displacement(jump, entry - LEAD)])
    }

    /// The translation at `entry` is void: so are the jumps that were linked to it.
    pub(super) fn remove(&mut self, entry: u64) -> Vec<Patch> {
        self.void.insert(entry);
        let mut patches = Vec::new();
        for number in self.linked.remove(&entry).unwrap_or_default() {
            if let Some(site) = self.sites.get_mut(number as usize) {
                site.entry = 0;
                patches.push(displacement(site.jump, site.unlinked));
            }
        }
        patches
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: CodePage = CodePage { offset: 0x7000, code_size: 2, locks: false };
    const BASE: u64 = 0x7f12_3456_7000;
    const TABLE: Table = Table { user: true, non_root: false };

    #[test]
    fn a_page_keeps_its_number_and_shares_it_with_no_other() {
        let mut jumps = Jumps::new().unwrap();
        assert_eq!(jumps.number(PAGE), None);
        let number = jumps.give_number(PAGE).unwrap();
        assert!(number > 0);
        for other in
            [CodePage { offset: 0x8000, ..PAGE }, CodePage { code_size: 1, ..PAGE }, CodePage { locks: true, ..PAGE }]
        {
            assert_ne!(jumps.give_number(other), Some(number));
        }
        assert_eq!((jumps.number(PAGE), jumps.give_number(PAGE)), (Some(number), Some(number)));
        let mut given = 4;
        while !jumps.full() {
            for _ in 0..2 {
                given += 1;
                assert_eq!(jumps.give_number(CodePage { offset: given << 20, ..PAGE }), Some(given));
                assert!(given < NONE);
            }
        }
        while jumps.numbers.len() as u64 + 1 < NONE {
            given += 1;
            assert!(jumps.give_number(CodePage { offset: given << 20, ..PAGE }).is_some());
        }
        assert_eq!(jumps.give_number(CodePage { offset: 1, ..PAGE }), None);
        jumps.forget();
        assert_eq!(jumps.number(PAGE), None);
    }

    #[test]
    fn a_target_is_found_in_its_table_until_all_are_forgotten() {
        let mut jumps = Jumps::new().unwrap();
        let number = jumps.give_number(PAGE).unwrap();
        let (linear, entry) = (0x40_1234, |number: u64| BASE + 16 * number);
        let of = |linear| place(linear, number);
        assert_eq!(jumps.find(TABLE, 0, 0), None, "zeroes are no target");
        jumps.enter(TABLE, linear, of(linear), entry(9));
        assert_eq!(jumps.find(TABLE, linear, of(linear)), Some(entry(9)));
        assert_eq!(jumps.find(TABLE, linear, of(linear) + RANGE), None, "of another linear page");
        assert_eq!(jumps.find(TABLE, linear, place(linear, number + 1)), None);
        assert_eq!(jumps.find(TABLE, linear + 1, of(linear + 1)), None);
        assert_eq!(jumps.find(Table { user: false, ..TABLE }, linear, of(linear)), None);
        let other = |times: u64| {
            let linear = linear + times * ((JUMPS as u64) << SHIFT);
            (linear, place(linear, number + times))
        };
        let enter = |jumps: &mut Jumps, times, entry| jumps.enter(TABLE, other(times).0, other(times).1, entry);
        let find = |jumps: &Jumps, times| jumps.find(TABLE, other(times).0, other(times).1);
        enter(&mut jumps, 1, entry(10));
        assert_eq!((find(&jumps, 0), find(&jumps, 1)), (Some(entry(9)), Some(entry(10))));
        enter(&mut jumps, 0, entry(8));
        assert_eq!((find(&jumps, 0), find(&jumps, 1)), (Some(entry(8)), Some(entry(10))));
        enter(&mut jumps, 2, entry(11));
        assert_eq!((find(&jumps, 0), find(&jumps, 2)), (None, Some(entry(11))), "the older one is gone");
        jumps.remove(entry(11));
        assert_eq!(find(&jumps, 2), None, "it is void");
        enter(&mut jumps, 2, entry(12));
        assert_eq!(find(&jumps, 2), Some(entry(12)));
        jumps.forget();
        assert_eq!(find(&jumps, 2), None);
    }

    /// By what a state block has for one linear page, no other one has the place of any code.
    #[test]
    fn a_wrong_page_has_no_place() {
        for (linear, number) in [(0x40_1000, 1), (0xffff_ffff_8100_0000, NONE - 1), (0x40_1000, NONE)] {
            for pages in [1i64, -1, 2, 32, 1 << 20, -(1 << 20), 1 << 36] {
                let wrong = u64::wrapping_add_signed(linear, pages * RANGE as i64) + 0x123;
                assert_eq!(entry_of(wrong), entry_of(linear));
                assert!(fetched(linear, number).wrapping_add(wrong) >= RANGE);
            }
            assert_eq!(fetched(linear, number).wrapping_add(linear + 0x123), place(linear + 0x123, number));
        }
    }

    #[test]
    fn what_is_void_is_linked_to_by_nobody() {
        let mut jumps = Jumps::new().unwrap();
        assert_eq!(jumps.next_site(), 0);
        let (first, second) = (0, 1);
        jumps.add_sites(&[
            Site { place: 0x1000, jump: 0x1010, unlinked: 0x9000, entry: 0 },
            Site { place: 0x2000, jump: 0x2010, unlinked: 0x9100, entry: 0 },
        ]);
        let linked = jumps.link(first, 0x5678, 0x3010);
        assert_eq!(linked, Some([(0x1000, 0x5678u32.wrapping_neg()), (0x1010, 0x3000 - 0x1010)]));
        jumps.link(second, 0x5678, 0x3010).unwrap();
        assert_eq!(jumps.remove(0x3010), [(0x1010, 0x9000 - 0x1010), (0x2010, 0x9100 - 0x2010)]);
        assert_eq!(jumps.remove(0x3010), []);
        jumps.link(first, 0x5678, 0x3010).unwrap();
        jumps.link(first, 0x6678, 0x4010).unwrap();
        assert_eq!(jumps.remove(0x3010), []);
        assert_eq!(jumps.remove(0x4010).len(), 1);
        jumps.forget();
        assert_eq!(jumps.link(first, 0x5678, 0x3010), None);
    }
}
