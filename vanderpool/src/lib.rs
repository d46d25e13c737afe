//! What the `vanderpool` command is made of: the boot of Debian without a disk, the terminal, the exit status. Tests and the
//! benchmark use the same parts.
#![forbid(unsafe_code)]

pub mod boot;
pub mod check;
pub mod cli;
pub mod cpio;
pub mod cpus;
pub mod debian;
pub mod error;
pub mod exit_status;
pub mod gdb;
pub mod host;
pub mod initramfs;
mod inspect;
pub mod iommu;
pub mod modules;
mod prompt;
pub mod qemu;
pub mod run;
pub mod terminal;
pub mod trace;
pub mod watch;

pub use error::Error;
