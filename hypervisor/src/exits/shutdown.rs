//! The ends that a guest comes to: a triple fault, a VM entry that fails.

use super::Exit;
use crate::vm::End;
use crate::vmcs::field;
use alloc::format;
use alloc::sync::Arc;

/// On a PC a triple fault resets the machine.
pub(super) fn triple_fault(exit: &mut Exit<'_>) {
    let rip = exit.vmcs.get(field::GUEST_RIP);
    let vm = Arc::clone(&exit.vcpu.vm);
    vm.restart(exit.host, End::TripleFault(rip));
}

/// The guest's state, which guests can make, did not pass the checks of VM entries. The next one would not either.
pub(super) fn failed_entry(exit: &mut Exit<'_>, reason: u32) {
    let rip = exit.vmcs.get(field::GUEST_RIP);
    exit.vcpu.give_up(exit.host, format!("VM entry failed (exit reason {reason:#x}) with RIP {rip:#x}"));
}
