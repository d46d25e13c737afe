//! The C programs, built by the host's C compiler for x86-64 Linux, statically.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use vanderpool::Error;

/// Builds `guests/c/<name>.c` and returns the program's bytes. `$CC` names the compiler; without it, `x86_64-linux-gnu-gcc` or `cc`.
///
/// # Errors
/// When there is no compiler or it refuses the source.
pub fn build(name: &str) -> Result<Vec<u8>, Error> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("c").join(format!("{name}.c"));
    let directory = output_directory()?;
    // Several tests may build the same program at once: each writes its own file.
    let output = directory.join(format!("{name}.{}.{:?}", std::process::id(), std::thread::current().id()));
    let compiler = env::var("CC").ok();
    let compilers = compiler.as_deref().map_or(vec!["x86_64-linux-gnu-gcc", "cc"], |one| vec![one]);
    for compiler in compilers {
        let mut command = Command::new(compiler);
        command
            .args(["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-fno-math-errno", "-static", "-pthread", "-o"])
            .arg(&output)
            .arg(&source);
        let Ok(result) = command.output() else { continue };
        if !result.status.success() {
            let said = String::from_utf8_lossy(&result.stderr);
            return Err(Error::new(format!("{compiler} refuses {}:\n{said}", source.display())));
        }
        let program = fs::read(&output).map_err(|e| Error::file("read", &output, &e))?;
        fs::remove_file(&output).map_err(|e| Error::file("remove", &output, &e))?;
        return Ok(program);
    }
    Err(Error::new("building the guest programs needs a C compiler with a static libc: apt-get install gcc libc6-dev"))
}

/// A directory below the workspace's `target` for what this crate makes.
///
/// # Errors
/// When it cannot be made.
pub fn output_directory() -> Result<PathBuf, Error> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"));
    let directory = workspace.join("target/guests");
    fs::create_dir_all(&directory).map_err(|e| Error::file("make", &directory, &e))?;
    Ok(directory)
}
