//! `cargo xtask conformance`: the VT-x conformance tests on our machine, or with `--bochs` in Debian's Bochs, whose differences must be
//! those that `docs/conformance.md` explains.

use crate::bochs::{self, Machine, bounded, read};
use crate::program;
use guests::bare;
use guests::iso::IsoFile;
use guests::programs::output_directory;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use vanderpool::Error;

#[derive(clap::Args)]
pub struct Arguments {
    /// Run in Bochs (Debian: apt-get install bochs bochsbios vgabios), started by GRUB from an ISO image.
    #[arg(long)]
    bochs: bool,
    /// The processor model: one of `vanderpool cpus`, or of `bochs --help cpu`.
    #[arg(long)]
    cpu: Option<String>,
    /// Seconds after which the run is ended.
    #[arg(long, default_value_t = 120)]
    limit: u64,
    /// Print every case, not only those that fail.
    #[arg(long)]
    all: bool,
    /// Our machine's command; without it, the release build of this workspace.
    #[arg(long)]
    vanderpool: Option<PathBuf>,
}

const BOCHS_MODEL: &str = bochs::MODEL;

pub fn run(arguments: &Arguments) -> Result<(), Error> {
    let image = bare::build("conformance")?;
    let console = if arguments.bochs { in_bochs(arguments, &image)? } else { on_our_machine(arguments, &image)? };
    for line in console.lines().filter(|line| arguments.all || line.starts_with("FAIL")) {
        println!("{line}");
    }
    let summary = console.lines().find(|line| line.starts_with("conformance:"));
    println!("{}", summary.ok_or_else(|| Error::new(format!("the run did not end:\n{}", tail(&console))))?);
    let failed = failures(&console);
    if !arguments.bochs {
        return if failed.is_empty() { Ok(()) } else { Err(Error::new(format!("{} cases failed", failed.len()))) };
    }
    if arguments.cpu.as_deref().is_some_and(|cpu| cpu != BOCHS_MODEL) {
        println!("{} differences; docs/conformance.md lists those of {BOCHS_MODEL}", failed.len());
        return Ok(());
    }
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/conformance.md");
    let text = fs::read_to_string(&document).map_err(|e| Error::file("read", &document, &e))?;
    let (always, at_times) = listed(&text);
    let news: Vec<_> = failed.iter().filter(|name| !always.contains(*name) && !at_times.contains(*name)).collect();
    let gone: Vec<_> = always.difference(&failed).collect();
    if news.is_empty() && gone.is_empty() {
        println!("Bochs differs in {} cases, as docs/conformance.md says", failed.len());
        return Ok(());
    }
    Err(Error::new(format!("docs/conformance.md lacks {news:?} and has {gone:?}, which do not differ")))
}

/// The names of the cases that failed: the words between FAIL and the colon.
fn failures(console: &str) -> BTreeSet<String> {
    let name = |line: &str| Some(line.strip_prefix("FAIL ")?.split_once(": ")?.0.to_owned());
    console.lines().filter_map(name).collect()
}

/// The names in the first column of the document's tables, each in backquotes: those of rows that always count, and of rows whose first
/// column says "at times".
fn listed(document: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `"));
    let cells = rows.map(|row| row.split(" | ").next().unwrap_or_default());
    let (at_times, always): (Vec<&str>, Vec<&str>) = cells.partition(|cell| cell.contains("at times"));
    let names = |cells: Vec<&str>| {
        let words = cells.iter().flat_map(|cell| cell.split('`').step_by(2));
        words.filter(|name| name.chars().any(char::is_alphanumeric)).map(str::to_owned).collect()
    };
    (names(always), names(at_times))
}

fn tail(console: &str) -> String {
    let lines: Vec<_> = console.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}

fn on_our_machine(arguments: &Arguments, image: &Path) -> Result<String, Error> {
    let mut command = Command::new(program::path(arguments.vanderpool.as_deref())?);
    let console = output_directory()?.join("conformance.console");
    command.args(["boot", "--test-devices", "--no-reboot", "--memory", "64M", "--cpus", "2", "--kernel"]).arg(image);
    command.arg("--serial").arg(format!("file:{}", console.display()));
    if let Some(cpu) = &arguments.cpu {
        command.args(["--cpu", cpu]);
    }
    bounded(command, arguments.limit)?;
    read(&console)
}

fn in_bochs(arguments: &Arguments, image: &Path) -> Result<String, Error> {
    let files = [IsoFile { path: "conformance", source: image }];
    let model = arguments.cpu.as_deref().unwrap_or(BOCHS_MODEL);
    bochs::run(
        "conformance",
        "multiboot /conformance",
        &files,
        &Machine { model, processors: 2, memory: 128, any_msr: false },
        arguments.limit,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_failures_and_of_rows_agree() {
        let console = "ok   check A 0\nFAIL check B 1: why: what\r\nFAIL control primary HLT exiting 0: x\n";
        let document = "| case | why |\n| --- | --- |\n| `check B 1`, `control primary HLT exiting 0` | `words` |\n\
                        | `exit C 0`, at times | why |\n";
        let (always, at_times) = listed(document);
        assert_eq!(failures(console), always);
        assert_eq!(at_times.into_iter().collect::<Vec<_>>(), ["exit C 0"]);
        assert_eq!(failures(console).len(), 2);
    }
}
