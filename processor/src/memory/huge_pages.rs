//! Which parts of guest RAM the host is asked to keep in huge pages of its own.
//!
//! A huge page that is given at the first touch has to be cleared whole, of which a guest that starts uses half; in a virtual machine whose host has
//! to find the memory first that is a tenth of a boot. Without huge pages random accesses to much memory are slower by a sixth. So small pages come
//! first, but where a neighbouring part has been written everywhere; and what is used again and again is put together.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

/// Bytes of a huge page, and of a part.
pub(super) const SIZE: usize = 2 << 20;
/// After how many entries of its 512 pages into a TLB a huge page is worth its making: what they lost by small pages (some 40 ns each) is then what
/// it takes (up to some milliseconds, in which the host waits for all of its processors; with a quarter of this number two processors that copied, or
/// talked by pipes, took longer than one).
const WORTH: u16 = u16::MAX;

/// How often each part of an allocation was used.
pub(super) struct HugePages {
    /// Host address of the first whole part.
    first: usize,
    uses: Box<[AtomicU16]>,
}

impl HugePages {
    /// For the `length` bytes at host address `start`, which the host maps.
    pub(super) fn of(start: usize, length: usize) -> Self {
        let first = start.next_multiple_of(SIZE);
        let parts = (start + length).saturating_sub(first) / SIZE;
        Self { first, uses: (0..parts).map(|_| AtomicU16::new(0)).collect() }
    }

    /// The page at host address `address` was, or will be at once, entered into a TLB. `full` tells of the part at a host address whether all of it was
    /// written.
    #[inline]
    pub(super) fn note_use(&self, address: usize, full: impl Fn(usize) -> bool) {
        // What is before the first part is far beyond the last.
        let part = address.wrapping_sub(self.first) / SIZE;
        let Some(uses) = self.uses.get(part) else { return };
        let before = uses.load(Relaxed);
        if before == WORTH {
            return;
        }
        // Others may count at the same time: what is lost does not matter.
        uses.store(before + 1, Relaxed);
        let address = self.first + part * SIZE;
        if before == 0 {
            let neighbours = [part.wrapping_sub(1), part + 1].into_iter().filter(|&other| other < self.uses.len());
            if neighbours.map(|other| self.first + other * SIZE).any(full) {
                advise(address, Advice::FromTheFirstTouch);
            }
        } else if before + 1 == WORTH {
            advise(address, Advice::Now);
        }
    }
}

/// When a part is to be a huge page.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Advice {
    FromTheFirstTouch,
    Now,
}

/// Asks the host to have the part at `address` in a huge page.
#[cold]
#[cfg(target_os = "linux")]
fn advise(address: usize, advice: Advice) {
    let pointer = std::ptr::with_exposed_provenance_mut(address);
    // SAFETY: the part is mapped, as `HugePages::of` was told; its contents do not change, nor does whoever accesses it meanwhile notice.
    unsafe {
        if advice == Advice::FromTheFirstTouch || libc::madvise(pointer, SIZE, libc::MADV_COLLAPSE) != 0 {
            // Also before Linux 6.1, or with no huge page at hand: it may find one later.
            libc::madvise(pointer, SIZE, libc::MADV_HUGEPAGE);
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn advise(_address: usize, _advice: Advice) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_parts_are_counted() {
        let pages = HugePages::of(SIZE - 4096, 3 * SIZE);
        assert_eq!((pages.first, pages.uses.len()), (SIZE, 2));
        for address in [SIZE - 4096, SIZE, 2 * SIZE - 1, 2 * SIZE, 3 * SIZE] {
            pages.note_use(address, |_| false);
        }
        assert_eq!(pages.uses.iter().map(|uses| uses.load(Relaxed)).collect::<Vec<_>>(), [2, 1]);
        assert!(HugePages::of(4096, SIZE).uses.is_empty());
    }

    #[test]
    fn neighbours_are_asked_for_once() {
        let memory = memmap2::MmapMut::map_anon(5 * SIZE).unwrap();
        let pages = HugePages::of(memory.as_ptr() as usize, memory.len());
        let asked = std::cell::RefCell::new(Vec::new());
        for _ in 0..2 {
            pages.note_use(pages.first, |part| {
                asked.borrow_mut().push((part - pages.first) / SIZE);
                true
            });
        }
        assert_eq!(asked.take(), [1], "there is none before the first");
        pages.note_use(pages.first + SIZE, |part| {
            asked.borrow_mut().push((part - pages.first) / SIZE);
            false
        });
        assert_eq!(asked.take(), [0, 2]);
    }
}
