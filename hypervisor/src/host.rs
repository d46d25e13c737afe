//! What the hypervisor wants from the processor that it runs on, apart from VMX operation.

/// Nanoseconds since the hypervisor started.
pub type Nanoseconds = u64;

/// The processor's number, from 0.
pub type ProcessorId = u32;

/// The machine under the hypervisor.
pub trait Host: Sync {
    /// The time.
    fn now(&self) -> Nanoseconds;
    /// The processor that this runs on.
    fn processor(&self) -> ProcessorId;
    /// Makes `processor` leave its guest, or wakes it.
    fn kick(&self, processor: ProcessorId);
    /// Makes `processor` look at the posted interrupts of the guest that it is in, without leaving it.
    fn notify(&self, processor: ProcessorId);
    /// CPUID.
    fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4];
    /// Loads XCR0; the caller has checked the value.
    fn set_xcr0(&self, value: u64);
    /// Invalidates what this processor keeps of extended page tables.
    fn forget_ept(&self);
    /// Waits.
    fn pause(&self, time: Nanoseconds);
    /// Writes to the terminal.
    fn write(&self, bytes: &[u8]);
    /// Gives whoever runs this machine what the guest with this console's number wrote to a file.
    fn transfer(&self, console: usize, bytes: &[u8]);
}

/// The vectors by which processors of the hypervisor call each other.
pub mod vector {
    /// Leave the guest: see [`Host::kick`](super::Host::kick).
    pub const KICK: u8 = 0xf2;
    /// Posted interrupts: see [`Host::notify`](super::Host::notify).
    pub const NOTIFY: u8 = 0xf3;
    /// The local APIC's timer.
    pub const TIMER: u8 = 0xf4;
    /// The machine's network card has received something.
    pub const NIC: u8 = 0xf5;
    /// Something was typed at the terminal.
    pub const TERMINAL: u8 = 0xf6;
    /// A remapping unit has recorded a fault.
    pub const FAULT: u8 = 0xf7;
}
