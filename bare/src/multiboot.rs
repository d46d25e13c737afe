//! What the loader says: multiboot's information (Multiboot Specification 0.6.96, 3.3) or PVH's start info (Xen:
//! public/arch-x86/hvm/start_info.h).
#![allow(unsafe_code, reason = "the loader's structures are at addresses")]

use crate::boot;

/// Bits of multiboot's flags: which fields are there.
mod flag {
    pub const COMMAND_LINE: u32 = 1 << 2;
    pub const MODULES: u32 = 1 << 3;
    pub const MEMORY_MAP: u32 = 1 << 6;
}

/// The first word of PVH's start info; multiboot's flags have other bits.
const PVH_MAGIC: u32 = 0x336e_c578;

/// Offsets in PVH's start info. Addresses have 8 bytes.
mod pvh {
    pub const MODULES: usize = 12;
    pub const MODULE_LIST: usize = 16;
    pub const COMMAND_LINE: usize = 24;
    pub const ACPI_ROOT: usize = 32;
    pub const MEMORY_MAP: usize = 40;
    pub const MEMORY_MAP_ENTRIES: usize = 48;
}

/// The 32-bit word at `address`, where the loader put something.
fn at(address: usize) -> u32 {
    // SAFETY: the callers' addresses are of the loader's structures, below 4 GiB, and nothing has used that memory since.
    unsafe { (address as *const u32).read_unaligned() }
}

/// The word at `offset` of PVH's start info, if that is what there is.
fn start_info(offset: usize) -> Option<u32> {
    let information = boot::information() as usize;
    (information != 0 && at(information) == PVH_MAGIC).then(|| at(information + offset))
}

/// The word at `offset` of multiboot's information, when the flag says that it is there.
fn word(needs: u32, offset: usize) -> Option<u32> {
    let information = boot::information() as usize;
    if information == 0 || start_info(0).is_some() || at(information) & needs == 0 {
        return None;
    }
    Some(at(information + offset))
}

/// The kernel command line.
#[must_use]
pub fn command_line() -> &'static [u8] {
    let line = start_info(pvh::COMMAND_LINE).or_else(|| word(flag::COMMAND_LINE, 16));
    let Some(line) = line.filter(|line| *line != 0) else { return &[] };
    // SAFETY: as in `at`; the string ends with a zero byte.
    unsafe { core::ffi::CStr::from_ptr(line as usize as *const core::ffi::c_char) }.to_bytes()
}

/// The address of ACPI's root pointer, where the loader tells it (PVH).
#[must_use]
pub fn acpi_root() -> Option<u64> {
    start_info(pvh::ACPI_ROOT).filter(|address| *address != 0).map(u64::from)
}

fn words() -> impl Iterator<Item = &'static [u8]> {
    command_line().split(|byte| *byte == b' ')
}

/// Whether the kernel command line has `word`.
#[must_use]
pub fn command_line_has(word: &str) -> bool {
    words().any(|part| part == word.as_bytes())
}

/// The words of the kernel command line that are numbers.
pub fn numbers() -> impl Iterator<Item = u64> {
    words().filter_map(|word| core::str::from_utf8(word).ok()?.parse().ok())
}

/// The first module.
#[must_use]
pub fn module() -> Option<&'static [u8]> {
    let (start, length) = if let Some(count) = start_info(pvh::MODULES) {
        let list = start_info(pvh::MODULE_LIST).filter(|_| count != 0)? as usize;
        (at(list), at(list + 8))
    } else {
        let list = word(flag::MODULES, 24).filter(|_| word(flag::MODULES, 20) != Some(0))? as usize;
        (at(list), at(list + 4).checked_sub(at(list))?)
    };
    // SAFETY: as in `at`; the module's memory is its own.
    Some(unsafe { core::slice::from_raw_parts(start as usize as *const u8, length as usize) })
}

/// Calls `each` with start and length of every range of memory that can be used.
pub fn for_each_memory(mut each: impl FnMut(u64, u64)) {
    const AVAILABLE: u32 = 1;
    let wide = |address: usize| u64::from(at(address)) | u64::from(at(address + 4)) << 32;
    let mut take = |entry: usize| {
        if at(entry + 16) == AVAILABLE {
            each(wide(entry), wide(entry + 8));
        }
    };
    if let (Some(map), Some(count)) = (start_info(pvh::MEMORY_MAP), start_info(pvh::MEMORY_MAP_ENTRIES)) {
        (0..count as usize).for_each(|n| take(map as usize + 24 * n));
        return;
    }
    let (Some(length), Some(map)) = (word(flag::MEMORY_MAP, 44), word(flag::MEMORY_MAP, 48)) else { return };
    let (mut entry, end) = (map as usize, map as usize + length as usize);
    while entry + 24 <= end {
        // An entry's size is before it.
        take(entry + 4);
        entry += at(entry) as usize + 4;
    }
}
