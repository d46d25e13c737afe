//! The local vector table: the entries by which local interrupt sources are delivered (SDM vol. 3, 11.5.1).

use serde::{Deserialize, Serialize};
use spec::apic::local_apic::Lvt;

/// Bits that software reads and cannot write: delivery status, remote IRR.
pub(super) const READ_ONLY: u32 = Lvt::DELIVERY_STATUS | Lvt::REMOTE_IRR;

/// One entry of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(usize)]
pub enum LocalSource {
    /// The APIC timer.
    Timer,
    /// Corrected machine-check errors.
    Cmci,
    /// Thermal sensor.
    Thermal,
    /// Performance counters.
    Performance,
    /// Pin LINT0, wired to the 8259.
    Lint0,
    /// Pin LINT1, wired to NMI.
    Lint1,
    /// Errors of the APIC itself.
    Error,
}

impl LocalSource {
    pub(super) const ALL: [Self; 7] =
        [Self::Timer, Self::Cmci, Self::Thermal, Self::Performance, Self::Lint0, Self::Lint1, Self::Error];

    /// The bits of the entry that exist and can be written.
    pub(super) const fn writable(self) -> u32 {
        match self {
            Self::Timer => Lvt::VECTOR | Lvt::MASKED | Lvt::TIMER_MODE,
            Self::Cmci | Self::Thermal | Self::Performance => Lvt::VECTOR | Lvt::DELIVERY_MODE | Lvt::MASKED,
            Self::Lint0 | Self::Lint1 => Lvt::VECTOR | Lvt::DELIVERY_MODE | Lvt::MASKED | Lvt::LEVEL | Lvt::ACTIVE_LOW,
            Self::Error => Lvt::VECTOR | Lvt::MASKED,
        }
    }
}
