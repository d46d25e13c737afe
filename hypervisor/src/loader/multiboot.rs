//! Multiboot 1 images in ELF (Multiboot Specification 0.6.96).

use super::{NO_ROOM, Start, elf};
use crate::memory::{GuestMemory, ranges};
use alloc::vec::Vec;

const HEADER_MAGIC: u32 = 0x1bad_b002;
const BOOT_MAGIC: u32 = 0x2bad_b002;
/// The header lies within the first bytes of the image.
const SEARCH: usize = 8192;

const INFORMATION: u32 = 0x4_0000;
const MAP: u32 = 0x4_0100;
const COMMAND_LINE: u32 = 0x2_0000;
const LONGEST: usize = 0xffff;

/// Bits of the information's flags: memory sizes, command line, memory map.
const GIVEN: u32 = 1 << 0 | 1 << 2 | 1 << 6;

pub fn load(memory: &dyn GuestMemory, image: &[u8], command_line: &str) -> Result<Start, &'static str> {
    let word = |at: usize| image.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let sum = |at: usize| Some(word(at)?.wrapping_add(word(at + 4)?).wrapping_add(word(at + 8)?));
    let is_header = |at: &usize| word(*at) == Some(HEADER_MAGIC) && sum(*at) == Some(0);
    if !(0..image.len().min(SEARCH)).step_by(4).any(|at| is_header(&at)) {
        return Err("its image has no multiboot header");
    }
    let entry = elf::load(memory, image)?;
    if command_line.len() > LONGEST {
        return Err("its command line is too long");
    }
    let mut map = Vec::new();
    let [(_, below), high] = ranges(memory.size());
    for (base, length) in [(0u64, 0x9_fc00), (0x10_0000, below.saturating_sub(0x10_0000)), high] {
        map.extend(20u32.to_le_bytes());
        map.extend(base.to_le_bytes());
        map.extend(length.to_le_bytes());
        map.extend(1u32.to_le_bytes());
    }
    let mut information = [0u8; 64];
    let above = below.saturating_sub(0x10_0000) >> 10;
    for (at, value) in [(0, GIVEN), (4, 639), (8, above as u32), (16, COMMAND_LINE), (44, map.len() as u32), (48, MAP)]
    {
        information[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
    }
    let line = [command_line.as_bytes(), &[0]].concat();
    for (address, data) in [(INFORMATION, &information[..]), (MAP, &map), (COMMAND_LINE, &line)] {
        memory.write(address.into(), data).map_err(|_| NO_ROOM)?;
    }
    Ok(Start::Protected { entry, eax: BOOT_MAGIC, ebx: INFORMATION, esi: 0 })
}
