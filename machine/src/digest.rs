//! The digest of a machine: equal for two runs that are the same.

use crate::run::Machine;
use processor::memory::ram::PAGE_SIZE;
use sha2::{Digest, Sha256};
use std::fmt::Write;

impl Machine {
    /// SHA-256 over the machine's saved state (time, processors, chipset, devices: see [`MachineState`](crate::MachineState)) and its
    /// memory, in hexadecimal.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        // Encoding plain data into a growing vector has nothing to fail on.
        hash.update(postcard::to_allocvec(&self.save()).unwrap_or_default());
        let board = crate::processors::lock(&self.board);
        board.memory.ram.for_each_page(|offset, page| {
            // Whether a page that holds zeroes was ever written is not the guest's to see.
            if page != &[0; PAGE_SIZE as usize] {
                hash.update(offset.to_le_bytes());
                hash.update(page);
            }
        });
        hash.finalize().iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}
