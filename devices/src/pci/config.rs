//! Configuration space of one function: bytes, the mask of what software may write, base address registers, the
//! capability list. (PCI Local Bus 3.0 chapter 6; PCI Express Base 5.0 section 7.5.)
//!
//! The model knows no behaviour: it stores, masks and reports. What a write causes is found by the owner
//! ([`FunctionCore`](super::core::FunctionCore)) by looking at the registers afterwards.

use super::function::{Window, WindowKind};
use alloc::vec;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};
use spec::pci::capability::{EXTENDED_FIRST, id};
use spec::pci::config::{self as register, Command, Status};

/// The error bits of the status register, cleared by writing one.
const ERROR_BITS: u16 = 0xf900;

/// Who a function is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
    /// Revision.
    pub revision: u8,
    /// Class code: base class, subclass, programming interface, from bit 23 down.
    pub class: u32,
    /// Other functions share the device number (header type bit 7).
    pub multifunction: bool,
}

/// The form of a base address register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// I/O ports.
    Io,
    /// Memory below 4 GiB.
    Memory32 {
        /// Reads have no side effects.
        prefetchable: bool,
    },
    /// Memory anywhere; takes two registers.
    Memory64 {
        /// Reads have no side effects.
        prefetchable: bool,
    },
}

#[derive(Clone, Copy, Debug)]
struct Bar {
    kind: BarKind,
    size: u64,
}

/// The saved contents of a [`ConfigSpace`]. Which bits are writable belongs to the model and is not saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigSpaceState {
    /// All bytes, 256 or 4096.
    pub bytes: Vec<u8>,
}

/// Configuration space of a function.
#[derive(Clone, Debug)]
pub struct ConfigSpace {
    bytes: Vec<u8>,
    /// Bits that software may write.
    writable: Vec<u8>,
    /// Bits that software clears by writing one.
    write_one_clears: Vec<u8>,
    /// The contents at power-on, once the builder is done.
    initial: Vec<u8>,
    bars: [Option<Bar>; 6],
    last_capability: Option<u16>,
    next_free: u16,
    last_extended: Option<u16>,
    next_extended: u16,
    express: Option<u16>,
}

impl ConfigSpace {
    /// Size of the space of a conventional function.
    pub const CONVENTIONAL: usize = 256;
    /// Size of the space of a PCI Express function.
    pub const EXPRESS: usize = 4096;

    /// A conventional function with a type 0 header and no BARs.
    pub fn conventional(identity: Identity) -> Self {
        Self::with_size(identity, Self::CONVENTIONAL)
    }

    /// A PCI Express function as a root-complex integrated endpoint. `function_level_reset` announces FLR, which the
    /// owner must then perform.
    pub fn integrated_endpoint(identity: Identity, function_level_reset: bool) -> Self {
        let mut space = Self::with_size(identity, Self::EXPRESS);
        // PCI Express capability, version 2 (PCIe 5.0 section 7.5.3): 58 bytes after the header of two.
        let mut body = [0u8; 58];
        let mut put = |offset: usize, value: u32| body[offset - 2..offset + 2].copy_from_slice(&value.to_le_bytes());
        let flr = u32::from(function_level_reset) << 28;
        // Device capabilities: role-based error reporting; payload 128 bytes.
        put(4, 1 << 15 | flr);
        body[0..2].copy_from_slice(&(2u16 | 9 << 4).to_le_bytes());
        let at = space.add_capability(id::EXPRESS, &body);
        // Device control: error reporting, relaxed ordering, payload and read request sizes, no snoop. Bit 15
        // (initiate FLR) reads as zero, so it is seen on the way in and not stored.
        space.set_writable(at + 8, &0x7eff_u16.to_le_bytes());
        space.set_u16(at + 8, 0x2810);
        space.write_one_clears[usize::from(at) + 10] = 0x0f;
        space.express = Some(at);
        space.freeze();
        space
    }

    fn with_size(identity: Identity, size: usize) -> Self {
        let mut space = Self {
            bytes: vec![0; size],
            writable: vec![0; size],
            write_one_clears: vec![0; size],
            initial: Vec::new(),
            bars: [None; 6],
            last_capability: None,
            next_free: 0x40,
            last_extended: None,
            next_extended: EXTENDED_FIRST,
            express: None,
        };
        space.set_u16(register::VENDOR_ID, identity.vendor);
        space.set_u16(register::DEVICE_ID, identity.device);
        space.set_u32(register::REVISION_ID, identity.class << 8 | u32::from(identity.revision));
        space.set_u16(register::SUBSYSTEM_VENDOR_ID, identity.subsystem_vendor);
        space.set_u16(register::SUBSYSTEM_ID, identity.subsystem);
        space.set_u8(register::HEADER_TYPE, u8::from(identity.multifunction) << 7);
        let command = Command::IO
            | Command::MEMORY
            | Command::BUS_MASTER
            | Command::PARITY
            | Command::SERR
            | Command::INTX_DISABLE;
        space.set_writable(register::COMMAND, &command.to_le_bytes());
        space.write_one_clears[usize::from(register::STATUS)..][..2].copy_from_slice(&ERROR_BITS.to_le_bytes());
        space.set_writable(register::CACHE_LINE_SIZE, &[0xff]);
        space.set_writable(register::INTERRUPT_LINE, &[0xff]);
        space.freeze();
        space
    }

    /// Adds base address register `bar` (0 to 5) of `size` bytes, a power of two: at least 4 for I/O, 16 for memory.
    ///
    /// # Panics
    /// If the register does not exist, is taken, or the size is wrong: a mistake in the device model.
    pub fn add_bar(&mut self, bar: u8, kind: BarKind, size: u64) {
        let index = usize::from(bar);
        assert!(size.is_power_of_two() && self.bars[index].is_none(), "BAR {bar} is taken or has a wrong size");
        assert!(index == 0 || !matches!(self.bars[index - 1], Some(Bar { kind: BarKind::Memory64 { .. }, .. })));
        let at = register::BAR0 + 4 * u16::from(bar);
        let mask = !(size - 1);
        match kind {
            BarKind::Io => {
                assert!((4..=0x1_0000).contains(&size), "an I/O BAR has 4 to 65536 ports");
                self.set_writable(at, &(mask as u32 & !3).to_le_bytes());
                self.set_u32(at, 1);
            }
            BarKind::Memory32 { prefetchable } => {
                assert!((16..=0x8000_0000).contains(&size), "a 32-bit memory BAR has 16 bytes to 2 GiB");
                self.set_writable(at, &(mask as u32 & !0xf).to_le_bytes());
                self.set_u32(at, u32::from(prefetchable) << 3);
            }
            BarKind::Memory64 { prefetchable } => {
                assert!(size >= 16 && index < 5 && self.bars[index + 1].is_none(), "a 64-bit BAR takes two registers");
                self.set_writable(at, &(mask & !0xf).to_le_bytes());
                self.set_u32(at, u32::from(prefetchable) << 3 | 4);
            }
        }
        self.bars[index] = Some(Bar { kind, size });
        self.freeze();
    }

    /// Appends a capability with `body` after its two-byte header; gives its offset. Nothing in it is writable yet.
    ///
    /// # Panics
    /// If the first 256 bytes are full: a mistake in the device model.
    pub fn add_capability(&mut self, id: u8, body: &[u8]) -> u16 {
        let at = self.next_free;
        let end = usize::from(at) + 2 + body.len();
        assert!(end <= 256, "no room for capability {id:#x}");
        self.bytes[usize::from(at)] = id;
        self.bytes[usize::from(at) + 2..end].copy_from_slice(body);
        match self.last_capability {
            None => {
                self.set_u8(register::CAPABILITIES, at as u8);
                let status = self.u16_at(register::STATUS) | Status::CAPABILITIES;
                self.set_u16(register::STATUS, status);
            }
            Some(last) => self.set_u8(last + 1, at as u8),
        }
        self.last_capability = Some(at);
        self.next_free = (end as u16).next_multiple_of(4);
        self.freeze();
        at
    }

    /// Appends an extended capability of version 1 with `body` after its header of 4 bytes; gives its offset. Nothing in it is writable yet.
    ///
    /// # Panics
    /// If the space is full or has no extended capabilities: a mistake in the device model.
    pub fn add_extended_capability(&mut self, id: u16, body: &[u8]) -> u16 {
        let at = self.next_extended;
        let end = usize::from(at) + 4 + body.len();
        assert!(end <= self.bytes.len(), "no room for extended capability {id:#x}");
        self.set_u32(at, u32::from(id) | 1 << 16);
        self.bytes[usize::from(at) + 4..end].copy_from_slice(body);
        if let Some(last) = self.last_extended {
            self.set_u16(last + 2, 1 | at << 4);
        }
        self.last_extended = Some(at);
        self.next_extended = (end as u16).next_multiple_of(4);
        self.freeze();
        at
    }

    /// Names the interrupt pin: 1 for INTA# to 4 for INTD#.
    pub fn set_interrupt_pin(&mut self, pin: u8) {
        self.set_u8(register::INTERRUPT_PIN, pin);
        self.freeze();
    }

    /// Makes the bits of `mask` from `offset` on writable by software.
    pub fn set_writable(&mut self, offset: u16, mask: &[u8]) {
        self.writable[usize::from(offset)..][..mask.len()].copy_from_slice(mask);
    }

    /// Makes the bits of `mask` from `offset` on clear when software writes one to them.
    pub fn set_write_one_clears(&mut self, offset: u16, mask: &[u8]) {
        self.write_one_clears[usize::from(offset)..][..mask.len()].copy_from_slice(mask);
    }

    /// Takes the present contents for those at power-on. Builder calls do it by themselves; call it after setting
    /// registers by hand.
    pub fn freeze(&mut self) {
        self.initial = self.bytes.clone();
    }

    /// Power-on contents.
    pub fn reset(&mut self) {
        self.bytes.copy_from_slice(&self.initial);
    }

    /// Bytes in the space: 256 or 4096.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Offset of the PCI Express capability.
    pub fn express(&self) -> Option<u16> {
        self.express
    }

    /// One byte, zero outside the space.
    pub fn u8_at(&self, offset: u16) -> u8 {
        self.bytes.get(usize::from(offset)).copied().unwrap_or(0)
    }

    /// Two bytes.
    pub fn u16_at(&self, offset: u16) -> u16 {
        u16::from_le_bytes([self.u8_at(offset), self.u8_at(offset + 1)])
    }

    /// Four bytes.
    pub fn u32_at(&self, offset: u16) -> u32 {
        u32::from(self.u16_at(offset)) | u32::from(self.u16_at(offset + 2)) << 16
    }

    /// Sets one byte from the device's side, whatever the masks say.
    pub fn set_u8(&mut self, offset: u16, value: u8) {
        if let Some(byte) = self.bytes.get_mut(usize::from(offset)) {
            *byte = value;
        }
    }

    /// Sets two bytes from the device's side.
    pub fn set_u16(&mut self, offset: u16, value: u16) {
        self.set_u8(offset, value as u8);
        self.set_u8(offset + 1, (value >> 8) as u8);
    }

    /// Sets four bytes from the device's side.
    pub fn set_u32(&mut self, offset: u16, value: u32) {
        self.set_u16(offset, value as u16);
        self.set_u16(offset + 2, (value >> 16) as u16);
    }

    /// A read by software; bytes outside the space are zero.
    pub fn read(&self, offset: u16, size: u8) -> u32 {
        let mut value = 0;
        for i in 0..size.min(4) {
            value |= u32::from(self.u8_at(offset.wrapping_add(u16::from(i)))) << (8 * i);
        }
        value
    }

    /// A write by software, through the masks.
    pub fn write(&mut self, offset: u16, size: u8, value: u32) {
        for i in 0..size.min(4) {
            let at = usize::from(offset.wrapping_add(u16::from(i)));
            let byte = (value >> (8 * i)) as u8;
            if let Some(old) = self.bytes.get(at) {
                let new = (old & !self.writable[at]) | (byte & self.writable[at]);
                self.bytes[at] = new & !(byte & self.write_one_clears[at]);
            }
        }
    }

    /// The command register.
    pub fn command(&self) -> u16 {
        self.u16_at(register::COMMAND)
    }

    /// The function may issue memory requests.
    pub fn bus_master(&self) -> bool {
        self.command() & Command::BUS_MASTER != 0
    }

    /// The windows now decoded. An address of zero, or a window that ends at the last address of its space or beyond,
    /// is what sizing leaves in a register and decodes nothing.
    pub fn windows(&self) -> Vec<Window> {
        let command = self.command();
        let mut windows = Vec::new();
        for (bar, slot) in (0u8..).zip(&self.bars) {
            let Some(Bar { kind, size }) = *slot else { continue };
            let at = register::BAR0 + 4 * u16::from(bar);
            let low = u64::from(self.u32_at(at));
            let (kind, enable, base, limit) = match kind {
                BarKind::Io => (WindowKind::Io, Command::IO, low & !3, 0xffff),
                BarKind::Memory32 { .. } => (WindowKind::Memory, Command::MEMORY, low & !0xf, 0xffff_ffff),
                BarKind::Memory64 { .. } => {
                    let high = u64::from(self.u32_at(at + 4));
                    (WindowKind::Memory, Command::MEMORY, high << 32 | low & !0xf, u64::MAX)
                }
            };
            let fits = base.checked_add(size - 1).is_some_and(|last| last < limit);
            if command & enable != 0 && base != 0 && fits {
                windows.push(Window { bar, kind, base, size });
            }
        }
        windows
    }

    /// What must be kept to continue later.
    pub fn save(&self) -> ConfigSpaceState {
        let Self {
            bytes,
            writable: _,
            write_one_clears: _,
            initial: _,
            bars: _,
            last_capability: _,
            next_free: _,
            last_extended: _,
            next_extended: _,
            express: _,
        } = self;
        ConfigSpaceState { bytes: bytes.clone() }
    }

    /// Takes over saved contents. A state of another size is of another model; what fits is taken.
    pub fn restore(&mut self, state: &ConfigSpaceState) {
        let n = state.bytes.len().min(self.bytes.len());
        self.bytes[..n].copy_from_slice(&state.bytes[..n]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> ConfigSpace {
        let mut space = ConfigSpace::integrated_endpoint(
            Identity { vendor: 0x1af4, device: 0x1042, class: 0x01_80_00, revision: 1, ..Identity::default() },
            true,
        );
        space.add_bar(0, BarKind::Io, 32);
        space.add_bar(1, BarKind::Memory32 { prefetchable: false }, 4096);
        space.add_bar(4, BarKind::Memory64 { prefetchable: true }, 16384);
        space
    }

    #[test]
    fn identity_is_read_only() {
        let mut space = space();
        space.write(0, 4, 0xffff_ffff);
        space.write(8, 4, 0);
        assert_eq!(space.read(0, 4), 0x1042_1af4);
        assert_eq!(space.read(8, 4), 0x0180_0001);
    }

    #[test]
    fn bars_answer_sizing_with_their_size_and_type() {
        let mut space = space();
        for offset in (0x10..0x28).step_by(4) {
            space.write(offset, 4, 0xffff_ffff);
        }
        assert_eq!(space.read(0x10, 4), 0xffff_ffe1);
        assert_eq!(space.read(0x14, 4), 0xffff_f000);
        assert_eq!(space.read(0x18, 4), 0, "an absent BAR reads zero");
        assert_eq!(space.read(0x20, 4), 0xffff_c00c);
        assert_eq!(space.read(0x24, 4), 0xffff_ffff);
        space.write(4, 2, 3);
        assert!(space.windows().is_empty(), "what sizing leaves behind decodes nothing");
    }

    #[test]
    fn windows_follow_command_register_and_bars() {
        let mut space = space();
        space.write(0x10, 4, 0xc000);
        space.write(0x14, 4, 0xfebd_0000);
        space.write(0x20, 4, 0x0000_4000);
        space.write(0x24, 4, 0x8);
        assert!(space.windows().is_empty());
        space.write(4, 2, 2);
        assert_eq!(
            space.windows(),
            [
                Window { bar: 1, kind: WindowKind::Memory, base: 0xfebd_0000, size: 4096 },
                Window { bar: 4, kind: WindowKind::Memory, base: 0x8_0000_4000, size: 16384 }
            ]
        );
        space.write(4, 1, 1);
        assert_eq!(space.windows(), [Window { bar: 0, kind: WindowKind::Io, base: 0xc000, size: 32 }]);
    }

    #[test]
    fn capabilities_are_linked_and_announced() {
        let mut space = space();
        let second = space.add_capability(id::VENDOR, &[1, 2, 3]);
        let third = space.add_capability(id::VENDOR, &[4]);
        assert_ne!(space.read(6, 2) & u32::from(Status::CAPABILITIES), 0);
        let first = space.read(0x34, 1) as u16;
        assert_eq!(space.u8_at(first), id::EXPRESS);
        assert_eq!(u16::from(space.u8_at(first + 1)), second);
        assert_eq!(u16::from(space.u8_at(second + 1)), third);
        assert_eq!(space.u8_at(third + 1), 0);
        assert_eq!(third % 4, 0);
    }

    #[test]
    fn extended_capabilities_are_linked_from_offset_100h_on() {
        let mut space = space();
        assert_eq!(space.read(0x100, 4), 0, "there is none");
        let first = space.add_extended_capability(0xf, &[1, 2, 3]);
        let second = space.add_extended_capability(0x1b, &[4; 4]);
        assert_eq!((first, second), (0x100, 0x108));
        assert_eq!(space.read(0x100, 4), 0x1081_000f);
        assert_eq!((space.read(0x104, 4), space.read(0x108, 4)), (0x03_0201, 0x0001_001b));
    }

    #[test]
    fn reset_restores_power_on_contents() {
        let mut space = space();
        let before = space.save();
        space.write(4, 2, 7);
        space.write(0x14, 4, 0xfebd_0000);
        assert_ne!(space.save(), before);
        space.reset();
        assert_eq!(space.save(), before);
    }

    #[test]
    fn accesses_beyond_the_space_read_zero_and_write_nothing() {
        let mut space = ConfigSpace::conventional(Identity::default());
        space.write(0xfe, 4, 0xffff_ffff);
        space.write(0xffff, 4, 0xffff_ffff);
        assert_eq!(space.read(0x100, 4), 0);
        assert_eq!(space.read(0xffff, 4) & 0xff, 0);
    }
}
