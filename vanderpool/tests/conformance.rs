//! The conformance tests (`guests/conformance`) on our machine.

use guests::bare;
use machine::{Boot, Config, Machine, NoHost, Outcome, TestDevices};
use processor::models::Model;
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

#[track_caller]
fn passes(model: &str) {
    let (status, console) = run(model, "", |_, _| {});
    let failed: Vec<_> = console.lines().filter(|line| line.starts_with("FAIL")).collect();
    assert!(failed.is_empty(), "{model}:\n{}", failed.join("\n"));
    assert_eq!(status, 1, "{model}:\n{console}");
}

#[test]
fn every_model_with_vmx_conforms() {
    for model in Model::ALL.iter().filter(|model| model.has(spec::x86::cpuid::Feature::VMX)) {
        passes(model.name);
    }
}

/// From outside, the checks of one group look alike; inside, each has its name.
#[test]
fn each_vmcs_fails_exactly_the_check_that_it_is_made_for() {
    const FIRST: u32 = 0x100;
    let mut wrong = Vec::new();
    let mut count = 0;
    run(Model::default_model().name, "signal", |machine, number| {
        let meant = u16::try_from(number - FIRST).unwrap();
        let failed = machine.processors()[0].vmx.last_failed_check;
        count += 1;
        if failed.is_none_or(|failed| failed.check as u16 != meant) {
            wrong.push(format!("check {meant}, but {failed:?} failed"));
        }
    });
    assert!(count > 150, "{count} checks failed");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
