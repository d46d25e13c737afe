//! The debug prompt, behind Ctrl-A d: the machine stands still and is looked at, instruction by instruction if need be.

use crate::boot::HostConsole;
use crate::terminal::Cooked;
use crate::{Error, inspect};
use machine::explain::{Explainer, Kinds};
use machine::{Host, HostEvent, Machine, Outcome};
use std::time::Duration;

/// What is done after a command.
enum Next {
    /// Another command.
    Prompt,
    /// The machine goes on.
    Continue,
    /// The machine is over.
    End(Outcome),
}

/// Takes commands until the machine is to go on (`None`) or is over.
///
/// # Errors
/// When the terminal cannot be used.
pub(crate) fn run(
    machine: &mut Machine,
    console: &mut HostConsole,
    limit: Option<u64>,
) -> Result<Option<Outcome>, Error> {
    let cooked = Cooked::enter().map_err(|e| Error::new(format!("cannot use the terminal: {e}")))?;
    let mut prompt = Prompt { machine, console, limit, processor: 0 };
    prompt.processor = prompt.machine.current_processor();
    let time = prompt.machine.now();
    eprintln!(
        "\nvanderpool: stopped at {}.{:09} s; `help` lists the commands, `continue` goes on",
        time / 1_000_000_000,
        time % 1_000_000_000
    );
    let end = loop {
        eprint!("(vanderpool) ");
        let Some(line) = prompt.console.read_line() else { break Some(Outcome::Interrupted) };
        let words: Vec<&str> = line.split_whitespace().collect();
        match prompt.obey(&words) {
            Ok(Next::Prompt) => {}
            Ok(Next::Continue) => break None,
            Ok(Next::End(outcome)) => break Some(outcome),
            Err(why) => eprintln!("{why}"),
        }
    };
    // First this: what is typed as soon as the terminal shows that the prompt is over is the machine's.
    prompt.console.leave_prompt();
    drop(cooked);
    Ok(end)
}

struct Prompt<'a> {
    machine: &'a mut Machine,
    console: &'a mut HostConsole,
    limit: Option<u64>,
    /// The processor looked at.
    processor: usize,
}

impl Prompt<'_> {
    fn obey(&mut self, words: &[&str]) -> Result<Next, String> {
        match words {
            [] => {}
            ["help" | "h" | "?"] => eprint!("{}", help()),
            ["continue" | "c"] => return Ok(Next::Continue),
            ["quit" | "q"] => {
                self.console.quit();
                return Ok(Next::End(Outcome::Interrupted));
            }
            ["step" | "s"] => return self.step(1),
            ["step" | "s", count] => return self.step(inspect::number(count)?),
            ["cpu"] => eprintln!("processor {} of {}", self.processor, self.machine.processors().len()),
            ["cpu", number] => {
                let index = inspect::number(number)? as usize;
                if index >= self.machine.processors().len() {
                    return Err(format!("there are {} processors, from 0", self.machine.processors().len()));
                }
                self.processor = index;
            }
            ["explain", "off"] => self.explain_from_now_on(None),
            ["explain", "on"] => self.explain_from_now_on(Some(Kinds::usual())),
            ["explain", kinds] => self.explain_from_now_on(Some(kinds.parse()?)),
            _ => match inspect::answer(self.machine, self.processor, words) {
                Some(answer) => eprintln!("{}", answer?.trim_end()),
                None => return Err(format!("there is no command {:?}; `help` lists them", words.join(" "))),
            },
        }
        Ok(Next::Prompt)
    }

    /// `count` instructions of the processor; the others have their turns as ever.
    fn step(&mut self, count: u64) -> Result<Next, String> {
        for _ in 0..count {
            self.machine.step_processor(self.processor);
            let mut host = Stepping { console: self.console, cancelled: false };
            match self.machine.run(&mut host, self.limit) {
                Outcome::Debug { .. } => {}
                Outcome::Interrupted if host.cancelled => {
                    self.machine.set_debug_points(&[], &[]);
                    return Err(format!("processor {} did not come to its next instruction", self.processor));
                }
                outcome => return Ok(Next::End(outcome)),
            }
        }
        if let Some(Ok(line)) =
            inspect::answer(self.machine, self.processor, &["disassemble", &here(self.machine, self.processor), "1"])
        {
            eprintln!("{line}");
        }
        Ok(Next::Prompt)
    }

    fn explain_from_now_on(&mut self, kinds: Option<Kinds>) {
        let mut watchers = std::mem::take(&mut *self.machine.watchers());
        watchers.explainer = kinds.map(|kinds| {
            let sink = |explanation: &machine::explain::Explanation| {
                // The terminal is in raw mode while the machine runs.
                eprint!("{}", explanation.to_string().replace('\n', "\r\n"));
            };
            Explainer::new(kinds, Box::new(sink))
        });
        self.machine.watch(watchers);
    }
}

fn here(machine: &Machine, processor: usize) -> String {
    machine.processors().get(processor).map_or_else(String::new, |cpu| format!("{:#x}", cpu.code_linear()))
}

fn help() -> String {
    let own = "continue (c, or Ctrl-D)\n    the machine goes on\n\
               step [COUNT] (s)\n    one instruction of the processor, or so many; Ctrl-C and Enter give up\n\
               cpu [NUMBER]\n    the processor that the other commands are about\n\
               explain on | off | KINDS\n    explanations from now on, as with --explain\n\
               quit (q)\n    ends the machine\n";
    format!("{own}{}", inspect::help())
}

/// The machine's host while it does single instructions.
struct Stepping<'a> {
    console: &'a mut HostConsole,
    cancelled: bool,
}

impl Host for Stepping<'_> {
    fn poll(&mut self) -> Option<HostEvent> {
        self.cancelled |= self.console.cancelled();
        (self.cancelled || self.console.stopping()).then_some(HostEvent::Stop)
    }

    fn wait(&mut self, limit: Duration) -> Option<HostEvent> {
        std::thread::sleep(limit);
        self.poll()
    }

    fn interactive(&self) -> bool {
        self.console.interactive()
    }
}
