//! An ATA disk (ATA8-ACS): LBA commands by PIO and DMA, 28 and 48 bits.

use super::command::{ScatterList, TRANSFER_MAX, TaskFile};
use super::port::{Broken, Protocol, ata_status};
use crate::storage::{Storage, StorageState};
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Bytes of a sector.
const SECTOR: u64 = 512;
/// Sectors of one block of a multiple command.
const MULTIPLE_MAX: u8 = 16;
/// Bytes copied at a time.
const CHUNK: usize = 64 << 10;
/// Sectors that 28 bits address.
const LBA28_MAX: u64 = 0x0fff_ffff;

/// Commands.
mod opcode {
    pub const READ_SECTORS: u8 = 0x20;
    pub const READ_SECTORS_EXT: u8 = 0x24;
    pub const READ_DMA_EXT: u8 = 0x25;
    pub const READ_NATIVE_MAX_EXT: u8 = 0x27;
    pub const READ_MULTIPLE_EXT: u8 = 0x29;
    pub const WRITE_SECTORS: u8 = 0x30;
    pub const WRITE_SECTORS_EXT: u8 = 0x34;
    pub const WRITE_DMA_EXT: u8 = 0x35;
    pub const WRITE_MULTIPLE_EXT: u8 = 0x39;
    pub const WRITE_DMA_FUA_EXT: u8 = 0x3d;
    pub const READ_VERIFY: u8 = 0x40;
    pub const READ_VERIFY_EXT: u8 = 0x42;
    pub const DIAGNOSTIC: u8 = 0x90;
    pub const INITIALIZE_PARAMETERS: u8 = 0x91;
    pub const READ_MULTIPLE: u8 = 0xc4;
    pub const WRITE_MULTIPLE: u8 = 0xc5;
    pub const SET_MULTIPLE: u8 = 0xc6;
    pub const READ_DMA: u8 = 0xc8;
    pub const WRITE_DMA: u8 = 0xca;
    pub const STANDBY_IMMEDIATE: u8 = 0xe0;
    pub const IDLE_IMMEDIATE: u8 = 0xe1;
    pub const STANDBY: u8 = 0xe2;
    pub const IDLE: u8 = 0xe3;
    pub const CHECK_POWER: u8 = 0xe5;
    pub const FLUSH: u8 = 0xe7;
    pub const FLUSH_EXT: u8 = 0xea;
    pub const IDENTIFY: u8 = 0xec;
    pub const SET_FEATURES: u8 = 0xef;
    pub const READ_NATIVE_MAX: u8 = 0xf8;
}

/// Bits of the error register.
mod error {
    pub const ABORT: u16 = 1 << 2;
    pub const ID_NOT_FOUND: u16 = 1 << 4;
    pub const UNCORRECTABLE: u16 = 1 << 6;
}

/// The saved state of an [`AtaDisk`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct AtaDiskState {
    pub storage: StorageState,
    pub multiple: u8,
    pub write_cache: bool,
    pub transfer_mode: u8,
}

/// A disk.
pub struct AtaDisk {
    storage: Box<dyn Storage>,
    serial: String,
    buffer: Vec<u8>,
    /// Sectors in a block of a multiple command; 0: not set.
    multiple: u8,
    write_cache: bool,
    /// The transfer mode set, which changes nothing but what IDENTIFY says.
    transfer_mode: u8,
}

/// A failed command: the error register's bits.
struct Failure(u16);

enum Stop {
    Failure(Failure),
    Broken(Broken),
}

impl From<Broken> for Stop {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

fn abort() -> Stop {
    Stop::Failure(Failure(error::ABORT))
}

/// Puts `text` into words of an IDENTIFY block: padded with blanks, the characters of each word swapped.
pub(super) fn put_text(block: &mut [u8; 512], word: usize, length: usize, text: &str) {
    let target = &mut block[2 * word..2 * word + length];
    target.fill(b' ');
    for (index, byte) in text.bytes().filter(u8::is_ascii).take(length).enumerate() {
        target[index ^ 1] = byte;
    }
}

/// Sets a word of an IDENTIFY block.
pub(super) fn put_word(block: &mut [u8; 512], word: usize, value: u16) {
    block[2 * word..2 * word + 2].copy_from_slice(&value.to_le_bytes());
}

/// Makes the sum of all bytes zero (word 255, the integrity word).
pub(super) fn seal(block: &mut [u8; 512]) {
    block[510] = 0xa5;
    block[511] = 0;
    let sum = block.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    block[511] = sum.wrapping_neg();
}

impl AtaDisk {
    /// A disk with the contents of `storage`, rounded down to sectors, and `serial` number.
    pub fn new(storage: Box<dyn Storage>, serial: &str) -> Self {
        let mut disk = Self {
            storage,
            serial: serial.to_string(),
            buffer: vec![0; CHUNK],
            multiple: 0,
            write_cache: true,
            transfer_mode: 0,
        };
        disk.reset();
        disk
    }

    pub(super) fn reset(&mut self) {
        self.multiple = MULTIPLE_MAX;
        self.write_cache = true;
        self.transfer_mode = 0x45;
    }

    fn sectors(&self) -> u64 {
        (self.storage.size() / SECTOR).min((1 << 48) - 1)
    }

    fn identify(&self) -> [u8; 512] {
        let mut block = [0; 512];
        let sectors = self.sectors();
        let cylinders = (sectors / (16 * 63)).min(16383) as u16;
        let old = u32::from(cylinders) * 16 * 63;
        let short = sectors.min(LBA28_MAX) as u32;
        let set = |block: &mut [u8; 512], words: &[(usize, u16)]| {
            for (word, value) in words {
                put_word(block, *word, *value);
            }
        };
        put_text(&mut block, 10, 20, &self.serial);
        put_text(&mut block, 23, 8, "1.0");
        put_text(&mut block, 27, 40, "Vanderpool disk");
        let mode = |base: u8, supported: u16| {
            supported | if self.transfer_mode & !7 == base { 0x100 << (self.transfer_mode & 7) } else { 0 }
        };
        set(
            &mut block,
            &[
                (0, 0x0040), // a fixed device
                (1, cylinders),
                (3, 16),
                (6, 63),
                (47, 0x8000 | u16::from(MULTIPLE_MAX)),
                (48, 0x4000),
                (49, 0x0f00), // LBA, DMA, IORDY
                (50, 0x4000),
                (53, 0x0007), // words 54 to 58, 64 to 70 and 88 are valid
                (54, cylinders),
                (55, 16),
                (56, 63),
                (57, old as u16),
                (58, (old >> 16) as u16),
                (59, if self.multiple > 0 { 0x100 | u16::from(self.multiple) } else { 0 }),
                (60, short as u16),
                (61, (short >> 16) as u16),
                (63, mode(0x20, 0x07)), // multiword DMA 0 to 2
                (64, 0x0003),           // PIO 3 and 4
                (65, 120),
                (66, 120),
                (67, 120),
                (68, 120),
                (76, 0x0006), // SATA at 1.5 and 3 Gb/s, no queueing
                (80, 0x01f0), // ATA-4 to ATA8-ACS
                (82, 0x0020), // write cache
                (83, 0x7400), // FLUSH CACHE and FLUSH CACHE EXT, 48-bit addresses
                (84, 0x4040), // the write-FUA commands
                (85, u16::from(self.write_cache) << 5),
                (86, 0x3400),
                (87, 0x4040),
                (88, mode(0x40, 0x3f)), // Ultra DMA 0 to 5
                (93, 0),
                (100, sectors as u16),
                (101, (sectors >> 16) as u16),
                (102, (sectors >> 32) as u16),
                (217, 1), // does not rotate
            ],
        );
        seal(&mut block);
        block
    }

    /// Carries out `task`, which becomes its result.
    pub(super) fn execute(&mut self, task: &mut TaskFile, list: &mut ScatterList<'_>) -> Result<Protocol, Broken> {
        let outcome = self.command(task, list);
        task.features = 0;
        let status = ata_status::READY | ata_status::SEEK_COMPLETE;
        match outcome {
            Ok(protocol) => {
                task.command = status;
                Ok(protocol)
            }
            Err(Stop::Failure(Failure(error))) => {
                task.command = status | ata_status::ERROR;
                task.features = error;
                Ok(Protocol::Dma)
            }
            Err(Stop::Broken(broken)) => Err(broken),
        }
    }

    fn command(&mut self, task: &mut TaskFile, list: &mut ScatterList<'_>) -> Result<Protocol, Stop> {
        match task.command {
            opcode::IDENTIFY => {
                let block = self.identify();
                put(list, &block)?;
                Ok(Protocol::PioIn)
            }
            opcode::READ_DMA => self.read(task, false, list, Protocol::Dma),
            opcode::READ_DMA_EXT => self.read(task, true, list, Protocol::Dma),
            opcode::READ_SECTORS => self.read(task, false, list, Protocol::PioIn),
            opcode::READ_SECTORS_EXT => self.read(task, true, list, Protocol::PioIn),
            opcode::READ_MULTIPLE if self.multiple > 0 => self.read(task, false, list, Protocol::PioIn),
            opcode::READ_MULTIPLE_EXT if self.multiple > 0 => self.read(task, true, list, Protocol::PioIn),
            opcode::WRITE_DMA => self.write(task, false, list, Protocol::Dma),
            opcode::WRITE_DMA_EXT => self.write(task, true, list, Protocol::Dma),
            opcode::WRITE_DMA_FUA_EXT => {
                let protocol = self.write(task, true, list, Protocol::Dma)?;
                self.flush()?;
                Ok(protocol)
            }
            opcode::WRITE_SECTORS => self.write(task, false, list, Protocol::PioOut),
            opcode::WRITE_SECTORS_EXT => self.write(task, true, list, Protocol::PioOut),
            opcode::WRITE_MULTIPLE if self.multiple > 0 => self.write(task, false, list, Protocol::PioOut),
            opcode::WRITE_MULTIPLE_EXT if self.multiple > 0 => self.write(task, true, list, Protocol::PioOut),
            opcode::READ_VERIFY => self.range(task, false).map(|_| Protocol::Dma),
            opcode::READ_VERIFY_EXT => self.range(task, true).map(|_| Protocol::Dma),
            opcode::FLUSH | opcode::FLUSH_EXT => self.flush().map(|()| Protocol::Dma),
            opcode::SET_MULTIPLE => {
                let sectors = task.count as u8;
                if sectors > MULTIPLE_MAX || sectors != 0 && !sectors.is_power_of_two() {
                    return Err(abort());
                }
                self.multiple = sectors;
                Ok(Protocol::Dma)
            }
            opcode::SET_FEATURES => self.set_features(task).map(|()| Protocol::Dma),
            opcode::READ_NATIVE_MAX => {
                let last = self.sectors().min(LBA28_MAX).saturating_sub(1);
                task.lba = last & 0xff_ffff;
                task.device = task.device & 0xf0 | (last >> 24) as u8;
                Ok(Protocol::Dma)
            }
            opcode::READ_NATIVE_MAX_EXT => {
                task.lba = self.sectors().saturating_sub(1);
                Ok(Protocol::Dma)
            }
            opcode::CHECK_POWER => {
                task.count = 0xff; // active
                Ok(Protocol::Dma)
            }
            opcode::DIAGNOSTIC => {
                task.lba = 1;
                task.count = 1;
                Ok(Protocol::Dma)
            }
            opcode::STANDBY_IMMEDIATE
            | opcode::IDLE_IMMEDIATE
            | opcode::STANDBY
            | opcode::IDLE
            | opcode::INITIALIZE_PARAMETERS => Ok(Protocol::Dma),
            _ => Err(abort()),
        }
    }

    fn set_features(&mut self, task: &TaskFile) -> Result<(), Stop> {
        match (task.features as u8, task.count as u8) {
            (0x02, _) => self.write_cache = true,
            (0x82, _) => {
                self.write_cache = false;
                self.flush()?;
            }
            // Transfer mode: PIO, multiword DMA 0 to 2, Ultra DMA 0 to 5.
            (0x03, mode @ (0x00..=0x01 | 0x08..=0x0c | 0x20..=0x22 | 0x40..=0x45)) => {
                if mode >= 0x20 {
                    self.transfer_mode = mode;
                }
            }
            // Reverting to power-on defaults at reset, or not: there are none that differ.
            (0x66 | 0xcc, _) => {}
            _ => return Err(abort()),
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Stop> {
        self.storage.flush().map_err(|_| Failure(error::ABORT).into())
    }

    /// Byte offset and length of the sectors that `task` names.
    fn range(&self, task: &TaskFile, ext: bool) -> Result<(u64, u64), Stop> {
        // Addressing by cylinders is from before 1996.
        if task.device & 0x40 == 0 {
            return Err(abort());
        }
        let (lba, count) = if ext {
            (task.lba, if task.count == 0 { 65536 } else { u64::from(task.count) })
        } else {
            let count = u64::from(task.count & 0xff);
            (task.lba28(), if count == 0 { 256 } else { count })
        };
        if lba.checked_add(count).is_none_or(|end| end > self.sectors()) {
            return Err(Failure(error::ID_NOT_FOUND).into());
        }
        debug_assert!(count * SECTOR <= TRANSFER_MAX);
        Ok((lba * SECTOR, count * SECTOR))
    }

    fn read(
        &mut self,
        task: &TaskFile,
        ext: bool,
        list: &mut ScatterList<'_>,
        protocol: Protocol,
    ) -> Result<Protocol, Stop> {
        let (mut at, mut left) = self.range(task, ext)?;
        while left > 0 {
            let n = left.min(CHUNK as u64) as usize;
            self.storage.read_at(at, &mut self.buffer[..n]).map_err(|_| Failure(error::UNCORRECTABLE))?;
            put(list, &self.buffer[..n])?;
            at += n as u64;
            left -= n as u64;
        }
        Ok(protocol)
    }

    fn write(
        &mut self,
        task: &TaskFile,
        ext: bool,
        list: &mut ScatterList<'_>,
        protocol: Protocol,
    ) -> Result<Protocol, Stop> {
        let (mut at, mut left) = self.range(task, ext)?;
        while left > 0 {
            let n = left.min(CHUNK as u64) as usize;
            if !list.get(&mut self.buffer[..n]).map_err(Broken::from)? {
                return Err(Broken::ListTooShort.into());
            }
            self.storage.write_at(at, &self.buffer[..n]).map_err(|_| Failure(error::ABORT))?;
            at += n as u64;
            left -= n as u64;
        }
        if !self.write_cache {
            self.flush()?;
        }
        Ok(protocol)
    }

    /// What must be kept to continue later.
    pub fn save(&self) -> AtaDiskState {
        let Self { storage, serial: _, buffer: _, multiple, write_cache, transfer_mode } = self;
        AtaDiskState {
            storage: storage.save(),
            multiple: *multiple,
            write_cache: *write_cache,
            transfer_mode: *transfer_mode,
        }
    }

    /// Takes over a saved state.
    pub fn restore(&mut self, state: &AtaDiskState) {
        let AtaDiskState { storage, multiple, write_cache, transfer_mode } = state;
        self.storage.restore(storage);
        self.multiple = *multiple;
        self.write_cache = *write_cache;
        self.transfer_mode = *transfer_mode;
    }
}

fn put(list: &mut ScatterList<'_>, data: &[u8]) -> Result<(), Broken> {
    if list.put(data)? { Ok(()) } else { Err(Broken::ListTooShort) }
}
