//! `cargo xtask hypervisor`: the hypervisor with its demo's guests in Debian's Bochs, the same image that `vanderpool run` has in it.

use crate::bochs::{self, Machine};
use crate::program;
use guests::iso::IsoFile;
use guests::programs::output_directory;
use std::path::PathBuf;
use std::process::Command;
use vanderpool::Error;

#[derive(clap::Args)]
pub struct Arguments {
    /// A machine file, or the name of a built-in example; its guests are run.
    #[arg(default_value = "demo")]
    machine: String,
    /// The processor model: one of `bochs --help cpu`.
    #[arg(long, default_value = bochs::MODEL)]
    cpu: String,
    /// Number of processors.
    #[arg(long, default_value_t = 1)]
    processors: usize,
    /// Seconds after which the run is ended.
    #[arg(long, default_value_t = 300)]
    limit: u64,
    /// Our command; without it, the release build of this workspace.
    #[arg(long)]
    vanderpool: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> Result<(), Error> {
    let directory = output_directory()?.join("hypervisor");
    let mut command = Command::new(program::path(arguments.vanderpool.as_deref())?);
    command.args(["run", &arguments.machine, "--export"]).arg(&directory);
    let status = command.status().map_err(|e| Error::new(format!("cannot run vanderpool: {e}")))?;
    if !status.success() {
        return Err(Error::new("vanderpool run --export failed"));
    }
    let (hypervisor, guests) = (directory.join("hypervisor"), directory.join("guests"));
    let files = [IsoFile { path: "hypervisor", source: &hypervisor }, IsoFile { path: "guests", source: &guests }];
    let machine = Machine { model: &arguments.cpu, processors: arguments.processors, memory: 128, any_msr: false };
    let script = "multiboot /hypervisor\nmodule /guests";
    let console = bochs::run("hypervisor", script, &files, &machine, arguments.limit)?;
    println!("{console}");
    // The last row of its table.
    if console.contains("EPT tables") { Ok(()) } else { Err(Error::new("the run did not end")) }
}
