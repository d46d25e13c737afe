//! Control-flow enforcement technology: shadow stacks and indirect branch tracking (SDM Vol. 1, chapter 17).
//!
//! | module | is |
//! | --- | --- |
//! | `branches` | near CALL, RET and indirect JMP where CET is on, and ENDBRANCH |
//! | `tracking` | the ENDBRANCH tracker and the legacy code-page bitmap |
//! | `shadow_stack` | accesses to shadow stacks, and tokens |
//! | `frames` | what far transfers and events do to shadow stacks |
//! | `instructions` | INCSSP to CLRSSBSY |
//! | `msrs` | the MSRs and their checks |
//!
//! Where CET is off it costs nothing: code is decoded for what [`CetCode`] says, with handlers of its own where CET is on, and a block is looked up under
//! that too. Waiting for ENDBRANCH is a kind of its own, so that the check costs a block its lookup only.

mod branches;
mod frames;
mod instructions;
mod msrs;
mod shadow_stack;
#[cfg(test)]
mod tests;
mod tracking;

pub(crate) use frames::{CodePlace, TaskShadow};
pub(crate) use msrs::control_bits;
pub(crate) use shadow_stack::ShadowCache;
pub(crate) use tracking::missing_endbranch_handler;

use crate::cpu::Cpu;
use crate::decode::Table;
use crate::trap::Trapped;
use spec::x86::cet::ControlProtectionCode;
use spec::x86::{CetControl, Cr0, Cr4, Vector};

/// What code is decoded for, as far as CET matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum CetCode {
    /// Neither shadow stacks nor branch tracking at this privilege level.
    #[default]
    Off,
    /// One of them or both.
    On,
    /// Branch tracking, and the next instruction has to be ENDBRANCH.
    Waiting,
}

/// Registers CET's instructions, and the forms of near branches for code where CET is on.
pub fn register(table: &mut Table) {
    instructions::register(table);
    branches::register(table);
}

impl Cpu {
    /// The control MSR that is in force at privilege level `cpl`; 0 where CET is off. An inner level is entered in protected mode, also from
    /// virtual-8086 mode.
    #[inline]
    pub(crate) fn cet_control(&self, cpl: u8) -> u64 {
        if self.cr4 & Cr4::CET == 0 || self.cr0 & Cr0::PE == 0 || cpl == 3 && !self.protected() {
            0
        } else if cpl == 3 {
            self.msrs.u_cet
        } else {
            self.msrs.s_cet
        }
    }

    /// Shadow stacks are enabled at privilege level `cpl`.
    #[inline]
    pub(crate) fn shadow_stack_enabled(&self, cpl: u8) -> bool {
        self.cet_control(cpl) & CetControl::SH_STK_EN != 0
    }

    /// To be called after CPL, the mode, CR4.CET or a control MSR changed: how code is decoded from here on.
    pub(crate) fn cet_changed(&mut self) {
        let control = self.cet_control(self.cpl);
        let waiting = CetControl::ENDBR_EN | CetControl::TRACKER;
        self.cet = if control & waiting == waiting {
            CetCode::Waiting
        } else if control & (CetControl::SH_STK_EN | CetControl::ENDBR_EN) != 0 {
            CetCode::On
        } else {
            CetCode::Off
        };
        self.jumps.select_cet(self.cet);
    }

    /// #CP.
    #[cold]
    pub(crate) fn control_protection(&mut self, code: ControlProtectionCode) -> Trapped {
        self.raise(Vector::ControlProtection as u8, Some(code as u32))
    }
}
