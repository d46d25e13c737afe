//! PCI and PCI Express configuration space (PCI Local Bus 3.0, chapter 6; PCI Express Base, chapter 7).
pub mod capability;
pub mod config;
pub mod express;
pub mod message;
