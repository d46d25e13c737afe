//! 64-bit mode with two processors that exchange interrupts; "x2apic" on the command line: by local APICs in x2APIC mode.
#![cfg_attr(panic = "abort", no_std, no_main)]
#![cfg_attr(panic = "abort", allow(unsafe_code, reason = "the entry's name is fixed"))]
#![cfg_attr(not(panic = "abort"), allow(dead_code, reason = "there is nothing to run"))]

use bare::processors::{self, Tables};
use bare::{cpu, exceptions, memory, multiboot, println};

bare::program!(run, "`vanderpool run` runs it");

const PING: u8 = 0x50;
const PONG: u8 = 0x51;
const ROUNDS: u32 = 500;

/// Sends `vector` to the processor with this local APIC.
fn send(apic: u32, vector: u8) {
    if in_x2apic_mode() {
        let _ = cpu::write_msr(ICR, u64::from(apic) << 32 | 0x4000 | u64::from(vector));
        return;
    }
    memory::write_apic(0x310, apic << 24);
    memory::write_apic(0x300, 0x4000 | u32::from(vector));
}

const APIC_BASE: u32 = 0x1b;
const X2APIC: u64 = 1 << 10;
const ICR: u32 = 0x830;

fn in_x2apic_mode() -> bool {
    multiboot::command_line_has("x2apic")
}

/// This processor's local APIC goes into x2APIC mode, if that is wanted.
fn choose_mode() {
    if in_x2apic_mode() {
        let _ = cpu::write_msr(APIC_BASE, cpu::read_msr(APIC_BASE).unwrap_or(0) | X2APIC);
        memory::use_x2apic();
    }
}

/// Waits until `vector` has come more than `seen` times.
fn wait(vector: u8, seen: u32) {
    while exceptions::interrupts(vector) <= seen {
        cpu::wait_for_interrupt();
    }
}

fn run() -> ! {
    let [_, _, features, _] = cpu::cpuid(1, 0);
    println!("64-bit mode, hypervisor bit {}", features >> 31);
    choose_mode();
    memory::write_apic(0xf0, 0x1ff);
    if in_x2apic_mode() {
        println!("local APIC in x2APIC mode, logical id {:#x}", memory::read_apic(0xd0));
    }
    processors::start_others(other, Some(1));
    for round in 0..ROUNDS {
        send(1, PING);
        wait(PONG, round);
        if (round + 1) % 100 == 0 {
            println!("{} interrupts sent to the other processor and answered", round + 1);
        }
    }
    cpu::end(0)
}

fn other(_: u32, _: Tables) -> ! {
    choose_mode();
    memory::write_apic(0xf0, 0x1ff);
    let mut seen = 0;
    loop {
        wait(PING, seen);
        seen += 1;
        send(0, PONG);
    }
}
