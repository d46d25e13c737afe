//! The registers of a unit, and what reading and writing them does (VT-d, chapter 11).

use super::RemappingUnit;
use serde::{Deserialize, Serialize};
use spec::vtd::capability::{Capability, ExtendedCapability};
use spec::vtd::registers as register;
use spec::vtd::registers::{EventControl, FaultStatus, GlobalCommand, fault_record, root_table};

/// Where the fault recording registers begin.
pub const FAULT_RECORDS: u64 = 0x220;
/// How many there are.
pub const FAULT_RECORD_COUNT: usize = 8;
/// Where the IOTLB registers begin.
pub const IOTLB: u64 = 0xf0;
/// Version 1.0 of the architecture.
const VERSION: u32 = 0x10;

/// The unit's own events, each with its control, data and address registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Fault,
    Invalidation,
    PageRequest,
}

/// The registers of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRegisters {
    pub(super) masked: bool,
    pub(super) pending: bool,
    pub(super) data: u32,
    pub(super) address: u32,
    pub(super) upper: u32,
}

/// Everything in the registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registers {
    /// What is enabled: the global status.
    pub(super) status: u32,
    /// The root table address as written.
    pub(super) root_table: u64,
    /// The root table address in force.
    pub(super) root_in_force: u64,
    pub(super) context_command: u64,
    /// Without the pending bit's record index once no fault is pending.
    pub(super) fault_status: u32,
    pub(super) fault_event: EventRegisters,
    pub(super) invalidation_event: EventRegisters,
    pub(super) page_event: EventRegisters,
    /// Low and high quadword of each fault record.
    pub(super) fault_records: Vec<(u64, u64)>,
    /// The record that the next fault goes to.
    pub(super) next_fault: u8,
    pub(super) protected_enable: bool,
    pub(super) protected_low: (u32, u32),
    pub(super) protected_high: (u64, u64),
    pub(super) queue_head: u64,
    pub(super) queue_tail: u64,
    pub(super) queue_address: u64,
    pub(super) queue_error: u64,
    pub(super) completion: u32,
    pub(super) iotlb_address: u64,
    pub(super) iotlb_command: u64,
    /// The interrupt table address as written.
    pub(super) interrupt_table: u64,
    /// The interrupt table address in force.
    pub(super) interrupts_in_force: u64,
    pub(super) page_queue_head: u64,
    pub(super) page_queue_tail: u64,
    pub(super) page_queue_address: u64,
    pub(super) page_status: u32,
}

impl Registers {
    /// After reset: nothing enabled, events masked.
    pub(super) fn new() -> Self {
        let event = EventRegisters { masked: true, pending: false, data: 0, address: 0, upper: 0 };
        Self {
            status: 0,
            root_table: 0,
            root_in_force: 0,
            context_command: 0,
            fault_status: 0,
            fault_event: event,
            invalidation_event: event,
            page_event: event,
            fault_records: vec![(0, 0); FAULT_RECORD_COUNT],
            next_fault: 0,
            protected_enable: false,
            protected_low: (0, 0),
            protected_high: (0, 0),
            queue_head: 0,
            queue_tail: 0,
            queue_address: 0,
            queue_error: 0,
            completion: 0,
            iotlb_address: 0,
            iotlb_command: 0,
            interrupt_table: 0,
            interrupts_in_force: 0,
            page_queue_head: 0,
            page_queue_tail: 0,
            page_queue_address: 0,
            page_status: 0,
        }
    }

    pub(super) fn enabled(&self, bit: u32) -> bool {
        self.status & bit != 0
    }

    /// The mode of the root table in force.
    pub(super) fn mode(&self) -> u64 {
        self.root_in_force >> root_table::MODE_SHIFT & 3
    }

    pub(super) fn event_mut(&mut self, event: Event) -> &mut EventRegisters {
        match event {
            Event::Fault => &mut self.fault_event,
            Event::Invalidation => &mut self.invalidation_event,
            Event::PageRequest => &mut self.page_event,
        }
    }
}

/// The event whose registers begin at the offset rounded down to 16 bytes, and which of them it is.
fn event_at(offset: u64) -> Option<(Event, u64)> {
    const EVENTS: [(u64, Event); 3] = [
        (register::FAULT_EVENT_CONTROL, Event::Fault),
        (register::INVALIDATION_EVENT_CONTROL, Event::Invalidation),
        (register::PAGE_EVENT_CONTROL, Event::PageRequest),
    ];
    EVENTS.into_iter().find(|(base, _)| offset.wrapping_sub(*base) < 16).map(|(base, event)| (event, offset - base))
}

/// Replaces the half of `old` at `offset` (a multiple of 4) by `value`.
fn put_half(old: u64, offset: u64, value: u32) -> u64 {
    let shift = 8 * (offset & 4) as u32;
    old & !(0xffff_ffff << shift) | u64::from(value) << shift
}

impl RemappingUnit {
    /// CAP_REG.
    pub fn capabilities(&self) -> u64 {
        let config = &self.config;
        let mut value = 6 << Capability::DOMAINS_SHIFT
            | Capability::PROTECTED_LOW
            | Capability::PROTECTED_HIGH
            | Capability::ZERO_LENGTH_READ
            | Capability::PAGE_SELECTIVE
            | Capability::WRITE_DRAINING
            | Capability::READ_DRAINING
            | u64::from(config.widths()) << Capability::WIDTHS_SHIFT
            | u64::from(config.address_width - 1) << Capability::MAXIMUM_WIDTH_SHIFT
            | (FAULT_RECORDS / 16) << Capability::FAULT_RECORDS_SHIFT
            | 3 << Capability::LARGE_PAGES_SHIFT
            | (FAULT_RECORD_COUNT as u64 - 1) << Capability::FAULT_RECORD_COUNT_SHIFT
            | u64::from(super::invalidation::MAXIMUM_MASK) << Capability::MAXIMUM_MASK_SHIFT;
        if config.caching_mode {
            value |= Capability::CACHING_MODE;
        }
        if config.interrupt_remapping && config.posted_interrupts {
            value |= Capability::POSTED_INTERRUPTS;
        }
        if config.scalable_mode {
            value |= Capability::FIRST_STAGE_1G;
        }
        if config.first_stage_5_levels() {
            value |= Capability::FIRST_STAGE_5_LEVELS;
        }
        value
    }

    /// ECAP_REG.
    pub fn extended_capabilities(&self) -> u64 {
        let config = &self.config;
        let mut value = ExtendedCapability::COHERENT
            | ExtendedCapability::QUEUED_INVALIDATION
            | ExtendedCapability::PASS_THROUGH
            | ExtendedCapability::SNOOP_CONTROL
            | (IOTLB / 16) << ExtendedCapability::IOTLB_REGISTERS_SHIFT;
        if config.interrupt_remapping {
            value |= ExtendedCapability::INTERRUPT_REMAPPING
                | u64::from(super::invalidation::MAXIMUM_HANDLE_MASK) << ExtendedCapability::MAXIMUM_HANDLE_MASK_SHIFT;
            if config.extended_interrupt_mode {
                value |= ExtendedCapability::EXTENDED_INTERRUPT_MODE;
            }
        }
        if config.device_tlb {
            value |= ExtendedCapability::DEVICE_TLB | ExtendedCapability::NO_WRITE_FLAG;
        }
        if config.page_requests {
            value |= ExtendedCapability::PAGE_REQUESTS | ExtendedCapability::PAGE_REQUEST_DRAIN;
        }
        if config.scalable_mode {
            /// PASIDs have 20 bits.
            const PASID_BITS: u64 = 20;
            value |= ExtendedCapability::SCALABLE_MODE
                | ExtendedCapability::SCALABLE_WALK_COHERENT
                | ExtendedCapability::FIRST_STAGE
                | ExtendedCapability::SECOND_STAGE
                | ExtendedCapability::SECOND_STAGE_ACCESSED_DIRTY
                | ExtendedCapability::NESTED
                | ExtendedCapability::PASID
                | ExtendedCapability::RID_PASID
                | ExtendedCapability::RID_PRIVILEGE
                | ExtendedCapability::EXECUTE_REQUESTS
                | ExtendedCapability::SUPERVISOR_REQUESTS
                | (PASID_BITS - 1) << ExtendedCapability::PASID_SIZE_SHIFT;
        }
        value
    }

    /// Reads the doubleword at `offset`, a multiple of 4.
    pub(super) fn read_register(&self, offset: u64) -> u32 {
        let half = |value: u64| (value >> (8 * (offset & 4))) as u32;
        let registers = &self.registers;
        if let Some((event, part)) = event_at(offset) {
            let event = match event {
                Event::Fault => &registers.fault_event,
                Event::Invalidation => &registers.invalidation_event,
                Event::PageRequest => &registers.page_event,
            };
            return match part {
                0 => {
                    (if event.masked { EventControl::MASK } else { 0 })
                        | if event.pending { EventControl::PENDING } else { 0 }
                }
                4 => event.data,
                8 => event.address,
                _ => event.upper,
            };
        }
        if let Some((low, high)) = self.fault_record_at(offset) {
            return half(if offset & 8 == 0 { low } else { high });
        }
        match offset & !7 {
            register::VERSION if offset == register::VERSION => VERSION,
            register::CAPABILITY => half(self.capabilities()),
            register::EXTENDED_CAPABILITY => half(self.extended_capabilities()),
            register::GLOBAL_COMMAND if offset == register::GLOBAL_STATUS => registers.status,
            register::ROOT_TABLE_ADDRESS => half(registers.root_table),
            register::CONTEXT_COMMAND => half(registers.context_command),
            0x30 if offset == register::FAULT_STATUS => registers.fault_status,
            0x60 if offset == register::PROTECTED_MEMORY_ENABLE => {
                let enabled = register::PROTECTED_ENABLE | register::PROTECTED_STATUS;
                if registers.protected_enable { enabled } else { 0 }
            }
            register::PROTECTED_LOW_BASE if offset & 4 == 0 => registers.protected_low.0,
            register::PROTECTED_LOW_BASE => registers.protected_low.1,
            register::PROTECTED_HIGH_BASE => half(registers.protected_high.0),
            register::PROTECTED_HIGH_LIMIT => half(registers.protected_high.1),
            register::QUEUE_HEAD => half(registers.queue_head),
            register::QUEUE_TAIL => half(registers.queue_tail),
            register::QUEUE_ADDRESS => half(registers.queue_address),
            0x98 if offset == register::COMPLETION_STATUS => registers.completion,
            register::QUEUE_ERROR => half(registers.queue_error),
            register::INTERRUPT_TABLE_ADDRESS => half(registers.interrupt_table),
            register::PAGE_QUEUE_HEAD => half(registers.page_queue_head),
            register::PAGE_QUEUE_TAIL => half(registers.page_queue_tail),
            register::PAGE_QUEUE_ADDRESS => half(registers.page_queue_address),
            0xd8 if offset == register::PAGE_REQUEST_STATUS => registers.page_status,
            IOTLB => half(registers.iotlb_address),
            at if at == IOTLB + register::iotlb::COMMAND => half(registers.iotlb_command),
            _ => 0,
        }
    }

    fn fault_record_at(&self, offset: u64) -> Option<(u64, u64)> {
        let at = offset.checked_sub(FAULT_RECORDS)?;
        self.registers.fault_records.get((at / fault_record::SIZE) as usize).copied()
    }

    /// Writes the doubleword at `offset`, a multiple of 4. A write of 8 bytes is two of these, the low half first.
    pub(super) fn write_register(&mut self, offset: u64, value: u32) {
        /// The size of large pages that the protected regions are aligned to.
        const PROTECTED_ALIGNMENT: u32 = 1 << 21;
        if let Some((event, part)) = event_at(offset) {
            self.write_event(event, part, value);
            return;
        }
        if let Some(at) = offset.checked_sub(FAULT_RECORDS)
            && let Some(record) = self.registers.fault_records.get_mut((at / fault_record::SIZE) as usize)
        {
            if at % fault_record::SIZE == 12 && u64::from(value) << 32 & fault_record::FAULT != 0 {
                record.1 &= !fault_record::FAULT;
                self.settle_fault_status();
            }
            return;
        }
        let registers = &mut self.registers;
        let in_low = value & !(PROTECTED_ALIGNMENT - 1);
        match offset & !7 {
            register::GLOBAL_COMMAND if offset == register::GLOBAL_COMMAND => self.command(value),
            register::ROOT_TABLE_ADDRESS => registers.root_table = put_half(registers.root_table, offset, value),
            register::CONTEXT_COMMAND => {
                registers.context_command = put_half(registers.context_command, offset, value);
                if offset & 4 != 0 && registers.context_command & register::context_command::INVALIDATE != 0 {
                    self.context_command();
                }
            }
            0x30 if offset == register::FAULT_STATUS => self.clear_fault_status(value),
            0x60 if offset == register::PROTECTED_MEMORY_ENABLE => {
                registers.protected_enable = value & register::PROTECTED_ENABLE != 0;
            }
            register::PROTECTED_LOW_BASE if offset & 4 == 0 => registers.protected_low.0 = in_low,
            register::PROTECTED_LOW_BASE => registers.protected_low.1 = in_low,
            register::PROTECTED_HIGH_BASE => {
                let value = if offset & 4 == 0 { in_low } else { value };
                registers.protected_high.0 = put_half(registers.protected_high.0, offset, value);
            }
            register::PROTECTED_HIGH_LIMIT => {
                let value = if offset & 4 == 0 { in_low } else { value };
                registers.protected_high.1 = put_half(registers.protected_high.1, offset, value);
            }
            // All of the tail's bits that count are in its low half.
            register::QUEUE_TAIL if offset == register::QUEUE_TAIL => {
                registers.queue_tail = u64::from(value) & register::queue::POINTER;
                self.run_queue();
            }
            register::QUEUE_ADDRESS => {
                registers.queue_address = put_half(registers.queue_address, offset, value) & !0x7f8;
            }
            0x98 if offset == register::COMPLETION_STATUS => {
                registers.completion &= !(value & register::queue::COMPLETE);
                if registers.completion == 0 {
                    registers.invalidation_event.pending = false;
                }
            }
            register::INTERRUPT_TABLE_ADDRESS => {
                registers.interrupt_table = put_half(registers.interrupt_table, offset, value) & !0x7f0;
            }
            register::PAGE_QUEUE_HEAD if self.config.page_requests && offset == register::PAGE_QUEUE_HEAD => {
                registers.page_queue_head = u64::from(value) & register::page_queue::POINTER;
            }
            register::PAGE_QUEUE_TAIL if self.config.page_requests && offset == register::PAGE_QUEUE_TAIL => {
                registers.page_queue_tail = u64::from(value) & register::page_queue::POINTER;
            }
            register::PAGE_QUEUE_ADDRESS if self.config.page_requests => {
                registers.page_queue_address = put_half(registers.page_queue_address, offset, value) & !0xff8;
            }
            0xd8 if offset == register::PAGE_REQUEST_STATUS => self.clear_page_status(value),
            IOTLB => registers.iotlb_address = put_half(registers.iotlb_address, offset, value),
            at if at == IOTLB + register::iotlb::COMMAND => {
                registers.iotlb_command = put_half(registers.iotlb_command, offset, value);
                if offset & 4 != 0 && registers.iotlb_command & register::iotlb::INVALIDATE != 0 {
                    self.iotlb_command();
                }
            }
            _ => {}
        }
    }

    fn write_event(&mut self, event: Event, part: u64, value: u32) {
        let registers = self.registers.event_mut(event);
        match part {
            0 => {
                registers.masked = value & EventControl::MASK != 0;
                if !registers.masked && registers.pending {
                    self.raise_event(event);
                }
            }
            4 => registers.data = value & 0xffff,
            8 => registers.address = value & !3,
            _ => registers.upper = value,
        }
    }

    fn clear_fault_status(&mut self, value: u32) {
        const STOPPED: u32 = FaultStatus::QUEUE_ERROR | FaultStatus::TIMEOUT_ERROR;
        let stopped = self.registers.fault_status & STOPPED != 0;
        self.registers.fault_status &= !(value & FaultStatus::CLEARABLE);
        self.settle_fault_status();
        // The queue takes up where it stopped.
        if stopped && self.registers.fault_status & STOPPED == 0 {
            self.registers.queue_error &= !0xf;
            self.run_queue();
        }
    }

    /// Global command: one bit is to be changed in a write, but nothing relies on it.
    fn command(&mut self, value: u32) {
        let mut status = self.registers.status;
        if value & GlobalCommand::SET_ROOT_TABLE != 0 {
            self.registers.root_in_force = self.registers.root_table;
            status |= GlobalCommand::SET_ROOT_TABLE;
        }
        if self.config.interrupt_remapping {
            if value & GlobalCommand::SET_INTERRUPT_TABLE != 0 {
                self.registers.interrupts_in_force = self.registers.interrupt_table;
                if !self.config.extended_interrupt_mode {
                    self.registers.interrupts_in_force &= !register::interrupt_table::EXTENDED;
                }
                status |= GlobalCommand::SET_INTERRUPT_TABLE;
            }
            let bits = GlobalCommand::INTERRUPT_REMAPPING | GlobalCommand::COMPATIBILITY_FORMAT;
            status = status & !bits | value & bits;
        }
        let bits = GlobalCommand::TRANSLATION | GlobalCommand::QUEUED_INVALIDATION;
        let queued = (self.registers.status ^ value) & GlobalCommand::QUEUED_INVALIDATION != 0;
        self.registers.status = status & !bits | value & bits;
        if queued {
            self.registers.queue_head = 0;
            self.run_queue();
        }
    }
}
