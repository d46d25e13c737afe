//! Which guests there are: what the command `vanderpool run` makes of a machine file, packed into the one module that the hypervisor
//! boots with.

use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// All guests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// The guests, started together.
    pub vms: Vec<VmConfiguration>,
}

/// One guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmConfiguration {
    /// What its lines on the console begin with.
    pub name: String,
    /// Its processors.
    pub vcpus: u8,
    /// Its memory in MiB.
    pub memory: u32,
    /// Its share of a processor for which guests compete is in proportion to this.
    pub weight: u32,
    /// The most of a processor that each of its vCPUs may have, in percent.
    pub cap: u8,
    /// Starts again after every end but its own with status 0: after a triple fault, a reset, a failure.
    pub restart: bool,
    /// Milliseconds after a start at which it starts again (or ends), whatever it does; 0 for never.
    pub watchdog: u32,
    /// The run does not wait for its end: it is ended when all others have ended.
    pub background: bool,
    /// It has a network card on the switch between guests.
    pub network: bool,
    /// Its virtio disks.
    pub disks: Vec<Disk>,
    /// The functions of the machine that are its own: see [`crate::assignment::Wanted`].
    pub assign: Vec<String>,
    /// It starts when the guest of this name has ended.
    pub after: Option<String>,
    /// It has a virtio console beside its serial port; both are one console of the terminal's, and what is typed goes to this one.
    pub virtio_console: bool,
    /// What it writes to its console goes to a file of whoever runs this machine.
    pub console_to_file: bool,
    /// What it boots.
    pub boot: Boot,
}

/// A disk in memory, which lives as long as the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Disk {
    /// With these contents at first.
    Image(Vec<u8>),
    /// So many MiB of zeroes at first.
    Empty(u32),
}

/// What a guest boots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Boot {
    /// In real-address mode: a raw image at 0000:7C00, or an ELF image below 64 KiB with its entry point as IP.
    RealMode {
        /// The file.
        image: Vec<u8>,
    },
    /// In 32-bit protected mode without paging: an ELF image with a multiboot 1 header.
    Multiboot {
        /// The file.
        image: Vec<u8>,
        /// Its command line.
        command_line: String,
    },
    /// Linux by its 32-bit boot protocol.
    Linux {
        /// The bzImage.
        kernel: Vec<u8>,
        /// The initial RAM disk; may be empty.
        initrd: Vec<u8>,
        /// The kernel's command line.
        command_line: String,
    },
}

impl Configuration {
    /// The bytes of the module.
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub fn pack(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_allocvec(self)
    }

    /// From the bytes of the module.
    ///
    /// # Errors
    /// When they are not what [`pack`](Self::pack) makes.
    pub fn unpack(module: &[u8]) -> Result<Self, postcard::Error> {
        postcard::from_bytes(module)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_unpacks_to_what_was_packed_and_garbage_is_refused() {
        let vm = VmConfiguration { vcpus: 2, memory: 16, ..crate::testing::guest("a") };
        let configuration = Configuration { vms: [vm].into() };
        let packed = configuration.pack().unwrap();
        assert_eq!(Configuration::unpack(&packed), Ok(configuration));
        assert!(Configuration::unpack(&packed[..packed.len() - 1]).is_err());
    }
}
