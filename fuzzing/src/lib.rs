//! Fuzz targets: each takes any bytes for what a guest, or a file from a stranger, does, and must not panic, hang or
//! allocate without bound.
//!
//! A target is an ordinary function, so three things run it: `cargo xtask fuzz TARGET` under libFuzzer, guided by coverage;
//! `tests/seeded.rs` with a bounded number of seeded inputs in every `cargo test`; and anybody who has a failing input
//! (`cargo xtask fuzz TARGET --input FILE`).
#![forbid(unsafe_code)]

pub mod ahci;
pub mod board;
pub mod chipset;
pub mod devices;
pub mod engines;
pub mod exercise;
pub mod generate;
pub mod images;
pub mod input;
pub mod loaders;
pub mod network;
pub mod processor;
pub mod virtio;
pub mod vmcs;
pub mod vtd;

/// A fuzz target.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it feeds the bytes to.
    pub about: &'static str,
    /// The body.
    pub run: fn(&[u8]),
    /// Valid or nearly valid inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Longest input in bytes that is worth making.
    pub longest: usize,
}

fn no_seeds() -> Vec<Vec<u8>> {
    Vec::new()
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target {
        name: "devices",
        about: "the PC's own devices and the test devices: accesses, alarms, bytes from the host, snapshots",
        run: devices::run,
        seeds: no_seeds,
        longest: 4096,
    },
    Target {
        name: "virtio",
        about: "the virtio devices over PCI: registers, and queues with any descriptors",
        run: virtio::run,
        seeds: no_seeds,
        longest: 4096,
    },
    Target {
        name: "ahci",
        about: "the SATA controller with a disk and a CD: registers, command lists, packets",
        run: ahci::run,
        seeds: no_seeds,
        longest: 4096,
    },
    Target {
        name: "network",
        about: "the user-mode network: frames of the guest, and other ends that do anything",
        run: network::run,
        seeds: no_seeds,
        longest: 4096,
    },
    Target {
        name: "board",
        about: "a whole machine whose guest programs every device at once, by ports, memory and configuration space",
        run: board::run,
        seeds: no_seeds,
        longest: 1024,
    },
    Target {
        name: "chipset",
        about: "root complex, power management and fw_cfg",
        run: chipset::run,
        seeds: no_seeds,
        longest: 4096,
    },
    Target {
        name: "vtd",
        about: "the remapping unit: registers, tables, descriptors, requests and interrupts",
        run: vtd::run,
        seeds: no_seeds,
        longest: 4096,
    },
    Target {
        name: "loaders",
        about: "bzImage, PVH and multiboot kernels from strangers",
        run: loaders::run,
        seeds: loaders::seeds,
        longest: 4096,
    },
    Target {
        name: "images",
        about: "qcow2 and raw disk images from strangers, and a guest that uses them",
        run: images::run,
        seeds: images::seeds,
        longest: 4096,
    },
    Target {
        name: "processor",
        about: "any bytes as code in each operating mode, in blocks and instruction by instruction",
        run: processor::run,
        seeds: processor::seeds,
        longest: 512,
    },
    Target {
        name: "engines",
        about: "random code and page tables on both engines",
        run: engines::run,
        seeds: no_seeds,
        longest: 4096,
    },
    Target {
        name: "vmcs",
        about: "any VMCS: the hypervisor's state after a failed VM entry, and guests that are entered",
        run: vmcs::run,
        seeds: vmcs::seeds,
        longest: 128,
    },
];

/// The target called `name`.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
