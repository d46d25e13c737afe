//! Loads and stores by linear address: the inline TLB hit, and the slow path for everything else (misses, page crossings, MMIO,
//! stores to code, breakpoints, alignment checks).

use super::paging::{CR0_AM, Kind};
use super::tlb::{self, Rights, Spot};
use crate::cpu::{Cpu, Mode};
use crate::decode::Op;
use crate::decode::op::{FLAT, SLOW};
use crate::flags;
use crate::run::attention;
use crate::trap::{Exec, Trapped};

/// Where a read-modify-write goes; made by [`Cpu::locate_write`].
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// Where it is in RAM; without, both halves go the slow way.
    spot: Option<Spot>,
    linear: u64,
}

/// Where one page's part of an access lies.
#[derive(Clone, Copy)]
enum Place {
    /// RAM at this offset.
    Ram(u64),
    /// As `Ram`, for a store to a page from which code was decoded: it needs care.
    Code(u64),
    /// The bus at this physical address.
    Device(u64),
}

impl Cpu {
    /// Loads `N` bytes (1, 2, 4, 8) at a linear address, zero-extended.
    #[inline(always)]
    pub fn load<const N: usize>(&mut self, linear: u64) -> Exec<u64> {
        self.load_in::<SLOW, N>(linear)
    }

    /// Stores the low `N` bytes (1, 2, 4, 8) of `value`.
    #[inline(always)]
    pub fn store<const N: usize>(&mut self, linear: u64, value: u64) -> Exec {
        self.store_in::<SLOW, N>(linear, value)
    }

    /// As [`Cpu::load`]; the fast form of a body (`PATH` is not [`SLOW`]) misses where the TLB does.
    #[inline(always)]
    pub(crate) fn load_in<const PATH: u8, const N: usize>(&mut self, linear: u64) -> Exec<u64> {
        match self.tlb.load::<N>(linear) {
            Some(value) => Ok(value),
            None if PATH != SLOW => Err(Trapped::MISS),
            None => self.load_slow(linear, N, self.tlb.class()),
        }
    }

    /// As [`Cpu::store`], in the manner of [`Cpu::load_in`].
    #[inline(always)]
    pub(crate) fn store_in<const PATH: u8, const N: usize>(&mut self, linear: u64, value: u64) -> Exec {
        if self.tlb.store::<N>(linear, value) {
            Ok(())
        } else if PATH != SLOW {
            Err(Trapped::MISS)
        } else {
            self.store_slow(linear, N, value, self.tlb.class())
        }
    }

    /// As [`Cpu::locate_write`], in the manner of [`Cpu::load_in`].
    #[inline(always)]
    pub(crate) fn locate_write_in<const PATH: u8, const N: usize>(&mut self, linear: u64) -> Exec<Slot> {
        match self.tlb.spot(linear, N) {
            Some(spot) => Ok(Slot { spot: Some(spot), linear }),
            None if PATH != SLOW => Err(Trapped::MISS),
            None => self.locate_write_slow(linear, N),
        }
    }

    /// [`Cpu::load_in`] of `op`'s memory operand, which is at `linear`.
    #[inline(always)]
    pub(crate) fn load_for<const PATH: u8, const N: usize>(&mut self, op: &Op, linear: u64) -> Exec<u64> {
        if PATH == FLAT {
            return self.tlb.load_near::<N>(op.base, linear).ok_or(Trapped::MISS);
        }
        self.load_in::<PATH, N>(linear)
    }

    /// [`Cpu::store_in`] to `op`'s memory operand, which is at `linear`.
    #[inline(always)]
    pub(crate) fn store_for<const PATH: u8, const N: usize>(&mut self, op: &Op, linear: u64, value: u64) -> Exec {
        if PATH == FLAT {
            let stored = self.tlb.store_near::<N>(op.base, linear, value);
            return if stored { Ok(()) } else { Err(Trapped::MISS) };
        }
        self.store_in::<PATH, N>(linear, value)
    }

    /// [`Cpu::locate_write_in`] of `op`'s memory operand, which is at `linear`.
    #[inline(always)]
    pub(crate) fn locate_for<const PATH: u8, const N: usize>(&mut self, op: &Op, linear: u64) -> Exec<Slot> {
        if PATH == FLAT {
            let spot = self.tlb.spot_near(op.base, linear, N).ok_or(Trapped::MISS)?;
            return Ok(Slot { spot: Some(spot), linear });
        }
        self.locate_write_in::<PATH, N>(linear)
    }

    /// What the handlers of flat operands do when they miss: the next access of `op` is likely to the page of this one.
    #[inline(never)]
    pub(crate) fn bring_near(&mut self, op: &Op) {
        let address = self.offset_of(op);
        self.tlb.bring_near(op.base, address);
    }

    /// As [`Cpu::load_at`], in the manner of [`Cpu::load_in`].
    #[inline(always)]
    pub(crate) fn load_at_in<const PATH: u8, const N: usize>(&mut self, slot: Slot) -> Exec<u64> {
        match slot.spot {
            Some(spot) => Ok(self.tlb.load_spot::<N>(spot)),
            None if PATH != SLOW => Err(Trapped::MISS),
            None => self.load_slow(slot.linear, N, self.tlb.class()),
        }
    }

    /// As [`Cpu::store_at`], in the manner of [`Cpu::load_in`].
    #[inline(always)]
    pub(crate) fn store_at_in<const PATH: u8, const N: usize>(&mut self, slot: Slot, value: u64) -> Exec {
        match slot.spot {
            Some(spot) => {
                self.tlb.store_spot::<N>(spot, value);
                Ok(())
            }
            None if PATH != SLOW => Err(Trapped::MISS),
            None => self.store_slow(slot.linear, N, value, self.tlb.class()),
        }
    }

    /// Loads `N` bytes of any number (16, 32, 10, 512, …) that need not be one access.
    #[inline(always)]
    pub fn load_bytes<const N: usize>(&mut self, linear: u64) -> Exec<[u8; N]> {
        if N <= 64
            && let Some(bytes) = self.tlb.load_array::<N>(linear)
        {
            return Ok(bytes);
        }
        let mut bytes = [0; N];
        self.load_slice(linear, &mut bytes)?;
        Ok(bytes)
    }

    /// Stores `N` bytes of any number. Nothing is stored if any page faults.
    #[inline(always)]
    pub fn store_bytes<const N: usize>(&mut self, linear: u64, bytes: [u8; N]) -> Exec {
        if N <= 64 && self.tlb.store_array::<N>(linear, bytes) {
            return Ok(());
        }
        self.store_slice(linear, &bytes)
    }

    /// Fills `bytes` from memory.
    #[inline(never)]
    pub fn load_slice(&mut self, linear: u64, bytes: &mut [u8]) -> Exec {
        if self.tlb.load_slice(linear, bytes) {
            return Ok(());
        }
        let class = self.tlb.class();
        let mut done = 0;
        while done < bytes.len() {
            let left = bytes.len() - done;
            let size = if left >= 8 {
                8
            } else if left >= 4 {
                4
            } else if left >= 2 {
                2
            } else {
                1
            };
            let value = self.load_slow(self.wrap_linear(linear.wrapping_add(done as u64)), size, class)?;
            bytes[done..done + size].copy_from_slice(&value.to_le_bytes()[..size]);
            done += size;
        }
        Ok(())
    }

    /// Stores `bytes`; the pages' rights are all checked first.
    #[inline(never)]
    pub fn store_slice(&mut self, linear: u64, bytes: &[u8]) -> Exec {
        if self.tlb.store_slice(linear, bytes) {
            return Ok(());
        }
        let class = self.tlb.class();
        self.probe_write(linear, bytes.len())?;
        if self.tlb.store_slice(linear, bytes) {
            return Ok(());
        }
        let mut done = 0;
        while done < bytes.len() {
            let left = bytes.len() - done;
            let size = if left >= 8 {
                8
            } else if left >= 4 {
                4
            } else if left >= 2 {
                2
            } else {
                1
            };
            let mut value = [0; 8];
            value[..size].copy_from_slice(&bytes[done..done + size]);
            self.store_slow(
                self.wrap_linear(linear.wrapping_add(done as u64)),
                size,
                u64::from_le_bytes(value),
                class,
            )?;
            done += size;
        }
        Ok(())
    }

    /// Checks that `size` bytes could be stored, raising what a store would raise; stores nothing (but sets dirty bits).
    pub fn probe_write(&mut self, linear: u64, size: usize) -> Exec {
        let class = self.tlb.class();
        self.check_sub_pages(linear, size, class)?;
        let mut at = linear;
        let end = linear.wrapping_add(size as u64 - 1);
        loop {
            match self.place(self.wrap_linear(at), Kind::Write, class)? {
                Place::Device(_) => self.require_exact()?,
                Place::Code(_) => self.require_exact_once()?,
                Place::Ram(_) => {}
            }
            if at & !0xfff == end & !0xfff {
                return Ok(());
            }
            at = (at & !0xfff).wrapping_add(0x1000);
        }
    }

    /// Finds where a read-modify-write of `N` bytes will store; faults as the store would.
    #[inline(always)]
    pub fn locate_write<const N: usize>(&mut self, linear: u64) -> Exec<Slot> {
        self.locate_write_in::<SLOW, N>(linear)
    }

    #[cold]
    #[inline(never)]
    fn locate_write_slow(&mut self, linear: u64, size: usize) -> Exec<Slot> {
        self.check_data_access(linear, size, Kind::Write, self.tlb.class())?;
        self.probe_write(linear, size)?;
        match self.tlb.spot(linear, size) {
            Some(spot) => Ok(Slot { spot: Some(spot), linear }),
            None => {
                // MMIO, code, or across pages: the two halves go the slow way, on their own.
                self.require_exact_once()?;
                Ok(Slot { spot: None, linear })
            }
        }
    }

    /// The load half of a read-modify-write.
    #[inline(always)]
    pub fn load_at<const N: usize>(&mut self, slot: Slot) -> Exec<u64> {
        self.load_at_in::<SLOW, N>(slot)
    }

    /// The store half of a read-modify-write.
    #[inline(always)]
    pub fn store_at<const N: usize>(&mut self, slot: Slot, value: u64) -> Exec {
        self.store_at_in::<SLOW, N>(slot, value)
    }

    /// A supervisor load made by the processor itself (descriptor tables, task state), whatever CPL is.
    #[inline]
    pub fn system_load<const N: usize>(&mut self, linear: u64) -> Exec<u64> {
        match self.tlb.system_load::<N>(linear) {
            Some(value) => Ok(value),
            None => self.load_slow(linear, N, tlb::SUPERVISOR),
        }
    }

    /// A supervisor store made by the processor itself.
    pub fn system_store<const N: usize>(&mut self, linear: u64, value: u64) -> Exec {
        self.store_slow(linear, N, value, tlb::SUPERVISOR)
    }

    /// Linear addresses outside 64-bit mode are 32 bits wide.
    #[inline(always)]
    fn wrap_linear(&self, linear: u64) -> u64 {
        if self.mode == Mode::Long64 || self.long_mode() { linear } else { linear & 0xffff_ffff }
    }

    fn check_data_access(&mut self, linear: u64, size: usize, kind: Kind, class: usize) -> Exec {
        if class == tlb::USER
            && self.rflags & flags::AC != 0
            && self.cr0 & CR0_AM != 0
            && self.cpl == 3
            && linear & (size as u64 - 1) != 0
        {
            self.check_canonical(linear)?;
            return Err(self.raise(17, Some(0)));
        }
        if self.data_breakpoints_enabled() {
            self.note_data_breakpoints(linear, size, kind == Kind::Write);
        }
        if self.debugger.watches() {
            self.note_watchpoints(linear, size, kind)?;
        }
        Ok(())
    }

    /// Records in `pending_breakpoints` the data breakpoints that an access hits; #DB follows the instruction.
    pub(crate) fn note_data_breakpoints(&mut self, linear: u64, size: usize, write: bool) {
        let dr7 = self.dr[7];
        for i in 0..4 {
            let enabled = dr7 >> (2 * i) & 3 != 0;
            let kind = dr7 >> (16 + 4 * i) & 3;
            let length = [1, 2, 8, 4][(dr7 >> (18 + 4 * i) & 3) as usize];
            let start = self.dr[i] & !(length - 1);
            let hits = start < linear.wrapping_add(size as u64) && linear < start.wrapping_add(length);
            if enabled && hits && (kind == 1 && write || kind == 3) {
                self.pending_breakpoints |= 1 << i;
                self.attention |= attention::DEBUG;
            }
        }
    }

    /// Where the byte at `linear` lies, entering the page into the TLB. `Ram(SLOW)`: in RAM, but a store there needs care (code).
    fn place(&mut self, linear: u64, kind: Kind, class: usize) -> Exec<Place> {
        // Who fetches has looked already.
        if kind != Kind::Execute
            && let Some(offset) = self.tlb.find(class, linear, kind)
        {
            return Ok(Place::Ram(offset));
        }
        if matches!(kind, Kind::Read | Kind::Write)
            && let Some((offset, rights)) = self.tlb.recall(class, linear)
            && (if kind == Kind::Write { rights.write } else { rights.read })
        {
            return Ok(self.enter_page(linear, kind, class, offset, rights));
        }
        self.check_canonical(linear)?;
        let translation = self.translate(linear, kind, class)?;
        let physical = translation.physical;
        if self.is_device_page(physical) {
            return Ok(Place::Device(physical));
        }
        let Some((offset, writable)) = self.map.lookup(physical) else { return Ok(Place::Device(physical)) };
        let mut rights = translation.rights;
        rights.write &= writable;
        if kind == Kind::Execute {
            self.tlb.insert_fetch(class, linear, offset);
            if translation.size > 0x1000 {
                self.tlb.note_large_page(linear, translation.size);
            }
            return Ok(Place::Ram(offset));
        }
        self.tlb.remember(class, linear, offset, rights);
        if translation.size > 0x1000 {
            self.tlb.note_large_page(linear, translation.size);
        }
        let place = self.enter_page(linear, kind, class, offset, rights);
        Ok(if kind == Kind::Write && !writable { Place::Device(physical) } else { place })
    }

    /// Enters the page of `linear`, which lies in RAM at `offset` and has these rights, into the TLB's tables. Gives where an access of `kind` goes.
    fn enter_page(&mut self, linear: u64, kind: Kind, class: usize, offset: u64, mut rights: Rights) -> Place {
        if rights.write && (self.peers.is_some() || !self.ram.has_code(offset)) {
            // First this, then the look for code: who decodes does both the other way round, so that one sees the other.
            self.ram.note_writer(offset, self.tlb.writer());
        }
        self.ram.note_use(offset);
        let code = self.ram.has_code(offset);
        rights.write &= !code;
        if rights.write {
            self.ram.mark_dirty(offset);
        }
        if self.debugger.watches() && self.debugger.watches_page(linear) {
            rights = Rights::default();
        }
        self.tlb.insert(class, linear, offset, rights);
        if kind == Kind::Write && code { Place::Code(offset) } else { Place::Ram(offset) }
    }

    /// Enters the page of `linear` into the TLB, if an access of `kind` within it can then go straight to memory.
    pub(crate) fn make_present(&mut self, linear: u64, kind: Kind) -> bool {
        matches!(self.place(linear, kind, self.tlb.class()), Ok(Place::Ram(_)))
    }

    /// RAM offset of the code byte at `linear`, for the decoder. `None`: there is no memory.
    pub(crate) fn place_code(&mut self, linear: u64) -> Exec<Option<u64>> {
        if let Some(offset) = self.tlb.find_execute(linear) {
            return Ok(Some(offset));
        }
        Ok(match self.place(linear, Kind::Execute, self.tlb.class())? {
            Place::Ram(offset) | Place::Code(offset) => Some(offset),
            Place::Device(physical) if self.in_apic_access_page(physical) => {
                return Err(self.apic_access_exit(physical, spec::vmx::qualification::apic_access::FETCH));
            }
            Place::Device(_) => None,
        })
    }

    /// The slow load: any size up to 8, any place.
    #[cold]
    #[inline(never)]
    pub fn load_slow(&mut self, linear: u64, size: usize, class: usize) -> Exec<u64> {
        let linear = self.wrap_linear(linear);
        self.check_data_access(linear, size, Kind::Read, class)?;
        let first = (0x1000 - (linear & 0xfff)) as usize;
        if first >= size {
            let value = match self.place(linear, Kind::Read, class)? {
                Place::Ram(offset) | Place::Code(offset) => self.load_ram(offset, size),
                Place::Device(physical) => self.load_device(physical, size)?,
            };
            if self.locked.is_attempting() {
                self.locked.note_load(value);
            }
            return Ok(value);
        }
        let second_page = self.wrap_linear((linear & !0xfff).wrapping_add(0x1000));
        let low = self.place(linear, Kind::Read, class)?;
        let high = self.place(second_page, Kind::Read, class)?;
        let low = self.load_part(low, first)?;
        let high = self.load_part(high, size - first)?;
        Ok(low | high << (8 * first))
    }

    fn load_ram(&self, offset: u64, size: usize) -> u64 {
        match size {
            1 => self.ram.load::<1>(offset),
            2 => self.ram.load::<2>(offset),
            4 => self.ram.load::<4>(offset),
            _ => self.ram.load::<8>(offset),
        }
    }

    fn load_part(&mut self, place: Place, size: usize) -> Exec<u64> {
        let mut value = 0;
        for i in 0..size {
            let byte = match place {
                Place::Ram(offset) | Place::Code(offset) => self.ram.load::<1>(offset + i as u64),
                Place::Device(physical) => self.load_device(physical + i as u64, 1)?,
            };
            value |= byte << (8 * i);
        }
        Ok(value)
    }

    /// The slow store: any size up to 8, any place. Nothing is stored if it faults.
    #[cold]
    #[inline(never)]
    pub fn store_slow(&mut self, linear: u64, size: usize, value: u64, class: usize) -> Exec {
        let linear = self.wrap_linear(linear);
        self.check_data_access(linear, size, Kind::Write, class)?;
        self.check_sub_pages(linear, size, class)?;
        let first = (0x1000 - (linear & 0xfff)) as usize;
        if first >= size {
            let place = self.place(linear, Kind::Write, class)?;
            return self.store_part(place, size, value);
        }
        if self.locked.is_attempting() {
            return Err(self.lock_crosses());
        }
        let second_page = self.wrap_linear((linear & !0xfff).wrapping_add(0x1000));
        let low = self.place(linear, Kind::Write, class)?;
        let high = self.place(second_page, Kind::Write, class)?;
        for place in [&low, &high] {
            match place {
                Place::Code(_) => self.require_code_stores()?,
                Place::Ram(_) => {}
                Place::Device(_) => self.require_exact()?,
            }
        }
        for i in 0..size {
            let (place, base) = if i < first { (&low, i) } else { (&high, i - first) };
            let place = match place {
                Place::Code(offset) => Place::Code(offset + base as u64),
                Place::Ram(offset) => Place::Ram(offset + base as u64),
                Place::Device(physical) => Place::Device(physical + base as u64),
            };
            self.store_part(place, 1, value >> (8 * i))?;
        }
        Ok(())
    }

    /// A store to a page with decoded code ends the block: what follows may be the bytes just written.
    fn require_code_stores(&mut self) -> Exec {
        if self.code_stores { Ok(()) } else { self.require_exact_once() }
    }

    fn store_part(&mut self, place: Place, size: usize, value: u64) -> Exec {
        match place {
            Place::Code(offset) => {
                self.require_code_stores()?;
                self.store_in_ram(offset, size, value)?;
                self.ram.note_store(offset);
                self.attention |= attention::CODE_WRITTEN;
                Ok(())
            }
            Place::Ram(offset) => self.store_in_ram(offset, size, value),
            Place::Device(physical) => self.store_device(physical, size, value),
        }
    }

    fn store_in_ram(&mut self, offset: u64, size: usize, value: u64) -> Exec {
        if self.locked.is_attempting() {
            return self.store_locked(offset, size, value);
        }
        self.store_ram(offset, size, value);
        Ok(())
    }

    /// Where a store to `linear` goes, if that is RAM.
    pub(super) fn ram_for_store(&mut self, linear: u64, kind: Kind) -> Exec<Option<u64>> {
        let class = self.tlb.class();
        Ok(match self.place(linear, kind, class)? {
            Place::Ram(offset) | Place::Code(offset) => Some(offset),
            Place::Device(_) => None,
        })
    }

    fn store_ram(&self, offset: u64, size: usize, value: u64) {
        match size {
            1 => self.ram.store::<1>(offset, value),
            2 => self.ram.store::<2>(offset, value),
            4 => self.ram.store::<4>(offset, value),
            _ => self.ram.store::<8>(offset, value),
        }
    }

    fn load_device(&mut self, physical: u64, size: usize) -> Exec<u64> {
        self.require_exact()?;
        if let Some(value) = self.intercept_device_load(physical, size)? {
            return Ok(value);
        }
        self.attention |= attention::BUS_TOUCHED;
        let now = self.now();
        Ok(self.bus.read(now, physical, size as u8))
    }

    fn store_device(&mut self, physical: u64, size: usize, value: u64) -> Exec {
        self.require_exact()?;
        if self.intercept_device_store(physical, size, value)? {
            return Ok(());
        }
        self.attention |= attention::BUS_TOUCHED;
        let now = self.now();
        self.bus.write(now, physical, size as u8, value);
        Ok(())
    }

    /// Loads `size` bytes at a physical address, from RAM or the bus: for the processor's own structures (VMCS, MSR lists).
    pub fn physical_load<const N: usize>(&mut self, physical: u64) -> u64 {
        match self.map.lookup(physical) {
            Some((offset, _)) if physical & 0xfff <= 0x1000 - N as u64 => self.ram.load::<N>(offset),
            Some(_) => (0..N as u64).fold(0, |value, i| value | self.physical_load::<1>(physical + i) << (8 * i)),
            None => u64::MAX >> (64 - 8 * N),
        }
    }

    /// Stores at a physical address in RAM; elsewhere nothing happens.
    pub fn physical_store<const N: usize>(&mut self, physical: u64, value: u64) {
        match self.map.lookup(physical) {
            Some((offset, true)) if physical & 0xfff <= 0x1000 - N as u64 => {
                self.ram.store::<N>(offset, value);
                if self.ram.note_store(offset) {
                    self.attention |= attention::CODE_WRITTEN;
                }
            }
            Some((_, true)) => {
                for i in 0..N as u64 {
                    self.physical_store::<1>(physical + i, value >> (8 * i));
                }
            }
            _ => {}
        }
    }

    /// Stores the 8 bytes `new` at an aligned physical address in RAM, if `old` is there; elsewhere nothing happens. False: something else is there.
    pub(crate) fn physical_replace(&mut self, physical: u64, old: u64, new: u64) -> bool {
        let Some((offset, true)) = self.map.lookup(physical) else { return true };
        let replaced = self.ram.compare_exchange::<8>(offset, old, new);
        if replaced && self.ram.note_store(offset) {
            self.attention |= attention::CODE_WRITTEN;
        }
        replaced
    }

    /// Changes `N` (4, 8) aligned bytes at a physical address in one step, as `change` says of what is there, and gives that. Elsewhere than in RAM
    /// nothing happens.
    pub(crate) fn physical_update<const N: usize>(&mut self, physical: u64, change: impl Fn(u64) -> u64) -> u64 {
        let Some((offset, true)) = self.map.lookup(physical) else { return self.physical_load::<N>(physical) };
        loop {
            let old = self.ram.load::<N>(offset);
            if self.ram.compare_exchange::<N>(offset, old, change(old)) {
                if self.ram.note_store(offset) {
                    self.attention |= attention::CODE_WRITTEN;
                }
                return old;
            }
        }
    }
}
