//! The software TLB's part for fetches: of one context, from linear pages to guest RAM.
//!
//! It keeps every page until that is flushed, unlike the tables for data. The run loops remember blocks and translations by their addresses, and need
//! not be told of pages that had to give way. It is asked only where those do not know.

use rustc_hash::FxHashMap;

/// Pages of one context; with more, all are dropped.
const MOST: usize = 1 << 16;
const PAGE_MASK: u64 = !0xfff;
/// Of a key: the page is the user's.
const OF_USER: u64 = 1;

/// The pages of one context from which code was fetched.
#[derive(Clone, Debug, Default)]
pub(super) struct Fetches {
    /// From the page's linear address and privilege to its offset in RAM.
    pages: FxHashMap<u64, u64>,
}

fn key(user: bool, address: u64) -> u64 {
    address & PAGE_MASK | if user { OF_USER } else { 0 }
}

impl Fetches {
    /// The RAM offset of the byte at `address`.
    pub(super) fn find(&self, user: bool, address: u64) -> Option<u64> {
        Some(*self.pages.get(&key(user, address))? | address & !PAGE_MASK)
    }

    /// Enters the page of `address`, which lies in the RAM page of `offset`. False when there are too many.
    pub(super) fn insert(&mut self, user: bool, address: u64, offset: u64) -> bool {
        if self.pages.len() >= MOST {
            return false;
        }
        self.pages.insert(key(user, address), offset & PAGE_MASK);
        true
    }

    /// Forgets the page of `address`.
    pub(super) fn forget(&mut self, address: u64) {
        for user in [false, true] {
            self.pages.remove(&key(user, address));
        }
    }

    /// Forgets the pages whose address is `base` under `mask`.
    pub(super) fn forget_range(&mut self, base: u64, mask: u64) {
        self.pages.retain(|key, _| key & mask & PAGE_MASK != base);
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.pages.clear();
    }

    /// For each page, in no order: whether it is the user's, its linear address, its offset in RAM.
    pub(super) fn contents(&self) -> impl Iterator<Item = (bool, u64, u64)> {
        self.pages.iter().map(|(key, offset)| (key & OF_USER != 0, key & PAGE_MASK, *offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_refused_until_all_is_dropped() {
        let mut fetches = Fetches::default();
        assert!((0..MOST as u64).all(|page| fetches.insert(true, page << 12, 0x5000)));
        assert!(!fetches.insert(true, 1 << 50, 0x5000));
        assert_eq!((fetches.find(true, 0x1234), fetches.find(false, 0x1234)), (Some(0x5234), None));
        fetches.clear();
        assert!(fetches.insert(true, 1 << 50, 0x5000) && fetches.find(true, 0x1234).is_none());
    }

    #[test]
    fn a_range_is_forgotten_and_no_more() {
        let mut fetches = Fetches::default();
        for page in [0x20_0000, 0x3f_f000, 0x40_0000] {
            fetches.insert(false, page, page);
        }
        fetches.forget_range(0x20_0000, !0x1f_ffff);
        assert_eq!(fetches.contents().collect::<Vec<_>>(), [(false, 0x40_0000, 0x40_0000)]);
        fetches.forget(0x40_0123);
        assert_eq!(fetches.contents().count(), 0);
    }
}
