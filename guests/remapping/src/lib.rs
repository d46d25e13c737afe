//! What operating systems use VT-d for, as a program on bare metal that programs the remapping unit itself and has two `dma-tester`
//! functions (`docs/dma-tester.md`) do what devices do.
//!
//! | module | is |
//! | --- | --- |
//! | `unit` | the remapping unit: tables, registers, invalidation queue, page request queue |
//! | `tester` | a `dma-tester` |
//! | `domains` | protection, devices with narrow addresses, isolation |
//! | `sharing` | shared virtual memory: a process's address space, with recoverable page faults |
//! | `posting`, `code` | interrupts of an assigned device for a guest in VMX non-root operation, posted and not |
//!
//! Each case is one line on the console: `ok` or `FAIL`, its name, and what was wrong.
#![no_std]

pub mod code;
pub mod domains;
pub mod posting;
pub mod sharing;
pub mod tester;
pub mod unit;

use bare::{cpu, memory, multiboot, println};
use tester::Tester;
use unit::{Mode, Unit};

/// What a case found wrong.
pub type Verdict = Result<(), &'static str>;

/// Wrong, for this reason, unless `right`.
///
/// # Errors
/// The reason.
pub fn expect(right: bool, why: &'static str) -> Verdict {
    if right { Ok(()) } else { Err(why) }
}

/// Counts of the cases.
#[derive(Debug, Default)]
struct Report {
    passed: u32,
    failed: u32,
}

impl Report {
    fn case(&mut self, mode: Mode, name: &str, verdict: Verdict) {
        match verdict {
            Ok(()) => {
                self.passed += 1;
                println!("ok   {mode:?} {name}");
            }
            Err(why) => {
                self.failed += 1;
                println!("FAIL {mode:?} {name}: {why}");
            }
        }
    }
}

/// Runs every case, in scalable mode if the command line says so, and ends the run: 0 when none failed.
pub fn run() -> ! {
    let mut report = Report::default();
    let (Some(one), Some(two)) = (Tester::find(0), Tester::find(1)) else {
        println!("FAIL start: there are no two dma-testers");
        cpu::end(1);
    };
    let mode = if multiboot::command_line_has("scalable") { Mode::Scalable } else { Mode::Legacy };
    // The local APIC takes interrupts: the spurious-interrupt vector register's bit 8.
    memory::write_apic(0xf0, 0x1ff);
    let mut unit = match Unit::start(mode) {
        Ok(unit) => unit,
        Err(why) => {
            println!("FAIL start: {why}");
            cpu::end(1);
        }
    };
    report.case(mode, "protection", domains::protection(&mut unit, &one));
    report.case(mode, "narrow addresses", domains::narrow_addresses(&mut unit, &one));
    report.case(mode, "isolation", domains::isolation(&mut unit, &one, &two));
    report.case(mode, "translated addresses", domains::translated_addresses(&mut unit, &one));
    report.case(mode, "a function that does not answer", domains::silent_function(&mut unit, &one));
    report.case(mode, "peer to peer", domains::peer_to_peer(&mut unit, &one, &two));
    if mode == Mode::Scalable {
        report.case(mode, "shared virtual memory", sharing::shared_memory(&mut unit, &one));
        report.case(mode, "a page that is refused", sharing::refused_page(&mut unit, &one));
        report.case(mode, "a full queue of page requests", sharing::full_queue(&mut unit, &one));
    }
    report.case(mode, "posted interrupts", posting::posted(&mut unit, &one, true));
    report.case(mode, "interrupts that are not posted", posting::posted(&mut unit, &one, false));
    report.case(mode, "the end", unit.hardware.stop());
    println!("remapping: {} ok, {} failed", report.passed, report.failed);
    cpu::end(u8::from(report.failed != 0))
}
