//! Our parallel mode: two processes at once on one processor and on two.

use super::{Arguments, Interval, Machine, Row, measure, median, passed, row};
use crate::program;
use guests::{images, programs};
use std::process::Command;
use std::time::Duration;
use vanderpool::Error;
use vanderpool::debian::Kernel;

/// What each of the two processes does.
const ROWS: &[Row] = &[
    row("compute", "sieve", 600),
    row("compute", "sort", 200),
    row("compute", "hash", 1200),
    row("compute", "sha", 600),
    row("compute", "matrix", 1000),
    row("compute", "copy", 4000),
    row("system", "pipe", 10_000),
    row("system", "faults", 30_000),
];

/// Measures, and prints the table.
pub fn run(arguments: &Arguments, kernel: &Kernel) -> Result<(), Error> {
    let script: String = ROWS
        .iter()
        .map(|row| {
            let command = row.command();
            let both = format!("{0} >/dev/null & {0} >/dev/null & wait", command.trim_end());
            format!("echo {1}: {2} start\n{0}\necho {1}: {2} end\n", both, row.program, row.what)
        })
        .collect();
    let mut image = images::with_script(kernel, &script)?;
    for program in ["compute", "system"] {
        image.file(&format!("bin/{program}"), 0o755, &programs::build(program)?);
    }
    let initrd = images::write("bench-threads", image)?;
    let intervals: Vec<Interval> = ROWS.iter().map(|row| row.interval("")).collect();
    let ours = program::path(arguments.vanderpool.as_deref())?;
    let mut results = [vec![Vec::new(); ROWS.len()], vec![Vec::new(); ROWS.len()]];
    for round in 1..=arguments.runs.max(1) {
        for (cpus, results) in ["1", "2"].iter().zip(&mut results) {
            let mut command = Command::new(&ours);
            command.args(["boot", "--threads", "--cpus", cpus, "--engine", Machine::Translator.name(), "--kernel"]);
            command.arg(&kernel.image).arg("--initrd").arg(&initrd);
            command.arg("--append").arg(format!("console=ttyS0 panic=-1 vp.run={}", images::SCRIPT));
            let times = measure(command, &intervals, Duration::from_secs(arguments.limit), passed)?;
            let line: Vec<_> = times.iter().map(|t| t.map_or("-".into(), |t| format!("{t:.2}"))).collect();
            eprintln!("xtask: run {round}, processors: {cpus}: {} s", line.join(" "));
            for (times, time) in results.iter_mut().zip(times) {
                times.extend(time);
            }
        }
    }
    println!("| two processes, median of {}, seconds | 1 processor | 2 processors | times as fast |", arguments.runs);
    println!("| --- | ---: | ---: | ---: |");
    for (index, interval) in intervals.iter().enumerate() {
        let [one, two] = [0, 1].map(|machine: usize| median(results[machine][index].clone()));
        if let (Some(one), Some(two)) = (one, two) {
            println!("| {} | {one:.2} | {two:.2} | {:.2} |", interval.name, one / two);
        }
    }
    Ok(())
}
