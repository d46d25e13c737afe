//! MSI-X: the capability, the vector table and the pending bits (PCI 3.0 section 6.8.2).
//!
//! Table and pending-bit array live in one memory BAR, the table at 0 and the array at [`Msix::pending_offset`].
//! Function mask and enable are the two top bits of message control, in configuration space.

use super::config::ConfigSpace;
use crate::ports::Msi;
use alloc::vec;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};
use spec::pci::capability::id;

/// Message control: the function uses MSI-X, and no INTx.
const ENABLE: u16 = 1 << 15;
/// Message control: every vector is masked.
const FUNCTION_MASK: u16 = 1 << 14;
/// Bytes of a table entry.
const ENTRY: usize = 16;
/// Vector control: this vector is masked.
const VECTOR_MASK: u8 = 1;

/// The saved state of [`Msix`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MsixState {
    /// The table's bytes.
    pub table: Vec<u8>,
    /// One word of pending bits for each 64 vectors.
    pub pending: Vec<u64>,
}

/// The vectors of one function.
#[derive(Clone, Debug)]
pub struct Msix {
    at: u16,
    table: Vec<u8>,
    pending: Vec<u64>,
}

impl Msix {
    /// Adds the capability to `config` with `vectors` (1 to 2048) table entries in memory BAR `bar`, whose size must be at least
    /// [`Msix::window_size`].
    ///
    /// # Panics
    /// If the number of vectors is wrong: a mistake in the device model.
    pub fn new(config: &mut ConfigSpace, vectors: u16, bar: u8) -> Self {
        assert!((1..=2048).contains(&vectors), "MSI-X has 1 to 2048 vectors");
        let mut body = [0u8; 10];
        body[..2].copy_from_slice(&(vectors - 1).to_le_bytes());
        body[2..6].copy_from_slice(&u32::from(bar).to_le_bytes());
        let pending_at = Self::pending_offset(vectors) as u32 | u32::from(bar);
        body[6..].copy_from_slice(&pending_at.to_le_bytes());
        let at = config.add_capability(id::MSI_X, &body);
        config.set_writable(at + 2, &(ENABLE | FUNCTION_MASK).to_le_bytes());
        let mut msix = Self {
            at,
            table: vec![0; usize::from(vectors) * ENTRY],
            pending: vec![0; usize::from(vectors).div_ceil(64)],
        };
        msix.reset();
        msix
    }

    /// Where the pending bits of a function with `vectors` vectors begin.
    pub fn pending_offset(vectors: u16) -> u64 {
        (u64::from(vectors) * ENTRY as u64).next_power_of_two().max(0x800)
    }

    /// Bytes of the BAR that holds table and pending bits.
    pub fn window_size(vectors: u16) -> u64 {
        (Self::pending_offset(vectors) * 2).max(4096)
    }

    /// Number of vectors.
    pub fn vectors(&self) -> u16 {
        (self.table.len() / ENTRY) as u16
    }

    /// Software has enabled MSI-X.
    pub fn enabled(&self, config: &ConfigSpace) -> bool {
        config.u16_at(self.at + 2) & ENABLE != 0
    }

    /// All vectors masked, nothing pending.
    pub fn reset(&mut self) {
        self.table.fill(0);
        for entry in self.table.chunks_exact_mut(ENTRY) {
            entry[12] = VECTOR_MASK;
        }
        self.pending.fill(0);
    }

    /// A read of the BAR.
    pub fn read(&self, offset: u64, size: u8) -> u64 {
        let mut value = 0;
        for i in 0..u64::from(size.min(8)) {
            value |= u64::from(self.byte(offset.wrapping_add(i))) << (8 * i);
        }
        value
    }

    fn byte(&self, offset: u64) -> u8 {
        let pending_at = Self::pending_offset(self.vectors());
        let Ok(index) = usize::try_from(offset) else { return 0 };
        if let Some(byte) = self.table.get(index) {
            return *byte;
        }
        match offset.checked_sub(pending_at) {
            Some(at) => self.pending.get((at / 8) as usize).map_or(0, |word| (word >> (at % 8 * 8)) as u8),
            None => 0,
        }
    }

    /// A write to the BAR. Unmasking a vector sends its pending message.
    pub fn write(&mut self, config: &ConfigSpace, port: &dyn Msi, offset: u64, size: u8, value: u64) {
        for i in 0..u64::from(size.min(8)) {
            let Ok(index) = usize::try_from(offset.wrapping_add(i)) else { return };
            if let Some(byte) = self.table.get_mut(index) {
                let new = (value >> (8 * i)) as u8;
                // Address bits 1:0 are read-only zero; of vector control only the mask bit exists.
                *byte = match index % ENTRY {
                    0 => new & !3,
                    12 => new & VECTOR_MASK,
                    13.. => 0,
                    _ => new,
                };
            }
        }
        self.update(config, port);
    }

    /// Sends message `vector`, or marks it pending while it is masked.
    pub fn signal(&mut self, config: &ConfigSpace, port: &dyn Msi, vector: u16) {
        if vector >= self.vectors() {
            return;
        }
        if self.deliverable(config) && !self.masked(vector) {
            self.send(port, vector);
        } else {
            self.pending[usize::from(vector / 64)] |= 1 << (vector % 64);
        }
    }

    /// Sends what is pending and no longer masked; called when message control or the command register may have changed.
    pub fn update(&mut self, config: &ConfigSpace, port: &dyn Msi) {
        if !self.deliverable(config) || self.pending.iter().all(|word| *word == 0) {
            return;
        }
        for vector in 0..self.vectors() {
            let (word, bit) = (usize::from(vector / 64), 1 << (vector % 64));
            if self.pending[word] & bit != 0 && !self.masked(vector) {
                self.pending[word] &= !bit;
                self.send(port, vector);
            }
        }
    }

    fn deliverable(&self, config: &ConfigSpace) -> bool {
        config.u16_at(self.at + 2) & (ENABLE | FUNCTION_MASK) == ENABLE && config.bus_master()
    }

    fn masked(&self, vector: u16) -> bool {
        self.table[usize::from(vector) * ENTRY + 12] & VECTOR_MASK != 0
    }

    fn send(&self, port: &dyn Msi, vector: u16) {
        let at = u64::from(vector) * ENTRY as u64;
        port.send(self.read(at, 8), self.read(at + 8, 4) as u32);
    }

    /// What must be kept to continue later.
    pub fn save(&self) -> MsixState {
        let Self { at: _, table, pending } = self;
        MsixState { table: table.clone(), pending: pending.clone() }
    }

    /// Takes over a saved state of a function with as many vectors.
    pub fn restore(&mut self, state: &MsixState) {
        if state.table.len() == self.table.len() && state.pending.len() == self.pending.len() {
            self.table.copy_from_slice(&state.table);
            self.pending.copy_from_slice(&state.pending);
        }
    }
}
