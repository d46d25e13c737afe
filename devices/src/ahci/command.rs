//! What a command is made of in memory: header, command FIS, scatter list (AHCI 4.2), and the FISes that answer (4.2.1).

use crate::ports::{Dma, DmaFault};
use numbers::*;

/// Numbers of the Serial ATA and AHCI specifications that only this controller needs.
mod numbers {
    /// FIS type: register, host to device.
    pub const FIS_REGISTER_H2D: u8 = 0x27;
    /// FIS type: register, device to host.
    pub const FIS_REGISTER_D2H: u8 = 0x34;
    /// FIS type: PIO setup.
    pub const FIS_PIO_SETUP: u8 = 0x5f;
    /// Offset of the command FIS' ATAPI packet in the command table.
    pub const PACKET_AT: u64 = 0x40;
    /// Offset of the scatter list in the command table.
    pub const LIST_AT: u64 = 0x80;
    /// Offset of the PIO setup FIS in the received FIS area.
    pub const RECEIVED_PIO_SETUP: u64 = 0x20;
    /// Offset of the register FIS in the received FIS area.
    pub const RECEIVED_REGISTER: u64 = 0x40;
}

/// Most bytes that one command moves: 65536 sectors. A bound keeps one write from copying without end.
pub const TRANSFER_MAX: u64 = 32 << 20;

/// A command header (AHCI 4.2.2).
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// ATAPI: the table holds a packet.
    pub packet: bool,
    /// Part of a software reset.
    pub reset: bool,
    /// Clear BSY when the FIS is sent: nothing will answer.
    pub clear_busy: bool,
    entries: u16,
    table: u64,
}

impl Header {
    /// Reads the header at `address`.
    pub fn read(dma: &dyn Dma, address: u64) -> Result<Self, DmaFault> {
        let mut raw = [0; 16];
        dma.read(address, &mut raw)?;
        let word = |at: usize| u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
        Ok(Self {
            packet: raw[0] & 1 << 5 != 0,
            reset: raw[1] & 1 << 0 != 0,
            clear_busy: raw[1] & 1 << 2 != 0,
            entries: (word(0) >> 16) as u16,
            table: u64::from(word(12)) << 32 | u64::from(word(8) & !0x7f),
        })
    }

    /// The command FIS and the ATAPI packet.
    pub fn table(&self, dma: &dyn Dma) -> Result<([u8; 20], [u8; 16]), DmaFault> {
        let (mut fis, mut packet) = ([0; 20], [0; 16]);
        dma.read(self.table, &mut fis)?;
        if self.packet {
            dma.read(self.table.wrapping_add(PACKET_AT), &mut packet)?;
        }
        Ok((fis, packet))
    }

    /// Its scatter list.
    pub fn list<'a>(&self, dma: &'a dyn Dma) -> ScatterList<'a> {
        let next = self.table.wrapping_add(LIST_AT);
        ScatterList { dma, next, entries: self.entries, address: 0, left: 0, done: 0 }
    }
}

/// The buffers of a command, consumed from the front.
pub struct ScatterList<'a> {
    dma: &'a dyn Dma,
    next: u64,
    entries: u16,
    address: u64,
    left: u32,
    done: u64,
}

impl ScatterList<'_> {
    /// Bytes moved so far.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// The next piece of at most `limit` bytes; `None` at the end of the list.
    fn take(&mut self, limit: usize) -> Result<Option<(u64, usize)>, DmaFault> {
        if self.left == 0 {
            let Some(entries) = self.entries.checked_sub(1) else { return Ok(None) };
            let mut raw = [0; 16];
            self.dma.read(self.next, &mut raw)?;
            self.entries = entries;
            self.next = self.next.wrapping_add(16);
            let [a0, a1, a2, a3, a4, a5, a6, a7, _, _, _, _, count @ ..] = raw;
            self.address = u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]) & !1;
            // The count is one less than the number of bytes, and the number is even.
            self.left = (u32::from_le_bytes(count) & 0x3f_ffff | 1) + 1;
        }
        let n = self.left.min(u32::try_from(limit).unwrap_or(u32::MAX));
        let address = self.address;
        self.address = self.address.wrapping_add(u64::from(n));
        self.left -= n;
        self.done += u64::from(n);
        Ok(Some((address, n as usize)))
    }

    /// Writes `data` to memory; false if the list is too short for it.
    pub fn put(&mut self, mut data: &[u8]) -> Result<bool, DmaFault> {
        while !data.is_empty() {
            let Some((address, n)) = self.take(data.len())? else { return Ok(false) };
            self.dma.write(address, &data[..n])?;
            data = &data[n..];
        }
        Ok(true)
    }

    /// Fills `buffer` from memory; false if the list is too short for it.
    pub fn get(&mut self, mut buffer: &mut [u8]) -> Result<bool, DmaFault> {
        while !buffer.is_empty() {
            let Some((address, n)) = self.take(buffer.len())? else { return Ok(false) };
            let (now, later) = buffer.split_at_mut(n);
            self.dma.read(address, now)?;
            buffer = later;
        }
        Ok(true)
    }
}

/// The registers of a command or of its result (ATA8-ACS 6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskFile {
    /// Command, or status.
    pub command: u8,
    /// Features, or error in the low byte.
    pub features: u16,
    /// 48 bits.
    pub lba: u64,
    /// Device.
    pub device: u8,
    /// Sector count.
    pub count: u16,
    /// Device control.
    pub control: u8,
    /// The FIS writes the command register rather than device control.
    pub is_command: bool,
}

impl TaskFile {
    /// Takes a host-to-device register FIS apart.
    pub fn parse(fis: &[u8; 20]) -> Option<Self> {
        (fis[0] == FIS_REGISTER_H2D).then(|| Self {
            command: fis[2],
            features: u16::from_le_bytes([fis[3], fis[11]]),
            lba: u64::from_le_bytes([fis[4], fis[5], fis[6], fis[8], fis[9], fis[10], 0, 0]),
            device: fis[7],
            count: u16::from_le_bytes([fis[12], fis[13]]),
            control: fis[15],
            is_command: fis[1] & 0x80 != 0,
        })
    }

    /// The 28-bit address: bits 27:24 are in the device register.
    pub fn lba28(&self) -> u64 {
        self.lba & 0xff_ffff | u64::from(self.device & 0xf) << 24
    }

    fn fis(&self, kind: u8, flags: u8) -> [u8; 20] {
        let lba = self.lba.to_le_bytes();
        let count = self.count.to_le_bytes();
        let mut fis = [0; 20];
        fis[..8].copy_from_slice(&[
            kind,
            flags,
            self.command,
            self.features as u8,
            lba[0],
            lba[1],
            lba[2],
            self.device,
        ]);
        fis[8..11].copy_from_slice(&lba[3..6]);
        fis[12..14].copy_from_slice(&count);
        fis
    }

    /// Sends the device-to-host register FIS to the received FIS area at `area`.
    pub fn send_register(&self, dma: &dyn Dma, area: u64, interrupt: bool) -> Result<(), DmaFault> {
        let fis = self.fis(FIS_REGISTER_D2H, u8::from(interrupt) << 6);
        dma.write(area.wrapping_add(RECEIVED_REGISTER), &fis)
    }

    /// Sends the PIO setup FIS, with `status` before the data and this task file's status after it.
    pub fn send_pio_setup(&self, dma: &dyn Dma, area: u64, flags: u8, status: u8, bytes: u16) -> Result<(), DmaFault> {
        let mut fis = self.fis(FIS_PIO_SETUP, flags);
        fis[2] = status;
        fis[15] = self.command;
        fis[16..18].copy_from_slice(&bytes.to_le_bytes());
        dma.write(area.wrapping_add(RECEIVED_PIO_SETUP), &fis)
    }
}
