//! Why a VM entry failed, an access faulted, a guest died: in words, with the values.
//!
//! An [`Explanation`] is data, made at the moment of the event from the processor as it is then. It is shown as text (`Display`) or in any
//! format that `serde` has. [`Explainer`] makes them while a machine runs.

mod entry;
mod explainer;
mod faults;
mod findings;
mod remapping;
#[cfg(test)]
mod tests;
pub mod walks;

pub use entry::{entry_failure, instruction_failure};
pub use explainer::{Explainer, Kinds, Sink};
pub use faults::{ept_exit, page_fault, triple_fault};

use serde::{Serialize, Serializer};
use spec::vmx::{EntryCheck, VmcsField, decode};
use std::fmt;

/// What an explanation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// VMLAUNCH or VMRESUME failed a VM-entry check.
    EntryFailure,
    /// A VMX instruction ended in VMfail.
    InstructionFailure,
    /// An EPT misconfiguration.
    EptMisconfiguration,
    /// An EPT violation.
    EptViolation,
    /// A page fault.
    PageFault,
    /// A triple fault, of a guest or outside VMX non-root operation.
    TripleFault,
    /// A request or an interrupt that VT-d blocked.
    Remapping,
}

/// The rule broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// The check's name in `spec`.
    pub name: &'static str,
    /// The manual.
    #[serde(skip)]
    pub manual: &'static str,
    /// The section of SDM Vol. 3C; for VT-d the fault condition in its own terms.
    pub section: &'static str,
    /// The rule in a sentence.
    pub rule: &'static str,
}

impl From<EntryCheck> for Rule {
    fn from(check: EntryCheck) -> Self {
        Self { name: check.name(), manual: "SDM Vol. 3C", section: check.section(), rule: check.rule() }
    }
}

/// A VMCS field with its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldValue {
    /// Its name in the manual.
    pub name: &'static str,
    /// Its encoding.
    #[serde(serialize_with = "hexadecimal_32")]
    pub encoding: u32,
    /// Its value.
    #[serde(serialize_with = "hexadecimal")]
    pub value: u64,
    /// The value in words; empty where the number says it all.
    pub meaning: String,
    /// The rule is about this field.
    pub wrong: bool,
}

impl FieldValue {
    fn new(field: VmcsField, value: u64, wrong: bool) -> Self {
        let name = field.name().unwrap_or("unknown field");
        Self { name, encoding: field.0, value, meaning: decode::Field(field, value).to_string(), wrong }
    }
}

/// Lines under a title: a walk, past VM exits, code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Section {
    /// What the lines are.
    pub title: &'static str,
    /// The lines.
    pub lines: Vec<String>,
}

/// Why something failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// What it is about.
    pub kind: Kind,
    /// The processor, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processor: Option<usize>,
    /// The function, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requester: Option<String>,
    /// Virtual time in nanoseconds.
    #[serde(rename = "time_ns")]
    pub time: u64,
    /// RIP of the instruction.
    #[serde(serialize_with = "optional_hexadecimal", skip_serializing_if = "Option::is_none")]
    pub rip: Option<u64>,
    /// The current VMCS.
    #[serde(serialize_with = "optional_hexadecimal")]
    pub vmcs: Option<u64>,
    /// What happened, in a line.
    pub title: String,
    /// The named check that failed.
    pub check: Option<Rule>,
    /// What is wrong, bit by bit.
    pub findings: Vec<String>,
    /// What would satisfy the rule.
    pub remedy: Option<String>,
    /// The fields involved.
    pub fields: Vec<FieldValue>,
    /// More to look at.
    pub sections: Vec<Section>,
}

impl Explanation {
    fn new(cpu: &processor::Cpu, kind: Kind, title: String) -> Self {
        Self {
            kind,
            processor: Some(cpu.index),
            requester: None,
            time: cpu.now(),
            rip: Some(cpu.rip),
            vmcs: (cpu.vmx.on && cpu.vmx.vmcs.is_current()).then_some(cpu.vmx.vmcs.pointer),
            title,
            check: None,
            findings: Vec::new(),
            remedy: None,
            fields: Vec::new(),
            sections: Vec::new(),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        let place = |f: &mut fmt::Formatter<'_>| {
            f.write_str("  where    ")?;
            if let Some(requester) = &self.requester {
                write!(f, "function {requester}")?;
            }
            if let (Some(processor), Some(rip)) = (self.processor, self.rip) {
                write!(f, "processor {processor}, RIP {rip:#x}")?;
            }
            if let Some(vmcs) = self.vmcs {
                write!(f, ", VMCS {vmcs:#x}")?;
            }
            writeln!(f, ", at {}.{:09} s", self.time / 1_000_000_000, self.time % 1_000_000_000)
        };
        place(f)?;
        if let Some(Rule { name, manual, section, rule }) = self.check {
            writeln!(f, "  check    {name} ({manual}, {section})")?;
            writeln!(f, "  rule     {rule}")?;
        }
        for finding in &self.findings {
            writeln!(f, "  found    {finding}")?;
        }
        if let Some(remedy) = &self.remedy {
            writeln!(f, "  remedy   {remedy}")?;
        }
        for FieldValue { name, encoding, value, meaning, wrong } in &self.fields {
            let mark = if *wrong { "*" } else { " " };
            write!(f, "  field  {mark} {name} ({encoding:04x}) = {value:#x}")?;
            if meaning.is_empty() { writeln!(f)? } else { writeln!(f, ": {meaning}")? }
        }
        for Section { title, lines } in &self.sections {
            writeln!(f, "  {title}:")?;
            for line in lines {
                writeln!(f, "    {line}")?;
            }
        }
        Ok(())
    }
}

fn hexadecimal<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{value:#x}"))
}

fn hexadecimal_32<S: Serializer>(value: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{value:#06x}"))
}

fn optional_hexadecimal<S: Serializer>(value: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => hexadecimal(value, serializer),
        None => serializer.serialize_none(),
    }
}
