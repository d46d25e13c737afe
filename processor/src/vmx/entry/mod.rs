//! VM entries (SDM Vol. 3C, chapter 27).

pub mod checks;
