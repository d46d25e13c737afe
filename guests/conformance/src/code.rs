//! The guests' instructions. Each ends in VMCALL.
#![allow(unsafe_code, reason = "machine code that runs in guests only")]

/// A guest's code. It is never called: its address goes to the guest's RIP.
pub type Code = unsafe extern "C" fn();

/// The address of a guest's code.
#[must_use]
pub fn address(code: Code) -> u64 {
    code as usize as u64
}

macro_rules! guest_code {
    ($($(#[$meta:meta])* $name:ident: $($line:literal),+;)*) => {
        $(
            $(#[$meta])*
            ///
            /// # Safety
            /// Is for guests' RIP, not to be called.
            #[unsafe(naked)]
            pub unsafe extern "C" fn $name() {
                core::arch::naked_asm!($($line,)+ "vmcall", "ud2")
            }
        )*
    };
}

guest_code! {
    /// Nothing.
    done: "";
}
