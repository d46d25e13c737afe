//! Explaining while a machine runs.

use super::remapping::remapping_fault;
use super::{Explanation, Kind, entry_failure, ept_exit, instruction_failure, page_fault, triple_fault};
use chipset::vtd::faults::FaultReport;
use processor::Cpu;
use processor::observe::Happening;
use spec::vmx::{ExitReason, InterruptionType, VmInstructionError};
use spec::x86::exceptions::Vector;
use std::collections::BTreeMap;
use std::str::FromStr;

/// Explanations of one kind, after which further ones are only counted.
const LIMIT: u32 = 200;

/// Which kinds of events are explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kinds(u32);

const NAMES: &[(&str, Kind)] = &[
    ("entry", Kind::EntryFailure),
    ("instruction", Kind::InstructionFailure),
    ("misconfiguration", Kind::EptMisconfiguration),
    ("violation", Kind::EptViolation),
    ("page-fault", Kind::PageFault),
    ("triple-fault", Kind::TripleFault),
    ("remapping", Kind::Remapping),
];

impl Kinds {
    /// What is a mistake whenever it happens: VM entries and VMX instructions that fail, EPT misconfigurations, triple faults, what VT-d blocks. EPT violations
    /// and page faults are a hypervisor's and a kernel's daily work.
    #[must_use]
    pub fn usual() -> Self {
        let kinds = [
            Kind::EntryFailure,
            Kind::InstructionFailure,
            Kind::EptMisconfiguration,
            Kind::TripleFault,
            Kind::Remapping,
        ];
        Self(kinds.into_iter().fold(0, |set, kind| set | 1 << kind as u32))
    }

    /// Whether `kind` is among them.
    #[must_use]
    pub fn has(self, kind: Kind) -> bool {
        self.0 >> kind as u32 & 1 != 0
    }
}

impl Default for Kinds {
    fn default() -> Self {
        Self::usual()
    }
}

impl FromStr for Kinds {
    type Err = String;

    /// Names with commas between them; `all`; `usual`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut set = 0;
        for word in text.split(',') {
            set |= match word {
                "all" => u32::MAX,
                "usual" => Self::usual().0,
                word => match NAMES.iter().find(|(name, _)| *name == word) {
                    Some((_, kind)) => 1 << *kind as u32,
                    None => {
                        let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
                        return Err(format!("{word:?} is not explained; there are: {}, usual, all", names.join(", ")));
                    }
                },
            };
        }
        Ok(Self(set))
    }
}

/// Where explanations go.
pub type Sink = Box<dyn FnMut(&Explanation) + Send>;

/// Explains what happens on a machine's processors. The same thing happening again is only counted.
pub struct Explainer {
    kinds: Kinds,
    sink: Sink,
    /// How often each was seen, by what makes it the same, with its title.
    seen: BTreeMap<(Kind, u64, u64), (String, u64)>,
    told: [u32; NAMES.len()],
}

impl Explainer {
    /// An explainer of `kinds`.
    #[must_use]
    pub fn new(kinds: Kinds, sink: Sink) -> Self {
        Self { kinds, sink, seen: BTreeMap::new(), told: [0; NAMES.len()] }
    }

    /// What happened more than once: the title and the number of times.
    pub fn repeated(&self) -> impl Iterator<Item = (&str, u64)> {
        self.seen.values().filter(|(_, count)| *count > 1).map(|(title, count)| (title.as_str(), *count))
    }

    /// Takes notice of what VT-d blocked at `time`.
    pub fn blocked(&mut self, report: &FaultReport, time: u64) {
        let key = (u64::from(report.source) << 8 | report.reason as u64, report.address >> 12);
        self.tell(Kind::Remapping, key, || remapping_fault(report, time));
    }

    /// Takes notice of what happened on `cpu`.
    pub fn observe(&mut self, cpu: &Cpu, what: Happening<'_>) {
        match what {
            Happening::EntryFailed { failed, qualification } => {
                let key = (failed.check as u64, failed.value);
                self.tell(Kind::EntryFailure, key, || entry_failure(cpu, failed, qualification));
            }
            // The failed check was told before.
            Happening::InstructionFailed(Some(
                VmInstructionError::InvalidControls | VmInstructionError::InvalidHostState,
            )) => {}
            Happening::InstructionFailed(error) => {
                let rip = cpu.history.instruction.map_or(0, |(_, rip)| rip);
                let key = (error.map_or(0, |error| error as u64), rip);
                self.tell(Kind::InstructionFailure, key, || instruction_failure(cpu, error));
            }
            Happening::Exit(exit) => match exit.reason {
                ExitReason::EptMisconfiguration => {
                    let key = (exit.physical >> 12, cpu.vmx.eptp);
                    self.tell(Kind::EptMisconfiguration, key, || ept_exit(cpu, exit));
                }
                ExitReason::EptViolation => {
                    let key = (exit.physical >> 12, exit.qualification & 0x3f);
                    self.tell(Kind::EptViolation, key, || ept_exit(cpu, exit));
                }
                ExitReason::TripleFault => {
                    self.tell(Kind::TripleFault, (cpu.now(), cpu.rip), || triple_fault(cpu));
                }
                ExitReason::ExceptionOrNmi
                    if exit.interruption.kind() == InterruptionType::HardwareException
                        && exit.interruption.vector() == Vector::PageFault as u8 =>
                {
                    self.page_fault(cpu, exit.qualification, exit.error_code);
                }
                _ => {}
            },
            Happening::Delivering(event) if event.vector == Vector::PageFault as u8 => {
                if let Some(error) = event.error {
                    self.page_fault(cpu, cpu.cr2, error);
                }
            }
            Happening::TripleFault => {
                self.tell(Kind::TripleFault, (cpu.now(), cpu.rip), || triple_fault(cpu));
            }
            _ => {}
        }
    }

    fn page_fault(&mut self, cpu: &Cpu, address: u64, error: u32) {
        self.tell(Kind::PageFault, (address >> 12, u64::from(error)), || page_fault(cpu, address, error));
    }

    fn tell(&mut self, kind: Kind, key: (u64, u64), explain: impl FnOnce() -> Explanation) {
        if !self.kinds.has(kind) {
            return;
        }
        if let Some((_, count)) = self.seen.get_mut(&(kind, key.0, key.1)) {
            *count += 1;
            return;
        }
        let told = &mut self.told[kind as usize];
        if *told == LIMIT {
            return;
        }
        *told += 1;
        let explanation = explain();
        (self.sink)(&explanation);
        let title = match explanation.check {
            Some(rule) => format!("{}: {}", rule.name, explanation.title),
            None => explanation.title,
        };
        self.seen.insert((kind, key.0, key.1), (title, 1));
    }
}
