//! A q35-like chipset: root complex, host and LPC bridges, power management, firmware interfaces, ACPI tables. Memory map, PCI
//! ids and behaviour are those of QEMU's q35 machine wherever stock firmware or kernels depend on them.
#![forbid(unsafe_code)]

pub mod acpi;
mod config_space;
pub mod fw_cfg;
pub mod lpc;
pub mod mch;
pub mod memory_map;
pub mod power;
pub mod resources;
pub mod root_complex;
pub mod smbios;
pub mod vtd;
