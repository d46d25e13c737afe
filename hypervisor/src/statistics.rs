//! What a vCPU has done: counted at each VM exit.

use alloc::collections::BTreeMap;
use spec::vmx::ExitReason;

/// The counts of one vCPU, or of several added up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// VM exits by reason.
    pub exits: BTreeMap<ExitReason, u64>,
    /// Time-stamp counts in the guest.
    pub inside: u64,
    /// Time-stamp counts from VM exits to the VM entries that followed.
    pub outside: u64,
    /// Interrupts and exceptions injected by VM entries.
    pub injected: u64,
    /// Interrupts that the processor got to deliver (virtual-interrupt delivery).
    pub virtual_interrupts: u64,
    /// Times that the vCPU was chosen to run.
    pub turns: u64,
}

impl Statistics {
    /// Counts an exit.
    pub fn count(&mut self, reason: ExitReason) {
        *self.exits.entry(reason).or_default() += 1;
    }

    /// Adds the counts of another vCPU.
    pub fn add(&mut self, other: &Statistics) {
        let Statistics { exits, inside, outside, injected, virtual_interrupts, turns } = other;
        for (reason, count) in exits {
            *self.exits.entry(*reason).or_default() += count;
        }
        self.inside += inside;
        self.outside += outside;
        self.injected += injected;
        self.virtual_interrupts += virtual_interrupts;
        self.turns += turns;
    }

    /// All exits.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.exits.values().sum()
    }

    /// The share of time in the guest, in thousandths of the time that was its own or the hypervisor's for it.
    #[must_use]
    pub fn inside_per_mille(&self) -> u64 {
        (self.inside * 1000).checked_div(self.inside + self.outside).unwrap_or(0)
    }
}
