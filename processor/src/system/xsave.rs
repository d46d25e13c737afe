//! The XSAVE feature set (SDM vol. 1, chapter 13).

use super::control::xinuse;
use super::intercept::Intercept;
use crate::cpu::{Cpu, Mode, RAX, RDX};
use crate::decode::{Op, Table};
use crate::op;
use crate::trap::Exec;
use crate::x87::{LEGACY_X87_SIZE, X87};
use iced_x86::Code;
use spec::x86::control_registers::{Cr0, Cr4, Xcr0};

/// MXCSR after reset, and in the initial configuration.
pub(super) const MXCSR_INITIAL: u32 = 0x1f80;
/// Bits of MXCSR that can be set.
const MXCSR_MASK: u32 = 0xffff;
/// Size of the legacy region and the XSAVE header.
const HEADER_END: usize = 576;
/// Offset of PKRU in the standard format.
const PKRU_STANDARD: usize = 2688;
/// Offset of the AVX component, in both formats.
const AVX: usize = 576;
/// Size of the AVX component.
const AVX_SIZE: usize = 256;
/// The components behind AVX: bit, size, and offset in the standard format, in which the supervisor ones are not.
const SMALL: [(u64, usize, usize); 3] = [(Xcr0::PKRU, 8, PKRU_STANDARD), (Xcr0::CET_U, 16, 0), (Xcr0::CET_S, 24, 0)];
/// XCOMP_BV bit 63: compacted format.
const COMPACTED: u64 = 1 << 63;

pub(super) fn register(table: &mut Table) {
    table.one(Code::Xsave_mem, op!(xsave::<XSAVE>)).sized(4);
    table.one(Code::Xsave64_mem, op!(xsave::<XSAVE>)).sized(8);
    table.one(Code::Xsaveopt_mem, op!(xsave::<XSAVEOPT>)).sized(4);
    table.one(Code::Xsaveopt64_mem, op!(xsave::<XSAVEOPT>)).sized(8);
    table.one(Code::Xsavec_mem, op!(xsave::<XSAVEC>)).sized(4);
    table.one(Code::Xsavec64_mem, op!(xsave::<XSAVEC>)).sized(8);
    table.one(Code::Xsaves_mem, op!(xsave::<XSAVES>)).sized(4);
    table.one(Code::Xsaves64_mem, op!(xsave::<XSAVES>)).sized(8);
    table.one(Code::Xrstor_mem, op!(xrstor::<false>)).sized(4);
    table.one(Code::Xrstor64_mem, op!(xrstor::<false>)).sized(8);
    table.one(Code::Xrstors_mem, op!(xrstor::<true>)).sized(4);
    table.one(Code::Xrstors64_mem, op!(xrstor::<true>)).sized(8);
}

const XSAVE: u8 = 0;
const XSAVEOPT: u8 = 1;
const XSAVEC: u8 = 2;
const XSAVES: u8 = 3;

/// The image of the legacy region, and of the components after the header.
type Legacy = [u8; 512];

impl Cpu {
    /// How many XMM registers an image holds in this mode: in 64-bit mode all.
    fn visible_xmm(&self) -> usize {
        if self.mode == Mode::Long64 { 16 } else { 8 }
    }

    fn xmm_bytes(&self, register: usize) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.ymm[register][0].to_le_bytes());
        bytes[8..].copy_from_slice(&self.ymm[register][1].to_le_bytes());
        bytes
    }

    fn set_xmm_bytes(&mut self, register: usize, bytes: &[u8]) {
        (self.ymm[register][0], self.ymm[register][1]) = (quad(bytes), quad(&bytes[8..]));
    }

    /// The linear address of a save area, aligned to `alignment` bytes or #GP(0).
    fn save_area(&mut self, op: &Op, alignment: u64, write: bool) -> Exec<u64> {
        let linear = self.linear(op, 512, write)?;
        if linear & (alignment - 1) != 0 {
            return Err(self.general_protection(0));
        }
        Ok(linear)
    }
}

fn put_x87(cpu: &Cpu, image: &mut Legacy, wide: bool) {
    let mut x87 = [0; LEGACY_X87_SIZE];
    x87.copy_from_slice(&image[..LEGACY_X87_SIZE]);
    cpu.x87.save_legacy(&mut x87, wide);
    image[..24].copy_from_slice(&x87[..24]);
    image[32..LEGACY_X87_SIZE].copy_from_slice(&x87[32..]);
}

fn put_mxcsr(cpu: &Cpu, image: &mut Legacy) {
    image[24..28].copy_from_slice(&cpu.mxcsr.to_le_bytes());
    image[28..32].copy_from_slice(&MXCSR_MASK.to_le_bytes());
}

fn put_xmm(cpu: &Cpu, image: &mut Legacy) {
    for register in 0..cpu.visible_xmm() {
        let at = 160 + 16 * register;
        image[at..at + 16].copy_from_slice(&cpu.xmm_bytes(register));
    }
}

/// The first bytes; there are as many.
fn word(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn quad(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn get_x87(cpu: &mut Cpu, image: &Legacy, wide: bool) {
    let mut x87 = [0; LEGACY_X87_SIZE];
    x87.copy_from_slice(&image[..LEGACY_X87_SIZE]);
    cpu.x87.restore_legacy(&x87, wide);
}

fn get_xmm(cpu: &mut Cpu, image: &Legacy) {
    for register in 0..cpu.visible_xmm() {
        let at = 160 + 16 * register;
        cpu.set_xmm_bytes(register, &image[at..at + 16]);
    }
}

/// #UD without CR4.OSXSAVE, #NM with CR0.TS.
fn check_xsave(cpu: &mut Cpu) -> Exec {
    if cpu.cr4 & Cr4::OSXSAVE == 0 {
        return Err(cpu.undefined_opcode());
    }
    if cpu.cr0 & Cr0::TS != 0 {
        return Err(cpu.device_not_available());
    }
    Ok(())
}

fn instruction_mask(cpu: &Cpu) -> u64 {
    cpu.regs[RDX] << 32 | cpu.regs[RAX] & 0xffff_ffff
}

/// The YMM registers' upper halves.
fn avx_image(cpu: &Cpu) -> [u8; AVX_SIZE] {
    let mut image = [0; AVX_SIZE];
    for register in 0..cpu.visible_xmm() {
        let at = 16 * register;
        image[at..at + 8].copy_from_slice(&cpu.ymm[register][2].to_le_bytes());
        image[at + 8..at + 16].copy_from_slice(&cpu.ymm[register][3].to_le_bytes());
    }
    image
}

/// Where the component `SMALL[n]` lies; `held` are the components of an area in the compacted format.
fn small_offset(n: usize, held: Option<u64>) -> u64 {
    let Some(held) = held else { return SMALL[n].2 as u64 };
    let avx = if held & Xcr0::AVX != 0 { AVX_SIZE } else { 0 };
    let before = SMALL[..n].iter().filter(|(bit, ..)| held & bit != 0).map(|(_, size, _)| size).sum::<usize>();
    (HEADER_END + avx + before) as u64
}

/// The image of a component of [`SMALL`], in its first bytes.
fn small_image(cpu: &Cpu, component: u64) -> [u8; 24] {
    let [pl0, pl1, pl2, pl3] = cpu.msrs.pl_ssp;
    let quads = match component {
        Xcr0::PKRU => [u64::from(cpu.pkru), 0, 0],
        Xcr0::CET_U => [cpu.msrs.u_cet, pl3, 0],
        _ => [pl0, pl1, pl2],
    };
    let mut image = [0; 24];
    for (chunk, quad) in image.chunks_exact_mut(8).zip(quads) {
        chunk.copy_from_slice(&quad.to_le_bytes());
    }
    image
}

/// Whether the registers of a component of [`SMALL`] can have these values.
fn small_is_valid(cpu: &Cpu, component: u64, quads: [u64; 3]) -> bool {
    match component {
        Xcr0::CET_U => cpu.cet_control_is_valid(quads[0]) && cpu.ssp_is_valid(quads[1]),
        Xcr0::CET_S => quads.iter().all(|&ssp| cpu.ssp_is_valid(ssp)),
        _ => true,
    }
}

fn set_small(cpu: &mut Cpu, component: u64, quads: [u64; 3]) {
    match component {
        Xcr0::PKRU => cpu.write_pkru(quads[0] as u32),
        Xcr0::CET_U => (cpu.msrs.u_cet, cpu.msrs.pl_ssp[3]) = (quads[0], quads[1]),
        _ => cpu.msrs.pl_ssp[..3].copy_from_slice(&quads),
    }
}

fn xsave<const FORM: u8>(cpu: &mut Cpu, op: &Op) -> Exec {
    check_xsave(cpu)?;
    let compacted = FORM == XSAVEC || FORM == XSAVES;
    if FORM == XSAVES {
        cpu.require_cpl0()?;
        let components = instruction_mask(cpu) & (cpu.xcr0 | cpu.msrs.xss);
        cpu.intercept(Some(op), Intercept::Xsaves(components))?;
    }
    let enabled = if FORM == XSAVES { cpu.xcr0 | cpu.msrs.xss } else { cpu.xcr0 };
    let requested = instruction_mask(cpu) & enabled;
    let at = cpu.save_area(op, 64, true)?;
    let used = xinuse(cpu);
    // XSAVE writes every component asked for; the others leave out those in their initial configuration.
    let written = if FORM == XSAVE { requested } else { requested & used };
    let mut header = [0u8; 64];
    if !compacted {
        cpu.load_slice(at.wrapping_add(512), &mut header)?;
    }
    let old_bv = quad(&header);
    let bv = if compacted { requested & used } else { old_bv & !requested | requested & used };
    // Everything is probed before anything is written.
    let avx_at = AVX;
    let held = compacted.then_some(requested);
    cpu.probe_write(at, HEADER_END)?;
    if written & Xcr0::AVX != 0 {
        cpu.probe_write(at.wrapping_add(avx_at as u64), AVX_SIZE)?;
    }
    for (n, (component, size, _)) in SMALL.into_iter().enumerate() {
        if written & component != 0 {
            cpu.probe_write(at.wrapping_add(small_offset(n, held)), size)?;
        }
    }
    let mut image = [0; 512];
    if written & Xcr0::X87 != 0 {
        put_x87(cpu, &mut image, op.size == 8);
        cpu.store_slice(at, &image[..24])?;
        cpu.store_slice(at.wrapping_add(32), &image[32..LEGACY_X87_SIZE])?;
    }
    // MXCSR goes with SSE or AVX, whether in use or not, in the standard format; with SSE in the compacted one.
    let with_mxcsr = if compacted { written & Xcr0::SSE != 0 } else { requested & (Xcr0::SSE | Xcr0::AVX) != 0 };
    if with_mxcsr {
        put_mxcsr(cpu, &mut image);
        cpu.store_slice(at.wrapping_add(24), &image[24..32])?;
    }
    if written & Xcr0::SSE != 0 {
        put_xmm(cpu, &mut image);
        let end = 160 + 16 * cpu.visible_xmm();
        cpu.store_slice(at.wrapping_add(160), &image[160..end])?;
    }
    if written & Xcr0::AVX != 0 {
        let avx = avx_image(cpu);
        let length = 16 * cpu.visible_xmm();
        cpu.store_slice(at.wrapping_add(avx_at as u64), &avx[..length])?;
    }
    for (n, (component, size, _)) in SMALL.into_iter().enumerate() {
        if written & component != 0 {
            let image = small_image(cpu, component);
            cpu.store_slice(at.wrapping_add(small_offset(n, held)), &image[..size])?;
        }
    }
    cpu.store::<8>(at.wrapping_add(512), bv)?;
    if compacted {
        cpu.store::<8>(at.wrapping_add(520), requested | COMPACTED)?;
    }
    Ok(())
}

fn xrstor<const SUPERVISOR: bool>(cpu: &mut Cpu, op: &Op) -> Exec {
    check_xsave(cpu)?;
    let enabled = if SUPERVISOR { cpu.xcr0 | cpu.msrs.xss } else { cpu.xcr0 };
    if SUPERVISOR {
        cpu.require_cpl0()?;
        let components = instruction_mask(cpu) & enabled;
        cpu.intercept(Some(op), Intercept::Xrstors(components))?;
    }
    let requested = instruction_mask(cpu) & enabled;
    let at = cpu.save_area(op, 64, false)?;
    let mut header = [0; 64];
    cpu.load_slice(at.wrapping_add(512), &mut header)?;
    let (bv, compaction) = (quad(&header), quad(&header[8..]));
    let compacted = compaction & COMPACTED != 0;
    let wrong = if compacted {
        let held = compaction & !COMPACTED;
        held & !enabled != 0 || bv & !held != 0 || header[16..].iter().any(|byte| *byte != 0)
    } else {
        // The standard form looks at bytes 23:8 of the header.
        SUPERVISOR || bv & !enabled != 0 || header[8..24].iter().any(|byte| *byte != 0)
    };
    if wrong {
        return Err(cpu.general_protection(0));
    }
    let restored = requested & bv;
    let mut legacy = [0; 512];
    if restored & (Xcr0::X87 | Xcr0::SSE) != 0 || !compacted && requested & (Xcr0::SSE | Xcr0::AVX) != 0 {
        cpu.load_slice(at, &mut legacy)?;
    }
    // MXCSR is loaded with SSE or AVX in the standard format even if XSTATE_BV has them initial.
    let loads_mxcsr = if compacted { restored & Xcr0::SSE != 0 } else { requested & (Xcr0::SSE | Xcr0::AVX) != 0 };
    let mxcsr = word(&legacy[24..]);
    if loads_mxcsr && mxcsr & !MXCSR_MASK != 0 {
        return Err(cpu.general_protection(0));
    }
    let mut avx = [0; AVX_SIZE];
    if restored & Xcr0::AVX != 0 {
        cpu.load_slice(at.wrapping_add(AVX as u64), &mut avx)?;
    }
    let held = compacted.then_some(compaction);
    let mut small = [[0; 3]; SMALL.len()];
    for (n, (component, size, _)) in SMALL.into_iter().enumerate() {
        if restored & component != 0 {
            let mut image = [0; 24];
            cpu.load_slice(at.wrapping_add(small_offset(n, held)), &mut image[..size])?;
            small[n] = std::array::from_fn(|quad_number| quad(&image[8 * quad_number..]));
            if !small_is_valid(cpu, component, small[n]) {
                return Err(cpu.general_protection(0));
            }
        }
    }
    if requested & Xcr0::X87 != 0 {
        if restored & Xcr0::X87 != 0 {
            get_x87(cpu, &legacy, op.size == 8);
        } else {
            cpu.x87 = X87::initial();
        }
    }
    if loads_mxcsr {
        cpu.mxcsr = mxcsr;
    } else if compacted && requested & Xcr0::SSE != 0 {
        cpu.mxcsr = MXCSR_INITIAL;
    }
    if requested & Xcr0::SSE != 0 {
        if restored & Xcr0::SSE == 0 {
            legacy = [0; 512];
        }
        get_xmm(cpu, &legacy);
    }
    if requested & Xcr0::AVX != 0 {
        for register in 0..cpu.visible_xmm() {
            cpu.ymm[register][2] = quad(&avx[16 * register..]);
            cpu.ymm[register][3] = quad(&avx[16 * register + 8..]);
        }
    }
    for (n, (component, ..)) in SMALL.into_iter().enumerate() {
        if requested & component != 0 {
            set_small(cpu, component, small[n]);
        }
    }
    Ok(())
}

impl Cpu {
    /// Sets PKRU. Cached rights depend on it.
    pub(crate) fn write_pkru(&mut self, value: u32) {
        if self.pkru != value {
            self.pkru = value;
            if self.cr4 & Cr4::PKE != 0 {
                self.flush_own_translations();
            }
        }
    }
}
