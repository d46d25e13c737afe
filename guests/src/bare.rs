//! The bare-metal programs (`guests/conformance` and others on `guests/bare`), built by cargo in their own profile.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use vanderpool::Error;

/// Builds the program of the workspace's package `name` and returns its file, a multiboot 1 ELF image. The host's own target serves:
/// it is x86-64 on a PC, and elsewhere it has to be installed (`rustup target add`) with a linker for it.
///
/// # Errors
/// When cargo refuses.
pub fn build(name: &str) -> Result<PathBuf, Error> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"));
    let script = workspace.join("guests/bare/link.ld");
    let directory = workspace.join("target");
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(workspace).args(["rustc", "--quiet", "--profile", "bare", "--package", name, "--bin", name]);
    command.arg("--target-dir").arg(&directory);
    if cfg!(not(all(target_arch = "x86_64", target_os = "linux"))) {
        command.args(["--target", TARGET]);
    }
    let options = format!(
        "link-args=-nostartfiles -nostdlib -static -no-pie -Wl,-T{},--build-id=none,--gc-sections",
        script.display()
    );
    command.args(["--", "-C", "relocation-model=static", "-C", &options]);
    // Set by a cargo that runs us, for another crate and another profile.
    for (variable, _) in env::vars().filter(|(name, _)| name.starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR")
    {
        command.env_remove(variable);
    }
    let output = command.output().map_err(|e| Error::new(format!("cannot run cargo: {e}")))?;
    if !output.status.success() {
        return Err(Error::new(format!("{name} does not build:\n{}", String::from_utf8_lossy(&output.stderr))));
    }
    let folder = if cfg!(all(target_arch = "x86_64", target_os = "linux")) { String::new() } else { TARGET.to_owned() };
    Ok(directory.join(folder).join("bare").join(name))
}

const TARGET: &str = "x86_64-unknown-linux-gnu";
