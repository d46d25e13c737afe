//! VM exits, counted by processor, VMCS and reason, with what they cost.

use processor::Cpu;
use processor::observe::Happening;
use spec::vmx::ExitReason;
use std::collections::BTreeMap;
use std::fmt;

/// One reason's exits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Exits.
    pub exits: u64,
    /// Exits after which the same processor has entered a guest again.
    pub returns: u64,
    /// Instructions that the processor retired in VMX root operation from those exits to the next VM entry.
    pub instructions: u64,
    /// The largest number of instructions of one of them.
    pub most: u64,
}

/// The exits of one VMCS on one processor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guest {
    /// By reason.
    pub reasons: BTreeMap<ExitReason, Count>,
    /// VM entries.
    pub entries: u64,
    /// Nanoseconds of virtual time in VMX non-root operation.
    pub inside: u64,
    /// Instructions that the guest retired.
    pub instructions: u64,
    /// Virtual time of the first entry.
    pub first: u64,
    /// Virtual time of the last exit.
    pub last: u64,
}

/// What a processor did last.
#[derive(Clone, Copy, Debug)]
enum Since {
    Entry { now: u64, instructions: u64 },
    Exit { vmcs: u64, reason: ExitReason, instructions: u64 },
}

/// Counts of VM exits.
#[derive(Clone, Debug, Default)]
pub struct ExitStatistics {
    guests: BTreeMap<(usize, u64), Guest>,
    since: BTreeMap<usize, Since>,
}

impl ExitStatistics {
    /// The guests, by processor and VMCS.
    #[must_use]
    pub fn guests(&self) -> &BTreeMap<(usize, u64), Guest> {
        &self.guests
    }

    /// Takes notice of what happened on `cpu`.
    pub fn observe(&mut self, cpu: &Cpu, what: Happening<'_>) {
        let (now, instructions) = (cpu.now(), cpu.instructions);
        match what {
            Happening::Entry { .. } => {
                let guest = self.guests.entry((cpu.index, cpu.vmx.vmcs.pointer)).or_default();
                if guest.entries == 0 {
                    guest.first = now;
                }
                guest.entries += 1;
                let since = self.since.insert(cpu.index, Since::Entry { now, instructions });
                if let Some(Since::Exit { vmcs, reason, instructions: before }) = since {
                    let guest = self.guests.entry((cpu.index, vmcs)).or_default();
                    let count = guest.reasons.entry(reason).or_default();
                    let cost = instructions.saturating_sub(before);
                    count.returns += 1;
                    count.instructions += cost;
                    count.most = count.most.max(cost);
                }
            }
            Happening::Exit(exit) => {
                let vmcs = cpu.vmx.vmcs.pointer;
                let guest = self.guests.entry((cpu.index, vmcs)).or_default();
                guest.reasons.entry(exit.reason).or_default().exits += 1;
                guest.last = now;
                let since = Since::Exit { vmcs, reason: exit.reason, instructions };
                if let Some(Since::Entry { now: entered, instructions: before }) = self.since.insert(cpu.index, since) {
                    guest.inside += now.saturating_sub(entered);
                    guest.instructions += instructions.saturating_sub(before);
                }
            }
            _ => {}
        }
    }
}

impl fmt::Display for ExitStatistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.guests.is_empty() {
            return writeln!(f, "VM entries: none");
        }
        for ((processor, vmcs), guest) in &self.guests {
            let total: u64 = guest.reasons.values().map(|count| count.exits).sum();
            let span = guest.last.saturating_sub(guest.first);
            let seconds = span as f64 / 1e9;
            let rate = |count: u64| if span == 0 { 0.0 } else { count as f64 / seconds };
            let share = if span == 0 { 0.0 } else { 100.0 * guest.inside as f64 / span as f64 };
            writeln!(
                f,
                "processor {processor}, VMCS {vmcs:#x}: {} entries, {total} exits in {seconds:.6} s of virtual time; \
                 the guest ran {share:.1} % of it, {} instructions",
                guest.entries, guest.instructions
            )?;
            writeln!(
                f,
                "{:>10} {:>6} {:>12} {:>14} {:>12}  reason",
                "exits", "%", "per second", "instructions", "at most"
            )?;
            let mut reasons: Vec<_> = guest.reasons.iter().collect();
            reasons.sort_by_key(|(reason, count)| (std::cmp::Reverse(count.exits), **reason));
            for (reason, count) in reasons {
                let Count { exits, returns, instructions, most } = *count;
                let percent = 100.0 * exits as f64 / total as f64;
                let average =
                    instructions.checked_div(returns).map_or_else(|| "-".to_owned(), |average| average.to_string());
                writeln!(
                    f,
                    "{exits:>10} {percent:>6.1} {:>12.0} {average:>14} {most:>12}  {}",
                    rate(exits),
                    reason.text()
                )?;
            }
        }
        writeln!(f, "\"instructions\" are those of the hypervisor from an exit to the next entry, on the average.")
    }
}
