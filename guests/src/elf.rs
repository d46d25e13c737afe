//! Which shared libraries a program needs, so that an initramfs can hold it.

use object::Endianness;
use object::elf::DT_NEEDED;
use object::read::elf::ElfFile64;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use vanderpool::Error;
use vanderpool::initramfs::Initramfs;

/// Where Debian keeps the libraries of amd64 programs.
const DIRECTORIES: &[&str] = &["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib64", "lib64"];

/// The program interpreter of amd64 programs.
pub const INTERPRETER: &str = "ld-linux-x86-64.so.2";

/// The libraries that `program` needs, directly or not, the program interpreter among them, found below `root`.
///
/// # Errors
/// When a file cannot be read, is no 64-bit ELF file, or a library is missing.
pub fn libraries(root: &Path, program: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut names = BTreeSet::from([INTERPRETER.to_owned()]);
    let mut pending = vec![program.to_owned()];
    let mut found = Vec::new();
    pending.push(find(root, INTERPRETER)?);
    while let Some(file) = pending.pop() {
        for name in needed(&file)? {
            if names.insert(name.clone()) {
                pending.push(find(root, &name)?);
            }
        }
        if file != program {
            found.push(file);
        }
    }
    found.sort();
    Ok(found)
}

/// Adds `program` to `image` as `<directory>/<its name>`, with the libraries that it needs, found below `root`.
///
/// # Errors
/// As [`libraries`].
pub fn add_program(image: &mut Initramfs, root: &Path, program: &Path, directory: &str) -> Result<(), Error> {
    image.host_file(&format!("{directory}/{}", name(program)), 0o755, program)?;
    // A static program has no use for the interpreter.
    if needed(program)?.is_empty() {
        return Ok(());
    }
    libraries(root, program)?.iter().try_for_each(|library| add_file(image, library))
}

/// Adds to `image` the library `name`, which a program found below `root` loads while it runs.
///
/// # Errors
/// When it is missing or cannot be read.
pub fn add_library(image: &mut Initramfs, root: &Path, name: &str) -> Result<(), Error> {
    add_file(image, &find(root, name)?)
}

fn add_file(image: &mut Initramfs, library: &Path) -> Result<(), Error> {
    let name = name(library);
    let directory = if name == INTERPRETER { "lib64" } else { "lib/x86_64-linux-gnu" };
    image.host_file(&format!("{directory}/{name}"), 0o755, library)
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|n| n.to_str()).unwrap_or_default()
}

fn find(root: &Path, name: &str) -> Result<PathBuf, Error> {
    let candidates = DIRECTORIES.iter().map(|directory| root.join(directory).join(name));
    let missing = || Error::new(format!("{} has no library {name}", root.display()));
    candidates.into_iter().find(|path| path.exists()).ok_or_else(missing)
}

fn needed(path: &Path) -> Result<Vec<String>, Error> {
    let data = fs::read(path).map_err(|e| Error::file("read", path, &e))?;
    parse(&data).map_err(|e| Error::new(format!("{} is no 64-bit ELF file: {e}", path.display())))
}

fn parse(data: &[u8]) -> Result<Vec<String>, object::Error> {
    let file = ElfFile64::<Endianness>::parse(data)?;
    let dynamic = file.elf_dynamic_table()?;
    let needed = dynamic.iter().filter(|entry| entry.tag == DT_NEEDED);
    needed.map(|entry| Ok(String::from_utf8_lossy(dynamic.string(entry)?).into_owned())).collect()
}
