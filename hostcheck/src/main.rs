//! `cargo run --release -p hostcheck -- --cases 10000000 --seed 1 [--mnemonic ADDPS] [--show 3]`
//!
//! `--sequences N` checks N runs of several instructions, executed in blocks, instead of single instructions.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn main() -> std::process::ExitCode {
    use hostcheck::{campaign, selection};
    let mut plan = campaign::Plan { cases: 1_000_000, seed: 1, only: None, show: 3 };
    let mut list = false;
    let mut sequences = 0;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|value| value.parse().ok());
        let taken = match argument.as_str() {
            "--cases" => number().map(|n| plan.cases = n),
            "--seed" => number().map(|n| plan.seed = n),
            "--show" => number().map(|n| plan.show = n as usize),
            "--mnemonic" => arguments.next().map(|name| plan.only = Some(name)),
            "--sequences" => number().map(|n| sequences = n),
            "--list" => {
                list = true;
                Some(())
            }
            _ => None,
        };
        if taken.is_none() {
            eprintln!("usage: hostcheck [--cases N] [--seed N] [--mnemonic NAME] [--show N] [--sequences N] [--list]");
            return 2.into();
        }
    }
    if list {
        for code in selection::announced() {
            println!("{code:?}: {}", selection::excluded(code).unwrap_or("checked"));
        }
        return 0.into();
    }
    if sequences != 0 {
        return match hostcheck::sequence::run(sequences, plan.seed, plan.show) {
            Ok(report) => {
                for description in &report.descriptions {
                    println!("{description}");
                }
                println!("{} runs, {} with exceptions, {} different", report.cases, report.faults, report.different);
                u8::from(report.different != 0).into()
            }
            Err(why) => {
                eprintln!("hostcheck: {why}");
                2.into()
            }
        };
    }
    let report = match campaign::run(&plan) {
        Ok(report) => report,
        Err(why) => {
            eprintln!("hostcheck: {why}");
            return 2.into();
        }
    };
    for description in &report.descriptions {
        println!("{description}");
    }
    let (mut cases, mut different) = (0, 0);
    for (mnemonic, tally) in &report.tallies {
        cases += tally.cases;
        different += tally.different;
        println!("{mnemonic:20} {:9} cases, {:8} faults, {:8} different", tally.cases, tally.faults, tally.different);
    }
    for code in &report.unmade {
        println!("{code:?}: no encoding could be made");
    }
    println!("{} mnemonics, {cases} cases, {different} different", report.tallies.len());
    u8::from(different != 0).into()
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn main() {
    eprintln!("hostcheck needs an x86-64 Linux host");
    std::process::exit(2);
}
