//! Many cases, counted by mnemonic.

use crate::compare::differences;
use crate::generate::{self, Case};
use crate::native::Host;
use crate::ours::Ours;
use crate::random::Random;
use crate::selection::{self, FEATURES};
use crate::state::{SCRATCH_SIZE, State};
use iced_x86::{Code, Formatter, NasmFormatter};
use std::collections::BTreeMap;

/// States tried with one encoding.
const STATES: u64 = 8;

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many cases in all.
    pub cases: u64,
    /// Seed; the same seed gives the same cases.
    pub seed: u64,
    /// Only instructions with this mnemonic or this name of iced's `Code`.
    pub only: Option<String>,
    /// Differences to describe for each code.
    pub show: usize,
}

/// What came of one mnemonic.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Cases run.
    pub cases: u64,
    /// Cases that raised an exception on the host.
    pub faults: u64,
    /// Cases that differed.
    pub different: u64,
}

/// The result.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// By mnemonic.
    pub tallies: BTreeMap<String, Tally>,
    /// Descriptions of differences.
    pub descriptions: Vec<String>,
    /// Codes of which no instruction could be made.
    pub unmade: Vec<Code>,
}

/// Runs a plan.
///
/// # Errors
/// In words, if the host cannot be used.
pub fn run(plan: &Plan) -> Result<Report, String> {
    let mut host = Host::new()?;
    let mut ours = Ours::new(|feature| FEATURES.contains(&feature));
    let codes: Vec<Code> = selection::checked()
        .into_iter()
        .filter(|code| match &plan.only {
            Some(name) => {
                let mnemonic = format!("{:?}", code.mnemonic());
                mnemonic.eq_ignore_ascii_case(name) || format!("{code:?}").eq_ignore_ascii_case(name)
            }
            None => true,
        })
        .collect();
    if codes.is_empty() {
        return Err("no such instruction is checked; give a mnemonic, as ADDPS".into());
    }
    let each = (plan.cases / codes.len() as u64 / STATES).max(1);
    let mut report = Report::default();
    let mut memory = Box::new([0u8; SCRATCH_SIZE]);
    for &code in &codes {
        let mut random = Random(plan.seed ^ (code as u64) << 32);
        for byte in memory.iter_mut() {
            *byte = random.draw() as u8;
        }
        let mut shown = 0;
        let mut made = false;
        for _ in 0..each {
            let Some(case) = generate::instruction(code, &mut random) else { continue };
            made = true;
            host.set_code(&case.bytes);
            ours.set_code(&case.bytes);
            for _ in 0..STATES {
                let before = generate::state(&case, &mut random, &mut memory);
                let (found, faulted) = one(&mut host, &mut ours, &case, &before, &memory);
                let tally = report.tallies.entry(format!("{:?}", code.mnemonic()).to_lowercase()).or_default();
                tally.cases += 1;
                tally.faults += u64::from(faulted);
                if !found.is_empty() {
                    tally.different += 1;
                    if shown < plan.show {
                        shown += 1;
                        report.descriptions.push(describe(&case, &before, &found));
                    }
                }
            }
        }
        if !made {
            report.unmade.push(code);
        }
    }
    Ok(report)
}

fn one(
    host: &mut Host,
    ours: &mut Ours,
    case: &Case,
    before: &State,
    memory: &[u8; SCRATCH_SIZE],
) -> (Vec<String>, bool) {
    host.set_memory(memory);
    ours.set_memory(memory);
    let theirs = host.run(before, case.bytes.len());
    let mine = ours.run(before);
    let (mut host_memory, mut our_memory) = ([0; SCRATCH_SIZE], [0; SCRATCH_SIZE]);
    host.memory(&mut host_memory);
    ours.memory(&mut our_memory);
    (differences(host.maker(), case, before, &theirs, &mine, &host_memory, &our_memory), theirs.fault.is_some())
}

fn describe(case: &Case, before: &State, found: &[String]) -> String {
    let mut text = String::new();
    NasmFormatter::new().format(&case.instruction, &mut text);
    let operands: Vec<String> = (0..case.instruction.op_count())
        .filter(|&i| case.instruction.op_kind(i) == iced_x86::OpKind::Register)
        .map(|i| {
            let register = case.instruction.op_register(i);
            let n = register.number();
            if register.is_vector_register() {
                let quads: Vec<String> = (0..4).map(|q| format!("{:x}", before.u64(State::vector(n, q)))).collect();
                format!("{register:?}={}", quads.join(":"))
            } else if register.is_mm() || register.is_st() {
                let (significand, sign_exponent) = before.st(n);
                format!("{register:?}={sign_exponent:x}:{significand:x}")
            } else if n < 16 {
                format!("{register:?}={:x}", before.gpr[n])
            } else {
                String::new()
            }
        })
        .collect();
    format!(
        "{text} [{:?}, {:02x?}] with {} rax={:x} rcx={:x} rflags={:x} mxcsr={:x} fcw={:x} fsw={:x} ftw={:x} st0={:x?} st1={:x?}\n    {}",
        case.instruction.code(),
        case.bytes,
        operands.join(" "),
        before.gpr[0],
        before.gpr[1],
        before.rflags,
        before.mxcsr(),
        before.u16(0),
        before.u16(2),
        before.xsave[4],
        before.st(0),
        before.st(1),
        found.join("\n    ")
    )
}
