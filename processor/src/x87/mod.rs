//! The x87 FPU (SDM Vol. 1, chapter 8).

pub mod state;

pub use state::{LEGACY_X87_SIZE, X87, X87State};
