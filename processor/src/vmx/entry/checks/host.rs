//! Checks on the host-state area and the address-space size (SDM Vol. 3C, 27.2.2 to 27.2.4).

use super::{Checked, View};
use spec::vmx::{
    EntryCheck as Check, EntryControls as Entry, ExitControls as Exit, SecondaryExitControls as SecondaryExit,
    VmcsField as Field,
};
use spec::x86::paging::MemoryType;
use spec::x86::{CetControl, Cr0, Cr4, Efer};

impl View<'_> {
    /// 27.2.2.
    pub(super) fn host_registers(&self) -> Checked {
        let c = self.capabilities;
        let fixed = |value: u64, must: u64, may: u64| value & must == must && value & !may == 0;
        let (cr0, cr4) = (self.get(Field::HOST_CR0), self.get(Field::HOST_CR4));
        self.require(fixed(cr0, c.cr0_fixed0, c.cr0_fixed1), Check::HostCr0Fixed, Field::HOST_CR0)?;
        self.require(fixed(cr4, c.cr4_fixed0, c.cr4_fixed1), Check::HostCr4Fixed, Field::HOST_CR4)?;
        let wp = cr4 & Cr4::CET == 0 || cr0 & Cr0::WP != 0;
        self.require(wp, Check::HostCetNeedsWp, Field::HOST_CR4)?;
        self.require(self.in_width(self.get(Field::HOST_CR3)), Check::HostCr3Width, Field::HOST_CR3)?;
        for field in [Field::HOST_SYSENTER_ESP, Field::HOST_SYSENTER_EIP] {
            self.require(self.is_canonical(self.get(field)), Check::HostSysenterCanonical, field)?;
        }
        if self.exit.has(Exit::LOAD_PAT) {
            let valid = MemoryType::pat_is_valid(self.get(Field::HOST_PAT));
            self.require(valid, Check::HostPat, Field::HOST_PAT)?;
        }
        if self.exit.has(Exit::LOAD_EFER) {
            let efer = self.get(Field::HOST_EFER);
            self.require(efer & !c.efer == 0, Check::HostEferReserved, Field::HOST_EFER)?;
            let wide = if self.exit.has(Exit::HOST_ADDRESS_SPACE_SIZE) { Efer::LMA | Efer::LME } else { 0 };
            self.require(efer & (Efer::LMA | Efer::LME) == wide, Check::HostEferMode, Field::HOST_EFER)?;
        }
        if self.exit.has(Exit::LOAD_CET_STATE) {
            let wide = self.exit.has(Exit::HOST_ADDRESS_SPACE_SIZE);
            let fits = |value: u64| if wide { self.is_canonical(value) } else { value >> 32 == 0 };
            let control = self.get(Field::HOST_S_CET);
            let valid = CetControl(control).is_valid(c.cet) && fits(control);
            self.require(valid, Check::HostCet, Field::HOST_S_CET)?;
            let ssp = self.get(Field::HOST_SSP);
            self.require(ssp & 3 == 0 && fits(ssp), Check::HostCet, Field::HOST_SSP)?;
            let table = Field::HOST_INTERRUPT_SSP_TABLE;
            self.require(self.is_canonical(self.get(table)), Check::HostCet, table)?;
        }
        if self.exit.has(Exit::LOAD_PERF_GLOBAL_CTRL) {
            let field = Field::HOST_PERF_GLOBAL_CTRL;
            self.require(self.get(field) & !c.perf_global_ctrl == 0, Check::HostPerfGlobalCtrl, field)?;
        }
        if self.exit.has(Exit::LOAD_PKRS) {
            self.require(self.get(Field::HOST_PKRS) >> 32 == 0, Check::HostPkrs, Field::HOST_PKRS)?;
        }
        if self.secondary_exit.has(SecondaryExit::LOAD_SPEC_CTRL) {
            let field = Field::HOST_SPEC_CTRL;
            self.require(self.get(field) & !c.spec_ctrl == 0, Check::HostSpecCtrl, field)?;
        }
        Ok(())
    }

    /// 27.2.3.
    pub(super) fn host_segments(&self) -> Checked {
        const SELECTORS: [Field; 7] = [
            Field::HOST_ES_SELECTOR,
            Field::HOST_CS_SELECTOR,
            Field::HOST_SS_SELECTOR,
            Field::HOST_DS_SELECTOR,
            Field::HOST_FS_SELECTOR,
            Field::HOST_GS_SELECTOR,
            Field::HOST_TR_SELECTOR,
        ];
        const BASES: [Field; 5] = [
            Field::HOST_FS_BASE,
            Field::HOST_GS_BASE,
            Field::HOST_TR_BASE,
            Field::HOST_GDTR_BASE,
            Field::HOST_IDTR_BASE,
        ];
        for field in SELECTORS {
            self.require(self.get(field) & 7 == 0, Check::HostSelectorRplTi, field)?;
        }
        let not_zero = |field| self.get(field) != 0;
        self.require(not_zero(Field::HOST_CS_SELECTOR), Check::HostCsZero, Field::HOST_CS_SELECTOR)?;
        self.require(not_zero(Field::HOST_TR_SELECTOR), Check::HostTrZero, Field::HOST_TR_SELECTOR)?;
        let wide = self.exit.has(Exit::HOST_ADDRESS_SPACE_SIZE);
        self.require(wide || not_zero(Field::HOST_SS_SELECTOR), Check::HostSsZero, Field::HOST_SS_SELECTOR)?;
        for field in BASES {
            self.require(self.is_canonical(self.get(field)), Check::HostBaseCanonical, field)?;
        }
        Ok(())
    }

    /// 27.2.4.
    pub(super) fn address_space_size(&self) -> Checked {
        let wide = self.exit.has(Exit::HOST_ADDRESS_SPACE_SIZE);
        let long_guest = self.entry.has(Entry::IA32E_MODE_GUEST);
        if self.context.long_mode {
            self.require(wide, Check::HostAddressSpaceSizeInIa32eMode, Field::EXIT_CONTROLS)?;
        } else {
            self.require(!wide && !long_guest, Check::OutsideIa32eMode, Field::EXIT_CONTROLS)?;
        }
        let (cr4, rip) = (self.get(Field::HOST_CR4), self.get(Field::HOST_RIP));
        if wide {
            self.require(cr4 & Cr4::PAE != 0, Check::Host64Pae, Field::HOST_CR4)?;
            self.require(self.is_canonical(rip), Check::Host64RipCanonical, Field::HOST_RIP)
        } else {
            self.require(!long_guest, Check::Host32NoIa32eGuest, Field::ENTRY_CONTROLS)?;
            self.require(cr4 & Cr4::PCIDE == 0, Check::Host32NoPcide, Field::HOST_CR4)?;
            self.require(rip >> 32 == 0, Check::Host32Rip, Field::HOST_RIP)
        }
    }
}
