//! `cargo xtask bench`: our machine with either engine and QEMU's TCG, in turns, on the same kernel and programs. Times are those that the
//! host's processors spent on the machine (all its threads) between lines on the guest's console: a guest's idea of time plays no part, and
//! other work on the host little. Where the host can, the compute programs run on it directly too. With `--threads` it is our parallel mode on one and on two processors, by the time on the wall.

mod native;
mod remapping;
mod threads;

use crate::{bochs, program};
use guests::iso::IsoFile;
use guests::{images, programs};
use native::Native;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use vanderpool::Error;
use vanderpool::debian::Cache;
use vanderpool::initramfs::READY;

/// Programs with what they do and how often in one run; each prints a line before and after. `pti=off` rows are measured in a boot of their own.
const ROWS: &[Row] = &[
    row("getpid", "", 200_000),
    row("compute", "sieve", 300),
    row("compute", "crc", 1000),
    row("compute", "sort", 100),
    row("compute", "hash", 600),
    row("compute", "vm", 600),
    row("compute", "sha", 300),
    row("compute", "orbit", 400),
    row("compute", "bodies", 500),
    row("compute", "heat", 300),
    row("compute", "matrix", 300),
    row("compute", "avx", 400),
    row("compute", "x87", 60),
    row("compute", "copy", 3000),
    row("compute", "string", 1500),
    row("system", "pipe", 10_000),
    row("system", "switch", 20_000),
    row("system", "fork", 500),
    row("system", "exec", 200),
    row("system", "faults", 30_000),
    row("vm_exits", "cpuid", 20_000),
    row("vm_exits", "out", 10_000),
    row("vm_exits", "loop", 30_000_000),
    row("vm_exits", "here", 30_000_000),
];

/// One line of the table.
struct Row {
    program: &'static str,
    what: &'static str,
    times: u32,
}

const fn row(program: &'static str, what: &'static str, times: u32) -> Row {
    Row { program, what, times }
}

impl Row {
    fn command(&self) -> String {
        format!("{} {} {}\n", self.program, self.what, self.times)
    }

    fn interval(&self, note: &str) -> Interval {
        let line = |end: &str| [self.program, ":", self.what, end].join(" ").replace("  ", " ").replace(" :", ":");
        Interval {
            name: format!("{} {} × {}{note}", self.program, self.what, self.times).replace("  ", " "),
            from: Some(line("start")),
            to: line("end"),
        }
    }
}

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
    /// Only these machines.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Machine>,
    /// Only the rows with one of these words; `disk` is what remapping costs.
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// Measure instead how much faster two processes are on two processors than on one, each with a host thread of its own. The host has to be
    /// idle for that: times are those on the wall.
    #[arg(long)]
    threads: bool,
    /// Give up on a run after so many seconds.
    #[arg(long, default_value_t = 600)]
    limit: u64,
}

/// What runs the guest.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Machine {
    /// Ours, translating.
    Translator,
    /// Ours, interpreting.
    Interpreter,
    /// QEMU with TCG.
    Qemu,
    /// Debian's Bochs (apt-get install bochs bochsbios vgabios), through GRUB: minutes for each boot; only where asked for.
    Bochs,
}

const MACHINES: [Machine; 4] = [Machine::Translator, Machine::Interpreter, Machine::Qemu, Machine::Bochs];

/// What is measured: the time from a line on the console (or from the start of the process) to another line.
pub struct Interval {
    /// What it is called.
    pub name: String,
    /// A part of the line that begins it; without one, the start of the process does.
    pub from: Option<String>,
    /// A part of the line that ends it.
    pub to: String,
}

/// A boot of the kernel with what is measured in it.
struct Boot {
    initrd: PathBuf,
    append: String,
    intervals: Vec<Interval>,
    /// Options of the machine besides the usual ones; without a value, it does not have the devices.
    devices: Box<dyn Fn(Machine) -> Option<Vec<OsString>>>,
}

pub fn run(arguments: &Arguments) -> Result<(), Error> {
    let cache = Cache::of_user(|line| eprintln!("xtask: {line}"))?;
    let kernel = cache.kernel()?;
    let wanted = |row: &&Row| {
        arguments.rows.is_empty() || arguments.rows.iter().any(|word| [row.program, row.what].contains(&word.as_str()))
    };
    if arguments.threads {
        return threads::run(arguments, &kernel);
    }
    let rows: Vec<&'static Row> = ROWS.iter().filter(wanted).collect();
    let calls: Vec<&Row> = rows.iter().copied().filter(|row| row.program == "getpid").collect();
    let boot = |name: &str, rows: &[&Row], pti: &str| -> Result<Boot, Error> {
        // A slow serial port (Bochs') has the last line out before the machine goes off.
        let script: String = rows.iter().map(|row| row.command()).chain(["sleep 1\n".into()]).collect();
        let mut image = images::with_script(&kernel, &script)?;
        for program in ["getpid", "compute", "system", "vm_exits"] {
            image.file(&format!("bin/{program}"), 0o755, &programs::build(program)?);
        }
        Ok(Boot {
            initrd: images::write(name, image)?,
            append: format!("console=ttyS0 panic=-1 pti={pti} vp.run={}", images::SCRIPT),
            intervals: rows.iter().map(|row| row.interval(&format!(", pti={pti}"))).collect(),
            devices: Box::new(|_| Some(Vec::new())),
        })
    };
    // The rows of remapping are asked for by "disk", and make boots of their own.
    let of_disks = |word: &String| word == "disk";
    let only_disks = !arguments.rows.is_empty() && arguments.rows.iter().all(of_disks);
    let mut boots = vec![boot("bench", &rows, "on")?];
    boots[0].intervals.insert(0, Interval { name: "boot to the shell".into(), from: None, to: READY.into() });
    for interval in &mut boots[0].intervals {
        if !interval.name.starts_with("getpid") {
            interval.name = interval.name.replace(", pti=on", "");
        }
    }
    if !calls.is_empty() {
        boots.push(boot("bench-pti-off", &calls, "off")?);
    }
    if only_disks {
        boots.clear();
    }
    if arguments.rows.is_empty() || arguments.rows.iter().any(of_disks) {
        boots.extend(remapping::boots(&kernel)?);
    }
    let ours = program::path(arguments.vanderpool.as_deref())?;

    let asked = |one: &Machine| match &arguments.only[..] {
        [] => *one != Machine::Bochs,
        only => only.contains(one),
    };
    let machines: Vec<Machine> = MACHINES.into_iter().filter(asked).collect();
    let count = boots.iter().map(|boot| boot.intervals.len()).sum();
    // For each machine and interval, the times.
    let mut results = vec![vec![Vec::new(); count]; machines.len()];
    let mut native = Native::of(&rows)?;
    for round in 1..=arguments.runs.max(1) {
        let mut first = 0;
        for boot in &boots {
            for (&machine, results) in machines.iter().zip(&mut results) {
                let limit = Duration::from_secs(arguments.limit);
                let times = match machine.command(boot, &kernel.image, &ours, &arguments.qemu_cpu)? {
                    Some(command) => measure(command, &boot.intervals, limit, used)?,
                    None => vec![None; boot.intervals.len()],
                };
                let line: Vec<_> = times.iter().map(|t| t.map_or("-".into(), |t| format!("{t:.2}"))).collect();
                eprintln!("xtask: run {round} {}: {} s", machine.name(), line.join(" "));
                for (times, time) in results[first..].iter_mut().zip(times) {
                    times.extend(time);
                }
            }
            first += boot.intervals.len();
        }
        if let Some(native) = &mut native {
            native.run(Duration::from_secs(arguments.limit))?;
        }
    }
    let names: Vec<&str> = boots.iter().flat_map(|boot| boot.intervals.iter().map(|one| one.name.as_str())).collect();
    let on_host = |name: &str| native.as_ref().and_then(|native| median(native.times(name).to_vec()));
    print!("{}", table(&names, &machines, &results, on_host, arguments.runs));
    Ok(())
}

impl Machine {
    fn name(self) -> &'static str {
        match self {
            Self::Translator => "translator",
            Self::Interpreter => "interpreter",
            Self::Qemu => "QEMU TCG",
            Self::Bochs => "Bochs",
        }
    }

    /// What boots `boot`'s kernel and initramfs, with the console on standard output.
    fn command(self, boot: &Boot, kernel: &Path, ours: &Path, qemu_cpu: &str) -> Result<Option<Command>, Error> {
        let Some(devices) = (boot.devices)(self) else { return Ok(None) };
        let mut command = match self {
            Self::Bochs => return in_bochs(boot, kernel).map(Some),
            Self::Qemu => {
                let mut command = Command::new("qemu-system-x86_64");
                command.args(["-accel", "tcg", "-machine", "q35", "-m", "1G", "-cpu", qemu_cpu]);
                command.args(["-nodefaults", "-nographic", "-serial", "stdio", "-no-reboot"]);
                command
            }
            Self::Translator | Self::Interpreter => {
                let mut command = Command::new(ours);
                command.args(["boot", "--memory", "1G", "--engine", self.name()]);
                command
            }
        };
        let dashes = if self == Self::Qemu { "-" } else { "--" };
        let values: [&OsStr; 3] = [kernel.as_ref(), boot.initrd.as_ref(), boot.append.as_ref()];
        for (option, value) in ["kernel", "initrd", "append"].iter().zip(values) {
            command.arg(format!("{dashes}{option}")).arg(value);
        }
        command.args(devices);
        Ok(Some(command))
    }
}

fn in_bochs(boot: &Boot, kernel: &Path) -> Result<Command, Error> {
    let files = [IsoFile { path: "kernel", source: kernel }, IsoFile { path: "initrd", source: &boot.initrd }];
    // Its serial port is so slow that the kernel's messages would stand in the middle of the programs' lines.
    let script = format!("linux /kernel quiet {}\ninitrd /initrd", boot.append);
    let machine = bochs::Machine { model: "corei7_haswell_4770", processors: 1, memory: 1024, any_msr: true };
    bochs::command("bench", &script, &files, &machine, Path::new("/dev/stdout"))
}

/// Processor time that the threads of process `id` have used; where the host does not tell, the time since `start`.
pub fn used(id: u32, start: Instant) -> Duration {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{id}/task")) else { return start.elapsed() };
    let of_thread = |path: PathBuf| -> Option<u64> {
        std::fs::read_to_string(path.join("schedstat")).ok()?.split(' ').next()?.parse().ok()
    };
    Duration::from_nanos(threads.flatten().filter_map(|thread| of_thread(thread.path())).sum())
}

/// The time on the wall, in the place of [`used`].
fn passed(_id: u32, start: Instant) -> Duration {
    start.elapsed()
}

/// Runs `command` and gives each interval in seconds, by `clock`, as far as its lines came.
pub fn measure(
    mut command: Command,
    intervals: &[Interval],
    limit: Duration,
    clock: fn(u32, Instant) -> Duration,
) -> Result<Vec<Option<f64>>, Error> {
    let name = command.get_program().to_string_lossy().into_owned();
    let start = Instant::now();
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = child.map_err(|e| Error::new(format!("cannot run {name}: {e}")))?;
    let id = child.id();
    let mut output = child.stdout.take().expect("a pipe was asked for");
    let (sender, receiver) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = output.read(&mut buffer) {
            if sender.send((clock(id, start), buffer[..count].to_vec())).is_err() {
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

/// Medians, how many times as fast as the last machine the first one is, and how many times the host's own time it takes.
fn table(
    names: &[&str],
    machines: &[Machine],
    results: &[Vec<Vec<f64>>],
    on_host: impl Fn(&str) -> Option<f64>,
    runs: usize,
) -> String {
    let columns: Vec<&str> = machines.iter().map(|machine| machine.name()).collect();
    let mut text = format!(
        "| median of {runs}, seconds | {} | times as fast | the host itself | times its time |\n",
        columns.join(" | ")
    );
    text += &format!("| --- {}| ---: | ---: | ---: |\n", "| ---: ".repeat(machines.len()));
    for (index, name) in names.iter().enumerate() {
        let medians: Vec<Option<f64>> = results.iter().map(|times| median(times[index].clone())).collect();
        let cells: Vec<String> = medians.iter().map(|value| value.map_or("-".into(), |v| format!("{v:.3}"))).collect();
        let ratio = match medians[..] {
            [Some(first), .., Some(last)] if first > 0.0 => format!("{:.2}", last / first),
            _ => "-".into(),
        };
        let host = match (on_host(name), medians.first()) {
            (Some(host), Some(&Some(first))) => format!("{host:.3} | {:.2}", first / host),
            _ => " | ".into(),
        };
        text += &format!("| {name} | {} | {ratio} | {host} |\n", cells.join(" | "));
    }
    text
}

pub fn median(mut values: Vec<f64>) -> Option<f64> {
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
        // What is between the lines takes processor time.
        let work = "i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done";
        command.args(["-c", &format!("echo a start; {work}; echo a end; echo b start; sleep 0.2")]);
        let interval = |from: Option<&str>, to: &str| Interval {
            name: String::new(),
            from: from.map(str::to_owned),
            to: to.to_owned(),
        };
        let intervals =
            [interval(Some("a start"), "a end"), interval(None, "a end"), interval(Some("b start"), "b end")];
        let times = measure(command, &intervals, Duration::from_secs(10), used).unwrap();
        assert!(times[0].is_some_and(|t| t > 0.001 && t < 5.0), "{times:?}");
        assert!(times[1] >= times[0]);
        assert_eq!(times[2], None);
    }

    #[test]
    fn the_last_machine_over_the_first_is_the_ratio() {
        let results = [vec![vec![1.0, 3.0, 2.0], vec![]], vec![vec![8.0], vec![1.0]]];
        let on_host = |name: &str| (name == "a").then_some(0.5);
        let text = table(&["a", "b"], &[Machine::Translator, Machine::Qemu], &results, on_host, 3);
        assert!(text.contains("| a | 2.000 | 8.000 | 4.00 | 0.500 | 4.00 |"), "{text}");
        assert!(text.contains("| b | - | 1.000 | - |  |  |"), "{text}");
    }

    #[test]
    fn rows_are_between_the_lines_that_the_programs_print() {
        let lines = |row: Row| (row.interval("").from.unwrap(), row.interval("").to);
        assert_eq!(lines(row("getpid", "", 1)), ("getpid: start".into(), "getpid: end".into()));
        assert_eq!(lines(row("system", "fork", 1)), ("system: fork start".into(), "system: fork end".into()));
    }
}
