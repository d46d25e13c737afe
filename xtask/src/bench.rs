//! `cargo xtask bench`: our machine and QEMU's TCG, in turns, on the same kernel and initramfs. Times are the host's, between lines on the
//! guest's console, so that a guest's idea of time plays no part.

use crate::program;
use guests::{images, programs};
use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use vanderpool::Error;
use vanderpool::debian::Cache;
use vanderpool::initramfs::READY;

/// Calls of getpid in one run.
const GETPID_CALLS: u32 = 200_000;
/// Compute kernels and their rounds in one run.
const COMPUTE: &[(&str, u32)] = &[("sieve", 300), ("crc", 1000), ("sort", 100), ("orbit", 200), ("matrix", 100)];

#[derive(clap::Args)]
pub struct Arguments {
    /// Runs of each machine.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// QEMU's processor model.
    #[arg(long, default_value = "max")]
    qemu_cpu: String,
    /// Our machine's command; without it, the release build of this workspace.
    #[arg(long)]
    vanderpool: Option<PathBuf>,
    /// Only this machine.
    #[arg(long)]
    only: Option<Machine>,
    /// Give up on a run after so many seconds.
    #[arg(long, default_value_t = 300)]
    limit: u64,
}

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Machine {
    /// Ours.
    Vanderpool,
    /// QEMU with TCG.
    Qemu,
}

/// What is measured: the time from a line on the console (or from the start of the process) to another line.
struct Interval {
    name: String,
    from: Option<String>,
    to: String,
}

pub fn run(arguments: &Arguments) -> Result<(), Error> {
    let cache = Cache::of_user(|line| eprintln!("xtask: {line}"))?;
    let kernel = cache.kernel()?;
    let mut script = format!("getpid {GETPID_CALLS}\n");
    let mut intervals = vec![
        Interval { name: "boot to the shell".into(), from: None, to: READY.into() },
        Interval {
            name: format!("{GETPID_CALLS} getpid, pti=on"),
            from: Some("getpid: start".into()),
            to: "getpid: end".into(),
        },
    ];
    for (name, rounds) in COMPUTE {
        script += &format!("compute {name} {rounds}\n");
        intervals.push(Interval {
            name: format!("compute {name}"),
            from: Some(format!("compute: {name} start")),
            to: format!("compute: {name} end"),
        });
    }
    let mut image = images::with_script(&kernel, &script)?;
    for program in ["getpid", "compute"] {
        image.file(&format!("bin/{program}"), 0o755, &programs::build(program)?);
    }
    let initrd = images::write("bench", image)?;
    let append = format!("console=ttyS0 panic=-1 pti=on vp.run={}", images::SCRIPT);
    let ours = program::path(arguments.vanderpool.as_deref())?;

    let mut results = [Vec::new(), Vec::new()];
    for round in 1..=arguments.runs.max(1) {
        for machine in [Machine::Vanderpool, Machine::Qemu] {
            if arguments.only.is_some_and(|only| only != machine) {
                continue;
            }
            let mut command = match machine {
                Machine::Vanderpool => our_command(&ours),
                Machine::Qemu => qemu_command(&arguments.qemu_cpu),
            };
            let values: [&OsStr; 3] = [kernel.image.as_ref(), initrd.as_ref(), append.as_ref()];
            for (option, value) in ["kernel", "initrd", "append"].iter().zip(values) {
                command.arg(format!("{}{option}", machine.dashes())).arg(value);
            }
            let times = measure(command, &intervals, Duration::from_secs(arguments.limit))?;
            let line: Vec<_> = times.iter().map(|t| t.map_or("-".into(), |t| format!("{t:.2}"))).collect();
            eprintln!("xtask: run {round} {}: {} s", machine.name(), line.join(" "));
            results[machine as usize].push(times);
        }
    }
    print_table(&intervals, &results, arguments.runs);
    Ok(())
}

impl Machine {
    fn name(self) -> &'static str {
        match self {
            Self::Vanderpool => "Vanderpool",
            Self::Qemu => "QEMU TCG",
        }
    }

    /// What stands before an option.
    fn dashes(self) -> &'static str {
        match self {
            Self::Vanderpool => "--",
            Self::Qemu => "-",
        }
    }
}

fn our_command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["boot", "--memory", "1G"]);
    command
}

fn qemu_command(cpu: &str) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-accel", "tcg", "-machine", "q35", "-m", "1G", "-cpu", cpu]);
    command.args(["-nodefaults", "-nographic", "-serial", "stdio", "-no-reboot"]);
    command
}

/// Runs `command` and gives each interval in seconds, as far as its lines came.
fn measure(mut command: Command, intervals: &[Interval], limit: Duration) -> Result<Vec<Option<f64>>, Error> {
    let name = command.get_program().to_string_lossy().into_owned();
    let start = Instant::now();
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = child.map_err(|e| Error::new(format!("cannot run {name}: {e}")))?;
    let mut output = child.stdout.take().expect("a pipe was asked for");
    let (sender, receiver) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = output.read(&mut buffer) {
            if sender.send((start.elapsed(), buffer[..count].to_vec())).is_err() {
                return;
            }
        }
    });
    // Lines of interest with the time when their last byte came.
    let mut lines: Vec<(Duration, String)> = Vec::new();
    let mut line = Vec::new();
    while let Ok((time, bytes)) = receiver.recv_timeout(limit.saturating_sub(start.elapsed())) {
        for byte in bytes {
            if byte == b'\n' {
                lines.push((time, String::from_utf8_lossy(&line).into_owned()));
                line.clear();
            } else {
                line.push(byte);
            }
        }
    }
    // The guest has powered off, or was too slow.
    let _ = child.kill();
    child.wait().map_err(|e| Error::new(format!("cannot wait for {name}: {e}")))?;
    let _ = reader.join();
    let find = |text: &str| lines.iter().find(|(_, line)| line.contains(text)).map(|(time, _)| time.as_secs_f64());
    Ok(intervals
        .iter()
        .map(|interval| {
            let from = interval.from.as_deref().map_or(Some(0.0), find)?;
            Some(find(&interval.to)? - from)
        })
        .collect())
}

fn print_table(intervals: &[Interval], results: &[Vec<Vec<Option<f64>>>; 2], runs: usize) {
    println!("| median of {runs}, seconds | Vanderpool | QEMU TCG | Vanderpool / QEMU |");
    println!("| --- | ---: | ---: | ---: |");
    for (index, interval) in intervals.iter().enumerate() {
        let [ours, qemu] =
            [0, 1].map(|machine: usize| median(results[machine].iter().filter_map(|times| times[index]).collect()));
        let cell = |value: Option<f64>| value.map_or("-".into(), |v| format!("{v:.2}"));
        let ratio = ours.zip(qemu).map(|(ours, qemu)| ours / qemu);
        println!("| {} | {} | {} | {} |", interval.name, cell(ours), cell(qemu), cell(ratio));
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_two() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn intervals_are_taken_between_lines() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo a start; sleep 0.2; echo a end; echo b start"]);
        let interval = |from: Option<&str>, to: &str| Interval {
            name: String::new(),
            from: from.map(str::to_owned),
            to: to.to_owned(),
        };
        let intervals =
            [interval(Some("a start"), "a end"), interval(None, "a end"), interval(Some("b start"), "b end")];
        let times = measure(command, &intervals, Duration::from_secs(10)).unwrap();
        assert!(times[0].is_some_and(|t| (0.15..5.0).contains(&t)), "{times:?}");
        assert!(times[1] >= times[0]);
        assert_eq!(times[2], None);
    }
}
