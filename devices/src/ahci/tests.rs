//! The controller driven as a guest does.

use super::*;
use crate::storage::{MemoryStorage, Storage};
use crate::testing::{RecordingMsi, RecordingPin, VecDma};

const LIST: u64 = 0x1000;
const RECEIVED: u64 = 0x2000;
const TABLE: u64 = 0x3000;
const DATA: u64 = 0x10_0000;
const MEMORY: usize = 0x40_0000;

const IS: u64 = 0x10;
const CMD: u64 = 0x18;
const TFD: u64 = 0x20;
const SIG: u64 = 0x24;
const SCTL: u64 = 0x2c;
const SERR: u64 = 0x30;
const CI: u64 = 0x38;

struct Rig {
    ahci: Ahci,
    memory: VecDma,
    pin: RecordingPin,
    msi: RecordingMsi,
}

/// 100,000 sectors, of which some hold their number.
fn disk() -> AtaDisk {
    let mut storage = MemoryStorage::new(100_000 * 512);
    for sector in (0..16).chain(70_000..70_016) {
        storage.write_at(sector * 512, &[sector as u8; 512]).unwrap();
    }
    AtaDisk::new(Box::new(storage), "serial")
}

fn optical(sectors: u32) -> OpticalDrive {
    let contents: Vec<u8> = (0..sectors * 2048 - 100).map(|i| (i / 2048) as u8).collect();
    OpticalDrive::new(Box::new(MemoryStorage::with_contents(&contents)), "serial")
}

impl Rig {
    /// A disk on port 0, a CD on port 1, both started, interrupts on.
    fn new() -> Self {
        let (memory, pin, msi) = (VecDma::new(MEMORY), RecordingPin::new(), RecordingMsi::new());
        let drives = alloc::vec![Drive::Disk(disk()), Drive::Optical(optical(1000))];
        let ports = InterruptPorts { pin: Box::new(pin.clone()), msi: Box::new(msi.clone()) };
        let mut rig = Self { ahci: Ahci::new(drives, Box::new(memory.clone()), ports), memory, pin, msi };
        rig.ahci.config_write(4, 2, 6);
        rig.host_write(4, 2);
        for port in 0..PORTS as u64 {
            rig.start(port);
        }
        rig.pin.take_changes();
        rig
    }

    fn start(&mut self, port: u64) {
        self.write(port, 0, LIST as u32);
        self.write(port, 8, RECEIVED as u32);
        self.write(port, SERR, u32::MAX);
        self.write(port, IS, u32::MAX);
        self.write(port, 0x14, u32::MAX);
        self.write(port, CMD, 1 << 4);
        self.write(port, CMD, 1 << 4 | 1);
    }

    fn restart(&mut self, port: u64) {
        self.write(port, CMD, 1 << 4);
        self.start(port);
        self.host_write(8, u32::MAX);
    }

    fn read(&mut self, port: u64, at: u64) -> u32 {
        self.ahci.read(5, 0x100 + 0x80 * port + at, 4) as u32
    }

    fn write(&mut self, port: u64, at: u64, value: u32) {
        self.ahci.write(5, 0x100 + 0x80 * port + at, 4, value.into());
    }

    fn host_write(&mut self, at: u64, value: u32) {
        self.ahci.write(5, at, 4, value.into());
    }

    /// Issues `fis` with `packet` and one buffer of `length` bytes at [`DATA`] split in two; gives the task file data.
    fn issue(&mut self, port: u64, fis: [u8; 20], packet: &[u8], length: u32) -> u32 {
        let lists = if length == 0 { 0u32 } else { 2 };
        let flags = 5 | lists << 16 | if packet.is_empty() { 0 } else { 1 << 5 };
        self.memory.put(LIST, &flags.to_le_bytes());
        self.memory.put(LIST + 4, &[0; 4]);
        self.memory.put(LIST + 8, &TABLE.to_le_bytes());
        self.memory.put(TABLE, &fis);
        self.memory.put(TABLE + 0x40, packet);
        if length > 0 {
            let first = (length / 2).next_multiple_of(2);
            for (i, (at, n)) in [(DATA, first), (DATA + u64::from(first), length - first)].into_iter().enumerate() {
                let entry = TABLE + 0x80 + 16 * i as u64;
                self.memory.put(entry, &at.to_le_bytes());
                self.memory.put(entry + 12, &(n.max(2) - 1).to_le_bytes());
            }
        }
        self.write(port, CI, 1);
        self.read(port, TFD)
    }

    /// An ATA command on the disk.
    fn ata(&mut self, command: u8, lba: u64, count: u16, length: u32) -> u32 {
        self.issue(0, ata(command, lba, count), &[], length)
    }

    /// A packet command on the CD drive, by DMA.
    fn atapi(&mut self, packet: &[u8], length: u32) -> u32 {
        let mut fis = ata(0xa0, 0, 0);
        fis[3] = 1;
        let mut padded = [0; 16];
        padded[..packet.len()].copy_from_slice(packet);
        let tfd = self.issue(1, fis, &padded, length);
        if tfd & 1 != 0 {
            self.restart(1);
        }
        tfd
    }

    fn moved(&self) -> u32 {
        let bytes = self.memory.bytes(LIST + 4, 4);
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }
}

fn ata(command: u8, lba: u64, count: u16) -> [u8; 20] {
    let mut fis = [0; 20];
    let bytes = lba.to_le_bytes();
    fis[..4].copy_from_slice(&[0x27, 0x80, command, 0]);
    fis[4..7].copy_from_slice(&bytes[..3]);
    fis[7] = 0x40;
    fis[8..11].copy_from_slice(&bytes[3..6]);
    fis[12..14].copy_from_slice(&count.to_le_bytes());
    fis
}

fn word(block: &[u8], n: usize) -> u16 {
    u16::from_le_bytes([block[2 * n], block[2 * n + 1]])
}

#[test]
fn ports_show_what_is_attached() {
    let mut rig = Rig::new();
    assert_eq!(rig.ahci.read(5, 0x0c, 4), 0x3f);
    assert_eq!([rig.read(0, SIG), rig.read(1, SIG), rig.read(2, SIG)], [0x0101, 0xeb14_0101, u32::MAX]);
    assert_eq!([rig.read(0, 0x28) & 0xf, rig.read(2, 0x28) & 0xf], [3, 0]);
    assert_eq!(rig.read(2, TFD), 0x7f);
    assert_eq!(rig.memory.bytes(RECEIVED + 0x40, 1)[0], 0x34, "the signature was sent");
}

#[test]
fn identify_tells_size_and_name_by_pio() {
    let mut rig = Rig::new();
    assert_eq!(rig.ata(0xec, 0, 0, 512), 0x50);
    let block = rig.memory.bytes(DATA, 512);
    assert_eq!(&block[54..60], b"aVdnre");
    assert_eq!(u32::from(word(&block, 60)) | u32::from(word(&block, 61)) << 16, 100_000);
    assert_eq!(block.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
    assert_eq!(rig.read(0, IS), 2, "a PIO setup FIS and no other");
    assert_eq!(rig.memory.bytes(RECEIVED + 0x20, 3), [0x5f, 0x60, 0x58]);
    assert_eq!(rig.moved(), 512);
    assert!(rig.pin.level());
    rig.write(0, IS, 2);
    assert!(rig.pin.level(), "until the controller's bit is cleared too");
    rig.host_write(8, 1);
    assert!(!rig.pin.level());
}

#[test]
fn sectors_are_read_and_written_by_dma_and_pio() {
    let mut rig = Rig::new();
    assert_eq!(rig.ata(0x25, 70_000, 3, 1536), 0x50);
    assert_eq!(rig.read(0, CI), 0);
    assert_eq!(rig.read(0, IS), 1);
    let block = rig.memory.bytes(DATA, 1536);
    assert_eq!([block[0], block[512], block[1535]], [112, 113, 114]);
    rig.memory.put(DATA, &[0xab; 1024]);
    assert_eq!(rig.ata(0xca, 5, 2, 1024), 0x50);
    assert_eq!(rig.ata(0x30, 7, 1, 512), 0x50);
    rig.memory.put(DATA, &[0; 2048]);
    assert_eq!(rig.ata(0x20, 5, 4, 2048), 0x50);
    let block = rig.memory.bytes(DATA, 2048);
    assert!(block[..1536].iter().all(|byte| *byte == 0xab) && block[1536] == 8);
    assert_eq!(rig.ata(0xe7, 0, 0, 0), 0x50);
}

#[test]
fn errors_stop_the_list_until_it_is_restarted() {
    let mut rig = Rig::new();
    assert_eq!(rig.ata(0x25, 99_999, 2, 1024), 0x1051, "id not found");
    assert_eq!(rig.read(0, IS), 1 << 30 | 1);
    assert_eq!(rig.read(0, CI), 1, "the command that failed is still issued");
    rig.ata(0x25, 0, 1, 512);
    assert_eq!(rig.read(0, CI), 1);
    rig.restart(0);
    assert_eq!(rig.ata(0x25, 0, 1, 512), 0x50);
    assert_eq!(rig.ata(0xb0, 0, 0, 0), 0x0451, "no such command");
    rig.restart(0);
    assert_eq!(rig.ata(0x25, 0, 4, 512) & 1, 1, "more data than buffer");
}

#[test]
fn memory_that_is_not_there_is_a_fatal_error() {
    let mut rig = Rig::new();
    rig.write(0, 4, 0x100);
    rig.write(0, CI, 1);
    assert_eq!(rig.read(0, IS), 1 << 29);
    rig.write(0, CMD, 1 << 4);
    rig.write(0, 4, 0);
    rig.restart(0);
    assert_eq!(rig.ata(0x25, 0, 1, 512), 0x50);
}

#[test]
fn the_cd_is_found_and_read() {
    let mut rig = Rig::new();
    assert_eq!(rig.issue(1, ata(0xec, 0, 0), &[], 512), 0x0441, "not an ATA disk");
    assert_eq!(rig.memory.bytes(RECEIVED + 0x44, 3), [1, 0x14, 0xeb]);
    rig.restart(1);
    assert_eq!(rig.issue(1, ata(0xa1, 0, 0), &[], 512), 0x50);
    assert_eq!(word(&rig.memory.bytes(DATA, 512), 0), 0x85c0);
    assert_eq!(rig.atapi(&[0x12, 0, 0, 0, 36], 36), 0x50);
    assert_eq!(rig.memory.bytes(DATA, 2), [5, 0x80]);
    assert_eq!(rig.atapi(&[0x25], 8), 0x50);
    assert_eq!(rig.memory.bytes(DATA, 8), [0, 0, 3, 0xe7, 0, 0, 8, 0]);
    assert_eq!(rig.atapi(&[0x28, 0, 0, 0, 3, 0xe6, 0, 0, 2], 4096), 0x50);
    let block = rig.memory.bytes(DATA, 4096);
    assert_eq!([block[0], block[2048], block[4095]], [998u16 as u8, 999u16 as u8, 0], "the end is padded");
    assert_eq!(rig.moved(), 4096);
    assert_eq!(rig.atapi(&[0x43, 0, 0, 0, 0, 0, 0, 0, 20], 20), 0x50);
    assert_eq!(rig.memory.bytes(DATA, 4), [0, 18, 1, 1]);
    assert_eq!(rig.memory.bytes(DATA + 16, 4), [0, 0, 3, 0xe8]);
}

#[test]
fn failed_packets_leave_their_sense() {
    let mut rig = Rig::new();
    let sense = |rig: &mut Rig| {
        assert_eq!(rig.atapi(&[3, 0, 0, 0, 18], 18), 0x50);
        let data = rig.memory.bytes(DATA, 18);
        [data[2], data[12], data[13]]
    };
    assert_eq!(rig.atapi(&[0x28, 0, 0, 0, 3, 0xe7, 0, 0, 2], 4096), 0x5041);
    assert_eq!(sense(&mut rig), [5, 0x21, 0]);
    assert_eq!(sense(&mut rig), [0, 0, 0], "once");
    assert_eq!(rig.atapi(&[0xff], 0), 0x5041);
    assert_eq!(sense(&mut rig), [5, 0x20, 0]);
    assert_eq!(rig.atapi(&[0x1e, 0, 0, 0, 1], 0), 0x50);
    assert_eq!(rig.atapi(&[0x1b, 0, 0, 0, 2], 0), 0x5041, "locked");
    assert_eq!(rig.atapi(&[0x1e, 0, 0, 0, 0], 0), 0x50);
    assert_eq!(rig.atapi(&[0x1b, 0, 0, 0, 2], 0), 0x50);
    assert_eq!(rig.atapi(&[0], 0), 0x2041, "not ready");
    assert_eq!(rig.atapi(&[0x1b, 0, 0, 0, 3], 0), 0x50);
    assert_eq!(rig.atapi(&[0], 0), 0x50);
}

#[test]
fn packets_by_pio_end_with_a_register_fis() {
    let mut rig = Rig::new();
    let mut packet = [0; 16];
    packet[0] = 0x12;
    packet[4] = 36;
    assert_eq!(rig.issue(1, ata(0xa0, 0, 0), &packet, 36), 0x50);
    assert_eq!(rig.read(1, IS), 3);
}

#[test]
fn link_and_software_resets_bring_the_signature() {
    let mut rig = Rig::new();
    rig.write(0, CMD, 1 << 4);
    rig.write(0, SCTL, 0x301);
    assert_eq!([rig.read(0, TFD), rig.read(0, 0x28)], [0x7f, 0]);
    rig.write(0, SCTL, 0x300);
    assert_eq!([rig.read(0, SIG), rig.read(0, TFD) & 0x89], [0x0101, 0]);
    assert_eq!(rig.read(0, SERR), 1 << 26);
    assert_eq!(rig.read(0, IS) & 1 << 6, 1 << 6);
    rig.restart(0);
    assert_eq!(rig.read(0, IS), 0);
    let mut fis = [0; 20];
    fis[0] = 0x27;
    fis[15] = 4;
    rig.issue(1, fis, &[], 0);
    fis[15] = 0;
    assert_eq!(rig.issue(1, fis, &[], 0) & 0x89, 0);
    assert_eq!([rig.read(1, CI), rig.read(1, SIG)], [0, 0xeb14_0101]);
}

#[test]
fn messages_replace_the_pin() {
    let mut rig = Rig::new();
    let msi = rig.ahci.config_read(0x34, 1) as u16;
    rig.ahci.config_write(msi + 4, 4, 0xfee0_0000);
    rig.ahci.config_write(msi + 12, 2, 0x55);
    rig.ahci.config_write(msi + 2, 2, 1);
    rig.ata(0x25, 0, 1, 512);
    assert_eq!(rig.msi.take(), [(0xfee0_0000, 0x55)]);
    assert!(!rig.pin.level());
    rig.atapi(&[0], 0);
    assert_eq!(rig.msi.take().len(), 1, "a second port");
    rig.write(0, IS, u32::MAX);
    rig.host_write(8, 1);
    assert_eq!(rig.msi.take().len(), 1, "what is left is told again");
}

#[test]
fn a_saved_controller_goes_on_where_it_was() {
    let mut rig = Rig::new();
    rig.memory.put(DATA, &[0xcd; 512]);
    rig.ata(0xca, 9, 1, 512);
    let state = rig.ahci.save();
    let mut other = Rig::new();
    let image = rig.memory.bytes(0, MEMORY);
    other.memory.put(0, &image);
    other.ahci.restore(&state);
    assert_eq!(other.ahci.save(), state);
    assert!(other.pin.level());
    assert_eq!(other.ata(0x25, 9, 1, 512), 0x50);
    assert_eq!(other.memory.bytes(DATA, 512), [0xcd; 512]);
}

#[test]
fn random_commands_do_no_harm() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let mut rig = Rig::new();
    let commands = [0x25, 0x35, 0xc8, 0xca, 0x20, 0x30, 0xc4, 0xc5, 0xec, 0xa1, 0xef, 0xc6, 0x27, 0xf8, 0xea, 0x08];
    let packets = [0x28, 0xa8, 0xbe, 0x12, 0x43, 0x46, 0x4a, 0x51, 0x5a, 0x1a, 0xbd, 0x25, 0x03, 0x1b, 0x1e, 0x2b];
    for _ in 0..4000 {
        let port = next() % 3;
        let mut fis = ata(commands[next() as usize % 16], next() % 120_000, next() as u16 % 300);
        let mut packet = [0; 16];
        if next() & 1 == 0 {
            fis[2] = 0xa0;
            fis[3] = next() as u8;
            for byte in &mut packet[1..] {
                *byte = if next() & 3 == 0 { next() as u8 } else { 0 };
            }
            packet[0] = packets[next() as usize % 16];
        }
        if next() % 8 == 0 {
            fis[next() as usize % 20] = next() as u8;
        }
        let length = next() as u32 % 8192;
        rig.issue(port, fis, &packet, length);
        if next() % 4 == 0 {
            let (at, value) = (next() % 0x1010, next());
            rig.ahci.read(5, at, [1, 2, 4, 8][next() as usize % 4]);
            rig.ahci.write(5, at & !3, [1, 2, 4, 8][next() as usize % 4], value);
            rig.ahci.config_write(next() as u16 % 256, 4, next() as u32);
            rig.ahci.config_write(4, 2, 6);
            if next() % 8 == 0 {
                rig.memory.put(TABLE + 0x80, &next().to_le_bytes());
                rig.write(port, CI, u32::MAX);
            }
        }
        if rig.read(port, TFD) & 1 != 0 || next() % 16 == 0 {
            rig.host_write(4, 3);
            rig.host_write(4, 2);
            (0..3).for_each(|port| rig.restart(port));
        }
    }
}
