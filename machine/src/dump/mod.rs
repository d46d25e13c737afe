//! Readable pictures of the machine, at any moment: for a prompt, a debugger's `monitor` command, the end of a run. Looking changes nothing.

mod apic;
mod ept;
mod registers;
mod tlb;
mod vmcs;

pub(crate) use registers::code_at;
pub(crate) use vmcs::{exit_line, qualification};

use crate::run::Machine;
use processor::Cpu;
use std::fmt;

/// What can be dumped: its name, its arguments, what it shows.
pub const DUMPS: &[(&str, &str, &str)] = &[
    ("registers", "[CPU]", "registers, segments and the code at RIP"),
    ("vmcs", "[CPU]", "the current VMCS, field by field"),
    ("exits", "[CPU]", "the last VM exits"),
    ("ept", "[CPU] [ADDRESS]", "what the EPT of the current VMCS maps, or the walk of one guest-physical address"),
    ("walk", "[CPU] ADDRESS", "the page walk of a linear address, through EPT where it is in use"),
    ("tlb", "[CPU]", "the translations that are cached"),
    ("apic", "[CPU]", "the local APIC"),
    ("iommu", "", "the remapping unit: functions and their domains, interrupt-remapping entries, what its caches hold"),
];

/// A picture of part of a processor.
type Picture = fn(&Cpu, Option<u64>, &mut String) -> Result<(), Failure>;

/// Why there is no picture.
enum Failure {
    Format,
    Text(String),
}

impl From<fmt::Error> for Failure {
    fn from(_: fmt::Error) -> Self {
        Self::Format
    }
}

fn failure(text: &str) -> Failure {
    Failure::Text(text.to_owned())
}

impl Machine {
    /// A picture of `what`: one of [`DUMPS`] and its arguments, such as `vmcs` or `registers 1` or `ept 0 0xfee00000`. Processor numbers
    /// count from 0, which is also the default.
    ///
    /// # Errors
    /// One line that says what is wrong with `what`.
    pub fn dump(&self, what: &str) -> Result<String, String> {
        let mut words = what.split_whitespace();
        let name = words.next().unwrap_or_default();
        let arguments: Vec<&str> = words.collect();
        if name == "iommu" {
            return self.dump_iommu();
        }
        let picture: Picture = match name {
            "registers" | "regs" => registers::write,
            "vmcs" => vmcs::write,
            "exits" => vmcs::write_exits,
            "ept" => ept::write,
            "walk" => ept::write_walk,
            "tlb" => tlb::write,
            "apic" => apic::write,
            _ => {
                let names: Vec<&str> = DUMPS.iter().map(|(name, ..)| *name).collect();
                return Err(format!("{name:?} cannot be dumped; there are: {}", names.join(", ")));
            }
        };
        let takes_address = matches!(name, "ept" | "walk");
        let (cpu, address) = match (arguments.as_slice(), takes_address) {
            ([], _) => (0, None),
            ([one], true) if is_address(one) => (0, Some(number(one)?)),
            ([cpu], _) => (number(cpu)?, None),
            ([cpu, address], true) => (number(cpu)?, Some(number(address)?)),
            _ => return Err(format!("{name} does not take {} arguments", arguments.len())),
        };
        let processor = usize::try_from(cpu).ok().and_then(|index| self.cpus.get(index));
        let Some(processor) = processor else {
            return Err(format!("there is no processor {cpu}; there are {}, from 0", self.cpus.len()));
        };
        let mut text = String::new();
        match picture(processor, address, &mut text) {
            Ok(()) => Ok(text),
            Err(Failure::Text(why)) => Err(why),
            Err(Failure::Format) => Err("the text could not be made".to_owned()),
        }
    }

    fn dump_iommu(&self) -> Result<String, String> {
        let board = crate::processors::lock(&self.board);
        let mut text = String::new();
        let is_one = board.units.iter().count() == 1;
        for (n, unit) in board.units.iter().enumerate() {
            if !is_one {
                let which = if n == 0 { "all functions that no other is for" } else { "functions of its own" };
                text += &format!("unit {n}, for {which}:\n");
            }
            unit.lock().write_picture(&mut text).map_err(|_| "the text could not be made")?;
        }
        if text.is_empty() { Err("there is no remapping unit".to_owned()) } else { Ok(text) }
    }

    /// Registers, segments and the code at RIP of processor `index`.
    pub fn describe(&self, index: usize) -> String {
        self.dump(&format!("registers {index}")).unwrap_or_default()
    }
}

/// Whether a lone argument is an address rather than a processor's number: it is hexadecimal, or larger than those can be.
fn is_address(word: &str) -> bool {
    word.starts_with("0x") || word.parse::<u64>().is_ok_and(|number| number > 255)
}

fn number(word: &str) -> Result<u64, String> {
    let parsed = match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => word.parse(),
    };
    parsed.map_err(|_| format!("{word} is no number; addresses are written as 0x1000"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::firmware::Firmware;
    use crate::{Boot, Config, NoHost};

    /// A machine whose firmware halts at once.
    fn machine() -> Machine {
        let mut image = vec![0xf4; 0x1_0000];
        image[0xfff0] = 0xf4;
        let firmware = Firmware::new(image).expect("64 KiB are an image");
        let mut config = Config::new(Boot::Firmware(firmware));
        config.processors = 2;
        config.memory = 16 << 20;
        let mut machine = Machine::new(config).expect("a machine");
        machine.run(&mut NoHost, Some(10));
        machine
    }

    #[test]
    fn every_dump_answers_and_changes_nothing() {
        let machine = machine();
        let before = machine.digest();
        for (name, ..) in DUMPS {
            let answer = machine.dump(name);
            assert!(!answer.unwrap_or_else(|why| why).is_empty(), "{name}");
        }
        assert_eq!(machine.digest(), before);
        assert!(machine.dump("registers").unwrap().starts_with("processor 0: Real, CPL 0, Halted"));
        assert!(machine.dump("apic 1").unwrap().starts_with("local APIC of processor 1: XApic, base 0xfee00000"));
        assert!(machine.dump("walk 0x1000").unwrap().contains("paging is off"));
    }

    #[test]
    fn what_cannot_be_dumped_is_told_in_one_line() {
        let machine = machine();
        assert_eq!(machine.dump("vmcs").unwrap_err(), "the processor is not in VMX operation");
        assert_eq!(machine.dump("registers 2").unwrap_err(), "there is no processor 2; there are 2, from 0");
        assert!(machine.dump("nothing").unwrap_err().contains("there are: registers, vmcs"));
        assert!(machine.dump("apic x").unwrap_err().contains("no number"));
        assert!(machine.dump("walk").unwrap_err().contains("linear address"));
    }
}
