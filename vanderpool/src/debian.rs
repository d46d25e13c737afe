//! Debian's kernel and busybox, got with the system's own package tools and kept in the user's cache directory.

use crate::Error;
use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What to do where Debian's tools are not there.
const INSTEAD: &str =
    "pass a kernel of your own instead: vanderpool boot --kernel vmlinuz --initrd initrd.img --append console=ttyS0";

/// Debian's kernel, unpacked, and a static busybox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// The bzImage.
    pub image: PathBuf,
    /// Its release, as `uname -r` gives it.
    pub release: String,
    /// The directory `lib/modules/<release>`.
    pub modules: PathBuf,
    /// The statically linked busybox.
    pub busybox: PathBuf,
}

/// The cache directory with Debian's packages.
#[derive(Debug)]
pub struct Cache {
    root: PathBuf,
    progress: fn(&str),
}

impl Cache {
    /// The cache in `$XDG_CACHE_HOME/vanderpool` or `~/.cache/vanderpool`. `progress` is told, in one line each, of things that take time.
    ///
    /// # Errors
    /// When neither variable is set.
    pub fn of_user(progress: fn(&str)) -> Result<Self, Error> {
        let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
        let base = base.ok_or_else(|| Error::new("set HOME or XDG_CACHE_HOME: there is no place for a cache"))?;
        Ok(Self::new(base.join("vanderpool"), progress))
    }

    /// The cache in `root`.
    #[must_use]
    pub fn new(root: PathBuf, progress: fn(&str)) -> Self {
        Self { root, progress }
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Debian's current kernel (what `linux-image-amd64` stands for) and `busybox-static`: from the cache, or downloaded. Remove the cache
    /// directory to get a newer one.
    ///
    /// # Errors
    /// When the package tools are missing or fail.
    pub fn kernel(&self) -> Result<Kernel, Error> {
        let unpacked = self.unpacked("kernel", &|apt| {
            let depends = apt.depends("linux-image-amd64")?;
            let image = depends.iter().find(|name| name.starts_with("linux-image-"));
            let image = image.ok_or_else(|| Error::new("the package linux-image-amd64 names no kernel"))?;
            Ok(vec![image.clone(), "busybox-static".to_owned()])
        })?;
        let boot = unpacked.join("boot");
        let image = find(&boot, "vmlinuz-")?;
        let name = image.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let release = name.trim_start_matches("vmlinuz-").to_owned();
        let modules =
            first_existing(&unpacked, &[&format!("lib/modules/{release}"), &format!("usr/lib/modules/{release}")])?;
        let busybox = first_existing(&unpacked, &["bin/busybox", "usr/bin/busybox"])?;
        Ok(Kernel { image, release, modules, busybox })
    }

    /// A directory with the contents of `packages` and of everything that they depend on, named `name` in the cache.
    ///
    /// # Errors
    /// When the package tools are missing or fail.
    pub fn with_dependencies(&self, name: &str, packages: &[&str]) -> Result<PathBuf, Error> {
        self.unpacked(name, &|apt| apt.closure(packages))
    }

    /// A directory with the contents of `packages` alone, named `name` in the cache.
    ///
    /// # Errors
    /// When the package tools are missing or fail.
    pub fn packages(&self, name: &str, packages: &[&str]) -> Result<PathBuf, Error> {
        self.unpacked(name, &|_| Ok(packages.iter().map(|&p| p.to_owned()).collect()))
    }

    fn unpacked(&self, name: &str, choose: &dyn Fn(&Apt) -> Result<Vec<String>, Error>) -> Result<PathBuf, Error> {
        let directory = self.root.join(name);
        if directory.is_dir() {
            return Ok(directory);
        }
        fs::create_dir_all(&self.root).map_err(|e| Error::file("make", &self.root, &e))?;
        // Several commands at once (tests) make one download; the lock goes with the file.
        let lock_path = self.root.join(format!("{name}.lock"));
        let lock = File::create(&lock_path).map_err(|e| Error::file("make", &lock_path, &e))?;
        lock.lock().map_err(|e| Error::file("lock", &lock_path, &e))?;
        if directory.is_dir() {
            return Ok(directory);
        }
        let apt = Apt::new(&self.root, self.progress)?;
        let names = choose(&apt)?;
        let partial = self.root.join(format!("{name}.partial"));
        let downloads = self.root.join(format!("{name}.packages"));
        for directory in [&partial, &downloads] {
            if directory.is_dir() {
                fs::remove_dir_all(directory).map_err(|e| Error::file("remove", directory, &e))?;
            }
            fs::create_dir_all(directory).map_err(|e| Error::file("make", directory, &e))?;
        }
        match names.as_slice() {
            [] => {}
            names if names.len() <= 4 => (self.progress)(&format!("downloading {}", names.join(", "))),
            names => (self.progress)(&format!("downloading {} packages for {name}", names.len())),
        }
        apt.download(&downloads, &names)?;
        (self.progress)("unpacking");
        for package in list(&downloads)? {
            run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&partial))?;
        }
        fs::remove_dir_all(&downloads).map_err(|e| Error::file("remove", &downloads, &e))?;
        fs::rename(&partial, &directory).map_err(|e| Error::file("make", &directory, &e))?;
        Ok(directory)
    }
}

/// `apt-get` and `apt-cache` with the options that let them work for any user.
struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn new(root: &Path, progress: fn(&str)) -> Result<Self, Error> {
        for tool in ["apt-get", "apt-cache", "dpkg-deb"] {
            if !in_path(tool) {
                return Err(Error::new(format!(
                    "--debian needs Debian's package tools, and {tool} is not there; {INSTEAD}"
                )));
            }
        }
        // The download goes to the user's own directory, which apt's sandbox user may not enter.
        let system = Self { options: vec!["-o".into(), "APT::Sandbox::User=root".into()] };
        if system.knows("linux-image-amd64") {
            return Ok(system);
        }
        // No package lists yet, or those of another architecture: lists of our own need no privilege.
        progress("reading the package lists");
        let state = root.join("apt");
        let mut own = system;
        let mut option = |name: &str, value: String| own.options.extend(["-o".to_owned(), format!("{name}={value}")]);
        for (name, directory) in [("Dir::State::Lists", "lists"), ("Dir::Cache", "cache")] {
            let path = state.join(directory);
            fs::create_dir_all(path.join("partial")).map_err(|e| Error::file("make", &path, &e))?;
            option(name, path.display().to_string());
        }
        option("APT::Architecture", "amd64".into());
        option("APT::Architectures", "amd64".into());
        run(own.command("apt-get").args(["-q", "update"]))?;
        if !own.knows("linux-image-amd64") {
            return Err(Error::new(format!(
                "this system's package sources have no linux-image-amd64 (they are not Debian's); {INSTEAD}"
            )));
        }
        Ok(own)
    }

    fn command(&self, tool: &str) -> Command {
        let mut command = Command::new(tool);
        command.args(&self.options).env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    fn knows(&self, package: &str) -> bool {
        let output =
            self.command("apt-cache").args(["show", "--no-all-versions", package]).stderr(Stdio::null()).output();
        output.is_ok_and(|o| o.status.success() && !o.stdout.is_empty())
    }

    /// The packages which the current version of `package` depends on, first alternatives.
    fn depends(&self, package: &str) -> Result<Vec<String>, Error> {
        let text = run(self.command("apt-cache").args(["show", "--no-all-versions", package]))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Depends: ")).unwrap_or_default();
        Ok(line.split(',').filter_map(|d| d.split_whitespace().next()).map(str::to_owned).collect())
    }

    /// `packages` and all that they depend on.
    fn closure(&self, packages: &[&str]) -> Result<Vec<String>, Error> {
        let switches = ["recommends", "suggests", "conflicts", "breaks", "replaces", "enhances"];
        let mut command = self.command("apt-cache");
        command.args(["depends", "--recurse"]).args(switches.map(|s| format!("--no-{s}"))).args(packages);
        let text = run(&mut command)?;
        let names = text.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_alphanumeric()));
        // A virtual package has no archive; whichever package provides it is in the list too.
        let mut names: Vec<_> = names.filter(|name| self.knows(name)).map(str::to_owned).collect();
        names.sort();
        names.dedup();
        Ok(names)
    }

    fn download(&self, directory: &Path, names: &[String]) -> Result<(), Error> {
        run(self.command("apt-get").args(["-q", "download"]).args(names).current_dir(directory))?;
        let arrived = list(directory)?.len();
        if arrived < names.len() {
            return Err(Error::new(format!("apt-get brought {arrived} of {} packages", names.len())));
        }
        Ok(())
    }
}

/// Runs a tool; its standard output, or an error with the last line it said.
fn run(command: &mut Command) -> Result<String, Error> {
    let tool = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|e| Error::new(format!("cannot run {tool}: {e}")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let line = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it did not say why");
        return Err(Error::new(format!("{tool} failed: {line}; {INSTEAD}")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn in_path(tool: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|directory| directory.join(tool).is_file()))
}

fn list(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir(directory).map_err(|e| Error::file("read", directory, &e))?;
    let mut paths: Vec<_> = entries.filter_map(Result::ok).map(|e| e.path()).collect();
    paths.sort();
    Ok(paths)
}

fn find(directory: &Path, prefix: &str) -> Result<PathBuf, Error> {
    let starts = |path: &PathBuf| path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with(prefix));
    let missing = || Error::new(format!("{} has no file {prefix}*", directory.display()));
    list(directory)?.into_iter().find(starts).ok_or_else(missing)
}

fn first_existing(root: &Path, candidates: &[&str]) -> Result<PathBuf, Error> {
    let missing = || Error::new(format!("{} has no {}", root.display(), candidates.join(" and no ")));
    candidates.iter().map(|c| root.join(c)).find(|path| path.exists()).ok_or_else(missing)
}
