//! What the machine counted from outside about the guests: a processor without performance counters cannot tell its hypervisor.

use machine::exit_statistics::ExitStatistics;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The instructions that each guest retired. `labels` are lines of guest, vCPU and VMCS, as the hypervisor writes them.
pub fn instructions(exits: &ExitStatistics, labels: &str) -> String {
    let owners: BTreeMap<u64, usize> = labels.lines().filter_map(label).collect();
    let mut sums: BTreeMap<usize, u64> = BTreeMap::new();
    for ((_, vmcs), guest) in exits.guests() {
        if let Some(owner) = owners.get(vmcs) {
            *sums.entry(*owner).or_default() += guest.instructions;
        }
    }
    if sums.is_empty() {
        return String::new();
    }
    let mut text = format!("{:<28}", "instructions (the machine's)");
    for owner in sums.keys() {
        let _ = write!(text, " {:>14}", sums[owner]);
    }
    text + "\n"
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
