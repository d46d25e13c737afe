//! Where jumps to other pages lead: from linear addresses to translations, for all contexts together.
//!
//! Translations hold for a page of RAM, and most contexts have a page of code at the same linear address: the kernel's, a library's, what a process had
//! before it forked. So an entry belongs to a linear page, the RAM page that it led to, and the kind of code: these have a number. It counts
//! in every context whose fetches found that page there since they were last flushed: each state block has a table of the numbers of such pages
//! ([`super::state::State::fetched`]), at a place that the number names. What is flushed is that table alone.
//!
//! Emitted code knows an entry by `offset_of!`; so the tables are raw memory.
#![allow(unsafe_code)]

use crate::memory::ram::PAGE_SIZE;
use core::mem::offset_of;
use memmap2::{MmapMut, MmapOptions};
use rustc_hash::FxHashMap;
use std::io;

/// First places of a table; each has a second one, for a target that had to give way.
pub(super) const JUMPS: usize = 1 << 15;
/// Bits of a target that do not count for its place: no two targets are in so few bytes.
pub(super) const SHIFT: u32 = 2;
/// Bytes of an entry, as a power of two.
pub(super) const SIZE_SHIFT: u32 = 5;
const _: () = assert!(size_of::<Jump>() == 1 << SIZE_SHIFT);
/// Tables: what runs at the same addresses, and not for the same, has tables of its own.
const TABLES: usize = 4;
/// Numbers of pages remembered; with more, all are forgotten, and pages get other ones.
const MOST: usize = 1 << 16;
/// Places of pages in [`super::state::State::fetched`].
const PAGES: u64 = 2048;
/// Further places, for two pages in turn that an instruction is in.
const PAIRS: u64 = 128;
/// All of them.
pub(super) const PLACES: usize = (PAGES + PAIRS) as usize;
/// A place in that table is so many bits of a number.
const PLACE_BITS: u32 = 16;

/// A jump target. Zeroes are none.
#[repr(C)]
pub(super) struct Jump {
    /// The target, negated.
    pub target: u64,
    /// Its translation.
    pub entry: u64,
    /// RIP of the first byte of its page.
    pub base: u64,
    /// The number of its page, or pages; their place in the lowest bits.
    pub page: u64,
}

/// Offsets in an entry.
pub(super) const TARGET: i32 = offset_of!(Jump, target) as i32;
pub(super) const ENTRY: i32 = offset_of!(Jump, entry) as i32;
pub(super) const BASE: i32 = offset_of!(Jump, base) as i32;
pub(super) const PAGE: i32 = offset_of!(Jump, page) as i32;
/// From a first place to the second one.
pub(super) const SECOND: i32 = (JUMPS * size_of::<Jump>()) as i32;

/// What has a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct CodePage {
    /// Linear address of the first byte.
    pub linear: u64,
    /// Where it is in RAM.
    pub offset: u64,
    /// Where the linear page after it is in RAM, for an instruction that reaches into that.
    pub second: Option<u64>,
    /// See [`crate::decode::cache::BlockKind`].
    pub code_size: u8,
    /// The same.
    pub locks: bool,
}

/// The place of a page's number.
pub(super) fn place(linear: u64) -> usize {
    (linear / PAGE_SIZE % PAGES) as usize
}

/// The same of a page together with the next one.
pub(super) fn place_of_pair(linear: u64) -> usize {
    (PAGES + linear / PAGE_SIZE % PAIRS) as usize
}

/// The place of a number.
pub(super) fn place_of(number: u64) -> usize {
    (number & ((1 << PLACE_BITS) - 1)) as usize
}

/// Tables of jump targets, with the numbers of pages.
pub(super) struct Jumps {
    memory: MmapMut,
    numbers: FxHashMap<CodePage, u64>,
    next: u64,
}

impl Jumps {
    /// Empty ones.
    ///
    /// # Errors
    /// When the host refuses the memory.
    pub(super) fn new() -> io::Result<Self> {
        let memory = MmapOptions::new().len(TABLES * 2 * JUMPS * size_of::<Jump>()).no_reserve_swap().map_anon()?;
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        Ok(Self { memory, numbers: FxHashMap::default(), next: 1 })
    }

    /// No address of a translation is valid any more. Pages keep their numbers.
    pub(super) fn forget(&mut self) {
        self.memory.fill(0);
    }

    /// The table for code of users, or of VMX non-root operation.
    pub(super) fn table(&mut self, user: bool, non_root: bool) -> *mut Jump {
        let number = usize::from(user) + 2 * usize::from(non_root);
        // SAFETY: within the mapping.
        unsafe { self.memory.as_mut_ptr().cast::<Jump>().add(number * 2 * JUMPS) }
    }

    /// The number of a page.
    pub(super) fn number(&mut self, page: CodePage) -> u64 {
        if let Some(&number) = self.numbers.get(&page) {
            return number;
        }
        if self.numbers.len() >= MOST {
            self.numbers.clear();
        }
        let place = if page.second.is_some() { place_of_pair(page.linear) } else { place(page.linear) };
        // In 48 bits there are enough for centuries.
        let number = (self.next << PLACE_BITS) | place as u64;
        self.next += 1;
        self.numbers.insert(page, number);
        number
    }
}

/// The places of `target` in `table`.
fn places(table: *mut Jump, target: u64) -> [*mut Jump; 2] {
    let first = table.wrapping_add((target >> SHIFT) as usize & (JUMPS - 1));
    [first, first.wrapping_add(JUMPS)]
}

impl Jump {
    fn is_of(&self, target: u64) -> bool {
        self.target == target.wrapping_neg() && self.page != 0
    }
}

/// Enters the translation of `target`, whose page has this number.
///
/// # Safety
/// `table` is one that [`Jumps::table`] gave, of tables that are there and not otherwise used now.
pub(super) unsafe fn enter(table: *mut Jump, target: u64, entry: u64, page: u64) {
    let jump = Jump { target: target.wrapping_neg(), entry, base: target & !(PAGE_SIZE - 1), page };
    // SAFETY: within the table, by the mask; they are two.
    let [first, second] = places(table, target).map(|place| unsafe { &mut *place });
    if second.is_of(target) {
        *second = jump;
    } else {
        let old = std::mem::replace(first, jump);
        if old.page != 0 && !old.is_of(target) {
            *second = old;
        }
    }
}

/// The translation of `target`, and the number of its page, if they are there.
///
/// # Safety
/// As of [`enter`].
pub(super) unsafe fn find(table: *mut Jump, target: u64) -> Option<(u64, u64)> {
    // SAFETY: as in `enter`.
    let jumps = places(table, target).map(|place| unsafe { &*place });
    jumps.into_iter().find(|jump| jump.is_of(target)).map(|jump| (jump.entry, jump.page))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: CodePage = CodePage { linear: 0x40_1000, offset: 0x7000, second: None, code_size: 2, locks: false };

    #[test]
    fn a_page_keeps_its_number_and_shares_it_with_no_other() {
        let mut jumps = Jumps::new().unwrap();
        let number = jumps.number(PAGE);
        for other in [
            CodePage { linear: 0x60_1000, ..PAGE },
            CodePage { offset: 0x8000, ..PAGE },
            CodePage { second: Some(0x8000), ..PAGE },
            CodePage { code_size: 1, ..PAGE },
            CodePage { locks: true, ..PAGE },
        ] {
            assert_ne!(jumps.number(other), number);
        }
        jumps.forget();
        assert_eq!(jumps.number(PAGE), number);
        assert_eq!(place_of(number), place(PAGE.linear));
        let pair = jumps.number(CodePage { second: Some(0x8000), ..PAGE });
        assert_eq!(place_of(pair), place_of_pair(PAGE.linear));
        for linear in 0..MOST as u64 {
            assert_ne!(jumps.number(CodePage { linear: linear * PAGE_SIZE, offset: 0, ..PAGE }), number);
        }
        assert_ne!(jumps.number(PAGE), number, "all were forgotten, and no number is given twice");
    }

    #[test]
    fn a_target_is_found_in_its_table_until_all_are_forgotten() {
        let mut jumps = Jumps::new().unwrap();
        let number = jumps.number(PAGE);
        let (ours, others) = (jumps.table(true, false), jumps.table(false, true));
        // SAFETY: tables that are there.
        let found = |table, target| unsafe { find(table, target) };
        assert_eq!(found(ours, 0), None, "zeroes are no target");
        // SAFETY: as before.
        unsafe { enter(ours, 0x40_1234, 0x99, number) };
        assert_eq!(found(ours, 0x40_1234), Some((0x99, number)));
        assert_eq!(found(ours, 0x40_1235), None);
        assert_eq!(found(others, 0x40_1234), None);
        let far = |times: u64| 0x40_1234 + times * ((JUMPS as u64) << SHIFT);
        // SAFETY: as before.
        unsafe { enter(ours, far(1), 0x9a, number) };
        assert_eq!((found(ours, far(0)), found(ours, far(1))), (Some((0x99, number)), Some((0x9a, number))));
        // SAFETY: as before.
        unsafe { enter(ours, far(0), 0x98, number) };
        assert_eq!((found(ours, far(0)), found(ours, far(1))), (Some((0x98, number)), Some((0x9a, number))));
        // SAFETY: as before.
        unsafe { enter(ours, far(2), 0x9b, number) };
        assert_eq!((found(ours, far(0)), found(ours, far(2))), (None, Some((0x9b, number))), "the older one is gone");
        jumps.forget();
        assert_eq!(found(ours, 0x40_1234), None);
    }
}
