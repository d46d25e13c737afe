//! What the compiler calls for copies and comparisons of memory, which the C library has elsewhere.
#![allow(unsafe_code, reason = "the compiler's own contract")]

use core::arch::global_asm;

// By string instructions: no Rust here, so that none of these can be compiled into a call of itself.
global_asm!(
    r#"
    .text
    .global memcpy, memmove, memset, memcmp, bcmp, strlen
memmove:
    mov rax, rdi
    mov rcx, rdi
    sub rcx, rsi
    cmp rcx, rdx
    jb 2f
memcpy:
    mov rax, rdi
    mov rcx, rdx
    rep movsb
    ret
2:  mov rcx, rdx
    lea rdi, [rdi + rdx - 1]
    lea rsi, [rsi + rdx - 1]
    std
    rep movsb
    cld
    ret
memset:
    mov r8, rdi
    mov eax, esi
    mov rcx, rdx
    rep stosb
    mov rax, r8
    ret
bcmp:
memcmp:
    xor eax, eax
    mov rcx, rdx
    cmp rcx, rcx
    repe cmpsb
    je 2f
    movzx eax, byte ptr [rdi - 1]
    movzx ecx, byte ptr [rsi - 1]
    sub eax, ecx
    neg eax
2:  ret
strlen:
    mov rax, -1
2:  inc rax
    cmp byte ptr [rdi + rax], 0
    jne 2b
    ret
"#
);
