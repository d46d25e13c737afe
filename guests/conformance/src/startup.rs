//! A second processor that sends start-up IPIs to the first, which waits for one in VMX non-root operation.

use bare::memory;
use bare::processors::{self, Tables};
use core::sync::atomic::{AtomicBool, Ordering};

/// The vector of the start-up IPIs.
pub const VECTOR: u8 = 0x9a;

static SENDING: AtomicBool = AtomicBool::new(false);

/// Starts the other processors, which send from now on. False: there are none.
#[must_use]
pub fn begin() -> bool {
    SENDING.store(true, Ordering::Release);
    processors::start_others(send, None) != 0
}

/// Stops them.
pub fn end() {
    SENDING.store(false, Ordering::Release);
    processors::stop_others();
}

/// What they do. Their local APICs are in xAPIC mode.
fn send(_number: u32, _tables: Tables) -> ! {
    loop {
        if SENDING.load(Ordering::Acquire) {
            memory::write_apic(0x310, 0);
            memory::write_apic(0x300, 0x4600 | u32::from(VECTOR));
        }
        (0..1000).for_each(|_| core::hint::spin_loop());
    }
}
