//! The I/O APIC (Intel 82093AA data sheet, 290566; ICH9 data sheet, 13.5), version 0x20 with the EOI register.
//!
//! Region 0: 4 KiB of memory with IOREGSEL at 0x00, IOWIN at 0x10 and EOI at 0x40.
//!
//! Interrupts leave as messages through the [`Msi`] port, so interrupt remapping sees them: destination in address bits
//! 19:4 (with bit 4 of the address the format bit of a remappable entry, VT-d specification 5.1.5.1) and the low half
//! of the entry's fields in the data.
//!
//! The wires carry "asserted", as on the other boards that stock firmware and kernels know: the polarity bit of an entry
//! is stored and read back, and the wire is taken to have the polarity that software announced.

use crate::device::{Device, Region};
use crate::ports::Msi;
use alloc::boxed::Box;
use serde::{Deserialize, Serialize};

/// Number of inputs.
pub const INPUTS: usize = 24;

/// IOAPICVER: version 0x20, number of the last entry in bits 23:16.
const VERSION: u32 = 0x20 | ((INPUTS as u32 - 1) << 16);

/// Fields of a redirection table entry (82093AA 3.2.4).
mod entry {
    pub const VECTOR: u64 = 0xff;
    pub const DELIVERY_MODE_SHIFT: u32 = 8;
    pub const LOGICAL: u64 = 1 << 11;
    pub const DELIVERY_STATUS: u64 = 1 << 12;
    pub const REMOTE_IRR: u64 = 1 << 14;
    pub const LEVEL: u64 = 1 << 15;
    pub const MASKED: u64 = 1 << 16;
    /// What software cannot write.
    pub const READ_ONLY: u64 = DELIVERY_STATUS | REMOTE_IRR;
    /// Everything that exists: the low 17 bits, and the upper 16 bits with the destination or the remapping handle.
    pub const IMPLEMENTED: u64 = 0xffff_0000_0001_ffff;
}

/// Saved state of [`IoApic`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // The fields are those of the runtime type.
pub struct IoApicState {
    pub id: u8,
    pub select: u8,
    pub lines: u32,
    pub entries: [u64; INPUTS],
}

/// An I/O APIC with 24 inputs.
pub struct IoApic {
    /// The 4-bit identification.
    id: u8,
    /// IOREGSEL.
    select: u8,
    /// Inputs that are asserted.
    lines: u32,
    /// The redirection table.
    entries: [u64; INPUTS],
    msi: Box<dyn Msi>,
}

impl IoApic {
    /// An I/O APIC after reset: all inputs masked.
    pub fn new(msi: Box<dyn Msi>) -> Self {
        Self { id: 0, select: 0, lines: 0, entries: [entry::MASKED; INPUTS], msi }
    }

    /// Drives input `input`; true is asserted. Numbers above 23 are ignored.
    pub fn set_line(&mut self, input: u8, level: bool) {
        let index = usize::from(input);
        if index >= INPUTS {
            return;
        }
        let bit = 1 << index;
        let rose = level && self.lines & bit == 0;
        self.lines = if level { self.lines | bit } else { self.lines & !bit };
        let value = self.entries[index];
        if value & entry::LEVEL != 0 {
            self.service_level(index);
        } else if rose && value & entry::MASKED == 0 {
            // An edge at a masked input is neither delivered nor held pending (82093AA 3.2.4).
            self.send(value);
        }
    }

    /// The EOI message of a local APIC, or a write of the EOI register: ends every level-triggered interrupt with
    /// `vector`; those still asserted are sent again.
    pub fn eoi(&mut self, vector: u8) {
        for index in 0..INPUTS {
            let value = self.entries[index];
            if value & entry::LEVEL != 0 && value & entry::REMOTE_IRR != 0 && value & entry::VECTOR == u64::from(vector)
            {
                self.entries[index] &= !entry::REMOTE_IRR;
                self.service_level(index);
            }
        }
    }

    /// True if an unmasked level-triggered entry uses `vector`: what decides a local APIC's TMR where the board asks.
    pub fn is_level_vector(&self, vector: u8) -> bool {
        self.entries.iter().any(|&value| {
            value & (entry::LEVEL | entry::MASKED) == entry::LEVEL && value & entry::VECTOR == u64::from(vector)
        })
    }

    fn service_level(&mut self, index: usize) {
        let value = self.entries[index];
        let asserted = self.lines & (1 << index) != 0;
        if !asserted || value & (entry::MASKED | entry::REMOTE_IRR) != 0 {
            return;
        }
        // Only fixed and lowest-priority interrupts are ended by an EOI; the others are taken as edges.
        if (value >> entry::DELIVERY_MODE_SHIFT) & 7 <= 1 {
            self.entries[index] |= entry::REMOTE_IRR;
        }
        self.send(value);
    }

    fn send(&self, value: u64) {
        let destination = (value >> 48) << 4;
        let logical = if value & entry::LOGICAL != 0 { 1 << 2 } else { 0 };
        let mode = ((value >> entry::DELIVERY_MODE_SHIFT) & 7) as u32;
        let trigger = if value & entry::LEVEL != 0 { 1 << 15 } else { 0 };
        let data = (value & entry::VECTOR) as u32 | mode << 8 | 1 << 14 | trigger;
        self.msi.send(0xfee0_0000 | destination | logical, data);
    }

    fn read_register(&self) -> u32 {
        match self.select {
            0 | 2 => u32::from(self.id) << 24,
            1 => VERSION,
            select => match self.entries.get(usize::from(select.wrapping_sub(0x10)) / 2) {
                Some(value) if select >= 0x10 => (value >> (32 * u32::from(select & 1))) as u32,
                _ => 0,
            },
        }
    }

    fn write_register(&mut self, value: u32) {
        match self.select {
            0 => self.id = (value >> 24) as u8 & 0xf,
            select if select >= 0x10 => {
                let index = usize::from(select - 0x10) / 2;
                let Some(&old) = self.entries.get(index) else { return };
                let shift = 32 * u32::from(select & 1);
                let merged = (old & !(0xffff_ffff << shift)) | u64::from(value) << shift;
                let mut new = (merged & entry::IMPLEMENTED & !entry::READ_ONLY) | (old & entry::READ_ONLY);
                // An edge-triggered entry has no remote IRR: switching to edge and back is how software drops one.
                if new & entry::LEVEL == 0 {
                    new &= !entry::REMOTE_IRR;
                }
                self.entries[index] = new;
                if new & entry::LEVEL != 0 {
                    self.service_level(index);
                }
            }
            _ => {}
        }
    }

    /// The state for a snapshot.
    pub fn save(&self) -> IoApicState {
        let &Self { id, select, lines, entries, msi: _ } = self;
        IoApicState { id, select, lines, entries }
    }

    /// Takes the state of a snapshot.
    pub fn restore(&mut self, state: &IoApicState) {
        let &IoApicState { id, select, lines, entries } = state;
        (self.id, self.select, self.lines, self.entries) = (id, select, lines, entries);
    }
}

impl Device for IoApic {
    fn read(&mut self, region: Region, offset: u64, size: u8) -> u64 {
        // Registers are read as double words; the narrower reads that some software does see the low bytes.
        let mask = if size >= 4 { 0xffff_ffff } else { (1 << (8 * size)) - 1 };
        mask & match (region, offset) {
            (0, 0x00) => u64::from(self.select),
            (0, 0x10) => u64::from(self.read_register()),
            _ => 0,
        }
    }

    fn write(&mut self, region: Region, offset: u64, size: u8, value: u64) {
        match (region, offset, size) {
            (0, 0x00, _) => self.select = value as u8,
            (0, 0x10, 4..) => self.write_register(value as u32),
            (0, 0x40, _) => self.eoi(value as u8),
            _ => {}
        }
    }

    fn reset(&mut self) {
        (self.id, self.select, self.entries) = (0, 0, [entry::MASKED; INPUTS]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::RecordingMsi;

    fn ioapic() -> (IoApic, RecordingMsi) {
        let msi = RecordingMsi::new();
        (IoApic::new(Box::new(msi.clone())), msi)
    }

    fn set(ioapic: &mut IoApic, register: u64, value: u64) {
        ioapic.write(0, 0, 4, register);
        ioapic.write(0, 0x10, 4, value);
    }

    fn get(ioapic: &mut IoApic, register: u64) -> u64 {
        ioapic.write(0, 0, 4, register);
        ioapic.read(0, 0x10, 4)
    }

    #[test]
    fn version_announces_24_entries_and_the_eoi_register() {
        let (mut ioapic, _) = ioapic();
        assert_eq!(get(&mut ioapic, 1), 0x0017_0020);
    }

    #[test]
    fn entries_are_masked_after_reset_and_status_bits_are_read_only() {
        let (mut ioapic, _) = ioapic();
        assert_eq!(get(&mut ioapic, 0x10), 0x1_0000);
        set(&mut ioapic, 0x3e, 0xffff_ffff);
        assert_eq!(get(&mut ioapic, 0x3e), 0x1_afff);
        set(&mut ioapic, 0x40, 0xffff_ffff);
        assert_eq!(get(&mut ioapic, 0x40), 0);
    }

    #[test]
    fn an_edge_makes_one_compatibility_message() {
        let (mut ioapic, msi) = ioapic();
        set(&mut ioapic, 0x14, 0x0930);
        set(&mut ioapic, 0x15, 0x0300_0000);
        ioapic.set_line(2, true);
        ioapic.set_line(2, true);
        assert_eq!(msi.take(), [(0xfee0_3004, 0x4130)]);
        ioapic.set_line(2, false);
        ioapic.set_line(2, true);
        assert_eq!(msi.take().len(), 1);
    }

    #[test]
    fn an_edge_at_a_masked_input_is_lost() {
        let (mut ioapic, msi) = ioapic();
        ioapic.set_line(4, true);
        set(&mut ioapic, 0x18, 0x30);
        assert_eq!(msi.take(), []);
    }

    #[test]
    fn a_level_interrupt_waits_for_eoi_and_is_sent_again_while_asserted() {
        let (mut ioapic, msi) = ioapic();
        set(&mut ioapic, 0x30, 0x8041);
        ioapic.set_line(16, true);
        assert_eq!(msi.take(), [(0xfee0_0000, 0xc041)]);
        assert_eq!(get(&mut ioapic, 0x30), 0xc041);
        ioapic.set_line(16, false);
        ioapic.set_line(16, true);
        assert_eq!(msi.take(), []);
        ioapic.eoi(0x42);
        assert_eq!(msi.take(), []);
        ioapic.eoi(0x41);
        assert_eq!(msi.take().len(), 1);
        ioapic.set_line(16, false);
        ioapic.write(0, 0x40, 4, 0x41);
        assert_eq!(msi.take(), []);
        assert_eq!(get(&mut ioapic, 0x30), 0x8041);
    }

    #[test]
    fn a_standing_level_is_delivered_when_unmasked() {
        let (mut ioapic, msi) = ioapic();
        set(&mut ioapic, 0x30, 0x1_8041);
        ioapic.set_line(16, true);
        assert_eq!(msi.take(), []);
        set(&mut ioapic, 0x30, 0x8041);
        assert_eq!(msi.take().len(), 1);
    }

    #[test]
    fn switching_to_edge_drops_remote_irr() {
        let (mut ioapic, msi) = ioapic();
        set(&mut ioapic, 0x30, 0x8041);
        ioapic.set_line(16, true);
        set(&mut ioapic, 0x30, 0x1_0041);
        set(&mut ioapic, 0x30, 0x8041);
        assert_eq!(msi.take().len(), 2);
    }

    #[test]
    fn a_remappable_entry_carries_its_handle_in_the_address() {
        let (mut ioapic, msi) = ioapic();
        // Handle 0x1234 in bits 63:49, format bit 48.
        set(&mut ioapic, 0x13, (0x1234 << 17) | 1 << 16);
        set(&mut ioapic, 0x12, 0x30);
        ioapic.set_line(1, true);
        let (address, _) = msi.take()[0];
        assert_eq!((address >> 5) & 0x7fff, 0x1234);
        assert_ne!(address & 0x10, 0);
    }

    #[test]
    fn state_goes_through_save_and_restore() {
        let (mut one, _) = ioapic();
        set(&mut one, 0, 0x0700_0000);
        set(&mut one, 0x30, 0x8041);
        one.set_line(16, true);
        let (mut other, msi) = ioapic();
        other.restore(&one.save());
        assert_eq!(other.save(), one.save());
        other.eoi(0x41);
        assert_eq!(msi.take().len(), 1);
    }
}
