//! Machine files: a machine, and the guests that the hypervisor runs on it.

use super::images;
use crate::Error;
use crate::cli::{self, Size};
use crate::debian::Cache;
use crate::initramfs::Initramfs;
use hypervisor::assignment::Wanted;
use hypervisor::configuration::{Boot, Configuration, Disk, VmConfiguration};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fmt, fs};

/// A machine file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineFile {
    /// The machine.
    #[serde(default)]
    pub machine: MachineSection,
    /// Its remapping units: [`crate::iommu::from_section`].
    pub iommu: Option<toml::Table>,
    /// The guests.
    #[serde(default)]
    vm: Vec<VmSection>,
    /// Where names of files begin.
    #[serde(skip)]
    directory: PathBuf,
}

/// `[machine]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct MachineSection {
    /// The processor model, with changes as in `boot --cpu`.
    pub cpu: Option<String>,
    /// Number of processors.
    pub processors: usize,
    /// The network behind its network card, which guests reach as well; without one it has no card.
    pub network: Option<cli::Network>,
    /// Its virtio disks, as in `boot --disk`.
    disks: Vec<String>,
    /// How many `edu` functions it has.
    pub edu: usize,
    /// How many `dma-tester` functions it has.
    pub dma_testers: usize,
    memory: String,
}

impl Default for MachineSection {
    fn default() -> Self {
        Self {
            cpu: None,
            processors: 1,
            network: None,
            disks: Vec::new(),
            edu: 0,
            dma_testers: 0,
            memory: "256M".into(),
        }
    }
}

impl MachineSection {
    /// The memory in bytes.
    ///
    /// # Errors
    /// When it is no size.
    pub fn memory(&self) -> Result<u64, Error> {
        size("machine", &self.memory)
    }
}

/// `[[vm]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct VmSection {
    name: String,
    #[serde(default = "one")]
    vcpus: u8,
    memory: String,
    #[serde(default = "one")]
    weight: u32,
    #[serde(default = "hundred")]
    cap: u8,
    #[serde(default)]
    restart: bool,
    /// Milliseconds after which it starts again, whatever it does; 0: never.
    #[serde(default)]
    watchdog: u32,
    /// The run does not wait for it.
    #[serde(default)]
    background: bool,
    #[serde(default)]
    network: bool,
    /// A virtio disk in memory with a file's contents.
    #[serde(default)]
    disk: Option<String>,
    /// An empty virtio disk in memory of this size, after that.
    #[serde(default)]
    ram_disk: Option<String>,
    /// Functions of the machine that it gets for itself.
    #[serde(default)]
    assign: Vec<String>,
    /// It starts when the guest of this name has ended.
    #[serde(default)]
    after: Option<String>,
    #[serde(default)]
    virtio_console: bool,
    #[serde(default)]
    console: ConsoleTarget,
    boot: Kind,
    image: String,
    #[serde(default)]
    initrd: Option<String>,
    /// What Debian runs instead of a shell: the lines of a shell script.
    #[serde(default)]
    script: Option<String>,
    #[serde(default)]
    command_line: String,
}

/// Where a guest's console goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ConsoleTarget {
    #[default]
    Terminal,
    File(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    RealMode,
    Multiboot,
    Linux,
}

/// The image that is Debian's kernel with an initramfs that runs a script.
const DEBIAN: &str = "debian";
const SCRIPT: &str = "run/script";

/// Debian's kernel, from its package, with our initramfs, which runs a script or a shell.
fn debian(script: Option<&str>, command_line: &str) -> Result<Boot, Error> {
    let kernel = Cache::of_user(|line| eprintln!("vanderpool: {line}"))?.kernel()?;
    let mut initramfs = Initramfs::new(&kernel)?;
    let mut run = String::new();
    if let Some(script) = script {
        initramfs.file(SCRIPT, 0o755, format!("#!/bin/sh\n{script}\n").as_bytes());
        run = format!(" vp.run=/{SCRIPT}");
    }
    let image = fs::read(&kernel.image).map_err(|e| Error::file("read", &kernel.image, &e))?;
    // There are no ACPI tables; the MultiProcessor tables say what there is.
    let command_line = format!("console=ttyS0 acpi=off{run} {command_line}").trim_end().to_owned();
    Ok(Boot::Linux { kernel: image, initrd: initramfs.finish(), command_line })
}

fn one<T: From<u8>>() -> T {
    T::from(1)
}

fn hundred() -> u8 {
    100
}

/// The most vCPUs that a guest can have.
const MOST_VCPUS: u8 = 8;
const MIB: u64 = 1 << 20;

impl MachineFile {
    /// From its text; files that it names are below `directory`.
    ///
    /// # Errors
    /// When it is no TOML, or has what a machine file has not.
    pub fn parse(text: &str, directory: &Path) -> Result<Self, Error> {
        let mut file: Self = toml::from_str(text).map_err(|e| Error::new(e.to_string().trim_end().to_owned()))?;
        file.directory = directory.to_owned();
        Ok(file)
    }

    /// The guests, with their images.
    ///
    /// # Errors
    /// When a file cannot be read, or a value makes no sense.
    pub fn configuration(&self) -> Result<Configuration, Error> {
        if self.vm.is_empty() {
            return Err(Error::new("there is no guest: a machine file has a [[vm]] section for each"));
        }
        if self.vm.iter().all(|vm| vm.background) {
            return Err(Error::new("every guest is in the background: there is none whose end the run waits for"));
        }
        let mut names = BTreeSet::new();
        if let Some(twice) = self.vm.iter().find(|vm| !names.insert(&vm.name)) {
            return Err(Error::new(format!("two guests are called {}", twice.name)));
        }
        for (n, vm) in self.vm.iter().enumerate() {
            if let Some(after) = vm.after.as_ref().filter(|after| self.vm[..n].iter().all(|vm| vm.name != **after)) {
                return Err(Error::new(format!(
                    "guest {}: after = \"{after}\" is the name of no guest before it",
                    vm.name
                )));
            }
        }
        let vms = self.vm.iter().map(|vm| self.vm(vm)).collect::<Result<_, _>>()?;
        Ok(Configuration { vms })
    }

    /// The files of the guests' consoles, by the numbers of the guests.
    #[must_use]
    pub fn console_files(&self) -> Vec<Option<PathBuf>> {
        let file = |vm: &VmSection| match &vm.console {
            ConsoleTarget::Terminal => None,
            ConsoleTarget::File(path) => Some(self.directory.join(path)),
        };
        self.vm.iter().map(file).collect()
    }

    /// The machine's disks.
    ///
    /// # Errors
    /// When one has an option that there is not.
    pub fn disks(&self) -> Result<Vec<cli::Disk>, Error> {
        let disk = |text: &String| {
            let mut disk = text.parse::<cli::Disk>().map_err(|why| Error::new(format!("disk {text}: {why}")))?;
            if disk.sata {
                return Err(Error::new(format!("disk {text}: the machine of guests has virtio disks only")));
            }
            disk.path = self.directory.join(disk.path);
            Ok(disk)
        };
        self.machine.disks.iter().map(disk).collect()
    }

    fn file(&self, name: &str) -> Result<Vec<u8>, Error> {
        let path = self.directory.join(name);
        fs::read(&path).map_err(|e| Error::file("read", &path, &e))
    }

    fn vm(&self, vm: &VmSection) -> Result<VmConfiguration, Error> {
        let wrong = |what: fmt::Arguments<'_>| Error::new(format!("guest {}: {what}", vm.name));
        let memory = size(&vm.name, &vm.memory)?;
        if memory < 2 * MIB || !memory.is_multiple_of(2 * MIB) || memory > 256 << 30 {
            return Err(wrong(format_args!("memory is from 2M to 256G in steps of 2M")));
        }
        if vm.vcpus == 0 || vm.vcpus > MOST_VCPUS {
            return Err(wrong(format_args!("vcpus is from 1 to {MOST_VCPUS}")));
        }
        if vm.weight == 0 || vm.cap == 0 || vm.cap > 100 {
            return Err(wrong(format_args!("weight is 1 at least, cap is from 1 to 100 percent")));
        }
        if vm.script.is_some() && vm.image != DEBIAN {
            return Err(wrong(format_args!("script goes with image = \"{DEBIAN}\"")));
        }
        let image = match vm.image.strip_prefix("builtin:") {
            None if vm.image == DEBIAN => Vec::new(),
            Some(name) => images::guest(name)?.to_vec(),
            None => self.file(&vm.image)?,
        };
        let boot = match vm.boot {
            Kind::RealMode if !vm.command_line.is_empty() => {
                return Err(wrong(format_args!("what boots in real mode has no command-line")));
            }
            Kind::RealMode => Boot::RealMode { image },
            Kind::Multiboot => Boot::Multiboot { image, command_line: vm.command_line.clone() },
            Kind::Linux if vm.image == DEBIAN => debian(vm.script.as_deref(), &vm.command_line)?,
            Kind::Linux => {
                let initrd = vm.initrd.as_ref().map(|name| self.file(name)).transpose()?.unwrap_or_default();
                Boot::Linux { kernel: image, initrd, command_line: vm.command_line.clone() }
            }
        };
        for text in &vm.assign {
            Wanted::parse(text).map_err(|why| wrong(format_args!("assign: {why}")))?;
        }
        let mut disks = Vec::new();
        if let Some(name) = &vm.disk {
            disks.push(Disk::Image(self.file(name)?));
        }
        if let Some(text) = &vm.ram_disk {
            let size = size(&vm.name, text)?;
            let mib = u32::try_from(size / MIB).ok().filter(|mib| *mib != 0 && size.is_multiple_of(MIB));
            disks.push(Disk::Empty(mib.ok_or_else(|| wrong(format_args!("a RAM disk has steps of 1M")))?));
        }
        Ok(VmConfiguration {
            name: vm.name.clone(),
            vcpus: vm.vcpus,
            memory: (memory / MIB) as u32,
            weight: vm.weight,
            cap: vm.cap,
            restart: vm.restart,
            watchdog: vm.watchdog,
            background: vm.background,
            network: vm.network,
            disks,
            assign: vm.assign.clone(),
            after: vm.after.clone(),
            virtio_console: vm.virtio_console,
            console_to_file: vm.console != ConsoleTarget::Terminal,
            boot,
        })
    }
}

fn size(of: &str, text: &str) -> Result<u64, Error> {
    text.parse::<Size>().map(|size| size.0).map_err(|e| Error::new(format!("{of}: memory {text}: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::EXAMPLES;

    fn configuration(text: &str) -> Result<Configuration, String> {
        let file = MachineFile::parse(text, Path::new("")).map_err(|e| e.to_string())?;
        file.configuration().map_err(|e| e.to_string())
    }

    #[test]
    fn every_example_is_a_machine_file() {
        for (name, text) in EXAMPLES.into_iter().filter(|(_, text)| !text.contains("\"debian\"")) {
            assert!(text.starts_with("# "), "{name} does not say what it is");
            assert!(!configuration(text).unwrap().vms.is_empty(), "{name}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let vm =
            |rest: &str| format!("[[vm]]\nname = \"a\"\nboot = \"multiboot\"\nimage = \"builtin:long-mode\"\n{rest}");
        let good = vm("memory = \"2M\"");
        assert_eq!(configuration(&good).unwrap().vms[0].weight, 1);
        for (text, word) in [
            (String::new(), "no guest"),
            (vm("memory = \"3M\""), "steps of 2M"),
            (vm("memory = \"2M\"\nvcpus = 0"), "vcpus"),
            (vm("memory = \"2M\"\ncap = 101"), "cap"),
            (vm("memory = \"2M\"\nbackground = true"), "background"),
            (vm("memory = \"2M\"\nfloppy = \"x\""), "floppy"),
            (vm("memory = \"2M\"\ndisk = \"no such file\""), "no such file"),
            (vm("memory = \"2M\"\nram-disk = \"1K\""), "steps of 1M"),
            (vm("memory = \"2M\"\nconsole = \"x\""), "console"),
            (vm("memory = \"2M\"\nassign = [\"floppy\"]"), "floppy is no function"),
            (vm("memory = \"2M\"\nafter = \"a\""), "no guest before it"),
            (format!("{good}\n{good}"), "two guests"),
            (good.replace("long-mode", "other"), "no built-in guest"),
        ] {
            let error = configuration(&text).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
