//! Looks at a standing machine, in words that the debug prompt and gdb's `monitor` share. None of them changes anything.

use machine::{DUMPS, Machine};
use processor::decode::disassemble;
use std::fmt::Write;

/// Bytes of memory shown at most.
const MOST_BYTES: u64 = 0x1_0000;
/// Instructions shown unless a number is given, and at most.
const INSTRUCTIONS: u64 = 10;
const MOST_INSTRUCTIONS: u64 = 1000;

/// What the words are, for a help text.
pub(crate) fn help() -> String {
    let mut text = String::from("dump NAME ..\n");
    for (name, arguments, what) in DUMPS {
        let _ = writeln!(text, "    {name} {arguments}: {what}");
    }
    text.push_str(
        "disassemble [ADDRESS [COUNT]]\n    code, by its linear address; at RIP unless told otherwise\n\
         memory ADDRESS [COUNT]\n    bytes by their linear address, through paging and EPT as they are now\n\
         physical ADDRESS [COUNT]\n    bytes of physical memory\n\
         explain\n    why the last VM entry failed, or what led to the triple fault\n\
         time\n    virtual time and instructions\n\
         digest\n    of the machine's state\n",
    );
    text
}

/// The answer to `words`, as seen by processor `index`. `None`: they are no words of ours.
pub(crate) fn answer(machine: &Machine, index: usize, words: &[&str]) -> Option<Result<String, String>> {
    Some(match words {
        ["dump", rest @ ..] => machine.dump(&dump_of(index, rest)),
        ["disassemble" | "disas", rest @ ..] => code(machine, index, rest),
        ["memory", address] => memory(machine, index, address, "64"),
        ["memory", address, count] => memory(machine, index, address, count),
        ["physical", address] => physical(machine, address, "64"),
        ["physical", address, count] => physical(machine, address, count),
        ["explain"] => explain(machine, index),
        ["time"] => Ok(format!("{} ns, {} instructions", machine.now(), machine.instructions())),
        ["digest"] => Ok(machine.digest()),
        // What can be dumped can be asked for by its name alone.
        [name, ..] if *name == "regs" || DUMPS.iter().any(|(dump, ..)| dump == name) => {
            machine.dump(&dump_of(index, words))
        }
        _ => return None,
    })
}

/// The dump's words with the processor's number, where they have none.
fn dump_of(index: usize, words: &[&str]) -> String {
    let is_processor = |word: &&str| word.parse::<u8>().is_ok();
    match words {
        [name, rest @ ..] if !rest.first().is_some_and(is_processor) => format!("{name} {index} {}", rest.join(" ")),
        _ => words.join(" "),
    }
}

/// A number, hexadecimal with 0x.
pub(crate) fn number(word: &str) -> Result<u64, String> {
    let parsed = match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => word.parse(),
    };
    parsed.map_err(|_| format!("{word} is no number; addresses are written as 0x1000"))
}

fn code(machine: &Machine, index: usize, words: &[&str]) -> Result<String, String> {
    let cpu = machine.processors().get(index).ok_or("there is no such processor")?;
    let (linear, count) = match words {
        [] => (cpu.code_linear(), INSTRUCTIONS),
        [address] => (number(address)?, INSTRUCTIONS),
        [address, count] => (number(address)?, number(count)?.min(MOST_INSTRUCTIONS)),
        _ => return Err("disassemble takes an address and a number of instructions".to_owned()),
    };
    let mut bytes = vec![0; 15 * count as usize];
    let read = cpu.peek_linear(linear, &mut bytes);
    if read == 0 {
        return Err(format!("no memory is mapped at {linear:#x}"));
    }
    Ok(disassemble(&bytes[..read], linear, cpu.code_size())
        .into_iter()
        .take(count as usize)
        .collect::<Vec<_>>()
        .join("\n"))
}

fn memory(machine: &Machine, index: usize, address: &str, count: &str) -> Result<String, String> {
    let cpu = machine.processors().get(index).ok_or("there is no such processor")?;
    bytes(number(address)?, count, |at| {
        let mut byte = [0];
        (cpu.peek_linear(at, &mut byte) == 1).then_some(byte[0])
    })
}

fn physical(machine: &Machine, address: &str, count: &str) -> Result<String, String> {
    let cpu = machine.processors().first().ok_or("there is no processor")?;
    bytes(number(address)?, count, |at| cpu.peek_physical::<1>(at).map(|byte| byte as u8))
}

fn bytes(address: u64, count: &str, byte: impl Fn(u64) -> Option<u8>) -> Result<String, String> {
    let count = number(count)?.min(MOST_BYTES);
    let mut text = String::new();
    for line in (0..count).step_by(16) {
        let _ = write!(text, "{:016x} ", address.wrapping_add(line));
        for n in line..count.min(line + 16) {
            let _ = match byte(address.wrapping_add(n)) {
                Some(byte) => write!(text, " {byte:02x}"),
                None => write!(text, " --"),
            };
        }
        text.push('\n');
    }
    Ok(text)
}

fn explain(machine: &Machine, index: usize) -> Result<String, String> {
    use machine::explain::{entry_failure, triple_fault};
    let cpu = machine.processors().get(index).ok_or("there is no such processor")?;
    if cpu.activity == processor::run::Activity::Shutdown {
        return Ok(triple_fault(cpu).to_string());
    }
    match cpu.vmx.last_failed_check {
        Some(failed) => {
            let qualification = cpu.vmx.vmcs.get(spec::vmx::VmcsField::EXIT_QUALIFICATION);
            Ok(entry_failure(cpu, failed, qualification).to_string())
        }
        None => Err(format!("no VM entry has failed on processor {index}")),
    }
}
