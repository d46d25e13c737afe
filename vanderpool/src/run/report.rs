//! What the machine counted from outside about the guests: a processor without performance counters cannot tell its hypervisor.

use machine::exit_statistics::{Count, ExitStatistics};
use spec::vmx::ExitReason;
use std::collections::BTreeMap;
use std::fmt::Write;

const FIRST: usize = 28;
const COLUMN: usize = 14;

/// The counts of each guest; those of its vCPUs are added up.
#[derive(Default)]
struct Guest {
    /// Instructions that it retired.
    instructions: u64,
    /// Its exits, with what they cost the hypervisor.
    reasons: BTreeMap<ExitReason, Count>,
}

/// By the numbers of the guests. `labels` are lines of guest, vCPU and VMCS, as the hypervisor writes them.
fn guests(exits: &ExitStatistics, labels: &str) -> BTreeMap<usize, Guest> {
    let owners: BTreeMap<u64, usize> = labels.lines().filter_map(label).collect();
    let mut guests: BTreeMap<usize, Guest> = BTreeMap::new();
    for ((_, vmcs), counts) in exits.guests() {
        let Some(owner) = owners.get(vmcs) else { continue };
        let guest = guests.entry(*owner).or_default();
        guest.instructions += counts.instructions;
        for (reason, more) in &counts.reasons {
            let count = guest.reasons.entry(*reason).or_default();
            count.exits += more.exits;
            count.returns += more.returns;
            count.instructions += more.instructions;
            count.most = count.most.max(more.most);
        }
    }
    guests
}

fn row(name: &str, cells: impl Iterator<Item = String>) -> String {
    let mut text = format!("{name:<FIRST$}");
    for cell in cells {
        let _ = write!(text, " {cell:>COLUMN$}");
    }
    text + "\n"
}

/// The instructions that each guest retired, as another row of the hypervisor's table.
pub fn instructions(exits: &ExitStatistics, labels: &str) -> String {
    let guests = guests(exits, labels);
    if guests.is_empty() {
        return String::new();
    }
    row("instructions (the machine's)", guests.values().map(|guest| guest.instructions.to_string()))
}

/// What the guests' VM exits cost the hypervisor: instructions that it retires from an exit to the next VM entry, all together and by reason
/// on the average.
pub fn costs(exits: &ExitStatistics, labels: &str) -> String {
    let guests = guests(exits, labels);
    let all = guests.values().map(|guest| guest.reasons.values().map(|count| count.instructions).sum::<u64>());
    let mut text = row("of the hypervisor for it", all.map(|sum| sum.to_string()));
    for reason in ExitReason::ALL {
        let count = |guest: &Guest| guest.reasons.get(reason).copied().unwrap_or_default();
        if guests.values().any(|guest| count(guest).returns != 0) {
            let average = |guest: &Guest| {
                let count = count(guest);
                count
                    .instructions
                    .checked_div(count.returns)
                    .map_or_else(|| "-".to_owned(), |average| average.to_string())
            };
            text += &row(&format!("  an exit: {}", reason.text()), guests.values().map(average));
        }
    }
    text
}

/// VMCS and guest of a line «vcpu GUEST VCPU VMCS».
fn label(line: &str) -> Option<(u64, usize)> {
    let mut words = line.strip_prefix("vcpu ")?.split(' ');
    let guest = words.next()?.parse().ok()?;
    let vmcs = u64::from_str_radix(words.nth(1)?.strip_prefix("0x")?, 16).ok()?;
    Some((vmcs, guest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_and_everything_else_is_passed_over() {
        assert_eq!(label("vcpu 2 1 0x1329000"), Some((0x132_9000, 2)));
        for line in ["", "vcpu", "vcpu 2 1", "vcpu 2 1 1329000", "SeaBIOS"] {
            assert_eq!(label(line), None, "{line}");
        }
    }
}
