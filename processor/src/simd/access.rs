//! Vector registers and vector memory operands, and the checks before and after an instruction.

use softfloat::Env;

use super::lanes::Xmm;
use crate::cpu::Cpu;
use crate::decode::Op;
use crate::decode::op::SLOW;
use crate::trap::{Exec, Trapped};

/// A value of up to 256 bits, lower half first.
pub type Ymm = [Xmm; 2];

/// CR4.OSXMMEXCPT: unmasked SIMD floating-point exceptions raise #XM, else #UD.
const CR4_OSXMMEXCPT: u64 = 1 << 10;

impl Cpu {
    /// Faults unless legacy SSE instructions are enabled: #UD for CR0.EM or without CR4.OSFXSR, #NM for CR0.TS.
    #[inline(always)]
    pub(crate) fn sse_ready(&mut self) -> Exec {
        self.vector_ready_in::<SLOW>(false)
    }

    /// Faults unless VEX-encoded instructions are enabled: #UD without CR4.OSXSAVE or XCR0[2:1], #NM for CR0.TS.
    #[inline(always)]
    pub(crate) fn avx_ready(&mut self) -> Exec {
        self.vector_ready_in::<SLOW>(true)
    }

    /// [`Cpu::avx_ready`] for a VEX-encoded instruction, else [`Cpu::sse_ready`].
    #[inline(always)]
    pub(crate) fn vector_ready(&mut self, vex: bool) -> Exec {
        self.vector_ready_in::<SLOW>(vex)
    }

    /// As [`Cpu::vector_ready`]; the fast form of a body (`PATH` is not [`SLOW`]) misses where that faults.
    #[inline(always)]
    pub(super) fn vector_ready_in<const PATH: u8>(&mut self, vex: bool) -> Exec {
        let blocked = if vex { self.avx_blocked } else { self.sse_blocked };
        if blocked == 0 {
            Ok(())
        } else if PATH != SLOW {
            Err(Trapped::MISS)
        } else {
            Err(self.vector_fault(blocked))
        }
    }

    #[cold]
    #[inline(never)]
    fn vector_fault(&mut self, why: u8) -> Trapped {
        if why == 1 { self.device_not_available() } else { self.undefined_opcode() }
    }

    /// XMM register `slot`.
    #[inline(always)]
    pub(crate) fn xmm(&self, slot: u8) -> Xmm {
        Xmm(halves(&self.ymm[(slot & 15) as usize])[0])
    }

    /// YMM register `slot`.
    #[inline(always)]
    pub(crate) fn ymm(&self, slot: u8) -> Ymm {
        let [low, high] = *halves(&self.ymm[(slot & 15) as usize]);
        [Xmm(low), Xmm(high)]
    }

    /// Writes an XMM register as legacy SSE does: the upper half of the YMM register stays.
    #[inline(always)]
    pub(crate) fn set_xmm(&mut self, slot: u8, value: Xmm) {
        halves_mut(&mut self.ymm[(slot & 15) as usize])[0] = value.0;
    }

    /// Writes an XMM register as VEX.128 does: the upper half of the YMM register becomes zero.
    #[inline(always)]
    pub(crate) fn set_xmm_clear(&mut self, slot: u8, value: Xmm) {
        self.set_ymm(slot, [value, Xmm::ZERO]);
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
        *halves_mut(&mut self.ymm[(slot & 15) as usize]) = [value[0].0, value[1].0];
    }

    /// The address of a vector operand of `N` bytes; misaligned is #GP(0) if `ALIGNED`.
    #[inline(always)]
    fn vector_address<const PATH: u8, const ALIGNED: bool, const N: usize>(
        &mut self,
        op: &Op,
        write: bool,
    ) -> Exec<u64> {
        let address = self.linear_in::<PATH>(op, N as u64, write)?;
        if ALIGNED && address & (N as u64 - 1) != 0 {
            return Err(if PATH != SLOW { Trapped::MISS } else { self.general_protection(0) });
        }
        Ok(address)
    }

    /// Loads a memory operand of `N` (16, 32) bytes.
    #[inline(always)]
    fn load_whole<const PATH: u8, const ALIGNED: bool, const N: usize>(&mut self, op: &Op) -> Exec<[u8; N]> {
        let address = self.vector_address::<PATH, ALIGNED, N>(op, false)?;
        match self.tlb.load_array::<N>(address) {
            Some(bytes) => Ok(bytes),
            None if PATH != SLOW => Err(Trapped::MISS),
            None => self.load_bytes::<N>(address),
        }
    }

    /// Stores to a memory operand of `N` (16, 32) bytes.
    #[inline(always)]
    fn store_whole<const PATH: u8, const ALIGNED: bool, const N: usize>(&mut self, op: &Op, bytes: [u8; N]) -> Exec {
        let address = self.vector_address::<PATH, ALIGNED, N>(op, true)?;
        if self.tlb.store_array::<N>(address, bytes) {
            Ok(())
        } else if PATH != SLOW {
            Err(Trapped::MISS)
        } else {
            self.store_bytes::<N>(address, bytes)
        }
    }

    /// Loads a 16-byte memory operand; misaligned is #GP(0) if `ALIGNED`.
    #[inline(always)]
    pub(super) fn load_xmm<const PATH: u8, const ALIGNED: bool>(&mut self, op: &Op) -> Exec<Xmm> {
        Ok(Xmm(self.load_whole::<PATH, ALIGNED, 16>(op)?))
    }

    /// Loads a 32-byte memory operand; misaligned is #GP(0) if `ALIGNED`.
    #[inline(always)]
    pub(super) fn load_ymm<const PATH: u8, const ALIGNED: bool>(&mut self, op: &Op) -> Exec<Ymm> {
        let bytes = self.load_whole::<PATH, ALIGNED, 32>(op)?;
        let mut value = [Xmm::ZERO; 2];
        value[0].0.copy_from_slice(&bytes[..16]);
        value[1].0.copy_from_slice(&bytes[16..]);
        Ok(value)
    }

    /// Stores to a 16-byte memory operand; misaligned is #GP(0) if `ALIGNED`.
    #[inline(always)]
    pub(super) fn store_xmm<const PATH: u8, const ALIGNED: bool>(&mut self, op: &Op, value: Xmm) -> Exec {
        self.store_whole::<PATH, ALIGNED, 16>(op, value.0)
    }

    /// Stores to a 32-byte memory operand; misaligned is #GP(0) if `ALIGNED`.
    #[inline(always)]
    pub(super) fn store_ymm<const PATH: u8, const ALIGNED: bool>(&mut self, op: &Op, value: Ymm) -> Exec {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&value[0].0);
        bytes[16..].copy_from_slice(&value[1].0);
        self.store_whole::<PATH, ALIGNED, 32>(op, bytes)
    }

    /// Loads a memory operand of `N` (1, 2, 4, 8) bytes, zero-extended.
    #[inline(always)]
    pub(crate) fn load_operand<const N: usize>(&mut self, op: &Op) -> Exec<u64> {
        self.load_operand_in::<SLOW, N>(op)
    }

    /// As [`Cpu::load_operand`]; the fast form of a body (`PATH` is not [`SLOW`]) misses where the TLB does.
    #[inline(always)]
    pub(super) fn load_operand_in<const PATH: u8, const N: usize>(&mut self, op: &Op) -> Exec<u64> {
        let address = self.linear_in::<PATH>(op, N as u64, false)?;
        self.load_in::<PATH, N>(address)
    }

    /// Stores to a memory operand of `N` (1, 2, 4, 8) bytes.
    #[inline(always)]
    pub(crate) fn store_operand<const N: usize>(&mut self, op: &Op, value: u64) -> Exec {
        self.store_operand_in::<SLOW, N>(op, value)
    }

    /// As [`Cpu::store_operand`]; the fast form of a body (`PATH` is not [`SLOW`]) misses where the TLB does.
    #[inline(always)]
    pub(super) fn store_operand_in<const PATH: u8, const N: usize>(&mut self, op: &Op, value: u64) -> Exec {
        let address = self.linear_in::<PATH>(op, N as u64, true)?;
        self.store_in::<PATH, N>(address, value)
    }

    /// Loads a memory operand of 1 to 32 bytes into the low end of a vector. `aligned`: a misaligned one of 16 bytes is #GP(0).
    pub(crate) fn load_vector(&mut self, op: &Op, bytes: u8, aligned: bool) -> Exec<Ymm> {
        let low = match bytes {
            1 => self.load_operand::<1>(op)?,
            2 => self.load_operand::<2>(op)?,
            4 => self.load_operand::<4>(op)?,
            8 => self.load_operand::<8>(op)?,
            16 if aligned => return Ok([self.load_xmm::<SLOW, true>(op)?, Xmm::ZERO]),
            16 => return Ok([self.load_xmm::<SLOW, false>(op)?, Xmm::ZERO]),
            _ => return self.load_ymm::<SLOW, false>(op),
        };
        Ok([Xmm::from_low(low), Xmm::ZERO])
    }

    /// To be called when a floating-point instruction has computed, before it writes its result: updates MXCSR and, for an
    /// unmasked exception, raises #XM (or #UD without CR4.OSXMMEXCPT).
    #[inline(always)]
    pub(crate) fn settle(&mut self, env: &Env) -> Exec {
        if env.flags | env.finished == 0 {
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

// The halves of a register in place, as bytes: LLVM makes vector loads and stores of lanes that it finds in memory, not of those it
// must take out of integers. `Cpu::ymm` has quadwords of the host's byte order, lanes are little-endian.
#[cfg(target_endian = "big")]
compile_error!("the vector registers are seen as bytes in place: a big-endian host needs swapped copies here");

#[inline(always)]
fn halves(register: &[u64; 4]) -> &[[u8; 16]; 2] {
    bytemuck::cast_ref(register)
}

#[inline(always)]
fn halves_mut(register: &mut [u64; 4]) -> &mut [[u8; 16]; 2] {
    bytemuck::cast_mut(register)
}
