//! VMCS shadowing.

use super::*;
use crate::vmx::vmcs;

const SHADOW_REGION: u64 = 0x1_4000;
const BITMAPS: u64 = 0x1_6000;

/// A guest with a shadow VMCS whose fields it may all read and write.
fn shadowing() -> Host {
    let mut host = Host::new();
    host.machine.store(SHADOW_REGION, 4, u64::from(REVISION | vmcs::SHADOW));
    host.add(F::SECONDARY_CONTROLS, Secondary::VMCS_SHADOWING);
    host.set(F::VMCS_LINK_POINTER, SHADOW_REGION);
    host.set(F::VMREAD_BITMAP, BITMAPS);
    host.set(F::VMWRITE_BITMAP, BITMAPS + 0x1000);
    host
}

/// VMWRITE rcx, rax; VMREAD rdx, rcx; CPUID, with RCX the field and RAX the value.
fn write_and_read(host: &mut Host, field: u32, value: u64) -> Option<ExitReason> {
    host.machine.cpu.regs[RCX] = u64::from(field);
    host.machine.cpu.regs[RAX] = value;
    host.enter(&[0x0f, 0x79, 0xc8, 0x0f, 0x78, 0xca, 0x0f, 0xa2], 5)
}

const RDX: usize = 2;

#[test]
fn the_guest_reads_and_writes_the_shadow_vmcs() {
    let mut host = shadowing();
    assert_eq!(write_and_read(&mut host, F::GUEST_RSP.0, 0x1234), Some(ExitReason::Cpuid));
    assert_eq!(host.machine.cpu.regs[RDX], 0x1234);
    assert_eq!(host.machine.load(SHADOW_REGION + vmcs::offset_of(F::GUEST_RSP), 8), 0x1234);
    assert_eq!(host.get(F::GUEST_RSP), 0x7000, "the guest's own VMCS is another one");
    host.machine.store(0x5010, 8, SHADOW_REGION);
    host.run_with_rdi(VMPTRLD_RDI, 0x5010);
    assert_eq!((host.status(), host.get(F::GUEST_RSP)), (0, 0x1234), "VMPTRLD takes a shadow VMCS");
    host.machine.execute(VMLAUNCH, 1);
    assert_eq!(host.status(), 1, "VM entry with it fails without an error number");
}

#[test]
fn fields_are_as_wide_as_in_the_current_vmcs() {
    let mut host = shadowing();
    assert_eq!(write_and_read(&mut host, F::GUEST_CS_SELECTOR.0, 0x12_3456), Some(ExitReason::Cpuid));
    assert_eq!(host.machine.cpu.regs[RDX], 0x3456);
    let mut host = shadowing();
    host.machine.store(SHADOW_REGION + vmcs::offset_of(F::EPT_POINTER), 8, 0x5555_5555_1111_1111);
    assert_eq!(write_and_read(&mut host, F::EPT_POINTER.high().0, 0x7777), Some(ExitReason::Cpuid));
    assert_eq!(host.machine.load(SHADOW_REGION + vmcs::offset_of(F::EPT_POINTER), 8), 0x7777_1111_1111);
}

#[test]
fn a_bit_in_a_bitmap_makes_the_access_exit() {
    let field = F::GUEST_RIP.0;
    for (bitmap, reason) in [(BITMAPS, ExitReason::Vmread), (BITMAPS + 0x1000, ExitReason::Vmwrite)] {
        let mut host = shadowing();
        host.machine.store(bitmap + u64::from(field >> 3), 1, 1 << (field & 7));
        assert_eq!(write_and_read(&mut host, field, 1), Some(reason));
    }
    assert_eq!(write_and_read(&mut shadowing(), 0x1_0000, 1), Some(ExitReason::Vmwrite), "bits above the bitmaps'");
    let mut host = Host::new();
    assert_eq!(write_and_read(&mut host, field, 1), Some(ExitReason::Vmwrite), "no VMCS shadowing");
}

#[test]
fn failures_of_the_guest_are_its_own() {
    let mut host = shadowing();
    host.set(F::VMCS_LINK_POINTER, u64::MAX);
    assert_eq!(write_and_read(&mut host, F::GUEST_RIP.0, 1), Some(ExitReason::Cpuid));
    assert_eq!(host.get(F::GUEST_RFLAGS) & 0x41, 1, "no VMCS: VMfailInvalid");
    let mut host = shadowing();
    assert_eq!(write_and_read(&mut host, F::SHARED_EPT_POINTER.0, 1), Some(ExitReason::Cpuid));
    assert_eq!(host.get(F::GUEST_RFLAGS) & 0x41, 0x40);
    assert_eq!(host.get(F::VM_INSTRUCTION_ERROR), VmInstructionError::UnsupportedComponent as u64);
}

#[test]
fn without_the_feature_a_shadow_vmcs_is_of_an_unknown_revision() {
    let mut host = Host::of_model("icelake-server,-vmcs-shadowing");
    host.machine.store(SHADOW_REGION, 4, u64::from(REVISION | vmcs::SHADOW));
    host.machine.store(0x5010, 8, SHADOW_REGION);
    host.run_with_rdi(VMPTRLD_RDI, 0x5010);
    assert_eq!(host.status(), 0x40);
    assert_eq!(host.get(F::VM_INSTRUCTION_ERROR), VmInstructionError::VmptrldRevision as u64);
}
