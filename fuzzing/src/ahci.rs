//! The SATA controller with a disk and a CD: any register access, and command lists, tables and scatter lists of any bytes.

use crate::input::Input;
use devices::ahci::{Ahci, AtaDisk, Drive, OpticalDrive, REGISTERS_BAR};
use devices::device::Device;
use devices::pci::{InterruptPorts, PciFunction};
use devices::storage::MemoryStorage;
use devices::testing::{RecordingMsi, RecordingPin, VecDma};

/// Memory of the machine.
const MEMORY: usize = 0x2_0000;
/// Command list, received FISes and command tables of port `port` when they are set up in order.
const LIST: u64 = 0x1000;
const RECEIVED: u64 = 0x2000;
const TABLES: u64 = 0x4000;
/// Buffers are from here on.
const DATA: u64 = 0x1_0000;

/// Commands that the drives know, of which a command FIS holds mostly one: ATA, then the first byte of packets.
const ATA: [u8; 24] = [
    0x20, 0x24, 0x25, 0x29, 0x30, 0x34, 0x35, 0x39, 0x40, 0x42, 0x60, 0x61, 0xa0, 0xa1, 0xb0, 0xc4, 0xc5, 0xc8, 0xca,
    0xe7, 0xea, 0xec, 0xef, 0xf8,
];
const PACKETS: [u8; 20] = [
    0x00, 0x03, 0x12, 0x1a, 0x1b, 0x1e, 0x23, 0x25, 0x28, 0x2b, 0x42, 0x43, 0x46, 0x4a, 0x51, 0x52, 0x5a, 0xa8, 0xad,
    0xbe,
];

struct Bench {
    ahci: Ahci,
    dma: VecDma,
}

impl Bench {
    fn new(dma: VecDma) -> Self {
        let interrupts = InterruptPorts { pin: Box::new(RecordingPin::new()), msi: Box::new(RecordingMsi::new()) };
        let drives = vec![
            Drive::Disk(AtaDisk::new(Box::new(MemoryStorage::new(1 << 17)), "disk")),
            Drive::Optical(OpticalDrive::new(Box::new(MemoryStorage::new(1 << 17)), "disc")),
        ];
        Self { ahci: Ahci::new(drives, Box::new(dma.clone()), interrupts), dma }
    }

    fn set(&mut self, port: u64, register: u64, value: u32) {
        self.ahci.write(REGISTERS_BAR, 0x100 + 0x80 * port + register, 4, value.into());
    }

    /// Does what a driver does with both drives.
    fn start(&mut self) {
        self.ahci.config_write(4, 2, 6);
        self.ahci.write(REGISTERS_BAR, 4, 4, 2);
        for port in 0..2 {
            self.set(port, 0x18, 0);
            self.set(port, 0x00, LIST as u32);
            self.set(port, 0x08, RECEIVED as u32);
            self.set(port, 0x30, u32::MAX);
            self.set(port, 0x10, u32::MAX);
            self.set(port, 0x14, u32::MAX);
            self.set(port, 0x18, 1 << 4);
            self.set(port, 0x18, 1 << 4 | 1);
        }
    }

    /// Writes a command into slot `slot`, mostly in order, and issues it.
    fn issue(&mut self, input: &mut Input<'_>, port: u64) {
        let (slot, shape) = (u64::from(input.byte() & 31), input.byte());
        let table = TABLES + slot * 0x100;
        let packet = port == 1 && shape & 1 == 0;
        let entries = u64::from(shape >> 1 & 3);
        let flags = match shape >> 6 {
            0 => input.number(2),
            _ => 5 | u64::from(packet) << 5 | u64::from(shape & 8) << 3,
        };
        let mut header = (flags as u32 | (entries as u32) << 16).to_le_bytes().to_vec();
        header.extend([0; 4]);
        header.extend(table.to_le_bytes());
        self.dma.put(LIST + 32 * slot, &header);
        let mut fis = [0; 20];
        fis[..3].copy_from_slice(&[0x27, 0x80, if packet { 0xa0 } else { choose(input, &ATA) }]);
        for at in [3, 4, 5, 6, 7, 8, 12, 13] {
            fis[at] = input.byte();
        }
        if shape & 0x20 != 0 {
            fis[usize::from(input.byte()) % 20] = input.byte();
        }
        self.dma.put(table, &fis);
        if packet {
            let mut bytes = [0; 16];
            bytes[0] = choose(input, &PACKETS);
            let rest = input.bytes(11);
            bytes[1..1 + rest.len()].copy_from_slice(rest);
            self.dma.put(table + 0x40, &bytes);
        }
        for entry in 0..entries {
            let kind = input.byte();
            let address = if kind & 0xc0 == 0xc0 { input.number(8) } else { DATA + (input.number(2) & 0xffff) };
            let length = match kind >> 4 & 3 {
                0 => 511,
                1 => 2047,
                2 => input.number(2),
                _ => input.number(4),
            };
            let mut bytes = address.to_le_bytes().to_vec();
            bytes.extend([0; 4]);
            bytes.extend((length as u32).to_le_bytes());
            self.dma.put(table + 0x80 + 16 * entry, &bytes);
        }
        self.set(port, 0x38, 1 << slot);
    }
}

/// Mostly one of `known`.
fn choose(input: &mut Input<'_>, known: &[u8]) -> u8 {
    let byte = input.byte();
    if byte & 0x80 == 0 { known[usize::from(byte) % known.len()] } else { input.byte() }
}

/// Any sequence of what a guest can do with the controller.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let dma = VecDma::new(MEMORY);
    let mut bench = Bench::new(dma.clone());
    if input.byte() & 1 == 0 {
        bench.start();
    }
    while !input.is_empty() {
        let operation = input.byte();
        let port = u64::from(operation >> 4 & 1);
        match operation & 0x0f {
            0..=4 => bench.issue(&mut input, port),
            5 => {
                let (offset, value) = (input.below(0x20) * 4, input.number(4) as u32);
                bench.set(u64::from(operation >> 4 & 7), offset, value);
            }
            6 => {
                // Start and stop, the command list override, interrupts.
                let register = [0x18, 0x38, 0x10, 0x14, 0x2c, 0x30, 0x34, 0x08];
                bench.set(port, register[usize::from(operation >> 5)], input.number(1) as u32);
            }
            7 => {
                let (offset, size) = (input.below(0x1010), input.access_size());
                bench.ahci.write(REGISTERS_BAR, offset, size, input.number(size));
                bench.ahci.read(REGISTERS_BAR, offset, size);
            }
            8 => {
                let address = input.below(MEMORY as u64 - 256);
                let bytes = input.bytes(usize::from(operation >> 4) + 1);
                dma.put(address, bytes);
            }
            9 => {
                let (offset, size) = (input.below(4096) as u16, 1 << (input.byte() % 3));
                bench.ahci.config_write(offset, size, input.number(size) as u32);
                bench.ahci.config_read(offset, size);
                bench.ahci.windows();
            }
            10 => {
                let state = bench.ahci.save();
                let mut copy = Bench::new(dma.clone());
                copy.ahci.restore(&state);
                assert_eq!(copy.ahci.save(), state, "a snapshot does not hold all of the state");
            }
            11 => bench.start(),
            12 => {
                bench.ahci.read(REGISTERS_BAR, input.below(0x400), input.access_size());
            }
            _ if operation >> 4 == 0 => bench.ahci.reset(),
            _ => {}
        }
    }
}
