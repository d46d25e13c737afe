//! From a source id, and a PASID where there is one, to the way its addresses are translated: root, context and PASID tables (VT-d, 3.4 and 9).

use super::caches::{ContextEntry, ContextKey, PasidEntry, PasidKey};
use super::faults::Fault;
use super::{RemappingUnit, Request, RequestKind};
use spec::vtd::FaultReason;
use spec::vtd::registers::root_table;
use spec::vtd::tables::{
    ADDRESS, FAULT_PROCESSING_DISABLED, PRESENT, address_bits, context, levels_of_width, pasid, pasid_directory, root,
    scalable_context,
};

/// Tables of the second stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SecondStage {
    pub table: u64,
    pub levels: u32,
    /// Accessed and dirty flags are kept.
    pub flags: bool,
}

/// Tables of the first stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FirstStage {
    pub table: u64,
    pub levels: u32,
    /// Supervisor writes obey the write permission.
    pub write_protect: bool,
    /// Execute-disable bits count.
    pub no_execute: bool,
    /// Supervisor requests may not execute user pages.
    pub smep: bool,
}

/// What a context entry says of the kinds of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Context {
    Legacy {
        /// Translation and translated requests are blocked.
        blocks_translated: bool,
        /// Faults are not recorded.
        disabled: bool,
    },
    Scalable {
        device_tlb: bool,
        page_requests: bool,
        /// Requests with PASID are allowed.
        pasid: bool,
        disabled: bool,
    },
}

/// How addresses are translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    PassThrough { bits: u32 },
    Second(SecondStage),
    First(FirstStage),
    Nested(FirstStage, SecondStage),
}

/// What the tables say of a requester.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resolved {
    pub domain: u16,
    pub way: Way,
    /// The PASID in force; 0 in legacy mode.
    pub pasid: u32,
    pub privileged: bool,
    /// Faults are not recorded.
    pub disabled: bool,
    pub scalable: bool,
}

impl RemappingUnit {
    /// What the tables say of `request`'s source and PASID.
    pub(super) fn resolve(&mut self, request: &Request) -> Result<Resolved, Fault> {
        match self.registers.mode() {
            root_table::LEGACY => self.resolve_legacy(request),
            root_table::SCALABLE if self.config.scalable_mode => self.resolve_scalable(request),
            _ => Err(Fault::new(FaultReason::InvalidRootTableMode)),
        }
    }

    /// The context entry of a function, for requests that need no more.
    pub(super) fn find_context(&mut self, source: u16) -> Result<Context, Fault> {
        let disabled = |entry: &ContextEntry| entry[0] & FAULT_PROCESSING_DISABLED != 0;
        match self.registers.mode() {
            root_table::LEGACY => {
                let entry = self.legacy_context(source)?;
                if entry[0] & PRESENT == 0 {
                    return Err(Fault::new(FaultReason::ContextEntryNotPresent).under(disabled(&entry)));
                }
                let kind = entry[0] >> context::TYPE_SHIFT & 3;
                let blocks_translated = kind != context::TYPE_DEVICE_TLB;
                Ok(Context::Legacy { blocks_translated, disabled: disabled(&entry) })
            }
            root_table::SCALABLE if self.config.scalable_mode => {
                let entry = self.scalable_context(source)?;
                if entry[0] & PRESENT == 0 {
                    return Err(Fault::new(FaultReason::ScalableContextEntryNotPresent).under(disabled(&entry)));
                }
                let has = |bit| entry[0] & bit != 0;
                Ok(Context::Scalable {
                    device_tlb: has(scalable_context::DEVICE_TLB),
                    page_requests: has(scalable_context::PAGE_REQUEST_ENABLE),
                    pasid: has(scalable_context::PASID_ENABLE),
                    disabled: disabled(&entry),
                })
            }
            _ => Err(Fault::new(FaultReason::InvalidRootTableMode)),
        }
    }

    fn resolve_legacy(&mut self, request: &Request) -> Result<Resolved, Fault> {
        if request.pasid.is_some() {
            return Err(Fault::new(FaultReason::PasidInLegacyMode));
        }
        let entry = self.legacy_context(request.source)?;
        let disabled = entry[0] & FAULT_PROCESSING_DISABLED != 0;
        let fault = |reason| Fault::new(reason).under(disabled);
        if entry[0] & PRESENT == 0 {
            return Err(fault(FaultReason::ContextEntryNotPresent));
        }
        // Checked when the entry was read.
        let levels = levels_of_width(entry[1] & context::WIDTH).unwrap_or(3);
        let kind = entry[0] >> context::TYPE_SHIFT & 3;
        if request.kind != RequestKind::Untranslated && kind != context::TYPE_DEVICE_TLB {
            return Err(fault(FaultReason::RequestTypeBlocked));
        }
        let table = entry[0] & ADDRESS;
        let way = match kind {
            context::TYPE_PASS_THROUGH => Way::PassThrough { bits: address_bits(levels) },
            _ => Way::Second(SecondStage { table, levels, flags: false }),
        };
        let domain = (entry[1] >> context::DOMAIN_SHIFT) as u16;
        Ok(Resolved { domain, way, pasid: 0, privileged: false, disabled, scalable: false })
    }

    fn legacy_context(&mut self, source: u16) -> Result<ContextEntry, Fault> {
        if let Some(entry) = self.caches.contexts.get(&ContextKey(source)).copied() {
            self.step("context entry", None, &entry[..2]);
            return Ok(entry);
        }
        let at = (self.registers.root_in_force & ADDRESS).wrapping_add(u64::from(source >> 8) * root::SIZE);
        let root: [u64; 2] = self.fetch("root entry", at).ok_or(Fault::new(FaultReason::RootEntryAccess))?;
        if root[0] & PRESENT == 0 {
            return Err(Fault::new(FaultReason::RootEntryNotPresent));
        }
        if root[0] & (root::RESERVED | self.beyond_host()) != 0 || root[1] != 0 {
            return Err(Fault::new(FaultReason::RootEntryReserved));
        }
        let at = (root[0] & ADDRESS) + u64::from(source & 0xff) * context::SIZE;
        let [low, high] = self.fetch("context entry", at).ok_or(Fault::new(FaultReason::ContextEntryAccess))?;
        let entry = [low, high, 0, 0];
        let fault = |reason| Fault::new(reason).under(low & FAULT_PROCESSING_DISABLED != 0);
        if low & PRESENT == 0 {
            if self.config.caching_mode {
                // What is not present is kept under domain id 0.
                self.caches.contexts.insert(ContextKey(source), [low, 0, 0, 0]);
            }
            return Err(fault(FaultReason::ContextEntryNotPresent));
        }
        let kind = low >> context::TYPE_SHIFT & 3;
        let reserved = if kind == context::TYPE_PASS_THROUGH { 0 } else { self.beyond_host() };
        if low & (context::RESERVED_LOW | reserved) != 0 || high & context::RESERVED_HIGH != 0 {
            return Err(fault(FaultReason::ContextEntryReserved));
        }
        let width = levels_of_width(high & context::WIDTH).is_some_and(|levels| self.config.has_levels(levels));
        let device_tlb = kind != context::TYPE_DEVICE_TLB || self.config.device_tlb;
        if !width || !device_tlb || kind > context::TYPE_PASS_THROUGH {
            return Err(fault(FaultReason::InvalidContextEntry));
        }
        self.caches.contexts.insert(ContextKey(source), entry);
        Ok(entry)
    }

    fn resolve_scalable(&mut self, request: &Request) -> Result<Resolved, Fault> {
        let context = self.scalable_context(request.source)?;
        let disabled = context[0] & FAULT_PROCESSING_DISABLED != 0;
        let fault = |reason| Fault::new(reason).under(disabled);
        if context[0] & PRESENT == 0 {
            return Err(fault(FaultReason::ScalableContextEntryNotPresent));
        }
        if request.kind != RequestKind::Untranslated && context[0] & scalable_context::DEVICE_TLB == 0 {
            return Err(fault(FaultReason::DeviceTlbNotEnabled));
        }
        let bits = pasid_directory::TABLE_BITS + 7 + (context[0] >> scalable_context::DIRECTORY_SIZE_SHIFT & 7) as u32;
        let (number, privileged) = match request.pasid {
            Some(_) if context[0] & scalable_context::PASID_ENABLE == 0 => {
                return Err(fault(FaultReason::PasidNotEnabled));
            }
            Some(number) if u64::from(number) >> bits != 0 => return Err(fault(FaultReason::PasidBeyondDirectory)),
            Some(number) => (number, request.privileged),
            None => {
                let number = (context[1] & scalable_context::RID_PASID) as u32;
                if u64::from(number) >> bits != 0 {
                    return Err(fault(FaultReason::RidPasidInvalid));
                }
                (number, context[1] & scalable_context::RID_PRIVILEGE != 0)
            }
        };
        let entry = self.pasid_entry(request.source, number, context[0] & ADDRESS).map_err(|f| f.under(disabled))?;
        let disabled = disabled || entry[0] & FAULT_PROCESSING_DISABLED != 0;
        let fault = |reason| Fault::new(reason).under(disabled);
        if request.access.execute && entry[2] & pasid::EXECUTE_REQUESTS == 0 {
            return Err(fault(FaultReason::ExecuteRequestNotEnabled));
        }
        let kind = entry[0] >> pasid::TYPE_SHIFT & 7;
        let has_first = matches!(kind, pasid::TYPE_FIRST_STAGE | pasid::TYPE_NESTED);
        if privileged && has_first && entry[2] & pasid::SUPERVISOR_REQUESTS == 0 {
            return Err(fault(FaultReason::SupervisorRequestNotEnabled));
        }
        let second = SecondStage {
            table: entry[0] & ADDRESS,
            levels: levels_of_width(entry[0] >> pasid::WIDTH_SHIFT & 7).unwrap_or(3),
            flags: entry[0] & pasid::SECOND_STAGE_ACCESSED_DIRTY != 0,
        };
        let first = FirstStage {
            table: entry[2] & ADDRESS,
            levels: 4 + (entry[2] >> pasid::PAGING_MODE_SHIFT & 1) as u32,
            write_protect: entry[2] & pasid::WRITE_PROTECT != 0,
            no_execute: entry[2] & pasid::NO_EXECUTE != 0,
            smep: entry[2] & pasid::SMEP != 0,
        };
        let way = match kind {
            pasid::TYPE_FIRST_STAGE => Way::First(first),
            pasid::TYPE_SECOND_STAGE => Way::Second(second),
            pasid::TYPE_NESTED => Way::Nested(first, second),
            _ => Way::PassThrough { bits: self.config.host_address_width.into() },
        };
        let domain = (entry[1] & pasid::DOMAIN) as u16;
        Ok(Resolved { domain, way, pasid: number, privileged, disabled, scalable: true })
    }

    pub(super) fn scalable_context(&mut self, source: u16) -> Result<ContextEntry, Fault> {
        if let Some(entry) = self.caches.contexts.get(&ContextKey(source)).copied() {
            self.step("context entry", None, &entry);
            return Ok(entry);
        }
        let at = (self.registers.root_in_force & ADDRESS).wrapping_add(u64::from(source >> 8) * root::SIZE);
        let root: [u64; 2] = self.fetch("root entry", at).ok_or(Fault::new(FaultReason::ScalableRootEntryAccess))?;
        // The lower table has devices 0 to 15, the upper one 16 to 31.
        let half = root[usize::from(source >> 7 & 1)];
        if half & PRESENT == 0 {
            return Err(Fault::new(FaultReason::ScalableRootEntryNotPresent));
        }
        if half & (root::RESERVED | self.beyond_host()) != 0 {
            return Err(Fault::new(FaultReason::ScalableRootEntryReserved));
        }
        let at = (half & ADDRESS) + u64::from(source & 0x7f) * scalable_context::SIZE;
        let access = Fault::new(FaultReason::ScalableContextEntryAccess);
        let entry: [u64; 4] = self.fetch("context entry", at).ok_or(access)?;
        let fault = |reason| Fault::new(reason).under(entry[0] & FAULT_PROCESSING_DISABLED != 0);
        if entry[0] & PRESENT == 0 {
            if self.config.caching_mode {
                self.caches.contexts.insert(ContextKey(source), [entry[0], 0, 0, 0]);
            }
            return Err(fault(FaultReason::ScalableContextEntryNotPresent));
        }
        if entry[0] & (scalable_context::RESERVED_0 | self.beyond_host()) != 0
            || entry[1] & scalable_context::RESERVED_1 != 0
            || entry[2] | entry[3] != 0
        {
            return Err(fault(FaultReason::ScalableContextEntryReserved));
        }
        let unsupported = (if self.config.device_tlb { 0 } else { scalable_context::DEVICE_TLB })
            | if self.config.page_requests { 0 } else { scalable_context::PAGE_REQUEST_ENABLE };
        if entry[0] & unsupported != 0 {
            return Err(fault(FaultReason::InvalidScalableContextEntry));
        }
        self.caches.contexts.insert(ContextKey(source), entry);
        Ok(entry)
    }

    fn pasid_entry(&mut self, source: u16, number: u32, directory: u64) -> Result<PasidEntry, Fault> {
        let key = PasidKey { source, pasid: number };
        if let Some(entry) = self.caches.pasids.get(&key).copied() {
            self.step("PASID table entry", None, &entry);
            return Ok(entry);
        }
        let at = directory + u64::from(number >> pasid_directory::TABLE_BITS) * pasid_directory::SIZE;
        let access = Fault::new(FaultReason::PasidDirectoryAccess);
        let [upper] = self.fetch("PASID directory entry", at).ok_or(access)?;
        let disabled = upper & FAULT_PROCESSING_DISABLED != 0;
        let fault = |reason| Fault::new(reason).under(disabled);
        if upper & PRESENT == 0 {
            return Err(fault(FaultReason::PasidDirectoryNotPresent));
        }
        if upper & (pasid_directory::RESERVED | self.beyond_host()) != 0 {
            return Err(fault(FaultReason::PasidDirectoryReserved));
        }
        let index = u64::from(number & ((1 << pasid_directory::TABLE_BITS) - 1));
        let at = (upper & ADDRESS) + index * pasid::SIZE;
        let whole: [u64; 8] = self.fetch("PASID table entry", at).ok_or(fault(FaultReason::PasidEntryAccess))?;
        let mut entry = [whole[0], whole[1], whole[2]];
        let disabled = disabled || entry[0] & FAULT_PROCESSING_DISABLED != 0;
        let fault = |reason| Fault::new(reason).under(disabled);
        if entry[0] & PRESENT == 0 {
            return Err(fault(FaultReason::PasidEntryNotPresent));
        }
        let kind = entry[0] >> pasid::TYPE_SHIFT & 7;
        let has_first = matches!(kind, pasid::TYPE_FIRST_STAGE | pasid::TYPE_NESTED);
        let has_second = matches!(kind, pasid::TYPE_SECOND_STAGE | pasid::TYPE_NESTED);
        let beyond = self.beyond_host();
        let reserved_0 = pasid::RESERVED_0 | if has_second { beyond } else { 0 };
        // A nested first stage has guest addresses.
        let reserved_2 = pasid::RESERVED_2 | if kind == pasid::TYPE_FIRST_STAGE { beyond } else { 0 };
        if entry[0] & reserved_0 != 0
            || entry[1] & pasid::RESERVED_1 != 0
            || entry[2] & reserved_2 != 0
            || whole[3..].iter().any(|quadword| *quadword != 0)
        {
            return Err(fault(FaultReason::PasidEntryReserved));
        }
        let levels = levels_of_width(entry[0] >> pasid::WIDTH_SHIFT & 7);
        let width = !has_second || levels.is_some_and(|levels| self.config.has_levels(levels));
        let five = self.config.first_stage_5_levels();
        let mode = !has_first || (entry[2] >> pasid::PAGING_MODE_SHIFT & 3) <= u64::from(five);
        let kinds = pasid::TYPE_FIRST_STAGE..=pasid::TYPE_PASS_THROUGH;
        if !kinds.contains(&kind) || !width || !mode || has_first && entry[2] & pasid::EXTENDED_ACCESSED != 0 {
            return Err(fault(FaultReason::InvalidPasidEntry));
        }
        // A directory entry's fault-processing disable counts for the entries below it.
        entry[0] |= if disabled { FAULT_PROCESSING_DISABLED } else { 0 };
        self.caches.pasids.insert(key, entry);
        Ok(entry)
    }

    /// The bits of addresses that are beyond the host address width, below the ignored bits of paging entries.
    pub(super) fn beyond_host(&self) -> u64 {
        !0 << self.config.host_address_width
    }
}
