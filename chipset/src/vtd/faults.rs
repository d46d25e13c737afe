//! Faults: the fault recording registers, and the unit's own events (VT-d, 7.3 and 11.4.7).

use super::RemappingUnit;
use super::registers::Event;
use spec::vtd::FaultReason;
use spec::vtd::registers::{FaultStatus, fault_record};

/// A fault, before it is known whether it is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Why.
    pub reason: FaultReason,
    /// A table entry says that its faults are not to be recorded.
    pub disabled: bool,
}

impl Fault {
    /// A fault that nothing keeps from being recorded.
    pub const fn new(reason: FaultReason) -> Self {
        Self { reason, disabled: false }
    }

    /// The same fault under an entry whose fault processing is disabled, or is not.
    pub const fn under(self, disabled: bool) -> Self {
        Self { disabled: self.disabled || disabled && self.reason.is_qualified(), ..self }
    }
}

/// One table entry on the way to a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it is.
    pub what: &'static str,
    /// Where it lies in memory; `None` when it came from a cache.
    pub at: Option<u64>,
    /// Its quadwords, as many as `length` says.
    pub value: [u64; 4],
    /// How many quadwords count.
    pub length: u8,
}

/// A fault, for whoever wants to know more than a fault record holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultReport {
    /// Why.
    pub reason: FaultReason,
    /// The source id.
    pub source: u16,
    /// The address, or the interrupt index.
    pub address: u64,
    /// The request would have written.
    pub write: bool,
    /// Its PASID.
    pub pasid: Option<u32>,
    /// The entries read on the way; the last one stopped it.
    pub steps: Vec<Step>,
    /// The fault was recorded in a register; else a table entry or an overflow kept it from that.
    pub recorded: bool,
}

/// What a fault record tells of the request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Circumstances {
    /// The low quadword: the address, or the interrupt index in bits 63:48.
    pub information: u64,
    pub source: u16,
    /// Type, address type, PASID, privileges: bits of the high quadword.
    pub bits: u64,
}

/// How many reports are kept for the explainer.
const REPORTS: usize = 64;

impl RemappingUnit {
    /// Records `fault` (VT-d, 7.3.1) unless its processing is disabled; gives whether it was recorded.
    pub(super) fn record(&mut self, fault: Fault, circumstances: Circumstances) -> bool {
        if fault.disabled {
            return false;
        }
        let records = self.registers.fault_records.len();
        let index = usize::from(self.registers.next_fault) % records;
        if self.registers.fault_records[index].1 & fault_record::FAULT != 0 {
            self.raise_fault_status(FaultStatus::OVERFLOW);
            return false;
        }
        let high = fault_record::FAULT
            | circumstances.bits
            | u64::from(fault.reason as u8) << fault_record::REASON_SHIFT
            | u64::from(circumstances.source);
        self.registers.fault_records[index] = (circumstances.information, high);
        self.registers.next_fault = ((index + 1) % records) as u8;
        if self.registers.fault_status & FaultStatus::PENDING == 0 {
            self.registers.fault_status &= !(0xff << FaultStatus::RECORD_INDEX_SHIFT);
            self.registers.fault_status |= (index as u32) << FaultStatus::RECORD_INDEX_SHIFT;
        }
        self.raise_fault_status(FaultStatus::PENDING);
        true
    }

    /// Sets a bit of the fault status. The first one that is set makes a fault event; others wait until software has seen to all.
    pub(super) fn raise_fault_status(&mut self, bit: u32) {
        let before = self.registers.fault_status & FaultStatus::ALL;
        self.registers.fault_status |= bit;
        if before == 0 {
            self.raise_event(Event::Fault);
        }
    }

    /// Makes the event's interrupt, or holds it pending while it is masked (VT-d, 7.3.2).
    pub(super) fn raise_event(&mut self, event: Event) {
        let registers = self.registers.event_mut(event);
        if registers.masked {
            registers.pending = true;
        } else {
            registers.pending = false;
            let (address, data) = (u64::from(registers.upper) << 32 | u64::from(registers.address), registers.data);
            self.events.send(address, data);
        }
    }

    /// Software has cleared a fault record or status bits: what follows from that.
    pub(super) fn settle_fault_status(&mut self) {
        if self.registers.fault_records.iter().all(|(_, high)| high & fault_record::FAULT == 0) {
            self.registers.fault_status &= !FaultStatus::PENDING;
        }
        if self.registers.fault_status & FaultStatus::ALL == 0 {
            self.registers.event_mut(Event::Fault).pending = false;
        }
    }

    /// Notes a fault for [`RemappingUnit::take_reports`], if anybody wants reports.
    pub(super) fn report(&mut self, make: impl FnOnce(Vec<Step>) -> FaultReport) {
        if let Some(reports) = &mut self.reports
            && reports.len() < REPORTS
        {
            reports.push(make(std::mem::take(&mut self.trail)));
        }
    }
}
