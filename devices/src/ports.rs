//! The ports through which a device reaches the world. The board makes them and hands them out; a device holds
//! nothing else. No port call re-enters a device: a pin change or a message is queued by the board and acted on when
//! the device has returned, so a device never finds itself borrowed.

use alloc::boxed::Box;

/// Virtual time in nanoseconds since power-on.
pub type Nanoseconds = u64;

/// Why a DMA access did not happen: no memory there, or the IOMMU refused it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaFault {
    /// First address of the access that failed.
    pub address: u64,
}

/// Memory as one device sees it, bound to its requester id: every access passes the IOMMU.
pub trait Dma: Send {
    /// Fills `buffer` from memory at `address`.
    fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), DmaFault>;
    /// Writes `data` to memory at `address`.
    fn write(&self, address: u64, data: &[u8]) -> Result<(), DmaFault>;
}

/// Message-signalled interrupts of one device: every message passes interrupt remapping.
pub trait Msi: Send {
    /// Sends the message `data` to `address` (0xFEEx_xxxx).
    fn send(&self, address: u64, data: u32);
}

/// One wire. Level-triggered: the level stands until changed.
pub trait Pin: Send {
    /// Drives the wire.
    fn set(&self, level: bool);
}

/// Time for one device: reading it, and one alarm.
pub trait Clock: Send {
    /// The current virtual time.
    fn now(&self) -> Nanoseconds;
    /// Asks for [`Device::alarm`](crate::device::Device::alarm) at `deadline`, replacing any earlier request; `None` cancels.
    fn set_alarm(&self, deadline: Option<Nanoseconds>);
}

/// A pin that is wired to nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unconnected;

impl Pin for Unconnected {
    fn set(&self, _level: bool) {}
}

/// Bytes leaving towards the host (a console, a debug port). The host side never blocks the guest.
pub trait Output: Send {
    /// Takes `bytes`.
    fn write(&mut self, bytes: &[u8]);
}

/// An output that forgets everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Discard;

impl Output for Discard {
    fn write(&mut self, _bytes: &[u8]) {}
}

/// A boxed pin, the form in which devices store one.
pub type PinBox = Box<dyn Pin>;

/// What a device asks of the machine as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerRequest {
    /// End the run with this exit status of the process (`isa-debug-exit`).
    Exit(u32),
    /// Switch the power off.
    PowerOff,
    /// Take the power from everything but memory and what wakes the machine (ACPI sleep state S3).
    SuspendToRam,
    /// Reset everything.
    Reset,
}

/// The power button and reset line of the board. The request is acted on after the device has returned, at the end of
/// the instruction.
pub trait Power: Send {
    /// Asks for `request`.
    fn request(&self, request: PowerRequest);
}
