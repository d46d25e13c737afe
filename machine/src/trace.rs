//! Traces: what VT-x and the rest of a processor did, with virtual time, as lines of text or for Perfetto and Chrome (`about:tracing`).
//!
//! In the second format each processor is a thread. The time in a guest is a slice, the time from a VM exit to the next entry another,
//! named for the reason; everything else is an instant.

use crate::dump::qualification;
use processor::Cpu;
use processor::observe::Happening;
use processor::system::event::{Event, EventKind};
use serde::{Deserialize, Serialize};
use spec::vmx::{VmcsField, decode};
use spec::x86::decode::{Exception, Msr};
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::str::FromStr;

/// The kind of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TraceKind {
    /// A VM entry.
    Entry,
    /// A VM exit.
    Exit,
    /// An event injected by a VM entry.
    Injection,
    /// A VM entry or a VMX instruction that failed.
    Failure,
    /// An interrupt or NMI delivered through the IDT.
    Interrupt,
    /// An exception delivered through the IDT.
    Exception,
    /// RDMSR or WRMSR.
    Msr,
    /// IN, OUT, INS or OUTS.
    Io,
    /// A triple fault or VMX abort.
    Shutdown,
}

impl TraceKind {
    /// Every kind, with its name.
    pub const ALL: &'static [(Self, &'static str)] = &[
        (Self::Entry, "entry"),
        (Self::Exit, "exit"),
        (Self::Injection, "injection"),
        (Self::Failure, "failure"),
        (Self::Interrupt, "interrupt"),
        (Self::Exception, "exception"),
        (Self::Msr, "msr"),
        (Self::Io, "io"),
        (Self::Shutdown, "shutdown"),
    ];

    /// The kind's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }
}

impl FromStr for TraceKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.iter().find(|(_, name)| *name == text).map(|(kind, _)| *kind).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|(_, name)| *name).collect();
            format!("{text:?} is no kind of record; there are: {}", names.join(", "))
        })
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Virtual time in nanoseconds.
    pub time: u64,
    /// The processor.
    pub processor: usize,
    /// What kind of thing.
    pub kind: TraceKind,
    /// What happened, in few words: the exit reason, the exception.
    pub name: String,
    /// More of it.
    pub detail: String,
    /// RIP.
    pub rip: u64,
    /// The VMCS, of a guest that runs or is entered or left.
    pub vmcs: Option<u64>,
}

/// Which records are wanted. An empty set stands for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Kinds.
    pub kinds: BTreeSet<TraceKind>,
    /// Processors.
    pub processors: BTreeSet<usize>,
    /// VMCSs. A record that belongs to none is then not wanted.
    pub vmcss: BTreeSet<u64>,
}

impl Filter {
    /// Whether a record like this is wanted.
    #[must_use]
    pub fn admits(&self, kind: TraceKind, processor: usize, vmcs: Option<u64>) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&kind))
            && (self.processors.is_empty() || self.processors.contains(&processor))
            && (self.vmcss.is_empty() || vmcs.is_some_and(|vmcs| self.vmcss.contains(&vmcs)))
    }
}

impl FromStr for Filter {
    type Err = String;

    /// Kinds, `cpu=N` and `vmcs=ADDRESS` with commas between them.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut filter = Self::default();
        for word in text.split(',').filter(|word| !word.is_empty()) {
            if let Some(number) = word.strip_prefix("cpu=") {
                filter.processors.insert(number.parse().map_err(|_| format!("{number:?} is no processor's number"))?);
            } else if let Some(address) = word.strip_prefix("vmcs=") {
                let digits = address.strip_prefix("0x").unwrap_or(address);
                let parsed = u64::from_str_radix(digits, 16);
                filter.vmcss.insert(parsed.map_err(|_| format!("{address:?} is no address of a VMCS"))?);
            } else {
                filter.kinds.insert(word.parse().map_err(|why: String| format!("{why}, cpu=N, vmcs=ADDRESS"))?);
            }
        }
        Ok(filter)
    }
}

/// How a trace is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A line for each record.
    Text,
    /// The JSON that Perfetto and Chrome read.
    Chrome,
    /// JSON, a [`Record`] a line.
    Records,
}

/// The record in a line of a trace in [`Format::Chrome`] or [`Format::Records`]; `None` for lines around the records.
///
/// # Errors
/// When the line is of no such trace.
pub fn read_record(line: &str) -> Result<Option<Record>, serde_json::Error> {
    /// An event of Chrome's that holds a record; others have no arguments of this kind.
    #[derive(Deserialize)]
    struct Event {
        args: Option<serde_json::Value>,
    }
    let text = line.trim().trim_end_matches(',');
    if matches!(text, "" | "]}") || text.starts_with("{\"displayTimeUnit\"") {
        return Ok(None);
    }
    let value: serde_json::Value = serde_json::from_str(text)?;
    if value.get("ph").is_none() {
        return serde_json::from_value(value).map(Some);
    }
    match serde_json::from_value(value)? {
        Event { args: Some(record) } if record.get("kind").is_some() => serde_json::from_value(record).map(Some),
        Event { .. } => Ok(None),
    }
}

/// Writes records.
pub struct Tracer {
    filter: Filter,
    format: Format,
    out: Box<dyn Write + Send>,
    /// Processors that have a slice open.
    open: BTreeSet<usize>,
    known: BTreeSet<usize>,
    records: u64,
    failed: Option<io::Error>,
}

impl Tracer {
    /// A tracer that writes to `out`.
    #[must_use]
    pub fn new(filter: Filter, format: Format, out: Box<dyn Write + Send>) -> Self {
        let (open, known) = (BTreeSet::new(), BTreeSet::new());
        let mut tracer = Self { filter, format, out, open, known, records: 0, failed: None };
        if format == Format::Chrome {
            tracer.put("{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n");
            tracer.put("{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":0,\"args\":{\"name\":\"vanderpool\"}}");
        }
        tracer
    }

    fn put(&mut self, text: &str) {
        if self.failed.is_none()
            && let Err(error) = self.out.write_all(text.as_bytes())
        {
            self.failed = Some(error);
        }
    }

    /// Writes `record` if the filter admits it.
    pub fn record(&mut self, record: &Record) {
        if !self.filter.admits(record.kind, record.processor, record.vmcs) {
            return;
        }
        self.records += 1;
        match self.format {
            Format::Text => self.put(&text_line(record)),
            Format::Chrome => self.put_event(record),
            Format::Records => self.put(&(json(record) + "\n")),
        }
    }

    fn put_event(&mut self, record: &Record) {
        let Record { time, processor, kind, name, .. } = record;
        let stamp = format!("{}.{:03}", time / 1000, time % 1000);
        if self.known.insert(*processor) {
            self.put(&format!(
                ",\n{{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":0,\"tid\":{processor},\"args\":{{\"name\":\"processor {processor}\"}}}}"
            ));
        }
        let slice = matches!(kind, TraceKind::Entry | TraceKind::Exit);
        if slice && !self.open.insert(*processor) {
            self.put(&format!(",\n{{\"ph\":\"E\",\"pid\":0,\"tid\":{processor},\"ts\":{stamp}}}"));
        }
        let shown = match (kind, record.vmcs) {
            (TraceKind::Entry, Some(vmcs)) => format!("guest {vmcs:#x}"),
            (TraceKind::Entry | TraceKind::Exit, _) => name.clone(),
            _ => format!("{}: {name}", kind.name()),
        };
        let phase = if slice { "\"ph\":\"B\"" } else { "\"ph\":\"i\",\"s\":\"t\"" };
        // Texts of ours and numbers: encoding them cannot fail.
        let (shown, arguments) = (json(&shown), json(record));
        self.put(&format!(
            ",\n{{\"name\":{shown},\"cat\":\"{}\",{phase},\"pid\":0,\"tid\":{processor},\"ts\":{stamp},\"args\":{arguments}}}",
            kind.name()
        ));
    }

    /// Ends the trace; gives the number of records.
    ///
    /// # Errors
    /// When something could not be written, now or before.
    pub fn finish(&mut self) -> io::Result<u64> {
        if self.format == Format::Chrome {
            self.put("\n]}\n");
        }
        match self.failed.take() {
            Some(error) => Err(error),
            None => self.out.flush().map(|()| self.records),
        }
    }

    /// Takes notice of what happened on `cpu`.
    pub fn observe(&mut self, cpu: &Cpu, what: Happening<'_>) {
        let Some(kind) = kind_of(what) else { return };
        let vmcs = match kind {
            TraceKind::Entry | TraceKind::Exit | TraceKind::Injection | TraceKind::Failure => {
                cpu.vmx.vmcs.is_current().then_some(cpu.vmx.vmcs.pointer)
            }
            _ => cpu.vmx.non_root.then_some(cpu.vmx.vmcs.pointer),
        };
        if !self.filter.admits(kind, cpu.index, vmcs) {
            return;
        }
        let (name, detail) = describe(cpu, what);
        let record = Record { time: cpu.now(), processor: cpu.index, kind, name, detail, rip: cpu.rip, vmcs };
        self.record(&record);
    }
}

fn json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn kind_of(what: Happening<'_>) -> Option<TraceKind> {
    Some(match what {
        Happening::Entry { .. } => TraceKind::Entry,
        Happening::Injection(_) => TraceKind::Injection,
        Happening::Exit(_) => TraceKind::Exit,
        Happening::EntryFailed { .. } | Happening::InstructionFailed(_) => TraceKind::Failure,
        Happening::Delivering(Event { kind: EventKind::External | EventKind::Nmi, .. }) => TraceKind::Interrupt,
        Happening::Delivering(_) => TraceKind::Exception,
        Happening::DeliveryFailed => return None,
        Happening::TripleFault | Happening::VmxAbort(_) => TraceKind::Shutdown,
        Happening::Msr { .. } => TraceKind::Msr,
        Happening::Port { .. } => TraceKind::Io,
    })
}

fn event(event: Event) -> (String, String) {
    let name = match event.kind {
        EventKind::External => format!("interrupt {:#04x}", event.vector),
        EventKind::Nmi => "NMI".to_owned(),
        EventKind::SoftwareInterrupt => format!("INT {:#04x}", event.vector),
        _ => Exception(event.vector).to_string(),
    };
    (name, event.error.map_or_else(String::new, |error| format!("error code {error:#x}")))
}

fn describe(cpu: &Cpu, what: Happening<'_>) -> (String, String) {
    match what {
        Happening::Entry { launch } => (if launch { "VMLAUNCH" } else { "VMRESUME" }.to_owned(), String::new()),
        Happening::Exit(exit) => {
            let mut detail = qualification(exit.reason as u32, exit.qualification);
            let mut add = |text: String| {
                detail += if detail.is_empty() { "" } else { ", " };
                detail += &text;
            };
            if exit.interruption.is_valid() {
                add(decode::Field(VmcsField::EXIT_INTERRUPTION_INFO, u64::from(exit.interruption.0)).to_string());
            }
            match exit.reason {
                spec::vmx::ExitReason::EptViolation | spec::vmx::ExitReason::EptMisconfiguration => {
                    add(format!("guest-physical {:#x}", exit.physical));
                }
                spec::vmx::ExitReason::Rdmsr | spec::vmx::ExitReason::Wrmsr => {
                    add(Msr(cpu.regs[processor::cpu::RCX] as u32).to_string());
                }
                _ => {}
            }
            (exit.reason.text().to_owned(), detail)
        }
        Happening::Injection(injected) => event(injected),
        Happening::EntryFailed { failed, .. } => ("VM entry".to_owned(), failed.to_string()),
        Happening::InstructionFailed(error) => {
            let name = cpu.history.instruction.map_or("VMX instruction", |(reason, _)| reason.text());
            (name.to_owned(), error.map_or("VMfailInvalid", |error| error.text()).to_owned())
        }
        Happening::Delivering(delivered) => {
            let (name, mut detail) = event(delivered);
            if delivered.vector == 14 && delivered.kind == EventKind::HardwareException {
                detail += &format!(", linear {:#x}", cpu.cr2);
            }
            (name, detail)
        }
        Happening::DeliveryFailed => (String::new(), String::new()),
        Happening::TripleFault => ("triple fault".to_owned(), String::new()),
        Happening::VmxAbort(indicator) => ("VMX abort".to_owned(), format!("indicator {indicator}")),
        Happening::Msr { number, value, write } => {
            (format!("{} {}", if write { "WRMSR" } else { "RDMSR" }, Msr(number)), format!("{value:#x}"))
        }
        Happening::Port { port, size, value, write } => (
            format!("{} {port:#x}", if write { "OUT" } else { "IN" }),
            format!("{value:#0width$x}", width = 2 + 2 * usize::from(size)),
        ),
    }
}

/// A record as a line of text.
#[must_use]
pub fn text_line(record: &Record) -> String {
    let Record { time, processor, kind, name, detail, rip, vmcs } = record;
    let vmcs = vmcs.map_or_else(|| "-".to_owned(), |vmcs| format!("{vmcs:#x}"));
    let gap = if detail.is_empty() { "" } else { ": " };
    let (seconds, nanoseconds) = (time / 1_000_000_000, time % 1_000_000_000);
    format!(
        "{seconds:>5}.{nanoseconds:09} cpu{processor} {vmcs:>10} {rip:016x} {:<9} {name}{gap}{detail}\n",
        kind.name()
    )
}
