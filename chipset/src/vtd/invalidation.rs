//! Invalidation: by registers (VT-d, 6.5.1) and by the queue (6.5.2).

use super::RemappingUnit;
use super::caches::Stage;
use super::registers::Event;
use spec::vtd::invalidation::{
    ADDRESS_MASK, DOMAIN_SHIFT, DescriptorType, FUNCTION_MASK_SHIFT, GRANULARITY_SHIFT, LEAF_ONLY, PASID_SHIFT,
    QueueError, SOURCE_SHIFT, granularity, interrupt_entry, pasid_granularity, pasid_iotlb_granularity, wait,
};
use spec::vtd::registers::{FaultStatus, GlobalCommand, context_command, iotlb, queue, root_table};

/// The largest address mask of a page-selective invalidation: 2^18 pages, 1 GiB.
pub const MAXIMUM_MASK: u8 = 18;
/// The largest mask of an interrupt-entry-cache invalidation.
pub const MAXIMUM_HANDLE_MASK: u8 = 15;

/// Source ids that differ in the low bits of the function number that the mask leaves out: none, bit 2, bits 2:1, bits 2:0.
fn matches_function(source: u16, wanted: u16, mask: u64) -> bool {
    let ignored = [0, 4, 6, 7][(mask & 3) as usize];
    (source ^ wanted) & !ignored == 0
}

/// A range of pages, from the second quadword of an IOTLB descriptor or the invalidate address register.
#[derive(Clone, Copy, Debug)]
struct Pages {
    first: u64,
    last: u64,
    leaf_only: bool,
}

impl Pages {
    /// `None` when the address mask is larger than supported.
    fn of(quadword: u64) -> Option<Self> {
        let mask = quadword & ADDRESS_MASK;
        if mask > MAXIMUM_MASK.into() {
            return None;
        }
        let size = 0x1000 << mask;
        let first = quadword & !(size - 1);
        Some(Self { first, last: first + (size - 1), leaf_only: quadword & LEAF_ONLY != 0 })
    }

    /// Any part of the `1 << shift` bytes from `base` is meant.
    fn touch(self, base: u64, shift: u32) -> bool {
        base <= self.last && base | ((1 << shift) - 1) >= self.first
    }
}

impl RemappingUnit {
    /// CCMD_REG was written with its command bit set.
    pub(super) fn context_command(&mut self) {
        let value = self.registers.context_command;
        let asked = value >> context_command::GRANULARITY_SHIFT & 3;
        // While the queue is in use the registers do nothing, and say so.
        let performed = if self.registers.enabled(GlobalCommand::QUEUED_INVALIDATION) {
            0
        } else {
            let source = (value >> context_command::SOURCE_SHIFT) as u16;
            let mask = value >> context_command::FUNCTION_MASK_SHIFT;
            if self.invalidate_contexts(asked, value as u16, source, mask) { asked } else { 0 }
        };
        let cleared = value & !(context_command::INVALIDATE | 3 << context_command::PERFORMED_SHIFT);
        self.registers.context_command = cleared | performed << context_command::PERFORMED_SHIFT;
    }

    /// IOTLB_REG was written with its command bit set.
    pub(super) fn iotlb_command(&mut self) {
        let value = self.registers.iotlb_command;
        let asked = value >> iotlb::GRANULARITY_SHIFT & 3;
        let performed = if self.registers.enabled(GlobalCommand::QUEUED_INVALIDATION) {
            0
        } else {
            let domain = (value >> iotlb::DOMAIN_SHIFT) as u16;
            if self.invalidate_iotlb(asked, domain, self.registers.iotlb_address) { asked } else { 0 }
        };
        let cleared = value & !(iotlb::INVALIDATE | 3 << iotlb::PERFORMED_SHIFT);
        self.registers.iotlb_command = cleared | performed << iotlb::PERFORMED_SHIFT;
    }

    /// Forgets context entries; false when the granularity is reserved.
    fn invalidate_contexts(&mut self, kind: u64, domain: u16, source: u16, mask: u64) -> bool {
        let scalable = self.registers.mode() == root_table::SCALABLE;
        let contexts = &mut self.caches.contexts;
        let domain_of = |entry: &[u64; 4]| (entry[1] >> spec::vtd::tables::context::DOMAIN_SHIFT) as u16;
        match kind {
            granularity::GLOBAL => contexts.clear(),
            // In scalable mode context entries have no domain: a domain is no narrower than everything.
            granularity::DOMAIN if scalable => contexts.clear(),
            granularity::DOMAIN => contexts.invalidate(|_, entry| domain_of(entry) == domain),
            granularity::SELECTIVE => contexts.invalidate(|key, entry| {
                matches_function(key.0, source, mask) && (scalable || domain_of(entry) == domain)
            }),
            _ => return false,
        }
        true
    }

    /// Forgets translations and paging structures; false when the granularity or the address mask is not supported.
    pub(super) fn invalidate_iotlb(&mut self, kind: u64, domain: u16, address: u64) -> bool {
        let (iotlb, structures) = (&mut self.caches.iotlb, &mut self.caches.structures);
        match kind {
            granularity::GLOBAL => {
                iotlb.clear();
                structures.clear();
            }
            granularity::DOMAIN => {
                iotlb.invalidate(|key, _| key.domain == domain);
                structures.invalidate(|key, _| key.domain == domain);
            }
            granularity::SELECTIVE => {
                let Some(pages) = Pages::of(address) else { return false };
                // The address is one of the second stage: nested translations of it cannot be told from others.
                iotlb.invalidate(|key, _| {
                    key.domain == domain
                        && match key.stage {
                            Stage::Second => pages.touch(key.page, key.shift.into()),
                            Stage::Nested => true,
                            Stage::First => false,
                        }
                });
                if !pages.leaf_only {
                    structures.invalidate(|key, _| {
                        key.domain == domain
                            && key.stage == Stage::Second
                            && pages.touch(key.prefix, 12 + 9 * u32::from(key.level))
                    });
                }
            }
            _ => return false,
        }
        true
    }

    /// Forgets translations of the first stage of a PASID.
    pub(super) fn invalidate_pasid_iotlb(&mut self, kind: u64, domain: u16, pasid: u32, address: u64) -> bool {
        let pages = match kind {
            pasid_iotlb_granularity::PASID => None,
            pasid_iotlb_granularity::PAGES => match Pages::of(address) {
                None => return false,
                pages => pages,
            },
            _ => return false,
        };
        let (iotlb, structures) = (&mut self.caches.iotlb, &mut self.caches.structures);
        iotlb.invalidate(|key, _| {
            key.stage != Stage::Second
                && (key.domain, key.pasid) == (domain, pasid)
                && pages.is_none_or(|pages| pages.touch(key.page, key.shift.into()))
        });
        structures.invalidate(|key, _| {
            key.stage != Stage::Second
                && (key.domain, key.pasid) == (domain, pasid)
                && pages.is_none_or(|pages| !pages.leaf_only && pages.touch(key.prefix, 12 + 9 * u32::from(key.level)))
        });
        true
    }

    fn invalidate_pasids(&mut self, kind: u64, domain: u16, pasid: u32) -> bool {
        let domain_of = |entry: &[u64; 3]| (entry[1] & spec::vtd::tables::pasid::DOMAIN) as u16;
        let pasids = &mut self.caches.pasids;
        match kind {
            pasid_granularity::GLOBAL => pasids.clear(),
            pasid_granularity::DOMAIN => pasids.invalidate(|_, entry| domain_of(entry) == domain),
            pasid_granularity::PASID => {
                pasids.invalidate(|key, entry| domain_of(entry) == domain && key.pasid == pasid);
            }
            _ => return false,
        }
        true
    }

    fn invalidate_interrupts(&mut self, first: u64) {
        let interrupts = &mut self.caches.interrupts;
        if first & interrupt_entry::SELECTIVE == 0 {
            interrupts.clear();
        } else {
            let mask = (first >> interrupt_entry::MASK_SHIFT & 0x1f).min(16);
            let index = (first >> interrupt_entry::INDEX_SHIFT) as u16;
            interrupts.invalidate(|key, _| u32::from(key.0 ^ index) >> mask == 0);
        }
    }

    /// Carries out the descriptors between head and tail, unless the queue has stopped at an error or must wait for functions.
    pub(super) fn run_queue(&mut self) {
        const STOPPED: u32 = FaultStatus::QUEUE_ERROR | FaultStatus::TIMEOUT_ERROR;
        self.outstanding.wait = false;
        if !self.registers.enabled(GlobalCommand::QUEUED_INVALIDATION) {
            return;
        }
        let address = self.registers.queue_address;
        let is_wide = address & queue::WIDE != 0;
        let size = if is_wide { 32 } else { 16 };
        let length = 0x1000u64 << (address & queue::SIZE);
        while self.registers.fault_status & STOPPED == 0 && self.registers.queue_head != self.registers.queue_tail {
            match self.run_descriptor(address, is_wide, size, length) {
                Ok(true) => self.advance_queue(),
                Ok(false) => break,
                Err(error) => {
                    self.registers.queue_error = self.registers.queue_error & !0xf | error as u64;
                    self.raise_fault_status(FaultStatus::QUEUE_ERROR);
                }
            }
        }
    }

    /// The descriptor at the head is done with.
    pub(super) fn advance_queue(&mut self) {
        let address = self.registers.queue_address;
        let size = if address & queue::WIDE != 0 { 32 } else { 16 };
        self.registers.queue_head = (self.registers.queue_head + size) % (0x1000 << (address & queue::SIZE));
    }

    /// False: the descriptor must wait for functions to complete invalidations.
    fn run_descriptor(&mut self, address: u64, is_wide: bool, size: u64, length: u64) -> Result<bool, QueueError> {
        let scalable = self.registers.mode() == root_table::SCALABLE;
        if is_wide && !self.config.scalable_mode || !is_wide && scalable {
            return Err(QueueError::InvalidWidth);
        }
        if !self.registers.queue_tail.is_multiple_of(size) {
            return Err(QueueError::TailAlignment);
        }
        if self.registers.queue_tail >= length {
            return Err(QueueError::InvalidTail);
        }
        let at = (address & spec::vtd::tables::ADDRESS).wrapping_add(self.registers.queue_head);
        let [first, second] = self.read_physical(at).ok_or(QueueError::Fetch)?;
        let upper = if is_wide { self.read_physical(at.wrapping_add(16)).ok_or(QueueError::Fetch)? } else { [0; 2] };
        let kind = DescriptorType::of(first)
            .filter(|kind| self.config.has_descriptor(*kind))
            .ok_or(QueueError::InvalidType)?;
        let reserved = kind.reserved();
        // A page group response carries private data in the upper quadwords.
        let upper_reserved = kind != DescriptorType::PageGroupResponse && upper != [0; 2];
        if first & reserved.0 != 0 || second & reserved.1 != 0 || upper_reserved {
            return Err(QueueError::ReservedField);
        }
        let granularity = first >> GRANULARITY_SHIFT & 3;
        let domain = (first >> DOMAIN_SHIFT) as u16;
        let pasid = (first >> PASID_SHIFT) as u32 & 0xf_ffff;
        let valid = match kind {
            DescriptorType::ContextCache => {
                let source = (first >> SOURCE_SHIFT) as u16;
                self.invalidate_contexts(granularity, domain, source, first >> FUNCTION_MASK_SHIFT)
            }
            DescriptorType::Iotlb => self.invalidate_iotlb(granularity, domain, second),
            DescriptorType::InterruptEntryCache => {
                self.invalidate_interrupts(first);
                true
            }
            DescriptorType::Wait if self.outstanding.invalidations.is_empty() => {
                self.wait(first, second);
                true
            }
            DescriptorType::Wait => {
                self.outstanding.wait = true;
                return Ok(false);
            }
            // Descriptors of the scalable mode.
            DescriptorType::PasidIotlb
            | DescriptorType::PasidCache
            | DescriptorType::PasidDeviceTlb
            | DescriptorType::PageGroupResponse
                if !scalable =>
            {
                return Err(QueueError::InvalidMode);
            }
            DescriptorType::PasidIotlb => self.invalidate_pasid_iotlb(granularity, domain, pasid, second),
            DescriptorType::PasidCache => self.invalidate_pasids(granularity, domain, pasid),
            DescriptorType::DeviceTlb | DescriptorType::PasidDeviceTlb => {
                return Ok(self.invalidate_device(kind, first, second));
            }
            DescriptorType::PageGroupResponse => {
                self.respond(first, second);
                true
            }
        };
        if valid { Ok(true) } else { Err(QueueError::ReservedField) }
    }

    /// The wait descriptor: all before it is complete, for nothing in the unit takes time.
    fn wait(&mut self, first: u64, address: u64) {
        if first & wait::STATUS_WRITE != 0 {
            let data = (first >> wait::DATA_SHIFT) as u32;
            // A status address without memory behind it has nobody to tell.
            let _ = self.write_physical(address, &data.to_le_bytes());
        }
        if first & wait::INTERRUPT != 0 && self.registers.completion & queue::COMPLETE == 0 {
            self.registers.completion |= queue::COMPLETE;
            self.raise_event(Event::Invalidation);
        }
    }
}
