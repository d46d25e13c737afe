//! Masked moves and gathers: elements that the mask leaves out are not accessed and cannot fault.

use iced_x86::Code;

use super::lanes::Xmm;
use crate::cpu::{Cpu, RDI};
use crate::decode::op::{ADDRESS_16, ADDRESS_32, LEGACY_ADDRESS, VEX};
use crate::decode::{Op, Table};
use crate::op;
use crate::trap::Exec;

/// Up to 32 bytes of a register as an array of bytes.
fn bytes_of(cpu: &Cpu, slot: u8) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (bytes, quadword) in bytes.chunks_exact_mut(8).zip(cpu.ymm[(slot & 15) as usize]) {
        bytes.copy_from_slice(&quadword.to_le_bytes());
    }
    bytes
}

fn write_bytes(cpu: &mut Cpu, slot: u8, bytes: &[u8; 32]) {
    for (i, quadword) in cpu.ymm[(slot & 15) as usize].iter_mut().enumerate() {
        *quadword = bytes[8 * i..8 * i + 8].iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte));
    }
}

/// The sign bit of the element of `N` bytes at byte `at`.
fn selected<const N: usize>(mask: &[u8; 32], at: usize) -> bool {
    mask[at + N - 1] & 0x80 != 0
}

/// VMASKMOVPS, VMASKMOVPD, VPMASKMOVD, VPMASKMOVQ, loading elements of `N` bytes of a vector of `WIDTH` bytes.
#[inline(never)]
fn masked_load<const N: usize, const WIDTH: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.avx_ready()?;
    let mask = bytes_of(cpu, op.r[1]);
    let mut result = [0; 32];
    for at in (0..WIDTH).step_by(N).filter(|&at| selected::<N>(&mask, at)) {
        let address = element_address(cpu, op, at as u64, N as u64, false)?;
        let value = cpu.load::<N>(address)?;
        result[at..at + N].copy_from_slice(&value.to_le_bytes()[..N]);
    }
    write_bytes(cpu, op.r[0], &result);
    Ok(())
}

/// The storing forms.
#[inline(never)]
fn masked_store<const N: usize, const WIDTH: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.avx_ready()?;
    let mask = bytes_of(cpu, op.r[1]);
    let source = bytes_of(cpu, op.r[2]);
    let places = || (0..WIDTH).step_by(N).filter(|&at| selected::<N>(&mask, at));
    // Nothing is stored if any selected element faults.
    for at in places() {
        let address = element_address(cpu, op, at as u64, N as u64, true)?;
        cpu.probe_write(address, N)?;
    }
    for at in places() {
        let address = element_address(cpu, op, at as u64, N as u64, true)?;
        let value = source[at..at + N].iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte));
        cpu.store::<N>(address, value)?;
    }
    Ok(())
}

/// The linear address `at` bytes into the memory operand.
fn element_address(cpu: &mut Cpu, op: &Op, at: u64, size: u64, write: bool) -> Exec<u64> {
    let offset = cpu.offset_of(op).wrapping_add(at);
    element_linear(cpu, op, offset, size, write)
}

/// Cuts an offset to the address size and adds the segment.
fn element_linear(cpu: &mut Cpu, op: &Op, offset: u64, size: u64, write: bool) -> Exec<u64> {
    if !op.has(LEGACY_ADDRESS) {
        return Ok(offset.wrapping_add(cpu.segs[(op.seg & 7) as usize].base));
    }
    let offset = if op.has(ADDRESS_16) {
        offset & 0xffff
    } else if op.has(ADDRESS_32) {
        offset & 0xffff_ffff
    } else {
        offset
    };
    cpu.segment_linear(op.seg as usize, offset, size, write)
}

/// MASKMOVDQU and VMASKMOVDQU: bytes of the second operand, where the third's sign bits are set, to DS:rDI.
#[inline(never)]
fn masked_bytes_xmm(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.vector_ready(op.has(VEX))?;
    let (source, mask) = (cpu.xmm(op.r[1]), cpu.xmm(op.r[2]));
    store_masked_bytes(cpu, op, &source.0, &mask.0)
}

/// Stores the bytes whose mask has its sign bit set to the segment of `op` at rDI.
pub(super) fn store_masked_bytes(cpu: &mut Cpu, op: &Op, source: &[u8], mask: &[u8]) -> Exec {
    let start = cpu.regs[RDI];
    let places = || mask.iter().enumerate().filter(|(_, mask)| **mask & 0x80 != 0).map(|(i, _)| i);
    for i in places() {
        let address = element_linear(cpu, op, start.wrapping_add(i as u64), 1, true)?;
        cpu.probe_write(address, 1)?;
    }
    for i in places() {
        let address = element_linear(cpu, op, start.wrapping_add(i as u64), 1, true)?;
        cpu.store::<1>(address, u64::from(source[i]))?;
    }
    Ok(())
}

/// The gathers: `INDEX` bytes an index, `N` bytes an element, `COUNT` elements.
///
/// The mask's elements become all ones or zero first, and zero above the vector. An element that faults leaves the ones before it done and their
/// mask cleared, so that the restarted instruction goes on there (SDM Vol. 2C, VGATHERDPS, Operation); the first one done also clears what
/// lies above the destination, as Intel's processors show.
#[inline(never)]
fn gather<const INDEX: usize, const N: usize, const COUNT: usize>(cpu: &mut Cpu, op: &Op) -> Exec {
    cpu.avx_ready()?;
    let (destination, mask, index) = (op.r[0] & 15, op.r[2] & 15, op.index & 15);
    if destination == mask || destination == index || mask == index {
        return Err(cpu.undefined_opcode());
    }
    let base = cpu.regs[op.base as usize].wrapping_add(op.disp);
    let indices = bytes_of(cpu, index);
    let mask_bytes = bytes_of(cpu, mask);
    let mut wanted = [0; 32];
    let width = COUNT * INDEX.max(N);
    for at in (0..width).step_by(N).filter(|&at| selected::<N>(&mask_bytes, at)) {
        wanted[at..at + N].fill(0xff);
    }
    let mut result = bytes_of(cpu, destination);
    for element in 0..COUNT {
        let at = element * N;
        if selected::<N>(&wanted, at) {
            let bytes = &indices[element * INDEX..(element + 1) * INDEX];
            let value = bytes.iter().rev().fold(0u64, |value, &byte| value << 8 | u64::from(byte));
            let value = if INDEX == 4 { value as u32 as i32 as u64 } else { value };
            let offset = base.wrapping_add(value << (op.scale & 3));
            let loaded = element_linear(cpu, op, offset, N as u64, false).and_then(|address| cpu.load::<N>(address));
            match loaded {
                Ok(loaded) => {
                    result[at..at + N].copy_from_slice(&loaded.to_le_bytes()[..N]);
                    result[width..].fill(0);
                }
                Err(trapped) => {
                    write_bytes(cpu, destination, &result);
                    write_bytes(cpu, mask, &wanted);
                    return Err(trapped);
                }
            }
        }
        wanted[at..at + N].fill(0);
    }
    // In the end what lies above the gathered elements becomes zero, in both registers.
    result[N * COUNT..].fill(0);
    write_bytes(cpu, destination, &result);
    cpu.set_ymm(mask, [Xmm::ZERO; 2]);
    Ok(())
}

macro_rules! entries {
    ($table:ident: $($function:path => $($code:ident)+;)+) => {$($(
        $table.one(Code::$code, op!($function));
    )+)+};
}

/// Registers these instructions.
pub(super) fn register(table: &mut Table) {
    entries! { table:
        masked_load::<4, 16> => VEX_Vmaskmovps_xmm_xmm_m128 VEX_Vpmaskmovd_xmm_xmm_m128;
        masked_load::<4, 32> => VEX_Vmaskmovps_ymm_ymm_m256 VEX_Vpmaskmovd_ymm_ymm_m256;
        masked_load::<8, 16> => VEX_Vmaskmovpd_xmm_xmm_m128 VEX_Vpmaskmovq_xmm_xmm_m128;
        masked_load::<8, 32> => VEX_Vmaskmovpd_ymm_ymm_m256 VEX_Vpmaskmovq_ymm_ymm_m256;
        masked_store::<4, 16> => VEX_Vmaskmovps_m128_xmm_xmm VEX_Vpmaskmovd_m128_xmm_xmm;
        masked_store::<4, 32> => VEX_Vmaskmovps_m256_ymm_ymm VEX_Vpmaskmovd_m256_ymm_ymm;
        masked_store::<8, 16> => VEX_Vmaskmovpd_m128_xmm_xmm VEX_Vpmaskmovq_m128_xmm_xmm;
        masked_store::<8, 32> => VEX_Vmaskmovpd_m256_ymm_ymm VEX_Vpmaskmovq_m256_ymm_ymm;
        gather::<4, 4, 4> => VEX_Vpgatherdd_xmm_vm32x_xmm VEX_Vgatherdps_xmm_vm32x_xmm;
        gather::<4, 4, 8> => VEX_Vpgatherdd_ymm_vm32y_ymm VEX_Vgatherdps_ymm_vm32y_ymm;
        gather::<4, 8, 2> => VEX_Vpgatherdq_xmm_vm32x_xmm VEX_Vgatherdpd_xmm_vm32x_xmm;
        gather::<4, 8, 4> => VEX_Vpgatherdq_ymm_vm32x_ymm VEX_Vgatherdpd_ymm_vm32x_ymm;
        gather::<8, 4, 2> => VEX_Vpgatherqd_xmm_vm64x_xmm VEX_Vgatherqps_xmm_vm64x_xmm;
        gather::<8, 4, 4> => VEX_Vpgatherqd_xmm_vm64y_xmm VEX_Vgatherqps_xmm_vm64y_xmm;
        gather::<8, 8, 2> => VEX_Vpgatherqq_xmm_vm64x_xmm VEX_Vgatherqpd_xmm_vm64x_xmm;
        gather::<8, 8, 4> => VEX_Vpgatherqq_ymm_vm64y_ymm VEX_Vgatherqpd_ymm_vm64y_ymm;
    }
    table.one(Code::Maskmovdqu_rDI_xmm_xmm, op!(masked_bytes_xmm));
    table.one(Code::VEX_Vmaskmovdqu_rDI_xmm_xmm, op!(masked_bytes_xmm));
}
