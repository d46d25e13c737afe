//! Snapshot mode: reads come from another storage, writes stay in memory, and the other storage is never written.

use super::{Storage, StorageError, StorageState, check_range};
use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;
use alloc::vec;
use alloc::vec::Vec;

/// Bytes of the unit that is copied on the first write to it.
const CLUSTER: u64 = 64 << 10;

/// A storage whose changes are kept in memory and go away with it.
#[derive(Debug)]
pub struct Overlay<S> {
    base: S,
    clusters: BTreeMap<u64, Vec<u8>>,
}

impl<S: Storage> Overlay<S> {
    /// Puts an overlay on `base`, which stays as it is.
    pub fn new(base: S) -> Self {
        Self { base, clusters: BTreeMap::new() }
    }

    /// Replaces the contents from the start on; `contents` must fit.
    pub(super) fn fill(&mut self, contents: &[u8]) {
        for (number, bytes) in (0u64..).zip(contents.chunks(CLUSTER as usize)) {
            let mut cluster = bytes.to_vec();
            cluster.resize(CLUSTER as usize, 0);
            self.clusters.insert(number, cluster);
        }
    }

    /// The part of `offset..end` in the first cluster: number, offset in it, length.
    fn piece(offset: u64, end: u64) -> (u64, usize, usize) {
        let within = offset % CLUSTER;
        (offset / CLUSTER, within as usize, (end - offset).min(CLUSTER - within) as usize)
    }

    /// The cluster `number`, copied from the base unless all of it is about to be replaced.
    fn cluster(&mut self, number: u64, replaced: bool) -> Result<&mut Vec<u8>, StorageError> {
        match self.clusters.entry(number) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let mut bytes = vec![0; CLUSTER as usize];
                if !replaced {
                    let start = number * CLUSTER;
                    let n = (self.base.size() - start).min(CLUSTER) as usize;
                    self.base.read_at(start, &mut bytes[..n])?;
                }
                Ok(entry.insert(bytes))
            }
        }
    }
}

impl<S: Storage> Storage for Overlay<S> {
    fn size(&self) -> u64 {
        self.base.size()
    }

    fn read_at(&mut self, mut offset: u64, buffer: &mut [u8]) -> Result<(), StorageError> {
        check_range(self.size(), offset, buffer.len() as u64)?;
        let end = offset + buffer.len() as u64;
        let mut rest = buffer;
        while offset < end {
            let (number, within, n) = Self::piece(offset, end);
            let (now, later) = rest.split_at_mut(n);
            match self.clusters.get(&number) {
                Some(cluster) => now.copy_from_slice(&cluster[within..within + n]),
                None => self.base.read_at(offset, now)?,
            }
            rest = later;
            offset += n as u64;
        }
        Ok(())
    }

    fn write_at(&mut self, mut offset: u64, data: &[u8]) -> Result<(), StorageError> {
        check_range(self.size(), offset, data.len() as u64)?;
        let end = offset + data.len() as u64;
        let mut rest = data;
        while offset < end {
            let (number, within, n) = Self::piece(offset, end);
            let (now, later) = rest.split_at(n);
            let cluster = self.cluster(number, n == CLUSTER as usize)?;
            cluster[within..within + n].copy_from_slice(now);
            rest = later;
            offset += n as u64;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        Ok(())
    }

    fn save(&self) -> StorageState {
        let Self { base: _, clusters } = self;
        StorageState::Clusters(clusters.clone())
    }

    fn restore(&mut self, state: &StorageState) {
        if let StorageState::Clusters(clusters) = state {
            self.clusters = clusters
                .iter()
                .filter(|(_, bytes)| bytes.len() as u64 == CLUSTER)
                .map(|(number, bytes)| (*number, bytes.clone()))
                .collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::MemoryStorage;
    use super::*;

    #[test]
    fn writes_are_read_back_and_never_reach_the_base() {
        let pattern: Vec<u8> = (0..200_000u32).map(|i| i as u8).collect();
        let mut overlay = Overlay::new(MemoryStorage::with_contents(&pattern));
        overlay.write_at(65_530, &[0xaa; 20]).unwrap();
        let mut buffer = [0; 24];
        overlay.read_at(65_528, &mut buffer).unwrap();
        assert_eq!(buffer[..2], pattern[65_528..65_530]);
        assert_eq!(buffer[2..22], [0xaa; 20]);
        assert_eq!(buffer[22..], pattern[65_550..65_552]);
        let mut below = [0; 24];
        overlay.base.read_at(65_528, &mut below).unwrap();
        assert_eq!(below, pattern[65_528..65_552]);
    }

    #[test]
    fn the_last_partial_cluster_can_be_written() {
        let mut overlay = Overlay::new(MemoryStorage::with_contents(&[1; 70_000]));
        overlay.write_at(69_999, &[2]).unwrap();
        let mut two = [0; 2];
        overlay.read_at(69_998, &mut two).unwrap();
        assert_eq!(two, [1, 2]);
    }

    #[test]
    fn ranges_outside_are_refused() {
        let mut storage = MemoryStorage::new(512);
        assert_eq!(storage.read_at(1, &mut [0; 512]), Err(StorageError::OutOfRange));
        assert_eq!(storage.write_at(u64::MAX, &[0; 2]), Err(StorageError::OutOfRange));
        assert_eq!(storage.write_zeroes(512, u64::MAX), Err(StorageError::OutOfRange));
    }

    #[test]
    fn saved_changes_come_back() {
        let mut overlay = Overlay::new(MemoryStorage::new(1 << 20));
        overlay.write_at(500_000, b"hello").unwrap();
        let state = overlay.save();
        let mut other = Overlay::new(MemoryStorage::new(1 << 20));
        other.restore(&state);
        let mut buffer = [0; 5];
        other.read_at(500_000, &mut buffer).unwrap();
        assert_eq!(&buffer, b"hello");
    }
}
