//! A guest that makes its hypervisor work, in a known number of each kind: CPUID, and OUT to a device and to nothing.
#![cfg_attr(panic = "abort", no_std, no_main)]
#![cfg_attr(panic = "abort", allow(unsafe_code, reason = "the entry's name is fixed"))]
#![cfg_attr(not(panic = "abort"), allow(dead_code, unused_imports, reason = "there is nothing to run"))]

use bare::{cpu, println};

bare::program!(run, "`vanderpool run` runs it");

const TIMES: u32 = 10_000;
/// The scratch register of the first serial port: a device that does nothing more with it.
const SCRATCH: u16 = 0x3ff;

fn run() -> ! {
    for _ in 0..TIMES {
        let _ = cpu::cpuid(1, 0);
    }
    for n in 0..TIMES {
        cpu::output8(SCRATCH, n as u8);
    }
    println!("{TIMES} times CPUID, {TIMES} times OUT to port {SCRATCH:#x}");
    cpu::end(0)
}
