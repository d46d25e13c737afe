//! `cargo xtask fuzz`: builds `fuzz/` with coverage instrumentation and runs a target under libFuzzer.
//!
//! The instrumentation is LLVM's `sancov` pass, which the stable compiler takes by `-C passes`; only the sanitizers need
//! a nightly one, and code without `unsafe` does not need them.

use fuzzing::TARGETS;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use vanderpool::Error;

/// What `cargo fuzz` passes, too, but for the sanitizer. Each is one argument, so that [`compile`] takes out whole ones.
const FLAGS: &[&str] = &[
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];

/// Crates that are built without [`FLAGS`]: what their branches do says nothing about ours, and the decoder's are the
/// greater part of all that run.
const PLAIN: &[&str] = &["iced_x86"];

/// Set for the compiler wrapper, which this program is for its own builds.
const WRAPPER: &str = "VANDERPOOL_FUZZ_RUSTC";

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
    /// Longest input in bytes; without it, what suits the target.
    #[arg(long)]
    longest: Option<usize>,
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
        .arg(format!("-max_len={}", arguments.longest.unwrap_or(target.longest)))
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
        .env("RUSTC_WRAPPER", std::env::current_exe().map_err(|error| Error::new(error.to_string()))?)
        .env(WRAPPER, "1")
        .status()
        .map_err(|error| Error::new(format!("cannot run cargo: {error}")))?;
    if !status.success() {
        return Err(Error::new("the fuzz targets do not build; libFuzzer needs a C++ compiler (Debian: g++)"));
    }
    Ok(directory.join("target").join(host).join("release/any"))
}

/// Whether cargo runs this program as its compiler wrapper: then [`compile`] is all there is to do.
pub fn is_compiler() -> bool {
    std::env::var_os(WRAPPER).is_some()
}

/// Runs the compiler with the arguments that cargo gives to a wrapper, without [`FLAGS`] for the crates of [`PLAIN`].
pub fn compile() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Some(compiler) = arguments.next() else { return ExitCode::FAILURE };
    let arguments: Vec<_> = arguments.collect();
    let plain =
        arguments.windows(2).any(|pair| pair[0] == "--crate-name" && PLAIN.iter().any(|name| pair[1] == **name));
    let kept = arguments.iter().filter(|argument| !plain || !FLAGS.iter().any(|flag| **argument == **flag));
    match Command::new(compiler).args(kept).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: cannot run the compiler: {error}");
            ExitCode::FAILURE
        }
    }
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
