//! PCIe root complex, ACPI, power management, firmware interfaces.
#![forbid(unsafe_code)]
