//! Loading host state (SDM Vol. 3C, 28.5 and 28.6), and VMX aborts (28.7).

use crate::cpu::{Cpu, RSP, TableRegister};
use crate::observe::Happening;
use crate::run::{Activity, attention};
use crate::segment::{CS, FS, GS, SS, Segment};
use crate::system::event::{Barren, Shadow};
use crate::vmx::Controls;
use crate::vmx::entry::{CR0_KEPT, nth};
use crate::vmx::msr_list;
use crate::vmx::vmcs::ABORT_OFFSET;
use spec::vmx::{
    ExitControls as Exit, SecondaryControls as Secondary, SecondaryExitControls as SecondaryExit, VmcsField as Field,
};
use spec::x86::descriptors::{AccessRights as Rights, system_type};
use spec::x86::{Cr0, Cr3, Cr4, Dr7, Efer, msr};

/// VMX-abort indicators (SDM Vol. 3C, 28.7).
pub(super) mod abort {
    /// Saving guest MSRs failed.
    pub const SAVE_MSRS: u32 = 1;
    /// The host's page-directory-pointer-table entries are invalid.
    pub const HOST_PDPTES: u32 = 2;
    /// Loading host MSRs failed.
    pub const LOAD_MSRS: u32 = 4;
}

const CODE: u32 = Rights::P | Rights::S | Rights::CODE | Rights::RW | Rights::ACCESSED | Rights::G;
const DATA: u32 = Rights::P | Rights::S | Rights::RW | Rights::ACCESSED | Rights::G | Rights::DB;

impl Cpu {
    /// Leaves VMX non-root operation for the state in the host-state area.
    pub(super) fn load_host(&mut self) {
        let (exit, secondary) = (self.vmx.controls.exit, self.vmx.controls.secondary_exit);
        let wide = exit.has(Exit::HOST_ADDRESS_SPACE_SIZE);
        let had_vpid = self.vmx.controls.secondary.has(Secondary::ENABLE_VPID);
        let get = |cpu: &Self, field| cpu.vmx.vmcs.get(field);
        self.vmx.non_root = false;
        self.vmx.controls = Controls::default();
        (self.vmx.eptp, self.vmx.vpid) = (0, 0);
        self.vmx.forget_apic_virtualization();
        self.vmx.mtf_pending = false;
        self.vmx.timer_deadline = u64::MAX;
        self.attention &= !attention::VMX;

        self.cr0 = get(self, Field::HOST_CR0) & !CR0_KEPT & Cr0::ALL | self.cr0 & CR0_KEPT;
        self.cr3 = get(self, Field::HOST_CR3);
        let cr4 = get(self, Field::HOST_CR4) | Cr4::VMXE;
        self.cr4 = if wide { cr4 | Cr4::PAE } else { cr4 & !Cr4::PCIDE };
        self.dr[7] = Dr7::RESET;
        self.msrs.debugctl = 0;
        self.msrs.sysenter_cs = get(self, Field::HOST_SYSENTER_CS);
        self.msrs.sysenter_esp = get(self, Field::HOST_SYSENTER_ESP);
        self.msrs.sysenter_eip = get(self, Field::HOST_SYSENTER_EIP);
        if exit.has(Exit::LOAD_EFER) {
            self.efer = get(self, Field::HOST_EFER);
        } else {
            let mode = Efer::LMA | Efer::LME;
            self.efer = self.efer & !mode | if wide { mode } else { 0 };
        }
        if exit.has(Exit::LOAD_PAT) {
            self.msrs.pat = get(self, Field::HOST_PAT);
        }
        if exit.has(Exit::LOAD_CET_STATE) {
            self.msrs.s_cet = get(self, Field::HOST_S_CET);
            self.msrs.interrupt_ssp_table = get(self, Field::HOST_INTERRUPT_SSP_TABLE);
            self.ssp = get(self, Field::HOST_SSP);
        }
        if exit.has(Exit::LOAD_PERF_GLOBAL_CTRL) {
            self.write_performance_msr(msr::PERF_GLOBAL_CTRL, get(self, Field::HOST_PERF_GLOBAL_CTRL));
        }
        if exit.has(Exit::LOAD_PKRS) {
            self.msrs.pkrs = get(self, Field::HOST_PKRS) as u32;
        }
        if secondary.has(SecondaryExit::LOAD_SPEC_CTRL) {
            self.msrs.spec_ctrl = get(self, Field::HOST_SPEC_CTRL);
        }
        self.load_host_segments(wide);
        self.rip = get(self, Field::HOST_RIP);
        self.regs[RSP] = get(self, Field::HOST_RSP);
        self.set_rflags(2);
        self.cpl = 0;
        self.mode_changed();

        self.events.shadow = Shadow::None;
        self.events.next_shadow = Shadow::None;
        self.events.debug_trap = 0;
        self.events.debug_bits = 0;
        self.events.delivering = None;
        self.events.retried = None;
        self.events.barren = Barren::default();
        self.events.interrupted = true;
        self.pending_breakpoints = 0;
        self.activity_resumes();
        self.attention |= attention::EVENT | attention::DEADLINE;
        if !had_vpid {
            self.tlb.flush_where(|key| key.vpid == 0);
        }
        if self.cr0 & Cr0::PG != 0 && self.cr4 & Cr4::PAE != 0 && !wide {
            self.load_host_pdptes();
        }
    }

    fn load_host_pdptes(&mut self) {
        let table = self.cr3 & Cr3::PAE_TABLE;
        let entries: [u64; 4] = std::array::from_fn(|n| self.physical_load::<8>(table + 8 * n as u64));
        use spec::x86::paging::Entry;
        let bad = entries.iter().any(|entry| {
            entry & Entry::P != 0 && (entry & Entry::PAE_PDPTE_RESERVED != 0 || entry >> self.physical_bits != 0)
        });
        if bad {
            return self.vmx_abort(abort::HOST_PDPTES);
        }
        self.pdptes = entries;
    }

    fn load_host_segments(&mut self, wide: bool) {
        let get = |cpu: &Self, field| cpu.vmx.vmcs.get(field);
        for n in 0..6 {
            let selector = get(self, nth(Field::HOST_ES_SELECTOR, n)) as u16;
            let access = if n == CS {
                CODE | if wide { Rights::L } else { Rights::DB }
            } else if selector == 0 && (n != SS || wide) {
                Rights::UNUSABLE
            } else {
                DATA
            };
            self.segs[n] = Segment { selector, base: 0, limit: u32::MAX, access };
        }
        self.segs[FS].base = get(self, Field::HOST_FS_BASE);
        self.segs[GS].base = get(self, Field::HOST_GS_BASE);
        self.tr = Segment {
            selector: get(self, Field::HOST_TR_SELECTOR) as u16,
            base: get(self, Field::HOST_TR_BASE),
            limit: 0x67,
            access: Rights::P | u32::from(system_type::TSS_BUSY),
        };
        self.ldtr = Segment { selector: 0, base: 0, limit: 0, access: Rights::UNUSABLE };
        self.gdtr = TableRegister { base: get(self, Field::HOST_GDTR_BASE), limit: 0xffff };
        self.idtr = TableRegister { base: get(self, Field::HOST_IDTR_BASE), limit: 0xffff };
    }

    /// The VM-exit MSR-store area (28.4). False: a VMX abort is due.
    pub(super) fn store_exit_msrs(&mut self) -> bool {
        let count = u64::from(self.vmx.vmcs.get32(Field::EXIT_MSR_STORE_COUNT));
        let address = self.vmx.vmcs.get(Field::EXIT_MSR_STORE_ADDRESS);
        count <= msr_list::LIMIT && (0..count).all(|n| msr_list::Entry::load(self, address + 16 * n).store(self))
    }

    /// The VM-exit MSR-load area (28.6).
    pub(super) fn load_exit_msrs(&mut self) {
        let count = u64::from(self.vmx.vmcs.get32(Field::EXIT_MSR_LOAD_COUNT));
        let address = self.vmx.vmcs.get(Field::EXIT_MSR_LOAD_ADDRESS);
        let loaded = count <= msr_list::LIMIT
            && (0..count).all(|n| msr_list::Entry::load(self, address + 16 * n).write(self).is_ok());
        if !loaded {
            self.vmx_abort(abort::LOAD_MSRS);
        }
    }

    /// A VMX abort: the indicator is written and the processor shuts down.
    pub(super) fn vmx_abort(&mut self, indicator: u32) {
        self.observe(Happening::VmxAbort(indicator));
        let pointer = self.vmx.vmcs.pointer;
        self.physical_store::<4>(pointer.wrapping_add(ABORT_OFFSET), u64::from(indicator));
        self.vmx.non_root = false;
        self.vmx.controls = Controls::default();
        self.activity = Activity::Shutdown;
        self.attention |= attention::INACTIVE | attention::EVENT;
    }
}
