//! The same machine gives the same run: console bytes, instruction count, digest of registers and memory.

mod common;

use common::{BOOT_LIMIT, boot_arguments, kernel, run};
use guests::images;

fn same_twice(cpus: usize) {
    // Work on every processor at once, and things whose value would tell a machine with a clock or random numbers of its own.
    let script = "for i in 1 2 3 4; do (seq 1 2000 | sha256sum) & done; wait\n\
                  head -c 16 /dev/urandom | xxd\ncat /proc/uptime /proc/interrupts\ndate";
    let mut arguments = boot_arguments(&format!("determinism-{cpus}"), images::with_script(kernel(), script).unwrap());
    arguments.extend(["--cpus", &cpus.to_string(), "--memory", "512M", "--digest", "--stats"].map(str::to_owned));
    let first = run(&arguments, BOOT_LIMIT);
    first.expect_success();
    let second = run(&arguments, BOOT_LIMIT);
    assert_eq!(first.console, second.console);
    assert_eq!(first.reported("instructions:"), second.reported("instructions:"));
    assert_eq!(first.reported("digest:"), second.reported("digest:"));
}

#[test]
fn one_processor_runs_the_same_twice() {
    same_twice(1);
}

#[test]
fn four_processors_run_the_same_twice() {
    same_twice(4);
}

#[test]
fn another_machine_has_another_digest() {
    let digest = |script| {
        let mut arguments = boot_arguments(&format!("digest-{script}"), images::with_script(kernel(), script).unwrap());
        arguments.extend(["--max-instructions", "20000000", "--digest"].map(str::to_owned));
        run(&arguments, BOOT_LIMIT)
            .expect_status(i32::from(vanderpool::exit_status::INSTRUCTION_LIMIT))
            .reported("digest:")
            .to_owned()
    };
    // The images differ in one letter.
    assert_ne!(digest("true"), digest("tru3"));
    assert_eq!(digest("true"), digest("true"));
}
