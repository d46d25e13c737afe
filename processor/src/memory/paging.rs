//! Paging: the walk from a linear address to guest RAM, for every paging mode (SDM Vol 3A, chapter 4), and the TLB's contexts.

use super::tlb::{self, ContextKey, Rights};
use crate::cet::CetCode;
use crate::cpu::{Cpu, Mode};
use crate::flags;
use crate::trap::{Exec, Trapped};
use spec::x86::debug::Dr7;
use spec::x86::exceptions::PageFaultCode;
use spec::x86::msr::MiscEnable;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
/// In an entry of HLAT paging: ordinary paging shall translate.
pub(super) const RESTART: u64 = 1 << 11;
const NO_EXECUTE: u64 = 1 << 63;

/// CR0.WP.
pub const CR0_WP: u64 = 1 << 16;
/// CR0.PG.
pub const CR0_PG: u64 = 1 << 31;
/// CR0.AM.
pub const CR0_AM: u64 = 1 << 18;
/// CR4.PSE.
pub const CR4_PSE: u64 = 1 << 4;
/// CR4.PAE.
pub const CR4_PAE: u64 = 1 << 5;
/// CR4.LA57.
pub const CR4_LA57: u64 = 1 << 12;
/// CR4.PCIDE.
pub const CR4_PCIDE: u64 = 1 << 17;
/// CR4.SMEP.
pub const CR4_SMEP: u64 = 1 << 20;
/// CR4.SMAP.
pub const CR4_SMAP: u64 = 1 << 21;
/// CR4.PKE.
pub const CR4_PKE: u64 = 1 << 22;
/// CR4.CET.
pub const CR4_CET: u64 = 1 << 23;
/// CR4.PKS.
pub const CR4_PKS: u64 = 1 << 24;
/// EFER.NXE.
pub const EFER_NXE: u64 = 1 << 11;

/// What an access wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An instruction fetch.
    Execute,
    /// A load from a shadow stack.
    ShadowRead,
    /// A store to a shadow stack.
    ShadowWrite,
}

impl Kind {
    /// A store of either sort.
    #[inline]
    #[must_use]
    pub const fn writes(self) -> bool {
        matches!(self, Kind::Write | Kind::ShadowWrite)
    }

    /// A shadow-stack access.
    #[inline]
    #[must_use]
    pub const fn is_shadow(self) -> bool {
        matches!(self, Kind::ShadowRead | Kind::ShadowWrite)
    }
}

/// A translated page.
#[derive(Clone, Copy, Debug)]
pub struct Translation {
    /// The physical address (behind EPT: the host-physical one) of the byte asked for.
    pub physical: u64,
    /// What may be cached for the page.
    pub rights: Rights,
    /// Bytes in the page.
    pub size: u64,
}

/// What the entries that translate a linear address say of its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// U/S is 1 in all of them: a user-mode address.
    pub user: bool,
    /// R/W is 1 in all of them.
    pub writable: bool,
    /// XD is 1 in one of them.
    pub no_execute: bool,
    /// Each lies in a page with paging-write access (for guest-paging verification).
    pub verified: bool,
}

impl Page {
    /// Every page, with paging off; and where a walk begins.
    pub(super) const ALL: Self = Self { user: true, writable: true, no_execute: false, verified: true };
}

/// What a guest-physical address is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A paging-structure entry that translates this linear address.
    Table(u64),
    /// A PDPTE that a move to a control register loads.
    Pdpte,
    /// The translation of this linear address.
    Page(u64, Page),
}

/// What translation through EPT gives for a guest-physical address; identity without EPT.
#[derive(Clone, Copy, Debug)]
pub struct GuestPhysical {
    /// The physical address.
    pub physical: u64,
    /// Accesses that EPT allows without another walk.
    pub rights: Rights,
    /// The page has paging-write access.
    pub paging_write: bool,
}

impl GuestPhysical {
    /// No EPT: the address itself, everything allowed.
    pub const fn identity(address: u64) -> Self {
        let rights = Rights { read: true, write: true, execute: true };
        Self { physical: address, rights, paging_write: true }
    }
}

/// Where a walk of 4-level or 5-level paging begins.
#[derive(Clone, Copy)]
struct Root {
    table: u64,
    level: u32,
    /// HLAT paging: the tables are the hypervisor's.
    hlat: bool,
}

/// How a walk ends.
enum Walked {
    Page(Translation),
    /// An entry of HLAT paging says that ordinary paging shall translate; log2 of the largest page that may come of it.
    Restart(u32),
}

impl Cpu {
    /// Paging is on.
    #[inline]
    pub fn paging(&self) -> bool {
        self.cr0 & CR0_PG != 0
    }

    /// Width of linear addresses in bits when IA-32e paging is in use.
    #[inline]
    pub fn linear_bits(&self) -> u32 {
        if self.cr4 & CR4_LA57 != 0 { 57 } else { 48 }
    }

    /// Whether `address` is canonical for the paging mode.
    #[inline]
    pub fn is_canonical(&self, address: u64) -> bool {
        let unused = 64 - self.linear_bits();
        ((address << unused) as i64 >> unused) as u64 == address
    }

    /// To be called after CPL, RFLAGS.AC, CR0, CR3's PCID, CR4, the VPID or EPTP changed: chooses the TLB context and access class.
    pub fn mmu_mode_changed(&mut self) {
        self.tlb.select_context(self.context_key());
        self.privilege_changed();
    }

    /// To be called after CPL or RFLAGS.AC alone changed: chooses the access class.
    pub(crate) fn privilege_changed(&mut self) {
        self.watches_locks = self.watched_by(self.tlb.key().bus_locks);
        let class = self.access_class();
        let slow =
            self.cpl == 3 && self.rflags & flags::AC != 0 && self.cr0 & CR0_AM != 0 || self.data_breakpoints_enabled();
        self.tlb.select_class(class, slow);
        self.counters_see_cpl();
        if self.cr4 & CR4_CET != 0 || self.cet != CetCode::Off {
            self.cet_changed();
        }
    }

    /// The translation context now in force.
    pub fn context_key(&self) -> ContextKey {
        let pcid = if self.cr4 & CR4_PCIDE != 0 { (self.cr3 & 0xfff) as u16 } else { 0 };
        let pkrs = if self.cr4 & CR4_PKS != 0 { self.msrs.pkrs } else { 0 };
        ContextKey { pcid, pkrs, bus_locks: self.bus_lock_watchers(), ..self.vmx_context() }
    }

    fn access_class(&self) -> usize {
        if self.cpl == 3 {
            tlb::USER
        } else if self.rflags & flags::AC != 0 && self.cr4 & CR4_SMAP != 0 {
            tlb::SUPERVISOR_AC
        } else {
            tlb::SUPERVISOR
        }
    }

    /// DR7 enables a data or I/O breakpoint.
    pub fn data_breakpoints_enabled(&self) -> bool {
        let dr7 = self.dr[7];
        dr7 & Dr7::ENABLES != 0 && (0..4).any(|i| dr7 >> (2 * i) & 3 != 0 && dr7 >> (16 + 4 * i) & 3 != 0)
    }

    /// Loads a paging-structure entry of `size` bytes at guest-physical `address`, all ones if there is no memory; and whether the page in
    /// which it lies has paging-write access.
    #[inline(always)]
    fn table_entry(&mut self, address: u64, size: usize, purpose: Purpose) -> Exec<(u64, bool)> {
        let at = self.guest_physical(address, Kind::Read, purpose)?;
        let entry = match self.map.lookup(at.physical) {
            Some((offset, _)) if size == 8 => self.ram.load::<8>(offset),
            Some((offset, _)) => self.ram.load::<4>(offset),
            None => u64::MAX >> (64 - 8 * size),
        };
        Ok((entry, at.paging_write))
    }

    /// Sets `bits` in the paging-structure entry at `address`, which was `entry`. False: it is another one now, and the walk must begin anew.
    fn set_bits(&mut self, address: u64, linear: u64, entry: u64, size: usize, bits: u64) -> Exec<bool> {
        let at = self.guest_physical(address, Kind::Write, Purpose::Table(linear))?;
        let Some((offset, true)) = self.map.lookup(at.physical) else { return Ok(true) };
        let set = if size == 8 {
            self.ram.compare_exchange::<8>(offset, entry, entry | bits)
        } else {
            self.ram.compare_exchange::<4>(offset, entry, entry | bits)
        };
        if set && self.ram.note_store(offset) {
            self.attention |= crate::run::attention::CODE_WRITTEN;
        }
        Ok(set)
    }

    #[cold]
    fn page_fault(&mut self, linear: u64, code: u32) -> Trapped {
        self.fault_address = linear;
        self.raise(14, Some(code))
    }

    /// Translates `linear` for an access of `kind` in access class `class`: checks rights, sets accessed and dirty bits. Raises #PF, or a VM exit for EPT.
    pub fn translate(&mut self, linear: u64, kind: Kind, class: usize) -> Exec<Translation> {
        if !self.paging() {
            let at = self.guest_physical(linear, kind, Purpose::Page(linear, Page::ALL))?;
            return Ok(Translation { physical: at.physical, rights: at.rights, size: 0x1000 });
        }
        if self.cr4 & CR4_PAE == 0 {
            self.walk_32_bit(linear, kind, class)
        } else {
            self.walk_wide(linear, kind, class)
        }
    }

    /// Pages can be marked as not executable: IA32_EFER.NXE, unless IA32_MISC_ENABLE takes the feature away.
    pub(super) fn execute_disable(&self) -> bool {
        self.efer & EFER_NXE != 0 && self.msrs.misc_enable & MiscEnable::XD_DISABLE == 0
    }

    fn fault_code(&self, kind: Kind, class: usize) -> u32 {
        let fetch =
            kind == Kind::Execute && (self.cr4 & CR4_SMEP != 0 || self.cr4 & CR4_PAE != 0 && self.execute_disable());
        (kind.writes() as u32) << 1
            | ((class == tlb::USER) as u32) << 2
            | (fetch as u32) << 4
            | (kind.is_shadow() as u32) << 6
    }

    /// What the combined entry bits allow: U/S and R/W anded over the walk, XD ored (SDM Vol 3A, 4.6).
    fn page_rights(&self, page: Page, class: usize) -> Rights {
        let Page { user, writable, no_execute, .. } = page;
        let wp = self.cr0 & CR0_WP != 0;
        match (class, user) {
            (tlb::USER, false) => Rights::default(),
            (tlb::USER, true) => Rights { read: true, write: writable, execute: !no_execute },
            (_, false) => Rights { read: true, write: writable || !wp, execute: !no_execute },
            (_, true) => {
                let reachable = self.cr4 & CR4_SMAP == 0 || class == tlb::SUPERVISOR_AC;
                Rights {
                    read: reachable,
                    write: reachable && (writable || !wp),
                    execute: !no_execute && self.cr4 & CR4_SMEP == 0,
                }
            }
        }
    }

    /// What a shadow-stack access is allowed: the page must be a shadow-stack page (R/W is 1 in every entry but the last, which has R/W = 0
    /// and D = 1) of the access' own privilege (SDM Vol 3A, 4.6.1).
    fn shadow_rights(user_page: bool, writable_above: bool, leaf: u64, class: usize) -> Rights {
        let shadow = writable_above && leaf & (WRITABLE | DIRTY) == DIRTY;
        let allowed = shadow && user_page == (class == tlb::USER);
        Rights { read: allowed, write: allowed, execute: false }
    }

    /// What the protection key of `leaf` allows to data accesses: loads, stores. User pages go by PKRU, supervisor pages by IA32_PKRS
    /// (SDM Vol 3A, 4.6.2).
    pub(super) fn key_rights(&self, user_page: bool, leaf: u64, class: usize) -> (bool, bool) {
        let (enable, rights) = if user_page { (CR4_PKE, self.pkru) } else { (CR4_PKS, self.msrs.pkrs) };
        if self.cr4 & enable == 0 {
            return (true, true);
        }
        let key = (leaf >> 59 & 15) as u32;
        let (no_access, no_write) = (rights >> (2 * key) & 1 != 0, rights >> (2 * key + 1) & 1 != 0);
        let write_matters = class == tlb::USER || self.cr0 & CR0_WP != 0;
        (!no_access, !(no_access || no_write && write_matters))
    }

    /// 4-level, 5-level and PAE paging.
    fn walk_wide(&mut self, linear: u64, kind: Kind, class: usize) -> Exec<Translation> {
        let address_mask = ((1u64 << self.physical_bits) - 1) & !0xfff;
        if !self.long_mode() {
            let pdpte = self.pdptes[(linear >> 30) as usize & 3];
            if pdpte & PRESENT == 0 {
                let code = self.fault_code(kind, class);
                return Err(self.page_fault(linear, code));
            }
            let root = Root { table: pdpte & address_mask, level: 2, hlat: false };
            return self.walk_ordinary(linear, kind, class, root);
        }
        let level = if self.cr4 & CR4_LA57 != 0 { 5 } else { 4 };
        let root = Root { table: self.cr3 & address_mask, level, hlat: false };
        let Some(pointer) = self.hlat_pointer(linear) else {
            return self.walk_ordinary(linear, kind, class, root);
        };
        let hlat = Root { table: pointer & address_mask, level, hlat: true };
        match self.walk_from(hlat, linear, kind, class)? {
            Walked::Page(translation) => Ok(translation),
            Walked::Restart(largest) => {
                let translation = self.walk_ordinary(linear, kind, class, root)?;
                Ok(Translation { size: translation.size.min(1 << largest), ..translation })
            }
        }
    }

    fn walk_ordinary(&mut self, linear: u64, kind: Kind, class: usize, root: Root) -> Exec<Translation> {
        match self.walk_from(root, linear, kind, class)? {
            Walked::Page(translation) => Ok(translation),
            Walked::Restart(_) => unreachable!("ordinary paging has no restart"),
        }
    }

    fn walk_from(&mut self, root: Root, linear: u64, kind: Kind, class: usize) -> Exec<Walked> {
        let code = self.fault_code(kind, class);
        // The flag of HLAT paging is for faults that have no translation, not for those of access rights (SDM Vol 3A, 4.7).
        let absent = code | if root.hlat { PageFaultCode::HLAT } else { 0 };
        let address_mask = ((1u64 << self.physical_bits) - 1) & !0xfff;
        let mut reserved = !address_mask & ((1 << 52) - 1) & !0xfff;
        if !self.execute_disable() {
            reserved |= NO_EXECUTE;
        }
        let long = self.long_mode();
        if !long {
            reserved |= 0x7ff0_0000_0000_0000;
        }
        let (mut table, mut level) = (root.table, root.level);
        let mut page = Page::ALL;
        let mut writable_above;
        let mut path = [(0u64, 0u64); 5];
        let mut depth = 0;
        let (entry, shift) = loop {
            let shift = 12 + 9 * (level - 1);
            let address = table + (linear >> shift & 0x1ff) * 8;
            let (entry, verified) = self.table_entry(address, 8, Purpose::Table(linear))?;
            if entry & PRESENT == 0 {
                return Err(self.page_fault(linear, absent));
            }
            if root.hlat && entry & RESTART != 0 {
                return Ok(Walked::Restart(shift));
            }
            let large = entry & LARGE != 0 && level > 1;
            let mut bad = entry & reserved != 0;
            if large {
                bad |= level > 3 || entry & ((1 << shift) - 1) & !0x1fff != 0;
            }
            if bad {
                return Err(self.page_fault(linear, absent | 1 | 1 << 3));
            }
            page.user &= entry & USER != 0;
            writable_above = page.writable;
            page.writable &= entry & WRITABLE != 0;
            page.no_execute |= entry & NO_EXECUTE != 0;
            page.verified &= verified;
            path[depth] = (address, entry);
            depth += 1;
            if level == 1 || large {
                break (entry, shift);
            }
            table = entry & address_mask;
            level -= 1;
        };
        let mut rights = if kind.is_shadow() {
            Self::shadow_rights(page.user, writable_above, entry, class)
        } else {
            self.page_rights(page, class)
        };
        let mut key_fault = false;
        if long && self.cr4 & (CR4_PKE | CR4_PKS) != 0 {
            let (reads, writes) = self.key_rights(page.user, entry, class);
            key_fault = kind != Kind::Execute && if kind.writes() { !writes } else { !reads };
            rights.read &= reads;
            rights.write &= writes;
        }
        if !allows(rights, kind) {
            // The key bit is set whenever the key denies, whether or not the page's own rights do too.
            return Err(self.page_fault(linear, code | 1 | (key_fault as u32) << 5));
        }
        for &(address, entry) in &path[..depth - 1] {
            if entry & ACCESSED == 0 && !self.set_bits(address, linear, entry, 8, ACCESSED)? {
                return self.walk_from(root, linear, kind, class);
            }
        }
        let leaf = path[depth - 1].0;
        let wanted = ACCESSED | if kind.writes() { DIRTY } else { 0 };
        if entry & wanted != wanted && !self.set_bits(leaf, linear, entry, 8, wanted)? {
            return self.walk_from(root, linear, kind, class);
        }
        let dirty = (entry | wanted) & DIRTY != 0;
        let offset_mask = (1u64 << shift) - 1;
        let guest = entry & address_mask & !offset_mask | linear & offset_mask;
        let page = Purpose::Page(linear, page);
        Ok(Walked::Page(self.finish(guest, kind, page, rights, dirty, offset_mask + 1)?))
    }

    /// 32-bit paging with 4 KiB and (PSE, PSE-36) 4 MiB pages.
    fn walk_32_bit(&mut self, linear: u64, kind: Kind, class: usize) -> Exec<Translation> {
        let code = self.fault_code(kind, class);
        let directory = (self.cr3 & 0xffff_f000) + (linear >> 22 & 0x3ff) * 4;
        let (pde, verified) = self.table_entry(directory, 4, Purpose::Table(linear))?;
        if pde & PRESENT == 0 {
            return Err(self.page_fault(linear, code));
        }
        let large = pde & LARGE != 0 && self.cr4 & CR4_PSE != 0;
        if large {
            // PSE-36: bits 20:13 are address bits 39:32, as far as MAXPHYADDR goes; bit 21 is reserved (SDM Vol 3A, 4.3).
            let wide = (self.physical_bits as u32).min(40) - 32;
            let reserved = (0x003f_e000u64 >> 13 >> wide << wide << 13) & 0x003f_e000;
            if pde & reserved != 0 {
                return Err(self.page_fault(linear, code | 1 | 1 << 3));
            }
            let page = Page { user: pde & USER != 0, writable: pde & WRITABLE != 0, no_execute: false, verified };
            let rights = if kind.is_shadow() {
                Self::shadow_rights(page.user, true, pde, class)
            } else {
                self.page_rights(page, class)
            };
            if !allows(rights, kind) {
                return Err(self.page_fault(linear, code | 1));
            }
            let wanted = ACCESSED | if kind.writes() { DIRTY } else { 0 };
            if pde & wanted != wanted && !self.set_bits(directory, linear, pde, 4, wanted)? {
                return self.walk_32_bit(linear, kind, class);
            }
            let guest = pde & 0xffc0_0000 | (pde >> 13 & 0xff) << 32 | linear & 0x3f_ffff;
            let page = Purpose::Page(linear, page);
            return self.finish(guest, kind, page, rights, (pde | wanted) & DIRTY != 0, 0x40_0000);
        }
        let address = (pde & 0xffff_f000) + (linear >> 12 & 0x3ff) * 4;
        let (pte, pte_verified) = self.table_entry(address, 4, Purpose::Table(linear))?;
        if pte & PRESENT == 0 {
            return Err(self.page_fault(linear, code));
        }
        let page = Page {
            user: pde & pte & USER != 0,
            writable: pde & pte & WRITABLE != 0,
            no_execute: false,
            verified: verified && pte_verified,
        };
        let rights = if kind.is_shadow() {
            Self::shadow_rights(page.user, pde & WRITABLE != 0, pte, class)
        } else {
            self.page_rights(page, class)
        };
        if !allows(rights, kind) {
            return Err(self.page_fault(linear, code | 1));
        }
        if pde & ACCESSED == 0 && !self.set_bits(directory, linear, pde, 4, ACCESSED)? {
            return self.walk_32_bit(linear, kind, class);
        }
        let wanted = ACCESSED | if kind.writes() { DIRTY } else { 0 };
        if pte & wanted != wanted && !self.set_bits(address, linear, pte, 4, wanted)? {
            return self.walk_32_bit(linear, kind, class);
        }
        let guest = pte & 0xffff_f000 | linear & 0xfff;
        let page = Purpose::Page(linear, page);
        self.finish(guest, kind, page, rights, (pte | wanted) & DIRTY != 0, 0x1000)
    }

    fn finish(
        &mut self,
        guest: u64,
        kind: Kind,
        page: Purpose,
        rights: Rights,
        dirty: bool,
        size: u64,
    ) -> Exec<Translation> {
        let at = self.guest_physical(guest, kind, page)?;
        let rights = Rights {
            read: rights.read && at.rights.read,
            write: rights.write && dirty && at.rights.write,
            execute: rights.execute && at.rights.execute,
        };
        Ok(Translation { physical: at.physical, rights, size })
    }

    /// Loads the PDPTE registers from CR3 for PAE paging. #GP(0) if one has reserved bits set (SDM Vol 3A, 4.4.1).
    pub fn load_pdptes(&mut self, cr3: u64) -> Exec {
        let reserved = !((1u64 << self.physical_bits) - 1) | 0x1e6;
        let mut loaded = [0; 4];
        for (i, slot) in loaded.iter_mut().enumerate() {
            let address = (cr3 & 0xffff_ffe0) + 8 * i as u64;
            let (entry, _) = self.table_entry(address, 8, Purpose::Pdpte)?;
            if entry & PRESENT != 0 && entry & reserved != 0 {
                return Err(self.general_protection(0));
            }
            *slot = entry;
        }
        self.pdptes = loaded;
        Ok(())
    }

    /// PAE paging is in use or would be with these values.
    pub fn pae_paging(&self, cr0: u64, cr4: u64, efer: u64) -> bool {
        cr0 & CR0_PG != 0 && cr4 & CR4_PAE != 0 && efer & (1 << 10) == 0
    }

    /// Checks that a 64-bit linear address is canonical; #GP(0) (or #SS(0), decided from the operand) if not.
    #[inline]
    pub(super) fn check_canonical(&mut self, linear: u64) -> Exec {
        if self.mode == Mode::Long64 && !self.is_canonical(linear) {
            let raised = self.general_protection(0);
            self.non_canonical = true;
            return Err(raised);
        }
        Ok(())
    }
}

fn allows(rights: Rights, kind: Kind) -> bool {
    match kind {
        Kind::Read | Kind::ShadowRead => rights.read,
        Kind::Write | Kind::ShadowWrite => rights.write,
        Kind::Execute => rights.execute,
    }
}
