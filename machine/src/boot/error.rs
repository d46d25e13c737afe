//! Why a guest cannot be started, in words for the person who asked.

use super::OutsideMemory;
use std::fmt;
use std::path::PathBuf;

/// Why a guest cannot be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootError {
    /// No known kind of kernel.
    NotAKernel,
    /// A file ends before it should.
    Truncated {
        /// Which file or part.
        what: &'static str,
        /// Bytes that it needs to have.
        needs: u64,
        /// Bytes that it has.
        has: u64,
    },
    /// A Linux kernel whose boot protocol is older than 2.06, or a zImage.
    OldLinux {
        /// The protocol version of the image (0x0204 = 2.04).
        version: u16,
    },
    /// An ELF file that cannot be used.
    BadElf(&'static str),
    /// An ELF kernel without PVH entry note or multiboot header.
    NoEntry,
    /// A multiboot header that asks for something unknown.
    MultibootFlags(u32),
    /// A multiboot header with impossible addresses.
    BadMultiboot(&'static str),
    /// Something does not lie in RAM.
    OutsideRam {
        /// What.
        what: &'static str,
        /// First address.
        address: u64,
        /// Length in bytes.
        length: u64,
        /// Bytes of RAM below 4 GiB.
        ram: u64,
    },
    /// Two things want the same memory.
    Overlap {
        /// What does not fit.
        what: &'static str,
        /// Where it must be.
        address: u64,
        /// What is there already.
        with: &'static str,
    },
    /// The initrd does not fit above the kernel.
    InitrdTooLarge {
        /// Its size in bytes.
        size: u64,
        /// Bytes that are free for it.
        free: u64,
    },
    /// The command line is longer than the kernel takes.
    CommandLineTooLong {
        /// Its length in bytes.
        length: usize,
        /// The longest allowed.
        limit: usize,
    },
    /// The command line has a zero byte in it.
    CommandLineHasNul,
    /// Not enough RAM to start anything.
    TooLittleMemory {
        /// Bytes needed.
        needs: u64,
        /// Bytes there.
        has: u64,
    },
    /// A file cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        reason: String,
    },
    /// No firmware found where Debian's packages put it.
    NoFirmware {
        /// The file looked for.
        file: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// A file that cannot be firmware.
    BadFirmware {
        /// Its size in bytes.
        size: u64,
    },
    /// The configuration for firmware is contradictory.
    FwCfg(chipset::fw_cfg::FileError),
}

impl std::error::Error for BootError {}

impl From<OutsideMemory> for BootError {
    fn from(outside: OutsideMemory) -> Self {
        Self::OutsideRam { what: "boot data", address: outside.address, length: outside.length, ram: 0 }
    }
}

impl From<chipset::fw_cfg::FileError> for BootError {
    fn from(error: chipset::fw_cfg::FileError) -> Self {
        Self::FwCfg(error)
    }
}

/// Bytes in the unit that reads best.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes @ 0..0x2800 => write!(f, "{bytes} bytes"),
            bytes @ 0x2800..0xa0_0000 => write!(f, "{} KiB", bytes.div_ceil(1 << 10)),
            bytes => write!(f, "{} MiB", bytes.div_ceil(1 << 20)),
        }
    }
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAKernel => {
                write!(f, "this is not a kernel: give a Linux bzImage, a PVH ELF file or a multiboot 1 image")
            }
            Self::Truncated { what, needs, has } => {
                write!(f, "{what} is truncated: it needs {needs} bytes and has {has}; fetch or build it again")
            }
            Self::OldLinux { version } => write!(
                f,
                "the Linux kernel uses boot protocol {}.{:02}; a bzImage with protocol 2.06 or later is needed",
                version >> 8,
                version & 0xff
            ),
            Self::BadElf(why) => write!(f, "the ELF kernel cannot be used: {why}"),
            Self::NoEntry => write!(
                f,
                "the ELF file has neither a PVH entry note nor a multiboot header; \
                 for Linux, give the bzImage or build with CONFIG_PVH"
            ),
            Self::MultibootFlags(flags) => {
                write!(f, "the multiboot header asks for unknown features (flags {flags:#x})")
            }
            Self::BadMultiboot(why) => write!(f, "the multiboot header cannot be used: {why}"),
            Self::OutsideRam { what, address, length, ram } => {
                write!(f, "{what} ({} at {address:#x}) does not lie in RAM", Size(*length))?;
                if *ram > 0 { write!(f, " ({} below 4 GiB); give more memory", Size(*ram)) } else { Ok(()) }
            }
            Self::Overlap { what, address, with } => write!(f, "{what} at {address:#x} overlaps {with}"),
            Self::InitrdTooLarge { size, free } => write!(
                f,
                "the initrd ({}) does not fit beside the kernel ({} free): give more memory or a smaller initrd",
                Size(*size),
                Size(*free)
            ),
            Self::CommandLineTooLong { length, limit } => {
                write!(f, "the command line has {length} bytes; this kernel takes at most {limit}")
            }
            Self::CommandLineHasNul => write!(f, "the command line has a zero byte in it"),
            Self::TooLittleMemory { needs, has } => {
                write!(f, "the machine has {} of memory below 4 GiB; give at least {}", Size(*has), Size(*needs))
            }
            Self::Unreadable { path, reason } => write!(f, "cannot read {}: {reason}", path.display()),
            Self::NoFirmware { file, package } => {
                write!(f, "no firmware {file} found: install Debian's package '{package}' or give its path")
            }
            Self::BadFirmware { size } => {
                write!(f, "the firmware image has {size} bytes; it must be a multiple of 64 KiB, at most 16 MiB")
            }
            Self::FwCfg(error) => error.fmt(f),
        }
    }
}
