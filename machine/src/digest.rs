//! The digest of a machine: equal for two runs that are the same.

use crate::run::Machine;
use sha2::{Digest, Sha256};
use std::fmt::Write;

impl Machine {
    /// SHA-256 over virtual time, the saved state of every processor and all memory ever written, in hexadecimal.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.now().to_le_bytes());
        for cpu in &self.cpus {
            // Encoding plain data into a growing vector has nothing to fail on.
            hash.update(postcard::to_allocvec(&cpu.save()).unwrap_or_default());
        }
        let board = crate::processors::lock(&self.board);
        board.memory.ram.for_each_page(|offset, page| {
            hash.update(offset.to_le_bytes());
            hash.update(page);
        });
        hash.finalize().iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}
