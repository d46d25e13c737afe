//! What the loader says (Multiboot Specification 0.6.96, 3.3).
#![allow(unsafe_code, reason = "the loader's structures are at addresses")]

use crate::boot;

/// Bits of the information's flags: which fields are there.
mod flag {
    pub const COMMAND_LINE: u32 = 1 << 2;
    pub const MODULES: u32 = 1 << 3;
    pub const MEMORY_MAP: u32 = 1 << 6;
}

/// The 32-bit word at `offset` of the information, when the flag says that it is there.
fn word(needs: u32, offset: usize) -> Option<u32> {
    let information = boot::information() as usize;
    if information == 0 {
        return None;
    }
    // SAFETY: the loader put the information structure there, below 4 GiB, and nothing has used that memory since.
    let (flags, word) = unsafe { (*(information as *const u32), *((information + offset) as *const u32)) };
    (flags & needs != 0).then_some(word)
}

/// The kernel command line.
#[must_use]
pub fn command_line() -> &'static [u8] {
    let Some(line) = word(flag::COMMAND_LINE, 16) else { return &[] };
    // SAFETY: as in `word`; the string ends with a zero byte.
    unsafe { core::ffi::CStr::from_ptr(line as usize as *const core::ffi::c_char) }.to_bytes()
}

/// Whether the kernel command line has `word`.
#[must_use]
pub fn command_line_has(word: &str) -> bool {
    command_line().split(|byte| *byte == b' ').any(|part| part == word.as_bytes())
}

/// The first module.
#[must_use]
pub fn module() -> Option<&'static [u8]> {
    let list = word(flag::MODULES, 24).filter(|_| word(flag::MODULES, 20) != Some(0))? as usize;
    // SAFETY: as in `word`; the module's memory is its own.
    unsafe {
        let (start, end) = (*(list as *const u32), *((list + 4) as *const u32));
        Some(core::slice::from_raw_parts(start as usize as *const u8, end.checked_sub(start)? as usize))
    }
}

/// Calls `each` with start and length of every range of memory that can be used.
pub fn for_each_memory(mut each: impl FnMut(u64, u64)) {
    const AVAILABLE: u32 = 1;
    let (Some(length), Some(map)) = (word(flag::MEMORY_MAP, 44), word(flag::MEMORY_MAP, 48)) else { return };
    let (mut at, end) = (map as usize, map as usize + length as usize);
    while at + 24 <= end {
        // SAFETY: as in `word`: entries of a size, a base, a length and a type.
        let (size, base, length, kind) = unsafe {
            let at = at as *const u8;
            (
                at.cast::<u32>().read_unaligned(),
                at.add(4).cast::<u64>().read_unaligned(),
                at.add(12).cast::<u64>().read_unaligned(),
                at.add(20).cast::<u32>().read_unaligned(),
            )
        };
        if kind == AVAILABLE {
            each(base, length);
        }
        at += size as usize + 4;
    }
}
