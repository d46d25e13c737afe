//! What the root complex and the board ask of a PCI function.

use super::ats::Message;
use crate::device::{Device, Region};
use alloc::vec::Vec;
use serde::{Serialize, de::DeserializeOwned};

/// The address space of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowKind {
    /// Memory space.
    Memory,
    /// I/O port space.
    Io,
}

/// A base address register as it is decoded now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// BAR number, the `region` of the function's [`Device`] accesses.
    pub bar: Region,
    /// Memory or I/O space.
    pub kind: WindowKind,
    /// First address.
    pub base: u64,
    /// Length in bytes, a power of two.
    pub size: u64,
}

/// A PCI or PCIe function. Its BARs' contents are the regions of its [`Device`] side.
pub trait PciFunction: Device {
    /// Reads 1, 2 or 4 bytes of configuration space at `offset` (0..4096). A conventional function gives zero above 255.
    fn config_read(&mut self, offset: u16, size: u8) -> u32;
    /// Writes configuration space. True when the windows decoded may have changed (BARs, command register).
    fn config_write(&mut self, offset: u16, size: u8, value: u32) -> bool;
    /// The windows now decoded, according to the command register and the BARs.
    fn windows(&self) -> Vec<Window>;
    /// A message of the translation agent. A function without a device TLB does not know any.
    fn message(&mut self, message: &Message) {
        let _ = message;
    }
    /// The saved state, by [`encode`]: who holds functions of any kind does not know its type.
    fn save_encoded(&self) -> Vec<u8>;
    /// Takes over what a function of the same kind saved. False if `state` is none of those.
    fn restore_encoded(&mut self, state: &[u8]) -> bool;
}

/// A saved state as bytes.
pub fn encode(state: &impl Serialize) -> Vec<u8> {
    // Plain data into a growing vector: there is nothing to fail on.
    postcard::to_allocvec(state).unwrap_or_default()
}

/// A saved state from bytes, all of which it must be.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (state, rest) = postcard::take_from_bytes(bytes).ok()?;
    rest.is_empty().then_some(state)
}
