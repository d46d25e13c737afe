//! A heap, for programs that want one: they make a static [`Heap`] their global allocator and give it memory.
#![allow(unsafe_code, reason = "an allocator's contract is one of raw memory")]

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{NonNull, null_mut};
use spin::Mutex;

/// A heap, empty until it is given memory.
pub struct Heap(Mutex<linked_list_allocator::Heap>);

impl Heap {
    /// A heap without memory.
    #[must_use]
    pub const fn empty() -> Self {
        Self(Mutex::new(linked_list_allocator::Heap::empty()))
    }

    /// Gives it `size` bytes at `start`.
    ///
    /// # Safety
    /// The memory is nobody else's, now and for ever; called once.
    pub unsafe fn set_up(&self, start: u64, size: u64) {
        // SAFETY: the caller's promise.
        unsafe { self.0.lock().init(start as *mut u8, size as usize) };
    }
}

// SAFETY: the heap under the lock keeps the contract; exceptions and interrupts allocate nothing.
unsafe impl GlobalAlloc for Heap {
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
