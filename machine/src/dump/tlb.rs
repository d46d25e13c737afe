//! The software TLB.

use super::Failure;
use processor::Cpu;
use processor::memory::tlb::{self, Cached};
use std::fmt::Write;

/// Pages shown of one context.
const MAX_PAGES: usize = 200;

pub(super) fn write(cpu: &Cpu, _address: Option<u64>, out: &mut String) -> Result<(), Failure> {
    let current = cpu.tlb.key();
    for context in cpu.tlb.contents() {
        if context.pages.is_empty() && context.key != current {
            continue;
        }
        let key = context.key;
        let operation = if key.non_root { "VMX non-root operation" } else { "root operation or no VMX" };
        writeln!(
            out,
            "{operation}, VPID {:#x}, PCID {:#x}, EPT pointer {:#x}: {} pages{}",
            key.vpid,
            key.pcid,
            key.eptp,
            context.pages.len(),
            if key == current { " (in use)" } else { "" }
        )?;
        let mut pages = context.pages;
        pages.sort_by_key(|page| (page.linear, page.class));
        for Cached { class, linear, offset, rights } in pages.iter().take(MAX_PAGES) {
            let class = match *class {
                tlb::USER => "user",
                tlb::SUPERVISOR_AC => "supervisor, AC",
                _ => "supervisor",
            };
            let flag = |allowed: bool, letter: char| if allowed { letter } else { '-' };
            writeln!(
                out,
                "  {linear:016x} -> RAM {offset:012x}  {}{}{}  {class}",
                flag(rights.read, 'r'),
                flag(rights.write, 'w'),
                flag(rights.execute, 'x')
            )?;
        }
        if pages.len() > MAX_PAGES {
            writeln!(out, "  ... and {} more", pages.len() - MAX_PAGES)?;
        }
    }
    Ok(())
}
