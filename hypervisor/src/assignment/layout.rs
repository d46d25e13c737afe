//! What a function has, as far as a guest may see it: memory BARs, the capabilities that are passed on, its messages.

use crate::function::{Function, capabilities};
use alloc::vec::Vec;
use spec::pci::capability::id;
use spec::pci::config::{self as register, Bar, Command, header_type};
use spec::pci::express::{DeviceCapabilities, DeviceControl, offset as express};
use spec::pci::message::{MsiControl, msi, msix};

/// Why not.
pub type Refusal = &'static str;

/// A memory BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Where the function's registers are on the machine.
    pub base: u64,
    /// Bytes, a power of two.
    pub size: u64,
    /// The low four bits of the register.
    pub kind: u32,
}

impl Window {
    /// Whether it takes two registers.
    #[must_use]
    pub fn is_wide(&self) -> bool {
        self.kind & Bar::MEMORY_64 != 0
    }
}

/// Where the MSI capability has what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsiPlace {
    /// The capability.
    pub at: u16,
    /// The data.
    pub data: u16,
    /// The mask bits, if there are any. The pending bits follow.
    pub mask: Option<u16>,
}

/// Where the MSI-X table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixPlace {
    /// The capability.
    pub at: u16,
    /// The BAR.
    pub bar: u8,
    /// The offset in it.
    pub table: u64,
    /// Entries.
    pub count: u16,
}

/// A capability that the guest sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Its offset.
    pub at: u16,
    /// Its identifier.
    pub id: u8,
    /// Its length in bytes.
    pub length: u16,
}

/// What a function has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Its memory, by the number of the BAR.
    pub windows: [Option<Window>; 6],
    /// The capabilities that a guest sees.
    pub capabilities: Vec<Capability>,
    /// The PCI Express capability.
    pub express: u16,
    /// MSI.
    pub msi: Option<MsiPlace>,
    /// MSI-X.
    pub msix: Option<MsixPlace>,
}

impl Layout {
    /// Looks at a function, which nobody uses.
    ///
    /// # Errors
    /// Why it cannot be assigned to a guest.
    pub fn find(function: &dyn Function) -> Result<Self, Refusal> {
        if function.config_read(register::HEADER_TYPE, 1) as u8 & !header_type::MULTI_FUNCTION != header_type::ENDPOINT
            || function.config_read(register::CLASS_CODE + 2, 1) == BRIDGES
        {
            return Err("it is a bridge, which the machine needs");
        }
        let (mut found, mut express_at, mut msi, mut msix) = (Vec::new(), None, None, None);
        for (at, id) in capabilities(function) {
            let length = match id {
                id::EXPRESS => {
                    express_at = Some(at);
                    express::LENGTH
                }
                id::MSI => {
                    let (place, length) = msi_place(function, at);
                    msi = Some(place);
                    length
                }
                id::MSI_X => {
                    let (control, table) = (function.config_read(at + 2, 2), function.config_read(at + msix::TABLE, 4));
                    let count = (control & 0x7ff) as u16 + 1;
                    msix = Some(MsixPlace { at, bar: table as u8 & 7, table: u64::from(table & !7), count });
                    msix::LENGTH
                }
                // Its third byte is its length.
                id::VENDOR => function.config_read(at + 2, 1) as u16,
                // What others say or do (power states, resets) is not the guest's.
                _ => continue,
            };
            found.push(Capability { at, id, length: length.min(0x100 - at) });
        }
        let resets =
            |at: u16| function.config_read(at + express::DEVICE_CAPABILITIES, 4) & DeviceCapabilities::FLR != 0;
        let express = express_at.filter(|at| resets(*at)).ok_or("it has no function-level reset")?;
        if msi.is_none() && msix.is_none() && function.config_read(register::INTERRUPT_PIN, 1) != 0 {
            return Err("it interrupts by INTx only, which is a wire that others may be on");
        }
        let windows = windows(function)?;
        if let Some(place) = &msix
            && !windows.get(usize::from(place.bar)).copied().flatten().is_some_and(|window| place.fits(&window))
        {
            return Err("its MSI-X table is in no memory of its own");
        }
        Ok(Self { windows, capabilities: found, express, msi, msix })
    }

    /// How many messages the function may send. Of MSI, which has up to 32, it gets one.
    #[must_use]
    pub fn messages(&self) -> u16 {
        self.msix.map_or(0, |place| place.count).max(self.msi.is_some().into())
    }

    /// The BARs as they are on the machine.
    fn write_windows(&self, function: &dyn Function) {
        for (number, window) in (0..).zip(&self.windows) {
            let Some(window) = window else { continue };
            function.config_write(register::BAR0 + 4 * number, 4, window.base as u32);
            if window.is_wide() {
                function.config_write(register::BAR0 + 4 * number + 4, 4, (window.base >> 32) as u32);
            }
        }
    }

    /// Begins a reset of the function (PCI Express Base 5.0, 6.6.2), which reaches nothing any more. It is complete after [`RESET_TIME`].
    pub fn start_reset(&self, function: &dyn Function) {
        function.config_write(register::COMMAND, 2, IDLE.into());
        function.config_write(self.express + express::DEVICE_CONTROL, 2, DeviceControl::INITIATE_FLR.into());
    }

    /// Puts the function's registers where they were before the reset, without bus mastering and INTx.
    pub fn finish_reset(&self, function: &dyn Function) {
        self.write_windows(function);
        function.config_write(register::COMMAND, 2, IDLE.into());
    }
}

/// What a function's command register has at least: the hypervisor reaches its registers, and it has no wire.
pub const IDLE: u16 = Command::MEMORY | Command::INTX_DISABLE;
/// The base class of bridges.
const BRIDGES: u32 = 6;
/// Nanoseconds in which a function-level reset is complete.
pub const RESET_TIME: u64 = 100_000_000;

impl MsixPlace {
    /// The offset behind the table.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.table + u64::from(self.count) * msix::ENTRY_SIZE
    }

    fn fits(&self, window: &Window) -> bool {
        self.end() <= window.size
    }
}

fn msi_place(function: &dyn Function, at: u16) -> (MsiPlace, u16) {
    let control = function.config_read(at + msi::CONTROL, 2) as u16;
    let data = at + if control & MsiControl::ADDRESS_64 != 0 { msi::DATA_64 } else { msi::DATA_32 };
    let mask = (control & MsiControl::PER_VECTOR_MASKING != 0).then_some(data + 4);
    (MsiPlace { at, data, mask }, mask.map_or(data + 2, |mask| mask + 8) - at)
}

/// Finds the memory BARs and their sizes, by writing all ones.
fn windows(function: &dyn Function) -> Result<[Option<Window>; 6], Refusal> {
    let command = function.config_read(register::COMMAND, 2);
    let off = u32::from(Command::MEMORY | Command::IO);
    function.config_write(register::COMMAND, 2, command & !off);
    let mut windows = [None; 6];
    let mut refusal = None;
    let mut number = 0;
    while number < 6 {
        let at = register::BAR0 + 4 * number;
        let size_of = |at: u16| {
            let before = function.config_read(at, 4);
            function.config_write(at, 4, u32::MAX);
            let mask = function.config_read(at, 4);
            function.config_write(at, 4, before);
            (before, mask)
        };
        let (low, mask) = size_of(at);
        let wide = low & Bar::IO == 0 && low & Bar::MEMORY_64 != 0;
        let (high, high_mask) = if wide && number < 5 { size_of(at + 4) } else { (0, u32::MAX) };
        if low & Bar::IO != 0 && mask & Bar::IO_ADDRESS != 0 {
            refusal = Some("it has registers in I/O ports, which are not passed on");
        } else if low & Bar::IO == 0 && mask & Bar::MEMORY_ADDRESS != 0 {
            let mask = u64::from(high_mask) << 32 | u64::from(mask & Bar::MEMORY_ADDRESS);
            let (base, size) = (u64::from(low & Bar::MEMORY_ADDRESS), (!mask).wrapping_add(1));
            if high != 0 || base == 0 || size >= 1 << 31 {
                refusal = Some("its registers have no place below 4 GiB");
            }
            windows[usize::from(number)] = Some(Window { base, size, kind: low & !Bar::MEMORY_ADDRESS });
        }
        number += if wide { 2 } else { 1 };
    }
    function.config_write(register::COMMAND, 2, command);
    refusal.map_or(Ok(windows), Err)
}
