//! `cargo xtask kvm-selftests DIR`: runs the kernel's KVM selftests for x86-64, built by the user in DIR (the output directory of
//! `tools/testing/selftests/kvm` in the kernel's source), in Debian's kernel on our machine.
//!
//! One machine runs them one after another. When one of them takes the machine with it or does not end, another machine takes up the rest.

use crate::outcome::{Outcome, Tally};
use crate::program;
use guests::{elf, images};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};
use vanderpool::Error;
use vanderpool::debian::{Cache, Kernel};

#[derive(clap::Args)]
pub struct Arguments {
    /// The directory with the tests; those in its directory x86_64 are run too.
    directory: PathBuf,
    /// Only tests whose name has this text; may be repeated.
    #[arg(long)]
    filter: Vec<String>,
    /// Our machine's command; without it, the release build of this workspace.
    #[arg(long)]
    vanderpool: Option<PathBuf>,
    /// Processor model.
    #[arg(long, default_value = "full")]
    cpu: String,
    /// Number of processors.
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// Memory of the machine.
    #[arg(long, default_value = "4G")]
    memory: String,
    /// Seconds of the host's time that a test may take.
    #[arg(long, default_value_t = 300)]
    limit: u64,
    /// Write the console to files here.
    #[arg(long)]
    logs: Option<PathBuf>,
}

/// Programs that want to be started by a script of their own.
const NOT_ALONE: &[&str] = &["nx_huge_pages_test"];

/// Tests that skip themselves under the default parameters of `kvm_intel`, with those that they want.
const PARAMETERS: &[(&str, &str)] = &[
    ("vmx_exception_with_invalid_guest_state", "unrestricted_guest=0"),
    ("mmio_warning_test", "unrestricted_guest=0"),
];

/// Before the name of the test that begins.
const BEGIN: &str = "selftest begins: ";
/// Before the exit status of the test that ended.
const END: &str = "selftest ends: ";
/// The exit status of a test that skips itself.
const SKIPPED: &str = "4";

pub fn run(arguments: &Arguments) -> Result<(), Error> {
    let program = program::path(arguments.vanderpool.as_deref())?;
    let cache = Cache::of_user(|line| eprintln!("xtask: {line}"))?;
    let kernel = cache.kernel()?;
    let tests = find(arguments)?;
    if tests.is_empty() {
        return Err(Error::new(format!("{} has no such tests", arguments.directory.display())));
    }
    if let Some(logs) = &arguments.logs {
        fs::create_dir_all(logs).map_err(|e| Error::file("make", logs, &e))?;
    }
    let image = image(&kernel, &tests)?;
    let mut tally = Tally::default();
    let mut next = 0;
    while next < tests.len() {
        let first = next;
        boot(arguments, &program, &kernel, &image, first, |outcome, time| {
            tally.note(name(&tests[next]), &outcome, time);
            next += 1;
            next < tests.len()
        })?;
    }
    println!("{tally}");
    Ok(())
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|n| n.to_str()).unwrap_or_default()
}

/// The programs of the directory.
fn find(arguments: &Arguments) -> Result<Vec<PathBuf>, Error> {
    let mut tests = Vec::new();
    for directory in [arguments.directory.clone(), arguments.directory.join("x86_64")] {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
            let data = fs::metadata(&path).map_err(|e| Error::file("read", &path, &e))?;
            let wanted =
                arguments.filter.is_empty() || arguments.filter.iter().any(|f| name(&path).contains(f.as_str()));
            let program = data.is_file() && data.permissions().mode() & 0o111 != 0 && path.extension().is_none();
            if program && wanted && !NOT_ALONE.contains(&name(&path)) {
                tests.push(path);
            }
        }
    }
    tests.sort_by(|a, b| name(a).cmp(name(b)));
    Ok(tests)
}

/// The initramfs: its script runs the tests from the one whose number is `from=` on the kernel's command line.
fn image(kernel: &Kernel, tests: &[PathBuf]) -> Result<PathBuf, Error> {
    let mut script = format!(
        "from=$(sed 's/.*vp.from=\\([0-9]*\\).*/\\1/' /proc/cmdline) number=0 loaded=\n\
         one() {{\n\
         number=$((number + 1)); [ $number -gt $from ] || return\n\
         [ \"$2\" = \"$loaded\" ] || {{ modprobe -r kvm_intel; modprobe kvm_intel $2; loaded=$2; }}\n\
         echo \"{BEGIN}$1\"; /selftests/$1 </dev/null 2>&1; echo \"{END}$?\"\n\
         }}\n"
    );
    for test in tests {
        let parameters = PARAMETERS.iter().find(|(of, _)| *of == name(test)).map_or("", |(_, parameters)| parameters);
        script += &format!("one {} {parameters}\n", name(test));
    }
    let mut image = images::with_script(kernel, &script)?;
    for test in tests {
        elf::add_program(&mut image, Path::new("/"), test, "selftests")?;
    }
    images::write("kvm-selftests", image)
}

/// Boots a machine that runs the tests from number `first` on, and tells each one's end to `ended`, which says whether there are more.
fn boot(
    arguments: &Arguments,
    program: &Path,
    kernel: &Kernel,
    image: &Path,
    first: usize,
    mut ended: impl FnMut(Outcome, Duration) -> bool,
) -> Result<(), Error> {
    let cannot = |e: std::io::Error| Error::new(format!("cannot run {}: {e}", program.display()));
    let mut command = Command::new(program);
    command.args(["boot", "--no-reboot", "--cpu", &arguments.cpu, "--memory", &arguments.memory]);
    command.arg("--cpus").arg(arguments.cpus.to_string());
    command.arg("--kernel").arg(&kernel.image).arg("--initrd").arg(image);
    command.arg("--append").arg(format!("console=ttyS0 quiet panic=-1 vp.run={} vp.from={first}", images::SCRIPT));
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(cannot)?;
    let (sender, lines) = channel();
    let output = BufReader::new(child.stdout.take().expect("a pipe"));
    thread::spawn(move || {
        // Bytes that are no UTF-8 are no end of the console.
        let mut lines = output.split(b'\n').map_while(Result::ok);
        lines.try_for_each(|line| sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()))
    });
    let mut log = match &arguments.logs {
        Some(logs) => {
            let path = logs.join(format!("from-{first}.log"));
            Some(fs::File::create(&path).map_err(|e| Error::file("make", &path, &e))?)
        }
        None => None,
    };
    let limit = Duration::from_secs(arguments.limit);
    let mut start = Instant::now();
    let mut said: Vec<String> = Vec::new();
    loop {
        let problem = match lines.recv_timeout((start + limit).saturating_duration_since(Instant::now())) {
            Ok(line) => {
                if let Some(log) = &mut log {
                    writeln!(log, "{line}").map_err(|e| Error::new(format!("cannot write the log: {e}")))?;
                }
                if line.starts_with(BEGIN) {
                    said.clear();
                    start = Instant::now();
                } else if let Some(status) = line.strip_prefix(END) {
                    let more = ended(judge(status, &said), start.elapsed());
                    said.clear();
                    start = Instant::now();
                    if !more {
                        break;
                    }
                } else {
                    said.push(line);
                }
                continue;
            }
            Err(RecvTimeoutError::Timeout) => "no end in time",
            Err(RecvTimeoutError::Disconnected) => "the machine ended",
        };
        let last = said.iter().rev().find(|line| !line.is_empty()).map_or("", String::as_str);
        ended(Outcome::Fail(format!("{problem}; last line: {last}")), start.elapsed());
        break;
    }
    // What is left is the end of the machine, which nobody waits for.
    let _ = child.kill();
    child.wait().map_err(cannot)?;
    Ok(())
}

/// `status` is the exit status of a test that said `said`.
fn judge(status: &str, said: &[String]) -> Outcome {
    let after = |mark: &str| said.iter().find_map(|line| line.split_once(mark)).map(|(_, rest)| rest.trim().to_owned());
    match status {
        "0" => Outcome::Pass,
        SKIPPED => Outcome::Skip(after("SKIP").unwrap_or_default()),
        status => {
            let assertion = said.iter().skip_while(|line| !line.contains("Test Assertion Failure")).nth(1);
            let last = said.iter().rev().find(|line| !line.is_empty());
            let what = assertion.or(last).map_or("", |line| line.trim());
            Outcome::Fail(format!("status {status}: {what}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(status: &str, said: &[&str]) -> Outcome {
        super::judge(status, &said.iter().map(|&line| line.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn statuses_are_those_of_selftests() {
        assert_eq!(judge("0", &[]), Outcome::Pass);
        assert_eq!(
            judge("4", &["1..0 # SKIP - Requirement not met: a"]),
            Outcome::Skip("- Requirement not met: a".to_owned())
        );
        assert_eq!(judge("137", &["a", ""]), Outcome::Fail("status 137: a".to_owned()));
    }

    #[test]
    fn a_failed_assertion_is_named() {
        let said = ["a", "==== Test Assertion Failure ====", "  x86_64/a.c:12: b == c", "  pid=1"];
        assert_eq!(judge("254", &said), Outcome::Fail("status 254: x86_64/a.c:12: b == c".to_owned()));
    }
}
