//! The board: wires processors, chipset and devices; memory, time, boot.
//!
//! [`Machine`] is built from a [`Config`] and run with [`Machine::run`]. Everything is deterministic: virtual time comes from retired
//! instructions, idle time is skipped, the processors take turns on one host thread, and what the host has to say ([`Host`]) enters at one
//! place between turns. With [`Config::threads`] each processor has a host thread, time is the host's, and none of this holds (`parallel.rs`).

mod board;
pub mod boot;
mod config;
mod debug;
mod digest;
mod dump;
mod error;
pub mod exit_statistics;
pub mod explain;
mod host;
mod interrupts;
mod iommu;
mod memory;
mod parallel;
mod ports;
mod processors;
mod run;
mod sleep;
mod state;
pub mod trace;
pub mod watch;

pub use chipset::root_complex::Slot;
pub use chipset::vtd::UnitConfig;
pub use config::{Boot, Config, Console, Disk, Engine, Iommu, ReservedMemory, Sata, TestDevices};
pub use dump::DUMPS;
pub use error::Error;
pub use host::{Host, HostEvent, NoHost};
pub use run::{Machine, Outcome};
pub use state::{MachineState, OtherMachine, SavedMemory};
pub use watch::Watchers;
