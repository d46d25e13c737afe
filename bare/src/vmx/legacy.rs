//! A VM entry by a hypervisor outside IA-32e mode: this program leaves 64-bit mode for it, and comes back.
#![allow(unsafe_code, reason = "machine code between two modes")]

use super::instructions::{Failure, vmclear, vmptrld, vmread, vmxoff, vmxon};
use super::{Entered, state};
use crate::boot::selector;
use core::arch::global_asm;
use spec::vmx::{ExitControls, VmcsField as Field};
use spec::x86::Cr4;

global_asm!(
    r#"
    .text
    // edi: where the VMXON pointer is; esi: where the VMCS pointer is; edx: a page-directory-pointer table. The processor is outside VMX
    // operation, before and after. Returns EFLAGS of a failed entry, or -1 after an exit.
    .global bare_enter32
bare_enter32:
"#,
    crate::keep_registers!(),
    r#"
    mov [rip + bare_rsp64], rsp
    mov rax, cr3
    mov [rip + bare_cr3], rax
    push 0x18
    lea rax, [rip + 2f]
    push rax
    .byte 0x48, 0xcb                    // far return to 32-bit code
    .code32
2:  mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    mov cr3, edx
    mov ecx, 0xc0000080
    rdmsr
    and eax, 0xfffffeff
    wrmsr
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    mov ebx, 1
    vmxon qword ptr [edi]
    jbe bare_back
    vmptrld qword ptr [esi]
    vmlaunch
    pushfd
    pop ebx
    jmp 3f

    // Where an exit leads; no register but ESP is the guest's no more.
    .global bare_exit32
bare_exit32:
    mov ebx, -1
    mov esp, dword ptr [bare_rsp64]
3:  mov esi, dword ptr [bare_vmcs]
    vmclear qword ptr [esi]
    vmxoff
bare_back:
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    mov eax, dword ptr [bare_cr3]
    mov cr3, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x100
    wrmsr
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    .byte 0xea
    .long bare_long
    .word 8
    .code64
bare_long:
    mov rsp, [rip + bare_rsp64]
    movsxd rax, ebx
"#,
    crate::return_with_kept_registers!(),
    r#"

    .section .bss.boot, "aw", @nobits
    .balign 8
bare_rsp64: .skip 8
bare_cr3: .skip 8
    .global bare_vmcs
bare_vmcs: .skip 8
    .text
"#
);

unsafe extern "C" {
    fn bare_enter32(vmxon: *const u64, vmcs: *const u64, table: u32) -> u64;
    static bare_exit32: u8;
    static mut bare_vmcs: u64;
}

/// Makes the host-state area of the current VMCS that of a hypervisor in protected mode with PAE paging by `table`.
pub fn write_host(table: u64) {
    let exit = super::read(Field::EXIT_CONTROLS) & !u64::from(ExitControls::HOST_ADDRESS_SPACE_SIZE);
    super::write(Field::EXIT_CONTROLS, exit);
    super::write(Field::HOST_CR3, table);
    super::write(Field::HOST_CR4, super::read(Field::HOST_CR4) & !Cr4::PCIDE);
    super::write(Field::HOST_CS_SELECTOR, u64::from(selector::CODE32));
    super::write(Field::HOST_RIP, (&raw const bare_exit32) as u64);
    super::write(Field::HOST_RSP, state::HOST_RSP & 0xffff_fff0);
}

/// Enters the guest of the clear VMCS at `vmcs` from protected mode with PAE paging by `table`, which maps the first 4 GiB one to one. The
/// VMCS is clear and current again afterwards.
#[must_use]
pub fn enter(vmxon_region: u64, vmcs: u64, table: u64) -> Entered {
    let prepared = vmclear(vmcs).and_then(|()| vmxoff());
    if let Err(failure) = prepared {
        return Entered::Failed(failure);
    }
    // SAFETY: the program, its stack and the pointers are below 4 GiB, where both modes' tables map one to one; the stub keeps what the C
    // ABI says, and no interrupt is enabled.
    let flags = unsafe {
        (&raw mut bare_vmcs).write_volatile((&raw const vmcs) as u64);
        bare_enter32(&raw const vmxon_region, &raw const vmcs, table as u32)
    };
    let back = vmxon(vmxon_region).and_then(|()| vmptrld(vmcs));
    if let Err(failure) = back {
        return Entered::Failed(failure);
    }
    let field = |field| vmread(field).unwrap_or(0) as u32;
    match flags {
        u64::MAX => Entered::Exit(field(Field::EXIT_REASON)),
        flags if flags & 0x40 != 0 => Entered::Failed(Failure::Valid(field(Field::VM_INSTRUCTION_ERROR))),
        _ => Entered::Failed(Failure::Invalid),
    }
}
