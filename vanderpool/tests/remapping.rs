//! What operating systems use VT-d for (`guests/remapping`), on our machine.

use guests::bare;
use machine::{Boot, Config, Iommu, Machine, NoHost, Outcome};
use std::fs;
use std::sync::{Arc, Mutex};

/// Instructions after which the run is stuck: it takes some 1,000 million, most of them while a guest waits for 200,000 interrupts.
const LIMIT: u64 = 8_000_000_000;

#[derive(Clone, Default)]
struct Console(Arc<Mutex<Vec<u8>>>);

impl devices::ports::Output for Console {
    fn write(&mut self, bytes: &[u8]) {
        self.0.lock().unwrap().extend_from_slice(bytes);
    }
}

/// Runs the program with this command line; its console has the lines expected.
fn run(command_line: &str, expected: &[&str]) {
    let boot = Boot::Direct {
        name: "remapping".into(),
        kernel: fs::read(bare::build("remapping").unwrap()).unwrap(),
        initrd: None,
        initrd_name: String::new(),
        command_line: command_line.into(),
    };
    let console = Console::default();
    let mut config = Config::new(boot);
    // Some of it above 4 GiB.
    config.memory = 3 << 30;
    config.test_devices.debug_exit = true;
    config.reboot = false;
    config.dma_testers = 2;
    let mut iommu = Iommu::default();
    (iommu.unit.scalable_mode, iommu.unit.device_tlb, iommu.unit.page_requests) = (true, true, true);
    config.iommu = Some(iommu);
    config.serial = vec![Box::new(console.clone())];
    let outcome = Machine::new(config).unwrap().run(&mut NoHost, Some(LIMIT));
    let console = String::from_utf8_lossy(&console.0.lock().unwrap()).into_owned();
    assert_eq!(outcome, Outcome::DebugExit(1), "{console}");
    let posting = [
        "     posted: 100000 interrupts, VM exits: 0 external interrupt, 1 VMCALL, 0 other",
        "     remapped: 100000 interrupts, VM exits: 100000 external interrupt, 1 VMCALL, 0 other",
    ];
    for line in posting.iter().chain(expected) {
        assert!(console.lines().any(|found| found.trim_end() == *line), "no {line:?} in\n{console}");
    }
}

#[test]
fn every_use_of_legacy_mode_works() {
    let cases = ["protection", "narrow addresses", "isolation", "translated addresses", "peer to peer"];
    let expected = cases.map(|case| format!("ok   Legacy {case}"));
    let mut expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    expected.push("remapping: 9 ok, 0 failed");
    run("", &expected);
}

#[test]
fn every_use_of_scalable_mode_works() {
    let cases = ["protection", "narrow addresses", "isolation", "shared virtual memory", "a page that is refused"];
    let expected = cases.map(|case| format!("ok   Scalable {case}"));
    let mut expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    expected.push("remapping: 12 ok, 0 failed");
    run("scalable", &expected);
}
