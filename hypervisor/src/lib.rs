//! A small hypervisor for VT-x, without the instructions themselves: every decision that it takes is here, in safe Rust that runs and is
//! tested on any computer. `hypervisor/metal` is the program that boots; it gives these modules a processor ([`host::Host`],
//! [`vmcs::Vmcs`]) and memory ([`memory`]).
//!
//! | module | is |
//! | --- | --- |
//! | [`capabilities`], [`controls`] | what the processor's VT-x has; which controls a guest runs with |
//! | [`vmcs`] | fields with their types |
//! | [`ept`], [`paging`] | the guest's memory: from guest-physical to ours, and from the guest's linear addresses |
//! | [`vm`], [`vcpu`] | a guest, one of its processors |
//! | [`mmio`], [`computation`] | instructions that access devices' memory, and what they compute |
//! | [`exits`] | what is done about each VM exit, a file for each kind |
//! | [`apic`], [`board`] | interrupt controllers, timers and devices of a guest |
//! | [`pci`], [`network`], [`nic`] | a guest's PCI bus with its virtio card, the switch between guests, the machine's own card |
//! | [`destinations`] | whom interrupt messages reach in a guest |
//! | [`function`], [`assignment`], [`remapping`] | the machine's functions, those that guests get, and VT-d between them and everything else |
//! | [`scheduler`] | which vCPU a processor runs next, and for how long |
//! | [`configuration`], [`loader`] | what guests there are, what they boot |
//! | [`statistics`], [`report`], [`console`] | what is told about it |
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod apic;
pub mod assignment;
pub mod board;
pub mod capabilities;
pub mod computation;
pub mod configuration;
pub mod console;
pub mod controls;
pub mod destinations;
pub mod ept;
pub mod exits;
pub mod function;
pub mod host;
pub mod loader;
pub mod memory;
pub mod mmio;
pub mod network;
pub mod nic;
pub mod paging;
pub mod pci;
pub mod posted;
pub mod remapping;
pub mod report;
pub mod scheduler;
pub mod statistics;
#[cfg(test)]
mod testing;
pub mod vcpu;
pub mod vm;
pub mod vmcs;
