//! One run, whichever engine: console, instruction count, digest of registers, devices and memory.

mod common;

use common::{BOOT_LIMIT, boot_arguments, cache, kernel, run};
use devices::ports::Output;
use guests::{bare, images};
use machine::{Boot, Config, Engine, Machine, NoHost, Outcome, TestDevices};
use processor::models::Model;
use processor::translator::Tuning;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vanderpool::initramfs::Initramfs;

/// Boots an image to its end on both engines, which give the same. Returns the console.
fn alike(name: &str, image: &dyn Fn() -> Initramfs, options: &[&str], limit: Duration) -> String {
    let of = |engine: &str| {
        let mut arguments = boot_arguments(&format!("engines-{name}-{engine}"), image());
        arguments.extend(options.iter().chain(&["--engine", engine, "--digest", "--stats"]).map(|&one| one.to_owned()));
        let run = run(&arguments, limit);
        run.expect_success();
        (run.reported("instructions:").to_owned(), run.reported("digest:").to_owned(), run.console)
    };
    let first = of("interpreter");
    assert_eq!(first, of("translator"));
    first.2
}

/// Boots Debian's kernel, has it do some work and powers it off, on both engines.
fn boots_alike(cpus: usize, model: &str) {
    let script = "for i in 1 2 3 4; do (seq 1 2000 | sha256sum) & done; wait\ncat /proc/interrupts";
    let image = || images::with_script(kernel(), script).unwrap();
    let options = ["--cpu", model, "--cpus", &cpus.to_string(), "--memory", "512M"];
    alike(&cpus.to_string(), &image, &options, BOOT_LIMIT);
}

#[test]
fn debian_boots_alike_on_one_processor() {
    boots_alike(1, "icelake-server");
}

/// The kernel has the full model detect bus locks of user code.
#[test]
fn debian_boots_alike_on_four_processors() {
    boots_alike(4, "full");
}

/// Debian's KVM and QEMU boot the same kernel as L2, on two processors.
#[test]
#[ignore = "boots Debian in Debian by the interpreter too: a minute"]
fn debian_in_debian_boots_alike() {
    let script = "echo L2: $(uname -s) $(grep -c hypervisor /proc/cpuinfo); seq 1 1000 | sha256sum";
    let image = || {
        let guest = images::with_script(kernel(), script).unwrap();
        images::nested(cache(), kernel(), guest, "-m 256M").unwrap()
    };
    let console = alike("nested", &image, &["--memory", "1G", "--cpus", "2"], Duration::from_secs(1200));
    assert!(
        console.contains("L2: Linux 1")
            && console.contains("67d4ff71d43921d5739f387da09746f405e425b07d727e4c69d029461d1f051f"),
        "{console}"
    );
}

#[derive(Clone, Default)]
struct Console(Arc<Mutex<Vec<u8>>>);

impl Output for Console {
    fn write(&mut self, bytes: &[u8]) {
        self.0.lock().unwrap().extend_from_slice(bytes);
    }
}

/// VT-x: VM entries that fail and that do not, exits, EPT, controls, translated in both worlds.
#[test]
fn the_conformance_tests_run_alike() {
    let kernel = fs::read(bare::build("conformance").unwrap()).unwrap();
    let of = |model: &Model, engine: Engine, tuning: Tuning| {
        let console = Console::default();
        let mut config = Config::new(Boot::Direct {
            name: "conformance".into(),
            kernel: kernel.clone(),
            initrd: None,
            initrd_name: String::new(),
            command_line: String::new(),
        });
        config.model = model.clone();
        config.memory = 64 << 20;
        config.test_devices = TestDevices::ALL;
        config.reboot = false;
        (config.engine, config.tuning) = (engine, tuning);
        config.serial = vec![Box::new(console.clone())];
        let mut machine = Machine::new(config).unwrap();
        let outcome = machine.run(&mut NoHost, Some(400_000_000));
        let text = String::from_utf8_lossy(&console.0.lock().unwrap()).into_owned();
        (outcome, machine.instructions(), machine.digest(), text)
    };
    for model in Model::ALL.iter().filter(|model| model.has(spec::x86::cpuid::Feature::VMX)) {
        let ours = of(model, Engine::Interpreter, Tuning::default());
        assert_eq!(ours.0, Outcome::DebugExit(1), "{}", ours.3);
        assert_eq!(ours, of(model, Engine::Translator, Tuning::default()), "{}", model.name);
    }
    let full = Model::named("full").unwrap();
    assert_eq!(of(&full, Engine::Interpreter, Tuning::default()), of(&full, Engine::Translator, WITHOUT_BMI2));
}

/// The form for hosts without BMI2.
const WITHOUT_BMI2: Tuning = Tuning { threshold: 2, unlike: false, without_bmi2: true };

/// The first 600 million instructions of Debian's boot: the kernel's decompression, and its first second.
#[test]
fn debian_boots_alike_without_bmi2() {
    let kernel = kernel();
    let of = |engine: Engine| {
        let console = Console::default();
        let mut config = Config::new(Boot::Direct {
            name: "kernel".into(),
            kernel: fs::read(&kernel.image).unwrap(),
            initrd: None,
            initrd_name: String::new(),
            command_line: "console=ttyS0 earlyprintk=ttyS0".into(),
        });
        (config.engine, config.tuning) = (engine, WITHOUT_BMI2);
        config.memory = 256 << 20;
        config.serial = vec![Box::new(console.clone())];
        let mut machine = Machine::new(config).unwrap();
        let outcome = machine.run(&mut NoHost, Some(600_000_000));
        let text = String::from_utf8_lossy(&console.0.lock().unwrap()).into_owned();
        (outcome, machine.instructions(), machine.digest(), text)
    };
    assert_eq!(of(Engine::Interpreter), of(Engine::Translator));
}

/// No memory of the process can be both written and executed while translations run.
#[test]
#[cfg(target_os = "linux")]
fn no_memory_is_writable_and_executable() {
    let mut config = Config::new(Boot::Direct {
        name: "conformance".into(),
        kernel: fs::read(bare::build("conformance").unwrap()).unwrap(),
        initrd: None,
        initrd_name: String::new(),
        command_line: String::new(),
    });
    config.memory = 64 << 20;
    config.test_devices = TestDevices::ALL;
    config.engine = Engine::Translator;
    let mut machine = Machine::new(config).unwrap();
    machine.run(&mut NoHost, Some(3_000_000));
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let code: Vec<_> = maps.lines().filter(|line| line.contains("vanderpool-code")).collect();
    if processor::translator::supported() {
        assert!(
            code.iter().any(|line| line.contains(" r-xs ")) && code.iter().any(|line| line.contains(" rw-s ")),
            "{maps}"
        );
    }
    for line in maps.lines() {
        let rights = line.split_whitespace().nth(1).unwrap_or_default();
        assert!(!(rights.contains('w') && rights.contains('x')), "{line}");
    }
}
