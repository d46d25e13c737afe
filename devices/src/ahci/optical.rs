//! A CD or DVD drive: ATA packet commands (ATA8-ACS, MMC-5, SPC-3) over a read-only storage of 2048-byte sectors.

use super::command::{ScatterList, TRANSFER_MAX, TaskFile};
use super::disk::{put_text, put_word, seal};
use super::port::{Broken, Protocol, ata_status};
use crate::storage::Storage;
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Bytes of a sector.
const SECTOR: u64 = 2048;
/// Bytes copied at a time.
const CHUNK: usize = 64 << 10;
/// Sectors of a full CD; a larger medium is a DVD.
const CD_SECTORS: u64 = 450_000;

/// ATA commands.
mod opcode {
    pub const DEVICE_RESET: u8 = 0x08;
    pub const READ_SECTORS: u8 = 0x20;
    pub const DIAGNOSTIC: u8 = 0x90;
    pub const PACKET: u8 = 0xa0;
    pub const IDENTIFY_PACKET: u8 = 0xa1;
    pub const STANDBY_IMMEDIATE: u8 = 0xe0;
    pub const IDLE_IMMEDIATE: u8 = 0xe1;
    pub const CHECK_POWER: u8 = 0xe5;
    pub const IDENTIFY: u8 = 0xec;
    pub const SET_FEATURES: u8 = 0xef;
}

/// Packet commands.
mod packet {
    pub const TEST_UNIT_READY: u8 = 0x00;
    pub const REQUEST_SENSE: u8 = 0x03;
    pub const INQUIRY: u8 = 0x12;
    pub const MODE_SENSE_6: u8 = 0x1a;
    pub const START_STOP: u8 = 0x1b;
    pub const PREVENT_REMOVAL: u8 = 0x1e;
    pub const READ_CAPACITY: u8 = 0x25;
    pub const READ_10: u8 = 0x28;
    pub const SEEK_10: u8 = 0x2b;
    pub const SYNCHRONIZE_CACHE: u8 = 0x35;
    pub const READ_TOC: u8 = 0x43;
    pub const GET_CONFIGURATION: u8 = 0x46;
    pub const GET_EVENT_STATUS: u8 = 0x4a;
    pub const READ_DISC_INFORMATION: u8 = 0x51;
    pub const MODE_SENSE_10: u8 = 0x5a;
    pub const READ_12: u8 = 0xa8;
    pub const MECHANISM_STATUS: u8 = 0xbd;
    pub const READ_CD: u8 = 0xbe;
}

/// Sense key, additional sense code and its qualifier (SPC-3 annex D).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sense {
    /// Sense key.
    pub key: u8,
    /// Additional sense code.
    pub code: u8,
    /// Its qualifier.
    pub qualifier: u8,
}

const fn sense(key: u8, code: u8, qualifier: u8) -> Sense {
    Sense { key, code, qualifier }
}

const NO_MEDIUM: Sense = sense(2, 0x3a, 0x02);
const READ_ERROR: Sense = sense(3, 0x11, 0x00);
const INVALID_OPCODE: Sense = sense(5, 0x20, 0x00);
const OUT_OF_RANGE: Sense = sense(5, 0x21, 0x00);
const INVALID_FIELD: Sense = sense(5, 0x24, 0x00);
const REMOVAL_PREVENTED: Sense = sense(5, 0x53, 0x02);

/// The saved state of an [`OpticalDrive`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct OpticalDriveState {
    pub sense: Sense,
    pub tray_open: bool,
    pub locked: bool,
    pub transfer_mode: u8,
}

/// A drive with a medium in it.
pub struct OpticalDrive {
    medium: Box<dyn Storage>,
    serial: String,
    buffer: Vec<u8>,
    sense: Sense,
    tray_open: bool,
    locked: bool,
    transfer_mode: u8,
}

enum Stop {
    /// Check condition.
    Check(Sense),
    /// The ATA command is not one of ours.
    Abort,
    Broken(Broken),
}

impl From<Sense> for Stop {
    fn from(sense: Sense) -> Self {
        Self::Check(sense)
    }
}

impl From<Broken> for Stop {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

fn be16(bytes: &[u8; 16], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn be32(bytes: &[u8; 16], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

impl OpticalDrive {
    /// A drive with `medium` in it, which is only read; a last sector that is not whole is filled with zeroes.
    pub fn new(medium: Box<dyn Storage>, serial: &str) -> Self {
        Self {
            medium,
            serial: serial.to_string(),
            buffer: vec![0; CHUNK],
            sense: Sense::default(),
            tray_open: false,
            locked: false,
            transfer_mode: 0x45,
        }
    }

    pub(super) fn reset(&mut self) {
        self.sense = Sense::default();
        self.locked = false;
        self.transfer_mode = 0x45;
    }

    fn sectors(&self) -> u64 {
        self.medium.size().div_ceil(SECTOR).min(u64::from(u32::MAX))
    }

    fn identify(&self) -> [u8; 512] {
        let mut block = [0; 512];
        put_text(&mut block, 10, 20, &self.serial);
        put_text(&mut block, 23, 8, "1.0");
        put_text(&mut block, 27, 40, "Vanderpool DVD-ROM");
        let mode = |base: u8, supported: u16| {
            supported | if self.transfer_mode & !7 == base { 0x100 << (self.transfer_mode & 7) } else { 0 }
        };
        for (word, value) in [
            (0, 0x85c0), // a removable CD drive, packets of 12 bytes
            (49, 0x0f00),
            (53, 0x0006),
            (63, mode(0x20, 0x07)),
            (64, 0x0003),
            (65, 120),
            (66, 120),
            (67, 120),
            (68, 120),
            (76, 0x0006),
            (80, 0x01f0),
            (82, 0x0210), // DEVICE RESET and PACKET
            (83, 0x4000),
            (84, 0x4000),
            (85, 0x0210),
            (87, 0x4000),
            (88, mode(0x40, 0x3f)),
        ] {
            put_word(&mut block, word, value);
        }
        seal(&mut block);
        block
    }

    /// Carries out `task`, which becomes its result.
    pub(super) fn execute(
        &mut self,
        task: &mut TaskFile,
        command: &[u8; 16],
        list: &mut ScatterList<'_>,
    ) -> Result<Protocol, Broken> {
        let is_packet = task.command == opcode::PACKET;
        let outcome = self.command(task, command, list);
        task.features = 0;
        if is_packet {
            // Interrupt reason: command complete, from device.
            task.count = 3;
        }
        match outcome {
            Ok(protocol) => {
                task.command = ata_status::READY | ata_status::SEEK_COMPLETE;
                if is_packet {
                    self.sense = Sense::default();
                }
                Ok(protocol)
            }
            Err(Stop::Check(sense)) => {
                self.sense = sense;
                task.command = ata_status::READY | ata_status::ERROR;
                task.features = u16::from(sense.key) << 4;
                Ok(Protocol::Dma)
            }
            Err(Stop::Abort) => {
                task.command = ata_status::READY | ata_status::ERROR;
                task.features = 1 << 2;
                Ok(Protocol::Dma)
            }
            Err(Stop::Broken(broken)) => Err(broken),
        }
    }

    fn command(
        &mut self,
        task: &mut TaskFile,
        command: &[u8; 16],
        list: &mut ScatterList<'_>,
    ) -> Result<Protocol, Stop> {
        match task.command {
            opcode::PACKET => {
                self.packet(command, list)?;
                // Features bit 0: data by DMA.
                Ok(if task.features & 1 != 0 { Protocol::Dma } else { Protocol::PacketPioIn })
            }
            opcode::IDENTIFY_PACKET => {
                let block = self.identify();
                put(list, &block)?;
                Ok(Protocol::PioIn)
            }
            opcode::IDENTIFY | opcode::READ_SECTORS => {
                // These say what the device is (ATA8-ACS 7.12.4).
                task.lba = 0xeb_1401;
                task.count = 1;
                Err(Stop::Abort)
            }
            opcode::DEVICE_RESET | opcode::DIAGNOSTIC => {
                self.reset();
                task.lba = 0xeb_1401;
                task.count = 1;
                Ok(Protocol::Dma)
            }
            opcode::SET_FEATURES => match (task.features as u8, task.count as u8) {
                (0x03, mode @ (0x00..=0x01 | 0x08..=0x0c | 0x20..=0x22 | 0x40..=0x45)) => {
                    if mode >= 0x20 {
                        self.transfer_mode = mode;
                    }
                    Ok(Protocol::Dma)
                }
                _ => Err(Stop::Abort),
            },
            opcode::CHECK_POWER => {
                task.count = 0xff;
                Ok(Protocol::Dma)
            }
            opcode::STANDBY_IMMEDIATE | opcode::IDLE_IMMEDIATE => Ok(Protocol::Dma),
            _ => Err(Stop::Abort),
        }
    }

    fn ready(&self) -> Result<(), Sense> {
        if self.tray_open { Err(NO_MEDIUM) } else { Ok(()) }
    }

    fn packet(&mut self, command: &[u8; 16], list: &mut ScatterList<'_>) -> Result<(), Stop> {
        match command[0] {
            packet::TEST_UNIT_READY => self.ready()?,
            packet::REQUEST_SENSE => {
                let Sense { key, code, qualifier } = self.sense;
                let mut data = [0; 18];
                data[0] = 0x70;
                data[2] = key;
                data[7] = 10;
                data[12] = code;
                data[13] = qualifier;
                self.give(list, &data, command[4].into())?;
            }
            packet::INQUIRY => {
                // Vital product data pages do not exist here.
                if command[1] & 1 != 0 || command[2] != 0 {
                    return Err(INVALID_FIELD.into());
                }
                let mut data = [0; 36];
                data[..5].copy_from_slice(&[5, 0x80, 0x05, 0x32, 31]);
                data[8..16].copy_from_slice(b"VNDRPOOL");
                data[16..32].copy_from_slice(b"DVD-ROM         ");
                data[32..36].copy_from_slice(b"1.0 ");
                self.give(list, &data, be16(command, 3).into())?;
            }
            packet::START_STOP => self.start_stop(command[4] & 3)?,
            packet::PREVENT_REMOVAL => self.locked = command[4] & 1 != 0,
            packet::READ_CAPACITY => {
                self.ready()?;
                let last = self.sectors().saturating_sub(1) as u32;
                let data = [last.to_be_bytes(), (SECTOR as u32).to_be_bytes()].concat();
                self.give(list, &data, 8)?;
            }
            packet::READ_10 => self.read(be32(command, 2), be16(command, 7).into(), list)?,
            packet::READ_12 => self.read(be32(command, 2), be32(command, 6), list)?,
            packet::READ_CD => {
                let count = be32(command, 5) & 0xff_ffff;
                match command[9] & 0xf8 {
                    0x00 => {}
                    // User data of data sectors; nothing else is kept.
                    0x10 if matches!(command[1] >> 2 & 7, 0 | 2) => self.read(be32(command, 2), count, list)?,
                    _ => return Err(INVALID_FIELD.into()),
                }
            }
            packet::SEEK_10 => {
                self.ready()?;
                if u64::from(be32(command, 2)) >= self.sectors() {
                    return Err(OUT_OF_RANGE.into());
                }
            }
            packet::SYNCHRONIZE_CACHE => {}
            packet::READ_TOC => self.table_of_contents(command, list)?,
            packet::GET_CONFIGURATION => self.configuration(command, list)?,
            packet::GET_EVENT_STATUS => self.event_status(command, list)?,
            packet::READ_DISC_INFORMATION => {
                self.ready()?;
                if command[1] & 7 != 0 {
                    return Err(INVALID_FIELD.into());
                }
                let mut data = [0; 34];
                // Length; complete disc and session; one session with one track, the first and last of it.
                data[..7].copy_from_slice(&[0, 32, 0x0e, 1, 1, 1, 1]);
                self.give(list, &data, be16(command, 7).into())?;
            }
            packet::MODE_SENSE_6 => {
                let pages = mode_pages(command[2], self.locked)?;
                let mut data = vec![pages.len() as u8 + 3, 0, 0, 0];
                data.extend_from_slice(&pages);
                self.give(list, &data, command[4].into())?;
            }
            packet::MODE_SENSE_10 => {
                let pages = mode_pages(command[2], self.locked)?;
                let mut data = vec![0, pages.len() as u8 + 6, 0, 0, 0, 0, 0, 0];
                data.extend_from_slice(&pages);
                self.give(list, &data, be16(command, 7).into())?;
            }
            packet::MECHANISM_STATUS => {
                let data = [0, u8::from(self.tray_open) << 4, 0, 0, 0, 0, 0, 0];
                self.give(list, &data, be16(command, 8).into())?;
            }
            _ => return Err(INVALID_OPCODE.into()),
        }
        Ok(())
    }

    fn start_stop(&mut self, action: u8) -> Result<(), Sense> {
        match action {
            2 if self.locked => return Err(REMOVAL_PREVENTED),
            2 => self.tray_open = true,
            3 => self.tray_open = false,
            _ => {}
        }
        Ok(())
    }

    /// Gives `data`, at most `limit` bytes of it.
    fn give(&self, list: &mut ScatterList<'_>, data: &[u8], limit: usize) -> Result<(), Stop> {
        put(list, &data[..data.len().min(limit)])?;
        Ok(())
    }

    fn read(&mut self, first: u32, count: u32, list: &mut ScatterList<'_>) -> Result<(), Stop> {
        self.ready()?;
        let (mut at, mut left) = (u64::from(first) * SECTOR, u64::from(count) * SECTOR);
        if u64::from(first) + u64::from(count) > self.sectors() {
            return Err(OUT_OF_RANGE.into());
        }
        if left > TRANSFER_MAX {
            return Err(INVALID_FIELD.into());
        }
        while left > 0 {
            let n = left.min(CHUNK as u64) as usize;
            let there = self.medium.size().saturating_sub(at).min(n as u64) as usize;
            self.medium.read_at(at, &mut self.buffer[..there]).map_err(|_| READ_ERROR)?;
            self.buffer[there..n].fill(0);
            put(list, &self.buffer[..n])?;
            at += n as u64;
            left -= n as u64;
        }
        Ok(())
    }

    /// READ TOC: one data track and the lead-out, or one session (MMC-5 6.26).
    fn table_of_contents(&self, command: &[u8; 16], list: &mut ScatterList<'_>) -> Result<(), Stop> {
        self.ready()?;
        let minutes = command[1] & 2 != 0;
        let address = |sector: u32| {
            if !minutes {
                return sector.to_be_bytes();
            }
            // Two seconds come before the first sector; 75 sectors are a second.
            let frames = sector.saturating_add(150);
            [0, (frames / 75 / 60).min(255) as u8, (frames / 75 % 60) as u8, (frames % 75) as u8]
        };
        let track = |number: u8, sector: u32| [[0, 0x14, number, 0], address(sector)].concat();
        let format = if command[2] & 0xf == 0 { command[9] >> 6 } else { command[2] & 0xf };
        let start = command[6];
        let data = match format {
            0 if start > 1 && start != 0xaa => return Err(INVALID_FIELD.into()),
            0 => {
                let mut data = vec![0, 0, 1, 1];
                if start <= 1 {
                    data.extend(track(1, 0));
                }
                data.extend(track(0xaa, self.sectors() as u32));
                data
            }
            1 => [vec![0, 0, 1, 1], track(1, 0)].concat(),
            _ => return Err(INVALID_FIELD.into()),
        };
        let mut data = data;
        data[1] = data.len() as u8 - 2;
        self.give(list, &data, be16(command, 7).into())
    }

    /// GET CONFIGURATION: profiles and the features of a reader (MMC-5 6.6).
    fn configuration(&self, command: &[u8; 16], list: &mut ScatterList<'_>) -> Result<(), Stop> {
        const CD_ROM: u16 = 0x08;
        const DVD_ROM: u16 = 0x10;
        let current = match () {
            () if self.tray_open => 0,
            () if self.sectors() > CD_SECTORS => DVD_ROM,
            () => CD_ROM,
        };
        let profile = |number: u16| {
            let [high, low] = number.to_be_bytes();
            [high, low, u8::from(number == current), 0]
        };
        // Number, version and flags (persistent, current), length, contents.
        let profiles = [vec![0, 0, 3, 8], profile(DVD_ROM).to_vec(), profile(CD_ROM).to_vec()].concat();
        let medium = u8::from(!self.tray_open);
        let features: [(u16, bool, Vec<u8>); 4] = [
            (0x0000, true, profiles),
            // Core: ATAPI.
            (0x0001, true, vec![0, 1, 0x0b, 8, 0, 0, 0, 2, 1, 0, 0, 0]),
            // Removable medium: a tray, eject, lock.
            (0x0003, true, vec![0, 3, 3, 4, 0x29, 0, 0, 0]),
            // Random readable: 2048-byte blocks.
            (0x0010, medium != 0, vec![0, 0x10, medium, 8, 0, 0, 8, 0, 0, 1, 1, 0]),
        ];
        let first = be16(command, 2);
        let mut data = vec![0, 0, 0, 0, 0, 0];
        data.extend_from_slice(&current.to_be_bytes());
        for (number, is_current, bytes) in features {
            let wanted = match command[1] & 3 {
                0 => number >= first,
                1 => number >= first && is_current,
                2 => number == first,
                _ => return Err(INVALID_FIELD.into()),
            };
            if wanted {
                data.extend(bytes);
            }
        }
        let length = data.len() as u32 - 4;
        data[..4].copy_from_slice(&length.to_be_bytes());
        self.give(list, &data, be16(command, 7).into())
    }

    /// GET EVENT STATUS NOTIFICATION: polled, media events only, of which there are none (MMC-5 6.7).
    fn event_status(&self, command: &[u8; 16], list: &mut ScatterList<'_>) -> Result<(), Stop> {
        const MEDIA: u8 = 4;
        if command[1] & 1 == 0 {
            return Err(INVALID_FIELD.into());
        }
        let limit = be16(command, 7).into();
        if command[4] & 1 << MEDIA == 0 {
            return self.give(list, &[0, 2, 0x80, 1 << MEDIA], limit);
        }
        let status = u8::from(self.tray_open) | u8::from(!self.tray_open) << 1;
        self.give(list, &[0, 6, MEDIA, 1 << MEDIA, 0, status, 0, 0], limit)
    }

    /// What must be kept to continue later. The medium does not change.
    pub fn save(&self) -> OpticalDriveState {
        let Self { medium: _, serial: _, buffer: _, sense, tray_open, locked, transfer_mode } = self;
        OpticalDriveState { sense: *sense, tray_open: *tray_open, locked: *locked, transfer_mode: *transfer_mode }
    }

    /// Takes over a saved state.
    pub fn restore(&mut self, state: &OpticalDriveState) {
        let OpticalDriveState { sense, tray_open, locked, transfer_mode } = *state;
        (self.sense, self.tray_open, self.locked, self.transfer_mode) = (sense, tray_open, locked, transfer_mode);
    }
}

/// The mode pages named by byte 2 of MODE SENSE: read error recovery, capabilities (MMC-5 7).
fn mode_pages(select: u8, locked: bool) -> Result<Vec<u8>, Sense> {
    const RECOVERY: [u8; 12] = [0x01, 10, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0];
    // Reads CD-R, CD-RW, DVD-ROM, DVD-R; multisession, mode 2; locks, ejects, has a tray.
    // 7080 kB/s (40 times a CD's), 512 kB of buffer.
    let locking = 0x29 | u8::from(locked) << 1;
    let capabilities: [u8; 22] =
        [0x2a, 20, 0x0f, 0, 0x70, 0, locking, 0, 0x1b, 0xa8, 0, 0, 2, 0, 0x1b, 0xa8, 0, 0, 0, 0, 0, 0];
    // Nothing can be changed, and nothing is saved.
    match (select >> 6, select & 0x3f) {
        (3, _) => Err(sense(5, 0x39, 0x00)),
        (1, 0x01) => Ok([&RECOVERY[..2], &[0; 10]].concat()),
        (1, 0x2a) => Ok([&capabilities[..2], &[0; 20]].concat()),
        (1, 0x3f) => Ok([&RECOVERY[..2], &[0; 10], &capabilities[..2], &[0; 20]].concat()),
        (_, 0x01) => Ok(RECOVERY.to_vec()),
        (_, 0x2a) => Ok(capabilities.to_vec()),
        (_, 0x3f) => Ok([&RECOVERY[..], &capabilities[..]].concat()),
        _ => Err(INVALID_FIELD),
    }
}

fn put(list: &mut ScatterList<'_>, data: &[u8]) -> Result<(), Broken> {
    if list.put(data)? { Ok(()) } else { Err(Broken::ListTooShort) }
}
