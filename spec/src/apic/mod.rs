//! Interrupt controllers: the local APIC and the I/O APIC.
pub mod io_apic;
pub mod local_apic;
