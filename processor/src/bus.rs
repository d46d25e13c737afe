//! What lies beyond the processor: everything that is not RAM.

use crate::apic::InterruptMessage;

/// The processor's way to the board. Accesses are made at an exact instruction: [`crate::Cpu::now`] is right during them.
pub trait Bus: Send {
    /// Reads `size` (1, 2, 4, 8) bytes of memory-mapped I/O at physical `address`. Nobody there: all ones.
    fn read(&mut self, now: u64, address: u64, size: u8) -> u64;
    /// Writes memory-mapped I/O. Nobody there: ignored.
    fn write(&mut self, now: u64, address: u64, size: u8, value: u64);
    /// Reads `size` (1, 2, 4) bytes from I/O `port`.
    fn io_read(&mut self, now: u64, port: u16, size: u8) -> u32;
    /// Writes to an I/O port.
    fn io_write(&mut self, now: u64, port: u16, size: u8, value: u32);
    /// The local APIC sends an interrupt message: for [`crate::apic::targets`], and then [`crate::Cpu::accept`] of each target.
    fn send_interrupt(&mut self, now: u64, message: InterruptMessage);
    /// The local APIC has an end of interrupt for the I/O APICs (level-triggered `vector`).
    fn end_of_interrupt(&mut self, now: u64, vector: u8);
    /// Takes the vector of a pending ExtINT from the 8259 pair (the INTA cycle).
    fn acknowledge_external(&mut self, now: u64) -> u8;
    /// An unmasked x87 exception while CR0.NE is clear: the PC raises IRQ 13 (FERR#, SDM Vol. 1, 8.7.2).
    fn floating_point_error(&mut self, now: u64) {
        let _ = now;
    }
    /// True when the last access queued work (an interrupt message, a changed memory map, a power request): the
    /// processor then leaves [`crate::Cpu::run`] with [`crate::RunExit::Service`] at the next instruction boundary.
    fn needs_service(&self) -> bool;
}
