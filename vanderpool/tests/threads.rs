//! The parallel mode: a thread for each processor.

mod common;

use common::{BOOT_LIMIT, Run, boot_arguments, kernel, run, temporary};
use guests::{images, programs};
use std::time::Duration;

/// Boots with `--threads` and runs `script`, with the program `guests/c/threads.c` at hand.
fn threads(name: &str, engine: &str, cpus: usize, script: &str, limit: Duration) -> Run {
    let mut image = images::with_script(kernel(), script).unwrap();
    image.file("bin/threads", 0o755, &programs::build("threads").unwrap());
    let mut arguments = boot_arguments(&format!("threads-{name}"), image);
    arguments.extend(["--threads", "--engine", engine, "--cpus", &cpus.to_string()].map(str::to_owned));
    run(&arguments, limit)
}

#[test]
fn translated_threads_share_memory() {
    threads("translated", "translator", 2, "threads 2 5 && threads 3 3", BOOT_LIMIT)
        .expect("rounds of 2 threads, 0 failures")
        .expect("rounds of 3 threads, 0 failures")
        .expect_success();
}

#[test]
fn interpreted_threads_share_memory() {
    threads("interpreted", "interpreter", 2, "threads 2 3", BOOT_LIMIT)
        .expect("rounds of 2 threads, 0 failures")
        .expect_success();
}

#[test]
fn more_processors_than_the_host_may_have() {
    threads("many", "translator", 6, "nproc; threads 6 2", BOOT_LIMIT)
        .expect("\n6\r\n")
        .expect("rounds of 6 threads, 0 failures")
        .expect_success();
}

#[test]
fn a_machine_with_threads_starts_again() {
    let disk = temporary("threads-again.img", &[0; 4096]);
    let script =
        "if [ -z \"$(tr -d '\\000' </dev/vda)\" ]; then echo once >/dev/vda; sync; reboot -f; sleep 60; fi; echo twice";
    let mut arguments = boot_arguments("threads-again", images::with_script(kernel(), script).unwrap());
    arguments.extend(["--threads", "--cpus", "2", "--disk", disk.to_str().unwrap()].map(str::to_owned));
    let run = run(&arguments, 2 * BOOT_LIMIT);
    assert_eq!(run.expect("twice").console.matches("vanderpool: ready").count(), 2);
    run.expect_success();
}

#[test]
fn the_hypervisor_s_guests_run_on_threads() {
    run(&["run", "demo", "--threads"], BOOT_LIMIT)
        .expect_status(0)
        .expect("[real] 1438 primes below 12000")
        .expect("[long] 500 interrupts sent to the other processor and answered")
        .expect("[protected] 100 interrupts of the timer");
}

#[test]
fn qemu_s_command_line_asks_for_threads() {
    let mut image = images::with_script(kernel(), "threads 2 1").unwrap();
    image.file("bin/threads", 0o755, &programs::build("threads").unwrap());
    let initrd = images::write("threads-qemu", image).unwrap();
    let append = format!("console=ttyS0 vp.run={}", images::SCRIPT);
    let words = "qemu -accel tcg,thread=multi -smp 2 -m 512 -nodefaults -serial stdio -display none -no-reboot";
    let mut arguments: Vec<&str> = words.split(' ').collect();
    arguments.extend(["-kernel", kernel().image.to_str().unwrap(), "-initrd", initrd.to_str().unwrap()]);
    arguments.extend(["-append", &append]);
    run(&arguments, BOOT_LIMIT).expect("rounds of 2 threads, 0 failures").expect_success();
}

#[test]
fn what_needs_the_same_run_every_time_is_refused() {
    for option in
        [&["--digest"][..], &["--check-engines"], &["--gdb"], &["--trace", "x"], &["--explain"], &["--iommu", "on"]]
    {
        let arguments = [&["boot", "--debian", "--threads"][..], option].concat();
        let run = run(&arguments, BOOT_LIMIT);
        assert!(run.errors.contains("cannot be used with"), "{option:?}: {}", run.errors);
        assert_eq!(run.status, Some(2));
    }
}

#[test]
#[ignore = "takes ten minutes"]
fn threads_share_memory_for_ten_minutes() {
    threads("long", "translator", 2, "threads 2 600", Duration::from_secs(1200))
        .expect("rounds of 2 threads, 0 failures")
        .expect_success();
}
