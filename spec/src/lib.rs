//! What the manuals define, as types: encodings, bits, tables and names. No behaviour.
//!
//! Each item cites where it is defined. "SDM" is Intel's Software Developer's Manual, in the chapter numbers of its
//! 2023 and later editions (in older ones the VMX chapters count one less).
//!
//! - [`x86`]: system structures of the processor (control registers, descriptors, MSRs, CPUID leaves, paging, ...)
//! - [`vmx`] is VT-x (VMCS fields, controls, capability MSRs, exit reasons, every VM-entry check by name, EPT)
//! - [`vtd`] is VT-d (registers, tables, invalidation descriptors, interrupt-remapping entries, every fault reason by name)
//! - [`apic`]: local APIC and I/O APIC registers
//! - [`pci`]: configuration space, MSI and MSI-X, the PCI Express capability
//! - [`dma_tester`]: a device of our own for tests of remapping
//! - [`virtio`]: virtio over PCI: capabilities, common configuration, rings, feature bits
#![no_std]
#![forbid(unsafe_code)]

#[macro_use]
mod bits;

pub mod apic;
pub mod dma_tester;
pub mod pci;
pub mod virtio;
pub mod vmx;
pub mod vtd;
pub mod x86;
