//! Loading guest state (SDM Vol. 3C, 27.3.2).

use super::checks::EntryContext;
use crate::cpu::{Cpu, RSP, TableRegister};
use crate::run::Activity;
use crate::segment::{SS, Segment};
use crate::system::event::Shadow;
use crate::system::halt::Monitor;
use spec::vmx::{
    ActivityState, EntryControls as Entry, Interruptibility, PinBasedControls as Pin, PrimaryControls as Primary,
    SecondaryControls as Secondary, VmcsField as Field,
};
use spec::x86::{Cr0, Cr4, Dr7, Efer, msr};

/// The field `n` places after `first`, for runs of fields in the order ES, CS, SS, DS, FS, GS, LDTR, TR.
pub(in crate::vmx) const fn nth(first: Field, n: usize) -> Field {
    Field(first.0 + 2 * n as u32)
}

/// Number of LDTR in that order.
pub(in crate::vmx) const LDTR: usize = 6;
/// Number of TR in that order.
pub(in crate::vmx) const TR: usize = 7;

/// Bits of CR0 that VM entries and exits do not change.
pub(in crate::vmx) const CR0_KEPT: u64 = Cr0::ET | Cr0::CD | Cr0::NW;

impl Cpu {
    fn guest_segment(&self, n: usize) -> Segment {
        let vmcs = &self.vmx.vmcs;
        Segment {
            selector: vmcs.get(nth(Field::GUEST_ES_SELECTOR, n)) as u16,
            base: vmcs.get(nth(Field::GUEST_ES_BASE, n)),
            limit: vmcs.get32(nth(Field::GUEST_ES_LIMIT, n)),
            access: vmcs.get32(nth(Field::GUEST_ES_ACCESS_RIGHTS, n)),
        }
    }

    /// Loads every register from the guest-state area.
    pub(super) fn load_guest(&mut self, context: EntryContext) {
        let entry = self.vmx.controls.entry;
        let get = |cpu: &Self, field| cpu.vmx.vmcs.get(field);
        self.cr0 = get(self, Field::GUEST_CR0) & !CR0_KEPT | self.cr0 & CR0_KEPT;
        self.cr4 = get(self, Field::GUEST_CR4);
        self.cr3 = get(self, Field::GUEST_CR3);
        if entry.has(Entry::LOAD_DEBUG_CONTROLS) {
            self.dr[7] = get(self, Field::GUEST_DR7) & 0xffff_2fff | Dr7::FIXED1;
            self.msrs.debugctl = get(self, Field::GUEST_DEBUGCTL);
        }
        self.msrs.sysenter_cs = get(self, Field::GUEST_SYSENTER_CS);
        self.msrs.sysenter_esp = get(self, Field::GUEST_SYSENTER_ESP);
        self.msrs.sysenter_eip = get(self, Field::GUEST_SYSENTER_EIP);
        if entry.has(Entry::LOAD_PAT) {
            self.msrs.pat = get(self, Field::GUEST_PAT);
        }
        if entry.has(Entry::LOAD_EFER) {
            self.efer = get(self, Field::GUEST_EFER);
        } else {
            let long = entry.has(Entry::IA32E_MODE_GUEST);
            let changed = Efer::LMA | if self.cr0 & Cr0::PG != 0 { Efer::LME } else { 0 };
            self.efer = self.efer & !changed | if long { changed } else { 0 };
        }
        if entry.has(Entry::LOAD_CET_STATE) {
            self.msrs.s_cet = get(self, Field::GUEST_S_CET);
            self.msrs.interrupt_ssp_table = get(self, Field::GUEST_INTERRUPT_SSP_TABLE);
            self.ssp = get(self, Field::GUEST_SSP);
        }
        if entry.has(Entry::LOAD_PERF_GLOBAL_CTRL) {
            self.write_performance_msr(msr::PERF_GLOBAL_CTRL, get(self, Field::GUEST_PERF_GLOBAL_CTRL));
        }
        if entry.has(Entry::LOAD_PKRS) {
            self.msrs.pkrs = get(self, Field::GUEST_PKRS) as u32;
        }
        if entry.has(Entry::LOAD_SPEC_CTRL) {
            self.msrs.spec_ctrl = get(self, Field::GUEST_SPEC_CTRL);
        }
        for n in 0..6 {
            self.segs[n] = self.guest_segment(n);
        }
        self.ldtr = self.guest_segment(LDTR);
        self.tr = self.guest_segment(TR);
        self.gdtr =
            TableRegister { base: get(self, Field::GUEST_GDTR_BASE), limit: get(self, Field::GUEST_GDTR_LIMIT) as u16 };
        self.idtr =
            TableRegister { base: get(self, Field::GUEST_IDTR_BASE), limit: get(self, Field::GUEST_IDTR_LIMIT) as u16 };
        self.regs[RSP] = get(self, Field::GUEST_RSP);
        self.rip = get(self, Field::GUEST_RIP);
        self.cpl = self.segs[SS].dpl();
        self.set_rflags(get(self, Field::GUEST_RFLAGS));
        self.load_guest_pdptes(context);
        self.mode_changed();
        self.load_non_register_state();
        self.start_preemption_timer();
    }

    fn load_guest_pdptes(&mut self, context: EntryContext) {
        const FIELDS: [Field; 4] = [Field::GUEST_PDPTE0, Field::GUEST_PDPTE1, Field::GUEST_PDPTE2, Field::GUEST_PDPTE3];
        if self.cr0 & Cr0::PG == 0 || self.cr4 & Cr4::PAE == 0 || self.efer & Efer::LMA != 0 {
            return;
        }
        self.pdptes = if self.vmx.controls.secondary.has(Secondary::ENABLE_EPT) {
            FIELDS.map(|field| self.vmx.vmcs.get(field))
        } else {
            context.pdptes
        };
    }

    fn load_non_register_state(&mut self) {
        let blocking = Interruptibility(self.vmx.vmcs.get32(Field::GUEST_INTERRUPTIBILITY));
        let nmi = blocking.has(Interruptibility::NMI);
        let virtual_nmis = self.vmx.controls.pin.has(Pin::VIRTUAL_NMIS);
        self.vmx.virtual_nmi_blocking = virtual_nmis && nmi;
        self.events.nmi_blocked = !virtual_nmis && nmi;
        // The shadow holds during the guest's first instruction: it is what the instruction that has just been run asks for.
        self.events.shadow = Shadow::None;
        self.events.next_shadow = if blocking.has(Interruptibility::MOV_SS) {
            Shadow::MovSs
        } else if blocking.has(Interruptibility::STI) {
            Shadow::Sti
        } else {
            Shadow::None
        };
        self.events.debug_trap = 0;
        self.pending_breakpoints = 0;
        self.monitor = Monitor::default();
        self.activity = match ActivityState::from_number(self.vmx.vmcs.get32(Field::GUEST_ACTIVITY_STATE)) {
            Some(ActivityState::Hlt) => Activity::Halted,
            Some(ActivityState::Shutdown) => Activity::Shutdown,
            Some(ActivityState::WaitForSipi) => Activity::WaitForSipi,
            Some(ActivityState::Active) | None => Activity::Active,
        };
        if self.vmx.controls.primary.has(Primary::MONITOR_TRAP_FLAG) {
            self.attention |= crate::run::attention::VMX;
        }
    }
}
