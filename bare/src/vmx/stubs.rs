//! Assembly that every way into a guest and back has, as text for `global_asm!`.

/// Keeps the registers that the C ABI says a function must keep.
#[macro_export]
macro_rules! keep_registers {
    () => {
        r#"
    push rbp
    push rbx
    push r12
    push r13
    push r14
    push r15
"#
    };
}

/// Takes back what [`keep_registers`] kept and returns, with the direction flag as the C ABI wants it.
#[macro_export]
macro_rules! return_with_kept_registers {
    () => {
        r#"
    cld
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret
"#
    };
}

/// Loads a guest's general registers from [`Registers`](super::instructions::Registers) at RDI. Changes no flag.
#[macro_export]
macro_rules! load_guest_registers {
    () => {
        r#"
    mov rax, [rdi]
    mov rcx, [rdi + 8]
    mov rdx, [rdi + 16]
    mov rbx, [rdi + 24]
    mov rbp, [rdi + 40]
    mov rsi, [rdi + 48]
    mov r8, [rdi + 64]
    mov r9, [rdi + 72]
    mov r10, [rdi + 80]
    mov r11, [rdi + 88]
    mov r12, [rdi + 96]
    mov r13, [rdi + 104]
    mov r14, [rdi + 112]
    mov r15, [rdi + 120]
    mov rdi, [rdi + 56]
"#
    };
}

/// Stores a guest's general registers to [`Registers`](super::instructions::Registers) at RDI; the guest's RDI is taken from the stack.
#[macro_export]
macro_rules! store_guest_registers {
    () => {
        r#"
    mov [rdi], rax
    mov [rdi + 8], rcx
    mov [rdi + 16], rdx
    mov [rdi + 24], rbx
    mov [rdi + 40], rbp
    mov [rdi + 48], rsi
    mov [rdi + 64], r8
    mov [rdi + 72], r9
    mov [rdi + 80], r10
    mov [rdi + 88], r11
    mov [rdi + 96], r12
    mov [rdi + 104], r13
    mov [rdi + 112], r14
    mov [rdi + 120], r15
    pop rax
    mov [rdi + 56], rax
"#
    };
}
