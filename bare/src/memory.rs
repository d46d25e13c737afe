//! Pages of memory for tables that the processor reads.
#![allow(unsafe_code, reason = "what the processor reads by address is written by address")]

use crate::{boot, cpu};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use spec::x86::{Feature, msr};

/// Bytes in a page.
pub const PAGE: u64 = 4096;
const PAGES: usize = 192;

#[repr(C, align(4096))]
struct Pool(UnsafeCell<[u8; PAGES * PAGE as usize]>);

// SAFETY: one processor; the bytes are only touched by volatile accesses below.
unsafe impl Sync for Pool {}

static POOL: Pool = Pool(UnsafeCell::new([0; PAGES * PAGE as usize]));
static TAKEN: AtomicUsize = AtomicUsize::new(0);

fn pool() -> u64 {
    POOL.0.get() as u64
}

/// The address of `count` zeroed pages that nobody else has; they are never given back.
///
/// # Panics
/// When the pool is used up.
#[must_use]
pub fn take_pages(count: usize) -> u64 {
    let first = TAKEN.fetch_add(count, Ordering::Relaxed);
    assert!(first + count <= PAGES, "no pages left");
    pool() + PAGE * first as u64
}

fn check(address: u64, size: u64) {
    let start = pool();
    assert!(
        address >= start && address + size <= start + PAGES as u64 * PAGE,
        "{address:#x} is in no page of the pool"
    );
}

/// Writes 8 bytes in a page of the pool.
///
/// # Panics
/// When `address` is not in the pool.
pub fn write(address: u64, value: u64) {
    check(address, 8);
    // SAFETY: within the pool, which Rust does not look at otherwise.
    unsafe { (address as *mut u64).write_unaligned(value) };
}

/// Writes 4 bytes in a page of the pool.
///
/// # Panics
/// When `address` is not in the pool.
pub fn write32(address: u64, value: u32) {
    check(address, 4);
    // SAFETY: as in `write`.
    unsafe { (address as *mut u32).write_unaligned(value) };
}

/// Reads 8 bytes in a page of the pool.
///
/// # Panics
/// When `address` is not in the pool.
#[must_use]
pub fn read(address: u64) -> u64 {
    check(address, 8);
    // SAFETY: as in `write`.
    unsafe { (address as *const u64).read_volatile() }
}

/// Fills a page of the pool.
///
/// # Panics
/// When `address` is not in the pool.
pub fn fill(address: u64, byte: u8) {
    check(address, PAGE);
    for offset in (0..PAGE).step_by(8) {
        write(address + offset, u64::from_ne_bytes([byte; 8]));
    }
}

/// Copies `length` bytes of this program's code at `source` into a page of the pool.
///
/// # Panics
/// When `target` is not in the pool, or `source` is not below 4 GiB.
pub fn copy_code(target: u64, source: u64, length: u64) {
    check(target, length);
    assert!(source < 1 << 32, "the program is below 4 GiB");
    for offset in 0..length {
        // SAFETY: the program's own code is readable; the target is in the pool.
        unsafe { ((target + offset) as *mut u8).write_volatile(((source + offset) as *const u8).read()) };
    }
}

/// Maps memory from 4 GiB up to `end` one to one, for all processors, as far as one table of the third level goes. False: the processor has
/// no pages of 1 GiB.
#[must_use]
pub fn map_above_4_gib(end: u64) -> bool {
    /// Present, writable, for all privilege levels, accessed, dirty, a page.
    const PAGE_OF_1_GIB: u64 = 0xe7;
    let place = Feature::PDPE1GB.place();
    if cpu::cpuid(place.leaf, 0)[3] >> place.bit & 1 == 0 {
        return false;
    }
    // SAFETY: the tables of `boot`, where only these entries, which were not present, are written.
    unsafe {
        let table = (*(boot::page_tables() as *const u64) & !(PAGE - 1)) as *mut u64;
        for entry in 4..end.div_ceil(1 << 30).min(512) {
            table.add(entry as usize).write_volatile(entry << 30 | PAGE_OF_1_GIB);
        }
    }
    true
}

/// The local APICs are in x2APIC mode.
static X2APIC: AtomicBool = AtomicBool::new(false);

/// Has [`read_apic`] and [`write_apic`] access MSRs from now on: x2APIC mode, into which each processor goes by itself.
pub fn use_x2apic() {
    X2APIC.store(true, Ordering::Relaxed);
}

fn apic_msr(offset: u64) -> u32 {
    msr::X2APIC_FIRST + (offset >> 4 & 0xff) as u32
}

/// The local APIC's register at `offset`.
#[must_use]
pub fn read_apic(offset: u64) -> u32 {
    if X2APIC.load(Ordering::Relaxed) {
        return cpu::read_msr(apic_msr(offset)).unwrap_or(0) as u32;
    }
    // SAFETY: the local APIC's page is mapped, and reading its registers has no effect on memory.
    unsafe { ((0xfee0_0000 + (offset & 0xff0)) as *const u32).read_volatile() }
}

/// Writes a register of the local APIC. In x2APIC mode the interrupt command is one of 64 bits: see [`cpu::write_msr`].
pub fn write_apic(offset: u64, value: u32) {
    if X2APIC.load(Ordering::Relaxed) {
        let _ = cpu::write_msr(apic_msr(offset), value.into());
        return;
    }
    // SAFETY: as in `read_apic`; what interrupts do is seen to in `exceptions`.
    unsafe { ((0xfee0_0000 + (offset & 0xff0)) as *mut u32).write_volatile(value) };
}
