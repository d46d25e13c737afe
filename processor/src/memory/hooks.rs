//! Where VT-x and the local APIC take part in memory accesses.

use super::paging::{GuestPhysical, Kind, Purpose};
use crate::cpu::Cpu;
use crate::trap::Exec;

impl Cpu {
    /// Translates a guest-physical address through EPT when that is in use. A violation or misconfiguration is a VM exit.
    #[inline(always)]
    pub(crate) fn guest_physical(&mut self, address: u64, kind: Kind, purpose: Purpose) -> Exec<GuestPhysical> {
        if self.vmx.eptp == 0 {
            return Ok(GuestPhysical::identity(address));
        }
        self.ept_physical(address, kind, purpose)
    }

    /// The page is the local APIC's or VT-x's APIC-access page: accesses are never cached and go to the functions below.
    pub(crate) fn is_device_page(&self, physical: u64) -> bool {
        self.apic.page() == Some(physical & !0xfff) || self.in_apic_access_page(physical)
    }

    /// A load from a page that is not memory: the local APIC answers for its own.
    pub(crate) fn intercept_device_load(&mut self, physical: u64, size: usize) -> Exec<Option<u64>> {
        if self.in_apic_access_page(physical) {
            return self.apic_access_load(physical, size).map(Some);
        }
        if self.apic.page() != Some(physical & !0xfff) {
            return Ok(None);
        }
        let moment = self.moment();
        Ok(Some(self.apic.read((physical & 0xfff) as u32, size as u8, moment)))
    }

    /// A store to a page that is not memory. True when it was taken.
    pub(crate) fn intercept_device_store(&mut self, physical: u64, size: usize, value: u64) -> Exec<bool> {
        if self.in_apic_access_page(physical) {
            self.apic_access_store(physical, size, value)?;
            return Ok(true);
        }
        if self.apic.page() != Some(physical & !0xfff) {
            return Ok(false);
        }
        let moment = self.moment();
        let effect = self.apic.write((physical & 0xfff) as u32, size as u8, value, moment);
        self.apic_effect(effect);
        Ok(true)
    }
}
