//! The memory of host code: one file in memory, mapped twice, writable here and executable there, never both at one address.
#![allow(unsafe_code)]

use memmap2::{Mmap, MmapMut, MmapOptions};
use std::io;

/// The two mappings, filled from the start, and with what is seldom executed from the middle on: so what is executed often stands close together.
pub(crate) struct CodeBuffer {
    writable: MmapMut,
    executable: Mmap,
    /// Where the next code goes.
    hot: usize,
    /// Where the next code goes that is seldom executed.
    cold: usize,
}

impl CodeBuffer {
    /// `size` bytes, which the host gives as they are touched.
    ///
    /// # Errors
    /// When the host has no such memory, or forbids to execute it.
    pub(crate) fn new(size: usize) -> io::Result<Self> {
        let file = memory_file(size)?;
        // SAFETY: the file is ours alone and keeps its length. What is executed is changed through the other mapping, by this thread only,
        // while it executes nothing of it.
        let (writable, executable) =
            unsafe { (MmapOptions::new().len(size).map_mut(&file)?, MmapOptions::new().len(size).map_exec(&file)?) };
        Ok(Self { writable, executable, hot: 0, cold: size / 2 })
    }

    fn address(&self, at: usize) -> u64 {
        self.executable.as_ptr() as u64 + at as u64
    }

    fn middle(&self) -> usize {
        self.writable.len() / 2
    }

    /// The address at which the next code will be executed.
    pub(crate) fn next(&self) -> u64 {
        self.address(self.hot)
    }

    /// The same of what is seldom executed.
    pub(crate) fn next_cold(&self) -> u64 {
        self.address(self.cold)
    }

    /// Bytes used.
    pub(crate) fn used(&self) -> usize {
        self.hot + (self.cold - self.middle())
    }

    /// There are so many bytes left for both kinds of code.
    pub(crate) fn has_left(&self, bytes: usize) -> bool {
        self.middle() - self.hot >= bytes && self.writable.len() - self.cold >= bytes
    }

    fn put(&mut self, at: usize, code: &[u8]) -> usize {
        self.writable[at..at + code.len()].copy_from_slice(code);
        (at + code.len()).next_multiple_of(16)
    }

    /// Appends code made for [`CodeBuffer::next`]. There must be room.
    pub(crate) fn append(&mut self, code: &[u8]) {
        self.hot = self.put(self.hot, code).min(self.middle());
    }

    /// Appends code made for [`CodeBuffer::next_cold`]. There must be room.
    pub(crate) fn append_cold(&mut self, code: &[u8]) {
        self.cold = self.put(self.cold, code).min(self.writable.len());
    }

    /// Overwrites code at the address where it is executed.
    pub(crate) fn patch(&mut self, address: u64, code: &[u8]) {
        let at = address.wrapping_sub(self.executable.as_ptr() as u64) as usize;
        self.writable[at..at + code.len()].copy_from_slice(code);
    }

    /// Forgets everything from `address` on, and all that is seldom executed.
    pub(crate) fn reset(&mut self, address: u64) {
        self.hot = address.wrapping_sub(self.executable.as_ptr() as u64) as usize;
        self.cold = self.middle();
    }
}

#[cfg(target_os = "linux")]
fn memory_file(size: usize) -> io::Result<std::fs::File> {
    let file = rustix::fs::memfd_create("vanderpool-code", rustix::fs::MemfdFlags::CLOEXEC)?;
    rustix::fs::ftruncate(&file, size as u64)?;
    Ok(file.into())
}

#[cfg(not(target_os = "linux"))]
fn memory_file(_size: usize) -> io::Result<std::fs::File> {
    Err(io::ErrorKind::Unsupported.into())
}
