//! What a bare-metal program needs, the hypervisor and guests alike: it boots by multiboot 1 into 64-bit mode with the first 4 GiB
//! mapped one to one, has its own descriptor tables, catches exceptions, starts the other processors, writes to the first serial port,
//! and enters VMX operation.
//!
//! A program is a `no_std` binary that says [`program!`] with its main function. It is linked with `link.ld` of this crate, in a
//! profile with `panic = "abort"`; the crate `image` does both. All `unsafe` is in [`acpi`], [`boot`], [`cpu`], [`device`], [`heap`], [`memory`],
//! [`multiboot`], [`processors`], `builtins`, [`vmx::instructions`] and [`vmx::legacy`].
#![no_std]

pub mod acpi;
pub mod boot;
#[cfg(panic = "abort")]
mod builtins;
pub mod console;
pub mod cpu;
pub mod device;
pub mod exceptions;
pub mod heap;
pub mod memory;
pub mod multiboot;
pub mod pci;
pub mod processors;
pub mod vmx;
pub mod vtd;

/// Makes `main` (a `fn() -> !`) the program: its entry, its panic handler, and what the core library wants to be linked with. In a profile that
/// unwinds it is an ordinary program, which tells `how` it is run.
#[macro_export]
macro_rules! program {
    ($main:path, $how:literal) => {
        #[cfg(panic = "abort")]
        #[unsafe(no_mangle)]
        extern "C" fn bare_main() -> ! {
            $crate::exceptions::set_up();
            $main()
        }

        #[cfg(panic = "abort")]
        #[panic_handler]
        fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
            $crate::println!("panic: {}", info);
            $crate::cpu::end(1)
        }

        // The core library is compiled for unwinding and names these; nothing here unwinds.
        #[cfg(panic = "abort")]
        #[unsafe(no_mangle)]
        extern "C" fn rust_eh_personality() {}
        #[cfg(panic = "abort")]
        #[unsafe(no_mangle)]
        extern "C" fn _Unwind_Resume() {}

        #[cfg(not(panic = "abort"))]
        fn main() {
            eprintln!(concat!("a bare-metal program: ", $how));
        }
    };
}
