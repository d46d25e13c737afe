//! VM entries and VMX instructions that failed.

use super::findings::{findings, shadowed_by};
use super::{Explanation, FieldValue, Kind, Section};
use crate::dump::code_at;
use processor::Cpu;
use processor::vmx::FailedCheck;
use spec::vmx::{CheckGroup, ExitReason, VmInstructionError, VmcsField};

/// The VMX instruction that began last: its mnemonic and RIP.
fn instruction(cpu: &Cpu) -> (&'static str, u64) {
    match cpu.history.instruction {
        Some((ExitReason::Vmlaunch, rip)) => ("VMLAUNCH", rip),
        Some((ExitReason::Vmresume, rip)) => ("VMRESUME", rip),
        Some((reason, rip)) => (reason.text(), rip),
        None => ("VM entry", cpu.rip),
    }
}

/// Why the VM entry failed that has just been made. `qualification` is the exit qualification, for failures that are VM exits.
#[must_use]
pub fn entry_failure(cpu: &Cpu, failed: FailedCheck, qualification: u64) -> Explanation {
    let FailedCheck { check, field, value } = failed;
    let (mnemonic, rip) = instruction(cpu);
    let group = check.group();
    let how = match (group.instruction_error(), group.exit_reason()) {
        (Some(error), _) => format!("{} (VM-instruction error {})", error.text(), error as u32),
        (None, Some(reason)) => format!("{} (exit reason {})", reason.text(), reason as u16),
        (None, None) => String::new(),
    };
    let mut explanation = Explanation::new(cpu, Kind::EntryFailure, format!("{mnemonic} failed: {how}"));
    explanation.rip = Some(rip);
    explanation.check = Some(check.into());
    explanation.findings = findings(cpu, failed, qualification);
    explanation.remedy = Some(check.remedy().to_owned());
    let mut fields: Vec<VmcsField> = field.into_iter().collect();
    fields.extend(field.into_iter().flat_map(siblings));
    fields.extend(check.related());
    for (n, related) in fields.iter().enumerate() {
        if fields[..n].contains(related) {
            continue;
        }
        let wrong = Some(*related) == field;
        let value = if wrong { value } else { cpu.vmx.vmcs.get(*related) };
        explanation.fields.push(FieldValue::new(*related, value, wrong));
    }
    let hidden = shadowed_by(cpu, check);
    explanation.findings.extend(hidden);
    if group == CheckGroup::MsrLoading {
        explanation.sections.push(msr_area(cpu, qualification));
    }
    explanation
}

/// The other fields of the guest's segment register that `field` belongs to.
fn siblings(field: VmcsField) -> Vec<VmcsField> {
    let firsts = [
        VmcsField::GUEST_ES_SELECTOR,
        VmcsField::GUEST_ES_ACCESS_RIGHTS,
        VmcsField::GUEST_ES_LIMIT,
        VmcsField::GUEST_ES_BASE,
    ];
    let number = firsts.iter().find_map(|first| {
        let number = field.0.checked_sub(first.0)? / 2;
        (number < 8).then_some(number)
    });
    number.map_or_else(Vec::new, |number| firsts.iter().map(|first| VmcsField(first.0 + 2 * number)).collect())
}

/// The entries of the VM-entry MSR-load area around the one that failed.
fn msr_area(cpu: &Cpu, failed: u64) -> Section {
    let start = cpu.vmx.vmcs.get(VmcsField::ENTRY_MSR_LOAD_ADDRESS);
    let count = u64::from(cpu.vmx.vmcs.get32(VmcsField::ENTRY_MSR_LOAD_COUNT));
    let first = failed.saturating_sub(2).max(1);
    let lines = (first..=count.min(failed.saturating_add(1)))
        .map(|n| {
            let at = start.wrapping_add(16 * (n - 1));
            let mark = if n == failed { "*" } else { " " };
            match (cpu.peek_physical::<8>(at), cpu.peek_physical::<8>(at.wrapping_add(8))) {
                (Some(low), Some(value)) => format!(
                    "{mark} entry {n} at {at:#x}: {} ({:#x}), bits 63:32 {:#x}, value {value:#x}",
                    spec::x86::decode::Msr(low as u32),
                    low as u32,
                    low >> 32
                ),
                _ => format!("{mark} entry {n} at {at:#x}: no memory is there"),
            }
        })
        .collect();
    Section { title: "VM-entry MSR-load area", lines }
}

/// Why a VMX instruction ended in VMfailValid (`Some`) or VMfailInvalid.
#[must_use]
pub fn instruction_failure(cpu: &Cpu, error: Option<VmInstructionError>) -> Explanation {
    let (mnemonic, rip) = instruction(cpu);
    let title = match error {
        Some(error) => format!("{mnemonic} failed: {} (VM-instruction error {})", error.text(), error as u32),
        None => format!("{mnemonic} failed: VMfailInvalid (CF is set, there is no error number)"),
    };
    let mut explanation = Explanation::new(cpu, Kind::InstructionFailure, title);
    explanation.rip = Some(rip);
    explanation.remedy = Some(match (error, cpu.history.instruction) {
        (Some(error), _) => error.remedy().to_owned(),
        (None, Some((ExitReason::Vmxon, _))) => format!(
            "Give VMXON the physical address of a 4-KiB aligned region within {} bits whose first four bytes are the revision identifier \
             {:#x} of IA32_VMX_BASIC, with bit 31 clear.",
            cpu.physical_bits,
            processor::vmx::vmcs::REVISION
        ),
        (None, _) => "Make a VMCS current by VMPTRLD first: VMCLEAR of the current VMCS leaves none.".to_owned(),
    });
    let field_wanted =
        matches!(error, Some(VmInstructionError::UnsupportedComponent | VmInstructionError::VmwriteReadOnly));
    let text = code_at(cpu, rip, 1).pop().unwrap_or_default();
    let mut lines = vec![text.clone()];
    for (name, value) in registers_in(cpu, &text) {
        let field = u32::try_from(value).ok().and_then(|encoding| VmcsField(encoding).name()).filter(|_| field_wanted);
        lines.push(match field {
            Some(field) => format!("{name} = {value:#x}, which encodes {field}"),
            None => format!("{name} = {value:#x}"),
        });
    }
    explanation.sections.push(Section { title: "instruction", lines });
    explanation
}

/// The general registers that a line of disassembly names, with their values now.
fn registers_in(cpu: &Cpu, line: &str) -> Vec<(&'static str, u64)> {
    const NAMES: [[&str; 2]; 16] = [
        ["rax", "eax"],
        ["rcx", "ecx"],
        ["rdx", "edx"],
        ["rbx", "ebx"],
        ["rsp", "esp"],
        ["rbp", "ebp"],
        ["rsi", "esi"],
        ["rdi", "edi"],
        ["r8", "r8d"],
        ["r9", "r9d"],
        ["r10", "r10d"],
        ["r11", "r11d"],
        ["r12", "r12d"],
        ["r13", "r13d"],
        ["r14", "r14d"],
        ["r15", "r15d"],
    ];
    let words: Vec<&str> = line.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let named = |names: &[&'static str; 2]| names.iter().copied().find(|name| words.contains(name));
    (0..16).filter_map(|number| Some((named(&NAMES[number])?, cpu.regs[number]))).collect()
}
