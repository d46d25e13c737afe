//! The local APIC's page where the processor virtualizes it in part or whole: accesses that it leaves to us, and writes and ends of
//! interrupts that it has done and that concern others.

use super::{Exit, memory};
use crate::apic::{BASE, Effect};

/// An access that the processor does not virtualize.
pub(super) fn access(exit: &mut Exit<'_>) {
    let offset = exit.qualification() & 0xfff;
    memory::emulate(exit, BASE + offset);
}

/// A write that is in the page already; the instruction is done.
pub(super) fn written(exit: &mut Exit<'_>) {
    let offset = exit.qualification() as u16 & 0xfff;
    let now = exit.host.now();
    let effect = exit.vcpu.apic.written(offset, now);
    memory::apply(exit, effect);
}

/// The end of an interrupt that the I/O APIC waits for.
pub(super) fn ended(exit: &mut Exit<'_>) {
    let vector = exit.qualification() as u8;
    memory::apply(exit, Effect::Ended(vector));
}
