//! 32-bit protected mode with paging of its own: the kernel in the upper quarter, pages that come when they are touched, timer interrupts.
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
    .set UPPER, 0xc0000000

    .section .multiboot, "a"
    .balign 4
    .long 0x1badb002, 3, -(0x1badb002 + 3)

    .section .boot, "ax"
    .code32
    .global _start
_start:
    cli
    cld
    mov esp, offset stack_end
    // The first 4 MiB where they are and at UPPER, in pages of 4 KiB.
    mov edi, offset table
    mov eax, 3
    mov ecx, 1024
1:  stosd
    add eax, 0x1000
    loop 1b
    mov eax, offset table + 3
    mov dword ptr [directory], eax
    mov dword ptr [directory + 4 * (UPPER >> 22)], eax
    // The table of the area whose pages come when they are touched.
    mov eax, offset area_table + 3
    mov dword ptr [directory + 4 * 0x200], eax
    mov eax, offset directory
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80010000                  // PG, WP
    mov cr0, eax
    mov eax, offset upper + UPPER
    jmp eax
upper:
    add esp, UPPER
    lgdt [gdt_pointer + UPPER]
    .byte 0xea
    .long reloaded + UPPER
    .word 8
reloaded:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    // Gates for the page fault (14) and the timer (32).
    mov eax, offset page_fault + UPPER
    mov edi, offset idt + 8 * 14 + UPPER
    call gate
    mov eax, offset timer + UPPER
    mov edi, offset idt + 8 * 32 + UPPER
    call gate
    lidt [idt_pointer + UPPER]
    // Nothing is needed below any more.
    mov dword ptr [directory + UPPER], 0
    mov eax, cr3
    mov cr3, eax
    mov esi, offset greeting + UPPER
    call print

    // Touch 64 pages that are not there.
    mov ecx, 64
    mov edi, 0x80000000
2:  mov [edi], ecx
    add edi, 0x1000
    loop 2b
    mov eax, [faults + UPPER]
    call number
    mov esi, offset touched + UPPER
    call print

    // 8259 at vectors from 32 on, input 0 open; 8254 channel 0 at 1 kHz.
    mov al, 0x11
    out 0x20, al
    mov al, 32
    out 0x21, al
    mov al, 4
    out 0x21, al
    mov al, 1
    out 0x21, al
    mov al, 0xfe
    out 0x21, al
    mov al, 0x34
    out 0x43, al
    mov al, 0xa9
    out 0x40, al
    mov al, 0x04
    out 0x40, al
    sti
    // Sum the words of the area, again and again, until 100 ticks have come: a thread that the timer interrupts.
3:  xor ebx, ebx
    mov esi, 0x80000000
    mov ecx, 64
4:  add ebx, [esi]
    add esi, 0x1000
    loop 4b
    cmp ebx, 64 * 65 / 2
    jne 6f
    cmp dword ptr [ticks + UPPER], 100
    jb 3b
    cli
    mov eax, [ticks + UPPER]
    call number
    mov esi, offset ticked + UPPER
    call print
    xor ebx, ebx
6:  mov eax, ebx
    mov dx, 0xf4
    out dx, eax
5:  hlt
    jmp 5b

// Makes the gate at EDI one of a 32-bit interrupt handler at EAX.
gate:
    mov [edi], ax
    mov word ptr [edi + 2], 8
    mov word ptr [edi + 4], 0x8e00
    shr eax, 16
    mov [edi + 6], ax
    ret

// Gives the page that was touched the next of the pool's.
page_fault:
    push eax
    push ebx
    mov eax, cr2
    shr eax, 12
    and eax, 1023
    mov ebx, [next_page + UPPER]
    add dword ptr [next_page + UPPER], 0x1000
    or ebx, 3
    shl eax, 2
    add eax, offset area_table + UPPER
    mov [eax], ebx
    inc dword ptr [faults + UPPER]
    pop ebx
    pop eax
    add esp, 4
    iretd

timer:
    push eax
    inc dword ptr [ticks + UPPER]
    mov al, 0x20
    out 0x20, al
    pop eax
    iretd

// Prints the text at ESI.
print:
    lodsb
    test al, al
    jz 2f
    call send
    jmp print
2:  ret

// Prints EAX in decimal.
number:
    mov ebx, 10
    xor ecx, ecx
1:  xor edx, edx
    div ebx
    push edx
    inc ecx
    test eax, eax
    jnz 1b
2:  pop eax
    add al, '0'
    call send
    loop 2b
    ret

// Sends AL when the serial port is ready.
send:
    push eax
    mov dx, 0x3fd
1:  in al, dx
    test al, 0x20
    jz 1b
    pop eax
    mov dx, 0x3f8
    out dx, al
    ret

    .section .data.boot, "aw"
greeting: .asciz "protected mode, in the upper quarter of 4 GiB by its own page tables\r\n"
touched: .asciz " pages came when they were touched\r\n"
ticked: .asciz " interrupts of the timer\r\n"
    .balign 8
gdt:
    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdt_pointer:
    .word 23
    .long gdt + UPPER
idt_pointer:
    .word 8 * 33 - 1
    .long idt + UPPER
    .balign 4
next_page: .long pool
ticks: .long 0
faults: .long 0

    .section .bss.boot, "aw", @nobits
    .balign 4096
directory: .skip 4096
table: .skip 4096
area_table: .skip 4096
pool: .skip 64 * 4096
idt: .skip 8 * 33
    .balign 16
    .skip 4096
stack_end:
    .text
    .code64
"#
);
