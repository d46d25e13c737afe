//! The segments of ELF files, of 32 and of 64 bits.

use super::NO_ROOM;
use crate::memory::GuestMemory;

const LOAD: u64 = 1;

/// Whether it is an ELF file.
pub fn is_elf(file: &[u8]) -> bool {
    file.starts_with(b"\x7fELF")
}

fn number(file: &[u8], at: u64, size: usize) -> Option<u64> {
    let start = usize::try_from(at).ok()?;
    let mut bytes = [0; 8];
    bytes[..size].copy_from_slice(file.get(start..start.checked_add(size)?)?);
    Some(u64::from_le_bytes(bytes))
}

/// Puts the segments at their physical addresses; gives the entry point.
pub fn load(memory: &dyn GuestMemory, file: &[u8]) -> Result<u32, &'static str> {
    const CUT: &str = "its image is no complete ELF file";
    let wide = match file.get(4..6) {
        Some([1, 1]) => false,
        Some([2, 1]) => true,
        _ => return Err("its image is no little-endian ELF file"),
    };
    let word = if wide { 8 } else { 4 };
    let read = |at, size| number(file, at, size).ok_or(CUT);
    let entry = read(24, word)?;
    let (table, size, count) =
        if wide { (read(32, 8)?, read(54, 2)?, read(56, 2)?) } else { (read(28, 4)?, read(42, 2)?, read(44, 2)?) };
    for n in 0..count {
        let header = table.checked_add(n * size).ok_or(CUT)?;
        if read(header, 4)? != LOAD {
            continue;
        }
        let [offset, address, length] = if wide { [8, 24, 32] } else { [4, 12, 16] };
        let [offset, address, length] = [
            read(header.saturating_add(offset), word)?,
            read(header.saturating_add(address), word)?,
            read(header.saturating_add(length), word)?,
        ];
        let end = offset.checked_add(length).ok_or(CUT)?;
        let data = file.get(offset as usize..end as usize).ok_or(CUT)?;
        memory.write(address, data).map_err(|_| NO_ROOM)?;
    }
    u32::try_from(entry).map_err(|_| "its entry point is not below 4 GiB")
}
