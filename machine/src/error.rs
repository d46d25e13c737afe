//! What can be wrong with a configuration.

use crate::boot::BootError;
use std::fmt;

/// Why a machine could not be built.
#[derive(Debug)]
pub enum Error {
    /// The kernel, the initrd or the firmware.
    Boot(BootError),
    /// The number of processors.
    Processors(usize),
    /// The amount of memory.
    Memory(u64),
    /// The host has not so much memory.
    HostMemory(u64),
    /// More serial ports than a PC has.
    SerialPorts(usize),
    /// More drives than the SATA controller has ports.
    SataPorts(usize),
    /// A function belongs to two remapping units, or there are more units than address room.
    Scopes,
    /// Reserved memory that is not whole pages of RAM.
    Reserved(u64, u64),
    /// More PCI functions than the bus holds.
    BusFull,
    /// A BAR for which there is no address room.
    NoAddress(u64),
    /// Threads on a host that is no x86-64.
    ThreadsOnHost,
    /// Threads with a remapping unit.
    ThreadsWithIommu,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boot(error) => error.fmt(f),
            Self::Processors(n) => write!(f, "a machine has 1 to 255 processors, not {n}"),
            Self::Memory(size) => write!(f, "a machine has between 1 MiB and 1 TiB of memory, not {size} bytes"),
            Self::HostMemory(size) => write!(f, "the host has no {size} bytes of memory for the machine: use less"),
            Self::SerialPorts(n) => write!(f, "a PC has up to four serial ports, not {n}"),
            Self::SataPorts(n) => {
                write!(f, "the SATA controller has six ports, not {n}: use fewer CD-ROMs or SATA disks")
            }
            Self::Scopes => f.write_str("each function belongs to one remapping unit, of which there are up to eight"),
            Self::Reserved(first, last) => {
                write!(f, "reserved memory is whole pages of RAM, not {first:#x} to {last:#x}")
            }
            Self::BusFull => f.write_str("there is no free slot on the PCI bus: use fewer disks"),
            Self::ThreadsOnHost => {
                f.write_str("--threads needs an x86-64 host, whose memory is ordered as the guest's: leave it out")
            }
            Self::ThreadsWithIommu => {
                f.write_str("--threads does not go with a remapping unit, which shares tables with processors: leave one of them out")
            }
            Self::NoAddress(size) => {
                write!(f, "there is no room in the address space for a PCI window of {size} bytes")
            }
        }
    }
}

impl std::error::Error for Error {}

impl From<BootError> for Error {
    fn from(error: BootError) -> Self {
        Self::Boot(error)
    }
}
