//! `cargo xtask fuzz`: builds `fuzz/` with coverage instrumentation and runs a target under libFuzzer.
//!
//! The instrumentation is LLVM's `sancov` pass, which the stable compiler takes by `-C passes`; only the sanitizers need
//! a nightly one, and code without `unsafe` does not need them.

use fuzzing::TARGETS;
use std::path::{Path, PathBuf};
use std::process::Command;
use vanderpool::Error;

/// What `cargo fuzz` passes, too, but for the sanitizer.
const FLAGS: &[&str] = &[
    "--cfg",
    "fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];

#[derive(clap::Args)]
pub struct Arguments {
    /// The target; without it, the targets are listed.
    target: Option<String>,
    /// How long to run.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Seed of libFuzzer's choices; 0 takes another one each time.
    #[arg(long, default_value_t = 1)]
    seed: u32,
    /// Longest input in bytes.
    #[arg(long, default_value_t = 4096)]
    longest: usize,
    /// Run this one input instead, to see why it fails.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> Result<(), Error> {
    let Some(name) = &arguments.target else {
        for target in TARGETS {
            println!("{:12} {}", target.name, target.about);
        }
        return Ok(());
    };
    let Some(target) = fuzzing::target(name) else {
        return Err(Error::new(format!("there is no fuzz target {name}; `cargo xtask fuzz` lists them")));
    };
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("fuzz");
    let program = build(&directory)?;
    let mut command = Command::new(program);
    command.env("FUZZ_TARGET", name).args(["-timeout=10", "-rss_limit_mb=2048"]);
    if let Some(input) = &arguments.input {
        return finish(command.arg(input), name);
    }
    let corpus = directory.join("corpus").join(name);
    let artifacts = directory.join("artifacts").join(name);
    for path in [&corpus, &artifacts] {
        std::fs::create_dir_all(path).map_err(|error| Error::file("create", path, &error))?;
    }
    for (index, seed) in (target.seeds)().iter().enumerate() {
        let path = corpus.join(format!("seed-{index}"));
        std::fs::write(&path, seed).map_err(|error| Error::file("write", &path, &error))?;
    }
    command
        .arg(format!("-max_total_time={}", arguments.seconds))
        .arg(format!("-seed={}", arguments.seed))
        .arg(format!("-max_len={}", arguments.longest))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .args(["-print_final_stats=1", "-use_value_profile=1"])
        .arg(corpus);
    finish(&mut command, name)
}

/// Builds the program that holds all targets; gives its path.
fn build(directory: &Path) -> Result<PathBuf, Error> {
    let host = host_triple()?;
    let status = Command::new("cargo")
        .args(["build", "--release", "--target", &host])
        .current_dir(directory)
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"))
        .status()
        .map_err(|error| Error::new(format!("cannot run cargo: {error}")))?;
    if !status.success() {
        return Err(Error::new("the fuzz targets do not build; libFuzzer needs a C++ compiler (Debian: g++)"));
    }
    Ok(directory.join("target").join(host).join("release/any"))
}

/// The compiler's own target. Naming it keeps the instrumentation out of build scripts.
fn host_triple() -> Result<String, Error> {
    let output =
        Command::new("rustc").arg("-vV").output().map_err(|error| Error::new(format!("cannot run rustc: {error}")))?;
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .find_map(|line| line.strip_prefix("host: ").map(str::to_owned))
        .ok_or_else(|| Error::new("rustc -vV names no host"))
}

fn finish(command: &mut Command, name: &str) -> Result<(), Error> {
    let status = command.status().map_err(|error| Error::new(format!("cannot run the fuzzer: {error}")))?;
    if status.success() {
        Ok(())
    } else {
        Err(Error::new(format!(
            "the fuzz target {name} failed; the input is in fuzz/artifacts/{name}, and --input runs it again"
        )))
    }
}
