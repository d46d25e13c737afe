//! The command line.

use crate::Error;
use crate::watch::ExplainFormat;
use clap::{ArgGroup, Args, Parser, Subcommand};
use machine::explain::Kinds;
use machine::trace::Filter;
use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

/// A PC with Intel Virtualization Technology, in software.
#[derive(Debug, Parser)]
#[command(name = "vanderpool", version, max_term_width = 110)]
pub struct Arguments {
    /// What to do; without one, `run`.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run guests side by side on the hypervisor: the built-in demo, another example, or those of a machine file
    Run(Run),
    /// Boot a machine with its serial console on this terminal
    Boot(Box<Boot>),
    /// List the processor models, or show what one has
    Cpus(Cpus),
    /// Record what the processors of a machine do, or show what was recorded
    #[command(subcommand)]
    Trace(TraceCommand),
    /// Take QEMU's command line, as far as test suites use it; `vanderpool qemu -help` lists what there is
    #[command(disable_help_flag = true)]
    Qemu {
        /// QEMU's arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
        arguments: Vec<OsString>,
    },
}

impl Default for Command {
    fn default() -> Self {
        Self::Run(Run::default())
    }
}

const RUN_HELP: &str = "\
Exit status:
  0        every guest ended by itself
  2        a file or an argument is not right: one line says what
  6        --max-instructions was reached
  12       the hypervisor did not start: its console says why
  14       a guest did not end by itself, or was refused
  128 + N  ended by signal N

A machine file has sections [machine], [iommu] and a [[vm]] for each guest, as the examples do (--list); hypervisor/README.md
has all of it. A guest has functions of the machine for itself by assign = [\"edu\", \"disk\", \"00:05.0\"], with [iommu].

Examples:
  vanderpool run
  vanderpool run shares
  vanderpool run machine.toml --cpu icelake-server,-virtual-interrupts";

/// `vanderpool run`.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = RUN_HELP)]
pub struct Run {
    /// A machine file, or the name of a built-in example
    #[arg(value_name = "FILE|EXAMPLE")]
    pub machine: Option<String>,
    /// List the built-in examples
    #[arg(long)]
    pub list: bool,
    /// The same as the example `linux`: two Debian systems and a real-mode guest; the system's package tools get Debian's kernel
    #[arg(long, conflicts_with = "machine")]
    pub linux: bool,
    /// Processor model, with changes as in `boot --cpu`, instead of the machine file's
    #[arg(long, value_name = "MODEL[,+F,-F,-WORD.BIT]")]
    pub cpu: Option<String>,
    /// Number of processors, instead of the machine file's
    #[arg(long, value_name = "N")]
    pub processors: Option<usize>,
    /// What executes instructions; without it, the translator where the host can. The run is the same with either
    #[arg(long, value_name = "ENGINE")]
    pub engine: Option<Engine>,
    /// Give each processor of the machine a host thread of its own, as in `boot --threads`: faster with several, but no two runs are the same
    #[arg(long)]
    pub threads: bool,
    /// End after N instructions
    #[arg(long, value_name = "N")]
    pub max_instructions: Option<u64>,
    /// At the end, print the count of instructions, virtual and host time, and what VM exits cost to standard error
    #[arg(long)]
    pub stats: bool,
    /// Write the hypervisor and the module with its guests to DIRECTORY instead of running them, to boot them elsewhere
    #[arg(long, value_name = "DIRECTORY")]
    pub export: Option<PathBuf>,
}

const BOOT_HELP: &str = "\
Keys (when the serial console is on a terminal):
  Ctrl-A x       end the machine
  Ctrl-A d       debug prompt: the machine stands still and can be looked at
  Ctrl-A h       help
  Ctrl-A Ctrl-A  send Ctrl-A to the guest

Exit status:
  0        the guest powered off, or Ctrl-A x
  2        a file, an argument or a tool is not right: one line says what
  4        triple fault: the processor's state is printed
  6        --max-instructions was reached
  8        every processor is halted and nothing can wake one
  10       the guest asked for a reset (with --no-reboot)
  odd      the value V that the guest wrote to isa-debug-exit (--test-devices): (V << 1) | 1
  128 + N  ended by signal N

Examples:
  vanderpool boot --debian
  vanderpool boot --kernel vmlinuz --initrd initrd.img --append console=ttyS0 --disk disk.qcow2,snapshot
  vanderpool boot --firmware seabios --cdrom debian.iso --memory 1G";

/// `vanderpool boot`.
#[derive(Clone, Debug, Args)]
#[command(after_help = BOOT_HELP, group(ArgGroup::new("source").args(["kernel", "firmware", "debian"]).required(true).multiple(false)))]
pub struct Boot {
    /// Kernel: a Linux bzImage, or an ELF file for PVH or multiboot
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// Boot through firmware: `seabios` (Debian's package, where it is installed) or a firmware image
    #[arg(long, value_name = "seabios|FILE")]
    pub firmware: Option<PathBuf>,
    /// Boot Debian's kernel to a busybox shell; the system's package tools get both on first use
    #[arg(long)]
    pub debian: bool,
    /// Initial RAM disk (a multiboot kernel gets it as its module)
    #[arg(long, value_name = "FILE")]
    pub initrd: Option<PathBuf>,
    /// Kernel command line; with --debian, added to it
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub append: Option<String>,
    /// Number of processors
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub cpus: usize,
    /// Memory: bytes, or with K, M, G
    #[arg(long, value_name = "SIZE", default_value = "1G")]
    pub memory: Size,
    /// Processor model, with changes to CPUID and VT-x features (icelake-server,-la57,-vpid) and single bits of VMX capability MSRs
    /// (-secondary.5); `vanderpool cpus` lists models and features
    #[arg(long, value_name = "MODEL[,+F,-F,-WORD.BIT]")]
    pub cpu: Option<String>,
    /// What executes instructions; without it, the translator where the host can. The run is the same with either
    #[arg(long, value_name = "ENGINE")]
    pub engine: Option<Engine>,
    /// Give each processor a host thread of its own, and the machine the host's time. Faster with several processors, but no two runs are the
    /// same. Not with --gdb, --check-engines, --digest, --explain, --trace, --iommu
    #[arg(
        long,
        conflicts_with_all = ["gdb", "gdb_wait", "check_engines", "digest", "explain", "trace", "iommu"]
    )]
    pub threads: bool,
    /// Disk image, raw or qcow2, as a virtio-blk device; may be repeated. `,snapshot` keeps the file as it is and forgets what the guest
    /// writes; `,sata` makes it a SATA disk
    #[arg(long, value_name = "FILE[,snapshot][,sata]")]
    pub disk: Vec<Disk>,
    /// ISO image, as the medium of a SATA DVD drive; firmware boots from it first
    #[arg(long, value_name = "FILE")]
    pub cdrom: Option<PathBuf>,
    /// Network device: `user` is a virtio-net device behind a user-mode network (the host's loopback is 10.0.2.2)
    #[arg(long, value_name = "user")]
    pub net: Option<Network>,
    /// Remapping unit of VT-d: `on`, or with switches (on,eim=off,caching-mode=on): aw-bits=39|48|57, intremap, eim, posting, caching-mode,
    /// scalable, device-iotlb, page-requests; scope=DEV.FN+DEV.FN adds a unit for these functions alone, reserved=FIRST-LAST@DEV.FN
    /// memory that they need (RMRR)
    #[arg(long, value_name = "on[,PROPERTY=VALUE]")]
    pub iommu: Option<crate::iommu::Iommu>,
    /// Add QEMU's `edu` device, whose DMA reaches all memory
    #[arg(long)]
    pub edu: bool,
    /// Add a `dma-tester`: many DMA engines with PASIDs, a device TLB and page requests (docs/dma-tester.md)
    #[arg(long)]
    pub dma_tester: bool,
    /// Where the first serial port goes
    #[arg(long, value_name = "stdio|file:PATH|none", default_value = "stdio")]
    pub serial: Serial,
    /// Add a virtio console (/dev/hvc0 in Linux) and say where it goes; `stdio` needs `--serial none`, which then leaves the serial
    /// ports out
    #[arg(long, value_name = "stdio|file:PATH|none")]
    pub virtio_console: Option<Serial>,
    /// Write what firmware sends to its debug port (0x402) to FILE
    #[arg(long, value_name = "FILE")]
    pub debug_port: Option<PathBuf>,
    /// Add isa-debug-exit, pc-testdev and pci-testdev
    #[arg(long)]
    pub test_devices: bool,
    /// End instead of starting again when the guest resets the machine
    #[arg(long)]
    pub no_reboot: bool,
    /// End after N instructions
    #[arg(long, value_name = "N")]
    pub max_instructions: Option<u64>,
    /// Wait for gdb (`target remote`) at this address, or on the loopback at this port (1234)
    #[arg(long, value_name = "[ADDRESS:]PORT", num_args = 0..=1, default_missing_value = crate::gdb::DEFAULT_ADDRESS)]
    pub gdb: Option<String>,
    /// Start only when gdb tells to (implies --gdb)
    #[arg(long)]
    pub gdb_wait: bool,
    /// Run a second machine on the other engine in lock step, without input, and stop where the two differ
    #[arg(long)]
    pub check_engines: bool,
    /// At the end, print the digest of the machine's state to standard error
    #[arg(long)]
    pub digest: bool,
    /// At the end, print the count of instructions, virtual and host time, and VM exits by reason with their cost to standard error
    #[arg(long)]
    pub stats: bool,
    /// Say why VM entries and VMX instructions fail, EPT misconfigurations and triple faults happen, VT-d blocks (docs/explain.md). KINDS, with commas
    /// between them: entry, instruction, misconfiguration, violation, page-fault, triple-fault, remapping, usual, all
    #[arg(long, value_name = "KINDS", num_args = 0..=1, require_equals = true, default_missing_value = "usual")]
    pub explain: Option<Kinds>,
    /// How explanations are written; JSON is one object a line
    #[arg(long, value_enum, default_value = "text", requires = "explain")]
    pub explain_format: ExplainFormat,
    /// Write explanations to FILE instead of standard error
    #[arg(long, value_name = "FILE", requires = "explain")]
    pub explain_output: Option<PathBuf>,
    /// Write VM entries, exits, injections, interrupts, exceptions, MSR and I/O accesses to FILE: for Perfetto and Chrome if its name ends in
    /// .json, one JSON object a line if it ends in .jsonl, else as text; `vanderpool trace show` reads the first two again
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Trace only these: entry, exit, injection, failure, interrupt, exception, msr, io, shutdown, cpu=N, vmcs=ADDRESS, with commas
    /// between them
    #[arg(long, value_name = "FILTER", requires = "trace")]
    pub trace_filter: Option<Filter>,
}

impl Boot {
    /// The terminal is a console of the machine.
    #[must_use]
    pub fn uses_terminal(&self) -> bool {
        self.serial == Serial::Stdio || self.virtio_console == Some(Serial::Stdio)
    }
}

/// `vanderpool trace`.
#[derive(Debug, Subcommand)]
pub enum TraceCommand {
    /// Boot a machine, as `vanderpool boot` does, and record into FILE
    Record(Box<TraceRecord>),
    /// Show a recorded trace, or part of it, as text or in another form
    Show(TraceShow),
}

/// `vanderpool trace record`.
#[derive(Debug, Args)]
pub struct TraceRecord {
    /// Where the trace goes, as with `boot --trace`: .json for Perfetto and Chrome, .jsonl for one JSON object a line, anything else for text
    pub file: PathBuf,
    /// Record only these, as with `boot --trace-filter`
    #[arg(long, value_name = "FILTER")]
    pub filter: Option<Filter>,
    /// The machine.
    #[command(flatten)]
    pub boot: Boot,
}

/// `vanderpool trace show`.
#[derive(Debug, Args)]
pub struct TraceShow {
    /// A trace recorded into a file named .json or .jsonl
    pub file: PathBuf,
    /// Show only these: entry, exit, injection, failure, interrupt, exception, msr, io, shutdown, cpu=N, vmcs=ADDRESS, with commas
    /// between them
    #[arg(long, value_name = "FILTER")]
    pub filter: Option<Filter>,
    /// How it is shown; unless given, as the name of the output says, else as text
    #[arg(long, value_enum)]
    pub format: Option<TraceFormat>,
    /// Write to OUTPUT instead of standard output
    #[arg(long, short, value_name = "OUTPUT")]
    pub output: Option<PathBuf>,
}

/// How a trace is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum TraceFormat {
    /// A line of text for each record
    Text,
    /// The JSON that Perfetto and Chrome read
    Perfetto,
    /// JSON, one object a line
    Records,
}

impl From<TraceFormat> for machine::trace::Format {
    fn from(format: TraceFormat) -> Self {
        match format {
            TraceFormat::Text => Self::Text,
            TraceFormat::Perfetto => Self::Chrome,
            TraceFormat::Records => Self::Records,
        }
    }
}

/// `vanderpool cpus`.
#[derive(Debug, Args)]
pub struct Cpus {
    /// Show all that this model has; it may be changed as in `boot --cpu`
    pub model: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// A size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
            "" | "B" => 0,
            "K" | "KB" | "KIB" => 10,
            "M" | "MB" | "MIB" => 20,
            "G" | "GB" | "GIB" => 30,
            _ => return Err("give bytes, or a number with K, M or G, such as 512M".to_owned()),
        };
        let number: u64 =
            digits.parse().map_err(|_| "give bytes, or a number with K, M or G, such as 512M".to_owned())?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(|| "more than a 64-bit address can reach".to_owned())
    }
}

/// A disk image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The image.
    pub path: PathBuf,
    /// Leave the file as it is.
    pub snapshot: bool,
    /// On the SATA controller rather than on its own virtio function.
    pub sata: bool,
}

impl FromStr for Disk {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut disk = Self { path: text.into(), snapshot: false, sata: false };
        let mut rest = text;
        while let Some((path, option)) = rest.rsplit_once(',') {
            match option {
                "snapshot" => disk.snapshot = true,
                "sata" => disk.sata = true,
                // A name may have a comma in it.
                _ if option.contains('/') || option.contains('.') => break,
                _ => return Err(format!("{option} is no option of a disk; there are: snapshot, sata")),
            }
            rest = path;
        }
        disk.path = rest.into();
        if rest.is_empty() { Err("name a file".to_owned()) } else { Ok(disk) }
    }
}

/// What executes instructions.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Engine {
    /// Decoded blocks; on any host
    #[default]
    Interpreter,
    /// 64-bit code translated for the host, all else as the interpreter; on x86-64 hosts with BMI2 and AVX
    Translator,
}

impl Engine {
    /// The machine's engine for what was asked for, or not.
    ///
    /// # Errors
    /// When the host cannot run it.
    pub fn chosen(asked: Option<Self>) -> Result<machine::Engine, Error> {
        match asked {
            None => Ok(machine::Engine::default()),
            Some(Self::Interpreter) => Ok(machine::Engine::Interpreter),
            Some(Self::Translator) if !processor::translator::supported() => Err(Error::new(
                "--engine translator needs an x86-64 host with AVX: leave --engine out for the interpreter",
            )),
            Some(Self::Translator) => Ok(machine::Engine::Translator),
        }
    }
}

/// A network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// The user-mode network.
    User,
}

/// Where the serial port goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Serial {
    /// The terminal.
    Stdio,
    /// A file, made anew.
    File(PathBuf),
    /// Nowhere.
    None,
}

impl FromStr for Serial {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "stdio" => Ok(Self::Stdio),
            None if text == "none" => Ok(Self::None),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            _ => Err("give stdio, file:PATH or none".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn sizes_take_binary_suffixes() {
        assert_eq!("2G".parse(), Ok(Size(2 << 30)));
        assert_eq!("512m".parse(), Ok(Size(512 << 20)));
        assert_eq!("4096".parse(), Ok(Size(4096)));
        for bad in ["", "G", "2T2", "-1", "1.5G", "99999999999G"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_disk_option_that_is_unknown_is_refused_not_taken_for_a_name() {
        assert_eq!("a.img,snapshot".parse(), Ok(Disk { path: "a.img".into(), snapshot: true, sata: false }));
        assert_eq!("a,b.img".parse(), Ok(Disk { path: "a,b.img".into(), snapshot: false, sata: false }));
        let both = Disk { path: "a.img".into(), snapshot: true, sata: true };
        assert_eq!("a.img,sata,snapshot".parse(), Ok(both));
        assert!("a.img,snapshots".parse::<Disk>().is_err());
        assert!(",sata".parse::<Disk>().is_err());
    }

    #[test]
    fn exactly_one_source_to_boot_from() {
        assert!(Arguments::try_parse_from(["vanderpool", "boot"]).is_err());
        assert!(Arguments::try_parse_from(["vanderpool", "boot", "--debian", "--kernel", "k"]).is_err());
        assert!(Arguments::try_parse_from(["vanderpool", "boot", "--debian"]).is_ok());
    }
}
