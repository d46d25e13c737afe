//! The compute programs on the host itself, without any machine: how far translated code is from that.

use super::{Interval, Row, measure, used};
use guests::programs;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use vanderpool::Error;

/// The programs' file, and what of each row's times is known.
pub struct Native {
    program: PathBuf,
    rows: Vec<(&'static Row, Vec<f64>)>,
}

impl Native {
    /// For those of `rows` that compute. `None`: there are none, or the host cannot run them.
    ///
    /// # Errors
    /// When the program cannot be built or written.
    pub fn of(rows: &[&'static Row]) -> Result<Option<Self>, Error> {
        let rows: Vec<_> = rows.iter().filter(|row| row.program == "compute").map(|&row| (row, Vec::new())).collect();
        if rows.is_empty() || !runs_here() {
            return Ok(None);
        }
        let program = programs::output_directory()?.join("compute-native");
        let write = || -> std::io::Result<()> {
            // A program that somebody runs just now cannot be written to.
            let _ = fs::remove_file(&program);
            fs::write(&program, programs::build("compute").map_err(std::io::Error::other)?)?;
            #[cfg(unix)]
            fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
            Ok(())
        };
        write().map_err(|e| Error::file("write", &program, &e))?;
        Ok(Some(Self { program, rows }))
    }

    /// Runs each once.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub fn run(&mut self, limit: Duration) -> Result<(), Error> {
        for (row, times) in &mut self.rows {
            let mut command = Command::new(&self.program);
            command.args([row.what, &row.times.to_string()]);
            let interval: Interval = row.interval("");
            times.extend(measure(command, &[interval], limit, used)?.into_iter().flatten());
        }
        Ok(())
    }

    /// The times of the row called `name`.
    pub fn times(&self, name: &str) -> &[f64] {
        self.rows.iter().find(|(row, _)| row.interval("").name == name).map_or(&[], |(_, times)| times)
    }
}

/// The host has what the programs use.
fn runs_here() -> bool {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    return is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("sha");
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    false
}
