//! What every function of ours shares: configuration space, and its interrupt by pin, MSI or MSI-X.

use super::config::{ConfigSpace, ConfigSpaceState};
use super::function::Window;
use super::msi::MsiCapability;
use super::msix::{Msix, MsixState};
use crate::ports::{Msi, Pin};
use alloc::boxed::Box;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};
use spec::pci::config::{self as register, Command, Status};

/// The ports by which a function interrupts.
pub struct InterruptPorts {
    /// Its INTx wire.
    pub pin: Box<dyn Pin>,
    /// Its messages.
    pub msi: Box<dyn Msi>,
}

/// What a write to configuration space did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The windows decoded may have changed.
    pub windows: bool,
    /// Bus mastering was off and is on.
    pub became_bus_master: bool,
    /// Software asked for a function-level reset; the owner resets itself and calls [`FunctionCore::reset`].
    pub function_level_reset: bool,
}

/// The saved state of a [`FunctionCore`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionCoreState {
    /// Configuration space.
    pub config: ConfigSpaceState,
    /// MSI-X table and pending bits, where the function has MSI-X.
    pub msix: Option<MsixState>,
    /// The function wants its INTx asserted.
    pub intx: bool,
}

/// Configuration space and interrupts of one function.
pub struct FunctionCore {
    /// The registers. The owner may read them at any time and set its own.
    pub config: ConfigSpace,
    msix: Option<Msix>,
    msi: Option<MsiCapability>,
    ports: InterruptPorts,
    intx: bool,
    /// What the wire was last set to, so that it is set only when it changes.
    driven: bool,
}

impl FunctionCore {
    /// A function without MSI or MSI-X.
    pub fn new(config: ConfigSpace, ports: InterruptPorts) -> Self {
        Self { config, msix: None, msi: None, ports, intx: false, driven: false }
    }

    /// Adds MSI-X: see [`Msix::new`].
    pub fn add_msix(&mut self, vectors: u16, bar: u8) {
        self.msix = Some(Msix::new(&mut self.config, vectors, bar));
    }

    /// Adds MSI: see [`MsiCapability::new`].
    pub fn add_msi(&mut self, vectors: u8, maskable: bool) {
        self.msi = Some(MsiCapability::new(&mut self.config, vectors, maskable));
    }

    /// A read by software.
    pub fn config_read(&self, offset: u16, size: u8) -> u32 {
        self.config.read(offset, size)
    }

    /// A write by software.
    pub fn config_write(&mut self, offset: u16, size: u8, value: u32) -> Change {
        let was_master = self.config.bus_master();
        self.config.write(offset, size, value);
        let end = offset.saturating_add(u16::from(size));
        let touches = |from: u16, to: u16| offset < to && end > from;
        let mut change = Change {
            windows: touches(register::COMMAND, register::COMMAND + 2) || touches(register::BAR0, register::BAR0 + 24),
            became_bus_master: !was_master && self.config.bus_master(),
            function_level_reset: false,
        };
        if let Some(express) = self.config.express() {
            // Initiate FLR: bit 15 of device control; announced by bit 28 of device capabilities.
            let at = express + 9;
            let announced = self.config.u32_at(express + 4) >> 28 & 1 != 0;
            change.function_level_reset =
                announced && touches(at, at + 1) && value >> (8 * (at - offset.min(at))) & 0x80 != 0;
        }
        self.update();
        change
    }

    /// The windows now decoded.
    pub fn windows(&self) -> Vec<Window> {
        self.config.windows()
    }

    /// A read of the BAR that holds the MSI-X table.
    pub fn msix_read(&self, offset: u64, size: u8) -> u64 {
        self.msix.as_ref().map_or(0, |msix| msix.read(offset, size))
    }

    /// A write to the BAR that holds the MSI-X table.
    pub fn msix_write(&mut self, offset: u64, size: u8, value: u64) {
        if let Some(msix) = &mut self.msix {
            msix.write(&self.config, &*self.ports.msi, offset, size, value);
        }
    }

    /// Number of MSI-X vectors, zero without MSI-X.
    pub fn msix_vectors(&self) -> u16 {
        self.msix.as_ref().map_or(0, Msix::vectors)
    }

    /// Software uses MSI-X: [`FunctionCore::signal`] reaches it.
    pub fn msix_enabled(&self) -> bool {
        self.msix.as_ref().is_some_and(|msix| msix.enabled(&self.config))
    }

    /// Software uses MSI.
    pub fn msi_enabled(&self) -> bool {
        self.msi.is_some_and(|msi| msi.enabled(&self.config))
    }

    /// Signals `vector` by MSI-X or MSI, whichever is enabled; false when neither is, and the owner should set its INTx.
    pub fn signal(&mut self, vector: u16) -> bool {
        if let Some(msix) = &mut self.msix
            && msix.enabled(&self.config)
        {
            msix.signal(&self.config, &*self.ports.msi, vector);
            return true;
        }
        if let Some(msi) = self.msi
            && msi.enabled(&self.config)
        {
            msi.signal(&mut self.config, &*self.ports.msi, vector as u8);
            return true;
        }
        false
    }

    /// Says whether the function has an interrupt to signal by INTx. The wire follows unless the command register or
    /// MSI(-X) keeps it low.
    pub fn set_intx(&mut self, level: bool) {
        self.intx = level;
        self.update();
    }

    fn update(&mut self) {
        if let Some(msix) = &mut self.msix {
            msix.update(&self.config, &*self.ports.msi);
        }
        if let Some(msi) = self.msi {
            msi.update(&mut self.config, &*self.ports.msi);
        }
        let messages = self.msix_enabled() || self.msi_enabled();
        let old = self.config.u16_at(register::STATUS) & !Status::INTERRUPT;
        let pending = if self.intx && !messages { Status::INTERRUPT } else { 0 };
        self.config.set_u16(register::STATUS, old | pending);
        let level = pending != 0 && self.config.command() & Command::INTX_DISABLE == 0;
        if level != self.driven {
            self.driven = level;
            self.ports.pin.set(level);
        }
    }

    /// Power-on state: the wire low, configuration space as built.
    pub fn reset(&mut self) {
        self.config.reset();
        if let Some(msix) = &mut self.msix {
            msix.reset();
        }
        self.set_intx(false);
    }

    /// What must be kept to continue later.
    pub fn save(&self) -> FunctionCoreState {
        let Self { config, msix, msi: _, ports: _, intx, driven: _ } = self;
        FunctionCoreState { config: config.save(), msix: msix.as_ref().map(Msix::save), intx: *intx }
    }

    /// Takes over a saved state of the same model and drives the wire accordingly.
    pub fn restore(&mut self, state: &FunctionCoreState) {
        let FunctionCoreState { config, msix, intx } = state;
        self.config.restore(config);
        if let (Some(mine), Some(saved)) = (&mut self.msix, msix) {
            mine.restore(saved);
        }
        self.intx = *intx;
        self.update();
    }
}
