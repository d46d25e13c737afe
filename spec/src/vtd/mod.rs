//! VT-d: "Intel Virtualization Technology for Directed I/O, Architecture Specification" (order number D51397), in the chapter numbers of
//! its revision 4; cited as "VT-d".
//!
//! - [`registers`]: the register set of a remapping unit (chapter 11)
//! - [`capability`]: what a unit can do, CAP_REG and ECAP_REG
//! - [`tables`]: root, context and PASID tables, paging entries of both stages (chapters 3 and 9)
//! - [`invalidation`]: descriptors of the invalidation queue and their errors (6.5)
//! - [`interrupts`]: remappable requests and the interrupt-remapping table (chapter 5)
//! - [`page_requests`]: what devices with recoverable faults ask (7.4 to 7.7)
//! - [`faults`]: every fault reason by name (chapter 7)
//! - [`dmar`]: the ACPI table that reports the units (chapter 8)

pub mod capability;
pub mod dmar;
pub mod faults;
pub mod interrupts;
pub mod invalidation;
pub mod page_requests;
pub mod registers;
pub mod tables;

pub use faults::{FaultReason, FaultRecord};
