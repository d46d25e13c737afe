//! The state of a machine taken in the middle of its work, and another machine that goes on from it.

mod common;

use common::kernel;
use devices::ports::Output;
use devices::storage::MemoryStorage;
use guests::images;
use machine::{Boot, Config, Disk, Machine, NoHost, Outcome, Sata};
use std::sync::{Arc, Mutex};

/// What a serial port sent.
#[derive(Clone, Default)]
struct Record(Arc<Mutex<Vec<u8>>>);

impl Output for Record {
    fn write(&mut self, bytes: &[u8]) {
        self.0.lock().expect("nobody panicked").extend_from_slice(bytes);
    }
}

impl Record {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("nobody panicked")).into_owned()
    }
}

fn machine(initrd: &[u8]) -> (Machine, Record) {
    let record = Record::default();
    let mut config = Config::new(Boot::Direct {
        name: "vmlinuz".into(),
        kernel: std::fs::read(&kernel().image).expect("Debian's kernel"),
        initrd: Some(initrd.to_vec()),
        initrd_name: "initrd".into(),
        command_line: format!("console=ttyS0 panic=-1 vp.run={}", images::SCRIPT),
    });
    let disk = |serial: &str| Disk { storage: Box::new(MemoryStorage::new(8 << 20)), serial: serial.into() };
    config.processors = 2;
    config.memory = 256 << 20;
    config.serial = vec![Box::new(record.clone())];
    config.disks = vec![disk("virtio")];
    config.sata = vec![Sata::Disk(disk("sata"))];
    (Machine::new(config).expect("a machine"), record)
}

#[test]
fn another_machine_goes_on_from_the_state_of_the_first() {
    // Both disks are written, both processors work and timers run while the state is taken.
    let script = "echo working\n\
                  for d in vda sda; do (seq 1 100000 | dd of=/dev/$d bs=4k count=40 2>/dev/null; sync) & done\n\
                  seq 1 20000 | sha256sum; wait\n\
                  sha256sum /dev/vda /dev/sda; cat /proc/interrupts; sleep 1; date";
    let initrd = images::with_script(kernel(), script).unwrap().finish();
    let (mut first, first_console) = machine(&initrd);
    while !first_console.text().contains("working") {
        let limit = first.instructions() + 10_000_000;
        assert_eq!(first.run(&mut NoHost, Some(limit)), Outcome::InstructionLimit, "{}", first_console.text());
    }
    let (state, memory) = (first.save(), first.save_memory());
    let digest = first.digest();
    let before = first_console.text().len();

    let (mut second, second_console) = machine(&initrd);
    second.restore(&state, &memory).unwrap();
    assert_eq!(second.save(), state);
    assert_eq!(second.digest(), digest);
    let before_second = second_console.text().len();

    assert_eq!(first.run(&mut NoHost, None), Outcome::PowerOff);
    // Cut into pieces, which must make no difference either.
    loop {
        let limit = second.instructions() + 33_333_333;
        match second.run(&mut NoHost, Some(limit)) {
            Outcome::InstructionLimit => {}
            outcome => break assert_eq!(outcome, Outcome::PowerOff),
        }
    }
    assert_eq!(first_console.text()[before..], second_console.text()[before_second..]);
    assert_eq!(first.instructions(), second.instructions());
    assert_eq!(first.digest(), second.digest());
}

#[test]
fn a_machine_with_other_devices_refuses_the_state() {
    let (first, _) = machine(&[]);
    let mut config = Config::new(Boot::Direct {
        name: "vmlinuz".into(),
        kernel: std::fs::read(&kernel().image).expect("Debian's kernel"),
        initrd: None,
        initrd_name: String::new(),
        command_line: String::new(),
    });
    config.processors = 2;
    let mut second = Machine::new(config).expect("a machine");
    assert!(second.restore(&first.save(), &first.save_memory()).is_err());
}
