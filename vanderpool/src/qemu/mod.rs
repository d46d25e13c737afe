//! `vanderpool qemu …`: QEMU's command line, as far as test suites use it, on our machine.
//!
//! What an option asks for is done, or makes no difference here, or is refused by name: nothing is left out in silence. Messages
//! and exit statuses are QEMU's, so that scripts which look at them work unchanged. The command behaves in the same way when it
//! is called `qemu-system-x86_64`, for scripts that want one executable.

mod cpu;
mod device;
mod options;

use crate::Error;
use crate::boot::{self, FileOutput, HostConsole, Stdout};
use crate::host::{Keyboard, Signals};
use crate::terminal::RawMode;
use devices::network::UserNetwork;
use devices::ports::{Discard, Output};
use devices::storage::image::{self, Format, ImageOptions};
use machine::boot::firmware::Firmware;
use machine::{Boot, Config, Console, Disk, Machine, Outcome, Sata, TestDevices};
use options::{Drive, Interface, Options, Problem, Sink};
use std::ffi::OsString;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::Path;

/// Memory of a machine that is not told.
const DEFAULT_MEMORY: u64 = 128 << 20;
/// QEMU's exit status for whatever is wrong.
const FAILED: u8 = 1;

/// The program was started under QEMU's name.
#[must_use]
pub fn is_qemu_name(program: &str) -> bool {
    program.rsplit('/').next().is_some_and(|name| name.starts_with("qemu-system-"))
}

fn version() -> String {
    // Scripts take the fourth word for the version.
    format!(
        "QEMU emulator version 7.2.0 is what this command line follows; it is Vanderpool {}\n",
        env!("CARGO_PKG_VERSION")
    )
}

fn help() -> String {
    const OPTIONS: &str = "\
usage: vanderpool qemu [options] [disk_image], or the same as qemu-system-x86_64

Machine:   -machine q35[,accel=..][,pit=off]  -accel tcg|kvm[,thread=multi]  -enable-kvm  -cpu NAME[,+f,-f,f=on,phys-bits=N]  -smp N  -m SIZE
           -nodefaults  -no-user-config  -global  -rtc base=DATE,clock=vm  -overcommit  -name
Boot:      -kernel  -initrd  -append  -bios FILE  -boot order=c|d  -no-reboot  -action reboot=shutdown
Devices:   -device help lists them  -drive file=..,if=ide|virtio|none|pflash  -hda..-hdd  -cdrom  -snapshot
           -netdev user,id=..  -nic user,model=virtio-net-pci|none  -net none  -object rng-random
Consoles:  -serial stdio|mon:stdio|file:PATH|null|none|chardev:ID  -chardev stdio|file|null  -debugcon  -nographic
           -display none  -vnc none  -vga none  -monitor none
Debugging: -s  -gdb tcp:HOST:PORT  -S
           thread=multi gives each processor a host thread of its own: faster, but no two runs are the same
Our own:   -engine interpreter|translator  -max-instructions N (end after so many, with status 1)
           -digest (at the end, count of instructions and digest of the state on standard error)
Probes:    -h  -version  -machine help  -cpu help  -accel help  -device help

Any other option or property is refused by name. Without -cpu the processor is `icelake-server`. Devices that QEMU adds by
itself (display, network, floppy) are not added. `vanderpool boot` has more: `vanderpool boot --help`.
";
    version() + OPTIONS
}

/// Runs the machine that `words` describe; gives the exit status. `program` is the name under which errors are told.
///
/// # Errors
/// Never: what is wrong is told in QEMU's form.
pub fn run(program: &str, words: &[OsString]) -> u8 {
    let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let result = options::parse(&words).and_then(|options| {
        for warning in &options.warnings {
            eprintln!("{program}: {warning}");
        }
        start(program, options)
    });
    match result {
        Ok(status) => status,
        Err(Problem::Answer(text)) => {
            // Whoever reads may have had enough.
            let _ = io::stdout().write_all(text.as_bytes());
            0
        }
        Err(Problem::Refused(text)) => {
            eprintln!("{program}: {text}");
            FAILED
        }
    }
}

fn refuse(error: impl ToString) -> Problem {
    Problem::Refused(error.to_string())
}

fn start(program: &str, options: Options) -> Result<u8, Problem> {
    let consoles = Consoles::of(&options);
    let no_reboot = options.no_reboot;
    let (gdb, wait, digest, most) = (options.gdb.clone(), options.gdb_wait, options.digest, options.most_instructions);
    if wait && gdb.is_none() {
        return Err(refuse("-S: a machine that does not start needs -s or -gdb, by which it is started"));
    }
    if options.threads && (gdb.is_some() || digest) {
        return Err(refuse(
            "-accel tcg,thread=multi: not with -gdb, -s or -digest, which want the same run every time",
        ));
    }
    let mut machine = build(options, &consoles)?;
    let signals = Signals::watch().map_err(refuse)?;
    let on_terminal = consoles.terminal && io::stdin().is_terminal();
    let keyboard = if consoles.terminal { Keyboard::of_stdin(on_terminal) } else { Keyboard::none() };
    let mut host = HostConsole::new(keyboard, signals);
    let outcome = {
        let raw_mode = if on_terminal { RawMode::enter() } else { Ok(RawMode::none()) };
        let _raw_mode = raw_mode.map_err(|e| refuse(format!("cannot use the terminal: {e}")))?;
        loop {
            let outcome = boot::run_machine(&mut machine, &mut host, most, gdb.as_deref(), wait).map_err(refuse)?;
            match outcome {
                // QEMU resets the machine.
                Outcome::TripleFault { .. } if !no_reboot => machine.reset().map_err(refuse)?,
                outcome => break outcome,
            }
        }
    };
    if digest {
        eprintln!("instructions: {}\ndigest: {}", machine.instructions(), machine.digest());
    }
    Ok(status(program, &outcome, &host))
}

/// QEMU ends with 0 unless a guest or an error says otherwise; signals are told on standard error only.
fn status(program: &str, outcome: &Outcome, host: &HostConsole) -> u8 {
    match outcome {
        Outcome::PowerOff | Outcome::Reset | Outcome::Debug { .. } => 0,
        Outcome::DebugExit(status) => (status & 0xff) as u8,
        Outcome::TripleFault { processor, state } => {
            eprintln!("{program}: triple fault on processor {processor}\n{state}");
            0
        }
        Outcome::Interrupted => {
            if let Some(signal) = host.signal() {
                eprintln!("{program}: terminating on signal {signal}");
            }
            0
        }
        Outcome::InstructionLimit => FAILED,
        Outcome::Idle => {
            eprintln!("{program}: every processor is halted and nothing can wake one");
            FAILED
        }
    }
}

/// Where the serial ports and the virtio console go, with QEMU's defaults.
struct Consoles {
    serial: Vec<Sink>,
    console: Option<Sink>,
    debug: Option<Sink>,
    /// One of them is the terminal.
    terminal: bool,
}

impl Consoles {
    fn of(options: &Options) -> Self {
        let mut serial = options.serial.clone();
        if serial.is_empty() && options.nographic {
            serial.push(Sink::Stdio);
        }
        // Without -nodefaults there is always a first port.
        if serial.is_empty() && !options.nodefaults {
            serial.push(Sink::Nothing);
        }
        let (console, debug) = (options.devices.console.clone(), options.devices.debug_port.clone());
        let terminal = serial.contains(&Sink::Stdio) || console == Some(Sink::Stdio);
        Self { serial, console, debug, terminal }
    }
}

fn output(sink: &Sink) -> Result<Box<dyn Output>, Problem> {
    Ok(match sink {
        Sink::Stdio => Box::new(Stdout),
        Sink::File(path) => Box::new(FileOutput::create(path).map_err(refuse)?),
        Sink::Nothing => Box::new(Discard),
    })
}

fn build(options: Options, consoles: &Consoles) -> Result<Machine, Problem> {
    let memory = options.memory.unwrap_or(DEFAULT_MEMORY);
    let mut config = Config::new(source(&options, memory)?);
    config.memory = memory;
    config.processors = options.processors.unwrap_or(1);
    config.engine = options.engine;
    config.threads = options.threads;
    if let Some(model) = &options.model {
        config.model = model.clone();
    }
    config.pit = options.pit.unwrap_or(true);
    config.test_devices = TestDevices {
        debug_exit: options.devices.debug_exit,
        pc: options.devices.pc_testdev,
        pci: options.devices.pci_testdev,
    };
    config.edu.clone_from(&options.devices.edu);
    config.dma_testers = options.devices.dma_testers;
    config.iommu.clone_from(&options.devices.iommu);
    config.entropy = options.devices.entropy.then_some(1);
    config.reboot = !options.no_reboot;
    if let Some(time) = options.start_time {
        config.start_time = time;
    }
    if let Some(mac) = options.devices.network {
        config.network = Some(Box::new(UserNetwork::new()));
        config.mac = mac;
    }
    plug_drives(&options, &mut config)?;
    config.serial = consoles.serial.iter().map(output).collect::<Result<_, _>>()?;
    if let Some(console) = &consoles.console {
        config.console = Some(Console { output: output(console)?, size: (80, 25) });
    }
    if let Some(debug) = &consoles.debug {
        config.debug_port = output(debug)?;
    }
    Machine::new(config).map_err(|error| match (&error, &options.kernel) {
        (machine::Error::Boot(_), Some(kernel)) => {
            refuse(format!("could not load kernel '{}': {error}", kernel.display()))
        }
        _ => refuse(error),
    })
}

/// What is booted: a kernel, or firmware.
fn source(options: &Options, memory: u64) -> Result<Boot, Problem> {
    let Some(kernel) = &options.kernel else {
        if options.initrd.is_some() || options.append.is_some() {
            return Err(refuse("-append and -initrd only allowed with -kernel option"));
        }
        let flash = options.drives.iter().find(|drive| drive.interface == Interface::Flash);
        let path = match options.firmware.as_ref().or_else(|| flash.and_then(|drive| drive.file.as_ref())) {
            Some(path) => path.clone(),
            None => Firmware::find_seabios().map_err(refuse)?,
        };
        let image = fs::read(&path).map_err(|error| refuse(Error::file("read", &path, &error)))?;
        let firmware = Firmware::new(image).map_err(|error| refuse(format!("{}: {error}", path.display())))?;
        return Ok(Boot::Firmware(firmware));
    };
    let read = |what: &str, path: &Path| {
        boot::read(what, path, memory).map_err(|error| match fs::metadata(path) {
            Ok(_) => refuse(error),
            // Scripts look for these words.
            Err(error) if what == "kernel" => {
                refuse(format!("could not open kernel file '{}': {error}", path.display()))
            }
            Err(error) => refuse(format!("could not load {what} '{}': {error}", path.display())),
        })
    };
    let image = read("kernel", kernel)?;
    let initrd = options.initrd.as_deref().map(|path| read("initrd", path)).transpose()?;
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Boot::Direct {
        name: name(kernel),
        kernel: image,
        initrd_name: options.initrd.as_deref().map(name).unwrap_or_default(),
        initrd,
        command_line: options.append.clone().unwrap_or_default(),
    })
}

fn plug_drives(options: &Options, config: &mut Config) -> Result<(), Problem> {
    let mut disks = Vec::new();
    let mut optical = Vec::new();
    for drive in &options.drives {
        match drive.interface {
            Interface::Virtio => config.disks.push(open(drive, None, options)?),
            // A drive without a medium is left out.
            Interface::Sata if drive.file.is_none() => {}
            Interface::Sata if drive.optical => optical.push(Sata::Optical(open(drive, None, options)?)),
            Interface::Sata => disks.push(Sata::Disk(open(drive, None, options)?)),
            Interface::Device | Interface::Flash => {}
        }
    }
    for block in &options.devices.blocks {
        let drive = options.drives.iter().find(|drive| drive.id == block.drive && drive.interface == Interface::Device);
        let drive = drive.ok_or_else(|| {
            refuse(format!("-device: Property 'drive' can't find value '{}' (of a -drive with if=none)", block.drive))
        })?;
        let disk = open(drive, block.serial.as_deref(), options)?;
        match (block.virtio, block.optical) {
            (true, _) => config.disks.push(disk),
            (false, true) => optical.push(Sata::Optical(disk)),
            (false, false) => disks.push(Sata::Disk(disk)),
        }
    }
    let order = if options.disks_before_optical.unwrap_or(true) { [disks, optical] } else { [optical, disks] };
    config.sata.extend(order.into_iter().flatten());
    Ok(())
}

fn open(drive: &Drive, serial: Option<&str>, options: &Options) -> Result<Disk, Problem> {
    let path = drive.file.as_deref().ok_or_else(|| refuse("-drive: file is missing"))?;
    let format = match drive.format.as_deref() {
        Some("raw") => Format::Raw,
        Some("qcow2") => Format::Qcow2,
        _ => Format::ByName,
    };
    let snapshot = (drive.snapshot || options.snapshot) && !drive.read_only;
    let storage = image::open(path, ImageOptions { format, read_only: drive.read_only, snapshot }).map_err(refuse)?;
    let serial = serial.or(drive.serial.as_deref()).unwrap_or("QM00001");
    Ok(Disk { storage, serial: serial.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qemu_s_name_is_known_with_its_directory() {
        assert!(is_qemu_name("/usr/bin/qemu-system-x86_64") && is_qemu_name("qemu-system-x86_64"));
        assert!(!is_qemu_name("/opt/qemu-system-x86_64/vanderpool"));
    }

    #[test]
    fn the_version_is_where_scripts_look_for_it() {
        let line = version();
        let words: Vec<&str> = line.split(['[', ' ', '.']).collect();
        assert_eq!(words[3..6], ["7", "2", "0"]);
        assert!(help().lines().next().is_some_and(|line| line.contains("QEMU")));
    }

    #[test]
    fn a_kernel_that_is_missing_is_told_in_qemu_s_words() {
        let words: Vec<String> = ["-kernel", "/does/not/exist"].map(str::to_owned).into();
        let options = options::parse(&words).unwrap();
        let Err(Problem::Refused(why)) = build(options, &Consoles::of(&Options::default())) else { panic!() };
        assert!(why.starts_with("could not open kernel file '/does/not/exist'"), "{why}");
    }

    #[test]
    fn the_first_serial_port_follows_the_defaults() {
        let serial = |line: &str| {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            Consoles::of(&options::parse(&words).unwrap()).serial
        };
        assert_eq!(serial("-nographic"), [Sink::Stdio]);
        assert_eq!(serial("-display none"), [Sink::Nothing]);
        assert_eq!(serial("-nodefaults"), []);
        assert_eq!(serial("-nographic -serial file:/x -serial null"), [Sink::File("/x".into()), Sink::Nothing]);
    }
}
