//! Developer commands: `cargo xtask --help`.
#![forbid(unsafe_code)]

use clap::{Parser, Subcommand};
use std::process::ExitCode;

mod bench;
mod bochs;
mod conformance;
mod costs;
mod fuzz;
mod hypervisor;
mod image;
mod kvm_selftests;
mod kvm_unit_tests;
mod outcome;
mod program;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Developer commands")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Time our machine and QEMU's TCG on the same kernel and initramfs and print both side by side.
    Bench(bench::Arguments),
    /// Run the VT-x conformance tests on our machine or in Bochs.
    Conformance(conformance::Arguments),
    /// Measure what the hypervisor costs: exits, packets, the task priority, a second level.
    Costs(costs::Arguments),
    /// Fuzz a target under libFuzzer, guided by coverage; without a target, list them.
    Fuzz(fuzz::Arguments),
    /// Run the hypervisor with its demo's guests in Bochs.
    Hypervisor(hypervisor::Arguments),
    /// Write the initramfs images of the tests below target/guests and print how to boot them.
    Image(image::Arguments),
    /// Run the KVM selftests of the kernel's source, built in a directory, in Debian's kernel on our machine.
    KvmSelftests(kvm_selftests::Arguments),
    /// Run the x86 tests of kvm-unit-tests, built in a directory, on our machine.
    KvmUnitTests(kvm_unit_tests::Arguments),
}

fn main() -> ExitCode {
    if fuzz::is_compiler() {
        return fuzz::compile();
    }
    let result = match Arguments::parse().command {
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Conformance(arguments) => conformance::run(&arguments),
        Command::Costs(arguments) => costs::run(&arguments),
        Command::Fuzz(arguments) => fuzz::run(&arguments),
        Command::KvmSelftests(arguments) => kvm_selftests::run(&arguments),
        Command::Hypervisor(arguments) => hypervisor::run(&arguments),
        Command::KvmUnitTests(arguments) => kvm_unit_tests::run(&arguments),
        Command::Image(arguments) => image::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::from(2)
        }
    }
}
