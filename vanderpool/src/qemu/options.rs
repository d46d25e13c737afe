//! From words to what is asked for: QEMU's options as far as they mean something here.

use super::{cpu, device};
use crate::cli::Engine;
use processor::models::Model;
use std::path::PathBuf;
use std::str::FromStr;

/// Why the command line is not run.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// Something was asked of the command itself: print this and end well.
    Answer(String),
    /// One line for the user; the exit status is 1, as QEMU's.
    Refused(String),
}

#[cfg(test)]
impl Problem {
    pub(super) fn text(self) -> String {
        match self {
            Self::Answer(text) | Self::Refused(text) => text,
        }
    }
}

pub(super) fn refuse(text: impl Into<String>) -> Problem {
    Problem::Refused(text.into())
}

/// `on` or `off` in QEMU's spellings.
pub(super) fn value_of(what: &str, text: &str) -> Result<bool, Problem> {
    match text {
        "on" | "yes" | "true" | "y" => Ok(true),
        "off" | "no" | "false" | "n" => Ok(false),
        _ => Err(refuse(format!("{what}: '{text}' is neither on nor off"))),
    }
}

/// `key=value` pairs with commas between them, a comma in a value doubled. The first may be a value alone, of `first`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Properties {
    /// The option, for errors.
    pub what: String,
    pairs: Vec<(String, String)>,
}

impl Properties {
    pub fn parse(what: &str, text: &str, first: &str) -> Self {
        let mut words = vec![String::new()];
        let mut letters = text.chars().peekable();
        while let Some(letter) = letters.next() {
            if letter == ',' && letters.peek() != Some(&',') {
                words.push(String::new());
                continue;
            }
            if letter == ',' {
                letters.next();
            }
            words.last_mut().expect("there is one").push(letter);
        }
        let pairs = words.into_iter().enumerate().filter(|(_, word)| !word.is_empty());
        let pairs = pairs.map(|(index, word)| match word.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None if index == 0 && !first.is_empty() => (first.to_owned(), word),
            // The short form of a switch.
            None => (word, "on".to_owned()),
        });
        Self { what: what.to_owned(), pairs: pairs.collect() }
    }

    /// Takes the value of `key`; the last one counts.
    pub fn take(&mut self, key: &str) -> Option<String> {
        let value = self.pairs.iter().rfind(|(name, _)| name == key).map(|(_, value)| value.clone());
        self.pairs.retain(|(name, _)| name != key);
        value
    }

    pub fn take_switch(&mut self, key: &str) -> Result<Option<bool>, Problem> {
        self.take(key).map(|value| value_of(&format!("{} {key}", self.what), &value)).transpose()
    }

    pub fn take_number<T: TryFrom<u64>>(&mut self, key: &str) -> Result<Option<T>, Problem> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let number = match value.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok(),
            None => value.parse().ok(),
        };
        let number = number.and_then(|number| T::try_from(number).ok());
        number.map(Some).ok_or_else(|| refuse(format!("{} {key}={value}: not a number that fits", self.what)))
    }

    /// Forgets properties that make no difference here.
    pub fn ignore(&mut self, keys: &[&str]) {
        self.pairs.retain(|(name, _)| !keys.contains(&name.as_str()));
    }

    /// Accepts `key` only with one of `values`, which make no difference here.
    pub fn only(&mut self, key: &str, values: &[&str]) -> Result<(), Problem> {
        match self.take(key) {
            Some(value) if !values.contains(&value.as_str()) => {
                Err(refuse(format!("{} {key}={value} is not supported; there is: {}", self.what, values.join(", "))))
            }
            _ => Ok(()),
        }
    }

    /// Refuses what nobody took.
    pub fn finish(self) -> Result<(), Problem> {
        match self.pairs.first() {
            None => Ok(()),
            Some((key, value)) => Err(refuse(format!("{} {key}={value} is not supported", self.what))),
        }
    }
}

/// Where bytes of a serial port or console go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sink {
    Stdio,
    File(PathBuf),
    Nothing,
}

/// How a drive is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interface {
    Sata,
    Virtio,
    /// By a `-device` that names it.
    Device,
    /// Firmware.
    Flash,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Drive {
    pub id: String,
    pub file: Option<PathBuf>,
    pub interface: Interface,
    pub optical: bool,
    pub format: Option<String>,
    pub snapshot: bool,
    pub read_only: bool,
    pub serial: Option<String>,
}

/// All that a command line says.
#[derive(Debug, Default)]
pub(super) struct Options {
    pub kernel: Option<PathBuf>,
    pub initrd: Option<PathBuf>,
    pub append: Option<String>,
    pub firmware: Option<PathBuf>,
    pub processors: Option<usize>,
    pub memory: Option<u64>,
    pub model: Option<Model>,
    pub pit: Option<bool>,
    pub serial: Vec<Sink>,
    pub chardevs: Vec<(String, Sink)>,
    pub nographic: bool,
    pub nodefaults: bool,
    pub no_reboot: bool,
    pub snapshot: bool,
    pub drives: Vec<Drive>,
    pub netdevs: Vec<String>,
    pub devices: device::Devices,
    pub disks_before_optical: Option<bool>,
    pub start_time: Option<i64>,
    pub gdb: Option<String>,
    pub gdb_wait: bool,
    pub engine: machine::Engine,
    /// Each processor has a host thread of its own.
    pub threads: bool,
    pub digest: bool,
    pub most_instructions: Option<u64>,
    pub warnings: Vec<String>,
}

/// Options with a value that change nothing here.
const IGNORED_VALUES: &[&str] = &["name", "overcommit", "msg", "k", "L", "compat"];
/// Options without a value that change nothing here.
const IGNORED: &[&str] = &["no-user-config", "no-fd-bootchk", "enable-kvm"];

/// Reads `words`, which follow the program's name.
pub(super) fn parse(words: &[String]) -> Result<Options, Problem> {
    let mut options = Options::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let Some(name) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')).filter(|name| !name.is_empty())
        else {
            options.drives.push(drive("-hda", &format!("file={},media=disk", word.replace(',', ",,")))?);
            continue;
        };
        if options.switch(name)? {
            continue;
        }
        if !takes_value(name) {
            return Err(refuse(format!("-{name}: {}", reason(name))));
        }
        let value = words.next().ok_or_else(|| refuse(format!("-{name}: requires an argument")))?;
        options.option(name, value)?;
    }
    Ok(options)
}

fn takes_value(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "kernel",
        "initrd",
        "append",
        "bios",
        "smp",
        "m",
        "cpu",
        "machine",
        "M",
        "accel",
        "device",
        "serial",
        "chardev",
        "display",
        "vnc",
        "vga",
        "drive",
        "cdrom",
        "hda",
        "hdb",
        "hdc",
        "hdd",
        "netdev",
        "nic",
        "net",
        "global",
        "monitor",
        "qmp",
        "parallel",
        "boot",
        "rtc",
        "gdb",
        "action",
        "object",
        "audiodev",
        "audio",
        "debugcon",
        "engine",
        "max-instructions",
    ];
    NAMES.contains(&name) || IGNORED_VALUES.contains(&name)
}

/// Why an option is refused.
fn reason(name: &str) -> &'static str {
    match name {
        "daemonize" => "running in the background is not supported",
        "no-shutdown" => "a machine that is off ends; it cannot be kept",
        "incoming" | "loadvm" => "machines cannot be migrated or loaded",
        "mon" | "qmp-pretty" => "there is no monitor",
        "blockdev" => "block devices are given by -drive",
        "fsdev" | "virtfs" => "file systems cannot be shared",
        "icount" => "time always comes from the instructions",
        "smbios" | "acpitable" | "fw_cfg" => "firmware tables cannot be added to",
        "no-acpi" | "no-hpet" => "the board cannot be without it",
        "usb" | "usbdevice" => "there is no USB",
        "d" | "D" | "trace" => "QEMU's logs are not there",
        "sdl" | "spice" | "curses" | "full-screen" => "there is no display",
        _ => "invalid option",
    }
}

impl Options {
    /// Options without a value. False when `name` is none of them.
    fn switch(&mut self, name: &str) -> Result<bool, Problem> {
        match name {
            "h" | "help" => return Err(Problem::Answer(super::help())),
            "version" => return Err(Problem::Answer(super::version())),
            "nographic" => self.nographic = true,
            "nodefaults" => self.nodefaults = true,
            "no-reboot" => self.no_reboot = true,
            "snapshot" => self.snapshot = true,
            "digest" => self.digest = true,
            "s" => self.gdb = Some("127.0.0.1:1234".into()),
            "S" => self.gdb_wait = true,
            _ => return Ok(IGNORED.contains(&name)),
        }
        Ok(true)
    }

    fn option(&mut self, name: &str, value: &str) -> Result<(), Problem> {
        let what = format!("-{name}");
        match name {
            _ if IGNORED_VALUES.contains(&name) => {}
            "kernel" => self.kernel = Some(value.into()),
            "initrd" => self.initrd = Some(value.into()),
            "append" => self.append = Some(value.into()),
            "bios" => self.firmware = Some(value.into()),
            "smp" => self.smp(value)?,
            "m" => self.memory(value)?,
            "cpu" if matches!(value, "help" | "?") => return Err(Problem::Answer(cpu::help())),
            "cpu" => self.model = Some(cpu::model(value)?),
            "machine" | "M" => self.machine(&what, value)?,
            "accel" => self.threads = accelerator(&what, value)?.unwrap_or(self.threads),
            "max-instructions" => {
                let number = value.parse().map_err(|_| refuse(format!("{what} {value}: not a number")))?;
                self.most_instructions = Some(number);
            }
            "engine" => {
                let asked = <Engine as clap::ValueEnum>::from_str(value, false)
                    .map_err(|_| refuse(format!("-engine {value}: there are interpreter and translator")))?;
                self.engine = Engine::chosen(Some(asked)).map_err(|error| refuse(error.to_string()))?;
            }
            "device" => self.device(value)?,
            "serial" => {
                let sink = self.sink("-serial", value)?;
                self.serial.push(sink);
            }
            "chardev" => self.chardev(value)?,
            "debugcon" => {
                let sink = self.sink("-debugcon", value)?;
                self.devices.debug_port = Some(sink);
            }
            "display" | "vnc" | "vga" | "parallel" | "audio" | "audiodev" if value == "none" => {}
            "display" if value == "help" => {
                return Err(Problem::Answer("Available display backend types:\nnone\n".into()));
            }
            "display" | "vnc" | "vga" => {
                return Err(refuse(format!("{what} {value}: there is no display; give {what} none")));
            }
            "monitor" | "qmp" | "parallel" | "audio" | "audiodev" if value == "none" || value == "null" => {}
            "monitor" | "qmp" => return Err(refuse(format!("{what} {value}: there is no monitor; give {what} none"))),
            "parallel" => return Err(refuse(format!("{what} {value}: there is no parallel port"))),
            "audio" | "audiodev" => return Err(refuse(format!("{what} {value}: there is no sound"))),
            "drive" => self.drives.push(drive(&what, value)?),
            "hda" | "hdb" | "hdc" | "hdd" => {
                self.drives.push(drive(&what, &format!("file={},media=disk", value.replace(',', ",,")))?);
            }
            "cdrom" => self.drives.push(drive(&what, &format!("file={},media=cdrom", value.replace(',', ",,")))?),
            "netdev" => self.netdev(value)?,
            "nic" => self.nic(value)?,
            "net" if value == "none" => {}
            "net" => return Err(refuse(format!("-net {value} is not supported; give -nic or -netdev with -device"))),
            "global" => global(value)?,
            "boot" => self.boot(value)?,
            "rtc" => self.rtc(value)?,
            "gdb" => {
                let address =
                    value.strip_prefix("tcp:").unwrap_or(value).trim_end_matches(",server").trim_end_matches(",nowait");
                let Some((host, port)) = address.rsplit_once(':') else {
                    return Err(refuse(format!("-gdb {value} is not supported; give tcp:HOST:PORT")));
                };
                let host = if host.is_empty() { "127.0.0.1" } else { host };
                self.gdb = Some(format!("{host}:{port}"));
            }
            "action" => {
                let mut pairs = Properties::parse(&what, value, "");
                match pairs.take("reboot").as_deref() {
                    None | Some("reset") => {}
                    _ => self.no_reboot = true,
                }
                pairs.only("shutdown", &["poweroff"])?;
                pairs.ignore(&["panic", "watchdog"]);
                pairs.finish()?;
            }
            "object" => {
                let mut pairs = Properties::parse(&what, value, "qom-type");
                // Randomness comes from a seed.
                pairs.only("qom-type", &["rng-random", "rng-builtin"])?;
                pairs.ignore(&["id", "filename"]);
                pairs.finish()?;
            }
            _ => return Err(refuse(format!("{what}: invalid option"))),
        }
        Ok(())
    }

    fn smp(&mut self, value: &str) -> Result<(), Problem> {
        let mut pairs = Properties::parse("-smp", value, "cpus");
        let cpus: Option<usize> = pairs.take_number("cpus")?;
        let most: Option<usize> = pairs.take_number("maxcpus")?;
        let cores: Option<usize> = pairs.take_number("cores")?;
        for key in ["sockets", "dies", "clusters", "modules", "threads"] {
            pairs.only(key, &["1"]).map_err(|_| {
                refuse(format!(
                    "-smp {value}: every processor is a core of its own in one package; {key} can be 1 only"
                ))
            })?;
        }
        pairs.finish()?;
        let count = cpus.or(cores).or(most).unwrap_or(1);
        if most.is_some_and(|most| most != count) {
            return Err(refuse(format!("-smp {value}: processors cannot be added later; leave maxcpus out")));
        }
        if cores.is_some_and(|cores| cores != count) {
            return Err(refuse(format!(
                "Invalid CPU topology: product of the hierarchy must match maxcpus: cores is not {count}"
            )));
        }
        if !(1..=255).contains(&count) {
            return Err(refuse(format!("Invalid SMP CPUs {count}. The max CPUs supported by machine 'q35' is 255")));
        }
        self.processors = Some(count);
        Ok(())
    }

    fn memory(&mut self, value: &str) -> Result<(), Problem> {
        let mut pairs = Properties::parse("-m", value, "size");
        let size = pairs.take("size").unwrap_or_default();
        pairs.only("slots", &["0"])?;
        pairs.finish()?;
        // A number alone is of mebibytes.
        let text = if size.ends_with(|c: char| c.is_ascii_digit()) { format!("{size}M") } else { size };
        let size = crate::cli::Size::from_str(&text).map_err(|_| refuse(format!("-m {value}: '{text}' is no size")))?;
        self.memory = Some(size.0);
        Ok(())
    }

    fn machine(&mut self, what: &str, value: &str) -> Result<(), Problem> {
        if matches!(value, "help" | "?") {
            return Err(Problem::Answer(
                "Supported machines are:\nq35                  PC of the q35 kind (default)\n".into(),
            ));
        }
        let mut pairs = Properties::parse(what, value, "type");
        match pairs.take("type").as_deref() {
            None | Some("q35") => {}
            Some(name) if name.starts_with("pc-q35") => {}
            Some(name) => return Err(refuse(format!("{what} {name}: unsupported machine type; there is: q35"))),
        }
        if let Some(names) = pairs.take("accel") {
            accelerator(what, &names)?;
        }
        if let Some(on) = pairs.take_switch("pit")? {
            self.pit = Some(on);
        }
        pairs.ignore(&[
            "kernel-irqchip",
            "kernel_irqchip",
            "usb",
            "graphics",
            "dump-guest-core",
            "mem-merge",
            "hmat",
            "nvdimm",
            "smbus",
            "suppress-vmdesc",
            "fd-bootchk",
            "default-bus-bypass-iommu",
            "kvm-shadow-mem",
            "thread",
            "tb-size",
        ]);
        pairs.only("smm", &["off", "auto"])?;
        pairs.only("vmport", &["off", "auto"])?;
        for key in ["acpi", "hpet", "sata", "i8042"] {
            pairs.only(key, &["on", "auto"])?;
        }
        pairs.finish()
    }

    /// What `-serial` and the like call a sink.
    fn sink(&self, what: &str, value: &str) -> Result<Sink, Problem> {
        let value = value.strip_prefix("mon:").unwrap_or(value);
        if let Some(id) = value.strip_prefix("chardev:") {
            return self.chardev_sink(what, id);
        }
        match value {
            "stdio" => Ok(Sink::Stdio),
            "none" | "null" => Ok(Sink::Nothing),
            _ => match value.strip_prefix("file:") {
                Some(path) if !path.is_empty() => Ok(Sink::File(path.into())),
                _ => Err(refuse(format!(
                    "{what} {value} is not supported; there are: stdio, mon:stdio, file:PATH, null, none, chardev:ID"
                ))),
            },
        }
    }

    pub(super) fn chardev_sink(&self, what: &str, id: &str) -> Result<Sink, Problem> {
        let found = self.chardevs.iter().find(|(name, _)| name == id);
        found.map(|(_, sink)| sink.clone()).ok_or_else(|| refuse(format!("{what}: chardev \"{id}\" not found")))
    }

    fn chardev(&mut self, value: &str) -> Result<(), Problem> {
        let mut pairs = Properties::parse("-chardev", value, "backend");
        let id = pairs.take("id").ok_or_else(|| refuse("-chardev: Parameter 'id' is missing"))?;
        let sink = match pairs.take("backend").as_deref() {
            Some("stdio") => Sink::Stdio,
            Some("null") => Sink::Nothing,
            Some("file") => {
                let path = pairs.take("path").ok_or_else(|| refuse("-chardev: file: no filename given"))?;
                Sink::File(path.into())
            }
            Some(other) => {
                return Err(refuse(format!("-chardev {other} is not supported; there are: stdio, file, null")));
            }
            None => return Err(refuse("-chardev: no backend given")),
        };
        pairs.ignore(&["mux", "signal"]);
        pairs.only("append", &["off"])?;
        pairs.finish()?;
        self.chardevs.push((id, sink));
        Ok(())
    }

    fn netdev(&mut self, value: &str) -> Result<(), Problem> {
        let mut pairs = Properties::parse("-netdev", value, "type");
        let kind = pairs.take("type").unwrap_or_default();
        if kind != "user" {
            return Err(refuse(format!("-netdev {kind} is not supported; there is: user")));
        }
        let id = pairs.take("id").ok_or_else(|| refuse("-netdev: Parameter 'id' is missing"))?;
        pairs.finish()?;
        self.netdevs.push(id);
        Ok(())
    }

    fn nic(&mut self, value: &str) -> Result<(), Problem> {
        let mut pairs = Properties::parse("-nic", value, "type");
        match pairs.take("type").as_deref() {
            Some("none") => return pairs.finish(),
            Some("user") => {}
            other => {
                return Err(refuse(format!(
                    "-nic {} is not supported; there are: user, none",
                    other.unwrap_or_default()
                )));
            }
        }
        if pairs.take("model").is_none() {
            self.warnings
                .push("warning: -nic user: the network function is virtio-net-pci; e1000e is not there".into());
        } else {
            let mut again = Properties::parse("-nic", value, "type");
            again.only("model", &["virtio-net-pci", "virtio", "virtio-net"])?;
        }
        pairs.ignore(&["id"]);
        let mac = pairs.take("mac");
        pairs.finish()?;
        self.devices.add_network(mac.as_deref())
    }

    fn boot(&mut self, value: &str) -> Result<(), Problem> {
        let mut pairs = Properties::parse("-boot", value, "order");
        let order = pairs.take("once").or_else(|| pairs.take("order"));
        pairs.ignore(&["order", "menu", "splash-time", "reboot-timeout", "strict"]);
        pairs.finish()?;
        if let Some(order) = order {
            if !order.chars().all(|letter| matches!(letter, 'a' | 'c' | 'd')) {
                return Err(refuse(format!("-boot {order}: only disks (c) and CD-ROMs (d) can be booted from")));
            }
            self.disks_before_optical = order.chars().find(|letter| *letter != 'a').map(|first| first == 'c');
        }
        Ok(())
    }

    fn rtc(&mut self, value: &str) -> Result<(), Problem> {
        let mut pairs = Properties::parse("-rtc", value, "base");
        pairs.only("clock", &["vm"]).map_err(|_| refuse("-rtc clock: time is virtual; give clock=vm"))?;
        pairs.only("driftfix", &["none"])?;
        let base = pairs.take("base");
        pairs.finish()?;
        if let Some(base) = base.filter(|base| base != "utc") {
            let seconds = unix_time(&base);
            self.start_time = Some(seconds.ok_or_else(|| {
                refuse(format!("-rtc base={base} is not supported; there are: utc, YYYY-MM-DD, YYYY-MM-DDTHH:MM:SS"))
            })?);
        }
        Ok(())
    }

    fn device(&mut self, value: &str) -> Result<(), Problem> {
        if matches!(value, "help" | "?") {
            return Err(Problem::Answer(device::help()));
        }
        device::add(self, value)
    }
}

/// Seconds since 1970 of `YYYY-MM-DD` or `YYYY-MM-DDTHH:MM:SS`.
fn unix_time(text: &str) -> Option<i64> {
    let (date, time) = text.split_once('T').unwrap_or((text, "00:00:00"));
    let numbers = |text: &str, separator: char, limits: [(i64, i64); 3]| -> Option<[i64; 3]> {
        let parts: Vec<i64> = text.split(separator).map(|part| part.parse().ok()).collect::<Option<_>>()?;
        let parts: [i64; 3] = parts.try_into().ok()?;
        parts.iter().zip(limits).all(|(part, (least, most))| (least..=most).contains(part)).then_some(parts)
    };
    let [year, month, day] = numbers(date, '-', [(1970, 2105), (1, 12), (1, 31)])?;
    let [hour, minute, second] = numbers(time, ':', [(0, 23), (0, 59), (0, 59)])?;
    // Days since 1970-01-01, with years that begin in March.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 719_469;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

/// Whether each processor is to have a thread, if that is said.
fn accelerator(what: &str, value: &str) -> Result<Option<bool>, Problem> {
    if matches!(value, "help" | "?") {
        return Err(Problem::Answer("Accelerators supported in QEMU binary:\ntcg\nkvm\n".into()));
    }
    // One stands for the other: the machine is what it is.
    let mut pairs = Properties::parse(what, value, "accel");
    let names = pairs.take("accel").unwrap_or_default();
    if !names.split(':').any(|name| matches!(name, "tcg" | "kvm" | "hvf")) {
        return Err(refuse(format!("{what}: invalid accelerator {names}")));
    }
    let threads = match pairs.take("thread").as_deref() {
        None => None,
        Some("multi") => Some(true),
        Some("single") => Some(false),
        Some(other) => return Err(refuse(format!("{what}: thread={other}: there are single and multi"))),
    };
    pairs.ignore(&["tb-size", "kernel-irqchip", "split-wx", "one-insn-per-tb"]);
    pairs.finish()?;
    Ok(threads)
}

fn global(value: &str) -> Result<(), Problem> {
    match value.split_once('=') {
        // No tick is lost, so none is injected again.
        Some(("kvm-pit.lost_tick_policy" | "kvm-apic.lost_tick_policy", _)) => Ok(()),
        // Sleep states are not there.
        Some(("ICH9-LPC.disable_s3" | "ICH9-LPC.disable_s4", "1" | "on")) => Ok(()),
        _ => Err(refuse(format!("-global {value} is not supported"))),
    }
}

fn drive(what: &str, value: &str) -> Result<Drive, Problem> {
    let mut pairs = Properties::parse(what, value, "file");
    let interface = match pairs.take("if").as_deref() {
        None | Some("ide" | "sata") => Interface::Sata,
        Some("virtio") => Interface::Virtio,
        Some("none") => Interface::Device,
        Some("pflash") => Interface::Flash,
        Some(other) => {
            return Err(refuse(format!("{what} if={other} is not supported; there are: ide, virtio, none, pflash")));
        }
    };
    let optical = match pairs.take("media").as_deref() {
        None | Some("disk") => false,
        Some("cdrom") => true,
        Some(other) => return Err(refuse(format!("{what} media={other} is not supported"))),
    };
    let format = pairs.take("format");
    if let Some(format) = format.as_deref().filter(|format| !matches!(*format, "raw" | "qcow2")) {
        return Err(refuse(format!("{what} format={format} is not supported; there are: raw, qcow2")));
    }
    let read_only = pairs.take_switch("readonly")?.or(pairs.take_switch("read-only")?).unwrap_or(optical);
    let drive = Drive {
        id: pairs.take("id").unwrap_or_default(),
        file: pairs.take("file").filter(|file| !file.is_empty()).map(PathBuf::from),
        interface,
        optical,
        format,
        snapshot: pairs.take_switch("snapshot")?.unwrap_or(false),
        read_only,
        serial: pairs.take("serial"),
    };
    // How the host does it, not what the guest sees.
    pairs.ignore(&[
        "cache",
        "aio",
        "discard",
        "detect-zeroes",
        "index",
        "unit",
        "bus",
        "werror",
        "rerror",
        "auto-read-only",
    ]);
    pairs.finish()?;
    Ok(drive)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn accepted(text: &str) -> Options {
        parse(&words(text)).unwrap_or_else(|problem| panic!("{text}: {}", problem.text()))
    }

    fn refused(text: &str) -> String {
        match parse(&words(text)) {
            Err(Problem::Refused(why)) => why,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn the_line_of_kvm_unit_tests_is_taken() {
        let options = accepted(
            "--no-reboot -nodefaults -global kvm-pit.lost_tick_policy=discard -device pc-testdev \
             -device isa-debug-exit,iobase=0xf4,iosize=0x4 -display none -serial stdio -device pci-testdev \
             -machine accel=tcg -kernel x86/vmx.flat -smp 2 -append text -cpu max,+vmx -m 2560 -initrd /tmp/env",
        );
        assert!(options.no_reboot && options.nodefaults && options.devices.debug_exit && options.devices.pci_testdev);
        assert_eq!((options.processors, options.memory), (Some(2), Some(2560 << 20)));
        assert_eq!(options.serial, [Sink::Stdio]);
    }

    #[test]
    fn commas_are_doubled_in_values() {
        let mut pairs = Properties::parse("-drive", "file=a,,b.img,if=virtio,snapshot", "file");
        assert_eq!(pairs.take("file").as_deref(), Some("a,b.img"));
        assert_eq!(pairs.take_switch("snapshot"), Ok(Some(true)));
        assert!(pairs.finish().unwrap_err().text().contains("if=virtio"));
    }

    #[test]
    fn processors_and_memory_have_qemu_s_forms() {
        assert_eq!(accepted("-smp cpus=4,sockets=1,cores=4,threads=1").processors, Some(4));
        assert_eq!(accepted("-m size=1G").memory, Some(1 << 30));
        assert_eq!(accepted("-m 512").memory, Some(512 << 20));
        assert!(refused("-smp 4,threads=2").contains("threads"));
        assert!(refused("-smp 2,maxcpus=4").contains("maxcpus"));
        assert!(refused("-smp 300").ends_with("'q35' is 255"));
        assert!(refused("-m lots").contains("lots"));
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        for (line, name) in [
            ("-foo", "-foo: invalid option"),
            ("-machine pc", "pc"),
            ("-machine q35,vmport=on", "vmport"),
            ("-device amd-iommu", "amd-iommu"),
            ("-device e1000", "e1000"),
            ("-display gtk", "display"),
            ("-monitor stdio", "monitor"),
            ("-serial tcp::4444", "tcp::4444"),
            ("-netdev tap,id=n", "tap"),
            ("-drive if=floppy,file=a", "floppy"),
            ("-global driver.prop=1", "driver.prop"),
            ("-kernel", "requires an argument"),
            ("-accel whpx", "whpx"),
            ("-chardev socket,id=a,path=/b", "socket"),
            ("-daemonize", "background"),
        ] {
            let why = refused(line);
            assert!(why.contains(name), "{line}: {why}");
        }
    }

    #[test]
    fn probes_are_answered() {
        for probe in
            ["-h", "--help", "-version", "-machine help", "-cpu help", "-device ?", "-device help", "-accel help"]
        {
            assert!(matches!(parse(&words(probe)), Err(Problem::Answer(_))), "{probe}");
        }
        let Err(Problem::Answer(list)) = parse(&words("-device ?")) else { panic!() };
        assert!(list.contains("name \"pc-testdev\", bus ISA") && list.contains("\"pci-testdev\""));
    }

    #[test]
    fn the_clock_can_start_at_a_date() {
        assert_eq!(unix_time("1970-01-01"), Some(0));
        assert_eq!(unix_time("2026-01-01T00:00:00"), Some(1_767_225_600));
        assert_eq!(unix_time("2024-02-29T23:59:59"), Some(1_709_251_199));
        assert_eq!(unix_time("2026-13-01"), None);
    }

    #[test]
    fn gdb_is_on_loopback() {
        assert_eq!(accepted("-s").gdb.as_deref(), Some("127.0.0.1:1234"));
        assert_eq!(accepted("-gdb tcp::9000 -S").gdb.as_deref(), Some("127.0.0.1:9000"));
    }
}
