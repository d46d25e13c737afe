//! What the loader says (Multiboot Specification 0.6.96, 3.3).
#![allow(unsafe_code, reason = "the loader's structures are at addresses")]

use crate::boot;

const COMMAND_LINE: u32 = 1 << 2;

/// Whether the kernel command line has `word`.
#[must_use]
pub fn command_line_has(word: &str) -> bool {
    let information = boot::information() as usize;
    // SAFETY: the loader put the information structure there, below 4 GiB, and nothing has used that memory since.
    let (flags, line) = unsafe { (*(information as *const u32), *((information + 16) as *const u32)) };
    if information == 0 || flags & COMMAND_LINE == 0 {
        return false;
    }
    // SAFETY: the same; the string ends with a zero byte.
    let line = unsafe { core::ffi::CStr::from_ptr(line as usize as *const core::ffi::c_char) };
    line.to_bytes().split(|byte| *byte == b' ').any(|part| part == word.as_bytes())
}
