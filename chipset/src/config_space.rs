//! The 256 bytes of configuration space of a function built into the chipset: values, and which bits are writable.

use serde::{Deserialize, Serialize};

/// Configuration registers of a conventional PCI function (PCI Local Bus Specification 3.0, 6.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ConfigSpace {
    value: Vec<u8>,
    writable: Vec<u8>,
}

/// Who a function is.
pub(crate) struct Identity {
    pub vendor: u16,
    pub device: u16,
    /// Base class, subclass and programming interface, as in bits 31:8 of register 8.
    pub class: u32,
    pub revision: u8,
}

impl ConfigSpace {
    pub fn new(identity: &Identity) -> Self {
        let mut space = Self { value: vec![0; 256], writable: vec![0; 256] };
        space.set(0x00, &identity.vendor.to_le_bytes());
        space.set(0x02, &identity.device.to_le_bytes());
        space.set(0x08, &(identity.class << 8 | u32::from(identity.revision)).to_le_bytes());
        // The subsystem that QEMU gives; firmware and drivers use it to recognise the board.
        space.set(0x2c, &0x1100_1af4u32.to_le_bytes());
        space
    }

    /// Sets register contents, whatever is writable.
    pub fn set(&mut self, offset: usize, bytes: &[u8]) {
        self.value[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// Declares which bits of the bytes at `offset` software can write.
    pub fn allow(&mut self, offset: usize, bits: &[u8]) {
        self.writable[offset..offset + bits.len()].copy_from_slice(bits);
    }

    pub fn byte(&self, offset: usize) -> u8 {
        self.value[offset]
    }

    pub fn dword(&self, offset: usize) -> u32 {
        u32::from_le_bytes([self.value[offset], self.value[offset + 1], self.value[offset + 2], self.value[offset + 3]])
    }

    pub fn read(&self, offset: u16, size: u8) -> u32 {
        (0..u32::from(size.min(4)))
            .map(|i| u32::from(self.value.get(usize::from(offset) + i as usize).copied().unwrap_or(0)) << (8 * i))
            .fold(0, |a, b| a | b)
    }

    pub fn write(&mut self, offset: u16, size: u8, value: u32) {
        for i in 0..usize::from(size.min(4)) {
            let at = usize::from(offset) + i;
            if let (Some(byte), Some(&mask)) = (self.value.get_mut(at), self.writable.get(at)) {
                *byte = *byte & !mask | (value >> (8 * i)) as u8 & mask;
            }
        }
    }
}
