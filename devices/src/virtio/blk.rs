//! The block device (VIRTIO 1.2 section 5.2), one queue, over a [`Storage`].
//!
//! A request is done when its notification returns. Without the flush feature accepted the driver expects a
//! write-through disk, so then each write is flushed.

use super::device::{Queues, VirtioDevice, read_structure};
use super::queue::{Chain, RingError};
use crate::storage::{Storage, StorageError, StorageState};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};
use spec::pci::config::class;
use spec::virtio::block::{Feature, HEADER_SIZE, ID_LENGTH, SECTOR, config, request, status};
use spec::virtio::device_type;

const QUEUE_SIZE: u16 = 256;
/// Segments in one request: the queue's length less header and status.
const SEG_MAX: u32 = QUEUE_SIZE as u32 - 2;
/// Bytes of one segment. With [`SEG_MAX`] it keeps a request below
/// [`MAX_CHAIN_BYTES`](super::queue::MAX_CHAIN_BYTES).
const SIZE_MAX: u32 = 64 << 10;
/// Sectors in one segment of a discard or write-zeroes request (32 MiB).
const RANGE_SECTORS_MAX: u32 = 1 << 16;
/// Segments in one discard or write-zeroes request.
const RANGE_SEGMENTS_MAX: u32 = 1;
/// Bytes of a segment of a discard or write-zeroes request: sector (8), number of sectors (4), flags (4).
const RANGE_SIZE: usize = 16;
/// Flag of a write-zeroes segment: the range may be unmapped (section 5.2.6).
const UNMAP: u32 = 1;
/// Bytes copied at a time.
const CHUNK: usize = 64 << 10;

/// Offsets in the device configuration after those in `spec` (section 5.2.4).
mod range_config {
    pub const MAX_DISCARD_SECTORS: usize = 36;
    pub const MAX_DISCARD_SEG: usize = 40;
    pub const DISCARD_SECTOR_ALIGNMENT: usize = 44;
    pub const MAX_WRITE_ZEROES_SECTORS: usize = 48;
    pub const MAX_WRITE_ZEROES_SEG: usize = 52;
    pub const WRITE_ZEROES_MAY_UNMAP: usize = 56;
}

/// The saved state of a [`Block`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockState {
    /// What of the disk lives in the machine.
    pub storage: StorageState,
}

/// A virtio disk.
pub struct Block {
    storage: Box<dyn Storage>,
    identifier: [u8; ID_LENGTH],
    buffer: Vec<u8>,
    /// The first failure of the host's storage not yet told.
    failure: Option<String>,
}

enum Failure {
    /// The request gets this status.
    Status(u8),
    /// A rule of the ring is broken.
    Ring,
}

impl Block {
    /// A disk with the contents of `storage`, whose size is rounded down to sectors. `identifier` is what the guest sees
    /// as serial number, at most 20 bytes of it.
    pub fn new(storage: Box<dyn Storage>, identifier: &str) -> Self {
        let mut id = [0; ID_LENGTH];
        for (to, from) in id.iter_mut().zip(identifier.bytes()) {
            *to = from;
        }
        Self { storage, identifier: id, buffer: vec![0; CHUNK], failure: None }
    }

    /// The first failure of the host's storage since the last call, for a message to the user.
    pub fn take_failure(&mut self) -> Option<String> {
        self.failure.take()
    }

    fn capacity(&self) -> u64 {
        self.storage.size() / SECTOR
    }

    fn storage_result<T>(&mut self, result: Result<T, StorageError>) -> Result<T, Failure> {
        result.map_err(|error| {
            if let StorageError::Host(text) = error {
                self.failure.get_or_insert(text);
            }
            Failure::Status(status::IOERR)
        })
    }

    /// Byte offset of `length` bytes from `sector` on, if they are whole sectors of the disk.
    fn range(&self, sector: u64, length: u64) -> Result<u64, Failure> {
        let end = sector.checked_add(length / SECTOR);
        if !length.is_multiple_of(SECTOR) || end.is_none_or(|end| end > self.capacity()) {
            return Err(Failure::Status(status::IOERR));
        }
        Ok(sector * SECTOR)
    }

    /// Carries out one request; gives the bytes written before the status.
    fn request(&mut self, queues: &mut Queues<'_>, chain: &mut Chain) -> Result<u64, Failure> {
        let mut header = [0; HEADER_SIZE as usize];
        if queues.read(chain, &mut header).ok_or(Failure::Ring)? < header.len() {
            queues.fail(RingError::Layout);
            return Err(Failure::Ring);
        }
        let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = header;
        let sector = u64::from_le_bytes(sector);
        match u32::from_le_bytes([t0, t1, t2, t3]) {
            request::IN => self.read(queues, chain, sector),
            request::OUT => self.write(queues, chain, sector),
            request::FLUSH => {
                let result = self.storage.flush();
                self.storage_result(result).map(|()| 0)
            }
            request::GET_ID => {
                let identifier = self.identifier;
                Ok(queues.write(chain, &identifier).ok_or(Failure::Ring)? as u64)
            }
            kind @ (request::DISCARD | request::WRITE_ZEROES) if !self.storage.read_only() => {
                self.range_request(queues, chain, kind)
            }
            _ => Err(Failure::Status(status::UNSUPPORTED)),
        }
    }

    fn read(&mut self, queues: &mut Queues<'_>, chain: &mut Chain, sector: u64) -> Result<u64, Failure> {
        let length = chain.writable.remaining();
        let mut at = self.range(sector, length)?;
        while chain.writable.remaining() > 0 {
            let n = chain.writable.remaining().min(CHUNK as u64) as usize;
            let result = self.storage.read_at(at, &mut self.buffer[..n]);
            self.storage_result(result)?;
            queues.write(chain, &self.buffer[..n]).ok_or(Failure::Ring)?;
            at += n as u64;
        }
        Ok(length)
    }

    fn write(&mut self, queues: &mut Queues<'_>, chain: &mut Chain, sector: u64) -> Result<u64, Failure> {
        let mut at = self.range(sector, chain.readable.remaining())?;
        while chain.readable.remaining() > 0 {
            let n = chain.readable.remaining().min(CHUNK as u64) as usize;
            queues.read(chain, &mut self.buffer[..n]).ok_or(Failure::Ring)?;
            let result = self.storage.write_at(at, &self.buffer[..n]);
            self.storage_result(result)?;
            at += n as u64;
        }
        self.settle(queues.features)?;
        Ok(0)
    }

    /// Makes a write last where the driver does not flush.
    fn settle(&mut self, features: u64) -> Result<(), Failure> {
        if features & Feature::FLUSH == 0 {
            let result = self.storage.flush();
            self.storage_result(result)?;
        }
        Ok(())
    }

    fn range_request(&mut self, queues: &mut Queues<'_>, chain: &mut Chain, kind: u32) -> Result<u64, Failure> {
        let segments = chain.readable.remaining() / RANGE_SIZE as u64;
        let whole = chain.readable.remaining().is_multiple_of(RANGE_SIZE as u64);
        if !whole || segments == 0 || segments > u64::from(RANGE_SEGMENTS_MAX) {
            return Err(Failure::Status(status::IOERR));
        }
        for _ in 0..segments {
            let mut raw = [0; RANGE_SIZE];
            queues.read(chain, &mut raw).ok_or(Failure::Ring)?;
            let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, flags @ ..] = raw;
            let count = u32::from_le_bytes([n0, n1, n2, n3]);
            let flags = u32::from_le_bytes(flags);
            let length = u64::from(count) * SECTOR;
            let known = if kind == request::WRITE_ZEROES { UNMAP } else { 0 };
            if flags & !known != 0 {
                return Err(Failure::Status(status::UNSUPPORTED));
            }
            if count > RANGE_SECTORS_MAX {
                return Err(Failure::Status(status::IOERR));
            }
            let at = self.range(u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]), length)?;
            let result = match kind {
                request::WRITE_ZEROES => self.storage.write_zeroes(at, length),
                _ => self.storage.discard(at, length),
            };
            self.storage_result(result)?;
        }
        self.settle(queues.features)?;
        Ok(0)
    }
}

impl VirtioDevice for Block {
    type State = BlockState;

    fn device_type(&self) -> u16 {
        device_type::BLOCK
    }

    fn class(&self) -> u32 {
        class::SCSI
    }

    fn features(&self) -> u64 {
        let common = Feature::SIZE_MAX | Feature::SEG_MAX | Feature::BLK_SIZE | Feature::FLUSH;
        let access = if self.storage.read_only() { Feature::RO } else { Feature::DISCARD | Feature::WRITE_ZEROES };
        common | access
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn config_read(&self, offset: usize, data: &mut [u8]) {
        let mut bytes = [0; config::LENGTH as usize];
        bytes[config::CAPACITY as usize..][..8].copy_from_slice(&self.capacity().to_le_bytes());
        let mut put = |at: usize, value: u32| bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        put(config::SIZE_MAX as usize, SIZE_MAX);
        put(config::SEG_MAX as usize, SEG_MAX);
        put(config::BLK_SIZE as usize, SECTOR as u32);
        if !self.storage.read_only() {
            put(range_config::MAX_DISCARD_SECTORS, RANGE_SECTORS_MAX);
            put(range_config::MAX_DISCARD_SEG, RANGE_SEGMENTS_MAX);
            put(range_config::DISCARD_SECTOR_ALIGNMENT, 1);
            put(range_config::MAX_WRITE_ZEROES_SECTORS, RANGE_SECTORS_MAX);
            put(range_config::MAX_WRITE_ZEROES_SEG, RANGE_SEGMENTS_MAX);
            put(range_config::WRITE_ZEROES_MAY_UNMAP, 1);
        }
        read_structure(&bytes, offset, data);
    }

    fn notify(&mut self, queue: u16, queues: &mut Queues<'_>) {
        while let Some(mut chain) = queues.pop(queue) {
            let Some(status_at) = chain.writable.split_last() else {
                queues.fail(RingError::Layout);
                return;
            };
            let (status, written) = match self.request(queues, &mut chain) {
                Ok(written) => (status::OK, written),
                Err(Failure::Status(status)) => (status, 0),
                Err(Failure::Ring) => return,
            };
            if let Err(fault) = queues.dma.write(status_at, &[status]) {
                queues.fail(fault.into());
                return;
            }
            queues.push(queue, chain.head, written + 1);
        }
        queues.request_notification(queue);
    }

    fn reset(&mut self) {}

    fn save(&self) -> BlockState {
        let Self { storage, identifier: _, buffer: _, failure: _ } = self;
        BlockState { storage: storage.save() }
    }

    fn restore(&mut self, state: &BlockState) {
        let BlockState { storage } = state;
        self.storage.restore(storage);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{DATA, Driver, fuzz};
    use super::*;
    use crate::storage::MemoryStorage;

    fn disk(sectors: u64) -> Block {
        let contents: Vec<u8> = (0..sectors * SECTOR).map(|i| (i / SECTOR) as u8).collect();
        Block::new(Box::new(MemoryStorage::with_contents(&contents)), "disk0")
    }

    /// One request with `out` bytes after the header and `into` bytes before the status: status and used length.
    fn run(driver: &mut Driver<Block>, kind: u32, sector: u64, out: &[u8], into: u32) -> (u8, u32) {
        driver.memory.put(DATA, &kind.to_le_bytes());
        driver.memory.put(DATA + 4, &[0; 4]);
        driver.memory.put(DATA + 8, &sector.to_le_bytes());
        driver.memory.put(DATA + 0x1000, out);
        let mut readable = alloc::vec![(DATA, 16)];
        if !out.is_empty() {
            readable.push((DATA + 0x1000, out.len() as u32));
        }
        let mut writable = Vec::new();
        if into > 0 {
            writable.push((DATA + 0x10_0000, into));
        }
        writable.push((DATA + 0x800, 1));
        driver.memory.put(DATA + 0x800, &[0xee]);
        driver.add(0, &readable, &writable);
        driver.kick(0);
        let used = driver.used(0);
        assert_eq!(used.len(), 1);
        (driver.memory.bytes(DATA + 0x800, 1)[0], used[0].1)
    }

    #[test]
    fn sectors_are_read_and_written() {
        let mut driver = Driver::running(disk(1000), 0);
        assert_eq!(run(&mut driver, request::IN, 7, &[], 1024), (status::OK, 1025));
        let bytes = driver.memory.bytes(DATA + 0x10_0000, 1024);
        assert!(bytes[..512].iter().all(|b| *b == 7) && bytes[512..].iter().all(|b| *b == 8));
        assert_eq!(run(&mut driver, request::OUT, 998, &[0x5a; 1024], 0), (status::OK, 1));
        assert_eq!(run(&mut driver, request::IN, 997, &[], 1536), (status::OK, 1537));
        let bytes = driver.memory.bytes(DATA + 0x10_0000, 1536);
        assert_eq!(bytes[0], 997u64 as u8);
        assert!(bytes[512..].iter().all(|b| *b == 0x5a));
    }

    #[test]
    fn requests_outside_the_disk_or_not_in_sectors_fail() {
        let mut driver = Driver::running(disk(10), 0);
        assert_eq!(run(&mut driver, request::IN, 10, &[], 512).0, status::IOERR);
        assert_eq!(run(&mut driver, request::IN, 9, &[], 1024).0, status::IOERR);
        assert_eq!(run(&mut driver, request::OUT, u64::MAX, &[0; 512], 0).0, status::IOERR);
        assert_eq!(run(&mut driver, request::IN, 0, &[], 100).0, status::IOERR);
        assert_eq!(run(&mut driver, 77, 0, &[], 0).0, status::UNSUPPORTED);
        assert!(!driver.needs_reset());
    }

    #[test]
    fn identity_and_flush() {
        let mut driver = Driver::running(disk(10), 0);
        assert_eq!(run(&mut driver, request::GET_ID, 0, &[], 20), (status::OK, 21));
        assert_eq!(&driver.memory.bytes(DATA + 0x10_0000, 6), b"disk0\0");
        assert_eq!(run(&mut driver, request::FLUSH, 0, &[], 0), (status::OK, 1));
    }

    #[test]
    fn zeroes_are_written_and_too_many_refused() {
        let mut driver = Driver::running(disk(100), 0);
        let range = |sector: u64, count: u32, flags: u32| {
            [&sector.to_le_bytes()[..], &count.to_le_bytes(), &flags.to_le_bytes()].concat()
        };
        assert_eq!(run(&mut driver, request::WRITE_ZEROES, 0, &range(3, 2, UNMAP), 0), (status::OK, 1));
        run(&mut driver, request::IN, 2, &[], 2048);
        let bytes = driver.memory.bytes(DATA + 0x10_0000, 2048);
        assert_eq!([bytes[511], bytes[512], bytes[1535], bytes[1536]], [2, 0, 0, 5]);
        assert_eq!(run(&mut driver, request::WRITE_ZEROES, 0, &range(99, 2, 0), 0).0, status::IOERR);
        assert_eq!(run(&mut driver, request::WRITE_ZEROES, 0, &range(0, u32::MAX, 0), 0).0, status::IOERR);
        assert_eq!(run(&mut driver, request::DISCARD, 0, &range(0, 1, 1), 0).0, status::UNSUPPORTED);
        assert_eq!(run(&mut driver, request::DISCARD, 0, &range(0, 1, 0), 0).0, status::OK);
    }

    #[test]
    fn a_missing_header_or_status_needs_a_reset() {
        let mut driver = Driver::running(disk(10), 0);
        driver.add(0, &[(DATA, 15)], &[(DATA, 1)]);
        driver.kick(0);
        assert!(driver.needs_reset());
        driver.start(0);
        driver.add(0, &[(DATA, 16)], &[]);
        driver.kick(0);
        assert!(driver.needs_reset());
    }

    #[test]
    fn the_configuration_tells_capacity_and_limits() {
        let mut driver = Driver::cold(disk(1000));
        assert_eq!(driver.common(0x2000, 8), 1000);
        assert_eq!(driver.common(0x2000 + config::SEG_MAX, 4), 254);
        assert_eq!(driver.common(0x2000 + config::BLK_SIZE, 4), 512);
        assert_eq!(driver.common(0x2000 + config::LENGTH, 8), 0);
    }

    #[test]
    fn random_rings_do_no_harm() {
        fuzz(|| disk(3000), 2, 3000);
    }
}
