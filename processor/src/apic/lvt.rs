//! The local vector table: the entries by which local interrupt sources are delivered (SDM vol. 3, 11.5.1).

use serde::{Deserialize, Serialize};

/// Mask bit of an entry.
pub(super) const MASKED: u32 = 1 << 16;
/// Level-triggered, of a LINT entry.
pub(super) const LEVEL: u32 = 1 << 15;
/// Remote IRR of a LINT entry: a level-triggered interrupt was accepted and waits for its EOI.
pub(super) const REMOTE_IRR: u32 = 1 << 14;
/// Active low, of a LINT entry.
const ACTIVE_LOW: u32 = 1 << 13;
/// Bits that software reads and cannot write: delivery status, remote IRR.
pub(super) const READ_ONLY: u32 = 1 << 12 | REMOTE_IRR;

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
            Self::Timer => 0xff | MASKED | 3 << 17,
            Self::Cmci | Self::Thermal | Self::Performance => 0x7ff | MASKED,
            Self::Lint0 | Self::Lint1 => 0x7ff | MASKED | LEVEL | ACTIVE_LOW,
            Self::Error => 0xff | MASKED,
        }
    }
}
