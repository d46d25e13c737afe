//! Vector registers and vector memory operands, and the checks before and after an instruction.

use softfloat::Env;

use super::lanes::Xmm;
use crate::cpu::Cpu;
use crate::decode::Op;
use crate::trap::{Exec, Trapped};

/// A value of up to 256 bits, lower half first.
pub type Ymm = [Xmm; 2];

/// CR4.OSXMMEXCPT: unmasked SIMD floating-point exceptions raise #XM, else #UD.
const CR4_OSXMMEXCPT: u64 = 1 << 10;

impl Cpu {
    /// Faults unless legacy SSE instructions are enabled: #UD for CR0.EM or without CR4.OSFXSR, #NM for CR0.TS.
    #[inline(always)]
    pub(crate) fn sse_ready(&mut self) -> Exec {
        if self.sse_blocked == 0 { Ok(()) } else { Err(self.vector_fault(self.sse_blocked)) }
    }

    /// Faults unless VEX-encoded instructions are enabled: #UD without CR4.OSXSAVE or XCR0[2:1], #NM for CR0.TS.
    #[inline(always)]
    pub(crate) fn avx_ready(&mut self) -> Exec {
        if self.avx_blocked == 0 { Ok(()) } else { Err(self.vector_fault(self.avx_blocked)) }
    }

    /// [`Cpu::avx_ready`] for a VEX-encoded instruction, else [`Cpu::sse_ready`].
    #[inline(always)]
    pub(crate) fn vector_ready(&mut self, vex: bool) -> Exec {
        if vex { self.avx_ready() } else { self.sse_ready() }
    }

    #[cold]
    #[inline(never)]
    fn vector_fault(&mut self, why: u8) -> Trapped {
        if why == 1 { self.device_not_available() } else { self.undefined_opcode() }
    }

    /// XMM register `slot`.
    #[inline(always)]
    pub(crate) fn xmm(&self, slot: u8) -> Xmm {
        let q = &self.ymm[(slot & 15) as usize];
        Xmm::from_u64s([q[0], q[1]])
    }

    /// YMM register `slot`.
    #[inline(always)]
    pub(crate) fn ymm(&self, slot: u8) -> Ymm {
        let q = &self.ymm[(slot & 15) as usize];
        [Xmm::from_u64s([q[0], q[1]]), Xmm::from_u64s([q[2], q[3]])]
    }

    /// Writes an XMM register as legacy SSE does: the upper half of the YMM register stays.
    #[inline(always)]
    pub(crate) fn set_xmm(&mut self, slot: u8, value: Xmm) {
        let q = &mut self.ymm[(slot & 15) as usize];
        [q[0], q[1]] = value.u64s();
    }

    /// Writes an XMM register as VEX.128 does: the upper half of the YMM register becomes zero.
    #[inline(always)]
    pub(crate) fn set_xmm_clear(&mut self, slot: u8, value: Xmm) {
        let [low, high] = value.u64s();
        self.ymm[(slot & 15) as usize] = [low, high, 0, 0];
    }

    /// Writes an XMM register as the encoding does.
    #[inline(always)]
    pub(crate) fn set_xmm_as(&mut self, vex: bool, slot: u8, value: Xmm) {
        if vex {
            self.set_xmm_clear(slot, value);
        } else {
            self.set_xmm(slot, value);
        }
    }

    /// Writes a YMM register.
    #[inline(always)]
    pub(crate) fn set_ymm(&mut self, slot: u8, value: Ymm) {
        let ([a, b], [c, d]) = (value[0].u64s(), value[1].u64s());
        self.ymm[(slot & 15) as usize] = [a, b, c, d];
    }

    /// Loads a 16-byte memory operand; misaligned is #GP(0) if `aligned`.
    #[inline(always)]
    pub(crate) fn load_xmm(&mut self, op: &Op, aligned: bool) -> Exec<Xmm> {
        let address = self.linear(op, 16, false)?;
        if aligned && address & 15 != 0 {
            return Err(self.general_protection(0));
        }
        Ok(Xmm(self.load_bytes::<16>(address)?))
    }

    /// Loads a 32-byte memory operand; misaligned is #GP(0) if `aligned`.
    #[inline(always)]
    pub(crate) fn load_ymm(&mut self, op: &Op, aligned: bool) -> Exec<Ymm> {
        let address = self.linear(op, 32, false)?;
        if aligned && address & 31 != 0 {
            return Err(self.general_protection(0));
        }
        Ok(halves(self.load_bytes::<32>(address)?))
    }

    /// Stores to a 16-byte memory operand; misaligned is #GP(0) if `aligned`.
    #[inline(always)]
    pub(crate) fn store_xmm(&mut self, op: &Op, value: Xmm, aligned: bool) -> Exec {
        let address = self.linear(op, 16, true)?;
        if aligned && address & 15 != 0 {
            return Err(self.general_protection(0));
        }
        self.store_bytes::<16>(address, value.0)
    }

    /// Stores to a 32-byte memory operand; misaligned is #GP(0) if `aligned`.
    #[inline(always)]
    pub(crate) fn store_ymm(&mut self, op: &Op, value: Ymm, aligned: bool) -> Exec {
        let address = self.linear(op, 32, true)?;
        if aligned && address & 31 != 0 {
            return Err(self.general_protection(0));
        }
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&value[0].0);
        bytes[16..].copy_from_slice(&value[1].0);
        self.store_bytes::<32>(address, bytes)
    }

    /// Loads a memory operand of `N` (1, 2, 4, 8) bytes, zero-extended.
    #[inline(always)]
    pub(crate) fn load_operand<const N: usize>(&mut self, op: &Op) -> Exec<u64> {
        let address = self.linear(op, N as u64, false)?;
        self.load::<N>(address)
    }

    /// Stores to a memory operand of `N` (1, 2, 4, 8) bytes.
    #[inline(always)]
    pub(crate) fn store_operand<const N: usize>(&mut self, op: &Op, value: u64) -> Exec {
        let address = self.linear(op, N as u64, true)?;
        self.store::<N>(address, value)
    }

    /// Loads a memory operand of 1 to 32 bytes into the low end of a vector.
    pub(crate) fn load_vector(&mut self, op: &Op, bytes: u8, aligned: bool) -> Exec<Ymm> {
        let low = match bytes {
            1 => self.load_operand::<1>(op)?,
            2 => self.load_operand::<2>(op)?,
            4 => self.load_operand::<4>(op)?,
            8 => self.load_operand::<8>(op)?,
            16 => return Ok([self.load_xmm(op, aligned)?, Xmm::ZERO]),
            _ => return self.load_ymm(op, aligned),
        };
        Ok([Xmm::from_low(low), Xmm::ZERO])
    }

    /// To be called when a floating-point instruction has computed, before it writes its result: updates MXCSR and, for an
    /// unmasked exception, raises #XM (or #UD without CR4.OSXMMEXCPT).
    #[inline(always)]
    pub(crate) fn settle(&mut self, env: &Env) -> Exec {
        if env.flags == 0 {
            return Ok(());
        }
        let (flags, pending) = env.finish();
        self.mxcsr |= u32::from(flags);
        if pending { Err(self.simd_exception()) } else { Ok(()) }
    }

    #[cold]
    #[inline(never)]
    fn simd_exception(&mut self) -> Trapped {
        if self.cr4 & CR4_OSXMMEXCPT != 0 { self.raise(19, None) } else { self.undefined_opcode() }
    }
}

/// The halves of 32 bytes.
#[inline(always)]
fn halves(bytes: [u8; 32]) -> Ymm {
    let mut value = [Xmm::ZERO; 2];
    value[0].0.copy_from_slice(&bytes[..16]);
    value[1].0.copy_from_slice(&bytes[16..]);
    value
}
