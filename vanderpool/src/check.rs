//! `vanderpool boot --check-engines`: both engines in lock step, and the first place where they differ.

use crate::cli::{self, Engine, Serial};
use crate::{Error, boot};
use machine::{Machine, NoHost, Outcome};

/// Instructions between two comparisons.
const STEP: u64 = 1000;
/// Instructions shown at most.
const SHOWN: usize = 24;

/// Runs two machines, one on each engine, comparing their processors all the time, and their memory at the end. Gives the exit status.
///
/// # Errors
/// As [`boot::run`]; and a text of both states when the engines differ.
pub fn run(arguments: &cli::Boot) -> Result<u8, Error> {
    let end = arguments.max_instructions.unwrap_or(u64::MAX);
    let mut ours = build(arguments, Engine::Interpreter, true)?;
    let mut theirs = build(arguments, Engine::Translator, false)?;
    let (mut at, mut before) = (0, Vec::new());
    loop {
        let start = at;
        at = (at + STEP).min(end);
        let outcomes = [ours.run(&mut NoHost, Some(at)), theirs.run(&mut NoHost, Some(at))];
        if !same(&ours, &theirs) || outcomes[0] != outcomes[1] {
            return Err(difference(arguments, start, before, &mut ours, &mut theirs)?);
        }
        if outcomes[0] != Outcome::InstructionLimit || at == end {
            let [ours, theirs] = [ours.digest(), theirs.digest()];
            if ours != theirs {
                return Err(Error::new(format!("the processors agree, memory does not: {ours} and {theirs}")));
            }
            eprintln!("vanderpool: {at} instructions, no difference; {:?}, digest {ours}", outcomes[0]);
            return Ok(0);
        }
        before = place(&ours);
    }
}

fn build(arguments: &cli::Boot, engine: Engine, speaks: bool) -> Result<Machine, Error> {
    let mut arguments = arguments.clone();
    arguments.engine = Some(engine);
    if !speaks {
        arguments.serial = Serial::None;
    }
    boot::build(&arguments)
}

fn same(a: &Machine, b: &Machine) -> bool {
    a.processors().iter().zip(b.processors()).all(|(a, b)| a.save() == b.save())
}

/// Where each processor is.
fn place(machine: &Machine) -> Vec<u64> {
    machine.processors().iter().map(|cpu| cpu.rip).collect()
}

/// A text that shows both states, and how the interpreter came there from its instruction number `start`.
fn difference(
    arguments: &cli::Boot,
    start: u64,
    before: Vec<u64>,
    ours: &mut Machine,
    theirs: &mut Machine,
) -> Result<Error, Error> {
    let index = (0..before.len())
        .find(|&index| ours.processors()[index].save() != theirs.processors()[index].save())
        .unwrap_or(0);
    // Once more, to see the way.
    let mut again = build(arguments, Engine::Interpreter, false)?;
    let mut at = 0;
    while at < start {
        at = (at + STEP).min(start);
        again.run(&mut NoHost, Some(at));
    }
    let end = ours.instructions();
    let mut way = Vec::new();
    while again.instructions() < end {
        let next = again.instructions() + 1;
        way.push(again.describe(index));
        if again.run(&mut NoHost, Some(next)) != Outcome::InstructionLimit {
            break;
        }
    }
    let way: Vec<_> =
        way.iter().rev().take(SHOWN).rev().filter_map(|text| text.lines().rev().nth(5).map(str::to_owned)).collect();
    let [a, b] = [&*ours, &*theirs].map(|machine| format!("{:#?}", machine.processors()[index].save()));
    let differing: Vec<_> =
        a.lines().zip(b.lines()).filter(|(a, b)| a != b).map(|(a, b)| format!("{} / {}", a.trim(), b.trim())).collect();
    Ok(Error::new(format!(
        "the engines differ after {end} instructions: {}\ninterpreter: {}\ntranslator: {}\nthe last instructions:\n{}",
        differing.join(", "),
        ours.describe(index),
        theirs.describe(index),
        way.join("\n")
    )))
}
