//! The parallel mode: a thread for each processor.

mod common;

use common::{BOOT_LIMIT, Run, boot_arguments, kernel, run};
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
    threads("translated", "translator", 2, "threads 2 10 && threads 3 5", BOOT_LIMIT)
        .expect("rounds of 2 threads, 0 failures")
        .expect("rounds of 3 threads, 0 failures")
        .expect_success();
}

#[test]
fn interpreted_threads_share_memory() {
    threads("interpreted", "interpreter", 2, "threads 2 10", BOOT_LIMIT)
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
#[ignore = "takes ten minutes"]
fn threads_share_memory_for_ten_minutes() {
    threads("long", "translator", 2, "threads 2 600", Duration::from_secs(1200))
        .expect("rounds of 2 threads, 0 failures")
        .expect_success();
}
