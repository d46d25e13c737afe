//! Compare-and-exchange of guest memory by the host's own, at any alignment.
#![allow(unsafe_code)]

/// Puts `new` where `old` is, in one step that no other processor can come between. False: something else is there.
///
/// # Safety
/// `place` is valid for loads and stores of `N` (1, 2, 4, 8) bytes.
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn compare_exchange<const N: usize>(place: *mut u8, old: u64, new: u64) -> bool {
    use std::arch::asm;
    let equal: u8;
    // SAFETY: the caller's promise; LOCK allows any alignment.
    unsafe {
        match N {
            1 => asm!("lock cmpxchg [{p}], {n}", "sete {e}", p = in(reg) place, n = in(reg_byte) new as u8,
                e = out(reg_byte) equal, inout("al") old as u8 => _, options(nostack)),
            2 => asm!("lock cmpxchg [{p}], {n:x}", "sete {e}", p = in(reg) place, n = in(reg) new,
                e = out(reg_byte) equal, inout("ax") old as u16 => _, options(nostack)),
            4 => asm!("lock cmpxchg [{p}], {n:e}", "sete {e}", p = in(reg) place, n = in(reg) new,
                e = out(reg_byte) equal, inout("eax") old as u32 => _, options(nostack)),
            _ => asm!("lock cmpxchg [{p}], {n}", "sete {e}", p = in(reg) place, n = in(reg) new,
                e = out(reg_byte) equal, inout("rax") old => _, options(nostack)),
        }
    }
    equal != 0
}

/// The same for 16 bytes.
///
/// # Safety
/// `place` is valid for loads and stores of 16 bytes, and aligned to them.
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn compare_exchange_16(place: *mut u8, old: u128, new: u128) -> bool {
    let equal: u8;
    // SAFETY: the caller's promise. RBX, which the compiler keeps for itself, is put back.
    unsafe {
        std::arch::asm!(
            "xchg rsi, rbx",
            "lock cmpxchg16b [rdi]",
            "mov rbx, rsi",
            "sete r8b",
            in("rdi") place,
            inout("rsi") new as u64 => _,
            in("rcx") (new >> 64) as u64,
            inout("rax") old as u64 => _,
            inout("rdx") (old >> 64) as u64 => _,
            out("r8b") equal,
            options(nostack)
        );
    }
    equal != 0
}

/// Elsewhere there is no parallel machine, so nobody can come between.
///
/// # Safety
/// `place` is valid for loads and stores of `N` (1, 2, 4, 8) bytes.
#[cfg(not(target_arch = "x86_64"))]
pub(super) unsafe fn compare_exchange<const N: usize>(place: *mut u8, old: u64, new: u64) -> bool {
    let (old, new) = (old.to_le_bytes(), new.to_le_bytes());
    // SAFETY: the caller's promise.
    let now = unsafe { std::slice::from_raw_parts_mut(place, N) };
    let equal = now == &old[..N];
    if equal {
        now.copy_from_slice(&new[..N]);
    }
    equal
}

/// The same for 16 bytes.
///
/// # Safety
/// `place` is valid for loads and stores of 16 bytes.
#[cfg(not(target_arch = "x86_64"))]
pub(super) unsafe fn compare_exchange_16(place: *mut u8, old: u128, new: u128) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        let equal = place.cast::<u128>().read_unaligned() == old;
        if equal {
            place.cast::<u128>().write_unaligned(new);
        }
        equal
    }
}
