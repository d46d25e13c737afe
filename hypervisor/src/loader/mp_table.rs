//! The MultiProcessor tables (Intel MultiProcessor Specification 1.4, chapter 4): a guest's processors and its I/O APIC, for kernels that
//! get no ACPI.

use super::NO_ROOM;
use crate::apic;
use crate::board::IO_APIC;
use crate::memory::GuestMemory;
use alloc::vec::Vec;

/// Where the floating pointer is, and the table after it: where firmware would be.
pub const ADDRESS: u32 = 0xf_0000;
const TABLE: u32 = ADDRESS + 16;

const ISA_BUS: u8 = 0;
/// The I/O APIC's id: above those of the processors.
const IO_APIC_ID: u8 = 0x10;

/// Kinds of entries.
mod kind {
    pub const PROCESSOR: u8 = 0;
    pub const BUS: u8 = 1;
    pub const IO_APIC: u8 = 2;
    pub const IO_INTERRUPT: u8 = 3;
    pub const LOCAL_INTERRUPT: u8 = 4;
}

/// Kinds of interrupts.
mod interrupt {
    pub const VECTORED: u8 = 0;
    pub const NMI: u8 = 1;
    pub const EXTERNAL: u8 = 3;
}

pub fn write(memory: &dyn GuestMemory, vcpus: u8) -> Result<(), &'static str> {
    let table = table(vcpus);
    let mut pointer = Vec::from(*b"_MP_");
    pointer.extend(TABLE.to_le_bytes());
    // One paragraph, revision 1.4, checksum, no default configuration, no PIC mode.
    pointer.extend([1, 4, 0, 0, 0, 0, 0, 0]);
    pointer[10] = checksum(&pointer);
    for (address, data) in [(ADDRESS, &pointer), (TABLE, &table)] {
        memory.write(address.into(), data).map_err(|_| NO_ROOM)?;
    }
    Ok(())
}

fn table(vcpus: u8) -> Vec<u8> {
    let mut entries = Vec::new();
    for id in 0..vcpus {
        let flags = if id == 0 { 3 } else { 1 };
        // Signature and features: software looks at CPUID.
        entries.push([&[kind::PROCESSOR, id, 0x14, flags][..], &[0; 16]].concat());
    }
    entries.push([&[kind::BUS, ISA_BUS][..], b"ISA   "].concat());
    entries.push([&[kind::IO_APIC, IO_APIC_ID, 0x20, 1][..], &(IO_APIC as u32).to_le_bytes()].concat());
    for irq in (0..16).filter(|irq| *irq != 2) {
        let input = if irq == 0 { 2 } else { irq };
        entries.push([kind::IO_INTERRUPT, interrupt::VECTORED, 0, 0, ISA_BUS, irq, IO_APIC_ID, input].into());
    }
    for (interrupt, input) in [(interrupt::EXTERNAL, 0), (interrupt::NMI, 1)] {
        entries.push([kind::LOCAL_INTERRUPT, interrupt, 0, 0, ISA_BUS, 0, 0xff, input].into());
    }
    let count = entries.len() as u16;
    let entries = entries.concat();
    let mut table = Vec::from(*b"PCMP");
    table.extend((44 + entries.len() as u16).to_le_bytes());
    table.extend([4, 0]);
    table.extend(b"VANDERPOVM          ");
    table.extend([0; 6]);
    table.extend(count.to_le_bytes());
    table.extend((apic::BASE as u32).to_le_bytes());
    table.extend([0; 4]);
    table.extend(entries);
    table[7] = checksum(&table);
    table
}

/// What makes the sum of all bytes 0.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_its_length_its_count_and_a_sum_of_0() {
        let table = table(2);
        assert_eq!(usize::from(u16::from_le_bytes([table[4], table[5]])), table.len());
        assert_eq!(u16::from_le_bytes([table[34], table[35]]), 2 + 1 + 1 + 15 + 2);
        assert_eq!(table.len(), 44 + 2 * 20 + 19 * 8);
        assert_eq!(checksum(&table), 0);
    }
}
