//! A guest's extended page tables (SDM Vol. 3C, 29.3): its memory in pages of 2 MiB, and the registers of functions assigned to it. They are
//! the second-stage tables of its functions' domain too: VT-d (9.8) ignores the bits that it does not have in common with EPT.

use crate::memory::{PAGE, Page, Pages};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use spec::vmx::ept::EptEntry;

/// Bytes of a large page.
pub const LARGE: u64 = 2 << 20;

const WRITE_BACK: u64 = 6;
const UNCACHEABLE: u64 = 0;

/// Extended page tables of 4 levels.
#[derive(Debug)]
pub struct Ept {
    root: &'static Page,
    /// Every table, by its address.
    tables: BTreeMap<u64, &'static Page>,
    large_pages: bool,
    /// Pages mapped: small and large.
    mapped: [u64; 2],
    /// The guest-physical pages at which functions' registers are.
    registers: Vec<u64>,
}

impl Ept {
    /// Tables that map nothing. `large_pages`: the processor knows pages of 2 MiB.
    #[must_use]
    pub fn new(pages: &dyn Pages, large_pages: bool) -> Option<Self> {
        let root = pages.page()?;
        Some(Self { root, tables: BTreeMap::new(), large_pages, mapped: [0; 2], registers: Vec::new() })
    }

    /// The EPT pointer: a walk of 4 levels in write-back memory.
    #[must_use]
    pub fn pointer(&self) -> u64 {
        self.root.address() | 3 << 3 | WRITE_BACK
    }

    /// Pages mapped: of 4 KiB and of 2 MiB.
    #[must_use]
    pub fn mapped(&self) -> [u64; 2] {
        self.mapped
    }

    /// Tables in use.
    #[must_use]
    pub fn tables(&self) -> u64 {
        1 + self.tables.len() as u64
    }

    /// Maps `size` bytes of guest-physical memory at `guest` to physical memory at `host`, for everything. False: there are no pages left
    /// for tables, or an address is on no page boundary.
    pub fn map(&mut self, pages: &dyn Pages, guest: u64, host: u64, size: u64) -> bool {
        if !(guest | host | size).is_multiple_of(PAGE) {
            return false;
        }
        let mut at = 0;
        while at < size {
            let (from, to) = (guest + at, host + at);
            let large = self.large_pages && (from | to).is_multiple_of(LARGE) && size - at >= LARGE;
            let (level, step, kind) = if large { (1, LARGE, EptEntry::PAGE) } else { (0, PAGE, 0) };
            let Some(table) = self.table(pages, from, level) else { return false };
            let entry = to | EptEntry::PERMISSIONS | kind | WRITE_BACK << EptEntry::MEMORY_TYPE_SHIFT;
            table.0[index(from, level)].store(entry, Ordering::Relaxed);
            self.mapped[usize::from(large)] += 1;
            at += step;
        }
        true
    }

    /// Maps the page of a function's registers at `host`. False: there are no pages left for tables, or memory is there.
    pub fn map_registers(&mut self, pages: &dyn Pages, guest: u64, host: u64) -> bool {
        let Some(table) = self.table(pages, guest, 0) else { return false };
        let entry = host | EptEntry::PERMISSIONS | UNCACHEABLE << EptEntry::MEMORY_TYPE_SHIFT;
        // Another vCPU may have been faster.
        if table.0[index(guest, 0)].swap(entry, Ordering::Relaxed) == 0 {
            self.registers.push(guest);
        }
        true
    }

    /// Takes out what [`Self::map_registers`] has mapped; whether there was anything. What processors keep of it is to be invalidated.
    pub fn unmap_registers(&mut self) -> bool {
        let pages = core::mem::take(&mut self.registers);
        for guest in &pages {
            if let Some(table) = self.find(*guest, 0) {
                table.0[index(*guest, 0)].store(0, Ordering::Relaxed);
            }
        }
        !pages.is_empty()
    }

    /// The address of the top table for a walk of `levels` levels, 3 or 4, of a remapping unit. `None`: there is no page left for it.
    pub fn second_stage(&mut self, pages: &dyn Pages, levels: u32) -> Option<u64> {
        Some(self.table(pages, 0, levels - 1)?.address())
    }

    /// The table at `level` (0: entries map 4 KiB) that `guest` goes through; makes those that are missing.
    fn table(&mut self, pages: &dyn Pages, guest: u64, level: u32) -> Option<&'static Page> {
        let mut table = self.root;
        for above in (level + 1..4).rev() {
            let entry = &table.0[index(guest, above)];
            let bits = entry.load(Ordering::Relaxed);
            table = if bits == 0 {
                let new = pages.page()?;
                self.tables.insert(new.address(), new);
                entry.store(new.address() | EptEntry::PERMISSIONS, Ordering::Relaxed);
                new
            } else {
                // A large page is never split: what is mapped small is mapped before.
                self.tables.get(&(bits & EptEntry::ADDRESS))?
            };
        }
        Some(table)
    }

    /// The table at `level` that `guest` goes through, if there is one.
    fn find(&self, guest: u64, level: u32) -> Option<&'static Page> {
        (level + 1..4).rev().try_fold(self.root, |table, above| {
            let bits = table.0[index(guest, above)].load(Ordering::Relaxed);
            self.tables.get(&(bits & EptEntry::ADDRESS)).copied()
        })
    }

    /// Where `guest` leads to.
    #[cfg(test)]
    pub(crate) fn walk(&self, guest: u64) -> Option<u64> {
        for level in (0..4).rev() {
            let entry = self.find(guest, level)?.0[index(guest, level)].load(Ordering::Relaxed);
            if entry & EptEntry::PERMISSIONS == 0 {
                return None;
            }
            let low = (1 << (12 + 9 * level)) - 1;
            if level == 0 || entry & EptEntry::PAGE != 0 {
                return Some(entry & EptEntry::ADDRESS & !low | guest & low);
            }
        }
        None
    }
}

fn index(address: u64, level: u32) -> usize {
    (address >> (12 + 9 * level)) as usize & 511
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestPages;

    #[test]
    fn a_guest_sees_its_memory_and_nothing_else() {
        let mut ept = Ept::new(&TestPages, true).unwrap();
        assert!(ept.map(&TestPages, 0, 0x4000_0000, 8 << 20));
        assert_eq!(ept.walk(0), Some(0x4000_0000));
        assert_eq!(ept.walk(0x12_3456), Some(0x4012_3456));
        assert_eq!(ept.walk((8 << 20) - 1), Some(0x407f_ffff));
        assert_eq!(ept.walk(8 << 20), None);
        assert_eq!(ept.walk(0xfee0_0000), None);
        assert_eq!(ept.mapped(), [0, 4]);
    }

    #[test]
    fn small_pages_serve_where_large_ones_do_not_fit_or_do_not_exist() {
        let mut ept = Ept::new(&TestPages, true).unwrap();
        assert!(ept.map(&TestPages, 0xfee0_0000, 0x5000, PAGE));
        assert_eq!(ept.walk(0xfee0_0fff), Some(0x5fff));
        assert_eq!(ept.walk(0xfee0_1000), None);
        let mut small = Ept::new(&TestPages, false).unwrap();
        assert!(small.map(&TestPages, 0, 0x4000_0000, 2 << 20));
        assert_eq!((small.mapped(), small.walk(0x1f_f123)), ([512, 0], Some(0x401f_f123)));
        assert!(!small.map(&TestPages, 1, 0, PAGE));
    }

    #[test]
    fn registers_come_and_go_and_memory_stays() {
        let mut ept = Ept::new(&TestPages, true).unwrap();
        assert!(ept.map(&TestPages, 0, 0x4000_0000, 2 << 20) && !ept.unmap_registers());
        assert!(ept.map_registers(&TestPages, 0xe800_0000, 0xc000_3000));
        assert!(ept.map_registers(&TestPages, 0xe800_0000, 0xc000_3000), "a second vCPU's violation");
        assert!(!ept.map_registers(&TestPages, 0x1000, 0xc000_3000), "memory is there");
        assert_eq!(ept.walk(0xe800_0020), Some(0xc000_3020));
        assert!(ept.unmap_registers() && !ept.unmap_registers());
        assert_eq!((ept.walk(0xe800_0020), ept.walk(0x1000)), (None, Some(0x4000_1000)));
    }

    #[test]
    fn a_walk_of_three_levels_begins_one_table_below() {
        let mut ept = Ept::new(&TestPages, false).unwrap();
        assert_eq!(ept.second_stage(&TestPages, 4), Some(ept.root.address()));
        let top = ept.second_stage(&TestPages, 3).unwrap();
        assert_eq!(ept.root.0[0].load(Ordering::Relaxed), top | EptEntry::PERMISSIONS);
    }
}
