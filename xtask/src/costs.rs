//! `cargo xtask costs`: what the hypervisor costs its guests, in instructions that it retires and in time: an exit, a packet, the task
//! priority with and without FlexPriority, and a second level.

use crate::bench::{Interval, measure, median, used};
use crate::program;
use ::image::Layout;
use guests::programs::output_directory;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use vanderpool::Error;

#[derive(clap::Args)]
pub struct Arguments {
    /// Runs of the program whose time is taken, on each level; medians are printed.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Our command; without it, the release build of this workspace.
    #[arg(long)]
    vanderpool: Option<PathBuf>,
}

/// Processor models for the task priority, and what they have for it.
const PRIORITY: [(&str, &str); 3] = [
    ("icelake-server", "APICv"),
    ("icelake-server,-virtual-interrupts", "FlexPriority: TPR shadow and APIC-access page"),
    ("icelake-server,-tpr-shadow", "nothing"),
];
/// Frames that the example's guests exchange, and writes of the task priority, as in `guests/demo`.
const FRAMES: u64 = 4000;
const WRITES: u64 = 100_000;
/// What the program computes on each level.
const ROUNDS: &str = "600";

const LIMIT: Duration = Duration::from_secs(300);

pub fn run(arguments: &Arguments) -> Result<(), Error> {
    let program = program::path(arguments.vanderpool.as_deref())?;
    for (number, (model, what)) in PRIORITY.into_iter().enumerate() {
        let (table, _) = output(Command::new(&program).args(["run", "costs", "--stats", "--cpu", model]))?;
        let cell = |name: &str, guest: &str| {
            cell(&table, name, guest).ok_or_else(|| Error::new(format!("no {name:?} of {guest}:\n{table}")))
        };
        if number == 0 {
            println!("| an exit, an action | instructions of the hypervisor |\n| --- | ---: |");
            println!("| CPUID | {} |", cell("an exit: CPUID", "exits")?);
            println!("| OUT, to a device | {} |", cell("an exit: I/O instruction", "exits")?);
            let both = cell("of the hypervisor for it", "sender")? + cell("of the hypervisor for it", "receiver")?;
            println!("| a virtio-net packet of 1514 bytes, from guest to guest | {} |\n", both / FRAMES);
            println!("| {WRITES} writes of the task priority by a 32-bit guest, with | VM exits | of the hypervisor |");
            println!("| --- | ---: | ---: |");
        }
        println!("| {what} | {} | {} |", cell("VM exits", "tpr")?, cell("of the hypervisor for it", "tpr")?);
    }
    levels(&program, arguments.runs)
}

/// The same program on the machine itself and in a guest.
fn levels(ours: &Path, runs: usize) -> Result<(), Error> {
    let directory = output_directory()?;
    let compute = ::image::build("demo", "compute", &directory.join("image"), Layout::Small).map_err(Error::new)?;
    let file = directory.join("compute.toml");
    let text = format!(
        "[machine]\nmemory = \"64M\"\n[[vm]]\nname = \"compute\"\nmemory = \"16M\"\nboot = \"multiboot\"\nimage = {:?}\ncommand-line = \"{ROUNDS}\"\n",
        compute.display().to_string()
    );
    fs::write(&file, text).map_err(|e| Error::file("write", &file, &e))?;
    let levels: [Vec<&std::ffi::OsStr>; 2] = [
        vec![
            "boot".as_ref(),
            "--kernel".as_ref(),
            compute.as_os_str(),
            "--memory".as_ref(),
            "64M".as_ref(),
            "--append".as_ref(),
            ROUNDS.as_ref(),
            "--test-devices".as_ref(),
            "--stats".as_ref(),
        ],
        vec!["run".as_ref(), file.as_os_str(), "--stats".as_ref()],
    ];
    let interval = [Interval { name: String::new(), from: Some("compute begins".into()), to: "compute ends".into() }];
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..runs {
        for (level, arguments) in levels.iter().enumerate() {
            let mut command = Command::new(ours);
            command.args(arguments);
            let time = measure(command, &interval, LIMIT, used)?.into_iter().flatten().next();
            times[level].push(time.ok_or_else(|| Error::new("the program did not end"))?);
        }
    }
    let [first, second] = times.map(|times| median(times).unwrap_or(f64::NAN));
    let (_, errors) = output(Command::new(ours).args(&levels[0]))?;
    let bare = errors.lines().find_map(|line| line.strip_prefix("instructions: ")?.parse::<u64>().ok());
    let (table, _) = output(Command::new(ours).args(&levels[1]))?;
    let guest = cell(&table, "instructions (the machine's)", "compute");
    let (Some(bare), Some(guest)) = (bare, guest) else {
        return Err(Error::new(format!("no counts of instructions:\n{errors}\n{table}")));
    };
    println!(
        "\n| the same program (median of {runs}) | on the machine | in a guest | ratio |\n| --- | ---: | ---: | ---: |"
    );
    println!("| instructions retired | {bare} | {guest} | {:.4} |", guest as f64 / bare as f64);
    println!("| seconds of the host's processor | {first:.3} | {second:.3} | {:.3} |", second / first);
    Ok(())
}

/// Runs a command; its standard output and error.
fn output(command: &mut Command) -> Result<(String, String), Error> {
    let output = command.output().map_err(|e| Error::new(format!("cannot run {command:?}: {e}")))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((text(&output.stdout), text(&output.stderr)))
}

/// The number in the table's row that begins with `name`, in the column of `guest`. The last row of that name counts.
fn cell(table: &str, name: &str, guest: &str) -> Option<u64> {
    let heads = table.lines().find_map(|line| line.strip_prefix("guest  "))?;
    let column = heads.split_whitespace().position(|head| head == guest)?;
    let row = table.lines().rev().find_map(|line| line.trim_start().strip_prefix(name))?;
    row.split_whitespace().nth(column)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_found_by_row_and_guest() {
        let table =
            "guest a: ended\nguest                 a    long\nVM exits    7      8\n  an exit: CPUID    -    2500\n";
        assert_eq!(cell(table, "VM exits", "long"), Some(8));
        assert_eq!(cell(table, "an exit: CPUID", "long"), Some(2500));
        assert_eq!(cell(table, "an exit: CPUID", "a"), None);
        assert_eq!(cell(table, "VM exits", "b"), None);
    }
}
