//! The firmware configuration device of QEMU (its specification: docs/specs/fw_cfg in QEMU's documentation): items behind a
//! selector, read a byte at a time or by DMA. SeaBIOS and OVMF learn from it what the board has.

use devices::device::{Device, Region};
use devices::ports::Dma;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Ports 0x510 (selector, 16 bits) and 0x511 (data, a byte).
pub const REGION_SELECTOR: Region = 0;
/// Ports 0x514-0x51b: the DMA address register, big-endian.
pub const REGION_DMA: Region = 1;

/// First port of [`REGION_SELECTOR`], 2 ports.
pub const SELECTOR_PORT: u16 = 0x510;
/// First port of [`REGION_DMA`], 8 ports.
pub const DMA_PORT: u16 = 0x514;

/// Selectors of items that have a number of their own.
pub mod key {
    /// "QEMU".
    pub const SIGNATURE: u16 = 0x00;
    /// Interface features: bit 0 traditional, bit 1 DMA.
    pub const ID: u16 = 0x01;
    /// System UUID, 16 bytes.
    pub const UUID: u16 = 0x02;
    /// Size of RAM, 64 bits.
    pub const RAM_SIZE: u16 = 0x03;
    /// 1 when there is no display, 16 bits.
    pub const NOGRAPHIC: u16 = 0x04;
    /// Processors present, 16 bits.
    pub const NB_CPUS: u16 = 0x05;
    /// Where the kernel goes.
    pub const KERNEL_ADDR: u16 = 0x07;
    /// Bytes of kernel.
    pub const KERNEL_SIZE: u16 = 0x08;
    /// Where the initrd goes.
    pub const INITRD_ADDR: u16 = 0x0a;
    /// Bytes of initrd.
    pub const INITRD_SIZE: u16 = 0x0b;
    /// NUMA nodes, 64 bits.
    pub const NUMA: u16 = 0x0d;
    /// Boot menu wanted, 16 bits.
    pub const BOOT_MENU: u16 = 0x0e;
    /// Highest APIC id that can appear plus one, 16 bits.
    pub const MAX_CPUS: u16 = 0x0f;
    /// The kernel (protected-mode part).
    pub const KERNEL_DATA: u16 = 0x11;
    /// The initrd.
    pub const INITRD_DATA: u16 = 0x12;
    /// Where the command line goes.
    pub const CMDLINE_ADDR: u16 = 0x13;
    /// Bytes of command line with its terminating zero.
    pub const CMDLINE_SIZE: u16 = 0x14;
    /// The command line.
    pub const CMDLINE_DATA: u16 = 0x15;
    /// Where the real-mode part of the kernel goes.
    pub const SETUP_ADDR: u16 = 0x16;
    /// Bytes of the real-mode part.
    pub const SETUP_SIZE: u16 = 0x17;
    /// The real-mode part of the kernel.
    pub const SETUP_DATA: u16 = 0x18;
    /// The directory of files.
    pub const FILE_DIR: u16 = 0x19;
    /// Selector of the first file.
    pub const FILE_FIRST: u16 = 0x20;
    /// ISA interrupt 0 reaches I/O APIC input 2, 32 bits.
    pub const IRQ0_OVERRIDE: u16 = 0x8002;
}

const SELECTOR_MASK: u16 = 0xbfff; // bit 14 once meant "write"
const NAME_SIZE: usize = 56;
const MAX_FILES: usize = 0x1000;

/// Bits of the control field of a DMA request.
mod control {
    pub const ERROR: u32 = 1 << 0;
    pub const READ: u32 = 1 << 1;
    pub const SKIP: u32 = 1 << 2;
    pub const SELECT: u32 = 1 << 3;
    pub const WRITE: u32 = 1 << 4;
}

/// Why a file cannot be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileError {
    /// Names have at most 55 bytes.
    NameTooLong(String),
    /// A file of this name is there already.
    Duplicate(String),
    /// The directory is full.
    TooMany,
}

impl std::fmt::Display for FileError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NameTooLong(name) => write!(f, "fw_cfg file name '{name}' is longer than {} bytes", NAME_SIZE - 1),
            Self::Duplicate(name) => write!(f, "fw_cfg file '{name}' is given twice"),
            Self::TooMany => write!(f, "more than {MAX_FILES} fw_cfg files"),
        }
    }
}

impl std::error::Error for FileError {}

/// The items, before the machine starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Items {
    numbered: BTreeMap<u16, Vec<u8>>,
    files: BTreeMap<String, Vec<u8>>,
}

impl Items {
    /// No items but the signature and the features.
    #[must_use]
    pub fn new() -> Self {
        let mut items = Self::default();
        items.set(key::SIGNATURE, b"QEMU");
        items.set(key::ID, &3u32.to_le_bytes());
        items
    }

    /// Sets the item with its own number `key`.
    pub fn set(&mut self, key: u16, data: &[u8]) {
        self.numbered.insert(key, data.to_vec());
    }

    /// Adds the file `name`.
    ///
    /// # Errors
    /// A name that is too long or there already, or a full directory.
    pub fn add_file(&mut self, name: &str, data: Vec<u8>) -> Result<(), FileError> {
        if name.len() >= NAME_SIZE {
            return Err(FileError::NameTooLong(name.into()));
        }
        if self.files.contains_key(name) {
            return Err(FileError::Duplicate(name.into()));
        }
        if self.files.len() >= MAX_FILES {
            return Err(FileError::TooMany);
        }
        self.files.insert(name.into(), data);
        Ok(())
    }

    /// The file `name`.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        self.files.get(name).map(Vec::as_slice)
    }

    /// Numbers the files in the order of their names and makes the directory.
    fn into_table(self) -> BTreeMap<u16, Vec<u8>> {
        let Self { mut numbered, files } = self;
        let mut directory = (files.len() as u32).to_be_bytes().to_vec();
        for (selector, (name, data)) in (key::FILE_FIRST..).zip(files) {
            directory.extend((data.len() as u32).to_be_bytes());
            directory.extend(selector.to_be_bytes());
            directory.extend([0; 2]);
            let mut field = [0; NAME_SIZE];
            field[..name.len()].copy_from_slice(name.as_bytes());
            directory.extend(field);
            numbered.insert(selector, data);
        }
        numbered.insert(key::FILE_DIR, directory);
        numbered
    }
}

/// The device.
pub struct FwCfg {
    dma: Box<dyn Dma>,
    items: BTreeMap<u16, Vec<u8>>,
    registers: Registers,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Registers {
    selector: u16,
    offset: u32,
    dma_address: u64,
}

/// Saved state of [`FwCfg`]. The items are those of the machine's configuration and not part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FwCfgState {
    registers: Registers,
}

impl FwCfg {
    /// The device with `items`, reaching memory by `dma`.
    #[must_use]
    pub fn new(items: Items, dma: Box<dyn Dma>) -> Self {
        Self { dma, items: items.into_table(), registers: Registers::default() }
    }

    /// Saves the registers.
    #[must_use]
    pub fn save(&self) -> FwCfgState {
        let Self { dma: _, items: _, registers } = self;
        FwCfgState { registers: *registers }
    }

    /// Restores the registers.
    pub fn restore(&mut self, state: &FwCfgState) {
        let FwCfgState { registers } = state;
        self.registers = *registers;
    }

    fn select(&mut self, selector: u16) {
        self.registers.selector = selector & SELECTOR_MASK;
        self.registers.offset = 0;
    }

    fn item(&self) -> &[u8] {
        self.items.get(&self.registers.selector).map_or(&[], Vec::as_slice)
    }

    /// The next byte of the item selected, 0 beyond its end.
    fn next_byte(&mut self) -> u8 {
        let byte = self.item().get(self.registers.offset as usize).copied();
        if byte.is_some() {
            self.registers.offset += 1;
        }
        byte.unwrap_or(0)
    }

    /// Carries out the request at the DMA address: control, length, address, all big-endian; the control field is written
    /// back, 0 when done.
    fn run_dma(&mut self) {
        let request_address = std::mem::take(&mut self.registers.dma_address);
        let mut request = [0; 16];
        if self.dma.read(request_address, &mut request).is_err() {
            return; // nowhere to report it
        }
        let word = |at: usize| u32::from_be_bytes([request[at], request[at + 1], request[at + 2], request[at + 3]]);
        let (control, length) = (word(0), word(4));
        let address = u64::from(word(8)) << 32 | u64::from(word(12));
        if control & control::SELECT != 0 {
            self.select((control >> 16) as u16);
        }
        let failed = if control & control::READ != 0 {
            self.dma_read(address, length).is_err()
        } else if control & control::WRITE != 0 {
            true // every item is read-only
        } else {
            if control & control::SKIP != 0 {
                self.advance(length);
            }
            false
        };
        let result = if failed { control::ERROR } else { 0 };
        // A status that cannot be written has no other way to the guest.
        let _ = self.dma.write(request_address, &result.to_be_bytes());
    }

    fn advance(&mut self, length: u32) {
        let rest = self.item().len() as u32 - self.registers.offset.min(self.item().len() as u32);
        self.registers.offset += length.min(rest);
    }

    /// Copies `length` bytes of the item to memory, zeros beyond its end.
    fn dma_read(&mut self, address: u64, length: u32) -> Result<(), devices::ports::DmaFault> {
        const ZEROS: [u8; 4096] = [0; 4096];
        let item = self.items.get(&self.registers.selector).map_or(&[][..], Vec::as_slice);
        let rest = item.get(self.registers.offset as usize..).unwrap_or(&[]);
        let data = &rest[..rest.len().min(length as usize)];
        self.dma.write(address, data)?;
        self.registers.offset += data.len() as u32;
        let mut done = data.len() as u64;
        while done < u64::from(length) {
            let chunk = (u64::from(length) - done).min(ZEROS.len() as u64);
            self.dma.write(address.wrapping_add(done), &ZEROS[..chunk as usize])?;
            done += chunk;
        }
        Ok(())
    }
}

impl Device for FwCfg {
    fn read(&mut self, region: Region, offset: u64, size: u8) -> u64 {
        match region {
            REGION_SELECTOR if offset == 1 => {
                (0..size.min(8)).fold(0, |value, i| value | u64::from(self.next_byte()) << (8 * i))
            }
            REGION_DMA => {
                // The register reads as "QEMU CFG", so that firmware can tell that it is there.
                (0..u64::from(size.min(8))).fold(0, |value, i| {
                    let byte = usize::try_from(offset.wrapping_add(i)).ok().and_then(|i| b"QEMU CFG".get(i));
                    value | u64::from(byte.copied().unwrap_or(0)) << (8 * i)
                })
            }
            _ => 0,
        }
    }

    fn write(&mut self, region: Region, offset: u64, size: u8, value: u64) {
        match (region, offset, size) {
            (REGION_SELECTOR, 0, 2..) => self.select(value as u16),
            (REGION_DMA, 0, 4) => self.registers.dma_address = u64::from((value as u32).swap_bytes()) << 32,
            (REGION_DMA, 4, 4) => {
                self.registers.dma_address |= u64::from((value as u32).swap_bytes());
                self.run_dma();
            }
            (REGION_DMA, 0, 8) => {
                self.registers.dma_address = value.swap_bytes();
                self.run_dma();
            }
            _ => {}
        }
    }

    fn reset(&mut self) {
        self.registers = Registers::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use devices::ports::DmaFault;
    use std::sync::{Arc, Mutex};

    #[derive(Clone)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Dma for Memory {
        fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), DmaFault> {
            let memory = self.0.lock().unwrap();
            let from =
                memory.get(address as usize..).and_then(|m| m.get(..buffer.len())).ok_or(DmaFault { address })?;
            buffer.copy_from_slice(from);
            Ok(())
        }
        fn write(&self, address: u64, data: &[u8]) -> Result<(), DmaFault> {
            let mut memory = self.0.lock().unwrap();
            let to =
                memory.get_mut(address as usize..).and_then(|m| m.get_mut(..data.len())).ok_or(DmaFault { address })?;
            to.copy_from_slice(data);
            Ok(())
        }
    }

    fn device() -> (Memory, FwCfg) {
        let memory = Memory(Arc::new(Mutex::new(vec![0xaa; 0x1000])));
        let mut items = Items::new();
        items.add_file("etc/b", vec![1, 2, 3]).unwrap();
        items.add_file("etc/a", vec![9; 10]).unwrap();
        (memory.clone(), FwCfg::new(items, Box::new(memory)))
    }

    fn read_item(device: &mut FwCfg, key: u16, length: usize) -> Vec<u8> {
        device.write(REGION_SELECTOR, 0, 2, key.into());
        (0..length).map(|_| device.read(REGION_SELECTOR, 1, 1) as u8).collect()
    }

    fn request(memory: &Memory, control: u32, length: u32, address: u64) {
        let mut bytes = [control.to_be_bytes(), length.to_be_bytes()].concat();
        bytes.extend(address.to_be_bytes());
        memory.write(0x100, &bytes).unwrap();
    }

    #[test]
    fn item_reads_zero_beyond_its_end() {
        let (_, mut device) = device();
        assert_eq!(read_item(&mut device, key::SIGNATURE, 6), b"QEMU\0\0");
        assert_eq!(read_item(&mut device, 0x7777, 2), [0, 0]);
    }

    #[test]
    fn directory_lists_files_by_name_with_their_selectors() {
        let (_, mut device) = device();
        let directory = read_item(&mut device, key::FILE_DIR, 4 + 2 * 64);
        assert_eq!(directory[..12], [0, 0, 0, 2, 0, 0, 0, 10, 0, 0x20, 0, 0]);
        assert_eq!(&directory[12..18], b"etc/a\0");
        assert_eq!(directory[68..76], [0, 0, 0, 3, 0, 0x21, 0, 0]);
        assert_eq!(read_item(&mut device, 0x21, 3), [1, 2, 3]);
    }

    #[test]
    fn dma_selects_reads_and_skips() {
        let (memory, mut device) = device();
        assert_eq!(device.read(REGION_DMA, 0, 8), u64::from_le_bytes(*b"QEMU CFG"));
        request(&memory, 0x21 << 16 | control::SELECT | control::SKIP, 1, 0);
        device.write(REGION_DMA, 4, 4, 0x100u32.swap_bytes().into());
        request(&memory, control::READ, 4, 0x200);
        device.write(REGION_DMA, 0, 4, 0);
        device.write(REGION_DMA, 4, 4, 0x100u32.swap_bytes().into());
        let memory = memory.0.lock().unwrap();
        assert_eq!(memory[0x100..0x104], [0; 4]);
        assert_eq!(memory[0x1ff..0x205], [0xaa, 2, 3, 0, 0, 0xaa]);
    }

    #[test]
    fn dma_outside_memory_and_writes_report_an_error() {
        let (memory, mut device) = device();
        for (control, length, address) in
            [(control::READ, 0xffff_ffff, 0xf00), (control::READ, 4, u64::MAX - 1), (control::WRITE, 1, 0)]
        {
            request(&memory, control, length, address);
            device.write(REGION_DMA, 4, 4, 0x100u32.swap_bytes().into());
            assert_eq!(memory.0.lock().unwrap()[0x100..0x104], [0, 0, 0, 1]);
        }
        device.write(REGION_DMA, 0, 8, u64::MAX);
    }

    #[test]
    fn file_names_are_limited_and_unique() {
        let mut items = Items::new();
        assert!(items.add_file(&"x".repeat(55), vec![]).is_ok());
        assert!(matches!(items.add_file(&"x".repeat(56), vec![]), Err(FileError::NameTooLong(_))));
        assert!(matches!(items.add_file(&"x".repeat(55), vec![]), Err(FileError::Duplicate(_))));
    }
}
