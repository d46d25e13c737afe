//! The SATA controller of the ICH9 in AHCI mode (Serial ATA AHCI 1.3.1; Intel I/O Controller Hub 9 datasheet, chapter 15):
//! six ports, 32 command slots each, disks and CD drives. No native command queueing, port multipliers or staggered
//! spin-up, and none announced.
//!
//! A command is done when the write that issued it returns.

mod command;
mod disk;
mod optical;
mod port;

use crate::device::{Device, Region};
use crate::pci::{
    BarKind, ConfigSpace, FunctionCore, FunctionCoreState, Identity, InterruptPorts, PciFunction, Window, decode,
    encode,
};
use crate::ports::Dma;
use alloc::boxed::Box;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};
use spec::pci::config::class;

pub use disk::{AtaDisk, AtaDiskState};
pub use optical::{OpticalDrive, OpticalDriveState};
use port::Port;
pub use port::{Drive, DriveState, PortState};

/// The BAR of the registers.
pub const REGISTERS_BAR: Region = 5;
/// Ports of the controller.
pub const PORTS: usize = 6;
const BAR_SIZE: u64 = 0x1000;
const PORTS_AT: u64 = 0x100;
const PORT_SIZE: u64 = 0x80;

/// Generic host control registers (AHCI 3.1).
mod host {
    /// Capabilities.
    pub const CAP: u64 = 0x00;
    /// Global control.
    pub const GHC: u64 = 0x04;
    /// Interrupt status, a bit for each port.
    pub const IS: u64 = 0x08;
    /// Ports implemented.
    pub const PI: u64 = 0x0c;
    /// Version.
    pub const VS: u64 = 0x10;

    /// CAP: 64-bit addresses, AHCI only, 32 slots; the number of ports and the speed are added. CLO is supported.
    pub const CAPABILITIES: u32 = 1 << 31 | 1 << 24 | 1 << 18 | 31 << 8;
    /// CAP: second generation, 3 Gb/s.
    pub const SPEED: u32 = 2 << 20;
    /// GHC: AHCI enable, always on because there is no legacy mode.
    pub const GHC_ENABLE: u32 = 1 << 31;
    /// GHC: interrupts enabled.
    pub const GHC_INTERRUPTS: u32 = 1 << 1;
    /// GHC: reset.
    pub const GHC_RESET: u32 = 1 << 0;
    /// Version 1.3.
    pub const VERSION: u32 = 0x0001_0300;
}

/// The saved state of an [`Ahci`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct AhciState {
    pub core: FunctionCoreState,
    pub control: u32,
    pub status: u32,
    pub ports: Vec<PortState>,
}

/// The controller.
pub struct Ahci {
    core: FunctionCore,
    dma: Box<dyn Dma>,
    control: u32,
    status: u32,
    ports: [Port; PORTS],
}

impl Ahci {
    /// A controller with `drives` on its ports, in order; missing ones are empty ports. It interrupts by MSI or INTA#.
    pub fn new(drives: Vec<Drive>, dma: Box<dyn Dma>, interrupts: InterruptPorts) -> Self {
        let mut config = ConfigSpace::conventional(Identity {
            vendor: 0x8086,
            device: 0x2922,
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
            revision: 2,
            class: class::SATA_AHCI,
            multifunction: false,
        });
        config.set_interrupt_pin(1);
        config.add_bar(REGISTERS_BAR, BarKind::Memory32 { prefetchable: false }, BAR_SIZE);
        let mut core = FunctionCore::new(config, interrupts);
        core.add_msi(1, false);
        let mut drives = drives.into_iter();
        let ports = core::array::from_fn(|_| Port::new(drives.next()));
        Self { core, dma, control: host::GHC_ENABLE, status: 0, ports }
    }

    fn host_reset(&mut self) {
        self.control = host::GHC_ENABLE;
        self.status = 0;
        self.ports.iter_mut().for_each(Port::reset);
        self.interrupt(false);
    }

    /// Lets the interrupt follow the registers. A message is sent for each port bit that appears, and again after a write
    /// that clears some bits and leaves others (`cleared`), so that no event is lost between two writes.
    fn interrupt(&mut self, cleared: bool) {
        let pending = self.ports.iter().enumerate().filter(|(_, port)| port.interrupting());
        let pending = pending.fold(0, |bits, (index, _)| bits | 1u32 << index);
        let new = pending & !self.status;
        self.status |= pending;
        let level = self.control & host::GHC_INTERRUPTS != 0 && self.status != 0;
        if level && (new != 0 || cleared) && self.core.msi_enabled() {
            self.core.signal(0);
        }
        self.core.set_intx(level);
    }

    fn read_register(&self, at: u64) -> u32 {
        if let Some(offset) = at.checked_sub(PORTS_AT) {
            let port = self.ports.get((offset / PORT_SIZE) as usize);
            return port.map_or(0, |port| port.read(offset % PORT_SIZE));
        }
        match at {
            host::CAP => host::CAPABILITIES | host::SPEED | (PORTS as u32 - 1),
            host::GHC => self.control,
            host::IS => self.status,
            host::PI => (1 << PORTS) - 1,
            host::VS => host::VERSION,
            _ => 0,
        }
    }

    fn write_register(&mut self, at: u64, value: u32) {
        if let Some(offset) = at.checked_sub(PORTS_AT) {
            if let Some(port) = self.ports.get_mut((offset / PORT_SIZE) as usize) {
                let dma = self.core.config.bus_master().then_some(&*self.dma);
                port.write(dma, offset % PORT_SIZE, value);
                self.interrupt(false);
            }
            return;
        }
        match at {
            host::GHC if value & host::GHC_RESET != 0 => self.host_reset(),
            host::GHC => {
                let was = self.control;
                self.control = host::GHC_ENABLE | value & host::GHC_INTERRUPTS;
                self.interrupt(self.control & !was != 0);
            }
            host::IS => {
                self.status &= !value;
                self.interrupt(true);
            }
            _ => {}
        }
    }

    /// What must be kept to continue later.
    pub fn save(&self) -> AhciState {
        let Self { core, dma: _, control, status, ports } = self;
        AhciState {
            core: core.save(),
            control: *control,
            status: *status,
            ports: ports.iter().map(Port::save).collect(),
        }
    }

    /// Takes over a saved state of a controller with the same drives.
    pub fn restore(&mut self, state: &AhciState) {
        let AhciState { core, control, status, ports } = state;
        self.core.restore(core);
        self.control = *control;
        self.status = *status;
        for (mine, saved) in self.ports.iter_mut().zip(ports) {
            mine.restore(saved);
        }
    }
}

impl Device for Ahci {
    fn read(&mut self, region: Region, offset: u64, size: u8) -> u64 {
        if region != REGISTERS_BAR || offset >= BAR_SIZE {
            return 0;
        }
        let low = u64::from(self.read_register(offset & !3));
        let high = if offset % 4 + u64::from(size) > 4 { self.read_register((offset & !3) + 4) } else { 0 };
        let value = (u64::from(high) << 32 | low) >> (8 * (offset % 4));
        if size >= 8 { value } else { value & ((1 << (8 * size)) - 1) }
    }

    fn write(&mut self, region: Region, offset: u64, size: u8, value: u64) {
        // Registers are written whole (AHCI 3); a narrower write is widened with zeroes, which is what the bus shows.
        if region != REGISTERS_BAR || offset >= BAR_SIZE || !offset.is_multiple_of(4) {
            return;
        }
        let mask = if size >= 4 { u64::from(u32::MAX) } else { (1 << (8 * size)) - 1 };
        self.write_register(offset, (value & mask) as u32);
        if size == 8 {
            self.write_register(offset + 4, (value >> 32) as u32);
        }
    }

    fn reset(&mut self) {
        self.host_reset();
        self.core.reset();
    }
}

impl PciFunction for Ahci {
    fn config_read(&mut self, offset: u16, size: u8) -> u32 {
        self.core.config_read(offset, size)
    }

    fn config_write(&mut self, offset: u16, size: u8, value: u32) -> bool {
        let change = self.core.config_write(offset, size, value);
        if change.became_bus_master {
            for port in &mut self.ports {
                port.run(Some(&*self.dma));
            }
            self.interrupt(false);
        }
        change.windows
    }

    fn windows(&self) -> Vec<Window> {
        self.core.windows()
    }

    fn save_encoded(&self) -> Vec<u8> {
        encode(&self.save())
    }

    fn restore_encoded(&mut self, state: &[u8]) -> bool {
        decode(state).map(|state| self.restore(&state)).is_some()
    }
}

#[cfg(test)]
mod tests;
