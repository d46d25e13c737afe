//! The machine's memory: below 4 GiB a heap, single pages from below, guests' memory from above; above 4 GiB guests' memory only. Nothing is
//! given back.
#![allow(unsafe_code, reason = "memory is known by address here")]

use alloc::boxed::Box;
use bare::heap::Heap;
use bare::memory::map_above_4_gib;
use bare::multiboot;
use hypervisor::ept::LARGE;
use hypervisor::memory::{self, GuestMemory, OutsideMemory, PAGE, Page, Pages, RegisterPage};
use spin::Mutex;

unsafe extern "C" {
    static image_end: u8;
}

#[cfg_attr(panic = "abort", global_allocator)]
static HEAP: Heap = Heap::empty();

/// What is left: from, to.
type Free = (u64, u64);
static FREE: Mutex<Free> = Mutex::new((0, 0));
/// What is left above 4 GiB.
static FREE_HIGH: Mutex<Free> = Mutex::new((0, 0));

/// What the page tables can reach.
const HIGHEST: u64 = 512 << 30;
/// The heap's share of memory, and the most that it is.
const HEAP_SHARE: u64 = 8;
const LARGEST_HEAP: u64 = 128 << 20;

/// Takes the largest range of memory that the loader tells of, without this program and its module. False: there is none.
pub fn set_up() -> bool {
    let image = ((&raw const image_end) as u64).next_multiple_of(PAGE);
    let module = multiboot::module().map_or(0..0, |module| {
        let module = module.as_ptr_range();
        (module.start as u64 & !(PAGE - 1))..(module.end as u64).next_multiple_of(PAGE)
    });
    let (mut start, mut end) = (0, 0);
    let mut high = (0, 0);
    multiboot::for_each_memory(|base, length| {
        if base >= 1 << 32 && length > high.1 - high.0 {
            high = (base.next_multiple_of(LARGE), base.saturating_add(length).min(HIGHEST));
        }
        let limit = base.saturating_add(length).min(1 << 32) & !(PAGE - 1);
        // Before the module, and after it.
        for (from, to) in [(base.max(image), limit.min(module.start)), (base.max(image).max(module.end), limit)] {
            if to.saturating_sub(from) > end - start {
                (start, end) = (from, to);
            }
        }
    });
    if high.1 > high.0 && map_above_4_gib(high.1) {
        *FREE_HIGH.lock() = high;
    }
    let size = ((end - start) / HEAP_SHARE).min(LARGEST_HEAP) & !(PAGE - 1);
    if size == 0 {
        return false;
    }
    // SAFETY: memory beside the image and the module, which nobody else gets: what is free begins after it.
    unsafe { HEAP.set_up(start, size) };
    *FREE.lock() = (start + size, end);
    true
}

/// Where pages come from.
#[derive(Debug)]
pub struct AllPages;

/// Where pages come from.
pub static PAGES: AllPages = AllPages;

/// A zeroed page.
fn take_page() -> Option<u64> {
    let mut free = FREE.lock();
    let page = free.0;
    if page + PAGE > free.1 {
        return None;
    }
    free.0 += PAGE;
    // SAFETY: the page was free and is the caller's now.
    unsafe { (page as *mut u8).write_bytes(0, PAGE as usize) };
    Some(page)
}

/// Memory of `size` bytes for a guest.
fn from_above(free: &Mutex<Free>, size: u64) -> Option<u64> {
    let mut free = free.lock();
    let base = free.1.checked_sub(size)? & !(LARGE - 1);
    if base < free.0 {
        return None;
    }
    free.1 = base;
    Some(base)
}

impl Pages for AllPages {
    fn page(&self) -> Option<&'static Page> {
        // SAFETY: a zeroed page of its own, of atomics only.
        take_page().map(|page| unsafe { &*(page as *const Page) })
    }

    fn register_page(&self) -> Option<&'static RegisterPage> {
        // SAFETY: as above.
        take_page().map(|page| unsafe { &*(page as *const RegisterPage) })
    }

    fn guest_memory(&self, size: u64) -> Option<Box<dyn GuestMemory>> {
        if !size.is_multiple_of(LARGE) {
            return None;
        }
        let base = from_above(&FREE_HIGH, size).or_else(|| from_above(&FREE, size))?;
        let memory = Range { base, size };
        memory.clear();
        Some(Box::new(memory))
    }
}

/// A guest's memory. The guest changes it at any time: it is only ever copied from and to.
#[derive(Debug)]
struct Range {
    base: u64,
    size: u64,
}

impl Range {
    /// The address of `length` bytes at guest-physical `address`.
    fn at(&self, address: u64, length: usize) -> Result<*mut u8, OutsideMemory> {
        let offset = memory::offset(self.size, address, length as u64)?;
        Ok((self.base + offset) as *mut u8)
    }
}

impl GuestMemory for Range {
    fn base(&self) -> u64 {
        self.base
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), OutsideMemory> {
        let from = self.at(address, buffer.len())?;
        // SAFETY: within the guest's range, which no Rust object lies in; a guest that writes at the same time gets a mixture.
        unsafe { from.copy_to_nonoverlapping(buffer.as_mut_ptr(), buffer.len()) };
        Ok(())
    }

    fn write(&self, address: u64, data: &[u8]) -> Result<(), OutsideMemory> {
        let to = self.at(address, data.len())?;
        // SAFETY: as in `read`.
        unsafe { to.copy_from_nonoverlapping(data.as_ptr(), data.len()) };
        Ok(())
    }

    fn clear(&self) {
        // SAFETY: the whole of the guest's range.
        unsafe { (self.base as *mut u8).write_bytes(0, self.size as usize) };
    }
}
