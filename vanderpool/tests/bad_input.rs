//! Bad input gives one clear line and exit status 2, and no guest takes the process down.

mod common;

use common::{kernel, run, temporary};
use std::fs;
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// The command refuses these arguments with one line that has `words`.
#[track_caller]
fn refused(arguments: &[&str], words: &[&str]) {
    let run = run(arguments, LIMIT);
    run.expect_status(2);
    let lines: Vec<_> = run.errors.lines().collect();
    assert_eq!(lines.len(), 1, "one line, not {:?}", run.errors);
    for word in words {
        assert!(lines[0].contains(word), "no {word:?} in {:?}", lines[0]);
    }
    assert_eq!(run.console, "");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Bytes that look like nothing, from a small generator (xorshift).
fn random(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

#[test]
fn files_that_are_not_there_are_named() {
    refused(&["boot", "--kernel", "/nowhere/vmlinuz"], &["/nowhere/vmlinuz"]);
    let image = text(&kernel().image);
    refused(&["boot", "--kernel", image, "--initrd", "/nowhere/initrd"], &["/nowhere/initrd"]);
    refused(&["boot", "--kernel", image, "--disk", "/nowhere/disk"], &["/nowhere/disk"]);
    refused(&["boot", "--firmware", "/nowhere/bios.bin"], &["/nowhere/bios.bin"]);
    refused(&["boot", "--kernel", image, "--serial", "file:/nowhere/log"], &["/nowhere/log"]);
    refused(&["boot", "--kernel", "/"], &["/"]);
}

#[test]
fn kernels_that_are_none_are_refused() {
    let empty = temporary("empty", b"");
    refused(&["boot", "--kernel", text(&empty)], &[text(&empty)]);
    for seed in 1..5 {
        let noise = temporary(&format!("noise-{seed}"), &random(seed, 100_000));
        refused(&["boot", "--kernel", text(&noise)], &[text(&noise)]);
    }
}

#[test]
fn truncated_kernels_are_refused() {
    let whole = fs::read(&kernel().image).unwrap();
    for length in [1, 100, 0x1f0, 0x210, 0x240, 0x1000, whole.len() / 2, whole.len() - 64 * 1024] {
        let cut = temporary(&format!("cut-{length}"), &whole[..length]);
        refused(&["boot", "--kernel", text(&cut)], &[text(&cut)]);
    }
}

#[test]
fn elf_kernels_that_are_cut_or_lie_are_refused() {
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(64, 0);
    let path = temporary("elf-head", &elf);
    refused(&["boot", "--kernel", text(&path)], &[text(&path)]);
    // 65535 program headers far beyond the end.
    elf[18] = 62;
    elf[32..40].copy_from_slice(&0xffff_ffff_ffff_ff00_u64.to_le_bytes());
    elf[54..56].copy_from_slice(&56_u16.to_le_bytes());
    elf[56..58].copy_from_slice(&0xffff_u16.to_le_bytes());
    let path = temporary("elf-lies", &elf);
    refused(&["boot", "--kernel", text(&path)], &[text(&path)]);
}

#[test]
fn what_does_not_fit_in_memory_is_refused() {
    let image = text(&kernel().image);
    let large = temporary("large-initrd", b"");
    fs::File::options().write(true).open(&large).unwrap().set_len(3 << 30).unwrap();
    refused(&["boot", "--kernel", image, "--initrd", text(&large), "--memory", "256M"], &["memory"]);
    refused(&["boot", "--kernel", image, "--memory", "4K"], &["memory"]);
    refused(&["boot", "--kernel", image, "--memory", "900000G"], &["memory"]);
    let line = "x".repeat(100_000);
    refused(&["boot", "--kernel", image, "--append", &line], &["command line"]);
}

#[test]
fn numbers_and_names_out_of_range_are_refused() {
    let image = text(&kernel().image);
    refused(&["boot", "--kernel", image, "--cpus", "0"], &["processor"]);
    refused(&["boot", "--kernel", image, "--cpus", "100000"], &["processor"]);
    refused(&["boot", "--kernel", image, "--cpu", "z80"], &["z80", "icelake-server"]);
    refused(&["cpus", "z80"], &["z80"]);
}

#[test]
fn the_argument_parser_uses_status_2_too() {
    for arguments in [
        &["boot"][..],
        &["boot", "--debian", "--kernel", "k"],
        &["boot", "--debian", "--memory", "lots"],
        &["fly"],
        &["run", "no-such-machine.toml"],
    ] {
        run(arguments, LIMIT).expect_status(2);
    }
}

#[test]
fn a_qcow2_image_that_lies_is_refused() {
    let image = text(&kernel().image);
    let mut head = b"QFI\xfb\0\0\0\x03".to_vec();
    head.resize(104, 0xff);
    let path = temporary("lies.qcow2", &head);
    refused(&["boot", "--kernel", image, "--disk", text(&path)], &[text(&path)]);
}

#[test]
fn a_firmware_of_noise_ends_without_taking_the_process_down() {
    for seed in 10..14 {
        let noise = temporary(&format!("firmware-{seed}"), &random(seed, 128 << 10));
        let run =
            run(&["boot", "--firmware", text(&noise), "--memory", "64M", "--max-instructions", "20000000"], LIMIT);
        let status = run.status.unwrap_or(-1);
        // Whatever it did, the machine ended it: a triple fault, a halt, the limit.
        assert!([0, 4, 6, 8].contains(&status), "{run:?}");
    }
}
