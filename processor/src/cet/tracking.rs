//! Indirect branch tracking (SDM Vol. 1, 17.3).

use crate::branch;
use crate::cpu::Cpu;
use crate::decode::{Handler, Op};
use crate::trap::{Exec, Trap};
use spec::x86::CetControl;
use spec::x86::cet::ControlProtectionCode;

/// [`Op::extra`] of a near indirect branch with the NOTRACK prefix.
pub(super) const NOTRACK: u8 = 1;

impl Cpu {
    fn set_cet_control(&mut self, cpl: u8, value: u64) {
        *(if cpl == 3 { &mut self.msrs.u_cet } else { &mut self.msrs.s_cet }) = value;
        self.cet_changed();
    }

    /// The near indirect branch `op` was executed.
    #[inline]
    pub(super) fn track_near(&mut self, op: &Op) {
        let control = self.cet_control(self.cpl);
        let tracked = control & (CetControl::ENDBR_EN | CetControl::SUPPRESS) == CetControl::ENDBR_EN;
        let exempt = op.extra == NOTRACK && control & CetControl::NO_TRACK_EN != 0;
        if tracked && !exempt {
            self.set_cet_control(self.cpl, control | CetControl::TRACKER);
        }
    }

    /// A far transfer or an event has led to code of privilege level `cpl`, which is the current one.
    #[inline]
    pub(crate) fn track_far(&mut self, cpl: u8) {
        let control = self.cet_control(cpl);
        if control & CetControl::ENDBR_EN != 0 {
            self.set_cet_control(cpl, control & !CetControl::SUPPRESS | CetControl::TRACKER);
        }
    }

    /// ENDBRANCH of the right width was executed.
    #[inline]
    pub(super) fn endbranch(&mut self) {
        let control = self.cet_control(self.cpl);
        if control & CetControl::ENDBR_EN != 0 && control & (CetControl::TRACKER | CetControl::SUPPRESS) != 0 {
            self.set_cet_control(self.cpl, control & !(CetControl::TRACKER | CetControl::SUPPRESS));
        }
    }

    /// The legacy code-page bitmap has a 1 for the page of the current instruction: it may be the target of an indirect branch (17.3.6).
    fn is_legacy_code(&mut self, control: u64, linear: u64) -> Exec<bool> {
        if control & CetControl::LEG_IW_EN == 0 {
            return Ok(false);
        }
        let page = linear >> 12 & ((1 << 36) - 1);
        let byte = self.load::<1>((control & CetControl::BITMAP).wrapping_add(page >> 3))?;
        Ok(byte >> (page & 7) & 1 != 0)
    }
}

/// Stands for an instruction that is no ENDBRANCH where one is waited for: #CP, or the instruction is to be run after all.
fn missing_endbranch(cpu: &mut Cpu, op: &Op) -> Exec {
    let rip = cpu.rip_of(op);
    let control = cpu.cet_control(cpu.cpl);
    cpu.rip = rip;
    let linear = cpu.code_linear();
    if !cpu.is_legacy_code(control, linear)? {
        return Err(cpu.control_protection(ControlProtectionCode::EndBranch));
    }
    let suppress = if control & CetControl::SUPPRESS_DIS == 0 { CetControl::SUPPRESS } else { 0 };
    cpu.set_cet_control(cpu.cpl, control & !CetControl::TRACKER | suppress);
    Err(cpu.trapped(Trap::Continue))
}

/// The handler of the first instruction of a block that should begin with ENDBRANCH and does not.
pub(crate) fn missing_endbranch_handler() -> Handler {
    branch!(missing_endbranch)
}
