//! Gives the functions on bus 0 their addresses and interrupt lines as PC firmware does, for boots without firmware.

use crate::lpc::PIRQ_TO_ISA;
use crate::memory_map::{PCI_IO_BASE, PCI_MEMORY32_BASE, PCI_MEMORY32_END, RamLayout};
use crate::root_complex::{RootComplex, Slot};

const COMMAND: u16 = 0x04;
const COMMAND_IO: u32 = 1 << 0;
const COMMAND_MEMORY: u32 = 1 << 1;
const BAR0: u16 = 0x10;
const INTERRUPT_LINE: u16 = 0x3c;
const INTERRUPT_PIN: u16 = 0x3d;
/// BARs larger than this go above 4 GiB when they can.
const LARGE: u64 = 256 << 20;

/// A BAR that found no room in the windows; it stays unassigned and its function's decoding of that space off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unassigned {
    /// The function.
    pub slot: Slot,
    /// BAR number.
    pub bar: u8,
    /// Its size in bytes.
    pub size: u64,
}

#[derive(Clone, Copy)]
struct Bar {
    slot: Slot,
    number: u8,
    size: u64,
    io: bool,
    is_64_bit: bool,
}

/// The next free address of a window.
struct Window {
    next: u64,
    end: u64,
}

impl Window {
    fn take(&mut self, size: u64) -> Option<u64> {
        let base = self.next.checked_next_multiple_of(size)?;
        let end = base.checked_add(size).filter(|end| *end <= self.end)?;
        self.next = end;
        Some(base)
    }
}

/// Assigns every BAR on bus 0 and turns decoding on, writes the interrupt line registers, and programs the host and LPC
/// bridges (ECAM, ACPI block, interrupt routing, all of 0xC0000-0xFFFFF RAM). Larger BARs come first, then lower slots, so that
/// the same board always gets the same addresses.
///
/// Returns the BARs for which there was no room.
pub fn assign_resources(root: &mut RootComplex, ram: RamLayout) -> Vec<Unassigned> {
    root.host_bridge_mut().enable_ecam(crate::memory_map::ECAM_BASE);
    root.host_bridge_mut().shadow_all_ram();
    root.lpc_mut().configure();

    let slots: Vec<Slot> = root.slots().into_iter().filter(|s| ![Slot::HOST_BRIDGE, Slot::LPC].contains(s)).collect();
    let mut bars: Vec<Bar> = slots.iter().flat_map(|slot| size_bars(root, *slot)).collect();
    bars.sort_by_key(|bar| (std::cmp::Reverse(bar.size), bar.slot, bar.number));

    let (high, high_size) = ram.pci_memory64();
    let mut io = Window { next: PCI_IO_BASE.into(), end: 0x1_0000 };
    let mut low = Window { next: PCI_MEMORY32_BASE, end: PCI_MEMORY32_END };
    let mut high = Window { next: high, end: high + high_size };
    let mut unassigned = Vec::new();
    for bar in &bars {
        let address = match bar {
            Bar { io: true, size, .. } => io.take(*size),
            Bar { is_64_bit: true, size, .. } if *size > LARGE => high.take(*size).or_else(|| low.take(*size)),
            Bar { is_64_bit: true, size, .. } => low.take(*size).or_else(|| high.take(*size)),
            Bar { size, .. } => low.take(*size),
        };
        let Some(address) = address else {
            unassigned.push(Unassigned { slot: bar.slot, bar: bar.number, size: bar.size });
            continue;
        };
        let register = BAR0 + 4 * u16::from(bar.number);
        root.config_write(bar.slot, register, 4, address as u32);
        if bar.is_64_bit {
            root.config_write(bar.slot, register + 4, 4, (address >> 32) as u32);
        }
    }
    for slot in slots {
        let decodes = |io| {
            bars.iter().any(|bar| bar.slot == slot && bar.io == io)
                && !unassigned
                    .iter()
                    .any(|u| u.slot == slot && bars.iter().any(|b| b.slot == slot && b.number == u.bar && b.io == io))
        };
        let enable = if decodes(true) { COMMAND_IO } else { 0 } | if decodes(false) { COMMAND_MEMORY } else { 0 };
        let command = root.config_read(slot, COMMAND, 2);
        root.config_write(slot, COMMAND, 2, command | enable);
        let pin = root.config_read(slot, INTERRUPT_PIN, 1) as u8;
        if (1..=4).contains(&pin) {
            let pirq = root.lpc().pirq_of(slot.device, pin - 1);
            root.config_write(slot, INTERRUPT_LINE, 1, PIRQ_TO_ISA[usize::from(pirq & 3)].into());
        }
    }
    unassigned
}

/// The ISA interrupts that firmware makes level-triggered (ELCR bits), since PCI interrupts are routed to them.
#[must_use]
pub fn level_triggered_isa_interrupts() -> u16 {
    PIRQ_TO_ISA.iter().fold(0, |mask, irq| mask | 1 << irq)
}

/// Sizes the BARs of `slot` by writing all ones (PCI Local Bus Specification 3.0, 6.2.5.1).
fn size_bars(root: &mut RootComplex, slot: Slot) -> Vec<Bar> {
    let mut bars = Vec::new();
    // A bridge (header type 1) has two BARs; other types have none that are known here.
    let count = match root.config_read(slot, 0x0e, 1) & 0x7f {
        0 => 6,
        1 => 2,
        _ => 0,
    };
    let mut number = 0;
    while number < count {
        let register = BAR0 + 4 * u16::from(number);
        let mut probe = |register| {
            let old = root.config_read(slot, register, 4);
            root.config_write(slot, register, 4, u32::MAX);
            let mask = root.config_read(slot, register, 4);
            root.config_write(slot, register, 4, old);
            mask
        };
        let mask = probe(register);
        let io = mask & 1 != 0;
        let is_64_bit = !io && mask & 6 == 4 && number + 1 < count;
        let mask = match (io, is_64_bit) {
            (true, _) => u64::from(mask & !3) | 0xffff_ffff_ffff_0000,
            (false, true) => u64::from(mask & !15) | u64::from(probe(register + 4)) << 32,
            (false, false) => u64::from(mask & !15) | 0xffff_ffff_0000_0000,
        };
        let size = (!mask).wrapping_add(1);
        let exists = if io { mask as u16 != 0 } else { mask as u32 != 0 || is_64_bit && mask != 0 };
        if exists && size.is_power_of_two() {
            bars.push(Bar { slot, number, size, io, is_64_bit });
        }
        number += if is_64_bit { 2 } else { 1 };
    }
    bars
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_map::GIB;
    use crate::power::NoPower;
    use devices::device::{Device, Region};
    use devices::pci::PciFunction;

    /// A function with the given BAR sizes (bit 0: I/O, bit 2: 64-bit memory).
    struct Stub {
        registers: [u32; 64],
        masks: [u32; 6],
    }

    impl Stub {
        fn new(bars: &[(usize, u64)]) -> Box<Self> {
            let mut stub = Self { registers: [0; 64], masks: [0; 6] };
            for (i, bar) in bars {
                let (size, kind) = (bar & !7, bar & 7);
                stub.masks[*i] = (!(size.wrapping_sub(1)) & !7) as u32;
                stub.registers[4 + i] = kind as u32;
                if kind & 4 != 0 {
                    stub.masks[i + 1] = (!(size - 1) >> 32) as u32;
                }
            }
            stub.registers[15] = 0x100;
            Box::new(stub)
        }
    }

    impl Device for Stub {
        fn read(&mut self, _: Region, _: u64, _: u8) -> u64 {
            0
        }
        fn write(&mut self, _: Region, _: u64, _: u8, _: u64) {}
        fn reset(&mut self) {}
    }

    impl PciFunction for Stub {
        fn config_read(&mut self, offset: u16, size: u8) -> u32 {
            let value = self.registers[usize::from(offset / 4)] >> (8 * (offset & 3));
            if size == 4 { value } else { value & ((1 << (8 * size)) - 1) }
        }
        fn config_write(&mut self, offset: u16, size: u8, value: u32) -> bool {
            let i = usize::from(offset / 4);
            if (4..10).contains(&i) {
                self.registers[i] = self.registers[i] & !self.masks[i - 4] | value & self.masks[i - 4];
            } else {
                let shift = 8 * (offset & 3);
                let mask = (u64::MAX >> (64 - 8 * u32::from(size))) << shift;
                self.registers[i] = self.registers[i] & !(mask as u32) | value << shift & mask as u32;
            }
            true
        }
        fn windows(&self) -> Vec<devices::pci::Window> {
            Vec::new()
        }
        fn save_encoded(&self) -> Vec<u8> {
            Vec::new()
        }
        fn restore_encoded(&mut self, _: &[u8]) -> bool {
            true
        }
    }

    fn bar(root: &mut RootComplex, device: u8, number: u16) -> u32 {
        root.config_read(Slot::new(device, 0), BAR0 + 4 * number, 4)
    }

    #[test]
    fn bars_are_placed_largest_first_and_naturally_aligned() {
        let mut root = RootComplex::new(Box::new(NoPower));
        assert!(root.plug(Slot::new(2, 0), Stub::new(&[(0, 0x20 | 1), (1, 0x1000), (4, 0x4000 | 4)])).is_ok());
        assert!(root.plug(Slot::new(3, 0), Stub::new(&[(0, 0x10_0000), (2, (1 << 33) | 4)])).is_ok());
        assert_eq!(assign_resources(&mut root, RamLayout::new(4 * GIB)), []);
        assert_eq!(bar(&mut root, 3, 0), 0xc000_0000);
        assert_eq!(bar(&mut root, 2, 4) & !15, 0xc010_0000);
        assert_eq!(bar(&mut root, 2, 1), 0xc010_4000);
        assert_eq!(bar(&mut root, 2, 0), 0xc001);
        assert_eq!(
            (bar(&mut root, 3, 2), bar(&mut root, 3, 3)),
            (4, 2),
            "8 GiB BAR above 6 GiB of RAM addresses, aligned"
        );
        assert_eq!(root.config_read(Slot::new(2, 0), COMMAND, 2), 3);
        assert_eq!(root.config_read(Slot::new(3, 0), COMMAND, 2), 2);
        assert_eq!(root.config_read(Slot::new(2, 0), INTERRUPT_LINE, 1), 11);
        assert_eq!(root.decoded().ecam, Some((0xb000_0000, 0x1000_0000)));
        assert!(root.decoded().shadow.iter().all(|s| s.read_ram && s.write_ram));
    }

    #[test]
    fn bar_without_room_is_told_and_not_decoded() {
        let mut root = RootComplex::new(Box::new(NoPower));
        assert!(root.plug(Slot::new(2, 0), Stub::new(&[(0, 0x8000_0000)])).is_ok());
        let missing = assign_resources(&mut root, RamLayout::new(GIB));
        assert_eq!(missing, [Unassigned { slot: Slot::new(2, 0), bar: 0, size: 0x8000_0000 }]);
        assert_eq!(root.config_read(Slot::new(2, 0), COMMAND, 2), 0);
    }
}
