//! Guest RAM: one zeroed allocation shared by processors and devices, with a few flags a page.
//!
//! The only module of memory with `unsafe`: guest RAM is shared mutable bytes, which Rust's references cannot describe. Every access is
//! bounds-checked and made through raw pointers; no reference to guest bytes outlives a call.
#![allow(unsafe_code)]

use super::exchange;
use super::huge_pages::{self, HugePages};
use crate::peers::Peers;
use memmap2::{MmapMut, MmapOptions};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, Ordering::Relaxed, Ordering::SeqCst, fence};
use std::sync::{Arc, Mutex, OnceLock};

/// Bytes in a page.
pub const PAGE_SIZE: u64 = 4096;

/// Decoded code was made from this page.
const HAS_CODE: u8 = 1;
/// Written since the flag was last taken.
const DIRTY: u8 = 2;

/// Guest memory.
pub struct GuestRam {
    /// Owns what `bytes` points to.
    _mapping: MmapMut,
    bytes: NonNull<u8>,
    length: u64,
    huge_pages: HugePages,
    page_flags: Box<[AtomicU8]>,
    /// Which TLB context last cached the page for stores; see [`GuestRam::note_writer`].
    writers: Box<[AtomicU16]>,
    code_written: AtomicBool,
    code_written_pages: Mutex<Vec<u32>>,
    /// The processors, where each has decoded code of its own.
    peers: OnceLock<Arc<Peers>>,
}

// SAFETY: the bytes are plain memory owned by this value; concurrent access is guest-visible racing, as on a real machine,
// and every access is through raw pointers.
unsafe impl Send for GuestRam {}
// SAFETY: as above.
unsafe impl Sync for GuestRam {}

impl std::fmt::Debug for GuestRam {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuestRam").field("length", &self.length).finish_non_exhaustive()
    }
}

/// Whether more than one TLB context may have the page cached for stores.
pub const MANY_WRITERS: u16 = u16::MAX;

impl GuestRam {
    /// `length` bytes of zeroes, rounded up to pages. The host gives the pages when they are first touched.
    ///
    /// # Panics
    /// When the host refuses; see [`Self::try_new`].
    pub fn new(length: u64) -> Self {
        Self::try_new(length).expect("the host has memory")
    }

    /// As [`Self::new`].
    ///
    /// # Errors
    /// When the host refuses so much.
    pub fn try_new(length: u64) -> io::Result<Self> {
        let length = length.checked_next_multiple_of(PAGE_SIZE).ok_or(io::ErrorKind::OutOfMemory)?.max(PAGE_SIZE);
        let size = usize::try_from(length + PAGE_SIZE).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let mut mapping = MmapOptions::new().len(size).no_reserve_swap().map_anon()?;
        let bytes = NonNull::new(mapping.as_mut_ptr()).ok_or(io::ErrorKind::OutOfMemory)?;
        let pages = (length / PAGE_SIZE) as usize;
        Ok(Self {
            _mapping: mapping,
            bytes,
            length,
            huge_pages: HugePages::of(bytes.as_ptr() as usize, length as usize),
            page_flags: (0..pages).map(|_| AtomicU8::new(0)).collect(),
            writers: (0..pages).map(|_| AtomicU16::new(0)).collect(),
            code_written: AtomicBool::new(false),
            code_written_pages: Mutex::new(Vec::new()),
            peers: OnceLock::new(),
        })
    }

    /// From now on the memory is that of a parallel machine.
    pub fn share(&self, peers: Arc<Peers>) {
        // Once is enough: a machine stays what it is.
        let _ = self.peers.set(peers);
    }

    /// The processors of a parallel machine.
    #[inline]
    pub(crate) fn peers(&self) -> Option<&Arc<Peers>> {
        self.peers.get()
    }

    /// Where the host has it, for translated code, which reaches it by way of pages that the TLB allows.
    pub(crate) fn host_address(&self) -> u64 {
        self.bytes.as_ptr() as u64
    }

    /// Size in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    #[inline(always)]
    fn at(&self, offset: u64, size: usize) -> *mut u8 {
        assert!(offset <= self.length && self.length - offset >= size as u64, "guest RAM offset out of range");
        // SAFETY: within the allocation, just checked.
        unsafe { self.bytes.as_ptr().add(offset as usize) }
    }

    /// As [`GuestRam::at`] for at most a page, without a branch: an offset out of range, which would be a mistake of the caller, gives the spare
    /// page behind RAM.
    #[inline(always)]
    fn at_small<const N: usize>(&self, offset: u64) -> *mut u8 {
        const { assert!(N as u64 <= PAGE_SIZE) };
        debug_assert!(offset <= self.length && self.length - offset >= N as u64, "guest RAM offset out of range");
        // SAFETY: at most `length`, and the mapping goes on for a page.
        unsafe { self.bytes.as_ptr().add(offset.min(self.length) as usize) }
    }

    /// The page of RAM at `offset`, a multiple of the page size, in the host's memory.
    ///
    /// # Panics
    /// When it is not in RAM.
    pub(super) fn host_page(&self, offset: u64) -> NonNull<u8> {
        let page = self.at(offset, PAGE_SIZE as usize);
        NonNull::new(page).expect("an allocation is not at address zero")
    }

    /// Loads a little-endian value of `N` bytes (1, 2, 4, 8), zero-extended.
    #[inline(always)]
    pub fn load<const N: usize>(&self, offset: u64) -> u64 {
        let p = self.at_small::<N>(offset);
        // SAFETY: `at_small` checked the range; unaligned reads are used.
        unsafe {
            match N {
                1 => p.read() as u64,
                2 => p.cast::<u16>().read_unaligned() as u64,
                4 => p.cast::<u32>().read_unaligned() as u64,
                _ => p.cast::<u64>().read_unaligned(),
            }
        }
    }

    /// Stores the low `N` bytes of `value`. The caller sees to the page's flags ([`GuestRam::note_store`]).
    #[inline(always)]
    pub fn store<const N: usize>(&self, offset: u64, value: u64) {
        let p = self.at_small::<N>(offset);
        // SAFETY: as in `load`.
        unsafe {
            match N {
                1 => p.write(value as u8),
                2 => p.cast::<u16>().write_unaligned(value as u16),
                4 => p.cast::<u32>().write_unaligned(value as u32),
                _ => p.cast::<u64>().write_unaligned(value),
            }
        }
    }

    /// Loads `N` bytes.
    #[inline(always)]
    pub fn load_array<const N: usize>(&self, offset: u64) -> [u8; N] {
        let p = self.at_small::<N>(offset);
        // SAFETY: as in `load`.
        unsafe { p.cast::<[u8; N]>().read_unaligned() }
    }

    /// Stores `N` bytes, as [`GuestRam::store`].
    #[inline(always)]
    pub fn store_array<const N: usize>(&self, offset: u64, value: [u8; N]) {
        let p = self.at_small::<N>(offset);
        // SAFETY: as in `load`.
        unsafe { p.cast::<[u8; N]>().write_unaligned(value) }
    }

    /// Copies bytes out.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) {
        let p = self.at(offset, buffer.len());
        // SAFETY: `at` checked the range; `buffer` is not guest memory.
        unsafe { p.copy_to_nonoverlapping(buffer.as_mut_ptr(), buffer.len()) }
    }

    /// Copies bytes in, from outside the processors (DMA, loaders): page flags are kept.
    pub fn write(&self, offset: u64, data: &[u8]) {
        let p = self.at(offset, data.len());
        if data.is_empty() {
            return;
        }
        match *data {
            // What processors look at meanwhile is stored in one access.
            [a, b] if offset & 1 == 0 => self.store::<2>(offset, u16::from_le_bytes([a, b]).into()),
            [a, b, c, d] if offset & 3 == 0 => self.store::<4>(offset, u32::from_le_bytes([a, b, c, d]).into()),
            // SAFETY: as in `read`.
            _ => unsafe { p.copy_from_nonoverlapping(data.as_ptr(), data.len()) },
        }
        for page in offset / PAGE_SIZE..=(offset + data.len() as u64 - 1) / PAGE_SIZE {
            self.note_store(page * PAGE_SIZE);
        }
    }

    /// Moves `length` bytes inside RAM, low addresses first as REP MOVS does when the ranges do not overlap harmfully. Both
    /// ranges stay within a page; the destination's flags are the caller's affair.
    pub fn copy_within(&self, from: u64, to: u64, length: usize) {
        let (source, target) = (self.at(from, length), self.at(to, length));
        // SAFETY: both ranges checked; `copy` allows overlap.
        unsafe { target.copy_from(source, length) }
    }

    /// Fills with one byte; as [`GuestRam::copy_within`].
    pub fn fill(&self, offset: u64, length: usize, byte: u8) {
        let p = self.at(offset, length);
        // SAFETY: range checked.
        unsafe { p.write_bytes(byte, length) }
    }

    fn page(&self, offset: u64) -> usize {
        (offset / PAGE_SIZE) as usize
    }

    /// Puts `new` where `old` is, in one step; both have `N` (1, 2, 4, 8) bytes. False: something else is there. As to the page's flags, as
    /// [`GuestRam::store`].
    pub fn compare_exchange<const N: usize>(&self, offset: u64, old: u64, new: u64) -> bool {
        let p = self.at_small::<N>(offset);
        // SAFETY: as in `load`.
        unsafe { exchange::compare_exchange::<N>(p, old, new) }
    }

    /// The same for 16 bytes at an aligned offset.
    pub fn compare_exchange_16(&self, offset: u64, old: u128, new: u128) -> bool {
        let p = self.at_small::<16>(offset & !15);
        // SAFETY: as in `load`; the mapping is aligned to pages.
        unsafe { exchange::compare_exchange_16(p, old, new) }
    }

    /// To be called after stores to the page of `offset` that pass by the TLB: marks it dirty and, if code was decoded from it, queues it
    /// for [`GuestRam::take_written_code`]. True in that case.
    #[inline]
    pub fn note_store(&self, offset: u64) -> bool {
        let flags = &self.page_flags[self.page(offset)];
        let old = flags.load(Relaxed);
        if old & DIRTY == 0 {
            flags.fetch_or(DIRTY, Relaxed);
        }
        if let Some(peers) = self.peers.get() {
            return self.note_shared_store(peers, offset);
        }
        if old & HAS_CODE == 0 {
            return false;
        }
        let mut pages = self.code_written_pages.lock().unwrap_or_else(|e| e.into_inner());
        let page = self.page(offset) as u32;
        if pages.last() != Some(&page) {
            pages.push(page);
        }
        self.code_written.store(true, Relaxed);
        true
    }

    /// As [`GuestRam::note_store`], where processors run meanwhile. Whoever decodes marks the page first and reads then; here the store comes first and
    /// the look at the mark then, so that one of the two sees what the other did. The mark is taken away at once, not by those who drop what
    /// they have decoded: one of them may be decoding anew.
    fn note_shared_store(&self, peers: &Peers, offset: u64) -> bool {
        let flags = &self.page_flags[self.page(offset)];
        fence(SeqCst);
        let had = flags.load(SeqCst) & HAS_CODE != 0 && flags.fetch_and(!HAS_CODE, SeqCst) & HAS_CODE != 0;
        if had {
            peers.code_written(self.page(offset) as u32);
        }
        had
    }

    /// True when code was decoded from the page of `offset`.
    #[inline(always)]
    pub fn has_code(&self, offset: u64) -> bool {
        // Not before what was noted by `note_writer` is seen by others.
        self.page_flags[self.page(offset)].load(SeqCst) & HAS_CODE != 0
    }

    /// Marks the page as having decoded code. True when it had none before.
    pub fn set_has_code(&self, offset: u64) -> bool {
        self.page_flags[self.page(offset)].fetch_or(HAS_CODE, SeqCst) & HAS_CODE == 0
    }

    /// The page's decoded code is gone. On a parallel machine others may have some: there a store takes the mark away.
    pub fn clear_has_code(&self, offset: u64) {
        if self.peers.get().is_some() {
            return;
        }
        self.page_flags[self.page(offset)].fetch_and(!HAS_CODE, Relaxed);
    }

    /// True when a page with decoded code was written.
    #[inline(always)]
    pub fn code_was_written(&self) -> bool {
        self.code_written.load(Relaxed)
    }

    /// The page numbers with decoded code that were written since the last call for this owner of decoded code.
    pub fn take_written_code(&self, owner: usize) -> Vec<u32> {
        if let Some(peers) = self.peers.get() {
            return peers.take_written(owner);
        }
        self.code_written.store(false, Relaxed);
        std::mem::take(&mut *self.code_written_pages.lock().unwrap_or_else(|e| e.into_inner()))
    }

    /// Remembers that TLB context `writer` (not 0) may hold the page for stores, so that it can be found when code is decoded from it.
    #[inline]
    pub fn note_writer(&self, offset: u64, writer: u16) {
        let slot = &self.writers[self.page(offset)];
        let mut old = slot.load(SeqCst);
        while old != writer && old != MANY_WRITERS {
            let new = if old == 0 { writer } else { MANY_WRITERS };
            match slot.compare_exchange(old, new, SeqCst, SeqCst) {
                Ok(_) => break,
                Err(now) => old = now,
            }
        }
    }

    /// Which context may hold the page for stores: 0 none, [`MANY_WRITERS`] more than one. Resets to none.
    pub fn take_writer(&self, offset: u64) -> u16 {
        self.writers[self.page(offset)].swap(0, SeqCst)
    }

    /// Runs `visit` on the bytes of each page that was ever written, in order: (offset, bytes). For digests and snapshots.
    pub fn for_each_page(&self, mut visit: impl FnMut(u64, &[u8; PAGE_SIZE as usize])) {
        for offset in (0..self.length).step_by(PAGE_SIZE as usize) {
            if self.page_flags[self.page(offset)].load(Relaxed) & DIRTY != 0 {
                visit(offset, &self.load_array(offset));
            }
        }
    }

    /// The page at `offset` is entered into a TLB, to be accessed directly.
    #[inline]
    pub fn note_use(&self, offset: u64) {
        let start = self.bytes.as_ptr() as usize;
        self.huge_pages.note_use(start + offset as usize, |part| {
            let first = (part - start) / PAGE_SIZE as usize;
            let pages = &self.page_flags[first..first + huge_pages::SIZE / PAGE_SIZE as usize];
            pages.iter().all(|flags| flags.load(Relaxed) & DIRTY != 0)
        });
    }

    /// Marks the page dirty (a TLB entry for stores was made).
    #[inline]
    pub fn mark_dirty(&self, offset: u64) {
        let flags = &self.page_flags[self.page(offset)];
        // Most are dirty already, and a locked operation waits for every store before it.
        if flags.load(Relaxed) & DIRTY == 0 {
            flags.fetch_or(DIRTY, Relaxed);
        }
    }
}
