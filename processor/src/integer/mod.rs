//! The general-purpose instructions (SDM Vol 1, 5.1), one subject a file.

pub mod alu;
pub mod bits;
pub mod control;
pub mod decimal;
pub mod fused;
pub mod hints;
pub mod moves;
pub mod multiply;
pub mod operand;
pub mod random;
pub mod shift;
pub mod stack;
pub mod string;

use crate::decode::Table;

/// Registers all general-purpose instructions.
pub fn register(table: &mut Table) {
    alu::register(table);
    fused::register(table);
    moves::register(table);
    stack::register(table);
    control::register(table);
    shift::register(table);
    multiply::register(table);
    bits::register(table);
    decimal::register(table);
    string::register(table);
    hints::register(table);
    random::register(table);
}
