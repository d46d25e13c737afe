//! CPU models.

pub mod frequency;
