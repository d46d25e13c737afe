//! The x87 FPU (SDM Vol. 1, chapter 8).
//!
//! Numbers are computed by `softfloat`; here are the register stack, the stack faults, the responses to masked and unmasked exceptions,
//! and the pointers. The data pointer and the opcode are updated only by unmasked exceptions and the selectors are stored as zero, as
//! CPUID.(7,0):EBX bits 6 and 13 say.

mod arithmetic;
mod compare;
mod control;
mod environment;
mod stack;
pub mod state;
#[cfg(test)]
mod tests;
mod transcendental;
mod transfer;

use crate::decode::Table;
pub use state::{LEGACY_X87_SIZE, X87, X87State};

/// Registers the x87 instructions, FXSAVE and FXRSTOR.
pub fn register(table: &mut Table) {
    arithmetic::register(table);
    compare::register(table);
    control::register(table);
    environment::register(table);
    transcendental::register(table);
    transfer::register(table);
}
