//! What all x87 instructions share: the check before, the register stack, the conclusion with its exceptions (SDM Vol. 1, 8.4 to 8.7).

use super::state::{C0, C1, C2, C3, ES, SF};
use crate::cpu::Cpu;
use crate::decode::Op;
use crate::trap::Exec;
use softfloat::{Env, F80, IE, OE, PE, UE};

/// CR0.EM and CR0.TS.
const CR0_EM_TS: u64 = 0xc;

impl Cpu {
    /// Before a waiting instruction: #NM, then #MF for a pending exception.
    #[inline(always)]
    pub(super) fn x87_ready(&mut self) -> Exec {
        if self.cr0 & CR0_EM_TS != 0 {
            return Err(self.device_not_available());
        }
        if self.x87.fsw & ES != 0 {
            return self.check_pending_x87();
        }
        Ok(())
    }

    /// Before a non-waiting instruction: #NM.
    #[inline(always)]
    pub(super) fn x87_present(&mut self) -> Exec {
        if self.cr0 & CR0_EM_TS != 0 { Err(self.device_not_available()) } else { Ok(()) }
    }

    /// Notes the instruction pointer; called once the instruction can no longer fault.
    #[inline(always)]
    pub(super) fn x87_begin(&mut self, op: &Op) -> Env {
        self.x87.fip = self.rip_of(op);
        Env::from_fcw(self.x87.fcw)
    }

    /// Makes the flags of an operation visible, with C1 telling how it was rounded. False: an unmasked exception found before computing
    /// withholds the result.
    #[inline]
    pub(super) fn x87_conclude(&mut self, op: &Op, env: &Env) -> bool {
        let (flags, unmasked) = env.finish();
        let up = env.rounded_up && flags & (PE | OE | UE) != 0;
        self.x87.set_c1(up);
        if flags != 0 {
            self.x87.raise(u16::from(flags));
        }
        if unmasked {
            self.note_x87_exception(op);
        }
        !env.withheld()
    }

    /// Stack underflow (C1 = 0) or overflow (C1 = 1). True: masked, the response is the indefinite value.
    #[cold]
    pub(super) fn x87_stack_fault(&mut self, op: &Op, overflow: bool) -> bool {
        self.x87.set_c1(overflow);
        self.x87.raise(SF | u16::from(IE));
        let masked = self.x87.fcw & u16::from(IE) != 0;
        if !masked {
            self.note_x87_exception(op);
        }
        masked
    }

    /// An unmasked exception notes the data pointer and the opcode (SDM Vol. 1, 8.1.8 and 8.1.9).
    #[cold]
    fn note_x87_exception(&mut self, op: &Op) {
        let code = op.code().op_code();
        if (0..code.op_count()).any(|i| matches!(code.op_kind(i), iced_x86::OpCodeOperandKind::mem)) {
            self.x87.fdp = self.effective_address(op);
        }
        // The instruction was fetched just now: its bytes are there, behind any prefixes.
        let linear = self.code_base().wrapping_add(self.rip_of(op));
        let mut bytes = [0; 16];
        for (i, byte) in bytes.iter_mut().enumerate().take(op.length.into()) {
            let Some(offset) = self.peek_code(linear.wrapping_add(i as u64)) else { return };
            *byte = self.ram.load::<1>(offset) as u8;
        }
        if let Some(i) = bytes.iter().position(|byte| byte & 0xf8 == 0xd8) {
            self.x87.fop = u16::from(bytes[i] & 7) << 8 | u16::from(bytes.get(i + 1).copied().unwrap_or(0));
        }
    }

    fn code_base(&self) -> u64 {
        if self.mode == crate::cpu::Mode::Long64 { 0 } else { self.segs[crate::segment::CS].base }
    }
}

impl super::X87 {
    /// ST(i).
    #[inline]
    pub(super) fn st(&self, i: u8) -> F80 {
        self.regs[self.physical(i)]
    }

    /// ST(i) is empty.
    #[inline]
    pub(super) fn empty(&self, i: u8) -> bool {
        self.valid >> self.physical(i) & 1 == 0
    }

    /// Writes ST(i), which becomes valid.
    #[inline]
    pub(super) fn set_st(&mut self, i: u8, value: F80) {
        let physical = self.physical(i);
        self.regs[physical] = value;
        self.valid |= 1 << physical;
    }

    /// Frees ST(0) and increments TOP.
    #[inline]
    pub(super) fn pop(&mut self) {
        self.valid &= !(1 << self.top);
        self.top = (self.top + 1) & 7;
    }

    /// Decrements TOP and writes the new ST(0).
    #[inline]
    pub(super) fn push(&mut self, value: F80) {
        self.top = self.top.wrapping_sub(1) & 7;
        self.set_st(0, value);
    }

    #[inline]
    pub(super) fn set_c1(&mut self, up: bool) {
        self.fsw = self.fsw & !C1 | if up { C1 } else { 0 };
    }

    /// Sets C3, C2, C1 and C0.
    pub(super) fn set_conditions(&mut self, c3: bool, c2: bool, c1: bool, c0: bool) {
        let bit = |set: bool, mask: u16| if set { mask } else { 0 };
        self.fsw = self.fsw & !(C3 | C2 | C1 | C0) | bit(c3, C3) | bit(c2, C2) | bit(c1, C1) | bit(c0, C0);
    }

    pub(super) fn set_c2(&mut self, set: bool) {
        self.fsw = self.fsw & !C2 | if set { C2 } else { 0 };
    }
}
