//! The board.

pub mod boot;
