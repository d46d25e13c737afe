//! A heap, for programs that want one: they make a static [`Heap`] their global allocator and give it memory. Small blocks that are given back
//! are kept, by their size, for the next that wants one: most live for one VM exit.
#![allow(unsafe_code, reason = "an allocator's contract is one of raw memory")]

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{NonNull, null_mut};
use spin::Mutex;

/// The least bytes of a block, as a power of two: each kept block has the address of the next one in it.
const LEAST: u32 = 5;
/// The most bytes of blocks that are kept: 4 KiB.
const MOST: u32 = 12;
const ALIGNMENT: usize = 16;

struct Blocks {
    heap: linked_list_allocator::Heap,
    /// The first kept block of each size, 0 for none.
    kept: [usize; (MOST - LEAST + 1) as usize],
}

/// The class of a block, and what it is in the heap below, if it is one of those that are kept.
fn class(layout: Layout) -> Option<(usize, Layout)> {
    let size = layout.size().max(1 << LEAST).next_power_of_two();
    let class = (size.trailing_zeros() - LEAST) as usize;
    let whole = Layout::from_size_align(size, ALIGNMENT).ok()?;
    (layout.align() <= ALIGNMENT && class <= (MOST - LEAST) as usize).then_some((class, whole))
}

/// A heap, empty until it is given memory.
pub struct Heap(Mutex<Blocks>);

impl Heap {
    /// A heap without memory.
    #[must_use]
    pub const fn empty() -> Self {
        Self(Mutex::new(Blocks { heap: linked_list_allocator::Heap::empty(), kept: [0; (MOST - LEAST + 1) as usize] }))
    }

    /// Gives it `size` bytes at `start`.
    ///
    /// # Safety
    /// The memory is nobody else's, now and for ever; called once.
    pub unsafe fn set_up(&self, start: u64, size: u64) {
        // SAFETY: the caller's promise.
        unsafe { self.0.lock().heap.init(start as *mut u8, size as usize) };
    }
}

// SAFETY: the heap under the lock keeps the contract, and a kept block belongs to nobody; exceptions and interrupts allocate nothing.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let mut blocks = self.0.lock();
        let layout = match class(layout) {
            Some((class, _)) if blocks.kept[class] != 0 => {
                let block = blocks.kept[class] as *mut usize;
                // SAFETY: a block that was given back, with the next one's address in its first word.
                blocks.kept[class] = unsafe { block.read() };
                return block.cast();
            }
            Some((_, whole)) => whole,
            None => layout,
        };
        blocks.heap.allocate_first_fit(layout).map_or(null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let mut blocks = self.0.lock();
        if let Some((class, _)) = class(layout) {
            // SAFETY: the caller gives back a block of this class, which has room for a word and is aligned for one.
            unsafe { pointer.cast::<usize>().write(blocks.kept[class]) };
            blocks.kept[class] = pointer as usize;
        } else if let Some(pointer) = NonNull::new(pointer) {
            // SAFETY: the caller gives back what `alloc` gave for this layout.
            unsafe { blocks.heap.deallocate(pointer, layout) };
        }
    }
}
