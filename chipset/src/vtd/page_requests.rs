//! Page requests: how recoverable faults of functions with a device TLB come to software, and its answers to them (VT-d, 7.4 to 7.7).

use super::faults::Fault;
use super::registers::Event;
use super::tables::{Context, Way};
use super::{Access, RemappingUnit, Request};
use devices::pci::ats::{Message, PageRequest, ResponseCode};
use spec::vtd::FaultReason;
use spec::vtd::invalidation::{PASID_SHIFT, PASID_SOURCE_SHIFT, granularity, pasid_iotlb_granularity};
use spec::vtd::page_requests::{request as descriptor, response};
use spec::vtd::registers::{GlobalCommand, fault_record, page_queue, queue, root_table};
use spec::vtd::tables::ADDRESS;

impl RemappingUnit {
    /// Takes a page request of a function. One that does not come into the queue is answered at once, if it is the last of its group.
    pub fn page_request(&mut self, source: u16, request: &PageRequest) {
        self.trail.clear();
        if let Err(code) = self.queue_page_request(source, request)
            && request.last
        {
            let PageRequest { attributes, group, .. } = *request;
            self.messages.send(source, Message::Response { pasid: attributes.pasid, group, code });
        }
    }

    fn queue_page_request(&mut self, source: u16, request: &PageRequest) -> Result<(), ResponseCode> {
        let PageRequest { attributes, address, read, write, last, group } = *request;
        if !self.config.page_requests || !self.registers.enabled(GlobalCommand::TRANSLATION) {
            return Err(ResponseCode::Failure);
        }
        let access = Access { read, write, execute: attributes.execute, zero_length: false };
        let as_request = Request {
            pasid: attributes.pasid,
            privileged: attributes.privileged,
            ..Request::new(source, address, access)
        };
        if let Err(fault) = self.check_page_request(&as_request) {
            self.fault_with_type(&as_request, fault, fault_record::PAGE_REQUEST);
            let unreadable = fault.reason.is_of_unreadable_entry();
            return Err(if unreadable { ResponseCode::Failure } else { ResponseCode::Invalid });
        }
        // A function that finds the queue full, or once found it so, tries again: the request is not lost to it.
        if self.registers.page_status & page_queue::OVERFLOW != 0 {
            return Err(ResponseCode::Success);
        }
        let size = 0x1000u64 << (self.registers.page_queue_address & queue::SIZE);
        let tail = self.registers.page_queue_tail % size;
        let next = (tail + descriptor::SIZE) % size;
        if next == self.registers.page_queue_head % size {
            self.raise_page_status(page_queue::OVERFLOW);
            return Err(ResponseCode::Success);
        }
        self.forget_page(&as_request);
        let flag = |on, bit| if on { bit } else { 0 };
        let first = descriptor::TYPE
            | u64::from(source) << descriptor::SOURCE_SHIFT
            | attributes
                .pasid
                .map_or(0, |pasid| descriptor::PASID_PRESENT | u64::from(pasid & 0xf_ffff) << descriptor::PASID_SHIFT)
            | flag(attributes.execute, descriptor::EXECUTE)
            | flag(attributes.privileged, descriptor::PRIVILEGED);
        let second = address & ADDRESS
            | u64::from(group & 0x1ff) << descriptor::GROUP_SHIFT
            | flag(read, descriptor::READ)
            | flag(write, descriptor::WRITE)
            | flag(last, descriptor::LAST);
        let mut bytes = [0; descriptor::SIZE as usize];
        bytes[..8].copy_from_slice(&first.to_le_bytes());
        bytes[8..16].copy_from_slice(&second.to_le_bytes());
        let at = (self.registers.page_queue_address & ADDRESS).wrapping_add(tail);
        if !self.write_physical(at, &bytes) {
            return Err(ResponseCode::Failure);
        }
        self.registers.page_queue_tail = next;
        self.raise_page_status(page_queue::PENDING);
        Ok(())
    }

    /// Whether the function may make page requests, and with this PASID.
    fn check_page_request(&mut self, request: &Request) -> Result<(), Fault> {
        if self.registers.mode() == root_table::LEGACY {
            return Err(Fault::new(FaultReason::PageRequestInLegacyMode));
        }
        let Context::Scalable { page_requests, pasid, disabled, .. } = self.find_context(request.source)? else {
            return Err(Fault::new(FaultReason::InvalidRootTableMode));
        };
        let reason = if !page_requests {
            FaultReason::PageRequestNotEnabled
        } else if request.pasid.is_some() && !pasid {
            FaultReason::PasidNotEnabled
        } else {
            return Ok(());
        };
        Err(Fault::new(reason).under(disabled))
    }

    /// What is kept of a page that does not allow what was wanted is of no use any more.
    fn forget_page(&mut self, request: &Request) {
        // Only the domain is wanted, whatever the privileges.
        let plain = Request { access: Access::READ, privileged: false, ..*request };
        let Ok(resolved) = self.resolve(&plain) else { return };
        match resolved.way {
            Way::First(_) | Way::Nested(..) => {
                let (domain, pasid) = (resolved.domain, resolved.pasid);
                self.invalidate_pasid_iotlb(pasid_iotlb_granularity::PAGES, domain, pasid, request.address & ADDRESS);
            }
            Way::Second(_) => {
                self.invalidate_iotlb(granularity::SELECTIVE, resolved.domain, request.address & ADDRESS);
            }
            Way::PassThrough { .. } => {}
        }
    }

    /// Sets a bit of the page request status. The first one that is set makes an event.
    fn raise_page_status(&mut self, bit: u32) {
        let before = self.registers.page_status;
        self.registers.page_status |= bit;
        if before == 0 {
            self.raise_event(Event::PageRequest);
        }
    }

    /// Software has seen to page requests.
    pub(super) fn clear_page_status(&mut self, value: u32) {
        self.registers.page_status &= !(value & (page_queue::PENDING | page_queue::OVERFLOW));
        if self.registers.page_status == 0 {
            self.registers.event_mut(Event::PageRequest).pending = false;
        }
    }

    /// Carries out a page group response descriptor.
    pub(super) fn respond(&self, first: u64, second: u64) {
        let pasid = (first & response::PASID_PRESENT != 0).then_some((first >> PASID_SHIFT) as u32 & 0xf_ffff);
        let code = ResponseCode::of((first >> response::CODE_SHIFT & 0xf) as u8);
        let group = (second >> response::GROUP_SHIFT & 0x1ff) as u16;
        self.messages.send((first >> PASID_SOURCE_SHIFT) as u16, Message::Response { pasid, group, code });
    }
}
