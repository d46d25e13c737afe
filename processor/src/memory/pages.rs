//! The software TLB's whole: of one context, the pages that were walked to for loads and stores, and what they allow.
//!
//! It keeps every page until that is flushed; the tables that accesses look at hold part of it, and are filled from here without a walk. So which
//! accesses walk page tables, and set accessed and dirty bits, does not depend on which pages share a place there, on code that is found in a page, or
//! on how a run is cut.

use super::tlb::Rights;
use rustc_hash::FxHashMap;

/// Pages of one context; with more, all are dropped.
const MOST: usize = 1 << 16;
const PAGE_MASK: u64 = !0xfff;
const CLASSES: usize = super::tlb::CLASSES;
const READ: u64 = 1;
const WRITE: u64 = 2;

/// The pages of one context.
#[derive(Clone, Debug, Default)]
pub(super) struct Pages {
    /// From the page's linear address and access class to its offset in RAM and rights.
    pages: FxHashMap<u64, u64>,
}

fn key(class: usize, address: u64) -> u64 {
    address & PAGE_MASK | class as u64
}

impl Pages {
    /// The RAM offset of the byte at `address`, and what may be done there.
    pub(super) fn find(&self, class: usize, address: u64) -> Option<(u64, Rights)> {
        let value = *self.pages.get(&key(class, address))?;
        let rights = Rights { read: value & READ != 0, write: value & WRITE != 0, execute: false };
        Some((value & PAGE_MASK | address & !PAGE_MASK, rights))
    }

    /// Enters the page of `address`, which lies in the RAM page of `offset`. False when there are too many.
    pub(super) fn insert(&mut self, class: usize, address: u64, offset: u64, rights: Rights) -> bool {
        if self.pages.len() >= MOST {
            return false;
        }
        let bits = (if rights.read { READ } else { 0 }) | (if rights.write { WRITE } else { 0 });
        self.pages.insert(key(class, address), offset & PAGE_MASK | bits);
        true
    }

    /// Forgets the page of `address`.
    pub(super) fn forget(&mut self, address: u64) {
        for class in 0..CLASSES {
            self.pages.remove(&key(class, address));
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_the_rights_of_its_class() {
        let (some, all) =
            (Rights { read: true, ..Rights::default() }, Rights { read: true, write: true, execute: false });
        let mut pages = Pages::default();
        pages.insert(0, 0x1234, 0x5678, all);
        pages.insert(2, 0x1000, 0x5000, some);
        assert_eq!(pages.find(0, 0x1010), Some((0x5010, all)));
        assert_eq!(pages.find(2, 0x1010), Some((0x5010, some)));
        assert_eq!(pages.find(1, 0x1010), None);
        pages.forget(0x1fff);
        assert_eq!((pages.find(0, 0x1010), pages.find(2, 0x1010)), (None, None));
    }

    #[test]
    fn what_is_too_much_is_refused_until_all_is_dropped() {
        let mut pages = Pages::default();
        assert!((0..MOST as u64).all(|page| pages.insert(0, page << 12, 0, Rights::default())));
        assert!(!pages.insert(0, 1 << 50, 0, Rights::default()));
        pages.clear();
        assert!(pages.insert(0, 1 << 50, 0, Rights::default()));
    }
}
