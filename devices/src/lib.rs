//! Device models behind ports.
#![forbid(unsafe_code)]
#![no_std]
extern crate alloc;
#[cfg(any(test, feature = "std"))]
extern crate std;

pub mod ahci;
pub mod debug_port;
pub mod device;
pub mod dma_tester;
pub mod edu;
pub mod hpet;
pub mod i8042;
pub mod ioapic;
pub mod isa_debug_exit;
pub mod network;
pub mod pc_testdev;
pub mod pci;
pub mod pci_testdev;
pub mod pic;
pub mod pit;
pub mod ports;
pub mod rtc;
pub mod serial;
pub mod storage;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod virtio;
