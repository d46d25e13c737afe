//! `cargo xtask kvm-unit-tests DIR`: runs the x86 tests of kvm-unit-tests, built by the user in DIR, on our machine, as `unittests.cfg` says.
//!
//! Tests that need an AMD processor or what only KVM or QEMU has are left out, each with the reason.

use crate::outcome::{Outcome, Tally};
use crate::program;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use vanderpool::Error;

#[derive(clap::Args)]
pub struct Arguments {
    /// The directory of kvm-unit-tests, configured and built.
    directory: PathBuf,
    /// Only tests whose name has this text.
    #[arg(long)]
    filter: Option<String>,
    /// Our machine's command; without it, the release build of this workspace.
    #[arg(long)]
    vanderpool: Option<PathBuf>,
    /// Seconds for a test that sets no limit of its own; those that do get as many times more as this is more than 90.
    #[arg(long, default_value_t = 180)]
    limit: u64,
    /// Write each test's console to a file here.
    #[arg(long)]
    logs: Option<PathBuf>,
    /// Run each test with both engines, one after the other, and fail it if they differ in console, count of instructions or digest.
    #[arg(long)]
    both_engines: bool,
    /// With `--both-engines`, compare after so many instructions if the test has not ended.
    #[arg(long, value_name = "N", default_value_t = 400_000_000, requires = "both_engines")]
    max_instructions: u64,
}

/// A section of unittests.cfg.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Test {
    name: String,
    keys: BTreeMap<String, String>,
}

impl Test {
    fn key(&self, name: &str) -> &str {
        self.keys.get(name).map_or("", String::as_str)
    }

    /// Why the test says nothing about our machine.
    fn reason_to_skip(&self) -> Option<&'static str> {
        let parameters = self.key("qemu_params");
        let has = |group: &str| self.key("groups").split_whitespace().any(|g| g == group);
        if has("svm") || self.name.starts_with("svm") || parameters.contains("AuthenticAMD") {
            Some("needs an AMD processor")
        } else if parameters.contains("hv_passthrough") || has("hyperv") {
            Some("needs KVM's Hyper-V interface")
        } else if parameters.contains("vmport") {
            Some("needs QEMU's vmport")
        } else if self.key("arch") == "i386" {
            Some("is built for 32-bit systems only")
        } else if self.name.starts_with("asyncpf")
            || self.name.starts_with("kvmclock")
            || self.name.starts_with("pvunhalt")
        {
            Some("needs KVM's paravirtual interface")
        } else if self.name.contains("_fep") || self.key("test_args").contains("force_emulation") {
            Some("needs KVM's forced emulation")
        } else {
            None
        }
    }

    /// The arguments for our command: QEMU's, as the suite's own runner gives them.
    fn arguments(&self, directory: &Path) -> Vec<String> {
        let kernel = directory.join("x86").join(self.key("file")).display().to_string();
        let mut arguments: Vec<String> = RUNNER.split_whitespace().map(str::to_owned).collect();
        arguments.extend(["-kernel".to_owned(), kernel]);
        if !self.key("smp").is_empty() {
            arguments.extend(["-smp", self.key("smp")].map(str::to_owned));
        }
        let text = self.key("test_args").trim_matches(['\'', '"']);
        if !text.is_empty() {
            arguments.extend(["-append", text].map(str::to_owned));
        }
        arguments.extend(self.key("qemu_params").split_whitespace().map(str::to_owned));
        arguments
    }

    fn limit(&self, base: u64) -> Duration {
        let own: u64 = self.key("timeout").parse().unwrap_or(90);
        Duration::from_secs(own.max(30) * base / 90)
    }
}

/// What the suite's runner gives QEMU for every test.
const RUNNER: &str = "qemu --no-reboot -nodefaults -global kvm-pit.lost_tick_policy=discard -device pc-testdev \
                      -device isa-debug-exit,iobase=0xf4,iosize=0x4 -display none -serial stdio -device pci-testdev \
                      -machine accel=tcg";

pub fn run(arguments: &Arguments) -> Result<(), Error> {
    let list = arguments.directory.join("x86/unittests.cfg");
    let text = fs::read_to_string(&list).map_err(|e| Error::file("read", &list, &e))?;
    let program = program::path(arguments.vanderpool.as_deref())?;
    if let Some(logs) = &arguments.logs {
        fs::create_dir_all(logs).map_err(|e| Error::file("make", logs, &e))?;
    }
    let mut tally = Tally::default();
    for test in parse(&text) {
        if arguments.filter.as_ref().is_some_and(|filter| !test.name.contains(filter)) {
            continue;
        }
        let start = Instant::now();
        let outcome = match test.reason_to_skip() {
            Some(reason) => Outcome::Skip(reason.to_owned()),
            None => {
                let log =
                    |engine: &str| arguments.logs.as_ref().map(|logs| logs.join(format!("{}{engine}.log", test.name)));
                let words = test.arguments(&arguments.directory);
                let limit = test.limit(arguments.limit);
                let most = arguments.max_instructions.to_string();
                if arguments.both_engines {
                    compare(["interpreter", "translator"].map(|engine| {
                        let own = ["-digest", "-max-instructions", &most, "-engine", engine].map(str::to_owned);
                        let words = [words.clone(), own.into()].concat();
                        Run::of(&program, &words, limit, log(&format!("-{engine}")).as_deref())
                    }))?
                } else {
                    Run::of(&program, &words, limit, log("").as_deref())?.judge()
                }
            }
        };
        tally.note(&test.name, &outcome, start.elapsed());
    }
    println!("{tally}");
    Ok(())
}

/// How a test ended.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    /// `None` when it was ended for its time; then what a signal leaves, or a number.
    status: Option<Option<i32>>,
    console: String,
    errors: String,
}

impl Run {
    fn of(program: &Path, arguments: &[String], limit: Duration, log: Option<&Path>) -> Result<Self, Error> {
        let cannot = |e: std::io::Error| Error::new(format!("cannot run {}: {e}", program.display()));
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(cannot)?;
        let output = collect(child.stdout.take().expect("a pipe"));
        let errors = collect(child.stderr.take().expect("a pipe"));
        let deadline = Instant::now() + limit;
        let status = loop {
            if let Some(status) = child.try_wait().map_err(cannot)? {
                break Some(status);
            }
            if Instant::now() >= deadline {
                child.kill().map_err(cannot)?;
                child.wait().map_err(cannot)?;
                break None;
            }
            thread::sleep(Duration::from_millis(20));
        };
        let console = output.join().unwrap_or_default();
        let errors = errors.join().unwrap_or_default();
        if let Some(log) = log {
            fs::write(log, format!("{}\n{console}\n{errors}\n", arguments.join(" ")))
                .map_err(|e| Error::file("write", log, &e))?;
        }
        Ok(Self { status: status.map(|s| s.code()), console, errors })
    }

    fn judge(&self) -> Outcome {
        judge(self.status, &self.console, &self.errors)
    }
}

/// What both runs say, if they say the same.
fn compare(runs: [Result<Run, Error>; 2]) -> Result<Outcome, Error> {
    let [ours, theirs] = runs;
    let (ours, theirs) = (ours?, theirs?);
    if ours.status.is_none() || theirs.status.is_none() {
        return Ok(Outcome::Fail("no end in time".to_owned()));
    }
    if ours == theirs {
        // What they find is another question.
        return Ok(Outcome::Pass);
    }
    let what = if ours.console == theirs.console {
        format!("{} / {}", ours.errors.trim().replace('\n', ", "), theirs.errors.trim().replace('\n', ", "))
    } else {
        "consoles".to_owned()
    };
    Ok(Outcome::Fail(format!("the engines differ: {what}")))
}

/// Reads all of `source` beside the caller.
fn collect(mut source: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = source.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The tests end with their status in isa-debug-exit: 0 is success, 77 a test that found nothing to do.
fn judge(status: Option<Option<i32>>, console: &str, errors: &str) -> Outcome {
    let summary = console.lines().rev().find(|line| line.starts_with("SUMMARY")).unwrap_or_default();
    let last = || errors.lines().chain(console.lines().rev().take(1)).next().unwrap_or_default().trim().to_owned();
    match status {
        None => Outcome::Fail(format!("no end in time; {summary}")),
        Some(Some(1)) => Outcome::Pass,
        Some(Some(code)) if code == (77 << 1 | 1) => Outcome::Skip(summary.to_owned()),
        Some(code) => {
            let failed: Vec<_> = console.lines().filter(|line| line.starts_with("FAIL")).take(3).collect();
            let what = if failed.is_empty() { last() } else { failed.join("; ") };
            Outcome::Fail(format!("status {}: {what} {summary}", code.map_or("of a signal".into(), |c| c.to_string())))
        }
    }
}

/// The sections of unittests.cfg.
fn parse(text: &str) -> Vec<Test> {
    let mut tests: Vec<Test> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            tests.push(Test { name: name.to_owned(), keys: BTreeMap::new() });
        } else if let (Some((key, value)), Some(test)) = (line.split_once('='), tests.last_mut()) {
            test.keys.insert(key.trim().to_owned(), value.trim().to_owned());
        }
    }
    tests
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "# a comment\n[x2apic]\nfile = apic.flat\nsmp = 2\nqemu_params = -cpu qemu64,+x2apic,-pcid -m 2048\ntimeout = 30\n\n\
                        [svm]\nfile = svm.flat\ngroups = svm\n[vmx]\nfile = vmx.flat\ntest_args = \"-a b\"\n";

    #[test]
    fn sections_and_keys_are_read() {
        let tests = parse(LIST);
        assert_eq!(tests.len(), 3);
        assert_eq!(tests[0].key("file"), "apic.flat");
        assert_eq!(tests[0].reason_to_skip(), None);
        assert!(tests[1].reason_to_skip().is_some());
    }

    #[test]
    fn parameters_become_our_options() {
        let tests = parse(LIST);
        let line = tests[0].arguments(Path::new("/t")).join(" ");
        assert!(line.ends_with("-kernel /t/x86/apic.flat -smp 2 -cpu qemu64,+x2apic,-pcid -m 2048"), "{line}");
        assert!(tests[2].arguments(Path::new("/t")).join(" ").ends_with("-append -a b"));
    }

    #[test]
    fn runs_that_differ_fail() {
        let run = |errors: &str| Ok(Run { status: Some(Some(1)), console: String::new(), errors: errors.into() });
        assert_eq!(compare([run("digest: a"), run("digest: a")]).unwrap(), Outcome::Pass);
        assert!(
            matches!(compare([run("digest: a"), run("digest: b")]), Ok(Outcome::Fail(why)) if why.contains("differ"))
        );
    }

    #[test]
    fn statuses_are_those_of_the_debug_exit_port() {
        assert_eq!(judge(Some(Some(1)), "", ""), Outcome::Pass);
        assert!(matches!(judge(Some(Some(155)), "", ""), Outcome::Skip(_)));
        assert!(matches!(judge(Some(Some(3)), "FAIL: a", ""), Outcome::Fail(why) if why.contains("FAIL: a")));
        assert!(matches!(judge(None, "", ""), Outcome::Fail(_)));
    }
}
