//! Guest-physical addresses in VMX non-root operation: EPT violations and misconfigurations as VM exits (SDM Vol. 3C, 29.3.3).

use super::ept::{self, Failure, PhysicalMemory};
use super::exit::Exit;
use crate::cpu::Cpu;
use crate::memory::paging::{GuestPhysical, Kind};
use crate::memory::tlb::{ContextKey, Rights};
use crate::trap::Exec;
use spec::vmx::capability::EptVpidCap;
use spec::vmx::ept::Eptp;
use spec::vmx::qualification::EptViolation;
use spec::vmx::{ExitReason, VmcsField};

struct Memory<'a>(&'a mut Cpu);

impl PhysicalMemory for Memory<'_> {
    fn load(&mut self, address: u64) -> u64 {
        self.0.physical_load::<8>(address)
    }
    fn store(&mut self, address: u64, value: u64) {
        self.0.physical_store::<8>(address, value);
    }
}

impl Cpu {
    /// EPT pointer, VPID and root/non-root of the current translation context. With a VPID, translations of both operations may live
    /// beside each other; root operation has VPID 0 and no EPT pointer.
    #[inline]
    pub(crate) fn vmx_context(&self) -> ContextKey {
        ContextKey { eptp: self.vmx.eptp, vpid: self.vmx.vpid, non_root: self.vmx.non_root, pcid: 0 }
    }

    /// What this processor's EPT can do.
    #[must_use]
    pub fn ept_features(&self) -> ept::Features {
        let capabilities = self.vmx.capabilities.ept_vpid;
        ept::Features {
            execute_only: capabilities.has(EptVpidCap::EXECUTE_ONLY),
            pages_2m: capabilities.has(EptVpidCap::PAGES_2M),
            pages_1g: capabilities.has(EptVpidCap::PAGES_1G),
            physical_bits: self.physical_bits,
        }
    }

    /// Translates a guest-physical address through EPT. `linear` is the linear address being translated; `table`: the access is to a
    /// guest paging-structure entry.
    pub(crate) fn ept_physical(
        &mut self,
        address: u64,
        kind: Kind,
        linear: Option<u64>,
        table: bool,
    ) -> Exec<GuestPhysical> {
        let eptp = Eptp(self.vmx.eptp);
        // With accessed and dirty flags for EPT, accesses to guest paging structures count as writes (29.3.5); the update of one of their
        // flags is a read and a write.
        let table_write = table && eptp.accessed_dirty();
        let access = ept::Access {
            read: kind == Kind::Read || table,
            write: kind == Kind::Write || table_write,
            execute: kind == Kind::Execute,
        };
        let features = self.ept_features();
        match ept::translate(&mut Memory(self), eptp, address, access, features) {
            Ok(translation) => {
                if table && self.in_apic_access_page(translation.physical) {
                    return Err(self.apic_access_by_walk());
                }
                let allowed = translation.allowed;
                let rights = Rights { read: allowed.read, write: allowed.write, execute: allowed.execute };
                Ok(GuestPhysical { physical: translation.physical, rights })
            }
            Err(failure) => Err(self.ept_exit(failure, address, linear, table)),
        }
    }

    #[cold]
    fn ept_exit(&mut self, failure: Failure, address: u64, linear: Option<u64>, table: bool) -> crate::trap::Trapped {
        let mut exit = match failure {
            Failure::Misconfiguration => Exit::new(ExitReason::EptMisconfiguration, 0),
            Failure::Violation(bits) => {
                let flag = |set: bool, bit: u64| if set { bit } else { 0 };
                let qualification = bits
                    | flag(linear.is_some(), EptViolation::LINEAR_VALID)
                    | flag(linear.is_some() && !table, EptViolation::TRANSLATED);
                Exit::new(ExitReason::EptViolation, qualification)
            }
        };
        exit.physical = address;
        exit.linear = linear.unwrap_or_else(|| self.vmx.vmcs.get(VmcsField::GUEST_LINEAR_ADDRESS));
        self.vm_exit(exit)
    }
}
