//! The VMX instructions, and the way into a guest and back.
#![allow(unsafe_code, reason = "VMX instructions, and code between two worlds")]

use super::HostSeen;
use crate::cpu::{guarded, take_fault};
use crate::exceptions::Fault;
use core::arch::{asm, global_asm};
use spec::vmx::{VmInstructionError, VmcsField};

/// How a VMX instruction did not do what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// VMfailInvalid: CF.
    Invalid,
    /// VMfailValid: ZF, and the VM-instruction error.
    Valid(u32),
    /// An exception.
    Fault(Fault),
}

impl Failure {
    /// Whether it is VMfailValid with `error`.
    #[must_use]
    pub fn is(self, error: VmInstructionError) -> bool {
        self == Failure::Valid(error as u32)
    }
}

/// The outcome that RFLAGS tell.
fn outcome(flags: u64) -> Result<(), Failure> {
    if let Some(fault) = take_fault() {
        return Err(Failure::Fault(fault));
    }
    if flags & 1 != 0 {
        Err(Failure::Invalid)
    } else if flags & 0x40 != 0 {
        Err(Failure::Valid(vmread(VmcsField::VM_INSTRUCTION_ERROR).unwrap_or(0) as u32))
    } else {
        Ok(())
    }
}

macro_rules! with_pointer {
    ($name:ident, $instruction:literal, $text:literal) => {
        #[doc = $text]
        ///
        /// # Errors
        /// The failure.
        pub fn $name(pointer: u64) -> Result<(), Failure> {
            let flags: u64;
            // SAFETY: the processor uses the region for VMX only, or refuses the pointer.
            unsafe {
                asm!(
                    "lea rax, [rip + 2f]", "mov [rip + BARE_GUARD], rax",
                    $instruction,
                    "2:", "mov qword ptr [rip + BARE_GUARD], 0",
                    "pushfq", "pop rax",
                    in("rdi") &raw const pointer, lateout("rax") flags,
                    clobber_abi("sysv64"),
                );
            }
            outcome(flags)
        }
    };
}

with_pointer!(vmxon, "vmxon [rdi]", "VMXON with the region at `pointer`.");
with_pointer!(vmclear, "vmclear [rdi]", "VMCLEAR of the VMCS at `pointer`.");
with_pointer!(vmptrld, "vmptrld [rdi]", "VMPTRLD of the VMCS at `pointer`.");

/// VMXOFF.
///
/// # Errors
/// The failure.
pub fn vmxoff() -> Result<(), Failure> {
    let flags: u64;
    // SAFETY: leaves VMX operation; nothing of Rust's depends on it.
    unsafe {
        asm!(
            "lea rax, [rip + 2f]", "mov [rip + BARE_GUARD], rax",
            "vmxoff",
            "2:", "mov qword ptr [rip + BARE_GUARD], 0",
            "pushfq", "pop rax",
            lateout("rax") flags,
            clobber_abi("sysv64"),
        );
    }
    outcome(flags)
}

/// VMREAD.
///
/// # Errors
/// The failure.
pub fn vmread(field: VmcsField) -> Result<u64, Failure> {
    let (value, flags): (u64, u64);
    // SAFETY: reading a field changes nothing.
    unsafe {
        asm!(
            "xor esi, esi", "vmread rsi, rdi", "pushfq", "pop rdx",
            in("rdi") u64::from(field.0), out("rsi") value, out("rdx") flags,
        );
    }
    match flags & 0x41 {
        0 => Ok(value),
        0x40 if field != VmcsField::VM_INSTRUCTION_ERROR => {
            Err(Failure::Valid(vmread(VmcsField::VM_INSTRUCTION_ERROR).unwrap_or(0) as u32))
        }
        _ => Err(Failure::Invalid),
    }
}

/// VMWRITE.
///
/// # Errors
/// The failure.
pub fn vmwrite(field: VmcsField, value: u64) -> Result<(), Failure> {
    let flags: u64;
    // SAFETY: the fields are looked at by VM entries and exits only, which `enter` prepares for.
    unsafe {
        asm!(
            "vmwrite rdi, rsi", "pushfq", "pop rdx",
            in("rdi") u64::from(field.0), in("rsi") value, out("rdx") flags,
        );
    }
    outcome(flags)
}

/// INVEPT or INVVPID of a type with a descriptor.
macro_rules! invalidation {
    ($name:ident, $instruction:literal, $text:literal) => {
        #[doc = $text]
        ///
        /// # Errors
        /// The failure.
        pub fn $name(kind: u64, descriptor: [u64; 2]) -> Result<(), Failure> {
            let flags: u64;
            // SAFETY: forgets translations only.
            unsafe {
                asm!(
                    "lea rax, [rip + 2f]", "mov [rip + BARE_GUARD], rax",
                    $instruction,
                    "2:", "mov qword ptr [rip + BARE_GUARD], 0",
                    "pushfq", "pop rax",
                    in("rdi") &raw const descriptor, in("rsi") kind, lateout("rax") flags,
                    clobber_abi("sysv64"),
                );
            }
            outcome(flags)
        }
    };
}

invalidation!(invept, "invept rsi, [rdi]", "INVEPT of type `kind`; the descriptor's first half is the EPT pointer.");
invalidation!(
    invvpid,
    "invvpid rsi, [rdi]",
    "INVVPID of type `kind`; the descriptor is the VPID and the linear address."
);

/// VMCALL in VMX root operation.
///
/// # Errors
/// The failure, always.
pub fn vmcall() -> Result<(), Failure> {
    let flags: u64;
    // SAFETY: in root operation it only fails.
    unsafe {
        guarded!("vmcall\n pushfq\n pop rax", lateout("rax") flags);
    }
    outcome(flags)
}

/// A guest's general registers, by their numbers; number 4, RSP, is in the VMCS.
pub type Registers = [u64; 16];

global_asm!(
    r#"
    .text
    // rdi: the guest's registers; rsi: launched. Returns RFLAGS of a failed entry, or -1 after an exit.
    .global bare_enter
bare_enter:
"#,
    crate::keep_registers!(),
    r#"
    mov [rip + bare_registers], rdi
    mov [rip + bare_rsp], rsp
    lea rax, [rip + bare_entry_failed]
    mov [rip + BARE_GUARD], rax
    test rsi, rsi
"#,
    crate::load_guest_registers!(),
    r#"
    jnz 2f
    vmlaunch
    jmp bare_entry_failed
2:  vmresume
bare_entry_failed:
    pushfq
    pop rax
    jmp bare_leave

    .global bare_exit
bare_exit:
    mov [rip + bare_seen], rsp
    mov rsp, [rip + bare_rsp]
    pushfq
    pop qword ptr [rip + bare_seen + 8]
    push rdi
    mov rdi, [rip + bare_registers]
"#,
    crate::store_guest_registers!(),
    r#"
    mov rax, -1
bare_leave:
    mov qword ptr [rip + BARE_GUARD], 0
"#,
    crate::return_with_kept_registers!(),
    r#"

    .section .bss.boot, "aw", @nobits
    .balign 8
bare_registers: .skip 8
bare_rsp: .skip 8
    .global bare_seen
bare_seen: .skip 16
    .text
"#
);

unsafe extern "C" {
    fn bare_enter(registers: *mut Registers, launched: u64) -> u64;
    static bare_exit: u8;
    static bare_seen: [u64; 2];
}

/// VMLAUNCH or, when `launched`, VMRESUME. Ok: there was a VM exit, to [`host_rip`].
///
/// # Errors
/// The entry failed by VMfail or raised an exception.
pub fn enter(registers: &mut Registers, launched: bool) -> Result<(), Failure> {
    // SAFETY: the stub keeps what the C ABI says. What the VMCS makes the guest do to memory is the caller's doing; the host state must
    // lead back to `host_rip` with these page tables.
    let flags = unsafe { bare_enter(registers, u64::from(launched)) };
    if flags == u64::MAX { Ok(()) } else { outcome(flags) }
}

/// Where an exit must lead.
#[must_use]
pub fn host_rip() -> u64 {
    (&raw const bare_exit) as u64
}

/// RSP and RFLAGS as the last exit left them.
#[must_use]
pub fn host_seen() -> HostSeen {
    // SAFETY: written by the stub only, on this one processor.
    let [rsp, rflags] = unsafe { (&raw const bare_seen).read_volatile() };
    HostSeen { rsp, rflags }
}

/// VMPTRST: the current-VMCS pointer.
#[must_use]
pub fn current_vmcs() -> u64 {
    let mut pointer = 0u64;
    // SAFETY: writes 8 bytes to `pointer`.
    unsafe { asm!("vmptrst [{}]", in(reg) &raw mut pointer, options(nostack)) };
    pointer
}
