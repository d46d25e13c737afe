//! A function of the machine as the guest that it is assigned to sees it. Its registers in memory are the guest's own, but for the pages with
//! the MSI-X table; of its configuration space the guest writes what concerns only the function itself. Whatever a guest does to its function in
//! spite of that, the remapping unit stops.

use super::Chosen;
use super::layout::{Capability, IDLE, Layout, MsiPlace, MsixPlace, RESET_TIME, Window};
use crate::destinations::Destinations;
use crate::ept::Ept;
use crate::function::Message;
use crate::host::{Host, Nanoseconds};
use crate::memory::PAGE;
use crate::remapping::Remapping;
use crate::remapping::routes::Routes;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use devices::device::{Device, Region};
use devices::pci::{self, PciFunction, WindowKind};
use spec::pci::capability::id;
use spec::pci::config::{self as register, Bar, Command, header_type};
use spec::pci::express::{DeviceCapabilities, offset as express};
use spec::pci::message::{MsiControl, MsixControl, msi, msix};

/// The bits of the command register that are the guest's.
const COMMAND: u16 = Command::MEMORY | Command::BUS_MASTER | Command::PARITY | Command::SERR;
/// The bits of MSI's message control that say how many messages are wanted and given.
const MSI_COUNTS: u16 = 0x7e;

/// An entry of the MSI-X table, or the message of MSI, as the guest wrote it.
#[derive(Clone, Copy, Debug)]
struct Entry {
    address: u64,
    data: u32,
    masked: bool,
}

const NEW_ENTRY: Entry = Entry { address: 0, data: 0, masked: true };

impl Entry {
    /// What it says.
    fn message(&self) -> Message {
        (self.address, self.data)
    }

    fn word(&self, n: u64) -> u32 {
        [self.address as u32, (self.address >> 32) as u32, self.data, self.masked.into()][n as usize & 3]
    }

    fn set_word(&mut self, n: u64, value: u32) {
        match n {
            0 => self.address = self.address & !0xffff_ffff | u64::from(value & !3),
            1 => self.address = self.address & 0xffff_ffff | u64::from(value) << 32,
            2 => self.data = value,
            _ => self.masked = value & msix::ENTRY_MASKED != 0,
        }
    }
}

/// The function.
pub struct Assigned {
    chosen: Chosen,
    remapping: Arc<Remapping>,
    routes: Routes,
    vm: usize,
    host: &'static dyn Host,
    /// The guest has it.
    taken: bool,
    /// It is being reset.
    resets: bool,
    command: u16,
    /// The BARs as the guest sees them, and as they were at first.
    bars: [u32; 6],
    first_bars: [u32; 6],
    line: u8,
    /// MSI is enabled, with this message.
    msi_enabled: bool,
    msi: Entry,
    table: Vec<Entry>,
}

impl Assigned {
    /// The function for the guest with the number `vm` and these vCPUs, who does not have it yet.
    ///
    /// # Errors
    /// Why that is not possible.
    pub fn new(
        chosen: Chosen,
        remapping: &Arc<Remapping>,
        destinations: &Arc<Destinations>,
        vm: usize,
        host: &'static dyn Host,
    ) -> Result<Self, String> {
        let count = chosen.layout.messages();
        let routes = Routes::new(remapping, destinations, chosen.source, vm, count);
        let routes = routes.map_err(|why| format!("{} cannot be assigned: {why}", chosen.name))?;
        let entries = chosen.layout.msix.map_or(0, |place| usize::from(place.count));
        Ok(Self {
            remapping: Arc::clone(remapping),
            routes,
            vm,
            host,
            taken: false,
            resets: false,
            command: 0,
            bars: [0; 6],
            first_bars: [0; 6],
            line: 0,
            msi_enabled: false,
            msi: NEW_ENTRY,
            table: vec![NEW_ENTRY; entries],
            chosen,
        })
    }

    /// The guest has it, and it answers.
    fn is_there(&self) -> bool {
        self.taken && !self.resets
    }

    fn layout(&self) -> &Layout {
        &self.chosen.layout
    }

    /// Gives the windows addresses for a guest from `room` on, as firmware would; where there is room after them.
    ///
    /// # Errors
    /// When they do not fit below `end`.
    pub fn place(&mut self, mut room: u64, end: u64) -> Result<u64, String> {
        for (number, window) in self.chosen.layout.windows.iter().enumerate() {
            let Some(window) = window else { continue };
            // A page is one function's.
            let base = room.next_multiple_of(window.size.max(PAGE));
            room = base.saturating_add(window.size.max(PAGE));
            if room > end {
                return Err(format!("{} cannot be assigned: there is no room for its registers", self.chosen.name));
            }
            self.first_bars[number] = base as u32 | window.kind;
        }
        self.bars = self.first_bars;
        Ok(room)
    }

    /// The guest takes the function, which is as after a reset then and reaches the memory that `ept` leads to. Waits for the reset.
    ///
    /// # Errors
    /// Why that is not possible.
    pub fn take(&mut self, ept: &mut Ept) -> Result<(), String> {
        if self.ready_at().is_none() {
            // Whatever was done with it before the hypervisor came.
            self.start_reset();
        }
        let left = self.ready_at().map_or(0, |end| end.saturating_sub(self.host.now()));
        self.host.pause(left);
        self.finish_reset();
        let attached = self.remapping.attach(self.chosen.source, self.vm, ept);
        attached.map_err(|why| format!("{} cannot be assigned: {why}", self.chosen.name))?;
        self.taken = true;
        Ok(())
    }

    /// A vCPU has gone to another processor.
    pub fn vcpu_moved(&self) {
        self.routes.refresh();
    }

    /// The guest loses the function: it reaches nothing any more, and forgets what it has of the guest.
    pub fn release(&mut self) {
        if core::mem::take(&mut self.taken) {
            self.start_reset();
            // Where the unit does not answer any more, the function is without bus mastering still.
            let _ = self.remapping.detach(self.chosen.source);
        }
    }

    /// When the last reset of the function is complete.
    #[must_use]
    pub fn ready_at(&self) -> Option<Nanoseconds> {
        self.remapping.reset_end(self.chosen.source)
    }

    /// Begins a function-level reset. The guest sees everything as at first.
    fn start_reset(&mut self) {
        let Chosen { layout, function, source, .. } = &self.chosen;
        layout.start_reset(&**function);
        self.remapping.note_reset(*source, self.host.now() + RESET_TIME);
        self.resets = true;
        self.routes.clear();
        (self.command, self.bars, self.line) = (Command::MEMORY, self.first_bars, 0);
        (self.msi_enabled, self.msi) = (false, NEW_ENTRY);
        self.table.fill(NEW_ENTRY);
    }

    /// The reset is complete, if there was one.
    pub fn finish_reset(&mut self) {
        self.resets = false;
        self.chosen.layout.finish_reset(&*self.chosen.function);
        self.write_requests();
    }

    /// Writes what the function is to send into its MSI capability and its MSI-X table: remappable requests, all masked or disabled.
    fn write_requests(&self) {
        let Chosen { layout, function, .. } = &self.chosen;
        if let Some(place) = layout.msi {
            let (address, data) = self.routes.request(0);
            function.config_write(place.at + msi::ADDRESS, 4, address as u32);
            if place.data != place.at + msi::DATA_32 {
                function.config_write(place.at + msi::ADDRESS_HIGH, 4, (address >> 32) as u32);
            }
            function.config_write(place.data, 2, data);
        }
        if let Some((place, window)) = self.msix() {
            for n in 0..place.count {
                let (address, data) = self.routes.request(n);
                let at = window.base + place.table + u64::from(n) * msix::ENTRY_SIZE;
                let words = [address as u32, (address >> 32) as u32, data, msix::ENTRY_MASKED];
                (0..).zip(words).for_each(|(word, value)| function.write(at + 4 * word, 4, value));
            }
        }
    }

    fn msix(&self) -> Option<(MsixPlace, Window)> {
        let place = self.layout().msix?;
        Some((place, self.layout().windows[usize::from(place.bar)]?))
    }

    /// The page of the machine's registers at `offset` of a BAR, if the guest may access it itself: it has nothing else in it, and not the
    /// MSI-X table.
    #[must_use]
    pub fn registers(&self, bar: u8, offset: u64) -> Option<u64> {
        let window = self.layout().windows.get(usize::from(bar)).copied().flatten()?;
        let page = offset & !(PAGE - 1);
        let has_table =
            self.layout().msix.is_some_and(|place| place.bar == bar && page < place.end() && page + PAGE > place.table);
        let is_own = window.base.is_multiple_of(PAGE) && window.size >= PAGE && page < window.size;
        (self.is_there() && is_own && !has_table && offset == page).then_some(window.base + page)
    }

    /// The capability with a byte of configuration space.
    fn capability(&self, offset: u16) -> Option<Capability> {
        let holds = |found: &&Capability| offset >= found.at && offset - found.at < found.length;
        self.layout().capabilities.iter().find(holds).copied()
    }

    /// A byte of configuration space as the guest sees it.
    fn byte(&self, offset: u16) -> u8 {
        let part = |value: u32, from: u16| (value >> (8 * (offset - from))) as u8;
        let own = || self.chosen.function.config_read(offset, 1) as u8;
        let next = |after: Option<usize>| {
            let number = after.map_or(0, |number| number + 1);
            self.layout().capabilities.get(number).map_or(0, |found| found.at as u8)
        };
        match offset {
            0x04..0x06 => part(self.command.into(), register::COMMAND),
            register::HEADER_TYPE => own() & !header_type::MULTI_FUNCTION,
            0x10..0x28 => part(self.bars[usize::from((offset - 0x10) / 4)], offset & !3),
            register::CAPABILITIES => next(None),
            register::INTERRUPT_LINE => self.line,
            // No wire (3DH), no CardBus structure (28H to 2BH), no ROM (30H to 33H).
            0x00..0x28 | 0x2c..0x30 => own(),
            _ => match self.capability(offset) {
                None => 0,
                Some(found) if offset == found.at => found.id,
                Some(found) if offset == found.at + 1 => {
                    next(self.layout().capabilities.iter().position(|other| *other == found))
                }
                Some(found) if found.id == id::MSI => self.msi_byte(offset).unwrap_or_else(own),
                Some(found) if found.id == id::EXPRESS && offset == found.at + express::DEVICE_CAPABILITIES + 3 => {
                    own() & !((DeviceCapabilities::FLR >> 24) as u8)
                }
                Some(_) => own(),
            },
        }
    }

    fn msi_byte(&self, offset: u16) -> Option<u8> {
        let place = self.layout().msi?;
        let part = |value: u32, from: u16| (value >> (8 * (offset - from))) as u8;
        let at = place.at;
        if (at + msi::CONTROL..at + msi::ADDRESS).contains(&offset) {
            let control =
                self.chosen.function.config_read(at + msi::CONTROL, 2) as u16 & !(MSI_COUNTS | MsiControl::ENABLE);
            let enable = if self.msi_enabled { MsiControl::ENABLE } else { 0 };
            Some(part((control | enable).into(), at + msi::CONTROL))
        } else if (place.data..place.data + 4).contains(&offset) {
            Some(part(self.msi.data, place.data))
        } else if offset < at + msi::ADDRESS_HIGH {
            Some(part(self.msi.address as u32, at + msi::ADDRESS))
        } else if offset < place.data {
            Some(part((self.msi.address >> 32) as u32, at + msi::ADDRESS_HIGH))
        } else {
            None
        }
    }

    /// Writes a doubleword of configuration space, some bytes of which have not changed; true when windows may have.
    fn write_doubleword(&mut self, offset: u16, value: u32) -> bool {
        match offset {
            register::COMMAND => self.write_command(value as u16),
            0x10..0x28 => self.write_bar(usize::from((offset - 0x10) / 4), value),
            register::INTERRUPT_LINE => {
                self.line = value as u8;
                false
            }
            _ => {
                self.write_capability(offset, value);
                false
            }
        }
    }

    fn write_command(&mut self, value: u16) -> bool {
        let before = self.command;
        self.command = value & (COMMAND | Command::INTX_DISABLE);
        let bits = self.command & Command::BUS_MASTER | IDLE;
        self.chosen.function.config_write(register::COMMAND, 2, bits.into());
        (before ^ self.command) & Command::MEMORY != 0
    }

    fn write_bar(&mut self, number: usize, value: u32) -> bool {
        let windows = &self.chosen.layout.windows;
        let above = number.checked_sub(1).and_then(|below| windows[below]).filter(Window::is_wide);
        self.bars[number] = match (windows[number], above) {
            (Some(window), _) => value & !(window.size - 1) as u32 & Bar::MEMORY_ADDRESS | window.kind,
            // The upper half of one of 64 bits, which is below 2 GiB large.
            (None, Some(_)) => value,
            (None, None) => 0,
        };
        true
    }

    fn write_capability(&mut self, offset: u16, value: u32) {
        let Some(found) = self.capability(offset) else { return };
        match found.id {
            id::MSI => {
                if let Some(place) = self.layout().msi {
                    self.write_msi(place, offset, value);
                }
            }
            // Enable and function mask, which concern the function alone.
            id::MSI_X if offset == found.at => {
                let bits = (value >> 16) as u16 & (MsixControl::ENABLE | MsixControl::FUNCTION_MASK);
                self.chosen.function.config_write(offset + msix::CONTROL, 2, bits.into());
            }
            // Of PCI Express nothing: sizes are the machine's, and a reset would take everybody's time.
            _ => {}
        }
    }

    fn write_msi(&mut self, place: MsiPlace, offset: u16, value: u32) {
        if offset == place.at {
            self.msi_enabled = (value >> 16) as u16 & MsiControl::ENABLE != 0;
        } else if offset == place.data {
            self.msi.data = value & 0xffff;
        } else if offset == place.at + msi::ADDRESS {
            self.msi.set_word(0, value);
        } else if offset == place.at + msi::ADDRESS_HIGH {
            self.msi.set_word(1, value);
        } else if Some(offset) == place.mask {
            return self.chosen.function.config_write(offset, 4, value & 1);
        }
        // Where it goes is known before it can come, and it comes no more before that is forgotten.
        let control = place.at + msi::CONTROL;
        if self.msi_enabled {
            self.routes.set(0, Some(self.msi.message()));
            self.chosen.function.config_write(control, 2, MsiControl::ENABLE.into());
        } else {
            self.chosen.function.config_write(control, 2, 0);
            self.routes.set(0, None);
        }
    }

    /// The entry and the word of it at `offset` of a BAR.
    fn entry_at(&self, bar: Region, offset: u64) -> Option<(usize, u64)> {
        let place = self.layout().msix.filter(|place| place.bar == bar)?;
        let within = offset.checked_sub(place.table).filter(|_| offset < place.end())?;
        Some(((within / msix::ENTRY_SIZE) as usize, within % msix::ENTRY_SIZE / 4))
    }

    /// Where the machine has `size` bytes at `offset` of a BAR, while the guest has the function.
    fn register(&self, bar: Region, offset: u64, size: u8) -> Option<u64> {
        let window = self.layout().windows.get(usize::from(bar)).copied().flatten()?;
        let fits = offset.checked_add(size.into()).is_some_and(|end| end <= window.size);
        (self.is_there() && fits).then_some(window.base + offset)
    }

    /// Reads an aligned part of a doubleword of a BAR.
    fn read_part(&self, bar: Region, offset: u64, size: u8) -> u32 {
        if let Some((entry, word)) = self.entry_at(bar, offset) {
            return self.table[entry].word(word) >> (8 * (offset & 3)) & mask(size);
        }
        match self.register(bar, offset, size) {
            Some(address) => self.chosen.function.read(address, size),
            None => mask(size),
        }
    }

    fn write_part(&mut self, bar: Region, offset: u64, size: u8, value: u32) {
        if let Some((number, word)) = self.entry_at(bar, offset) {
            let shift = 8 * (offset & 3);
            let entry = &mut self.table[number];
            let kept = entry.word(word) & !(mask(size) << shift);
            entry.set_word(word, kept | (value & mask(size)) << shift);
            return self.write_entry(number);
        }
        if let Some(address) = self.register(bar, offset, size) {
            self.chosen.function.write(address, size, value);
        }
    }

    /// An entry of the MSI-X table has been written: where its interrupt goes is known before it is unmasked.
    fn write_entry(&self, number: usize) {
        let Some((place, window)) = self.msix() else { return };
        let entry = &self.table[number];
        if !entry.masked {
            self.routes.set(number as u16, Some(entry.message()));
        }
        let control = window.base + place.table + number as u64 * msix::ENTRY_SIZE + msix::ENTRY_CONTROL;
        self.chosen.function.write(control, 4, entry.masked.into());
    }
}

fn mask(size: u8) -> u32 {
    u32::MAX >> (32 - 8 * u32::from(size.clamp(1, 4)))
}

/// The aligned parts of an access, 4 bytes at most each: where they begin in it, and their sizes.
fn parts(offset: u64, size: u8) -> impl Iterator<Item = (u64, u8)> {
    let step = if offset.is_multiple_of(size.min(4).into()) { size.clamp(1, 4) } else { 1 };
    (0..u64::from(size)).step_by(step.into()).map(move |n| (n, step))
}

impl Device for Assigned {
    fn read(&mut self, region: Region, offset: u64, size: u8) -> u64 {
        parts(offset, size).fold(0, |value, (n, size)| {
            value | u64::from(self.read_part(region, offset.wrapping_add(n), size)) << (8 * n)
        })
    }

    fn write(&mut self, region: Region, offset: u64, size: u8, value: u64) {
        for (n, size) in parts(offset, size) {
            self.write_part(region, offset.wrapping_add(n), size, (value >> (8 * n)) as u32);
        }
    }

    fn reset(&mut self) {
        if self.taken {
            self.start_reset();
        }
    }
}

impl PciFunction for Assigned {
    fn config_read(&mut self, offset: u16, size: u8) -> u32 {
        // A vendor's own registers may do something when they are read, and once.
        if self.capability(offset).is_some_and(|found| found.id == id::VENDOR && offset >= found.at + 2) {
            return self.chosen.function.config_read(offset, size);
        }
        (0..u16::from(size)).rev().fold(0, |value, n| value << 8 | u32::from(self.byte(offset + n)))
    }

    fn config_write(&mut self, offset: u16, size: u8, value: u32) -> bool {
        if self.capability(offset).is_some_and(|found| found.id == id::VENDOR) {
            self.chosen.function.config_write(offset, size, value);
            return false;
        }
        let (start, shift) = (offset & !3, 8 * (offset & 3));
        let before = self.config_read(start, 4);
        let new = before & !(mask(size) << shift) | (value & mask(size)) << shift;
        self.write_doubleword(start, new)
    }

    fn windows(&self) -> Vec<pci::Window> {
        if !self.is_there() || self.command & Command::MEMORY == 0 {
            return Vec::new();
        }
        let window = |number: usize| {
            let window = self.layout().windows[number]?;
            let high = if window.is_wide() { self.bars.get(number + 1).copied().unwrap_or(0) } else { 0 };
            let base = u64::from(high) << 32 | u64::from(self.bars[number] & Bar::MEMORY_ADDRESS);
            let decodes = base != 0 && base.checked_add(window.size).is_some();
            decodes.then_some(pci::Window { bar: number as u8, kind: WindowKind::Memory, base, size: window.size })
        };
        (0..6).filter_map(window).collect()
    }

    fn save_encoded(&self) -> Vec<u8> {
        Vec::new()
    }

    fn restore_encoded(&mut self, _: &[u8]) -> bool {
        false
    }
}
