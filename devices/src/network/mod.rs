//! What a network card is connected to.

#[cfg(feature = "std")]
pub mod user;

use crate::ports::Nanoseconds;
use alloc::vec::Vec;

#[cfg(feature = "std")]
pub use user::UserNetwork;

/// The other end of the cable. Frames are Ethernet frames without preamble and checksum.
pub trait NetworkBackend: Send {
    /// Takes a frame from the guest. May drop it, never blocks.
    fn send(&mut self, frame: &[u8]);
    /// The next frame for the guest, if there is one at `now`.
    fn poll(&mut self, now: Nanoseconds) -> Option<Vec<u8>>;
    /// A reply from the host may be on its way, so the machine should let real time pass rather than skip idle time.
    fn waiting_for_host(&self) -> bool;
}
