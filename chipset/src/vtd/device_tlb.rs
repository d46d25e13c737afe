//! Address translation services: translations for device TLBs, and how these are told to forget them (VT-d, 4.1 and 6.5.2.5 to 6.5.2.9).
//!
//! An invalidation request leaves as a message; the function completes it when it can. Until then wait descriptors wait, for a limited time.

use super::faults::Fault;
use super::tables::Context;
use super::{Access, RemappingUnit, Request, RequestKind};
use devices::pci::ats::{Message, TranslationCompletion, TranslationError, TranslationRequest};
use devices::ports::Nanoseconds;
use serde::{Deserialize, Serialize};
use spec::vtd::FaultReason;
use spec::vtd::invalidation::{
    DEVICE_TLB_GLOBAL, DEVICE_TLB_SIZE, DescriptorType, PASID_DEVICE_TLB_SIZE, PASID_SHIFT, PASID_SOURCE_SHIFT,
    SOURCE_SHIFT,
};
use spec::vtd::registers::{FaultStatus, queue};
use spec::vtd::tables::INTERRUPT_RANGE;

/// How long a function may take for an invalidation. The specification leaves it to the unit (PCI Express allows functions a minute).
pub const TIMEOUT: Nanoseconds = 10_000_000;
/// How many invalidations can be outstanding: tags have five bits.
const TAGS: usize = 32;

/// Messages to functions, by source id.
pub trait DeviceMessages: Send {
    /// Sends `message` to the function `source`; it arrives after the unit has returned.
    fn send(&self, source: u16, message: Message);
}

/// An invalidation that its function has not completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Invalidation {
    source: u16,
    tag: u8,
    deadline: Nanoseconds,
}

/// What functions have yet to answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Outstanding {
    pub(super) invalidations: Vec<Invalidation>,
    /// The queue stands at a wait descriptor because of them.
    pub(super) wait: bool,
}

/// The range of addresses in a device-TLB descriptor: with the size bit, the address bits above 11 end in a zero and as many ones as the
/// range has doublings of two pages.
fn range(address: u64, has_size: bool) -> (u64, u64) {
    let first = address & !0xfff;
    if !has_size {
        return (first, first | 0xfff);
    }
    let ones = (!(first >> 12)).trailing_zeros().min(52);
    let size = 1u64.checked_shl(13 + ones).map_or(u64::MAX, |size| size - 1);
    (first & !size, first | size)
}

impl RemappingUnit {
    /// Answers the translation request of a function. What it may not do is no error: it is what the completion says.
    ///
    /// # Errors
    /// When there is no translation to be had; this is recorded as a fault.
    pub fn translation_request(
        &mut self,
        source: u16,
        request: &TranslationRequest,
    ) -> Result<TranslationCompletion, TranslationError> {
        let TranslationRequest { attributes, address, no_write } = *request;
        let mut completion = TranslationCompletion { address, shift: 12, read: false, write: false, execute: false };
        if attributes.pasid.is_none() && INTERRUPT_RANGE.contains(&address) {
            return Ok(completion);
        }
        let execute = Access { execute: true, ..Access::READ };
        for access in [attributes.execute.then_some(execute), Some(Access::READ), (!no_write).then_some(Access::WRITE)]
            .into_iter()
            .flatten()
        {
            let request = Request {
                kind: RequestKind::Translation,
                pasid: attributes.pasid,
                privileged: attributes.privileged,
                ..Request::new(source, address, access)
            };
            self.trail.clear();
            match self.find(&request) {
                Ok(found) => {
                    completion.shift = found.shift;
                    completion.address = found.address >> found.shift << found.shift;
                    completion.read |= access.read;
                    completion.write |= access.write;
                    completion.execute |= access.execute;
                }
                Err(None) => return Err(TranslationError::Unsupported),
                Err(Some(fault)) if fault.reason.is_recoverable() => {}
                Err(Some(fault)) => {
                    self.fault(&request, fault);
                    let unreadable = fault.reason.is_of_unreadable_entry();
                    return Err(if unreadable { TranslationError::Aborted } else { TranslationError::Unsupported });
                }
            }
        }
        Ok(completion)
    }

    /// A translated request goes where it says, if its function may make such requests.
    pub(super) fn check_translated(&mut self, request: &Request) -> Result<(), Option<Fault>> {
        let (reason, disabled) = match self.find_context(request.source)? {
            Context::Legacy { blocks_translated: true, disabled } => (FaultReason::RequestTypeBlocked, disabled),
            Context::Scalable { device_tlb: false, disabled, .. } => (FaultReason::DeviceTlbNotEnabled, disabled),
            _ => return Ok(()),
        };
        Err(Some(Fault::new(reason).under(disabled)))
    }

    /// Carries out a device-TLB descriptor. False: it must wait until some invalidation is completed.
    pub(super) fn invalidate_device(&mut self, kind: DescriptorType, first: u64, second: u64) -> bool {
        let outstanding = &mut self.outstanding.invalidations;
        let is_free = |tag: &u8| !outstanding.iter().any(|other| other.tag == *tag);
        let Some(tag) = (0..TAGS as u8).find(is_free) else { return false };
        let (source, pasid, global, has_size) = if kind == DescriptorType::PasidDeviceTlb {
            let global = second & DEVICE_TLB_GLOBAL != 0;
            let pasid = (first >> PASID_SHIFT) as u32 & 0xf_ffff;
            ((first >> PASID_SOURCE_SHIFT) as u16, Some(pasid), global, second & PASID_DEVICE_TLB_SIZE != 0)
        } else {
            ((first >> SOURCE_SHIFT) as u16, None, false, second & DEVICE_TLB_SIZE != 0)
        };
        let deadline = self.clock.now().saturating_add(TIMEOUT);
        outstanding.push(Invalidation { source, tag, deadline });
        let (first, last) = range(second, has_size);
        self.messages.send(source, Message::Invalidate { tag, pasid, global, first, last });
        self.set_alarm();
        true
    }

    /// The functions that have yet to complete invalidations, once for each.
    pub(super) fn silent_functions(&self) -> impl Iterator<Item = u16> {
        self.outstanding.invalidations.iter().map(|invalidation| invalidation.source)
    }

    /// A function has completed the invalidation with this tag.
    pub fn invalidated(&mut self, source: u16, tag: u8) {
        let outstanding = &mut self.outstanding.invalidations;
        match outstanding.iter().position(|other| (other.source, other.tag) == (source, tag)) {
            Some(index) => {
                outstanding.remove(index);
                self.set_alarm();
                self.run_queue();
            }
            None => self.queue_fault(FaultStatus::COMPLETION_ERROR, queue::COMPLETION_SOURCE_SHIFT, source),
        }
    }

    /// Gives up invalidations whose time is over: wait descriptors are aborted, and the queue stands until software has seen it.
    pub(super) fn expire(&mut self, now: Nanoseconds) {
        let expired = self.outstanding.invalidations.iter().find(|other| other.deadline <= now).copied();
        self.outstanding.invalidations.retain(|other| other.deadline > now);
        self.set_alarm();
        if let Some(Invalidation { source, .. }) = expired {
            self.queue_fault(FaultStatus::TIMEOUT_ERROR, queue::TIMEOUT_SOURCE_SHIFT, source);
            if std::mem::take(&mut self.outstanding.wait) {
                self.advance_queue();
            }
        }
    }

    fn queue_fault(&mut self, bit: u32, shift: u32, source: u16) {
        let error = &mut self.registers.queue_error;
        *error = *error & !(0xffff << shift) | u64::from(source) << shift;
        self.raise_fault_status(bit);
    }

    pub(super) fn set_alarm(&self) {
        self.clock.set_alarm(self.outstanding.invalidations.iter().map(|other| other.deadline).min());
    }
}

#[cfg(test)]
mod tests {
    use super::range;

    #[test]
    fn the_lowest_zero_of_the_address_tells_the_size() {
        assert_eq!(range(0x5000, false), (0x5000, 0x5fff));
        assert_eq!(range(0x4000, true), (0x4000, 0x5fff));
        assert_eq!(range(0x7000, true), (0, 0xffff));
        assert_eq!(range(0x20_0000 | 0xff << 12, true), (0x20_0000, 0x3f_ffff));
        assert_eq!(range(0x7fff_ffff_ffff_f000, true), (0, u64::MAX));
        assert_eq!(range(u64::MAX, true), (0, u64::MAX));
    }
}
