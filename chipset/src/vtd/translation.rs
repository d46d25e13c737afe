//! Address translation: the second stage, the first stage, and both nested (VT-d, 3.6 to 3.8).

use super::caches::{IotlbKey, Mapping, Rights, Stage, Structure, StructureKey};
use super::faults::{Circumstances, Fault, FaultReport};
use super::tables::{FirstStage, Resolved, SecondStage, Way};
use super::{Access, Blocked, RemappingUnit, Request, RequestKind, Translation};
use spec::vtd::FaultReason;
use spec::vtd::registers::{GlobalCommand, fault_record};
use spec::vtd::tables::{FirstStageEntry, INTERRUPT_RANGE, SecondStageEntry, address_bits};

/// Bits of a paging entry that hold an address.
const PAGE_ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// A page found by a walk.
#[derive(Clone, Copy, Debug)]
struct Leaf {
    target: u64,
    shift: u8,
    rights: Rights,
    /// Writes are allowed but the dirty flag is not set: the right to write is not kept.
    clean: bool,
}

/// What names the tables of a walk in the caches.
#[derive(Clone, Copy, Debug)]
struct Tag {
    domain: u16,
    stage: Stage,
    pasid: u32,
}

/// The reasons of second-stage faults, which have other codes in scalable mode.
struct SecondStageReasons {
    root_access: FaultReason,
    access: FaultReason,
    reserved: FaultReason,
    read: FaultReason,
    write: FaultReason,
    /// Not present; `None` where that is a lack of the permission asked for.
    not_present: Option<FaultReason>,
    beyond: FaultReason,
    interrupt_range: FaultReason,
}

const LEGACY: SecondStageReasons = SecondStageReasons {
    root_access: FaultReason::PagingEntryAccess,
    access: FaultReason::PagingEntryAccess,
    reserved: FaultReason::PagingEntryReserved,
    read: FaultReason::ReadNotPermitted,
    write: FaultReason::WriteNotPermitted,
    not_present: None,
    beyond: FaultReason::AddressBeyondWidth,
    interrupt_range: FaultReason::ToInterruptRange,
};

const SCALABLE: SecondStageReasons = SecondStageReasons {
    root_access: FaultReason::SecondStageRootAccess,
    access: FaultReason::SecondStageAccess,
    reserved: FaultReason::SecondStageReserved,
    read: FaultReason::ScalableReadNotPermitted,
    write: FaultReason::ScalableWriteNotPermitted,
    not_present: Some(FaultReason::SecondStageNotPresent),
    beyond: FaultReason::ScalableAddressBeyondWidth,
    interrupt_range: FaultReason::ScalableToInterruptRange,
};

/// First-stage rights in a [`Structure`]: the bits that all entries so far have.
const FIRST_WRITE: u8 = 1 << 0;
const FIRST_USER: u8 = 1 << 1;
const FIRST_EXECUTE: u8 = 1 << 2;

impl RemappingUnit {
    /// Translates a request of a device. What is blocked is recorded as a fault.
    ///
    /// # Errors
    /// When the request is blocked.
    pub fn translate(&mut self, request: &Request) -> Result<Translation, Blocked> {
        self.trail.clear();
        match self.find(request) {
            Ok(translation) => Ok(translation),
            Err(None) => Err(Blocked { reason: None }),
            Err(Some(fault)) => {
                self.fault(request, fault);
                Err(Blocked { reason: Some(fault.reason) })
            }
        }
    }

    /// Records the fault of a request.
    pub(super) fn fault(&mut self, request: &Request, fault: Fault) {
        let kind = if request.access.write { 0 } else { fault_record::READ };
        self.fault_with_type(request, fault, kind);
    }

    /// Records a fault with the bits that tell the type of the request.
    pub(super) fn fault_with_type(&mut self, request: &Request, fault: Fault, mut bits: u64) {
        let Request { source, address, access, kind, pasid, privileged } = *request;
        bits |= (kind as u64) << fault_record::ADDRESS_TYPE_SHIFT;
        if let Some(pasid) = pasid {
            bits |= u64::from(pasid) << fault_record::PASID_SHIFT | fault_record::PASID_PRESENT;
            bits |= if access.execute { fault_record::EXECUTE } else { 0 };
            bits |= if privileged { fault_record::PRIVILEGED } else { 0 };
        }
        let recorded = self.record(fault, Circumstances { information: address & !0xfff, source, bits });
        self.report(|steps| FaultReport {
            reason: fault.reason,
            source,
            address,
            write: access.write,
            pasid,
            steps,
            recorded,
        });
    }

    /// The translation of a request. `Err(None)`: blocked without a fault.
    pub(super) fn find(&mut self, request: &Request) -> Result<Translation, Option<Fault>> {
        let Request { address, access, .. } = *request;
        let whole =
            |address: u64| Translation { address, length: 0x1000 - (address & 0xfff), shift: 12, rights: Rights::ALL };
        if request.pasid.is_none() && INTERRUPT_RANGE.contains(&address) {
            return Err(Some(Fault::new(FaultReason::InvalidInterruptRequest)));
        }
        if !self.registers.enabled(GlobalCommand::TRANSLATION) {
            // Device TLBs and PASIDs mean nothing then.
            if request.kind != RequestKind::Untranslated || request.pasid.is_some() {
                return Err(None);
            }
            return if self.is_protected(address) { Err(None) } else { Ok(whole(address)) };
        }
        if request.kind == RequestKind::Translated {
            self.check_translated(request)?;
            return Ok(whole(address));
        }
        let resolved = self.resolve(request)?;
        let fault = |reason| Some(Fault::new(reason).under(resolved.disabled));
        let Resolved { domain, way, pasid, privileged, scalable, .. } = resolved;
        let reasons = if scalable { &SCALABLE } else { &LEGACY };
        let tag = match way {
            Way::PassThrough { bits } => {
                let beyond =
                    if scalable { FaultReason::ScalableAddressBeyondHost } else { FaultReason::AddressBeyondWidth };
                let bits = bits.min(self.config.host_address_width.into());
                return if address >> bits == 0 { Ok(whole(address)) } else { Err(fault(beyond)) };
            }
            Way::Second(second) => {
                let bits = address_bits(second.levels).min(self.config.address_width.into());
                if address >> bits != 0 {
                    return Err(fault(reasons.beyond));
                }
                Tag { domain, stage: Stage::Second, pasid: 0 }
            }
            Way::First(_) => Tag { domain, stage: Stage::First, pasid },
            Way::Nested(..) => Tag { domain, stage: Stage::Nested, pasid },
        };
        let mapping = match self.cached(tag, address, access, privileged) {
            Some(mapping) => mapping,
            None => {
                let leaf = match way {
                    Way::Second(second) => self.walk_second(tag, second, address, access, reasons),
                    Way::First(first) => self.walk_first(tag, first, None, address, access, privileged),
                    Way::Nested(first, second) => {
                        self.walk_first(tag, first, Some(second), address, access, privileged)
                    }
                    Way::PassThrough { .. } => unreachable!("returned above"),
                }
                .map_err(fault)?;
                self.keep(tag, address, leaf)
            }
        };
        let (shift, target) = mapping;
        let target_address = target.target | address & ((1 << shift) - 1);
        if INTERRUPT_RANGE.contains(&target_address) {
            return Err(fault(reasons.interrupt_range));
        }
        Ok(Translation { rights: target.rights, shift, ..whole(target_address) })
    }

    /// The address lies in a protected memory region (VT-d, 11.4.12).
    fn is_protected(&self, address: u64) -> bool {
        const LOW: u64 = (1 << 21) - 1;
        let registers = &self.registers;
        let (low, high) = (registers.protected_low, registers.protected_high);
        registers.protected_enable
            && ((u64::from(low.0)..=u64::from(low.1) | LOW).contains(&address)
                || (high.0..=high.1 | LOW).contains(&address))
    }

    /// A kept translation that allows `access`. One that does not is looked up in the tables again.
    fn cached(&self, tag: Tag, address: u64, access: Access, privileged: bool) -> Option<(u8, Mapping)> {
        let Tag { domain, stage, pasid } = tag;
        [12u8, 21, 30].into_iter().find_map(|shift| {
            let key = IotlbKey { domain, stage, pasid, page: address >> shift << shift, shift };
            let mapping = self.caches.iotlb.get(&key)?;
            access.is_allowed(mapping.rights, privileged).then_some((shift, *mapping))
        })
    }

    fn keep(&mut self, tag: Tag, address: u64, leaf: Leaf) -> (u8, Mapping) {
        let Tag { domain, stage, pasid } = tag;
        let Leaf { target, shift, rights, clean } = leaf;
        let kept = if clean {
            Rights(rights.0 & !(Rights::WRITE | Rights::WRITE << Rights::SUPERVISOR_SHIFT))
        } else {
            rights
        };
        let key = IotlbKey { domain, stage, pasid, page: address >> shift << shift, shift };
        self.caches.iotlb.insert(key, Mapping { target, rights: kept });
        (shift, Mapping { target, rights })
    }

    /// The lowest table on the way to `address` that a cache knows, its level and the rights so far.
    fn cached_structure(&self, tag: Tag, address: u64, levels: u32) -> Option<(u32, Structure)> {
        let Tag { domain, stage, pasid } = tag;
        (1..levels).find_map(|level| {
            let shift = 12 + 9 * level;
            let prefix = address >> shift << shift;
            let key = StructureKey { domain, stage, pasid, level: level as u8, prefix };
            self.caches.structures.get(&key).map(|structure| (level, *structure))
        })
    }

    fn keep_structure(&mut self, tag: Tag, address: u64, level: u32, table: u64, rights: Rights) {
        let Tag { domain, stage, pasid } = tag;
        let shift = 12 + 9 * level;
        let key = StructureKey { domain, stage, pasid, level: level as u8, prefix: address >> shift << shift };
        self.caches.structures.insert(key, Structure { table, rights });
    }

    /// Walks the second stage (VT-d, 3.7).
    fn walk_second(
        &mut self,
        tag: Tag,
        second: SecondStage,
        address: u64,
        access: Access,
        reasons: &SecondStageReasons,
    ) -> Result<Leaf, FaultReason> {
        let SecondStage { table, levels, flags } = second;
        let top = Structure { table, rights: Rights::ALL };
        let (mut level, Structure { mut table, mut rights }) =
            self.cached_structure(tag, address, levels).unwrap_or((levels, top));
        loop {
            let at = table + (address >> (12 + 9 * (level - 1)) & 0x1ff) * 8;
            let access_reason = if level == levels { reasons.root_access } else { reasons.access };
            let [entry] = self.fetch(second_stage_name(level), at).ok_or(access_reason)?;
            let is_leaf = level == 1 || level <= 3 && entry & SecondStageEntry::PAGE != 0;
            let denied = if access.write { reasons.write } else { reasons.read };
            if entry & (SecondStageEntry::READ | SecondStageEntry::WRITE) == 0 {
                return Err(reasons.not_present.unwrap_or(denied));
            }
            let large = if is_leaf { (1u64 << (9 * (level - 1))) - 1 } else { 0 } << 12;
            let page_bit = if level > 3 { SecondStageEntry::PAGE } else { 0 };
            let snoop = if is_leaf { 0 } else { SecondStageEntry::SNOOP };
            if entry & (self.beyond_host() & PAGE_ADDRESS | large | page_bit | snoop) != 0 {
                return Err(reasons.reserved);
            }
            let user = (if entry & SecondStageEntry::READ != 0 { Rights::READ | Rights::EXECUTE } else { 0 })
                | if entry & SecondStageEntry::WRITE != 0 { Rights::WRITE } else { 0 };
            rights = rights.and(Rights(user | user << Rights::SUPERVISOR_SHIFT));
            if !access.is_allowed(rights, false) {
                return Err(denied);
            }
            let mut wanted = entry;
            if flags {
                wanted |= SecondStageEntry::ACCESSED;
                wanted |= if is_leaf && access.write { SecondStageEntry::DIRTY } else { 0 };
                if wanted != entry && !self.write_physical(at, &wanted.to_le_bytes()) {
                    return Err(FaultReason::SecondStageFlagsFailed);
                }
            }
            if is_leaf {
                let shift = (12 + 9 * (level - 1)) as u8;
                let target = entry & PAGE_ADDRESS;
                return Ok(Leaf { target, shift, rights, clean: flags && wanted & SecondStageEntry::DIRTY == 0 });
            }
            level -= 1;
            table = entry & PAGE_ADDRESS;
            self.keep_structure(tag, address, level, table, rights);
        }
    }

    /// Walks the first stage (VT-d, 3.6); its tables and its result pass the second stage where there is one (3.8).
    fn walk_first(
        &mut self,
        tag: Tag,
        first: FirstStage,
        second: Option<SecondStage>,
        address: u64,
        access: Access,
        privileged: bool,
    ) -> Result<Leaf, FaultReason> {
        let FirstStage { table, levels, .. } = first;
        let unused = 64 - address_bits(levels);
        if (address << unused) as i64 >> unused != address as i64 {
            return Err(FaultReason::NotCanonical);
        }
        let top = Structure { table, rights: Rights(FIRST_WRITE | FIRST_USER | FIRST_EXECUTE) };
        let (mut level, Structure { mut table, mut rights }) =
            self.cached_structure(tag, address, levels).unwrap_or((levels, top));
        loop {
            let guest_at = table + (address >> (12 + 9 * (level - 1)) & 0x1ff) * 8;
            let at = match second {
                None => guest_at,
                Some(second) => self.table_through_second(tag, second, guest_at, level == levels)?,
            };
            let access_reason =
                if level == levels { FaultReason::FirstStageRootAccess } else { FaultReason::FirstStageAccess };
            let [entry] = self.fetch(first_stage_name(level), at).ok_or(access_reason)?;
            if entry & FirstStageEntry::PRESENT == 0 {
                return Err(FaultReason::FirstStageNotPresent);
            }
            let is_leaf = level == 1 || level <= 3 && entry & FirstStageEntry::PAGE != 0;
            // Bit 12 of a large page's entry is a memory-type bit.
            let large = if is_leaf && level > 1 { ((1u64 << (9 * (level - 1))) - 1) << 12 & !0x1000 } else { 0 };
            let page_bit =
                if level > 3 || level == 3 && !self.config.first_stage_1g() { FirstStageEntry::PAGE } else { 0 };
            let disable = if first.no_execute { 0 } else { FirstStageEntry::NO_EXECUTE };
            let beyond = if second.is_some() { 0 } else { self.beyond_host() & PAGE_ADDRESS };
            if entry & (beyond | large | page_bit | disable) != 0 {
                return Err(FaultReason::FirstStageReserved);
            }
            let bits = (if entry & FirstStageEntry::WRITE != 0 { FIRST_WRITE } else { 0 })
                | (if entry & FirstStageEntry::USER != 0 { FIRST_USER } else { 0 })
                | if entry & FirstStageEntry::NO_EXECUTE == 0 { FIRST_EXECUTE } else { 0 };
            rights = rights.and(Rights(bits));
            if is_leaf {
                let allowed = first_stage_rights(first, rights);
                check_first_stage(allowed, rights, access, privileged)?;
                self.set_flags(tag, second, (guest_at, at), entry, access.write)?;
                let shift = (12 + 9 * (level - 1)) as u8;
                // Of a large page's entry bit 12 is no address.
                let target = (entry & PAGE_ADDRESS) >> shift << shift;
                let clean = !access.write && entry & FirstStageEntry::DIRTY == 0;
                let leaf = Leaf { target, shift, rights: allowed, clean };
                return match second {
                    None => Ok(leaf),
                    Some(second) => self.leaf_through_second(tag, second, leaf, address, access),
                };
            }
            self.set_flags(tag, second, (guest_at, at), entry, false)?;
            level -= 1;
            table = entry & PAGE_ADDRESS;
            self.keep_structure(tag, address, level, table, rights);
        }
    }

    /// Sets the accessed flag of a first-stage entry, and the dirty flag for a write to its page.
    fn set_flags(
        &mut self,
        tag: Tag,
        second: Option<SecondStage>,
        (guest_at, at): (u64, u64),
        entry: u64,
        dirty: bool,
    ) -> Result<(), FaultReason> {
        let wanted = entry | FirstStageEntry::ACCESSED | if dirty { FirstStageEntry::DIRTY } else { 0 };
        if wanted == entry {
            return Ok(());
        }
        if let Some(second) = second {
            let tag = Tag { stage: Stage::Second, pasid: 0, ..tag };
            self.walk_second(tag, second, guest_at, Access::WRITE, &SCALABLE)
                .map_err(|_| FaultReason::FirstStageTableNotWritable)?;
        }
        if self.write_physical(at, &wanted.to_le_bytes()) { Ok(()) } else { Err(FaultReason::FirstStageFlagsFailed) }
    }

    /// Where a first-stage entry at a guest address lies.
    fn table_through_second(
        &mut self,
        tag: Tag,
        second: SecondStage,
        guest: u64,
        is_root: bool,
    ) -> Result<u64, FaultReason> {
        if guest >> address_bits(second.levels).min(self.config.address_width.into()) != 0 {
            return Err(FaultReason::FirstStageTableBeyondWidth);
        }
        let tag = Tag { stage: Stage::Second, pasid: 0, ..tag };
        let leaf = self.walk_second(tag, second, guest, Access::READ, &SCALABLE).map_err(|reason| match reason {
            FaultReason::ScalableReadNotPermitted if is_root => FaultReason::FirstStageRootNotReadable,
            FaultReason::ScalableReadNotPermitted => FaultReason::FirstStageTableNotReadable,
            other => other,
        })?;
        Ok(leaf.target | guest & ((1 << leaf.shift) - 1))
    }

    /// The second stage of a page that the first stage found.
    fn leaf_through_second(
        &mut self,
        tag: Tag,
        second: SecondStage,
        leaf: Leaf,
        address: u64,
        access: Access,
    ) -> Result<Leaf, FaultReason> {
        let guest = leaf.target | address & ((1 << leaf.shift) - 1);
        if guest >> address_bits(second.levels).min(self.config.address_width.into()) != 0 {
            return Err(FaultReason::ScalableAddressBeyondWidth);
        }
        let second_tag = Tag { stage: Stage::Second, pasid: 0, ..tag };
        let inner = self.walk_second(second_tag, second, guest, access, &SCALABLE)?;
        let shift = leaf.shift.min(inner.shift);
        let target = (inner.target | guest & ((1 << inner.shift) - 1)) >> shift << shift;
        let rights = leaf.rights.and(inner.rights);
        Ok(Leaf { target, shift, rights, clean: leaf.clean || inner.clean })
    }
}

/// What the first stage allows by the bits that all entries have.
fn first_stage_rights(first: FirstStage, bits: Rights) -> Rights {
    let has = |bit| bits.0 & bit != 0;
    let mut rights = 0;
    if has(FIRST_USER) {
        rights |= Rights::READ;
        rights |= if has(FIRST_WRITE) { Rights::WRITE } else { 0 };
        rights |= if has(FIRST_EXECUTE) { Rights::EXECUTE } else { 0 };
    }
    let mut supervisor = Rights::READ;
    supervisor |= if has(FIRST_WRITE) || !first.write_protect { Rights::WRITE } else { 0 };
    supervisor |= if has(FIRST_EXECUTE) && !(first.smep && has(FIRST_USER)) { Rights::EXECUTE } else { 0 };
    Rights(rights | supervisor << Rights::SUPERVISOR_SHIFT)
}

fn check_first_stage(allowed: Rights, bits: Rights, access: Access, privileged: bool) -> Result<(), FaultReason> {
    if access.is_allowed(allowed, privileged) {
        Ok(())
    } else if !privileged && bits.0 & FIRST_USER == 0 {
        Err(FaultReason::UserRequestToSupervisorPage)
    } else if access.write && !allowed.allow(Rights::WRITE, privileged) {
        Err(FaultReason::ScalableWriteNotPermitted)
    } else {
        Err(FaultReason::ExecuteNotPermitted)
    }
}

fn second_stage_name(level: u32) -> &'static str {
    ["second-stage PTE", "second-stage PDE", "second-stage PDPE", "second-stage PML4E", "second-stage PML5E"]
        [(level - 1) as usize % 5]
}

fn first_stage_name(level: u32) -> &'static str {
    ["first-stage PTE", "first-stage PDE", "first-stage PDPE", "first-stage PML4E", "first-stage PML5E"]
        [(level - 1) as usize % 5]
}
