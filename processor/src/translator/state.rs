//! The state blocks: what translated code reaches through the host's RSP, one for each translation context, access class and kind of code.
//!
//! Emitted code knows their fields by `offset_of!`; so the blocks are raw memory, reached by pointers.
#![allow(unsafe_code)]

use super::brake::GO;
use super::emit::Mask;
use super::jumps;
use super::width::{WIDTHS, Width};
use crate::memory::ram::PAGE_SIZE;
use crate::memory::tlb::{CLASSES, CONTEXTS};
use core::mem::offset_of;
use memmap2::{MmapMut, MmapOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::sync::atomic::AtomicU64;

/// A linear address' place in the tables of pages.
pub(super) const PAGE_INDEX: Mask = Mask::from(offset_of!(State, page_index), 12);
/// A linear address' place in [`State::fetched`].
pub(super) const FETCH_INDEX: Mask = Mask::from(offset_of!(State, fetch_index), 12);
/// A jump target's first slot in its table.
pub(super) const JUMP_INDEX: Mask = Mask::from(offset_of!(State, jump_index), jumps::SHIFT as u8);
/// Pages in a table: with few, pages that share a place drive each other out, which cost a twentieth of a boot.
pub(crate) const PAGES: usize = 4096;
const _: () = assert!(PAGES.is_power_of_two() && PAGES <= 1 << 16);
/// Places of pages that are emptied together: a bit of [`State::touched`].
const GROUP: usize = PAGES / u64::BITS as usize;
/// State blocks.
pub(crate) const BLOCKS: usize = CONTEXTS * CLASSES * WIDTHS;
const _: () = assert!(BLOCKS.is_power_of_two());
/// Bytes below a block: the return address of a call, and the frame of a signal that comes while RSP points here.
const STACK: usize = 256 << 10;

const PAGE_MASK: u64 = !0xfff;
/// Pages in [`State::entered`].
const ENTERED: usize = 4096;

/// What RSP points to. The first fields are reached by short displacements.
#[repr(C)]
pub(crate) struct State {
    /// Instructions that may still be executed, negated: what a JRCXZ must not take is then the usual way.
    pub budget: i64,
    /// Guest R12 to R15.
    pub high: [u64; 4],
    /// RIP of the running page's first byte.
    pub rip_base: u64,
    /// Masks of what is extracted: [`FETCH_INDEX`], and a linear address' place in the tables of pages.
    pub fetch_index: u64,
    pub page_index: u64,
    /// The same: what must be zero of an offset that is within a page, and aligned to 1, 2, 4, 8, 16, 32 bytes.
    pub beyond: [u64; 6],
    /// The same: the sign, or nothing: then a block is not begun ([`super::brake`]).
    pub sign: AtomicU64,
    /// Masks again: [`JUMP_INDEX`].
    pub jump_index: u64,
    /// Host addresses of the memory that the block pinned.
    pub pins: [u64; super::pins::PINS],
    /// The table of jump targets ([`jumps`]).
    pub jumps: u64,
    /// The target of a jump to another page.
    pub target: u64,
    /// What RAX held, while it keeps the flags.
    pub rax: u64,
    /// Masks again: a bit's number in a doubleword, in a quadword.
    pub bit_numbers: [u64; 2],
    /// Offset in its page of the last x87 instruction executed here that computes.
    pub fip: u32,
    /// RIP of that page's first byte.
    pub fip_base: u64,
    /// Not zero: the x87's state is not here.
    pub x87_blocked: u64,
    /// The x87's state is in the host's.
    pub x87_live: u64,
    /// Base of GS.
    pub gs: u64,
    /// Base of FS.
    pub fs: u64,
    /// Not zero: memory by FS, by GS, must be left to the interpreter. For 32-bit code only.
    pub refused: [u64; 2],
    /// The same: what must be zero of a sum that is within 4 GiB.
    pub beyond_4g: u64,
    /// Not zero: the privilege level is not 0.
    pub level_refused: u64,
    /// Not zero: the privilege level is not 0, or this is VMX non-root operation.
    pub control_refused: u64,
    /// Not zero: the same, or an interrupt waits.
    pub sti_refused: u64,
    /// Not zero: CLAC has something to do, or is not allowed.
    pub clac_refused: u64,
    /// The same for STAC.
    pub stac_refused: u64,
    /// Not zero: RDFSBASE and its kin are not allowed.
    pub bases_refused: u64,
    /// Not zero: RDTSC must be left to the interpreter.
    pub tsc_refused: u64,
    /// What RDTSC gives when the budget is used up.
    pub tsc_base: u64,
    /// In a loop: the budget when its rounds are done ([`super::loops`]).
    pub loop_end: i64,
    /// Instructions of the rounds to come, negated.
    pub loop_count: i64,
    /// Status flags, while rounds are counted.
    pub loop_flags: u64,
    /// For values that outlive a probe.
    pub spill: [u64; 2],
    /// Not zero: SSE instructions cannot be executed here, or the vector registers are not here.
    pub sse_blocked: u64,
    /// The same for VEX.
    pub avx_blocked: u64,
    /// The vector registers and MXCSR are in the host's.
    pub live: u64,
    /// Not zero: SSE instructions must be left to the interpreter.
    pub sse_refused: u64,
    /// The same for VEX.
    pub avx_refused: u64,
    /// Status flags as LAHF and SETO AL leave them in AX.
    pub flags: u64,
    /// Why translated code was left.
    pub reason: u64,
    /// RCX then, or of a call.
    pub argument: u64,
    /// R14 then, or of a call.
    pub value: u64,
    /// Where a call goes on.
    pub resume: u64,
    /// Where an access goes on whose hint was wrong.
    pub access: u64,
    /// Where a jump goes on whose target is not in its first slot, and its site.
    pub jump: u64,
    pub jump_site: u64,
    /// How many more hints may be wrong before one is looked at.
    pub hints_left: u64,
    /// RIP after an instruction of the interpreter that set it.
    pub rip: u64,
    /// The host's stack.
    pub host_rsp: u64,
    /// The processor.
    pub cpu: u64,
    /// The code cache.
    pub code: u64,
    /// The count of instructions at which the budget is used up.
    pub last: u64,
    /// The host's MXCSR.
    pub host_mxcsr: u64,
    /// Where the x87's state is while the host's registers are not the guest's.
    pub x87_area: super::x87::Area,
    /// The block's own number.
    pub index: usize,
    /// The budget has [`PENDING`] taken from it.
    pub pending: bool,
    /// The constants are set.
    made: bool,
    /// For the pages that code was fetched from: what is to be added to a linear address for its place ([`jumps::fetched`]).
    pub fetched: [u64; jumps::PAGES],
    /// Their linear addresses, and those of such pages that gave way since.
    entered: [u64; ENTERED],
    /// How many.
    entered_count: usize,
    /// A bit for each [`GROUP`] of places that a page was entered into.
    touched: u64,
    /// Places in the tables below ([`super::hints`]).
    pub hints: [u16; super::hints::HINTS],
    /// What gives zero to a load within a page when address and size - 1 are added: the negated page address.
    pub read: [u64; PAGES],
    /// The same for stores.
    pub write: [u64; PAGES],
    /// Host address minus linear address.
    pub addend: [u64; PAGES],
}

/// Added to the negated budget when events must be looked at: the next block then leaves.
pub(crate) const PENDING: i64 = 1 << 40;

const STRIDE: usize = STACK + size_of::<State>().next_multiple_of(4096);

/// The state blocks of one processor.
pub struct Blocks {
    memory: MmapMut,
    /// For each context, a bit for each of its blocks whose tables are not void.
    used: [u8; CONTEXTS],
    /// Host address of guest RAM.
    ram: u64,
    /// See [`no_page`].
    none: u64,
    /// [`super::Translator::flushes`], as it was when the numbers of pages were given.
    flushes: u64,
}

impl std::fmt::Debug for Blocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blocks").finish_non_exhaustive()
    }
}

fn page_slot(address: u64) -> usize {
    (address >> 12) as usize & (PAGES - 1)
}

/// A negated page that no access is in, for places that hold none. An access may look into any place ([`super::hints`]), so it must be an address that
/// no guest uses: one that is not canonical, of which no guest knows. (Were one to hit on it, the host's address would not be canonical either.)
fn no_page() -> u64 {
    let secret = RandomState::new().build_hasher().finish();
    (1 << 62 | secret >> 3 & PAGE_MASK).wrapping_neg()
}

impl State {
    fn clear_pages(&mut self, none: u64) {
        self.each_page(|state, slot| (state.read[slot], state.write[slot]) = (none, none));
        self.touched = 0;
    }

    /// Calls `act` with each place that may have a page.
    fn each_page(&mut self, mut act: impl FnMut(&mut Self, usize)) {
        let mut groups = self.touched;
        while groups != 0 {
            let first = groups.trailing_zeros() as usize * GROUP;
            (first..first + GROUP).for_each(|slot| act(self, slot));
            groups &= groups - 1;
        }
    }

    /// Enters a page: its host address, and whether loads and stores may use it; if not, `none`.
    fn enter_page(&mut self, linear: u64, host_page: u64, (read, write): (bool, bool), none: u64) {
        let (page, slot) = (linear & PAGE_MASK, page_slot(linear));
        self.read[slot] = if read { page.wrapping_neg() } else { none };
        self.write[slot] = if write { page.wrapping_neg() } else { none };
        self.addend[slot] = host_page.wrapping_sub(page);
        self.touched |= 1 << (slot / GROUP);
    }

    /// Code was fetched from the page of `linear`, and that is the page of code with this number.
    pub(super) fn enter_fetched(&mut self, linear: u64, number: u64) {
        let fetched = jumps::fetched(linear, number);
        let index = jumps::entry_of(linear);
        if self.fetched[index] == fetched {
            return;
        }
        if self.entered_count == ENTERED {
            self.clear_fetched();
        }
        self.fetched[index] = fetched;
        self.entered[self.entered_count] = linear & PAGE_MASK;
        self.entered_count += 1;
    }

    /// The place of the code at `linear`, or one of no code.
    pub(super) fn place(&self, linear: u64) -> u64 {
        linear.wrapping_add(self.fetched[jumps::entry_of(linear)])
    }

    fn forget_fetched(&mut self, linear: u64) {
        self.fetched[jumps::entry_of(linear)] = jumps::fetched(linear, jumps::NONE);
    }

    fn clear_fetched(&mut self) {
        for number in 0..std::mem::take(&mut self.entered_count) {
            self.forget_fetched(self.entered[number]);
        }
    }
}

impl Blocks {
    /// Blocks whose memory the host gives as they are used.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn new(ram: u64) -> io::Result<Self> {
        let memory = MmapOptions::new().len(BLOCKS * STRIDE).no_reserve_swap().map_anon()?;
        Ok(Self { memory, used: [0; CONTEXTS], ram, none: no_page(), flushes: 0 })
    }

    /// The block with number `index`.
    pub(crate) fn pointer(&mut self, index: usize) -> *mut State {
        // SAFETY: within the mapping, for the index is cut to the number of blocks.
        unsafe { self.memory.as_mut_ptr().add((index & (BLOCKS - 1)) * STRIDE + STACK).cast() }
    }

    /// The block, to be changed from Rust.
    pub(crate) fn get(&mut self, index: usize) -> &mut State {
        // SAFETY: the mapping starts as zeroes, which is a valid `State`; it is aligned to pages; translated code, which has it too, is not
        // running, or waits for a call of ours to return.
        unsafe { &mut *self.pointer(index) }
    }

    /// The context of block `index`, and its bit among those of that.
    fn bit(index: usize) -> (usize, u8) {
        const EACH: usize = CLASSES * WIDTHS;
        (index / EACH % CONTEXTS, 1 << (index % EACH))
    }

    /// All translations were dropped so often: with them pages lost their numbers.
    pub(super) fn note_flushes(&mut self, flushes: u64) {
        if std::mem::replace(&mut self.flushes, flushes) != flushes {
            self.used = [0; CONTEXTS];
        }
    }

    /// The block, ready for use.
    pub(crate) fn ready(&mut self, index: usize) -> &mut State {
        let none = self.none;
        let (context, bit) = Self::bit(index);
        let stale = self.used[context] & bit == 0;
        self.used[context] |= bit;
        let state = self.get(index);
        if !state.made {
            state.page_index = (PAGES as u64 - 1) << 12;
            state.beyond = std::array::from_fn(|shift| PAGE_MASK | ((1 << shift) - 1));
            state.beyond_4g = !u64::from(u32::MAX);
            *state.sign.get_mut() = GO;
            state.bit_numbers = [31, 63];
            state.fetch_index = (jumps::PAGES as u64 - 1) * PAGE_SIZE;
            state.jump_index = jumps::INDEX;
            (0..jumps::PAGES as u64).for_each(|page| state.forget_fetched(page * PAGE_SIZE));
            state.host_mxcsr = 0x1f80;
            state.hints_left = super::hints::PERIOD;
            state.index = index;
            (state.made, state.touched) = (true, u64::MAX);
        }
        if stale {
            state.clear_pages(none);
            state.clear_fetched();
        }
        state
    }

    /// Block `index`, which runs, is made ready again if what it had is void. True if so.
    pub(crate) fn empty_if_stale(&mut self, index: usize) -> bool {
        let (context, bit) = Self::bit(index);
        let stale = self.used[context] & bit == 0;
        if stale {
            self.ready(index);
        }
        stale
    }

    /// The blocks of `context` that were used and are not void.
    fn each(&mut self, context: usize, mut act: impl FnMut(&mut State)) {
        let mut left = self.used[context % CONTEXTS];
        while left != 0 {
            act(self.get(context * CLASSES * WIDTHS + left.trailing_zeros() as usize));
            left &= left - 1;
        }
    }

    /// Everything that `context` had is void.
    pub(crate) fn flush(&mut self, context: usize) {
        self.used[context % CONTEXTS] = 0;
    }

    /// The translation of the page of `address` is void.
    pub(crate) fn forget_page(&mut self, context: usize, address: u64) {
        let (slot, none) = (page_slot(address), self.none);
        self.each(context, |state| {
            (state.read[slot], state.write[slot]) = (none, none);
            state.forget_fetched(address);
        });
    }

    /// The translations of the addresses that are `base` under `mask` are void.
    pub(crate) fn forget_range(&mut self, context: usize, base: u64, mask: u64) {
        let none = self.none;
        self.each(context, |state| {
            state.each_page(|state, slot| {
                let (read, write) = (state.read[slot].wrapping_neg(), state.write[slot].wrapping_neg());
                if read & mask == base || write & mask == base {
                    (state.read[slot], state.write[slot]) = (none, none);
                }
            });
            for number in 0..state.entered_count {
                if state.entered[number] & mask == base {
                    state.forget_fetched(state.entered[number]);
                }
            }
        });
    }

    /// The software TLB replaces what it has for the page of `address`.
    pub(crate) fn replace_page(&mut self, context: usize, class: usize, address: u64) {
        let (page, slot, none) = ((address & PAGE_MASK).wrapping_neg(), page_slot(address), self.none);
        for width in [Width::Flat32, Width::Long64] {
            let index = super::block_index(context, class, width);
            if self.used[context % CONTEXTS] & Self::bit(index).1 == 0 {
                continue;
            }
            let state = self.get(index);
            if state.read[slot] == page || state.write[slot] == page {
                (state.read[slot], state.write[slot]) = (none, none);
            }
        }
    }

    /// Enters the page of `linear`, which lies at `offset` in guest RAM, and whether loads and stores may use it.
    pub(crate) fn enter_page(&mut self, index: usize, linear: u64, offset: u64, read: bool, write: bool) {
        let host_page = self.ram + (offset & PAGE_MASK);
        let none = self.none;
        self.get(index).enter_page(linear, host_page, (read, write), none);
    }

    /// Stores of `context` to the page at `offset` in guest RAM may no longer go straight to memory.
    pub(crate) fn revoke_stores(&mut self, context: usize, offset: u64) {
        let (host_page, none) = (self.ram + (offset & PAGE_MASK), self.none);
        self.each(context, |state| {
            state.each_page(|state, slot| {
                if state.addend[slot].wrapping_sub(state.write[slot]) == host_page {
                    state.write[slot] = none;
                }
            });
        });
    }
}
