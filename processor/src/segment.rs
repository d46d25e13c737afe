//! Segment registers with their descriptor caches, and the segmented address checks of non-64-bit code (SDM Vol 3A, chapter 5).

use crate::cpu::{Cpu, Mode};
use crate::trap::Exec;
use serde::{Deserialize, Serialize};

/// Index of ES in [`Cpu::segs`].
pub const ES: usize = 0;
/// Index of CS.
pub const CS: usize = 1;
/// Index of SS.
pub const SS: usize = 2;
/// Index of DS.
pub const DS: usize = 3;
/// Index of FS.
pub const FS: usize = 4;
/// Index of GS.
pub const GS: usize = 5;
/// A segment with base 0 that 64-bit code's CS, DS, ES operands decode to.
pub const ZERO: usize = 6;
/// As [`ZERO`], for SS operands: a non-canonical address gives #SS, not #GP.
pub const ZERO_STACK: usize = 7;

/// Accessed data or code segment (access-rights bit 0).
pub const ACCESSED: u32 = 1 << 0;
/// Writable data, readable code.
pub const WRITABLE: u32 = 1 << 1;
/// Expand-down data, conforming code.
pub const EXPAND_DOWN: u32 = 1 << 2;
/// Code.
pub const CODE: u32 = 1 << 3;
/// Code or data, not system.
pub const NON_SYSTEM: u32 = 1 << 4;
/// Present.
pub const PRESENT: u32 = 1 << 7;
/// 64-bit code (L).
pub const LONG: u32 = 1 << 13;
/// Default operand size 32 (D), or big stack (B).
pub const BIG: u32 = 1 << 14;
/// Granularity (the cached limit is already in bytes).
pub const GRANULARITY: u32 = 1 << 15;
/// The register holds no usable segment.
pub const UNUSABLE: u32 = 1 << 16;

/// A segment register: selector and cached descriptor. `access` has the VMCS' access-rights format (SDM Vol 3C, 25.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The visible selector.
    pub selector: u16,
    /// Linear base address.
    pub base: u64,
    /// Last valid offset in bytes (granularity applied).
    pub limit: u32,
    /// Access rights: type, S, DPL, P, AVL, L, D/B, G, unusable.
    pub access: u32,
}

impl Segment {
    /// A real-mode segment.
    pub const fn real(selector: u16) -> Self {
        Self {
            selector,
            base: (selector as u64) << 4,
            limit: 0xffff,
            access: PRESENT | NON_SYSTEM | WRITABLE | ACCESSED,
        }
    }
    /// Usable and present.
    pub const fn usable(&self) -> bool {
        self.access & UNUSABLE == 0
    }
    /// Descriptor privilege level.
    pub const fn dpl(&self) -> u8 {
        (self.access >> 5 & 3) as u8
    }
    /// The four type bits.
    pub const fn kind(&self) -> u8 {
        (self.access & 15) as u8
    }
}

impl Cpu {
    /// The linear address of `size` bytes at `offset` in segment register `seg`, checked for non-64-bit code: type, limit. #SS for the
    /// stack segment, else #GP (SDM Vol 3A, 5.3 and 5.4). In 64-bit mode the base of FS and GS is added and nothing is checked here.
    pub fn segment_linear(&mut self, seg: usize, offset: u64, size: u64, write: bool) -> Exec<u64> {
        let segment = &self.segs[seg & 7];
        if self.mode == Mode::Long64 {
            return Ok(if seg == FS || seg == GS { offset.wrapping_add(segment.base) } else { offset });
        }
        let access = segment.access;
        let last = offset + (size - 1);
        let limit = segment.limit as u64;
        let in_limit = if access & (CODE | EXPAND_DOWN) == EXPAND_DOWN && access & NON_SYSTEM != 0 {
            let top = if access & BIG != 0 { 0xffff_ffff } else { 0xffff };
            offset > limit && last <= top
        } else {
            last <= limit
        };
        let typed =
            if write { access & (CODE | WRITABLE) == WRITABLE } else { access & CODE == 0 || access & WRITABLE != 0 };
        let real = matches!(self.mode, Mode::Real | Mode::Virtual8086);
        if in_limit && (real || typed && access & UNUSABLE == 0) {
            // A 32-bit linear address wraps; the access itself splits where it crosses.
            return Ok(segment.base.wrapping_add(offset) & 0xffff_ffff);
        }
        Err(if seg == SS { self.stack_fault(0) } else { self.general_protection(0) })
    }
}
