//! Real-address mode: a program that calls DOS-like services (INT 21H), which come with it, on a PC's timer, clock and serial port.
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
    .section .boot, "ax"
    .code16
    .global _start
_start:
    cli
    cld
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov sp, 0x7c00
    // The services, and the timer's interrupt, by the interrupt vector table.
    mov word ptr [0x08 * 4], offset tick
    mov word ptr [0x08 * 4 + 2], ax
    mov word ptr [0x21 * 4], offset services
    mov word ptr [0x21 * 4 + 2], ax
    // First 8259: vectors from 8 on, input 0 open.
    mov al, 0x11
    out 0x20, al
    mov al, 8
    out 0x21, al
    mov al, 4
    out 0x21, al
    mov al, 1
    out 0x21, al
    mov al, 0xfe
    out 0x21, al
    // 8254, channel 0: 100 times a second.
    mov al, 0x34
    out 0x43, al
    mov ax, 11932
    out 0x40, al
    mov al, ah
    out 0x40, al
    sti

program:
    mov dx, offset greeting
    mov ah, 0x09
    int 0x21
    // Primes below 12000, by trial division.
    mov si, 2
    xor di, di
1:  mov cx, 2
2:  mov ax, cx
    mul cx
    jc 3f
    cmp ax, si
    ja 3f
    xor dx, dx
    mov ax, si
    div cx
    inc cx
    test dx, dx
    jnz 2b
    jmp 4f
3:  inc di
4:  inc si
    cmp si, 12000
    jb 1b
    mov ax, di
    call number
    mov dx, offset primes
    mov ah, 0x09
    int 0x21
    // Some ticks of the timer, then the time of day.
    mov bx, [ticks]
    add bx, 20
5:  hlt
    cmp [ticks], bx
    jb 5b
    mov ax, [ticks]
    call number
    mov dx, offset ticked
    mov ah, 0x09
    int 0x21
    mov ah, 0x2c
    int 0x21
    push dx
    mov al, ch
    call two_digits
    mov dl, ':'
    mov ah, 0x02
    int 0x21
    mov al, cl
    call two_digits
    mov dl, ':'
    mov ah, 0x02
    int 0x21
    pop ax
    mov al, ah
    call two_digits
    mov dx, offset end_of_line
    mov ah, 0x09
    int 0x21
    mov ax, 0x4c00
    int 0x21

// Prints AX in decimal.
number:
    mov bx, 10
    xor cx, cx
1:  xor dx, dx
    div bx
    push dx
    inc cx
    test ax, ax
    jnz 1b
2:  pop dx
    add dl, '0'
    mov ah, 0x02
    int 0x21
    loop 2b
    ret

// Prints the BCD digits of AL.
two_digits:
    mov dl, al
    push ax
    shr dl, 4
    add dl, '0'
    mov ah, 0x02
    int 0x21
    pop dx
    and dl, 15
    add dl, '0'
    mov ah, 0x02
    int 0x21
    ret

// IRQ 0.
tick:
    push ax
    inc word ptr [ticks]
    mov al, 0x20
    out 0x20, al
    pop ax
    iret

// INT 21H: 02 prints DL, 09 the text at DS:DX up to '$', 2C gives the time (BCD: CH, CL, DH), 30 the version, 4C ends.
services:
    sti
    cmp ah, 0x02
    je print_character
    cmp ah, 0x09
    je print_text
    cmp ah, 0x2c
    je time
    cmp ah, 0x30
    je version
    cmp ah, 0x4c
    je terminate
    xor al, al
    iret
print_character:
    push ax
    mov al, dl
    call send
    pop ax
    iret
print_text:
    push ax
    push si
    mov si, dx
1:  lodsb
    cmp al, '$'
    je 2f
    call send
    jmp 1b
2:  pop si
    pop ax
    iret
time:
    mov al, 4
    call clock
    mov ch, al
    mov al, 2
    call clock
    mov cl, al
    xor al, al
    call clock
    mov dh, al
    iret
version:
    mov ax, 5
    iret
terminate:
    cli
    movzx eax, al
    mov dx, 0xf4
    out dx, eax
1:  hlt
    jmp 1b

// Register AL of the real-time clock.
clock:
    out 0x70, al
    in al, 0x71
    ret

// Sends AL when the serial port is ready.
send:
    push dx
    push ax
    mov dx, 0x3fd
1:  in al, dx
    test al, 0x20
    jz 1b
    pop ax
    mov dx, 0x3f8
    out dx, al
    pop dx
    ret

greeting: .ascii "real mode, DOS-like services version 5\r\n$"
primes: .ascii " primes below 12000\r\n$"
ticked: .ascii " ticks of the timer; the time is $"
end_of_line: .ascii "\r\n$"
    .balign 2
ticks: .word 0
    .code64
"#
);
