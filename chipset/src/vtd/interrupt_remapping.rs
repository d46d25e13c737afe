//! Interrupt requests: compatibility and remappable format, remapped and posted (VT-d, chapter 5).

use super::RemappingUnit;
use super::caches::InterruptKey;
use super::faults::{Circumstances, Fault, FaultReport};
use spec::apic::local_apic::DeliveryMode;
use spec::vmx::posted_interrupts as descriptor;
use spec::vtd::FaultReason;
use spec::vtd::interrupts::{RemappingEntry, posted, request};
use spec::vtd::registers::{GlobalCommand, interrupt_table};
use spec::vtd::tables::ADDRESS;

/// An interrupt for the processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemappedInterrupt {
    /// The destination: an APIC id or a logical destination, of 32 bits in extended interrupt mode, else of 8.
    pub destination: u32,
    /// The destination is of 32 bits.
    pub extended: bool,
    /// The destination is a logical one.
    pub logical: bool,
    /// One processor of those named is to be chosen.
    pub redirection_hint: bool,
    /// What is delivered.
    pub delivery: DeliveryMode,
    /// The vector.
    pub vector: u8,
    /// Level-triggered.
    pub level: bool,
}

/// Who makes an interrupt request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A requester with this source id.
    Verified(u16),
    /// A requester that passes every verification.
    Unverified(u16),
}

impl Source {
    const fn id(self) -> u16 {
        match self {
            Self::Verified(id) | Self::Unverified(id) => id,
        }
    }
}

/// What becomes of an interrupt request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupt {
    /// It goes to the processors as it is, in compatibility format.
    Unchanged,
    /// It goes to the processors as the table says.
    Remapped(RemappedInterrupt),
    /// It was noted in a posted-interrupt descriptor whose processor need not be told now.
    Noted,
    /// It is blocked.
    Blocked(FaultReason),
}

impl RemappingUnit {
    /// Takes the interrupt request that `source` makes by writing `data` to `address`.
    pub fn interrupt(&mut self, source: Source, address: u64, data: u32) -> Interrupt {
        if !self.registers.enabled(GlobalCommand::INTERRUPT_REMAPPING) {
            return Interrupt::Unchanged;
        }
        self.trail.clear();
        if address & request::REMAPPABLE == 0 {
            let extended = self.registers.interrupts_in_force & interrupt_table::EXTENDED != 0;
            if !extended && self.registers.enabled(GlobalCommand::COMPATIBILITY_FORMAT) {
                return Interrupt::Unchanged;
            }
            return self.block(source.id(), 0, Fault::new(FaultReason::CompatibilityFormatBlocked));
        }
        let handle = (address >> request::HANDLE_SHIFT & 0x7fff) as u32
            | if address & request::HANDLE_HIGH != 0 { 0x8000 } else { 0 };
        let subhandle = if address & request::SUBHANDLE_VALID != 0 { data } else { 0 };
        let index = handle + (subhandle & request::SUBHANDLE);
        let result = if subhandle & !request::SUBHANDLE != 0 {
            Err(Fault::new(FaultReason::InterruptRequestReserved))
        } else {
            self.entry(index).and_then(|entry| self.deliver(source, entry))
        };
        result.unwrap_or_else(|fault| self.block(source.id(), index, fault))
    }

    fn block(&mut self, source: u16, index: u32, fault: Fault) -> Interrupt {
        let information = u64::from(index) << 48;
        let recorded = self.record(fault, Circumstances { information, source, bits: 0 });
        self.report(|steps| FaultReport {
            reason: fault.reason,
            source,
            address: index.into(),
            write: true,
            pasid: None,
            steps,
            recorded,
        });
        Interrupt::Blocked(fault.reason)
    }

    /// The entry with this index, present and without reserved bits.
    fn entry(&mut self, index: u32) -> Result<RemappingEntry, Fault> {
        let register = self.registers.interrupts_in_force;
        let count = 2u32 << (register & interrupt_table::SIZE);
        let Some(key) = u16::try_from(index).ok().filter(|_| index < count).map(InterruptKey) else {
            return Err(Fault::new(FaultReason::InterruptIndexBeyondTable));
        };
        let cached = self.caches.interrupts.get(&key).copied();
        let (low, high) = match cached {
            Some(entry) => {
                self.step("interrupt-remapping entry", None, &[entry.0, entry.1]);
                entry
            }
            None => {
                let at = (register & ADDRESS).wrapping_add(u64::from(index) * RemappingEntry::SIZE);
                let access = Fault::new(FaultReason::InterruptEntryAccess);
                let [low, high] = self.fetch("interrupt-remapping entry", at).ok_or(access)?;
                (low, high)
            }
        };
        let entry = RemappingEntry { low, high };
        let fault = |reason| Fault::new(reason).under(low & RemappingEntry::FAULT_PROCESSING_DISABLED != 0);
        if !entry.is_present() {
            if self.config.caching_mode {
                self.caches.interrupts.insert(key, (low, high));
            }
            return Err(fault(FaultReason::InterruptEntryNotPresent));
        }
        let extended = register & interrupt_table::EXTENDED != 0;
        let is_reserved = if entry.is_posted() {
            low & RemappingEntry::POSTED_RESERVED_LOW != 0
                || high & RemappingEntry::POSTED_RESERVED_HIGH != 0
                || !self.config.posted_interrupts
        } else {
            let delivery = low >> RemappingEntry::DELIVERY_SHIFT & 7;
            let destination = if extended { 0 } else { 0xffff_00ff };
            low & RemappingEntry::RESERVED_LOW != 0
                || high & RemappingEntry::RESERVED_HIGH != 0
                || entry.destination() & destination != 0
                || matches!(delivery, 3 | 6)
        };
        if is_reserved || entry.validation() == 3 {
            return Err(fault(FaultReason::InterruptEntryReserved));
        }
        if cached.is_none() {
            self.caches.interrupts.insert(key, (low, high));
        }
        Ok(entry)
    }

    fn deliver(&mut self, source: Source, entry: RemappingEntry) -> Result<Interrupt, Fault> {
        let fault = |reason| Fault::new(reason).under(entry.low & RemappingEntry::FAULT_PROCESSING_DISABLED != 0);
        let is_valid = match (source, entry.validation()) {
            (Source::Unverified(_), _) | (_, 0) => true,
            (Source::Verified(id), 1) => {
                (entry.source() ^ id) & ![0u16, 4, 6, 7][usize::from(entry.qualifier() & 3)] == 0
            }
            // The source id field holds the first and the last bus.
            (Source::Verified(id), _) => (entry.source() >> 8..=entry.source() & 0xff).contains(&(id >> 8)),
        };
        if !is_valid {
            return Err(fault(FaultReason::InterruptSourceInvalid));
        }
        if entry.is_posted() {
            return self.post(entry).map_err(fault);
        }
        let extended = self.registers.interrupts_in_force & interrupt_table::EXTENDED != 0;
        let destination = if extended { entry.destination() } else { entry.destination() >> 8 & 0xff };
        Ok(Interrupt::Remapped(RemappedInterrupt {
            destination,
            extended,
            logical: entry.low & RemappingEntry::LOGICAL != 0,
            redirection_hint: entry.low & RemappingEntry::REDIRECTION_HINT != 0,
            delivery: DeliveryMode::of(((entry.low >> RemappingEntry::DELIVERY_SHIFT & 7) << 8) as u32),
            vector: entry.vector(),
            level: entry.low & RemappingEntry::LEVEL != 0,
        }))
    }

    /// Notes the interrupt in its descriptor, and notifies the processor that the descriptor names (VT-d, 5.2.3).
    fn post(&mut self, entry: RemappingEntry) -> Result<Interrupt, FaultReason> {
        let at = entry.descriptor();
        let vector = u64::from(entry.vector());
        let request_at = at + vector / 64 * 8;
        let [control] = self.fetch("posted-interrupt descriptor", at + descriptor::CONTROL).ok_or(ACCESS)?;
        let [requests] = self.read_physical(request_at).ok_or(ACCESS)?;
        if control & posted::RESERVED != 0 {
            return Err(FaultReason::PostedDescriptorReserved);
        }
        if !self.write_physical(request_at, &(requests | 1 << (vector % 64)).to_le_bytes()) {
            return Err(ACCESS);
        }
        let is_urgent = entry.low & RemappingEntry::URGENT != 0;
        if control & descriptor::OUTSTANDING != 0 || !is_urgent && control & descriptor::SUPPRESS != 0 {
            return Ok(Interrupt::Noted);
        }
        let _ = self.write_physical(at + descriptor::CONTROL, &(control | descriptor::OUTSTANDING).to_le_bytes());
        let extended = self.registers.interrupts_in_force & interrupt_table::EXTENDED != 0;
        let destination = (control >> descriptor::DESTINATION_SHIFT) as u32;
        Ok(Interrupt::Remapped(RemappedInterrupt {
            destination: if extended { destination } else { destination >> 8 & 0xff },
            extended,
            logical: false,
            redirection_hint: false,
            delivery: DeliveryMode::Fixed,
            vector: (control >> descriptor::NOTIFICATION_VECTOR_SHIFT) as u8,
            level: false,
        }))
    }
}

const ACCESS: FaultReason = FaultReason::PostedDescriptorAccess;

/// An interrupt-remapping entry in words; whether the table is in extended interrupt mode.
#[derive(Clone, Copy, Debug)]
pub struct EntryText(pub RemappingEntry, pub bool);

impl std::fmt::Display for EntryText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(entry, extended) = *self;
        let source = super::picture::function(entry.source());
        let verified = match entry.validation() {
            0 => "any source".to_owned(),
            1 => format!("source {source}"),
            2 => format!("sources on buses {:02x} to {:02x}", entry.source() >> 8, entry.source() & 0xff),
            _ => "reserved validation".to_owned(),
        };
        if !entry.is_present() {
            return f.write_str("not present");
        }
        if entry.is_posted() {
            let urgent = if entry.low & RemappingEntry::URGENT != 0 { ", urgent" } else { "" };
            let (vector, descriptor) = (entry.vector(), entry.descriptor());
            return write!(f, "vector {vector:#04x} posted to {descriptor:#x}{urgent}, {verified}");
        }
        let destination = if extended { entry.destination() } else { entry.destination() >> 8 & 0xff };
        let logical = if entry.low & RemappingEntry::LOGICAL != 0 { "logical " } else { "" };
        let level = if entry.low & RemappingEntry::LEVEL != 0 { ", level" } else { "" };
        let delivery = DeliveryMode::of(((entry.low >> RemappingEntry::DELIVERY_SHIFT & 7) << 8) as u32);
        write!(f, "vector {:#04x} ({delivery:?}) to {logical}{destination:#x}{level}, {verified}", entry.vector())
    }
}
