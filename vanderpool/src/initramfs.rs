//! The initramfs that `vanderpool boot --debian`, the tests and the benchmark boot: busybox, the modules of this board, and
//! an init script.
//!
//! The script understands, on the kernel's command line:
//! - `vp.run=PATH`: run that file instead of a shell, print `vanderpool: status N`, and power off;
//! - `vp.kvm=no`: do not load KVM;
//! - `vp.net=no`: do not ask for an address.

use crate::Error;
use crate::cpio::Archive;
use crate::debian::Kernel;
use crate::modules::{Modules, modules_alias, modules_dep};
use std::fs;
use std::path::Path;

/// What the init script prints when the system is up, just before the shell or the script named by `vp.run`.
pub const READY: &str = "vanderpool: ready";

/// What the init script prints, followed by the exit status, when the script named by `vp.run` has ended.
pub const STATUS: &str = "vanderpool: status ";

/// Modules which every initramfs gets, with all that they need. The init script loads those for which the machine has a device.
pub const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_console",
    "virtio-rng",
    "kvm_intel",
    "kvm_amd",
    "ext4",
    "crc32c_generic",
    "msr",
];

const INIT: &str = include_str!("init.sh");
const UDHCPC: &str = include_str!("udhcpc.sh");

/// An initramfs in the making: the base system, to which a test adds its files.
#[derive(Debug, Clone)]
pub struct Initramfs {
    archive: Archive,
}

impl Initramfs {
    /// The base system for `kernel`.
    ///
    /// # Errors
    /// When busybox or a module cannot be read.
    pub fn new(kernel: &Kernel) -> Result<Self, Error> {
        Self::with_modules(kernel, &[])
    }

    /// The base system for `kernel`, with `more` modules and all that they need. They are loaded for devices that are there at the start.
    ///
    /// # Errors
    /// When busybox or a module cannot be read.
    pub fn with_modules(kernel: &Kernel, more: &[&str]) -> Result<Self, Error> {
        let mut archive = Archive::new();
        for directory in ["proc", "sys", "dev", "tmp", "run", "mnt", "etc", "bin", "root", "usr"] {
            archive.directory(directory);
        }
        // One directory for every program, whatever path a script knows it by.
        for link in ["sbin", "usr/bin", "usr/sbin"] {
            archive.symlink(link, "/bin");
        }
        archive.character_device("dev/console", 0o600, 5, 1);
        let busybox = fs::read(&kernel.busybox).map_err(|e| Error::file("read", &kernel.busybox, &e))?;
        archive.file("bin/busybox", 0o755, &busybox);
        archive.file("init", 0o755, INIT.as_bytes());
        archive.file("etc/udhcpc.sh", 0o755, UDHCPC.as_bytes());
        archive.file("etc/passwd", 0o644, b"root::0:0:root:/root:/bin/sh\n");
        archive.file("etc/group", 0o644, b"root:x:0:\n");

        let modules = Modules::find(&kernel.modules)?.closure(&[MODULES, more].concat())?;
        let directory = format!("lib/modules/{}", kernel.release);
        for module in &modules {
            archive.file(&format!("{directory}/kernel/{}.ko", module.name), 0o644, &module.data);
        }
        archive.file(&format!("{directory}/modules.dep"), 0o644, modules_dep(&modules).as_bytes());
        archive.file(&format!("{directory}/modules.alias"), 0o644, modules_alias(&modules).as_bytes());
        Ok(Self { archive })
    }

    /// Adds a file. Give scripts and programs the permissions 0755.
    pub fn file(&mut self, path: &str, permissions: u32, data: &[u8]) {
        self.archive.file(path, permissions, data);
    }

    /// Adds the host's file `source` at `path`.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn host_file(&mut self, path: &str, permissions: u32, source: &Path) -> Result<(), Error> {
        let data = fs::read(source).map_err(|e| Error::file("read", source, &e))?;
        self.file(path, permissions, &data);
        Ok(())
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) {
        self.archive.symlink(path, target);
    }

    /// The finished archive.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.archive.finish()
    }
}
