//! The heap.
#![allow(unsafe_code, reason = "an allocator's contract is one of raw memory")]

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{NonNull, null_mut};
use linked_list_allocator::Heap;
use spin::Mutex;

struct Locked(Mutex<Heap>);

#[cfg_attr(panic = "abort", global_allocator)]
static HEAP: Locked = Locked(Mutex::new(Heap::empty()));

// SAFETY: the heap under the lock keeps the contract; exceptions and interrupts allocate nothing.
unsafe impl GlobalAlloc for Locked {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0.lock().allocate_first_fit(layout).map_or(null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if let Some(pointer) = NonNull::new(pointer) {
            // SAFETY: the caller gives back what `alloc` gave for this layout.
            unsafe { self.0.lock().deallocate(pointer, layout) };
        }
    }
}

/// Makes `size` bytes at `start` the heap.
///
/// # Safety
/// The memory is nobody else's, now and for ever; called once.
pub unsafe fn set_up(start: u64, size: u64) {
    // SAFETY: the caller's promise.
    unsafe { HEAP.0.lock().init(start as *mut u8, size as usize) };
}
