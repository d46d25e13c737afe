//! A guest that lives as long as it is let: it looks at its memory and its registers 500 times a second, and tells 25 times a second that
//! all is as it was, and how far two beats were apart at most. What harms it shows there.
#![cfg_attr(panic = "abort", no_std, no_main)]
#![cfg_attr(panic = "abort", allow(unsafe_code, reason = "the entry's name is fixed"))]
#![cfg_attr(not(panic = "abort"), allow(dead_code, unused_imports, reason = "there is nothing to run"))]

use bare::{cpu, exceptions, memory, println};

bare::program!(run, "`vanderpool run` runs it");

const TIMER: u8 = 0x40;
/// Nanoseconds between two beats: the local APIC's timer counts them.
const PERIOD: u32 = 2_000_000;
/// Beats between two lines.
const LINE: u32 = 20;
const PAGES: usize = 16;

/// The value of a word that nobody writes.
fn value(at: u64) -> u64 {
    at.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn run() -> ! {
    let [_, ratio, crystal, _] = cpu::cpuid(0x15, 0);
    let per_microsecond = (u64::from(ratio) * u64::from(crystal) / 1_000_000_000).max(1);
    let start = memory::take_pages(PAGES);
    let words = || (start..start + PAGES as u64 * memory::PAGE).step_by(8);
    words().for_each(|at| memory::write(at, value(at)));
    for (register, value) in [(0xf0, 0x1ff), (0x3e0, 0xb), (0x320, 0x2_0000 | u32::from(TIMER)), (0x380, PERIOD)] {
        memory::write_apic(register, value);
    }
    let control = (cpu::read_cr0(), cpu::read_cr3(), cpu::read_cr4());
    let (mut beats, mut longest, mut last) = (0u32, 0, cpu::timestamp());
    loop {
        while exceptions::interrupts(TIMER) == beats {
            cpu::wait_for_interrupt();
        }
        let now = cpu::timestamp();
        longest = longest.max(now.wrapping_sub(last));
        last = now;
        // Ticks that came while something else ran are beats as well.
        beats = exceptions::interrupts(TIMER);
        let whole = words().all(|at| memory::read(at) == value(at));
        if !whole || control != (cpu::read_cr0(), cpu::read_cr3(), cpu::read_cr4()) {
            println!("beat {beats}: not as it was");
            cpu::end(1);
        }
        if beats % LINE == 0 {
            println!("beat {beats}: all as it was, at most {} us between two", longest / per_microsecond);
        }
    }
}
