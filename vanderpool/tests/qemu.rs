//! QEMU's command line, as scripts use it.

use guests::bare;
use std::path::Path;
use std::process::{Command, Output};

/// Runs the command under the name `qemu-system-x86_64`.
fn qemu(arguments: &[&str]) -> Output {
    let link = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{:?}", std::thread::current().id()));
    std::fs::create_dir_all(&link).expect("a directory");
    let link = link.join("qemu-system-x86_64");
    // One from an earlier run leads to the same place, or is replaced.
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_vanderpool"), &link).expect("a link");
    Command::new(&link).args(arguments).output().expect("the command starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_test_program_runs_as_kvm_unit_tests_runs_its_own() {
    let kernel = bare::build("conformance").expect("the program builds").display().to_string();
    let line = "--no-reboot -nodefaults -global kvm-pit.lost_tick_policy=discard -device pc-testdev \
                -device isa-debug-exit,iobase=0xf4,iosize=0x4 -display none -serial stdio -device pci-testdev \
                -machine accel=tcg -smp 1 -cpu max,+vmx -m 64 -device edu -kernel";
    let mut arguments: Vec<&str> = line.split_whitespace().collect();
    arguments.push(&kernel);
    let output = qemu(&arguments);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    assert!(output.stderr.is_empty(), "the runner takes any word for a failure of QEMU's: {}", text(&output.stderr));
    let console = text(&output.stdout);
    assert!(!console.is_empty() && !console.lines().any(|line| line.starts_with("FAIL")), "{console}");
}

#[test]
fn probes_and_refusals_are_what_scripts_expect() {
    let version = qemu(&["-version"]);
    assert!(version.status.success() && text(&version.stdout).starts_with("QEMU emulator version "));
    let devices = qemu(&["-device", "?"]);
    assert!(text(&devices.stdout).contains("name \"pc-testdev\""));
    for (arguments, words) in [
        (&["-kernel", "/none"][..], "could not open kernel file '/none'"),
        (&["-kernel", "/none", "-cpu", "max,+svm"][..], "svm"),
        (&["-device", "intel-hda"][..], "intel-hda"),
        (&["-nonsense"][..], "-nonsense: invalid option"),
        (&["-engine", "steam"][..], "interpreter and translator"),
        (&["-accel", "tcg,thread=some"][..], "single and multi"),
        (&["-accel", "tcg,thread=multi", "-s"][..], "not with -gdb"),
    ] {
        let output = qemu(arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(said.contains(words) && said.lines().count() == 1, "{arguments:?}: {said}");
    }
}
