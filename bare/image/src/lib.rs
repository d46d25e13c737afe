//! Builds the workspace's bare-metal programs (those on the crate `bare`) as ELF images, with cargo in their own profile.
//!
//! Build scripts and tests use it. The host's own target serves: it is x86-64 on a PC, and elsewhere it has to be installed
//! (`rustup target add x86_64-unknown-linux-gnu`) with a linker for it.
#![forbid(unsafe_code)]

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The target of the images.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Whether this computer's own target serves.
pub const ON_A_PC: bool = cfg!(all(target_arch = "x86_64", target_os = "linux"));

/// The root of the workspace.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new("/"))
}

/// How a program is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// A multiboot image from 1 MiB up, with its symbols.
    Multiboot,
    /// The same without symbols, to be put into another program.
    Small,
    /// A real-mode image from 7C00H up, without symbols.
    RealMode,
}

/// Builds the binary `name` of `package` below `directory` (a target directory of cargo's) and returns its file.
///
/// # Errors
/// When cargo refuses; the text has what it says.
pub fn build(package: &str, name: &str, directory: &Path, layout: Layout) -> Result<PathBuf, String> {
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(workspace());
    command.args(["rustc", "--quiet", "--profile", "bare", "--package", package, "--bin", name]);
    command.arg("--target-dir").arg(directory);
    if !ON_A_PC {
        command.args(["--target", TARGET]);
    }
    let script = if layout == Layout::RealMode { "bare/real_mode.ld" } else { "bare/link.ld" };
    let script = workspace().join(script);
    let strip = if layout == Layout::Multiboot { "" } else { ",--strip-all" };
    let options = format!(
        "link-args=-nostartfiles -nostdlib -static -no-pie -Wl,-T{},--build-id=none,--gc-sections{strip}",
        script.display()
    );
    command.args(["--", "-C", "relocation-model=static", "-C", &options]);
    // Set by the cargo that runs us, for another crate and another profile, or by a lint that runs it.
    for (variable, _) in env::vars().filter(|(name, _)| of_another_build(name)) {
        command.env_remove(variable);
    }
    let output = command.output().map_err(|e| format!("cannot run cargo: {e}"))?;
    if !output.status.success() {
        return Err(format!("{name} does not build:\n{}", String::from_utf8_lossy(&output.stderr)));
    }
    let folder = if ON_A_PC { directory.to_owned() } else { directory.join(TARGET) };
    Ok(folder.join("bare").join(name))
}

fn of_another_build(variable: &str) -> bool {
    const ALWAYS: [&str; 10] = [
        "CARGO_MANIFEST_DIR",
        "CARGO_MANIFEST_PATH",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_TARGET_DIR",
        "CARGO_BUILD_TARGET",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_WRAPPER",
        "RUSTFLAGS",
        "CLIPPY_ARGS",
        "TARGET",
    ];
    let beginnings = ["CARGO_PKG_", "CARGO_CFG_", "CARGO_FEATURE_"];
    ALWAYS.contains(&variable) || beginnings.iter().any(|beginning| variable.starts_with(beginning))
}
