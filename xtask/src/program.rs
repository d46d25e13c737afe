//! The command under test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use vanderpool::Error;

/// `given`, or the release build of this workspace, which is made when needed.
pub fn path(given: Option<&Path>) -> Result<PathBuf, Error> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let status =
        Command::new(env!("CARGO")).args(["build", "--release", "--package", "vanderpool"]).current_dir(&root).status();
    if !status.is_ok_and(|status| status.success()) {
        return Err(Error::new("the command does not build"));
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let program = target.join("release/vanderpool");
    fs::canonicalize(&program).map_err(|e| Error::file("find", &program, &e))
}
