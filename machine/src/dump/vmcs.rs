//! The current VMCS.

use super::{Failure, failure};
use processor::Cpu;
use processor::observe::PastExit;
use spec::vmx::{ExitReason, FieldType, VmcsField, Width, decode};
use std::fmt::Write;

pub(super) fn write(cpu: &Cpu, _address: Option<u64>, out: &mut String) -> Result<(), Failure> {
    let vmx = &cpu.vmx;
    if !vmx.on {
        return Err(failure("the processor is not in VMX operation"));
    }
    if !vmx.vmcs.is_current() {
        return Err(failure("there is no current VMCS"));
    }
    let state = if vmx.vmcs.launched { "launched" } else { "clear" };
    writeln!(out, "VMCS at {:#x}, {state}", vmx.vmcs.pointer)?;
    if let Some(failed) = vmx.last_failed_check {
        writeln!(out, "the last VM entry failed: {failed}")?;
    }
    let groups = [
        (FieldType::Control, "controls"),
        (FieldType::GuestState, "guest-state area"),
        (FieldType::HostState, "host-state area"),
        (FieldType::ExitInformation, "VM-exit information"),
    ];
    for (kind, title) in groups {
        writeln!(out, "{title}:")?;
        let fields = VmcsField::ALL.iter().filter(|(field, _)| field.field_type() == kind);
        for (field, name) in fields.filter(|(field, _)| vmx.capabilities.has_field(*field)) {
            let digits = match field.width() {
                Width::Bits16 => 4,
                Width::Bits32 => 8,
                Width::Bits64 | Width::Natural => 16,
            };
            let value = vmx.vmcs.get(*field);
            let words = match *field {
                VmcsField::EXIT_QUALIFICATION => qualification(vmx.vmcs.get32(VmcsField::EXIT_REASON), value),
                field => decode::Field(field, value).to_string(),
            };
            let line = format!("  {:04x} {name:<46} {:>16}  {words}", field.0, format!("{value:0digits$x}"));
            writeln!(out, "{}", line.trim_end())?;
        }
    }
    Ok(())
}

pub(super) fn write_exits(cpu: &Cpu, _address: Option<u64>, out: &mut String) -> Result<(), Failure> {
    if cpu.history.exits().next().is_none() {
        return Err(failure("there has been no VM exit"));
    }
    for exit in cpu.history.exits() {
        writeln!(out, "{}", exit_line(exit))?;
    }
    Ok(())
}

/// The exit qualification in words.
pub(crate) fn qualification(reason: u32, value: u64) -> String {
    ExitReason::from_number(reason as u16)
        .map_or_else(String::new, |reason| decode::Qualification(reason, value).to_string())
}

/// A past VM exit in a line.
pub(crate) fn exit_line(exit: &PastExit) -> String {
    let mut line =
        format!("{:>15} ns  VMCS {:#x}  RIP {:#x}  {}", exit.now, exit.vmcs, exit.rip, decode::Reason(exit.reason));
    let words = qualification(exit.reason, exit.qualification);
    if !words.is_empty() {
        line += &format!(": {words}");
    }
    if exit.interruption >> 31 != 0 {
        line += &format!(": {}", decode::Field(VmcsField::EXIT_INTERRUPTION_INFO, u64::from(exit.interruption)));
    }
    if matches!(exit.reason as u16, 48 | 49) {
        line += &format!(", guest-physical {:#x}", exit.physical);
    }
    line
}
