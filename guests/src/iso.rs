//! Bootable ISO images, made by GRUB's own tools. They are hybrid: they boot as a CD-ROM and as a disk.

use crate::programs::output_directory;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use vanderpool::Error;
use vanderpool::debian::Cache;

/// A file on the image.
#[derive(Debug, Clone, Copy)]
pub struct IsoFile<'a> {
    /// Its path on the image.
    pub path: &'a str,
    /// The host's file.
    pub source: &'a Path,
}

/// Makes `target/guests/<name>.iso`, on which GRUB, on the first serial port, runs `script` (lines of grub.cfg) at once. The files are
/// there under their paths.
///
/// # Errors
/// When GRUB's tools are neither installed nor to be had, or fail.
pub fn grub(cache: &Cache, name: &str, script: &str, files: &[IsoFile<'_>]) -> Result<PathBuf, Error> {
    let directory = output_directory()?;
    let tree = directory.join(format!("{name}.iso.tree"));
    if tree.exists() {
        fs::remove_dir_all(&tree).map_err(|e| Error::file("remove", &tree, &e))?;
    }
    let configuration = format!(
        "serial --unit=0 --speed=115200\nterminal_input serial\nterminal_output serial\nset timeout=0\n{script}\nboot\n"
    );
    write(&tree.join("boot/grub/grub.cfg"), configuration.as_bytes())?;
    for file in files {
        let data = fs::read(file.source).map_err(|e| Error::file("read", file.source, &e))?;
        write(&tree.join(file.path.trim_start_matches('/')), &data)?;
    }
    let root = tools(cache)?;
    let image = directory.join(format!("{name}.iso"));
    let mut command = Command::new(root.join("usr/bin/grub-mkrescue"));
    command.arg("--directory").arg(root.join("usr/lib/grub/i386-pc"));
    command.args(["--locales=", "--themes=", "--fonts="]).arg("-o").arg(&image).arg(&tree);
    if root != Path::new("/") {
        let libraries =
            ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(|d| root.join(d).display().to_string());
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .env("LD_LIBRARY_PATH", libraries.join(":"))
            .env("PATH", format!("{}:{path}", root.join("usr/bin").display()));
    }
    let output = command.output().map_err(|e| Error::new(format!("cannot run grub-mkrescue: {e}")))?;
    if !output.status.success() {
        return Err(Error::new(format!("grub-mkrescue fails:\n{}", String::from_utf8_lossy(&output.stderr))));
    }
    fs::remove_dir_all(&tree).map_err(|e| Error::file("remove", &tree, &e))?;
    Ok(image)
}

/// A root directory with GRUB's tools for PC firmware: the system's own, or one made of Debian's packages.
fn tools(cache: &Cache) -> Result<PathBuf, Error> {
    let system = Path::new("/");
    let needed = ["usr/bin/grub-mkrescue", "usr/lib/grub/i386-pc/multiboot.mod", "usr/bin/xorriso", "usr/bin/mformat"];
    if needed.iter().all(|file| system.join(file).exists()) {
        return Ok(system.to_owned());
    }
    cache.with_dependencies("grub", &["grub-common", "grub-pc-bin", "xorriso", "mtools"])
}

fn write(path: &Path, data: &[u8]) -> Result<(), Error> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(|e| Error::file("make", parent, &e))?;
    fs::write(path, data).map_err(|e| Error::file("write", path, &e))
}
