//! Guest-physical addresses in VMX non-root operation: EPT violations, misconfigurations and the like as VM exits or virtualization
//! exceptions (SDM Vol. 3C, 26.5.7 and 29.3).

use super::Controls;
use super::ept::{self, Failure, PhysicalMemory};
use super::exit::Exit;
use crate::cpu::Cpu;
use crate::memory::paging::{GuestPhysical, Kind, Page, Purpose};
use crate::memory::tlb::ContextKey;
use crate::trap::{Exec, Trapped};
use spec::vmx::capability::EptVpidCap;
use spec::vmx::ept::{EptEntry, Eptp, ve_information as ve};
use spec::vmx::qualification::EptViolation;
use spec::vmx::{ExitReason, SecondaryControls as Secondary, TertiaryControls as Tertiary, VmcsField};
use spec::x86::Cr0;
use spec::x86::exceptions::Vector;

struct Memory<'a>(&'a mut Cpu);

impl PhysicalMemory for Memory<'_> {
    fn load(&mut self, address: u64) -> u64 {
        self.0.physical_load::<8>(address)
    }
    fn replace(&mut self, address: u64, old: u64, new: u64) -> bool {
        self.0.physical_replace(address, old, new)
    }
    fn may_set_flags(&mut self) -> bool {
        !self.0.vmx.controls.secondary.has(Secondary::ENABLE_PML)
            || self.0.vmx.vmcs.get(VmcsField::PML_INDEX) < LOG_ENTRIES
    }
    fn log(&mut self, address: u64) {
        self.0.log_page_modification(address);
    }
}

/// Entries of the page-modification log.
const LOG_ENTRIES: u64 = 512;

/// log2 of the bytes in a sub-page.
const SUB_PAGE_SHIFT: u32 = 7;

impl Cpu {
    /// EPT pointer, VPID and root/non-root of the current translation context. With a VPID, translations of both operations may live
    /// beside each other; root operation has VPID 0 and no EPT pointer.
    #[inline]
    pub(crate) fn vmx_context(&self) -> ContextKey {
        ContextKey { eptp: self.vmx.eptp, vpid: self.vmx.vpid, non_root: self.vmx.non_root, ..ContextKey::default() }
    }

    /// How EPT works on this processor with `controls` in force.
    #[must_use]
    pub fn ept_rules(&self, controls: &Controls) -> ept::Rules {
        let capabilities = self.vmx.capabilities.ept_vpid;
        let sub_pages = controls.secondary.has(Secondary::SUB_PAGE_WRITE);
        ept::Rules {
            execute_only: capabilities.has(EptVpidCap::EXECUTE_ONLY),
            pages_2m: capabilities.has(EptVpidCap::PAGES_2M),
            pages_1g: capabilities.has(EptVpidCap::PAGES_1G),
            physical_bits: self.physical_bits,
            mode_based_execute: controls.secondary.has(Secondary::MODE_BASED_EXECUTE),
            paging_write: controls.tertiary.has(Tertiary::EPT_PAGING_WRITE),
            sub_pages: sub_pages.then(|| self.vmx.vmcs.get(VmcsField::SPP_TABLE_POINTER)),
        }
    }

    /// What an access of `kind` for `purpose` is to EPT.
    pub(crate) fn ept_access(&self, kind: Kind, purpose: Purpose) -> ept::Access {
        let paging = matches!(purpose, Purpose::Table(_));
        // With accessed and dirty flags for EPT, accesses to guest paging structures count as writes (29.3.5); the update of one of their
        // flags is a read and a write.
        let table_write = paging && Eptp(self.vmx.eptp).accessed_dirty();
        let page = match purpose {
            Purpose::Page(_, page) => Some(page),
            Purpose::Table(_) | Purpose::Pdpte => None,
        };
        // Guest-paging verification needs both controls (29.3.3.2).
        let tertiary = self.vmx.controls.tertiary;
        let verifies = tertiary.has(Tertiary::GUEST_PAGING_VERIFICATION) && tertiary.has(Tertiary::EPT_PAGING_WRITE);
        ept::Access {
            read: matches!(kind, Kind::Read | Kind::ShadowRead) || paging,
            write: kind.writes() || table_write,
            execute: kind == Kind::Execute,
            paging,
            user: page.is_some_and(|page| page.user),
            shadow_stack: kind.is_shadow() && page.is_some(),
            unverified: verifies && page.is_some_and(|page| !page.verified),
        }
    }

    /// The HLAT pointer, if HLAT paging is to translate `linear`: with a prefix size of 0 it translates every address, else those with bit
    /// 63 set (the largest prefix size being 1; SDM Vol. 3A, 4.5).
    #[inline]
    pub(crate) fn hlat_pointer(&self, linear: u64) -> Option<u64> {
        if !self.vmx.controls.tertiary.has(Tertiary::ENABLE_HLAT) {
            return None;
        }
        let all = self.vmx.vmcs.get(VmcsField::HLAT_PREFIX_SIZE) == 0;
        (all || linear >> 63 != 0).then(|| self.vmx.vmcs.get(VmcsField::HLAT_POINTER))
    }

    /// Page-modification logging (29.3.6), where the log has room.
    fn log_page_modification(&mut self, address: u64) {
        if !self.vmx.controls.secondary.has(Secondary::ENABLE_PML) {
            return;
        }
        let index = self.vmx.vmcs.get(VmcsField::PML_INDEX);
        let log = self.vmx.vmcs.get(VmcsField::PML_ADDRESS);
        self.physical_store::<8>(log + 8 * index, address & !0xfff);
        self.vmx.vmcs.set(VmcsField::PML_INDEX, index.wrapping_sub(1) & 0xffff);
    }

    /// Translates a guest-physical address through EPT.
    pub(crate) fn ept_physical(&mut self, address: u64, kind: Kind, purpose: Purpose) -> Exec<GuestPhysical> {
        let (access, rules) = (self.ept_access(kind, purpose), self.ept_rules(&self.vmx.controls));
        let eptp = Eptp(self.vmx.eptp);
        match ept::translate(&mut Memory(self), eptp, address, access, rules) {
            Ok(translation) => {
                let page = matches!(purpose, Purpose::Page(..));
                if !page && self.in_apic_access_page(translation.physical) {
                    return Err(self.apic_access_by_walk());
                }
                Ok(GuestPhysical {
                    physical: translation.physical,
                    rights: translation.allowed,
                    paging_write: translation.entry & EptEntry::PAGING_WRITE != 0,
                })
            }
            Err(failure) => Err(self.ept_failure(failure, address, purpose)),
        }
    }

    /// With sub-page write permissions, checks each of the 128-byte sub-pages behind the first that a store of `size` bytes reaches.
    #[inline]
    pub(crate) fn check_sub_pages(&mut self, linear: u64, size: usize, class: usize) -> Exec {
        if !self.vmx.controls.secondary.has(Secondary::SUB_PAGE_WRITE) {
            return Ok(());
        }
        let last = linear.wrapping_add(size as u64).wrapping_sub(1);
        let mut at = linear;
        while at >> SUB_PAGE_SHIFT != last >> SUB_PAGE_SHIFT {
            at = ((at >> SUB_PAGE_SHIFT) + 1) << SUB_PAGE_SHIFT;
            self.translate(at, Kind::Write, class)?;
        }
        Ok(())
    }

    #[cold]
    fn ept_failure(&mut self, failure: Failure, address: u64, purpose: Purpose) -> Trapped {
        let linear = match purpose {
            Purpose::Table(linear) | Purpose::Page(linear, _) => Some(linear),
            Purpose::Pdpte => None,
        };
        let mut exit = match failure {
            Failure::Misconfiguration => Exit::new(ExitReason::EptMisconfiguration, 0),
            Failure::LogFull => Exit::new(ExitReason::PmlFull, 0),
            Failure::SubPage(qualification) => Exit::new(ExitReason::SppEvent, qualification),
            Failure::Violation { qualification, .. } => {
                let valid = if linear.is_some() { EptViolation::LINEAR_VALID } else { 0 };
                let qualification = qualification | valid | self.page_qualification(purpose);
                Exit::new(ExitReason::EptViolation, qualification)
            }
        };
        exit.physical = address;
        exit.linear = linear.unwrap_or_else(|| self.vmx.vmcs.get(VmcsField::GUEST_LINEAR_ADDRESS));
        if let Failure::Violation { convertible: true, .. } = failure
            && self.becomes_virtualization_exception()
        {
            return self.virtualization_exception(&exit);
        }
        self.vm_exit(exit)
    }

    /// The bits of an EPT violation's exit qualification that tell of the page of the linear address.
    fn page_qualification(&self, purpose: Purpose) -> u64 {
        let Purpose::Page(_, Page { user, writable, no_execute, .. }) = purpose else { return 0 };
        let flag = |set: bool, bit: u64| if set { bit } else { 0 };
        let advanced = flag(user, EptViolation::USER_PAGE)
            | flag(writable, EptViolation::WRITABLE_PAGE)
            | flag(no_execute, EptViolation::EXECUTE_DISABLED);
        EptViolation::TRANSLATED
            | if self.vmx.capabilities.ept_vpid.has(EptVpidCap::ADVANCED_EXIT_INFO) { advanced } else { 0 }
    }

    /// Whether a convertible EPT violation causes a virtualization exception now (26.5.7.1).
    fn becomes_virtualization_exception(&mut self) -> bool {
        self.vmx.controls.secondary.has(Secondary::EPT_VIOLATION_VE)
            && self.cr0 & Cr0::PE != 0
            && self.events.delivering.is_none()
            && self.physical_load::<4>(self.vmx.vmcs.get(VmcsField::VE_INFORMATION_ADDRESS) + ve::BUSY) == 0
    }

    /// Raises a virtualization exception in place of the EPT violation `exit` (26.5.7.2).
    fn virtualization_exception(&mut self, exit: &Exit) -> Trapped {
        let area = self.vmx.vmcs.get(VmcsField::VE_INFORMATION_ADDRESS);
        let index = self.vmx.vmcs.get(VmcsField::EPTP_INDEX);
        let unblocking = if self.vmx.iret_unblocked_nmi { EptViolation::NMI_UNBLOCKING } else { 0 };
        self.physical_store::<4>(area + ve::REASON, exit.reason as u64);
        self.physical_store::<4>(area + ve::BUSY, 0xffff_ffff);
        self.physical_store::<8>(area + ve::QUALIFICATION, exit.qualification | unblocking);
        self.physical_store::<8>(area + ve::LINEAR, exit.linear);
        self.physical_store::<8>(area + ve::PHYSICAL, exit.physical);
        self.physical_store::<2>(area + ve::EPTP_INDEX, index);
        self.raise(Vector::Virtualization as u8, None)
    }
}
