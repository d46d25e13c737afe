//! System structures of an x86-64 processor (SDM Vol. 3A, and Vol. 2A for CPUID).
pub mod cet;
pub mod control_registers;
pub mod cpuid;
pub mod debug;
pub mod decode;
pub mod descriptors;
pub mod efer;
pub mod exceptions;
pub mod gates;
pub mod msr;
pub mod paging;
pub mod performance;
pub mod rflags;
pub mod tss;

pub use cet::CetControl;
pub use control_registers::{Cr0, Cr3, Cr4, Xcr0};
pub use cpuid::Feature;
pub use debug::{Dr6, Dr7};
pub use descriptors::{Descriptor, Selector};
pub use efer::Efer;
pub use exceptions::{PageFaultCode, Vector};
pub use gates::Gate;
pub use rflags::Rflags;
