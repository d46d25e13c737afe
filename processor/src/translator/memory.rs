//! Guest registers and memory operands: where they are, and the probe from a linear address to the host's.

use super::Width;
use super::block::{Builder, Cold, Site};
use super::emit::{Mask, Opcode, R12, R13, R14, R15, RCX, Reg, Rm};
use super::hints;
use super::pins::{OPERAND, Pin, Pinned, STACK};
use super::state::State;
use crate::cpu::RSP;
use core::mem::offset_of;
use iced_x86::{Instruction, Register};

/// The host's register that holds a guest's; R12 to R15 are in memory.
pub(super) fn host_register(guest: u8) -> Option<Reg> {
    match guest {
        1 => Some(R13),
        4 => Some(R12),
        12..=15 => None,
        _ => Some(guest),
    }
}

/// Where R12 to R15 are.
pub(super) fn home(guest: u8) -> Rm {
    Rm::state(offset_of!(State, high) + 8 * usize::from(guest.saturating_sub(12)))
}

/// What an access needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Access {
    pub size: u32,
    pub write: bool,
    /// Must be aligned to its size (16 or 32).
    pub aligned: bool,
}

/// The host's address of a probed operand.
pub(super) const PROBED: Rm = Rm::Indexed(R14, R15, 0, 0);

/// The address is made of 32 bits, and has no more.
pub(super) fn is_narrow(i: &Instruction) -> bool {
    let (base, index) = (i.memory_base(), i.memory_index());
    base.is_gpr32()
        || index.is_gpr32()
        || base == Register::None && index == Register::None && i.memory_displ_size() == 4
}

/// The displacement of the operand in memory, as an instruction can have it. (Of a narrow address iced gives the low half.)
pub(super) fn displacement(i: &Instruction) -> Option<i32> {
    let value = i.memory_displacement64();
    if is_narrow(i) { Some(value as u32 as i32) } else { i32::try_from(value as i64).ok() }
}

/// Whether [`Builder::address`] can make the address.
pub(super) fn addressable(instruction: &Instruction) -> bool {
    let (base, index) = (instruction.memory_base(), instruction.memory_index());
    let plain = |register: Register| register == Register::None || register.is_gpr64() || register.is_gpr32();
    let rip = base == Register::RIP && index == Register::None;
    (plain(base) || rip)
        && plain(index)
        && displacement(instruction).is_some()
        && instruction.memory_displ_size() != 2
        && instruction.memory_segment() != Register::CS
}

impl Builder<'_> {
    /// The host's register with the guest's value: its own, or `temporary`.
    pub(super) fn value_of(&mut self, guest: u8, temporary: Reg) -> Reg {
        host_register(guest).unwrap_or_else(|| {
            self.code.load(temporary, home(guest));
            temporary
        })
    }

    /// The temporary that holds the guest's register, if there is one.
    pub(super) fn held(&self, guest: u8) -> Option<Reg> {
        self.held.and_then(|(held, temporary)| (held == guest).then_some(temporary))
    }

    /// The effective address of the memory operand into `to`, without the segment's base. R14 and R15 are used.
    pub(super) fn effective_address(&mut self, instruction: &Instruction, to: Reg) {
        self.effective_address_of(instruction, to, !is_narrow(instruction));
    }

    /// The same, or its low half: `wide` tells which.
    pub(super) fn effective_address_of(&mut self, instruction: &Instruction, to: Reg, wide: bool) {
        let lea = Opcode { wide, bytes: &[0x8d], ..Opcode::default() };
        let disp = displacement(instruction).unwrap_or(0);
        let (base, index) = (instruction.memory_base(), instruction.memory_index());
        if base == Register::RIP {
            self.code.load(R14, Rm::state(offset_of!(State, rip_base)));
            return self.code.op(lea, to, Rm::Base(R14, disp));
        }
        let scale = instruction.memory_index_scale().trailing_zeros() as u8;
        let base = (base != Register::None).then(|| base.number() as u8);
        let index = (index != Register::None).then(|| index.number() as u8);
        let of_base = base.and_then(|base| self.held(base));
        let of_index = index.and_then(|index| self.held(index));
        // What is held must not be overwritten by the other.
        let (for_base, for_index) = if of_base == Some(R15) || of_index == Some(R14) { (R15, R14) } else { (R14, R15) };
        let base = base.map(|base| of_base.unwrap_or_else(|| self.value_of(base, for_base)));
        let index = index.map(|index| of_index.unwrap_or_else(|| self.value_of(index, for_index)));
        let rm = match (base, index) {
            (Some(base), Some(index)) => Rm::Indexed(base, index, scale, disp),
            (Some(base), None) if disp == 0 && wide => return self.code.store(Rm::Reg(to), base),
            (Some(base), None) => Rm::Base(base, disp),
            (None, Some(index)) => Rm::Scaled(index, scale, disp),
            (None, None) if wide => return self.code.constant(to, disp as i64 as u64),
            (None, None) => return self.code.constant(to, u64::from(disp as u32)),
        };
        self.code.op(lea, to, rm);
    }

    /// `lea`, of an address as wide as the code has them.
    pub(super) fn lea_address(&mut self, to: Reg, at: Rm) {
        self.code.op(Opcode { wide: self.width().wide(), bytes: &[0x8d], ..Opcode::default() }, to, at);
    }

    /// The linear address of the memory operand of `size` bytes into R14.
    fn address(&mut self, instruction: &Instruction, size: u32, site: Site) {
        self.effective_address(instruction, R14);
        let (base, refused) = match instruction.memory_segment() {
            Register::FS => (offset_of!(State, fs), offset_of!(State, refused)),
            Register::GS => (offset_of!(State, gs), offset_of!(State, refused) + 8),
            _ => return,
        };
        if self.width() == Width::Flat32 {
            self.code.load(RCX, Rm::state(refused));
            let jump = self.code.jump_unless_rcx_zero();
            self.cold.push_back(Cold::Interpret { jump, site, flags: false });
            // All of it lies below the limit.
            self.code.lea(RCX, Rm::Base(R14, size as i32 - 1));
            self.code.extract(RCX, RCX, Mask::low(offset_of!(State, beyond_4g)));
            let jump = self.code.jump_unless_rcx_zero();
            self.cold.push_back(Cold::Interpret { jump, site, flags: false });
        }
        self.code.load(R15, Rm::state(base));
        self.lea_address(R14, Rm::Indexed(R14, R15, 0, 0));
    }

    /// The linear address of what lies so many elements (R15) of 1 << `scale` bytes beyond the memory operand, into R14. False where that is not known
    /// here.
    pub(super) fn address_beyond(
        &mut self,
        instruction: &Instruction,
        scale: u8,
        load: impl FnOnce(&mut Self),
    ) -> bool {
        let segment = matches!(instruction.memory_segment(), Register::FS | Register::GS);
        let wide = !is_narrow(instruction);
        // Of a narrow address, the sum is cut before the segment's base is added.
        if segment && !wide {
            return false;
        }
        self.address(instruction, 1, Site::new(0, 0));
        load(self);
        self.code.op(Opcode { wide, bytes: &[0x8d], ..Opcode::default() }, R14, Rm::Indexed(R14, R15, scale, 0));
        true
    }

    /// Where the operand in memory lies. R14, R15 and RCX are used, no flag is touched.
    pub(super) fn operand(&mut self, i: &Instruction, access: Access, site: Site) -> Rm {
        if self.looping.is_some() {
            return self.operand_in_loop(i, access, site);
        }
        let simple = self.width().is_address(i.memory_base());
        if let (Some(pinned), Some(disp), true) = (self.pinned(OPERAND, access, site), displacement(i), simple) {
            let disp = i64::from(disp);
            if let Some(rm) = self.pin(pinned, i.memory_base().number() as u8, disp, site) {
                return rm;
            }
        }
        self.address(i, access.size, site);
        self.probe(access, site, self.hinted[site.index() as usize]);
        PROBED
    }

    fn pinned(&self, which: usize, access: Access, site: Site) -> Option<Pinned> {
        let plan = self.plan.as_ref().filter(|_| !access.aligned)?;
        let pinned = (*plan.uses.get(site.index() as usize)?)[which]?;
        let pin = plan.pins[pinned.pin];
        (pinned.offset + access.size as i32 <= pin.span && (pin.write || !access.write)).then_some(pinned)
    }

    /// Where an access to pinned memory, `disp` from register `base`, lies: what R14 points to.
    fn pin(&mut self, pinned: Pinned, base: u8, disp: i64, site: Site) -> Option<Rm> {
        let home = Rm::state(offset_of!(State, pins) + 8 * pinned.pin);
        if self.pins_set & 1 << pinned.pin != 0 {
            self.code.load(R14, home);
        } else {
            let lowest = i32::try_from(disp - i64::from(pinned.offset)).ok()?;
            let Pin { span, write } = self.plan.as_ref()?.pins[pinned.pin];
            let base = self.value_of(base, R14);
            self.lea_address(R14, Rm::Base(base, lowest));
            hints::compute(&mut self.code);
            hints::check_reach(&mut self.code, write, span - 1);
            let jump = self.code.jump_unless_rcx_zero();
            self.cold.push_back(Cold::Unpinned { jump, site });
            self.code.load(R15, Rm::element(offset_of!(State, addend), R15));
            self.code.lea(R14, Rm::Indexed(R14, R15, 0, 0));
            self.code.store(home, R14);
            self.pins_set |= 1 << pinned.pin;
        }
        Some(Rm::Base(R14, pinned.offset))
    }

    /// From the linear address in R14 to the host's in [`PROBED`]. RCX is used, no flag is touched.
    pub(super) fn probe(&mut self, access: Access, site: Site, hinted: bool) {
        let slot = hints::probe(&mut self.code, access, hinted, self.hints);
        let jump = self.code.jump_unless_rcx_zero();
        let site = site.with(access, self.pins_set != 0);
        self.cold.push_back(Cold::Fill { jump, found: self.code.here(), site, access, slot });
        self.code.load(R15, Rm::element(offset_of!(State, addend), R15));
    }

    /// The access of a push or pop of what is as wide as addresses.
    pub(super) fn slot(&self, write: bool) -> Access {
        Access { size: self.width().bytes(), write, aligned: false }
    }

    /// Where something as wide as addresses is pushed.
    pub(super) fn pushed(&mut self, site: Site) -> Rm {
        self.stack(self.slot(true), RSP as u8, -self.slot_size(), site)
    }

    /// Where something as wide as addresses is popped from.
    pub(super) fn popped(&mut self, site: Site) -> Rm {
        self.stack(self.slot(false), RSP as u8, 0, site)
    }

    /// Bytes of a push.
    pub(super) fn slot_size(&self) -> i32 {
        self.width().bytes() as i32
    }

    /// `mov to, from`, as wide as addresses.
    pub(super) fn load_slot(&mut self, to: Reg, from: Rm) {
        self.code.op(Opcode { wide: self.width().wide(), bytes: &[0x8b], ..Opcode::default() }, to, from);
    }

    /// The same, to memory.
    pub(super) fn store_slot(&mut self, to: Rm, from: Reg) {
        self.code.op(Opcode { wide: self.width().wide(), bytes: &[0x89], ..Opcode::default() }, from, to);
    }

    /// Where the stack access of an instruction lies, `disp` from register `base`.
    pub(super) fn stack(&mut self, access: Access, base: u8, disp: i32, site: Site) -> Rm {
        if let Some(pinned) = self.pinned(STACK, access, site)
            && let Some(rm) = self.pin(pinned, base, i64::from(disp), site)
        {
            return rm;
        }
        let base = self.value_of(base, R14);
        if disp == 0 {
            self.store_slot(Rm::Reg(R14), base)
        } else {
            self.lea_address(R14, Rm::Base(base, disp))
        }
        self.probe(access, site, false);
        PROBED
    }

    /// Moves the stack pointer.
    pub(super) fn move_stack(&mut self, by: i32) {
        const { assert!(RSP == 4) };
        self.lea_address(R12, Rm::Base(R12, by));
    }
}
