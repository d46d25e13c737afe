//! The conformance tests (`guests/conformance`) on our machine.

use guests::bare;
use machine::{Boot, Config, Machine, NoHost, Outcome, TestDevices};
use processor::models::Model;
use std::collections::BTreeSet;
use std::fs;
use std::sync::{Arc, Mutex};

/// Instructions after which a run is stuck: one takes some millions.
const LIMIT: u64 = 400_000_000;

#[derive(Clone, Default)]
struct Console(Arc<Mutex<Vec<u8>>>);

impl devices::ports::Output for Console {
    fn write(&mut self, bytes: &[u8]) {
        self.0.lock().unwrap().extend_from_slice(bytes);
    }
}

/// Runs the program on a processor of `model`; `signalled` gets each number told through isa-debug-exit. Returns the exit status and the
/// console.
fn run(model: &str, command_line: &str, mut signalled: impl FnMut(&Machine, u32)) -> (u32, String) {
    let kernel = fs::read(bare::build("conformance").unwrap()).unwrap();
    let boot = Boot::Direct {
        name: "conformance".into(),
        kernel,
        initrd: None,
        initrd_name: String::new(),
        command_line: command_line.into(),
    };
    let console = Console::default();
    let mut config = Config::new(boot);
    config.model = Model::named(model).unwrap();
    config.memory = 64 << 20;
    // The second one sends start-up IPIs.
    config.processors = 2;
    config.test_devices = TestDevices::ALL;
    config.reboot = false;
    config.serial = vec![Box::new(console.clone())];
    let mut machine = Machine::new(config).unwrap();
    let text = || String::from_utf8_lossy(&console.0.lock().unwrap()).into_owned();
    loop {
        match machine.run(&mut NoHost, Some(LIMIT)) {
            Outcome::DebugExit(status) if status >= 0x200 => signalled(&machine, status >> 1),
            Outcome::DebugExit(status) => return (status, text()),
            outcome => panic!("{outcome:?}\n{}", text()),
        }
    }
}

/// The models with VT-x, and some poorer ones, on which checks fail that others never come to.
fn models() -> Vec<String> {
    let with_vmx = Model::ALL.iter().filter(|model| model.has(spec::x86::cpuid::Feature::VMX));
    let poorer = ["full,-any-error-code,-inject-length-0,-ept-ad", "full,-misc.6,-misc.7,-misc.8"];
    with_vmx.map(|model| model.name.to_owned()).chain(poorer.map(str::to_owned)).collect()
}

/// Features of processors that no model has: cases for them are never run.
const NOWHERE: &[&str] = &[
    "GETSEC",
    "PtGuestPhysicalNeeds",
    "PasidDirectory",
    "SmmControlsOutsideSmm",
    "GuestBndcfgs",
    "GuestRtitCtl",
    "GuestLbrCtl",
    "GuestUinv",
];

/// The kind, name and number of the case that a line of the console is about.
fn case_of<'a>(line: &'a str, outcome: &str) -> Option<&'a str> {
    let case = line.strip_prefix(outcome)?.trim_start();
    Some(case.split_once(": ").map_or(case, |(case, _)| case).trim_end())
}

/// Every case passes where it can be run, and can be run on some model, and the check that each VMCS fails is the one whose name its case
/// has: from outside, the checks of one group look alike; inside, each has its name.
#[test]
fn every_case_is_run_somewhere_and_passes() {
    const FIRST: u32 = 0x100;
    let (mut run_somewhere, mut skipped) = (BTreeSet::new(), BTreeSet::new());
    for model in models() {
        let (mut wrong, mut count) = (Vec::new(), 0);
        let (status, console) = run(&model, "signal", |machine, number| {
            let meant = u16::try_from(number - FIRST).unwrap();
            let failed = machine.processors()[0].vmx.last_failed_check;
            count += 1;
            if failed.is_none_or(|failed| failed.check as u16 != meant) {
                wrong.push(format!("check {meant}, but {failed:?} failed"));
            }
        });
        assert!(wrong.is_empty(), "{model}:\n{}", wrong.join("\n"));
        assert!(count > 80, "{model}: {count} checks failed");
        let failed: Vec<_> = console.lines().filter(|line| line.starts_with("FAIL")).collect();
        assert!(failed.is_empty(), "{model}:\n{}", failed.join("\n"));
        assert_eq!(status, 1, "{model}:\n{console}");
        run_somewhere.extend(console.lines().filter_map(|line| case_of(line, "ok ")).map(str::to_owned));
        skipped.extend(console.lines().filter_map(|line| case_of(line, "skip ")).map(str::to_owned));
    }
    let never: Vec<_> = skipped.difference(&run_somewhere).collect();
    let unknown = |case: &&&String| !NOWHERE.iter().any(|name| case.contains(name));
    let unknown: Vec<_> = never.iter().filter(unknown).collect();
    assert!(unknown.is_empty(), "skipped on every model: {unknown:?}");
    let outdated: Vec<_> = NOWHERE.iter().filter(|name| !never.iter().any(|case| case.contains(**name))).collect();
    assert!(outdated.is_empty(), "run on some model: {outdated:?}");
}
