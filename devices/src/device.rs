//! What the board asks of every device.

use crate::ports::Nanoseconds;

/// Which of a device's windows an access falls in. A legacy device numbers its port and memory ranges from 0 in the
/// order its documentation gives them; a PCI function uses the BAR number.
pub type Region = u8;

/// A device on the board: register windows, an alarm, reset.
///
/// Accesses are 1, 2, 4 or 8 bytes, naturally those the guest made; `offset` is within the region and may be any value
/// the region's length allows, aligned or not. A read of a register that does not exist gives all ones or zero, as the real
/// device does; a write to one is ignored. Nothing a guest writes may panic.
pub trait Device: Send {
    /// Reads `size` bytes at `offset`, zero-extended.
    fn read(&mut self, region: Region, offset: u64, size: u8) -> u64;
    /// Writes the low `size` bytes of `value` at `offset`.
    fn write(&mut self, region: Region, offset: u64, size: u8, value: u64);
    /// The alarm set through the device's clock has come; `now` is not before the deadline.
    fn alarm(&mut self, now: Nanoseconds) {
        let _ = now;
    }
    /// Power-on reset.
    fn reset(&mut self);
    /// Takes what the host has for the device. Called between slices of the run only, so that all host input enters there.
    fn poll_host(&mut self, now: Nanoseconds) {
        let _ = now;
    }
    /// Something from the host may be on its way: the machine should let real time pass rather than skip idle time.
    fn waiting_for_host(&self) -> bool {
        false
    }
    /// Bytes typed at the host for this device, if it is a console; gives the number taken.
    fn receive(&mut self, bytes: &[u8]) -> usize {
        let _ = bytes;
        0
    }
}
