//! What far transfers, events and task switches do to shadow stacks (SDM Vol. 1, 17.2.2 to 17.2.5; Vol. 2, CALL, RET, INT n and IRET).
//!
//! Each of them asks here for the change before it commits anything, having made every other check; the change is committed with its registers.

use super::shadow_stack::class_of;
use crate::cpu::Cpu;
use crate::segment::SS;
use crate::trap::Exec;
use spec::x86::cet::{ControlProtectionCode, TOKEN_BUSY};
use spec::x86::{CetControl, Cr4, Vector};

/// A change of SSP and of IA32_PL3_SSP.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ShadowChange {
    ssp: Option<u64>,
    pl3_ssp: Option<u64>,
}

/// The code that a transfer leaves or returns to, as shadow stacks hold it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CodePlace {
    /// Selector of CS.
    pub selector: u16,
    /// Linear address of the instruction.
    pub linear: u64,
    /// It is 64-bit code.
    pub long: bool,
}

impl Cpu {
    /// Commits `change`.
    #[inline]
    pub(crate) fn commit_shadow(&mut self, change: ShadowChange) {
        if let Some(ssp) = change.ssp {
            self.ssp = ssp;
        }
        if let Some(ssp) = change.pl3_ssp {
            self.msrs.pl_ssp[3] = ssp;
        }
    }

    /// SSP as IA32_PL3_SSP holds it: bits beyond the processor's linear-address width repeat the highest one within.
    fn adjusted_ssp(&self) -> u64 {
        if !self.long_mode() {
            return self.ssp;
        }
        let unused = 64 - u32::from(self.model.linear_bits());
        ((self.ssp << unused) as i64 >> unused) as u64
    }

    /// #GP(0) when SSP cannot be `ssp` in the mode of the code that follows.
    fn check_ssp(&mut self, ssp: u64, long: bool) -> Exec {
        let fits = if long { self.is_canonical(ssp) } else { ssp >> 32 == 0 };
        if fits { Ok(()) } else { Err(self.general_protection(0)) }
    }

    /// A far jump: SSP must fit the mode.
    pub(crate) fn check_shadow_jump(&mut self, long: bool) -> Exec {
        if self.shadow_stack_enabled(self.cpl) && !long { self.check_ssp(self.ssp, false) } else { Ok(()) }
    }

    /// Pushes CS, linear return address and SSP below `top`; gives the new top.
    fn push_shadow_frame(&mut self, top: u64, from: CodePlace, ssp: u64, cpl: u8) -> Exec<u64> {
        let class = class_of(cpl);
        if top & 4 != 0 {
            self.shadow_store(top.wrapping_sub(4), 4, 0, class)?;
        }
        let base = top & !7;
        self.shadow_store(base.wrapping_sub(8), 8, u64::from(from.selector), class)?;
        self.shadow_store(base.wrapping_sub(16), 8, from.linear, class)?;
        self.shadow_store(base.wrapping_sub(24), 8, ssp, class)?;
        Ok(base.wrapping_sub(24))
    }

    /// Makes the checks on a shadow stack to be switched to and marks it busy. The frame pushed on it then lies in the token's own 32 bytes, so
    /// that nothing can fault once it is busy.
    fn switch_shadow_stack(&mut self, pointer: u64, long: bool) -> Exec {
        if pointer & 7 != 0 || pointer & !0x1f != pointer.wrapping_sub(24) & !0x1f {
            return Err(self.general_protection(0));
        }
        self.check_ssp(pointer, long)?;
        if self.take_shadow_stack(pointer)? { Ok(()) } else { Err(self.general_protection(0)) }
    }

    /// A far call or an event, from `from` to code of privilege level `cpl`. `switch` is the shadow stack to change to: for an inner level, or an
    /// interrupt stack.
    pub(crate) fn shadow_call(
        &mut self,
        from: CodePlace,
        cpl: u8,
        long: bool,
        switch: Option<u64>,
    ) -> Exec<ShadowChange> {
        let mut change = ShadowChange::default();
        if self.cr4 & Cr4::CET == 0 {
            return Ok(change);
        }
        let inner = cpl != self.cpl;
        if inner && self.cpl == 3 && self.shadow_stack_enabled(3) {
            change.pl3_ssp = Some(self.adjusted_ssp());
        }
        if !self.shadow_stack_enabled(cpl) {
            return Ok(change);
        }
        let top = match switch {
            Some(pointer) => {
                // The token must not stay busy if the instruction has to be run again.
                self.require_exact()?;
                self.switch_shadow_stack(pointer, long)?;
                pointer
            }
            None => {
                self.check_ssp(self.ssp, long)?;
                self.ssp
            }
        };
        let ssp = self.ssp;
        let pushes = !inner || self.segs[SS].dpl() != 3;
        change.ssp = Some(if pushes { self.push_shadow_frame(top, from, ssp, cpl)? } else { top });
        Ok(change)
    }

    /// The shadow stack that an event changes to: through the interrupt SSP table for an interrupt stack, else that of the inner level.
    pub(crate) fn event_shadow_stack(&mut self, cpl: u8, ist: u8) -> Exec<Option<u64>> {
        if self.cr4 & Cr4::CET == 0 || !self.shadow_stack_enabled(cpl) {
            return Ok(None);
        }
        if ist != 0 {
            let at = self.msrs.interrupt_ssp_table.wrapping_add(u64::from(ist) << 3);
            return self.system_load::<8>(at).map(Some);
        }
        Ok((cpl != self.cpl).then(|| self.inner_shadow_stack(cpl)))
    }

    /// IA32_PLi_SSP.
    pub(crate) fn inner_shadow_stack(&self, cpl: u8) -> u64 {
        self.msrs.pl_ssp[usize::from(cpl & 3)]
    }

    /// Pops and checks a frame; gives SSP behind it and the SSP that it holds.
    fn pop_shadow_frame(&mut self, to: CodePlace) -> Exec<(u64, u64)> {
        let class = class_of(self.cpl);
        self.check_shadow_alignment()?;
        let ssp = self.ssp;
        let selector = self.shadow_load(ssp.wrapping_add(16), 8, class)?;
        let linear = self.shadow_load(ssp.wrapping_add(8), 8, class)?;
        let previous = self.shadow_load(ssp, 8, class)?;
        if selector != u64::from(to.selector) || linear != to.linear || previous & 3 != 0 {
            return Err(self.control_protection(ControlProtectionCode::FarRetIret));
        }
        Ok((ssp.wrapping_add(24), previous))
    }

    fn check_shadow_alignment(&mut self) -> Exec {
        if self.ssp & 7 != 0 {
            return Err(self.control_protection(ControlProtectionCode::FarRetIret));
        }
        Ok(())
    }

    /// A far RET or IRET to `to` at privilege level `cpl`, all other checks made; the old stack's token is freed. `iret`: in IA-32e mode the event may
    /// have changed to an interrupt shadow stack at the same level.
    pub(crate) fn shadow_return(&mut self, to: CodePlace, cpl: u8, iret: bool) -> Exec<ShadowChange> {
        let mut change = ShadowChange::default();
        if self.cr4 & Cr4::CET == 0 {
            return Ok(change);
        }
        let enabled = self.shadow_stack_enabled(self.cpl);
        if cpl == self.cpl {
            if enabled {
                let (behind, previous) = self.pop_shadow_frame(to)?;
                self.check_ssp(previous, to.long)?;
                if iret && self.long_mode() && behind != previous {
                    self.free_shadow_stack(behind)?;
                }
                change.ssp = Some(previous);
            }
            return Ok(change);
        }
        let (mut old, mut new) = (self.ssp, self.msrs.pl_ssp[3]);
        if enabled {
            self.check_shadow_alignment()?;
            if cpl != 3 {
                (old, new) = self.pop_shadow_frame(to)?;
            }
        }
        if self.shadow_stack_enabled(cpl) {
            self.check_ssp(new, to.long)?;
            change.ssp = Some(new);
        }
        if enabled {
            self.free_shadow_stack(old)?;
        }
        Ok(change)
    }

    /// IRET to virtual-8086 mode, where there is no CET.
    pub(crate) fn shadow_return_to_v86(&mut self) -> Exec {
        if self.cr4 & Cr4::CET == 0 {
            return Ok(());
        }
        if self.msrs.u_cet & (CetControl::ENDBR_EN | CetControl::SH_STK_EN) != 0 {
            return Err(self.general_protection(0));
        }
        if self.shadow_stack_enabled(self.cpl) {
            self.check_shadow_alignment()?;
            self.free_shadow_stack(self.ssp)?;
        }
        Ok(())
    }

    /// SYSCALL and SYSENTER, before CPL changes: the user's SSP is kept, and there is none until the system sets one up.
    #[inline]
    pub(crate) fn shadow_system_call(&mut self) {
        if self.cr4 & Cr4::CET == 0 {
            return;
        }
        if self.cpl == 3 && self.shadow_stack_enabled(3) {
            self.msrs.pl_ssp[3] = self.adjusted_ssp();
        }
        if self.shadow_stack_enabled(0) {
            self.ssp = 0;
        }
    }

    /// SYSRET and SYSEXIT, when CPL is 3 again.
    #[inline]
    pub(crate) fn shadow_system_return(&mut self) {
        if self.shadow_stack_enabled(3) {
            self.ssp = self.msrs.pl_ssp[3];
        }
    }
}

/// What a task switch keeps of the old task for the new one's shadow stack.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TaskShadow {
    /// The old task's place and SSP, to be pushed on the new task's shadow stack.
    pushed: Option<(u16, u64, u64)>,
    /// The frame popped by IRET: CS and linear address, to be compared with the new task's.
    popped: Option<(u64, u64)>,
    /// SSP for the new task, by IRET.
    ssp: u64,
}

impl Cpu {
    /// A task switch, before the new task's state is loaded: to privilege level `cpl`, by IRET (`returns`) or with a link (`nests`).
    pub(crate) fn shadow_leave_task(
        &mut self,
        from: CodePlace,
        cpl: u8,
        returns: bool,
        nests: bool,
    ) -> Exec<TaskShadow> {
        let mut shadow = TaskShadow::default();
        if self.cr4 & Cr4::CET == 0 || !self.shadow_stack_enabled(self.cpl) {
            return Ok(shadow);
        }
        if nests {
            if self.cpl == 3 && cpl < 3 {
                self.msrs.pl_ssp[3] = self.ssp;
            } else {
                shadow.pushed = Some((from.selector, from.linear, self.ssp));
            }
        }
        if returns {
            self.check_shadow_alignment()?;
            let mut old = self.ssp;
            if cpl == self.cpl || cpl < 3 {
                let class = class_of(self.cpl);
                shadow.ssp = self.shadow_load(old, 8, class)?;
                let linear = self.shadow_load(old.wrapping_add(8), 8, class)?;
                let selector = self.shadow_load(old.wrapping_add(16), 8, class)?;
                shadow.popped = Some((selector, linear));
                old = old.wrapping_add(24);
            } else {
                shadow.ssp = self.msrs.pl_ssp[3];
            }
            self.shadow_exchange(old, old | TOKEN_BUSY, old, class_of(self.cpl))?;
            self.ssp = 0;
        }
        Ok(shadow)
    }

    /// A task switch, when the new task's segments are loaded: `token` is the SSP of its TSS, if its TSS has room for one. Faults are the new task's.
    pub(crate) fn shadow_enter_task(
        &mut self,
        shadow: TaskShadow,
        token: Option<u64>,
        returns: bool,
        to: CodePlace,
    ) -> Exec {
        if self.cr4 & Cr4::CET == 0 {
            return Ok(());
        }
        let invalid = u32::from(self.tr.selector & !3);
        if !self.protected() && self.msrs.u_cet & (CetControl::SH_STK_EN | CetControl::ENDBR_EN) != 0 {
            return Err(self.raise(Vector::InvalidTss as u8, Some(invalid)));
        }
        let enabled = self.shadow_stack_enabled(self.cpl);
        if returns {
            if let Some((selector, linear)) = shadow.popped
                && (selector != u64::from(to.selector) || linear != to.linear)
            {
                return Err(self.control_protection(ControlProtectionCode::FarRetIret));
            }
            if enabled {
                if shadow.ssp & 3 != 0 || shadow.ssp >> 32 != 0 {
                    return Err(self.control_protection(ControlProtectionCode::FarRetIret));
                }
                self.ssp = shadow.ssp;
            }
            return Ok(());
        }
        if enabled {
            let Some(token) = token.filter(|token| token & 7 == 0) else {
                return Err(self.raise(Vector::InvalidTss as u8, Some(invalid)));
            };
            let class = class_of(self.cpl);
            if !self.shadow_exchange(token, token, token | TOKEN_BUSY, class)? {
                return Err(self.raise(Vector::InvalidTss as u8, Some(invalid)));
            }
            self.ssp = token;
            if let Some((selector, linear, ssp)) = shadow.pushed {
                let from = CodePlace { selector, linear, long: false };
                self.ssp = self.push_shadow_frame(token, from, ssp, self.cpl)?;
            }
        }
        self.track_far(self.cpl);
        Ok(())
    }
}
