//! The x87 register state, its legacy save image, and the MMX registers that alias it (SDM Vol. 1, 8.1, 9.2 and 10.5).

use crate::cpu::Cpu;
use crate::trap::Exec;
use serde::{Deserialize, Serialize};
use softfloat::F80;

/// FCW after FNINIT: all exceptions masked, 64-bit precision, to nearest.
pub const FCW_INITIAL: u16 = 0x37f;
/// FSW: stack fault.
pub const SF: u16 = 1 << 6;
/// FSW: an unmasked exception is pending (ES).
pub const ES: u16 = 1 << 7;
/// FSW: condition code C0.
pub const C0: u16 = 1 << 8;
/// FSW: condition code C1.
pub const C1: u16 = 1 << 9;
/// FSW: condition code C2.
pub const C2: u16 = 1 << 10;
/// FSW: condition code C3.
pub const C3: u16 = 1 << 14;

/// Bits of FCW that hold a value; bit 6 reads as one.
const FCW_BITS: u16 = 0x1f3f;

/// Bytes of the legacy area that hold x87 state; MXCSR and its mask lie within (24..32).
pub const LEGACY_X87_SIZE: usize = 160;

/// The x87 state of one logical processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct X87 {
    /// R0 to R7: physical registers, not relative to the top. MMi is the significand of Ri.
    pub regs: [F80; 8],
    /// TOP, 0 to 7.
    pub top: u8,
    /// Bit i: Ri is not empty (the abridged tag word of FXSAVE).
    pub valid: u8,
    /// The control word, in the form it reads.
    pub fcw: u16,
    /// The status word without TOP and B; [`X87::status`] has all.
    pub fsw: u16,
    /// The last opcode that raised an unmasked exception, 11 bits.
    pub fop: u16,
    /// Offset of the last non-control instruction.
    pub fip: u64,
    /// Offset of the memory operand of the last instruction that raised an unmasked exception.
    pub fdp: u64,
}

/// Saved form of [`X87`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct X87State {
    /// Significand, sign and exponent of R0 to R7.
    pub regs: [(u64, u16); 8],
    /// TOP.
    pub top: u8,
    /// Which registers are not empty.
    pub valid: u8,
    /// Control word.
    pub fcw: u16,
    /// Status word without TOP and B.
    pub fsw: u16,
    /// Last opcode.
    pub fop: u16,
    /// Last instruction offset.
    pub fip: u64,
    /// Last operand offset.
    pub fdp: u64,
}

impl X87 {
    /// The state after power-up and RESET (SDM Vol. 3A, table 10-1).
    pub const fn power_on() -> Self {
        Self { regs: [F80::ZERO; 8], top: 0, valid: 0xff, fcw: 0x40, fsw: 0, fop: 0, fip: 0, fdp: 0 }
    }

    /// The initial configuration of the XSAVE feature set, and what FNINIT leaves but for the registers.
    pub const fn initial() -> Self {
        Self { valid: 0, fcw: FCW_INITIAL, ..Self::power_on() }
    }

    /// Whether XSAVE may take the state as initial (SDM Vol. 1, 13.6): all of it as after FNINIT and the registers zero.
    pub fn is_initial(&self) -> bool {
        *self == Self::initial()
    }

    /// For snapshots.
    pub fn save(&self) -> X87State {
        let Self { regs, top, valid, fcw, fsw, fop, fip, fdp } = self.clone();
        X87State { regs: regs.map(|r| (r.significand, r.sign_exponent)), top, valid, fcw, fsw, fop, fip, fdp }
    }

    /// From a snapshot.
    pub fn restore(state: &X87State) -> Self {
        let X87State { regs, top, valid, fcw, fsw, fop, fip, fdp } = state.clone();
        let regs = regs.map(|(significand, sign_exponent)| F80 { significand, sign_exponent });
        Self { regs, top: top & 7, valid, fcw, fsw, fop, fip, fdp }
    }

    /// The status word.
    pub fn status(&self) -> u16 {
        let busy = if self.fsw & ES != 0 { 1 << 15 } else { 0 };
        self.fsw & !(7 << 11) | u16::from(self.top) << 11 | busy
    }

    /// Sets the status word; ES and B follow from the flags and masks.
    pub fn set_status(&mut self, value: u16) {
        self.top = (value >> 11 & 7) as u8;
        self.fsw = value & 0x477f | value & 0x0300;
        self.update_summary();
    }

    /// Sets the control word; ES and B follow.
    pub fn set_control(&mut self, value: u16) {
        self.fcw = value & FCW_BITS | 0x40;
        self.update_summary();
    }

    fn update_summary(&mut self) {
        let pending = self.fsw & !self.fcw & 0x3f != 0;
        self.fsw = self.fsw & !ES | if pending { ES } else { 0 };
    }

    /// Sets exception flags (and SF); ES and B follow.
    #[inline]
    pub fn raise(&mut self, flags: u16) {
        self.fsw |= flags;
        self.update_summary();
    }

    /// The number of the physical register that is ST(i).
    #[inline]
    pub fn physical(&self, i: u8) -> usize {
        usize::from(self.top.wrapping_add(i) & 7)
    }

    /// The full tag word: 0 valid, 1 zero, 2 special, 3 empty for each physical register.
    pub fn full_tags(&self) -> u16 {
        (0..8).fold(0, |tags, i| {
            let tag = if self.valid >> i & 1 == 0 {
                3
            } else {
                match self.regs[i].classify() {
                    (softfloat::Class::Zero, _) => 1,
                    (softfloat::Class::Finite, false) => 0,
                    _ => 2,
                }
            };
            tags | tag << (2 * i)
        })
    }

    /// Takes a full tag word: only whether a register is empty is kept (SDM Vol. 1, 8.1.7).
    pub fn set_full_tags(&mut self, tags: u16) {
        self.valid = (0..8).fold(0, |valid, i| valid | u8::from(tags >> (2 * i) & 3 != 3) << i);
    }

    /// Writes the x87 part of the FXSAVE image and of XSAVE's legacy region (SDM Vol. 1, 10.5.1), all of `area` but bytes 24 to 31 and what is
    /// reserved. `wide`: REX.W, 64-bit pointers. FCS and FDS are deprecated and stored as zero (CPUID.(7,0):EBX[13]).
    pub fn save_legacy(&self, area: &mut [u8; LEGACY_X87_SIZE], wide: bool) {
        area[0..2].copy_from_slice(&self.fcw.to_le_bytes());
        area[2..4].copy_from_slice(&self.status().to_le_bytes());
        area[4] = self.valid;
        area[5] = 0;
        area[6..8].copy_from_slice(&self.fop.to_le_bytes());
        let mask = if wide { u64::MAX } else { 0xffff_ffff };
        area[8..16].copy_from_slice(&(self.fip & mask).to_le_bytes());
        area[16..24].copy_from_slice(&(self.fdp & mask).to_le_bytes());
        for i in 0..8 {
            let register = self.regs[self.physical(i)];
            let at = 32 + 16 * usize::from(i);
            area[at..at + 8].copy_from_slice(&register.significand.to_le_bytes());
            area[at + 8..at + 10].copy_from_slice(&register.sign_exponent.to_le_bytes());
            area[at + 10..at + 16].fill(0);
        }
    }

    /// Loads what [`X87::save_legacy`] writes; any image is taken.
    pub fn restore_legacy(&mut self, area: &[u8; LEGACY_X87_SIZE], wide: bool) {
        let half = |at: usize| u16::from_le_bytes([area[at], area[at + 1]]);
        let quad = |at: usize| area[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        self.fcw = half(0) & FCW_BITS | 0x40;
        self.set_status(half(2));
        self.valid = area[4];
        self.fop = half(6) & 0x7ff;
        let mask = if wide { u64::MAX } else { 0xffff_ffff };
        self.fip = quad(8) & mask;
        self.fdp = quad(16) & mask;
        for i in 0..8 {
            let at = 32 + 16 * usize::from(i);
            let physical = self.physical(i);
            self.regs[physical] = F80 { significand: quad(at), sign_exponent: half(at + 8) };
        }
    }

    /// MMi.
    #[inline(always)]
    pub fn mmx(&self, i: u8) -> u64 {
        self.regs[usize::from(i & 7)].significand
    }

    /// Writes MMi; the exponent becomes all ones.
    #[inline(always)]
    pub fn set_mmx(&mut self, i: u8, value: u64) {
        self.regs[usize::from(i & 7)] = F80 { significand: value, sign_exponent: 0xffff };
    }

    /// What every MMX instruction but EMMS does once it can no longer fault: TOP 0, all registers valid (SDM Vol. 1, 9.5.1).
    #[inline(always)]
    pub fn enter_mmx(&mut self) {
        self.top = 0;
        self.valid = 0xff;
    }

    /// EMMS: all registers empty. TOP becomes 0 too.
    #[inline(always)]
    pub fn leave_mmx(&mut self) {
        self.top = 0;
        self.valid = 0;
    }
}

impl Cpu {
    /// To be called first by MMX instructions (also CVTPI2PS and the like): #UD, #NM, or #MF for a pending x87 exception. Then, after the last
    /// possible fault, [`X87::enter_mmx`].
    #[inline(always)]
    pub fn check_mmx(&mut self) -> Exec {
        if self.cr0 & 0xc != 0 || self.x87.fsw & ES != 0 {
            return self.mmx_fault();
        }
        Ok(())
    }

    #[cold]
    fn mmx_fault(&mut self) -> Exec {
        if self.cr0 & 4 != 0 {
            return Err(self.undefined_opcode());
        }
        if self.cr0 & 8 != 0 {
            return Err(self.device_not_available());
        }
        self.check_pending_x87()
    }

    /// Delivers a pending unmasked x87 exception: #MF with CR0.NE set; without it the board's FERR# line, and execution goes on as with IGNNE#
    /// (SDM Vol. 1, 8.7).
    pub fn check_pending_x87(&mut self) -> Exec {
        if self.x87.fsw & ES == 0 {
            return Ok(());
        }
        if self.cr0 & 0x20 != 0 {
            return Err(self.raise(16, None));
        }
        self.require_exact()?;
        let now = self.now();
        self.bus.floating_point_error(now);
        self.attention |= crate::run::attention::BUS_TOUCHED;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legacy_image_round_trips() {
        let mut x87 = X87::initial();
        x87.set_status(0x2a05);
        x87.valid = 0x5a;
        x87.fop = 0x123;
        x87.fip = 0x1234_5678_9abc;
        for (i, register) in x87.regs.iter_mut().enumerate() {
            *register = F80 { significand: i as u64 * 0x1111, sign_exponent: i as u16 };
        }
        let mut area = [0; LEGACY_X87_SIZE];
        x87.save_legacy(&mut area, true);
        let mut other = X87::initial();
        other.restore_legacy(&area, true);
        assert_eq!(other, x87);
        assert_eq!(X87::restore(&x87.save()), x87);
        // ST(0) comes first, and that is R5.
        assert_eq!(area[32], 0x55);
    }

    #[test]
    fn summary_follows_flags_and_masks() {
        let mut x87 = X87::initial();
        x87.set_status(1);
        assert_eq!(x87.status() & 0x8080, 0);
        x87.set_control(0x37e);
        assert_eq!(x87.status() & 0x8080, 0x8080);
        x87.set_status(0x8080);
        assert_eq!(x87.status(), 0);
    }

    #[test]
    fn mmx_aliases_the_significands_of_physical_registers() {
        let mut x87 = X87::initial();
        x87.top = 3;
        x87.set_mmx(1, 42);
        x87.enter_mmx();
        assert_eq!((x87.mmx(1), x87.regs[1].sign_exponent, x87.top, x87.valid), (42, 0xffff, 0, 0xff));
        x87.leave_mmx();
        assert_eq!(x87.full_tags(), 0xffff);
    }
}
