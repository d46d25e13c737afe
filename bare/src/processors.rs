//! The other processors: INIT and start-up IPIs, and the way from real mode to a Rust function with a stack and tables of its own.
#![allow(unsafe_code, reason = "machine code before and below Rust")]

use crate::boot::{self, selector};
use crate::{cpu, exceptions, memory};
use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use spec::x86::msr;

/// Processors besides the first that can be started.
pub const MOST: u32 = 15;

/// Where the start-up code is put: a page that start-up IPIs can name.
const TRAMPOLINE: u64 = 0x8000;

global_asm!(
    r#"
    .section .boot, "ax"
    .code16
    .global boot_trampoline
boot_trampoline:
    cli
    xor ax, ax
    mov ds, ax
    .byte 0x66, 0x0f, 0x01, 0x16        // LGDT with a 32-bit base
    .word 0x8000 + boot_trampoline_gdt - boot_trampoline
    mov eax, 0x11                       // ET, PE
    mov cr0, eax
    .byte 0x66, 0xea                    // far jump to 32-bit code
    .long boot_processor_32
    .word 0x18
    .balign 4
boot_trampoline_gdt:
    .word 63
    .long boot_gdt
    .global boot_trampoline_end
boot_trampoline_end:
    .code32
boot_processor_32:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov eax, offset boot_pml4
    mov cr3, eax
    mov eax, 0x620                      // PAE, OSFXSR, OSXMMEXCPT
    mov cr4, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x100                       // LME
    wrmsr
    mov eax, 0x80010033                 // PG, WP, NE, ET, MP, PE
    mov cr0, eax
    .byte 0xea
    .long boot_processor_64
    .word 8
    .code64
boot_processor_64:
    mov edi, 1
    lock xadd dword ptr [rip + boot_processors], edi
    cmp edi, 15
    jae 2f
    lea eax, [rdi + 1]
    shl rax, 16
    lea rsp, [rip + boot_processor_stacks]
    add rsp, rax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    lldt ax
    call bare_processor
2:  cli
    hlt
    jmp 2b

    .section .bss.boot, "aw", @nobits
    .balign 16
boot_processor_stacks: .skip 15 * 65536
    .global boot_processors
boot_processors: .skip 4
"#
);

unsafe extern "C" {
    static boot_trampoline: u8;
    static boot_trampoline_end: u8;
    static boot_processors: AtomicU32;
}

/// Where a processor's own descriptor tables are.
#[derive(Clone, Copy, Debug)]
pub struct Tables {
    /// Base of the GDT; its limit is [`boot::GDT_LIMIT`].
    pub gdt: u64,
    /// Base of the TSS; its limit is 67H.
    pub tss: u64,
}

impl Tables {
    /// Those of the processor that booted.
    #[must_use]
    pub fn of_first() -> Tables {
        Tables { gdt: boot::gdt(), tss: boot::tss() }
    }

    /// New ones, loaded into this processor.
    fn load() -> Tables {
        let page = memory::take_pages(1);
        let stack = memory::take_pages(4) + 4 * memory::PAGE;
        let tables = Tables { gdt: page, tss: page + 0x100 };
        memory::copy_code(tables.gdt, boot::gdt(), u64::from(boot::GDT_LIMIT) + 1);
        // An available 64-bit TSS of 68H bytes, and its IST1 (SDM Vol. 3A, figures 8-4 and 8-11).
        let descriptor = 0x0000_8900_0000_0067 | (tables.tss & 0xff_ffff) << 16 | (tables.tss >> 24 & 0xff) << 56;
        memory::write(tables.gdt + u64::from(selector::TSS), descriptor);
        memory::write(tables.gdt + u64::from(selector::TSS) + 8, tables.tss >> 32);
        memory::write(tables.tss + 36, stack);
        let mut operand = [0u8; 10];
        operand[..2].copy_from_slice(&boot::GDT_LIMIT.to_le_bytes());
        operand[2..].copy_from_slice(&tables.gdt.to_le_bytes());
        // SAFETY: the new table has the same segments as the one in use, and a TSS that nobody else has.
        unsafe {
            asm!("lgdt [{}]", "ltr {:x}", in(reg) &raw const operand, in(reg) u32::from(selector::TSS), options(nostack));
        }
        tables
    }
}

static ENTRY: AtomicUsize = AtomicUsize::new(0);

#[unsafe(no_mangle)]
extern "C" fn bare_processor(index: u32) -> ! {
    let tables = Tables::load();
    cpu::load_idt(exceptions::idt(), 0xfff);
    // SAFETY: stored by `start_others`, from a function of this type, before the processor was started.
    let entry = unsafe { core::mem::transmute::<usize, fn(u32, Tables) -> !>(ENTRY.load(Ordering::Acquire)) };
    entry(index + 1, tables)
}

/// Starts every other processor at `entry`, which gets the processor's number (from 1 up) and its tables; waits until `expected` have
/// come, or where that is `None` until no more come. Returns how many came.
pub fn start_others(entry: fn(u32, Tables) -> !, expected: Option<u32>) -> u32 {
    ENTRY.store(entry as usize, Ordering::Release);
    let (start, end) = (&raw const boot_trampoline, &raw const boot_trampoline_end);
    for offset in 0..end as u64 - start as u64 {
        // SAFETY: the page is conventional memory that neither the program nor the loader's information takes up.
        unsafe { ((TRAMPOLINE + offset) as *mut u8).write_volatile(start.byte_add(offset as usize).read()) };
    }
    if !in_x2apic_mode() {
        memory::write_apic(0xf0, 0x1ff);
    }
    stop_others();
    pause(PATIENCE);
    for _ in 0..2 {
        command(0xc_4600 | (TRAMPOLINE >> 12) as u32);
        pause(PATIENCE / 8);
    }
    // SAFETY: an atomic that the start-up code counts up.
    let count = || unsafe { boot_processors.load(Ordering::Acquire) };
    let mut came = count();
    loop {
        pause(PATIENCE);
        if expected.map_or(count() == came, |expected| count() >= expected) {
            return count().min(MOST);
        }
        came = count();
    }
}

/// Sends every other processor INIT, after which it waits for a start-up IPI.
pub fn stop_others() {
    command(0xc_4500);
}

fn in_x2apic_mode() -> bool {
    const X2APIC: u64 = 1 << 10;
    cpu::read_msr(msr::APIC_BASE).unwrap_or(0) & X2APIC != 0
}

/// Writes the interrupt command register.
fn command(value: u32) {
    if in_x2apic_mode() {
        let _ = cpu::write_msr(msr::X2APIC_FIRST + 0x30, u64::from(value));
    } else {
        memory::write_apic(0x300, value);
    }
}

/// Time-stamp counts in which a processor that was told to start has done so.
const PATIENCE: u64 = 4_000_000;

fn pause(ticks: u64) {
    let start = cpu::timestamp();
    while cpu::timestamp().wrapping_sub(start) < ticks {
        core::hint::spin_loop();
    }
}
