//! Memory accesses that were stopped, and triple faults.

use super::walks::{ept_lines, ept_obstacle, guest_paging_lines, paging_lines, paging_obstacle};
use super::{Explanation, Kind, Section};
use crate::dump::{code_at, exit_line};
use processor::Cpu;
use processor::memory::paging;
use processor::observe::FailedDelivery;
use processor::segment::Segment;
use processor::system::event::{Event, EventKind};
use processor::vmx::Exit;
use processor::vmx::ept::Access;
use spec::vmx::qualification::EptViolation;
use spec::vmx::{ExitReason, decode};
use spec::x86::PageFaultCode;
use spec::x86::decode::Exception;
use spec::x86::exceptions::SelectorErrorCode;
use spec::x86::gates::Gate;

/// Instructions shown around RIP.
const CODE_LINES: usize = 6;

fn code(cpu: &Cpu) -> Section {
    Section { title: "code", lines: code_at(cpu, cpu.rip, CODE_LINES) }
}

/// The EPT violation or misconfiguration `exit`, while the guest's translation context is in force.
#[must_use]
pub fn ept_exit(cpu: &Cpu, exit: &Exit) -> Explanation {
    let misconfigured = exit.reason == ExitReason::EptMisconfiguration;
    let violation = EptViolation(exit.qualification);
    let access = if misconfigured {
        Access { read: true, ..Access::default() }
    } else {
        Access {
            read: violation.has(EptViolation::READ),
            write: violation.has(EptViolation::WRITE),
            execute: violation.has(EptViolation::FETCH),
            paging: violation.has(EptViolation::LINEAR_VALID) && !violation.has(EptViolation::TRANSLATED),
            user: violation.has(EptViolation::USER_PAGE),
            shadow_stack: violation.has(EptViolation::SHADOW_STACK),
            unverified: violation.has(EptViolation::GUEST_PAGING_VERIFICATION),
        }
    };
    let kind = if misconfigured { Kind::EptMisconfiguration } else { Kind::EptViolation };
    let title = format!("{} at guest-physical {:#x}", capital(exit.reason.text()), exit.physical);
    let mut explanation = Explanation::new(cpu, kind, title);
    let walk = cpu.inspect_ept(cpu.vmx.eptp, exit.physical, access);
    match ept_obstacle(&walk, cpu) {
        Some(why) => explanation.findings.push(why),
        None => {
            explanation.findings.push("the tables give the access now: they changed under the processor".to_owned())
        }
    }
    if !misconfigured {
        let words = decode::Qualification(exit.reason, exit.qualification);
        explanation.findings.push(format!("exit qualification {:#x}: {words}", exit.qualification));
    }
    explanation.remedy = Some(
        if misconfigured {
            "Write a valid entry (SDM Vol. 3C, 29.3.3.1), or one with bits 2:0 clear for \"not present\"; INVEPT where an entry was \
             present before."
        } else {
            "Map the page with the right that is missing, then go on with VMRESUME; INVEPT is needed where a right is taken away, not \
             where it is given."
        }
        .to_owned(),
    );
    explanation.sections.push(Section { title: "walk", lines: ept_lines(&walk, cpu) });
    if violation.has(EptViolation::LINEAR_VALID) && !misconfigured {
        let kind = match access {
            Access { execute: true, .. } => paging::Kind::Execute,
            Access { write: true, .. } => paging::Kind::Write,
            _ => paging::Kind::Read,
        };
        let linear = cpu.inspect_linear(exit.linear, kind, cpu.access_class_of(cpu.cpl == 3));
        explanation.sections.push(Section { title: "guest paging", lines: guest_paging_lines(&linear, cpu) });
    }
    explanation.sections.push(code(cpu));
    explanation
}

fn capital(text: &str) -> String {
    text[..1].to_uppercase() + &text[1..]
}

/// The page fault at linear `address` with the error code `error`, before it is delivered.
#[must_use]
pub fn page_fault(cpu: &Cpu, address: u64, error: u32) -> Explanation {
    let code_bits = PageFaultCode(error);
    let kind = if code_bits.has(PageFaultCode::I) {
        paging::Kind::Execute
    } else if code_bits.has(PageFaultCode::W) {
        paging::Kind::Write
    } else {
        paging::Kind::Read
    };
    let who = if code_bits.has(PageFaultCode::U) { "user-mode" } else { "supervisor-mode" };
    let what = match kind {
        paging::Kind::Read | paging::Kind::ShadowRead => "read",
        paging::Kind::Write | paging::Kind::ShadowWrite => "write",
        paging::Kind::Execute => "instruction fetch",
    };
    let title = format!("Page fault at linear {address:#x}: {who} {what} (error code {error:#x})");
    let mut explanation = Explanation::new(cpu, Kind::PageFault, title);
    let walk = cpu.inspect_linear(address, kind, cpu.access_class_of(code_bits.has(PageFaultCode::U)));
    explanation.findings.extend(paging_obstacle(&walk, cpu));
    explanation.sections.push(Section { title: "walk", lines: paging_lines(&walk, cpu) });
    explanation.sections.push(code(cpu));
    explanation
}

/// The triple fault that has just happened. In VMX non-root operation, while the guest's registers are still there.
#[must_use]
pub fn triple_fault(cpu: &Cpu) -> Explanation {
    let whose = if cpu.vmx.non_root { " of a guest" } else { "" };
    let mut explanation = Explanation::new(cpu, Kind::TripleFault, format!("Triple fault{whose}"));
    let mut chain = Vec::new();
    for failed in cpu.history.deliveries() {
        chain.push(delivery_line(failed));
        chain.push(format!("  {}", gate_line(cpu, failed.event)));
    }
    if chain.is_empty() {
        chain.push("no delivery failed: the shutdown has another cause".to_owned());
    }
    explanation.findings = obstacles(cpu);
    explanation.sections.push(Section { title: "chain of exceptions", lines: chain });
    let exits: Vec<String> = cpu.history.exits().map(exit_line).collect();
    if !exits.is_empty() {
        explanation.sections.push(Section { title: "last VM exits", lines: exits });
    }
    explanation.sections.push(code(cpu));
    explanation
}

fn event_name(event: Event) -> String {
    let mut name = match event.kind {
        EventKind::External => format!("interrupt {:#x}", event.vector),
        EventKind::SoftwareInterrupt => format!("INT {:#x}", event.vector),
        EventKind::Nmi => "NMI".to_owned(),
        _ => Exception(event.vector).to_string(),
    };
    if let Some(error) = event.error {
        name += &format!("({error:#x})");
    }
    name
}

fn delivery_line(failed: &FailedDelivery) -> String {
    let FailedDelivery { event, rip, vector, error, address } = *failed;
    let mut line = format!("{} at RIP {rip:#x}: its delivery raised {}", event_name(event), Exception(vector));
    if let Some(error) = error {
        line += &format!("({error:#x})");
        line += &selector_words(vector, error);
    }
    if vector == 14 {
        line += &format!(" at linear {address:#x}");
    }
    line
}

/// What the error code of a fault about a selector says.
fn selector_words(vector: u8, error: u32) -> String {
    if !(10..=13).contains(&vector) || error == 0 {
        return String::new();
    }
    let code = SelectorErrorCode(error);
    let table = match (code.has(SelectorErrorCode::IDT), code.has(SelectorErrorCode::TI)) {
        (true, _) => "IDT",
        (false, true) => "LDT",
        (false, false) => "GDT",
    };
    format!(" about entry {:#x} of the {table}", error >> 3 & 0x1fff)
}

/// The entry of the interrupt table that `event` goes through.
fn gate_line(cpu: &Cpu, event: Event) -> String {
    let real = !cpu.protected() && cpu.cr0 & 1 == 0;
    let size = if real {
        4u64
    } else if cpu.long_mode() {
        16
    } else {
        8
    };
    let at = u64::from(event.vector) * size;
    let linear = cpu.idtr.base.wrapping_add(at);
    let name = format!("IDT entry {:#x} at {linear:#x}", event.vector);
    if at + size - 1 > u64::from(cpu.idtr.limit) {
        return format!("{name}: beyond the limit of the IDT, {:#x}", cpu.idtr.limit);
    }
    let mut bytes = [0; 16];
    if cpu.peek_linear(linear, &mut bytes[..size as usize]) < size as usize {
        return format!("{name}: not mapped");
    }
    let low = u64::from_le_bytes(bytes[..8].try_into().unwrap_or_default());
    let high = u64::from_le_bytes(bytes[8..].try_into().unwrap_or_default());
    if real {
        return format!("{name}: to {:#x}:{:#x}", low >> 16 & 0xffff, low & 0xffff);
    }
    format!("{name}: {}", Gate { low, high })
}

/// Things about the state that commonly cause triple faults.
fn obstacles(cpu: &Cpu) -> Vec<String> {
    let mut found = Vec::new();
    let table = cpu.inspect_linear(cpu.idtr.base, paging::Kind::Read, processor::memory::tlb::SUPERVISOR);
    if let Some(why) = paging_obstacle(&table, cpu) {
        found.push(format!("the IDT at {:#x} cannot be read: {why}", cpu.idtr.base));
    }
    let stack = cpu.regs[processor::cpu::RSP].wrapping_sub(8) & cpu.stack_mask();
    let Segment { base, .. } = cpu.segs[processor::segment::SS];
    let linear = stack.wrapping_add(if cpu.mode == processor::cpu::Mode::Long64 { 0 } else { base });
    let pushed = cpu.inspect_linear(linear, paging::Kind::Write, cpu.access_class_of(cpu.cpl == 3));
    if let Some(why) = paging_obstacle(&pushed, cpu) {
        found.push(format!("the stack below RSP, at {linear:#x}, cannot be written: {why}"));
    }
    found
}
