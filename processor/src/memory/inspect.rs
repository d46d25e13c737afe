//! Walks for people: from a linear address to memory, entry by entry, changing nothing.
//!
//! The walk of [`super::paging`] sets accessed and dirty flags, raises faults and makes VM exits. This one reads memory only, and keeps what
//! it saw and which bit stopped it. A test compares the two.

use super::paging::{Kind, Page, Purpose, RESTART};
use super::tlb;
use crate::cpu::{Cpu, Mode};
use crate::vmx::Controls;
use crate::vmx::ept::{self, Access, Failure, PhysicalMemory, Translation};
use spec::vmx::ept::{EptEntry, Eptp};
use spec::x86::paging::Entry;
use spec::x86::{Cr0, Cr3, Cr4};

/// An entry that a walk went through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// 5 for a PML5 entry, down to 1 for a page table's.
    pub level: u8,
    /// Bytes: 4 with 32-bit paging, else 8.
    pub width: u8,
    /// The guest-physical address of the entry; `None` for a PDPTE register of PAE paging.
    pub address: Option<u64>,
    /// The entry; all ones where there is no memory.
    pub entry: u64,
    /// How the entry's address went through EPT, when that is in use.
    pub ept: Option<EptWalk>,
}

/// An EPT entry that a walk went through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EptStep {
    /// 5 or 4 at the top, 1 for a page table's.
    pub level: u8,
    /// The physical address of the entry.
    pub address: u64,
    /// The entry.
    pub entry: u64,
}

/// A walk through EPT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EptWalk {
    /// The EPT pointer.
    pub eptp: u64,
    /// The guest-physical address.
    pub guest_physical: u64,
    /// What was to be done there.
    pub access: Access,
    /// The entries, from the top.
    pub steps: Vec<EptStep>,
    /// How it ended.
    pub result: Result<Translation, Failure>,
}

/// Why a linear address does not translate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The address is not canonical.
    NotCanonical,
    /// P is 0 in the last entry.
    NotPresent,
    /// These bits of the last entry are reserved and set.
    Reserved(u64),
    /// A user-mode access, and U/S is 0 somewhere on the way.
    NotUser,
    /// A write, and R/W is 0 somewhere on the way.
    NotWritable,
    /// A fetch, and XD is 1 somewhere on the way.
    ExecuteDisabled,
    /// A supervisor-mode fetch from a user-mode page with CR4.SMEP.
    Smep,
    /// A supervisor-mode access to a user-mode page with CR4.SMAP and RFLAGS.AC = 0.
    Smap,
    /// A shadow-stack access to a page that is no shadow-stack page of its privilege.
    NotShadowStack,
    /// The protection key of the page denies the access.
    ProtectionKey,
    /// EPT stopped the access to the last entry, or to the page itself.
    Ept,
}

/// A walk from a linear address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// The linear address.
    pub linear: u64,
    /// The access.
    pub kind: Kind,
    /// The access class, as in [`tlb`].
    pub class: usize,
    /// Entries, from the top; none with paging off.
    pub steps: Vec<Step>,
    /// The guest-physical address, or what is in the way.
    pub guest_physical: Result<u64, Obstacle>,
    /// How that address went through EPT, when it is in use.
    pub ept: Option<EptWalk>,
}

impl Walk {
    /// The physical address of the byte, if the walk got there.
    #[must_use]
    pub fn physical(&self) -> Option<u64> {
        let guest = self.guest_physical.ok()?;
        match &self.ept {
            Some(walk) => walk.result.as_ref().ok().map(|translation| translation.physical),
            None => Some(guest),
        }
    }
}

/// Memory as a walk reads it: remembers the reads, ignores the writes.
struct Recorder<'a> {
    cpu: &'a Cpu,
    reads: Vec<(u64, u64)>,
}

impl PhysicalMemory for Recorder<'_> {
    fn load(&mut self, address: u64) -> u64 {
        let value = self.cpu.peek_physical::<8>(address).unwrap_or(u64::MAX);
        self.reads.push((address, value));
        value
    }
    fn replace(&mut self, _address: u64, _old: u64, _new: u64) -> bool {
        true
    }
    fn may_set_flags(&mut self) -> bool {
        true
    }
    fn log(&mut self, _address: u64) {}
}

impl Cpu {
    /// Reads memory at a physical address; `None` where there is none. Devices are not disturbed.
    #[must_use]
    pub fn peek_physical<const N: usize>(&self, physical: u64) -> Option<u64> {
        self.map.lookup(physical).map(|(offset, _)| self.ram.load::<N>(offset))
    }

    /// Reads memory at a linear address as the code that runs now would; gives how many bytes could be read.
    #[must_use]
    pub fn peek_linear(&self, linear: u64, bytes: &mut [u8]) -> usize {
        let mut page = None;
        for (n, byte) in bytes.iter_mut().enumerate() {
            let at = linear.wrapping_add(n as u64);
            if page.is_none() || at & 0xfff == 0 {
                // A debugger may look at user pages whatever SMAP says.
                page = self.inspect_linear(at, Kind::Read, tlb::SUPERVISOR_AC).physical();
                page = page.map(|physical| physical & !0xfff);
            }
            match page.and_then(|page| self.peek_physical::<1>(page | at & 0xfff)) {
                Some(value) => *byte = value as u8,
                None => return n,
            }
        }
        bytes.len()
    }

    /// The access class of an access that the running code makes at privilege level 3 (`user`) or below.
    #[must_use]
    pub fn access_class_of(&self, user: bool) -> usize {
        if user {
            tlb::USER
        } else if self.rflags & crate::flags::AC != 0 && self.cr4 & Cr4::SMAP != 0 {
            tlb::SUPERVISOR_AC
        } else {
            tlb::SUPERVISOR
        }
    }

    /// The walk of guest-physical `address` through the tables of `eptp`.
    #[must_use]
    pub fn inspect_ept(&self, eptp: u64, address: u64, access: Access) -> EptWalk {
        let mut recorder = Recorder { cpu: self, reads: Vec::new() };
        let controls = if self.vmx.non_root { self.vmx.controls } else { Controls::of(&self.vmx.vmcs) };
        let result = ept::translate(&mut recorder, Eptp(eptp), address, access, self.ept_rules(&controls));
        // What was read after the last entry are sub-page permissions.
        let top = Eptp(eptp).walk_length();
        let mut ended = false;
        let steps = (recorder.reads.iter().zip((1..=top).rev()))
            .map(|(&(address, entry), level)| EptStep { level, address, entry })
            .take_while(|step| !std::mem::replace(&mut ended, step.level < 4 && step.entry & EptEntry::PAGE != 0))
            .collect();
        EptWalk { eptp, guest_physical: address, access, steps, result }
    }

    fn inspect_guest_physical(&self, address: u64, kind: Kind, purpose: Purpose) -> Option<EptWalk> {
        let eptp = self.vmx.eptp;
        (eptp != 0).then(|| self.inspect_ept(eptp, address, self.ept_access(kind, purpose)))
    }

    /// The walk of `linear` in the translation context that is now in force, for an access of `kind` in access class `class`.
    #[must_use]
    pub fn inspect_linear(&self, linear: u64, kind: Kind, class: usize) -> Walk {
        let mut walk = Walk { linear, kind, class, steps: Vec::new(), guest_physical: Ok(linear), ept: None };
        let mut page = Page::ALL;
        if self.paging() {
            walk.guest_physical = if self.mode == Mode::Long64 && !self.is_canonical(linear) {
                Err(Obstacle::NotCanonical)
            } else {
                self.inspect_tables(&mut walk, &mut page)
            };
        }
        if let Ok(address) = walk.guest_physical {
            walk.ept = self.inspect_guest_physical(address, kind, Purpose::Page(linear, page));
        }
        walk
    }

    fn inspect_tables(&self, walk: &mut Walk, page: &mut Page) -> Result<u64, Obstacle> {
        let (linear, kind, class) = (walk.linear, walk.kind, walk.class);
        let (wide, long) = (self.cr4 & Cr4::PAE != 0, self.long_mode());
        let width_mask = ((1u64 << self.physical_bits) - 1) & !0xfff;
        let mut reserved = if wide { !width_mask & ((1 << 52) - 1) & !0xfff } else { 0 };
        if wide && !self.execute_disable() {
            reserved |= Entry::XD;
        }
        let (width, index_bits) = if wide { (8, 9) } else { (4, 10) };
        let (mut table, mut level) = match (wide, long) {
            (false, _) => (self.cr3 & 0xffff_f000, 2),
            (true, true) => (self.cr3 & width_mask, if self.cr4 & Cr4::LA57 != 0 { 5 } else { 4 }),
            (true, false) => {
                let entry = self.pdptes[(linear >> 30) as usize & 3];
                walk.steps.push(Step { level: 3, width: 8, address: None, entry, ept: None });
                if entry & Entry::P == 0 {
                    return Err(Obstacle::NotPresent);
                }
                reserved |= 0x7ff0_0000_0000_0000;
                (entry & width_mask, 2)
            }
        };
        let ordinary = (table, level);
        let hlat = if long { self.hlat_pointer(linear) } else { None };
        let mut in_hlat = hlat.is_some();
        table = hlat.map_or(table, |pointer| pointer & width_mask);
        let mut writable_above;
        let (entry, shift) = loop {
            let shift = 12 + index_bits * (u32::from(level) - 1);
            let index = linear >> shift & ((1 << index_bits) - 1);
            let address = table + index * u64::from(width);
            let ept = self.inspect_guest_physical(address, Kind::Read, Purpose::Table(linear));
            let physical = match &ept {
                Some(nested) => nested.result.as_ref().ok().map(|translation| translation.physical),
                None => Some(address),
            };
            let Some(physical) = physical else {
                walk.steps.push(Step { level, width, address: Some(address), entry: 0, ept });
                return Err(Obstacle::Ept);
            };
            let entry = if wide {
                self.peek_physical::<8>(physical).unwrap_or(u64::MAX)
            } else {
                self.peek_physical::<4>(physical).unwrap_or(0xffff_ffff)
            };
            let paging_write = |walk: &EptWalk| walk.result.is_ok_and(|t| t.entry & EptEntry::PAGING_WRITE != 0);
            page.verified &= ept.as_ref().is_none_or(paging_write);
            walk.steps.push(Step { level, width, address: Some(address), entry, ept });
            if entry & Entry::P == 0 {
                return Err(Obstacle::NotPresent);
            }
            if in_hlat && entry & RESTART != 0 {
                in_hlat = false;
                (table, level) = ordinary;
                *page = Page::ALL;
                continue;
            }
            let large = entry & Entry::PS != 0 && level > 1 && (wide || self.cr4 & Cr4::PSE != 0);
            let bad = entry & (reserved | self.large_page_reserved(large, wide, level, shift));
            if bad != 0 {
                return Err(Obstacle::Reserved(bad));
            }
            page.user &= entry & Entry::US != 0;
            writable_above = page.writable;
            page.writable &= entry & Entry::RW != 0;
            page.no_execute |= wide && entry & Entry::XD != 0;
            if level == 1 || large {
                break (entry, shift);
            }
            table = entry & if wide { width_mask } else { 0xffff_f000 };
            level -= 1;
        };
        let address = if wide {
            entry & width_mask
        } else if level == 2 {
            entry & 0xffc0_0000 | (entry >> 13 & 0xff) << 32
        } else {
            entry & 0xffff_f000
        };
        let offset = (1u64 << shift) - 1;
        if kind.is_shadow() {
            let shadow = writable_above && entry & (Entry::RW | Entry::D) == Entry::D;
            if !shadow || page.user != (class == tlb::USER) {
                return Err(Obstacle::NotShadowStack);
            }
        }
        self.obstacle_of_rights(kind, class, *page, entry)?;
        Ok(address & !offset | linear & offset)
    }

    /// Bits that a large page's entry must not have set.
    fn large_page_reserved(&self, large: bool, wide: bool, level: u8, shift: u32) -> u64 {
        match (large, wide) {
            (false, _) => 0,
            (true, true) if level > 3 => Entry::PS,
            (true, true) => ((1 << shift) - 1) & !0x1fff,
            (true, false) => {
                let wide = (u32::from(self.physical_bits)).min(40) - 32;
                0x003f_e000u64 >> 13 >> wide << wide << 13 & 0x003f_e000
            }
        }
    }

    fn obstacle_of_rights(&self, kind: Kind, class: usize, page: Page, entry: u64) -> Result<(), Obstacle> {
        let Page { user, writable, no_execute, .. } = page;
        let by_user = class == tlb::USER;
        let write_matters = by_user || self.cr0 & Cr0::WP != 0;
        let need = |holds: bool, obstacle| if holds { Ok(()) } else { Err(obstacle) };
        need(!by_user || user, Obstacle::NotUser)?;
        if kind == Kind::Execute {
            need(by_user || !user || self.cr4 & Cr4::SMEP == 0, Obstacle::Smep)?;
            return need(!no_execute, Obstacle::ExecuteDisabled);
        }
        let reachable = by_user || !user || self.cr4 & Cr4::SMAP == 0 || class == tlb::SUPERVISOR_AC;
        need(reachable, Obstacle::Smap)?;
        need(kind != Kind::Write || writable || !write_matters, Obstacle::NotWritable)?;
        if self.long_mode() {
            let (reads, writes) = self.key_rights(user, entry, class);
            need(if kind.writes() { writes } else { reads }, Obstacle::ProtectionKey)?;
        }
        Ok(())
    }

    /// The table at which a walk begins, for a picture of it: CR3, and the EPT pointer (0: none).
    #[must_use]
    pub fn roots(&self) -> (u64, u64) {
        let mask = if self.long_mode() { Entry::ADDRESS } else { Cr3::PAE_TABLE };
        (self.cr3 & mask, self.vmx.eptp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Machine, PAGE_TABLES};
    use crate::trap::Trap;
    use spec::x86::Efer;

    /// A small generator: the cases need to be many, not good.
    fn random(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    /// An entry that is mostly right: few bits beside those that matter.
    fn entry(state: &mut u64, address: u64) -> u64 {
        let flags = [Entry::P, Entry::RW, Entry::US, Entry::PS, Entry::XD, 1 << 13, 1 << 50, 1 << 59, 1 << 60];
        let mut entry = address | Entry::P | Entry::RW | Entry::US;
        for flag in flags {
            if random(state) & 7 == 0 {
                entry ^= flag;
            }
        }
        entry
    }

    #[test]
    fn it_agrees_with_the_walk_that_the_processor_makes() {
        let mut machine = Machine::long();
        let seed = &mut 0x1234_5678_9abc_def1;
        let mut translated = 0;
        for case in 0..20_000 {
            for (n, table) in (0..4u64).zip([PAGE_TABLES, PAGE_TABLES + 0x1000, PAGE_TABLES + 0x2000, 0x3_0000]) {
                let next = [PAGE_TABLES + 0x1000, PAGE_TABLES + 0x2000, 0x3_0000, 0x4_0000][n as usize];
                let value = entry(seed, next);
                machine.cpu.ram.store::<8>(table, value);
            }
            let bits = random(seed);
            let pick = |bit: u32, flag: u64| if bits >> bit & 1 != 0 { flag } else { 0 };
            machine.cpu.cr0 = 0x8000_0011 | pick(0, Cr0::WP);
            machine.cpu.cr4 = 0x20 | pick(1, Cr4::SMEP) | pick(2, Cr4::SMAP) | pick(3, Cr4::PKE) | pick(5, Cr4::PKS);
            machine.cpu.efer = 0x501 | pick(4, Efer::NXE);
            machine.cpu.pkru = random(seed) as u32;
            machine.cpu.msrs.pkrs = random(seed) as u32;
            machine.cpu.mode_changed();
            let kinds = [Kind::Read, Kind::Write, Kind::Execute, Kind::ShadowRead, Kind::ShadowWrite];
            let kind = kinds[(bits >> 8) as usize % 5];
            let class = [tlb::SUPERVISOR, tlb::SUPERVISOR_AC, tlb::USER][(bits >> 16) as usize % 3];
            let seen = machine.cpu.inspect_linear(0x123, kind, class);
            let done = machine.cpu.translate(0x123, kind, class);
            let what = format!("case {case}: {kind:?} {class} {:x?} {seen:x?}", machine.cpu.trap);
            assert_eq!(seen.physical(), done.ok().map(|t| t.physical), "{what}");
            translated += u32::from(done.is_ok());
            if let (Err(obstacle), Trap::Exception { error: Some(error), .. }) = (seen.guest_physical, machine.cpu.trap)
            {
                let expected = match obstacle {
                    Obstacle::NotPresent => 0,
                    Obstacle::Reserved(_) => 9,
                    Obstacle::ProtectionKey => 0x21,
                    _ => 1,
                };
                assert_eq!(error & 9, expected & 9, "{what}");
                assert!(expected & 0x20 == 0 || error & 0x20 != 0, "{what}");
            }
        }
        assert!((500..19_500).contains(&translated), "{translated} of the cases translate");
    }

    #[test]
    fn looking_leaves_no_accessed_flag() {
        let machine = Machine::long();
        assert!(machine.cpu.inspect_linear(0x1000, Kind::Write, tlb::SUPERVISOR).physical().is_some());
        assert_eq!(machine.load(PAGE_TABLES, 8) & Entry::A, 0);
    }

    #[test]
    fn bytes_are_read_across_pages_and_up_to_the_end_of_memory() {
        let mut machine = Machine::long();
        machine.write(0x4ffe, &[1, 2, 3, 4]);
        let mut bytes = [0; 4];
        assert_eq!((machine.cpu.peek_linear(0x4ffe, &mut bytes), bytes), (4, [1, 2, 3, 4]));
        assert_eq!(machine.cpu.peek_linear(0x1f_fffe, &mut bytes), 2);
    }
}
