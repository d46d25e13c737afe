//! Device models behind ports.
#![forbid(unsafe_code)]
#![no_std]
extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

pub mod device;
pub mod pci;
pub mod ports;
