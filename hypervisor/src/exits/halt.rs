//! HLT: the vCPU waits, and others have its processor.

use super::Exit;
use crate::vcpu::Activity;
use crate::vmcs::field;
use spec::x86::Rflags;

pub(super) fn handle(exit: &mut Exit<'_>) {
    exit.advance();
    exit.vcpu.activity = Activity::Halted(exit.vmcs.get(field::GUEST_RFLAGS).has(Rflags::IF));
}
