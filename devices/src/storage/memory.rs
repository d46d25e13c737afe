//! A disk that exists only in memory.

use super::overlay::Overlay;
use super::{Storage, StorageError, StorageState, check_range};

/// Zeroes of a given size, never written.
#[derive(Clone, Copy, Debug)]
struct Zeroes(u64);

impl Storage for Zeroes {
    fn size(&self) -> u64 {
        self.0
    }
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), StorageError> {
        check_range(self.0, offset, buffer.len() as u64)?;
        buffer.fill(0);
        Ok(())
    }
    fn write_at(&mut self, _offset: u64, _data: &[u8]) -> Result<(), StorageError> {
        Err(StorageError::ReadOnly)
    }
    fn flush(&mut self) -> Result<(), StorageError> {
        Ok(())
    }
}

/// A disk in memory. Only what was written takes room.
#[derive(Debug)]
pub struct MemoryStorage(Overlay<Zeroes>);

impl MemoryStorage {
    /// `size` bytes of zero.
    pub fn new(size: u64) -> Self {
        Self(Overlay::new(Zeroes(size)))
    }

    /// A disk with these contents.
    pub fn with_contents(contents: &[u8]) -> Self {
        let mut storage = Self::new(contents.len() as u64);
        storage.0.fill(contents);
        storage
    }
}

impl Storage for MemoryStorage {
    fn size(&self) -> u64 {
        self.0.size()
    }
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), StorageError> {
        self.0.read_at(offset, buffer)
    }
    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), StorageError> {
        self.0.write_at(offset, data)
    }
    fn flush(&mut self) -> Result<(), StorageError> {
        Ok(())
    }
    fn save(&self) -> StorageState {
        self.0.save()
    }
    fn restore(&mut self, state: &StorageState) {
        self.0.restore(state);
    }
}
