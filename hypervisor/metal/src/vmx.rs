//! VMX operation: the current VMCS, the host's state in it, and the way into a guest and back.
#![allow(unsafe_code, reason = "VMX instructions, and code between two worlds")]

use bare::boot::{self, selector};
use bare::processors::Tables;
use bare::vmx::instructions::{vmread, vmwrite, vmxon};
use bare::{cpu, exceptions};
use core::arch::global_asm;
use hypervisor::capabilities::Capabilities;
use hypervisor::vmcs::Vmcs;
use spec::vmx::VmcsField as Field;
use spec::vmx::capability::basic;
use spec::x86::msr::{self, FeatureControl};
use spec::x86::{Cr0, Cr4};

pub use bare::vmx::instructions::{Failure, invept, vmclear, vmptrld};

/// The VMCS that is current on this processor.
#[derive(Debug)]
pub struct CurrentVmcs;

impl Vmcs for CurrentVmcs {
    fn read(&self, field: Field) -> u64 {
        vmread(field).unwrap_or_else(|failure| panic!("VMREAD of {field:?}: {failure:?}"))
    }

    fn write(&mut self, field: Field, value: u64) {
        if let Err(failure) = vmwrite(field, value) {
            panic!("VMWRITE of {value:#x} to {field:?}: {failure:?}");
        }
    }
}

/// Enters VMX operation on this processor, with the VMXON region `region`, a zeroed page.
pub fn start(has: &Capabilities, region: u64) -> Result<(), Failure> {
    let control = cpu::read_msr(msr::FEATURE_CONTROL).unwrap_or(0);
    if control & FeatureControl::LOCK == 0 {
        let on = FeatureControl::LOCK | FeatureControl::VMX_OUTSIDE_SMX;
        let _ = cpu::write_msr(msr::FEATURE_CONTROL, control | on);
    }
    cpu::write_cr0(cpu::read_cr0() | has.cr0_fixed & Cr0::ALL);
    cpu::write_cr4(cpu::read_cr4() | has.cr4_fixed | Cr4::VMXE);
    set_revision(has, region);
    vmxon(region)
}

/// Writes the revision identifier at the beginning of a VMXON or VMCS region.
pub fn set_revision(has: &Capabilities, region: u64) {
    // SAFETY: the caller's page, which only the processor uses otherwise.
    unsafe { (region as *mut u32).write_volatile((has.basic & basic::REVISION) as u32) };
}

/// Writes the host-state area: this program on this processor.
pub fn write_host(vmcs: &mut CurrentVmcs, tables: &Tables, pat: bool) {
    vmcs.write(Field::HOST_CR0, cpu::read_cr0());
    vmcs.write(Field::HOST_CR3, cpu::read_cr3());
    vmcs.write(Field::HOST_CR4, cpu::read_cr4());
    for (field, value) in [
        (Field::HOST_ES_SELECTOR, selector::DATA),
        (Field::HOST_CS_SELECTOR, selector::CODE),
        (Field::HOST_SS_SELECTOR, selector::DATA),
        (Field::HOST_DS_SELECTOR, selector::DATA),
        (Field::HOST_FS_SELECTOR, 0),
        (Field::HOST_GS_SELECTOR, 0),
        (Field::HOST_TR_SELECTOR, selector::TSS),
    ] {
        vmcs.write(field, value.into());
    }
    vmcs.write(Field::HOST_FS_BASE, 0);
    vmcs.write(Field::HOST_GS_BASE, 0);
    vmcs.write(Field::HOST_TR_BASE, tables.tss);
    vmcs.write(Field::HOST_GDTR_BASE, tables.gdt);
    vmcs.write(Field::HOST_IDTR_BASE, exceptions::idt());
    for field in [Field::HOST_SYSENTER_CS, Field::HOST_SYSENTER_ESP, Field::HOST_SYSENTER_EIP] {
        vmcs.write(field, 0);
    }
    vmcs.write(Field::HOST_EFER, cpu::read_msr(msr::EFER).unwrap_or(0));
    if pat {
        vmcs.write(Field::HOST_PAT, cpu::read_msr(msr::PAT).unwrap_or(0));
    }
    vmcs.write(Field::HOST_RIP, (&raw const metal_exit) as u64);
    debug_assert_eq!(boot::GDT_LIMIT, 63);
}

/// The guest's x87, SSE and AVX state while the hypervisor runs: the area of FXSAVE or XSAVE.
#[derive(Clone, Copy, Debug)]
pub struct ExtendedState(u64);

impl ExtendedState {
    /// The state after power-on, in a zeroed page.
    pub fn new(page: u64) -> Self {
        // SAFETY: the caller's page. FCW and MXCSR are where FXSAVE has them.
        unsafe {
            (page as *mut u16).write_volatile(0x37f);
            ((page + 24) as *mut u32).write_volatile(0x1f80);
        }
        Self(page)
    }

    /// From now on XSAVE saves it: what FXSAVE has saved is valid for it.
    pub fn becomes_extended(self) {
        let components = (self.0 + 512) as *mut u64;
        // SAFETY: XSTATE_BV in the header of the area.
        unsafe { components.write_volatile(components.read_volatile() | 3) };
    }
}

global_asm!(
    r#"
    .text
    // rdi: the guest's registers; rsi: launched; rdx: the extended state; rcx: whether XSAVE saves it.
    // Returns RFLAGS of a failed entry, or -1 after an exit.
    .global metal_enter
metal_enter:
"#,
    bare::keep_registers!(),
    r#"
    push rdi
    push rdx
    push rcx
    mov eax, 0x6c14                     // host RSP
    vmwrite rax, rsp
    test rcx, rcx
    jz 2f
    mov r8, rdx
    mov eax, -1
    mov edx, -1
    xrstor64 [r8]
    jmp 3f
2:  fxrstor64 [rdx]
3:  test rsi, rsi
"#,
    bare::load_guest_registers!(),
    r#"
    jnz 2f
    vmlaunch
    jmp 3f
2:  vmresume
3:  pushfq
    pop rax
    add rsp, 24
    jmp 4f

    .global metal_exit
metal_exit:
    nop                                 // Bochs takes the RIP of an exit by a first instruction for that of the guest
    push rdi
    mov rdi, [rsp + 24]
"#,
    bare::store_guest_registers!(),
    r#"
    pop rcx
    pop r8
    pop rdi
    test rcx, rcx
    jz 2f
    mov eax, -1
    mov edx, -1
    xsave64 [r8]
    jmp 3f
2:  fxsave64 [r8]
3:  ldmxcsr [rip + metal_mxcsr]
    mov rax, -1
4:
"#,
    bare::return_with_kept_registers!(),
    r#"
    .balign 4
metal_mxcsr: .long 0x1f80
"#
);

unsafe extern "C" {
    fn metal_enter(registers: *mut [u64; 16], launched: u64, state: u64, extended: u64) -> u64;
    static metal_exit: u8;
}

/// VMLAUNCH or, when `launched`, VMRESUME; comes back after the VM exit.
///
/// # Errors
/// RFLAGS, when the instruction failed.
pub fn enter(registers: &mut [u64; 16], launched: bool, state: ExtendedState, extended: bool) -> Result<(), u64> {
    // SAFETY: the stub keeps what the C ABI says, and the host state in the VMCS leads back to it with this processor's tables. The guest
    // reaches memory through its EPT only.
    let flags = unsafe { metal_enter(registers, launched.into(), state.0, extended.into()) };
    if flags == u64::MAX { Ok(()) } else { Err(flags) }
}
