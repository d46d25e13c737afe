//! What a vCPU has done: counted at each VM exit.

use spec::vmx::ExitReason;

/// Basic exit reasons are below this.
const REASONS: usize = 80;

/// The counts of one vCPU, or of several added up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// VM exits by basic exit reason.
    exits: [u64; REASONS],
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
    /// Times that it went to another processor.
    pub moves: u64,
}

impl Default for Statistics {
    fn default() -> Self {
        Self { exits: [0; REASONS], inside: 0, outside: 0, injected: 0, virtual_interrupts: 0, turns: 0, moves: 0 }
    }
}

impl Statistics {
    /// Counts an exit.
    pub fn count(&mut self, reason: ExitReason) {
        self.exits[reason as usize] += 1;
    }

    /// Adds the counts of another vCPU.
    pub fn add(&mut self, other: &Statistics) {
        let Statistics { exits, inside, outside, injected, virtual_interrupts, turns, moves } = other;
        self.exits.iter_mut().zip(exits).for_each(|(mine, its)| *mine += its);
        self.inside += inside;
        self.outside += outside;
        self.injected += injected;
        self.virtual_interrupts += virtual_interrupts;
        self.turns += turns;
        self.moves += moves;
    }

    /// All exits.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.exits.iter().sum()
    }

    /// The exits for `reason`.
    #[must_use]
    pub fn exits(&self, reason: ExitReason) -> u64 {
        self.exits[reason as usize]
    }

    /// The share of time in the guest, in thousandths of the time that was its own or the hypervisor's for it.
    #[must_use]
    pub fn inside_per_mille(&self) -> u64 {
        (self.inside * 1000).checked_div(self.inside + self.outside).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_count_and_counts_add_up() {
        let mut one = Statistics::default();
        ExitReason::ALL.iter().for_each(|reason| one.count(*reason));
        one.inside = 3;
        one.outside = 1;
        let mut sum = one.clone();
        sum.add(&one);
        assert_eq!(sum.total(), 2 * ExitReason::ALL.len() as u64);
        assert_eq!((sum.exits(ExitReason::Hlt), sum.inside_per_mille()), (2, 750));
    }
}
