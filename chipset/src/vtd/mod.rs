//! A remapping unit of VT-d: what stands between the devices and memory, and between the devices and the processors.
//!
//! The board asks the unit for every access of a device ([`RemappingUnit::translate`]) and for every interrupt message
//! ([`RemappingUnit::interrupt`]). The unit reads the tables that software made through a port of its own, in physical addresses; nothing
//! that it does re-enters a device. Its own events leave through a message port that bypasses remapping, and what it says to devices with a
//! TLB of their own through another.
//!
//! - [`registers`](self::registers): the register set
//! - `tables`: root, context and PASID tables
//! - [`translation`](self::translation): first and second stage
//! - [`caches`]: what is kept of all that
//! - [`invalidation`](self::invalidation): how it is forgotten
//! - [`device_tlb`](self::device_tlb): translations for devices' own TLBs, and their invalidation
//! - `page_requests`: recoverable faults of such devices
//! - [`interrupt_remapping`](self::interrupt_remapping): interrupts, remapped and posted
//! - [`faults`]: what is blocked, recorded and reported

pub mod caches;
pub mod device_tlb;
pub mod faults;
pub mod interrupt_remapping;
pub mod invalidation;
mod page_requests;
pub mod picture;
pub mod registers;
mod tables;
#[cfg(test)]
mod tests;
pub mod translation;

use caches::{Caches, Rights};
use device_tlb::Outstanding;
use devices::device::{Device, Region};
use devices::ports::{Clock, Dma, Msi, Nanoseconds};
use faults::{FaultReport, Step};
use registers::Registers;
use serde::{Deserialize, Serialize};
use spec::vtd::FaultReason;
use spec::vtd::invalidation::DescriptorType;

pub use device_tlb::DeviceMessages;
pub use interrupt_remapping::{Interrupt, RemappedInterrupt, Source};

/// What a unit has. Only what works can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnitConfig {
    /// The widest addresses that are translated: 39, 48 or 57 bits (3, 4 or 5 levels).
    pub address_width: u8,
    /// Bits of physical addresses.
    pub host_address_width: u8,
    /// Interrupts can be remapped.
    pub interrupt_remapping: bool,
    /// Remapped interrupts can have destinations of 32 bits (x2APIC).
    pub extended_interrupt_mode: bool,
    /// Interrupts can be posted.
    pub posted_interrupts: bool,
    /// Entries that are not present are kept in caches.
    pub caching_mode: bool,
    /// PASID tables, first stage and nested translation.
    pub scalable_mode: bool,
    /// Devices may have TLBs of their own.
    pub device_tlb: bool,
    /// Devices may ask for pages; with scalable mode and device TLBs only.
    pub page_requests: bool,
}

impl Default for UnitConfig {
    fn default() -> Self {
        Self {
            address_width: 48,
            host_address_width: 46,
            interrupt_remapping: true,
            extended_interrupt_mode: true,
            posted_interrupts: true,
            caching_mode: false,
            scalable_mode: false,
            device_tlb: false,
            page_requests: false,
        }
    }
}

impl UnitConfig {
    /// The numbers of levels, as CAP_REG tells them.
    fn widths(self) -> u8 {
        (3..=5).filter(|levels| self.has_levels(*levels)).fold(0, |bits, levels| bits | 1 << (levels - 2))
    }

    fn has_levels(self, levels: u32) -> bool {
        spec::vtd::tables::address_bits(levels) <= self.address_width.into()
    }

    fn first_stage_5_levels(self) -> bool {
        self.scalable_mode && self.address_width == 57
    }

    fn first_stage_1g(self) -> bool {
        self.scalable_mode
    }

    fn has_descriptor(self, kind: DescriptorType) -> bool {
        match kind {
            DescriptorType::ContextCache | DescriptorType::Iotlb | DescriptorType::Wait => true,
            DescriptorType::InterruptEntryCache => self.interrupt_remapping,
            DescriptorType::PasidIotlb | DescriptorType::PasidCache => self.scalable_mode,
            DescriptorType::DeviceTlb => self.device_tlb,
            DescriptorType::PasidDeviceTlb => self.device_tlb && self.scalable_mode,
            DescriptorType::PageGroupResponse => self.page_requests,
        }
    }
}

/// What a request wants to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Read.
    pub read: bool,
    /// Write.
    pub write: bool,
    /// Execute; with a read.
    pub execute: bool,
    /// A read of no bytes, which pages that can be written allow as well.
    pub zero_length: bool,
}

impl Access {
    /// A read.
    pub const READ: Self = Self { read: true, write: false, execute: false, zero_length: false };
    /// A write.
    pub const WRITE: Self = Self { read: false, write: true, execute: false, zero_length: false };

    /// Whether a page with `rights` allows it.
    fn is_allowed(self, rights: Rights, privileged: bool) -> bool {
        if self.zero_length && rights.allow(Rights::WRITE, privileged) {
            return true;
        }
        let wanted = (if self.read { Rights::READ } else { 0 })
            | (if self.write { Rights::WRITE } else { 0 })
            | if self.execute { Rights::EXECUTE } else { 0 };
        rights.allow(wanted, privileged)
    }
}

/// The address type of a request (PCI Express, address translation services).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RequestKind {
    /// The address is to be translated on the way.
    Untranslated = 0,
    /// The device wants to know the translation, to keep it in its TLB.
    Translation = 1,
    /// The device has translated the address itself.
    Translated = 2,
}

/// A request of a device. It lies within one page of 4 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The source id: bus, device, function.
    pub source: u16,
    /// The address.
    pub address: u64,
    /// What it wants to do.
    pub access: Access,
    /// Its kind.
    pub kind: RequestKind,
    /// The PASID it has, if it has one.
    pub pasid: Option<u32>,
    /// With PASID: supervisor privilege is requested.
    pub privileged: bool,
}

impl Request {
    /// An untranslated request without PASID.
    pub const fn new(source: u16, address: u64, access: Access) -> Self {
        Self { source, address, access, kind: RequestKind::Untranslated, pasid: None, privileged: false }
    }
}

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The physical address.
    pub address: u64,
    /// Bytes from there to the end of the page of 4 KiB.
    pub length: u64,
    /// log2 of the size of the page that was found.
    pub shift: u8,
    /// What may be done there.
    pub rights: Rights,
}

/// A request is blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// Why; `None` for protected memory, which has no fault.
    pub reason: Option<FaultReason>,
}

/// Saved state of a [`RemappingUnit`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemappingUnitState {
    registers: Registers,
    caches: Caches,
    outstanding: Outstanding,
}

/// How a unit reaches the world.
pub struct UnitPorts {
    /// Physical memory.
    pub memory: Box<dyn Dma>,
    /// The unit's own interrupts, which are not remapped.
    pub events: Box<dyn Msi>,
    /// Time: functions have only so much for an invalidation.
    pub clock: Box<dyn Clock>,
    /// Functions with a device TLB.
    pub messages: Box<dyn DeviceMessages>,
}

/// A remapping unit.
pub struct RemappingUnit {
    config: UnitConfig,
    registers: Registers,
    caches: Caches,
    /// Physical memory.
    memory: Box<dyn Dma>,
    /// The way of the unit's own events.
    events: Box<dyn Msi>,
    clock: Box<dyn Clock>,
    /// The way to functions with a device TLB.
    messages: Box<dyn DeviceMessages>,
    outstanding: Outstanding,
    /// The entries read for the request at hand, if anybody wants reports.
    trail: Vec<Step>,
    /// Reports for the explainer, if there is one.
    reports: Option<Vec<FaultReport>>,
}

impl RemappingUnit {
    /// A unit after reset.
    #[must_use]
    pub fn new(config: UnitConfig, ports: UnitPorts) -> Self {
        let UnitPorts { memory, events, clock, messages } = ports;
        let page_requests = config.page_requests && config.scalable_mode && config.device_tlb;
        Self {
            config: UnitConfig { page_requests, ..config },
            registers: Registers::new(),
            caches: Caches::new(),
            memory,
            events,
            clock,
            messages,
            outstanding: Outstanding::default(),
            trail: Vec::new(),
            reports: None,
        }
    }

    /// What the unit has.
    #[must_use]
    pub fn config(&self) -> &UnitConfig {
        &self.config
    }

    /// What the caches hold.
    #[must_use]
    pub fn caches(&self) -> &Caches {
        &self.caches
    }

    /// Starts or stops noting faults for [`Self::take_reports`]. Nothing that software sees depends on it.
    pub fn set_reporting(&mut self, on: bool) {
        self.reports = on.then(Vec::new);
    }

    /// Empties the caches, as a global invalidation of each would.
    pub fn forget(&mut self) {
        self.caches.clear();
    }

    /// The faults noted since the last call.
    pub fn take_reports(&mut self) -> Vec<FaultReport> {
        self.reports.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Some fault is noted.
    #[must_use]
    pub fn has_reports(&self) -> bool {
        self.reports.as_ref().is_some_and(|reports| !reports.is_empty())
    }

    /// Notes a table entry on the way of the request at hand.
    fn step(&mut self, what: &'static str, at: Option<u64>, quadwords: &[u64]) {
        if self.reports.is_some() {
            let mut value = [0; 4];
            let length = quadwords.len().min(4);
            value[..length].copy_from_slice(&quadwords[..length]);
            self.trail.push(Step { what, at, value, length: length as u8 });
        }
    }

    /// Reads a table entry; `None` where there is no memory.
    fn fetch<const N: usize>(&mut self, what: &'static str, at: u64) -> Option<[u64; N]> {
        let value = self.read_physical(at);
        self.step(what, Some(at), value.as_ref().map_or(&[], |value: &[u64; N]| &value[..]));
        value
    }

    fn read_physical<const N: usize>(&self, at: u64) -> Option<[u64; N]> {
        let mut bytes = [0; 64];
        let bytes = &mut bytes[..8 * N];
        self.memory.read(at, bytes).ok()?;
        let mut value = [0; N];
        for (quadword, bytes) in value.iter_mut().zip(bytes.chunks_exact(8)) {
            *quadword = u64::from_le_bytes(bytes.try_into().ok()?);
        }
        Some(value)
    }

    fn write_physical(&self, at: u64, bytes: &[u8]) -> bool {
        self.memory.write(at, bytes).is_ok()
    }

    /// The state.
    #[must_use]
    pub fn save(&self) -> RemappingUnitState {
        let Self {
            config: _,
            registers,
            caches,
            memory: _,
            events: _,
            clock: _,
            messages: _,
            outstanding,
            trail: _,
            reports: _,
        } = self;
        RemappingUnitState { registers: registers.clone(), caches: caches.clone(), outstanding: outstanding.clone() }
    }

    /// Takes over the state of a unit of the same configuration.
    pub fn restore(&mut self, state: &RemappingUnitState) {
        let RemappingUnitState { registers, caches, outstanding } = state;
        if registers.fault_records.len() == self.registers.fault_records.len() {
            self.registers = registers.clone();
        }
        self.caches.restore(caches);
        self.outstanding.clone_from(outstanding);
        self.set_alarm();
    }
}

impl Device for RemappingUnit {
    fn read(&mut self, _region: Region, offset: u64, size: u8) -> u64 {
        let low = u64::from(self.read_register(offset & !3));
        let value = match size {
            8 => low | u64::from(self.read_register((offset & !3) + 4)) << 32,
            _ => low >> (8 * (offset & 3)),
        };
        value & (u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 8))))
    }

    /// Registers are written in doublewords and quadwords, aligned; anything else is ignored.
    fn write(&mut self, _region: Region, offset: u64, size: u8, value: u64) {
        match size {
            4 if offset & 3 == 0 => self.write_register(offset, value as u32),
            8 if offset & 7 == 0 => {
                self.write_register(offset, value as u32);
                self.write_register(offset + 4, (value >> 32) as u32);
            }
            _ => {}
        }
    }

    fn alarm(&mut self, now: Nanoseconds) {
        self.expire(now);
    }

    fn reset(&mut self) {
        self.registers = Registers::new();
        self.caches.clear();
        self.outstanding = Outstanding::default();
        self.set_alarm();
    }
}
