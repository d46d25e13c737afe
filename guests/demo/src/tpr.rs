//! A 32-bit guest that does what the systems did for which FlexPriority was made: it writes the task-priority register in a loop.
#![cfg_attr(panic = "abort", no_std, no_main)]
#![cfg_attr(panic = "abort", allow(unsafe_code, reason = "a program in machine code"))]

#[cfg(not(panic = "abort"))]
fn main() {
    eprintln!("a bare-metal program: `vanderpool run` runs it");
}

#[cfg(panic = "abort")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[cfg(panic = "abort")]
core::arch::global_asm!(
    r#"
    .set WRITES, 100000

    .section .multiboot, "a"
    .balign 4
    .long 0x1badb002, 3, -(0x1badb002 + 3)

    .section .boot, "ax"
    .code32
    .global _start
_start:
    cli
    mov ecx, WRITES
    xor eax, eax
1:  mov dword ptr [0xfee00080], eax
    xor eax, 0x20
    dec ecx
    jnz 1b
    mov dword ptr [0xfee00080], 0x50
    cmp dword ptr [0xfee00080], 0x50
    mov eax, 0
    je 2f
    inc eax
2:  mov dx, 0xf4
    out dx, eax
3:  hlt
    jmp 3b
    .text
    .code64
"#
);
