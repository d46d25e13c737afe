//! PCI functions: configuration space, base address registers, capabilities.

pub mod function;

pub use function::{PciFunction, Window, WindowKind};
