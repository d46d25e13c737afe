//! PCI functions: configuration space, base address registers, capabilities.

pub mod ats;
pub mod config;
pub mod core;
pub mod function;
pub mod msi;
pub mod msix;

pub use config::{BarKind, ConfigSpace, Identity};
pub use core::{Change, FunctionCore, FunctionCoreState, InterruptPorts};
pub use function::{PciFunction, Window, WindowKind, decode, encode};
pub use msix::Msix;
