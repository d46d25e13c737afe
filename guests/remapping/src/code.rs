//! The guest's instructions.
#![allow(unsafe_code, reason = "machine code that runs in the guest only")]

/// Code of the guest. It is never called: its address goes to the guest's RIP.
pub type Code = unsafe extern "C" fn();

/// The address of code.
#[must_use]
pub fn address(code: Code) -> u64 {
    code as usize as u64
}

/// Waits until the counter at RDI has come to RSI; then VMCALL.
///
/// # Safety
/// Is for a guest's RIP, not to be called.
#[unsafe(naked)]
pub unsafe extern "C" fn wait() {
    core::arch::naked_asm!("2:", "pause", "cmp [rdi], rsi", "jb 2b", "vmcall", "ud2")
}

/// Counts an interrupt, and ends it at the virtual APIC in x2APIC mode.
///
/// # Safety
/// Is for a guest's IDT, not to be called.
#[unsafe(naked)]
pub unsafe extern "C" fn handler() {
    core::arch::naked_asm!(
        "inc qword ptr [rdi]",
        "push rax",
        "push rcx",
        "push rdx",
        "mov ecx, 0x80b",
        "xor eax, eax",
        "xor edx, edx",
        "wrmsr",
        "pop rdx",
        "pop rcx",
        "pop rax",
        "iretq",
    )
}
