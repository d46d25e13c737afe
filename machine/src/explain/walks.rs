//! Walks through page tables and EPT, entry by entry, with the bit that stopped them.

use processor::Cpu;
use processor::memory::inspect::{EptStep, EptWalk, Obstacle, Step, Walk};
use processor::memory::paging::Kind;
use processor::memory::tlb;
use processor::vmx::ept::{Access, Failure, Rules};
use spec::vmx::ept::{EptEntry, Eptp};
use spec::vmx::qualification::{EptViolation, SppEvent};
use spec::x86::decode::memory_type;
use spec::x86::paging::Entry;

/// The name of an entry of a paging structure at `level`.
fn entry_name(level: u8) -> &'static str {
    match level {
        5 => "PML5E",
        4 => "PML4E",
        3 => "PDPTE",
        2 => "PDE",
        _ => "PTE",
    }
}

fn access_name(access: Access) -> String {
    let parts = [(access.read, "read"), (access.write, "write"), (access.execute, "instruction fetch")];
    let names: Vec<&str> = parts.into_iter().filter(|(does, _)| *does).map(|(_, name)| name).collect();
    names.join(" and ")
}

/// The rights in EPT entries: `r-x`.
fn ept_rights(entry: u64) -> String {
    let flag = |bit: u64, letter: char| if entry & bit != 0 { letter } else { '-' };
    [flag(EptEntry::READ, 'r'), flag(EptEntry::WRITE, 'w'), flag(EptEntry::EXECUTE, 'x')].iter().collect()
}

const fn maps_page(step: EptStep) -> bool {
    step.level == 1 || step.level < 4 && step.entry & EptEntry::PAGE != 0
}

/// An EPT entry in words.
fn ept_entry(step: EptStep) -> String {
    let EptStep { level, entry, .. } = step;
    if entry & EptEntry::PERMISSIONS == 0 {
        return format!("{}  not present: bits 2:0 are 0", ept_rights(entry));
    }
    let mut text = ept_rights(entry);
    let address = entry & EptEntry::ADDRESS;
    if maps_page(step) {
        let size = ["4-KiB", "2-MiB", "1-GiB"][usize::from(level - 1).min(2)];
        let kind = (entry >> EptEntry::MEMORY_TYPE_SHIFT & 7) as u8;
        text += &format!("  {size} page at {address:#x}, memory type {kind} ({})", memory_type(kind));
    } else {
        text += &format!("  table at {address:#x}");
    }
    for (bit, name) in [
        (EptEntry::IGNORE_PAT, "ignore PAT"),
        (EptEntry::ACCESSED, "accessed"),
        (EptEntry::DIRTY, "dirty"),
        (EptEntry::EXECUTE_USER, "execute for user mode"),
        (EptEntry::VERIFY_GUEST_PAGING, "verify guest paging"),
        (EptEntry::PAGING_WRITE, "paging-write access"),
        (EptEntry::SUB_PAGE_WRITE, "sub-page write permissions"),
        (EptEntry::SUPPRESS_VE, "suppress #VE"),
    ] {
        if entry & bit != 0 && (bit != EptEntry::IGNORE_PAT || maps_page(step)) {
            text += ", ";
            text += name;
        }
    }
    text
}

/// Which rule of 29.3.3.1 makes the entry a misconfiguration, if one does.
fn misconfiguration(step: EptStep, rules: Rules) -> Option<String> {
    let Rules { execute_only, physical_bits, pages_2m, pages_1g, mode_based_execute, paging_write, sub_pages: _ } =
        rules;
    let EptStep { level, entry, .. } = step;
    let readable = entry & EptEntry::READ != 0;
    if !readable && entry & EptEntry::WRITE != 0 {
        return Some("bit 1 (write) is 1 and bit 0 (read) is 0".to_owned());
    }
    let execute = EptEntry::EXECUTE | if mode_based_execute { EptEntry::EXECUTE_USER } else { 0 };
    if !readable && entry & execute != 0 && !execute_only {
        return Some("it allows execution and not reads, which IA32_VMX_EPT_VPID_CAP does not report".to_owned());
    }
    if !readable && paging_write && maps_page(step) && entry & EptEntry::PAGING_WRITE != 0 {
        return Some("bit 58 (paging-write access) is 1 and bit 0 (read) is 0".to_owned());
    }
    let beyond = entry & EptEntry::ADDRESS & !((1 << physical_bits) - 1);
    if beyond != 0 {
        return Some(format!("address bits {beyond:#x} lie beyond the physical-address width of {physical_bits} bits"));
    }
    if maps_page(step) {
        let low = entry & ((1 << (12 + 9 * (u32::from(level) - 1))) - 1) & !0xfff;
        if low != 0 {
            return Some(format!("address bits {low:#x} are below the page's size and must be 0"));
        }
        if level == 2 && !pages_2m || level == 3 && !pages_1g {
            return Some("bit 7 is 1, and IA32_VMX_EPT_VPID_CAP does not report pages of that size".to_owned());
        }
        let kind = entry >> EptEntry::MEMORY_TYPE_SHIFT & 7;
        if matches!(kind, 2 | 3 | 7) {
            return Some(format!("bits 5:3 are {kind}, which is no memory type"));
        }
    } else {
        let top = if level >= 4 { EptEntry::PAGE } else { 0 };
        let reserved = entry & (EptEntry::TABLE_RESERVED | top);
        if reserved != 0 {
            return Some(format!("bits {reserved:#x} are reserved in an entry that refers to a table"));
        }
    }
    None
}

/// What ended a walk through EPT; nothing when it succeeded.
#[must_use]
pub fn ept_obstacle(walk: &EptWalk, cpu: &Cpu) -> Option<String> {
    let failure = walk.result.as_ref().err()?;
    let Some(&last) = walk.steps.last() else {
        return Some("the address has bits beyond what the page-walk length can translate".to_owned());
    };
    let name = entry_name(last.level);
    let rules = cpu.ept_rules(&cpu.vmx.controls);
    match *failure {
        Failure::LogFull => return Some("the page-modification log is full".to_owned()),
        Failure::SubPage(SppEvent::MISS) => return Some("its sub-page permissions are not valid".to_owned()),
        Failure::SubPage(_) => return Some("its sub-page permissions have reserved bits set".to_owned()),
        Failure::Violation { qualification, .. } if qualification & EptViolation::GUEST_PAGING_VERIFICATION != 0 => {
            return Some(format!(
                "the {name} asks for guest-paging verification, and a guest paging structure on the way has no \
                 paging-write access"
            ));
        }
        Failure::Violation { .. } | Failure::Misconfiguration => {}
    }
    if matches!(failure, Failure::Misconfiguration) {
        let why = misconfiguration(last, rules);
        return Some(format!(
            "the {name} is misconfigured: {}",
            why.unwrap_or_else(|| "a reserved bit is 1".to_owned())
        ));
    }
    let user = if rules.mode_based_execute { EptEntry::EXECUTE_USER } else { 0 };
    if last.entry & (EptEntry::PERMISSIONS | user) == 0 {
        return Some(format!("the {name} is not present: its bits 2:0 are 0"));
    }
    let supervised = walk.access.shadow_stack && !walk.access.user && Eptp(walk.eptp).supervisor_shadow_stack();
    if supervised && last.entry & EptEntry::SUPERVISOR_SHADOW_STACK == 0 {
        return Some(format!("the {name} maps no supervisor shadow stack: its bit 60 is 0"));
    }
    let execute = if walk.access.user && user != 0 { user } else { EptEntry::EXECUTE };
    let wanted = [
        (walk.access.read, EptEntry::READ, "read"),
        (walk.access.write, EptEntry::WRITE, "write"),
        (walk.access.execute, execute, "execute"),
    ];
    for (wants, bit, right) in wanted {
        if !wants {
            continue;
        }
        if let Some(denying) = walk.steps.iter().find(|step| step.entry & bit == 0) {
            let number = bit.trailing_zeros();
            return Some(format!(
                "the {} does not give {right} access: its bit {number} is 0",
                entry_name(denying.level)
            ));
        }
    }
    Some("the entries do not give the access".to_owned())
}

/// A walk through EPT, a line for each entry.
#[must_use]
pub fn ept_lines(walk: &EptWalk, cpu: &Cpu) -> Vec<String> {
    let EptWalk { eptp, guest_physical, access, steps, result } = walk;
    let mut lines = vec![format!(
        "EPT walk of guest-physical {guest_physical:#x} ({}), EPT pointer {eptp:#x} ({} levels)",
        access_name(*access),
        Eptp(*eptp).walk_length()
    )];
    for step in steps {
        let name = entry_name(step.level);
        let index = step.address >> 3 & 0x1ff;
        lines.push(format!(
            "  {name:<5} [{index:>3}] at {:#x}: {:#018x}  {}",
            step.address,
            step.entry,
            ept_entry(*step)
        ));
    }
    match result {
        Ok(translation) => lines.push(format!("  -> physical {:#x}", translation.physical)),
        Err(_) => lines.push(format!("  stopped: {}", ept_obstacle(walk, cpu).unwrap_or_default())),
    }
    lines
}

/// Entries in a table whose entries have `width` bytes.
const fn table_entries(width: u8) -> u64 {
    4096 / width as u64
}

/// An entry of ordinary paging in words.
fn paging_entry(step: &Step) -> String {
    let entry = step.entry;
    if entry & Entry::P == 0 {
        return "not present: bit 0 (P) is 0".to_owned();
    }
    let large = step.level > 1 && entry & Entry::PS != 0 && step.address.is_some();
    let address = match (large, step.width, step.level) {
        (true, 4, _) => entry & 0xffc0_0000 | (entry >> 13 & 0xff) << 32,
        (true, _, 3) => entry & Entry::ADDRESS_1G,
        (true, ..) => entry & Entry::ADDRESS_2M,
        (false, 4, _) => entry & 0xffff_f000,
        (false, ..) => entry & Entry::ADDRESS,
    };
    let what = match (large, step.level) {
        (false, 1) => "4-KiB page",
        (false, _) => "table",
        (true, 3) => "1-GiB page",
        (true, _) if step.width == 4 => "4-MiB page",
        (true, _) => "2-MiB page",
    };
    let mut text = String::from("P");
    let mut flags = vec![(Entry::RW, "R/W"), (Entry::US, "U/S"), (Entry::A, "A")];
    if large || step.level == 1 {
        flags.extend([(Entry::D, "D"), (Entry::G, "G")]);
    }
    if step.width == 8 {
        flags.push((Entry::XD, "XD"));
    }
    for (_, name) in flags.into_iter().filter(|(bit, _)| entry & bit != 0) {
        text += " ";
        text += name;
    }
    text + &format!("  {what} at {address:#x}")
}

/// What stopped a page walk; nothing when it succeeded.
#[must_use]
pub fn paging_obstacle(walk: &Walk, cpu: &Cpu) -> Option<String> {
    let last = walk.steps.last().map_or("entry", |step| entry_name(step.level));
    // The entry that lacks the right: the first one on the way.
    let lacking = |bit: u64, set: bool| {
        let step = walk.steps.iter().find(|step| step.address.is_some() && (step.entry & bit != 0) == set);
        step.map_or(last, |step| entry_name(step.level))
    };
    let user = if walk.class == tlb::USER { "user-mode" } else { "supervisor-mode" };
    Some(match walk.guest_physical {
        Ok(_) => return walk.ept.as_ref().and_then(|nested| ept_obstacle(nested, cpu)),
        Err(Obstacle::NotCanonical) => "the address is not canonical".to_owned(),
        Err(Obstacle::NotPresent) => format!("the {last} is not present: its bit 0 (P) is 0"),
        Err(Obstacle::Reserved(bits)) => format!("the {last} has reserved bits set: {bits:#x}"),
        Err(Obstacle::NotUser) => {
            format!(
                "a user-mode access, and the {} is for supervisor mode: its bit 2 (U/S) is 0",
                lacking(Entry::US, false)
            )
        }
        Err(Obstacle::NotWritable) => {
            let wp = if walk.class == tlb::USER { "" } else { ", and CR0.WP is 1" };
            format!("a {user} write, and the {} is read-only: its bit 1 (R/W) is 0{wp}", lacking(Entry::RW, false))
        }
        Err(Obstacle::ExecuteDisabled) => {
            format!(
                "an instruction fetch, and the {} disables execution: its bit 63 (XD) is 1",
                lacking(Entry::XD, true)
            )
        }
        Err(Obstacle::Smep) => "a supervisor-mode fetch from a user-mode page, and CR4.SMEP is 1".to_owned(),
        Err(Obstacle::Smap) => {
            "a supervisor-mode access to a user-mode page, with CR4.SMAP 1 and RFLAGS.AC 0".to_owned()
        }
        Err(Obstacle::NotShadowStack) => {
            format!(
                "a {user} shadow-stack access to a page that is no {user} shadow stack: R/W 0 and D 1 in its own entry, R/W 1 above"
            )
        }
        Err(Obstacle::ProtectionKey) => {
            let key = walk.steps.last().map_or(0, |step| step.entry >> Entry::PROTECTION_KEY_SHIFT & 15);
            let user = walk.steps.iter().all(|step| step.entry & Entry::US != 0);
            let (name, value) = if user { ("PKRU", cpu.pkru) } else { ("IA32_PKRS", cpu.msrs.pkrs) };
            format!("protection key {key} denies the access ({name} {value:#x})")
        }
        Err(Obstacle::Ept) => {
            let nested = walk.steps.last().and_then(|step| step.ept.as_ref());
            let why = nested.and_then(|nested| ept_obstacle(nested, cpu)).unwrap_or_default();
            format!("EPT stopped the access to the guest's {last}: {why}")
        }
    })
}

/// A page walk, a line for each entry, with EPT's share in it.
#[must_use]
pub fn paging_lines(walk: &Walk, cpu: &Cpu) -> Vec<String> {
    let mut lines = guest_paging_lines(walk, cpu);
    let end = lines.pop();
    let nested = walk.steps.last().and_then(|step| step.ept.as_ref()).filter(|nested| nested.result.is_err());
    for nested in walk.ept.iter().chain(nested) {
        lines.extend(ept_lines(nested, cpu).into_iter().map(|line| format!("  {line}")));
    }
    lines.extend(end.filter(|_| walk.ept.as_ref().is_none_or(|nested| nested.result.is_ok())));
    lines
}

/// A page walk without what EPT has to do with it.
#[must_use]
pub fn guest_paging_lines(walk: &Walk, cpu: &Cpu) -> Vec<String> {
    let kind = match walk.kind {
        Kind::Read => "read",
        Kind::Write => "write",
        Kind::Execute => "instruction fetch",
        Kind::ShadowRead => "shadow-stack read",
        Kind::ShadowWrite => "shadow-stack write",
    };
    let user = if walk.class == tlb::USER { "user-mode" } else { "supervisor-mode" };
    let mut lines = vec![format!("page walk of linear {:#x} ({user} {kind}), CR3 {:#x}", walk.linear, cpu.cr3)];
    if walk.steps.is_empty() && walk.guest_physical.is_ok() {
        lines.push("  paging is off: the address is the physical one".to_owned());
    }
    for step in &walk.steps {
        let name = entry_name(step.level);
        let place = match step.address {
            Some(address) => {
                format!("[{:>3}] at {address:#x}", address / u64::from(step.width) % table_entries(step.width))
            }
            None => "(register)".to_owned(),
        };
        if step.ept.as_ref().is_some_and(|nested| nested.result.is_err()) {
            lines.push(format!("  {name:<5} {place}: not read"));
        } else {
            let digits = 2 + 2 * usize::from(step.width);
            lines.push(format!("  {name:<5} {place}: {:#0digits$x}  {}", step.entry, paging_entry(step)));
        }
    }
    lines.push(match (walk.guest_physical, &walk.ept) {
        (Ok(address), None) => format!("  -> physical {address:#x}"),
        (Ok(address), Some(_)) => format!("  -> guest-physical {address:#x}"),
        (Err(_), _) => format!("  stopped: {}", paging_obstacle(walk, cpu).unwrap_or_default()),
    });
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use processor::vmx::ept::{PhysicalMemory, translate};

    /// One table at the level asked for; everything above leads there.
    struct Memory(u8, u64);

    impl PhysicalMemory for Memory {
        fn load(&mut self, address: u64) -> u64 {
            let level = 5u64.saturating_sub(address >> 12) as u8;
            if level == self.0 { self.1 } else { ((address >> 12) + 1) << 12 | 7 }
        }
        fn replace(&mut self, _address: u64, _old: u64, _new: u64) -> bool {
            true
        }
        fn may_set_flags(&mut self) -> bool {
            true
        }
        fn log(&mut self, _address: u64) {}
    }

    #[test]
    fn a_misconfiguration_has_a_reason_exactly_when_the_processor_finds_one() {
        let mut state = 0x1234_5678_9abc_def1u64;
        let access = Access { read: true, ..Access::default() };
        let mut found = 0;
        for case in 0..50_000 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let level = (state >> 60) as u8 % 4 + 1;
            // An entry whose low bits are random, and sometimes an address bit that must be 0.
            let entry = state & 0xbff | if state >> 20 & 7 == 0 { 1 << 13 } else { 0 } | (state >> 23 & 1) << 46;
            let entry = if level > 1 && entry & EptEntry::PAGE == 0 { entry | 0x5000 } else { entry };
            let execute_only = state >> 30 & 1 != 0;
            let (pages_2m, pages_1g) = (state >> 31 & 3 != 0, state >> 33 & 3 != 0);
            let mode_based_execute = state >> 35 & 1 != 0;
            let rules = Rules {
                execute_only,
                physical_bits: 46,
                pages_2m,
                pages_1g,
                mode_based_execute,
                paging_write: state >> 36 & 1 != 0,
                sub_pages: None,
            };
            let entry = entry | if state >> 37 & 3 == 0 { EptEntry::PAGING_WRITE } else { 0 };
            let result = translate(&mut Memory(level, entry), Eptp(0x1000 | 6 | 3 << 3), 0, access, rules);
            let step = EptStep { level, address: 0, entry };
            let user = if mode_based_execute { EptEntry::EXECUTE_USER } else { 0 };
            let present = entry & (EptEntry::PERMISSIONS | user) != 0;
            let why = misconfiguration(step, rules).filter(|_| present);
            let expected = result == Err(Failure::Misconfiguration);
            assert_eq!(why.is_some(), expected, "case {case}: level {level} {entry:#x} {why:?}");
            found += u32::from(expected);
        }
        assert!((5_000..45_000).contains(&found), "{found}");
    }
}
