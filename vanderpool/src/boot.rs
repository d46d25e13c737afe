//! `vanderpool boot`: from arguments to a running machine, and from its end to the exit status.

use crate::cli::{self, Network, Serial};
use crate::debian::Cache;
use crate::gdb;
use crate::host::{Input, InputEnded, Keyboard, Signals};
use crate::initramfs::Initramfs;
use crate::prompt;
use crate::terminal::{CTRL_C, CTRL_D, RawMode};
use crate::watch;
use crate::{Error, check, exit_status};
use devices::network::UserNetwork;
use devices::ports::{Discard, Output};
use devices::storage::image::{self, ImageOptions};
use machine::boot::firmware::Firmware;
use machine::{Boot, Config, Console, Disk, Host, HostEvent, Machine, Outcome, Sata, TestDevices};
use processor::models::Model;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Runs the machine to its end; gives the exit status.
///
/// # Errors
/// When an argument, a file or a tool is not right, before the machine starts.
pub fn run(arguments: &cli::Boot) -> Result<u8, Error> {
    if arguments.check_engines {
        return check::run(arguments);
    }
    let mut machine = build(arguments)?;
    watch::watch(&mut machine, arguments)?;
    let signals = Signals::watch()?;
    let on_terminal = arguments.uses_terminal() && io::stdin().is_terminal();
    let keyboard = if arguments.uses_terminal() { Keyboard::of_stdin(on_terminal) } else { Keyboard::none() };
    if on_terminal {
        eprintln!("vanderpool: Ctrl-A x ends the machine, Ctrl-A d looks into it, Ctrl-A h helps");
    }
    let mut console = HostConsole::new(keyboard, signals);
    let gdb = arguments.gdb.as_deref().or(arguments.gdb_wait.then_some(gdb::DEFAULT_ADDRESS));
    let start = Instant::now();
    let outcome = {
        let raw_mode = if on_terminal { RawMode::enter() } else { Ok(RawMode::none()) };
        let _raw_mode = raw_mode.map_err(|e| Error::new(format!("cannot use the terminal: {e}")))?;
        run_machine(&mut machine, &mut console, arguments.max_instructions, gdb, arguments.gdb_wait)?
    };
    let elapsed = start.elapsed();
    if arguments.stats {
        report(&machine, elapsed);
    }
    watch::finish(&machine, arguments)?;
    if arguments.digest {
        eprintln!("digest: {}", machine.digest());
    }
    if matches!(outcome, Outcome::InstructionLimit | Outcome::Idle) {
        for index in 0..machine.processors().len() {
            eprintln!("{}", machine.describe(index));
        }
    }
    Ok(status(&outcome, &console))
}

/// Runs `machine` to its end, under gdb when it is to listen somewhere, else with the debug prompt behind its key.
pub(crate) fn run_machine(
    machine: &mut Machine,
    console: &mut HostConsole,
    limit: Option<u64>,
    gdb: Option<&str>,
    wait: bool,
) -> Result<Outcome, Error> {
    match gdb {
        Some(address) => {
            console.without_prompt = true;
            gdb::run(machine, console, limit, &gdb::listen(address)?, wait)
        }
        None => loop {
            let outcome = machine.run(console, limit);
            if outcome != Outcome::Interrupted || !console.prompts() {
                return Ok(outcome);
            }
            if let Some(outcome) = prompt::run(machine, console, limit)? {
                return Ok(outcome);
            }
        },
    }
}

/// The machine that `arguments` describe.
pub(crate) fn build(arguments: &cli::Boot) -> Result<Machine, Error> {
    let model = arguments.cpu.as_deref().map(Model::named).transpose().map_err(Error::new)?;
    let memory = arguments.memory.0;
    let boot = source(arguments, memory)?;
    let mut config = Config::new(boot);
    config.processors = arguments.cpus;
    config.memory = memory;
    config.model = model.unwrap_or_else(Model::default_model);
    if arguments.test_devices {
        config.test_devices = TestDevices::ALL;
    }
    config.reboot = !arguments.no_reboot;
    config.engine = cli::Engine::chosen(arguments.engine)?;
    config.threads = arguments.threads;
    if let Some(path) = &arguments.cdrom {
        let options = ImageOptions { read_only: true, ..ImageOptions::default() };
        config.sata.push(Sata::Optical(disk(path, options, "cdrom")?));
    }
    for (index, choice) in arguments.disk.iter().enumerate() {
        let disk = chosen_disk(choice, index)?;
        if choice.sata {
            config.sata.push(Sata::Disk(disk));
        } else {
            config.disks.push(disk);
        }
    }
    if let Some(Network::User) = arguments.net {
        config.network = Some(Box::new(UserNetwork::new()));
    }
    config.iommu = arguments.iommu.clone().map(|iommu| iommu.0);
    if arguments.edu {
        config.edu.push(u64::MAX);
    }
    config.dma_testers = arguments.dma_tester.into();
    let virtio_stdio = arguments.virtio_console == Some(Serial::Stdio);
    if virtio_stdio && arguments.serial != Serial::None {
        return Err(Error::new(
            "the virtio console can have the terminal when no serial port has it: add --serial none",
        ));
    }
    config.serial = if virtio_stdio { Vec::new() } else { vec![output(&arguments.serial)?] };
    if let Some(choice) = &arguments.virtio_console {
        config.console = Some(Console { output: output(choice)?, size: (80, 25) });
    }
    if let Some(path) = &arguments.debug_port {
        config.debug_port = Box::new(FileOutput::create(path)?);
    }
    Machine::new(config).map_err(|error| explain(&error, arguments))
}

/// Where a console's output goes.
fn output(choice: &Serial) -> Result<Box<dyn Output>, Error> {
    Ok(match choice {
        Serial::Stdio => Box::new(Stdout),
        Serial::File(path) => Box::new(FileOutput::create(path)?),
        Serial::None => Box::new(Discard),
    })
}

/// What the machine boots.
fn source(arguments: &cli::Boot, memory: u64) -> Result<Boot, Error> {
    if let Some(firmware) = &arguments.firmware {
        let path = if firmware.as_os_str() == "seabios" {
            Firmware::find_seabios().map_err(|e| Error::new(e.to_string()))?
        } else {
            firmware.clone()
        };
        let image = read("firmware image", &path, 16 << 20)?;
        let firmware = Firmware::new(image).map_err(|e| Error::new(format!("{}: {e}", path.display())))?;
        return Ok(Boot::Firmware(firmware));
    }
    let given = arguments.append.as_deref().unwrap_or_default();
    let (kernel, initrd, command_line) = if arguments.debian {
        let kernel = Cache::of_user(|line| eprintln!("vanderpool: {line}"))?.kernel()?;
        let initrd = if arguments.initrd.is_none() { Some(Initramfs::new(&kernel)?.finish()) } else { None };
        (kernel.image, initrd, format!("console=ttyS0 {given}").trim_end().to_owned())
    } else {
        let kernel = arguments
            .kernel
            .clone()
            .ok_or_else(|| Error::new("name something to boot: --kernel, --firmware or --debian"))?;
        (kernel, None, given.to_owned())
    };
    let initrd = match &arguments.initrd {
        Some(path) => Some(read("initrd", path, memory)?),
        None => initrd,
    };
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Boot::Direct {
        name: name(&kernel),
        kernel: read("kernel", &kernel, memory)?,
        initrd_name: arguments.initrd.as_deref().map(name).unwrap_or_default(),
        initrd,
        command_line,
    })
}

/// A whole file that must fit in `limit` bytes.
pub(crate) fn read(what: &str, path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let size = fs::metadata(path).map_err(|e| Error::file("read", path, &e))?.len();
    if size > limit {
        let why =
            format!("the {what} {} has {size} bytes, more than there is memory for it ({limit} bytes)", path.display());
        return Err(Error::new(why));
    }
    fs::read(path).map_err(|e| Error::file("read", path, &e))
}

/// The disk with this number.
pub(crate) fn chosen_disk(choice: &cli::Disk, index: usize) -> Result<Disk, Error> {
    let options = ImageOptions { snapshot: choice.snapshot, ..ImageOptions::default() };
    disk(&choice.path, options, &format!("disk{index}"))
}

fn disk(path: &Path, options: ImageOptions, serial: &str) -> Result<Disk, Error> {
    let storage = image::open(path, options).map_err(Error::new)?;
    Ok(Disk { storage, serial: serial.to_owned() })
}

/// The error of a machine that cannot be, with the file that it is about.
fn explain(error: &machine::Error, arguments: &cli::Boot) -> Error {
    match (error, &arguments.kernel) {
        (machine::Error::Boot(_), Some(kernel)) => Error::new(format!("{}: {error}", kernel.display())),
        _ => Error::new(error.to_string()),
    }
}

pub(crate) fn report(machine: &Machine, elapsed: Duration) {
    let instructions = machine.instructions();
    let seconds = elapsed.as_secs_f64();
    eprintln!("instructions: {instructions}");
    eprintln!("virtual time: {:.6} s", machine.now() as f64 / 1e9);
    eprintln!("host time: {seconds:.3} s, {:.1} million instructions a second", instructions as f64 / seconds / 1e6);
}

pub(crate) fn status(outcome: &Outcome, console: &HostConsole) -> u8 {
    match outcome {
        // The debugger keeps its own stops for itself.
        Outcome::PowerOff | Outcome::Debug { .. } => exit_status::POWER_OFF,
        Outcome::Reset => exit_status::RESET,
        // A process has 8 bits for its status.
        Outcome::DebugExit(status) => (status & 0xff) as u8,
        Outcome::TripleFault { processor, state } => {
            eprintln!("\nvanderpool: triple fault on processor {processor}\n{state}");
            exit_status::TRIPLE_FAULT
        }
        Outcome::Interrupted => match console.signal() {
            Some(signal) => exit_status::SIGNAL.saturating_add(signal),
            None => exit_status::POWER_OFF,
        },
        Outcome::InstructionLimit => {
            eprintln!("vanderpool: the limit of instructions is reached");
            exit_status::INSTRUCTION_LIMIT
        }
        Outcome::Idle => {
            eprintln!("vanderpool: every processor is halted and nothing can wake one");
            exit_status::IDLE
        }
    }
}

/// The keyboard and signals as the machine's host.
pub(crate) struct HostConsole {
    keyboard: Keyboard,
    signals: Signals,
    quit: bool,
    /// The debug prompt cannot be had: gdb has the machine.
    without_prompt: bool,
    /// What was typed at the prompt and is no whole line yet.
    line: Vec<u8>,
}

impl HostConsole {
    pub(crate) fn new(keyboard: Keyboard, signals: Signals) -> Self {
        Self { keyboard, signals, quit: false, without_prompt: false, line: Vec::new() }
    }

    /// The run is to end, by the user or by a signal.
    pub(crate) fn stopping(&self) -> bool {
        self.quit || self.keyboard.quits() || self.signals.pending().is_some()
    }

    /// The run is to end.
    pub(crate) fn quit(&mut self) {
        self.quit = true;
    }

    /// The user wants the debug prompt.
    pub(crate) fn prompts(&self) -> bool {
        self.keyboard.prompts()
    }

    /// Keys go to the guest again.
    pub(crate) fn leave_prompt(&mut self) {
        self.line.clear();
        self.keyboard.leave_prompt();
    }

    /// A line typed at the prompt. `None`: the run is to end.
    pub(crate) fn read_line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.line.iter().position(|key| matches!(*key, b'\n' | b'\r' | CTRL_C | CTRL_D)) {
                let typed: Vec<u8> = self.line.drain(..=end).collect();
                let text = String::from_utf8_lossy(&typed[..end]).into_owned();
                return Some(match typed[end] {
                    CTRL_C => String::new(),
                    CTRL_D => "continue".to_owned(),
                    _ => text,
                });
            }
            if self.stopping() {
                return None;
            }
            match self.keyboard.typed(Duration::from_millis(100)) {
                Ok(typed) => self.line.extend(typed.unwrap_or_default()),
                Err(InputEnded) => return None,
            }
        }
    }

    /// Ctrl-C was typed at the prompt.
    pub(crate) fn cancelled(&mut self) -> bool {
        while let Ok(Some(typed)) = self.keyboard.typed(Duration::ZERO) {
            self.line.extend(typed);
        }
        let cancelled = self.line.contains(&CTRL_C);
        if cancelled {
            self.line.clear();
        }
        cancelled
    }

    /// The signal that ended the run, unless the user did.
    pub(crate) fn signal(&self) -> Option<u8> {
        self.signals.pending().filter(|_| !self.quit && !self.keyboard.quits())
    }

    fn event(&mut self, input: Option<Input>) -> Option<HostEvent> {
        if self.interrupts() {
            return Some(HostEvent::Stop);
        }
        match input? {
            Input::Bytes(bytes) => Some(HostEvent::Serial(bytes)),
            // These are seen by their flags.
            Input::Quit | Input::Prompt | Input::End => None,
        }
    }
}

impl Host for HostConsole {
    fn poll(&mut self) -> Option<HostEvent> {
        let input = self.keyboard.poll();
        self.event(input)
    }

    fn wait(&mut self, limit: Duration) -> Option<HostEvent> {
        let input = if self.keyboard.ended() {
            thread::sleep(limit);
            None
        } else {
            self.keyboard.wait(limit)
        };
        self.event(input)
    }

    fn interactive(&self) -> bool {
        !self.keyboard.ended()
    }

    fn interrupts(&mut self) -> bool {
        if self.without_prompt && self.keyboard.prompts() {
            self.leave_prompt();
            eprint!("\r\nvanderpool: gdb has the machine: use its `monitor` commands\r\n");
        }
        self.stopping() || self.keyboard.prompts()
    }
}

/// Standard output as a serial line. Whoever listens there may have gone: the guest does not care.
pub(crate) struct Stdout;

impl Output for Stdout {
    fn write(&mut self, bytes: &[u8]) {
        let mut stdout = io::stdout().lock();
        let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
    }
}

/// A file as a serial line.
pub(crate) struct FileOutput(File);

impl FileOutput {
    pub(crate) fn create(path: &Path) -> Result<Self, Error> {
        File::create(path).map(Self).map_err(|e| Error::file("write", path, &e))
    }
}

impl Output for FileOutput {
    fn write(&mut self, bytes: &[u8]) {
        // A full disk must not stop the guest.
        let _ = self.0.write_all(bytes);
    }
}
