//! The `vanderpool` command.
#![forbid(unsafe_code)]

use clap::Parser;
use std::io::Write;
use std::process::ExitCode;
use vanderpool::cli::{Arguments, Command};
use vanderpool::{boot, cpus, exit_status, qemu, run, trace};

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    let program = words.next().unwrap_or_default().to_string_lossy().into_owned();
    if qemu::is_qemu_name(&program) {
        return ExitCode::from(qemu::run(&program, &words.collect::<Vec<_>>()));
    }
    let result = match Arguments::parse().command.unwrap_or_default() {
        Command::Run(arguments) => run::run(&arguments),
        Command::Boot(arguments) => boot::run(&arguments),
        Command::Cpus(arguments) => cpus::report(arguments.model.as_deref(), arguments.json).map(|text| {
            // Whoever reads may have had enough (`| head`).
            let _ = std::io::stdout().write_all(text.as_bytes());
            0
        }),
        Command::Trace(command) => trace::run(&command),
        Command::Qemu { arguments } => Ok(qemu::run("vanderpool qemu", &arguments)),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("vanderpool: {error}");
            ExitCode::from(exit_status::BAD_INPUT)
        }
    }
}
