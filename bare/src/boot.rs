//! From the loader to 64-bit mode: the multiboot header, the note for PVH (Xen: docs/misc/pvh.pandoc), page tables, descriptor tables, and the stubs of exception handlers.
#![allow(unsafe_code, reason = "machine code before and below Rust")]

use core::arch::global_asm;

/// Selectors in the GDT.
pub mod selector {
    /// 64-bit code, DPL 0.
    pub const CODE: u16 = 0x08;
    /// Data, DPL 0.
    pub const DATA: u16 = 0x10;
    /// 32-bit code, DPL 0.
    pub const CODE32: u16 = 0x18;
    /// 64-bit code, DPL 3, with its RPL.
    pub const USER_CODE: u16 = 0x23;
    /// Data, DPL 3, with its RPL.
    pub const USER_DATA: u16 = 0x2b;
    /// The task-state segment.
    pub const TSS: u16 = 0x30;
}

global_asm!(
    r#"
    .section .multiboot, "a"
    .balign 4
    .long 0x1badb002, 3, -(0x1badb002 + 3)

    .section .pvh, "a", @note
    .balign 4
    .long 4, 4, 18                      // lengths of the name and of the entry; XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long _start

    .section .boot, "ax"
    .code32
    .global _start
_start:
    cli
    cld
    mov dword ptr [boot_information], ebx
    mov esp, offset boot_stack_end
    // PML4 -> PDPT -> four page directories of 2 MiB pages, for all privilege levels.
    mov eax, offset boot_pdpt + 7
    mov dword ptr [boot_pml4], eax
    mov eax, offset boot_directories + 7
    mov edi, offset boot_pdpt
    mov ecx, 4
2:  mov dword ptr [edi], eax
    add eax, 0x1000
    add edi, 8
    dec ecx
    jnz 2b
    mov eax, 0xe7
    mov edi, offset boot_directories
    mov ecx, 2048
2:  mov dword ptr [edi], eax
    add eax, 0x200000
    add edi, 8
    dec ecx
    jnz 2b
    mov eax, offset boot_pml4
    mov cr3, eax
    mov eax, cr4
    or eax, 0x620                       // PAE, OSFXSR, OSXMMEXCPT
    mov cr4, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x100                       // LME
    wrmsr
    mov eax, cr0
    and eax, 0x9ffffff3                 // not CD, NW, EM, TS
    or eax, 0x80010033                  // PG, WP, NE, ET, MP, PE
    mov cr0, eax
    lgdt [boot_gdt_pointer]
    .byte 0xea
    .long boot_long
    .word 8
    .code64
boot_long:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    lldt ax
    lea rsp, [rip + boot_stack_end]
    lea rax, [rip + boot_tss]
    mov word ptr [rip + boot_gdt_tss + 2], ax
    shr rax, 16
    mov byte ptr [rip + boot_gdt_tss + 4], al
    mov byte ptr [rip + boot_gdt_tss + 7], ah
    lea rax, [rip + boot_exception_stack_end]
    mov [rip + boot_tss + 36], rax      // IST1
    lea rax, [rip + boot_stack_end]
    mov [rip + boot_tss + 4], rax       // RSP0
    mov eax, 0x30
    ltr ax
    mov al, 0xff                        // no interrupts from the 8259s
    out 0x21, al
    out 0xa1, al
    call bare_main
3:  hlt
    jmp 3b

    // Each stub is 8 bytes; the return address of its call tells the vector.
    .macro stubs count, push
    .rept \count
    .balign 8
    .ifnb \push
    push 0
    .endif
    call boot_exception
    .endr
    .endm
    .balign 8
    .global boot_stubs
boot_stubs:
    stubs 8, x
    stubs 1
    stubs 1, x
    stubs 5
    stubs 2, x
    stubs 1
    stubs 3, x
    stubs 1
    stubs 7, x
    stubs 2
    stubs 225, x
boot_exception:
    push rax
    push rcx
    push rdx
    push rbx
    push rbp
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    cld
    mov rdi, rsp
    mov rbp, rsp
    and rsp, -16
    call bare_exception
    mov rsp, rbp
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rbp
    pop rbx
    pop rdx
    pop rcx
    pop rax
    add rsp, 16
    iretq

    // What a guest's exceptions and interrupts lead to: VMCALL, which tells the vector by where it is. The NOP before it is for Bochs,
    // which takes the RIP of an exit by a handler's first instruction for that of what was interrupted.
    .balign 8
    .global boot_guest_stubs
boot_guest_stubs:
    .rept 256
    .balign 8
    nop
    vmcall
    .endr

    .section .data.boot, "aw"
    .balign 16
    .global boot_gdt
boot_gdt:
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cf9b000000ffff
    .quad 0x00affb000000ffff, 0x00cff3000000ffff
boot_gdt_tss:
    .quad 0x0000890000000067, 0
    .global boot_gdt_pointer
boot_gdt_pointer:
    .word 63
    .quad boot_gdt

    .section .bss.boot, "aw", @nobits
    .balign 4096
    .global boot_pml4
boot_pml4: .skip 4096
boot_pdpt: .skip 4096
boot_directories: .skip 4 * 4096
    .skip 65536
boot_stack_end:
    .skip 16384
boot_exception_stack_end:
    .global boot_tss
boot_tss: .skip 104
    .global boot_information
boot_information: .skip 8
"#
);

unsafe extern "C" {
    static boot_information: u32;
    static boot_gdt: u8;
    static boot_tss: u8;
    static boot_pml4: u8;
    static boot_stubs: u8;
    static boot_guest_stubs: u8;
}

/// The address of the multiboot information, or PVH's start info, that the loader left.
#[must_use]
pub fn information() -> u32 {
    // SAFETY: written once, before Rust code runs.
    unsafe { boot_information }
}

/// Base of the GDT; its limit is [`GDT_LIMIT`].
#[must_use]
pub fn gdt() -> u64 {
    (&raw const boot_gdt) as u64
}

/// Limit of the GDT.
pub const GDT_LIMIT: u16 = 63;

/// Base of the TSS; its limit is 67H.
#[must_use]
pub fn tss() -> u64 {
    (&raw const boot_tss) as u64
}

/// The page tables: the first 4 GiB one to one in pages of 2 MiB, for every privilege level.
#[must_use]
pub fn page_tables() -> u64 {
    (&raw const boot_pml4) as u64
}

/// The host's handler of exception or interrupt `vector`.
#[must_use]
pub fn handler(vector: u8) -> u64 {
    (&raw const boot_stubs) as u64 + 8 * u64::from(vector)
}

/// A guest's handler of `vector`: VMCALL.
#[must_use]
pub fn guest_handler(vector: u8) -> u64 {
    (&raw const boot_guest_stubs) as u64 + 8 * u64::from(vector)
}

/// The vector whose guest handler's VMCALL is at `rip`.
#[must_use]
pub fn guest_vector(rip: u64) -> Option<u8> {
    let offset = rip.wrapping_sub((&raw const boot_guest_stubs) as u64 + 1);
    if offset < 8 * 256 && offset.is_multiple_of(8) { u8::try_from(offset / 8).ok() } else { None }
}
