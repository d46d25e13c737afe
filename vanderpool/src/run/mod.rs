//! `vanderpool run`: guests side by side on the hypervisor, which runs on the machine.

pub mod images;
pub mod machine_file;
mod report;
mod reports;

use crate::boot::HostConsole;
use crate::cli;
use crate::host::{Keyboard, Signals};
use crate::terminal::RawMode;
use crate::{Error, exit_status};
use devices::network::UserNetwork;
use machine::exit_statistics::ExitStatistics;
use machine::{Boot, Config, Machine, Outcome, TestDevices, Watchers};
use machine_file::MachineFile;
use processor::models::Model;
use reports::Reports;
use std::fs;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::Instant;

/// The built-in examples: their names and files. The first is the demo.
pub const EXAMPLES: [(&str, &str); 6] = [
    ("demo", include_str!("../../../examples/demo.toml")),
    ("assigned", include_str!("../../../examples/assigned.toml")),
    ("costs", include_str!("../../../examples/costs.toml")),
    ("hostile", include_str!("../../../examples/hostile.toml")),
    ("linux", include_str!("../../../examples/linux.toml")),
    ("shares", include_str!("../../../examples/shares.toml")),
];

/// Runs the guests to their end; gives the exit status.
///
/// # Errors
/// When an argument or a file is not right, before the machine starts.
pub fn run(arguments: &cli::Run) -> Result<u8, Error> {
    if arguments.list {
        for (name, text) in EXAMPLES {
            println!("{name:<10} {}", text.lines().next().unwrap_or_default().trim_start_matches("# "));
        }
        return Ok(0);
    }
    let name = arguments.machine.as_deref().unwrap_or(if arguments.linux { "linux" } else { EXAMPLES[0].0 });
    let file = read(name)?;
    let configuration = file.configuration()?;
    let module = configuration.pack().map_err(|e| Error::new(format!("cannot pack the guests: {e}")))?;
    if let Some(directory) = &arguments.export {
        return export(directory, &module);
    }
    let reports = Reports::new(&file.console_files())?;
    let mut machine = build(&file, arguments, module, reports.clone())?;
    machine.watch(Watchers { exits: Some(ExitStatistics::default()), ..Watchers::default() });
    let signals = Signals::watch()?;
    let on_terminal = io::stdin().is_terminal();
    if on_terminal {
        eprintln!(
            "vanderpool: Ctrl-A x ends the machine, Ctrl-A 1 to 9 shows one guest alone and types to it, Ctrl-A 0 shows all"
        );
    }
    let mut console = HostConsole::new(Keyboard::of_stdin(on_terminal), signals);
    let start = Instant::now();
    let outcome = {
        let raw_mode = if on_terminal { RawMode::enter() } else { Ok(RawMode::none()) };
        let _raw_mode = raw_mode.map_err(|e| Error::new(format!("cannot use the terminal: {e}")))?;
        crate::boot::run_machine(&mut machine, &mut console, arguments.max_instructions, None, false)?
    };
    let elapsed = start.elapsed();
    if let Some(exits) = &machine.watchers().exits {
        print!("{}", report::instructions(exits, &reports.text()));
        if arguments.stats {
            print!("{}", report::costs(exits, &reports.text()));
            crate::boot::report(&machine, elapsed);
            eprint!("{exits}");
        }
    }
    Ok(status(&outcome, &console))
}

/// The machine file of that name, or the built-in example.
fn read(name: &str) -> Result<MachineFile, Error> {
    if let Some((name, text)) = EXAMPLES.into_iter().find(|(example, _)| *example == name) {
        return MachineFile::parse(text, Path::new("")).map_err(|e| Error::new(format!("example {name}: {e}")));
    }
    let path = Path::new(name);
    let text = fs::read_to_string(path).map_err(|e| Error::file("read", path, &e))?;
    MachineFile::parse(&text, path.parent().unwrap_or(Path::new(""))).map_err(|e| Error::new(format!("{name}: {e}")))
}

fn export(directory: &Path, module: &[u8]) -> Result<u8, Error> {
    fs::create_dir_all(directory).map_err(|e| Error::file("create", directory, &e))?;
    for (name, bytes) in [("hypervisor", images::hypervisor()?), ("guests", module)] {
        let path = directory.join(name);
        fs::write(&path, bytes).map_err(|e| Error::file("write", &path, &e))?;
    }
    Ok(0)
}

fn build(file: &MachineFile, arguments: &cli::Run, module: Vec<u8>, reports: Reports) -> Result<Machine, Error> {
    let boot = Boot::Direct {
        name: "hypervisor".into(),
        kernel: images::hypervisor()?.to_vec(),
        initrd: Some(module),
        initrd_name: "guests".into(),
        command_line: String::new(),
    };
    let mut config = Config::new(boot);
    let model = arguments.cpu.as_deref().or(file.machine.cpu.as_deref());
    config.model = model.map(Model::named).transpose().map_err(Error::new)?.unwrap_or_else(Model::default_model);
    config.processors = arguments.processors.unwrap_or(file.machine.processors);
    config.memory = file.machine.memory()?;
    config.engine = cli::Engine::chosen(arguments.engine)?;
    config.threads = arguments.threads;
    if let Some(cli::Network::User) = file.machine.network {
        config.network = Some(Box::new(UserNetwork::new()));
    }
    for (index, choice) in file.disks()?.iter().enumerate() {
        config.disks.push(crate::boot::chosen_disk(choice, index)?);
    }
    config.edu = vec![u64::MAX; file.machine.edu];
    config.dma_testers = file.machine.dma_testers;
    config.iommu = file.iommu.as_ref().map(crate::iommu::from_section).transpose()?;
    config.reboot = false;
    // The hypervisor ends the run through it.
    config.test_devices = TestDevices { debug_exit: true, ..TestDevices::default() };
    config.serial = vec![Box::new(crate::boot::Stdout)];
    config.debug_port = Box::new(reports);
    Machine::new(config).map_err(|error| Error::new(error.to_string()))
}

fn status(outcome: &Outcome, console: &HostConsole) -> u8 {
    match outcome {
        // What `metal` gives to `bare::cpu::end`, as isa-debug-exit shows it.
        Outcome::DebugExit(1) => 0,
        Outcome::DebugExit(3) => exit_status::REFUSED,
        Outcome::DebugExit(_) => exit_status::GUEST_FAILED,
        outcome => crate::boot::status(outcome, console),
    }
}
