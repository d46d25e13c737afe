//! The memory of host code: one file in memory, mapped twice, writable here and executable there, never both at one address.
#![allow(unsafe_code)]

use memmap2::{Mmap, MmapMut, MmapOptions};
use std::io;

/// The two mappings, filled from the start.
pub(crate) struct CodeBuffer {
    writable: MmapMut,
    executable: Mmap,
    used: usize,
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
        Ok(Self { writable, executable, used: 0 })
    }

    /// The address at which the next code will be executed.
    pub(crate) fn next(&self) -> u64 {
        self.executable.as_ptr() as u64 + self.used as u64
    }

    /// Bytes used.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// Bytes left.
    pub(crate) fn left(&self) -> usize {
        self.writable.len() - self.used
    }

    /// Appends code made for [`CodeBuffer::next`]. There must be room.
    pub(crate) fn append(&mut self, code: &[u8]) {
        self.writable[self.used..self.used + code.len()].copy_from_slice(code);
        self.used = (self.used + code.len()).next_multiple_of(16).min(self.writable.len());
    }

    /// Overwrites code at the address where it is executed.
    pub(crate) fn patch(&mut self, address: u64, code: &[u8]) {
        let at = address.wrapping_sub(self.executable.as_ptr() as u64) as usize;
        self.writable[at..at + code.len()].copy_from_slice(code);
    }

    /// Forgets everything from `address` on.
    pub(crate) fn reset(&mut self, address: u64) {
        self.used = address.wrapping_sub(self.executable.as_ptr() as u64) as usize;
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
