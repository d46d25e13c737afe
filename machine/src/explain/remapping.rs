//! What the remapping unit blocked: who, which address, which table entry stopped it.

use super::{Explanation, Kind, Rule, Section};
use chipset::vtd::faults::{FaultReport, Step};
use chipset::vtd::interrupt_remapping::EntryText;
use chipset::vtd::picture::function;
use spec::vtd::FaultReason;
use spec::vtd::interrupts::RemappingEntry;
use spec::vtd::tables::{ADDRESS, FirstStageEntry, PRESENT, SecondStageEntry, context, levels_of_width, pasid};

impl From<FaultReason> for Rule {
    fn from(reason: FaultReason) -> Self {
        Self { name: reason.name(), manual: "VT-d", section: reason.condition(), rule: reason.text() }
    }
}

/// A request or an interrupt that was blocked at `time`.
#[must_use]
pub fn remapping_fault(report: &FaultReport, time: u64) -> Explanation {
    let FaultReport { reason, source, address, write, pasid, ref steps, recorded } = *report;
    let source = function(source);
    let title = if reason.is_of_interrupt() && reason != FaultReason::InvalidInterruptRequest {
        format!("Interrupt of {source} with index {address} was blocked")
    } else {
        let what = if write { "write" } else { "read" };
        let with = pasid.map_or_else(String::new, |pasid| format!(" with PASID {pasid}"));
        format!("DMA {what} of {source}{with} at {address:#x} was blocked")
    };
    let mut explanation = Explanation {
        kind: Kind::Remapping,
        processor: None,
        requester: Some(source),
        time,
        rip: None,
        vmcs: None,
        title,
        check: Some(reason.into()),
        findings: Vec::new(),
        remedy: remedy(reason).map(str::to_owned),
        fields: Vec::new(),
        sections: Vec::new(),
    };
    if let Some(step) = steps.last() {
        explanation.findings.push(format!("stopped by the {}", line(step)));
    }
    if !recorded {
        explanation.findings.push(
            "no fault was recorded: fault processing is disabled there, or all fault records are in use".to_owned(),
        );
    }
    if steps.last().is_some_and(|step| step.at.is_none()) {
        let why = "that entry came from a cache: if memory says otherwise now, an invalidation is missing";
        explanation.findings.push(why.to_owned());
    }
    let lines = steps.iter().map(line).collect();
    explanation.sections.push(Section { title: "entries", lines });
    explanation
}

fn line(step: &Step) -> String {
    let Step { what, at, value, length } = *step;
    let place = at.map_or_else(|| "from a cache".to_owned(), |at| format!("at {at:#x}"));
    let value = &value[..usize::from(length)];
    if value.is_empty() {
        return format!("{what} {place}: there is no memory");
    }
    let numbers: Vec<String> = value.iter().map(|quadword| format!("{quadword:#x}")).collect();
    format!("{what} {place}: {}  {}", numbers.join(" "), words(what, value))
}

/// An entry in words.
fn words(what: &str, value: &[u64]) -> String {
    let first = value[0];
    let table = first & ADDRESS;
    match (what, value.len()) {
        ("root entry", _) if first & PRESENT != 0 => format!("context table at {table:#x}"),
        ("context entry", 2) if first & PRESENT != 0 => {
            let kind = match first >> context::TYPE_SHIFT & 3 {
                context::TYPE_SECOND_STAGE => "second stage",
                context::TYPE_DEVICE_TLB => "second stage, device TLB",
                context::TYPE_PASS_THROUGH => "pass-through",
                _ => "reserved type",
            };
            let levels = levels_of_width(value[1] & context::WIDTH)
                .map_or_else(|| "reserved width".to_owned(), |levels| format!("{levels} levels"));
            let domain = value[1] >> context::DOMAIN_SHIFT & 0xffff;
            format!("{kind}, {levels}, domain {domain}, tables at {table:#x}")
        }
        ("context entry", _) if first & PRESENT != 0 => {
            format!("PASID directory at {table:#x}, RID_PASID {}", value[1] & 0xf_ffff)
        }
        ("PASID directory entry", _) if first & PRESENT != 0 => format!("PASID table at {table:#x}"),
        ("PASID table entry", _) if first & PRESENT != 0 => {
            let kind = match first >> pasid::TYPE_SHIFT & 7 {
                pasid::TYPE_FIRST_STAGE => "first stage",
                pasid::TYPE_SECOND_STAGE => "second stage",
                pasid::TYPE_NESTED => "nested",
                pasid::TYPE_PASS_THROUGH => "pass-through",
                _ => "reserved type",
            };
            format!("{kind}, domain {}", value.get(1).map_or(0, |quadword| quadword & pasid::DOMAIN))
        }
        ("interrupt-remapping entry", 2) => EntryText(RemappingEntry { low: first, high: value[1] }, true).to_string(),
        ("posted-interrupt descriptor", _) => format!("control {first:#x}"),
        (name, _) if name.starts_with("second-stage") => {
            format!("{}, address {:#x}", SecondStageEntry(first & 0xfff).names(), first & 0x000f_ffff_ffff_f000)
        }
        (name, _) if name.starts_with("first-stage") => {
            let flags = first & (0xfff | FirstStageEntry::NO_EXECUTE);
            format!("{}, address {:#x}", FirstStageEntry(flags).names(), first & 0x000f_ffff_ffff_f000)
        }
        _ => "not present".to_owned(),
    }
}

/// What would let the request pass, where that can be said.
fn remedy(reason: FaultReason) -> Option<&'static str> {
    use FaultReason as F;
    Some(match reason {
        F::RootEntryNotPresent
        | F::ContextEntryNotPresent
        | F::ScalableRootEntryNotPresent
        | F::ScalableContextEntryNotPresent => {
            "Put the function into a domain before it is told to work; invalidate the context cache in caching mode."
        }
        F::WriteNotPermitted
        | F::ReadNotPermitted
        | F::ScalableWriteNotPermitted
        | F::ScalableReadNotPermitted
        | F::SecondStageNotPresent
        | F::FirstStageNotPresent => {
            "Map the page with the right that is missing before the device is given its address; a device that uses an address after it \
             was unmapped, or one that it was never given, is at fault itself."
        }
        F::AddressBeyondWidth | F::ScalableAddressBeyondWidth | F::NotCanonical => {
            "Give the device addresses within the width that the context or PASID entry chooses."
        }
        F::RootEntryReserved
        | F::ContextEntryReserved
        | F::PagingEntryReserved
        | F::ScalableRootEntryReserved
        | F::ScalableContextEntryReserved
        | F::PasidDirectoryReserved
        | F::PasidEntryReserved
        | F::FirstStageReserved
        | F::SecondStageReserved
        | F::InterruptEntryReserved => {
            "Clear the reserved bits (VT-d, chapter 9); addresses must lie within the host address width."
        }
        F::InterruptSourceInvalid => {
            "Set source id and validation of the interrupt-remapping entry to the function that sends the message (an I/O APIC and an HPET \
             have source ids of their own in the DMAR table)."
        }
        F::CompatibilityFormatBlocked => {
            "Program the device with a message of remappable format (bit 4 of the address), or allow compatibility format (CFI) outside \
             extended interrupt mode."
        }
        F::InterruptEntryNotPresent => {
            "Write the entry before the device is given its index, and invalidate when an entry changes."
        }
        _ => return None,
    })
}
