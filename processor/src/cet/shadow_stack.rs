//! Accesses to shadow stacks, and the tokens on them (SDM Vol. 1, 17.2).

use crate::cpu::{Cpu, Mode};
use crate::memory::paging::Kind;
use crate::memory::tlb;
use crate::run::attention;
use crate::trap::Exec;
use spec::x86::Dr7;
use spec::x86::cet::TOKEN_BUSY;

/// Pages remembered.
const ENTRIES: usize = 8;

/// A shadow-stack page that may be loaded from and stored to.
#[derive(Clone, Copy, Debug)]
struct Entry {
    page: u64,
    /// [`tlb::Tlb::fetch_tag`] and the count of shootdowns under which it is valid.
    tag: u64,
    shootdowns: u64,
    offset: u64,
}

/// Translations of shadow-stack pages. They are apart from the TLB's tables, where each page has the rights of ordinary accesses.
#[derive(Debug)]
pub(crate) struct ShadowCache([Entry; ENTRIES]);

impl ShadowCache {
    pub(crate) fn new() -> Self {
        Self([Entry { page: 1, tag: 0, shootdowns: 0, offset: 0 }; ENTRIES])
    }
}

/// Where an access lies.
#[derive(Clone, Copy)]
enum Place {
    Ram(u64),
    Device(u64),
}

/// The access class of shadow-stack accesses at privilege level `cpl`.
pub(super) const fn class_of(cpl: u8) -> usize {
    if cpl == 3 { tlb::USER } else { tlb::SUPERVISOR }
}

impl Cpu {
    fn shadow_linear(&mut self, linear: u64) -> Exec<u64> {
        if !self.long_mode() {
            return Ok(linear & 0xffff_ffff);
        }
        if self.mode == Mode::Long64 && !self.is_canonical(linear) {
            return Err(self.general_protection(0));
        }
        Ok(linear)
    }

    fn shadow_place(&mut self, linear: u64, size: usize, kind: Kind, class: usize) -> Exec<Place> {
        let linear = self.shadow_linear(linear)?;
        let own = (self.tlb.class() == tlb::USER) == (class == tlb::USER);
        let (tag, shootdowns) = (self.tlb.fetch_tag(), self.tlb.shootdowns);
        let page = linear & !0xfff;
        let slot = (linear >> 12) as usize % ENTRIES;
        let watched = self.dr[7] & Dr7::ENABLES != 0;
        if own && !watched {
            let entry = &self.shadow_cache.0[slot];
            if entry.page == page && entry.tag == tag && entry.shootdowns == shootdowns {
                return Ok(Place::Ram(entry.offset | linear & 0xfff));
            }
        }
        if watched && self.data_breakpoints_enabled() {
            self.note_data_breakpoints(linear, size, kind.writes());
        }
        let translation = self.translate(linear, kind, class)?;
        let physical = translation.physical;
        match self.map.lookup(physical) {
            Some((offset, true)) if !self.is_device_page(physical) => {
                if own && translation.rights.read && translation.rights.write {
                    self.shadow_cache.0[slot] = Entry { page, tag, shootdowns, offset: offset & !0xfff };
                }
                Ok(Place::Ram(offset))
            }
            _ => Ok(Place::Device(physical)),
        }
    }

    /// The parts of an access of `size` bytes (4 or 8): one, or two of 4 bytes across pages.
    fn shadow_parts(&mut self, linear: u64, size: usize, kind: Kind, class: usize) -> Exec<(Place, Option<Place>)> {
        if linear & 0xfff <= 0x1000 - size as u64 {
            return Ok((self.shadow_place(linear, size, kind, class)?, None));
        }
        let low = self.shadow_place(linear, 4, kind, class)?;
        let high = self.shadow_place(linear.wrapping_add(4), 4, kind, class)?;
        Ok((low, Some(high)))
    }

    fn shadow_load_part(&mut self, place: Place, size: usize) -> Exec<u64> {
        match place {
            Place::Ram(offset) if size == 4 => Ok(self.ram.load::<4>(offset)),
            Place::Ram(offset) => Ok(self.ram.load::<8>(offset)),
            Place::Device(physical) => {
                self.require_exact()?;
                if let Some(value) = self.intercept_device_load(physical, size)? {
                    return Ok(value);
                }
                self.attention |= attention::BUS_TOUCHED;
                let now = self.now();
                Ok(self.bus.read(now, physical, size as u8))
            }
        }
    }

    fn shadow_store_part(&mut self, place: Place, size: usize, value: u64) -> Exec {
        match place {
            Place::Ram(offset) => {
                if size == 4 {
                    self.ram.store::<4>(offset, value)
                } else {
                    self.ram.store::<8>(offset, value)
                }
                if self.ram.note_store(offset) {
                    self.attention |= attention::CODE_WRITTEN;
                }
            }
            Place::Device(physical) => {
                self.require_exact()?;
                if !self.intercept_device_store(physical, size, value)? {
                    self.attention |= attention::BUS_TOUCHED;
                    let now = self.now();
                    self.bus.write(now, physical, size as u8, value);
                }
            }
        }
        Ok(())
    }

    /// Loads `size` bytes (4 or 8) from a shadow stack of access class `class`.
    pub(super) fn shadow_load(&mut self, linear: u64, size: usize, class: usize) -> Exec<u64> {
        match self.shadow_parts(linear, size, Kind::ShadowRead, class)? {
            (place, None) => self.shadow_load_part(place, size),
            (low, Some(high)) => Ok(self.shadow_load_part(low, 4)? | self.shadow_load_part(high, 4)? << 32),
        }
    }

    /// Stores `size` bytes (4 or 8) to a shadow stack. Nothing is stored if it faults.
    pub(super) fn shadow_store(&mut self, linear: u64, size: usize, value: u64, class: usize) -> Exec {
        match self.shadow_parts(linear, size, Kind::ShadowWrite, class)? {
            (place, None) => self.shadow_store_part(place, size, value),
            (low, Some(high)) => {
                self.shadow_store_part(low, 4, value & 0xffff_ffff)?;
                self.shadow_store_part(high, 4, value >> 32)
            }
        }
    }

    /// The processor's locked compare-and-exchange of a token, whose address is aligned: whether it was `expected` and is `new` now.
    pub(super) fn shadow_exchange(&mut self, linear: u64, expected: u64, new: u64, class: usize) -> Exec<bool> {
        let place = self.shadow_place(linear, 8, Kind::ShadowWrite, class)?;
        let found = self.shadow_load_part(place, 8)?;
        let equal = found == expected;
        self.shadow_store_part(place, 8, if equal { new } else { found })?;
        Ok(equal)
    }

    /// Marks the supervisor shadow stack whose token is at `pointer` as in use. False: the token is not right or busy already.
    pub(super) fn take_shadow_stack(&mut self, pointer: u64) -> Exec<bool> {
        self.shadow_exchange(pointer, pointer, pointer | TOKEN_BUSY, tlb::SUPERVISOR)
    }

    /// Marks it as free, if its token is there. False: it is not.
    pub(super) fn free_shadow_stack(&mut self, pointer: u64) -> Exec<bool> {
        self.shadow_exchange(pointer, pointer | TOKEN_BUSY, pointer, tlb::SUPERVISOR)
    }
}
