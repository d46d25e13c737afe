//! The general-purpose instructions (SDM Vol 1, 5.1), one subject a file.

pub mod alu;
pub mod operand;

use crate::decode::Table;

/// Registers all general-purpose instructions.
pub fn register(table: &mut Table) {
    alu::register(table);
}
