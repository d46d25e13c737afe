//! The remapping unit, from the operating system's side: its tables and domains. Registers, queue and fault records are
//! [`bare::vtd::Unit`]'s.

use crate::Verdict;
use bare::{memory, vtd};
use spec::vtd::interrupts::RemappingEntry;
use spec::vtd::invalidation::{
    DEVICE_TLB_SIZE, DescriptorType, PASID_DEVICE_TLB_SIZE, PASID_SHIFT, PASID_SOURCE_SHIFT, SOURCE_SHIFT, granularity,
    pasid_granularity, pasid_iotlb_granularity,
};
use spec::vtd::page_requests::{request, response};
use spec::vtd::registers::{self as register, GlobalCommand, page_queue, queue, root_table};
use spec::vtd::tables::{SecondStageEntry, context, pasid, scalable_context};

/// Where the unit's registers are on the machine, as its DMAR table says.
const BASE: u64 = 0xfed9_0000;
/// The vector of page request events.
pub const PAGE_VECTOR: u8 = 0x51;
const READ_WRITE: u64 = SecondStageEntry::READ | SecondStageEntry::WRITE;
const PAGE_ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// How the root table is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Context entries alone.
    Legacy,
    /// Context entries and PASID tables.
    Scalable,
}

/// A page request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who.
    pub source: u16,
    /// The PASID.
    pub pasid: u32,
    /// The page.
    pub address: u64,
    /// It is to be written.
    pub write: bool,
    /// The group.
    pub group: u16,
}

/// A domain: tables of the second stage.
#[derive(Clone, Copy, Debug)]
pub struct Domain {
    /// Its number.
    pub number: u16,
    top: u64,
}

/// The unit.
#[derive(Debug)]
pub struct Unit {
    /// How it translates.
    pub mode: Mode,
    /// What every owner of a unit does with it.
    pub hardware: vtd::Unit,
    contexts: u64,
    interrupts: u64,
    pages: u64,
}

impl Unit {
    /// Turns the unit on, with nobody in a domain: nothing reaches memory.
    ///
    /// # Errors
    /// When the unit does not do it.
    pub fn start(mode: Mode) -> Result<Unit, &'static str> {
        let [root, contexts, interrupts, pages] = [(); 4].map(|()| memory::take_pages(1));
        memory::write(root, contexts | 1);
        let kind = if mode == Mode::Scalable { root_table::SCALABLE } else { root_table::LEGACY };
        let mut hardware = vtd::Unit::new(BASE, mode == Mode::Scalable);
        hardware.set_root_table(root | kind << root_table::MODE_SHIFT)?;
        hardware.start_queue()?;
        // 256 entries.
        hardware.set_interrupt_table(interrupts | 7)?;
        hardware.command(GlobalCommand::INTERRUPT_REMAPPING, true)?;
        hardware.write64(register::PAGE_QUEUE_HEAD, 0);
        hardware.write64(register::PAGE_QUEUE_TAIL, 0);
        hardware.write64(register::PAGE_QUEUE_ADDRESS, pages);
        hardware.set_event(register::PAGE_EVENT_CONTROL, 0xfee0_0000, PAGE_VECTOR.into());
        hardware.command(GlobalCommand::TRANSLATION, true)?;
        let mut unit = Unit { mode, hardware, contexts, interrupts, pages };
        unit.forget_everything()?;
        Ok(unit)
    }

    /// Puts the function `source` into a new domain.
    ///
    /// # Errors
    /// When an invalidation is not carried out.
    pub fn new_domain(&mut self, source: u16, number: u16) -> Result<Domain, &'static str> {
        let top = memory::take_pages(1);
        match self.mode {
            Mode::Legacy => {
                let at = self.context(source);
                memory::write(at + 8, u64::from(number) << context::DOMAIN_SHIFT | 2);
                memory::write(at, top | 1);
            }
            Mode::Scalable => {
                let (directory, table) = (memory::take_pages(1), memory::take_pages(1));
                memory::write(directory, table | 1);
                let at = self.context(source);
                memory::write(at + 8, 0);
                memory::write(at, directory | scalable_context::PASID_ENABLE | 1);
                // Requests without PASID have PASID 0.
                memory::write(table + 8, number.into());
                let kind = pasid::TYPE_SECOND_STAGE << pasid::TYPE_SHIFT | 2 << pasid::WIDTH_SHIFT;
                memory::write(table, top | kind | 1);
            }
        }
        self.forget_everything()?;
        Ok(Domain { number, top })
    }

    /// The context entry of a function among the first sixteen devices.
    fn context(&self, source: u16) -> u64 {
        let size = match self.mode {
            Mode::Legacy => context::SIZE,
            Mode::Scalable => scalable_context::SIZE,
        };
        self.contexts + u64::from(source & 0x7f) * size
    }

    /// Allows the function translation requests, translated ones and page requests, or forbids them.
    ///
    /// # Errors
    /// As [`Self::new_domain`].
    pub fn allow_device_tlb(&mut self, source: u16, on: bool) -> Verdict {
        let at = self.context(source);
        let bits = match self.mode {
            Mode::Legacy => context::TYPE_DEVICE_TLB << context::TYPE_SHIFT,
            Mode::Scalable => scalable_context::DEVICE_TLB | scalable_context::PAGE_REQUEST_ENABLE,
        };
        memory::write(at, if on { memory::read(at) | bits } else { memory::read(at) & !bits });
        self.forget_everything()
    }

    /// Gives PASID `number` of the function the address space with these tables of the first stage.
    ///
    /// # Errors
    /// As [`Self::new_domain`].
    pub fn bind(&mut self, source: u16, number: u32, domain: u16, table: u64) -> Verdict {
        let directory = memory::read(self.context(source)) & PAGE_ADDRESS;
        let at = (memory::read(directory) & PAGE_ADDRESS) + u64::from(number) * pasid::SIZE;
        memory::write(at + 8, domain.into());
        memory::write(at + 16, table);
        memory::write(at, pasid::TYPE_FIRST_STAGE << pasid::TYPE_SHIFT | 1);
        self.forget_everything()
    }

    /// Maps a page of a domain. What was not there needs no invalidation.
    pub fn map(&self, domain: &Domain, address: u64, target: u64) {
        let at = entry(domain.top, address, READ_WRITE);
        memory::write(at, target | READ_WRITE);
    }

    /// Takes a page out of a domain, without telling anybody.
    pub fn unmap(&self, domain: &Domain, address: u64) {
        memory::write(entry(domain.top, address, READ_WRITE), 0);
    }

    /// An interrupt-remapping entry.
    ///
    /// # Errors
    /// As [`Self::new_domain`].
    pub fn remap(&mut self, index: u64, entry: RemappingEntry) -> Verdict {
        memory::write(self.interrupts + 16 * index + 8, entry.high);
        memory::write(self.interrupts + 16 * index, entry.low);
        self.hardware.submit(DescriptorType::InterruptEntryCache as u64, 0);
        self.hardware.wait()
    }

    /// Invalidates the caches of the unit.
    ///
    /// # Errors
    /// As [`vtd::Unit::wait`].
    pub fn forget_everything(&mut self) -> Verdict {
        self.hardware.submit(DescriptorType::ContextCache as u64 | granularity::GLOBAL << 4, 0);
        if self.mode == Mode::Scalable {
            self.hardware.submit(DescriptorType::PasidCache as u64 | pasid_granularity::GLOBAL << 4, 0);
        }
        self.hardware.submit(DescriptorType::Iotlb as u64 | granularity::GLOBAL << 4, 0);
        self.hardware.wait()
    }

    /// Invalidates what the unit keeps of a PASID's address space.
    ///
    /// # Errors
    /// As [`vtd::Unit::wait`].
    pub fn forget_pasid(&mut self, domain: u16, number: u32) -> Verdict {
        let kind = DescriptorType::PasidIotlb as u64 | pasid_iotlb_granularity::PASID << 4;
        self.hardware.submit(kind | u64::from(domain) << 16 | u64::from(number) << PASID_SHIFT, 0);
        self.hardware.wait()
    }

    /// Submits an invalidation of all that a function's TLB keeps, of requests without PASID or of one PASID.
    pub fn submit_device_invalidation(&mut self, source: u16, number: Option<u32>) {
        /// All addresses: every bit of the address but the last is 1.
        const ALL: u64 = 0x7fff_ffff_ffff_f000;
        let source = u64::from(source);
        match number {
            None => {
                self.hardware.submit(DescriptorType::DeviceTlb as u64 | source << SOURCE_SHIFT, ALL | DEVICE_TLB_SIZE);
            }
            Some(number) => {
                let first = DescriptorType::PasidDeviceTlb as u64 | source << PASID_SOURCE_SHIFT;
                self.hardware.submit(first | u64::from(number) << PASID_SHIFT, ALL | PASID_DEVICE_TLB_SIZE);
            }
        }
    }

    /// The source id of the function that has not answered.
    #[must_use]
    pub fn silent_source(&self) -> u16 {
        (self.hardware.read64(register::QUEUE_ERROR) >> queue::TIMEOUT_SOURCE_SHIFT) as u16
    }

    /// PRS_REG.
    #[must_use]
    pub fn page_status(&self) -> u32 {
        self.hardware.read32(register::PAGE_REQUEST_STATUS)
    }

    /// Clears bits of it.
    pub fn clear_page_status(&self, bits: u32) {
        self.hardware.write32(register::PAGE_REQUEST_STATUS, bits);
    }

    /// The oldest page request.
    pub fn take_request(&self) -> Option<Request> {
        self.clear_page_status(page_queue::PENDING);
        let head = self.hardware.read64(register::PAGE_QUEUE_HEAD);
        if head == self.hardware.read64(register::PAGE_QUEUE_TAIL) {
            return None;
        }
        let (first, second) = (memory::read(self.pages + head), memory::read(self.pages + head + 8));
        self.hardware.write64(register::PAGE_QUEUE_HEAD, (head + request::SIZE) % memory::PAGE);
        Some(Request {
            source: (first >> request::SOURCE_SHIFT) as u16,
            pasid: (first >> request::PASID_SHIFT) as u32 & 0xf_ffff,
            address: second & PAGE_ADDRESS,
            write: second & request::WRITE != 0,
            group: (second >> request::GROUP_SHIFT & 0x1ff) as u16,
        })
    }

    /// Answers the group of a page request.
    ///
    /// # Errors
    /// As [`vtd::Unit::wait`].
    pub fn respond(&mut self, request: &Request, code: u8) -> Verdict {
        let first = DescriptorType::PageGroupResponse as u64
            | response::PASID_PRESENT
            | u64::from(request.source) << PASID_SOURCE_SHIFT
            | u64::from(request.pasid) << PASID_SHIFT
            | u64::from(code) << response::CODE_SHIFT;
        self.hardware.submit(first, u64::from(request.group) << response::GROUP_SHIFT);
        self.hardware.wait()
    }
}

/// Where the last entry for `address` lies, below a top table of 4 levels; tables on the way are made, with these flags in their entries.
#[must_use]
pub fn entry(top: u64, address: u64, flags: u64) -> u64 {
    let mut table = top;
    for level in (1..4).rev() {
        let at = table + (address >> (12 + 9 * level) & 0x1ff) * 8;
        if memory::read(at) == 0 {
            memory::write(at, memory::take_pages(1) | flags);
        }
        table = memory::read(at) & PAGE_ADDRESS;
    }
    table + (address >> 12 & 0x1ff) * 8
}
