//! The software TLB: guest-linear pages to guest RAM, tagged by translation context.
//!
//! A context is what the architecture tags translations with: VMX root or VPID, EPTP, PCID. Each has three direct-mapped tables, one for each
//! class of access (supervisor, supervisor with SMAP overridden, user), so that changing the context or the privilege level changes an index
//! and flushes nothing. A tag is a page address with the context's generation in its low 12 bits: flushing a context is one increment.

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

/// Supervisor access, SMAP enforced if CR4.SMAP.
pub const SUPERVISOR: usize = 0;
/// Supervisor access with RFLAGS.AC set under SMAP.
pub const SUPERVISOR_AC: usize = 1;
/// User access.
pub const USER: usize = 2;

/// One entry: the page tag for each kind of access, and what to add to a linear address to get the offset in guest RAM.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Entry {
    /// Tag for loads.
    pub read: u64,
    /// Tag for stores.
    pub write: u64,
    /// Tag for fetches.
    pub execute: u64,
    /// Guest RAM offset minus linear address.
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
}

#[derive(Clone, Copy, Debug)]
struct Context {
    key: ContextKey,
    generation: u64,
    used: u64,
    /// Where parts of large pages are cached, in the lower and the upper half of linear addresses.
    large: [LargePages; 2],
}

/// A range that covers every large page of which parts are cached, and the size of the largest.
#[derive(Clone, Copy, Debug, Default)]
struct LargePages {
    base: u64,
    mask: u64,
    size: u64,
}

impl LargePages {
    fn add(&mut self, address: u64, size: u64) {
        if self.size == 0 {
            (self.base, self.mask) = (address, !(size - 1));
        }
        self.size = self.size.max(size);
        self.mask &= !(size - 1);
        while (self.base ^ address) & self.mask != 0 {
            self.mask <<= 1;
        }
    }

    /// The aligned range in which the page of `address` may have further parts.
    fn around(&self, address: u64) -> Option<(u64, u64)> {
        let mask = !(self.size.wrapping_sub(1));
        (self.size != 0 && (self.base ^ address) & self.mask == 0).then_some((address & mask, mask))
    }
}

/// The TLB of one processor.
#[derive(Debug)]
pub struct Tlb {
    entries: Box<[Entry; ENTRIES]>,
    contexts: [Context; CONTEXTS],
    current: usize,
    /// The context before this one: a kernel with page-table isolation goes to and fro between two.
    previous: usize,
    class: usize,
    clock: u64,
    /// Index of the current table's first entry.
    base: usize,
    /// Generation to compare with, or [`NEVER`].
    generation: u64,
    /// All accesses take the slow path (alignment checks, data breakpoints).
    slow: bool,
    writer_base: u16,
    /// Counts every change after which a cached (address, context) pair may be stale though the tag is the same.
    pub(crate) shootdowns: u64,
    /// Counts every change of what [`Tlb::fetch_tag`] gives, of `shootdowns`, or of the processor's mode.
    pub(crate) changes: u64,
}

impl Tlb {
    /// An empty TLB for processor `index`.
    pub fn new(index: usize) -> Self {
        Self {
            entries: empty_entries(),
            contexts: [Context {
                key: ContextKey::default(),
                generation: 1,
                used: 0,
                large: [LargePages::default(); 2],
            }; CONTEXTS],
            current: 0,
            previous: 0,
            class: 0,
            clock: 0,
            base: 0,
            generation: 1,
            slow: false,
            writer_base: (index * CONTEXTS + 1) as u16,
            shootdowns: 0,
            changes: 0,
        }
    }

    fn refresh(&mut self) {
        self.changes += 1;
        self.base = (self.current * CLASSES + self.class) * SIZE;
        self.generation = if self.slow { NEVER } else { self.contexts[self.current].generation };
    }

    /// Makes `key` the current context and `class` the access class; `slow` sends every access to the slow path.
    pub fn select(&mut self, key: ContextKey, class: usize, slow: bool) {
        self.class = class;
        self.slow = slow;
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
        self.refresh();
    }

    fn replace(&mut self, key: ContextKey) -> usize {
        let victim = (0..CONTEXTS).min_by_key(|&i| self.contexts[i].used).unwrap_or(0);
        self.contexts[victim].key = key;
        self.flush_context(victim);
        victim
    }

    fn flush_context(&mut self, index: usize) {
        let context = &mut self.contexts[index];
        context.large = [LargePages::default(); 2];
        context.generation += 1;
        if context.generation == NEVER {
            context.generation = 1;
            self.entries[index * CLASSES * SIZE..][..CLASSES * SIZE].fill(Entry::default());
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
                for class in 0..CLASSES {
                    self.entries[(index * CLASSES + class) * SIZE + slot(address)] = Entry::default();
                }
                if let Some((base, mask)) = self.contexts[index].large[half(address)].around(address) {
                    self.flush_range(index, base, mask);
                }
            }
        }
        self.shootdowns += 1;
        self.changes += 1;
    }

    /// Forgets every page of context `index` whose address is `base` under `mask`.
    fn flush_range(&mut self, index: usize, base: u64, mask: u64) {
        for entry in &mut self.entries[index * CLASSES * SIZE..][..CLASSES * SIZE] {
            let tag = entry.read | entry.write | entry.execute;
            if tag & mask & PAGE_MASK == base {
                *entry = Entry::default();
            }
        }
    }

    /// The page just entered at `address` is part of a page of `size` bytes: forgetting any part of that forgets all.
    pub fn note_large_page(&mut self, address: u64, size: u64) {
        self.contexts[self.current].large[half(address)].add(address, size);
    }

    /// The current context's key.
    pub fn key(&self) -> ContextKey {
        self.contexts[self.current].key
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

    /// Takes away the right to store to the page at RAM `offset` that context `writer` may have cached (any of this TLB's if it is another's token).
    pub fn revoke_stores(&mut self, offset: u64, writer: u16) {
        let own = writer.wrapping_sub(self.writer_base) as usize;
        if writer == super::ram::MANY_WRITERS {
            for index in 0..CONTEXTS {
                self.flush_context(index);
            }
        } else if own < CONTEXTS {
            let page = offset & PAGE_MASK;
            for entry in &mut self.entries[own * CLASSES * SIZE..][..CLASSES * SIZE] {
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

    /// The RAM offset of a load of `size` bytes, if cached. An access that crosses pages is never found.
    #[inline(always)]
    pub fn find_read(&self, address: u64, size: usize) -> Option<u64> {
        let entry = &self.entries[(self.base + slot(address)) & (ENTRIES - 1)];
        (entry.read == self.tag(address, size)).then(|| address.wrapping_add(entry.addend))
    }

    /// The RAM offset of a store, if cached.
    #[inline(always)]
    pub fn find_write(&self, address: u64, size: usize) -> Option<u64> {
        let entry = &self.entries[(self.base + slot(address)) & (ENTRIES - 1)];
        (entry.write == self.tag(address, size)).then(|| address.wrapping_add(entry.addend))
    }

    /// The RAM offset of a fetch, if cached. Fetches are found also when data accesses must take the slow path.
    #[inline(always)]
    pub fn find_execute(&self, address: u64) -> Option<u64> {
        let entry = &self.entries[(self.base + slot(address)) & (ENTRIES - 1)];
        (entry.execute == address & PAGE_MASK | self.contexts[self.current].generation)
            .then(|| address.wrapping_add(entry.addend))
    }

    /// The RAM offset of a supervisor load, whatever the current class is (descriptor tables, task state).
    #[inline(always)]
    pub fn find_system_read(&self, address: u64, size: usize) -> Option<u64> {
        let entry = &self.entries[(self.current * CLASSES * SIZE + slot(address)) & (ENTRIES - 1)];
        (entry.read == self.tag(address, size)).then(|| address.wrapping_add(entry.addend))
    }

    /// What is cached, context by context, for people to read.
    pub fn contents(&self) -> Vec<CachedContext> {
        let cached = |index: usize, class: usize, entry: &Entry| {
            let generation = self.contexts[index].generation;
            let valid = |tag: u64| tag != 0 && tag & !PAGE_MASK == generation;
            let rights = Rights { read: valid(entry.read), write: valid(entry.write), execute: valid(entry.execute) };
            let tag = [entry.read, entry.write, entry.execute].into_iter().find(|tag| valid(*tag))?;
            let linear = tag & PAGE_MASK;
            Some(Cached { class, linear, offset: linear.wrapping_add(entry.addend), rights })
        };
        (0..CONTEXTS)
            .map(|index| {
                let tables = (0..CLASSES).flat_map(|class| {
                    let entries = &self.entries[(index * CLASSES + class) * SIZE..][..SIZE];
                    entries.iter().filter_map(move |entry| cached(index, class, entry))
                });
                CachedContext { key: self.contexts[index].key, pages: tables.collect() }
            })
            .collect()
    }

    /// Enters the page of `address`, at RAM page `offset`, with the rights found, for access class `class`.
    pub fn insert(&mut self, class: usize, address: u64, offset: u64, rights: Rights) {
        let page = address & PAGE_MASK;
        let tag = page | self.contexts[self.current].generation;
        let pick = |allowed: bool| if allowed { tag } else { 0 };
        self.entries[(self.current * CLASSES + class) * SIZE + slot(address)] = Entry {
            read: pick(rights.read),
            write: pick(rights.write),
            execute: pick(rights.execute),
            addend: (offset & PAGE_MASK).wrapping_sub(page),
        };
    }
}

/// Which half of the linear addresses.
fn half(address: u64) -> usize {
    (address >> 63) as usize
}

/// On the heap from the start: the table is too large for the stack.
fn empty_entries() -> Box<[Entry; ENTRIES]> {
    match vec![Entry::default(); ENTRIES].into_boxed_slice().try_into() {
        Ok(entries) => entries,
        Err(_) => unreachable!("the length is the array's"),
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
        let mut tlb = Tlb::new(0);
        let rights = Rights { read: true, write: false, execute: true };
        tlb.insert(USER, 0x7000, 0x9000, rights);
        let pages = tlb.contents()[0].pages.clone();
        assert_eq!(pages, [Cached { class: USER, linear: 0x7000, offset: 0x9000, rights }]);
        tlb.flush_all();
        assert!(tlb.contents().iter().all(|context| context.pages.is_empty()));
    }

    #[test]
    fn forgetting_part_of_a_large_page_forgets_all_of_it() {
        let rights = Rights { read: true, write: true, execute: true };
        let mut tlb = Tlb::new(0);
        for address in [0x20_0000, 0x20_5000, 0x3f_f000, 0x40_0000, 0x7_0000_1000] {
            tlb.insert(SUPERVISOR, address, address, rights);
        }
        tlb.note_large_page(0x20_0000, 0x20_0000);
        tlb.flush_page_where(0x20_1000, |_| true);
        for address in [0x20_0000, 0x20_5000, 0x3f_f000] {
            assert_eq!(tlb.find_read(address, 1), None, "{address:#x}");
        }
        assert!(tlb.find_read(0x40_0000, 1).is_some() && tlb.find_read(0x7_0000_1000, 1).is_some());
    }
}
