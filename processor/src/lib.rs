//! One logical processor of a 64-bit Intel PC: decode, semantics, engines, paging and TLB, local APIC, VT-x.
//!
//! `README.md` beside this crate says how the parts fit and how an instruction is written.

pub mod apic;
pub mod bus;
mod bus_lock;
pub mod cet;
pub mod cpu;
pub mod debugger;
pub mod decode;
pub mod events;
pub mod flags;
pub mod integer;
pub mod memory;
pub mod models;
pub mod observe;
pub mod peers;
pub mod performance;
pub mod run;
pub mod segment;
pub mod simd;
pub mod state;
pub mod system;
#[cfg(test)]
pub(crate) mod testing;
pub mod translator;
pub mod trap;
pub mod vmx;
pub mod x87;

pub use bus::Bus;
pub use cpu::Cpu;
pub use decode::cache::CodeCache;
pub use memory::map::{MemoryMap, MemoryRegion};
pub use memory::ram::GuestRam;
pub use run::RunExit;
