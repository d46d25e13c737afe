//! The software TLB: guest-linear pages to guest RAM, tagged by translation context.
//!
//! A context is what the architecture tags translations with: VMX root or VPID, EPTP, PCID. Each has three direct-mapped tables, one for each
//! class of access (supervisor, supervisor with SMAP overridden, user), so that changing the context or the privilege level changes an index
//! and flushes nothing. A tag is a page address with the context's generation in its low 12 bits: flushing a context is one increment.
//!
//! Behind the tables stands the whole ([`Pages`]), which keeps every page until it is flushed: where a table has another page, or none because of code
//! that was found in it, the page is taken from there without a walk. Fetches have their own part ([`Fetches`]), of the same kind. Whatever else an engine remembers (jump caches, tables of translated
//! code) is always part of what is held here, and what is here changes with the guest's accesses alone: so walks, which set accessed and dirty bits,
//! happen at the same instructions whichever engine runs.
//!
//! A hit goes from the linear address to the host's memory in one addition, so entries hold host addresses: only [`Tlb::insert`] makes them, of
//! whole pages of the [`GuestRam`] that the TLB keeps alive, and a hit never reaches past its page. That is why `unsafe` is here.
#![allow(unsafe_code)]

use super::fetches::Fetches;
use super::large_pages::LargePages;
use super::pages::Pages;
use super::paging::Kind;
use super::ram::GuestRam;
use crate::cpu::RIP_BASE_REG;
use crate::translator::state::Blocks;
use std::ptr::NonNull;
use std::sync::Arc;

/// Entries in one table.
pub const SIZE: usize = 1024;
/// Contexts held at once; the least recently used one is replaced.
pub const CONTEXTS: usize = 32;
/// Tables of a context: one for each access class, and one unused so that an index is checked by a mask.
pub const CLASSES: usize = 4;
const ENTRIES: usize = CONTEXTS * CLASSES * SIZE;
const _: () = assert!(ENTRIES.is_power_of_two());
const PAGE_MASK: u64 = !0xfff;
/// A generation that no entry has: every access takes the slow path.
const NEVER: u64 = 0xfff;

/// Registers that can be a base.
const BASES: usize = RIP_BASE_REG as usize + 1;

/// Supervisor access, SMAP enforced if CR4.SMAP.
pub const SUPERVISOR: usize = 0;
/// Supervisor access with RFLAGS.AC set under SMAP.
pub const SUPERVISOR_AC: usize = 1;
/// User access.
pub const USER: usize = 2;

/// One entry: the page tag for each kind of access, and what to add to a linear address to get the address in the host's memory.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Entry {
    /// Tag for loads.
    pub read: u64,
    /// Tag for stores.
    pub write: u64,
    /// Host address minus linear address.
    pub addend: u64,
}

/// A page that is cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cached {
    /// The access class.
    pub class: usize,
    /// The page's linear address.
    pub linear: u64,
    /// Its offset in guest RAM.
    pub offset: u64,
    /// What is allowed without a walk.
    pub rights: Rights,
}

/// What is cached of a context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedContext {
    /// The context.
    pub key: ContextKey,
    /// Its pages, in no order.
    pub pages: Vec<Cached>,
}

/// What a context's translations belong to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContextKey {
    /// EPT pointer in use, 0 for none.
    pub eptp: u64,
    /// VPID; 0 in VMX root operation and outside VMX.
    pub vpid: u16,
    /// In VMX non-root operation (without VPID, entry and exit flush).
    pub non_root: bool,
    /// PCID, 0 unless CR4.PCIDE.
    pub pcid: u16,
    /// IA32_PKRS, 0 unless CR4.PKS: what is cached depends on it, and it changes more often than it is flushed for.
    pub pkrs: u32,
    /// Who watches for bus locks, a bit each: code that is translated in this context depends on it.
    pub bus_locks: u8,
}

#[derive(Clone, Copy, Debug)]
struct Context {
    key: ContextKey,
    generation: u64,
    used: u64,
}

/// By the base register of memory operands ([`crate::decode::Op::base`]; as many as a `u8` can name, so that no index need be checked): what was
/// found for the last operand that is a base and a displacement. These mostly stay in a page, and what is here is known before the address is.
/// It is always part of what the TLB holds for the current context and class.
#[derive(Debug)]
struct Near {
    /// The page for loads, or [`NOWHERE`].
    read: [u64; 256],
    /// The page for stores, or [`NOWHERE`].
    write: [u64; 256],
    /// As [`Entry::addend`].
    addend: [u64; 256],
    /// Something was entered since all was forgotten.
    used: bool,
}

/// No page.
const NOWHERE: u64 = 0xfff;

impl Near {
    fn new() -> Self {
        Self { read: [NOWHERE; 256], write: [NOWHERE; 256], addend: [0; 256], used: false }
    }

    fn forget(&mut self) {
        if std::mem::take(&mut self.used) {
            self.read[..BASES].fill(NOWHERE);
            self.write[..BASES].fill(NOWHERE);
        }
    }
}

/// Where a hit for stores lies in the host's memory. Good until the TLB it came from is dropped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot(NonNull<u8>);

/// The TLB of one processor.
#[derive(Debug)]
pub struct Tlb {
    /// `ENTRIES` entries, owned; behind a raw pointer because `table` points into them.
    entries: NonNull<Entry>,
    /// First entry of the current context's table for the current access class.
    table: NonNull<Entry>,
    ram: Arc<GuestRam>,
    /// Host address of the first byte of guest RAM.
    ram_base: u64,
    contexts: [Context; CONTEXTS],
    /// For each context, its large pages.
    large: Box<[LargePages]>,
    /// For each context, all its pages for loads and stores.
    pages: Box<[Pages]>,
    /// For each context, the pages of code.
    fetches: Box<[Fetches]>,
    current: usize,
    /// The context before this one: a kernel with page-table isolation goes to and fro between two.
    previous: usize,
    class: usize,
    clock: u64,
    /// Generation to compare with, or [`NEVER`].
    generation: u64,
    near: Near,
    /// All accesses take the slow path (alignment checks, data breakpoints).
    slow: bool,
    writer_base: u16,
    /// Counts every change after which a cached (address, context) pair may be stale though the tag is the same.
    pub(crate) shootdowns: u64,
    /// Counts every change of what [`Tlb::fetch_tag`] gives, of `shootdowns`, or of the processor's mode.
    pub(crate) changes: u64,
    /// The tables of the translating engine, which hold part of what is held here.
    pub(crate) native: Option<Box<Blocks>>,
}

// SAFETY: the entries are owned, and what they point to is guest RAM, which is `Sync`.
unsafe impl Send for Tlb {}

impl Drop for Tlb {
    fn drop(&mut self) {
        let entries = NonNull::slice_from_raw_parts(self.entries, ENTRIES);
        // SAFETY: made by `Box::leak` of such a slice in `new`.
        drop(unsafe { Box::from_raw(entries.as_ptr()) });
    }
}

impl Tlb {
    /// An empty TLB for processor `index`, whose memory is `ram`.
    pub fn new(index: usize, ram: Arc<GuestRam>) -> Self {
        let entries = NonNull::from(Box::leak(vec![Entry::default(); ENTRIES].into_boxed_slice())).cast();
        let ram_base = ram.host_page(0).as_ptr().expose_provenance() as u64;
        Self {
            entries,
            table: entries,
            ram,
            ram_base,
            contexts: [Context { key: ContextKey::default(), generation: 1, used: 0 }; CONTEXTS],
            large: vec![LargePages::NONE; CONTEXTS].into_boxed_slice(),
            pages: vec![Pages::default(); CONTEXTS].into_boxed_slice(),
            fetches: vec![Fetches::default(); CONTEXTS].into_boxed_slice(),
            current: 0,
            previous: 0,
            class: 0,
            clock: 0,
            generation: 1,
            near: Near::new(),
            slow: false,
            writer_base: (index * CONTEXTS + 1) as u16,
            shootdowns: 0,
            changes: 0,
            native: None,
        }
    }

    fn all(&mut self) -> &mut [Entry] {
        // SAFETY: `ENTRIES` entries, owned, borrowed as `self` is.
        unsafe { NonNull::slice_from_raw_parts(self.entries, ENTRIES).as_mut() }
    }

    #[inline(always)]
    fn first_of(&self, context: usize, class: usize) -> NonNull<Entry> {
        // SAFETY: below `ENTRIES`, by the mask.
        unsafe { self.entries.add(((context * CLASSES + class) * SIZE) & (ENTRIES - 1)) }
    }

    fn context(&mut self, index: usize) -> &mut [Entry] {
        &mut self.all()[index * CLASSES * SIZE..][..CLASSES * SIZE]
    }

    fn table_of(&mut self, context: usize, class: usize) -> &mut [Entry] {
        &mut self.context(context)[class * SIZE..][..SIZE]
    }

    /// Sends every access to the slow path, or no more.
    pub(super) fn hide(&mut self, hidden: bool) {
        self.near.forget();
        let hidden = hidden || self.slow;
        self.generation = if hidden { NEVER } else { self.contexts[self.current].generation };
    }

    fn refresh(&mut self) {
        self.changes += 1;
        self.near.forget();
        self.table = self.first_of(self.current, self.class);
        self.generation = if self.slow { NEVER } else { self.contexts[self.current].generation };
    }

    /// Makes `key` the current context and `class` the access class.
    #[cfg(test)]
    fn select(&mut self, key: ContextKey, class: usize, slow: bool) {
        self.select_context(key);
        self.select_class(class, slow);
    }

    /// Makes `class` the access class of the current context; `slow` sends every access to the slow path.
    pub(super) fn select_class(&mut self, class: usize, slow: bool) {
        self.class = class;
        self.slow = slow;
        self.refresh();
    }

    /// Makes `key` the current context. [`Tlb::select_class`] has to follow.
    pub(super) fn select_context(&mut self, key: ContextKey) {
        if self.contexts[self.current].key != key {
            self.clock += 1;
            let found = if self.contexts[self.previous].key == key {
                Some(self.previous)
            } else {
                self.contexts.iter().position(|context| context.key == key)
            };
            self.previous = self.current;
            self.current = found.unwrap_or_else(|| self.replace(key));
            self.contexts[self.current].used = self.clock;
        }
    }

    fn replace(&mut self, key: ContextKey) -> usize {
        let victim = (0..CONTEXTS).min_by_key(|&i| self.contexts[i].used).unwrap_or(0);
        self.contexts[victim].key = key;
        self.flush_context(victim);
        victim
    }

    fn flush_context(&mut self, index: usize) {
        self.large[index].clear();
        self.pages[index].clear();
        self.fetches[index].clear();
        self.empty_tables(index);
    }

    /// Empties what is looked at first of context `index`.
    fn empty_tables(&mut self, index: usize) {
        if let Some(native) = &mut self.native {
            native.flush(index);
        }
        let context = &mut self.contexts[index];
        context.generation += 1;
        if context.generation == NEVER {
            context.generation = 1;
            self.context(index).fill(Entry::default());
            self.shootdowns += 1;
        }
        self.refresh();
    }

    /// Flushes every context whose key `belongs`.
    pub fn flush_where(&mut self, belongs: impl Fn(&ContextKey) -> bool) {
        for index in 0..CONTEXTS {
            if belongs(&self.contexts[index].key) {
                self.flush_context(index);
            }
        }
    }

    /// Flushes everything.
    pub fn flush_all(&mut self) {
        self.flush_where(|_| true);
    }

    /// Forgets the page of `address` in every context whose key `belongs`.
    pub fn flush_page_where(&mut self, address: u64, belongs: impl Fn(&ContextKey) -> bool) {
        for index in 0..CONTEXTS {
            if belongs(&self.contexts[index].key) {
                if let Some(native) = &mut self.native {
                    native.forget_page(index, address);
                }
                for class in 0..CLASSES {
                    self.table_of(index, class)[slot(address)] = Entry::default();
                }
                self.pages[index].forget(address);
                self.fetches[index].forget(address);
                if let Some((base, mask)) = self.large[index].around(address) {
                    self.flush_range(index, base, mask);
                }
            }
        }
        self.near.forget();
        self.shootdowns += 1;
        self.changes += 1;
    }

    /// Forgets every page of context `index` whose address is `base` under `mask`.
    fn flush_range(&mut self, index: usize, base: u64, mask: u64) {
        if let Some(native) = &mut self.native {
            native.forget_range(index, base, mask);
        }
        // Pages of a range no larger than a table stand together.
        let pages = (!mask >> 12) as usize + 1;
        let (first, count) = if pages < SIZE { (slot(base), pages) } else { (0, SIZE) };
        for class in 0..CLASSES {
            for entry in &mut self.table_of(index, class)[first..first + count] {
                let tag = entry.read | entry.write;
                if tag & mask & PAGE_MASK == base {
                    *entry = Entry::default();
                }
            }
        }
        self.pages[index].forget_range(base, mask);
        self.fetches[index].forget_range(base, mask);
    }

    /// The page just entered at `address` is part of a page of `size` bytes: forgetting any part of that forgets all.
    pub fn note_large_page(&mut self, address: u64, size: u64) {
        self.large[self.current].add(address, size);
    }

    /// The current context's key.
    pub fn key(&self) -> ContextKey {
        self.contexts[self.current].key
    }

    /// The current context's number.
    pub(crate) fn context_number(&self) -> usize {
        self.current
    }

    /// Every access has to take the slow path.
    pub(crate) fn is_slow(&self) -> bool {
        self.slow
    }

    /// The current access class.
    pub fn class(&self) -> usize {
        self.class
    }

    /// Identifies the current context, its generation and whether access is the user's: cached fetch translations are valid under the same value.
    pub(crate) fn fetch_tag(&self) -> u64 {
        self.contexts[self.current].generation | (self.current as u64) << 12 | ((self.class == USER) as u64) << 18
    }

    /// The token with which the current context is named as a writer of a page.
    pub fn writer(&self) -> u16 {
        self.writer_base + self.current as u16
    }

    /// Sends stores to the page at RAM `offset` to the slow path, which context `writer` may not have done (any of this TLB's if it is another's token).
    /// They need no other walk for that.
    pub fn revoke_stores(&mut self, offset: u64, writer: u16) {
        let own = writer.wrapping_sub(self.writer_base) as usize;
        if writer == super::ram::MANY_WRITERS {
            for index in 0..CONTEXTS {
                self.empty_tables(index);
            }
        } else if own < CONTEXTS {
            if let Some(native) = &mut self.native {
                native.revoke_stores(own, offset);
            }
            self.near.forget();
            let page = (offset & PAGE_MASK).wrapping_add(self.ram_base);
            for entry in self.context(own) {
                if (entry.write & PAGE_MASK).wrapping_add(entry.addend) == page {
                    entry.write = 0;
                }
            }
        }
    }

    #[inline(always)]
    fn tag(&self, address: u64, size: usize) -> u64 {
        address.wrapping_add(size as u64 - 1) & PAGE_MASK | self.generation
    }

    #[inline(always)]
    fn entry_in(table: NonNull<Entry>, address: u64) -> Entry {
        // SAFETY: `table` is the first of `SIZE` entries, and `slot` is below `SIZE`.
        unsafe { *table.add(slot(address)).as_ref() }
    }

    #[inline(always)]
    fn host(address: u64, addend: u64) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(address.wrapping_add(addend) as usize)
    }

    /// Remembers for operands with this base where the page of `address` is, if it is cached.
    pub(crate) fn bring_near(&mut self, base: u8, address: u64) {
        let base = usize::from(base);
        let entry = Self::entry_in(self.table, address);
        let tag = self.tag(address, 1);
        let page = |cached: u64| if cached == tag { address & PAGE_MASK } else { NOWHERE };
        if base < BASES {
            self.near.read[base] = page(entry.read);
            self.near.write[base] = page(entry.write);
            self.near.addend[base] = entry.addend;
            self.near.used = true;
        }
    }

    /// What must be the page in [`Near`]: only an aligned access surely lies in one.
    #[inline(always)]
    fn near_tag(address: u64, size: usize) -> u64 {
        address & (PAGE_MASK | (size as u64 - 1))
    }

    /// As [`Tlb::load`], if the page was brought near.
    #[inline(always)]
    pub(crate) fn load_near<const N: usize>(&self, base: u8, address: u64) -> Option<u64> {
        let base = usize::from(base);
        let near = self.near.read[base] == Self::near_tag(address, N);
        // SAFETY: as in `load`.
        near.then(|| unsafe { load::<N>(Self::host(address, self.near.addend[base])) })
    }

    /// As [`Tlb::store`], if the page was brought near.
    #[inline(always)]
    pub(crate) fn store_near<const N: usize>(&self, base: u8, address: u64, value: u64) -> bool {
        let base = usize::from(base);
        let near = self.near.write[base] == Self::near_tag(address, N);
        if near {
            // SAFETY: as in `load`.
            unsafe { store::<N>(Self::host(address, self.near.addend[base]), value) };
        }
        near
    }

    /// As [`Tlb::spot`], if the page was brought near.
    #[inline(always)]
    pub(super) fn spot_near(&self, base: u8, address: u64, size: usize) -> Option<Spot> {
        let base = usize::from(base);
        let near = self.near.write[base] == Self::near_tag(address, size);
        NonNull::new(near.then(|| Self::host(address, self.near.addend[base]))?).map(Spot)
    }

    /// Where a load of `N` bytes lies, if cached. An access that crosses pages is never found: the tag is its last byte's, the slot its first's.
    #[inline(always)]
    fn hit_read<const N: usize>(&self, address: u64) -> Option<*mut u8> {
        let entry = Self::entry_in(self.table, address);
        (entry.read == self.tag(address, N)).then(|| Self::host(address, entry.addend))
    }

    #[inline(always)]
    fn hit_write(&self, address: u64, size: usize) -> Option<*mut u8> {
        let entry = Self::entry_in(self.table, address);
        (entry.write == self.tag(address, size)).then(|| Self::host(address, entry.addend))
    }

    /// Loads `N` (1, 2, 4, 8) bytes, zero-extended, if the page is cached for loads.
    #[inline(always)]
    pub fn load<const N: usize>(&self, address: u64) -> Option<u64> {
        let place = self.hit_read::<N>(address)?;
        // SAFETY: the entry hit is of a page of guest RAM, and the access does not leave it.
        Some(unsafe { load::<N>(place) })
    }

    /// Stores the low `N` (1, 2, 4, 8) bytes of `value`, if the page is cached for stores. False if not.
    #[inline(always)]
    pub fn store<const N: usize>(&self, address: u64, value: u64) -> bool {
        let Some(place) = self.hit_write(address, N) else { return false };
        // SAFETY: as in `load`.
        unsafe { store::<N>(place, value) };
        true
    }

    /// As [`Tlb::load`], for up to 64 bytes.
    #[inline(always)]
    pub fn load_array<const N: usize>(&self, address: u64) -> Option<[u8; N]> {
        let place = self.hit_read::<N>(address)?;
        // SAFETY: as in `load`.
        Some(unsafe { place.cast::<[u8; N]>().read_unaligned() })
    }

    /// As [`Tlb::store`], for up to 64 bytes.
    #[inline(always)]
    pub fn store_array<const N: usize>(&self, address: u64, value: [u8; N]) -> bool {
        let Some(place) = self.hit_write(address, N) else { return false };
        // SAFETY: as in `load`.
        unsafe { place.cast::<[u8; N]>().write_unaligned(value) };
        true
    }

    /// Where any number of bytes lies, if they are in one page that is cached for what `tag` gives of its entry.
    fn hit_slice(&self, address: u64, length: usize, tag: impl Fn(&Entry) -> u64) -> Option<*mut u8> {
        let entry = Self::entry_in(self.table, address);
        let within = (address & !PAGE_MASK) as usize + length <= 0x1000;
        (within && tag(&entry) == self.tag(address, 1)).then(|| Self::host(address, entry.addend))
    }

    /// As [`Tlb::load`], of any number of bytes that lie in one page. False if they do not, or it is not cached.
    pub(super) fn load_slice(&self, address: u64, bytes: &mut [u8]) -> bool {
        let Some(place) = self.hit_slice(address, bytes.len(), |entry| entry.read) else { return false };
        // SAFETY: the entry hit is of a page of guest RAM, and the access does not leave it; `bytes` is no guest RAM, to which there are no references.
        unsafe { place.copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len()) };
        true
    }

    /// As [`Tlb::store`], of any number of bytes that lie in one page. False if they do not, or it is not cached.
    pub(super) fn store_slice(&self, address: u64, bytes: &[u8]) -> bool {
        let Some(place) = self.hit_slice(address, bytes.len(), |entry| entry.write) else { return false };
        // SAFETY: as in `load_slice`.
        unsafe { place.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        true
    }

    /// Where a read-modify-write of `size` bytes goes, if the page is cached for stores.
    #[inline(always)]
    pub(super) fn spot(&self, address: u64, size: usize) -> Option<Spot> {
        NonNull::new(self.hit_write(address, size)?).map(Spot)
    }

    /// Loads from a spot of this TLB found for `N` bytes at least.
    #[inline(always)]
    pub(super) fn load_spot<const N: usize>(&self, spot: Spot) -> u64 {
        // SAFETY: as in `load`; the memory lives as long as this TLB.
        unsafe { load::<N>(spot.0.as_ptr()) }
    }

    /// Stores to a spot of this TLB found for `N` bytes at least.
    #[inline(always)]
    pub(super) fn store_spot<const N: usize>(&self, spot: Spot, value: u64) {
        // SAFETY: as in `load_spot`.
        unsafe { store::<N>(spot.0.as_ptr(), value) }
    }

    /// The RAM offset of the byte at `address`, if its page is cached for loads.
    pub fn find_read(&self, address: u64) -> Option<u64> {
        let entry = Self::entry_in(self.table, address);
        (entry.read == self.tag(address, 1)).then(|| self.offset(address, entry))
    }

    /// The RAM offset of the byte at `address`, if its page is cached for stores.
    pub fn find_write(&self, address: u64) -> Option<u64> {
        let entry = Self::entry_in(self.table, address);
        (entry.write == self.tag(address, 1)).then(|| self.offset(address, entry))
    }

    fn offset(&self, address: u64, entry: Entry) -> u64 {
        address.wrapping_add(entry.addend).wrapping_sub(self.ram_base)
    }

    /// The RAM offset of a fetch, if cached. Fetches are found also when data accesses must take the slow path.
    pub fn find_execute(&self, address: u64) -> Option<u64> {
        self.fetches[self.current].find(self.class == USER, address)
    }

    /// The RAM offset of the byte at `address` for an access of `kind` in class `class`, if cached; found also when accesses have to take the slow
    /// path.
    pub(crate) fn find(&self, class: usize, address: u64, kind: Kind) -> Option<u64> {
        let entry = Self::entry_in(self.first_of(self.current, class), address);
        let tag = match kind {
            Kind::Read => entry.read,
            Kind::Write => entry.write,
            Kind::Execute => return self.fetches[self.current].find(class == USER, address),
            _ => return None,
        };
        (tag == address & PAGE_MASK | self.contexts[self.current].generation).then(|| self.offset(address, entry))
    }

    /// A supervisor load, whatever the current class is (descriptor tables, task state), as [`Tlb::load`].
    #[inline(always)]
    pub fn system_load<const N: usize>(&self, address: u64) -> Option<u64> {
        let entry = Self::entry_in(self.first_of(self.current, SUPERVISOR), address);
        // SAFETY: as in `load`.
        (entry.read == self.tag(address, N)).then(|| unsafe { load::<N>(Self::host(address, entry.addend)) })
    }

    /// What is cached, context by context, for people to read.
    pub fn contents(&self) -> Vec<CachedContext> {
        let cached = |index: usize, class: usize, entry: &Entry| {
            let generation = self.contexts[index].generation;
            let valid = |tag: u64| tag != 0 && tag & !PAGE_MASK == generation;
            let rights = Rights { read: valid(entry.read), write: valid(entry.write), execute: false };
            let tag = [entry.read, entry.write].into_iter().find(|tag| valid(*tag))?;
            let linear = tag & PAGE_MASK;
            Some(Cached { class, linear, offset: self.offset(linear, *entry), rights })
        };
        let fetch = |(user, linear, offset)| {
            let class = if user { USER } else { SUPERVISOR };
            Cached { class, linear, offset, rights: Rights { execute: true, ..Rights::default() } }
        };
        (0..CONTEXTS)
            .map(|index| {
                let tables = (0..CLASSES).flat_map(|class| {
                    let entries = NonNull::slice_from_raw_parts(self.first_of(index, class), SIZE);
                    // SAFETY: a whole table, borrowed as `self` is.
                    unsafe { entries.as_ref() }.iter().filter_map(move |entry| cached(index, class, entry))
                });
                let pages = tables.chain(self.fetches[index].contents().map(fetch)).collect();
                CachedContext { key: self.contexts[index].key, pages }
            })
            .collect()
    }

    /// Enters the page of `address`, at RAM page `offset`, for fetches in access class `class`.
    pub fn insert_fetch(&mut self, class: usize, address: u64, offset: u64) {
        if !self.fetches[self.current].insert(class == USER, address, offset) {
            self.flush_context(self.current);
            self.fetches[self.current].insert(class == USER, address, offset);
        }
    }

    /// The RAM offset of the byte at `address` in class `class`, and its page's rights, if it was walked to and not flushed since.
    pub(crate) fn recall(&self, class: usize, address: u64) -> Option<(u64, Rights)> {
        self.pages[self.current].find(class, address)
    }

    /// The page of `address`, at RAM page `offset`, was walked to with these rights, for loads and stores in access class `class`.
    pub fn remember(&mut self, class: usize, address: u64, offset: u64, rights: Rights) {
        if !self.pages[self.current].insert(class, address, offset, rights) {
            self.flush_context(self.current);
            self.pages[self.current].insert(class, address, offset, rights);
        }
    }

    /// Enters the page of `address`, at RAM page `offset`, into the tables, with these rights, for loads and stores in access class `class`.
    pub fn insert(&mut self, class: usize, address: u64, offset: u64, rights: Rights) {
        let page = address & PAGE_MASK;
        let tag = page | self.contexts[self.current].generation;
        let pick = |allowed: bool| if allowed { tag } else { 0 };
        if let Some(native) = &mut self.native {
            native.replace_page(self.current, class, address);
        }
        self.near.forget();
        let host = self.ram.host_page(offset & PAGE_MASK).as_ptr().expose_provenance() as u64;
        self.table_of(self.current, class)[slot(address)] =
            Entry { read: pick(rights.read), write: pick(rights.write), addend: host.wrapping_sub(page) };
    }
}

/// # Safety
/// `place` is valid for loads of `N` bytes.
#[inline(always)]
unsafe fn load<const N: usize>(place: *mut u8) -> u64 {
    // SAFETY: the caller's promise; any alignment is allowed.
    unsafe {
        match N {
            1 => place.read() as u64,
            2 => place.cast::<u16>().read_unaligned() as u64,
            4 => place.cast::<u32>().read_unaligned() as u64,
            _ => place.cast::<u64>().read_unaligned(),
        }
    }
}

/// # Safety
/// `place` is valid for stores of `N` bytes.
#[inline(always)]
unsafe fn store<const N: usize>(place: *mut u8, value: u64) {
    // SAFETY: the caller's promise; any alignment is allowed.
    unsafe {
        match N {
            1 => place.write(value as u8),
            2 => place.cast::<u16>().write_unaligned(value as u16),
            4 => place.cast::<u32>().write_unaligned(value as u32),
            _ => place.cast::<u64>().write_unaligned(value),
        }
    }
}

#[inline(always)]
fn slot(address: u64) -> usize {
    (address >> 12) as usize & (SIZE - 1)
}

/// What a translation allows at once, without another walk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// Loads.
    pub read: bool,
    /// Stores (the dirty bits are set already).
    pub write: bool,
    /// Fetches.
    pub execute: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_what_is_found() {
        let mut tlb = Tlb::new(0, Arc::new(GuestRam::new(1 << 20)));
        let rights = Rights { read: true, write: false, execute: false };
        tlb.insert(USER, 0x7000, 0x9000, rights);
        tlb.insert_fetch(SUPERVISOR_AC, 0x8000, 0xa000);
        let pages = tlb.contents()[0].pages.clone();
        let data = Cached { class: USER, linear: 0x7000, offset: 0x9000, rights };
        let fetch = Rights { execute: true, ..Rights::default() };
        assert_eq!(pages, [data, Cached { class: SUPERVISOR, linear: 0x8000, offset: 0xa000, rights: fetch }]);
        tlb.flush_all();
        assert!(tlb.contents().iter().all(|context| context.pages.is_empty()));
    }

    #[test]
    fn what_is_near_is_forgotten_with_what_is_cached() {
        const BASE: u8 = 3;
        let ram = Arc::new(GuestRam::new(1 << 20));
        let mut tlb = Tlb::new(0, ram);
        let rights = Rights { read: true, write: true, execute: false };
        let near = |tlb: &Tlb| (tlb.load_near::<4>(BASE, 0x7100).is_some(), tlb.store_near::<4>(BASE, 0x7100, 1));
        let bring = |tlb: &mut Tlb| {
            tlb.insert(SUPERVISOR, 0x7000, 0x9000, rights);
            assert_eq!(near(tlb), (false, false));
            tlb.bring_near(BASE, 0x7ff8);
            assert_eq!(near(tlb), (true, true));
        };
        bring(&mut tlb);
        assert_eq!(tlb.load_near::<4>(BASE, 0x7100), Some(1));
        assert_eq!(tlb.load_near::<4>(BASE, 0x7ffe), None, "across pages");
        assert_eq!(tlb.load_near::<4>(BASE, 0x8000), None, "another page");
        assert_eq!(tlb.load_near::<4>(BASE + 1, 0x7100), None, "another base");
        tlb.flush_page_where(0x7000, |_| true);
        assert_eq!(near(&tlb), (false, false));
        bring(&mut tlb);
        tlb.revoke_stores(0x9000, tlb.writer());
        tlb.bring_near(BASE, 0x7000);
        assert_eq!(near(&tlb), (true, false));
        tlb.select(ContextKey { pcid: 1, ..ContextKey::default() }, SUPERVISOR, false);
        assert_eq!(near(&tlb), (false, false));
        tlb.bring_near(BASE, 0x7000);
        assert_eq!(near(&tlb), (false, false), "not cached in this context");
    }

    #[test]
    fn bytes_in_one_page_that_is_cached_are_copied_at_once() {
        let ram = Arc::new(GuestRam::new(1 << 20));
        let mut tlb = Tlb::new(0, ram.clone());
        let rights = Rights { read: true, write: true, execute: false };
        tlb.insert(SUPERVISOR, 0x7000, 0x9000, rights);
        let bytes: [u8; 100] = std::array::from_fn(|index| index as u8 + 1);
        let mut loaded = [0; 100];
        assert!(tlb.store_slice(0x7f9c, &bytes) && tlb.load_slice(0x7f9c, &mut loaded));
        assert_eq!((loaded, ram.load::<1>(0x9f9c), ram.load::<1>(0x9fff)), (bytes, 1, 100));
        assert!(!tlb.store_slice(0x7f9d, &bytes) && !tlb.load_slice(0x7f9d, &mut loaded), "beyond the page");
        assert!(!tlb.load_slice(0x6000, &mut loaded), "not cached");
        tlb.revoke_stores(0x9000, tlb.writer());
        assert!(!tlb.store_slice(0x7000, &bytes) && tlb.load_slice(0x7000, &mut loaded), "code was found in it");
        tlb.select(ContextKey::default(), SUPERVISOR, true);
        assert!(!tlb.load_slice(0x7000, &mut loaded), "every access takes the slow path");
    }

    #[test]
    fn only_a_flush_forgets_what_was_walked_to() {
        let mut tlb = Tlb::new(0, Arc::new(GuestRam::new(1 << 20)));
        let rights = Rights { read: true, write: true, execute: false };
        let enter = |tlb: &mut Tlb, page: u64| {
            tlb.remember(SUPERVISOR, page, 0x9000, rights);
            tlb.insert(SUPERVISOR, page, 0x9000, rights);
        };
        let other = 0x7000 + ((SIZE as u64) << 12);
        enter(&mut tlb, 0x7000);
        enter(&mut tlb, other);
        assert_eq!(tlb.find_read(0x7000), None, "another page has its place");
        tlb.revoke_stores(0x9000, tlb.writer());
        assert_eq!((tlb.find_read(other), tlb.find_write(other)), (Some(0x9000), None), "code was found in it");
        tlb.revoke_stores(0x9000, super::super::ram::MANY_WRITERS);
        assert_eq!(tlb.find_read(other), None);
        for page in [0x7000, other] {
            assert_eq!(tlb.recall(SUPERVISOR, page + 1), Some((0x9001, rights)));
            assert_eq!(tlb.recall(USER, page), None);
        }
        tlb.flush_page_where(other, |_| true);
        assert_eq!((tlb.recall(SUPERVISOR, other), tlb.recall(SUPERVISOR, 0x7000)), (None, Some((0x9000, rights))));
        tlb.flush_all();
        assert_eq!(tlb.recall(SUPERVISOR, 0x7000), None);
    }

    #[test]
    fn forgetting_part_of_a_large_page_forgets_all_of_it() {
        let rights = Rights { read: true, write: true, execute: true };
        let mut tlb = Tlb::new(0, Arc::new(GuestRam::new(16 << 20)));
        for address in [0x20_0000, 0x20_5000, 0x3f_f000, 0x40_0000, 0x7_0000_1000] {
            tlb.insert(SUPERVISOR, address, address & 0xff_ffff, rights);
        }
        tlb.note_large_page(0x20_0000, 0x20_0000);
        tlb.flush_page_where(0x20_1000, |_| true);
        for address in [0x20_0000, 0x20_5000, 0x3f_f000] {
            assert_eq!(tlb.load::<1>(address), None, "{address:#x}");
        }
        assert!(tlb.load::<1>(0x40_0000).is_some() && tlb.load::<1>(0x7_0000_1000).is_some());
    }
}
