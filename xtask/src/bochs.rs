//! Images started by GRUB in Debian's Bochs (apt-get install bochs bochsbios vgabios), an implementation of VT-x that nobody here wrote.

use guests::iso::{self, IsoFile};
use guests::programs::output_directory;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use vanderpool::Error;
use vanderpool::debian::Cache;

/// The model of Bochs 2.7 whose VT-x has the most.
pub const MODEL: &str = "tigerlake";

/// What is chosen about the machine.
pub struct Machine<'a> {
    /// One of `bochs --help cpu`.
    pub model: &'a str,
    /// Number of processors.
    pub processors: usize,
    /// Memory in MiB.
    pub memory: u32,
    /// RDMSR of an MSR that is not there gives 0: Linux expects more than Bochs has.
    pub any_msr: bool,
}

/// Runs what the GRUB commands `script` start from `files` for at most `limit` seconds; gives what it wrote to the serial port.
pub fn run(
    name: &str,
    script: &str,
    files: &[IsoFile<'_>],
    machine: &Machine<'_>,
    limit: u64,
) -> Result<String, Error> {
    let console = output_directory()?.join(format!("{name}.bochs-console"));
    let _ = fs::remove_file(&console);
    bounded(command(name, script, files, machine, &console)?, limit)?;
    read(&console)
}

/// The command that does so, without a limit, and has the serial port write to the file `console`.
pub fn command(
    name: &str,
    script: &str,
    files: &[IsoFile<'_>],
    machine: &Machine<'_>,
    console: &Path,
) -> Result<Command, Error> {
    let cache = Cache::of_user(|line| eprintln!("xtask: {line}"))?;
    let disc = iso::grub(&cache, name, script, files)?;
    let directory = output_directory()?;
    let file = |extension: &str| directory.join(format!("{name}.bochs-{extension}"));
    let (configuration, commands) = (file("rc"), file("commands"));
    write(&configuration, &bochsrc(machine, &disc, console, &file("log")))?;
    // Debian's Bochs has its debugger in it, which waits for commands.
    write(&commands, "continue\n")?;
    let mut command = Command::new("bochs");
    command.arg("-q").arg("-f").arg(&configuration).arg("-rc").arg(&commands);
    Ok(command)
}

/// A display is wanted even where nobody looks; the one for VNC does not wait for a viewer. Without a sound card its mixer overruns a buffer,
/// but for the driver that plays to nobody.
fn bochsrc(machine: &Machine<'_>, disc: &Path, console: &Path, log: &Path) -> String {
    let Machine { model, processors, memory, any_msr } = machine;
    let any_msr = u8::from(*any_msr);
    format!(
        "config_interface: textconfig\n\
         display_library: rfb, options=\"timeout=0\"\n\
         memory: guest={memory}, host={memory}\n\
         romimage: file=/usr/share/bochs/BIOS-bochs-latest, options=fastboot\n\
         vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest\n\
         cpu: model={model}, count={processors}, ips=200000000, reset_on_triple_fault=0, ignore_bad_msrs={any_msr}\n\
         clock: sync=none\n\
         ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14\n\
         ata0-master: type=cdrom, path={}, status=inserted\n\
         boot: cdrom\n\
         sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy\n\
         com1: enabled=1, mode=file, dev={}\n\
         panic: action=fatal\n\
         error: action=report\n\
         info: action=ignore\n\
         debug: action=ignore\n\
         log: {}\n",
        disc.display(),
        console.display(),
        log.display()
    )
}

/// Runs `command` without input or output for at most `limit` seconds. How it ends does not matter: its console tells.
pub fn bounded(mut command: Command, limit: u64) -> Result<(), Error> {
    let name = command.get_program().to_string_lossy().into_owned();
    let cannot = |e: std::io::Error| Error::new(format!("cannot run {name}: {e}"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(cannot)?;
    let deadline = Instant::now() + Duration::from_secs(limit);
    while child.try_wait().map_err(cannot)?.is_none() {
        if Instant::now() >= deadline {
            child.kill().map_err(cannot)?;
            child.wait().map_err(cannot)?;
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// A file's text.
pub fn read(path: &Path) -> Result<String, Error> {
    let bytes = fs::read(path).map_err(|e| Error::file("read", path, &e))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(|e| Error::file("write", path, &e))
}
