//! x87 instructions by the host's x87, for as long as the guest masks every exception: then none is raised, and what is left to keep is FIP.
//!
//! The state comes into the host's x87 at a block's first such instruction (`Builder::guard_x87`) by XRSTOR from an area in the state block, and
//! goes back there by XSAVE whenever translated code is left or Rust is called (`enter`). It is the guest's again with [`State::take_x87`].

use super::block::{Builder, Cold, Done, Site};
use super::emit::{RCX, Rm};
use super::memory::{Access, addressable};
use super::raw::Raw;
use super::state::State;
use crate::cpu::Cpu;
use crate::x87::LEGACY_X87_SIZE;
use core::mem::offset_of;
use iced_x86::{Instruction, Mnemonic, OpKind};

/// XSAVE's standard format: the legacy region and the header, whose first bit says that there is x87 state.
#[repr(C, align(64))]
pub(crate) struct Area([u8; 576]);

const XSTATE_BV: usize = 512;
/// FCW: all exceptions masked.
const MASKED: u16 = 0x3f;

/// How an instruction treats FIP and memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It computes: FIP is noted.
    Computes,
    /// It stores to memory and notes FIP.
    Stores,
    /// It stores a control or status word.
    Reads,
    /// FWAIT: nothing is pending.
    Waits,
}

fn kind(mnemonic: Mnemonic) -> Option<Kind> {
    use Mnemonic::*;
    Some(match mnemonic {
        Fld | Fild | Fadd | Faddp | Fiadd | Fsub | Fsubp | Fisub | Fsubr | Fsubrp | Fisubr | Fmul | Fmulp | Fimul
        | Fdiv | Fdivp | Fidiv | Fdivr | Fdivrp | Fidivr | Fcom | Fcomp | Fcompp | Ficom | Ficomp | Fucom | Fucomp
        | Fucompp | Fcomi | Fcomip | Fucomi | Fucomip | Ftst | Fxam | Fchs | Fabs | Fsqrt | Frndint | Fld1 | Fldl2t
        | Fldl2e | Fldpi | Fldlg2 | Fldln2 | Fldz | Fxch | Fcmovb | Fcmove | Fcmovbe | Fcmovu | Fcmovnb | Fcmovne
        | Fcmovnbe | Fcmovnu | Fincstp | Fdecstp | Ffree | Fnop => Kind::Computes,
        Fst | Fstp | Fist | Fistp | Fisttp => Kind::Stores,
        Fnstsw | Fnstcw => Kind::Reads,
        Wait => Kind::Waits,
        _ => return None,
    })
}

/// Whether the instruction may be emitted by [`Builder::x87`].
pub(super) fn is_x87(i: &Instruction) -> bool {
    kind(i.mnemonic()).is_some()
}

impl Builder<'_> {
    /// Emits one instruction.
    pub(super) fn x87(&mut self, i: &Instruction, bytes: &[u8], site: Site) -> Done {
        let Some(kind) = kind(i.mnemonic()) else { return Done::No };
        let memory = (0..i.op_count()).any(|operand| i.op_kind(operand) == OpKind::Memory);
        let size = i.memory_size().size();
        if memory && (!addressable(i) || !matches!(size, 2 | 4 | 8 | 10)) {
            return Done::No;
        }
        // The second byte of a register form is no ModRM to this, but it is one for `Raw`.
        let Some(raw) = Raw::parse(bytes, kind != Kind::Waits) else { return Done::No };
        let &[opcode] = raw.opcode else { return Done::No };
        self.guard_x87(site);
        if memory {
            let write = matches!(kind, Kind::Stores | Kind::Reads);
            let memory = self.operand(i, Access { size: size as u32, write, aligned: false }, site);
            self.code.op32(opcode, raw.reg() & 7, memory);
        } else if let Some(modrm) = raw.modrm {
            self.code.raw(&[opcode, modrm]);
        }
        if matches!(kind, Kind::Computes | Kind::Stores) {
            if !std::mem::replace(&mut self.noted_page, true) {
                self.code.load(RCX, Rm::state(offset_of!(State, rip_base)));
                self.code.store(Rm::state(offset_of!(State, fip_base)), RCX);
            }
            self.code.op32(0xc7, 0, Rm::state(offset_of!(State, fip)));
            self.code.dword(site.offset() as u32);
        }
        Done::Yes
    }

    /// Brings the x87's state, or leaves if these instructions are not to be executed here.
    fn guard_x87(&mut self, site: Site) {
        self.held = None;
        if !std::mem::replace(&mut self.guarded_x87, true) {
            let retry = self.code.here();
            self.code.load(RCX, Rm::state(offset_of!(State, x87_blocked)));
            let jump = self.code.jump_unless_rcx_zero();
            self.cold.push_back(Cold::X87 { jump, retry, site });
        }
    }
}

impl State {
    /// Puts the guest's x87 state where the host's will be loaded from. False if its instructions must be left to the interpreter.
    pub(super) fn give_x87(&mut self, cpu: &Cpu) -> bool {
        let wanted =
            cpu.cr0 & 0xc == 0 && cpu.x87.fcw & MASKED == MASKED && cpu.x87.status() & crate::x87::state::ES == 0;
        if wanted {
            let area = &mut self.x87_area.0;
            area.fill(0);
            if let Some(legacy) = area.first_chunk_mut::<LEGACY_X87_SIZE>() {
                cpu.x87.save_legacy(legacy, true);
            }
            area[XSTATE_BV] = 1;
            self.fip = NO_FIP;
            (self.x87_live, self.x87_blocked) = (1, 0);
        }
        wanted
    }

    /// What the host's x87 left becomes the guest's, if it was there.
    pub(super) fn take_x87(&mut self, cpu: &mut Cpu) {
        if std::mem::take(&mut self.x87_live) == 0 {
            return;
        }
        self.x87_blocked = 1;
        let (fop, fip, fdp) = (cpu.x87.fop, cpu.x87.fip, cpu.x87.fdp);
        if let Some(legacy) = self.x87_area.0.first_chunk::<LEGACY_X87_SIZE>() {
            cpu.x87.restore_legacy(legacy, true);
        }
        (cpu.x87.fop, cpu.x87.fdp) = (fop, fdp);
        cpu.x87.fip = if self.fip == NO_FIP { fip } else { self.fip_base + u64::from(self.fip) };
    }
}

/// No instruction has been executed here.
const NO_FIP: u32 = u32::MAX;
