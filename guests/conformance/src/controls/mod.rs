//! For each control, its effect when it is 1 and when it is 0.

mod execution;
mod secondary;
mod transitions;

pub(crate) use secondary::{ENDLESS, SUB_PAGES};

use crate::change::{Change, Obstacle};
use crate::code::Code;
use crate::report::Report;
use crate::trial::{Base, Outcome, Trial};
use bare::println;
use bare::vmx::state::Word;
use spec::vmx::{
    EntryControls, ExitControls, ExitReason, PinBasedControls, PrimaryControls, SecondaryControls,
    SecondaryExitControls, TertiaryControls,
};

/// What is wrong, and what was seen.
pub type Verdict = Result<(), (&'static str, Outcome)>;

/// A control, and how its effect is seen.
pub struct ControlCase {
    word: Word,
    bit: u64,
    base: Base,
    /// What the VMCS has besides the control, whether it is 1 or 0.
    changes: &'static [Change],
    effect: Effect,
}

/// How a control's effect is seen.
enum Effect {
    /// The guest's first instruction exits for this reason when the control is 1; else the guest comes to its end.
    Exits(ExitReason, Code),
    /// The guest comes to its end when the control is 1; else the first instruction is undefined.
    Defines(Code),
    /// Otherwise: with the control as the second argument says, the guest (whose VMCS is ready) is entered and looked at.
    Seen(fn(&mut Trial, bool) -> Verdict),
}

const fn case(word: Word, bit: u64, changes: &'static [Change], effect: Effect) -> ControlCase {
    ControlCase { word, bit, base: Base::Long, changes, effect }
}

impl ControlCase {
    const fn on(self, base: Base) -> Self {
        Self { base, ..self }
    }
}

/// Every named bit of a control word, with its name.
pub fn names(word: Word) -> impl Iterator<Item = (u64, &'static str)> {
    let narrow: &[(u32, &str)] = match word {
        Word::Pin => PinBasedControls::NAMED,
        Word::Primary => PrimaryControls::NAMED,
        Word::Secondary => SecondaryControls::NAMED,
        Word::Exit => ExitControls::NAMED,
        Word::Entry => EntryControls::NAMED,
        Word::Tertiary | Word::SecondaryExit => &[],
    };
    let wide: &[(u64, &str)] = match word {
        Word::Tertiary => TertiaryControls::NAMED,
        Word::SecondaryExit => SecondaryExitControls::NAMED,
        _ => &[],
    };
    narrow.iter().map(|(bit, name)| (u64::from(*bit), *name)).chain(wide.iter().copied())
}

const fn word_name(word: Word) -> &'static str {
    match word {
        Word::Pin => "pin",
        Word::Primary => "primary",
        Word::Secondary => "secondary",
        Word::Tertiary => "tertiary",
        Word::Exit => "exit",
        Word::SecondaryExit => "secondary exit",
        Word::Entry => "entry",
    }
}

fn cases() -> impl Iterator<Item = &'static ControlCase> {
    [execution::CASES, secondary::CASES, transitions::CASES].into_iter().flatten()
}

/// Runs every case, those in x2APIC mode or the others.
pub fn run(trial: &mut Trial, report: &mut Report, x2apic: bool) {
    for (index, case) in cases().enumerate().filter(|(_, case)| crate::needs_x2apic(case.changes) == x2apic) {
        let number = cases().take(index).filter(|other| (other.word, other.bit) == (case.word, case.bit)).count();
        let name = crate::change::control_name(case.word, case.bit);
        let name = format_args!("{} {name}", word_name(case.word));
        let verdicts = run_case(trial, case, true).and_then(|on| Ok((on, run_case(trial, case, false)?)));
        match verdicts {
            Ok((Ok(()), Ok(()))) => report.ok("control", name, number),
            Ok((Err((what, outcome)), _)) => {
                report.fail("control", name, number, format_args!("when 1, {what}: {outcome}"));
            }
            Ok((_, Err((what, outcome)))) => {
                report.fail("control", name, number, format_args!("when 0, {what}: {outcome}"));
            }
            Err(obstacle) => report.skip("control", name, number, obstacle),
        }
    }
}

/// Controls whose effect is not looked at though a processor may announce them, and why.
const UNTESTED: &[(Word, u64, &str)] = &[
    (Word::Entry, EntryControls::ENTRY_TO_SMM as u64, "only in SMM"),
    (Word::Entry, EntryControls::DEACTIVATE_DUAL_MONITOR as u64, "only in SMM"),
];

/// Says which announced controls have no case.
pub fn find_missing(report: &mut Report) {
    for word in Word::ALL {
        let (required, allowed) = word.limits();
        for (bit, name) in names(word) {
            if cases().any(|case| case.word == word && case.bit == bit) {
                continue;
            }
            let untested = UNTESTED.iter().find(|(other, control, _)| (*other, *control) == (word, bit));
            let name = format_args!("{} {name}", word_name(word));
            if let Some((_, _, why)) = untested {
                println!("none control {name}: {why}");
            } else if allowed & !required & bit != 0 {
                report.fail("control", name, 0, "is announced, but has no case");
            } else {
                println!("none control {name}: not announced");
            }
        }
    }
}

fn run_case(trial: &mut Trial, case: &ControlCase, on: bool) -> Result<Verdict, Obstacle> {
    trial.prepare(case.base)?;
    let field = case.word.field();
    trial.apply(case.changes)?;
    trial.apply(&[Change::Or(field, case.bit)])?;
    if !on {
        trial.apply(&[Change::Clear(field, case.bit)])?;
    }
    let code = match case.effect {
        Effect::Seen(look) => return Ok(look(trial, on)),
        Effect::Exits(_, code) | Effect::Defines(code) => code,
    };
    trial.guest_code(code);
    let outcome = trial.enter();
    let right = match case.effect {
        Effect::Exits(reason, _) if on => outcome.is(reason),
        Effect::Defines(_) if !on => outcome.delivered() == Some(INVALID_OPCODE),
        _ => outcome.is_done(),
    };
    Ok(expect(right, "another end", outcome))
}

/// The vector of #UD.
const INVALID_OPCODE: u8 = 6;

/// `what` is wrong unless the outcome is `right`.
fn expect(right: bool, what: &'static str, outcome: Outcome) -> Verdict {
    if right { Ok(()) } else { Err((what, outcome)) }
}

/// Enters the guest at `code`; wrong unless it comes to its end.
fn to_the_end(trial: &mut Trial, code: Code) -> Result<Outcome, (&'static str, Outcome)> {
    trial.guest_code(code);
    let outcome = trial.enter();
    if outcome.is_done() { Ok(outcome) } else { Err(("the guest does not come to its end", outcome)) }
}
