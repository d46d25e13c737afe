//! The APIC-access page (SDM Vol. 3C, 30.4).

use super::exit::Exit;
use crate::cpu::Cpu;
use crate::trap::Exec;
use spec::apic::local_apic::offset;
use spec::vmx::qualification::apic_access;
use spec::vmx::{ExitReason, PrimaryControls as Primary, SecondaryControls as Secondary, VmcsField};

impl Cpu {
    /// Whether `physical` lies in the APIC-access page.
    #[inline]
    pub(crate) fn in_apic_access_page(&self, physical: u64) -> bool {
        self.vmx.controls.secondary.has(Secondary::VIRTUALIZE_APIC_ACCESSES)
            && physical & !0xfff == self.vmx.vmcs.get(VmcsField::APIC_ACCESS_ADDRESS)
    }

    /// Whether an access of `size` bytes is virtualized: the TPR's register alone, as APIC-register virtualization is not there.
    fn is_virtualized(&self, physical: u64, size: usize) -> bool {
        let at = physical & 0xfff;
        let tpr = u64::from(offset::TPR);
        self.vmx.controls.primary.has(Primary::USE_TPR_SHADOW) && at >= tpr && at + size as u64 <= tpr + 4
    }

    #[cold]
    fn apic_access_exit(&mut self, physical: u64, kind: u64) -> crate::trap::Trapped {
        let kind = if self.events.delivering.is_some() { apic_access::EVENT_DELIVERY } else { kind };
        self.vm_exit(Exit::new(ExitReason::ApicAccess, physical & 0xfff | kind << apic_access::TYPE_SHIFT))
    }

    /// A load from the APIC-access page.
    pub(crate) fn apic_access_load(&mut self, physical: u64, size: usize) -> Exec<u64> {
        if !self.is_virtualized(physical, size) {
            return Err(self.apic_access_exit(physical, apic_access::READ));
        }
        let shift = 8 * (physical & 3);
        Ok(u64::from(self.virtual_tpr()) >> shift & (u64::MAX >> (64 - 8 * size)))
    }

    /// A store to the APIC-access page.
    pub(crate) fn apic_access_store(&mut self, physical: u64, size: usize, value: u64) -> Exec {
        if !self.is_virtualized(physical, size) {
            return Err(self.apic_access_exit(physical, apic_access::WRITE));
        }
        if physical & 3 == 0 {
            self.set_virtual_tpr(value as u32);
        }
        Ok(())
    }
}
