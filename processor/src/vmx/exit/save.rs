//! Saving guest state (SDM Vol. 3C, 28.3).

use crate::cpu::{Cpu, RSP};
use crate::run::Activity;
use crate::segment::Segment;
use crate::system::event::Shadow;
use crate::vmx::entry::{LDTR, TR, nth};
use spec::vmx::capability::misc;
use spec::vmx::{
    ActivityState, EntryControls as Entry, ExitControls as Exit, Interruptibility, PendingDebug,
    PinBasedControls as Pin, SecondaryControls as Secondary, VmcsField as Field,
};
use spec::x86::descriptors::AccessRights;
use spec::x86::{Cr0, Cr4, Dr6, Efer, Rflags, msr};

impl Cpu {
    fn save_segment(&mut self, n: usize, segment: Segment) {
        let vmcs = &mut self.vmx.vmcs;
        vmcs.set(nth(Field::GUEST_ES_SELECTOR, n), u64::from(segment.selector));
        vmcs.set(nth(Field::GUEST_ES_BASE, n), segment.base);
        vmcs.set(nth(Field::GUEST_ES_LIMIT, n), u64::from(segment.limit));
        let rights = segment.access & (AccessRights::ALL | 0x6f);
        vmcs.set(nth(Field::GUEST_ES_ACCESS_RIGHTS, n), u64::from(rights));
    }

    /// Saves every register into the guest-state area. `resume` is the RF to save: 1 when the guest is to go on with the instruction that
    /// faulted (28.3.3).
    pub(super) fn save_guest(&mut self, resume: bool) {
        let controls = self.vmx.controls;
        let rflags = self.rflags() & !Rflags::RF | if resume { Rflags::RF } else { 0 };
        let perf_global_ctrl =
            controls.exit.has(Exit::SAVE_PERF_GLOBAL_CTRL).then(|| self.read_performance_msr(msr::PERF_GLOBAL_CTRL));
        let mut set = |field, value| self.vmx.vmcs.set(field, value);
        if let Some(value) = perf_global_ctrl.flatten() {
            set(Field::GUEST_PERF_GLOBAL_CTRL, value);
        }
        set(Field::GUEST_CR0, self.cr0);
        set(Field::GUEST_CR3, self.cr3);
        set(Field::GUEST_CR4, self.cr4);
        if controls.exit.has(Exit::SAVE_DEBUG_CONTROLS) {
            set(Field::GUEST_DR7, self.dr[7]);
            set(Field::GUEST_DEBUGCTL, self.msrs.debugctl);
        }
        set(Field::GUEST_SYSENTER_CS, self.msrs.sysenter_cs);
        set(Field::GUEST_SYSENTER_ESP, self.msrs.sysenter_esp);
        set(Field::GUEST_SYSENTER_EIP, self.msrs.sysenter_eip);
        if controls.exit.has(Exit::SAVE_PAT) {
            set(Field::GUEST_PAT, self.msrs.pat);
        }
        if controls.exit.has(Exit::SAVE_EFER) {
            set(Field::GUEST_EFER, self.efer);
        }
        // CET state, IA32_PKRS and IA32_SPEC_CTRL are saved where the entry controls that load them can be 1 (28.3.1).
        let loadable = self.vmx.capabilities.entry.allowed;
        if loadable & Entry::LOAD_CET_STATE != 0 {
            set(Field::GUEST_S_CET, self.msrs.s_cet);
            set(Field::GUEST_SSP, self.ssp);
            set(Field::GUEST_INTERRUPT_SSP_TABLE, self.msrs.interrupt_ssp_table);
        }
        if loadable & Entry::LOAD_PKRS != 0 {
            set(Field::GUEST_PKRS, u64::from(self.msrs.pkrs));
        }
        if loadable & Entry::LOAD_SPEC_CTRL != 0 {
            set(Field::GUEST_SPEC_CTRL, self.msrs.spec_ctrl);
        }
        if self.vmx.capabilities.misc & misc::STORE_LMA != 0 {
            let long = if self.efer & Efer::LMA != 0 { u64::from(Entry::IA32E_MODE_GUEST) } else { 0 };
            set(Field::ENTRY_CONTROLS, u64::from(controls.entry.0 & !Entry::IA32E_MODE_GUEST) | long);
        }
        set(Field::GUEST_GDTR_BASE, self.gdtr.base);
        set(Field::GUEST_GDTR_LIMIT, u64::from(self.gdtr.limit));
        set(Field::GUEST_IDTR_BASE, self.idtr.base);
        set(Field::GUEST_IDTR_LIMIT, u64::from(self.idtr.limit));
        set(Field::GUEST_RSP, self.regs[RSP]);
        set(Field::GUEST_RIP, self.rip);
        set(Field::GUEST_RFLAGS, rflags);
        for n in 0..6 {
            self.save_segment(n, self.segs[n]);
        }
        self.save_segment(LDTR, self.ldtr);
        self.save_segment(TR, self.tr);
        self.save_pdptes();
        self.save_non_register_state();
        self.save_preemption_timer();
    }

    fn save_pdptes(&mut self) {
        let pae = self.cr0 & Cr0::PG != 0 && self.cr4 & Cr4::PAE != 0 && self.efer & Efer::LMA == 0;
        if !pae || !self.vmx.controls.secondary.has(Secondary::ENABLE_EPT) {
            return;
        }
        let fields = [Field::GUEST_PDPTE0, Field::GUEST_PDPTE1, Field::GUEST_PDPTE2, Field::GUEST_PDPTE3];
        for (field, value) in fields.into_iter().zip(self.pdptes) {
            self.vmx.vmcs.set(field, value);
        }
    }

    fn save_non_register_state(&mut self) {
        let shadow = match self.events.shadow {
            Shadow::None => 0,
            Shadow::Sti => Interruptibility::STI,
            Shadow::MovSs => Interruptibility::MOV_SS,
        };
        let nmi_blocked = if self.vmx.controls.pin.has(Pin::VIRTUAL_NMIS) {
            self.vmx.virtual_nmi_blocking
        } else {
            self.events.nmi_blocked
        };
        let nmi = if nmi_blocked { Interruptibility::NMI } else { 0 };
        self.vmx.vmcs.set(Field::GUEST_INTERRUPTIBILITY, u64::from(shadow | nmi));
        let activity = match self.activity {
            // The field never tells of the state that MWAIT puts the processor in (25.4.2).
            Activity::Halted if self.monitor.waiting => ActivityState::Active,
            Activity::Active => ActivityState::Active,
            Activity::Halted => ActivityState::Hlt,
            Activity::Shutdown => ActivityState::Shutdown,
            Activity::WaitForSipi => ActivityState::WaitForSipi,
        };
        self.vmx.vmcs.set(Field::GUEST_ACTIVITY_STATE, activity as u64);
        let trap = self.events.debug_trap | self.pending_breakpoints;
        let hits = trap & Dr6::HIT;
        let locked = trap & Dr6::BLD;
        let met = if hits | locked != 0 { PendingDebug::ENABLED_BREAKPOINT } else { 0 };
        self.vmx.vmcs.set(Field::GUEST_PENDING_DEBUG, hits | locked | trap & Dr6::BS | met);
    }
}
