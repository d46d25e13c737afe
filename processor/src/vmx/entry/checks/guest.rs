//! Checks on the guest-state area but for the segment registers (SDM Vol. 3C, 27.3.1.1 and 27.3.1.3 to 27.3.1.6).

use super::{Checked, View};
use crate::vmx::FailedCheck;
use crate::vmx::vmcs::{NO_POINTER, REVISION};
use spec::vmx::capability::misc;
use spec::vmx::{
    ActivityState, EntryCheck as Check, EntryControls as Entry, Interruptibility, InterruptionInfo, InterruptionType,
    PendingDebug, PinBasedControls as Pin, SecondaryControls as Secondary, VmcsField as Field,
};
use spec::x86::debug::DebugCtl;
use spec::x86::descriptors::AccessRights;
use spec::x86::paging::{Entry as PagingEntry, MemoryType};
use spec::x86::{CetControl, Cr0, Cr4, Efer, Rflags};

impl View<'_> {
    pub(super) fn is_long_guest(&self) -> bool {
        self.entry.has(Entry::IA32E_MODE_GUEST)
    }

    pub(super) fn guest_is_v86(&self) -> bool {
        self.get(Field::GUEST_RFLAGS) & Rflags::VM != 0
    }

    /// 27.3.1.1.
    pub(super) fn guest_registers(&self) -> Checked {
        let c = self.capabilities;
        let (cr0, cr4) = (self.get(Field::GUEST_CR0), self.get(Field::GUEST_CR4));
        let free = if self.secondary.has(Secondary::UNRESTRICTED_GUEST) { Cr0::PE | Cr0::PG } else { 0 };
        let must = c.cr0_fixed0 & !free;
        self.require(cr0 & must == must && cr0 & !c.cr0_fixed1 == 0, Check::GuestCr0Fixed, Field::GUEST_CR0)?;
        let paging = cr0 & Cr0::PG != 0;
        self.require(!paging || cr0 & Cr0::PE != 0, Check::GuestPagingNeedsProtection, Field::GUEST_CR0)?;
        let must = c.cr4_fixed0;
        self.require(cr4 & must == must && cr4 & !c.cr4_fixed1 == 0, Check::GuestCr4Fixed, Field::GUEST_CR4)?;
        let wp = cr4 & Cr4::CET == 0 || cr0 & Cr0::WP != 0;
        self.require(wp, Check::GuestCetNeedsWp, Field::GUEST_CR4)?;
        let load_debug = self.entry.has(Entry::LOAD_DEBUG_CONTROLS);
        if load_debug {
            let valid = self.get(Field::GUEST_DEBUGCTL) & !c.debugctl == 0;
            self.require(valid, Check::GuestDebugctl, Field::GUEST_DEBUGCTL)?;
        }
        if self.is_long_guest() {
            self.require(paging, Check::GuestIa32eNeedsPaging, Field::GUEST_CR0)?;
            self.require(cr4 & Cr4::PAE != 0, Check::GuestIa32eNeedsPaging, Field::GUEST_CR4)?;
        } else {
            self.require(cr4 & Cr4::PCIDE == 0, Check::GuestPcideNeedsIa32e, Field::GUEST_CR4)?;
        }
        self.require(self.in_width(self.get(Field::GUEST_CR3)), Check::GuestCr3Width, Field::GUEST_CR3)?;
        if load_debug {
            self.require(self.get(Field::GUEST_DR7) >> 32 == 0, Check::GuestDr7High, Field::GUEST_DR7)?;
        }
        for field in [Field::GUEST_SYSENTER_ESP, Field::GUEST_SYSENTER_EIP] {
            self.require(self.is_canonical(self.get(field)), Check::GuestSysenterCanonical, field)?;
        }
        if self.entry.has(Entry::LOAD_PAT) {
            let valid = MemoryType::pat_is_valid(self.get(Field::GUEST_PAT));
            self.require(valid, Check::GuestPat, Field::GUEST_PAT)?;
        }
        if self.entry.has(Entry::LOAD_EFER) {
            let efer = self.get(Field::GUEST_EFER);
            let (lma, lme) = (efer & Efer::LMA != 0, efer & Efer::LME != 0);
            self.require(efer & !c.efer == 0, Check::GuestEferReserved, Field::GUEST_EFER)?;
            self.require(lma == self.is_long_guest(), Check::GuestEferLma, Field::GUEST_EFER)?;
            self.require(!paging || lma == lme, Check::GuestEferLme, Field::GUEST_EFER)?;
        }
        if self.entry.has(Entry::LOAD_CET_STATE) {
            let control = self.get(Field::GUEST_S_CET);
            let valid = CetControl(control).is_valid(c.cet) && self.is_canonical(control);
            self.require(valid, Check::GuestCet, Field::GUEST_S_CET)?;
            let table = Field::GUEST_INTERRUPT_SSP_TABLE;
            self.require(self.is_canonical(self.get(table)), Check::GuestCet, table)?;
        }
        if self.entry.has(Entry::LOAD_PERF_GLOBAL_CTRL) {
            let field = Field::GUEST_PERF_GLOBAL_CTRL;
            self.require(self.get(field) & !c.perf_global_ctrl == 0, Check::GuestPerfGlobalCtrl, field)?;
        }
        if self.entry.has(Entry::LOAD_PKRS) {
            self.require(self.get(Field::GUEST_PKRS) >> 32 == 0, Check::GuestPkrs, Field::GUEST_PKRS)?;
        }
        if self.entry.has(Entry::LOAD_SPEC_CTRL) {
            let field = Field::GUEST_SPEC_CTRL;
            self.require(self.get(field) & !c.spec_ctrl == 0, Check::GuestSpecCtrl, field)?;
        }
        Ok(())
    }

    /// 27.3.1.3.
    pub(super) fn guest_descriptor_tables(&self) -> Checked {
        for field in [Field::GUEST_GDTR_BASE, Field::GUEST_IDTR_BASE] {
            self.require(self.is_canonical(self.get(field)), Check::DescriptorTableBaseCanonical, field)?;
        }
        for field in [Field::GUEST_GDTR_LIMIT, Field::GUEST_IDTR_LIMIT] {
            self.require(self.get(field) >> 16 == 0, Check::DescriptorTableLimit, field)?;
        }
        Ok(())
    }

    fn injected(&self) -> Option<InterruptionInfo> {
        let info = InterruptionInfo(self.vmcs.get32(Field::ENTRY_INTERRUPTION_INFO));
        info.is_valid().then_some(info)
    }

    fn injects(&self, kind: InterruptionType) -> bool {
        self.injected().is_some_and(|info| info.kind() == kind)
    }

    /// 27.3.1.4.
    pub(super) fn guest_rip_rflags(&self) -> Checked {
        let rip = self.get(Field::GUEST_RIP);
        let long_code = self.get(Field::GUEST_CS_ACCESS_RIGHTS) & u64::from(AccessRights::L) != 0;
        if self.is_long_guest() && long_code {
            // Bits 63:N must be equal, N being the linear-address width: one bit fewer than a canonical address.
            let above = (rip as i64) >> self.capabilities.linear_bits;
            self.require(above == 0 || above == -1, Check::GuestRipCanonical, Field::GUEST_RIP)?;
        } else {
            self.require(rip >> 32 == 0, Check::GuestRipHigh, Field::GUEST_RIP)?;
        }
        let rflags = self.get(Field::GUEST_RFLAGS);
        let reserved_right = rflags & !Rflags::DEFINED == 0 && rflags & Rflags::FIXED1 != 0;
        self.require(reserved_right, Check::RflagsReserved, Field::GUEST_RFLAGS)?;
        let v86_possible = !self.is_long_guest() && self.get(Field::GUEST_CR0) & Cr0::PE != 0;
        self.require(!self.guest_is_v86() || v86_possible, Check::RflagsVm, Field::GUEST_RFLAGS)?;
        let needs_if = self.injects(InterruptionType::External);
        self.require(!needs_if || rflags & Rflags::IF != 0, Check::RflagsIfForInterrupt, Field::GUEST_RFLAGS)?;
        if self.entry.has(Entry::LOAD_CET_STATE) {
            let ssp = self.get(Field::GUEST_SSP);
            let fits = if self.is_long_guest() && long_code { self.is_canonical(ssp) } else { ssp >> 32 == 0 };
            self.require(ssp & 3 == 0 && fits, Check::GuestSsp, Field::GUEST_SSP)?;
        }
        Ok(())
    }

    /// 27.3.1.5.
    pub(super) fn guest_non_register(&self) -> Checked {
        self.activity_state()?;
        self.interruptibility()?;
        self.pending_debug()?;
        self.link_pointer()
    }

    fn activity_state(&self) -> Checked {
        let field = Field::GUEST_ACTIVITY_STATE;
        let Some(state) = ActivityState::from_number(self.vmcs.get32(field)) else {
            return self.require(false, Check::ActivityStateUnsupported, field);
        };
        let supported = match state {
            ActivityState::Active => true,
            ActivityState::Hlt => self.capabilities.misc & misc::ACTIVITY_HLT != 0,
            ActivityState::Shutdown => self.capabilities.misc & misc::ACTIVITY_SHUTDOWN != 0,
            ActivityState::WaitForSipi => self.capabilities.misc & misc::ACTIVITY_WAIT_FOR_SIPI != 0,
        };
        self.require(supported, Check::ActivityStateUnsupported, field)?;
        let ss_dpl = AccessRights(self.vmcs.get32(Field::GUEST_SS_ACCESS_RIGHTS)).dpl();
        self.require(state != ActivityState::Hlt || ss_dpl == 0, Check::HltNeedsCpl0, field)?;
        let blocking = self.vmcs.get32(Field::GUEST_INTERRUPTIBILITY);
        let blocked = blocking & (Interruptibility::STI | Interruptibility::MOV_SS) != 0;
        self.require(state == ActivityState::Active || !blocked, Check::InactiveWithBlocking, field)?;
        if let Some(info) = self.injected() {
            let (kind, vector) = (info.kind(), info.vector());
            let admitted = match state {
                ActivityState::Active => true,
                ActivityState::Hlt => match kind {
                    InterruptionType::External | InterruptionType::Nmi => true,
                    InterruptionType::HardwareException => matches!(vector, 1 | 18),
                    InterruptionType::Other => vector == 0,
                    _ => false,
                },
                ActivityState::Shutdown => match kind {
                    InterruptionType::Nmi => true,
                    InterruptionType::HardwareException => vector == 18,
                    _ => false,
                },
                ActivityState::WaitForSipi => false,
            };
            self.require(admitted, Check::ActivityStateForbidsInjection, field)?;
        }
        Ok(())
    }

    fn interruptibility(&self) -> Checked {
        let field = Field::GUEST_INTERRUPTIBILITY;
        let state = Interruptibility(self.vmcs.get32(field));
        let (sti, mov_ss) = (state.has(Interruptibility::STI), state.has(Interruptibility::MOV_SS));
        self.require(state.0 & !Interruptibility::ALL == 0, Check::InterruptibilityReserved, field)?;
        self.require(!(sti && mov_ss), Check::StiAndMovSs, field)?;
        let interrupts = self.get(Field::GUEST_RFLAGS) & Rflags::IF != 0;
        self.require(!sti || interrupts, Check::StiNeedsIf, field)?;
        let interrupt = self.injects(InterruptionType::External);
        self.require(!(interrupt && (sti || mov_ss)), Check::InterruptWithBlocking, field)?;
        let nmi = self.injects(InterruptionType::Nmi);
        self.require(!(nmi && mov_ss), Check::NmiWithMovSs, field)?;
        self.require(!state.has(Interruptibility::SMI), Check::SmiOutsideSmm, field)?;
        let virtual_nmi = nmi && self.pin.has(Pin::VIRTUAL_NMIS);
        self.require(!(virtual_nmi && state.has(Interruptibility::NMI)), Check::NmiWithVirtualNmiBlocking, field)?;
        self.require(!state.has(Interruptibility::ENCLAVE), Check::EnclaveInterruption, field)
    }

    fn pending_debug(&self) -> Checked {
        const POSSIBLE: u64 = PendingDebug::B0
            | PendingDebug::B1
            | PendingDebug::B2
            | PendingDebug::B3
            | PendingDebug::ENABLED_BREAKPOINT
            | PendingDebug::BS
            | PendingDebug::RTM;
        let field = Field::GUEST_PENDING_DEBUG;
        let pending = self.get(field);
        // 27.3.1.5 has bit 11 among the reserved ones, but exits save it where bus locks are detected (28.3.4), and entries take it up again.
        let lock = if self.capabilities.debugctl & DebugCtl::BLD != 0 { PendingDebug::BLD } else { 0 };
        self.require(pending & !(POSSIBLE | lock) == 0, Check::PendingDebugReserved, field)?;
        let blocking = self.vmcs.get32(Field::GUEST_INTERRUPTIBILITY);
        let blocked = blocking & (Interruptibility::STI | Interruptibility::MOV_SS) != 0;
        if blocked || self.vmcs.get32(Field::GUEST_ACTIVITY_STATE) == ActivityState::Hlt as u32 {
            let stepping =
                self.get(Field::GUEST_RFLAGS) & Rflags::TF != 0 && self.get(Field::GUEST_DEBUGCTL) & DebugCtl::BTF == 0;
            let step = pending & PendingDebug::BS != 0;
            self.require(step || !stepping, Check::PendingDebugSingleStepMissing, field)?;
            self.require(!step || stepping, Check::PendingDebugSingleStepExtra, field)?;
        }
        self.require(pending & PendingDebug::RTM == 0, Check::PendingDebugRtm, field)
    }

    fn link_pointer(&self) -> Checked {
        let field = Field::VMCS_LINK_POINTER;
        let pointer = self.get(field);
        if pointer == NO_POINTER {
            return Ok(());
        }
        self.require(pointer & 0xfff == 0, Check::LinkPointerAlignment, field)?;
        self.require(self.in_width(pointer), Check::LinkPointerWidth, field)?;
        let revision = self.context.link_revision;
        self.require(revision & 0x7fff_ffff == REVISION, Check::LinkPointerRevision, field)?;
        let shadowing = self.secondary.has(Secondary::VMCS_SHADOWING);
        self.require((revision >> 31 != 0) == shadowing, Check::LinkPointerShadow, field)?;
        self.require(pointer != self.vmcs.pointer, Check::LinkPointerCurrent, field)
    }

    /// Whether the guest uses PAE paging.
    pub(super) fn guest_uses_pae(&self) -> bool {
        self.get(Field::GUEST_CR0) & Cr0::PG != 0 && self.get(Field::GUEST_CR4) & Cr4::PAE != 0 && !self.is_long_guest()
    }

    /// 27.3.1.6.
    pub(super) fn guest_pdptes(&self) -> Checked {
        const FIELDS: [Field; 4] = [Field::GUEST_PDPTE0, Field::GUEST_PDPTE1, Field::GUEST_PDPTE2, Field::GUEST_PDPTE3];
        if !self.guest_uses_pae() {
            return Ok(());
        }
        let ept = self.secondary.has(Secondary::ENABLE_EPT);
        for (field, in_memory) in FIELDS.into_iter().zip(self.context.pdptes) {
            let value = if ept { self.get(field) } else { in_memory };
            let bad =
                value & PagingEntry::P != 0 && (value & PagingEntry::PAE_PDPTE_RESERVED != 0 || !self.in_width(value));
            if bad {
                let field = ept.then_some(field);
                return Err(FailedCheck { check: Check::PdpteReserved, field, value });
            }
        }
        Ok(())
    }
}
