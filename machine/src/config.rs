//! What a machine is made of.

use crate::boot::firmware::Firmware;
use chipset::root_complex::Slot;
use chipset::vtd::UnitConfig;
use devices::network::NetworkBackend;
use devices::ports::{Discard, Output};
use devices::storage::Storage;
use processor::models::Model;
use processor::translator::Tuning;

/// How the machine starts.
pub enum Boot {
    /// A kernel put in memory without firmware.
    Direct {
        /// What to call the kernel towards the guest.
        name: String,
        /// The kernel's file: bzImage, multiboot 1 or PVH ELF.
        kernel: Vec<u8>,
        /// The initial RAM disk's file (for multiboot: the module).
        initrd: Option<Vec<u8>>,
        /// What to call the initrd towards the guest.
        initrd_name: String,
        /// The kernel's command line.
        command_line: String,
    },
    /// Firmware, which finds a disk to boot from.
    Firmware(Firmware),
}

/// A disk.
pub struct Disk {
    /// Its contents.
    pub storage: Box<dyn Storage>,
    /// Serial number that the guest can read.
    pub serial: String,
}

/// What is on a port of the SATA controller.
pub enum Sata {
    /// A disk.
    Disk(Disk),
    /// A CD or DVD drive with a medium in it.
    Optical(Disk),
}

/// A virtio console besides the serial ports.
pub struct Console {
    /// Where its output goes.
    pub output: Box<dyn Output>,
    /// Columns and rows.
    pub size: (u16, u16),
}

/// Devices for test programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TestDevices {
    /// isa-debug-exit.
    pub debug_exit: bool,
    /// pc-testdev.
    pub pc: bool,
    /// pci-testdev.
    pub pci: bool,
}

impl TestDevices {
    /// All of them.
    pub const ALL: Self = Self { debug_exit: true, pc: true, pci: true };
}

/// Memory that functions need at all times (RMRR).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReservedMemory {
    /// First address, of a page.
    pub first: u64,
    /// Last address, of a page.
    pub last: u64,
    /// The functions.
    pub functions: Vec<Slot>,
}

/// Remapping units of VT-d between the devices on one side, memory and processors on the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Iommu {
    /// What each unit has. Its host address width is that of the processor model.
    pub unit: UnitConfig,
    /// Interrupts of the I/O APIC are verified by its source id. QEMU's I/O APIC has none and passes all verification, on which tests made
    /// for QEMU rely.
    pub verify_io_apic: bool,
    /// For each unit besides the first, the functions that are its alone.
    pub scopes: Vec<Vec<Slot>>,
    /// Memory that the operating system is to leave to functions.
    pub reserved: Vec<ReservedMemory>,
}

impl Default for Iommu {
    fn default() -> Self {
        Self { unit: UnitConfig::default(), verify_io_apic: true, scopes: Vec::new(), reserved: Vec::new() }
    }
}

/// What executes instructions. A run is to be the same with either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// Decoded blocks, on any host.
    Interpreter,
    /// The guest's instructions emitted again for the host, where that is x86-64 and has what it takes; else the interpreter.
    #[default]
    Translator,
}

/// A machine.
pub struct Config {
    /// Number of logical processors, 1..=255.
    pub processors: usize,
    /// RAM in bytes.
    pub memory: u64,
    /// What executes instructions.
    pub engine: Engine,
    /// How translations are made: tests want other forms than their host's.
    pub tuning: Tuning,
    /// Each processor has a thread of its own, and virtual time is the host's: no two runs are the same.
    pub threads: bool,
    /// The processor model.
    pub model: Model,
    /// How it starts.
    pub boot: Boot,
    /// Disks, as virtio-blk functions in this order.
    pub disks: Vec<Disk>,
    /// Drives of the SATA controller (AHCI), which exists if there are any; six at most. Firmware boots from them first.
    pub sata: Vec<Sata>,
    /// The network behind a virtio-net function.
    pub network: Option<Box<dyn NetworkBackend>>,
    /// MAC address of the network function.
    pub mac: [u8; 6],
    /// Where the bytes of the serial ports go, in the order COM1, COM2, COM3, COM4.
    pub serial: Vec<Box<dyn Output>>,
    /// A virtio console.
    pub console: Option<Console>,
    /// A virtio entropy source with this seed.
    pub entropy: Option<u64>,
    /// Where the firmware's debug port (0x402) goes.
    pub debug_port: Box<dyn Output>,
    /// The interval timer (8254) and its speaker port are there.
    pub pit: bool,
    /// Devices for test programs.
    pub test_devices: TestDevices,
    /// The remapping unit.
    pub iommu: Option<Iommu>,
    /// An `edu` function for each DMA mask.
    pub edu: Vec<u64>,
    /// How many `dma-tester` functions there are.
    pub dma_testers: usize,
    /// Seconds since 1970-01-01T00:00:00Z at power-on.
    pub start_time: i64,
    /// Start again when the guest asks for a reset; else the run ends.
    pub reboot: bool,
}

impl Config {
    /// A machine with one processor of the default model, one serial port that goes nowhere, and no disks.
    pub fn new(boot: Boot) -> Self {
        Self {
            processors: 1,
            memory: 1 << 30,
            engine: Engine::default(),
            tuning: Tuning::default(),
            threads: false,
            model: Model::default_model(),
            boot,
            disks: Vec::new(),
            sata: Vec::new(),
            network: None,
            mac: [0x52, 0x54, 0x00, 0x12, 0x34, 0x56],
            serial: vec![Box::new(Discard)],
            console: None,
            entropy: Some(1),
            debug_port: Box::new(Discard),
            pit: true,
            test_devices: TestDevices::default(),
            iommu: None,
            edu: Vec::new(),
            dma_testers: 0,
            // 2026-01-01T00:00:00Z
            start_time: 1_767_225_600,
            reboot: true,
        }
    }
}
