//! Keeps track of what has been put where, so that nothing overwrites anything else.

use super::{BootError, GuestMemory};
use chipset::memory_map::{EBDA_BASE, FOUR_GIB, MIB, RamLayout, Range};

pub(super) struct Placement<'m> {
    memory: &'m mut dyn GuestMemory,
    ram: RamLayout,
    /// End of the low RAM that is free for the kernel.
    top: u64,
    map: Vec<Range>,
    taken: Vec<(u64, u64, &'static str)>,
}

impl<'m> Placement<'m> {
    pub fn new(memory: &'m mut dyn GuestMemory, ram: RamLayout, top: u64, map: Vec<Range>) -> Self {
        Self { memory, ram, top, map, taken: vec![(0, 0x1000, "the BIOS data area")] }
    }

    /// Nothing is put into `first..=last`, wherever that is.
    pub fn keep_free(&mut self, what: &'static str, first: u64, last: u64) {
        self.taken.push((first, last.saturating_add(1), what));
    }

    /// The system address map.
    pub fn map(&self) -> &[Range] {
        &self.map
    }

    /// KiB of memory below and above 1 MiB, as old protocols tell it.
    pub fn conventional_and_extended_kib(&self) -> (u32, u32) {
        ((EBDA_BASE / 1024) as u32, ((self.top - MIB) / 1024) as u32)
    }

    /// End of the low RAM that is free for the kernel.
    pub fn top(&self) -> u64 {
        self.top
    }

    /// Claims `length` bytes at `address` for `what`.
    pub fn claim(&mut self, what: &'static str, address: u64, length: u64) -> Result<(), BootError> {
        let outside = BootError::OutsideRam { what, address, length, ram: self.ram.low };
        let Some(end) = address.checked_add(length) else { return Err(outside) };
        let usable = [(0, EBDA_BASE), (MIB, self.top), (FOUR_GIB, FOUR_GIB + self.ram.high)];
        if !usable.iter().any(|(from, to)| *from <= address && end <= *to) {
            return Err(outside);
        }
        if let Some((_, _, with)) = self.taken.iter().find(|(from, to, _)| address < *to && *from < end) {
            return Err(BootError::Overlap { what, address, with });
        }
        if length > 0 {
            self.taken.push((address, end, what));
        }
        Ok(())
    }

    /// Claims memory for `data` and writes it.
    pub fn put(&mut self, what: &'static str, address: u64, data: &[u8]) -> Result<(), BootError> {
        self.claim(what, address, data.len() as u64)?;
        self.fill(address, data)
    }

    /// Writes into memory that is claimed.
    pub fn fill(&mut self, address: u64, data: &[u8]) -> Result<(), BootError> {
        Ok(self.memory.write(address, data)?)
    }

    /// Zeroes memory that is claimed.
    pub fn zero(&mut self, address: u64, length: u64) -> Result<(), BootError> {
        static ZEROS: [u8; 0x1_0000] = [0; 0x1_0000];
        let mut done = 0;
        while done < length {
            let chunk = (length - done).min(ZEROS.len() as u64);
            self.memory.write(address + done, &ZEROS[..chunk as usize])?;
            done += chunk;
        }
        Ok(())
    }

    /// The highest page-aligned address below `limit` with `length` free bytes above everything that is taken.
    pub fn highest(&self, length: u64, limit: u64) -> Result<u64, BootError> {
        let end = limit.min(self.top);
        let floor = self.taken.iter().map(|(_, to, _)| *to).filter(|to| *to <= self.top).max().unwrap_or(0).max(MIB);
        let free = end.saturating_sub(floor);
        let address = end.checked_sub(length).map(|address| address & !0xfff).filter(|address| *address >= floor);
        address.ok_or(BootError::InitrdTooLarge { size: length, free })
    }

    /// The lowest page-aligned address above everything that is taken, with `length` free bytes.
    pub fn after_all(&self, length: u64) -> Result<u64, BootError> {
        let floor = self.taken.iter().map(|(_, to, _)| *to).filter(|to| *to <= self.top).max().unwrap_or(0).max(MIB);
        let address = floor.next_multiple_of(0x1000);
        let free = self.top.saturating_sub(address);
        if length <= free { Ok(address) } else { Err(BootError::InitrdTooLarge { size: length, free }) }
    }
}
