//! The interrupt descriptor table: exceptions of guarded instructions are caught, interrupts and NMIs are counted, everything else ends
//! the program.

use crate::boot::{self, selector};
use crate::console::Console;
use crate::cpu::{self, Frame};
use crate::{memory, println};
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

static IDT: AtomicU64 = AtomicU64::new(0);
static GUEST_IDT: AtomicU64 = AtomicU64::new(0);
static LAST_INTERRUPT: AtomicU64 = AtomicU64::new(0);
static INTERRUPTS: [AtomicU32; 256] = [const { AtomicU32::new(0) }; 256];

/// An exception that a guarded instruction raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The vector.
    pub vector: u8,
    /// The error code, or 0.
    pub error: u32,
}

static GO_ON: AtomicUsize = AtomicUsize::new(0);

/// Has exceptions that nothing else catches go on where `choose` says, which gets their RIP; `None` ends the program.
pub fn go_on(choose: fn(u64) -> Option<u64>) {
    GO_ON.store(choose as usize, Ordering::Relaxed);
}

/// Base of the host's IDT; its limit is FFFH.
#[must_use]
pub fn idt() -> u64 {
    IDT.load(Ordering::Relaxed)
}

/// Base of an IDT for 64-bit guests: every vector leads to VMCALL at [`boot::guest_handler`].
#[must_use]
pub fn guest_idt() -> u64 {
    GUEST_IDT.load(Ordering::Relaxed)
}

/// The vector of the last interrupt or NMI that came since this was called last.
#[must_use]
pub fn take_interrupt() -> Option<u8> {
    u8::try_from(LAST_INTERRUPT.swap(0, Ordering::Relaxed)).ok().filter(|vector| *vector != 0)
}

/// How often the interrupt `vector` has come, on any processor.
#[must_use]
pub fn interrupts(vector: u8) -> u32 {
    INTERRUPTS[usize::from(vector)].load(Ordering::Acquire)
}

/// A present 64-bit interrupt gate of privilege level 3.
#[must_use]
pub const fn gate(offset: u64, stack: u8) -> [u64; 2] {
    let low = offset & 0xffff | (selector::CODE as u64) << 16 | (stack as u64) << 32 | 0xee << 40;
    [low | (offset >> 16 & 0xffff) << 48, offset >> 32]
}

/// Makes and loads the IDT.
pub fn set_up() {
    Console::set_up();
    for (table, handler, stack) in [(&IDT, boot::handler as fn(u8) -> u64, 1), (&GUEST_IDT, boot::guest_handler, 0)] {
        let base = memory::take_pages(1);
        for vector in 0..=255u8 {
            let [low, high] = gate(handler(vector), stack);
            memory::write(base + 16 * u64::from(vector), low);
            memory::write(base + 16 * u64::from(vector) + 8, high);
        }
        table.store(base, Ordering::Relaxed);
    }
    cpu::load_idt(idt(), 0xfff);
}

/// What the stubs in [`boot`] call, through [`cpu`].
pub(crate) fn handle(frame: &mut Frame) {
    let vector = frame.vector();
    if vector == 2 || vector >= 32 {
        LAST_INTERRUPT.store(u64::from(vector), Ordering::Relaxed);
        INTERRUPTS[usize::from(vector)].fetch_add(1, Ordering::Release);
        if vector >= 32 {
            memory::write_apic(0xb0, 0);
        }
        return;
    }
    if !frame.recover(Fault { vector, error: frame.error as u32 }) {
        if let Some(rip) = cpu::chosen(GO_ON.load(Ordering::Relaxed), frame.rip) {
            frame.rip = rip;
            return;
        }
        println!("exception {vector} (error {:#x}) at {:#x}", frame.error, frame.rip);
        cpu::end(1);
    }
}
