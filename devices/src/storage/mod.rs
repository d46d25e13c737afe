//! What a disk is made of: [`Storage`], in memory here, and with feature `std` raw files and qcow2 images.

#[cfg(feature = "std")]
pub mod image;
pub mod memory;
pub mod overlay;
#[cfg(feature = "std")]
mod qcow2_check;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

#[cfg(feature = "std")]
pub use image::{Format, ImageOptions, open};
pub use memory::MemoryStorage;
pub use overlay::Overlay;

/// Why a storage access failed. The guest sees an I/O error, the user this text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageError {
    /// The range does not lie within the storage.
    OutOfRange,
    /// The storage is read-only.
    ReadOnly,
    /// The host's file system said no.
    Host(String),
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfRange => f.write_str("access beyond the end of the disk"),
            Self::ReadOnly => f.write_str("the disk is read-only"),
            Self::Host(text) => f.write_str(text),
        }
    }
}

impl core::error::Error for StorageError {}

/// What a storage holds that lives nowhere but in the machine, for snapshots and digests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum StorageState {
    /// Nothing: the contents are in a file of the host.
    #[default]
    External,
    /// Clusters by number: those that differ from what lies beneath.
    Clusters(BTreeMap<u64, Vec<u8>>),
}

/// A linear array of bytes that outlives the guest's attention. Ranges outside `0..size` are refused, never extended.
pub trait Storage: Send {
    /// Bytes. Does not change.
    fn size(&self) -> u64;
    /// Writes are refused.
    fn read_only(&self) -> bool {
        false
    }
    /// Fills `buffer` from `offset` on.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), StorageError>;
    /// Writes `data` from `offset` on.
    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), StorageError>;
    /// Writes zeroes from `offset` on.
    fn write_zeroes(&mut self, offset: u64, length: u64) -> Result<(), StorageError> {
        check_range(self.size(), offset, length)?;
        let zeroes = [0; 4096];
        let (mut at, end) = (offset, offset + length);
        while at < end {
            let n = (end - at).min(zeroes.len() as u64);
            self.write_at(at, &zeroes[..n as usize])?;
            at += n;
        }
        Ok(())
    }
    /// The contents from `offset` on are no longer needed; they may stay or become zero, but read the same ever after.
    fn discard(&mut self, offset: u64, length: u64) -> Result<(), StorageError> {
        check_range(self.size(), offset, length)
    }
    /// Returns when everything written will survive the host's power failing.
    fn flush(&mut self) -> Result<(), StorageError>;
    /// What must be kept to continue later.
    fn save(&self) -> StorageState {
        StorageState::External
    }
    /// Takes over what was saved.
    fn restore(&mut self, state: &StorageState) {
        let _ = state;
    }
}

impl<T: Storage + ?Sized> Storage for Box<T> {
    fn size(&self) -> u64 {
        (**self).size()
    }
    fn read_only(&self) -> bool {
        (**self).read_only()
    }
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), StorageError> {
        (**self).read_at(offset, buffer)
    }
    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), StorageError> {
        (**self).write_at(offset, data)
    }
    fn write_zeroes(&mut self, offset: u64, length: u64) -> Result<(), StorageError> {
        (**self).write_zeroes(offset, length)
    }
    fn discard(&mut self, offset: u64, length: u64) -> Result<(), StorageError> {
        (**self).discard(offset, length)
    }
    fn flush(&mut self) -> Result<(), StorageError> {
        (**self).flush()
    }
    fn save(&self) -> StorageState {
        (**self).save()
    }
    fn restore(&mut self, state: &StorageState) {
        (**self).restore(state);
    }
}

/// That `offset..offset + length` lies within `0..size`.
pub fn check_range(size: u64, offset: u64, length: u64) -> Result<(), StorageError> {
    match offset.checked_add(length) {
        Some(end) if end <= size => Ok(()),
        _ => Err(StorageError::OutOfRange),
    }
}
