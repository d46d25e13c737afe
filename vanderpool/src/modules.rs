//! Kernel modules of a Debian kernel package: which there are, what each needs, and the files `modprobe` reads.
//!
//! The package holds no `modules.dep` (its installation makes it), so the dependencies come from the `.modinfo` section of
//! the modules themselves.

use crate::Error;
use object::{Object, ObjectSection};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The modules below one `lib/modules/<release>` directory, by name (with `_` for `-`).
#[derive(Debug, Clone)]
pub struct Modules {
    files: BTreeMap<String, PathBuf>,
}

/// One module, read.
#[derive(Debug, Clone)]
pub struct Module {
    /// Its name with `_` for `-`, as `lsmod` shows it.
    pub name: String,
    /// The ELF file, decompressed.
    pub data: Vec<u8>,
    /// Names of the modules whose symbols it uses.
    pub depends: Vec<String>,
    /// Device and other aliases.
    pub aliases: Vec<String>,
}

impl Modules {
    /// Finds every module below `directory`.
    ///
    /// # Errors
    /// When a directory cannot be read, or holds no module.
    pub fn find(directory: &Path) -> Result<Self, Error> {
        let mut files = BTreeMap::new();
        let mut pending = vec![directory.to_owned()];
        while let Some(directory) = pending.pop() {
            let entries = fs::read_dir(&directory).map_err(|e| Error::file("read", &directory, &e))?;
            for entry in entries {
                let path = entry.map_err(|e| Error::file("read", &directory, &e))?.path();
                if path.is_dir() && !path.is_symlink() {
                    pending.push(path);
                } else if let Some(name) = module_name(&path) {
                    files.insert(name, path);
                }
            }
        }
        if files.is_empty() {
            return Err(Error::new(format!("{} holds no kernel modules", directory.display())));
        }
        Ok(Self { files })
    }

    /// Reads the modules named in `roots` and all that they need, each after what it depends on. A root that the kernel has
    /// not (because it is built in, or of another kernel) is left out.
    ///
    /// # Errors
    /// When a module cannot be read or decompressed, or a dependency is missing.
    pub fn closure(&self, roots: &[&str]) -> Result<Vec<Module>, Error> {
        let mut loaded: Vec<Module> = Vec::new();
        for root in roots {
            let name = root.replace('-', "_");
            if self.files.contains_key(&name) {
                self.visit(&name, &mut loaded, 0)?;
            }
        }
        Ok(loaded)
    }

    fn visit(&self, name: &str, loaded: &mut Vec<Module>, depth: usize) -> Result<(), Error> {
        if loaded.iter().any(|m| m.name == name) {
            return Ok(());
        }
        let Some(path) = self.files.get(name) else {
            return Err(Error::new(format!("the kernel package has no module {name}, which another one needs")));
        };
        if depth > 64 {
            return Err(Error::new(format!("the dependencies of the module {name} have no end")));
        }
        let module = read(name, path)?;
        for dependency in &module.depends {
            self.visit(dependency, loaded, depth + 1)?;
        }
        loaded.push(module);
        Ok(())
    }
}

/// The text of `modules.dep` for `modules` placed as `kernel/<name>.ko`: each line lists all modules that one needs, the
/// nearest first.
#[must_use]
pub fn modules_dep(modules: &[Module]) -> String {
    let mut text = String::new();
    for module in modules {
        text += &format!("kernel/{}.ko:", module.name);
        // `modules` has dependencies first; modprobe wants the whole closure with the first to load at the end.
        let mut needed = module.depends.clone();
        for other in modules.iter().rev() {
            if needed.contains(&other.name) {
                needed.extend(other.depends.iter().cloned());
                text += &format!(" kernel/{}.ko", other.name);
            }
        }
        text.push('\n');
    }
    text
}

/// The text of `modules.alias` for `modules`.
#[must_use]
pub fn modules_alias(modules: &[Module]) -> String {
    let mut text = String::new();
    for module in modules {
        for alias in &module.aliases {
            text += &format!("alias {alias} {}\n", module.name);
        }
    }
    text
}

fn module_name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let stem = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"].iter().find_map(|suffix| file.strip_suffix(suffix))?;
    Some(stem.replace('-', "_"))
}

fn read(name: &str, path: &Path) -> Result<Module, Error> {
    let tool = match path.extension().and_then(|e| e.to_str()) {
        Some("xz") => Some("xz"),
        Some("zst") => Some("zstd"),
        Some("gz") => Some("gzip"),
        _ => None,
    };
    let data = match tool {
        None => fs::read(path).map_err(|e| Error::file("read", path, &e))?,
        Some(tool) => {
            let output = Command::new(tool)
                .arg("-dc")
                .arg(path)
                .output()
                .map_err(|e| Error::new(format!("cannot run {tool} to decompress {}: {e}", path.display())))?;
            if !output.status.success() {
                return Err(Error::new(format!("{tool} cannot decompress {}", path.display())));
            }
            output.stdout
        }
    };
    let information = modinfo(&data).map_err(|e| Error::new(format!("{} is not a module: {e}", path.display())))?;
    let mut module = Module { name: name.to_owned(), data, depends: Vec::new(), aliases: Vec::new() };
    for (key, value) in information {
        match key.as_str() {
            "depends" => {
                module.depends = value.split(',').filter(|d| !d.is_empty()).map(|d| d.replace('-', "_")).collect()
            }
            "alias" => module.aliases.push(value),
            _ => {}
        }
    }
    Ok(module)
}

/// The `key=value` strings of an ELF file's `.modinfo` section.
fn modinfo(data: &[u8]) -> Result<Vec<(String, String)>, object::Error> {
    let file = object::File::parse(data)?;
    let Some(section) = file.section_by_name(".modinfo") else { return Ok(Vec::new()) };
    let strings = section.data()?.split(|&byte| byte == 0);
    Ok(strings
        .filter_map(|text| String::from_utf8_lossy(text).split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(name: &str, depends: &[&str]) -> Module {
        Module {
            name: name.into(),
            data: Vec::new(),
            depends: depends.iter().map(|&d| d.into()).collect(),
            aliases: vec![format!("alias:{name}*")],
        }
    }

    #[test]
    fn modules_dep_lists_indirect_dependencies_first_to_load_last() {
        let modules =
            [module("failover", &[]), module("net_failover", &["failover"]), module("virtio_net", &["net_failover"])];
        let text = modules_dep(&modules);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "kernel/failover.ko:");
        assert_eq!(lines[2], "kernel/virtio_net.ko: kernel/net_failover.ko kernel/failover.ko");
    }

    #[test]
    fn aliases_name_their_module() {
        assert_eq!(modules_alias(&[module("kvm", &[])]), "alias alias:kvm* kvm\n");
    }

    #[test]
    fn names_use_underscores_and_lose_the_compression_suffix() {
        assert_eq!(module_name(Path::new("/a/virtio-rng.ko.xz")).as_deref(), Some("virtio_rng"));
        assert_eq!(module_name(Path::new("/a/ext4.ko")).as_deref(), Some("ext4"));
        assert_eq!(module_name(Path::new("/a/modules.order")), None);
    }

    #[test]
    fn a_file_that_is_no_elf_is_refused() {
        assert!(modinfo(b"not an ELF file").is_err());
    }
}
