//! The local APIC.

use super::Failure;
use processor::Cpu;
use processor::apic::{LocalApic, Moment};
use spec::x86::msr::ApicBase;
use std::fmt::Write;

/// Offsets and names of the registers (SDM Vol. 3A, table 11-1) that are shown as they are.
const REGISTERS: &[(u32, &str)] = &[
    (0x020, "ID"),
    (0x030, "version"),
    (0x080, "TPR"),
    (0x0a0, "PPR"),
    (0x0d0, "logical destination"),
    (0x0e0, "destination format"),
    (0x0f0, "spurious-interrupt vector"),
    (0x280, "error status"),
    (0x300, "interrupt command, low"),
    (0x310, "interrupt command, high"),
    (0x320, "LVT timer"),
    (0x330, "LVT thermal sensor"),
    (0x340, "LVT performance counters"),
    (0x350, "LVT LINT0"),
    (0x360, "LVT LINT1"),
    (0x370, "LVT error"),
    (0x380, "initial count"),
    (0x390, "current count"),
    (0x3e0, "divide configuration"),
];

pub(super) fn write(cpu: &Cpu, _address: Option<u64>, out: &mut String) -> Result<(), Failure> {
    // Reading a register may bring the timer up to date; that is done to a copy.
    let mut apic = LocalApic::restore(&cpu.apic.save());
    let at = cpu.moment();
    writeln!(
        out,
        "local APIC of processor {}: {:?}, base {:#x}, x2APIC id {:#x}, {}",
        cpu.index,
        apic.mode(),
        apic.base() & ApicBase::ADDRESS,
        apic.x2apic_id(),
        if apic.is_software_enabled() { "software-enabled" } else { "software-disabled" }
    )?;
    for (offset, name) in REGISTERS {
        writeln!(out, "  {offset:03x} {name:<26} {:08x}", apic.read(*offset, 4, at) as u32)?;
    }
    for (first, name) in [(0x100, "in service"), (0x180, "level-triggered"), (0x200, "requested")] {
        writeln!(out, "  {first:03x} {name:<26} {}", vectors(&mut apic, first, at))?;
    }
    match apic.next_deadline(at) {
        Some(deadline) => writeln!(out, "  the timer is due in {} ns", deadline.saturating_sub(cpu.now()))?,
        None => writeln!(out, "  the timer is not armed")?,
    }
    Ok(())
}

/// The vectors in the eight registers from `first` on.
fn vectors(apic: &mut LocalApic, first: u32, at: Moment) -> String {
    let mut found = Vec::new();
    for word in 0..8 {
        let bits = apic.read(first + 16 * word, 4, at) as u32;
        found.extend((0..32).filter(|bit| bits >> bit & 1 != 0).map(|bit| format!("{:02x}", 32 * word + bit)));
    }
    if found.is_empty() { "none".to_owned() } else { found.join(" ") }
}
