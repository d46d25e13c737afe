//! Virtio devices: split virtqueues, the modern PCI transport, and the devices themselves.

pub mod blk;
pub mod console;
pub mod device;
pub mod net;
pub mod pci;
pub mod queue;
pub mod rng;
#[cfg(test)]
pub(crate) mod testing;

pub use device::{Queues, VirtioDevice};
pub use pci::{VirtioPci, VirtioPciState, VirtioPorts};
