//! Device models behind ports.
#![forbid(unsafe_code)]
#![no_std]
extern crate alloc;
#[cfg(any(test, feature = "std"))]
extern crate std;

pub mod device;
pub mod pci;
pub mod pic;
pub mod ports;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
