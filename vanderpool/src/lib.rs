//! What the `vanderpool` command is made of: the boot of Debian without a disk, the terminal, the exit status. Tests and the
//! benchmark use the same parts.
#![forbid(unsafe_code)]

pub mod cpio;
pub mod debian;
pub mod error;
pub mod initramfs;
pub mod modules;

pub use error::Error;
